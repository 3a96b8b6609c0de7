"""Progress events of the client, as small frozen values for `on_event`.

Logging, progress bars and metrics all use this one mechanism.
"""

from datetime import datetime

import attrs

from ._redact import mask_optional
from .errors import JournalError, Sms4SatsError
from .models import Order, OrderStatus
from .results import OrderResult


@attrs.frozen
class Event:
    """What every event has.

    Attributes:
        order_id: The order, or None if the event is about none; `repr` masks it.
    """

    order_id: str | None = attrs.field(repr=mask_optional)


@attrs.frozen
class OrderCreated(Event):
    """The service created an order.

    Attributes:
        order: The order.
    """

    order: Order


@attrs.frozen
class AttemptFailed(Event):
    """A request failed.

    Attributes:
        operation: The client's method.
        attempt: The number of this attempt, from 1.
        attempts: How many attempts the call's policy allows.
        error: How it failed.
        delay: Seconds until the next attempt, or None if this was the last one.
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
        until: The latest time at which it ends.
        reason: Why the call waits, in words.
    """

    until: datetime
    reason: str


@attrs.frozen
class StatusPolled(Event):
    """The status of an order was read during a wait.

    Attributes:
        status: The status.
    """

    status: OrderStatus


@attrs.frozen
class OrderEnded(Event):
    """An order ended, or a call for many orders finished with it and could not end it.

    Attributes:
        result: How the order ended.
    """

    result: OrderResult


@attrs.frozen
class JournalFailed(Event):
    """The journal could not record what became known of an order. The call went on.

    Attributes:
        error: Why.
    """

    error: JournalError
