"""A process that forks after it used a journal: parent and child both go on with it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import pytest

from sms4sats_async import JournalError, SqliteJournal
from sms4sats_async.journal import worker
from sms4sats_async.journal.worker import Forks, Worker
from tests.journal_contract import add_order
from tests.journal_files import Hold, ids_in

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork"),
]

# Numbers are orders. The parent writes 0, forks at once, and both go on at the same time.
FORKING: Final = """
import os, signal, sys, time
from datetime import datetime, UTC
import anyio
from sms4sats_async import SqliteJournal
from sms4sats_async.journal.entry import ensure_entry

NOW = datetime.now(UTC)
path, forks = sys.argv[1], int(sys.argv[2])
journal = SqliteJournal(path, lock_timeout=30)

def add(number):
    return f"{number:064x}", ensure_entry(f"{number:064x}", NOW, "https://api2.sms4sats.com")

async def use(first):
    assert len(await journal.pending()) >= 1
    for number in range(first, first + 20):
        await journal.update([add(number)])

async def write(numbers):
    for number in numbers:
        await journal.update([add(number)])

anyio.run(write, [0])
children = []
for number in range(1, forks + 1):
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # a child that hangs does not outlive the test for long
        begin = time.monotonic()
        try:
            anyio.run(use, 100 * number)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        if time.monotonic() - begin > 5:
            print("slow", file=sys.stderr, flush=True)
        os._exit(0)
    children.append(child)
    anyio.run(write, [number])
anyio.run(use, 100_000)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * forks
anyio.run(write, range(100, 110))
"""


def test_parent_and_children_go_on_with_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-W", "error", "-c", FORKING, str(path), "3"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    expected = {*range(4), *range(100_000, 100_020)}
    for number in (1, 2, 3):
        expected |= {100 * number + each for each in range(20)}
    assert set(anyio.run(ids_in, path)) == expected
    assert list(tmp_path.iterdir()) == [path]


# Two threads of the parent use the journal without a pause while the main thread forks.
BUSY: Final = """
import os, signal, sys, threading, time, warnings
from datetime import datetime, UTC
import anyio
from sms4sats_async import SqliteJournal
from sms4sats_async.journal.entry import ensure_entry

warnings.simplefilter("ignore", DeprecationWarning)  # the threads are meant here
NOW = datetime.now(UTC)
journal = SqliteJournal(sys.argv[1], lock_timeout=30)
stop = threading.Event()
written = [0, 0]

async def add(number):
    change = ensure_entry(f"{number:064x}", NOW, "https://api2.sms4sats.com")
    await journal.update([(f"{number:064x}", change)])

async def write(place):
    while not stop.is_set():
        await add(100_000 * (place + 1) + written[place])
        written[place] += 1

threads = [threading.Thread(target=anyio.run, args=(write, place)) for place in (0, 1)]
for thread in threads:
    thread.start()
while not all(written):  # a module that another thread imports is locked in the child
    time.sleep(0.01)
