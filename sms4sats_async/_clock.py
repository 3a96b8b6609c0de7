"""Time as an argument: the protocol of a clock, the machine's clock, and time that passed."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

CLOCKS_DIFFER: Final = 0.001
"""Seconds by which two clocks may disagree about the same moment."""

SHORTEST_SLEEP: Final = 0.001
"""Seconds below which no sleep is requested: no timer is more exact, and a wait would spin."""

LONGEST_SLEEP: Final = 5.0
"""Seconds of the longest sleep: only the wall clock shows that a laptop was suspended."""

_JUMP: Final = 1.0
"""Seconds by which the wall clock must get ahead of the monotonic one to count as a suspend."""


_LONGEST_SPAN: Final = 100 * 365 * 86_400.0
"""Seconds of the longest time span that is recorded: 100 years, so that no date overflows."""


def time_span(seconds: float) -> timedelta:
    """Return seconds as a span that can be added to a date; a longer one is cut."""
    return timedelta(seconds=min(seconds, _LONGEST_SPAN))


class Clock(Protocol):
    """The client's source of time; a test passes its own as `Sms4SatsClient(clock=...)`."""

    def now(self) -> float:
        """Return the wall-clock time in Unix seconds."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that is never set back; only differences are meaningful."""
        ...

    async def sleep(self, seconds: float, /) -> None:
        """Return after `seconds`; other tasks run meanwhile."""
        ...


def _boot_time() -> int | None:
    """Return the clock that counts suspends and cannot be set: Linux has one."""
    with suppress(AttributeError, OSError):
        time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.CLOCK_BOOTTIME
    return None


_BOOT_TIME: Final = _boot_time()


class SystemClock:
    """The machine's own clocks."""

    __slots__ = ()

    def since_boot(self) -> float | None:
        """Return seconds that include suspends, whatever the wall clock is set to; or None."""
        return None if _BOOT_TIME is None else time.clock_gettime(_BOOT_TIME)

    def now(self) -> float:
        """Return the wall-clock time in Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return the machine's monotonic time in seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float, /) -> None:
        """Sleep on the event loop that runs, asyncio's or Trio's."""
        await anyio.sleep(seconds)


class ElapsedClock:
    """Measures how much time has surely passed, including the sleep of a suspended machine.

    It follows a clock that counts that sleep, where there is one (`since_boot`), and the wall clock
    changes nothing. Otherwise it follows the monotonic clock, which does not count a suspend. It
    then jumps when the wall clock gets further ahead of that than ever before. So setting the wall
    clock back, or correcting it afterwards, changes nothing.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_boot: Callable[[], float | None] = getattr(clock, "since_boot", lambda: None)
        wall = clock.now()
        self._ahead = 0.0 if self._since_boot() is not None else wall - clock.monotonic()

    def now(self) -> float:
        """Return the seconds that have passed since a fixed moment."""
        return self._steady_and_ahead()[0] + self._ahead

    def birth(self, created_at: float) -> float:
        """Return the moment, on this clock, at which an order was created.

        Args:
            created_at: When the order was created by the wall clock, in Unix seconds. A time in the
                future counts as now: no order comes from the future.
        """
        steady, ahead = self._steady_and_ahead()
        age = max(0.0, self._clock.now() - created_at)
        # A jump that is too small to be seen now may be counted later, so the age never counts it.
        return steady + max(self._ahead, ahead) - age + (CLOCKS_DIFFER if age > 0 else 0.0)

    def _steady_and_ahead(self) -> tuple[float, float]:
        since_boot = self._since_boot()
        if since_boot is not None:
            return since_boot, 0.0
        # In this order, because a pause between the two readings must not look like a jump.
        wall = self._clock.now()
        steady = self._clock.monotonic()
        if wall - steady > self._ahead + _JUMP:
            self._ahead = wall - steady
        return steady, wall - steady
