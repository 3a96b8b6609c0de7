"""The journal in a file: nothing handed over is lost, and what is wrong with the file is said."""

# ruff: noqa: ASYNC240 - a test of files has nothing else to do meanwhile

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio
import attrs
import pytest

from sms4sats_async import (
    InvalidArgumentError,
    JournalEntry,
    JournalError,
    OrderState,
    OrderStatus,
    ReceiveOrder,
    SqliteJournal,
)
from sms4sats_async.journal import sqlite
from sms4sats_async.journal.entry import asked, put, scheduled, seen, taken_up

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sms4sats_async.journal import JournalChange

pytestmark = pytest.mark.anyio

START: Final = datetime(2027, 1, 15, 8, 0, tzinfo=UTC)
ID: Final = "0123456789abcdef" * 4

posix = pytest.mark.skipif(os.name != "posix", reason="what POSIX files alone can")


def an_order(number: int) -> ReceiveOrder:
    return ReceiveOrder(f"{number:064x}", "lnbc1", START + timedelta(seconds=number), 187, "tg")


def a_change(number: int) -> tuple[str, JournalChange]:
    """What takes up an order, to hand to `update`."""
    return an_order(number).order_id, taken_up(an_order(number), START)


def a_code(code: str) -> tuple[str, JournalChange]:
    """What adds a code to the one order."""
    return ID, seen(OrderStatus(ID, OrderState.CODE_RECEIVED, paid=True, code=code), START)


async def ids_in(path: Path) -> list[int]:
    """The numbers of the orders in a file, as another journal reads it."""
    async with SqliteJournal(path) as journal:
        entries = await journal.history()
    return sorted(int(entry.order_id or "0", 16) for entry in entries)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orders.journal"


@pytest.fixture
def stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file stays open between two steps of a test, however slow the machine is."""
    monkeypatch.setattr(sqlite, "_LINGER", 30.0)


class Hold:
    """A change that holds the journal's thread up until it is let go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, entry: JournalEntry | None) -> JournalEntry | None:
        self.reached.set()
        assert self.let_go.wait(30)
        return entry

    async def wait(self) -> None:
        """Return when the thread stands still."""
        await anyio.to_thread.run_sync(self.reached.wait, 30)


@pytest.fixture
def hold() -> Generator[Hold]:
    hold = Hold()
    yield hold
    hold.let_go.set()


# --- the file, and who may read it ----------------------------------------------------------------


def modes(path: Path) -> dict[str, int]:
    """The permissions of the file and of what lies beside it."""
    return {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}


