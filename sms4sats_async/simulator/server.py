"""Serve the simulated service on a real socket.

uvicorn runs in its own thread with its own event loop. So it can serve programs on asyncio, on
Trio, or without an event loop, and it does not change the signal handlers of the main thread.
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
_ACCEPT_DELAY = 0.02  # seconds
_SHUTDOWN_TIMEOUT = 1  # seconds; never reached, because the shutdown drops all connections
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, for 0 seconds


class _Connection(H11Protocol):
    """A connection that the application can close without an answer.

    ASGI cannot express that: if the application returns without an answer, uvicorn sends a 500.
    But uvicorn copies `app_state` to `scope["state"]`, so each connection adds its transport there.
    """

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - see below
        # The type of the transport belongs to asyncio, which this package does not import.
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}
        # The event loop sets this only for sockets whose protocol is TCP by name, and those of
        # `socket.create_server` name none. Without it, each answer takes 40 ms longer.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # This log would show whole order IDs. uvicorn's `access_log=False` would also switch off
        # the access log of other uvicorn servers in this process.
        self.access_log = False

    def shutdown(self) -> None:
        """Drop the connection when the server stops, even if a request has no answer yet."""
        self.transport.abort()


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, accept the connections of the backlog, and drop all connections."""
        for listener in self.servers:
            listener.close()
        await anyio.sleep(_ACCEPT_DELAY)
        await super().shutdown(sockets)


@attrs.define
class _Application:
    """The ASGI application: passes each request to the service and sends its answer."""

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
            # An answer that hangs, drips or is slow ends when the client disconnects.
            group.start_soon(_cancel_on_disconnect, receive, group.cancel_scope)
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
            # If the application returned before uvicorn sees the end of the connection, uvicorn
            # would complete the answer.
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


async def _cancel_on_disconnect(receive: _Receive, scope: anyio.CancelScope) -> None:
    await receive()  # after the body, only "http.disconnect" can follow
    scope.cancel()


@attrs.frozen
class _Serving:
    """A running server."""

    url: str
    server: uvicorn.Server
    thread: threading.Thread

    def is_stopping(self) -> bool:
        """Ask the server to stop, and return whether it still runs."""
        # Not before it has started: older versions of uvicorn would not close the socket.
        self.server.should_exit = self.server.started
        return self.thread.is_alive()


def _start(respond: Responder, host: str, port: int) -> _Serving:
    # The socket listens before the thread starts. So the port is known at once, an address that
    # cannot be used is an error here, and early connections wait in the backlog.
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
            timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT,
        )
    )
    thread = threading.Thread(
        target=server.run, args=([listener],), name="sms4sats-simulator", daemon=True
    )
    thread.start()
    return _Serving(url, server, thread)


@asynccontextmanager
async def serve(respond: Responder, host: str = LOOPBACK, port: int = 0) -> AsyncGenerator[str]:
    """Serve until the block ends, on asyncio or Trio.

    Args:
        respond: returns the answer to a request; it is called in the thread of the server.
        host: the address to listen on.
        port: the port; 0: any free port.

    Yields:
        The base URL.

    Raises:
        OSError: if the address cannot be used.
    """
    serving = _start(respond, host, port)
    try:
        yield serving.url
    finally:
        with anyio.CancelScope(shield=True):
            # Polling, because a blocking join needs a worker thread, which would stay.
            while serving.is_stopping():  # noqa: ASYNC110
                await anyio.sleep(0.01)


def run(
    respond: Responder,
    host: str = LOOPBACK,
    port: int = 0,
    *,
    on_ready: Callable[[str], None],
) -> None:
    """Serve until an exception such as `KeyboardInterrupt` is raised. Blocks.

    Args:
        respond: returns the answer to a request; it is called in the thread of the server.
        host: the address to listen on.
        port: the port; 0: any free port.
        on_ready: called with the base URL.

    Raises:
        OSError: if the address cannot be used.
    """
    serving = _start(respond, host, port)
    try:
        on_ready(serving.url)
        while serving.thread.is_alive():
            serving.thread.join(1.0)  # on Windows, Ctrl-C does not interrupt a join
    finally:
        while serving.is_stopping():
            serving.thread.join(0.01)
