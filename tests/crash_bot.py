"""A small bot that is killed: tests/test_crash.py starts it as a process of its own.

    python crash_bot.py ROOT JOURNAL SPEED EPOCH ORIGIN ORDERS SEED

It takes up what the journal holds, makes ORDERS more, and ends when nothing is pending. What it is
about to do it says on standard output, and where the others could not tell where it stood, it stays
there for a moment:

    ASK              create_order() is called       ACK <order id>   it has returned
    AT answered      before the order is recorded   AT waiting       for the code
    AT cancelling    the cancel is claimed          AT cancelled     before that is recorded
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
    CancelOutcome,
    CancelScheduler,
    CodeTimeoutError,
    Event,
    JournalChange,
    JournalEntry,
    OrderError,
    RetryPolicy,
    Sms4SatsClient,
    Sms4SatsError,
    SqliteJournal,
    StatusPolled,
)

HERE_FOR = 0.02
"""Real seconds that it stays where it is about to write."""


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
            await anyio.sleep(HERE_FOR)
        if after is not None and after.outcome is CancelOutcome.CANCELLED:
            say("AT cancelled")
            await anyio.sleep(HERE_FOR)
        result = await self._journal.update(changes)
        if after is not None and after.pending and after.claimed_by is not None:
            say("AT cancelling")
        return result


def tell(event: Event) -> None:
    if isinstance(event, StatusPolled):
        say("AT waiting")


async def one_order(client: Sms4SatsClient, scheduler: CancelScheduler, how: int) -> None:
    say("ASK")
    try:
        if how % 2:
            order = await client.create_order(187, "tg")
            say("ACK", order.order_id)
            await scheduler.schedule(order)
            return
        async with client.open_order(187, "tg", scheduler=scheduler) as opened:
            say("ACK", opened.order_id)
            await opened.wait_for_code(timeout=60 + how)
    except (OrderError, CodeTimeoutError):
        pass  # it has ended, or the money is back
    except Sms4SatsError as error:
        print(repr(error), file=sys.stderr)


async def end_on_sigterm(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


async def main(root: str, path: str, *numbers: str) -> None:
    speed, epoch, origin, orders, seed = map(float, numbers)
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
        scheduler = CancelScheduler(client, concurrency=4)
        group.start_soon(scheduler.run)
        async with anyio.create_task_group() as making:
            for _ in range(int(orders)):
                making.start_soon(one_order, client, scheduler, draw.randrange(100))
                await clock.sleep(draw.uniform(0, 30))
        while await journal.pending():
            await clock.sleep(1)
        group.cancel_scope.cancel()
    say("END", datetime.fromtimestamp(clock.now()).astimezone().isoformat())


if __name__ == "__main__":
    try:
        anyio.run(partial(main, *sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