@pytest.fixture
def careless_umask() -> Generator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@posix
@pytest.mark.usefixtures("careless_umask", "stays_open")
async def test_nobody_else_may_read_the_file_nor_what_lies_beside_it(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await journal.update([a_change(1)])
        files = modes(path)
    assert files.keys() == {path.name, f"{path.name}-wal", f"{path.name}-shm"}
    assert set(files.values()) == {0o600}
    assert modes(path) == {path.name: 0o600}


@posix
@pytest.mark.usefixtures("careless_umask")
async def test_a_new_file_is_closed_to_others_from_its_first_moment_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has it open by then could read on."""
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
async def test_a_file_that_others_could_read_is_closed_to_them_with_all_beside_it(
    path: Path, tmp_path_factory: pytest.TempPathFactory, *, linked: bool
) -> None:
    name = path
    if linked:
        name = tmp_path_factory.mktemp("links") / "link"
        name.symlink_to(path)
    async with SqliteJournal(name) as journal:
        await journal.update([a_change(1)])
    # What a process leaves that was killed.
    with contextlib.closing(sqlite3.connect(path)) as left:
        left.execute("CREATE TABLE other (x)")
        for each in path.parent.iterdir():
            each.chmod(0o666)
        assert len(modes(path)) == 3
        async with SqliteJournal(name) as journal:
            await journal.update([a_change(2)])
        assert set(modes(path).values()) == {0o600}


@posix
async def test_the_file_behind_a_link_is_closed_to_others_too(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").touch(0o644)
    async with SqliteJournal(path) as journal:
        await journal.update([a_change(1)])
    assert modes(path)["elsewhere"] == 0o600
    assert path.is_symlink()


async def test_an_empty_file_is_made_a_journal_of_this_version(path: Path) -> None:
    path.touch()
    async with SqliteJournal(path) as journal:
        await journal.update([a_change(1)])
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (1,)
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
async def test_a_lock_timeout_that_cannot_be_meant_is_refused(lock_timeout: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="lock_timeout"):
        SqliteJournal("journal", lock_timeout=lock_timeout)


@pytest.mark.parametrize("path", ["", None, 5])
async def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="path"):
        SqliteJournal(path)


class LastWords(sqlite3.Connection):
    """A file that says before it closes how it was written."""

    synchronous: ClassVar[list[int]] = []

    def close(self) -> None:
        self.synchronous.extend(self.execute("PRAGMA synchronous").fetchone())
        super().close()


async def test_what_is_written_is_on_the_disk_itself(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LastWords, "synchronous", [])
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=LastWords))
    async with SqliteJournal(path) as journal:
        await journal.update([a_change(1)])
    assert LastWords.synchronous == [2]  # FULL


# --- what it holds --------------------------------------------------------------------------------


async def test_every_field_of_an_entry_comes_back_as_it_was(path: Path) -> None:
    moment = datetime(2027, 1, 15, 8, 0, 0, 123457, tzinfo=UTC)
    record = attrs.evolve(
        asked("send", moment, country="germany", service="tg", phone="+4915112345678"),
        order_id=ID,
        payreq="lnbc1",
        state=OrderState.MESSAGE_SENT,
        paid=False,
        number="+49123",
        codes=("0042", "ä\ud800", ""),
        error='it\'s "so"; --\0',
        not_before=moment,
        finished_at=moment,
        claimed_by="me",
        claimed_until=0.1 + 0.2,
    )
    numbered = attrs.evolve(asked("receive", moment, country=187), paid=True)
    async with SqliteJournal(path) as journal:
        await journal.update([(each.key, put(each)) for each in (record, numbered)])
    async with SqliteJournal(path) as journal:
        assert await journal.history() == [numbered, record]


async def test_the_last_moment_that_there_is_does_not_make_pending_unreadable(path: Path) -> None:
    """What stands for "never" in a journal: of floats it would round up to the year 10000."""
    last, first = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
    async with SqliteJournal(path) as journal:
        await journal.update([(ID, scheduled(ID, last, first))])
        (entry,) = await journal.pending()
        assert await journal.history() == [entry]
    assert (entry.not_before, entry.created_at) == (last, first)


async def test_half_a_character_does_not_cost_the_code_that_came_with_it(path: Path) -> None:
    broken = OrderStatus(ID, OrderState.CODE_RECEIVED, code="0042", error="no \ud800 such")
    async with SqliteJournal(path) as journal:
        await journal.update([(ID, seen(broken, START))])
        entry = await journal.get(ID)
        assert await journal.get("\ud800") is None
    assert entry is not None
    assert (entry.code, entry.error) == ("0042", "no ? such")


async def test_what_is_handed_over_stays_what_it_was_then(path: Path, hold: Hold) -> None:
    async with SqliteJournal(path) as journal, anyio.create_task_group() as group:
        group.start_soon(journal.update, [("x", hold)])
        await hold.wait()
        mine = [a_change(1)]
        group.start_soon(journal.update, mine)
        await anyio.wait_all_tasks_blocked()
        mine.clear()
        hold.let_go.set()
    assert await ids_in(path) == [1]


# --- a file that cannot be used -------------------------------------------------------------------


async def problem_with(path: Path, **options: Any) -> str:
    """What the journal says of a file, the same on reading and on writing."""
    journal = SqliteJournal(path, **options)
    with pytest.raises(JournalError) as reading:
        await journal.pending()
    with pytest.raises(JournalError) as writing:
        await journal.update([a_change(1)])
    await journal.aclose()
    told = str(writing.value)
    assert str(reading.value) == told
    assert told.startswith(f"the journal {path} cannot be used: ")
    assert writing.value.order is None
    assert writing.value.__cause__ is not None
    assert "\n" not in told
    return told.partition("cannot be used: ")[2]


def another_programs(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE bookmarks (url)")


def an_empty_one_of_another_program(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA application_id = 7")


def a_newer_journal(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        for statement in sqlite._SCHEMA:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
            file.execute(statement)
        file.execute("PRAGMA user_version = 2")


def a_text(path: Path) -> None:
    path.write_text("[settings]\n" * 1000, encoding="utf-8")


def one_with_a_torn_header(path: Path) -> None:
    another_programs(path)
    path.write_bytes(b"\0" * 50 + path.read_bytes()[50:])


WRONG_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "another program's": (
        another_programs,
        "the file belongs to another program; give another path",
    ),
    "another program's, empty": (
        an_empty_one_of_another_program,
        "the file belongs to another program; give another path",
    ),
    "newer": (
        a_newer_journal,
        (
            "its schema is version 2, and this library reads 1; use a newer sms4sats-async, or "
            "another path"
        ),
    ),
    "a text": (a_text, "the file is no journal; give another path"),
    "a torn header": (one_with_a_torn_header, "the file is no journal; give another path"),
}


@pytest.mark.parametrize(("make", "problem"), WRONG_FILES.values(), ids=WRONG_FILES)
async def test_a_file_that_is_no_journal_of_ours_is_refused_and_left_as_it_is(
    make: Callable[[Path], None], problem: str, path: Path
) -> None:
    make(path)
    path.chmod(0o644)
    before = path.read_bytes()
    assert await problem_with(path) == problem
    assert path.read_bytes() == before
    assert modes(path) == {path.name: 0o644}


async def test_a_folder_that_is_missing_is_said_and_not_made(tmp_path: Path) -> None:
    assert await problem_with(tmp_path / "a" / "journal") == (
        "it cannot be opened; its folder must exist, and this user may read and write both"
    )
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_in_its_place_is_said(path: Path) -> None:
    path.mkdir()
    assert "cannot be opened" in await problem_with(path)


async def test_a_file_that_is_damaged_in_the_middle_is_said_and_kept(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await journal.update([a_change(number) for number in range(200)])
    content = path.read_bytes()
    assert len(content) > 10 * 4096
    broken = content[:4096] + b"\xa5" * (len(content) - 4096)
    path.write_bytes(broken)
    damaged = "it is damaged; keep it, for the order ids in it, and give another path"
    assert await problem_with(path) == damaged
    assert path.read_bytes()[4096:] == broken[4096:]


@pytest.mark.parametrize(
    "damage",
    ["state = 'no such state'", "outcome = 'none'", "codes = '[1'", "created_at = 'today'"],
)
async def test_an_entry_that_cannot_be_read_is_said_and_the_others_can(
    damage: str, path: Path
) -> None:
    async with SqliteJournal(path) as journal:
        await journal.update([a_change(1), a_change(2)])
        with contextlib.closing(sqlite3.connect(path)) as file:
            file.execute(f"UPDATE orders SET {damage} WHERE row = 1")  # noqa: S608 - of this file
            file.commit()
        with pytest.raises(JournalError, match="it is damaged; keep it"):
            await journal.pending()
        assert await journal.get(an_order(2).order_id) is not None


# --- locks ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(path: Path) -> Generator[sqlite3.Connection]:
    """Another program that keeps the file locked."""
    with contextlib.closing(
        sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    ) as file:
        file.execute("BEGIN IMMEDIATE")
        yield file


async def test_a_locked_file_is_waited_for_and_said(path: Path) -> None:
    journal = SqliteJournal(path, lock_timeout=timedelta(seconds=0.1))
    await journal.update([a_change(1)])
    with locked(path):
        begin = time.monotonic()
        with pytest.raises(JournalError, match="another program keeps it locked; end that, or"):
            await journal.update([a_change(2)])
        waited = time.monotonic() - begin
    assert 0.1 <= waited < 1.5
    await journal.update([a_change(3)])
    await journal.aclose()
    assert await ids_in(path) == [1, 3]


async def test_many_who_meet_a_lock_wait_together_and_not_one_after_the_other(path: Path) -> None:
    failed = 0

    async def write(number: int) -> None:
        nonlocal failed
        with pytest.raises(JournalError, match="keeps it locked"):
            await journal.update([a_change(number)])
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


async def test_a_lock_that_is_let_go_in_time_costs_nobody_anything(path: Path) -> None:
    async with SqliteJournal(path, lock_timeout=30) as journal:
        await journal.pending()
        with locked(path) as other:
            timer = threading.Timer(0.1, other.execute, ["ROLLBACK"])
            timer.start()
            await journal.update([a_change(1)])
            timer.join()
    assert await ids_in(path) == [1]


@posix
@pytest.mark.usefixtures("stays_open")
async def test_opening_the_file_leaves_the_locks_of_others_in_this_process_alone(
    path: Path,
) -> None:
    """Closing any descriptor of a file drops every lock that its process has on it.

    Another process that finds no lock takes itself for the last one, and removes the file in which
    this one's newest orders stand.
    """
    one, another = SqliteJournal(path), SqliteJournal(path)
    await one.update([a_change(1)])
    await another.update([a_change(2)])
    await another.aclose()
    told_by(child(path, range(3, 4)))
    assert path.with_name(f"{path.name}-wal").exists()
    await one.update([a_change(4)])
    await one.aclose()
    assert await ids_in(path) == [1, 2, 3, 4]


# --- a disk that is full, files that may not be written -------------------------------------------


@contextlib.contextmanager
def a_disk_of(pages: int, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """SQLite takes the disk for full when the file has that many pages (of 4 KiB)."""
    connect = sqlite3.connect

    def connect_to_a_small_disk(*args: Any, **options: Any) -> sqlite3.Connection:
        file: sqlite3.Connection = connect(*args, **options)
        file.execute(f"PRAGMA max_page_count = {pages}")
        return file

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect_to_a_small_disk)
        yield


async def test_a_full_disk_is_said_and_what_was_written_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = SqliteJournal(path)
    written: list[int] = []
    with a_disk_of(16, monkeypatch):
        with pytest.raises(JournalError, match="the disk is full; make room on it"):  # noqa: PT012
            for number in range(1000):
                await journal.update([a_change(number)])
                written.append(number)
        assert [entry.order for entry in await journal.pending()] == [
            an_order(number) for number in written
        ]
        with pytest.raises(JournalError, match="the disk is full"):
            await journal.update([a_change(number) for number in range(1000, 2000)])
        await journal.aclose()
    assert written
    assert await ids_in(path) == written
    await journal.update([a_change(1001)])
    await journal.aclose()
    assert await ids_in(path) == [*written, 1001]


async def test_a_disk_that_is_full_when_the_file_is_made_leaves_no_half_of_a_journal(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_disk_of(3, monkeypatch):
        assert await problem_with(path) == "the disk is full; make room on it"
    async with SqliteJournal(path) as journal:
        await journal.update([a_change(1)])
    assert await ids_in(path) == [1]


CHILD: Final = """
import os, sys
from datetime import datetime, UTC
import anyio
from sms4sats_async import JournalError, OrderState, OrderStatus, SqliteJournal
from sms4sats_async.journal.entry import seen, taken_up

START = datetime(2027, 1, 15, 8, 0, tzinfo=UTC)
ID = "0123456789abcdef" * 4

def an_order(number):
    return f"{number:064x}", taken_up(f"{number:064x}", START)

def a_code(number):
    return ID, seen(OrderStatus(ID, OrderState.CODE_RECEIVED, code=str(number)), START)

async def main(path, first, last, prepare, change):
    exec(prepare)
    async with SqliteJournal(path, lock_timeout=60) as journal:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(first, last):
            try:
                await journal.update([change(number)])
            except JournalError as error:
                print(error, flush=True)
            else:
                print(number, flush=True)

path, first, last, prepare, change = sys.argv[1:]
anyio.run(main, path, int(first), int(last), prepare, globals()[change])
"""


def child(
    path: Path, numbers: range, *, prepare: str = "", change: str = "an_order"
) -> subprocess.Popen[str]:
    """A process of its own that writes, as soon as it is told to, and says what it has written."""
    arguments = [str(path), str(numbers.start), str(numbers.stop), prepare, change]
    process = subprocess.Popen(  # noqa: S603 - this very Python, with words of this file
        [sys.executable, "-c", CHILD, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def told_by(process: subprocess.Popen[str]) -> list[str]:
    """What a child said to its end, which must be a good one."""
    told, errors = process.communicate("go\n", timeout=60)
    assert (process.returncode, errors) == (0, "")
    return told.splitlines()


@posix
async def test_a_process_that_may_write_no_more_loses_nothing_of_what_it_was_told_is_written(
    path: Path,
) -> None:
    """The limit is the system's own: a write fails in its middle, as on a disk that is full."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000))"
    told = told_by(child(path, range(40), prepare=limit))
    written = [int(line) for line in told if line.isdigit()]
    errors = {line.partition("used: ")[2] for line in told if not line.isdigit()}
    assert written
    assert errors == {"the disk could not be read or written; is it full, or broken?"}
    assert set(written) <= set(await ids_in(path))
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)


