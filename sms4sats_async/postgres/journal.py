"""A journal in PostgreSQL, for many processes on many machines."""

import asyncio  # asyncpg runs on asyncio only
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

from sms4sats_async._validate import aware, whole_number
from sms4sats_async._validate import text as as_text
from sms4sats_async.errors import InvalidArgumentError, JournalError
from sms4sats_async.journal import JournalChange, JournalEntry
from sms4sats_async.journal.memory import MemoryJournal, entries_of, holding
from sms4sats_async.journal.rows import LARGEST, microseconds, readable

from .connection import ClockShift, Link, connect, explained, is_passing
from .queue import install
from .schema import Connection, Statements, checked_name, entry_for, row_for, storable

T = TypeVar("T")

_AT_ONCE: Final = 500
"""Changes that are written in one transaction, at least where one update has more."""

_MOST_KEPT: Final = 10_000
"""Updates that wait for the database at most."""

_FIRST_DELAY: Final = 0.05
_LONGEST_DELAY: Final = 1.0

_OUTAGE: Final = 3.0
"""Seconds after which an outage is reported to those who wait."""

_FAREWELL: Final = 5.0
"""Seconds that `aclose` waits for what is not written yet."""

_SCHEMA_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('sms4sats', 0))"
_ABSENT_LOCK: Final = (
    "SELECT pg_advisory_xact_lock(1936029556, part) FROM (SELECT DISTINCT hashtext(name) & 63 "
    "AS part FROM unnest($1::text[]) AS name ORDER BY part) AS parts"
)
"""Takes those of 64 locks to which some names belong. The first number marks them as ours."""

Pairs = list[tuple[JournalEntry | None, JournalEntry | None]]


class Follow(Protocol):
    """What is done in the same transaction, after changes of an update."""

    async def __call__(self, connection: Connection, pairs: Pairs, /) -> None:
        """Do it; `pairs` are the entries before and after each change."""
        ...


class _Update:
    """Changes that wait to be written, and who waits for that."""

    def __init__(self, changes: Sequence[tuple[str, JournalChange]], follow: Follow | None) -> None:
        self.changes = tuple((storable(reference), change) for reference, change in changes)
        self.follow = follow
        self.written: asyncio.Future[Sequence[JournalEntry | None]] = (
            asyncio.get_running_loop().create_future()
        )

    async def apply(self, memory: MemoryJournal) -> tuple[Sequence[JournalEntry | None], Pairs]:
        """Return the entries after the changes, and those before and after each."""
        pairs: Pairs = []

        def watched(change: JournalChange) -> JournalChange:
            def watch(entry: JournalEntry | None) -> JournalEntry | None:
                after = change(entry)
                pairs.append((entry, after))
                return after

            return watch

        changes = [(reference, watched(change)) for reference, change in self.changes]
        return await memory.update(changes), pairs

    def fail(self, error: Exception) -> None:
        if not self.written.done():
            self.written.set_exception(error)
            self.written.exception()  # seen, also if the caller has gone


