"""What orders cost that wait: memory, the time to arm them, and how late they are cancelled.

Started by run.py as `armed.py ORDERS SPREAD_ORDERS SECONDS`. It writes one line: the KiB of each
order that waits, its ID included; seconds until that many are armed from a journal in a file;
seconds until that many are handed over and written to one; and then, of orders that are spread over
some seconds, how late the earliest request and the 99th percentile of them arrive, in seconds.
"""

import asyncio
import gc
import secrets
import sys
import tempfile
import time
import tracemalloc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import anyio
from server import answer_to

from sms4sats_async import (
    MINIMUM_CANCEL_AGE,
    OrderScheduler,
    ReceiveOrder,
    Sms4SatsClient,
    SqliteJournal,
)

NOWHERE = "http://127.0.0.1:1"
MEASURED = 10_000
AT_ONCE = 2_000


def new_order(created_at: datetime) -> ReceiveOrder:
    """Return a new order."""
    return ReceiveOrder(secrets.token_hex(32), "", created_at)


async def memory_of_each(client: Sms4SatsClient) -> float:
    """Return the KiB that a scheduler holds for each order."""
    now = datetime.now(UTC)
    scheduler = OrderScheduler(client)
    tracemalloc.start()
    for number in range(MEASURED):
        await scheduler.add(new_order(now + timedelta(milliseconds=number)), timeout=300)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / 1024 / len(scheduler)


async def seconds_to_arm(path: Path, orders: int) -> tuple[float, float]:
    """Return the seconds to record orders in a journal, and to resume them from it."""
    now = datetime.now(UTC)
    made = [new_order(now) for _ in range(orders)]
    async with (
        SqliteJournal(path) as journal,
        Sms4SatsClient(base_url=NOWHERE, journal=journal) as client,
    ):
        begin = time.perf_counter()
        scheduler = OrderScheduler(client)
        # Some at the same time, as a bot's tasks do: the journal writes them in one transaction.
        for first in range(0, orders, AT_ONCE):
            some = made[first : first + AT_ONCE]
            await asyncio.gather(*(scheduler.add(order, timeout=300) for order in some))
        handed_over = time.perf_counter() - begin
    async with (
        SqliteJournal(path) as journal,
        Sms4SatsClient(base_url=NOWHERE, journal=journal) as client,
        anyio.create_task_group() as group,
    ):
        begin = time.perf_counter()
        scheduler = OrderScheduler(client)
        group.start_soon(scheduler.run)
        while len(scheduler) < orders:  # noqa: ASYNC110 - the scheduler tells nobody
            await anyio.sleep(0.01)
        armed = time.perf_counter() - begin
        group.cancel_scope.cancel()
        return armed, handed_over
    raise AssertionError


@asynccontextmanager
async def server(arrived: dict[str, float]) -> AsyncGenerator[str]:
    """Serve in this event loop, and note when the request for each order came."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError), closing(writer):
            while True:
                target = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
                parts = urlsplit(target)
                if parts.path == "/cancelorder":
                    arrived[parse_qs(parts.query)["orderId"][0]] = time.time()
                writer.write(answer_to(parts.path.encode()))

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        await asyncio.sleep(0.1)  # the client is closed: let every connection see that


async def lateness(orders: int, seconds: float) -> list[float]:
    """Return how late the request for each order arrived, sorted."""
    arrived: dict[str, float] = {}
    first = datetime.now(UTC) - MINIMUM_CANCEL_AGE + timedelta(seconds=1)
    made = [
        new_order(first + timedelta(seconds=seconds * number / orders)) for number in range(orders)
    ]
    async with server(arrived) as root, Sms4SatsClient(base_url=root) as client:
        scheduler = OrderScheduler(client)
        async with anyio.create_task_group() as group:
            group.start_soon(scheduler.run)
            results = scheduler.results()
            for order in made:
                await scheduler.add(order)
            for _ in made:
                await anext(results)
            group.cancel_scope.cancel()
    return sorted(
        arrived[order.order_id] - (order.created_at + MINIMUM_CANCEL_AGE).timestamp()
        for order in made
    )


async def main(orders: int, spread_orders: int, seconds: float) -> None:
    """Measure all of it, and write the result."""
    async with Sms4SatsClient(base_url=NOWHERE) as client:
        memory = await memory_of_each(client)
        with tempfile.TemporaryDirectory() as folder:
            armed, handed_over = await seconds_to_arm(Path(folder) / "journal", orders)
    late = await lateness(spread_orders, seconds)
    print(memory, armed, handed_over, late[0], late[int(len(late) * 0.99)], flush=True)


if __name__ == "__main__":
    _, orders, spread_orders, seconds = sys.argv
    asyncio.run(main(int(orders), int(spread_orders), float(seconds)))
