"""The journal in a file: no write is lost, and each problem with the file is reported."""

# ruff: noqa: ASYNC240 - a test of files has nothing else to do meanwhile

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio
import attrs
import pytest

from sms4sats_async import (
    InvalidArgumentError,
    JournalEntry,
    JournalError,
    OrderJournal,
    OrderOutcome,
    OrderScheduler,
    SqliteJournal,
)
from sms4sats_async.journal import schema, worker
from sms4sats_async.journal.entry import put, record_intent, record_outcome, record_status
from tests.journal_contract import (
    ID,
    LATER,
    ROOT,
    START,
    StoredJournalContract,
    add_order,
    numbered_order,
    requested,
    status_of,
)
from tests.journal_files import Hold, child, ids_in, locked, modes, output_of, posix
from tests.many import Scene, running

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sms4sats_async.journal import JournalChange

pytestmark = pytest.mark.anyio


class TestSqliteJournal(StoredJournalContract):
    @staticmethod
    def open(folder: Path) -> AbstractAsyncContextManager[OrderJournal]:
        return SqliteJournal(folder / "journal")


def add_code(code: str) -> tuple[str, JournalChange]:
    """What adds a code to one order."""
    return ID, record_status(status_of(paid=True, code=code), START)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orders.journal"


@pytest.fixture
def stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the file open between two steps of a test, however slow the machine is."""
    monkeypatch.setattr(worker, "_LINGER", 30.0)


@pytest.fixture
def hold() -> Generator[Hold]:
    hold = Hold()
    yield hold
    hold.let_go.set()


# --- the file, and its permissions ----------------------------------------------------------------


@pytest.fixture
def careless_umask() -> Generator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@posix
@pytest.mark.usefixtures("careless_umask", "stays_open")
async def test_only_the_owner_may_read_the_file_and_its_side_files(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await journal.update([add_order(1)])
        files = modes(path)
    assert files.keys() == {path.name, f"{path.name}-wal", f"{path.name}-shm"}
    assert set(files.values()) == {0o600}
    assert modes(path) == {path.name: 0o600}


@posix
@pytest.mark.usefixtures("careless_umask")
async def test_a_new_file_is_closed_to_other_users_before_it_is_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user who opened it before could read it from then on."""
    found: list[dict[str, int]] = []
    connect = sqlite3.connect

    def look_and_connect(*args: Any, **options: Any) -> sqlite3.Connection:
        found.append(modes(path))
        file: sqlite3.Connection = connect(*args, **options)
        return file

    monkeypatch.setattr(sqlite3, "connect", look_and_connect)
    async with SqliteJournal(path) as journal:
        await journal.pending()
    assert found == [{path.name: 0o600}]


@posix
@pytest.mark.usefixtures("careless_umask")
@pytest.mark.parametrize("linked", [False, True], ids=["itself", "behind a link"])
async def test_an_open_file_and_its_side_files_are_closed_to_other_users(
    path: Path, tmp_path_factory: pytest.TempPathFactory, *, linked: bool
) -> None:
    name = path
    if linked:
        name = tmp_path_factory.mktemp("links") / "link"
        name.symlink_to(path)
    async with SqliteJournal(name) as journal:
        await journal.update([add_order(1)])
    # As after a process that was killed.
    with contextlib.closing(sqlite3.connect(path)) as left:
        left.execute("CREATE TABLE other (x)")
        for each in path.parent.iterdir():
            each.chmod(0o666)
        assert len(modes(path)) == 3
        async with SqliteJournal(name) as journal:
            await journal.update([add_order(2)])
        assert set(modes(path).values()) == {0o600}


@posix
@pytest.mark.usefixtures("careless_umask")
@pytest.mark.parametrize("exists", [True, False])
async def test_the_target_of_a_link_is_closed_to_other_users(
    path: Path, tmp_path: Path, *, exists: bool
) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    if exists:
        (tmp_path / "elsewhere").touch(0o644)
    async with SqliteJournal(path) as journal:
        await journal.update([add_order(1)])
    assert modes(path)["elsewhere"] == 0o600
    assert path.is_symlink()


async def test_an_empty_file_becomes_a_journal_of_this_version(path: Path) -> None:
    path.touch()
    async with SqliteJournal(path) as journal:
        await journal.update([add_order(1)])
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (2,)
        assert file.execute("PRAGMA application_id").fetchone() == (0x53345341,)
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_nothing_is_opened_before_the_first_use(path: Path) -> None:
    threads = threading.active_count()
    journal = SqliteJournal(str(path))
    await journal.aclose()
    assert repr(journal) == f"<SqliteJournal {path}>"
    assert not path.exists()
    assert threading.active_count() == threads


@pytest.mark.parametrize("lock_timeout", [0, -1, float("nan"), "2", True])
async def test_an_invalid_lock_timeout_is_refused(lock_timeout: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="lock_timeout"):
        SqliteJournal("journal", lock_timeout=lock_timeout)


