"""What goes over the wire, as plain values: a request, a response, and what may be repeated."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

MAXIMUM_BODY: Final = 1024 * 1024
"""Bytes of an answer that are read at most; a larger one is refused."""


class Safety(enum.Enum):
    """Which failures of an operation may be answered by sending it again."""

    REPEATABLE = enum.auto()
    """Asking twice does what asking once does: every read, and the cancel."""

    ONLY_IF_NOT_SENT = enum.auto()
    """Asking twice may buy twice: repeated only if the request provably never left."""


@attrs.frozen
class Request:
    """One request, without the root and the credentials that every request shares.

    Attributes:
        method: The HTTP method.
        target: Path and encoded query, as it is sent after the root.
        safety: What may be repeated.
        body: The JSON body, or None.
        with_key: Whether the API key goes along; it is sent to the calls that need it alone.
    """

    method: str
    target: str
    safety: Safety
    body: bytes | None = None
    with_key: bool = False


@attrs.frozen
class Response:
    """One whole answer.

    Attributes:
        status: The HTTP status code.
        headers: The headers; names are looked up in lower case.
        body: The bytes as they came, at most `MAXIMUM_BODY`.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


def target(path: str, query: Mapping[str, str]) -> str:
    """Return `path` with `query`, every reserved character percent-encoded.

    Every reserved character is encoded. Servers disagree about a bare `+` or `/`, but all of them
    read `%20` and `%2F` alike.
    """
    if not query:
        return path
    pairs = [f"{name}={quote(value, safe='')}" for name, value in query.items()]
    return f"{path}?{'&'.join(pairs)}"
