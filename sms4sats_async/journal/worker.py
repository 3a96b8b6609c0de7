"""The thread in which a journal's SQLite file is used, and what a fork must not find open.

Work is handed to the thread before anything is awaited, so that a task that is cancelled meanwhile
cannot take back what was to be written. What is handed over at the same time is written in one
transaction. The thread ends, and the file is closed, as soon as there has been nothing to do for a
moment; a process that ends waits for it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import anyio

from sms4sats_async._event_loop import native_loop
from sms4sats_async.errors import JournalError

from .rows import DAMAGED
from .schema import check_version, prepare, transaction

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_LINGER: Final = 0.2
"""Seconds that the thread waits for more work before it closes the file and ends."""

_LONGEST_HOLD: Final = 5.0
"""Seconds that a fork waits at most for what is being written."""

_OWNER_ALONE: Final = 0o600

_READ_ONLY: Final = "this user may not write to the file or to its folder; change the permissions"
_PROBLEMS: Final = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_BUSY: "another program keeps it locked; end that program, or raise lock_timeout",
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: (
        "it cannot be opened; its folder must exist, and this user must have access to both"
    ),
    sqlite3.SQLITE_NOTADB: "the file is not a journal; give another path",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written; it may be full or broken",
}
_PRIMARY: Final = 0xFF
"""The part of SQLite's error codes that says what kind it is (sqlite.org/rescode.html)."""


class _Job(Generic[T]):
    """Something to do in the thread, and its result."""

    def __init__(self, work: Callable[[sqlite3.Connection], T]) -> None:
        self.work = work
        self.result: T
        self.error: JournalError | None = None
        self.done = anyio.Event()
        self.loop = native_loop()

    async def wait(self) -> T:
        """Return the result once it is written, or raise why it is not."""
        await self.done.wait()
        if self.error is not None:
            raise self.error
        return self.result


class _Thread(threading.Thread):
    """The thread of a journal. A test's clock reads `sms4sats_jobs` and waits for its jobs."""

    def __init__(self, serve: Callable[[], None], name: str, queue: _Queue) -> None:
        super().__init__(target=serve, name=name)
        self._jobs_of = queue

    def sms4sats_jobs(self) -> tuple[int, int]:
        """Return how many jobs the journal's threads were given, and how many are done."""
        return self._jobs_of.given, self._jobs_of.done


class _Queue:
    """The jobs, and the thread that does them.

    Attributes:
        jobs: The jobs that wait.
        given: How many jobs were added.
        done: How many of them are done.
        thread: The thread that does them, or the one before.
        is_served: Whether the thread looks for more.
        is_closing: Whether the thread ends as soon as no job is left.
        changed: Guards all of it.
        entry: Held while no job may be added.
    """

    def __init__(self) -> None:
        self.jobs: deque[_Job[Any]] = deque()
        self.given = self.done = 0
        self.thread: threading.Thread | None = None
        self.is_served = False
        self.is_closing = False
        self.changed = threading.Condition()
        self.entry = threading.RLock()

    def take(self) -> list[_Job[Any]]:
        """Return the jobs that wait; wait a moment for the first, then return none."""
        with self.changed:
            if not self.jobs and not self.is_closing:
                self.changed.wait(_LINGER)
            jobs = list(self.jobs)
            self.jobs.clear()
            # Under the same lock, so that the next job starts another thread.
            self.is_served = bool(jobs)
            return jobs

    def close(self) -> threading.Thread | None:
        """Let the thread end, and return it."""
        with self.changed:
            self.is_closing = True
            self.changed.notify()
            return self.thread


