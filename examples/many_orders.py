"""Order many codes at once, and write a line for each: the code, or what became of the money.

    python examples/many_orders.py 187/tg germany/wa --wait 300 > codes.csv

The invoices are shown on stderr; pay them with any wallet. A script that is broken
off leaves its orders in the journal: run it again, with or without new orders, and it
asks for their money back.

    pip install sms4sats-async
"""

import argparse
import csv
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial

import anyio

from sms4sats_async import (
    OrderRefundedError,
    Sms4SatsClient,
    Sms4SatsError,
    SqliteJournal,
)


class Batch:
    """Many orders of one client; `failed` counts those that ended otherwise than they should."""

    def __init__(self, client: Sms4SatsClient, journal: SqliteJournal) -> None:
        self.failed = 0
        self._client = client
        self._journal = journal
        self._table = csv.writer(sys.stdout)
        self._table.writerow(["country", "service", "code", "number", "money"])

    async def get_code(self, country: int | str, service: str, wait: float) -> None:
        """Get one code; an order without one is left to `ask_back`."""
        try:
            order = await self._client.create_order(country, service)
        except Sms4SatsError as error:
            self._fail(country, service, error)
            return
        print(f"{country}/{service}: {order.payreq}", file=sys.stderr)
        try:
            status = await self._client.wait_for_code(order, timeout=wait)
        except OrderRefundedError:
            self._table.writerow([country, service, "", "", "returned"])
        except Sms4SatsError as error:
            print(f"{country}/{service}: {error}", file=sys.stderr)
        else:
            self._table.writerow([country, service, status.code, status.number, "spent"])

    async def ask_back(self) -> None:
        """Ask for the money of each order that has no code, those of earlier runs included."""
        entries = {entry.order_id: entry for entry in await self._journal.pending()}
        orders = [entry.order for entry in entries.values() if entry.order is not None]
        async for result in self._client.cancel_orders(orders):
            entry = entries[result.order_id]
            if result.error is not None:
                self._fail(entry.country, entry.service, result.error)
            else:
                number = None if result.status is None else result.status.number
                money = "returned" if result.funds_returned else "spent"
                row = [entry.country, entry.service, result.code, number, money]
                self._table.writerow(row)

    def _fail(self, country: int | str | None, service: str | None, error: Sms4SatsError) -> None:
        self.failed += 1
        self._table.writerow([country, service, "", "", str(error)])


async def run(
    places: Sequence[tuple[int | str, str]],
    *,
    wait: float,
    journal_path: str,
    connect: Callable[..., Sms4SatsClient] = Sms4SatsClient,
) -> int:
    """Order a code for each place, and return how many failed; a test hands `connect` in."""
    async with SqliteJournal(journal_path) as journal, connect(journal=journal) as client:
        batch = Batch(client, journal)
        async with anyio.create_task_group() as group:
            for country, service in places:
                group.start_soon(batch.get_code, country, service, wait)
        await batch.ask_back()
    return batch.failed


def place(text: str) -> tuple[int | str, str]:
    """Read `187/tg` or `germany/tg`."""
    country, slash, service = text.partition("/")
    if not (country and slash and service):
        raise argparse.ArgumentTypeError(f"{text!r} is not COUNTRY/SERVICE, such as 187/tg")
    return int(country) if country.isdecimal() else country, service


def main() -> int:
    """Read the command line and run; return the exit code."""
    parser = argparse.ArgumentParser(description="Order many codes at once.")
    parser.add_argument("places", nargs="*", type=place, metavar="COUNTRY/SERVICE")
    parser.add_argument("--wait", type=float, default=300.0, help="seconds to wait for a code")
    parser.add_argument("--journal", default=os.environ.get("SMS4SATS_JOURNAL", "orders.sqlite3"))
    asked = parser.parse_args()
    run_it = partial(run, asked.places, wait=asked.wait, journal_path=asked.journal)
    try:
        return 1 if anyio.run(run_it) else 0
    except KeyboardInterrupt:
        print("Run it again, and it asks for the money back.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
