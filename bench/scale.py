"""Many orders that are due at the same moment, cancelled some at a time, from a fresh process.

Started by run.py as `scale.py KIND ROOT ORDERS`. It writes one line of four numbers:

- how many orders were cancelled
- the seconds by the wall from the moment they were due
- the seconds of CPU, with all that came before
- the longest time for which the event loop did nothing else, in seconds
"""

import asyncio
import secrets
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from functools import partial

import aiohttp
import anyio
import httpx
from burst import LagMeter

from sms4sats_async import (
    MINIMUM_CANCEL_AGE,
    OrderOutcome,
    OrderScheduler,
    ReceiveOrder,
    Sms4SatsClient,
)

CONCURRENCY = 100
WAIT = 3.0
"""Seconds until the orders are due: time to arm them in."""


CancelAll = Callable[[list[ReceiveOrder]], Awaitable[int]]


@asynccontextmanager
async def by_hand(root: str) -> AsyncGenerator[CancelAll]:
    """Do what a careful user would write: a task for each order, a limiter, and httpx."""
    limiter = anyio.CapacityLimiter(CONCURRENCY)
    cancelled = 0

    async def one(client: httpx.AsyncClient, order: ReceiveOrder) -> None:
        nonlocal cancelled
        due = (order.created_at + MINIMUM_CANCEL_AGE).timestamp()
        await anyio.sleep(due - time.time())
        async with limiter:
            answer = await client.get(f"{root}/cancelorder", params={"orderId": order.order_id})
        cancelled += answer.json()["status"] == "OK"

    async with httpx.AsyncClient() as client:

        async def cancel_all(orders: list[ReceiveOrder]) -> int:
            async with anyio.create_task_group() as group:
                for order in orders:
                    group.start_soon(one, client, order)
            return cancelled

        yield cancel_all


async def schedule_all(client: Sms4SatsClient, orders: list[ReceiveOrder]) -> int:
    """Add the orders to a scheduler, and count how many it cancels."""
    scheduler = OrderScheduler(client, concurrency=CONCURRENCY)
    cancelled = 0
    async with anyio.create_task_group() as group:
        results = scheduler.results()
        group.start_soon(scheduler.run)
        for order in orders:
            due = order.created_at + MINIMUM_CANCEL_AGE
            await scheduler.add(order, not_before=due)  # no polls before: the cancels are measured
        for _ in orders:
            result = await anext(results)
            cancelled += result.outcome is OrderOutcome.CANCELLED
        group.cancel_scope.cancel()
    return cancelled


@asynccontextmanager
async def own(root: str) -> AsyncGenerator[CancelAll]:
    """Use the client's own connections."""
    async with Sms4SatsClient(base_url=root) as client:
        yield partial(schedule_all, client)


@asynccontextmanager
async def over_aiohttp(root: str) -> AsyncGenerator[CancelAll]:
    """Use a session of aiohttp's."""
    async with (
        aiohttp.ClientSession() as session,
        Sms4SatsClient(base_url=root, http_client=session) as client,
    ):
        yield partial(schedule_all, client)


KINDS: dict[str, Callable[[str], AbstractAsyncContextManager[CancelAll]]] = {
    "by hand": by_hand,
    "own": own,
    "aiohttp": over_aiohttp,
}


async def main(kind: str, root: str, orders: int) -> None:
    """Cancel them all, and write the result."""
    async with KINDS[kind](root) as cancel_all:
        due = time.time() + WAIT
        created_at = datetime.fromtimestamp(due, UTC) - MINIMUM_CANCEL_AGE
        made = [ReceiveOrder(secrets.token_hex(32), "", created_at) for _ in range(orders)]
        meter = LagMeter()
        measuring = asyncio.create_task(meter.run())
        await asyncio.sleep(0.1)
        cpu = time.process_time()
        cancelled = await cancel_all(made)
        wall, cpu = time.time() - due, time.process_time() - cpu
        await asyncio.sleep(0.1)  # for a stall at the end
        measuring.cancel()
    print(cancelled, wall, cpu, meter.longest_stall, flush=True)


if __name__ == "__main__":
    _, kind, root, orders = sys.argv
    asyncio.run(main(kind, root, int(orders)))
