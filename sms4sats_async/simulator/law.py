"""The law of the simulated service: what an order can become, and where the money is meanwhile.

Pure: no input or output, and the time (Unix seconds) is an argument everywhere. What happens by
itself (the number comes, the code comes, 21 minutes are over) is worked out when somebody looks, in
order, each at its own time; so it does not matter how often anybody looks.

This is the service's side, written from its documentation. It shares no code with the client, so
that both cannot be wrong alike.
"""

import hashlib
import math
import random
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import attrs

from .invoice import Network, make_invoice
from .masking import mask

__all__ = [
    "AUTOMATIC_CANCEL_AGE",
    "MINIMUM_CANCEL_AGE",
    "Behaviour",
    "Event",
    "Holder",
    "Kind",
    "LawError",
    "Moment",
    "Order",
    "Stage",
    "World",
    "next_event",
]

MINIMUM_CANCEL_AGE = 120.0
"""Seconds before which an order cannot be cancelled. (documented)"""

AUTOMATIC_CANCEL_AGE = 1260.0
"""Seconds after which an order without a code is given up: 21 minutes. (documented)"""


class Kind(Enum):
    """What an order buys."""

    RECEIVE = "receive"
    SEND = "send"
    FUND = "fund"


class Stage(Enum):
    """How far an order has come."""

    CREATED = "created"
    """Nobody has paid."""
    PAID = "paid"
    """The payment is held."""
    NUMBERED = "has a number"
    """A receive order waits for its code."""
    SENT = "sent"
    """The SMS of a send order has left."""
    DONE = "done"
    """The code has come, the SMS was delivered, or the balance was credited."""
    CANCELLED = "cancelled"
    """The customer has cancelled."""
    RELEASED = "released"
    """The service has given up: no number, no code in time, or the SMS failed."""


class Event(Enum):
    """What can happen to an order."""

    PAY = "paid"
    ASSIGN_NUMBER = "number assigned"
    DELIVER_CODE = "code delivered"
    SEND_SMS = "SMS sent"
    DELIVER_SMS = "SMS delivered"
    CANCEL = "cancelled"
    RELEASE = "released by the service"


class Holder(Enum):
    """Where the money of an order is. At any time it is in exactly one place."""

    NONE = "not paid"
    HELD = "held"
    SETTLED = "settled"
    RETURNED = "returned"


# The whole law. What is not in the table cannot happen.
_NEXT: Mapping[tuple[Kind, Stage, Event], Stage] = {
    (Kind.RECEIVE, Stage.CREATED, Event.PAY): Stage.PAID,
    (Kind.RECEIVE, Stage.CREATED, Event.CANCEL): Stage.CANCELLED,
    (Kind.RECEIVE, Stage.CREATED, Event.RELEASE): Stage.RELEASED,
    (Kind.RECEIVE, Stage.PAID, Event.ASSIGN_NUMBER): Stage.NUMBERED,
    (Kind.RECEIVE, Stage.PAID, Event.CANCEL): Stage.CANCELLED,
    (Kind.RECEIVE, Stage.PAID, Event.RELEASE): Stage.RELEASED,
    # Documented: a receive order settles only when a code is delivered,
    (Kind.RECEIVE, Stage.NUMBERED, Event.DELIVER_CODE): Stage.DONE,
    (Kind.RECEIVE, Stage.NUMBERED, Event.CANCEL): Stage.CANCELLED,
    (Kind.RECEIVE, Stage.NUMBERED, Event.RELEASE): Stage.RELEASED,
    (Kind.SEND, Stage.CREATED, Event.PAY): Stage.PAID,
    (Kind.SEND, Stage.CREATED, Event.RELEASE): Stage.RELEASED,
    # and a send order when its SMS status is `sent` or `delivered`.
    (Kind.SEND, Stage.PAID, Event.SEND_SMS): Stage.SENT,
    (Kind.SEND, Stage.PAID, Event.RELEASE): Stage.RELEASED,
    (Kind.SEND, Stage.SENT, Event.DELIVER_SMS): Stage.DONE,
    # Whether a funding invoice is held for a while is unknown.
    (Kind.FUND, Stage.CREATED, Event.PAY): Stage.DONE,
    (Kind.FUND, Stage.CREATED, Event.RELEASE): Stage.RELEASED,
}

