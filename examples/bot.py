"""Create an order for a chat, and leave it to the workers (examples/worker.py).

SMS4SATS_POSTGRES_DSN=postgresql://bot:password@db/bot python examples/bot.py 42 germany tg

pip install '.[postgres]'
"""

import os
import sys

import anyio

from sms4sats_async import Sms4SatsClient
from sms4sats_async.postgres import PostgresJournal, PostgresScheduler


async def main(chat: str, country: str, service: str) -> None:
    """Create one order, show its invoice, and add it."""
    async with (
        PostgresJournal(os.environ["SMS4SATS_POSTGRES_DSN"]) as journal,
        Sms4SatsClient(journal=journal) as client,
    ):
        order = await client.create_order(country, service, metadata={"chat": chat})
        await PostgresScheduler(client).add(order, timeout=600)  # wait ten minutes for the code
        print(f"chat {chat}: please pay {order.invoice}")


if __name__ == "__main__":
    chat, country, service = sys.argv[1:]
    anyio.run(main, chat, country, service)
