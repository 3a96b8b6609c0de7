"""What orders cost that wait for their codes, from a fresh process.

Started by run.py as `polls.py KIND ROOT ORDERS`. It writes one line of five numbers:

- the seconds of CPU
- the longest time for which the event loop did nothing else, in seconds
- the 99th percentile of how late a poll was, in seconds
- the KiB of each order while it waits
- how many orders were not cancelled at the end

The bare kinds send as many requests one after the other.
"""

import asyncio
import gc
import secrets
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import aiohttp
import anyio
import httpx
from burst import LagMeter

from sms4sats_async import (
    Event,
    OrderOutcome,
    OrderScheduler,
    ReceiveOrder,
    Sms4SatsClient,
    StatusPolled,
)

WAIT, START, INTERVAL = 30.0, 5.0, 5.0
LONGEST_INTERVAL = INTERVAL * 1.15
"""Seconds between two polls of an order at most, by design; what is beyond counts as late."""


def report(cpu: float, stall: float, late: float, memory: float, missing: float) -> None:
    """Write the result."""
    print(cpu, stall, late, memory, missing, flush=True)


async def one_after_the_other(get: Callable[[str], Awaitable[object]], orders: int) -> None:
    """Read as many statuses as the scheduler does, one after the other."""
    polls = int(orders * WAIT / INTERVAL)
    order_ids = [secrets.token_hex(32) for _ in range(orders)]
    cpu = time.process_time()
    for number in range(polls):
        await get(order_ids[number % orders])
    report(time.process_time() - cpu, 0.0, 0.0, 0.0, 0.0)


async def bare(root: str, orders: int) -> None:
    """Use httpx."""
    async with httpx.AsyncClient() as client:

        async def get(order_id: str) -> object:
            answer = await client.get(f"{root}/orderstatus", params={"orderId": order_id})
            return answer.json()

        await one_after_the_other(get, orders)


async def bare_aiohttp(root: str, orders: int) -> None:
    """Use aiohttp."""
    async with aiohttp.ClientSession() as session:

        async def get(order_id: str) -> object:
            params = {"orderId": order_id}
            async with session.get(f"{root}/orderstatus", params=params) as answer:
                return await answer.json()

        await one_after_the_other(get, orders)


def new_orders(orders: int) -> list[ReceiveOrder]:
    """Return orders that can be cancelled already, so that their deadlines decide."""
    created_at = datetime.now(UTC) - timedelta(seconds=130)
    return [ReceiveOrder(secrets.token_hex(32), "", created_at) for _ in range(orders)]


async def memory_of_each(client: Sms4SatsClient, orders: int) -> float:
    """Return the KiB that each order takes which was polled and waits, its ID included."""
    made = [order.order_id for order in new_orders(orders)]
    for order_id in made[:100]:  # what the first requests import and keep
        await client.get_order_status(order_id)
    scheduler = OrderScheduler(client)
    held = 0
    gc.collect()
    tracemalloc.start()
    async with anyio.create_task_group() as group:
        group.start_soon(scheduler.run)
        for order_id in made:
            copy = "".join(order_id)  # counted too
            await scheduler.add(copy, timeout=600)
        await anyio.sleep(2 * INTERVAL)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        group.cancel_scope.cancel()
    tracemalloc.stop()
    return held / 1024 / orders


async def scheduled(client: Sms4SatsClient, orders: int, lateness: list[float]) -> None:
    """Drive the orders with a scheduler."""
    made = new_orders(orders)
    scheduler = OrderScheduler(client)
    meter = LagMeter()
    measuring = asyncio.create_task(meter.run())
    await asyncio.sleep(0.1)
    cancelled = 0
    cpu = time.process_time()
    async with anyio.create_task_group() as group:
        results = scheduler.results()
        group.start_soon(scheduler.run)
        begin = time.monotonic()
        for number, order in enumerate(made):
            await anyio.sleep(max(0.0, begin + number * START / orders - time.monotonic()))
            await scheduler.add(order, timeout=WAIT + number % 50 / 10)
        for _ in made:
            result = await anext(results)
            cancelled += result.outcome is OrderOutcome.CANCELLED
        group.cancel_scope.cancel()
    cpu = time.process_time() - cpu
    await asyncio.sleep(0.1)
    measuring.cancel()
    late = sorted(lateness)
    report(cpu, meter.longest_stall, late[int(len(late) * 0.99)], 0.0, orders - cancelled)


def listener(lateness: list[float]) -> Callable[[Event], None]:
    """Return a listener that notes how late each poll is."""
    polled: dict[str, float] = {}

    def on_event(event: Event) -> None:
        if isinstance(event, StatusPolled) and event.order_id is not None:
            now = time.monotonic()
            before = polled.get(event.order_id)
            if before is not None:
                lateness.append(max(0.0, now - before - LONGEST_INTERVAL))
            polled[event.order_id] = now

    return on_event


async def memory(root: str, orders: int) -> None:
    """Measure the memory of waiting orders, apart from the rest: its polls would count there."""
    async with Sms4SatsClient(base_url=root) as client:
        report(0.0, 0.0, 0.0, await memory_of_each(client, orders), 0.0)


async def own(root: str, orders: int) -> None:
    """Use the client's own connections."""
    lateness: list[float] = []
    async with Sms4SatsClient(base_url=root, on_event=listener(lateness)) as client:
        await scheduled(client, orders, lateness)


async def over_aiohttp(root: str, orders: int) -> None:
    """Use an aiohttp session."""
    lateness: list[float] = []
    async with (
        aiohttp.ClientSession() as session,
        Sms4SatsClient(base_url=root, http_client=session, on_event=listener(lateness)) as client,
    ):
        await scheduled(client, orders, lateness)


KINDS: dict[str, Callable[[str, int], Awaitable[None]]] = {
    "bare": bare,
    "bare aiohttp": bare_aiohttp,
    "own": own,
    "memory": memory,
    "aiohttp": over_aiohttp,
}


async def main(kind: str, root: str, orders: int) -> None:
    """Measure one kind."""
    await KINDS[kind](root, orders)


if __name__ == "__main__":
    _, kind, root, orders = sys.argv
    asyncio.run(main(kind, root, int(orders)))
