"""The scheduler of many workers: each is a client and a journal of its own, on one database."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest

pytest.importorskip("asyncpg", reason="the extra `postgres` is not installed")

from sms4sats_async import (
    ClientStateError,
    InvalidArgumentError,
    JournalError,
    JournalFailed,
    MemoryJournal,
    OrderOutcome,
    OrderResult,
    ReceiveOrder,
    Sms4SatsClient,
)
from sms4sats_async.postgres import PostgresJournal, PostgresScheduler
from sms4sats_async.simulator import Behaviour, Holder
from tests.crash_bot import SharedClock
from tests.postgres import fetch
from tests.simulated import CODE, HELD, METADATA, NO_NUMBER, Simulated

if TYPE_CHECKING:
    from sms4sats_async import JournalEntry

SPEED = 400.0
"""How much faster the clock runs, which all workers and the service share."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


class Worker:
    """A worker, as in a process of its own.

    Attributes:
        results: What its loop over the results got.
    """

    def __init__(self, client: Sms4SatsClient, journal: PostgresJournal, **options: Any) -> None:
        self.client = client
        self.journal = journal
        self.scheduler = PostgresScheduler(client, **options)
        self.results: list[OrderResult] = []
        self.scope = anyio.CancelScope()

    async def run(self) -> None:
        with self.scope:
            async with anyio.create_task_group() as group:
                group.start_soon(self.scheduler.run)
                async for result in self.scheduler.results():
                    self.results.append(result)


class Fleet(Simulated):
    """Workers on one database, and one simulated service."""

    def __init__(self, dsn: str, behaviour: Behaviour) -> None:
        self.dsn = dsn
        self.schema = f"s_{secrets.token_hex(6)}"
        self.journals: list[PostgresJournal] = []
        now = time.time()
        super().__init__(
            behaviour, clock=SharedClock(SPEED, now, time.monotonic()), journal=self.new_journal()
        )

    def new_journal(self) -> PostgresJournal:
        journal = PostgresJournal(self.dsn, schema=self.schema)
        self.journals.append(journal)
        return journal

    def worker(self, **options: Any) -> Worker:
        journal = self.new_journal()
        return Worker(self.new_client(journal), journal, **options)

    async def entries(self) -> list[JournalEntry]:
        return await self.journals[0].history()

    async def delivered(self, count: int = 1) -> list[JournalEntry]:
        """Wait until so many results are delivered."""
        with anyio.fail_after(30):
            while True:
                entries = await self.entries()
                if sum(entry.delivered_at is not None for entry in entries) == count:
                    return entries
                await anyio.sleep(0.01)

    async def wake_ups(self) -> list[str]:
        rows = await fetch(self.dsn, f"SELECT convert_from(payload, 'utf8') FROM {self.schema}.pgqueuer")  # noqa: S608, E501
        return [key for (key,) in rows]


@asynccontextmanager
async def fleet(dsn: str, behaviour: Behaviour = HELD) -> AsyncGenerator[Fleet]:
    it = Fleet(dsn, behaviour)
    try:
        await it.journals[0].create_schema()
        yield it
    finally:
        for journal in it.journals:
            await journal.aclose()


@asynccontextmanager
async def running(*workers: Worker) -> AsyncGenerator[None]:
    async with anyio.create_task_group() as group:
        for worker in workers:
            group.start_soon(worker.run)
        yield
        group.cancel_scope.cancel()


ENDS: dict[str, tuple[Behaviour, OrderOutcome, str | None]] = {
    "cancelled": (HELD, OrderOutcome.CANCELLED, None),
    "code": (CODE, OrderOutcome.CODE_RECEIVED, "007"),
    "refunded": (NO_NUMBER, OrderOutcome.REFUNDED, None),
}


@pytest.mark.parametrize("case", ENDS.values(), ids=ENDS)
async def test_an_order_comes_to_its_end(
    dsn: str, case: tuple[Behaviour, OrderOutcome, str | None]
) -> None:
    behaviour, outcome, code = case
    async with fleet(dsn, behaviour) as it:
        worker = it.worker()
        order = await it.order(metadata=METADATA)
        await PostgresScheduler(it.client).add(order, timeout=200)
        async with running(worker):
            await it.delivered()
        (result,) = worker.results
        found = (result.order_id, result.outcome, result.code, result.metadata)
        assert found == (order.order_id, outcome, code, METADATA)
        assert all(age >= 200 for age in it.cancel_ages())
        assert await it.wake_ups() == []


async def test_orders_are_shared_and_each_ends_once(dsn: str) -> None:
    async with fleet(dsn) as it:
        workers = [it.worker() for _ in range(3)]
        adding = PostgresScheduler(it.client)
        async with running(*workers):
            async with anyio.create_task_group() as group:
                for _ in range(60):
                    group.start_soon(adding.add, await it.order())
            await it.delivered(60)
        results = [result for worker in workers for result in worker.results]
        assert len(results) == len({result.order_id for result in results}) == 60
        assert len(it.cancel_ages()) == 60
        assert sum(bool(worker.results) for worker in workers) > 1
