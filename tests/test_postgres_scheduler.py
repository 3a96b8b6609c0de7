"""The scheduler of many workers: each is a client and a journal of its own, on one database."""

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import attrs
import pytest

pytest.importorskip("asyncpg", reason="the extra `postgres` is not installed")

from sms4sats_async import (
    ClientStateError,
    InvalidArgumentError,
    JournalChange,
    JournalEntry,
    JournalError,
    JournalFailed,
    MemoryJournal,
    OrderOutcome,
    OrderResult,
    ReceiveOrder,
    Sms4SatsClient,
)
from sms4sats_async.journal.entry import claim, release_claim
from sms4sats_async.postgres import PostgresJournal, PostgresScheduler, queue
from sms4sats_async.postgres import scheduler as schedulers
from sms4sats_async.simulator import Behaviour
from tests.crash_bot import SharedClock
from tests.postgres import Outage, connect, execute, fetch, until
from tests.simulated import CODE, HELD, METADATA, NEVER_REFUNDED, NO_NUMBER, Simulated

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

    def __init__(self, dsn: str, behaviour: Behaviour, speed: float) -> None:
        self.dsn = dsn
        self.schema = f"s_{secrets.token_hex(6)}"
        self.journals: list[PostgresJournal] = []
        now = time.time()
        super().__init__(
            behaviour, clock=SharedClock(speed, now, time.monotonic()), journal=self.new_journal()
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

    async def wake(self, key: str) -> None:
        """Add a wake-up, and wait until a worker has taken it."""
        link = await connect(self.dsn)
        try:
            await queue.add(link, self.schema, self.client.base_url, [key])
        finally:
            await link.close()
        await until(self.all_taken)

    async def all_taken(self) -> bool:
        return not await self.wake_ups()

    def polls_of(self, order: ReceiveOrder) -> int:
        asked = [request.query.get("orderId") for request in self.simulator.requests]
        return asked.count(order.order_id)

    async def wake_ups(self) -> list[str]:
        keys = f"SELECT convert_from(payload, 'utf8') FROM {self.schema}.pgqueuer"  # noqa: S608
        rows = await fetch(self.dsn, keys)
        return [key for (key,) in rows]


@asynccontextmanager
async def fleet(
    dsn: str, behaviour: Behaviour = HELD, *, speed: float = SPEED
) -> AsyncGenerator[Fleet]:
    it = Fleet(dsn, behaviour, speed)
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


# --- what the caller wants ------------------------------------------------------------------------


async def held_by(worker: Worker, count: int = 1) -> None:
    """Wait until a worker has claimed orders."""
    await until(lambda: len(worker.scheduler) >= count)


async def test_a_new_deadline_reaches_the_worker_that_drives_the_order(dsn: str) -> None:
    async with fleet(dsn) as it:
        worker, adding = it.worker(), PostgresScheduler(it.client)
        order = await it.order()
        await adding.add(order, timeout=9000)
        async with running(worker):
            await held_by(worker)
            await adding.add(order, timeout=200)
            await it.delivered()
        (age,) = it.cancel_ages()
        assert 200 <= age < 9000


async def test_a_new_deadline_reaches_it_before_it_renews_its_claim(dsn: str) -> None:
    async with fleet(dsn, speed=1) as it:
        worker, adding = it.worker(), PostgresScheduler(it.client)
        order = await it.order()
        await adding.add(order, timeout=600)
        async with running(worker):
            await held_by(worker)
            await adding.add(order, timeout=900)
            held = worker.scheduler._queue  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
            await until(lambda: [x for x in [held.get(order.order_id)] if x and x.deadline > 800])


async def test_a_change_that_comes_while_its_order_is_claimed_is_not_missed(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fleet(dsn) as it:
        scheduler = it.worker().scheduler
        await scheduler.add(await it.order(), timeout=600)
        (entry,) = await it.entries()
        update = PostgresJournal.transact

        async def change_meanwhile(self: PostgresJournal, *words: Any) -> Any:
            written = await update(self, *words)
            scheduler._hear_change(None, 1, "", f"{scheduler._owner} {entry.key}")  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
            return written

        monkeypatch.setattr(PostgresJournal, "transact", change_meanwhile)
        scheduler._due.add(entry.key)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        await scheduler._claim([entry.key])  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        assert scheduler._due == {entry.key}  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


async def test_a_removed_order_is_left_alone_by_the_worker_that_drives_it(dsn: str) -> None:
    async with fleet(dsn) as it:
        worker, adding = it.worker(), PostgresScheduler(it.client)
        removed, other = await it.order(), await it.order()
        for order in (removed, other):
            await adding.add(order, timeout=300)
        async with running(worker):
            await held_by(worker, 2)
            await adding.remove(removed.order_id)
            await until(lambda: len(worker.scheduler) == 1)
            polls = it.polls_of(removed)
            await it.delivered()
            assert it.polls_of(removed) == polls
        assert [result.order_id for result in worker.results] == [other.order_id]
        assert len(it.cancel_ages()) == 1


async def test_a_removed_order_is_read_after_21_minutes(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedulers, "_SWEEP", 0.1)
    monkeypatch.setattr(schedulers, "_LOOK", 0.05)
    async with fleet(dsn, attrs.evolve(HELD, automatic_cancel_age=1200)) as it:
        worker = it.worker()
        order = await it.order()
        await worker.scheduler.add(order, timeout=300)
        await worker.scheduler.remove(order)
        async with running(worker):
            await it.delivered()
        assert [result.outcome for result in worker.results] == [OrderOutcome.REFUNDED]
        assert it.cancel_ages() == []
        assert min(it.poll_ages()) >= 21 * 60


async def test_an_order_is_left_alone_until_a_time(dsn: str) -> None:
    async with fleet(dsn) as it:
        worker = it.worker()
        order = await it.order()
        later = order.created_at + timedelta(seconds=400)
        await worker.scheduler.add(order, not_before=later)
        async with running(worker):
            await it.delivered()
        (age,) = it.cancel_ages()
        assert age >= 400


async def test_an_id_that_the_journal_does_not_know_counts_as_created_now(dsn: str) -> None:
    async with fleet(dsn) as it:
        worker = it.worker()
        other = it.new_client()
        order = await other.create_order(187, "tg")
        await it.clock.sleep(100)
        await worker.scheduler.add(order.order_id)
        async with running(worker):
            await it.delivered()
        (age,) = it.cancel_ages()
        assert age >= 220 - 5


async def test_an_order_of_another_root_is_refused_and_driven_by_no_worker(dsn: str) -> None:
    async with fleet(dsn) as it:
        worker = it.worker()
        order = await it.order()
        journal = it.new_journal()
        other = Worker(it.new_client(journal, base_url="http://127.0.0.1:5"), journal)
        with pytest.raises(InvalidArgumentError, match="belongs to"):
            await other.scheduler.add(order)
        await worker.scheduler.add(order)
        async with running(other, worker):
            await it.delivered()
        assert other.results == []


MISTAKES: dict[str, dict[str, Any]] = {
    "timeout": {"timeout": -1},
    "not_before": {"not_before": datetime(2027, 1, 1)},  # noqa: DTZ001 - the mistake itself
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
async def test_an_invalid_argument_is_refused(dsn: str, mistake: dict[str, Any]) -> None:
    scheduler = PostgresScheduler(Sms4SatsClient(journal=PostgresJournal(dsn)))
    with pytest.raises(InvalidArgumentError):
        await scheduler.add("4", **mistake)
    with pytest.raises(InvalidArgumentError):
        await scheduler.remove("")


@pytest.mark.parametrize("journal", [None, MemoryJournal()])
def test_another_journal_is_refused(journal: MemoryJournal | None) -> None:
    with pytest.raises(InvalidArgumentError, match="must have a PostgresJournal"):
        PostgresScheduler(Sms4SatsClient(journal=journal))


def test_a_message_for_another_worker_is_ignored() -> None:
    scheduler = PostgresScheduler(Sms4SatsClient(journal=PostgresJournal("postgresql://host/name")))
    for owner, due in (("another", set[str]()), (scheduler._owner, {"key"})):  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        scheduler._hear_change(None, 1, "", f"{owner} key")  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        assert scheduler._due == due  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def test_another_client_is_refused() -> None:
    client: Any = "client"
    with pytest.raises(InvalidArgumentError, match="client must be"):
        PostgresScheduler(client)


# --- workers that come and go ---------------------------------------------------------------------


async def test_a_worker_that_ends_hands_its_orders_over(dsn: str) -> None:
    async with fleet(dsn) as it:
        first, second = it.worker(), it.worker()
        order = await it.order()
        await first.scheduler.add(order, timeout=300)
        async with running(first, second):
            await until(lambda: len(first.scheduler) + len(second.scheduler))
            ends, goes_on = (first, second) if len(first.scheduler) else (second, first)
            ends.scope.cancel()
            await held_by(goes_on)
            await it.delivered()
        assert [result.order_id for result in goes_on.results] == [order.order_id]
        assert len(it.cancel_ages()) == 1


async def test_an_order_that_a_bot_left_is_found_by_a_sweep(dsn: str) -> None:
    """A bot created it, and died before it added it or claimed it."""
    async with fleet(dsn) as it:
        worker = it.worker()
        await it.order(metadata=METADATA)
        await it.clock.sleep(11)
        assert await it.wake_ups() == []
        async with running(worker):
            await it.delivered()
        assert [result.metadata for result in worker.results] == [METADATA]


async def test_an_order_that_was_just_created_is_left_to_its_process(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedulers, "_SWEEP", 0.01)
    monkeypatch.setattr(schedulers, "_LOOK", 0.01)
    swept: list[object] = []
    sweep = queue.sweep

    async def count(*words: Any) -> bool:
        swept.append(words)
        return await sweep(*words)

    monkeypatch.setattr(queue, "sweep", count)
    async with fleet(dsn, speed=1) as it:
        await it.order()
        async with running(it.worker()):
            await until(lambda: len(swept) > 3)
            (entry,) = await it.entries()
        assert entry.claimed_by is None


async def test_a_result_that_was_not_delivered_comes_in_another_worker(dsn: str) -> None:
    async with fleet(dsn) as it:
        first, second = it.worker(), it.worker()
        order = await it.order()
        await first.scheduler.add(order)
        async with anyio.create_task_group() as group:
            group.start_soon(first.scheduler.run)  # without a loop over its results
            await until(first.journal.undelivered)
            (entry,) = await it.entries()
            await it.wake(entry.key)  # it waits there for a reader
            group.cancel_scope.cancel()
        async with running(second):
            await it.delivered()
        assert [result.order_id for result in second.results] == [order.order_id]
        assert len(it.cancel_ages()) == 1


async def test_early_double_and_stale_wake_ups_are_harmless(dsn: str) -> None:
    async with fleet(dsn) as it:
        workers = [it.worker() for _ in range(2)]
        order = await it.order()
        await workers[0].scheduler.add(order)
        (entry,) = await it.entries()
        async with running(*workers):
            for key in ("absent", *[entry.key] * 10):
                await it.wake(key)
            await it.delivered()
            await it.wake(entry.key)
        assert len(it.cancel_ages()) == 1
        assert sum(len(worker.results) for worker in workers) == 1


async def test_no_more_orders_are_claimed_than_a_worker_may_have(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedulers, "MOST_CLAIMED", 3)
    monkeypatch.setattr(schedulers, "_LOOK", 0.05)
    async with fleet(dsn) as it:
        worker = it.worker()
        for _ in range(8):
            await worker.scheduler.add(await it.order(), timeout=300)
        async with running(worker):
            await held_by(worker, 3)
            assert len(await it.wake_ups()) == 5
            await it.delivered(8)


async def test_a_sweep_goes_on_until_all_have_a_wake_up(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_AT_ONCE", 3)
    async with fleet(dsn) as it:
        worker = it.worker()
        for _ in range(10):
            await it.order()
        await it.clock.sleep(11)
        async with running(worker):
            await it.delivered(10)


async def test_another_workers_order_is_dropped_when_its_claim_is_lost(dsn: str) -> None:
    """As after a stop that was longer than the lease."""
    async with fleet(dsn, NEVER_REFUNDED) as it:
        worker = it.worker()
        order = await it.order()
        await worker.scheduler.add(order, timeout=30_000)
        async with running(worker):
            await held_by(worker)
            now = datetime.fromtimestamp(it.clock.now(), UTC)
            take: list[JournalChange] = [
                release_claim(entry.claimed_by or "") for entry in await it.entries()
            ]
            take.append(claim("another", now, has_died=lambda _: False))
            await it.journals[0].update([(order.order_id, change) for change in take])
            await until(lambda: not len(worker.scheduler))


# --- what goes wrong ------------------------------------------------------------------------------


async def test_run_says_so_where_there_are_no_tables(dsn: str) -> None:
    journal = PostgresJournal(dsn, schema="nothing_here")
    async with journal, Sms4SatsClient(journal=journal) as client:
        with pytest.raises(JournalError, match="run `sms4sats postgres init`"):
            await PostgresScheduler(client).run()


@pytest.mark.parametrize(
    "damage", ["DROP TABLE {}.pgqueuer", "ALTER TABLE {}.pgqueuer DROP COLUMN dedupe_key"]
)
async def test_run_says_so_where_the_queue_is_incomplete_and_init_completes_it(
    dsn: str, damage: str
) -> None:
    async with fleet(dsn) as it:
        worker = it.worker()
        await execute(dsn, damage.format(it.schema))
        problem = "queue .* is incomplete; .* `sms4sats postgres init`"
        with pytest.raises(JournalError, match=problem), anyio.fail_after(10):
            await worker.scheduler.run()
        await worker.journal.create_schema()
        await worker.scheduler.add(await it.order())
        async with running(worker):
            await it.delivered()


async def test_run_ends_when_the_client_is_closed(dsn: str) -> None:
    async with fleet(dsn) as it:
        worker = it.worker()
        await worker.scheduler.add(await it.order())
        await worker.client.aclose()
        with pytest.raises(ClientStateError), anyio.fail_after(10):
            await worker.scheduler.run()
        (entry,) = await it.entries()
        assert (entry.pending, entry.claimed_by) == (True, None)


def test_trio_is_refused() -> None:
    async def run() -> None:
        client = Sms4SatsClient(journal=PostgresJournal("postgresql://host/name"))
        with pytest.raises(JournalError, match="asyncio only"):
            await PostgresScheduler(client).run()

    anyio.run(run, backend="trio")


async def test_an_error_of_add_has_the_order_id(dsn: str) -> None:
    async with PostgresJournal(dsn, schema="nothing_here") as journal:
        scheduler = PostgresScheduler(Sms4SatsClient(journal=journal))
        with pytest.raises(JournalError) as caught:
            await scheduler.add("4")
        assert caught.value.order_id == "4"


async def test_a_damaged_row_stops_no_other_order(dsn: str) -> None:
    async with fleet(dsn) as it:
        worker = it.worker()
        damaged, other = await it.order(), await it.order()
        for order in (damaged, other):
            await worker.scheduler.add(order)
        await execute(
            dsn,
            f"UPDATE {it.schema}.orders SET state = 'x' WHERE order_id = '{damaged.order_id}'",  # noqa: S608
        )
        async with running(worker):
            await it.delivered()
        assert [result.order_id for result in worker.results] == [other.order_id]


async def test_run_survives_an_outage(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet(dsn) as it:
        outage = Outage(dsn, monkeypatch)
        monkeypatch.setattr(schedulers, "_LOOK", 0.05)
        worker = it.worker()
        order = await it.order()
        await worker.scheduler.add(order, timeout=9000)
        async with running(worker):
            await held_by(worker)
            await outage.begin()
            it.simulator.deliver_code(order.order_id, "007")
            await until(lambda: worker.results)  # its body runs, and the loop waits for the end
            failures = len(it.events_of(JournalFailed))
            await until(lambda: len(it.events_of(JournalFailed)) > failures + 2)
            outage.on = False
            await it.delivered()
        assert [result.code for result in worker.results] == ["007"]
        assert None in {event.order_id for event in it.events_of(JournalFailed)}
        (entry,) = await it.entries()
        assert (entry.code, entry.outcome) == ("007", OrderOutcome.CODE_RECEIVED)


async def test_an_order_that_an_outage_kept_from_being_claimed_is_claimed_later(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fleet(dsn) as it:
        outage = Outage(dsn, monkeypatch)
        scheduler = it.worker().scheduler
        await outage.begin()
        with pytest.raises(JournalError):
            await scheduler._claim(["key"])  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        assert scheduler._due == {"key"}  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        outage.on = False


async def test_one_worker_sweeps_at_a_time(dsn: str) -> None:
    async with fleet(dsn) as it:
        await it.order()
        one, two = await connect(dsn), await connect(dsn)
        late = round((it.clock.now() + 60) * 1e6)
        sweep = (it.schema, it.client.base_url, late, list[str]())
        try:
            async with one.transaction():
                await queue.sweep(one, *sweep)
                with anyio.fail_after(5):
                    assert not await queue.sweep(two, *sweep)
        finally:
            await one.close()
            await two.close()
        assert len(await it.wake_ups()) == 1
