"""Order many codes at once, and write a line for each: the code or the refund.

    python examples/many_orders.py 43/tg germany/wa --wait 300 > codes.csv

The invoices are shown on stderr; pay them with any wallet. Then stderr shows the number of each
order: type it where you want the code. The wait includes the time that you need to pay. If the
script is interrupted, its orders stay in the journal. Run it again, with or without new orders, and
it resumes them.

    pip install .
"""

import argparse
import csv
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import anyio

from sms4sats_async import (
    Event,
    OrderResult,
    OrderScheduler,
    Sms4SatsClient,
    Sms4SatsError,
    SqliteJournal,
    StatusPolled,
)


class Batch:
    """Many orders of one client.

    Attributes:
        failed: How many orders could not be created, or have an unknown end.
        open: How many orders have no result yet.
    """

    def __init__(self, client: Sms4SatsClient, numberless: dict[str, str]) -> None:
        self.failed = 0
        self.open = 0
        self.scheduler = OrderScheduler(client)
        self._client = client
        self._numberless = numberless
        self._running = anyio.CancelScope()
        self._table = csv.writer(sys.stdout)
        self._table.writerow(["country", "service", "code", "number", "end"])

    async def order(self, country: int | str, service: str, wait: float) -> None:
        """Create one order, and let the scheduler drive it."""
        metadata = {"country": str(country), "service": service}
        try:
            order = await self._client.create_order(country, service, metadata=metadata)
        except Sms4SatsError as error:
            self.failed += 1
            self._table.writerow([country, service, "", "", str(error)])
            return
        print(f"{country}/{service}: {order.invoice}", file=sys.stderr)
        self.open += 1
        self._numberless[order.order_id] = "/".join(place_of(metadata))
        await self.scheduler.add(order, timeout=wait)

    async def drive(self) -> None:
        """Drive the orders until each has a result."""
        with self._running:
            await self.scheduler.run()

    async def write_results(self) -> None:
        """Write a line for each result, orders of earlier runs included."""
        if not self.open:
            self._running.cancel()
        async for result in self.scheduler.results():
            self._write(result)
            self.open -= 1
            if not self.open:
                self._running.cancel()  # the loop ends after it has acknowledged this result

    def _write(self, result: OrderResult) -> None:
        if result.outcome is None:
            self.failed += 1
        end = str(result.error) if result.outcome is None else result.outcome.value
        self._table.writerow([*place_of(result.metadata), result.code, result.number, end])


def place_of(metadata: Mapping[str, str]) -> list[str]:
    """Return the country and the service of an order."""
    return [metadata.get(name, "") for name in ("country", "service")]


async def run(
    places: Sequence[tuple[int | str, str]],
    *,
    wait: float,
    journal_path: str,
    connect: Callable[..., Sms4SatsClient] = Sms4SatsClient,
) -> int:
    """Order a code for each place, and return how many failed; a test passes its own `connect`."""
    numberless: dict[str, str] = {}  # the orders whose number was not shown yet

    def show_number(event: Event) -> None:
        if isinstance(event, StatusPolled) and event.status.number is not None:
            shown = numberless.pop(event.status.order_id, None)
            if shown is not None:
                print(f"{shown}: number {event.status.number}", file=sys.stderr)

    async with (
        SqliteJournal(journal_path) as journal,
        connect(journal=journal, on_event=show_number) as client,
    ):
        batch = Batch(client, numberless)
        for entry in await journal.pending(client.base_url):
            batch.open += 1
            numberless[str(entry.order_id)] = "/".join(place_of(entry.metadata))
        batch.open += len(await journal.undelivered(client.base_url))
        async with anyio.create_task_group() as group:
            group.start_soon(batch.drive)
            async with anyio.create_task_group() as ordering:
                for country, service in places:
                    ordering.start_soon(batch.order, country, service, wait)
            await batch.write_results()
        return batch.failed


def place(text: str) -> tuple[int | str, str]:
    """Read `43/tg` or `germany/tg`."""
    country, slash, service = text.partition("/")
    if not (country and slash and service):
        raise argparse.ArgumentTypeError(f"{text!r} is not COUNTRY/SERVICE, such as 43/tg")
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
        print("Run it again, and it resumes the orders.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
