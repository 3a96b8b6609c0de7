"""What the client tells while it works, as small frozen values for `on_event`.

Logging, progress bars and metrics all hang on this one mechanism.
"""

from datetime import datetime

import attrs

from ._secrets import mask_optional
from .errors import Sms4SatsError
from .models import Cancellation, Order, OrderStatus


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