class PostgresJournal:
    """An `OrderJournal` in a PostgreSQL database, on asyncio.

    Any number of processes on any number of machines may use it. Leases, and all other times, are
    kept by the database's clock, and translated to this machine's: a difference of a second or more
    is measured. The journal belongs to the event loop in which it is first used, until `aclose`.

    A lost connection is opened again. After 3 seconds of an outage each call raises `JournalError`
    at once. What was to be written is kept, and written in its order when the database is back, as
    long as the process lives.

    Args:
        dsn: The database, as `postgresql://user:password@host/name`. It is never shown.
        schema: The schema of the tables, which `create_schema` makes.

    Raises:
        InvalidArgumentError: If an argument is invalid.
    """

    def __init__(self, dsn: str, *, schema: str = "sms4sats") -> None:
        try:
            self._dsn = as_text("dsn", dsn)
        except InvalidArgumentError:  # its text shows the value
            problem = "dsn must be printable text and not empty"
            raise InvalidArgumentError(problem) from None
        self._schema = checked_name(schema)
        self._statements = Statements(self._schema)
        self._shift = ClockShift()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer = self._reader = Link(dsn)
        self._updates: deque[_Update] = deque()
        self._task: asyncio.Task[None] | None = None
        self._outage: Exception | None = None

    def __repr__(self) -> str:
        return f"<PostgresJournal {self._schema}>"

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
        """Write what is not written yet, for at most 5 seconds, and close the connections."""
        if self._loop is None:
            return
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_FAREWELL)
            self._task.cancel()
            await asyncio.wait([self._task])
        while self._updates:
            problem = "the journal was closed before this was written"
            self._updates.popleft().fail(JournalError(problem))
        await self._writer.close()
        await self._reader.close()
        self._loop = self._task = self._outage = None

    async def create_schema(self) -> None:
        """Make the tables and the queue, or bring them to this version; nothing else changes.

        Stop all workers before you bring tables to a newer version.

        Raises:
            JournalError: If the database cannot be used, or its tables are of a newer version.
        """
        self._begin()
        try:
            connection = await connect(self._dsn)
            try:
                async with connection.transaction():
                    await connection.execute(_SCHEMA_LOCK)
                    await self._statements.create(connection)
                await install(connection, self._schema)
            finally:
                await connection.close(timeout=_FAREWELL)
        except JournalError:
            raise
        except Exception as error:
            raise explained(error, "cannot be prepared") from error

    # --- the protocol -----------------------------------------------------------------------------

    async def update(
        self, changes: Sequence[tuple[str, JournalChange]], /
    ) -> Sequence[JournalEntry | None]:
        """Change entries; see `OrderJournal.update`.

        Raises:
            JournalError: If the database cannot be used. During an outage the changes are kept.
        """
        return await self.transact(changes, None)

    async def pending(self, base_url: str | None = None) -> list[JournalEntry]:
        """Return the entries of orders that have not ended; see `OrderJournal.pending`.

        Raises:
            JournalError: If the database cannot be used.
        """
        return await self._entries(self._statements.pending, base_url)

    async def undelivered(self, base_url: str | None = None) -> list[JournalEntry]:
        """Return the entries whose result was not delivered; see `OrderJournal.undelivered`.

        Raises:
            JournalError: If the database cannot be used.
        """
        return await self._entries(self._statements.undelivered, base_url)

    async def get(self, order_id: str, /) -> JournalEntry | None:
        """Return the entry of an order, or None if there is none.

        Raises:
            JournalError: If the database cannot be used.
        """

        async def find(connection: Connection) -> JournalEntry | None:
            rows = await connection.fetch(self._statements.get, storable(order_id))
            return entry_for(rows[0], self._shift.microseconds) if rows else None

        return await self.read(find)

    async def history(
        self, *, since: datetime | None = None, limit: int | None = None
    ) -> list[JournalEntry]:
        """Return all entries, the newest first; see `OrderJournal.history`.

        Raises:
            JournalError: If the database cannot be used.
        """
        first = None if since is None else microseconds(aware("since", since))
        most = None if limit is None else whole_number("limit", limit, least=0)

        async def read(connection: Connection) -> list[JournalEntry]:
            shift = self._shift.microseconds
            start = -LARGEST if first is None else first - shift
            return self._listed(await connection.fetch(self._statements.history, start, most))

        return await self.read(read)

    async def prune(self, before: datetime, /) -> int:
        """Remove what was finished before that time; see `OrderJournal.prune`.

        Raises:
            JournalError: If the database cannot be used.
        """
        moment = microseconds(aware("before", before))

        async def remove(connection: Connection) -> int:
            done = await connection.execute(
                self._statements.prune, moment - self._shift.microseconds
            )
            return int(done.rpartition(" ")[2])

        return await self.read(remove)

    # --- for the scheduler ------------------------------------------------------------------------

    @property
    def dsn(self) -> str:
        """The database."""
        return self._dsn

    @property
    def schema(self) -> str:
        """The schema of the tables."""
        return self._schema

    @property
    def shift(self) -> int:
        """By how many microseconds this machine's clock is ahead of the database's."""
        return self._shift.microseconds

    async def check(self, connection: Connection) -> None:
        """Refuse a database whose tables are of another version.

        Raises:
            JournalError: They are.
        """
        await self._statements.check_version(connection)

    async def transact(
        self, changes: Sequence[tuple[str, JournalChange]], follow: Follow | None
    ) -> Sequence[JournalEntry | None]:
        """Change entries, and do what follows in the same transaction.

        Raises:
            JournalError: The database cannot be used.
        """
        self._begin()
        update = _Update(changes, follow)
        if len(self._updates) >= _MOST_KEPT:
            problem = "the journal's database cannot be used, and too much waits for it"
            raise JournalError(problem)
        self._updates.append(update)
        if self._task is None or self._task.done():
            # A task of its own, so that a caller that is cancelled takes nothing back.
            self._task = asyncio.get_running_loop().create_task(self._write_all())
        if self._outage is not None:
            raise _kept(self._outage)
        return await update.written

    async def read(self, query: Callable[[Connection], Awaitable[T]]) -> T:
        """Return what a query answers, on the connection for reading.

        Raises:
            JournalError: The database cannot be used.
        """
        self._begin()
        async with self._reader.lock:
            try:
                try:
                    return await self._ask(query)
                except Exception as error:
                    if not is_passing(error):
                        raise
                # The connection may have been lost since it was used last.
                return await self._ask(query)
            except JournalError:
                raise
            except Exception as error:
                raise explained(error, "cannot be used") from error

    async def _ask(self, query: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            connection = await self._reader.connected()
            await self._shift.measure(connection)
            return await query(connection)
        except BaseException:
            self._reader.drop()
            raise

    def _begin(self) -> None:
        """Refuse another event loop than asyncio's, and than the one that was used first.

        Raises:
            JournalError: It is another one.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            problem = "PostgresJournal runs on asyncio only, because asyncpg does; not on Trio"
            raise JournalError(problem) from None
        if self._loop is None:
            self._loop = loop
            self._writer = Link(self._dsn, self.check)
            self._reader = Link(self._dsn, self.check)
        elif self._loop is not loop:
            problem = "the journal belongs to another event loop; call aclose() in that one first"
            raise JournalError(problem)

    async def _entries(self, statement: str, *values: object) -> list[JournalEntry]:
        async def fetch(connection: Connection) -> list[JournalEntry]:
            return self._listed(await connection.fetch(statement, *values))

        return await self.read(fetch)

    def _listed(self, rows: Iterable[Sequence[Any]]) -> list[JournalEntry]:
        """Return the entries of rows. One that is damaged is logged, and costs no other."""
        shift = self._shift.microseconds
        return readable(rows, lambda row: entry_for(row, shift), self._schema)

    # --- writing ----------------------------------------------------------------------------------

    async def _write_all(self) -> None:
        """Write what waits, all that fits in one transaction; go on until nothing is left."""
        loop = asyncio.get_running_loop()
        delay, began, alone = _FIRST_DELAY, 0.0, 0
        while self._updates:
            some = self._first(1 if alone > 0 else _AT_ONCE)
            try:
                await self._write(some)
            except Exception as error:  # noqa: BLE001 - carried to the callers
                self._writer.drop()
                if is_passing(error):
                    began = began or loop.time()
                    if loop.time() - began >= _OUTAGE:
                        self._outage = error
                        self._fail(error)
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, _LONGEST_DELAY)
                    continue
                if len(some) > 1:
                    alone = len(some)  # one of them may be at fault
                    continue
                known = isinstance(error, JournalError)
                some[0].fail(error if known else explained(error, "refused this"))
            delay, began, self._outage = _FIRST_DELAY, 0.0, None
            alone -= 1
            for _ in some:
                self._updates.popleft()

    def _first(self, most: int) -> list[_Update]:
        """Return the updates to write next: the first one, and what fits beside it."""
        some: list[_Update] = []
        for update in self._updates:
            most -= len(update.changes) or 1
            if some and most < 0:
                break
            some.append(update)
        return some

    def _fail(self, error: Exception) -> None:
        for update in self._updates:
            update.fail(_kept(error))

    async def _write(self, updates: Sequence[_Update]) -> None:
        connection = await self._writer.connected()
        await self._shift.measure(connection)
        answers: list[Sequence[JournalEntry | None] | Exception] = []
        async with connection.transaction():
            memory = await self._load(connection, updates)
            before, removed = entries_of(memory), set[str]()
            follows: dict[Follow, Pairs] = {}
            for update in updates:
                try:
                    entries, pairs = await update.apply(memory)
                except Exception as error:  # noqa: BLE001 - a change may be anybody's
                    answers.append(error)  # nothing of this update was changed
                    continue
                answers.append(entries)
                removed |= {old.key for old, new in pairs if old is not None and new is None}
                if update.follow is not None:
                    follows.setdefault(update.follow, []).extend(pairs)
            if removed:
                await connection.execute(self._statements.remove, list(removed))
            changed = [
                row_for(entry, self._shift.microseconds)
                for key, entry in entries_of(memory).items()
                if key in removed or before.get(key) is not entry
            ]
            if changed:
                await connection.executemany(self._statements.put, changed)
            for follow, pairs in follows.items():
                await follow(connection, pairs)
        for update, answer in zip(updates, answers, strict=True):
            if isinstance(answer, Exception):
                update.fail(answer)
            elif not update.written.done():
                update.written.set_result(answer)

    async def _load(self, connection: Connection, updates: Sequence[_Update]) -> MemoryJournal:
        """Return the entries that the updates refer to, which stay locked."""
        names = {reference for update in updates for reference, _ in update.changes}
        entries = await self._lock(connection, names)
        absent = names - {name for entry in entries for name in (entry.key, entry.order_id)}
        if absent:
            # A row that does not exist cannot be locked. Two processes must not both add it.
            await connection.execute(_ABSENT_LOCK, list(absent))
            entries = await self._lock(connection, names)
        return holding(entries)

    async def _lock(self, connection: Connection, names: Iterable[str]) -> list[JournalEntry]:
        rows = await connection.fetch(self._statements.lock, list(names))
        return [entry_for(row, self._shift.microseconds) for row in rows]


def _kept(error: Exception) -> JournalError:
    return explained(error, "cannot be used; what was to be recorded is kept for later")
