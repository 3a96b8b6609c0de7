"""Run one of several workers: it drives orders to their codes or refunds, and answers each.

It tells the chat of an order the number, and then the code or the refund.

    SMS4SATS_POSTGRES_DSN=postgresql://bot:password@db/bot python examples/worker.py

Start as many as you need, on any number of machines. SIGTERM ends one: it cancels the requests that
are under way, and the others go on with its orders at once.

    pip install '.[postgres]'
"""

import math
import os
import signal

import anyio
from anyio.abc import ObjectReceiveStream

from sms4sats_async import (
    Event,
    JournalError,
    OrderResult,
    OrderState,
    OrderStatus,
    Sms4SatsClient,
    StatusPolled,
)
from sms4sats_async.postgres import PostgresJournal, PostgresScheduler


async def answer(result: OrderResult) -> None:
    """Tell the chat of an order how it ended; a result may come twice after a crash."""
    chat = result.metadata.get("chat", "-")
    if result.code is not None:
        print(f"chat {chat}: code {result.code}", flush=True)
    elif result.refunded:
        print(f"chat {chat}: refunded", flush=True)
    else:
        print(f"chat {chat}: {result.error or 'the message was sent'}", flush=True)


async def answer_all(scheduler: PostgresScheduler, told: set[str]) -> None:
    """Answer each order of this worker."""
    async for result in scheduler.results():
        await answer(result)
        told.discard(result.order_id)


async def tell_numbers(
    journal: PostgresJournal, statuses: ObjectReceiveStream[OrderStatus], told: set[str]
) -> None:
    """Tell each chat its number; after a crash, the next worker tells it again."""
    async for status in statuses:
        if status.state is not OrderState.NUMBER_ASSIGNED or status.order_id in told:
            continue
        try:
            entry = await journal.get(status.order_id)
        except JournalError:
            continue  # the next poll has the number too
        told.add(status.order_id)
        chat = "-" if entry is None else entry.metadata.get("chat", "-")
        print(f"chat {chat}: number {status.number}", flush=True)


async def main() -> None:
    """Work until SIGTERM or SIGINT."""
    told: set[str] = set()  # the pending orders whose chat has the number
    polled, statuses = anyio.create_memory_object_stream[OrderStatus](math.inf)

    def listen(event: Event) -> None:
        if isinstance(event, StatusPolled):
            polled.send_nowait(event.status)

    async with (
        polled,
        statuses,
        PostgresJournal(os.environ["SMS4SATS_POSTGRES_DSN"]) as journal,
        Sms4SatsClient(journal=journal, on_event=listen) as client,
        anyio.create_task_group() as group,
    ):
        scheduler = PostgresScheduler(client)
        group.start_soon(scheduler.run)
        group.start_soon(answer_all, scheduler, told)
        group.start_soon(tell_numbers, journal, statuses, told)
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                group.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
