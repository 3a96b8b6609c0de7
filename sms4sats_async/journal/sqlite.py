"""A journal in a file: SQLite from the standard library, in a thread of its own.

Work is handed to the thread before anything is awaited, so that a task that is cancelled meanwhile
cannot take back what was to be written. What is handed over at the same time is written in one
transaction. The thread ends, and the file is closed, as soon as there has been nothing to do for a
moment; a process that ends waits for it.
"""

import json
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import anyio
import attrs
from anyio.lowlevel import current_token

from sms4sats_async._validate import aware, positive_seconds, whole_number
from sms4sats_async._validate import path as as_path
from sms4sats_async.errors import JournalError
from sms4sats_async.models import OrderOutcome, OrderState, RequestOutcome

from .entry import JournalChange, JournalEntry

T = TypeVar("T")

SCHEMA_VERSION: Final = 2

_APPLICATION_ID: Final = 0x53345341
"""Tells a journal from another program's SQLite file."""

_LINGER: Final = 0.2
"""Seconds that the thread waits for more work before it closes the file and ends."""

_OWNER_ALONE: Final = 0o600

_FIELDS: Final = tuple(field.name for field in attrs.fields(JournalEntry))
_VALUES: Final = attrgetter(*_FIELDS)

# Columns without a type keep what they are given: a country's number, or its name.
_SCHEMA: Final = (
    f"CREATE TABLE orders (row INTEGER PRIMARY KEY, {', '.join(_FIELDS)})",
    "CREATE UNIQUE INDEX by_key ON orders (key)",
    "CREATE INDEX by_order_id ON orders (order_id) WHERE order_id IS NOT NULL",
    "CREATE INDEX by_time ON orders (created_at)",
    """CREATE INDEX pending ON orders (created_at)
       WHERE order_id IS NOT NULL AND finished_at IS NULL""",
    """CREATE INDEX undelivered ON orders (created_at)
       WHERE order_id IS NOT NULL AND finished_at IS NOT NULL AND delivered_at IS NULL""",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_SELECT: Final = f"SELECT {', '.join(_FIELDS)} FROM orders"  # noqa: S608 - field names alone
_BY_ORDER_ID: Final = f"{_SELECT} WHERE order_id = ? ORDER BY row DESC LIMIT 1"
_BY_EITHER: Final = (
    f"{_SELECT} WHERE row = coalesce((SELECT max(row) FROM orders WHERE order_id = ?), "  # noqa: S608
    "(SELECT row FROM orders WHERE key = ?))"
)
_OF_ROOT: Final = "(?1 IS NULL OR base_url IS NULL OR base_url = ?1)"
_PENDING: Final = (
    f"{_SELECT} WHERE order_id IS NOT NULL AND finished_at IS NULL AND {_OF_ROOT} "
    "ORDER BY created_at, row"
)
_UNDELIVERED: Final = (
    f"{_SELECT} WHERE order_id IS NOT NULL AND finished_at IS NOT NULL AND delivered_at IS NULL "
    f"AND {_OF_ROOT} ORDER BY created_at, row"
)
_HISTORY: Final = f"{_SELECT} WHERE created_at >= ? ORDER BY created_at DESC, row DESC LIMIT ?"
_PUT: Final = (
    f"INSERT INTO orders ({', '.join(_FIELDS)}) VALUES ({', '.join('?' * len(_FIELDS))}) "  # noqa: S608
    f"ON CONFLICT (key) DO UPDATE SET {', '.join(f'{x} = excluded.{x}' for x in _FIELDS)}"
)
_REMOVE: Final = "DELETE FROM orders WHERE key = ?"
_PRUNE: Final = (
    "DELETE FROM orders WHERE CASE WHEN order_id IS NULL THEN created_at "
    "WHEN delivered_at IS NOT NULL THEN finished_at END < ?"
)

_DAMAGED: Final = "it is damaged; keep it, for the order ids in it, and give another path"
_PROBLEMS: Final = {
    sqlite3.SQLITE_FULL: "the disk is full; make room on it",
    sqlite3.SQLITE_BUSY: "another program keeps it locked; end that, or raise lock_timeout",
    sqlite3.SQLITE_READONLY: (
        "it may not be written to, or its folder not; give this user the right to"
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "it cannot be opened; its folder must exist, and this user may read and write both"
    ),
    sqlite3.SQLITE_NOTADB: "the file is no journal; give another path",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_IOERR: "the disk could not be read or written; is it full, or broken?",
}
_PRIMARY: Final = 0xFF
"""The part of SQLite's error codes that says what kind it is (sqlite.org/rescode.html)."""

_CREATING: Final = threading.Lock()
"""Closing any descriptor of a file drops all locks that the process has on it, SQLite's too
(sqlite.org/howtocorrupt.html, 2.2). So one is made only where there was no file, and nobody of this
process opens the new one before it is closed."""


class _Thread(threading.Thread):
    """The thread of a journal. A test's clock reads `sms4sats_jobs` and waits for its jobs."""

    def __init__(
        self, serve: Callable[..., None], before: threading.Thread | None, counts: list[int]
    ) -> None:
        super().__init__(target=serve, args=(before,))
        self._counts = counts

    def sms4sats_jobs(self) -> tuple[int, int]:
        """Return how many jobs were given to the thread, and how many are done."""
        given, done = self._counts
        return given, done


class _Job(Generic[T]):
    """Something to do in the thread, and what came of it."""

    def __init__(self, work: Callable[[sqlite3.Connection], T]) -> None:
        self.work = work
        self.result: T
        self.error: JournalError | None = None
        self.done = anyio.Event()
        # Trio's token, or asyncio's loop; newer versions of anyio (4.11) wrap it.
        token: Any = current_token()
        self.loop: Any = getattr(token, "native_token", token)

    async def wait(self) -> T:
        """Return the result once it is written, or raise why it is not."""
        await self.done.wait()
        if self.error is not None:
            raise self.error
        return self.result


class SqliteJournal:
    """An `OrderJournal` in one SQLite file on this machine, mode 0600.

    Several clients, event loops and processes may use the same file: one writes at a time, the
    others wait. Nothing is opened before the first use, and the file is closed by itself when
    there is nothing to do; `aclose` waits for that.

    Args:
        path: The file; it is made if it does not exist, its folder is not. Not on a network drive,
            whose locks SQLite cannot trust.
        lock_timeout: Seconds (or a timedelta) to wait for another process that writes; a client
            waits 5 seconds at most for what it writes.

    Raises:
        InvalidArgumentError: An argument that cannot be meant.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, lock_timeout: float | timedelta = 2.0
    ) -> None:
        self._path = as_path("path", path)
        self._lock_timeout = positive_seconds("lock_timeout", lock_timeout)
        self._jobs: deque[_Job[Any]] = deque()
        self._counts = [0, 0]  # jobs given and done
        self._thread: threading.Thread | None = None
        self._serving = False
        self._changed = threading.Condition()
        self._closing = False
        # The thread's own: what is open, and which file that is.
        self._file: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return f"<SqliteJournal {self._path}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Return when everything is written and the file is closed. Using it again opens it."""
        with self._changed:
            self._closing = True
            thread = self._thread
            self._changed.notify()
        if thread is not None:
            await anyio.to_thread.run_sync(thread.join)

    async def update(
        self, changes: Sequence[tuple[str, JournalChange]], /
    ) -> Sequence[JournalEntry | None]:
        """Change entries; see `OrderJournal.update`.

        Raises:
            JournalError: Nothing of it was written.
        """
        kept = tuple(changes)  # the caller may change his list before the thread has read it
        return await self._do(lambda file: [_change(file, *each) for each in kept])

    async def pending(self, base_url: str | None = None) -> list[JournalEntry]:
        """Return the entries of orders that have not ended; see `OrderJournal.pending`.

        Raises:
            JournalError: The file cannot be read.
        """
        return await self._do(lambda file: _entries(file.execute(_PENDING, (base_url,))))

    async def undelivered(self, base_url: str | None = None) -> list[JournalEntry]:
        """Return the entries whose result was not delivered; see `OrderJournal.undelivered`.

        Raises:
            JournalError: The file cannot be read.
        """
        return await self._do(lambda file: _entries(file.execute(_UNDELIVERED, (base_url,))))

    async def get(self, order_id: str, /) -> JournalEntry | None:
        """Return the entry of an order, or None if there is none.

        Raises:
            JournalError: The file cannot be read.
        """
        return await self._do(lambda file: _find(file, _BY_ORDER_ID, order_id))

    async def history(
        self, *, since: datetime | None = None, limit: int | None = None
    ) -> list[JournalEntry]:
        """Return all entries, the newest first; see `OrderJournal.history`.

        Raises:
            JournalError: The file cannot be read.
        """
        first = _LONG_AGO if since is None else _microseconds(aware("since", since))
        most = -1 if limit is None else whole_number("limit", limit, least=0)
        return await self._do(lambda file: _entries(file.execute(_HISTORY, (first, most))))

    async def prune(self, before: datetime, /) -> int:
        """Remove what was finished before that time; see `OrderJournal.prune`.

        Raises:
            JournalError: Nothing was removed.
        """
        moment = _microseconds(aware("before", before))
        return await self._do(lambda file: file.execute(_PRUNE, (moment,)).rowcount)

    # --- the thread -------------------------------------------------------------------------------

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        job = _Job(work)
        with self._changed:
            if not self._serving:
                thread = _Thread(self._serve, self._thread, self._counts)
                thread.name = repr(self)
                try:
                    thread.start()
                except RuntimeError as error:  # the machine's last one, or the process ends
                    raise self._explain(error) from error
                self._thread, self._serving, self._closing = thread, True, False
            self._jobs.append(job)
            self._counts[0] += 1
            self._changed.notify()
        return await job.wait()

    def _serve(self, before: threading.Thread | None) -> None:
        """Do what there is to do, until there has been nothing for a moment."""
        if before is not None:
            before.join()  # it may still be closing the file
        while True:
            with self._changed:
                if not self._jobs and not self._closing:
                    self._changed.wait(_LINGER)
                jobs = list(self._jobs)
                self._jobs.clear()
                if not jobs:
                    # In the same breath, so that whoever hands over more starts another thread.
                    self._serving = False
                    break
            self._work(jobs)
            _tell(jobs)
            self._counts[1] += len(jobs)
        self._close()

    def _work(self, jobs: list[_Job[Any]]) -> None:
        """Do the jobs in one transaction, or each alone where one of them may be at fault."""
        try:
            file = self._open()
            with _transaction(file):
                for job in jobs:
                    job.result = job.work(file)
        except Exception as error:  # noqa: BLE001 - a change may be anybody's; it is carried on
            if isinstance(error, sqlite3.DatabaseError):
                self._close()  # a fresh start may mend what this one ran into
            # Each would wait for the lock as long as all of them have.
            if len(jobs) > 1 and _code(error) != sqlite3.SQLITE_BUSY:
                for job in jobs:
                    self._work([job])
                return
            for job in jobs:
                job.error = self._explain(error)

    def _open(self) -> sqlite3.Connection:
        """Return the file, opened anew where another stands in its place: SQLite would not see."""
        if self._file is not None:
            if self._opened == _identity(self._path):
                return self._file
            self._close()
        # Made here, because SQLite would make it readable for others. Where it cannot be made,
        # SQLite finds that out too.
        with _CREATING, suppress(OSError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _OWNER_ALONE))
        opened = _identity(self._path)
        # Reading it, SQLite would leave side files that cannot be written either.
        if opened is not None and not os.access(self._path, os.W_OK):
            raise PermissionError(_PROBLEMS[sqlite3.SQLITE_READONLY])
        file = sqlite3.connect(self._path, timeout=self._lock_timeout, isolation_level=None)
        try:
            _check(file)
            self._tighten()
            # Written to disk before an order is returned: FULL waits for the disk itself.
            file.execute("PRAGMA synchronous = FULL")
            # The mode is the file's and stays. Of several that open a new one at once, SQLite lets
            # one change it; the others work in either.
            with suppress(sqlite3.OperationalError):
                file.execute("PRAGMA journal_mode = WAL")
        except BaseException:
            file.close()
            raise
        self._file, self._opened = file, opened
        return file

    def _tighten(self) -> None:
        """Take the file from the eyes of others, and what SQLite puts beside it."""
        path = os.path.realpath(self._path)
        for each in (path, f"{path}-wal", f"{path}-shm"):
            # Not there, or somebody else's file, which we may write to.
            with suppress(FileNotFoundError, PermissionError):
                Path(each).chmod(_OWNER_ALONE)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

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


