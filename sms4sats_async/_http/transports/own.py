"""The client's own connections: httpx's transport, one connection each, handed out one by one.

httpx's pool is quadratic in the number of waiting requests, and loses slots when tasks are
cancelled in it (httpx 0.28). So no request waits in it here: a transport with a single
connection serves one request at a time, and one in which anything went wrong is thrown away alone.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import httpx

from sms4sats_async._http.messages import Response, Safety
from sms4sats_async.errors import InvalidArgumentError

from .base import CONNECT_SHARE, Headers, read_body
from .environment import read_environment
from .httpx import (
    CLEAN_UP,
    Connecting,
    Errors,
    hide_order_ids_in_logs,
    not_connected,
    order_ids_hidden,
)

if TYPE_CHECKING:
    from sms4sats_async._http.messages import Request

KEEP_ALIVE: Final = 4.0
"""Seconds that an idle connection is kept. Common servers close one after 5 (uvicorn, Node), and a
connection reused in that very moment fails; polls come every 5 seconds too."""

_ERRORS: Final = Errors(httpx)


class Urls:
    """The URLs of one root, each equal in all to the one that httpx would parse.

    Recorders and instrumentation read the URL of a request, so all of it must be right. To parse
    it again for each request would take 4 % of a call.
    """

    def __init__(self, root: httpx.URL) -> None:
        self._root = root
        self._path = root.raw_path.decode("ascii").rstrip("/")
        # Private, so another version of httpx may lack it. URLs are parsed then.
        self._parts: Any = vars(root).get("_uri_reference")

    def of(self, target: str) -> httpx.URL:
        """Return the URL of a target, which is encoded already."""
        if self._parts is None:
            return self._root.copy_with(raw_path=(self._path + target).encode("ascii"))
        path, mark, query = target.partition("?")
        parts = self._parts._replace(path=self._path + path, query=query if mark else None)
        url = httpx.URL(self._root)  # parses nothing
        vars(url)["_uri_reference"] = parts
        return url


class _Connection:
    """One transport, and what is known of its socket."""

    def __init__(self, transport: httpx.AsyncHTTPTransport, connecting: Connecting) -> None:
        self.transport = transport
        self.connecting = connecting
        self.idle_since = 0.0

    def has_more(self) -> bool:
        """Return whether bytes came after the answer: they would be taken for the next answer.

        A status names no order, so a second answer could show the code of another order. httpcore
        sees what arrives later, but not what it has read already. Its names are private, so another
        version may lack them.
        """
        pool: Any = vars(self.transport).get("_pool")
        kept: Any = next(iter(getattr(pool, "connections", ())), None)
        while hasattr(kept, "_connection"):  # of a proxy, of either version of HTTP
            kept = kept._connection  # noqa: SLF001
        more, _ = getattr(getattr(kept, "_h11_state", None), "trailing_data", (b"", False))
        return bool(more)

    async def close(self) -> None:
        """Close it even while the task is being cancelled; bounded in time."""
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLEAN_UP):
            await self.transport.aclose()
        await self.connecting.close()


class OwnTransport:
    """Connections that belong to the client."""

    def __init__(self, base_url: str, api_key: str | None) -> None:
        self._headers = Headers(httpx.Headers, api_key)
        self._limits = httpx.Limits(
            max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEP_ALIVE
        )
        # The connection used last is taken first; those at the left end are idle the longest.
        self._idle: deque[_Connection] = deque()
        self._closed = False
        try:
            self._root = httpx.URL(base_url)
        except (httpx.InvalidURL, UnicodeError) as error:
            problem = "base_url cannot be used: its host is invalid"
            raise InvalidArgumentError(problem) from error
        self._urls = Urls(self._root)
        # One context for all connections: reading the certificates takes milliseconds.
        environment = read_environment(self._root)
        self._proxy, self._tls = environment.proxy, environment.tls
        self._shakes_hands = self._root.scheme == "https" or self._proxy is not None
        hide_order_ids_in_logs("httpcore")

    async def send(self, request: Request, *, timeout: float) -> Response:
        """Send over an idle connection, or a new one."""
        connection = await self._take(request)
        extensions: dict[str, Any] = {"timeout": {"connect": timeout * CONNECT_SHARE}}
        # On a kept connection too: httpcore puts a new one in the place of one that was closed.
        if self._shakes_hands:
            extensions["trace"] = connection.connecting.note
        try:
            asked = httpx.Request(
                request.method,
                self._urls.of(request.target),
                headers=self._headers.of(request),
                content=request.body,
                extensions=extensions,
            )
            with order_ids_hidden():
                answer = await connection.transport.handle_async_request(asked)
                stream = cast("httpx.AsyncByteStream", answer.stream)
                body = await read_body(stream, status=answer.status_code)
                await stream.aclose()
        except BaseException as error:
            await connection.close()
            unsent = connection.connecting.failed_with(error)
            if isinstance(error, _ERRORS.caught):
                raise _ERRORS.translate(error) from error
            if unsent:
                raise not_connected(error) from error
            raise
        await self._give_back(connection)
        return Response(answer.status_code, answer.headers, body)

    async def close(self) -> None:
        """Close every idle connection; one in use is closed when its request ends."""
        self._closed = True
        while self._idle:
            await self._idle.pop().close()

    def _new(self) -> _Connection:
        return _Connection(
            httpx.AsyncHTTPTransport(
                verify=self._tls, trust_env=False, limits=self._limits, proxy=self._proxy
            ),
            Connecting(tls=self._root.scheme == "https"),
        )

    async def _take(self, request: Request) -> _Connection:
        if not self._idle:
            return self._new()
        connection = self._idle.pop()
        # A kept connection may be closed by the server in the moment of its reuse. Where that
        # would leave it unknown whether an order was made, a new one is opened.
        if request.safety is Safety.ONLY_IF_NOT_SENT:
            await connection.close()
            return self._new()
        return connection

    async def _give_back(self, connection: _Connection) -> None:
        if self._closed or connection.has_more():
            await connection.close()
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        # Two for one, so that a burst's connections go away without a task to do it. Others may
        # take what is idle while one is being closed.
        for _ in range(2):
            if not self._idle or connection.idle_since - self._idle[0].idle_since <= KEEP_ALIVE:
                return
            await self._idle.popleft().close()
