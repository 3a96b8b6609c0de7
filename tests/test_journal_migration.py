"""Files of version 0.1: they are migrated without loss, by one process, or not at all."""

# ruff: noqa: ASYNC240 - a test of files has nothing else to do meanwhile

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import anyio
import pytest

from sms4sats_async import (
    DEFAULT_BASE_URL,
    JournalEntry,
    JournalError,
    OrderOutcome,
    OrderState,
    RequestOutcome,
    SqliteJournal,
)
from sms4sats_async.journal.entry import acknowledge, claim
from tests.journal_contract import add_order, lives, numbered_order
from tests.journal_files import child, modes, output_of, posix

pytestmark = pytest.mark.anyio

VERSION_1: Final = Path(__file__).with_name("journal_version_1.sql")
START: Final = datetime(2026, 11, 1, 8, 0, 0, 123457, tzinfo=UTC)


def minute(number: float) -> datetime:
    return START + timedelta(minutes=number)


def entry(row: int, order_id: str | None, **fields: Any) -> JournalEntry:
    """The entry of a row that version 0.1 wrote; each order was requested a minute later."""
    kind: Literal["receive", "send"] = "send" if "phone" in fields else "receive"
    requested = minute(row - 1)
    if order_id is not None:
        requested += timedelta(seconds=1)
    common: dict[str, Any] = {"country": 187, "service": "tg", "invoice": f"lnbc{row - 1}"}
    if kind == "send":
        common = {"invoice": "paid"}
    if order_id is None:
        common["invoice"] = ""
    common |= {"base_url": "https://api2.sms4sats.com", **fields}
    if isinstance(common.get("finished_at"), datetime):
        common["delivered_at"] = common["finished_at"]
    created_at = common.pop("created_at", requested)
    return JournalEntry(f"k{row}", kind, created_at, order_id, **common)


_S: Final = OrderState
_O: Final = OrderOutcome
PHONE: Final = "+4915112345678"
CLAIM: Final = {"claimed_by": "0123456789abcdef", "claimed_until": minute(16.5)}
BY_ID: Final = {"country": None, "service": None, "invoice": ""}
EXPECTED: Final = [
    entry(1, None, outcome=RequestOutcome.UNKNOWN),
    entry(2, None, outcome=RequestOutcome.UNKNOWN, phone=PHONE),
    entry(3, "pending"),
    entry(4, "pending-by-name", country="germany"),
    entry(5, "left-alone", not_before=minute(25) + timedelta(seconds=1)),
    entry(6, "not-before", not_before=minute(500)),
    entry(7, "never", not_before=datetime.max.replace(tzinfo=UTC)),
    entry(8, "unpaid", state=_S.UNPAID, paid=False),
    entry(9, "held", state=_S.HELD, paid=True),
    entry(10, "number", state=_S.NUMBER_ASSIGNED, paid=True, number=PHONE),
    entry(11, "refused", state=_S.HELD, paid=True, outcome=RequestOutcome.REFUSED),
    entry(12, "not-sent", outcome=RequestOutcome.NOT_SENT),
    entry(13, "claimed", **CLAIM),
    entry(
        14,
        "cancelled",
        state=_S.NUMBER_ASSIGNED,
        paid=True,
        number="+491",
        outcome=_O.CANCELLED,
        finished_at=minute(16),
        **CLAIM,
    ),
    entry(
        15,
        "released",
        state=_S.REFUNDED,
        paid=True,
        error="No available number – ä",  # noqa: RUF001 - any letter
        outcome=_O.REFUNDED,
        finished_at=minute(17),
    ),
    entry(
        16,
        "code",
        state=_S.CODE_RECEIVED,
        paid=True,
        number="+492",
        codes=("0042", "12:34"),
        outcome=_O.CODE_RECEIVED,
        finished_at=minute(18),
    ),
    entry(
        17,
        "code-after-cancel",
        state=_S.CODE_RECEIVED,
        paid=True,
        codes=("7",),
        outcome=_O.CODE_RECEIVED,
        finished_at=minute(19),
    ),
    entry(18, "unclear", outcome=RequestOutcome.UNKNOWN, finished_at=minute(40)),
    entry(19, "refused-for-good", outcome=RequestOutcome.REFUSED, finished_at=minute(40)),
    entry(20, "message-created", phone=PHONE, state=_S.MESSAGE_CREATED, paid=True),
    entry(
        21,
        "message-sent",
        phone=PHONE,
        state=_S.MESSAGE_SENT,
        paid=True,
        outcome=_O.MESSAGE_SENT,
        finished_at=minute(22),
    ),
    entry(
        22,
        "message-delivered",
        phone=PHONE,
        state=_S.MESSAGE_DELIVERED,
        paid=True,
        outcome=_O.MESSAGE_SENT,
        finished_at=minute(23),
    ),
    entry(23, "message-failed", phone=PHONE, state=_S.MESSAGE_FAILED, paid=True),
    entry(24, "message-cancelled", phone=PHONE, outcome=_O.CANCELLED, finished_at=minute(25)),
    entry(25, "id-only", created_at=minute(26), **BY_ID),
    entry(
        26,
        "code-of-another",
        created_at=minute(27),
        state=_S.CODE_RECEIVED,
        codes=("99",),
        outcome=_O.CODE_RECEIVED,
        finished_at=minute(27),
        **BY_ID,
    ),
    # Resumed by its ID alone, so that version 0.1 did not know what it was.
    entry(
        27,
        "message-by-id",
        created_at=minute(28),
        state=_S.MESSAGE_SENT,
        paid=True,
        outcome=_O.MESSAGE_SENT,
        finished_at=minute(28),
        **BY_ID,
    ),
]


