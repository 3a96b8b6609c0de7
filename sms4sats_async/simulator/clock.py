"""Clocks for tests and demos: one whose time runs faster, and one that a test sets.

Both have the methods that the client needs of a clock (`now`, `monotonic`, `sleep`) and work on
asyncio and Trio. Both also have `true_time`, the time of the simulated service: it includes the
time that a suspended machine misses, and ignores changes of the machine's wall clock.
"""

import math
import threading
import time
from typing import Protocol

import anyio
import anyio.lowlevel
import attrs

from .idle import IdleWatch

__all__ = ["Clock", "ManualClock", "ScaledClock"]


class Clock(Protocol):
    """The methods that the simulator, and also the client, needs of a clock."""

    def now(self) -> float:
        """Return the wall-clock time in Unix seconds."""
        ...

    def monotonic(self) -> float:
        """Return seconds since a fixed moment; never goes back."""
        ...

    async def sleep(self, seconds: float, /) -> None:
        """Wait for that many seconds of this clock."""
        ...


class ScaledClock:
    """A clock that runs `speed` times as fast as real time.

    Two clocks with the same speed and origin show the same wall-clock time, also in two processes.

    Attributes:
        speed: simulated seconds per real second.
        origin: the Unix time at which simulated and real time are equal.
    """

    def __init__(self, speed: float = 60.0, *, origin: float | None = None) -> None:
        """Set the clock.

        Args:
            speed: simulated seconds per real second; 1.0 is real time.
            origin: the Unix time at which simulated and real time are equal; None: now.

        Raises:
            ValueError: if the speed is not a positive finite number.
        """
        if not 0 < speed < math.inf:
            raise ValueError(f"speed must be positive and finite, not {speed!r}")
        self.speed = speed
        self.origin: float = time.time() if origin is None else origin

    @property
    def setting(self) -> str:
        """The value of `SMS4SATS_SPEED` for a client in another process, such as `20@1764110000`.

        The number after the `@` is the origin.
        """
        return "@".join(repr(each).removesuffix(".0") for each in (self.speed, self.origin))

    def now(self) -> float:
        """Return the simulated wall-clock time in Unix seconds."""
        # From the machine's wall clock, because all processes share it, unlike `time.monotonic`.
        return self.origin + (time.time() - self.origin) * self.speed

    def monotonic(self) -> float:
        """Return simulated seconds since a fixed moment."""
        return time.monotonic() * self.speed

    def true_time(self) -> float:
        """Return the time of the simulated service: the same as `now`."""
        return self.now()

    async def sleep(self, seconds: float) -> None:
        """Wait for that many simulated seconds: `seconds / speed` real seconds."""
        due = self.monotonic() + seconds
        await anyio.lowlevel.checkpoint()
        # A loop, because a real sleep may end slightly early, and `speed` multiplies the error.
        while (left := due - self.monotonic()) > 0:  # noqa: ASYNC110
            await anyio.sleep(left / self.speed)


@attrs.define(eq=False)
class _Sleeper:
    """A task that sleeps on a `ManualClock`."""

    due: float
    event: anyio.Event = attrs.field(factory=anyio.Event)
    thread: int = attrs.field(factory=threading.get_ident)


class ManualClock:
    """A clock that moves only when a test moves it, so that no test waits.

    With `autojump` (the default), a sleep moves the clock to the end of the sleep at once. Without
    it, a sleep ends when `advance` reaches its end.

    Attributes:
        autojump: whether a sleep moves the clock.
        sleeps: the seconds of every sleep, in order. They include the simulator's slow answers if
            it shares this clock.
    """

    def __init__(self, start: float = 1_800_000_000.0, *, autojump: bool = True) -> None:
        """Set the clock.

        Args:
            start: the wall-clock time in Unix seconds.
            autojump: whether a sleep moves the clock.
        """
        self.autojump = autojump
        self.sleeps: list[float] = []
        self._monotonic = 1_000.0  # far from any wall-clock time, so that a mix-up is visible
        self._wall_offset = start - self._monotonic
        self._true_offset = self._wall_offset
        self._sleepers: list[_Sleeper] = []
        self._lock = threading.Lock()
        self._idle = IdleWatch()

    def now(self) -> float:
        """Return the wall-clock time in Unix seconds."""
        return self._monotonic + self._wall_offset

    def monotonic(self) -> float:
        """Return seconds since a fixed moment."""
        return self._monotonic

    def true_time(self) -> float:
        """Return the time of the simulated service, in Unix seconds.

        Sleeps, `advance` and `suspend` move it. `set_wall` and `step_wall` do not.
        """
        return self._monotonic + self._true_offset

    @property
    def waiting(self) -> list[float]:
        """The seconds that each sleeping task still has to wait, in ascending order."""
        return sorted(sleeper.due - self._monotonic for sleeper in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Move the clock by that many seconds, or wait until `advance` has.

        Args:
            seconds: how long; zero or less only lets other tasks run.

        Raises:
            ValueError: if the number is not finite.
        """
        if not math.isfinite(seconds):
            raise ValueError(f"a manual clock cannot sleep for {seconds!r} seconds")
        due = self._monotonic + seconds
        self.sleeps.append(seconds)
        await anyio.lowlevel.checkpoint()
        if self.autojump:
            self._move_to(due)
        elif due > self._monotonic:
            sleeper = _Sleeper(due)
            self._sleepers.append(sleeper)
            try:
                await sleeper.event.wait()
            finally:
                if sleeper in self._sleepers:  # cancelled before `advance` woke it
                    self._sleepers.remove(sleeper)

    async def advance(self, seconds: float) -> None:
        """Move the clock. Wake each sleeping task at its own time, and let it run until it waits.

        A task that waits for a worker thread (`anyio.to_thread.run_sync`) or for a `SqliteJournal`
        goes on first. A task that waits for a socket counts as waiting. So does one whose worker
        thread takes longer than two real seconds.

        Args:
            seconds: how far, zero or more.

        Raises:
            ValueError: if the number is negative or not finite.
            RuntimeError: if a task in another thread sleeps on this clock, such as a slow answer of
                a served simulator. Serve with `autojump`, or on a `ScaledClock`.
        """
        target = self._monotonic + _span(seconds)
        await self._idle.wait()
        while due := [sleeper for sleeper in self._sleepers if sleeper.due <= target]:
            sleeper = min(due, key=lambda each: each.due)
            if sleeper.thread != threading.get_ident():
                raise RuntimeError("advance() cannot wake a task in another thread")
            self._sleepers.remove(sleeper)
            self._move_to(sleeper.due)
            sleeper.event.set()
            await self._idle.wait()
        self._move_to(target)

    def set_wall(self, now: float) -> None:
        """Set the wall clock to that many Unix seconds. No time passes."""
        self._wall_offset = now - self._monotonic

    def step_wall(self, seconds: float) -> None:
        """Move the wall clock forward, or back if `seconds` is negative. No time passes."""
        self._wall_offset += seconds

    def suspend(self, seconds: float) -> None:
        """Let time pass as on a suspended machine: the monotonic clock does not count it.

        Args:
            seconds: how long, zero or more.

        Raises:
            ValueError: if the number is negative or not finite.
        """
        self._wall_offset += _span(seconds)
        self._true_offset += seconds

    def _move_to(self, monotonic: float) -> None:
        # The lock is for a served simulator, which sleeps on this clock in its own thread.
        with self._lock:
            self._monotonic = max(self._monotonic, monotonic)


def _span(seconds: float) -> float:
    if not 0 <= seconds < math.inf:
        raise ValueError(f"time can pass by zero or more finite seconds, not {seconds!r}")
    return seconds