NO_WRITING: Final = "it may not be written to, or its folder not; give this user the right to"
NO_FOLDER: Final = (
    "it cannot be opened; its folder must exist, and this user may read and write both"
)
# The permissions of the file, if there is one, and of its folder; and what is said.
READ_ONLY: dict[str, tuple[int | None, int, str]] = {
    "a file": (0o400, 0o700, NO_WRITING),
    "a file for nobody": (0o000, 0o700, NO_WRITING),
    "a file and its folder": (0o400, 0o500, NO_WRITING),
    "a folder, but not the file": (0o600, 0o500, NO_WRITING),
    "a folder, and no file": (None, 0o500, NO_FOLDER),
}


@posix
@pytest.mark.parametrize(("file", "folder", "problem"), READ_ONLY.values(), ids=READ_ONLY)
async def test_what_may_not_be_written_is_said_and_stays_so_until_it_may(
    file: int | None, folder: int, problem: str
) -> None:
    with tempfile.TemporaryDirectory() as place:
        # Pytest's own folder only its user may enter, and root, who may write everywhere, has to
        # become nobody for this.
        Path(place).chmod(0o755)
        path = Path(place) / "folder" / "journal"
        path.parent.mkdir()
        if file is not None:
            async with SqliteJournal(path) as journal:
                await journal.update([a_change(1)])
            path.chmod(file)
        prepare = ""
        if os.getuid() == 0:
            prepare = "os.setgid(65534); os.setuid(65534)"
            for each in (path.parent, *path.parent.iterdir()):
                os.chown(each, 65534, 65534)
        path.parent.chmod(folder)
        told = told_by(child(path, range(2, 5), prepare=prepare))
        assert [line.partition("used: ")[2] for line in told] == [problem] * 3
        assert modes(path) == ({} if file is None else {path.name: file})

        path.parent.chmod(0o700)
        if file is not None:
            path.chmod(0o600)
        assert told_by(child(path, range(5, 6), prepare=prepare)) == ["5"]


