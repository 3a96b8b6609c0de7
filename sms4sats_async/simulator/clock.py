"""Clocks that tests and demos can hurry: time that runs faster, and time that is moved by hand.

Both satisfy the protocol the client asks of a clock (`now`, `monotonic`, `sleep`) and work on
asyncio and Trio alike. Both know one thing more, `true_time`: the time of the world outside, which
goes on when a laptop sleeps and does not move when somebody sets its wall clock. The simulated
service lives by that time, because the real one does not care what the client's clock says either.
"""

import math
import threading
import time
from typing import Protocol

import anyio
import anyio.lowlevel
import attrs

__all__ = ["Clock", "ManualClock", "ScaledClock"]

_ROUNDS = 100
"""How often the other tasks get a turn before `advance` looks whether they have come to rest."""


class Clock(Protocol):
    """What the simulator asks of a clock, and what the client asks of one."""

    def now(self) -> float:
        """Return the wall clock's time, in Unix seconds."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some fixed moment; never goes back."""
        ...

    async def sleep(self, seconds: float, /) -> None:
        """Wait for that many seconds of this clock."""
        ...


class ScaledClock:
    """A clock that runs `speed` times faster than real time.

    It starts at the real time of day and goes on from there, so that two scaled clocks agree only
    if they were made at the same moment: share one clock where the times must agree.
    """

    def __init__(self, speed: float = 60.0) -> None:
        """Start the clock now.

        Args:
            speed: simulated seconds per real second; 1.0 is real time.

        Raises:
            ValueError: if the speed is not a positive finite number.
        """
        if not 0 < speed < math.inf:
            raise ValueError(f"speed must be positive and finite, not {speed!r}")
        self.speed = speed
        self._wall_start = time.time()
        self._start = time.monotonic()

    def now(self) -> float:
        """Return the simulated wall clock's time, in Unix seconds."""
        return self._wall_start + self._elapsed()

    def monotonic(self) -> float:
        """Return simulated seconds since some fixed moment."""
        return self._start + self._elapsed()

    def true_time(self) -> float:
        """Return the simulated time of the world outside: here the same as `now`."""
        return self.now()

    async def sleep(self, seconds: float) -> None:
        """Wait for that many simulated seconds: `seconds / speed` real ones."""
        due = self.monotonic() + seconds
        await anyio.lowlevel.checkpoint()
        # A loop, because a real sleep may end a hair early and the hair is `speed` times as thick.
        while (left := due - self.monotonic()) > 0:  # noqa: ASYNC110
            await anyio.sleep(left / self.speed)

    def _elapsed(self) -> float:
        return (time.monotonic() - self._start) * self.speed


@attrs.define(eq=False)
class _Sleeper:
    """A task that waits for a moment of a `ManualClock`."""

    due: float
    event: anyio.Event = attrs.field(factory=anyio.Event)
    thread: int = attrs.field(factory=threading.get_ident)


class ManualClock:
    """A clock that stands still until it is moved, so that no test waits.

    With `autojump` (the default) a sleep moves the clock to its own end at once. Without it,
    sleepers wait until `advance` passes their due time.

    Attributes:
        autojump: whether a sleep moves the clock by itself.
        sleeps: every sleep that was asked for, in seconds, in order; the simulator's slow answers
            are among them if it shares this clock.
    """

    def __init__(self, start: float = 1_800_000_000.0, *, autojump: bool = True) -> None:
        """Stop the clock at a moment.

        Args:
            start: the wall clock's first reading, in Unix seconds.
            autojump: whether a sleep moves the clock by itself.
        """
        self.autojump = autojump
        self.sleeps: list[float] = []
        self._monotonic = 1_000.0  # far from any wall clock, so that mixing the two shows
        self._wall_offset = start - self._monotonic
        self._true_offset = self._wall_offset
        self._sleepers: list[_Sleeper] = []
        self._lock = threading.Lock()

    def now(self) -> float:
        """Return the wall clock's time, in Unix seconds."""
        return self._monotonic + self._wall_offset

    def monotonic(self) -> float:
        """Return seconds since some fixed moment."""
        return self._monotonic

    def true_time(self) -> float:
        """Return the time of the world outside, in Unix seconds.

        It moves with sleeps, `advance` and `suspend`, and stays where it is when the wall clock is
        set or stepped.
        """
        return self._monotonic + self._true_offset

    @property
    def waiting(self) -> list[float]:
        """Seconds that each sleeper still has to wait, the next to wake first."""
        return sorted(sleeper.due - self._monotonic for sleeper in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Move the clock by that many seconds, or wait until somebody else has.

        Args:
            seconds: how long; zero or less only lets other tasks have a turn.

        Raises:
            ValueError: if that is not a finite number, which would break the clock for good.
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
                if sleeper in self._sleepers:  # not woken but cancelled
                    self._sleepers.remove(sleeper)

    async def advance(self, seconds: float) -> None:
        """Move the clock, waking each sleeper at its own due time and letting it run to rest.

        Tasks that wait for a socket or a thread count as being at rest.

        Args:
            seconds: how far, zero or more.

        Raises:
            ValueError: if that is negative or not finite.
            RuntimeError: if a sleeper runs in another thread, such as a slow answer of a served
                simulator: serve with `autojump`, or on a `ScaledClock`.
        """
        target = self._monotonic + _span(seconds)
        await _let_others_run()
        while due := [sleeper for sleeper in self._sleepers if sleeper.due <= target]:
            sleeper = min(due, key=lambda each: each.due)
            if sleeper.thread != threading.get_ident():
                raise RuntimeError("a sleeper in another thread cannot be woken from here")
            self._sleepers.remove(sleeper)
            self._move_to(sleeper.due)
            sleeper.event.set()
            await _let_others_run()
        self._move_to(target)

    def set_wall(self, now: float) -> None:
        """Set the wall clock to that many Unix seconds; no time passes."""
        self._wall_offset = now - self._monotonic

    def step_wall(self, seconds: float) -> None:
        """Step the wall clock forward, or back if negative; no time passes."""
        self._wall_offset += seconds

    def suspend(self, seconds: float) -> None:
        """Pass time as a laptop with a closed lid does: the monotonic clock does not see it.

        Args:
            seconds: how long, zero or more.

        Raises:
            ValueError: if that is negative or not finite.
        """
        self._wall_offset += _span(seconds)
        self._true_offset += seconds

    def _move_to(self, monotonic: float) -> None:
        # The lock is for a served simulator, which sleeps on this clock in a thread of its own.
        with self._lock:
            self._monotonic = max(self._monotonic, monotonic)


def _span(seconds: float) -> float:
    if not 0 <= seconds < math.inf:
        raise ValueError(f"time can pass by zero or more finite seconds, not {seconds!r}")
    return seconds


async def _let_others_run() -> None:
    # On asyncio, `wait_all_tasks_blocked` pauses for 0.1 s whenever it finds somebody running; the
    # rounds before it make that rare.
    for _ in range(_ROUNDS):
        await anyio.lowlevel.checkpoint()
    await anyio.wait_all_tasks_blocked()
