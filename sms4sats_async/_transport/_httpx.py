"""httpx and httpx2, which share one interface."""

from __future__ import annotations

import importlib
import logging
import re
from typing import TYPE_CHECKING, Final, cast

from sms4sats_async._secrets import mask, quote
from sms4sats_async._wire import Response
from sms4sats_async.errors import ClientStateError, TransportError
from sms4sats_async.models import RequestOutcome

from ._seam import CONNECT_SHARE, Headers, Rule, read_body, translate

if TYPE_CHECKING:
    from types import ModuleType

    import httpx

    from sms4sats_async._wire import Request

_ORDER_ID: Final = re.compile(r"(orderId=)([^&\s]+)")
_NOT_SENT: Final = RequestOutcome.NOT_SENT


class Errors:
    """The map from one library's errors to ours."""

    def __init__(self, library: ModuleType) -> None:
        self.caught: tuple[type[Exception], ...] = (
            library.HTTPError,
            library.StreamError,
            library.InvalidURL,
            # Unmapped by httpcore: a broken TLS record arrives as ssl.SSLError.
            OSError,
        )
        self._timeouts: tuple[type[Exception], ...] = (library.TimeoutException,)
        self._rules: tuple[Rule, ...] = (
            (library.ConnectTimeout, _NOT_SENT, "no connection in time"),
            (library.ConnectError, _NOT_SENT, "no connection"),
            (library.PoolTimeout, _NOT_SENT, "no free connection in the HTTP client's pool"),
            # A proxy that refuses its tunnel has not passed anything on.
            (library.ProxyError, _NOT_SENT, "the proxy refused"),
            (library.UnsupportedProtocol, _NOT_SENT, "the HTTP client cannot use this URL"),
            (library.InvalidURL, _NOT_SENT, "the HTTP client cannot read this URL"),
        )

    def translate(self, error: Exception) -> TransportError:
        """Return our error for the library's."""
        return translate(error, self._rules, self._timeouts)


class _MaskOrderIds(logging.Filter):
    """Takes order ids out of the lines that httpx writes about each request at INFO."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                _ORDER_ID.sub(lambda found: found[1] + mask(found[2]), str(value))
                if "orderId=" in str(value)
                else value
                for value in record.args
            )
        return True


_MASK_ORDER_IDS: Final = _MaskOrderIds()


class HttpxTransport:
    """An `AsyncClient` that the caller owns; it is used as it is and never closed.

    It is typed as httpx's, and httpx2's looks the same from here.
    """

    def __init__(
        self, client: httpx.AsyncClient, library: str, base_url: str, api_key: str | None
    ) -> None:
        self._library = importlib.import_module(library)
        self._errors = Errors(self._library)
        self._client = client
        self._root = base_url
        self._headers = Headers(self._library.Headers, api_key)
        # httpx logs the whole URL of each request, order id included. Only a filter on its
        # logger reaches those lines; adding the same one again changes nothing.
        logging.getLogger(library).addFilter(_MASK_ORDER_IDS)

    async def send(self, request: Request, *, timeout: float) -> Response:
        """Send with the caller's client: his proxies, hooks and limits hold, his auth does not.

        A fresh request carries none of the headers, cookies and credentials that the client
        adds to its owner's own requests.
        """
        connect = timeout * CONNECT_SHARE
        try:
            answer = await self._client.send(
                self._library.Request(
                    request.method,
                    self._root + request.target,
                    headers=self._headers.of(request),
                    content=request.body,
                    extensions={"timeout": {"connect": connect, "pool": connect}},
                ),
                stream=True,
                auth=None,
                follow_redirects=False,
            )
            try:
                status = answer.status_code
                body = await read_body(cast("httpx.AsyncByteStream", answer.stream), status=status)
            finally:
                await answer.aclose()
        except self._errors.caught as error:
            raise self._errors.translate(error) from error
        except RuntimeError as error:
            raise _unusable(error) from error
        return Response(status, answer.headers, body)

    async def close(self) -> None:
        """Leave the client to its owner."""


def _unusable(error: RuntimeError) -> ClientStateError:
    return ClientStateError(
        f"the HTTP client cannot be used: {quote(str(error))} (is it closed, or another event "
        "loop's?)"
    )
