"""Many calls at once from a fresh process, none of whose connections is open yet.

Started by run.py as `burst.py KIND ROOT CALLS`. It writes one line: how many calls succeeded, the
seconds they took by the wall and of CPU, and the longest time for which the event loop stood still.
"""

import asyncio
import os
import secrets
import sys
import time
from collections.abc import Awaitable, Callable

import httpx

from sms4sats_async import Sms4SatsClient

CUT_OFF = 40.0
"""Seconds after which what has not come to an end counts as failed."""

HEARTBEAT = 0.02
"""Seconds between two beats: often enough to see a stall, too seldom to cost CPU."""

Call = Callable[[str], Awaitable[object]]


def own(root: str) -> Call:
    """Return `cancel_order` of a client with default settings."""
    return Sms4SatsClient(base_url=root).cancel_order


def bare(root: str) -> Call:
    """Return the same request by an `httpx.AsyncClient` with default settings."""
    client = httpx.AsyncClient()

    async def call(order_id: str) -> object:
        answer = await client.get(f"{root}/cancelorder", params={"orderId": order_id})
        return answer.json()

    return call


def asleep(_root: str) -> Call:
    """Return a call that only waits for one of 100 places and sleeps: what asyncio itself costs."""
    places = asyncio.Semaphore(100)

    async def call(_order_id: str) -> None:
        async with places:
            await asyncio.sleep(0.05)

    return call


KINDS: dict[str, Callable[[str], Call]] = {"own": own, "bare": bare, "asleep": asleep}


class LagMeter:
    """Measures how late a task of the event loop wakes up."""

    def __init__(self) -> None:
        self.longest_stall = 0.0

    async def run(self) -> None:
        """Measure until the task is cancelled."""
        due = time.perf_counter()
        while True:
            now = time.perf_counter()
            self.longest_stall = max(self.longest_stall, now - due)
            due = now + HEARTBEAT
            await asyncio.sleep(HEARTBEAT)


async def burst(call: Call, calls: int) -> None:
    """Make all calls in one `gather`, write the result, and end the process."""
    succeeded = 0

    async def one(order_id: str) -> None:
        nonlocal succeeded
        await call(order_id)
        succeeded += 1

    order_ids = [secrets.token_hex(32) for _ in range(calls)]
    meter = LagMeter()
    measuring = asyncio.create_task(meter.run())
    await asyncio.sleep(5 * HEARTBEAT)
    wall, cpu = time.perf_counter(), time.process_time()
    everything = asyncio.gather(*map(one, order_ids), return_exceptions=True)
    await asyncio.wait([everything], timeout=CUT_OFF)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    await asyncio.sleep(2 * HEARTBEAT)  # for a stall at the end
    measuring.cancel()
    print(succeeded, wall, cpu, meter.longest_stall, flush=True)
    # Calls that were cut off are not awaited: to cancel hundreds of them can take httpx minutes.
    os._exit(0)


if __name__ == "__main__":
    _, kind, root, calls = sys.argv
    asyncio.run(burst(KINDS[kind](root), int(calls)))
