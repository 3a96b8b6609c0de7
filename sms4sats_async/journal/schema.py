"""The table of a journal's SQLite file: its versions and its statements."""

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from .entry import JournalChange, JournalEntry
from .rows import (
    FIELDS,
    LARGEST,
    PENDING,
    PRUNED_FROM,
    UNDELIVERED,
    entry_of,
    microseconds,
    readable,
    row_of,
    storable,
)

SCHEMA_VERSION: Final = 2

_APPLICATION_ID: Final = 0x53345341
"""Tells a journal from another program's SQLite file."""

_NAMES: Final = ", ".join(FIELDS)

# Columns without a type keep what they are given: a country's number, or its name.
_TABLE: Final = f"CREATE TABLE orders (row INTEGER PRIMARY KEY, {_NAMES})"
_INDEXES: Final = (
    "CREATE UNIQUE INDEX by_key ON orders (key)",
    "CREATE INDEX by_order_id ON orders (order_id) WHERE order_id IS NOT NULL",
    "CREATE INDEX by_time ON orders (created_at)",
    f"CREATE INDEX pending ON orders (created_at) WHERE {PENDING}",
    f"CREATE INDEX undelivered ON orders (created_at) WHERE {UNDELIVERED}",
)
_SIGNATURE: Final = (
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_NEW: Final = (_TABLE, *_INDEXES, *_SIGNATURE)

# Version 1 had one outcome for a code and for a message that was sent.
_IS_MESSAGE: Final = "kind = 'send' OR state IN ('message sent', 'message delivered')"
_CODE_ARRIVED: Final = f"CASE WHEN {_IS_MESSAGE} THEN 'message sent' ELSE 'code received' END"
_FROM_VERSION_1: Final = {
    **{name: name for name in FIELDS},
    "invoice": "payreq",
    "metadata": "'{}'",
    # Version 1 recorded no root. This is the default that it had; it must not follow a newer one.
    "base_url": "'https://api2.sms4sats.com'",
    "number_seen_at": "NULL",
    "outcome": (
        "CASE outcome WHEN 'already released' THEN 'refunded' "
        f"WHEN 'code arrived' THEN {_CODE_ARRIVED} ELSE outcome END"
    ),
    "code_deadline": "NULL",
    "minimum_age": "NULL",
    "refusals": "0",
    "refused_at": "NULL",
    # Version 1 recorded no delivery: what ended under it counts as delivered.
    "delivered_at": "CASE WHEN order_id IS NOT NULL THEN finished_at END",
    # Seconds as a float became whole microseconds. A claim that no calendar holds is none.
    "claimed_until": "CASE WHEN claimed_until < 1e11 THEN CAST(claimed_until * 1e6 AS INTEGER) END",
}
_COPY: Final = (
    f"INSERT INTO orders (row, {_NAMES}) "  # noqa: S608 - field names and constants alone
    f"SELECT row, {', '.join(_FROM_VERSION_1[name] for name in FIELDS)} FROM orders_1"
)
_MIGRATE: Final = (
    "ALTER TABLE orders RENAME TO orders_1",
    _TABLE,
    _COPY,
    "DROP TABLE orders_1",  # with its indexes, whose names are needed again
    *_INDEXES,
    *_SIGNATURE,
)

_SELECT: Final = f"SELECT row, {_NAMES} FROM orders"  # noqa: S608 - field names alone
_BY_ORDER_ID: Final = f"{_SELECT} WHERE order_id = ? ORDER BY row DESC LIMIT 1"
_BY_EITHER: Final = (
    f"{_SELECT} WHERE row = coalesce((SELECT max(row) FROM orders WHERE order_id = ?), "  # noqa: S608
    "(SELECT row FROM orders WHERE key = ?))"
)
# A comparison with NULL is NULL: an unknown root is of every root, and no root means all of them.
_OF_ROOT: Final = "coalesce(base_url = ?, 1) ORDER BY created_at, row"
_PENDING: Final = f"{_SELECT} WHERE {PENDING} AND {_OF_ROOT}"
_UNDELIVERED: Final = f"{_SELECT} WHERE {UNDELIVERED} AND {_OF_ROOT}"
_HISTORY: Final = (
    f"{_SELECT} WHERE coalesce(created_at >= ?, 1) ORDER BY created_at DESC, row DESC LIMIT ?"
)
_PUT: Final = (
    f"INSERT INTO orders ({_NAMES}) VALUES ({', '.join('?' * len(FIELDS))}) "  # noqa: S608
    f"ON CONFLICT (key) DO UPDATE SET {', '.join(f'{x} = excluded.{x}' for x in FIELDS)}"
)
_REMOVE: Final = "DELETE FROM orders WHERE key = ?"
_PRUNE: Final = f"DELETE FROM orders WHERE {PRUNED_FROM} < ?"  # noqa: S608 - a constant


# --- the versions ---------------------------------------------------------------------------------


def prepare(file: sqlite3.Connection) -> None:
    """Create the table in a new file, or migrate it; refuse the file of another program.

    Raises:
        ValueError: The file belongs to another program, or to another version of this library.
    """
    if _signature(file) == (_APPLICATION_ID, SCHEMA_VERSION):
        return
    with transaction(file):
        application, version = _signature(file)  # another process may have been faster
        # Its newer name, sqlite_schema, is unknown to the SQLite of some systems (before 3.33).
        is_empty = not file.execute("SELECT 1 FROM sqlite_master").fetchone()
        if is_empty and (application, version) == (0, 0):
            statements: Sequence[str] = _NEW
        elif application != _APPLICATION_ID:
            raise ValueError("the file belongs to another program; give another path")
        elif version == 1:
            statements = _MIGRATE
        else:
            _check(version)
            return
        for statement in statements:
            file.execute(statement)


def check_version(file: sqlite3.Connection) -> None:
    """Refuse a file that a newer library has migrated since it was opened.

    Raises:
        ValueError: Its schema is not of this version.
    """
    _check(_signature(file)[1])


def _check(version: int) -> None:
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"its schema version is {version}, and this library reads versions up to "
            f"{SCHEMA_VERSION}; update sms4sats-async, or give another path"
        )


