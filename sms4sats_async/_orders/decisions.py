"""The one decision about an order: poll, cancel, wait, or ended.

Values and pure functions only: no clock, no I/O, no HTTP. Times are ages of the order in seconds.
Every driver executes what `next_action` returns and reports back what it saw.
"""

from __future__ import annotations

import enum
import math
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from sms4sats_async.models import OrderOutcome, OrderState

from .states import is_last, outcome_of

if TYPE_CHECKING:
    from sms4sats_async.models import OrderStatus

MINIMUM_CANCEL_AGE: Final = timedelta(minutes=2)
"""The age from which an order can be cancelled (documented). Whether the service counts from the
order, from the payment or from the number is unknown, so refusals are expected and retried."""

AUTOMATIC_CANCEL_AGE: Final = timedelta(minutes=21)
"""The age at which the service cancels and refunds an order without a code (documented)."""

MINIMUM_AGE: Final = MINIMUM_CANCEL_AGE.total_seconds()
AUTOMATIC_AGE: Final = AUTOMATIC_CANCEL_AGE.total_seconds()

GRACE: Final = 60.0
"""Seconds after those 21 minutes during which the status is still read: the service may count from
a later moment than this library."""

OUTAGE: Final = 300.0
"""Seconds after the last refusal during which lost polls are repeated, after those 21 minutes: a
machine that was suspended may have no network yet."""

AFTER_NUMBER: Final = 120.0
"""Seconds after the number was first seen at which one cancel is retried: the service's upstream
probably counts its two minutes from the number (inferred)."""

_FIRST_BACKOFF: Final = 5.0
_LONGEST_BACKOFF: Final = 60.0

_LAST_POLL: Final = 1.0
"""Seconds before the end of a wait at which the status is read for the last time."""


@attrs.frozen
class Intent:
    """What the caller wants.

    Attributes:
        poll_interval: Seconds between two polls.
        minimum_age: The age before which no cancel is sent.
        not_before: The age before which the order is left alone once its deadline has passed.
        cancels: Whether to cancel at the deadline. If False, the deadline only ends the wait.
        watch: Whether to poll while waiting. If False, the status is read only after refusals.
        persists: Whether to cancel again after a refusal.
    """

    poll_interval: float = 5.0
    minimum_age: float = MINIMUM_AGE
    not_before: float = 0.0
    cancels: bool = True
    watch: bool = True
    persists: bool = True


@attrs.frozen
class Refusals:
    """The cancels that failed.

    Attributes:
        count: How many calls failed.
        age: The age at the last one.
        is_final: Whether the last refusal will not change.
        unchecked: Whether the status has not been read since.
    """

    count: int
    age: float
    is_final: bool = False
    unchecked: bool = False


@attrs.frozen
class Known:
    """What is known about an order.

    Attributes:
        outcome: How it ended, if there is evidence.
        state: Its state when the status was last read; None if it was not.
        number_age: The age at which its number was first seen.
        last_poll: The age at the last poll; -1 before the first.
        next_poll: The age from which the next poll is due.
        lost: Whether the last poll was lost.
        payment_ended: Whether the payment call returned or raised.
        refusals: The cancels that failed, if any.
    """

    outcome: OrderOutcome | None = None
    state: OrderState | None = None
    number_age: float | None = None
    last_poll: float = -1.0
    next_poll: float = 0.0
    lost: bool = False
    payment_ended: bool = False
    refusals: Refusals | None = None


NOTHING_KNOWN: Final = Known()


def wanted_minimum_age(recorded: timedelta | None, argument: timedelta | None) -> timedelta | None:
    """Return the age before which no cancel is sent.

    The default of an argument cannot be told from the same value that the caller gave. So it never
    shortens a recorded age, and any other value replaces it.
    """
    if argument is None or recorded is None:
        return recorded if argument is None else argument
    return max(recorded, argument) if argument == MINIMUM_CANCEL_AGE else argument


class Request(enum.Enum):
    """A request to send now."""

    POLL = enum.auto()
    CANCEL = enum.auto()


class Reason(enum.Enum):
    """Why a driver waits; the value is shown to people."""

    CODE = "the code has not arrived yet"
    MINIMUM_AGE = "the order cannot be cancelled earlier"
    NOT_BEFORE = "the order is left alone until then"
    REFUSED = "the service has not cancelled the order yet"
    CLAIMED = "another process drives the order"


@attrs.frozen
class WaitUntil:
    """Nothing to send before this age.

    Attributes:
        age: The age of the next action.
        reason: Why.
        end: The age at which this wait ends; polls may come before.
    """

    age: float
    reason: Reason
    end: float


@attrs.frozen
class Ended:
    """No further request is sent.

    Attributes:
        outcome: How the order ended; None if that is unknown, the cancel was refused, or the wait
            is over.
    """

    outcome: OrderOutcome | None


Action: TypeAlias = Request | WaitUntil | Ended


