"""The table of a journal's SQLite file: its versions, its statements, and its rows."""

import json
import sqlite3
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from types import NoneType
from typing import Any, Final

import attrs

from sms4sats_async._redact import mask
from sms4sats_async.models import OrderOutcome, OrderState, RequestOutcome

from .entry import JournalChange, JournalEntry

SCHEMA_VERSION: Final = 2

_APPLICATION_ID: Final = 0x53345341
"""Tells a journal from another program's SQLite file."""


class DamagedRowError(ValueError):
    """If a row cannot be read.

    Args:
        row: Its number.
        order_id: What it has as the order's ID.
    """

    def __init__(self, row: int, order_id: object) -> None:
        order = f" (order {mask(order_id)})" if isinstance(order_id, str) else ""
        super().__init__(
            f"row {row} of the table `orders`{order} is damaged and is left as it is; no scheduler "
            "drives that order, and the service refunds it automatically after 21 minutes; keep "
            "the file, because the row has the order's ID"
        )


DAMAGED: Final = "it is damaged; keep it, because it has order IDs, and give another path"

_FIELDS: Final = tuple(field.name for field in attrs.fields(JournalEntry))
_NAMES: Final = ", ".join(_FIELDS)
_VALUES: Final = attrgetter(*_FIELDS)

# Columns without a type keep what they are given: a country's number, or its name.
_TABLE: Final = f"CREATE TABLE orders (row INTEGER PRIMARY KEY, {_NAMES})"
_INDEXES: Final = (
    "CREATE UNIQUE INDEX by_key ON orders (key)",
    "CREATE INDEX by_order_id ON orders (order_id) WHERE order_id IS NOT NULL",
    "CREATE INDEX by_time ON orders (created_at)",
    """CREATE INDEX pending ON orders (created_at)
       WHERE order_id IS NOT NULL AND finished_at IS NULL""",
    """CREATE INDEX undelivered ON orders (created_at)
       WHERE order_id IS NOT NULL AND finished_at IS NOT NULL AND delivered_at IS NULL""",
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
    **{name: name for name in _FIELDS},
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
    f"SELECT row, {', '.join(_FROM_VERSION_1[name] for name in _FIELDS)} FROM orders_1"
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
_PENDING: Final = f"{_SELECT} WHERE order_id IS NOT NULL AND finished_at IS NULL AND {_OF_ROOT}"
_UNDELIVERED: Final = (
    f"{_SELECT} WHERE order_id IS NOT NULL AND finished_at IS NOT NULL AND delivered_at IS NULL "
    f"AND {_OF_ROOT}"
)
_HISTORY: Final = (
    f"{_SELECT} WHERE coalesce(created_at >= ?, 1) ORDER BY created_at DESC, row DESC LIMIT ?"
)
_PUT: Final = (
    f"INSERT INTO orders ({_NAMES}) VALUES ({', '.join('?' * len(_FIELDS))}) "  # noqa: S608
    f"ON CONFLICT (key) DO UPDATE SET {', '.join(f'{x} = excluded.{x}' for x in _FIELDS)}"
)
_REMOVE: Final = "DELETE FROM orders WHERE key = ?"
_PRUNE: Final = (
    "DELETE FROM orders WHERE CASE WHEN order_id IS NULL THEN created_at "
    "WHEN delivered_at IS NOT NULL THEN finished_at END < ?"
)

_LARGEST: Final = 2**63 - 1
"""The largest whole number that SQLite stores."""


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
        file.execute(_PUT, _row(after))
    return after


def pending(
    file: sqlite3.Connection, base_url: str | None, report: Callable[[DamagedRowError], None]
) -> list[JournalEntry]:
    """Return the entries of orders that have not ended; see `OrderJournal.pending`."""
    return _entries(file.execute(_PENDING, (base_url,)), report)


def undelivered(
    file: sqlite3.Connection, base_url: str | None, report: Callable[[DamagedRowError], None]
) -> list[JournalEntry]:
    """Return the entries whose result was not delivered; see `OrderJournal.undelivered`."""
    return _entries(file.execute(_UNDELIVERED, (base_url,)), report)


def get(file: sqlite3.Connection, order_id: str) -> JournalEntry | None:
    """Return the entry of an order; see `OrderJournal.get`."""
    return _find(file, _BY_ORDER_ID, order_id)


def history(
    file: sqlite3.Connection,
    since: datetime | None,
    limit: int | None,
    report: Callable[[DamagedRowError], None],
) -> list[JournalEntry]:
    """Return all entries, the newest first; see `OrderJournal.history`."""
    first = -_LARGEST if since is None else _microseconds(since)
    return _entries(file.execute(_HISTORY, (first, -1 if limit is None else limit)), report)


def prune(file: sqlite3.Connection, before: datetime) -> int:
    """Remove what was finished before that time; see `OrderJournal.prune`."""
    return file.execute(_PRUNE, (_microseconds(before),)).rowcount


def _find(file: sqlite3.Connection, statement: str, *values: str) -> JournalEntry | None:
    row = file.execute(statement, [*map(_storable, values)]).fetchone()
    return None if row is None else _entry(row)


def _entries(rows: sqlite3.Cursor, report: Callable[[DamagedRowError], None]) -> list[JournalEntry]:
    """Return the entries of rows. One that is damaged is reported, and costs no other."""
    entries: list[JournalEntry] = []
    for row in rows:
        try:
            entries.append(_entry(row))
        except DamagedRowError as error:
            report(error)
    return entries


# --- the rows -------------------------------------------------------------------------------------


def _row(entry: JournalEntry) -> list[object]:
    values: list[Any] = list(_VALUES(entry))
    for place in _TEXTS:
        values[place] = _storable(values[place])
    for place, (encode, _) in _CODECS.items():
        if values[place] is not None:
            values[place] = encode(values[place])
    return values


def _entry(row: Sequence[Any]) -> JournalEntry:
    number, *values = row
    cause: Exception | None = None
    try:
        for place, (_, decode) in _CODECS.items():
            if values[place] is not None:
                values[place] = decode(values[place])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        cause = error
    if cause or not all(isinstance(values[place], kinds) for place, kinds in _KINDS.items()):
        raise DamagedRowError(number, values[_ORDER_ID]) from cause
    return JournalEntry(*values)


def _storable(value: object) -> object:
    """Return a value that SQLite can store: a lone surrogate, which JSON may contain, becomes `?`.

    Otherwise, one invalid character in an error text would prevent that the code is recorded.
    """
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode(errors="replace").decode()


def _microseconds(moment: datetime) -> int:
    """Return a time as a whole number: a float rounds, and the last moments of 9999 up to none."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_OUTCOMES: Final = {each.value: each for each in (*OrderOutcome, *RequestOutcome)}

_Codec = tuple[Callable[[Any], object], Callable[[Any], object]]
_MOMENT: Final[_Codec] = (
    _microseconds,
    lambda microseconds: _EPOCH + timedelta(microseconds=microseconds),
)
_SPAN: Final[_Codec] = (
    lambda span: min(span // timedelta(microseconds=1), _LARGEST),
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
    "metadata": (
        lambda notes: json.dumps(dict(notes)) if notes else "{}",
        lambda text: {} if text == "{}" else dict(json.loads(text)),
    ),
    "state": (lambda state: state.value, OrderState),
    "outcome": (lambda outcome: outcome.value, _OUTCOMES.__getitem__),
    "codes": (
        lambda codes: json.dumps(codes) if codes else "[]",
        lambda text: () if text == "[]" else tuple(json.loads(text)),
    ),
    "paid": (int, bool),
}
_CODECS: Final = {_FIELDS.index(name): codec for name, codec in _CODEC_OF.items()}
"""How a value is written and read that SQLite cannot store as it is, by its column's position."""

_KIND_OF: Final[Mapping[str, type | tuple[type, ...]]] = {
    "key": str,
    "kind": str,
    "created_at": datetime,
    "order_id": (str, NoneType),
    "invoice": str,
    "metadata": dict,
    "base_url": (str, NoneType),
    "codes": tuple,
    "refusals": int,
    "claimed_by": (str, NoneType),
}
_ORDER_ID: Final = _FIELDS.index("order_id")
_KINDS: Final = {_FIELDS.index(name): kinds for name, kinds in _KIND_OF.items()}
"""What the values are on which drivers rely, by their columns' positions."""

_TEXTS: Final = tuple(place for place in range(len(_FIELDS)) if place not in _CODECS)
"""The positions of the other columns, most of which are texts."""
