"""A minimal server: every cancel works, and every order waits for its code.

Started by run.py as `server.py SECONDS`, the delay of each answer. Its first line is its port. It
ends when its standard input ends, so it cannot outlive the process that started it. Its last line
has the largest number of connections at the same time, and the number of requests.
"""

import asyncio
import sys
from typing import cast

OK = b'{"status":"OK"}'
WAITING = b'{"status":"OK","paid":true,"id":7,"number":15551234567,"country":187,"service":"tg"}'


def _answer(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


_OK, _WAITING = _answer(OK), _answer(WAITING)


def answer_to(request: bytes) -> bytes:
    """Return the answer to a request: an order waits for its code, and every cancel works."""
    return _WAITING if b"/orderstatus" in request[:20] else _OK


END_OF_REQUEST = b"\r\n\r\n"  # requests have no body here


class Count:
    """How many connections are open, how many were at most, and how many requests came."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.requests = 0

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
        self._count.requests += len(requests)
        for request in requests:
            if self._delay:
                asyncio.get_running_loop().call_later(self._delay, self._answer, request)
            else:
                self._answer(request)

    def _answer(self, request: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer_to(request))


async def main(delay: float) -> None:
    """Serve until standard input ends."""
    count = Count()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(delay, count), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(count.most, count.requests, flush=True)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
