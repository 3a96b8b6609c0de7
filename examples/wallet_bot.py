"""A bot that buys codes and pays for them with Nostr Wallet Connect, such as from Alby Hub.

    export SMS4SATS_NWC_URI='nostr+walletconnect://...'
    python examples/wallet_bot.py 187/tg germany/wa --max-price 5000

It prints the number of each order: type it where you want the code. Then it prints the code or the
refund. If it is interrupted, its next start cancels the orders that are pending, and prints their
codes or refunds. The budget of the connection limits what it can spend, so set one in the wallet.

    pip install '.[nwc]'
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial

import anyio

from sms4sats_async import (
    Event,
    OrderCreated,
    OrderResult,
    Sms4SatsClient,
    Sms4SatsError,
    SqliteJournal,
    StatusPolled,
)
from sms4sats_async.wallets import NwcWallet, Wallet

WAIT = 300.0  # seconds for a code


async def buy(client: Sms4SatsClient, wallet: Wallet, place: str, max_price_sat: int) -> None:
    """Order a code, pay for it, and print the code or the refund."""
    country, _, service = place.partition("/")
    try:
        result = await client.receive_code(
            int(country) if country.isdecimal() else country,
            service,
            pay=wallet,
            timeout=WAIT,
            max_price_sat=max_price_sat,
            metadata={"place": place},
        )
    except Sms4SatsError as error:
        print(f"{place}: {error}")
    else:
        report(result)


def report(result: OrderResult) -> None:
    """Print how an order ended."""
    place = result.metadata.get("place", "an order")
    print(f"{place}: {result.code or f'no code, money {result.money.value}'}")


async def run(
    places: Sequence[str],
    wallet: Wallet,
    *,
    max_price_sat: int,
    journal_path: str,
    connect: Callable[..., Sms4SatsClient] = Sms4SatsClient,
) -> None:
    """Finish earlier orders, then buy a code for each place; a test passes its own `connect`."""
    numberless: dict[str, str] = {}  # the places whose number was not shown yet, by order ID

    def show_number(event: Event) -> None:
        match event:
            case OrderCreated(order=order):
                numberless[order.order_id] = order.metadata["place"]
            case StatusPolled(status=status) if status.number is not None:
                if place := numberless.pop(status.order_id, None):
                    print(f"{place}: number {status.number}", flush=True)
            case _:
                pass

    async with (
        wallet,
        SqliteJournal(journal_path) as journal,
        connect(journal=journal, on_event=show_number) as client,
    ):
        pending = [entry.order for entry in await journal.pending(client.base_url)]
        async for result in client.cancel_orders(filter(None, pending)):
            report(result)
        async with anyio.create_task_group() as group:
            for place in places:
                group.start_soon(buy, client, wallet, place, max_price_sat)


def main() -> int:
    """Read the command line and run; return the exit code."""
    parser = argparse.ArgumentParser(description="Buy codes with Nostr Wallet Connect.")
    parser.add_argument("places", nargs="*", metavar="COUNTRY/SERVICE")
    parser.add_argument("--max-price", type=int, required=True, help="satoshis for each code")
    parser.add_argument("--journal", default=os.environ.get("SMS4SATS_JOURNAL", "orders.sqlite3"))
    asked = parser.parse_args()
    wallet = NwcWallet(os.environ["SMS4SATS_NWC_URI"], max_fee_sat=None)
    limits = {"max_price_sat": asked.max_price, "journal_path": asked.journal}
    try:
        anyio.run(partial(run, asked.places, wallet, **limits))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