async def test_a_file_that_may_only_be_read_is_not_opened_at_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite would read it, and leave files beside it that keep everybody out later."""
    async with SqliteJournal(path) as journal:
        await journal.update([a_change(1)])

    def deny(_path: Path, _mode: int) -> bool:
        return False

    monkeypatch.setattr(os, "access", deny)
    monkeypatch.setattr(sqlite3, "connect", None)
    assert await problem_with(path) == NO_WRITING


# --- several at once ------------------------------------------------------------------------------


async def test_processes_that_write_at_once_lose_nothing(path: Path) -> None:
    """They open a file that is not there yet at the same moment, and change the same entry."""
    processes = [child(path, range(at, at + 25), change="a_code") for at in (0, 100, 200)]
    with contextlib.ExitStack() as stack:
        for process in processes:
            stack.enter_context(process)
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [told_by(process) for process in processes]
    for at, lines in zip((0, 100, 200), told, strict=True):
        assert lines == [str(number) for number in range(at, at + 25)]
    async with SqliteJournal(path) as journal:
        (entry,) = await journal.history()
    assert sorted(map(int, entry.codes)) == [*range(25), *range(100, 125), *range(200, 225)]


@pytest.mark.parametrize("shared", [True, False], ids=["one journal", "two on one file"])
def test_two_event_loops_in_two_threads_write_in_one_file(path: Path, *, shared: bool) -> None:
    common = SqliteJournal(path)

    async def write(numbers: range) -> None:
        journal = common if shared else SqliteJournal(path)
        async with journal, anyio.create_task_group() as group:
            for number in numbers:
                group.start_soon(journal.update, [a_code(str(number))])

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


async def test_what_comes_at_once_is_written_in_one_go(
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
            group.start_soon(journal.update, [a_change(number)])
        await anyio.wait_all_tasks_blocked()
        hold.let_go.set()
    assert begun.count("BEGIN IMMEDIATE") == 1
    assert len(await ids_in(path)) == 500


class Stuck(sqlite3.Connection):
    """A file whose transactions end no more."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql in {"COMMIT", "ROLLBACK"}:
            raise sqlite3.OperationalError("stuck")
        return super().execute(sql, parameters)