def next_action(intent: Intent, deadline: float, known: Known, age: float) -> Action:
    """Decide what to do now.

    Args:
        intent: What the caller wants.
        deadline: The age until which to wait for the code.
        known: What is known.
        age: The order's age.
    """
    if known.outcome is not None:
        return Ended(known.outcome)
    if not intent.cancels:
        return _wait_only(deadline, known, age)
    refusals = known.refusals
    if refusals is not None and (refusals.is_final or not intent.persists):
        return Ended(None)
    payment_missing = known.payment_ended and known.state is OrderState.UNPAID
    code_age = 0.0 if payment_missing else deadline
    cancel_age = max(intent.minimum_age, code_age, intent.not_before)
    if age < cancel_age:
        watches = intent.watch and (age < code_age or age >= intent.not_before)
        return _poll_or_wait(known, age, _reason(intent, code_age), cancel_age, watches=watches)
    if refusals is not None:
        return _after_refusal(intent, known, refusals, age)
    # The payment may have arrived since the last poll; and after 21 minutes the status alone
    # usually shows the end.
    unchecked_payment = payment_missing and known.last_poll < cancel_age
    is_old = intent.watch and age >= AUTOMATIC_AGE and known.last_poll < 0
    return Request.POLL if unchecked_payment or is_old else Request.CANCEL


def _after_refusal(intent: Intent, known: Known, refusals: Refusals, age: float) -> Action:
    if age >= AUTOMATIC_AGE:
        # The service has cancelled the order itself by now, so only its status counts.
        was_read = not known.lost or known.last_poll >= refusals.age + OUTAGE
        if known.last_poll >= AUTOMATIC_AGE + GRACE and was_read:
            return Ended(None)
        return _poll_or_wait(known, age, Reason.REFUSED, math.inf, watches=True)
    # The refusal may be the answer to a cancel that worked, or a code may have arrived just now.
    if refusals.unchecked:
        return Request.POLL
    retry_age = _retry_age(known, refusals)
    if age >= retry_age:
        return Request.CANCEL
    return _poll_or_wait(known, age, Reason.REFUSED, retry_age, watches=intent.watch)


def _wait_only(deadline: float, known: Known, age: float) -> Action:
    if age >= deadline or (known.state is not None and is_last(known.state)):
        return Ended(None)
    return _poll_or_wait(known, age, Reason.CODE, deadline, watches=True)


def _poll_or_wait(
    known: Known, age: float, reason: Reason, end: float, *, watches: bool
) -> Request | WaitUntil:
    if not watches:
        return WaitUntil(end, reason, end)
    if age >= known.next_poll:
        return Request.POLL
    return WaitUntil(min(known.next_poll, end), reason, end)


def _reason(intent: Intent, code_age: float) -> Reason:
    if intent.not_before > max(code_age, intent.minimum_age):
        return Reason.NOT_BEFORE
    return Reason.CODE if code_age > intent.minimum_age else Reason.MINIMUM_AGE


def _retry_age(known: Known, refusals: Refusals) -> float:
    """Return the age of the next cancel after refusals."""
    # The exponent is bounded because 2.0 ** 1024 is an OverflowError.
    backoff = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(refusals.count - 1, 16))
    retry_age = refusals.age + backoff
    if known.number_age is not None and refusals.age < known.number_age + AFTER_NUMBER:
        retry_age = min(retry_age, known.number_age + AFTER_NUMBER)
    return min(retry_age, AUTOMATIC_AGE)


# --- what was seen --------------------------------------------------------------------------------


def after_poll(
    known: Known,
    age: float,
    status: OrderStatus | None,
    *,
    pause: float,
    deadline: float = math.inf,
) -> Known:
    """Return what is known after a poll.

    Args:
        known: What was known before.
        age: The order's age now.
        status: The status, or None if the poll was lost.
        pause: Seconds until the next poll.
        deadline: The age at which the wait ends, if the last poll is to come just before it.
    """
    next_poll = age + pause
    if next_poll >= deadline:
        # A code that arrives in the rest of the wait would be missed.
        next_poll = deadline - _LAST_POLL if deadline - age > _LAST_POLL else deadline
    refusals = known.refusals
    if refusals is not None and refusals.unchecked:
        refusals = attrs.evolve(refusals, unchecked=False)
    if status is None:
        return attrs.evolve(known, last_poll=age, next_poll=next_poll, lost=True, refusals=refusals)
    first_number = status.number is not None and known.number_age is None
    return Known(
        outcome_of(status.state),
        status.state,
        age if first_number else known.number_age,
        age,
        next_poll,
        payment_ended=known.payment_ended,
        refusals=refusals,
    )


def after_refusal(
    known: Known,
    age: float,
    status: OrderStatus | None,
    *,
    lasting: bool,
    checked: bool,
    pause: float,
) -> Known:
    """Return what is known after a cancel that was not answered OK.

    Args:
        known: What was known before.
        age: The order's age now.
        status: The status that was read after the last attempt, or None.
        lasting: Whether the same request would be refused again, as after a 404.
        checked: Whether reading the status was tried.
        pause: Seconds until the next poll.
    """
    if checked:
        known = after_poll(known, age, status, pause=pause)
    count = 1 if known.refusals is None else known.refusals.count + 1
    # What the service answers to an early cancel is unknown. If the status shows that the order
    # exists and is open, even a 400 or 404 may mean "too early".
    refusals = Refusals(count, age, is_final=lasting and status is None, unchecked=not checked)
    return attrs.evolve(known, refusals=refusals)


def after_cancel(known: Known) -> Known:
    """Return what is known after the service answered OK to a cancel."""
    return attrs.evolve(known, outcome=OrderOutcome.CANCELLED)


def after_payment(known: Known, age: float) -> Known:
    """Return what is known after the payment call returned or raised: the status decides now."""
    # A status from before the end of the payment does not show whether it arrived.
    state = None if known.state is OrderState.UNPAID else known.state
    return attrs.evolve(known, payment_ended=True, state=state, next_poll=age)
