"""A service, a clock that is turned by hand, and clients of both: for many orders at once."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio
import trio

from sms4sats_async import (
    CancelFinished,
    CancelResult,
    CancelScheduler,
    Event,
    JournalEntry,
    MemoryJournal,
    OrderJournal,
    ReceiveOrder,
    Sms4SatsClient,
)
from sms4sats_async.simulator import Behaviour, Clock, ManualClock, Simulator

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from sms4sats_async.journal import JournalChange
    from sms4sats_async.simulator import Answer

HELD = Behaviour(pay_delay=0, code_delay=None)
"""Paid at once, and no code ever."""

NEVER = Behaviour(pay_delay=0, code_delay=None, minimum_cancel_age=1e6)
"""Refused until the service gives it back by itself."""

NEVER_EVER = Behaviour(
    pay_delay=0, code_delay=None, minimum_cancel_age=1e6, automatic_cancel_age=1e6
)

CODE = Behaviour(pay_delay=0, number_delay=0, code_delay=30, code="007")

NO_NUMBER = Behaviour(pay_delay=0, number_available=False)


class CountingSimulator(Simulator):
    """Counts how many requests it has in hand.

    Attributes:
        most: How many there were at the same time at most.
    """

    def __init__(self, behaviour: Behaviour, *, clock: Clock) -> None:
        super().__init__(behaviour, clock=clock)
        self.in_hand = self.most = 0

    async def respond(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        self.in_hand += 1
        self.most = max(self.most, self.in_hand)
        try:
            return await super().respond(method, target, headers, body)
        finally:
            self.in_hand -= 1


class World:
    """A service, a clock, a client of both, and what the client told."""

    def __init__(
        self,
        behaviour: Behaviour = HELD,
        *,
        journal: OrderJournal | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.clock = ManualClock(autojump=False) if clock is None else clock
        self.simulator = CountingSimulator(behaviour, clock=self.clock)
        self.events: list[Event] = []
        self.client = self.new_client(journal)

    def new_client(self, journal: OrderJournal | None = None, **settings: Any) -> Sms4SatsClient:
        return Sms4SatsClient(
            http_client=self.simulator.http_client(),
            clock=self.clock,
            on_event=self.events.append,
            journal=journal,
            **settings,
        )

    async def orders(self, count: int) -> list[ReceiveOrder]:
        return [await self.client.create_order(187, "tg") for _ in range(count)]

    async def order(self) -> ReceiveOrder:
        return (await self.orders(1))[0]

    async def advance(self, seconds: float) -> None:
        assert isinstance(self.clock, ManualClock)
        await self.clock.advance(seconds)

    def cancels(self) -> list[str]:
        """The order of each cancel that reached the service."""
        return [
            request.query["orderId"]
            for request in self.simulator.requests
            if request.path == "/cancelorder"
        ]

    def ages(self) -> list[float]:
        """How old the order was at each cancel, by the service's own time and record."""
        return [
            request.time - self.simulator.order(request.query["orderId"]).created_at
            for request in self.simulator.requests
            if request.path == "/cancelorder"
        ]

    def finished(self) -> list[CancelResult]:
        """What the client told of orders that were done with."""
        return [event.result for event in self.events if isinstance(event, CancelFinished)]


@asynccontextmanager
async def running(*schedulers: CancelScheduler) -> AsyncGenerator[anyio.CancelScope]:
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


def tasks() -> int:
    """Return how many tasks the event loop has."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return trio.lowlevel.current_statistics().tasks_living


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


class BrokenJournal:
    """A `MemoryJournal` that fails on demand.

    Attributes:
        error: What every call raises; None: all is well.
        updates: How many updates were asked for.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.updates = 0
        self.memory = MemoryJournal()

    async def update(
        self, changes: Sequence[tuple[str, JournalChange]], /
    ) -> Sequence[JournalEntry | None]:
        self.updates += 1
        self._fail()
        return await self.memory.update(changes)

    async def pending(self) -> list[JournalEntry]:
        self._fail()
        return await self.memory.pending()

    async def get(self, order_id: str, /) -> JournalEntry | None:
        return await self.memory.get(order_id)

    async def history(self, **options: Any) -> list[JournalEntry]:
        return await self.memory.history(**options)

    async def prune(self, before: datetime, /) -> int:
        return await self.memory.prune(before)

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error
