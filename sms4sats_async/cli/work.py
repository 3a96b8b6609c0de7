"""What takes several calls: resuming one order or many."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import anyio

from sms4sats_async import MINIMUM_CANCEL_AGE, JournalEntry, Order, SendOrder, Sms4SatsError

from .ends import ExitCode, Stop, end_of, result_in_words
from .facts import amount_of, facts, in_words, shortened, status_in_words
from .session import Session

DEFAULT_TIMEOUT: Final = timedelta(minutes=5)

# Of several orders that failed, the one that most needs attention decides the exit code.
_WORST_FIRST: Final = (
    ExitCode.UNKNOWN,
    ExitCode.REFUSED,
    ExitCode.UNREACHABLE,
    ExitCode.USAGE,
)


def check_price(order: Order, limit: int) -> None:
    """Refuse an invoice over a limit in satoshis, or without a readable amount.

    Raises:
        Stop: The invoice is refused. Nothing was paid.
    """
    amount = amount_of(order)
    if amount is None or amount > limit:
        has = "has no readable amount" if amount is None else f"is for {amount:,} sat"
        problem = f"the invoice {has}, and the limit is {limit:,} sat"
        raise Stop("price limit", ExitCode.REFUSED, problem)


async def resume(
    session: Session, entries: Sequence[JournalEntry], timeout: timedelta | None
) -> None:
    """Resume orders, all at the same time; show how each ended.

    Args:
        session: The session.
        entries: What the journal has of each order.
        timeout: How long to wait for each code; None: until the recorded deadline.

    Raises:
        Stop: Some did not end; each was shown.
    """
    codes: list[ExitCode] = []

    async def one(entry: JournalEntry, order: Order) -> None:
        name = shortened(order.order_id)
        if entry.metadata:
            name = f"{name} ({in_words(entry.metadata)})"
        try:
            if isinstance(order, SendOrder) and entry.pending:
                status = await session.client.get_order_status(order)
                session.out.show(facts(status), f"{name}  {status_in_words(status)}")
                return
            result = await session.client.code_or_refund(
                order,
                timeout=_time_left(session, entry, timeout),
                minimum_age=entry.minimum_age or MINIMUM_CANCEL_AGE,
            )
            session.show_result(result, f"{name}  {result_in_words(result)}")
        except Sms4SatsError as error:
            end = end_of(error, ordered_at=entry.created_at)
            codes.append(end.code)
            session.out.end(end, order.order_id)

    try:
        async with anyio.create_task_group() as group:
            for entry, order in [(it, it.order) for it in entries if it.order is not None]:
                group.start_soon(one, entry, order)
    except ExceptionGroup as several:
        raise several.exceptions[0] from several
    if codes:
        problem = f"{len(codes)} of {len(entries)} orders did not end"
        raise Stop("several orders", min(codes, key=_WORST_FIRST.index), problem)


def _time_left(session: Session, entry: JournalEntry, timeout: timedelta | None) -> timedelta:
    """Return how long to wait for the code of an order that is resumed."""
    if timeout is None and entry.code_deadline is not None:
        return max(entry.code_deadline - session.now(), timedelta(0))
    return DEFAULT_TIMEOUT if timeout is None else timeout
