"""All orders and balances of the simulated service, and the only code that changes them.

There is no input or output here, and the time (Unix seconds) is an argument everywhere. Automatic
events, such as the code after its delay, are applied when an order is read: in order, each with its
own time. So the result does not depend on how often an order is read.
"""

import hashlib
import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs

from .behaviour import Behaviour
from .invoice import make_invoice
from .masking import mask
from .order import Moment, Order, next_event
from .states import TRANSITIONS, Event, Holder, Kind, StateError

__all__ = ["Store"]


class Store:
    """The orders and balances of the service.

    Attributes:
        balances: prepaid satoshis by API key.
    """

    def __init__(self, seed: int | None = 0) -> None:
        """Start without orders.

        Args:
            seed: makes IDs, numbers and invoices the same in every run; None: different ones.
        """
        self.balances: dict[str, int] = {}
        self._orders: dict[str, Order] = {}
        self._ids_by_payreq: dict[str, str] = {}
        self._random = random.Random(seed)  # noqa: S311 - no real secret is made with it

    def orders(self, now: float) -> list[Order]:
        """Return all orders as they are at that time, the oldest first."""
        return [self.find(order_id, now) for order_id in self._orders]

    def find(self, order_id: str, now: float) -> Order:
        """Return an order as it is at that time.

        Args:
            order_id: the ID of the order.
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

    def order_id_of(self, payreq: str) -> str:
        """Return the ID of the order that an invoice pays; return any other text unchanged."""
        return self._ids_by_payreq.get(payreq, payreq)

    def create(
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
        """Create an order, and pay it if `immediate` asks for the balance of the key.

        Raises:
            StateError: if the balance is too low.
        """
        if immediate and self.balance(api_key, now) < price:
            raise StateError("insufficient balance")
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

    def apply(
        self,
        order_id: str,
        event: Event,
        now: float,
        *,
        number: str | None = None,
        code: str | None = None,
    ) -> Order:
        """Apply an event to an order.

        Args:
            order_id: the ID of the order.
            event: the event.
            now: Unix seconds.
            number: the number to assign; None: a random one.
            code: the code to deliver; None: the order's `behaviour.code`.

        Raises:
            LookupError: if there is no such order.
            StateError: if the state of the order does not allow the event.
        """
        return self._apply(self.find(order_id, now), event, now, number=number, code=code)

    def cancel(self, order_id: str, now: float) -> Order:
        """Cancel an order for the customer: not before its minimum age, and only without a code.

        Raises:
            LookupError: if there is no such order.
            StateError: if the order cannot be cancelled, or not yet.
        """
        order = self.find(order_id, now)
        if now < order.age_base + order.behaviour.minimum_cancel_age:
            raise StateError(f"order {mask(order.order_id)} is too young to be cancelled")
        return self._apply(order, Event.CANCEL, now)

    def set_behaviour(self, order_id: str, behaviour: Behaviour, now: float) -> Order:
        """Change the behaviour for one order from that time on.

        Raises:
            LookupError: if there is no such order.
        """
        order = attrs.evolve(self.find(order_id, now), behaviour=behaviour)
        self._orders[order.order_id] = order
        return order

    def balance(self, api_key: str | None, now: float) -> int:
        """Return the satoshis of a key at that time; 0 for an unknown key."""
        self.orders(now)  # applies the events that change balances
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
        stage = TRANSITIONS.get((order.kind, order.stage, event))
        if stage is None:
            raise StateError(
                f"{order.kind.value} order {mask(order.order_id)} is {order.stage.value!r}: "
                f"the event {event.value!r} is not possible"
            )
        time = max(now, order.since)  # the history stays in order if the clock is set back
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
        if order.immediate and after.holder is Holder.REFUNDED:
            self.credit(order.api_key, order.price)
        after = attrs.evolve(
            after, history=(*order.history, Moment(time, event.value, after.holder))
        )
        self._orders[after.order_id] = after
        return after