def _check(file: sqlite3.Connection) -> None:
    """Make the schema in a new file, or see that it is ours; another's file stays as it is."""
    if _version(file) == (_APPLICATION_ID, SCHEMA_VERSION):
        return
    with _transaction(file):
        application, version = _version(file)  # another process may have been faster
        is_empty = not file.execute("SELECT 1 FROM sqlite_schema").fetchone()
        if is_empty and (application, version) == (0, 0):
            for statement in _SCHEMA:
                file.execute(statement)
        elif application != _APPLICATION_ID:
            raise ValueError("the file belongs to another program; give another path")
        elif version != SCHEMA_VERSION:
            raise ValueError(
                f"its schema is version {version}, and this library reads {SCHEMA_VERSION}; use a "
                "newer sms4sats-async, or another path"
            )


def _version(file: sqlite3.Connection) -> tuple[int, int]:
    (application,) = file.execute("PRAGMA application_id").fetchone()
    (version,) = file.execute("PRAGMA user_version").fetchone()
    return application, version


@contextmanager
def _transaction(file: sqlite3.Connection) -> Generator[None]:
    file.execute("BEGIN IMMEDIATE")
    try:
        yield
        file.execute("COMMIT")
    except BaseException:
        if file.in_transaction:  # SQLite ends some of them by itself, on a full disk for one
            file.execute("ROLLBACK")
        raise


