"""A worker that is killed, stopped or cut off: tests/test_postgres_faults.py starts several.

    python postgres_worker.py NAME ROOT SCHEMA SPEED EPOCH ORIGIN AHEAD ALONE

It runs until SIGTERM, or until its standard input ends with the test. SMS4SATS_POSTGRES_DSN names
the database. AHEAD is by how many seconds its clock is wrong. With ALONE, it cannot see
the processes of the others, as on a machine of its own. On standard output it says READY, and
RESULT <order id> <outcome> <code>. A cancel has a header that says until when its claim lasts.
"""

import os
import signal
import sys
import threading
import time
from contextvars import ContextVar
from functools import partial

import anyio
import httpx

from sms4sats_async import RetryPolicy, Sms4SatsClient, _process
from sms4sats_async._orders import steps
from sms4sats_async.journal import recorder
from sms4sats_async.postgres import PostgresJournal, PostgresScheduler
from sms4sats_async.postgres import journal as journals
from sms4sats_async.postgres import scheduler as schedulers
from tests.crash_bot import SharedClock, say, words_of

CLAIMED = ContextVar("CLAIMED", default=0.0)
"""Until when the order is claimed whose cancel is sent."""


async def handle(scheduler: PostgresScheduler) -> None:
    async for result in scheduler.results():
        say("RESULT", *words_of(result))


async def sign(name: str, ahead: float, request: httpx.Request) -> None:
    request.headers.update({"X-Worker": name, "X-Claimed": repr(CLAIMED.get() - ahead)})


def watch_claims() -> None:
    cancel = steps._cancel  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]

    async def watched(context: steps.OrderContext, order: steps.DrivenOrder) -> None:
        CLAIMED.set(order.claimed_until)
        await cancel(context, order)

    steps._cancel = watched  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def end_with_the_test() -> None:
    sys.stdin.read()
    os._exit(1)


async def main(name: str, root: str, schema: str, *numbers: str) -> None:
    threading.Thread(target=end_with_the_test, daemon=True).start()
    dsn = os.environ.pop("SMS4SATS_POSTGRES_DSN")
    speed, epoch, origin, ahead, alone = map(float, numbers)
    if ahead:
        real = time.time
        time.time = lambda: real() + ahead
    if alone:
        _process._machine = lambda: name  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    watch_claims()
    # What is measured in real time runs as fast as the clock.
    recorder._BOUND = 1.0  # type: ignore[misc] # noqa: SLF001
    journals._OUTAGE = journals._LONGEST_DELAY = 0.2  # type: ignore[misc] # noqa: SLF001
    schedulers._SWEEP /= speed  # type: ignore[misc] # noqa: SLF001
    schedulers._LOOK /= speed  # type: ignore[misc] # noqa: SLF001
    async with (
        PostgresJournal(dsn, schema=schema) as journal,
        httpx.AsyncClient(event_hooks={"request": [partial(sign, name, ahead)]}) as http_client,
        Sms4SatsClient(
            base_url=root,
            clock=SharedClock(speed, epoch + ahead, origin),
            journal=journal,
            http_client=http_client,
            retry=RetryPolicy(initial_delay=1, maximum_delay=2),
        ) as client,
        anyio.create_task_group() as group,
    ):
        scheduler = PostgresScheduler(client)
        group.start_soon(scheduler.run)
        group.start_soon(handle, scheduler)
        say("READY")
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                group.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(partial(main, *sys.argv[1:]))
