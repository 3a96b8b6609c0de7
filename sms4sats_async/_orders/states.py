"""The state table of an order: what a status means, where the money is, and what can follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from sms4sats_async.models import Money, OrderOutcome, OrderState, SmsStatus

if TYPE_CHECKING:
    from collections.abc import Callable


@attrs.frozen
class Facts:
    """The fields of an `/orderstatus` answer that decide the state."""

    paid: bool | None = None
    code: str | None = None
    number: str | None = None
    sms_status: SmsStatus | None = None
    error: str | None = None


@attrs.frozen
class StateRow:
    """One row of the state table.

    Attributes:
        state: The state.
        when: The condition of the state, in words.
        holds: The condition, over the facts of an answer.
        money: Where the money is.
        outcome: How the order has ended; None while it can still be cancelled.
        then: The states that can follow; none where the order has ended.
    """

    state: OrderState
    when: str
    holds: Callable[[Facts], bool]
    money: Money
    outcome: OrderOutcome | None = None
    then: tuple[OrderState, ...] = ()


_S: Final = OrderState

STATES: Final[tuple[StateRow, ...]] = (
    # A delivered code is settled and cannot be reversed (documented), so it comes first.
    StateRow(
        _S.CODE_RECEIVED,
        "there is a code",
        lambda it: it.code is not None,
        Money.SETTLED,
        outcome=OrderOutcome.CODE_RECEIVED,
    ),
    # Clients of the live service read "status OK + non-empty error" as refunded (seen), and the
    # documented text of the error says so.
    StateRow(
        _S.REFUNDED,
        "there is an error text",
        lambda it: it.error is not None,
        Money.REFUNDED,
        outcome=OrderOutcome.REFUNDED,
    ),
    # A send order settles when its SMS status is `sent` or `delivered` (documented).
    StateRow(
        _S.MESSAGE_DELIVERED,
        "smsStatus is delivered",
        lambda it: it.sms_status is SmsStatus.DELIVERED,
        Money.SETTLED,
        outcome=OrderOutcome.MESSAGE_SENT,
    ),
    StateRow(
        _S.MESSAGE_SENT,
        "smsStatus is sent",
        lambda it: it.sms_status is SmsStatus.SENT,
        Money.SETTLED,
        outcome=OrderOutcome.MESSAGE_SENT,
        then=(_S.MESSAGE_DELIVERED, _S.MESSAGE_FAILED),
    ),
    # When the service refunds a failed message is unknown.
    StateRow(
        _S.MESSAGE_FAILED,
        "smsStatus is failed",
        lambda it: it.sms_status is SmsStatus.FAILED,
        Money.UNKNOWN,
    ),
    StateRow(
        _S.UNPAID,
        "paid is false",
        lambda it: it.paid is False,
        Money.WITH_PAYER,
        then=(_S.HELD, _S.MESSAGE_CREATED, _S.REFUNDED),
    ),
    StateRow(
        _S.MESSAGE_CREATED,
        "smsStatus is created",
        lambda it: it.sms_status is SmsStatus.CREATED,
        Money.HELD,
        then=(_S.MESSAGE_SENT, _S.MESSAGE_FAILED, _S.REFUNDED),
    ),
    # Only a paid order gets a number, so a number implies paid where `paid` is missing (seen).
    StateRow(
        _S.NUMBER_ASSIGNED,
        "there is a number",
        lambda it: it.number is not None and it.sms_status is None,
        Money.HELD,
        then=(_S.CODE_RECEIVED, _S.REFUNDED),
    ),
    StateRow(
        _S.HELD,
        "paid is true",
        lambda it: it.paid is True and it.sms_status is None,
        Money.HELD,
        then=(_S.NUMBER_ASSIGNED, _S.REFUNDED),
    ),
    StateRow(_S.UNKNOWN, "anything else", lambda _: True, Money.UNKNOWN, then=(_S.UNKNOWN,)),
)
"""The state of an order is the first row whose condition holds."""

_ROW_OF: Final[dict[OrderState, StateRow]] = {row.state: row for row in STATES}


def row_for(facts: Facts) -> StateRow:
    """Return the row of the state that an answer means."""
    return next(row for row in STATES if row.holds(facts))


def outcome_of(state: OrderState) -> OrderOutcome | None:
    """Return how an order in `state` has ended, or None while it can still be cancelled."""
    return _ROW_OF[state].outcome


def money_in(state: OrderState) -> Money:
    """Return where the money of an order in `state` is."""
    return _ROW_OF[state].money


def is_last(state: OrderState) -> bool:
    """Return whether no other state can follow."""
    return not _ROW_OF[state].then
