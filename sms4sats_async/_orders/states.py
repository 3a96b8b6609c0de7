"""The law of an order: what a status means, when a cancel is allowed, what comes next.

Pure functions over values: time comes in as ages in seconds, nothing is read or sent here.
"""

from __future__ import annotations

import enum
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import attrs

from sms4sats_async.errors import APIError, ClientStateError, RateLimitError, Sms4SatsError
from sms4sats_async.models import CancelOutcome, Money, OrderState, SmsStatus

if TYPE_CHECKING:
    from collections.abc import Callable

MINIMUM_CANCEL_AGE: Final = timedelta(minutes=2)
"""How old an order must be before it can be cancelled (documented; whether the service counts
from the order or from its payment is unknown, so a refusal is waited out)."""

AUTOMATIC_CANCEL_AGE: Final = timedelta(minutes=21)
"""When the service cancels an order without a code by itself (documented)."""

GRACE_AFTER_AUTOMATIC_CANCEL: Final = 60.0
"""Seconds after those 21 minutes in which the status is still looked at: the service may count
from a moment later than ours, and works on its own schedule."""

_FIRST_LASTING_STATUS: Final = 300
_FIRST_PASSING_STATUS: Final = 500

_FIRST_REFUSAL_WAIT: Final = 5.0
_LONGEST_REFUSAL_WAIT: Final = 60.0


@attrs.frozen
class Facts:
    """What an `/orderstatus` answer says, before it is one word."""

    paid: bool | None = None
    code: str | None = None
    number: str | None = None
    sms_status: SmsStatus | None = None
    error: str | None = None


@attrs.frozen
class Law:
    """What one state of an order is.

    Attributes:
        state: The state.
        when: Its condition, in words.
        holds: Its condition, over the facts of an answer.
        money: Who holds the money in it.
        ends: What it says to somebody who asks for the money back; None while it can be asked.
        then: The states that may follow; none where the order has ended.
    """

    state: OrderState
    when: str
    holds: Callable[[Facts], bool]
    money: Money
    ends: CancelOutcome | None = None
    then: tuple[OrderState, ...] = ()


_S: Final = OrderState

LAWS: Final[tuple[Law, ...]] = (
    # A delivered code is settled and cannot be reversed (documented), so it outranks all else.
    Law(
        _S.CODE_RECEIVED,
        "there is a code",
        lambda it: it.code is not None,
        Money.SETTLED,
        ends=CancelOutcome.CODE_ARRIVED,
    ),
    # "status OK + non-empty error" reads as refunded (documented text; seen in real clients).
    Law(
        _S.REFUNDED,
        "there is an error text",
        lambda it: it.error is not None,
        Money.RETURNED,
        ends=CancelOutcome.ALREADY_RELEASED,
    ),
    # A send order settles when its SMS status is sent or delivered (documented). What was paid
    # for is done then, so it ends a wait for the money as a code does.
    Law(
        _S.MESSAGE_DELIVERED,
        "smsStatus is delivered",
        lambda it: it.sms_status is SmsStatus.DELIVERED,
        Money.SETTLED,
        ends=CancelOutcome.CODE_ARRIVED,
    ),
    Law(
        _S.MESSAGE_SENT,
        "smsStatus is sent",
        lambda it: it.sms_status is SmsStatus.SENT,
        Money.SETTLED,
        ends=CancelOutcome.CODE_ARRIVED,
        then=(_S.MESSAGE_DELIVERED, _S.MESSAGE_FAILED),
    ),
    # Of a failed message nobody says when the money returns.
    Law(
        _S.MESSAGE_FAILED,
        "smsStatus is failed",
        lambda it: it.sms_status is SmsStatus.FAILED,
        Money.UNKNOWN,
    ),
    Law(
        _S.UNPAID,
        "paid is false",
        lambda it: it.paid is False,
        Money.WITH_PAYER,
        then=(_S.HELD, _S.MESSAGE_CREATED, _S.REFUNDED),
    ),
    Law(
        _S.MESSAGE_CREATED,
        "smsStatus is created",
        lambda it: it.sms_status is SmsStatus.CREATED,
        Money.HELD,
        then=(_S.MESSAGE_SENT, _S.MESSAGE_FAILED, _S.REFUNDED),
    ),
    # A number is only given to a paid order, so it speaks even where `paid` is missing (seen).
    Law(
        _S.NUMBER_ASSIGNED,
        "there is a number",
        lambda it: it.number is not None and it.sms_status is None,
        Money.HELD,
        then=(_S.CODE_RECEIVED, _S.REFUNDED),
    ),
    Law(
        _S.HELD,
        "paid is true",
        lambda it: it.paid is True and it.sms_status is None,
        Money.HELD,
        then=(_S.NUMBER_ASSIGNED, _S.REFUNDED),
    ),
    Law(_S.UNKNOWN, "anything else", lambda _: True, Money.UNKNOWN, then=(_S.UNKNOWN,)),
)
"""The state of an order: the first row whose condition holds."""

_LAW_OF: Final[dict[OrderState, Law]] = {law.state: law for law in LAWS}


def law_for(facts: Facts) -> Law:
    """Return the law of the state that an answer means."""
    return next(law for law in LAWS if law.holds(facts))


def verdict(state: OrderState) -> CancelOutcome | None:
    """Return how an order in `state` has ended, or None while its money can still be asked back."""
    return _LAW_OF[state].ends


def has_ended(state: OrderState) -> bool:
    """Tell whether no other state can follow."""
    return not _LAW_OF[state].then


def made_at(created_at: float | None, now: float) -> float:
    """Return when an order was made at the latest, in Unix seconds.

    An order cannot come from the future: where the clocks disagree, or nobody knows, "now" is the
    safe guess.
    """
    return now if created_at is None else min(created_at, now)


class Step(enum.Enum):
    """What to do next for an order whose cancel was not answered OK."""

    WAIT_AND_CANCEL = enum.auto()
    """Wait, then send the cancel again."""

    TRUST_THE_STATUS = enum.auto()
    """The service has cancelled it by itself: its status alone can tell."""

    GIVE_UP = enum.auto()
    """A refusal that will be the same tomorrow."""


def after_failed_cancel(error: Sms4SatsError, *, age: float, order_is_open: bool) -> Step:
    """Decide what follows a cancel that failed for good.

    Args:
        error: How it failed.
        age: Seconds since the order was made.
        order_is_open: Whether a status read just before shows that the order exists and has not
            ended. What a too-early cancel is answered is unknown, so even a 400 is waited out
            then; without that evidence it is taken for what it says.
    """
    if isinstance(error, ClientStateError):
        return Step.GIVE_UP
    lasting = (
        isinstance(error, APIError)
        and error.status_code is not None
        and _FIRST_LASTING_STATUS <= error.status_code < _FIRST_PASSING_STATUS
        and not isinstance(error, RateLimitError)
    )
    if lasting and not order_is_open:
        return Step.GIVE_UP
    if age >= AUTOMATIC_CANCEL_AGE.total_seconds():
        return Step.TRUST_THE_STATUS
    return Step.WAIT_AND_CANCEL


def refusal_wait(refusals: int) -> float:
    """Return the seconds to wait after the cancel was refused `refusals` times in a row."""
    # The exponent is bounded because 2.0 ** 1024 is an OverflowError.
    return min(_LONGEST_REFUSAL_WAIT, _FIRST_REFUSAL_WAIT * 2.0 ** min(refusals - 1, 16))
