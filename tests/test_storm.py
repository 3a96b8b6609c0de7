"""Two thousand calls, each cancelled a moment after it began: the client is as good as new."""

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator

import anyio
import pytest

from sms4sats_async import Sms4SatsClient
from sms4sats_async._http.retrying import CONNECTIONS
from tests.servers import ORDER_ID, Server, descriptors, eventually, opened, service

# First a few at a time, so that some are answered; then all at once, so that most wait in line.
WAVES = ((1500, 10), (500, 500))
SEED = 20261123

Cancelled = Callable[[Sms4SatsClient, float], Awaitable[None]]


async def by_task(client: Sms4SatsClient, after: float) -> None:
    """Call, cancelled as asyncio's own code does it: natively, in any moment, shield or no."""
    task = asyncio.create_task(client.cancel_order(ORDER_ID))
    asyncio.get_running_loop().call_later(after, task.cancel)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def by_scope(client: Sms4SatsClient, after: float) -> None:
    """Call, cancelled as anyio and Trio do it."""
    with anyio.move_on_after(after):
        await client.cancel_order(ORDER_ID)


async def storm(cancelled: Cancelled) -> None:
    chance = random.Random(SEED)  # noqa: S311 - the same storm every time
    longest = 0.01
    done = 0
    sockets = descriptors()

    async def caller(client: Sms4SatsClient, calls: int) -> None:
        for _ in range(calls):
            await cancelled(client, chance.uniform(0.0001, longest))

    async def normal(client: Sms4SatsClient) -> None:
        nonlocal done
        assert (await client.cancel_order(ORDER_ID)).refunded
        done += 1

    with Server(service(after=lambda: chance.uniform(0, 0.01))) as server:
        async with opened("own", server.url, timeout=10) as client:
            with anyio.fail_after(30):
                # Where everything takes longer, under coverage say, the storm does too.
                began = time.monotonic()
                for _ in range(5):
                    await client.ping()
                longest = max(longest, (time.monotonic() - began) / 2)
                for calls, callers in WAVES:
                    async with anyio.create_task_group() as group:
                        for _ in range(callers):
                            group.start_soon(caller, client, calls // callers)
                # It struck in every phase of a call: some had arrived, and some had not.
                assert 30 < len(server.seen) < 2000
                await eventually(lambda: server.open <= CONNECTIONS)
                async with anyio.create_task_group() as group:
                    for _ in range(200):
                        group.start_soon(normal, client)
            assert done == 200
            await eventually(lambda: server.open <= CONNECTIONS)
        await server.settled()
    await eventually(lambda: descriptors() == sockets)


@pytest.fixture(autouse=True)
def _quick_turns() -> Iterator[None]:
    """Let the server's thread have its turn sooner than 5 ms after it asks for it."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.asyncio
async def test_a_storm_of_cancelled_tasks_leaves_the_client_as_good_as_new() -> None:
    before = asyncio.all_tasks()
    await storm(by_task)
    assert asyncio.all_tasks() == before


@pytest.mark.anyio
async def test_a_storm_of_cancelled_scopes_leaves_the_client_as_good_as_new() -> None:
    await storm(by_scope)