for number in range(8):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            anyio.run(add, number)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
print(*written)
"""


def test_a_fork_loses_nothing_that_other_threads_are_writing(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", BUSY, str(path)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, second = map(int, done.stdout.split())
    expected = [
        *range(8),
        *range(100_000, 100_000 + first),
        *range(200_000, 200_000 + second),
    ]
    assert anyio.run(ids_in, path) == expected


# --- the hooks, without a fork --------------------------------------------------------------------


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> Generator[Forks]:
    """The hooks of a process whose journals are those of the test."""
    forks = Forks()
    monkeypatch.setattr(worker, "FORKS", forks)
    monkeypatch.setattr(worker, "_LINGER", 30.0)
    yield forks
    # Python waits at its end for a thread that a test left. One that ends may need a moment.
    for each in threading.enumerate():
        if "SqliteJournal" in each.name:
            each.join(5)
            assert not each.is_alive()


def side_files(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir() if each != path)


async def test_no_file_is_open_at_the_moment_of_a_fork(forks: Forks, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    unused = SqliteJournal(tmp_path / "unused")
    async with SqliteJournal(path) as journal:
        await journal.update([add_order(1)])
        assert side_files(path) == ["journal-shm", "journal-wal"]
        forks.before()
        try:
            assert side_files(path) == []
            assert not [each for each in threading.enumerate() if each.name == repr(journal)]
        finally:
            forks.after_in_parent()
        await journal.update([add_order(2)])
    await unused.aclose()
    assert await ids_in(path) == [1, 2]


async def test_no_journal_begins_while_the_process_forks(forks: Forks, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = SqliteJournal(path)
    thread = threading.Thread(target=anyio.run, args=(journal.update, [add_order(1)]))
    forks.before()
    try:
        thread.start()
        thread.join(0.05)
        assert not path.exists()
    finally:
        forks.after_in_parent()
    thread.join()
    await journal.aclose()
    assert await ids_in(path) == [1]


async def test_a_child_opens_the_file_with_a_thread_of_its_own(
    forks: Forks, tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    journal = SqliteJournal(path)
    await journal.update([add_order(1)])
    forks.before()
    forks.after_in_child()
    await journal.update([add_order(2)])
    await journal.aclose()
    other = SqliteJournal(path)
    await other.update([add_order(3)])
    await other.aclose()
    assert await ids_in(path) == [1, 2, 3]


async def test_a_child_whose_parent_could_not_close_its_file_raises_at_once(
    forks: Forks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite would take the parent's locks for its own, so no file is opened at all."""
    monkeypatch.setattr(worker, "_LONGEST_HOLD", 0.05)
    connect = partial(sqlite3.connect, check_same_thread=False)
    monkeypatch.setattr(sqlite3, "connect", connect)
    path, hold = tmp_path / "journal", Hold()
    journal = SqliteJournal(path)
    async with anyio.create_task_group() as group:
        group.start_soon(journal.update, [("x", hold)])
        await hold.wait()
        begin = time.monotonic()
        forks.before()
        assert time.monotonic() - begin < 5
        forks.after_in_child()
        monkeypatch.setattr(sqlite3, "connect", None)
        another = SqliteJournal(tmp_path / "another")
        with pytest.raises(JournalError, match="when this process was forked"):
            await journal.update([add_order(1)])
        with pytest.raises(JournalError, match="when this process was forked"):
            await another.update([add_order(1)])
        for each in (journal, another):
            await each.aclose()
        hold.let_go.set()
    # Python would close the connection with the journal, so the journal is kept.
    kept = weakref.ref(journal._worker)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    del journal
    inherited = kept()
    assert inherited is not None
    file = inherited._never_closed  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    assert file is not None
    assert file.execute("SELECT 1").fetchone() == (1,)  # open still
    file.close()


async def test_a_parent_whose_file_could_not_be_closed_goes_on(
    forks: Forks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_LONGEST_HOLD", 0.05)
    path, hold = tmp_path / "journal", Hold()
    async with SqliteJournal(path) as journal, anyio.create_task_group() as group:
        group.start_soon(journal.update, [("x", hold)])
        await hold.wait()
        forks.before()
        forks.after_in_parent()
        hold.let_go.set()
        await journal.update([add_order(1)])
    assert await ids_in(path) == [1]


async def test_journals_that_are_gone_are_forgotten(forks: Forks, tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal")
    await journal.update([add_order(1)])
    await journal.aclose()
    gone = weakref.ref(journal._worker)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    del journal
    assert gone() is None
    forks.before()
    forks.after_in_parent()


def test_a_worker_is_known_to_the_hooks_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[Worker] = []
    monkeypatch.setattr(worker.FORKS, "add", known.append)
    made = Worker(tmp_path / "journal", lock_timeout=1, name="a")
    assert known == [made]