class Worker:
    """Uses one file in a thread of its own, which runs only while there is something to do.

    Args:
        path: The file.
        lock_timeout: Seconds to wait for another process that writes.
        name: The name of the thread.
    """

    def __init__(self, path: Path, *, lock_timeout: float, name: str) -> None:
        self._path = path
        self._lock_timeout = lock_timeout
        self._name = name
        self._queue = _Queue()
        # The thread's own: whether a file is open or being opened, and which.
        self._is_open = False
        self._file: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._never_closed: sqlite3.Connection | None = None
        FORKS.add(self)

    async def do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the file, within a transaction, and return the result.

        Raises:
            JournalError: Nothing of it was done.
        """
        job, queue = _Job(work), self._queue
        with queue.entry, queue.changed:
            if not queue.is_served:
                serve = partial(self._serve, queue.thread)
                thread = _Thread(serve, self._name, queue)
                try:
                    thread.start()
                except RuntimeError as error:  # the machine's last one, or the process ends
                    raise self._explain(error) from error
                queue.thread, queue.is_served, queue.is_closing = thread, True, False
            queue.jobs.append(job)
            queue.given += 1
            queue.changed.notify()
        return await job.wait()

    async def close(self) -> None:
        """Return when everything is written and the file is closed."""
        thread = self._queue.close()
        if thread is not None:
            await anyio.to_thread.run_sync(thread.join)

    # --- a fork -----------------------------------------------------------------------------------

    def hold(self, deadline: float) -> None:
        """Close the file, and keep it closed until `release`; give up at `deadline`."""
        self._queue.entry.acquire()
        thread = self._queue.close()
        if thread is not None:
            thread.join(max(deadline - time.monotonic(), 0))

    def release(self) -> None:
        """Let the file be opened again."""
        self._queue.entry.release()

    def begin_in_child(self) -> bool:
        """Start again in a process that was forked: the thread and the tasks are the parent's.

        Returns:
            Whether the file was closed when the process was forked.
        """
        self._queue = _Queue()
        self._never_closed, self._file = self._file, None
        return not self._is_open

    # --- the thread -------------------------------------------------------------------------------

    def _serve(self, before: threading.Thread | None) -> None:
        """Do jobs until none has come for a moment, then close the file."""
        if before is not None:
            before.join()  # it may still be closing the file
        queue = self._queue
        while jobs := queue.take():
            self._work(jobs)
            _report(jobs)
            queue.done += len(jobs)
        self._close()

    def _work(self, jobs: list[_Job[Any]]) -> None:
        """Do the jobs in one transaction, or each alone where one of them may be at fault."""
        try:
            file = self._open()
            with transaction(file):
                check_version(file)
                for job in jobs:
                    job.result = job.work(file)
        except Exception as error:  # noqa: BLE001 - a change may be anybody's; it is carried on
            if isinstance(error, sqlite3.DatabaseError):
                self._close()  # a fresh start may repair what this one ran into
            # Each would wait for the lock as long as all of them have.
            if len(jobs) > 1 and _code(error) != sqlite3.SQLITE_BUSY:
                for job in jobs:
                    self._work([job])
                return
            for job in jobs:
                job.error = self._explain(error)

    def _open(self) -> sqlite3.Connection:
        """Return the open file. Reopen it if the path names another file now."""
        FORKS.check()
        if self._file is not None:
            if self._opened == _identity(self._path):
                return self._file
            self._close()
        path = os.path.realpath(self._path)
        # Made here, because SQLite would make it readable for others. Where it cannot be made,
        # SQLite finds that out too.
        with FORKS.creating, suppress(OSError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _OWNER_ALONE))
        opened = _identity(self._path)
        if opened is not None:
            _check_kind(self._path)
        self._is_open = True
        try:
            file = sqlite3.connect(self._path, timeout=self._lock_timeout, isolation_level=None)
        except BaseException:
            self._is_open = False
            raise
        self._file, self._opened = file, opened
        try:
            prepare(file)
            self._tighten()
            # Written to disk before an order is returned: FULL waits for the disk itself.
            file.execute("PRAGMA synchronous = FULL")
            # Most builds of SQLite leave what was deleted in the file, codes too.
            file.execute("PRAGMA secure_delete = ON")
            # The mode is the file's and stays. Of several that open a new one at once, SQLite lets
            # one change it; the others work in either.
            with suppress(sqlite3.OperationalError):
                file.execute("PRAGMA journal_mode = WAL")
        except BaseException:
            self._close()
            raise
        return file

    def _tighten(self) -> None:
        """Close the file to other users, and what SQLite puts beside it."""
        path = os.path.realpath(self._path)
        for each in (path, f"{path}-wal", f"{path}-shm"):
            # It does not exist, or it belongs to another user and we may write to it.
            with suppress(FileNotFoundError, PermissionError):
                Path(each).chmod(_OWNER_ALONE)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file, self._is_open = None, False

    def _explain(self, error: Exception) -> JournalError:
        problem = _PROBLEMS.get(_code(error)) or str(error) or type(error).__name__
        explained = JournalError(f"the journal {self._path} cannot be used: {problem}")
        explained.__cause__ = error
        return explained


def _code(error: Exception) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & _PRIMARY


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another of the same name, or None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _check_kind(path: Path) -> None:
    """Refuse what SQLite would open, but cannot keep a journal in.

    Raises:
        ValueError: It is a folder, or a device such as `/dev/null`; SQLite would write beside it.
        PermissionError: It may only be read. SQLite would leave side files that cannot be written.
    """
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise ValueError(f"it is {kind}; give the path of a file")
    if not os.access(path, os.W_OK):
        raise PermissionError(_READ_ONLY)


def _report(jobs: list[_Job[Any]]) -> None:
    """Wake those that wait, each in its own event loop."""
    for loop in {job.loop for job in jobs}:
        done = [job.done for job in jobs if job.loop is loop]
        # The one call of each that another thread may make.
        call = getattr(loop, "run_sync_soon", None) or loop.call_soon_threadsafe
        with suppress(RuntimeError):  # that event loop has ended, so nothing waits any more
            call(_set_all, done)


def _set_all(events: list[anyio.Event]) -> None:
    for event in events:
        event.set()


# --- forks ----------------------------------------------------------------------------------------


class Forks:
    """Closes the files of all journals of this process while it forks.

    SQLite must not find a connection of the parent in the child. It would count locks as its own
    that the child does not have, and closing that connection can remove what the parent still
    writes to (sqlite.org/howtocorrupt.html, 2.6). So none is open at the moment of a fork.

    Attributes:
        creating: Held while a file is created. Closing any descriptor of a file drops all locks
            that the process has on it, those of SQLite too (howtocorrupt.html, 2.2). So no thread
            opens the new file before its first descriptor is closed.
    """

    def __init__(self) -> None:
        self._workers: weakref.WeakSet[Worker] = weakref.WeakSet()
        self._held: list[Worker] = []
        self._inherited: list[Worker] = []
        self._lock = threading.RLock()
        self.creating: threading.Lock = threading.Lock()

    def add(self, worker: Worker) -> None:
        """Close the file of this worker at each fork from now on."""
        with self._lock:
            self._workers.add(worker)

    def check(self) -> None:
        """Raise if SQLite cannot be used safely in this process.

        Raises:
            RuntimeError: A file was open when the process was forked.
        """
        if self._inherited:
            raise RuntimeError(
                "a journal was being written when this process was forked; use it in a new process"
            )

    def before(self) -> None:
        """Close all files before a fork, and keep them closed."""
        self._lock.acquire()
        deadline = time.monotonic() + _LONGEST_HOLD
        for worker in self._workers:
            self._held.append(worker)
            worker.hold(deadline)

    def after_in_parent(self) -> None:
        """Let the files be opened again."""
        while self._held:
            self._held.pop().release()
        self._lock.release()

    def after_in_child(self) -> None:
        """Make new locks: the parent's other threads are not here, and never release theirs."""
        self._held.clear()
        self._lock = threading.RLock()
        self.creating = threading.Lock()
        # Kept, so that their connections are never closed.
        self._inherited += [each for each in self._workers if not each.begin_in_child()]


FORKS: Final = Forks()

with suppress(AttributeError):  # Windows has no fork
    os.register_at_fork(
        before=FORKS.before,
        after_in_parent=FORKS.after_in_parent,
        after_in_child=FORKS.after_in_child,
    )
