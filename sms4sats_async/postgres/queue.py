"""The wake-ups of orders: jobs of pgqueuer, whose payload is the key of an entry.

A wake-up only says that an order may be claimed. It is removed before the order is claimed, so it
is harmless if it comes early, twice or late. What is lost is found by a sweep.
"""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.adapters.persistence.qb import (
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
)
from pgqueuer.domain.settings import DBSettings, Durability
from pgqueuer.domain.types import Channel, QueueEntrypoint, QueueManagerId
from pgqueuer.ports.repository import EntrypointExecutionParameter
from pgqueuer.queries import Queries

from sms4sats_async.errors import JournalError
from sms4sats_async.journal.entry import CLOCK_DIFFERENCE, LEASE
from sms4sats_async.journal.rows import PENDING, UNDELIVERED

from .schema import HELP

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .schema import Connection

_ANY_NUMBER: Final = EntrypointExecutionParameter(concurrency_limit=0)
_STALE: Final = timedelta(seconds=30)

_AT_ONCE: Final = 5_000
"""Wake-ups that are added in one transaction."""

_FRESH: Final = 10 * 1_000_000
"""Microseconds in which the process that created an order can claim it."""

_TOO_FAR: Final = (LEASE + CLOCK_DIFFERENCE) // timedelta(microseconds=1)

_ALONE: Final = "SELECT pg_try_advisory_xact_lock(1936029557, hashtext($1))"
_DRIVERS: Final = " UNION ".join(
    f"SELECT claimed_by FROM {{0}}.orders WHERE {each} AND claimed_until >= $1 "  # noqa: S608
    "AND claimed_by IS NOT NULL"
    for each in (PENDING, UNDELIVERED)
)
_FREE: Final = f"""
    coalesce(base_url = $1, true) AND created_at < $2::bigint - {_FRESH}
    AND (claimed_by IS NULL OR claimed_until IS NULL OR claimed_until < $2::bigint
         OR claimed_until > $2::bigint + {_TOO_FAR} OR claimed_by = ANY($3::text[]))
    AND NOT EXISTS (SELECT FROM {{1}} WHERE dedupe_key = key AND status IN ('queued', 'picked'))
    ORDER BY created_at LIMIT $4::bigint
"""
# What is left alone is swept later.
_DUE: Final = "(coalesce(not_before <= $2::bigint, true) OR code_deadline > $2::bigint)"
_LOST: Final = (
    f"(SELECT key FROM {{0}}.orders WHERE {PENDING} AND {_DUE} AND {_FREE}) UNION ALL "  # noqa: S608
    f"(SELECT key FROM {{0}}.orders WHERE {UNDELIVERED} AND {_FREE})"
)


def wake_channel(schema: str) -> str:
    """Return the channel on which pgqueuer says that its table has changed."""
    return f"{schema}_wake"


def is_wake_up(payload: str) -> bool:
    """Return whether a message on that channel says that something was added."""
    event: dict[str, object] = json.loads(payload)
    return event.get("operation") == "insert"


async def install(connection: Connection, schema: str) -> None:
    """Make the tables of the queue, or what they lack; outside of a transaction."""
    await _queries(connection, schema).apply_upgrade()


async def check(connection: Connection, schema: str) -> None:
    """Refuse a queue whose tables are not those of the installed pgqueuer.

    Raises:
        JournalError: They are not.
    """
    plan = await _queries(connection, schema).plan_upgrade()
    if plan.statements:
        problem = f"the queue in the schema {schema} is incomplete; stop all workers, then {HELP}"
        raise JournalError(problem)


async def add(connection: Connection, schema: str, root: str, keys: Collection[str]) -> None:
    """Add a wake-up for each of these entries that has none."""
    await _queries(connection, schema).enqueue(
        [root] * len(keys),
        [key.encode() for key in keys],
        [0] * len(keys),
        dedupe_key=list(keys),
        on_conflict="skip",
    )


async def take(connection: Connection, schema: str, root: str, most: int) -> Sequence[str]:
    """Remove wake-ups, and return the keys of their entries."""
    queries = _queries(connection, schema)
    async with connection.transaction():
        jobs = await queries.dequeue(
            most,
            {QueueEntrypoint(root): _ANY_NUMBER},
            QueueManagerId(uuid.uuid4()),
            None,
            _STALE,
        )
        if jobs:
            await queries.log_jobs([(job, "successful", None) for job in jobs])
    return [job.payload.decode() for job in jobs if job.payload is not None]


async def sweep(
    connection: Connection, schema: str, root: str, now: int, dead: Collection[str]
) -> bool:
    """Add wake-ups for orders that no worker drives and that have none.

    Args:
        connection: The database.
        schema: The schema.
        root: The service root whose orders are meant, and those of an unknown root.
        now: The time, in microseconds of the database's clock.
        dead: The drivers whose processes provably ended.

    Returns:
        Whether there may be more.
    """
    queries = _queries(connection, schema)
    async with connection.transaction():
        if not await connection.fetchval(_ALONE, schema):
            return False  # another worker does it
        await queries.clear_queue_log(root)
        rows = await connection.fetch(
            _LOST.format(schema, queries.qbq.qualified.queue_table),
            root,
            now,
            list(dead),
            _AT_ONCE,
        )
        if rows:
            await add(connection, schema, root, [key for (key,) in rows])
    return len(rows) >= _AT_ONCE


async def drivers(connection: Connection, schema: str, now: int) -> Sequence[str]:
    """Return the drivers whose claims hold."""
    return [name for (name,) in await connection.fetch(_DRIVERS.format(schema), now)]


def _queries(connection: Connection, schema: str) -> Queries:
    settings = DBSettings(
        prefix="",
        db_schema=schema,
        channel=Channel(wake_channel(schema)),
        durability=Durability.balanced,
    )
    return Queries(
        AsyncpgDriver(cast("Any", connection)),
        QueryBuilderEnvironment(settings),
        QueryQueueBuilder(settings),
        QuerySchedulerBuilder(settings),
    )
