"""Journal files, and processes that write to them, for the tests of `SqliteJournal`."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Final

import anyio
import pytest

from sms4sats_async import JournalEntry, SqliteJournal

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files and processes")


async def ids_in(path: Path) -> list[int]:
    """The numbers of the orders in a file, as another journal reads it."""
    async with SqliteJournal(path) as journal:
        entries = await journal.history()
    return sorted(int(entry.order_id or "0", 16) for entry in entries)


def modes(path: Path) -> dict[str, int]:
    """The permissions of the file and of its side files."""
    return {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}


@contextlib.contextmanager
def locked(path: Path) -> Generator[sqlite3.Connection]:
    """Another program that keeps the file locked."""
    with contextlib.closing(
        sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    ) as file:
        file.execute("BEGIN IMMEDIATE")
        yield file


class Hold:
    """A change that stops the journal's thread until `let_go` is set."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, entry: JournalEntry | None) -> JournalEntry | None:
        self.reached.set()
        assert self.let_go.wait(30)
        return entry

    async def wait(self) -> None:
        """Return when the thread waits."""
        await anyio.to_thread.run_sync(self.reached.wait, 30)


CHILD: Final = """
import os, sys
from datetime import datetime, UTC
import anyio
from sms4sats_async import JournalError, OrderState, OrderStatus, SqliteJournal
from sms4sats_async.journal.entry import ensure_entry, record_status

START = datetime(2027, 1, 15, 8, 0, tzinfo=UTC)
ID = "0123456789abcdef" * 4

def an_order(number):
    return f"{number:064x}", ensure_entry(f"{number:064x}", START, "https://api2.sms4sats.com")

def a_code(number):
    return ID, record_status(OrderStatus(ID, OrderState.CODE_RECEIVED, code=str(number)), START)

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
    """A process that writes as soon as it gets a line, and reports what it has written."""
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


def output_of(process: subprocess.Popen[str]) -> list[str]:
    """What a child writes until its end, which must be a success."""
    output, errors = process.communicate("go\n", timeout=60)
    assert (process.returncode, errors) == (0, "")
    return output.splitlines()
