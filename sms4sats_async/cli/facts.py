"""The library's values, in JSON and in words."""

import enum
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import attrs

from sms4sats_async import InvalidArgumentError, Invoice, Order, OrderResult, OrderStatus

# The API key itself, a proof of payment, the raw answer that has both again; and the journal's own
# data.
_HIDDEN: Final = frozenset({"user_id", "preimage", "raw", "key", "claimed_by", "claimed_until"})

_SATOSHIS: Final = frozenset(
    {"amount", "amount_sat", "balance", "platform_fee", "price", "receive", "rent", "send"}
    | {"max_fee_sat", "total_amount"}
)

_LABELS: Final = {
    "order_id": "order ID",
    "amount_sat": "to pay",
    "base_url": "service",
    "expires_at": "pay until",
    "max_fee_sat": "fee limit",
}

_SHORTEST_SHOWN: Final = 12


def facts(value: attrs.AttrsInstance) -> dict[str, Any]:
    """Return the fields of a value, under the library's own names, without secrets."""
    return attrs.asdict(value, filter=lambda attribute, _: attribute.name not in _HIDDEN)


def order_facts(order: Order) -> dict[str, Any]:
    """Return the fields of an order, and the amount and the expiry of its invoice."""
    invoice = read_invoice(order.invoice)
    return {
        "amount_sat": None if invoice is None else invoice.amount_sat,
        "expires_at": None if invoice is None else invoice.expires_at,
    } | facts(order)


def result_facts(result: OrderResult) -> dict[str, Any]:
    """Return how an order ended."""
    return facts(result) | {"refunded": result.refunded}


def status_in_words(status: OrderStatus) -> str:
    """Return the state of an order in one line."""
    words = [status.state.value, f"money {status.money.value}"]
    known = {"number": status.number, "code": status.code}
    words += [f"{name} {in_words(fact)}" for name, fact in known.items() if fact]
    return ", ".join(words)


def shortened(order_id: str) -> str:
    """Return an order's ID as it may be shown."""
    return f"{order_id[:4]}…{order_id[-4:]}" if len(order_id) >= _SHORTEST_SHOWN else "…"


def read_invoice(invoice: str) -> Invoice | None:
    """Return an invoice, or None if it is unreadable; `paid` (from a balance) is none."""
    try:
        return Invoice.parse(invoice)
    except InvalidArgumentError:
        return None


def amount_of(order: Order) -> int | None:
    """Return the satoshis that an order's invoice is for, or None if they are unreadable."""
    invoice = read_invoice(order.invoice)
    return None if invoice is None else invoice.amount_sat


def in_json(known: Mapping[str, object]) -> str:
    """Return one line of JSON, in ASCII, which every reader can read."""
    return json.dumps(known, default=_as_json, allow_nan=False)


def _as_json(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case enum.Enum():
            return value.value
        case _:
            return str(value)


def local(moment: datetime) -> str:
    """Return a time in this machine's time zone, or in UTC where that zone has no such time."""
    try:
        moment = moment.astimezone()
    except (OverflowError, ValueError, OSError):
        moment = moment.astimezone(UTC)
    return moment.isoformat(sep=" ", timespec="seconds")


def in_words(fact: object, name: str = "") -> str:
    """Return a fact as people read it, on one line and without control characters."""
    match fact:
        case None:
            words = ""
        case bool():
            words = "yes" if fact else "no"
        case int() if name in _SATOSHIS:
            words = f"{fact:,} sat"
        case datetime():
            words = local(fact)
        case enum.Enum():
            words = str(fact.value)
        case Mapping():
            notes = cast("Mapping[str, object]", fact)
            words = "; ".join(f"{name}: {note}" for name, note in notes.items())
        case _:
            words = str(fact)
    # Foreign text could move the cursor, or colour what follows.
    return "".join(letter if letter.isprintable() else "�" for letter in words)


def described(known: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the label and the words of each fact that is known."""
    for name, fact in known.items():
        # Metadata is one fact, because a note such as `money` must not look like a fact.
        nested = None if name == "metadata" else fact
        if isinstance(nested, Mapping):
            yield from described(cast("Mapping[str, object]", nested))
        elif words := in_words(fact, name):
            yield _LABELS.get(name, name.replace("_", " ")), words