def _tell(jobs: list[_Job[Any]]) -> None:
    """Wake whoever waits, each in its own event loop."""
    for loop in {job.loop for job in jobs}:
        done = [job.done for job in jobs if job.loop is loop]
        # The one call of each that another thread may make.
        call = getattr(loop, "run_sync_soon", None) or loop.call_soon_threadsafe
        with suppress(RuntimeError):  # that event loop has ended, so nobody waits any more
            call(_set_all, done)


def _set_all(events: list[anyio.Event]) -> None:
    for event in events:
        event.set()


# --- rows -----------------------------------------------------------------------------------------


def _change(file: sqlite3.Connection, reference: str, change: JournalChange) -> JournalEntry | None:
    before = _find(file, _BY_EITHER, reference, reference)
    after = change(before)
    if after is None:
        if before is not None:
            file.execute(_REMOVE, (before.key,))
    elif after is not before:
        file.execute(_PUT, _row(after))
    return after


def _find(file: sqlite3.Connection, statement: str, *values: str) -> JournalEntry | None:
    row = file.execute(statement, [*map(_storable, values)]).fetchone()
    return None if row is None else _entry(row)


def _entries(rows: sqlite3.Cursor) -> list[JournalEntry]:
    return [_entry(row) for row in rows]


def _row(entry: JournalEntry) -> list[object]:
    values: list[Any] = [*map(_storable, _VALUES(entry))]
    for place, (encode, _) in _CODECS.items():
        if values[place] is not None:
            values[place] = encode(values[place])
    return values


