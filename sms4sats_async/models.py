"""The values that a user meets: orders, their status, and what became of a cancel."""

import enum
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

import attrs

from . import _notebook as _html
from ._bolt11 import NotAnInvoiceError, read, satoshis
from ._redact import (
    mask,
    mask_optional,
    quote,
    quote_optional,
    show_invoice,
    show_optional_invoice,
)

T = TypeVar("T", bound=attrs.AttrsInstance)


class RequestOutcome(enum.Enum):
    """What is known of a request that failed."""

    NOT_SENT = "not sent"
    """It provably never left: nothing was changed anywhere."""

    REFUSED = "refused"
    """The service got it and said no."""

    UNKNOWN = "unknown"
    """It may have been carried out, and it may not."""


class Money(enum.Enum):
    """Who holds the money of an order."""

    WITH_PAYER = "with the payer"
    """The invoice is not paid."""

    HELD = "held"
    """The hold invoice is paid: nobody can spend the money until it is settled or returned."""

    SETTLED = "settled"
    """The service has it, for good."""

    RETURNED = "returned"
    """It is the payer's again, or on its way back."""

    UNKNOWN = "unknown"
    """The service has not said enough to tell."""


class OrderState(enum.Enum):
    """Where an order stands, read out of the status that the service gives."""

    UNPAID = "unpaid"
    HELD = "held"
    NUMBER_ASSIGNED = "number assigned"
    CODE_RECEIVED = "code received"
    REFUNDED = "refunded"
    MESSAGE_CREATED = "message created"
    MESSAGE_SENT = "message sent"
    MESSAGE_DELIVERED = "message delivered"
    MESSAGE_FAILED = "message failed"
    UNKNOWN = "unknown"


class SmsStatus(enum.Enum):
    """What the service says of a message that it was to send (`smsStatus`, documented)."""

    CREATED = "created"
    SENT = "sent"
    DELIVERED = "delivered"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """A word that is not documented; it stands in `OrderStatus.raw`."""


class CancelOutcome(enum.Enum):
    """How an attempt to get the money back ended."""

    CANCELLED = "cancelled"
    """The service answered OK to the cancel."""

    ALREADY_RELEASED = "already released"
    """The service had given the money back before, and its status says so."""

    CODE_ARRIVED = "code arrived"
    """No cancel: the code came first, stands in `status.code`, and is paid for."""

    @property
    def funds_returned(self) -> bool:
        """Whether the money is the payer's again, or on its way back."""
        return self is not CancelOutcome.CODE_ARRIVED


def _nothing() -> Mapping[str, Any]:
    return {}


@attrs.frozen
class Order:
    """What every order has.

    Attributes:
        order_id: The only handle on the order. Whoever has it can read the code and cancel
            the order: keep it safe and out of logs (`repr` masks it).
        payreq: The BOLT 11 hold invoice to pay. Paid means held, not settled.
        created_at: When the service's answer was here, by this machine's clock: never earlier
            than the moment from which the service counts, so that no cancel comes too early.
        raw: The service's answer as it came.
    """

    order_id: str = attrs.field(repr=mask)
    payreq: str = attrs.field(repr=show_invoice)
    created_at: datetime
    raw: Mapping[str, Any] = attrs.field(factory=_nothing, eq=False, repr=False, kw_only=True)

    _title: ClassVar[str] = "order"
    _money: ClassVar[str] = "with the payer until the invoice is paid, and held from then on"

    def _repr_html_(self) -> str:
        now = time.time()
        age = now - self.created_at.timestamp()
        facts: dict[str, object] = {
            "order": mask(self.order_id),
            **{name: getattr(self, name) for name in _own_fields(self)},
            "made": f"{_clock(self.created_at)}, {_html.span(age)} ago",
        }
        try:
            invoice = read(self.payreq)
        except NotAnInvoiceError as error:
            paid = self.payreq == "paid"
            facts["money"] = "held, paid from the balance" if paid else Money.UNKNOWN.value
            facts["problem"] = None if paid else str(error)
            return _html.card(self._title, facts)
        amount = satoshis(invoice.amount_msat)
        left = invoice.expires_at.timestamp() - now
        facts["amount"] = "chosen by the payer" if amount is None else f"{amount} sat"
        facts["network"] = None if invoice.network == "bitcoin" else invoice.network
        until = _clock(invoice.expires_at)
        facts["payable"] = f"until {until}, {_html.span(left)} from now"
        if left <= 0:
            facts["payable"] = f"no more, it expired at {until}"
        facts["money"] = self._money
        return _html.card(self._title, facts, pay=invoice.bolt11)


