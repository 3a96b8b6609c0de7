"""The journal in PostgreSQL, on a real server."""

import asyncio
import importlib
import secrets
import sys
import time
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import anyio
import anyio.lowlevel
import attrs
import pytest

pytest.importorskip("asyncpg", reason="the extra `postgres` is not installed")

from sms4sats_async import InvalidArgumentError, JournalError, OrderJournal, RequestOutcome
from sms4sats_async._orders.steps import claim_if_ours
from sms4sats_async.client import order_context
from sms4sats_async.journal.entry import (
    LEASE,
    acknowledge,
    both,
    ensure_entry,
    record_status,
    release_claim,
    remove,
)
from sms4sats_async.postgres import PostgresJournal, connection
from sms4sats_async.postgres import journal as journals
from tests.journal_contract import (
    ID,
    LATER,
    ORDER,
    ROOT,
    START,
    StoredJournalContract,
    add_code,
    add_order,
    claimed,
    failed,
    fails,
    numbered_order,
    status_of,
)
from tests.postgres import Outage, execute
from tests.simulated import Simulated

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)
T = TypeVar("T")


class FakeTime:
    """The module `time` with another wall clock."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self, now: Callable[[], float]) -> None:
        self.time = now


async def as_coroutine(call: Awaitable[T]) -> T:
    return await call


@pytest.fixture
def schema() -> str:
    return f"s_{secrets.token_hex(6)}"


@pytest.fixture
async def journal(dsn: str, schema: str) -> AsyncGenerator[PostgresJournal]:
    async with PostgresJournal(dsn, schema=schema) as journal:
        await journal.create_schema()
        yield journal


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class Opened:
    """What `open` opened last."""

    dsn = ""
    folder = Path()


OPENED = Opened()


class TestPostgresJournal(StoredJournalContract):
    """The contract of every journal; another folder is an empty table."""

    @pytest.fixture(autouse=True)
    @staticmethod
    def _server(dsn: str) -> None:
        OPENED.dsn = dsn

    @staticmethod
    @asynccontextmanager
    async def open(folder: Path) -> AsyncGenerator[OrderJournal]:
        async with PostgresJournal(OPENED.dsn, schema="contract") as journal:
            await journal.create_schema()
            if folder != OPENED.folder:
                await execute(OPENED.dsn, "TRUNCATE contract.orders RESTART IDENTITY")
                OPENED.folder = folder
            yield journal


# --- the tables -----------------------------------------------------------------------------------

ABSENT = "has no journal in the schema"


async def test_a_database_without_tables_is_an_error_that_says_what_to_do(
    dsn: str, schema: str
) -> None:
    async with PostgresJournal(dsn, schema=schema) as journal:
        for call in (journal.pending(), journal.update([add_order(1)])):
            with pytest.raises(JournalError, match=f"{ABSENT} {schema}; run `sms4sats postgres"):
                await call


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("UPDATE {}.version SET version = 2", "version is 2, .* needs 1; update sms4sats-async"),
        ("UPDATE {}.version SET version = 0", "version is 0, .* needs 1; stop all workers, then r"),
        ("DELETE FROM {}.version", r"version has no row; restore the database, or use another"),
    ],
    ids=["newer", "older", "unknown"],
)
async def test_tables_of_another_version_are_an_error(
    dsn: str, schema: str, change: str, problem: str
) -> None:
    async with PostgresJournal(dsn, schema=schema) as journal:
        await journal.create_schema()
        await execute(dsn, change.format(schema))
        for call in (journal.pending(), journal.update([add_order(1)]), journal.create_schema()):
            with pytest.raises(JournalError, match=problem):
                await call


async def test_making_the_tables_again_changes_nothing(journal: PostgresJournal) -> None:
    await journal.update([add_order(1)])
    await journal.create_schema()
    assert [entry.order for entry in await journal.pending()] == [numbered_order(1)]


async def test_two_processes_can_make_the_tables_at_the_same_time(dsn: str, schema: str) -> None:
    journals = [PostgresJournal(dsn, schema=schema) for _ in range(4)]
    async with anyio.create_task_group() as group:
        for each in journals:
            group.start_soon(each.create_schema)


async def test_two_schemas_are_two_journals(
    dsn: str, schema: str, journal: PostgresJournal
) -> None:
    await journal.update([add_order(1)])
    async with PostgresJournal(dsn, schema=f"{schema}_2") as other:
        await other.create_schema()
        assert await other.history() == []


# --- arguments, and what is shown -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "1a", "A", "a b", "a;b", 'a"', "a" * 49, None])
def test_an_invalid_schema_is_refused(name: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="schema must be"):
        PostgresJournal("postgresql://host/name", schema=name)


@pytest.mark.parametrize("dsn", ["", 5, None, b"postgresql://u:secret@h", "secret\0"])
def test_an_invalid_dsn_is_refused_and_not_shown(dsn: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="dsn must be printable") as caught:
        PostgresJournal(dsn)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("dsn", ["http://u:secret@h/d", "postgresql://u:secret@h:port/d"])
async def test_neither_an_error_nor_the_repr_shows_the_password(dsn: str) -> None:
    journal = PostgresJournal(dsn)
    assert repr(journal) == "<PostgresJournal sms4sats>"
    for call in (journal.create_schema(), journal.get("4"), journal.update([add_order(1)])):
        with pytest.raises(JournalError, match="the DSN of the journal's database") as caught:
            await call
        shown = "".join(traceback.format_exception(caught.value))
        assert "secret" not in shown
    await journal.aclose()


async def test_a_text_that_no_table_can_hold_costs_no_code(journal: PostgresJournal) -> None:
    status = status_of(code="0042", error="no \0 such")
    await journal.update([(ID, record_status(status, START))])
    entry = await journal.get(ID)
    assert entry is not None
    assert (entry.code, entry.error) == ("0042", "no ? such")


@pytest.mark.parametrize("damage", ["state = 'nonsense'", "country = '[1'"])
async def test_a_damaged_row_is_reported_and_the_others_are_listed(
    dsn: str, schema: str, journal: PostgresJournal, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    await journal.update([add_order(1), add_order(2)])
    damaged = numbered_order(1).order_id
    await execute(dsn, f"UPDATE {schema}.orders SET {damage} WHERE order_id = '{damaged}'")  # noqa: S608
    for listed in (await journal.pending(), await journal.history()):
        assert [entry.order for entry in listed] == [numbered_order(2)]
    for call in (journal.get(damaged), journal.update([add_order(1)])):
        with pytest.raises(JournalError, match="is damaged and is left as it is"):
            await call
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 2
    assert damaged not in caplog.text


# --- event loops ----------------------------------------------------------------------------------


def test_trio_is_refused_with_a_clear_error() -> None:
    async def use() -> None:
        with pytest.raises(JournalError, match="runs on asyncio only"):
            await PostgresJournal("postgresql://host/name").pending()

    anyio.run(use, backend="trio")


def test_a_journal_belongs_to_one_event_loop_until_it_is_closed(dsn: str, schema: str) -> None:
    journal = PostgresJournal(dsn, schema=schema)

    async def make() -> None:
        await journal.create_schema()
        await journal.update([add_order(1)])
        await journal.aclose()

    async def use() -> None:
        assert len(await journal.history()) == 1

    async def close() -> None:
        await journal.aclose()

    async def misuse() -> None:
        with pytest.raises(JournalError, match="another event loop"):
            await journal.history()

    anyio.run(make)
    with asyncio.Runner() as runner:
        runner.run(use())
        asyncio.run(misuse())
        runner.run(close())


async def test_an_unused_journal_can_be_closed() -> None:
    await PostgresJournal("postgresql://host/name").aclose()


# --- many at once ---------------------------------------------------------------------------------


async def test_what_comes_at_the_same_time_is_written_together(
    journal: PostgresJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = PostgresJournal._write  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]

    async def count(self: PostgresJournal, updates: Sequence[Any]) -> None:
        written.append(len(updates))
        await write(self, updates)

    monkeypatch.setattr(PostgresJournal, "_write", count)
    async with anyio.create_task_group() as group:
        for number in range(600):
            group.start_soon(journal.update, [add_order(number)])
    assert sum(written) == 600
    assert len(written) <= 4
    assert len(await journal.pending()) == 600


async def test_one_change_that_fails_costs_the_others_nothing(journal: PostgresJournal) -> None:
    ends: list[object] = []

    async def add(number: int) -> None:
        try:
            await journal.update([add_order(number), ("x", fails if number == 3 else remove)])
        except LookupError as error:
            ends.append(error)

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(add, number)
    assert len(ends) == 1
    assert len(await journal.pending()) == 5


async def test_a_row_that_is_refused_costs_the_others_nothing(
    dsn: str, schema: str, journal: PostgresJournal
) -> None:
    await execute(dsn, f"ALTER TABLE {schema}.orders ADD CHECK (order_id <> '{3:064x}')")
    ends: list[JournalError] = []

    async def add(number: int) -> None:
        try:
            await journal.update([add_order(number)])
        except JournalError as error:
            ends.append(error)

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(add, number)
    (error,) = ends
    assert "refused this" in str(error)
    assert f"{3:064x}" not in "".join(traceback.format_exception(error))
    assert len(await journal.pending()) == 5


async def test_two_processes_add_an_order_once(dsn: str, schema: str) -> None:
    async with (
        PostgresJournal(dsn, schema=schema) as one,
        PostgresJournal(dsn, schema=schema) as two,
    ):
        await one.create_schema()
        async with anyio.create_task_group() as group:
            for number in range(30):
                for journal in (one, two):
                    group.start_soon(journal.update, [add_order(number)])
        assert len(await one.history()) == 30


async def test_no_count_is_lost_between_processes(dsn: str, schema: str) -> None:
    async def count(journal: PostgresJournal) -> None:
        for _ in range(30):
            await journal.update([(ID, failed(RequestOutcome.REFUSED, LATER))])

    async with (
        PostgresJournal(dsn, schema=schema) as one,
        PostgresJournal(dsn, schema=schema) as two,
    ):
        await one.create_schema()
        await one.update([(ID, ensure_entry(ORDER, START, ROOT))])
        async with anyio.create_task_group() as group:
            group.start_soon(count, one)
            group.start_soon(count, two)
        entry = await one.get(ID)
    assert entry is not None
    assert entry.refusals == 60


# --- outages --------------------------------------------------------------------------------------


@pytest.fixture
def outage(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Outage:
    return Outage(dsn, monkeypatch)


async def test_a_lost_connection_is_opened_again(journal: PostgresJournal, outage: Outage) -> None:
    for number in range(3):
        await journal.update([add_order(number)])
        assert len(await journal.pending()) == number + 1
        await outage.break_connections()
    assert len(await journal.pending()) == 3


async def test_what_was_to_be_written_in_an_outage_is_kept_and_written_in_its_order(
    journal: PostgresJournal, outage: Outage
) -> None:
    await journal.update([(ID, ensure_entry(ORDER, START, ROOT))])
    await outage.begin()
    with pytest.raises(JournalError, match="kept for later"):
        await add_code(journal, ID, "0042")
    with pytest.raises(JournalError, match="kept for later"):
        await journal.update([(ID, acknowledge(LATER))])
    with pytest.raises(JournalError, match="no server"):
        await journal.get(ID)
    outage.on = False
    await outage.ended(journal)
    await add_code(journal, ID, "0043")
    entry = await journal.get(ID)
    assert entry is not None
    assert (entry.codes, entry.delivered_at) == (("0042", "0043"), LATER)


async def test_an_order_that_was_not_requested_leaves_no_entry_after_the_outage(
    journal: PostgresJournal, outage: Outage
) -> None:
    it = Simulated(journal=journal)
    await it.order()
    await outage.begin()
    with pytest.raises(JournalError):
        await it.order()
    assert it.requests() == ["/createorder"]
    outage.on = False
    await outage.ended(journal)
    assert len(await journal.history()) == 1


async def test_a_claim_that_an_outage_delayed_takes_no_order_from_its_driver(
    journal: PostgresJournal,
) -> None:
    """Only one of two workers was cut off, for longer than a lease and what clocks differ."""
    it = Simulated(journal=journal)
    order, context = await it.order(), order_context(it.client)
    late = claim_if_ours(context, "late")
    await it.clock.sleep(200)
    await journal.update([(order.order_id, claim_if_ours(context, "driver"))])
    (entry,) = await journal.update([(order.order_id, late)])
    assert entry is not None
    assert entry.claimed_by == "driver"


async def test_too_much_is_not_kept(
    journal: PostgresJournal, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "_MOST_KEPT", 2)
    await outage.begin()
    for number in range(2):
        with pytest.raises(JournalError, match="kept for later"):
            await journal.update([add_order(number)])
    with pytest.raises(JournalError, match="too much waits"):
        await journal.update([add_order(3)])
    outage.on = False
    await outage.ended(journal)
    await journal.update([add_order(4)])
    assert len(await journal.pending()) == 3


async def test_closing_in_an_outage_ends_and_drops_what_is_kept(
    dsn: str, schema: str, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "_FAREWELL", 0.05)
    async with PostgresJournal(dsn, schema=schema) as journal:
        await journal.create_schema()
        await journal.update([add_order(1)])
        await outage.begin()
        with pytest.raises(JournalError, match="kept for later"):
            await journal.update([add_order(2)])
    outage.on = False
    assert len(await journal.history()) == 1
    await journal.aclose()


async def test_a_caller_that_is_cancelled_takes_nothing_back(journal: PostgresJournal) -> None:
    await journal.pending()
    for number in range(20):
        task = asyncio.create_task(as_coroutine(journal.update([add_order(number)])))
        await anyio.lowlevel.checkpoint()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await journal.update([add_order(20)])
    assert len(await journal.pending()) == 21


async def test_a_reader_that_is_cancelled_leaves_a_usable_journal(
    journal: PostgresJournal,
) -> None:
    for turns in range(1, 7):
        # asyncio logs a future that asyncpg forgets if its connect over TCP is cancelled.
        await journal.pending()
        task = asyncio.create_task(as_coroutine(journal.pending()))
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert await journal.pending() == []


@pytest.mark.parametrize("statement", range(8))
async def test_a_connection_that_ends_at_any_statement_costs_nothing(
    journal: PostgresJournal, outage: Outage, monkeypatch: pytest.MonkeyPatch, statement: int
) -> None:
    """Each statement of a write in turn: the server ends the connection before it."""
    await journal.update([(ID, ensure_entry(ORDER, START, ROOT))])
    link = journal._writer  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    real: Any = await link.connected()
    left = [statement]

    class Breaking:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        async def fetch(self, *words: Any) -> Any:
            await self.count()
            return await real.fetch(*words)

        async def execute(self, *words: Any) -> Any:
            await self.count()
            return await real.execute(*words)

        async def executemany(self, *words: Any) -> Any:
            await self.count()
            return await real.executemany(*words)

        @asynccontextmanager
        async def transaction(self) -> AsyncGenerator[None]:
            await self.count()
            async with real.transaction():
                yield
                await self.count()

        async def count(self) -> None:
            if left[0] == 0:
                await outage.break_connections()
            left[0] -= 1

    monkeypatch.setattr(link, "_connection", Breaking())
    changes = [(ID, failed(RequestOutcome.REFUSED, LATER)), add_order(1)]
    await journal.update([*changes, (numbered_order(2).order_id, remove)])
    entry = await journal.get(ID)
    assert entry is not None
    assert entry.refusals == 1
    assert len(await journal.history()) == 2


# --- the database's clock -------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [3600.0, -3600.0])
async def test_times_are_kept_by_the_clock_of_the_database(
    dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    """A lease of a machine whose clock is wrong lasts as long as any."""
    real = time.time
    async with (
        PostgresJournal(dsn, schema=schema) as right,
        PostgresJournal(dsn, schema=schema) as wrong,
    ):
        await right.create_schema()
        monkeypatch.setattr(connection, "time", FakeTime(lambda: real() + ahead))
        now = datetime.now(UTC) + timedelta(seconds=ahead)
        order = attrs.evolve(ORDER, created_at=now)
        await wrong.update([(ID, both(ensure_entry(order, now, ROOT), claimed("a", now)))])
        assert (await wrong.history(since=now - MINUTE))[0].created_at == now
        assert await wrong.prune(now) == 0

        monkeypatch.setattr(connection, "time", time)
        entry = await right.get(ID)
        assert entry is not None
        assert entry.claimed_until is not None
        left = entry.claimed_until - datetime.now(UTC)
        assert LEASE - timedelta(seconds=10) < left <= LEASE + timedelta(seconds=2)
        await right.update([(ID, release_claim("b"))])  # another's: nothing changes
        assert await right.get(ID) == entry


async def test_a_clock_that_is_set_is_measured_again(
    dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, ahead = time.time, [0.0]
    monkeypatch.setattr(connection, "time", FakeTime(lambda: real() + ahead[0]))
    async with PostgresJournal(dsn, schema=schema) as journal:
        await journal.create_schema()
        await journal.update([(ID, ensure_entry(ORDER, START, ROOT))])
        ahead[0] = 60.0
        entry = await journal.get(ID)
        assert entry is not None
        assert abs(entry.created_at - START - MINUTE) < timedelta(seconds=1)


async def test_a_measurement_during_which_the_process_stood_still_does_not_count() -> None:
    class Database:
        async def fetchval(self, _query: str) -> float:
            clock[0] += stop
            return 900.0

    clock, shift, database = [1000.0], connection.ClockShift(), cast("Any", Database())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "time", FakeTime(lambda: clock[0]))
        stop = 100.0
        with pytest.raises(TimeoutError):  # no time may be written before it is known
            await shift.measure(database)
        clock[0], stop = 1000.0, 0.0
        await shift.measure(database)
        assert shift.microseconds == 100_000_000
        patch.setattr(connection, "_MEASURE_AFTER", 0.0)
        stop = 100.0
        await shift.measure(database)
        assert shift.microseconds == 100_000_000


# --- connections, and the extra -------------------------------------------------------------------


async def test_a_lost_connection_can_be_closed() -> None:
    class Lost:
        is_terminated = False

        async def close(self, *, timeout: float) -> None:
            raise ConnectionResetError(timeout)

        def terminate(self) -> None:
            self.is_terminated = True

    lost, link = Lost(), connection.Link("postgresql://host/name")
    link._connection = cast("Any", lost)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    await link.close()
    assert lost.is_terminated
    await link.close()


@pytest.mark.parametrize("missing", ["asyncpg", "pgqueuer"])
def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for name in [*sys.modules]:
        if name.startswith(("sms4sats_async.postgres", f"{missing}.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"pip install 'sms4sats-async\[postgres\]'"):
        importlib.import_module("sms4sats_async.postgres")
