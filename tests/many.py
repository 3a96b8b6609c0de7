"""Many orders at once: a scene whose clock a test moves, and what several test files share."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

from sms4sats_async.journal.entry import LEASE, claim
from sms4sats_async.simulator import ManualClock
from tests.simulated import HELD, Simulated

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from sms4sats_async import (
        JournalEntry,
        OrderJournal,
        OrderResult,
        OrderResults,
        OrderScheduler,
        ReceiveOrder,
    )
    from sms4sats_async.simulator import Answer, Behaviour, Clock

TICK = 0.1
"""Seconds between two looks of the scheduler for the due polls of 400 orders."""

FIRST_POLL = 5 + TICK
"""Seconds within which a new order is polled: one interval, and the scheduler's tick."""

LONGEST_PAUSE = 5 * 1.15 + TICK
"""Seconds between two polls at most: the interval with its jitter, and the tick."""


def on_time(age: float) -> object:
    """Equal to an age at which a request is in time: not early, and a tick late at most."""
    return pytest.approx(age + TICK / 2, abs=TICK / 2 + 0.005)


class Scene(Simulated):
    """A `Simulated` whose clock a test moves.

    Attributes:
        under_way: How many requests the service answers at the moment.
        most_under_way: How many those were at most.
    """

    def __init__(
        self,
        behaviour: Behaviour = HELD,
        *,
        clock: Clock | None = None,
        journal: OrderJournal | None = None,
        **settings: Any,
    ) -> None:
        clock = ManualClock(autojump=False) if clock is None else clock
        super().__init__(behaviour, clock=clock, journal=journal, **settings)
        self.under_way = self.most_under_way = 0
        respond = self.simulator.respond

        async def counted(
            method: str, target: str, headers: Mapping[str, str], body: bytes
        ) -> Answer:
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            try:
                return await respond(method, target, headers, body)
            finally:
                self.under_way -= 1

        # Not by a method of a class of its own, because `Simulated` makes the simulator.
        setattr(self.simulator, "respond", counted)  # noqa: B010

    async def orders(self, count: int, **options: Any) -> list[ReceiveOrder]:
        """New orders; `options` are for `create_order`."""
        return [await self.order(**options) for _ in range(count)]

    def cancels(self) -> list[str]:
        """The order of each cancel that reached the service."""
        return self._order_ids("/cancelorder")

    def polls(self) -> list[str]:
        """The order of each poll that reached the service."""
        return self._order_ids("/orderstatus")

    def _order_ids(self, path: str) -> list[str]:
        return [
            request.query["orderId"] for request in self.simulator.requests if request.path == path
        ]

    def poll_ages_of(self, order: ReceiveOrder) -> list[float]:
        """How old one order was at each poll."""
        created_at = self.simulator.order(order.order_id).created_at
        return [
            request.time - created_at
            for request in self.simulator.requests
            if request.path == "/orderstatus" and request.query["orderId"] == order.order_id
        ]


@asynccontextmanager
async def running(*schedulers: OrderScheduler) -> AsyncGenerator[anyio.CancelScope]:
    """Run schedulers for the length of an `async with`, which gets what ends them sooner."""
    async with anyio.create_task_group() as group:
        for scheduler in schedulers:
            group.start_soon(scheduler.run)
        await turns()
        yield group.cancel_scope
        group.cancel_scope.cancel()


async def turns(count: int = 50) -> None:
    """Let the other tasks have their turns."""
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


async def take(results: OrderResults, count: int) -> list[OrderResult]:
    """The next results; the last of them is not acknowledged."""
    return [await anext(results) for _ in range(count)]


async def collect(results: OrderResults) -> list[OrderResult]:
    """All results until the iterator ends."""
    return [result async for result in results]


def tasks() -> int:
    """Return how many tasks the event loop has."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return trio.lowlevel.current_statistics().tasks_living


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


async def claim_as(owner: str, journal: OrderJournal, order_id: str, now: float) -> JournalEntry:
    """Let another driver claim an order."""
    change = claim(owner, moment(now), has_died=lambda _: False)
    (entry,) = await journal.update([(order_id, change)])
    assert entry is not None
    assert (entry.claimed_by, entry.claimed_until) == (owner, moment(now) + LEASE)
    return entry