async def test_a_file_that_is_stuck_is_opened_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SqliteJournal(path) as journal:
        await journal.pending()
    async with SqliteJournal(path) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Stuck))
            with pytest.raises(JournalError, match="cannot be used: stuck"):
                await journal.update([a_change(1)])
        await journal.update([a_change(2)])
    assert await ids_in(path) == [2]


async def test_a_change_that_raises_costs_only_its_own_caller(path: Path, hold: Hold) -> None:
    def fail(_entry: JournalEntry | None) -> JournalEntry | None:
        raise LookupError

    async def write_badly() -> None:
        with pytest.raises(JournalError, match="cannot be used: LookupError") as caught:
            await journal.update([a_change(7), ("x", fail)])
        assert isinstance(caught.value.__cause__, LookupError)

    async with SqliteJournal(path) as journal, anyio.create_task_group() as group:
        group.start_soon(journal.update, [("x", hold)])
        await hold.wait()
        group.start_soon(journal.update, [a_change(1)])
        group.start_soon(write_badly)
        group.start_soon(journal.update, [a_change(2)])
        await anyio.wait_all_tasks_blocked()
        hold.let_go.set()
    assert await ids_in(path) == [1, 2]


async def test_of_two_that_make_the_file_at_once_the_slower_finds_it_made(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SqliteJournal(path) as journal:
        await journal.update([a_change(1)])
    look = sqlite._version  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    first = iter([(0, 0)])

    def look_too_early(file: sqlite3.Connection) -> tuple[int, int]:
        return next(first, None) or look(file)

    monkeypatch.setattr(sqlite, "_version", look_too_early)
    async with SqliteJournal(path) as journal:
        await journal.update([a_change(2)])
    assert await ids_in(path) == [1, 2]


# --- whoever hands something over may go away -----------------------------------------------------


async def test_what_was_handed_over_is_written_though_the_task_is_cancelled(
    path: Path, hold: Hold
) -> None:
    async with SqliteJournal(path) as journal:
        async with anyio.create_task_group() as group:
            group.start_soon(journal.update, [("x", hold)])
            await hold.wait()
            for number in range(50):
                group.start_soon(journal.update, [a_change(number)])
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        hold.let_go.set()
    assert await ids_in(path) == list(range(50))


async def test_a_task_that_is_cancelled_already_hands_over_all_the_same(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await journal.update([a_change(1)])
        assert scope.cancelled_caught
    assert await ids_in(path) == [1]


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancel_at_any_turn_loses_nothing_that_was_begun(
    turns: int, path: Path, hold: Hold
) -> None:
    begun: list[int] = []

    async def write(number: int) -> None:
        await asyncio.sleep(0)
        begun.append(number)
        await journal.update([a_change(number)])
        await journal.update([a_change(number + 100)])

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
def test_what_was_handed_over_is_written_though_the_event_loop_ends(
    backend: str, path: Path, hold: Hold
) -> None:
    journal = SqliteJournal(path)

    async def hand_over_and_go() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(journal.update, [("x", hold)])
            await hold.wait()
            group.start_soon(journal.update, [a_change(1)])
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()

    anyio.run(hand_over_and_go, backend=backend)
    hold.let_go.set()
    assert anyio.run(ids_in, path) == [1]
    # It was told to a loop that is no more; the journal goes on for the next one.
    anyio.run(journal.update, [a_change(2)], backend=backend)
    anyio.run(journal.aclose)
    assert anyio.run(ids_in, path) == [1, 2]


# --- the thread -----------------------------------------------------------------------------------


def its_thread(journal: SqliteJournal) -> threading.Thread:
    (thread,) = [each for each in threading.enumerate() if each.name == repr(journal)]
    return thread


async def test_the_thread_ends_by_itself_and_closes_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_LINGER", 0.01)
    journal = SqliteJournal(path)
    for number in (1, 2):
        await journal.update([a_change(number)])
        with contextlib.suppress(ValueError):  # it was faster
            its_thread(journal).join(30)
        assert modes(path).keys() == {path.name}
    assert await ids_in(path) == [1, 2]


@pytest.mark.usefixtures("stays_open")
async def test_the_file_stays_open_between_two_uses_also_after_it_was_closed_once(
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
            await journal.update([a_change(number)])
        await journal.aclose()
        assert len(opened) == times


@pytest.mark.usefixtures("stays_open")
async def test_closing_waits_until_all_is_written_and_use_opens_again(
    path: Path, hold: Hold
) -> None:
    journal = SqliteJournal(path)
    async with anyio.create_task_group() as group:
        group.start_soon(journal.update, [("x", hold)])
        await hold.wait()
        group.start_soon(journal.update, [a_change(1)])
        await anyio.wait_all_tasks_blocked()
        group.start_soon(journal.aclose)
        await anyio.wait_all_tasks_blocked()
        # What comes after it is written too, and does not keep it waiting for yet more.
        group.start_soon(journal.update, [a_change(2)])
        await anyio.wait_all_tasks_blocked()
        hold.let_go.set()
    assert modes(path).keys() == {path.name}
    await journal.update([a_change(3)])
    await journal.aclose()
    await journal.aclose()
    assert await ids_in(path) == [1, 2, 3]


class SlowToClose(sqlite3.Connection):
    """A file that takes its time to close."""

    hold = Hold()

    def close(self) -> None:
        self.hold(None)
        super().close()


async def test_closing_waits_for_a_file_that_is_being_closed_already(
    path: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlowToClose, "hold", hold)
    monkeypatch.setattr(sqlite, "_LINGER", 0.01)
    journal = SqliteJournal(path)
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=SlowToClose))
        await journal.update([a_change(1)])
    await hold.wait()  # the thread is closing the file by itself
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


async def test_what_comes_while_the_file_is_being_closed_waits_for_that(
    path: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlowToClose, "hold", hold)
    monkeypatch.setattr(sqlite, "_LINGER", 0.01)
    journal = SqliteJournal(path)
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=SlowToClose))
        await journal.update([a_change(1)])
    await hold.wait()
    async with anyio.create_task_group() as group:
        group.start_soon(journal.update, [a_change(2)])
        await anyio.wait_all_tasks_blocked()
        group.start_soon(journal.aclose)
        await anyio.wait_all_tasks_blocked()
        hold.let_go.set()
    assert modes(path).keys() == {path.name}
    assert await ids_in(path) == [1, 2]


