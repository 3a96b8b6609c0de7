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
from pgqueuer.queries import EntrypointExecutionParameter, Queries
from pgqueuer.types import QueueEntrypoint, QueueManagerId
from pgqueuer.domain.types import Channel

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .schema import Connection

_ANY_NUMBER: Final = EntrypointExecutionParameter(concurrency_limit=0)
_STALE: Final = timedelta(seconds=30)


def wake_channel(schema: str) -> str:
    """Return the channel on which pgqueuer says that its table has changed."""
    return f"{schema}_wake"


def is_wake_up(payload: str) -> bool:
    """Return whether a message on that channel says that something was added."""
    event: dict[str, object] = json.loads(payload)
    return event.get("operation") == "insert"


async def install(connection: Connection, schema: str) -> None:
    """Make the tables of the queue, within a transaction, unless they exist."""
    queries = _queries(connection, schema)
    if not await queries.schema_is_installed():
        await queries.install(create_schema=False)


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


async def clear_log(connection: Connection, schema: str, root: str) -> None:
    """Remove what pgqueuer has logged of wake-ups that were taken."""
    await _queries(connection, schema).clear_queue_log(root)


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
