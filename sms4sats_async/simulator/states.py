"""The states of a simulated order, and where its payment is in each of them.

The table is written from the service's documentation. It shares no code with the client's table, so
that both cannot be wrong in the same way.
"""

from collections.abc import Mapping
from enum import Enum

__all__ = ["HOLDERS", "TRANSITIONS", "Event", "Holder", "Kind", "Stage", "StateError"]


class Kind(Enum):
    """What an order buys."""

    RECEIVE = "receive"
    SEND = "send"
    FUND = "fund"


class Stage(Enum):
    """The state of an order."""

    CREATED = "created"
    """The order is not paid."""
    PAID = "paid"
    """The payment is held."""
    NUMBERED = "has a number"
    """A receive order waits for its code."""
    SENT = "sent"
    """The SMS of a send order was sent."""
    DONE = "done"
    """The code was received, the SMS was delivered, or the balance was credited."""
    CANCELLED = "cancelled"
    """The customer cancelled the order."""
    FAILED = "failed"
    """The service ended the order: no number, no code in time, or the SMS failed."""


class Event(Enum):
    """What can change the state of an order."""

    PAY = "paid"
    ASSIGN_NUMBER = "number assigned"
    DELIVER_CODE = "code delivered"
    SEND_SMS = "SMS sent"
    DELIVER_SMS = "SMS delivered"
    CANCEL = "cancelled"
    FAIL = "failed"


class Holder(Enum):
    """Where the payment of an order is."""

    NONE = "not paid"
    HELD = "held"
    SETTLED = "settled"
    REFUNDED = "refunded"


class StateError(Exception):
    """The state of the order does not allow this, or not yet."""


# Every transition that is possible. Anything else raises StateError.
TRANSITIONS: Mapping[tuple[Kind, Stage, Event], Stage] = {
    (Kind.RECEIVE, Stage.CREATED, Event.PAY): Stage.PAID,
    (Kind.RECEIVE, Stage.CREATED, Event.CANCEL): Stage.CANCELLED,
    (Kind.RECEIVE, Stage.CREATED, Event.FAIL): Stage.FAILED,
    (Kind.RECEIVE, Stage.PAID, Event.ASSIGN_NUMBER): Stage.NUMBERED,
    (Kind.RECEIVE, Stage.PAID, Event.CANCEL): Stage.CANCELLED,
    (Kind.RECEIVE, Stage.PAID, Event.FAIL): Stage.FAILED,
    # A receive order settles only when a code is delivered. (documented)
    (Kind.RECEIVE, Stage.NUMBERED, Event.DELIVER_CODE): Stage.DONE,
    (Kind.RECEIVE, Stage.NUMBERED, Event.CANCEL): Stage.CANCELLED,
    (Kind.RECEIVE, Stage.NUMBERED, Event.FAIL): Stage.FAILED,
    (Kind.SEND, Stage.CREATED, Event.PAY): Stage.PAID,
    (Kind.SEND, Stage.CREATED, Event.FAIL): Stage.FAILED,
    # A send order settles when its SMS status is `sent` or `delivered`. (documented)
    (Kind.SEND, Stage.PAID, Event.SEND_SMS): Stage.SENT,
    (Kind.SEND, Stage.PAID, Event.FAIL): Stage.FAILED,
    (Kind.SEND, Stage.SENT, Event.DELIVER_SMS): Stage.DONE,
    # Whether the payment of a funding invoice is held first is unknown.
    (Kind.FUND, Stage.CREATED, Event.PAY): Stage.DONE,
    (Kind.FUND, Stage.CREATED, Event.FAIL): Stage.FAILED,
}

# Where a payment is. An order that was never paid has no payment, whatever its state.
HOLDERS: Mapping[Stage, Holder] = {
    Stage.PAID: Holder.HELD,
    Stage.NUMBERED: Holder.HELD,
    Stage.SENT: Holder.SETTLED,
    Stage.DONE: Holder.SETTLED,
    Stage.CANCELLED: Holder.REFUNDED,
    Stage.FAILED: Holder.REFUNDED,
}