NO_FILES: dict[str, tuple[Any, str]] = {
    "nothing": ("", "path must be the path of a file"),
    "None": (None, "path must be the path of a file"),
    "a number": (5, "path must be the path of a file"),
    "bytes": (b"journal", "path must be the path of a file as text"),
    "SQLite's name of a database in memory": (":memory:", "use MemoryJournal instead"),
    "the same as a Path": (Path(":memory:"), "use MemoryJournal instead"),
    "a URI of a database in memory": ("file:x?mode=memory", "use MemoryJournal instead"),
    "another one": ("file::memory:?cache=shared", "use MemoryJournal instead"),
    "a URI of a file": ("file:orders.db?mode=rw", "not an SQLite URI such as 'file:orders"),
    "a NUL": ("orders\0.db", "path must not have a NUL or a lone surrogate"),
    "half a character": ("orders\ud800.db", "path must not have a NUL or a lone surrogate"),
}


@pytest.mark.parametrize(("path", "problem"), NO_FILES.values(), ids=NO_FILES)
async def test_what_names_no_file_is_refused(path: Any, problem: str) -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape(problem)):
        SqliteJournal(path)


async def test_a_file_name_that_is_no_unicode_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"orders-\xff.journal")
    async with SqliteJournal(path) as journal:
        await journal.update([add_order(1)])
    assert await ids_in(path) == [1]


class NotesSynchronous(sqlite3.Connection):
    """A connection that notes before it closes how it wrote."""

    synchronous: ClassVar[list[int]] = []

    def close(self) -> None:
        self.synchronous.extend(self.execute("PRAGMA synchronous").fetchone())
        super().close()


async def test_every_write_waits_for_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NotesSynchronous, "synchronous", [])
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=NotesSynchronous))
    async with SqliteJournal(path) as journal:
        await journal.update([add_order(1)])
    assert NotesSynchronous.synchronous == [2]  # FULL


