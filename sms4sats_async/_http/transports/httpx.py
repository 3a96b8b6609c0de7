"""httpx and httpx2, which share one interface."""

from __future__ import annotations

import importlib
import logging
import re
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast

import anyio

from sms4sats_async._http.messages import Response
from sms4sats_async._redact import hide_order_ids, mask, quote
from sms4sats_async.errors import ClientStateError, TransportError
from sms4sats_async.models import RequestOutcome

from .base import CONNECT_SHARE, Headers, Rule, read_body, translate

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import ModuleType

    import httpx

    from sms4sats_async._http.messages import Request

_ORDER_ID: Final = re.compile(r"(orderId=)([^&\s]+)")
_NOT_SENT: Final = RequestOutcome.NOT_SENT

CLEAN_UP: Final = 1.0
"""Seconds that throwing away a broken connection may take."""


class Errors:
    """The map from one library's errors to ours."""

    def __init__(self, library: ModuleType) -> None:
        self.caught: tuple[type[Exception], ...] = (
            library.HTTPError,
            library.StreamError,
            library.InvalidURL,
            # Unmapped by httpcore: a broken TLS record arrives as ssl.SSLError, and a host that
            # is none as UnicodeError.
            OSError,
            UnicodeError,
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
            (UnicodeError, _NOT_SENT, "the host of the URL is none"),
        )

    def translate(self, error: Exception) -> TransportError:
        """Return our error for the library's."""
        return translate(error, self._rules, self._timeouts)


_UNDER_WAY: Final = ContextVar("a request of this library is under way", default=False)


class _HideOrderIds(logging.Filter):
    """Takes order ids out of the lines that httpx and httpcore write about our requests."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not _UNDER_WAY.get():
            return True
        line = record.getMessage()
        hidden = hide_order_ids(_ORDER_ID.sub(lambda found: found[1] + mask(found[2]), line))
        if hidden != line:
            record.msg, record.args = hidden, ()
        return True


_HIDE_ORDER_IDS: Final = _HideOrderIds()
_HTTPCORE_LOGGERS: Final = ("connection", "http11", "http2", "proxy", "socks")


def hide_order_ids_in_logs(library: str) -> None:
    """Keep the order ids of our requests out of what a library logs.

    httpx writes the whole URL of each request at INFO, and httpcore the headers of each answer at
    DEBUG, `Location` included. A filter acts on the logger that it stands on and on no other;
    adding the same one again changes nothing.
    """
    names = [f"{library}.{part}" for part in _HTTPCORE_LOGGERS]
    for name in names if library.startswith("httpcore") else [library]:
        logging.getLogger(name).addFilter(_HIDE_ORDER_IDS)


@contextmanager
def order_ids_hidden() -> Generator[None]:
    """Hide order ids in the lines that this task makes a library write; in nobody else's."""
    token = _UNDER_WAY.set(True)
    try:
        yield
    finally:
        _UNDER_WAY.reset(token)


class Handshake:
    """The socket whose TLS handshake is under way, as httpx's `trace` extension shows it.

    httpcore forgets a socket whose handshake is cancelled, open as it is.
    """

    def __init__(self) -> None:
        self._socket: Any = None

    async def note(self, event: str, info: dict[str, Any]) -> None:
        """Keep the socket from the connect on until it is httpcore's own business."""
        if event == "connection.connect_tcp.complete":
            self._socket = info["return_value"]
        elif event.endswith(".start_tls.complete"):
            self._socket = None

    async def close(self) -> None:
        """Close the socket, even while the task is being cancelled; bounded in time."""
        if self._socket is not None:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLEAN_UP):
                await self._socket.aclose()


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
        hide_order_ids_in_logs(library)
        hide_order_ids_in_logs(library.replace("httpx", "httpcore"))

    async def send(self, request: Request, *, timeout: float) -> Response:
        """Send with the caller's client: his proxies, hooks and limits hold, his auth does not.

        A fresh request carries none of the headers, cookies and credentials that the client
        adds to its owner's own requests.
        """
        connect = timeout * CONNECT_SHARE
        extensions: dict[str, Any] = {"timeout": {"connect": connect, "pool": connect}}
        handshake = Handshake()
        if self._root.startswith("https"):
            extensions["trace"] = handshake.note
        try:
            with order_ids_hidden():
                answer = await self._client.send(
                    self._library.Request(
                        request.method,
                        self._root + request.target,
                        headers=self._headers.of(request),
                        content=request.body,
                        extensions=extensions,
                    ),
                    stream=True,
                    auth=None,
                    follow_redirects=False,
                )
                try:
                    # A hook of the caller's may have read the answer before us.
                    if answer.is_stream_consumed:
                        body = await answer.aread()
                    else:
                        stream = cast("httpx.AsyncByteStream", answer.stream)
                        body = await read_body(stream, status=answer.status_code)
                finally:
                    await answer.aclose()
        except BaseException as error:
            await handshake.close()
            if isinstance(error, self._errors.caught):
                raise self._errors.translate(error) from error
            if isinstance(error, RuntimeError):
                raise _unusable(error) from error
            raise
        return Response(answer.status_code, answer.headers, body)

    async def close(self) -> None:
        """Leave the client to its owner."""


def _unusable(error: RuntimeError) -> ClientStateError:
    return ClientStateError(
        f"the HTTP client cannot be used: {quote(str(error))} (is it closed, or another event "
        "loop's?)"
    )
