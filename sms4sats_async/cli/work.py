"""What takes several calls: the code of an order or its money, one by one and many at once."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import anyio

from sms4sats_async import (
    Cancellation,
    CancelOutcome,
    CodeAlreadyReceivedError,
    JournalEntry,
    Order,
    OrderRefundedError,
    SendOrder,
    Sms4SatsError,
)

from . import session as here
from .ends import End, ExitCode, Stage, as_cancellation, end_of
from .facts import ended_facts, facts, in_words, read_invoice, shortened, status_in_words
from .session import Session, Stop

# Of several orders that failed, the one that most needs somebody to look decides.
_WORST_FIRST: Final = (
    ExitCode.UNKNOWN,
    ExitCode.REFUSED,
    ExitCode.UNREACHABLE,
    ExitCode.USAGE,
    ExitCode.DONE,
)


def now() -> datetime:
    """Return the time that the commands live by."""
    return datetime.fromtimestamp(here.CLOCK.now(), UTC)


def check_price(order: Order, most: int) -> None:
    """Refuse an invoice that asks for more than so many satoshis, or does not say for how much.

    Raises:
        Stop: It is refused; nothing was paid.
    """
    invoice = read_invoice(order.payreq)
    amount = None if invoice is None else invoice.amount_sat
    if amount is not None and amount <= most:
        return
    asks = "names no amount that can be read" if amount is None else f"asks for {amount:,} sat"
    raise Stop(
        End(
            ExitCode.REFUSED,
            f"The invoice {asks}, and no more than {most:,} sat were to be paid.",
            "Nothing was paid, and an order that nobody pays for ends by itself.",
        )
    )


async def cancel_now(session: Session, order_id: str) -> Cancellation:
    """Cancel an order, if that is allowed now; a code that came first is an end as well."""
    try:
        return await session.client.cancel_order(order_id, confirm=True)
    except CodeAlreadyReceivedError as error:
        return as_cancellation(error)


async def code_or_money(
    session: Session, order: Order, patience: timedelta, *, leaving: Stage
) -> Cancellation:
    """Wait for the code of an order, or get its money back.

    Args:
        session: The command.
        order: The order.
        patience: How old the order may get before its money is asked back.
        leaving: What the command is at from then on.

    Returns:
        How it ended; with the code it is `CODE_ARRIVED`.
    """
    opened = session.client.resume(order)
    session.opened.append(opened)
    ended = None
    async with opened:
        left = (opened.created_at + patience - now()).total_seconds()
        try:
            if left > 0:
                status = await opened.wait_for_code(timeout=left)
                ended = Cancellation(order.order_id, CancelOutcome.CODE_ARRIVED, status)
        except OrderRefundedError as error:
            ended = as_cancellation(error)
        except Sms4SatsError:
            # Time is up, or the status was refused for good: the way out gets the money back, and
            # tells if it cannot.
            pass
        session.stage = leaving
    ended = ended or opened.cancellation
    assert ended is not None  # noqa: S101 - the way out has ended it, or raised
    return ended


async def resume(session: Session, entries: Sequence[JournalEntry], patience: timedelta) -> None:
    """Go on with orders, all at once; show of each how it ended.

    Raises:
        Stop: Some did not end; each has been told.
    """
    ends: list[End] = []

    async def one(order: Order, entry: JournalEntry) -> None:
        try:
            if isinstance(order, SendOrder) or not entry.pending:
                found = await session.client.get_order_status(order)
                known, message = facts(found), status_in_words(found)
            else:
                done = await code_or_money(session, order, patience, leaving=Stage.RESUMING)
                known, message = ended_facts(done), end_of(done).message
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
        problem = f"{len(ends)} of {len(entries)} orders did not come to their end."
        raise Stop(End(worst.code, problem, "`sms4sats pending` lists what is left."))
