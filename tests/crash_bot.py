"""A small bot that is killed: tests/test_crash.py starts it as a process of its own.

    python crash_bot.py ROOT JOURNAL SPEED EPOCH ORIGIN ORDERS SEED WAIT

It resumes what the journal has, creates ORDERS more, and waits WAIT seconds for the code of each, a
random time if that is 0. It ends when no order is pending and every result was handled. On standard
output it says what it is about to do. Where only that shows what it does, it pauses:

- ASK: create_order() is called. ACK <order ID> <driver>: it has returned.
- AT answered: before the order is recorded. AT waiting: for the code.
- AT claimed: an order is claimed. AT cancelled: before that is recorded.
- RESULT <id> <outcome> <code> <name>: a result comes. HANDLED <id>: the loop's body has ended.
"""

import random
import signal
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from functools import partial

import anyio

from sms4sats_async import (
    CodeTimeoutError,
    Event,
    JournalChange,
    JournalEntry,
    OrderError,
    OrderOutcome,
    OrderResult,
    OrderScheduler,
    RetryPolicy,
    Sms4SatsClient,
    Sms4SatsError,
    SqliteJournal,
    StatusPolled,
)

PAUSE = 0.02
"""Real seconds of a pause before a write, and of the handling of a result."""


class SharedClock:
    """A clock that runs faster, and shows the same in every process of this machine."""

    def __init__(self, speed: float, epoch: float, origin: float) -> None:
        self.speed, self._epoch, self._origin = speed, epoch, origin

    def now(self) -> float:
        return self._epoch + self.monotonic()

    def monotonic(self) -> float:
        return (time.monotonic() - self._origin) * self.speed

    async def sleep(self, seconds: float, /) -> None:
        await anyio.sleep(seconds / self.speed)


def say(*words: str) -> None:
    print(*words, flush=True)


class TalkingJournal:
    """A `SqliteJournal` that says what it is about to write."""

    def __init__(self, path: str) -> None:
        self._journal = SqliteJournal(path)
        self.pending = self._journal.pending
        self.undelivered = self._journal.undelivered
        self.get = self._journal.get
        self.history = self._journal.history
        self.prune = self._journal.prune

    async def update(
        self, changes: Sequence[tuple[str, JournalChange]], /
    ) -> Sequence[JournalEntry | None]:
        (reference, change), *_ = changes
        before = await self._journal.get(reference)
        after = change(before)
        if before is None and after is not None and after.order_id is not None:
            say("AT answered")
            await anyio.sleep(PAUSE)
        if (
            after is not None
            and after.outcome is OrderOutcome.CANCELLED
            and after.delivered_at is None
        ):
            say("AT cancelled")
            await anyio.sleep(PAUSE)
        result = await self._journal.update(changes)
        if after is not None and after.pending and after.claimed_by is not None:
            say("AT claimed")
        return result


def tell(event: Event) -> None:
    if isinstance(event, StatusPolled):
        say("AT waiting")


async def one_order(
    client: Sms4SatsClient, scheduler: OrderScheduler, how: int, name: str, wait: float
) -> None:
    say("ASK")
    metadata = {"name": name}
    timeout = wait or 30.0 + 3 * how
    try:
        if how % 3 == 0:
            order = await client.create_order(187, "tg", metadata=metadata)
            say("ACK", order.order_id, "scheduler")
            await scheduler.add(order, timeout=timeout)
        elif how % 3 == 1:
            order = await client.create_order(187, "tg", metadata=metadata)
            say("ACK", order.order_id, "code_or_refund")
            await client.code_or_refund(order, timeout=timeout)
        else:
            opening = client.open_order(187, "tg", scheduler=scheduler, metadata=metadata)
            async with opening as opened:
                say("ACK", opened.order_id, "open_order")
                await opened.wait_for_code(timeout=timeout)
    except (OrderError, CodeTimeoutError):
        pass  # the order has ended, or is cancelled
    except Sms4SatsError as error:
        print(repr(error), file=sys.stderr)


async def handle(scheduler: OrderScheduler, handling: set[str]) -> None:
    async for result in scheduler.results():
        handling.add(result.order_id)
        say("RESULT", *words_of(result))
        await anyio.sleep(PAUSE)
        say("HANDLED", result.order_id)
        handling.discard(result.order_id)


def words_of(result: OrderResult) -> tuple[str, str, str, str]:
    outcome = "UNKNOWN" if result.outcome is None else result.outcome.name
    return result.order_id, outcome, result.code or "-", result.metadata.get("name", "-")


async def end_on_sigterm(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


async def main(root: str, path: str, *numbers: str) -> None:
    speed, epoch, origin, orders, seed, wait = map(float, numbers)
    draw = random.Random(seed)  # noqa: S311 - a test's dice
    clock = SharedClock(speed, epoch, origin)
    journal = TalkingJournal(path)
    async with (
        Sms4SatsClient(
            base_url=root,
            clock=clock,
            journal=journal,
            on_event=tell,
            retry=RetryPolicy(initial_delay=1, maximum_delay=2),
        ) as client,
        anyio.create_task_group() as group,
    ):
        group.start_soon(end_on_sigterm, group.cancel_scope)
        scheduler = OrderScheduler(client, concurrency=4)
        group.start_soon(scheduler.run)
        handling: set[str] = set()
        group.start_soon(handle, scheduler, handling)
        async with anyio.create_task_group() as making:
            for _ in range(int(orders)):
                how, name = draw.randrange(100), f"{draw.randrange(10**9)}"
                making.start_soon(one_order, client, scheduler, how, name, wait)
                await clock.sleep(draw.uniform(0, 30))
        while await journal.pending() or await journal.undelivered() or handling:
            await clock.sleep(1)
        group.cancel_scope.cancel()
    say("END", datetime.fromtimestamp(clock.now()).astimezone().isoformat())


if __name__ == "__main__":
    try:
        anyio.run(partial(main, *sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
