"""A Telegram bot that hands out codes, or the money back: aiogram 3, one order for each chat.

    /code germany tg   orders a number, and shows the invoice to pay
    /back              no code wanted any more: asks for the money back
    /resume <id>       takes an order up again, after the bot was started anew

While the bot runs, each order is an `async with`: however it is left, the money is
asked back unless the code came. A bot that is stopped leaves young orders in the
journal, and its next start gives their money back.

    pip install sms4sats-async aiogram
    TELEGRAM_BOT_TOKEN=... python examples/telegram_bot.py
"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress

import anyio
from aiogram import Bot, Dispatcher
from aiogram.exceptions import TelegramAPIError
from aiogram.filters import Command, CommandObject
from aiogram.types import Message
from anyio.abc import TaskGroup

from sms4sats_async import (
    CancelScheduler,
    CodeTimeoutError,
    OpenOrder,
    OrderRefundedError,
    Sms4SatsClient,
    Sms4SatsError,
    SqliteJournal,
)

PATIENCE = 300.0  # seconds that a code may take once there is a number
MONEY_BACK = "No code. The money is on its way back to your wallet."

log = logging.getLogger("bot")


class CodeBot:
    """Answers the three commands; what takes minutes runs in `group`."""

    def __init__(
        self,
        client: Sms4SatsClient,
        journal: SqliteJournal,
        scheduler: CancelScheduler,
        group: TaskGroup,
    ) -> None:
        self._client = client
        self._journal = journal
        self._scheduler = scheduler
        self._group = group
        self._waiting: dict[int, anyio.CancelScope] = {}  # by chat
        self.dispatcher = Dispatcher()
        self.dispatcher.message.register(self.code, Command("code"))
        self.dispatcher.message.register(self.back, Command("back"))
        self.dispatcher.message.register(self.resume, Command("resume"))

    async def code(self, message: Message, command: CommandObject) -> None:
        """Order a number."""
        match (command.args or "").split():
            case [country, service]:
                where = int(country) if country.isdecimal() else country
                order = self._client.open_order(where, service, scheduler=self._scheduler)
                await self._begin(message, order)
            case _:
                await message.answer("Which country, and which service? Such as: /code germany tg")

    async def resume(self, message: Message, command: CommandObject) -> None:
        """Take an order up again."""
        entry = await self._journal.get((command.args or "").strip())
        if entry is None or entry.order is None:
            await message.answer("Which order? Its id stood above the invoice.")
        else:
            order = self._client.resume(entry.order, scheduler=self._scheduler)
            await self._begin(message, order)

    async def back(self, message: Message) -> None:
        """Stop waiting for the code."""
        if message.chat.id in self._waiting:
            self._waiting[message.chat.id].cancel()
        else:
            await message.answer("You have no order with me.")

    async def _begin(self, message: Message, order: OpenOrder) -> None:
        if message.chat.id in self._waiting:
            await message.answer("One order at a time; /back ends the other.")
            return
        self._waiting[message.chat.id] = anyio.CancelScope()
        # Not in the handler: aiogram neither cancels its handlers nor waits for them at the end.
        self._group.start_soon(self._serve, message, order)

    async def _serve(self, message: Message, order: OpenOrder) -> None:
        """See one order through, and tell the customer how it ended."""
        try:
            await message.answer(await self._outcome(message, order))
        except TelegramAPIError as error:
            log.error("a customer cannot be told: %s", error)  # noqa: TRY400 - it says all
        finally:
            del self._waiting[message.chat.id]

    async def _outcome(self, message: Message, order: OpenOrder) -> str:
        try:
            async with order:
                await message.answer(f"Order {order.order_id}. Please pay within 20 minutes:")
                await message.answer(order.payreq or "(its invoice was not kept)")
                with self._waiting[message.chat.id], suppress(CodeTimeoutError):
                    async for status in self._client.watch_order(order.order):
                        if status.number is not None:
                            await message.answer(f"Your number: {status.number}")
                            break
                    status = await order.wait_for_code(timeout=PATIENCE)
                    return f"Your code: {status.code}"
                await message.answer("I ask for your money back. That may take two minutes.")
        except OrderRefundedError:
            return MONEY_BACK
        except Sms4SatsError as error:
            return str(error)
        done = order.cancellation
        if done is not None and done.status is not None and done.status.code is not None:
            return f"Your code came after all: {done.status.code}"
        return MONEY_BACK


async def run(
    bot: Bot, journal_path: str, connect: Callable[..., Sms4SatsClient] = Sms4SatsClient
) -> None:
    """Run the bot until it is told to stop, by Ctrl-C or SIGTERM; a test hands `connect` in."""
    async with bot, SqliteJournal(journal_path) as journal, connect(journal=journal) as client:
        scheduler = CancelScheduler(client)
        async with anyio.create_task_group() as background:
            background.start_soon(scheduler.run)
            async with anyio.create_task_group() as orders:
                code_bot = CodeBot(client, journal, scheduler, orders)
                start = code_bot.dispatcher.start_polling  # pyright: ignore - aiogram's types
                await start(bot, close_bot_session=False)
                orders.cancel_scope.cancel()
            background.cancel_scope.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    token, path = os.environ["TELEGRAM_BOT_TOKEN"], os.environ.get("SMS4SATS_JOURNAL")
    anyio.run(run, Bot(token), path or "bot.sqlite3")
