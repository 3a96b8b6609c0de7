"""A Telegram bot that sells codes: aiogram 3, one order for each chat.

    /code germany tg   order a number; the bot shows the invoice to pay
    /cancel            stop waiting for the code and get a refund

A scheduler drives all orders. The bot tells each customer the number, and then the code or the
refund. If the bot stops or dies, its next start goes on with each order: the journal has its
deadline, and its chat in the metadata. A customer may then get a message twice, but always gets it.

    pip install . aiogram
    TELEGRAM_BOT_TOKEN=... python examples/telegram_bot.py
"""

import logging
import math
import os
from collections.abc import Callable

import anyio
from aiogram import Bot, Dispatcher
from aiogram.exceptions import TelegramAPIError, TelegramNetworkError, TelegramServerError
from aiogram.filters import Command, CommandObject
from aiogram.types import Message
from anyio.abc import ObjectReceiveStream

from sms4sats_async import (
    Event,
    OrderResult,
    OrderScheduler,
    OrderStatus,
    Sms4SatsClient,
    Sms4SatsError,
    SqliteJournal,
    StatusPolled,
)

WAIT = 300.0  # seconds for the code, from the order on
PAUSE = 5.0  # seconds before a message is sent again, if Telegram is down

log = logging.getLogger("bot")


class CodeBot:
    """Handles the two commands, and tells customers how their orders end."""

    def __init__(
        self, bot: Bot, client: Sms4SatsClient, journal: SqliteJournal, scheduler: OrderScheduler
    ) -> None:
        self._bot = bot
        self._client = client
        self._journal = journal
        self._scheduler = scheduler
        self._orders: dict[int, str] = {}  # order IDs by chat; empty while an order is created
        self._numbers: dict[str, str] = {}  # numbers that the customers know, by order ID
        self.dispatcher = Dispatcher()
        self.dispatcher.message.register(self.code, Command("code"))
        self.dispatcher.message.register(self.cancel, Command("cancel"))

    async def load(self) -> None:
        """Read which orders an earlier process left."""
        for entry in await self._journal.pending(self._client.base_url):
            if entry.order_id is not None and "chat" in entry.metadata:
                self._orders[int(entry.metadata["chat"])] = entry.order_id

    async def code(self, message: Message, command: CommandObject) -> None:
        """Order a number."""
        chat = message.chat.id
        match (command.args or "").split():
            case [country, service] if chat not in self._orders:
                self._orders[chat] = ""
                try:
                    await self._order(message, country, service)
                except Sms4SatsError as error:
                    await message.answer(str(error))
                finally:
                    if self._orders.get(chat) == "":
                        del self._orders[chat]
            case [_, _]:
                await message.answer("One order at a time. /cancel ends the other one.")
            case _:
                await message.answer("Which country, and which service? Such as: /code germany tg")

    async def _order(self, message: Message, country: str, service: str) -> None:
        where = int(country) if country.isdecimal() else country
        chat = message.chat.id
        # Should the bot die here, the next one knows the chat by the metadata.
        order = await self._client.create_order(where, service, metadata={"chat": str(chat)})
        self._orders[chat] = order.order_id
        await self._scheduler.add(order, timeout=WAIT)
        await message.answer(f"Order {order.order_id}. Please pay within 5 minutes:")
        await message.answer(order.invoice)

    async def cancel(self, message: Message) -> None:
        """Stop waiting for the code."""
        if order_id := self._orders.get(message.chat.id):
            await self._scheduler.add(order_id, timeout=0)
            await message.answer(
                "I cancel the order as soon as the service allows it, 2 minutes after the order. "
                "If the code arrives first, you get the code."
            )
        else:
            await message.answer("You have no order.")

    async def tell_numbers(self, statuses: ObjectReceiveStream[OrderStatus]) -> None:
        """Tell each customer the number, once."""
        async for status in statuses:
            chats = [chat for chat, order in self._orders.items() if order == status.order_id]
            if status.number is not None and status.order_id not in self._numbers:
                self._numbers[status.order_id] = status.number
                for chat in chats:
                    await self._send(chat, f"Your number: {status.number}")

    async def tell_results(self) -> None:
        """Tell each customer how the order ended.

        A result counts as delivered when the loop asks for the next one. If the bot dies while it
        sends the message, the next bot sends it again.
        """
        async for result in self._scheduler.results():
            if "chat" not in result.metadata:
                continue  # another program's order
            chat = int(result.metadata["chat"])
            if self._orders.get(chat) == result.order_id:
                del self._orders[chat]
            self._numbers.pop(result.order_id, None)
            await self._send(chat, describe(result))

    async def _send(self, chat: int, text: str) -> None:
        while True:
            try:
                await self._bot.send_message(chat, text)
            except (TelegramNetworkError, TelegramServerError):
                await anyio.sleep(PAUSE)
            except TelegramAPIError as error:  # such as a customer who has blocked the bot
                log.error("a message cannot be sent: %s", error)  # noqa: TRY400 - it has all facts
                return
            else:
                return


def describe(result: OrderResult) -> str:
    """Return what a customer reads about the end of an order."""
    if result.code is not None:
        return f"Your code: {result.code}"
    if result.refunded:
        return "No code arrived, and the order is cancelled. The service refunds what you paid."
    return (
        "No code arrived, and the service has not confirmed the refund. Ask the service about your "
        f"order {result.order_id}."
    )


async def run(
    bot: Bot, journal_path: str, connect: Callable[..., Sms4SatsClient] = Sms4SatsClient
) -> None:
    """Run the bot until Ctrl-C or SIGTERM. A test passes its own `connect`."""
    found, statuses = anyio.create_memory_object_stream[OrderStatus](math.inf)

    def listen(event: Event) -> None:
        if isinstance(event, StatusPolled):
            found.send_nowait(event.status)

    async with (
        bot,
        SqliteJournal(journal_path) as journal,
        connect(journal=journal, on_event=listen) as client,
        found,
        statuses,
        anyio.create_task_group() as group,
    ):
        # `timeout` is for an order that was created just before a crash.
        scheduler = OrderScheduler(client, timeout=WAIT)
        code_bot = CodeBot(bot, client, journal, scheduler)
        await code_bot.load()
        group.start_soon(scheduler.run)
        group.start_soon(code_bot.tell_numbers, statuses)
        group.start_soon(code_bot.tell_results)
        start = code_bot.dispatcher.start_polling  # pyright: ignore - aiogram's types
        await start(bot, close_bot_session=False)
        group.cancel_scope.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    token, path = os.environ["TELEGRAM_BOT_TOKEN"], os.environ.get("SMS4SATS_JOURNAL")
    anyio.run(run, Bot(token), path or "bot.sqlite3")
