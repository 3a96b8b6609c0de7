"""Many orders on one database: a worker, or one process with SQLite, and what each one costs.

Started by run.py as `workers.py KIND ROOT PLACE ORDERS`. All orders are due at once.

- `seed` fills the database at PLACE.
- `postgres` is a worker, until its standard input ends.
- `sqlite` is an `OrderScheduler` on the file at PLACE, until it has ended all orders.

A scheduler writes one line of four numbers:

- how many orders it has ended
- the seconds of CPU
- the seconds by the wall until it has the first answer
- the KiB of memory that it has more than at its start
"""

import asyncio
import resource
import secrets
import sys
import time
from datetime import UTC, datetime, timedelta

import anyio

from sms4sats_async import (
    Event,
    OrderEnded,
    OrderScheduler,
    ReceiveOrder,
    Sms4SatsClient,
    SqliteJournal,
    StatusPolled,
)
from sms4sats_async.journal.entry import ensure_entry
from sms4sats_async.postgres import PostgresJournal, PostgresScheduler

CONCURRENCY = 100
AT_ONCE = 1_000
Journal = PostgresJournal | SqliteJournal


async def fill(journal: Journal, root: str, count: int) -> None:
    """Record orders that are three minutes old, so that their cancels are due."""
    now = datetime.now(UTC)
    old = now - timedelta(minutes=3)
    for _ in range(0, count, AT_ONCE):
        made = [ReceiveOrder(secrets.token_hex(32), "", old) for _ in range(min(AT_ONCE, count))]
        await journal.update([(each.order_id, ensure_entry(each, now, root)) for each in made])


async def work(kind: str, root: str, journal: Journal, orders: int) -> None:
    """Run a scheduler, and write what it did."""
    began, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    first: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, OrderEnded | StatusPolled) and not first:
            first.append(time.monotonic() - began)

    ended = 0
    async with (
        Sms4SatsClient(base_url=root, journal=journal, on_event=note) as client,
        anyio.create_task_group() as group,
    ):
        scheduler = (PostgresScheduler if kind == "postgres" else OrderScheduler)(
            client, concurrency=CONCURRENCY
        )

        async def count() -> None:
            nonlocal ended
            async for _ in scheduler.results():
                ended += 1
                if kind == "sqlite" and ended == orders:
                    group.cancel_scope.cancel()

        group.start_soon(scheduler.run)
        group.start_soon(count)
        if kind == "postgres":
            await asyncio.to_thread(sys.stdin.read)
            group.cancel_scope.cancel()
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu, more = used.ru_utime + used.ru_stime, used.ru_maxrss - memory
    print(ended, cpu, first[0] if first else -1, more, flush=True)


async def main(kind: str, root: str, place: str, orders: int) -> None:
    """Do what is asked."""
    if kind == "sqlite":
        async with SqliteJournal(place) as journal:
            await fill(journal, root, orders)
            print(flush=True)  # from now on it is measured
            await work(kind, root, journal, orders)
        return
    async with PostgresJournal(place) as database:
        if kind == "seed":
            await database.create_schema()
            await fill(database, root, orders)
        else:
            print(flush=True)
            await work(kind, root, database, orders)


if __name__ == "__main__":
    _, kind, root, place, orders = sys.argv
    asyncio.run(main(kind, root, place, int(orders)))
