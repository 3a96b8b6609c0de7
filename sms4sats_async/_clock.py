"""Time as an argument: what a clock is, and the real one."""

from __future__ import annotations

import time
from typing import Final, Protocol

import anyio

CLOCKS_DIFFER: Final = 0.001
"""Seconds by which a time by one clock may be off by another: no two agree to the last bit."""


class Clock(Protocol):
    """What the client asks of a clock; a test hands another to `Sms4SatsClient(clock=...)`."""

    def now(self) -> float:
        """Return the wall-clock time in Unix seconds."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that is never set back; only differences have a meaning."""
        ...

    async def sleep(self, seconds: float, /) -> None:
        """Return after `seconds`, and let other tasks run meanwhile."""
        ...


class SystemClock:
    """The machine's own clocks."""

    __slots__ = ()

    def now(self) -> float:
        """Return the wall-clock time in Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return the machine's monotonic time in seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float, /) -> None:
        """Sleep on the event loop that runs, asyncio's or Trio's."""
        await anyio.sleep(seconds)
