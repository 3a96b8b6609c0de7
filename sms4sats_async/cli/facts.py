"""What the library's values are in JSON and in words."""

import enum
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, cast

import attrs

from sms4sats_async import Cancellation, InvalidArgumentError, Invoice, Order, OrderStatus

# The API key itself, a proof of payment, the answer that has both in it again; and what a journal
# keeps for itself.
_KEPT: Final = frozenset({"user_id", "preimage", "raw", "key", "claimed_by", "claimed_until"})

_SATOSHIS: Final = frozenset(
    {"amount", "amount_sat", "balance", "platform_fee", "price", "receive", "rent", "send"}
    | {"total_amount"}
)

_LABELS: Final = {"payreq": "invoice", "amount_sat": "to pay", "expires_at": "pay until"}

_SHORTEST_SHOWN: Final = 12


def facts(value: attrs.AttrsInstance) -> dict[str, Any]:
    """Return what a value of the library says, under the library's own names, secrets left out."""
    return attrs.asdict(value, filter=lambda attribute, _: attribute.name not in _KEPT)


def order_facts(order: Order) -> dict[str, Any]:
    """Return what an order says, and what its invoice asks and until when."""
    invoice = read_invoice(order.payreq)
    return {
        "amount_sat": None if invoice is None else invoice.amount_sat,
        "expires_at": None if invoice is None else invoice.expires_at,
    } | facts(order)


def ended_facts(done: Cancellation) -> dict[str, Any]:
    """Return how an order ended, with the two answers that everybody wants at the top."""
    code = None if done.status is None else done.status.code
    return facts(done) | {"funds_returned": done.outcome.funds_returned, "code": code}


def status_in_words(status: OrderStatus) -> str:
    """Return where an order stands, in one line."""
    words = [status.state.value, f"money {status.money.value}"]
    known = {"number": status.number, "code": status.code}
    words += [f"{name} {in_words(fact)}" for name, fact in known.items() if fact]
    return ", ".join(words)


def shortened(order_id: str) -> str:
    """Return an order's id as it may be shown where others may look."""
    return f"{order_id[:4]}…{order_id[-4:]}" if len(order_id) >= _SHORTEST_SHOWN else "…"


def read_invoice(payreq: str) -> Invoice | None:
    """Return what an invoice says, or None if it cannot be read; `paid` from a balance is none."""
    try:
        return Invoice.parse(payreq)
    except InvalidArgumentError:
        return None


def in_json(known: Mapping[str, object]) -> str:
    """Return one line of JSON, in ASCII, which every reader takes."""
    return json.dumps(known, default=_as_json, allow_nan=False)


def _as_json(value: datetime | enum.Enum) -> object:
    return value.isoformat() if isinstance(value, datetime) else value.value


def in_words(fact: object, name: str = "") -> str:
    """Return a fact as people read it, on one line and without control characters."""
    match fact:
        case None:
            return ""
        case bool():
            return "yes" if fact else "no"
        case int() if name in _SATOSHIS:
            return f"{fact:,} sat"
        case datetime():
            return fact.astimezone().isoformat(sep=" ", timespec="seconds")
        case enum.Enum():
            return str(fact.value)
        case _:
            # Foreign text could move the cursor, or colour what follows.
            return "".join(letter if letter.isprintable() else "�" for letter in str(fact))


def described(known: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the label and the words of each fact that is known."""
    for name, fact in known.items():
        if isinstance(fact, Mapping):
            yield from described(cast("Mapping[str, object]", fact))
        elif fact is not None:
            yield _LABELS.get(name, name.replace("_", " ")), in_words(fact, name)
