"""The simulated service behind a real socket.

uvicorn runs in a thread with an event loop of its own, so it serves programs on asyncio, on Trio,
and on neither, and it leaves the signal handlers of the main thread alone.
"""

import socket
import struct
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs

from .messages import Answer, Ending, Responder

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as _error:
    raise ImportError(
        "serving the simulator needs uvicorn: pip install 'sms4sats-async[simulator]'"
    ) from _error

__all__ = ["LOOPBACK", "run", "serve"]

LOOPBACK = "127.0.0.1"

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[Mapping[str, Any]]]
_Send = Callable[[dict[str, Any]], Awaitable[None]]

_BACKLOG = 2048
_LAST_CALL = 0.02  # seconds
_GRACE = 1  # seconds; all connections are dropped at once, so this is never waited for
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time at all


class _Connection(H11Protocol):
    """One connection, such that the application can drop it.

    ASGI has no word for "close the connection without an answer": an application that merely
    returns gets a 500 sent in its name. What ASGI does have is `scope["state"]`, which uvicorn
    fills from `app_state`; so each connection puts its transport there. Nothing else of uvicorn is
    touched, and its keep-alive goes on as always.
    """

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - see below
        # The transport's type has no name outside the standard library's event loop, which this
        # package does not import.
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}
        # The event loop does this only for sockets that name TCP as their protocol, which those of
        # `socket.create_server` do not; without it, each answer takes 40 ms longer.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The command's own log masks order ids; this one would show them. Switched off here, since
        # uvicorn's `access_log=False` also takes away the log of other servers in this process.
        self.access_log = False

    def shutdown(self) -> None:
        """Drop the connection when the server stops, whoever still waits for an answer."""
        self.transport.abort()


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, let what was just accepted become connections, then drop all of them."""
        for listener in self.servers:
            listener.close()
        await anyio.sleep(_LAST_CALL)
        await super().shutdown(sockets)


@attrs.define
class _Application:
    """The ASGI application: hands each request on, and answers as badly as it is told to."""

    respond: Responder

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        async with anyio.create_task_group() as group:
            # Whoever hangs, drips or is slow stops as soon as nobody listens any more.
            group.start_soon(_cancel_when_gone, receive, group.cancel_scope)
            await self._answer(scope, body, send)
            group.cancel_scope.cancel()

    async def _answer(self, scope: _Scope, body: bytes, send: _Send) -> None:
        answer = await self.respond(
            scope["method"],
            (scope["raw_path"] + b"?" + scope["query_string"]).decode("ascii"),
            {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
            body,
        )
        transport = scope["state"]["transport"]
        if answer.ending is Ending.RESET:
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            transport.abort()
        elif answer.ending is not Ending.HANG:
            start = {"type": "http.response.start", "status": answer.status}
            await send({**start, "headers": answer.wire_headers})
            await _send_body(answer, send)
        if answer.ending is Ending.CUT:
            transport.close()  # sends what is written, then FIN
        if answer.ending is not Ending.COMPLETE:
            # uvicorn must see the connection gone before the application returns; if it returned
            # earlier, uvicorn would finish the answer in its name.
            await anyio.sleep_forever()


async def _send_body(answer: Answer, send: _Send) -> None:
    part: dict[str, Any] = {"type": "http.response.body", "more_body": True}
    if answer.ending is Ending.CUT:
        await send({**part, "body": answer.half})
    elif answer.drip is None:
        await send({**part, "body": answer.body, "more_body": False})
    else:
        for byte in answer.body:
            await anyio.sleep(answer.drip)
            await send({**part, "body": bytes([byte])})
        await send({**part, "body": b"", "more_body": False})


async def _cancel_when_gone(receive: _Receive, scope: anyio.CancelScope) -> None:
    await receive()  # after the body, all that can come is "http.disconnect"
    scope.cancel()


@attrs.frozen
class _Serving:
    """A server that runs."""

    url: str
    server: uvicorn.Server
    thread: threading.Thread

    def is_stopping(self) -> bool:
        """Ask the server to stop, and tell whether it is still at it."""
        # Not before it has started: older uvicorns then leave without closing their socket.
        self.server.should_exit = self.server.started
        return self.thread.is_alive()


def _start(respond: Responder, host: str, port: int) -> _Serving:
    # The socket listens before the thread starts: the port is known at once, an address that cannot
    # be had is an error here and now, and whoever connects early waits in the backlog.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    name = f"[{host}]" if family == socket.AF_INET6 else host
    url = f"http://{name}:{listener.getsockname()[1]}"
    server = _Server(
        uvicorn.Config(
            _Application(respond),
            http=_Connection,
            loop="asyncio",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
        )
    )
    thread = threading.Thread(
        target=server.run, args=([listener],), name="sms4sats-simulator", daemon=True
    )
    thread.start()
    return _Serving(url, server, thread)


@asynccontextmanager
async def serve(respond: Responder, host: str = LOOPBACK, port: int = 0) -> AsyncGenerator[str]:
    """Serve until the block ends; works under asyncio and Trio.

    Args:
        respond: what answers the requests; it is called in the server's thread.
        host: the address to listen on.
        port: the port; 0: any free one.

    Yields:
        The base URL.

    Raises:
        OSError: if that address cannot be had.
    """
    serving = _start(respond, host, port)
    try:
        yield serving.url
    finally:
        with anyio.CancelScope(shield=True):
            # Joined by looking, because a blocking join needs a worker thread, which would stay.
            while serving.is_stopping():  # noqa: ASYNC110
                await anyio.sleep(0.01)


def run(
    respond: Responder,
    host: str = LOOPBACK,
    port: int = 0,
    *,
    on_ready: Callable[[str], None],
) -> None:
    """Serve until an exception comes, such as `KeyboardInterrupt`; blocks.

    Args:
        respond: what answers the requests; it is called in the server's thread.
        host: the address to listen on.
        port: the port; 0: any free one.
        on_ready: called with the base URL.

    Raises:
        OSError: if that address cannot be had.
    """
    serving = _start(respond, host, port)
    try:
        on_ready(serving.url)
        while serving.thread.is_alive():
            serving.thread.join(1.0)  # no longer, because on Windows a join hears no Ctrl-C
    finally:
        while serving.is_stopping():
            serving.thread.join(0.01)