def _signature(file: sqlite3.Connection) -> tuple[int, int]:
    (application,) = file.execute("PRAGMA application_id").fetchone()
    (version,) = file.execute("PRAGMA user_version").fetchone()
    return application, version


@contextmanager
def transaction(file: sqlite3.Connection) -> Generator[None]:
    """Keep other writers out, and write all or nothing."""
    file.execute("BEGIN IMMEDIATE")
    try:
        yield
        file.execute("COMMIT")
    except BaseException:
        if file.in_transaction:  # SQLite itself ends some of them, on a full disk for one
            file.execute("ROLLBACK")
        raise


# --- the statements -------------------------------------------------------------------------------


def change(file: sqlite3.Connection, reference: str, change: JournalChange) -> JournalEntry | None:
    """Change an entry; see `OrderJournal.update`."""
    before = _find(file, _BY_EITHER, reference, reference)
    after = change(before)
    if after is None:
        if before is not None:
            file.execute(_REMOVE, (before.key,))
    elif after is not before:
        file.execute(_PUT, row_of(after))
    return after


def pending(file: sqlite3.Connection, base_url: str | None, journal: object) -> list[JournalEntry]:
    """Return the entries of orders that have not ended; see `OrderJournal.pending`."""
    return readable(file.execute(_PENDING, (base_url,)), _entry, journal)


def undelivered(
    file: sqlite3.Connection, base_url: str | None, journal: object
) -> list[JournalEntry]:
    """Return the entries whose result was not delivered; see `OrderJournal.undelivered`."""
    return readable(file.execute(_UNDELIVERED, (base_url,)), _entry, journal)


def get(file: sqlite3.Connection, order_id: str) -> JournalEntry | None:
    """Return the entry of an order; see `OrderJournal.get`."""
    return _find(file, _BY_ORDER_ID, order_id)


def history(
    file: sqlite3.Connection,
    since: datetime | None,
    limit: int | None,
    journal: object,
) -> list[JournalEntry]:
    """Return all entries, the newest first; see `OrderJournal.history`."""
    first = -LARGEST if since is None else microseconds(since)
    rows = file.execute(_HISTORY, (first, -1 if limit is None else limit))
    return readable(rows, _entry, journal)


def prune(file: sqlite3.Connection, before: datetime) -> int:
    """Remove what was finished before that time; see `OrderJournal.prune`."""
    return file.execute(_PRUNE, (microseconds(before),)).rowcount


def _find(file: sqlite3.Connection, statement: str, *values: str) -> JournalEntry | None:
    row = file.execute(statement, [*map(storable, values)]).fetchone()
    return None if row is None else _entry(row)


def _entry(row: Sequence[Any]) -> JournalEntry:
    number, *values = row
    return entry_of(values, number)
