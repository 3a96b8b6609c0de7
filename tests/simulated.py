"""A simulated service, a clock, and a client of both: the scene of most tests of the client."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.lowlevel
import attrs
import trio

from sms4sats_async import (
    Event,
    JournalEntry,
    MemoryJournal,
    OrderEnded,
    OrderJournal,
    OrderResult,
    OrderScheduler,
    ReceiveOrder,
    Sms4SatsClient,
)
from sms4sats_async.simulator import Behaviour, Clock, Fault, Holder, ManualClock, Simulator
from sms4sats_async.testing import http_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from datetime import datetime

    from sms4sats_async.journal import JournalChange

E = TypeVar("E", bound=Event)

HELD = Behaviour(pay_delay=0, code_delay=None)
"""Paid at once. No code arrives."""

CODE = Behaviour(pay_delay=0, number_delay=0, code_delay=30, code="007")
"""Paid at once. The code arrives after 30 seconds."""

LATE_CODE = Behaviour(pay_delay=0, number_delay=0, code_delay=119, code="007")
"""The code arrives a second before the order can be cancelled."""

NO_NUMBER = Behaviour(pay_delay=0, number_available=False)
"""The service refunds the order after 5 seconds."""

REFUSED = attrs.evolve(HELD, minimum_cancel_age=1e6)
"""Every cancel is refused. The service refunds the order after 21 minutes."""

NEVER_REFUNDED = attrs.evolve(REFUSED, automatic_cancel_age=1e6)
"""Every cancel is refused, and the service does not refund the order."""

ODD_ANSWERS = {
    "500": Fault.http(500, "?"),
    "403": Fault.http(403),
    "404": Fault.http(404),
    "redirect": Fault.redirect("https://elsewhere.example"),
    "HTML in a 502": Fault.html(),
    "HTML in a 200": Fault.html(200),
    "cut JSON": Fault.cut_json(),
    "reset": Fault.reset(),
    "no answer": Fault.hang(),
}
"""Answers to a poll that show nothing about the order."""

METADATA = {"chat": "42"}


class Simulated:
    """A service, a clock and a client of both.

    Attributes:
        clock: The clock. By default it jumps over every sleep.
        simulator: The service.
        events: What the client reported.
        client: The client.
    """

    def __init__(
        self,
        behaviour: Behaviour = HELD,
        *,
        clock: Clock | None = None,
        journal: OrderJournal | None = None,
        **settings: Any,
    ) -> None:
        self.clock = ManualClock() if clock is None else clock
        self.simulator = Simulator(behaviour, clock=self.clock)
        self.events: list[Event] = []
        self.client = self.new_client(journal, **settings)

    def new_client(self, journal: OrderJournal | None = None, **settings: Any) -> Sms4SatsClient:
        """A client like that of another process."""
        options: dict[str, Any] = {
            "http_client": http_client(self.simulator),
            "clock": self.clock,
            "on_event": self.events.append,
            "journal": journal,
        }
        return Sms4SatsClient(**options | settings)

    async def order(self, **options: Any) -> ReceiveOrder:
        """A new order; `options` are for `create_order`."""
        return await self.client.create_order(187, "tg", **options)

    async def advance(self, seconds: float) -> None:
        """Move a clock that does not jump."""
        assert isinstance(self.clock, ManualClock)
        await self.clock.advance(seconds)

    def age(self, order: ReceiveOrder) -> float:
        """How old an order is now."""
        return self.clock.now() - order.created_at.timestamp()

    def requests(self) -> list[str]:
        """The path of each request, in order."""
        return [request.path for request in self.simulator.requests]

    def cancel_ages(self) -> list[float]:
        """How old the order was at each cancel, by the service's own time and record."""
        return self._ages("/cancelorder")

    def poll_ages(self) -> list[float]:
        """How old the order was at each read of its status."""
        return self._ages("/orderstatus")

    def _ages(self, path: str) -> list[float]:
        return [
            request.time - self.simulator.order(request.query["orderId"]).created_at
            for request in self.simulator.requests
            if request.path == path
        ]

    def is_refunded(self, order_id: str) -> bool:
        """Whether a payment was held and then refunded."""
        not_refunded = {Holder.NONE, Holder.HELD, Holder.SETTLED}
        return self.simulator.holder(order_id) not in not_refunded

    def events_of(self, kind: type[E]) -> list[E]:
        """What the client reported, of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def ended(self) -> list[OrderResult]:
        """The results that the client reported."""
        return [event.result for event in self.events_of(OrderEnded)]


async def entry_of(journal: OrderJournal, order_id: str) -> JournalEntry:
    """What the journal has of an order."""
    entry = await journal.get(order_id)
    assert entry is not None
    return entry


class FailingJournal(MemoryJournal):
    """A `MemoryJournal` that fails on demand.

    Attributes:
        error: What every call raises; None: none does.
        updates: How often `update` was called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self.updates = 0

    async def update(
        self, changes: Sequence[tuple[str, JournalChange]], /
    ) -> Sequence[JournalEntry | None]:
        self.updates += 1
        self._fail()
        return await super().update(changes)

    async def get(self, order_id: str, /) -> JournalEntry | None:
        self._fail()
        return await super().get(order_id)

    async def pending(self, base_url: str | None = None) -> list[JournalEntry]:
        self._fail()
        return await super().pending(base_url)

    async def history(
        self, *, since: datetime | None = None, limit: int | None = None
    ) -> list[JournalEntry]:
        return await super().history(since=since, limit=limit)

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


@asynccontextmanager
async def running(*schedulers: OrderScheduler) -> AsyncGenerator[None]:
    """Run schedulers for the length of an `async with`."""
    async with anyio.create_task_group() as group:
        for scheduler in schedulers:
            group.start_soon(scheduler.run)
        await turns()
        yield
        group.cancel_scope.cancel()


async def turns(count: int = 50) -> None:
    """Let the other tasks have their turns."""
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


def task_count() -> int:
    """How many tasks the event loop has."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return trio.lowlevel.current_statistics().tasks_living
