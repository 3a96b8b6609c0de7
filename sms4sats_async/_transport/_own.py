"""The client's own connections: httpx's transport, one connection each, handed out one by one.

httpx's pool is quadratic in the number of requests that wait in it, and loses slots for good when
tasks are cancelled in it (httpx 0.28). So nobody waits in it here: a transport with a single
connection serves one request at a time, and one in which anything went wrong is thrown away alone.
"""

from __future__ import annotations

import ssl
import time
from collections import deque
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import anyio
import httpx

from sms4sats_async._wire import Response, Safety
from sms4sats_async.errors import InvalidArgumentError

from ._httpx import Errors
from ._seam import CONNECT_SHARE, Headers, read_body

if TYPE_CHECKING:
    from sms4sats_async._wire import Request

KEEP_ALIVE: Final = 4.0
"""Seconds that an idle connection is kept. Common servers close one after 5 (uvicorn, Node), and a
connection reused in that very moment fails; polls come every 5 seconds too."""

_CLEAN_UP: Final = 1.0
"""Seconds that throwing away a broken connection may take."""

_ERRORS: Final = Errors(httpx)


class OwnTransport:
    """Connections that belong to the client."""

    def __init__(self, base_url: str, api_key: str | None) -> None:
        try:
            url = httpx.URL(base_url)
        except httpx.InvalidURL as error:
            problem = f"base_url cannot be used: {error}"
            raise InvalidArgumentError(problem) from error
        self._root = base_url
        self._headers = Headers(httpx.Headers, api_key)
        self._proxy = proxy_from_environment(base_url)
        # One context for all connections: reading the CA files takes milliseconds. It honours
        # SSL_CERT_FILE and SSL_CERT_DIR. Without TLS there is nothing to read them for.
        self._tls = (
            httpx.create_ssl_context()
            if url.scheme == "https" or self._proxy is not None
            else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        )
        self._limits = httpx.Limits(
            max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEP_ALIVE
        )
        # The connection used last is taken first; those at the left end are idle the longest.
        self._idle: deque[tuple[httpx.AsyncHTTPTransport, float]] = deque()
        self._closed = False

    async def send(self, request: Request, *, timeout: float) -> Response:
        """Send over an idle connection, or a new one."""
        transport = await self._take(request)
        try:
            answer = await transport.handle_async_request(
                httpx.Request(
                    request.method,
                    self._root + request.target,
                    headers=self._headers.of(request),
                    content=request.body,
                    extensions={"timeout": {"connect": timeout * CONNECT_SHARE}},
                )
            )
            stream = cast("httpx.AsyncByteStream", answer.stream)
            body = await read_body(stream, status=answer.status_code)
            await stream.aclose()
        except BaseException as error:
            await self._discard(transport)
            if isinstance(error, _ERRORS.caught):
                raise _ERRORS.translate(error) from error
            raise
        await self._give_back(transport)
        return Response(answer.status_code, answer.headers, body)

    async def close(self) -> None:
        """Close every idle connection; one in use is closed when its request ends."""
        self._closed = True
        while self._idle:
            transport, _ = self._idle.pop()
            await self._discard(transport)

    async def _take(self, request: Request) -> httpx.AsyncHTTPTransport:
        if self._idle:
            transport, _ = self._idle.pop()
            # A kept connection may be closed by the server in the moment of its reuse. Where
            # that would leave it unknown whether an order was made, a new one is opened.
            if request.safety is not Safety.ONLY_IF_NOT_SENT:
                return transport
            await self._discard(transport)
        return httpx.AsyncHTTPTransport(
            verify=self._tls, trust_env=False, limits=self._limits, proxy=self._proxy
        )

    async def _give_back(self, transport: httpx.AsyncHTTPTransport) -> None:
        now = time.monotonic()
        if self._closed:
            await self._discard(transport)
            return
        self._idle.append((transport, now))
        # Two for one, so that a burst's connections go away without a task to do it.
        for _ in range(2):
            if now - self._idle[0][1] <= KEEP_ALIVE:
                return
            idle, _ = self._idle.popleft()
            await self._discard(idle)

    async def _discard(self, transport: httpx.AsyncHTTPTransport) -> None:
        """Close a connection even while the task is being cancelled; bounded in time."""
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _CLEAN_UP):
            await transport.aclose()


def proxy_from_environment(url: str) -> str | None:
    """Return the proxy that the environment names for `url` (HTTPS_PROXY, ALL_PROXY, NO_PROXY)."""
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy is None or (parts.netloc and proxy_bypass(parts.netloc)):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
