"""A simulated order as a value, and the next event that changes it automatically."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import attrs

from .behaviour import Behaviour
from .masking import mask
from .states import HOLDERS, Event, Holder, Kind, Stage

__all__ = ["Moment", "Order", "next_event"]


class Moment(NamedTuple):
    """One entry of an order's history."""

    time: float
    text: str
    holder: Holder


@attrs.frozen(kw_only=True)
class Order:
    """An order at one moment. The value never changes, even if the order does.

    Attributes:
        order_id: 64 hex digits.
        kind: what the order buys.
        price: satoshis.
        created_at: Unix seconds, like all times here.
        payreq: the invoice, or the word `paid` if a balance paid for the order.
        payment_preimage: the preimage; the invoice carries its SHA-256.
        behaviour: how the service treats this order.
        request: the JSON body of the request that created the order.
        api_key: the key that came with the request, None if there was none.
        immediate: whether the balance of the key paid.
        country: id of the country, for a receive order.
        service: code of the service, for a receive order.
        stage: the state of the order.
        since: when the order reached that state.
        paid_at: when the order was paid, None if it was not.
        reference: the `id` in the status, None if there is none yet.
        number: the telephone number, None if none was assigned.
        code: the code, None if none was delivered.
        history: all events of the order.
    """

    order_id: str = attrs.field(repr=mask)
    kind: Kind
    price: int
    created_at: float
    payreq: str = attrs.field(repr=mask)
    payment_preimage: bytes = attrs.field(repr=False)
    behaviour: Behaviour = attrs.field(repr=False)
    request: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=False, hash=False)
    api_key: str | None = attrs.field(default=None, repr=mask)
    immediate: bool = False
    country: int | None = None
    service: str | None = None
    stage: Stage = Stage.CREATED
    since: float
    paid_at: float | None = None
    reference: int | str | None = None
    number: str | None = None
    code: str | None = None
    history: tuple[Moment, ...] = attrs.field(default=(), repr=False)

    @property
    def paid(self) -> bool:
        """Whether the order was ever paid."""
        return self.paid_at is not None

    @property
    def holder(self) -> Holder:
        """Where the payment is."""
        return HOLDERS[self.stage] if self.paid else Holder.NONE

    @property
    def age_base(self) -> float:
        """The moment from which the age of the order counts."""
        if self.behaviour.age_counts_from == "payment" and self.paid_at is not None:
            return self.paid_at
        return self.created_at


def next_event(order: Order) -> tuple[float, Event] | None:
    """Return the next automatic event of an order and its time; None if there is none."""
    behaviour = order.behaviour
    delay: float | None
    match order.kind, order.stage:
        case _, Stage.CREATED:
            delay, event = behaviour.pay_delay, Event.PAY
        case Kind.RECEIVE, Stage.PAID if not behaviour.number_available:
            delay, event = behaviour.number_delay or 0.0, Event.FAIL
        case Kind.RECEIVE, Stage.PAID:
            delay, event = behaviour.number_delay, Event.ASSIGN_NUMBER
        case Kind.RECEIVE, Stage.NUMBERED:
            delay, event = behaviour.code_delay, Event.DELIVER_CODE
        case Kind.SEND, Stage.PAID:
            delay = behaviour.sms_delay
            event = Event.FAIL if behaviour.sms_fails else Event.SEND_SMS
        case Kind.SEND, Stage.SENT:
            delay, event = behaviour.sms_delay, Event.DELIVER_SMS
        case _:
            return None
    events = [] if delay is None else [(order.since + delay, event)]
    if order.holder in (Holder.NONE, Holder.HELD):
        events.append((order.age_base + behaviour.automatic_cancel_age, Event.FAIL))
    return min(events, key=lambda each: each[0], default=None)
