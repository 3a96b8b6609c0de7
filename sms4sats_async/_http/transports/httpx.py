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
from sms4sats_async._redact import hide_known_forms, mask, quote
from sms4sats_async._validate import is_loopback
from sms4sats_async.errors import ClientStateError, TransportError
from sms4sats_async.models import RequestOutcome

from .base import (
    CONNECT_SHARE,
    Headers,
    Rule,
    key_in_the_clear,
    read_body,
    translate,
)

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
            (UnicodeError, _NOT_SENT, "the host of the URL is invalid"),
        )

    def translate(self, error: Exception) -> TransportError:
        """Return our error for the library's."""
        return translate(error, self._rules, self._timeouts)


_UNDER_WAY: Final = ContextVar("a request of this library is under way", default=False)


_HTTP_2: Final = "hpack"
"""What encodes headers for HTTP/2. It logs each at DEBUG, the API key and the path too, and then
all of them once more in its encoding."""


class _HideOrderIds(logging.Filter):
    """Takes secrets out of the lines that httpx and what it uses write about our requests."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not _UNDER_WAY.get():
            return True
        if record.name.startswith(_HTTP_2):
            return False
        line = record.getMessage()
        hidden = hide_known_forms(_ORDER_ID.sub(lambda found: found[1] + mask(found[2]), line))
        if hidden != line:
            record.msg, record.args = hidden, ()
        return True


_HIDE_ORDER_IDS: Final = _HideOrderIds()
_PARTS: Final = {
    "httpcore": (".connection", ".http11", ".http2", ".proxy", ".socks"),
    _HTTP_2: (".hpack", ".table"),
}
"""The loggers of libraries that have several."""


def hide_order_ids_in_logs(library: str) -> None:
    """Keep the order IDs of our requests out of what a library logs.

    httpx writes the whole URL of each request at INFO, and httpcore the headers of each answer at
    DEBUG, `Location` included. A filter acts on the logger that has it and on no other;
    adding the same one again changes nothing.
    """
    for part in _PARTS.get(library.rstrip("2"), ("",)):
        logging.getLogger(f"{library}{part}").addFilter(_HIDE_ORDER_IDS)


@contextmanager
def order_ids_hidden() -> Generator[None]:
    """Hide order IDs in the lines that a library logs for this task, and in no other lines."""
    token = _UNDER_WAY.set(True)
    try:
        yield
    finally:
        _UNDER_WAY.reset(token)


class Connecting:
    """What httpx's `trace` extension shows of a connection before a request is sent over it."""

    def __init__(self, *, tls: bool, with_key: bool = False) -> None:
        """Begin.

        Args:
            tls: Whether the root has TLS.
            with_key: Whether the request has the API key. Without TLS it goes to this machine
                only, whatever proxy the HTTP client has.
        """
        self._tls = tls
        self._guards_key = with_key and not tls
        self._socket: Any = None
        self._failure: object = None

    async def note(self, event: str, info: dict[str, Any]) -> None:
        """Keep the socket from the connect on until httpcore keeps it, and keep a failure.

        httpcore forgets a socket whose handshake is cancelled, open as it is.

        Raises:
            ClientStateError: If a proxy would get the key.
        """
        if event.startswith("http"):  # most events are of this kind
            if event == "http11.send_request_headers.started" and not self._tls:
                self._socket = None
                self._check(info["request"].url.host.decode("ascii"))
        elif event == "connection.connect_tcp.complete":
            self._socket = info["return_value"]
        elif event.endswith(".start_tls.complete"):
            self._socket = None
        elif event.endswith((".connect_tcp.failed", ".start_tls.failed")):
            self._failure = info["exception"]
        elif event.endswith(".connect_tcp.started"):
            self._check(info["host"])

    def _check(self, host: str) -> None:
        if self._guards_key and not is_loopback(host):
            raise key_in_the_clear()

    async def close(self) -> None:
        """Close the socket, even while the task is being cancelled; bounded in time."""
        if self._socket is not None:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLEAN_UP):
                await self._socket.aclose()

    def failed_with(self, error: BaseException) -> bool:
        """Return whether `error` itself ended the connect or the handshake: nothing was sent then.

        httpcore leaves some errors as they are. For a proxy with port 99999 it is an OverflowError
        in a group, on asyncio.
        """
        failure, self._failure = self._failure, None
        return error is failure and isinstance(error, Exception)


def not_connected(error: BaseException) -> TransportError:
    """Return our error for one that ended the connect."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return TransportError(f"no connection ({type(error).__name__})")


class HttpxTransport:
    """An `AsyncClient` that the caller owns; it is used as it is and never closed.

    It is typed as httpx's, and httpx2's looks the same from here.
    """

    def __init__(
        self, client: httpx.AsyncClient, library: str, base_url: str, api_key: str | None
    ) -> None:
        self._library = importlib.import_module(library)  # noqa: TID251 - httpx or httpx2
        self._errors = Errors(self._library)
        self._client = client
        self._root = base_url
        self._headers = Headers(self._library.Headers, api_key)
        hide_order_ids_in_logs(library)
        hide_order_ids_in_logs(library.replace("httpx", "httpcore"))
        hide_order_ids_in_logs(_HTTP_2)

    async def send(self, request: Request, *, timeout: float) -> Response:
        """Send with the caller's client: his proxies, hooks and limits hold, his auth does not.

        A fresh request carries none of the headers, cookies and credentials that the client
        adds to its owner's own requests.
        """
        connect = timeout * CONNECT_SHARE
        extensions: dict[str, Any] = {"timeout": {"connect": connect, "pool": connect}}
        connecting = Connecting(tls=self._root.startswith("https"), with_key=request.with_key)
        extensions["trace"] = connecting.note
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
            await connecting.close()
            unsent = connecting.failed_with(error)
            if isinstance(error, self._errors.caught):
                raise self._errors.translate(error) from error
            if unsent:
                raise not_connected(error) from error
            if isinstance(error, RuntimeError) and not isinstance(error, ClientStateError):
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
