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

    from sms4sats_async import OrderResult

__all__ = ["MOST_BARS", "Row", "bars_of", "fold", "mask", "minutes", "whole_seconds"]

MOST_BARS: Final = 20

_GRACE: Final = 1.0
"""Seconds that a bar stays after its end: the request that follows is under way."""

_SHORTEST_SHOWN: Final = 12


@attrs.frozen
class Row:
    """What is known about one order, or about a call without an order. Times are Unix seconds.

    Attributes:
        name: The order's ID, masked.
        state: The state of the order, in words.
        reason: Why the client waits.
        began: When the wait began.
        until: When it ends, at the latest.
        waiter: The coroutine of the task that waits, if there is an event loop.
        ended: Whether the order has ended.
        updated: When the last event arrived.
        news: The last event in one line, or nothing if it had no news.
        last_news: The last line that was not empty.
    """

    name: str = ""
    state: str = "ordered"
    reason: str = ""
    began: float = 0.0
    until: float = 0.0
    waiter: object = attrs.field(default=None, eq=False, repr=False)
    ended: bool = False
    updated: float = 0.0
    news: str = ""
    last_news: str = ""

    @property
    def line(self) -> str:
        """The news, with the order's name."""
        return f"{self.name}: {self.news}" if self.name else self.news

    @property
    def is_abandoned(self) -> bool:
        """Whether the task that waited has ended, and the order has not.

        A task that is cancelled sends no event. A coroutine that ended has no frame.
        """
        return not self.ended and getattr(self.waiter, "cr_frame", self) is None

    def left(self, now: float) -> float:
        """Return the seconds left."""
        return max(0.0, self.until - now)

    def part(self, now: float) -> float:
        """Return how much of the wait is over, from 0 to 1."""
        whole = self.until - self.began
        return 1.0 if whole <= 0 else min(1.0, max(0.0, (now - self.began) / whole))

    def waits(self, now: float) -> bool:
        """Return whether there is a bar to show."""
        return not self.ended and not self.is_abandoned and now < self.until + _GRACE

    def say(self, news: str, now: float) -> Row:
        """Return the row with this news."""
        return attrs.evolve(self, updated=now, news=news, last_news=news or self.last_news)


def fold(row: Row, event: Event, now: float) -> Row:
    """Return what is known after `event`; the same row if there is nothing to show."""
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
            return row.say("" if news == row.last_news else news, now)
        case StatusPolled(status=status):
            state = _state(status)
            ended = status.money in {Money.SETTLED, Money.REFUNDED}
            changed = attrs.evolve(row, state=state, ended=ended)
            return changed.say("" if state == row.state else state, now)
        # Often, a status showed the end before.
        case OrderEnded(result=result) if not (row.ended and row.state.endswith(_money(result))):
            outcome = "the end is unknown" if result.outcome is None else result.outcome.value
            # A cancel that worked does not say whether the order was ever paid.
            money = "what was paid is refunded" if result.refunded else _money(result)
            state = f"{outcome}, {money}"
            return attrs.evolve(row, state=state, ended=True).say(state, now)
        case _:
            return row


def _state(status: OrderStatus) -> str:
    """Return the state of an order and of its money in words.

    Without the code, because a log may keep what is shown.
    """
    words = [] if status.state is OrderState.HELD else [status.state.value]
    if status.state is OrderState.NUMBER_ASSIGNED and status.number is not None:
        words = [f"number {_printable(status.number)}"]
    if status.money is not Money.UNKNOWN:
        words.append(_money(status))
    return ", ".join(words)


def _money(known: OrderStatus | OrderResult) -> str:
    return f"money {known.money.value}"


def mask(order_id: str | None) -> str:
    """Return an order's ID as it may be shown; nothing if there is none."""
    if order_id is None:
        return ""
    shown = f"{order_id[:4]}…{order_id[-4:]}" if len(order_id) >= _SHORTEST_SHOWN else "…"
    return _printable(shown)


def _printable(text: str) -> str:
    """Return a foreign text on one line, without control characters."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def whole_seconds(seconds: float) -> int:
    """Return whole seconds, rounded up. Less than a hundredth is the difference of two clocks."""
    return math.ceil(round(seconds, 2))


def minutes(seconds: float) -> str:
    """Return seconds as `1:42`, rounded up, so that 0:00 is never shown too early."""
    minutes, rest = divmod(whole_seconds(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def bars_of(rows: Iterable[Row], now: float) -> list[Row]:
    """Return the rows that have a bar."""
    return [row for row in rows if row.waits(now)]