def _own_fields(order: Order) -> list[str]:
    """Return what an order of this kind has beyond every order."""
    of_all = {field.name for field in attrs.fields(Order)}
    return [field.name for field in attrs.fields(type(order)) if field.name not in of_all]


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


@attrs.frozen
class ReceiveOrder(Order):
    """An order for an activation code.

    Attributes:
        country: The country as it was asked for.
        service: The service's short code as it was asked for.
    """

    country: int | str | None = None
    service: str | None = None

    _title: ClassVar[str] = "order for a code"


@attrs.frozen
class SendOrder(Order):
    """An order for a message to send.

    Attributes:
        phone: The receiver's number as it was asked for.
    """

    phone: str | None = None

    _title: ClassVar[str] = "order for a message"


@attrs.frozen
class FundOrder(Order):
    """An invoice that fills the balance of a key.

    Attributes:
        amount: Satoshis that were asked for.
    """

    amount: int | None = None

    _title: ClassVar[str] = "invoice for the balance"
    _money: ClassVar[str] = "with the payer until the invoice is paid"


@attrs.frozen
class OrderStatus:
    """What the service said of an order at one moment.

    Attributes:
        order_id: The order.
        state: The one word for all that follows.
        paid: Whether the invoice is paid, which means held; None if the answer does not say.
        code: The activation code, with its leading zeros where the service sent them.
        number: The number to receive on, as `+` and digits.
        sms_status: For a message to send; None for other orders.
        country: The country, as the service gave it.
        service: The service's short code.
        timestamp: The time that the service put on the status.
        error: The service's word on an order that found no number or was given back.
        money: Who holds the money in that state.
        raw: The answer as it came.
    """

    order_id: str = attrs.field(repr=mask)
    state: OrderState
    paid: bool | None = None
    code: str | None = None
    number: str | None = None
    sms_status: SmsStatus | None = None
    country: int | str | None = None
    service: str | None = None
    timestamp: datetime | None = None
    error: str | None = attrs.field(default=None, repr=quote_optional)
    money: Money = attrs.field(default=Money.UNKNOWN, kw_only=True)
    raw: Mapping[str, Any] = attrs.field(factory=_nothing, eq=False, repr=False, kw_only=True)

    def _repr_html_(self) -> str:
        facts = {
            "order": mask(self.order_id),
            "money": self.money.value,
            "number": self.number,
            "country": self.country,
            "service": self.service,
            "message": None if self.sms_status is None else self.sms_status.value,
            "as of": None if self.timestamp is None else _clock(self.timestamp),
            "the service says": None if self.error is None else quote(self.error),
        }
        return _html.card(self.state.value, facts, big=self.code)


@attrs.frozen
class Cancellation:
    """The end of an order whose money was asked back.

    Attributes:
        order_id: The order.
        outcome: What happened; `outcome.funds_returned` answers the question everybody asks.
        status: The status that is the evidence, or the last one seen; None if none was looked at.
        attempts: How many times the cancel was sent.
        raw: The service's answer to the cancel; empty if a status is the evidence.
    """

    order_id: str = attrs.field(repr=mask)
    outcome: CancelOutcome
    status: OrderStatus | None = None
    attempts: int = 0
    raw: Mapping[str, Any] = attrs.field(factory=_nothing, eq=False, repr=False, kw_only=True)

    def _repr_html_(self) -> str:
        money = Money.RETURNED if self.outcome.funds_returned else Money.SETTLED
        facts = {
            "order": mask(self.order_id),
            "money": money.value,
            "last status": None if self.status is None else self.status.state.value,
            "attempts": self.attempts,
        }
        code = None if self.outcome.funds_returned or self.status is None else self.status.code
        return _html.card(self.outcome.value, facts, big=code)


@attrs.frozen
class Country:
    """A country of the service's list.

    Attributes:
        id: The number that orders take; 999 lets the service choose (seen).
        name: Its English name.
        visible: Whether the service's own site shows it; None if the list does not say (seen).
        rentable: Whether numbers can be rented there; None if the list does not say (seen).
        raw: The entry as it came.
    """

    id: int
    name: str
    visible: bool | None = None
    rentable: bool | None = None
    raw: Mapping[str, Any] = attrs.field(factory=_nothing, eq=False, repr=False, kw_only=True)


