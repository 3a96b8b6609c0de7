"""The values that a user meets: orders, their status, and the catalogue."""

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

import attrs

from ._redact import mask, mask_invoice, mask_optional, mask_optional_invoice, quote_optional

T = TypeVar("T", bound=attrs.AttrsInstance)


class RequestOutcome(enum.Enum):
    """What is known about a failed request."""

    NOT_SENT = "not sent"
    """The request provably never left this machine: nothing changed."""

    REFUSED = "refused"
    """The service received the request and refused it."""

    UNKNOWN = "unknown"
    """The service may or may not have carried out the request."""


class Money(enum.Enum):
    """Where the money of an order is."""

    WITH_PAYER = "with the payer"
    """The invoice is not paid."""

    HELD = "held"
    """The hold invoice is paid. The money is neither settled nor refunded yet."""

    SETTLED = "settled"
    """The service has received the money. It cannot be refunded."""

    REFUNDED = "refunded"
    """The hold invoice was cancelled, so the payer has the money, whether it was paid or not."""

    UNKNOWN = "unknown"
    """The service's answers do not show where the money is."""


class OrderState(enum.Enum):
    """The state of an order, derived from the status that the service returns."""

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
    """The delivery status of a message to send (`smsStatus`, documented)."""

    CREATED = "created"
    SENT = "sent"
    DELIVERED = "delivered"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """A value that is not documented. `OrderStatus.raw` holds it."""


class OrderOutcome(enum.Enum):
    """How an order ended."""

    CODE_RECEIVED = "code received"
    """The code arrived, so the money is settled."""

    MESSAGE_SENT = "message sent"
    """The message was sent, so the money is settled."""

    CANCELLED = "cancelled"
    """The service answered OK to the cancel. It refunds what was paid."""

    REFUNDED = "refunded"
    """The order's status shows that the service refunded it."""


class Displayed:
    """A value with a notebook display. Rendering is imported only when a notebook asks for it."""

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        from ._notebook import render  # noqa: PLC0415 - values do not depend on their display

        return render(self)


def nothing() -> Mapping[str, Any]:
    """Return the `raw` of a value that has no answer."""
    return {}


def no_metadata() -> Mapping[str, str]:
    """Return the metadata of an order without any."""
    return {}


@attrs.frozen
class Order(Displayed):
    """What every order has.

    Attributes:
        order_id: The only identifier of the order. With it, anyone can read the code and cancel
            the order: keep it safe and out of logs (`repr` masks it).
        invoice: The BOLT 11 hold invoice to pay (the service calls it `payreq`). Paid means held,
            not settled. The word `"paid"` for an order that was paid from the key's balance.
            `repr` masks it.
        created_at: When the service's answer arrived, by this machine's clock. It is never earlier
            than the moment from which the service counts, so no cancel is sent too early.
        metadata: Your own notes on the order. The journal keeps them; the service never gets them.
        raw: The service's answer, unchanged.
    """

    order_id: str = attrs.field(repr=mask)
    invoice: str = attrs.field(repr=mask_invoice)
    created_at: datetime
    metadata: Mapping[str, str] = attrs.field(factory=no_metadata, hash=False, kw_only=True)
    raw: Mapping[str, Any] = attrs.field(factory=nothing, eq=False, repr=False, kw_only=True)


@attrs.frozen
class ReceiveOrder(Order):
    """An order for an activation code.

    Attributes:
        country: The country as you gave it.
        service: The service's short code as you gave it.
    """

    country: int | str | None = None
    service: str | None = None


@attrs.frozen
class SendOrder(Order):
    """An order for a message to send.

    Attributes:
        phone: The receiver's number as you gave it.
    """

    phone: str | None = None


@attrs.frozen
class FundOrder(Order):
    """An invoice that adds to the balance of a key.

    Attributes:
        amount: The requested amount in satoshis.
    """

    amount: int | None = None


@attrs.frozen
class OrderStatus(Displayed):
    """What the service reported about an order at one moment.

    Attributes:
        order_id: The order.
        state: The state that follows from the other fields.
        paid: Whether the invoice is paid, which means held; None if the answer does not say.
        code: The activation code as text, with its leading zeros where the service sent them.
        number: The number that receives the code, as `+` and digits.
        sms_status: The status of a message to send; None for other orders.
        country: The country, as the service gave it.
        service: The service's short code.
        timestamp: The time that the service put on the status.
        error: The service's text about an order that found no number or was refunded.
        money: Where the money is in that state.
        raw: The answer, unchanged.
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
    raw: Mapping[str, Any] = attrs.field(factory=nothing, eq=False, repr=False, kw_only=True)


@attrs.frozen
class CodeStatus(OrderStatus):
    """The status of an order with its code.

    Attributes:
        code: The activation code as text, with its leading zeros where the service sent them.
    """

    code: str = attrs.field(kw_only=True)


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
    raw: Mapping[str, Any] = attrs.field(factory=nothing, eq=False, repr=False, kw_only=True)


@attrs.frozen
class Service:
    """A service whose codes can be received, such as a messenger.

    Attributes:
        code: The short code that orders take, such as `"tg"`.
        name: Its name.
        count: How many numbers there are; None if the list does not say.
        image: Where its picture is, as the service gives it; it may be relative (seen).
        raw: The entry as it came.
    """

    code: str
    name: str
    count: int | None = None
    image: str | None = None
    raw: Mapping[str, Any] = attrs.field(factory=nothing, eq=False, repr=False, kw_only=True)


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
    raw: Mapping[str, Any] = attrs.field(factory=nothing, eq=False, repr=False, kw_only=True)


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
class Price(Displayed):
    """The service's prices, in satoshis (documented); None if the answer names none.

    Attributes:
        receive: To receive a code.
        send: To send a message.
        rent: To rent a number.
        platform_fee: The service's own part (`s4s`).
        computed: The price of the country and service asked for.
        raw: The answer as it came.
    """

    receive: int | None
    send: int | None
    rent: int | None
    platform_fee: int | None
    computed: ComputedPrice | None = None
    raw: Mapping[str, Any] = attrs.field(factory=nothing, eq=False, repr=False, kw_only=True)


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
    description: str | None = attrs.field(default=None, repr=quote_optional)
    invoice: str | None = attrs.field(default=None, repr=mask_optional_invoice)
    preimage: str | None = attrs.field(default=None, repr=mask_optional)
    preimage_hash: str | None = attrs.field(default=None, repr=mask_optional)
    price: int | None = None
    user_id: str | None = attrs.field(default=None, repr=mask_optional)
    raw: Mapping[str, Any] = attrs.field(factory=nothing, eq=False, repr=False, kw_only=True)


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
    raw: Mapping[str, Any] = attrs.field(factory=nothing, eq=False, repr=False, kw_only=True)


class Listing(list[T], Displayed):
    """A list that a notebook displays as a table."""
