"""Small servers on this machine that misbehave on demand, and what their tests share.

A server runs in a thread of its own with a loop of its own. So it is the same under asyncio and
Trio, adds no task to the loop under test, and goes on while that loop is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import json
import os
import socket
import ssl
import threading
import time
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
import anyio
import anyio.lowlevel
import attrs
import httpx
import httpx2
import pytest
import trustme

from sms4sats_async import (
    APIError,
    InvalidResponseError,
    RequestOutcome,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    Sms4SatsClient,
    Sms4SatsError,
    TransportError,
)

if TYPE_CHECKING:
    from types import TracebackType

ORDER_ID = "0123456789abcdef" * 4
KEY = "key-that-nobody-may-see-5f1c"

ONCE = RetryPolicy(attempts=1)

ADAPTERS = ("own", "httpx", "httpx2", "aiohttp")

everywhere = pytest.mark.parametrize(
    ("adapter", "anyio_backend"),
    [(adapter, "asyncio") for adapter in ADAPTERS]
    # aiohttp is asyncio's alone.
    + [(adapter, "trio") for adapter in ADAPTERS if adapter != "aiohttp"],
)
"""For tests that hold for every adapter, on every loop it runs on."""


# --- servers --------------------------------------------------------------------------------------


@attrs.frozen
class Seen:
    """A request as it arrived: `target` is the bytes of the request line, undecoded."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int


