"""The only package that knows HTTP libraries: send and close, and an adapter for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from sms4sats_async.errors import InvalidArgumentError

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from httpx import AsyncClient

    from .base import Transport

__all__ = ["open_transport"]


def open_transport(http_client: object | None, *, base_url: str, api_key: str | None) -> Transport:
    """Return the adapter for an injected HTTP client, or our own where none is given.

    Each library is imported when it is used. An injected client is recognized by the module of its
    class, so a library that is not used need not be installed.

    Raises:
        InvalidArgumentError: An object that is none of the clients known here.
    """
    if http_client is None:
        from .own import OwnTransport  # noqa: PLC0415

        return OwnTransport(base_url, api_key)
    bases = type(http_client).__mro__
    kinds = {(base.__module__.partition(".")[0], base.__name__) for base in bases}
    if ("aiohttp", "ClientSession") in kinds:
        from .aiohttp import AiohttpTransport  # noqa: PLC0415

        return AiohttpTransport(cast("ClientSession", http_client), base_url, api_key)
    for library in ("httpx", "httpx2"):
        if (library, "AsyncClient") in kinds:
            from .httpx import HttpxTransport  # noqa: PLC0415

            return HttpxTransport(cast("AsyncClient", http_client), library, base_url, api_key)
    problem = (
        "http_client must be an httpx.AsyncClient, an httpx2.AsyncClient or an "
        f"aiohttp.ClientSession, not {type(http_client).__name__}"
    )
    raise InvalidArgumentError(problem)