def write_version_1(path: Path, copies: int = 0) -> None:
    """Write the file of version 0.1, with copies of a pending order to make it larger."""
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.executescript(VERSION_1.read_text(encoding="utf-8"))
        file.executemany(
            "INSERT INTO orders (key, kind, created_at, order_id, payreq, codes) "
            "VALUES (?, 'receive', ?, ?, '', '[]')",
            [(f"copy {n}", 1793530000000000 + n, f"{n:064x}") for n in range(copies)],
        )
        file.commit()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "orders.journal"
    write_version_1(path)
    return path


def version_of(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        version: int = file.execute("PRAGMA user_version").fetchone()[0]
    return version


async def entries_of(path: Path) -> list[JournalEntry]:
    """All entries, the oldest first."""
    async with SqliteJournal(path, lock_timeout=60) as journal:
        return (await journal.history())[::-1]


def schema_of(path: Path) -> list[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(path)) as file:
        return file.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()


# --- what is migrated -----------------------------------------------------------------------------


async def test_every_entry_of_version_1_is_migrated(path: Path) -> None:
    assert version_of(path) == 1
    found = await entries_of(path)
    assert found == EXPECTED
    assert version_of(path) == 2
    # Once more, from the migrated file.
    assert await entries_of(path) == EXPECTED


async def test_a_migrated_file_has_the_table_of_a_new_one(path: Path, tmp_path: Path) -> None:
    async with SqliteJournal(path) as journal, SqliteJournal(tmp_path / "new") as new:
        await journal.pending()
        await new.pending()
    assert schema_of(path) == schema_of(tmp_path / "new")


async def test_old_orders_belong_to_the_default_root(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        pending = await journal.pending(DEFAULT_BASE_URL)
        assert pending == await journal.pending()
        assert await journal.pending("http://127.0.0.1:8021") == []
    assert [entry.order_id for entry in pending] == [
        entry.order_id for entry in EXPECTED if entry.pending
    ]


async def test_old_results_count_as_delivered(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        assert await journal.undelivered() == []
        # The two creations that ended unknown, and what ended.
        over = [entry for entry in EXPECTED if not entry.pending]
        assert await journal.prune(datetime.max.replace(tzinfo=UTC)) == len(over)
        assert len(await journal.history()) == len(EXPECTED) - len(over)


async def test_an_old_claim_holds_until_its_end(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        (early,) = await journal.update([("claimed", claim("a", minute(16), has_died=lives))])
        (late,) = await journal.update([("claimed", claim("a", minute(16.5), has_died=lives))])
    assert early is not None
    assert late is not None
    assert (early.claimed_by, late.claimed_by) == ("0123456789abcdef", "a")


@pytest.mark.parametrize("claimed_until", ["1e300", "9e999", "'soon'"])
async def test_a_claim_that_no_calendar_has_is_dropped(claimed_until: str, path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute(f"UPDATE orders SET claimed_until = {claimed_until} WHERE row = 13")  # noqa: S608
        file.commit()
    async with SqliteJournal(path) as journal:
        found = await journal.get("claimed")
    assert found is not None
    assert found.claimed_until is None


async def test_a_migrated_file_can_be_written(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await journal.update([add_order(1), ("code", acknowledge(START))])
        found = await journal.get(numbered_order(1).order_id)
        (newest, *_) = await journal.history(limit=1)
    assert found == newest


@posix
async def test_a_migrated_file_is_closed_to_other_users(path: Path) -> None:
    path.chmod(0o644)
    await entries_of(path)
    assert modes(path) == {path.name: 0o600}


# --- all or nothing -------------------------------------------------------------------------------


async def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "orders.journal"
    write_version_1(path, copies=500)
    pages = path.stat().st_size // 4096
    connect = sqlite3.connect

    def connect_to_a_small_disk(*args: Any, **options: Any) -> sqlite3.Connection:
        file: sqlite3.Connection = connect(*args, **options)
        file.execute(f"PRAGMA max_page_count = {pages + 5}")
        return file

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect_to_a_small_disk)
        async with SqliteJournal(path) as journal:
            with pytest.raises(JournalError, match="the disk is full"):
                await journal.pending()
    assert version_of(path) == 1
    assert len(await entries_of(path)) == len(EXPECTED) + 500


KILLED: Final = """
import os, signal, sqlite3, sys
from sms4sats_async.journal import schema

path, statement = sys.argv[1:]

class Connection(sqlite3.Connection):
    def execute(self, sql, *args):
        if not sql.startswith(statement):
            return super().execute(sql, *args)
        if statement == "COMMIT":
            super().execute(sql, *args)
        os.kill(os.getpid(), signal.SIGKILL)

file = sqlite3.connect(path, factory=Connection, isolation_level=None)
# With a small cache, half of the transaction is on the disk before the kill.
file.execute("PRAGMA cache_size = 5")
schema.prepare(file)
"""
STATEMENTS: Final = ("INSERT INTO orders", "DROP TABLE", "PRAGMA user_version =", "COMMIT")


@posix
@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_process_killed_in_the_migration_loses_nothing(statement: str, tmp_path: Path) -> None:
    path = tmp_path / "orders.journal"
    write_version_1(path, copies=2_000)
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", KILLED, str(path), statement],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, b"")
    assert version_of(path) == (2 if statement == "COMMIT" else 1)
    found = anyio.run(entries_of, path)
    assert found[: len(EXPECTED)] == EXPECTED
    assert len(found) == len(EXPECTED) + 2_000


# --- several at once ------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the child does the work
async def test_processes_that_open_an_old_file_at_the_same_time_lose_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "orders.journal"
    write_version_1(path, copies=2_000)
    starts = [10_000, 20_000, 30_000]
    processes = [child(path, range(start, start + 5)) for start in starts]
    with contextlib.ExitStack() as stack:
        for process in processes:
            stack.enter_context(process)
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [output_of(process) for process in processes]
    assert outputs == [[str(start + n) for n in range(5)] for start in starts]
    found = await entries_of(path)
    written = [int(each.order_id or "", 16) for each in found if each not in EXPECTED]
    assert sorted(written) == [*range(2_000), *(start + n for start in starts for n in range(5))]
    assert [each for each in found if each in EXPECTED] == EXPECTED


def test_journals_in_threads_that_open_an_old_file_at_the_same_time_lose_nothing(
    path: Path,
) -> None:
    found: list[list[JournalEntry]] = []

    async def read() -> None:
        found.append(await entries_of(path))

    threads = [threading.Thread(target=partial(anyio.run, read)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [EXPECTED] * 8


async def test_a_process_of_version_1_that_has_the_file_open_writes_nothing_wrong(
    path: Path,
) -> None:
    """Its statements name a column that is gone, so they fail instead of losing new fields."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("SELECT payreq FROM orders WHERE order_id = 'pending'").fetchone()
        await entries_of(path)
        with pytest.raises(sqlite3.OperationalError, match="payreq"):
            old.execute("INSERT INTO orders (key, payreq) VALUES ('old', '')")
    assert await entries_of(path) == EXPECTED


async def test_a_reader_of_version_1_delays_the_migration_by_no_error(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("BEGIN")
        before = old.execute("SELECT key, payreq FROM orders ORDER BY row").fetchall()
        assert await entries_of(path) == EXPECTED
        assert old.execute("SELECT key, payreq FROM orders ORDER BY row").fetchall() == before
        old.execute("COMMIT")