class Keeping(sqlite3.Connection):
    """A connection of an SQLite that was built to leave deleted rows in the file, as most are."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.execute("PRAGMA secure_delete = OFF")


async def test_what_was_pruned_is_not_left_in_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Keeping))
    entry = attrs.evolve(requested(START), codes=("code-of-a-customer",))
    async with SqliteJournal(path) as journal:
        await journal.update([(entry.key, put(entry))])
    assert b"code-of-a-customer" in path.read_bytes()
    async with SqliteJournal(path) as journal:
        assert await journal.prune(LATER) == 1
    assert b"code-of-a-customer" not in path.read_bytes()


# --- what it holds --------------------------------------------------------------------------------


async def test_letters_that_no_file_stores_are_replaced_and_others_kept(path: Path) -> None:
    entry = attrs.evolve(
        requested(START, service='it\'s "so"; --\0'),
        metadata={"a": "\ud800\0"},
        codes=("0042", "\ud800", ""),
        error="\ud800",
    )
    async with SqliteJournal(path) as journal:
        await journal.update([(entry.key, put(entry))])
    async with SqliteJournal(path) as journal:
        assert await journal.history() == [attrs.evolve(entry, error="?")]


async def test_the_first_and_last_moments_of_the_calendar_are_stored_exactly(path: Path) -> None:
    """As floats, the last one would round up to the year 10000, and pending() would fail."""
    last, first = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
    async with SqliteJournal(path) as journal:
        await journal.update([(ID, record_intent(ID, first, ROOT, not_before=last))])
        (entry,) = await journal.pending()
        assert await journal.history() == [entry]
    assert (entry.not_before, entry.created_at) == (last, first)


async def test_a_minimum_age_beyond_what_a_file_stores_is_stored_as_the_longest(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await journal.update([(ID, record_intent(ID, START, ROOT, minimum_age=timedelta.max))])
        (entry,) = await journal.pending()
    assert entry.minimum_age is not None
    assert timedelta(days=100_000_000) < entry.minimum_age < timedelta.max


async def test_any_mapping_can_be_metadata(path: Path) -> None:
    order = attrs.evolve(numbered_order(1), metadata=MappingProxyType({"chat": "42"}))
    async with SqliteJournal(path) as journal:
        await journal.update([(order.order_id, record_intent(order, START, ROOT))])
        (entry,) = await journal.pending()
    assert entry.metadata == {"chat": "42"}


async def test_a_list_that_changes_after_the_call_changes_nothing(path: Path, hold: Hold) -> None:
    async with SqliteJournal(path) as journal, anyio.create_task_group() as group:
        group.start_soon(journal.update, [("x", hold)])
        await hold.wait()
        mine = [add_order(1)]
        group.start_soon(journal.update, mine)
        await anyio.wait_all_tasks_blocked()
        mine.clear()
        hold.let_go.set()
    assert await ids_in(path) == [1]


# --- a file that cannot be used -------------------------------------------------------------------


async def problem_with(path: Path, **options: Any) -> str:
    """What the journal reports about a file: the same for a read and for a write."""
    journal = SqliteJournal(path, **options)
    with pytest.raises(JournalError) as reading:
        await journal.pending()
    with pytest.raises(JournalError) as writing:
        await journal.update([add_order(1)])
    await journal.aclose()
    text = str(writing.value)
    assert str(reading.value) == text
    assert text.startswith(f"the journal {path} cannot be used: ")
    assert writing.value.order is None
    assert writing.value.__cause__ is not None
    assert "\n" not in text
    return text.partition("cannot be used: ")[2]


def another_programs_file(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE bookmarks (url)")


def another_programs_empty_file(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA application_id = 7")


def journal_of_version(version: int, path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
        schema.prepare(file)
        file.execute(f"PRAGMA user_version = {version}")


def text_file(path: Path) -> None:
    path.write_text("[settings]\n" * 1000, encoding="utf-8")


def file_with_a_torn_header(path: Path) -> None:
    another_programs_file(path)
    path.write_bytes(b"\0" * 50 + path.read_bytes()[50:])


UPDATE: Final = (
    "its schema version is {}, and this library reads versions up to 2; update sms4sats-async, or "
    "give another path"
)
FOREIGN: Final = "the file belongs to another program; give another path"
NO_JOURNAL: Final = "the file is not a journal; give another path"
WRONG_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "another program's": (another_programs_file, FOREIGN),
    "another program's, empty": (another_programs_empty_file, FOREIGN),
    "newer": (partial(journal_of_version, 3), UPDATE.format(3)),
    "older than any": (partial(journal_of_version, 0), UPDATE.format(0)),
    "a text": (text_file, NO_JOURNAL),
    "a torn header": (file_with_a_torn_header, NO_JOURNAL),
}


@pytest.mark.parametrize(("make", "problem"), WRONG_FILES.values(), ids=WRONG_FILES)
async def test_a_foreign_file_is_refused_and_left_unchanged(
    make: Callable[[Path], None], problem: str, path: Path
) -> None:
    make(path)
    path.chmod(0o644)
    before = path.read_bytes()
    assert await problem_with(path) == problem
    assert path.read_bytes() == before
    assert modes(path) == {path.name: 0o644}


async def test_a_missing_folder_is_reported_and_not_created(tmp_path: Path) -> None:
    assert await problem_with(tmp_path / "a" / "journal") == (
        "it cannot be opened; its folder must exist, and this user must have access to both"
    )
    assert list(tmp_path.iterdir()) == []


def fifo(path: Path) -> None:
    os.mkfifo(path)


def socket_file(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def link_to_null(path: Path) -> None:
    path.symlink_to("/dev/null")


NO_REGULAR_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "folder": (Path.mkdir, "it is a folder; give the path of a file"),
    "FIFO": (fifo, "it is not a regular file; give the path of a file"),
    "socket": (socket_file, "it is not a regular file; give the path of a file"),
    "link to a device": (link_to_null, "it is not a regular file; give the path of a file"),
}


@posix
@pytest.mark.parametrize(("make", "problem"), NO_REGULAR_FILES.values(), ids=NO_REGULAR_FILES)
async def test_what_is_no_regular_file_is_refused_and_left_unchanged(
    make: Callable[[Path], None], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket may have about 100 characters only
    path = Path("orders.journal")
    make(path)
    before = path.stat()
    monkeypatch.setattr(sqlite3, "connect", None)
    assert await problem_with(tmp_path / path) == problem
    assert (path.stat().st_mode, path.stat().st_ino) == (before.st_mode, before.st_ino)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@posix
async def test_a_device_is_refused_and_nothing_is_written_beside_it() -> None:
    before = stat.S_IMODE(Path("/dev/null").stat().st_mode)
    problem = "it is not a regular file; give the path of a file"
    assert await problem_with(Path("/dev/null")) == problem
    assert stat.S_IMODE(Path("/dev/null").stat().st_mode) == before
    assert list(Path("/dev").glob("null-*")) == []


async def test_a_file_that_a_newer_library_migrates_while_it_is_open_is_refused(
    path: Path,
) -> None:
    async with SqliteJournal(path) as journal:
        await journal.update([add_order(1)])
        with contextlib.closing(sqlite3.connect(path)) as newer:
            newer.execute("PRAGMA user_version = 3")
        with pytest.raises(JournalError, match="its schema version is 3"):
            await journal.update([add_order(2)])
        with pytest.raises(JournalError, match="its schema version is 3"):
            await journal.pending()


async def test_a_damaged_file_is_reported_and_kept(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await journal.update([add_order(number) for number in range(200)])
    content = path.read_bytes()
    assert len(content) > 10 * 4096
    broken = content[:4096] + b"\xa5" * (len(content) - 4096)
    path.write_bytes(broken)
    damaged = "it is damaged; keep it, because it has order IDs, and give another path"
    assert await problem_with(path) == damaged
    assert path.read_bytes()[4096:] == broken[4096:]


@pytest.mark.parametrize(
    "damage",
    [
        "state = 'no such state'",
        "outcome = 'none'",
        "codes = '[1'",
        "metadata = '[1'",
        "created_at = 'today'",
        "created_at = 9223372036854775807",
        "created_at = 1e400",
        "created_at = NULL",
        "order_id = 7",
        "invoice = NULL",
        "codes = NULL",
        "metadata = NULL",
        "refusals = 'many'",
        "base_url = 7",
    ],
)
@pytest.mark.parametrize("way", ["pending", "undelivered", "history"])
async def test_a_damaged_row_is_reported_and_kept_and_the_others_are_listed(
    damage: str, way: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with SqliteJournal(path) as journal:
        await journal.update([add_order(1), add_order(2)])
        if way == "undelivered":
            ends = record_outcome(OrderOutcome.CANCELLED, START, final=True)
            await journal.update([(numbered_order(each).order_id, ends) for each in (1, 2)])
        with contextlib.closing(sqlite3.connect(path)) as file:
            file.execute(f"UPDATE orders SET {damage} WHERE row = 1")  # noqa: S608 - of this file
            file.commit()
            before = file.execute("SELECT * FROM orders").fetchall()
        entries: list[JournalEntry] = await getattr(journal, way)()
        assert [entry.order_id for entry in entries] == [numbered_order(2).order_id]
        (record,) = caplog.records
        assert record.levelname == "ERROR"
        assert f"{path}: row 1 of the table `orders`" in record.getMessage()
        assert numbered_order(1).order_id not in record.getMessage()
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT * FROM orders").fetchall() == before


async def test_a_change_of_a_damaged_row_is_refused_and_one_of_another_is_made(path: Path) -> None:
    first, second = numbered_order(1), numbered_order(2)
    async with SqliteJournal(path) as journal:
        await journal.update([add_order(1), add_order(2)])
        with contextlib.closing(sqlite3.connect(path)) as file:
            file.execute("UPDATE orders SET codes = '[1' WHERE row = 1")
            file.commit()
        ends = record_outcome(OrderOutcome.CANCELLED, START, final=True)
        for ask in (journal.get(first.order_id), journal.update([(first.order_id, ends)])):
            with pytest.raises(JournalError, match="row 1 of the table `orders`"):
                await ask
        (after,) = await journal.update([(second.order_id, ends)])
        assert after is not None
        assert after.outcome is OrderOutcome.CANCELLED


async def test_a_damaged_row_stops_no_other_order_of_a_scheduler(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        scene = Scene(journal=journal)
        orders = await scene.orders(3)
        with contextlib.closing(sqlite3.connect(path)) as file:
            file.execute("UPDATE orders SET metadata = '[1' WHERE row = 2")
            file.commit()
        async with running(OrderScheduler(scene.client)):
            await scene.advance(130)
    assert set(scene.cancels()) == {orders[0].order_id, orders[2].order_id}


# --- locks ----------------------------------------------------------------------------------------


async def test_a_locked_file_is_reported_after_the_lock_timeout(path: Path) -> None:
    journal = SqliteJournal(path, lock_timeout=timedelta(seconds=0.1))
    await journal.update([add_order(1)])
    with locked(path):
        begin = time.monotonic()
        with pytest.raises(JournalError, match="another program keeps it locked; end that program"):
            await journal.update([add_order(2)])
        waited = time.monotonic() - begin
    assert 0.1 <= waited < 1.5
    await journal.update([add_order(3)])
    await journal.aclose()
    assert await ids_in(path) == [1, 3]


async def test_many_calls_wait_for_a_lock_together(path: Path) -> None:
    failed = 0

    async def write(number: int) -> None:
        nonlocal failed
        with pytest.raises(JournalError, match="keeps it locked"):
            await journal.update([add_order(number)])
        failed += 1

    async with SqliteJournal(path, lock_timeout=0.1) as journal:
        await journal.pending()
        with locked(path):
            begin = time.monotonic()
            async with anyio.create_task_group() as group:
                for number in range(100):
                    group.start_soon(write, number)
            waited = time.monotonic() - begin
    assert failed == 100
    assert waited < 3  # one by one it would be 10


async def test_a_lock_that_is_released_in_time_fails_nothing(path: Path) -> None:
    async with SqliteJournal(path, lock_timeout=30) as journal:
        await journal.pending()
        with locked(path) as other:
            timer = threading.Timer(0.1, other.execute, ["ROLLBACK"])
            timer.start()
            await journal.update([add_order(1)])
            timer.join()
    assert await ids_in(path) == [1]


@posix
@pytest.mark.usefixtures("stays_open")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the child does the work
async def test_opening_the_file_keeps_the_locks_of_other_journals_of_this_process(
    path: Path,
) -> None:
    """Closing any descriptor of a file drops every lock that its process has on it.

    Another process that finds no lock takes itself for the last one, and removes the side file that
    has the newest orders of this process.
    """
    one, another = SqliteJournal(path), SqliteJournal(path)
    await one.update([add_order(1)])
    await another.update([add_order(2)])
    await another.aclose()
    output_of(child(path, range(3, 4)))
    assert path.with_name(f"{path.name}-wal").exists()
    await one.update([add_order(4)])
    await one.aclose()
    assert await ids_in(path) == [1, 2, 3, 4]


# --- a full disk, and files that are read-only ----------------------------------------------------


@contextlib.contextmanager
def small_disk(pages: int, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Let SQLite take the disk for full when the file has that many pages (of 4 KiB)."""
    connect = sqlite3.connect

    def connect_to_a_small_disk(*args: Any, **options: Any) -> sqlite3.Connection:
        file: sqlite3.Connection = connect(*args, **options)
        file.execute(f"PRAGMA max_page_count = {pages}")
        return file

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect_to_a_small_disk)
        yield