async def test_a_machine_that_has_no_thread_left_is_said_and_the_next_one_is_tried(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = SqliteJournal(path)
    with monkeypatch.context() as patch:

        def fail(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(JournalError, match="cannot be used: can't start new thread"):
            await journal.update([a_change(1)])
    await journal.update([a_change(2)])
    await journal.aclose()
    assert await ids_in(path) == [2]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_process_that_forgets_to_close_ends_well_and_has_written_all(
    backend: str, path: Path
) -> None:
    code = """
import sys
from datetime import datetime, UTC
import anyio
from sms4sats_async import SqliteJournal
from sms4sats_async.journal.entry import taken_up
change = ("1", taken_up("1", datetime.now(UTC)))
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
def test_a_process_that_is_killed_has_written_what_it_was_told_is_written(path: Path) -> None:
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
async def test_a_file_that_is_removed_while_it_is_open_is_made_anew(
    path: Path, *, side_files: bool
) -> None:
    """SQLite would go on in the file that has no name any more, and nobody would see it again."""
    async with SqliteJournal(path) as journal:
        await journal.update([a_change(1)])
        for each in path.parent.iterdir():
            if side_files or each == path:
                each.unlink()
        await journal.update([a_change(2)])
        await journal.update([a_change(3)])
    assert await ids_in(path) == [2, 3]
    assert set(modes(path).values()) == {0o600}


@posix
@pytest.mark.usefixtures("stays_open")
async def test_a_file_that_is_replaced_while_it_is_open_is_used_from_then_on(
    path: Path, tmp_path: Path
) -> None:
    async with SqliteJournal(tmp_path / "other") as other:
        await other.update([a_change(1)])
    async with SqliteJournal(path) as journal:
        await journal.update([a_change(2)])
        for each in ("-wal", "-shm"):
            path.with_name(path.name + each).unlink()
        (tmp_path / "other").rename(path)
        await journal.update([a_change(3)])
    assert await ids_in(path) == [1, 3]


@posix
@pytest.mark.usefixtures("stays_open")
async def test_a_folder_that_goes_away_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    async with SqliteJournal(folder / "journal") as journal:
        await journal.update([a_change(1)])
        folder.rename(tmp_path / "elsewhere")
        with pytest.raises(JournalError, match="its folder must exist"):
            await journal.update([a_change(2)])
        (tmp_path / "elsewhere").rename(folder)
        await journal.update([a_change(3)])
    assert await ids_in(folder / "journal") == [1, 3]
