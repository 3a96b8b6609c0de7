"""As little of a server as there can be: it answers every request with `{"status":"OK"}`.

Started by run.py as `server.py SECONDS`, which it waits before each answer. The first line that it
writes is its port. It ends when its standard input does, so it cannot outlive who started it; its
last line is how many connections were open at the same time at most.
"""

import asyncio
import sys
from typing import cast

BODY = b'{"status":"OK"}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
) + BODY
END_OF_REQUEST = b"\r\n\r\n"  # requests have no body here


class Count:
    """How many connections are open, and how many there were at most."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    def opened(self) -> None:
        """Count one more."""
        self.now += 1
        self.most = max(self.most, self.now)

    def closed(self) -> None:
        """Count one less."""
        self.now -= 1


class Connection(asyncio.Protocol):
    """One connection, kept open until the client closes it."""

    def __init__(self, delay: float, count: Count) -> None:
        self._delay = delay
        self._count = count
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it."""
        self._transport = cast("asyncio.Transport", transport)
        self._count.opened()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it out; answers that are due later fall away."""
        del exc
        self._transport = None
        self._count.closed()

    def data_received(self, data: bytes) -> None:
        """Answer each whole request, now or later."""
        *requests, self._received = (self._received + data).split(END_OF_REQUEST)
        for _ in requests:
            if self._delay:
                asyncio.get_running_loop().call_later(self._delay, self._answer)
            else:
                self._answer()

    def _answer(self) -> None:
        if self._transport is not None:
            self._transport.write(ANSWER)


async def main(delay: float) -> None:
    """Serve until standard input ends."""
    count = Count()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(delay, count), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(count.most, flush=True)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
