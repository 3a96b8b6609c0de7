"""Run one of several workers: it drives orders to their codes or refunds, and answers each.

    SMS4SATS_POSTGRES_DSN=postgresql://bot:password@db/bot python examples/worker.py

Start as many as you need, on any number of machines. SIGTERM ends one: it cancels the requests that
are under way, and the others go on with its orders at once.

    pip install 'sms4sats-async[postgres]'
"""

import os
import signal

import anyio

from sms4sats_async import OrderResult, Sms4SatsClient
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


async def answer_all(scheduler: PostgresScheduler) -> None:
    """Answer each order of this worker."""
    async for result in scheduler.results():
        await answer(result)


async def main() -> None:
    """Work until SIGTERM or SIGINT."""
    async with (
        PostgresJournal(os.environ["SMS4SATS_POSTGRES_DSN"]) as journal,
        Sms4SatsClient(journal=journal) as client,
        anyio.create_task_group() as group,
    ):
        scheduler = PostgresScheduler(client)
        group.start_soon(scheduler.run)
        group.start_soon(answer_all, scheduler)
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                group.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