_HOLDERS: Mapping[Stage, Holder] = {
    # CREATED is missing: an order nobody has paid has no money anywhere.
    Stage.PAID: Holder.HELD,
    Stage.NUMBERED: Holder.HELD,
    Stage.SENT: Holder.SETTLED,
    Stage.DONE: Holder.SETTLED,
    Stage.CANCELLED: Holder.RETURNED,
    Stage.RELEASED: Holder.RETURNED,
}


class LawError(Exception):
    """What was asked for cannot happen to this order, or not now."""


class Moment(NamedTuple):
    """One entry of an order's history."""

    time: float
    text: str
    holder: Holder


def _delay(_: object, attribute: "attrs.Attribute[Any]", value: float | None) -> None:
    if value is not None and not 0 <= value < math.inf:
        raise ValueError(f"{attribute.name} must be zero or more finite seconds, not {value!r}")


@attrs.frozen(kw_only=True)
class Behaviour:
    """How the service treats an order where the law leaves it open. All times are in seconds.

    Attributes:
        pay_delay: from creation to payment; None: nobody pays unless `pay` is called.
        number_delay: from payment to the number; None: no number comes by itself.
        code_delay: from the number to the code; None: no code comes by itself. (documented: most
            come within 30 to 120 seconds)
        code: the text that is delivered.
        number_available: if False, a paid order is refunded where it would have got its number.
        sms_delay: from payment to `sent`, and again to `delivered`; None: not by itself.
        sms_fails: an SMS fails where it would have been sent.
        age_counts_from: what the age of an order counts from, both for the earliest cancel and for
            the automatic one. (unknown for the real service.) An unpaid order's counts from its
            creation anyway.
        minimum_cancel_age: the age before which a cancel is refused.
        automatic_cancel_age: the age at which an order without a code is given up.
        status_after_cancel: whether the status of a cancelled order shows the documented refund
            text (`"error"`) or goes on as before (`"unchanged"`). (unknown for the real service)
        cancel_refusal_status: HTTP status of the answer to a cancel that is not possible: too
            early, repeated, after the code, of an order nobody knows. (unknown for the real
            service; the one documented failure is expected for all of them)
        cancel_refusal_reason: the `reason` in that answer.
        json_numbers: whether code and number are JSON numbers (documented), which loses leading
            zeros, or strings (seen in clients).
        network: the network that invoices are for. Only `"bitcoin"` makes the documented prefix
            `lnbc` and nothing more; the default cannot be taken for real money.
    """

    pay_delay: float | None = attrs.field(default=None, validator=_delay)
    number_delay: float | None = attrs.field(default=5.0, validator=_delay)
    code_delay: float | None = attrs.field(default=60.0, validator=_delay)
    code: str = attrs.field(default="012345", validator=attrs.validators.min_len(1))
    number_available: bool = True
    sms_delay: float | None = attrs.field(default=5.0, validator=_delay)
    sms_fails: bool = False
    age_counts_from: Literal["creation", "payment"] = attrs.field(
        default="creation", validator=attrs.validators.in_(("creation", "payment"))
    )
    minimum_cancel_age: float = attrs.field(default=MINIMUM_CANCEL_AGE, validator=_delay)
    automatic_cancel_age: float = attrs.field(default=AUTOMATIC_CANCEL_AGE, validator=_delay)
    status_after_cancel: Literal["error", "unchanged"] = attrs.field(
        default="error", validator=attrs.validators.in_(("error", "unchanged"))
    )
    cancel_refusal_status: int = 500
    cancel_refusal_reason: str = "unable to save data"
    json_numbers: bool = False
    network: Network = attrs.field(
        default="regtest",
        validator=attrs.validators.in_(("bitcoin", "testnet", "signet", "regtest")),
    )