def _entry(row: Sequence[Any]) -> JournalEntry:
    values = list(row)
    try:
        for place, (_, decode) in _CODECS.items():
            if values[place] is not None:
                values[place] = decode(values[place])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(_DAMAGED) from error
    return JournalEntry(*values)


def _storable(value: object) -> object:
    """Return a value as a file can hold it: of half a character (JSON may bring one) a `?` stays.

    Without it a bad letter in an error text would cost the code that came with it.
    """
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode(errors="replace").decode()


def _microseconds(moment: datetime) -> int:
    """Return a time as a whole number: a float rounds, and the last moments of 9999 up to none."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_LONG_AGO: Final = _microseconds(datetime.min.replace(tzinfo=UTC))
_OUTCOMES: Final = {each.value: each for each in (*OrderOutcome, *RequestOutcome)}

_Codec = tuple[Callable[[Any], object], Callable[[Any], object]]
_MOMENT: Final[_Codec] = (
    _microseconds,
    lambda microseconds: _EPOCH + timedelta(microseconds=microseconds),
)
_SPAN: Final[_Codec] = (
    lambda span: span // timedelta(microseconds=1),
    lambda microseconds: timedelta(microseconds=microseconds),
)
_CODEC_OF: Final[Mapping[str, _Codec]] = {
    "created_at": _MOMENT,
    "number_seen_at": _MOMENT,
    "code_deadline": _MOMENT,
    "not_before": _MOMENT,
    "refused_at": _MOMENT,
    "finished_at": _MOMENT,
    "delivered_at": _MOMENT,
    "claimed_until": _MOMENT,
    "minimum_age": _SPAN,
    "metadata": (json.dumps, json.loads),
    "state": (lambda state: state.value, OrderState),
    "outcome": (lambda outcome: outcome.value, _OUTCOMES.__getitem__),
    "codes": (json.dumps, lambda text: tuple(json.loads(text))),
    "paid": (int, bool),
}
_CODECS: Final = {_FIELDS.index(name): codec for name, codec in _CODEC_OF.items()}
"""How a value is written and read that SQLite cannot store as it is, by its column's position."""
