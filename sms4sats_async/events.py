"""What the client tells while it works, as small frozen values for `on_event`.

Logging, progress bars and metrics all hang on this one mechanism.
"""

from datetime import datetime

import attrs

from ._redact import mask, mask_optional
from .errors import JournalError, Sms4SatsError
from .models import Cancellation, CancelOutcome, Order, OrderStatus, RequestOutcome


@attrs.frozen
class Event:
    """What every event has.

    Attributes:
        order_id: The order it is about, or None; `repr` masks it.
    """

    order_id: str | None = attrs.field(repr=mask_optional)


@attrs.frozen
class OrderCreated(Event):
    """An order was made: the moment to write its id down.

    Attributes:
        order: The order.
    """

    order: Order


@attrs.frozen
class AttemptFailed(Event):
    """A request failed.

    Attributes:
        operation: The method of the client.
        attempt: Which attempt it was, counted from 1.
        attempts: How many there are at most, by the policy of the call.
        error: How it failed.
        delay: Seconds until the next attempt, or None if there is none.
    """

    operation: str
    attempt: int
    attempts: int
    error: Sms4SatsError
    delay: float | None


@attrs.frozen
class Waiting(Event):
    """A wait begins.

    Attributes:
        until: When it ends, at the latest.
        reason: What is waited for, for people.
    """

    until: datetime
    reason: str


@attrs.frozen
class StatusPolled(Event):
    """The status of an order was read while waiting.

    Attributes:
        status: What the service said.
    """

    status: OrderStatus


@attrs.frozen
class OrderCancelled(Event):
    """An order whose money was asked back has ended.

    Attributes:
        cancellation: How it ended.
    """

    cancellation: Cancellation


@attrs.frozen
class CancelResult:
    """What became of one of many orders whose money was asked back.

    Attributes:
        order_id: The order; `repr` masks it.
        outcome: How it ended; or, where the cancel failed, what is known of it: REFUSED, UNKNOWN,
            or NOT_SENT.
        code: The code, where it came first.
        status: The last status seen, or None.
        error: How it failed, or None.
        attempts: How many times the cancel was sent.
    """

    order_id: str = attrs.field(repr=mask)
    outcome: CancelOutcome | RequestOutcome
    code: str | None = None
    status: OrderStatus | None = None
    error: Sms4SatsError | None = attrs.field(default=None, eq=False)
    attempts: int = 0

    @property
    def funds_returned(self) -> bool | None:
        """Whether the money is the payer's again; None where nobody can tell yet."""
        return self.outcome.funds_returned if isinstance(self.outcome, CancelOutcome) else None


@attrs.frozen
class CancelFinished(Event):
    """A scheduler, or `cancel_orders`, is done with an order.

    Attributes:
        result: How it ended, or what is known of the failure.
    """

    result: CancelResult


@attrs.frozen
class JournalFailed(Event):
    """What became known of an order could not be written in the journal; the call went on.

    Attributes:
        error: Why.
    """

    error: JournalError