@attrs.define(eq=False)
class Peer:
    """An accepted connection, as a script sees it."""

    number: int
    server: Server
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> Seen | None:
        """Read one request; None at the end of the connection."""
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, OSError):
            return None
        first, *lines = head.rstrip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        seen = Seen(method, target, headers, body, self.number)
        self.server.seen.append(seen)
        return seen

    async def send(self, data: bytes) -> None:
        """Send, and count what was taken off our hands."""
        self.writer.write(data)
        await self.writer.drain()
        self.server.sent += len(data)

    async def silence(self) -> None:
        """Say nothing until the other side goes."""
        with contextlib.suppress(OSError):
            while await self.reader.read(65536):
                pass

    def reset(self) -> None:
        """End the connection with a RST."""
        raw = self.writer.get_extra_info("socket")
        # struct linger: on, 0 seconds.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class Server:
    """Runs `script` on every connection, and counts.

    Attributes:
        seen: Every request, in the order of arrival.
        accepted: How many connections there were.
        open: How many there are.
        most: How many there were at the same time at most.
        sent: Bytes that the kernel took from a script.
    """

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[Seen] = []
        self.accepted = self.open = self.most = self.sent = 0
        self.port = 0
        self._script = script
        self._tls = tls
        self._peers: set[asyncio.Task[None]] = set()
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),), daemon=True)

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    @property
    def targets(self) -> list[str]:
        return [seen.target for seen in self.seen]

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(5)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(5)
        assert not self._thread.is_alive()

    def drop(self) -> None:
        """End every connection."""
        assert self._loop is not None
        for peer in list(self._peers):
            self._loop.call_soon_threadsafe(peer.cancel)

    async def settled(self, *, open_: int = 0) -> None:
        """Wait until exactly so many connections are open."""
        await eventually(lambda: self.open == open_)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        # A client that goes during a TLS handshake is not a failure of the test.
        self._loop.set_exception_handler(lambda _loop, _context: None)
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        # Small, so that what was sent is near to what was read.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        self.port = listener.getsockname()[1]
        server = await asyncio.start_server(self._accept, sock=listener, ssl=self._tls)
        self._started.set()
        await self._end.wait()
        # asyncio drops a connection that is accepted in the very moment of `close()`, and leaves
        # its socket open; so no more are accepted, and those that were come in first.
        self._loop.remove_reader(listener)
        for _ in range(5):
            await asyncio.sleep(0)
        server.close()
        for peer in self._peers:
            peer.cancel()
        await asyncio.gather(*self._peers, return_exceptions=True)
        for _ in range(5):
            await asyncio.sleep(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.open += 1
        self.most = max(self.most, self.open)
        task = asyncio.ensure_future(self._run(Peer(self.accepted, self, reader, writer)))
        self._peers.add(task)
        task.add_done_callback(self._peers.discard)

    async def _run(self, peer: Peer) -> None:
        # So that a script goes on when its bytes are gone. (asyncio's TLS would never go on.)
        if self._tls is None:
            peer.writer.transport.set_write_buffer_limits(0)
        try:
            with contextlib.suppress(OSError):
                await self._script(peer)
                peer.writer.close()
                await peer.writer.wait_closed()
        finally:
            peer.writer.transport.abort()
            # The socket is closed in the next round of the loop, and then counted so.
            for _ in range(2):
                await asyncio.sleep(0)
            self.open -= 1


def answer(
    body: bytes | dict[str, Any], status: str = "200 OK", headers: dict[str, str] | None = None
) -> bytes:
    """Return a whole HTTP answer."""
    if isinstance(body, dict):
        body = json.dumps(body).encode()
    lines = {"content-type": "application/json", "content-length": str(len(body))} | (headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1") + body


OK = answer({"status": "OK"})
CREATED = answer({"status": "OK", "orderId": ORDER_ID, "payreq": "lnbc1"})


def reply_of(seen: Seen) -> bytes:
    """Answer as the service does where all goes well."""
    return CREATED if seen.method == "POST" else OK


def service(
    reply: Callable[[Seen], bytes] = reply_of, *, after: float | Callable[[], float] = 0
) -> Script:
    """Return a script that keeps connections alive and answers each request after a while."""

    async def script(peer: Peer) -> None:
        while (seen := await peer.request()) is not None:
            delay = after if isinstance(after, float | int) else after()
            if delay:
                await asyncio.sleep(delay)
            await peer.send(reply(seen))

    return script


def saying(
    *parts: bytes, reset: bool = False, again: bool = False, unasked: bool = False
) -> Script:
    """Return a script that answers each connection's first request with these bytes, and ends.

    Args:
        parts: What is sent, one piece after the other.
        unasked: Do not wait for a request.
        reset: End with a RST.
        again: Send the last piece again and again, until the other side goes.
    """

    async def script(peer: Peer) -> None:
        if not unasked:
            await peer.request()
        for part in parts:
            await peer.send(part)
        while again:
            await peer.send(parts[-1])
        if reset:
            # What was sent must arrive first: a RST throws away what is still on its way.
            await asyncio.sleep(0.02)
            peer.reset()

    return script


def dripping(start: bytes, drop: bytes, *, unasked: bool = False) -> Script:
    """Return a script that begins an answer and then sends `drop` every now and then."""

    async def script(peer: Peer) -> None:
        if not unasked:
            await peer.request()
        await peer.send(start)
        while True:
            await asyncio.sleep(0.01)
            await peer.send(drop)

    return script


def relayed_to(port: int) -> Script:
    """Return a script that passes everything on to another port of ours, and back."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    async def script(peer: Peer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        ways = [
            asyncio.ensure_future(pump(peer.reader, writer)),
            asyncio.ensure_future(pump(reader, peer.writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            writer.close()

    return script


async def silent(peer: Peer) -> None:
    """Accept, and never say a word."""
    await peer.silence()


# --- TLS ------------------------------------------------------------------------------------------


@functools.cache
def authority() -> trustme.CA:
    """Return a throwaway authority that is trusted only on request."""
    return trustme.CA()


@functools.cache
def certified(*names: str) -> ssl.SSLContext:
    """Return a server's context with a certificate of that authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issued: Any = authority().issue_cert(*names)
    issued.configure_cert(context)
    return context


@functools.cache
def trusting(*, authority_too: bool) -> ssl.SSLContext:
    """Return a client's context, one for all: it trusts that authority only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if authority_too:
        issuer: Any = authority()
        issuer.configure_trust(context)
    return context


# --- clients --------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def injectable(
    adapter: str, *, trusted: bool = False, proxy: str | None = None, **more: object
) -> AsyncGenerator[Any]:
    """Open what `Sms4SatsClient(http_client=...)` takes; `more` is for its constructor."""
    tls = trusting(authority_too=trusted)
    options: Any = more
    if adapter == "aiohttp":
        connector = aiohttp.TCPConnector(ssl=tls)
        async with aiohttp.ClientSession(connector=connector, proxy=proxy, **options) as session:
            yield session
    else:
        library: Any = {"httpx": httpx, "httpx2": httpx2}[adapter]
        async with library.AsyncClient(
            verify=tls, proxy=proxy, trust_env=False, **options
        ) as client:
            yield client


@contextlib.asynccontextmanager
async def opened(
    adapter: str,
    url: str,
    *,
    trusted: bool = False,
    proxy: str | None = None,
    **settings: object,
) -> AsyncGenerator[Sms4SatsClient]:
    """Open a client over `adapter`, with a key; no retries unless `settings` say so.

    Args:
        adapter: One of `ADAPTERS`.
        url: The root.
        trusted: Whether it trusts the throwaway authority; no other one is trusted, except by the
            client's own connections. Those take this and the proxy from the environment.
        proxy: A proxy for every URL.
        settings: For `Sms4SatsClient`.
    """
    options: Any = {"base_url": url, "api_key": KEY, "retry": ONCE, "timeout": 5, **settings}
    async with contextlib.AsyncExitStack() as stack:
        if adapter == "own":
            environment = stack.enter_context(pytest.MonkeyPatch.context())
            if proxy is not None:
                environment.setenv("ALL_PROXY", proxy)
            if trusted:
                file = stack.enter_context(authority().cert_pem.tempfile())
                environment.setenv("SSL_CERT_FILE", file)
            client = Sms4SatsClient(**options)
        else:
            http_client = await stack.enter_async_context(
                injectable(adapter, trusted=trusted, proxy=proxy)
            )
            client = Sms4SatsClient(http_client=http_client, **options)
        yield await stack.enter_async_context(client)


# --- failures -------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\n"
_MANY = b"x" * 65536
_ID = ORDER_ID.encode()


@functools.cache
def bomb(coding: str) -> bytes:
    """Return JSON of 4 MB in a few KB."""
    unpacked = b"[" + b" " * 4_000_000 + b"]"
    return gzip.compress(unpacked) if coding == "gzip" else zlib.compress(unpacked)


@attrs.frozen
class Place:
    """Where a client is sent to fail."""

    url: str
    server: Server | None = None
    proxy: str | None = None
    trusted: bool = False


OpenPlace = Callable[[], AbstractContextManager[Place]]


@attrs.frozen
class Failure:
    """One way to fail, and what every adapter must make of it."""

    name: str
    open_place: OpenPlace
    error: type[Sms4SatsError]
    outcome: RequestOutcome


def at(script: Script) -> OpenPlace:
    """Go to a server of this script."""

    @contextlib.contextmanager
    def open_place() -> Generator[Place]:
        with Server(script) as server:
            yield Place(server.url, server)

    return open_place


def with_tls_at(script: Script) -> OpenPlace:
    """Connect with TLS to a server of this script that does not use TLS."""

    @contextlib.contextmanager
    def open_place() -> Generator[Place]:
        with Server(script) as server:
            yield Place(server.url.replace("http:", "https:"), server)

    return open_place


def certificate_for(name: str, *, trusted: bool) -> OpenPlace:
    """Go to a good server with a certificate for `name`."""

    @contextlib.contextmanager
    def open_place() -> Generator[Place]:
        with Server(service(), tls=certified(name)) as server:
            yield Place(server.url, server, trusted=trusted)

    return open_place


def behind_proxy(script: Script) -> OpenPlace:
    """Go through a proxy of this script to a name that only it could know."""

    @contextlib.contextmanager
    def open_place() -> Generator[Place]:
        with Server(script) as server:
            yield Place("https://service.invalid", server, proxy=server.url)

    return open_place


@contextlib.contextmanager
def refused() -> Generator[Place]:
    """Go to a port without a listener."""
    with socket.socket() as unused:
        # Bound and not listening, so no other program gets it meanwhile.
        unused.bind(("127.0.0.1", 0))
        yield Place(f"http://127.0.0.1:{unused.getsockname()[1]}")


@contextlib.contextmanager
def unanswered() -> Generator[Place]:
    """Go to a port that answers no SYN: its queue of connections is full (Linux)."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)  # noqa: FBT003 - socket's own signature
            filler.connect_ex(listener.getsockname())
        yield Place(f"http://127.0.0.1:{listener.getsockname()[1]}")


@contextlib.contextmanager
def unresolved() -> Generator[Place]:
    """Go to a name that no resolver knows, without asking one."""

    def unknown(*_args: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", unknown)
        yield Place("https://service.invalid")


def _failing(
    error: type[Sms4SatsError], outcome: RequestOutcome, **places: OpenPlace
) -> Iterator[Failure]:
    for name, open_place in places.items():
        yield Failure(name, open_place, error, outcome)


async def hang_up(_peer: Peer) -> None:
    """Accept, and close at once."""


FAILURES: Final = [
    *_failing(
        TransportError,
        RequestOutcome.NOT_SENT,
        refused=refused,
        unresolved=unresolved,
        certificate_of_no_authority=certificate_for("127.0.0.1", trusted=False),
        certificate_of_another=certificate_for("another.example", trusted=True),
        no_tls_there=with_tls_at(saying(b"HTTP/1.1 400 Speak plain\r\n\r\n", unasked=True)),
        closed_in_the_handshake=with_tls_at(hang_up),
        proxy_refuses=behind_proxy(saying(answer(b"", "407 No"))),
    ),
    *_failing(
        TransportError,
        RequestOutcome.UNKNOWN,
        # That the tunnel never stood is not to be seen from the libraries' errors.
        proxy_closes=behind_proxy(hang_up),
        closed_before_the_answer=at(saying()),
        reset_before_the_answer=at(saying(reset=True)),
        reset_in_the_body=at(saying(HEAD + b'content-length: 99\r\n\r\n{"st', reset=True)),
        cut_body=at(saying(HEAD + b'content-length: 99\r\n\r\n{"status":"OK"}')),
        cut_chunks=at(saying(HEAD + b'transfer-encoding: chunked\r\n\r\n9\r\n{"sta')),
        bad_chunks=at(saying(HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n")),
        garbage=at(saying(b"\0\xff " + _ID + b"\r\n\r\n")),
        garbage_in_a_header=at(saying(HEAD + _ID + b" without a colon\r\n\r\n")),
        another_protocol=at(saying(b"SSH-2.0-OpenSSH_9.6 " + _ID + b"\r\n")),
        bad_length=at(saying(HEAD + b"content-length: abc\r\n\r\n{}")),
        two_lengths=at(saying(HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\n{}")),
        flood_of_headers=at(saying(HEAD, b"x: y\r\n" * 100, again=True)),
        endless_header=at(saying(HEAD + b"x: ", _MANY, again=True)),
        flood_of_trailers=at(
            saying(HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n" * 100, again=True)
        ),
    ),
    *_failing(
        InvalidResponseError,
        RequestOutcome.UNKNOWN,
        endless_body_of_known_length=at(
            saying(HEAD + b"content-length: 99999999999\r\n\r\n", _MANY, again=True)
        ),
        endless_body=at(saying(HEAD + b"\r\n", _MANY, again=True)),
        endless_chunks=at(
            saying(
                HEAD + b"transfer-encoding: chunked\r\n\r\n",
                b"10000\r\n" + _MANY + b"\r\n",
                again=True,
            )
        ),
        gzip_bomb=at(saying(answer(bomb("gzip"), headers={"content-encoding": "gzip"}))),
        deflate_bomb=at(saying(answer(bomb("deflate"), headers={"content-encoding": "deflate"}))),
        bad_gzip=at(saying(answer(b"\x1f\x8b garbage", headers={"content-encoding": "gzip"}))),
        cut_gzip=at(
            saying(
                answer(
                    gzip.compress(b'{"status":"OK"}')[:-12], headers={"content-encoding": "gzip"}
                )
            )
        ),
        unknown_coding=at(saying(answer(b"\1\2\3", headers={"content-encoding": "br"}))),
        html=at(saying(answer(b"<html>" + _ID))),
        nothing=at(saying(answer(b""))),
    ),
    *_failing(
        ServerError,
        RequestOutcome.UNKNOWN,
        gateway=at(saying(answer(b"<html>" + _ID, "502 Bad Gateway"))),
    ),
    *_failing(
        ServerError,
        RequestOutcome.REFUSED,
        echo=at(saying(answer({"status": "error", "reason": f"no {ORDER_ID}"}, "500 No"))),
    ),
    *_failing(
        APIError,
        RequestOutcome.UNKNOWN,
        redirect=at(
            saying(
                answer(
                    b"",
                    "301 Moved Permanently",
                    {"location": f"http://elsewhere.invalid/cancelorder?orderId={ORDER_ID}"},
                )
            )
        ),
    ),
    *_failing(
        RequestTimeoutError,
        RequestOutcome.NOT_SENT,
        unanswered=unanswered,
        endless_handshake=with_tls_at(silent),
        # The beginning of a TLS record, which never ends.
        dripping_handshake=with_tls_at(dripping(b"\x16\3\3\x3f\xff", b"\2", unasked=True)),
    ),
    *_failing(
        RequestTimeoutError,
        RequestOutcome.UNKNOWN,
        silent=at(silent),
        dripping_header=at(dripping(HEAD + b"x: ", b"y")),
        dripping_body=at(dripping(HEAD + b"content-length: 99999\r\n\r\n", b"[")),
        flood_of_100_continue=at(saying(b"HTTP/1.1 100 Continue\r\n\r\n" * 100, again=True)),
        flood_of_tiny_chunks=at(
            saying(HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n[\r\n" * 10, again=True)
        ),
    ),
]
"""Every way to fail."""


# --- what is counted ------------------------------------------------------------------------------


def descriptors() -> int:
    """Return how many sockets this process has open."""
    count = 0
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - not a path of anything that stays
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")  # noqa: PTH115
    return count


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait, for ten seconds at most, until `holds()`."""
    until = time.monotonic() + 10
    while not holds() and time.monotonic() < until:  # noqa: ASYNC110 - another thread makes it so
        await anyio.sleep(0.002)
    assert holds()


class JumpingClock:
    """A clock whose sleeps take no time, and are recorded.

    Attributes:
        slept: Every sleep, in seconds.
        time: What it shows; `on_sleep` may move it too.
    """

    def __init__(self, on_sleep: Callable[[], Awaitable[object]] | None = None) -> None:
        self.slept: list[float] = []
        self.time = 1000.0
        self.on_sleep = on_sleep

    def now(self) -> float:
        return 1_800_000_000 + self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float, /) -> None:
        await anyio.lowlevel.checkpoint()
        self.slept.append(seconds)
        self.time += seconds
        if self.on_sleep is not None:
            await self.on_sleep()
