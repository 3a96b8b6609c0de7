"""The clock of a simulator in another process, from the environment variable SMS4SATS_SPEED."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel

from ._redact import show
from ._validate import is_loopback
from .errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._clock import Clock

VARIABLE: Final = "SMS4SATS_SPEED"


def clock_for(base_url: str, environment: Mapping[str, str]) -> Clock | None:
    """Return the clock that SMS4SATS_SPEED asks for, None for the machine's own clock.

    The simulator prints the value: `20@1764110000` is a clock that runs 20 times as fast as real
    time, and was equal to it at the Unix time after the `@`. So the simulator and all clients that
    read the value agree on the time. Without the `@`, the clock starts at the real time now.

    Args:
        base_url: The root of the service. Unless it is on this machine, the variable is ignored: a
            real service never changes the client's clock.
        environment: The environment variables.

    Raises:
        InvalidArgumentError: If the value is invalid.
    """
    value = environment.get(VARIABLE)
    if not value or not is_loopback(urlsplit(base_url).hostname or ""):
        return None
    try:
        clock = _parse(value)
    except (ValueError, OverflowError, OSError) as error:
        problem = (
            f"{VARIABLE} must be a positive number, or the value that the simulator printed, "
            f"not {show(value)}"
        )
        raise InvalidArgumentError(problem) from error
    return None if clock.speed == 1 else clock


def _parse(value: str) -> _ScaledClock:
    speed, separator, origin = value.partition("@")
    clock = _ScaledClock(float(speed), float(origin) if separator else time.time())
    if not 0 < clock.speed < math.inf:
        raise ValueError("the speed is not a positive number")
    datetime.fromtimestamp(clock.now(), UTC)  # raises for a year that no datetime can hold
    return clock


class _ScaledClock:
    """Shows the time of the simulator's `ScaledClock` with the same speed and origin."""

    __slots__ = ("origin", "speed")

    def __init__(self, speed: float, origin: float) -> None:
        self.speed = speed
        self.origin = origin

    def now(self) -> float:
        """Return the simulated wall-clock time in Unix seconds."""
        # From the machine's wall clock, because all processes share it, unlike `time.monotonic`.
        return self.origin + (time.time() - self.origin) * self.speed

    def monotonic(self) -> float:
        """Return simulated seconds on a clock that is never set back."""
        return time.monotonic() * self.speed

    async def sleep(self, seconds: float, /) -> None:
        """Wait for that many simulated seconds."""
        due = self.monotonic() + seconds
        await anyio.lowlevel.checkpoint()
        # A loop, because a real sleep may end slightly early, and `speed` multiplies the error.
        while (left := due - self.monotonic()) > 0:  # noqa: ASYNC110
            await anyio.sleep(left / self.speed)
