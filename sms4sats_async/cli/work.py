"""What takes several calls: resuming one order or many."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import anyio

from sms4sats_async import JournalEntry, Order, SendOrder, Sms4SatsError

from .ends import End, ExitCode, end_of, end_of_result
from .facts import facts, in_words, read_invoice, result_facts, shortened, status_in_words
from .session import Session, Stop

# Of several orders that failed, the one that most needs attention decides the exit code.
_WORST_FIRST: Final = (
    ExitCode.UNKNOWN,
    ExitCode.REFUSED,
    ExitCode.UNREACHABLE,
    ExitCode.USAGE,
    ExitCode.DONE,
)
_DEFAULT_TIMEOUT: Final = timedelta(minutes=5)


def check_price(order: Order, limit: int) -> None:
    """Refuse an invoice over a limit in satoshis, or without a readable amount.

    Raises:
        Stop: The invoice is refused. Nothing was paid.
    """
    invoice = read_invoice(order.invoice)
    amount = None if invoice is None else invoice.amount_sat
    if amount is not None and amount <= limit:
        return
    has = "has no readable amount" if amount is None else f"is for {amount:,} sat"
    raise Stop(
        End(
            ExitCode.REFUSED,
            f"The invoice {has}, and the limit is {limit:,} sat. Nothing was paid.",
            "An order that is not paid ends automatically.",
        )
    )


def time_left(entry: JournalEntry, timeout: timedelta | None, now: datetime) -> timedelta:
    """Return how long to wait for the code of an order that is resumed.

    Args:
        entry: What the journal has of it.
        timeout: How old the order may get, if that was given; None: the recorded deadline.
        now: The time.
    """
    deadline = entry.created_at + (_DEFAULT_TIMEOUT if timeout is None else timeout)
    if timeout is None and entry.code_deadline is not None:
        deadline = entry.code_deadline
    return max(deadline - now, timedelta(0))


async def resume(
    session: Session, entries: Sequence[JournalEntry], timeout: timedelta | None
) -> None:
    """Resume orders, all at the same time; show how each ended.

    Raises:
        Stop: Some did not end; each was shown.
    """
    ends: list[End] = []

    async def one(order: Order, entry: JournalEntry) -> None:
        try:
            if isinstance(order, SendOrder) and entry.pending:
                found = await session.client.get_order_status(order)
                known, message = facts(found), status_in_words(found)
            else:
                left = time_left(entry, timeout, session.now())
                result = await session.client.code_or_refund(order, timeout=left)
                known, message = result_facts(result), end_of_result(result).message
        except Sms4SatsError as error:
            ends.append(end_of(error))
            session.out.end(ends[-1], order.order_id)
        else:
            session.out.show(known, f"{shortened(order.order_id)}  {in_words(message)}")

    try:
        async with anyio.create_task_group() as group:
            for order, entry in [(it.order, it) for it in entries if it.order is not None]:
                group.start_soon(one, order, entry)
    except ExceptionGroup as several:
        raise several.exceptions[0] from several
    if ends:
        worst = min(ends, key=lambda end: _WORST_FIRST.index(end.code))
        problem = f"{len(ends)} of {len(entries)} orders did not end."
        raise Stop(End(worst.code, problem, "`sms4sats pending` lists the open orders."))