@attrs.frozen
class Service:
    """A service whose codes can be received, such as a messenger.

    Attributes:
        code: The short code that orders take, such as `"tg"`.
        name: Its name, for people.
        count: How many numbers there are; None if the list does not say.
        image: Where its picture is, as the service gives it; it may be relative (seen).
        raw: The entry as it came.
    """

    code: str
    name: str
    count: int | None = None
    image: str | None = None
    raw: Mapping[str, Any] = attrs.field(factory=_nothing, eq=False, repr=False, kw_only=True)


@attrs.frozen
class RentalCountry:
    """A country in which numbers can be rented (documented).

    Attributes:
        country_id: The number that orders take.
        country: Its name.
        duration_weeks: For how long, in weeks.
        price: In satoshis.
        raw: The entry as it came.
    """

    country_id: int
    country: str
    duration_weeks: int
    price: int
    raw: Mapping[str, Any] = attrs.field(factory=_nothing, eq=False, repr=False, kw_only=True)


@attrs.frozen
class ComputedPrice:
    """The price of what was asked for (documented).

    Attributes:
        price: In satoshis.
        country: The country, as the service gave it.
        description: What the service calls it.
    """

    price: int
    country: int | str | None = None
    description: str | None = None


@attrs.frozen
class Price:
    """The service's prices, in satoshis (documented).

    Attributes:
        receive: To receive a code.
        send: To send a message.
        rent: To rent a number.
        platform_fee: The service's own part (`s4s`).
        computed: The price of the country and service asked for; None where none was.
        raw: The answer as it came.
    """

    receive: int
    send: int
    rent: int
    platform_fee: int
    computed: ComputedPrice | None = None
    raw: Mapping[str, Any] = attrs.field(factory=_nothing, eq=False, repr=False, kw_only=True)

    def _repr_html_(self) -> str:
        facts: dict[str, object] = {
            "to receive a code": f"{self.receive} sat",
            "to send a message": f"{self.send} sat",
            "to rent a number": f"{self.rent} sat",
            "the service's own part": f"{self.platform_fee} sat",
        }
        if self.computed is None:
            return _html.card("prices", facts)
        asked = {"country": self.computed.country, "for": self.computed.description}
        return _html.card("prices", asked | facts, big=f"{self.computed.price} sat")


@attrs.frozen
class FundingEntry:
    """One funding of a key's balance (documented).

    Attributes:
        amount: Satoshis.
        created_at: When, or None if the entry does not say.
        description: What the service calls it.
        invoice: The invoice that was paid.
        preimage: The proof of the payment; `repr` masks it.
        preimage_hash: Its hash, which the invoice carries.
        price: Satoshis, as the entry says.
        user_id: The API key itself (documented); `repr` masks it.
        raw: The entry as it came, secrets included.
    """

    amount: int
    created_at: datetime | None = None
    description: str | None = None
    invoice: str | None = attrs.field(default=None, repr=show_optional_invoice)
    preimage: str | None = attrs.field(default=None, repr=mask_optional)
    preimage_hash: str | None = None
    price: int | None = None
    user_id: str | None = attrs.field(default=None, repr=mask_optional)
    raw: Mapping[str, Any] = attrs.field(factory=_nothing, eq=False, repr=False, kw_only=True)


@attrs.frozen
class FundingHistory:
    """How the balance of a key was filled (documented).

    Attributes:
        total_amount: Satoshis in all.
        entries: Each funding, in the service's order.
        raw: The answer as it came, secrets included.
    """

    total_amount: int
    entries: tuple[FundingEntry, ...] = ()
    raw: Mapping[str, Any] = attrs.field(factory=_nothing, eq=False, repr=False, kw_only=True)


class Listing(list[T]):
    """A list that a notebook shows as a table, and else a list like any other."""

    def _repr_html_(self) -> str | None:
        if not self:
            return None
        names = [
            field.name
            for field in attrs.fields(type(self[0]))
            if field.name not in {"image", "raw"}
        ]
        return _html.table(
            [name.replace("_", " ") for name in names],
            [[getattr(each, name) for name in names] for each in self],
        )