async def test_a_full_disk_is_reported_and_what_was_written_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = SqliteJournal(path)
    written: list[int] = []
    with small_disk(16, monkeypatch):
        with pytest.raises(JournalError, match="the disk is full; free some space"):  # noqa: PT012
            for number in range(1000):
                await journal.update([add_order(number)])
                written.append(number)
        assert [entry.order for entry in await journal.pending()] == [
            numbered_order(number) for number in written
        ]
        with pytest.raises(JournalError, match="the disk is full"):
            await journal.update([add_order(number) for number in range(1000, 2000)])
        await journal.aclose()
    assert written
    assert await ids_in(path) == written
    await journal.update([add_order(1001)])
    await journal.aclose()
    assert await ids_in(path) == [*written, 1001]


async def test_a_disk_that_is_full_at_creation_leaves_no_half_of_a_journal(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(3, monkeypatch):
        assert await problem_with(path) == "the disk is full; free some space"
    async with SqliteJournal(path) as journal:
        await journal.update([add_order(1)])
    assert await ids_in(path) == [1]


@posix
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the child does the work
async def test_a_failed_write_loses_nothing_that_was_reported_as_written(
    path: Path,
) -> None:
    """The system's own limit lets a write fail in its middle, as on a full disk."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000))"
    lines = output_of(child(path, range(40), prepare=limit))
    written = [int(line) for line in lines if line.isdigit()]
    errors = {line.partition("used: ")[2] for line in lines if not line.isdigit()}
    assert written
    assert errors == {"the disk cannot be read or written; it may be full or broken"}
    assert set(written) <= set(await ids_in(path))
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)


NO_WRITING: Final = "this user may not write to the file or to its folder; change the permissions"
NO_FOLDER: Final = (
    "it cannot be opened; its folder must exist, and this user must have access to both"
)
# The permissions of the file, if there is one, and of its folder; and the problem.
READ_ONLY: dict[str, tuple[int | None, int, str]] = {
    "a file": (0o400, 0o700, NO_WRITING),
    "a file without permissions": (0o000, 0o700, NO_WRITING),
    "a file and its folder": (0o400, 0o500, NO_WRITING),
    "a folder, but not the file": (0o600, 0o500, NO_WRITING),
    "a folder, and no file": (None, 0o500, NO_FOLDER),
}


@posix
@pytest.mark.parametrize(("file", "folder", "problem"), READ_ONLY.values(), ids=READ_ONLY)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the child does the work
async def test_a_read_only_file_is_reported_until_it_is_writable(
    file: int | None, folder: int, problem: str
) -> None:
    with tempfile.TemporaryDirectory() as place:
        # Only its user may enter pytest's own folder. Root may write everywhere, so it becomes
        # another user for this.
        Path(place).chmod(0o755)
        path = Path(place) / "folder" / "journal"
        path.parent.mkdir()
        if file is not None:
            async with SqliteJournal(path) as journal:
                await journal.update([add_order(1)])
            path.chmod(file)
        prepare = ""
        if os.getuid() == 0:
            prepare = "os.setgid(65534); os.setuid(65534)"
            for each in (path.parent, *path.parent.iterdir()):
                os.chown(each, 65534, 65534)
        path.parent.chmod(folder)
        lines = output_of(child(path, range(2, 5), prepare=prepare))
        assert [line.partition("used: ")[2] for line in lines] == [problem] * 3
        assert modes(path) == ({} if file is None else {path.name: file})

        path.parent.chmod(0o700)
        if file is not None:
            path.chmod(0o600)
        assert output_of(child(path, range(5, 6), prepare=prepare)) == ["5"]


async def test_a_read_only_file_is_never_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite would read it, and leave side files that keep other processes out later."""
    async with SqliteJournal(path) as journal:
        await journal.update([add_order(1)])

    def deny(_path: Path, _mode: int) -> bool:
        return False

    monkeypatch.setattr(os, "access", deny)
    monkeypatch.setattr(sqlite3, "connect", None)
    assert await problem_with(path) == NO_WRITING


# --- several at once ------------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the child does the work
async def test_processes_that_write_at_the_same_time_lose_nothing(path: Path) -> None:
    """They open a file that does not exist yet at the same moment, and change the same entry."""
    processes = [child(path, range(at, at + 25), change="a_code") for at in (0, 100, 200)]
    with contextlib.ExitStack() as stack:
        for process in processes:
            stack.enter_context(process)
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [output_of(process) for process in processes]
    for at, lines in zip((0, 100, 200), outputs, strict=True):
        assert lines == [str(number) for number in range(at, at + 25)]
    async with SqliteJournal(path) as journal:
        (entry,) = await journal.history()
    assert sorted(map(int, entry.codes)) == [*range(25), *range(100, 125), *range(200, 225)]


@pytest.mark.parametrize("shared", [True, False], ids=["one journal", "two on one file"])
def test_two_event_loops_in_two_threads_write_to_one_file(path: Path, *, shared: bool) -> None:
    common = SqliteJournal(path)

    async def write(numbers: range) -> None:
        journal = common if shared else SqliteJournal(path)
        async with journal, anyio.create_task_group() as group:
            for number in numbers:
                group.start_soon(journal.update, [add_code(str(number))])

    def run(backend: str, numbers: range) -> None:
        anyio.run(write, numbers, backend=backend)

    threads = [
        threading.Thread(target=run, args=("asyncio", range(100))),
        threading.Thread(target=run, args=("trio", range(100, 200))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def read() -> tuple[str, ...]:
        async with common:
            (entry,) = await common.history()
        return entry.codes

    assert sorted(map(int, anyio.run(read))) == list(range(200))


async def test_updates_at_the_same_time_are_one_transaction(
    path: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    connect = sqlite3.connect

    def connect_and_listen(*args: Any, **options: Any) -> sqlite3.Connection:
        file: sqlite3.Connection = connect(*args, **options)
        file.set_trace_callback(begun.append)
        return file

    monkeypatch.setattr(sqlite3, "connect", connect_and_listen)
    async with SqliteJournal(path) as journal, anyio.create_task_group() as group:
        group.start_soon(journal.update, [("x", hold)])
        await hold.wait()
        begun.clear()
        for number in range(500):
            group.start_soon(journal.update, [add_order(number)])
        await anyio.wait_all_tasks_blocked()
        hold.let_go.set()
    assert begun.count("BEGIN IMMEDIATE") == 1
    assert len(await ids_in(path)) == 500


class Stuck(sqlite3.Connection):
    """A connection whose transactions cannot end."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql in {"COMMIT", "ROLLBACK"}:
            raise sqlite3.OperationalError("stuck")
        return super().execute(sql, parameters)


async def test_a_stuck_connection_is_replaced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SqliteJournal(path) as journal:
        await journal.pending()
    async with SqliteJournal(path) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Stuck))
            with pytest.raises(JournalError, match="cannot be used: stuck"):
                await journal.update([add_order(1)])
        await journal.update([add_order(2)])
    assert await ids_in(path) == [2]


async def test_a_change_that_raises_fails_only_its_own_call(path: Path, hold: Hold) -> None:
    def fail(_entry: JournalEntry | None) -> JournalEntry | None:
        raise LookupError

    async def write_badly() -> None:
        with pytest.raises(JournalError, match="cannot be used: LookupError") as caught:
            await journal.update([add_order(7), ("x", fail)])
        assert isinstance(caught.value.__cause__, LookupError)

    async with SqliteJournal(path) as journal, anyio.create_task_group() as group:
        group.start_soon(journal.update, [("x", hold)])
        await hold.wait()
        group.start_soon(journal.update, [add_order(1)])
        group.start_soon(write_badly)
        group.start_soon(journal.update, [add_order(2)])
        await anyio.wait_all_tasks_blocked()
        hold.let_go.set()
    assert await ids_in(path) == [1, 2]


async def test_the_slower_of_two_that_create_the_file_finds_it_created(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SqliteJournal(path) as journal:
        await journal.update([add_order(1)])
    read = schema._signature  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    first = iter([(0, 0)])

    def read_too_early(file: sqlite3.Connection) -> tuple[int, int]:
        return next(first, None) or read(file)

    monkeypatch.setattr(schema, "_signature", read_too_early)
    async with SqliteJournal(path) as journal:
        await journal.update([add_order(2)])
    assert await ids_in(path) == [1, 2]


# --- a task or event loop that ends ---------------------------------------------------------------


async def test_updates_are_written_although_their_tasks_are_cancelled(
    path: Path, hold: Hold
) -> None:
    async with SqliteJournal(path) as journal:
        async with anyio.create_task_group() as group:
            group.start_soon(journal.update, [("x", hold)])
            await hold.wait()
            for number in range(50):
                group.start_soon(journal.update, [add_order(number)])
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        hold.let_go.set()
    assert await ids_in(path) == list(range(50))


async def test_a_task_that_is_already_cancelled_still_writes(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await journal.update([add_order(1)])
        assert scope.cancelled_caught
    assert await ids_in(path) == [1]


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancel_loses_no_update_that_began(
    turns: int, path: Path, hold: Hold
) -> None:
    begun: list[int] = []

    async def write(number: int) -> None:
        await asyncio.sleep(0)
        begun.append(number)
        await journal.update([add_order(number)])
        await journal.update([add_order(number + 100)])

    async with SqliteJournal(path) as journal:
        first = asyncio.create_task(journal.update([("x", hold)]))
        await hold.wait()
        tasks = [asyncio.create_task(write(number)) for number in range(10)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        hold.let_go.set()
        await first
    assert len(begun) == (0 if turns < 2 else 10)
    assert await ids_in(path) == begun


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_updates_are_written_although_the_event_loop_ends(
    backend: str, path: Path, hold: Hold
) -> None:
    journal = SqliteJournal(path)

    async def hand_over_and_go() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(journal.update, [("x", hold)])
            await hold.wait()
            group.start_soon(journal.update, [add_order(1)])
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()

    anyio.run(hand_over_and_go, backend=backend)
    hold.let_go.set()
    assert anyio.run(ids_in, path) == [1]
    # The loop that waited for it has ended; the journal works for the next one.
    anyio.run(journal.update, [add_order(2)], backend=backend)
    anyio.run(journal.aclose)
    assert anyio.run(ids_in, path) == [1, 2]


# --- the thread -----------------------------------------------------------------------------------


async def test_the_thread_counts_its_jobs_for_a_clock_of_a_test(path: Path, hold: Hold) -> None:
    threads: list[Any] = []
    async with SqliteJournal(path) as journal, anyio.create_task_group() as group:
        group.start_soon(journal.update, [("x", hold)])
        await hold.wait()
        threads.append(its_thread(journal))
        assert threads[0].sms4sats_jobs() == (1, 0)
        group.start_soon(journal.update, [add_order(1)])
        await anyio.wait_all_tasks_blocked()
        assert threads[0].sms4sats_jobs() == (2, 0)
        hold.let_go.set()
    assert threads[0].sms4sats_jobs() == (2, 2)


def its_thread(journal: SqliteJournal) -> threading.Thread:
    (thread,) = [each for each in threading.enumerate() if each.name == repr(journal)]
    return thread


async def test_the_idle_thread_ends_and_closes_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_LINGER", 0.01)
    journal = SqliteJournal(path)
    for number in (1, 2):
        await journal.update([add_order(number)])
        with contextlib.suppress(ValueError):  # it was faster
            its_thread(journal).join(30)
        assert modes(path).keys() == {path.name}
    assert await ids_in(path) == [1, 2]


@pytest.mark.usefixtures("stays_open")
async def test_the_file_stays_open_between_two_uses(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    connect = sqlite3.connect

    def count_and_connect(*args: Any, **options: Any) -> sqlite3.Connection:
        opened.append(args)
        file: sqlite3.Connection = connect(*args, **options)
        return file

    monkeypatch.setattr(sqlite3, "connect", count_and_connect)
    journal = SqliteJournal(path)
    for times in (1, 2):
        for number in range(20):
            await journal.update([add_order(number)])
        await journal.aclose()
        assert len(opened) == times


@pytest.mark.usefixtures("stays_open")
async def test_aclose_waits_until_everything_is_written(path: Path, hold: Hold) -> None:
    journal = SqliteJournal(path)
    async with anyio.create_task_group() as group:
        group.start_soon(journal.update, [("x", hold)])
        await hold.wait()
        group.start_soon(journal.update, [add_order(1)])
        await anyio.wait_all_tasks_blocked()
        group.start_soon(journal.aclose)
        await anyio.wait_all_tasks_blocked()
        # A later update is written too, and `aclose` does not wait for more.
        group.start_soon(journal.update, [add_order(2)])
        await anyio.wait_all_tasks_blocked()
        hold.let_go.set()
    assert modes(path).keys() == {path.name}
    await journal.update([add_order(3)])
    await journal.aclose()
    await journal.aclose()
    assert await ids_in(path) == [1, 2, 3]


class SlowToClose(sqlite3.Connection):
    """A connection that is slow to close."""

    hold = Hold()

    def close(self) -> None:
        self.hold(None)
        super().close()


async def test_aclose_waits_for_a_file_that_is_being_closed(
    path: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlowToClose, "hold", hold)
    monkeypatch.setattr(worker, "_LINGER", 0.01)
    journal = SqliteJournal(path)
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=SlowToClose))
        await journal.update([add_order(1)])
    await hold.wait()  # the idle thread is closing the file
    closed = anyio.Event()

    async def close() -> None:
        await journal.aclose()
        closed.set()

    async with anyio.create_task_group() as group:
        group.start_soon(close)
        await anyio.wait_all_tasks_blocked()
        assert not closed.is_set()
        assert len(modes(path)) == 3
        hold.let_go.set()
    assert modes(path).keys() == {path.name}
    assert await ids_in(path) == [1]


async def test_an_update_waits_for_a_file_that_is_being_closed(
    path: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlowToClose, "hold", hold)
    monkeypatch.setattr(worker, "_LINGER", 0.01)
    journal = SqliteJournal(path)
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=SlowToClose))
        await journal.update([add_order(1)])
    await hold.wait()
    async with anyio.create_task_group() as group:
        group.start_soon(journal.update, [add_order(2)])
        await anyio.wait_all_tasks_blocked()
        group.start_soon(journal.aclose)
        await anyio.wait_all_tasks_blocked()
        hold.let_go.set()
    assert modes(path).keys() == {path.name}
    assert await ids_in(path) == [1, 2]


async def test_a_thread_that_cannot_start_is_reported_and_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = SqliteJournal(path)
    with monkeypatch.context() as patch:

        def fail(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(JournalError, match="cannot be used: can't start new thread"):
            await journal.update([add_order(1)])
    await journal.update([add_order(2)])
    await journal.aclose()
    assert await ids_in(path) == [2]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_process_that_does_not_close_the_journal_has_written_everything(
    backend: str, path: Path
) -> None:
    code = """
import sys
from datetime import datetime, UTC
import anyio
from sms4sats_async import SqliteJournal
from sms4sats_async.journal.entry import ensure_entry
change = ("1", ensure_entry("1", datetime.now(UTC), "https://api2.sms4sats.com"))
anyio.run(SqliteJournal(sys.argv[1]).update, [change], backend=sys.argv[2])
"""
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-X", "dev", "-W", "error", "-c", code, str(path), backend],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert modes(path).keys() == {path.name}
    assert anyio.run(ids_in, path) == [1]


@posix
def test_a_killed_process_has_written_what_it_reported_as_written(path: Path) -> None:
    with child(path, range(10_000)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        written = [int(process.stdout.readline()) for _ in range(5)]
        process.send_signal(signal.SIGKILL)
        written += map(int, process.stdout.read().split())
    assert set(written) <= set(anyio.run(ids_in, path))


# --- a file that goes away ------------------------------------------------------------------------


@posix
@pytest.mark.usefixtures("stays_open")
@pytest.mark.parametrize("side_files", [True, False], ids=["with all beside it", "alone"])
async def test_a_file_that_is_removed_while_open_is_created_again(
    path: Path, *, side_files: bool
) -> None:
    """SQLite would go on in the file that has no name any more, and no process could read it."""
    async with SqliteJournal(path) as journal:
        await journal.update([add_order(1)])
        for each in path.parent.iterdir():
            if side_files or each == path:
                each.unlink()
        await journal.update([add_order(2)])
        await journal.update([add_order(3)])
    assert await ids_in(path) == [2, 3]
    assert set(modes(path).values()) == {0o600}


@posix
@pytest.mark.usefixtures("stays_open")
async def test_a_file_that_replaces_the_open_one_is_used(path: Path, tmp_path: Path) -> None:
    async with SqliteJournal(tmp_path / "other") as other:
        await other.update([add_order(1)])
    async with SqliteJournal(path) as journal:
        await journal.update([add_order(2)])
        for each in ("-wal", "-shm"):
            path.with_name(path.name + each).unlink()
        (tmp_path / "other").rename(path)
        await journal.update([add_order(3)])
    assert await ids_in(path) == [1, 3]


@posix
@pytest.mark.usefixtures("stays_open")
async def test_a_folder_that_goes_away_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    async with SqliteJournal(folder / "journal") as journal:
        await journal.update([add_order(1)])
        folder.rename(tmp_path / "elsewhere")
        with pytest.raises(JournalError, match="its folder must exist"):
            await journal.update([add_order(2)])
        (tmp_path / "elsewhere").rename(folder)
        await journal.update([add_order(3)])
    assert await ids_in(folder / "journal") == [1, 3]
