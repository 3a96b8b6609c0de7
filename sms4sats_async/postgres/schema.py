"""The tables of a journal in PostgreSQL: their version, their statements, and their rows.

The columns are those of a journal's SQLite file. A country is JSON, because it is a number or a
name. All times are of the database's clock: `shift` is by how many microseconds this machine's
clock is ahead of it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, Protocol

from sms4sats_async._redact import show
from sms4sats_async.errors import InvalidArgumentError, JournalError
from sms4sats_async.journal.rows import (
    FIELDS,
    MOMENTS,
    PENDING,
    PRUNED_FROM,
    UNDELIVERED,
    DamagedRowError,
    entry_of,
    row_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from sms4sats_async.journal import JournalEntry

SCHEMA_VERSION: Final = 1

_COUNTRY: Final = FIELDS.index("country")
_ORDER_ID: Final = FIELDS.index("order_id")
_WHOLE: Final = frozenset({"minimum_age", "paid", "refusals", *(FIELDS[each] for each in MOMENTS)})
_NEEDED: Final = frozenset({"key", "kind", "created_at"})
_COLUMNS: Final = ", ".join(
    f"{name} {'bigint' if name in _WHOLE else 'text'}{' NOT NULL' if name in _NEEDED else ''}"
    for name in FIELDS
)
_NAMES: Final = ", ".join(FIELDS)
_TABLES: Final = (
    f"CREATE TABLE {{0}}.orders (row bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {_COLUMNS})",
    "CREATE UNIQUE INDEX orders_by_key ON {0}.orders (key)",
    "CREATE INDEX orders_by_order_id ON {0}.orders (order_id) WHERE order_id IS NOT NULL",
    "CREATE INDEX orders_by_time ON {0}.orders (created_at)",
    f"CREATE INDEX orders_pending ON {{0}}.orders (created_at) WHERE {PENDING}",
    f"CREATE INDEX orders_undelivered ON {{0}}.orders (created_at) WHERE {UNDELIVERED}",
    "CREATE TABLE {0}.version (version integer NOT NULL)",
    f"INSERT INTO {{0}}.version VALUES ({SCHEMA_VERSION})",  # noqa: S608 - a constant
)

_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,47}")
"""A schema that needs no quotes, short enough for the names that are made of it."""

HELP: Final = "run `sms4sats postgres init`, or call create_schema()"


class Connection(Protocol):
    """What is used of a connection of asyncpg, which has no types."""

    async def execute(self, query: str, *values: object) -> str:
        """Run a statement."""
        ...

    async def executemany(self, command: str, args: Iterable[Sequence[object]]) -> None:
        """Run a statement for each row of values."""
        ...

    async def fetch(self, query: str, *values: object) -> list[Sequence[Any]]:
        """Return the rows of a query."""
        ...

    async def fetchval(self, query: str, *values: object) -> Any:  # noqa: ANN401 - any value
        """Return the first value of the first row."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """Write all or nothing."""
        ...

    async def add_listener(
        self, channel: str, callback: Callable[[object, int, str, str], None]
    ) -> None:
        """Call back with each message of a channel."""
        ...

    def is_closed(self) -> bool:
        """Return whether the connection was closed or lost."""
        ...

    async def close(self, *, timeout: float) -> None:
        """Close it."""
        ...

    def terminate(self) -> None:
        """Close it without waiting."""
        ...


def checked_name(schema: object) -> str:
    """Return the name of a schema.

    Raises:
        InvalidArgumentError: It is none.
    """
    if not isinstance(schema, str) or not _NAME.fullmatch(schema):
        problem = (
            "schema must be up to 48 lower-case letters, digits and underscores, and not begin "
            f"with a digit, not {show(schema)}"
        )
        raise InvalidArgumentError(problem)
    return schema


class Statements:
    """The statements on the tables of one schema.

    Args:
        schema: The name of the schema.
    """

    def __init__(self, schema: str) -> None:
        self._schema = schema
        table = f"{schema}.orders"
        select = f"SELECT {_NAMES} FROM {table}"  # noqa: S608 - names that were checked
        of_root = "coalesce(base_url = $1, true) ORDER BY created_at, row"
        self.lock: str = (
            f"{select} WHERE key = ANY($1::text[]) OR order_id = ANY($1::text[]) "
            "ORDER BY row FOR UPDATE"
        )
        self.put: str = (
            f"INSERT INTO {table} ({_NAMES}) "  # noqa: S608 - names that were checked
            f"VALUES ({', '.join(f'${place}' for place in range(1, len(FIELDS) + 1))}) "
            f"ON CONFLICT (key) DO UPDATE SET {', '.join(f'{x} = excluded.{x}' for x in FIELDS)}"
        )
        self.remove: str = f"DELETE FROM {table} WHERE key = ANY($1::text[])"  # noqa: S608 - as above
        self.get: str = f"{select} WHERE order_id = $1 ORDER BY row DESC LIMIT 1"
        self.pending: str = f"{select} WHERE {PENDING} AND {of_root}"
        self.undelivered: str = f"{select} WHERE {UNDELIVERED} AND {of_root}"
        self.history: str = (
            f"{select} WHERE created_at >= $1 ORDER BY created_at DESC, row DESC LIMIT $2"
        )
        self.prune: str = f"DELETE FROM {table} WHERE {PRUNED_FROM} < $1"  # noqa: S608 - as above

    async def create(self, connection: Connection) -> None:
        """Make the tables, or bring them to this version, within a transaction.

        Raises:
            JournalError: They are of a newer version, or of an unknown one.
        """
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {self._schema}")
        version = await self._version(connection)
        if version is not None:
            _check(version)
            return
        for statement in _TABLES:
            await connection.execute(statement.format(self._schema))

    async def check_version(self, connection: Connection) -> None:
        """Refuse tables of another version.

        Raises:
            JournalError: There are none, or they are of another version.
        """
        version = await self._version(connection)
        if version is None:
            problem = f"the database has no journal in the schema {self._schema}; {HELP}"
            raise JournalError(problem)
        _check(version)

    async def _version(self, connection: Connection) -> int | None:
        table = f"{self._schema}.version"
        if await connection.fetchval("SELECT to_regclass($1)", table) is None:
            return None
        version: int | None = await connection.fetchval(f"SELECT max(version) FROM {table}")  # noqa: S608
        if version is None:
            problem = f"the table {table} has no row; restore the database, or use another schema"
            raise JournalError(problem)
        return version


def _check(version: int) -> None:
    if version != SCHEMA_VERSION:
        what = (
            "update sms4sats-async"
            if version > SCHEMA_VERSION
            else f"stop all workers, then {HELP}"
        )
        problem = (
            f"the journal's schema version is {version}, and this library needs {SCHEMA_VERSION}; "
            f"{what}"
        )
        raise JournalError(problem)


# --- the rows -------------------------------------------------------------------------------------


def storable(text: str) -> str:
    """Return a text as PostgreSQL can hold it: of what it cannot, a `?` stays."""
    return text.encode(errors="replace").decode().replace("\0", "?")


def row_for(entry: JournalEntry, shift: int) -> list[Any]:
    """Return the values of an entry."""
    values = row_of(entry)
    if values[_COUNTRY] is not None:
        values[_COUNTRY] = json.dumps(values[_COUNTRY])
    for place, value in enumerate(values):
        if isinstance(value, str) and "\0" in value:
            values[place] = storable(value)
    return _moved(values, -shift)


def entry_for(row: Sequence[Any], shift: int) -> JournalEntry:
    """Return the entry of a row.

    Raises:
        DamagedRowError: A value is not one that `row_for` returns.
    """
    values = _moved(list(row), shift)
    if values[_COUNTRY] is not None:
        try:
            values[_COUNTRY] = json.loads(values[_COUNTRY])
        except ValueError as error:
            raise DamagedRowError(None, values[_ORDER_ID]) from error
    return entry_of(values)


def _moved(values: list[Any], shift: int) -> list[Any]:
    if shift:
        for place in MOMENTS:
            if values[place] is not None:
                values[place] += shift
    return values