@attrs.frozen(kw_only=True)
class Order:
    """An order at one moment: a value that never changes, however the order goes on.

    Attributes:
        order_id: 64 hex digits.
        kind: what it buys.
        price: satoshis.
        created_at: Unix seconds, like all times here.
        payreq: the invoice, or the word `paid` if a balance paid for it.
        payment_preimage: what settling reveals; the invoice carries its SHA-256.
        behaviour: how the service treats this order.
        request: the JSON body that ordered it.
        api_key: the key that came with the request, if any.
        immediate: whether the key's balance paid.
        country: id of the country, for a receive order.
        service: code of the service, for a receive order.
        stage: how far it has come.
        since: when it came to that stage.
        paid_at: when it was paid, None if it was not.
        reference: the `id` in its status, once it has one.
        number: the telephone number, once assigned.
        code: the code, once delivered.
        history: everything that has happened.
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
        """Whether it was ever paid."""
        return self.paid_at is not None

    @property
    def holder(self) -> Holder:
        """Where its money is."""
        return _HOLDERS[self.stage] if self.paid else Holder.NONE

    @property
    def age_base(self) -> float:
        """The moment its age counts from."""
        if self.behaviour.age_counts_from == "payment" and self.paid_at is not None:
            return self.paid_at
        return self.created_at


def next_event(order: Order) -> tuple[float, Event] | None:
    """Return what will happen to an order next if nobody does anything, and when."""
    plan = order.behaviour
    delay: float | None
    match order.kind, order.stage:
        case _, Stage.CREATED:
            delay, event = plan.pay_delay, Event.PAY
        case Kind.RECEIVE, Stage.PAID if not plan.number_available:
            delay, event = plan.number_delay or 0.0, Event.RELEASE
        case Kind.RECEIVE, Stage.PAID:
            delay, event = plan.number_delay, Event.ASSIGN_NUMBER
        case Kind.RECEIVE, Stage.NUMBERED:
            delay, event = plan.code_delay, Event.DELIVER_CODE
        case Kind.SEND, Stage.PAID:
            delay, event = plan.sms_delay, Event.RELEASE if plan.sms_fails else Event.SEND_SMS
        case Kind.SEND, Stage.SENT:
            delay, event = plan.sms_delay, Event.DELIVER_SMS
        case _:
            return None
    coming = [] if delay is None else [(order.since + delay, event)]
    if order.holder in (Holder.NONE, Holder.HELD):
        coming.append((order.age_base + plan.automatic_cancel_age, Event.RELEASE))
    return min(coming, key=lambda each: each[0], default=None)


class World:
    """All orders and all balances, and the only place where they change.

    Attributes:
        balances: prepaid satoshis by API key.
    """

    def __init__(self, seed: int | None = 0) -> None:
        """Begin with nothing.

        Args:
            seed: makes ids, numbers and invoices the same in every run; None: different.
        """
        self.balances: dict[str, int] = {}
        self._orders: dict[str, Order] = {}
        self._ids_by_payreq: dict[str, str] = {}
        self._random = random.Random(seed)  # noqa: S311 - nothing here is worth guessing

    def orders(self, now: float) -> list[Order]:
        """Return all orders as they are at that time, the oldest first."""
        return [self.find(order_id, now) for order_id in self._orders]

    def find(self, order_id: str, now: float) -> Order:
        """Return an order as it is at that time.

        Args:
            order_id: its id.
            now: Unix seconds.

        Raises:
            LookupError: if there is no such order.
        """
        order = self._orders.get(order_id)
        if order is None:
            raise LookupError(f"no order {mask(order_id)}")
        while (coming := next_event(order)) is not None and coming[0] <= now:
            order = self._apply(order, coming[1], coming[0])
        return order

    def id_behind(self, payreq: str) -> str:
        """Return the id of the order that an invoice pays for; any other text as it is."""
        return self._ids_by_payreq.get(payreq, payreq)

    def open(
        self,
        now: float,
        *,
        kind: Kind,
        price: int,
        behaviour: Behaviour,
        request: Mapping[str, Any],
        api_key: str | None = None,
        immediate: bool = False,
        country: int | None = None,
        service: str | None = None,
    ) -> Order:
        """Create an order, and pay for it if that is to come from the key's balance.

        Raises:
            LawError: if the balance is not enough.
        """
        if immediate and self.balance(api_key, now) < price:
            raise LawError("insufficient balance")
        preimage = self._random.randbytes(32)
        invoice = make_invoice(
            amount_sat=price,
            payment_hash=hashlib.sha256(preimage).digest(),
            payment_secret=self._random.randbytes(32),
            description=f"simulated {kind.value} order",
            timestamp=int(now),
            expiry=int(behaviour.automatic_cancel_age),
            network=behaviour.network,
        )
        order = Order(
            order_id=self._random.randbytes(32).hex(),
            kind=kind,
            price=price,
            created_at=now,
            payreq="paid" if immediate else invoice,
            payment_preimage=preimage,
            behaviour=behaviour,
            request=MappingProxyType(dict(request)),
            api_key=api_key,
            immediate=immediate,
            country=country,
            service=service,
            since=now,
            reference="SM" + self._random.randbytes(16).hex() if kind is Kind.SEND else None,
            history=(Moment(now, "created", Holder.NONE),),
        )
        self._orders[order.order_id] = order
        if not immediate:
            self._ids_by_payreq[invoice] = order.order_id
            return order
        self.credit(api_key, -price)
        return self._apply(order, Event.PAY, now)

    def happen(
        self,
        order_id: str,
        event: Event,
        now: float,
        *,
        number: str | None = None,
        code: str | None = None,
    ) -> Order:
        """Make something happen to an order.

        Args:
            order_id: its id.
            event: what happens.
            now: Unix seconds.
            number: the number that is assigned, if not any.
            code: the code that is delivered, if not the order's `behaviour.code`.

        Raises:
            LookupError: if there is no such order.
            LawError: if that cannot happen to it now.
        """
        return self._apply(self.find(order_id, now), event, now, number=number, code=code)

    def cancel(self, order_id: str, now: float) -> Order:
        """Cancel as a customer does: not before the minimum age, and only without a code.

        Raises:
            LookupError: if there is no such order.
            LawError: if it cannot be cancelled, or not yet.
        """
        order = self.find(order_id, now)
        if now < order.age_base + order.behaviour.minimum_cancel_age:
            raise LawError(f"order {mask(order.order_id)} is too young to be cancelled")
        return self._apply(order, Event.CANCEL, now)

    def change_behaviour(self, order_id: str, behaviour: Behaviour, now: float) -> Order:
        """Treat one order differently from that time on.

        Raises:
            LookupError: if there is no such order.
        """
        order = attrs.evolve(self.find(order_id, now), behaviour=behaviour)
        self._orders[order.order_id] = order
        return order

    def balance(self, api_key: str | None, now: float) -> int:
        """Return the satoshis a key has at that time; a key nobody has funded has none."""
        self.orders(now)
        return self.balances.get(api_key or "", 0)

    def credit(self, api_key: str | None, amount: int) -> None:
        """Add satoshis to the balance of a key."""
        self.balances[api_key or ""] = self.balances.get(api_key or "", 0) + amount

    def _apply(
        self,
        order: Order,
        event: Event,
        now: float,
        *,
        number: str | None = None,
        code: str | None = None,
    ) -> Order:
        stage = _NEXT.get((order.kind, order.stage, event))
        if stage is None:
            raise LawError(
                f"{order.kind.value} order {mask(order.order_id)} is {order.stage.value!r}: "
                f"{event.value!r} cannot happen to it"
            )
        time = max(now, order.since)  # a clock that is stepped back does not turn history round
        changes: dict[str, Any] = {"stage": stage, "since": time}
        match event:
            case Event.PAY:
                changes["paid_at"] = time
            case Event.ASSIGN_NUMBER:
                changes["number"] = number or f"+1555{self._random.randrange(10**7):07}"
                changes["reference"] = self._random.randrange(10**8, 10**9)
            case Event.DELIVER_CODE:
                changes["code"] = order.behaviour.code if code is None else code
            case _:
                pass
        after = attrs.evolve(order, **changes)
        if order.kind is Kind.FUND and after.holder is Holder.SETTLED:
            self.credit(order.api_key, order.price)
        if order.immediate and after.holder is Holder.RETURNED:
            self.credit(order.api_key, order.price)
        after = attrs.evolve(
            after, history=(*order.history, Moment(time, event.value, after.holder))
        )
        self._orders[after.order_id] = after
        return after
