"""A journal in a file: SQLite from the standard library, in a thread of its own."""

import os
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final, Self, TypeVar

from sms4sats_async._redact import show
from sms4sats_async._validate import aware, positive_seconds, whole_number
from sms4sats_async._validate import path as as_path
from sms4sats_async.errors import InvalidArgumentError

from . import schema
from .entry import JournalChange, JournalEntry
from .worker import Worker

T = TypeVar("T")

_MEMORY: Final = ":memory:"
_URI: Final = "file:"


class SqliteJournal:
    """An `OrderJournal` in one SQLite file on this machine, mode 0600.

    Several clients, event loops and processes may use the same file: one writes at a time, the
    others wait. Nothing is opened before the first use. The file is closed when there is nothing to
    do; `aclose` waits for that. A process that forks closes the file first, and parent and child
    open it again when they use it.

    A row that cannot be read is left out of all lists, logged as an error, and kept in the file. It
    stops no other order.

    A file of version 0.1 is migrated at the first use. Version 0.1 cannot read it any more.

    Args:
        path: The file. It is created if it does not exist; its folder is not. Not on a network
            drive, whose locks SQLite cannot trust.
        lock_timeout: Seconds (or a timedelta) to wait for another process that writes; a client
            waits 5 seconds at most for what it writes.

    Raises:
        InvalidArgumentError: If an argument is invalid, such as `":memory:"`: use `MemoryJournal`.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, lock_timeout: float | timedelta = 2.0
    ) -> None:
        self._path = as_path("path", path)
        _refuse_names_of_sqlite(os.fspath(path))
        timeout = positive_seconds("lock_timeout", lock_timeout)
        self._worker = Worker(self._path, lock_timeout=timeout, name=repr(self))

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
        await self._worker.close()

    async def update(
        self, changes: Sequence[tuple[str, JournalChange]], /
    ) -> Sequence[JournalEntry | None]:
        """Change entries; see `OrderJournal.update`.

        Raises:
            JournalError: If the file cannot be used. Nothing of it was written.
        """
        kept = tuple(changes)  # the caller may change the list before the thread has read it
        return await self._do(lambda file: [schema.change(file, *each) for each in kept])

    async def pending(self, base_url: str | None = None) -> list[JournalEntry]:
        """Return the entries of orders that have not ended; see `OrderJournal.pending`.

        Raises:
            JournalError: If the file cannot be used.
        """
        return await self._do(lambda file: schema.pending(file, base_url, self._path))

    async def undelivered(self, base_url: str | None = None) -> list[JournalEntry]:
        """Return the entries whose result was not delivered; see `OrderJournal.undelivered`.

        Raises:
            JournalError: If the file cannot be used.
        """
        return await self._do(lambda file: schema.undelivered(file, base_url, self._path))

    async def get(self, order_id: str, /) -> JournalEntry | None:
        """Return the entry of an order, or None if there is none.

        Raises:
            JournalError: If the file cannot be used.
        """
        return await self._do(lambda file: schema.get(file, order_id))

    async def history(
        self, *, since: datetime | None = None, limit: int | None = None
    ) -> list[JournalEntry]:
        """Return all entries, the newest first; see `OrderJournal.history`.

        Raises:
            JournalError: If the file cannot be used.
        """
        first = None if since is None else aware("since", since)
        most = None if limit is None else whole_number("limit", limit, least=0)
        return await self._do(lambda file: schema.history(file, first, most, self._path))

    async def prune(self, before: datetime, /) -> int:
        """Remove what was finished before that time; see `OrderJournal.prune`.

        Raises:
            JournalError: If the file cannot be used. Nothing was removed.
        """
        moment = aware("before", before)
        return await self._do(lambda file: schema.prune(file, moment))

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._worker.do(work)


def _refuse_names_of_sqlite(path: str) -> None:
    """Refuse what names no file to SQLite.

    Raises:
        InvalidArgumentError: It does so.
    """
    if path == _MEMORY or (path.startswith(_URI) and "memory" in path):
        problem = f"path must be the path of a file, not {show(path)}; use MemoryJournal instead"
        raise InvalidArgumentError(problem)
    if path.startswith(_URI):
        problem = f"path must be the path of a file, not an SQLite URI such as {show(path)}"
        raise InvalidArgumentError(problem)
