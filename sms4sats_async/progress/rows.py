"""Events, folded into one row for each order, and the words for them. Pure functions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import attrs

from sms4sats_async import (
    AttemptFailed,
    Event,
    Money,
    OrderCreated,
    OrderEnded,
    OrderState,
    OrderStatus,
    StatusPolled,
    Waiting,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MOST_BARS", "Row", "bars_of", "fold", "mask", "minutes", "whole_seconds"]

MOST_BARS: Final = 20

_GRACE: Final = 1.0
"""Seconds that a bar stays after its end: the request that follows is under way."""

_SHORTEST_SHOWN: Final = 12


@attrs.frozen
class Row:
    """What is known of one order, or of a call that is about none. Times are Unix seconds.

    Attributes:
        name: The order's id, masked.
        state: Where the order stands, in words.
        reason: What is waited for.
        began: When the wait began.
        until: When it ends, at the latest.
        ended: Whether the order has ended.
        heard: When something was last heard of it.
        news: What the last event told in one line, or nothing if it told nothing new.
        told: The last line that was not empty.
    """

    name: str = ""
    state: str = "ordered"
    reason: str = ""
    began: float = 0.0
    until: float = 0.0
    ended: bool = False
    heard: float = 0.0
    news: str = ""
    told: str = ""

    @property
    def line(self) -> str:
        """The news, and of which order they are."""
        return f"{self.name}: {self.news}" if self.name else self.news

    def left(self, now: float) -> float:
        """Return the seconds left."""
        return max(0.0, self.until - now)

    def part(self, now: float) -> float:
        """Return how much of the wait is over, from 0 to 1."""
        whole = self.until - self.began
        return 1.0 if whole <= 0 else min(1.0, max(0.0, (now - self.began) / whole))

    def waits(self, now: float) -> bool:
        """Tell whether there is a bar to show."""
        return not self.ended and now < self.until + _GRACE

    def say(self, news: str, now: float) -> Row:
        """Return the row with this news."""
        return attrs.evolve(self, heard=now, news=news, told=news or self.told)


def fold(row: Row, event: Event, now: float) -> Row:
    """Return what is known after `event`; the same row if it says nothing that is shown."""
    match event:
        case OrderCreated():
            return row.say(row.state, now)
        case Waiting(reason=reason):
            until = event.until.timestamp()
            row = attrs.evolve(row, reason=reason, began=now, until=until, ended=False)
            return row.say(f"waiting {minutes(row.left(now))}: {reason}", now)
        case AttemptFailed(operation=operation, attempt=attempt, attempts=attempts, delay=delay):
            news = f"{operation} attempt {attempt} of {attempts} failed"
            if delay is not None:
                news = f"{news}, next in {delay:.1f} s"
                reason = f"{operation} attempt {attempt + 1} of {attempts} comes next"
                row = attrs.evolve(row, reason=reason, began=now, until=now + delay)
            elif attempt < attempts:
                news = f"{news}, no further attempt"
            news = f"{news}: {_printable(event.error.problem)}"
            # While a service is down, each lost poll fails alike, so only the first is shown.
            return row.say("" if news == row.told else news, now)
        case StatusPolled(status=status):
            state = _state(status)
            ended = status.money in {Money.SETTLED, Money.REFUNDED}
            changed = attrs.evolve(row, state=state, ended=ended)
            return changed.say("" if state == row.state else state, now)
        # A status that showed the end was shown already.
        case OrderEnded(result=result) if not row.ended:
            outcome = "outcome unknown" if result.outcome is None else result.outcome.value
            state = f"{outcome}, money {result.money.value}"
            return attrs.evolve(row, state=state, ended=True).say(state, now)
        case _:
            return row


def _state(status: OrderStatus) -> str:
    """Return in words where an order stands and who holds the money.

    The code is not among them, because what is shown may end up in a log.
    """
    words = [] if status.state is OrderState.HELD else [status.state.value]
    if status.state is OrderState.NUMBER_ASSIGNED and status.number is not None:
        words = [f"number {_printable(status.number)}"]
    if status.money is not Money.UNKNOWN:
        words.append(f"money {status.money.value}")
    return ", ".join(words)


def mask(order_id: str | None) -> str:
    """Return what is shown of an order's id: never the whole, and nothing of none."""
    if order_id is None:
        return ""
    shown = f"{order_id[:4]}…{order_id[-4:]}" if len(order_id) >= _SHORTEST_SHOWN else "…"
    return _printable(shown)


def _printable(text: str) -> str:
    """Return foreign text as one line that moves no cursor."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def whole_seconds(seconds: float) -> int:
    """Return whole seconds, rounded up. Less than a hundredth is the difference of two clocks."""
    return math.ceil(round(seconds, 2))


def minutes(seconds: float) -> str:
    """Return a span as `1:42`, rounded up, so that 0:00 is never shown too early."""
    minutes, rest = divmod(whole_seconds(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def bars_of(rows: Iterable[Row], now: float) -> list[Row]:
    """Return the rows that have a bar."""
    return [row for row in rows if row.waits(now)]
