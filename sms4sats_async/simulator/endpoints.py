"""The endpoints of the simulated service: each request gets an answer, whatever it contains."""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

import attrs

from .behaviour import Behaviour
from .catalogue import (
    COUNTRIES,
    PRICES,
    RENTAL_COUNTRIES,
    SEND_PRICE,
    SERVICES,
    country_id,
    receive_price,
    rental_price,
)
from .messages import Answer, Request
from .order import Order
from .states import Kind, Stage, StateError
from .store import Store

__all__ = ["REFUND_TEXT", "answer"]

REFUND_TEXT = (
    "No available number, payment request is canceled. "
    "Your funds are returned to your wallet automatically."
)
"""The `error` in the status of a refunded order. (documented)"""

_LONGEST_MESSAGE = 140  # characters (documented)
_LARGEST_FUND = 100_000_000  # satoshis; the real limit is unknown
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_LARGEST_JSON_NUMBER_DIGITS = 15  # more are not exact in every JSON reader

_SMS_STATUS: Mapping[Stage, str] = {
    Stage.CREATED: "created",
    Stage.PAID: "created",
    Stage.SENT: "sent",
    Stage.DONE: "delivered",
    Stage.FAILED: "failed",
}


class _RefusedError(Exception):
    """The service rejects the request."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@attrs.frozen
class _Call:
    """A request and what its endpoint needs."""

    store: Store
    request: Request
    behaviour: Behaviour
    now: float

    def key(self) -> str:
        """Return the API key, which is required."""
        if self.request.api_key is None:
            raise _RefusedError(400, "X-API-Key header is missing.")  # (documented)
        return self.request.api_key

    def fields(self) -> dict[str, Any]:
        """Return the JSON object in the body, which is required."""
        fields = self.request.json
        if not isinstance(fields, dict):
            raise _RefusedError(400, "the body must be a JSON object")
        return cast("dict[str, Any]", fields)

    def text(self, name: str) -> str:
        """Return a field that must be a text and not empty."""
        value = self.fields().get(name)
        if not isinstance(value, str) or not value:
            raise _RefusedError(400, f"{name} must be a text")
        return value

    def flag(self, name: str) -> bool:
        """Return an optional field that must be true or false; false by default."""
        value = self.fields().get(name, False)
        if not isinstance(value, bool):
            raise _RefusedError(400, f"{name} must be true or false")
        return value


def answer(store: Store, request: Request, behaviour: Behaviour, now: float) -> Answer:
    """Handle a request and return the answer.

    Args:
        store: the orders and balances.
        request: any request.
        behaviour: the behaviour of an order that the request creates.
        now: the time in Unix seconds.
    """
    endpoint = _ENDPOINTS.get((request.method, request.path))
    if endpoint is None:
        # The answer of the real service is unknown.
        return Answer.refusal(404, "no such endpoint")
    try:
        return Answer.from_json(endpoint(_Call(store, request, behaviour, now)))
    except _RefusedError as refused:
        return Answer.refusal(refused.status, refused.reason)


def _ping(_: _Call) -> object:
    return {"status": "OK"}


def _cancel_order(call: _Call) -> object:
    try:
        call.store.cancel(call.request.query.get("orderId", ""), call.now)
    except (LookupError, StateError):
        raise _RefusedError(
            call.behaviour.cancel_refusal_status, call.behaviour.cancel_refusal_reason
        ) from None
    return {"status": "OK"}


def _order_status(call: _Call) -> object:
    try:
        order = call.store.find(call.request.query.get("orderId", ""), call.now)
    except LookupError:
        raise _RefusedError(500, "order not found") from None
    return {"status": "OK", "paid": order.paid, **_STATUS_FIELDS[order.kind](order)}


def _receive_status(order: Order) -> dict[str, object]:
    refunded = order.stage is Stage.FAILED or (
        order.stage is Stage.CANCELLED and order.behaviour.status_after_cancel == "error"
    )
    if refunded:
        return {"error": REFUND_TEXT}
    fields: dict[str, object] = {}
    if order.number is not None:
        fields |= {
            "id": order.reference,
            "number": _digits(order.number, order.behaviour),
            "timestamp": _milliseconds(order.created_at),
            "country": order.country,
        }
    if order.code is not None:
        fields |= {"code": _digits(order.code, order.behaviour), "service": order.service}
    return fields


def _send_status(order: Order) -> dict[str, object]:
    return {
        "id": order.reference,
        "smsStatus": _SMS_STATUS[order.stage],
        "timestamp": _milliseconds(order.since),
    }


def _fund_status(_: Order) -> dict[str, object]:
    return {}  # other fields are unknown


def _create_order(call: _Call) -> object:
    country = country_id(call.fields().get("country"))
    if country is None:
        raise _RefusedError(400, "no such country")
    service = call.text("service")
    price = receive_price(service)
    if call.flag("isRental"):
        price = rental_price(country)
        if price is None:
            raise _RefusedError(400, "no numbers to rent in this country")
    if price is None:
        raise _RefusedError(400, "no such service")
    call.flag("realphone")
    if "ref" in call.fields():
        call.text("ref")
    return _create(call, Kind.RECEIVE, price, country=country, service=service)


def _create_send_order(call: _Call) -> object:
    if not _E164.fullmatch(call.text("phone")):
        raise _RefusedError(400, "phone must be in E.164 format")
    if len(call.text("message")) > _LONGEST_MESSAGE:
        raise _RefusedError(400, f"message is longer than {_LONGEST_MESSAGE} characters")
    if "webhookUrl" in call.fields():
        call.text("webhookUrl")  # the simulator never calls it
    return _create(call, Kind.SEND, SEND_PRICE)


def _fund(call: _Call) -> object:
    call.key()
    amount = call.fields().get("amount")
    if isinstance(amount, bool) or not isinstance(amount, int) or not 0 < amount <= _LARGEST_FUND:
        raise _RefusedError(400, "amount must be a positive number of satoshis")
    return _create(call, Kind.FUND, amount)


def _create(
    call: _Call, kind: Kind, price: int, *, country: int | None = None, service: str | None = None
) -> object:
    immediate = kind is not Kind.FUND and call.flag("immediate")
    try:
        order = call.store.create(
            call.now,
            kind=kind,
            price=price,
            behaviour=call.behaviour,
            request=call.fields(),
            api_key=call.key() if immediate else call.request.api_key,
            immediate=immediate,
            country=country,
            service=service,
        )
    except StateError as error:
        raise _RefusedError(400, str(error)) from None
    return {"status": "OK", "orderId": order.order_id, "payreq": order.payreq}


def _balance(call: _Call) -> object:
    return {"status": "OK", "balance": call.store.balance(call.key(), call.now)}


def _history(call: _Call) -> object:
    key = call.key()
    paid = [
        order
        for order in call.store.orders(call.now)
        if order.kind is Kind.FUND and order.api_key == key and order.paid
    ]
    return {
        "status": "OK",
        "totalAmount": sum(order.price for order in paid),
        "orders": [
            {
                "amount": order.price,
                "createdAt": _milliseconds(order.created_at),
                "desc": "fund",
                "description": "fund balance",
                "holdinvoice": order.payreq,
                "preimage": order.payment_preimage.hex(),
                "preimageHash": hashlib.sha256(order.payment_preimage).hexdigest(),
                "price": order.price,
                "userId": key,  # the API key itself (documented)
            }
            for order in paid
        ],
    }


def _countries(_: _Call) -> object:
    return COUNTRIES


def _services(call: _Call) -> object:
    if _country_in_query(call) is None:
        raise _RefusedError(400, "country is missing")
    return SERVICES


def _rental_countries(_: _Call) -> object:
    return RENTAL_COUNTRIES


def _price(call: _Call) -> object:
    country, service = _country_in_query(call), call.request.query.get("service")
    prices = dict(PRICES)
    if country is not None or service is not None:
        prices["query"] = dict(call.request.query)
    if country is not None and service is not None:
        price = receive_price(service)
        if price is None:
            raise _RefusedError(400, "no such service")
        prices["computed"] = {
            "price": price,
            "country": country,
            "description": f"one code for {service}",
        }
    return prices


def _country_in_query(call: _Call) -> int | None:
    text = call.request.query.get("country")
    if text is None:
        return None
    # Numbers in a query are text, unlike numbers in a JSON body.
    country = country_id(int(text) if re.fullmatch("[0-9]{1,9}", text) else text)
    if country is None:
        raise _RefusedError(400, "no such country")
    return country


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _digits(text: str, behaviour: Behaviour) -> str | int:
    """Return a code or number as a JSON number or string, depending on the behaviour."""
    digits = text.removeprefix("+")
    if (
        behaviour.json_numbers
        and re.fullmatch("[0-9]+", digits)
        and len(digits) <= _LARGEST_JSON_NUMBER_DIGITS
    ):
        return int(digits)
    return text


_STATUS_FIELDS: Mapping[Kind, Callable[[Order], dict[str, object]]] = {
    Kind.RECEIVE: _receive_status,
    Kind.SEND: _send_status,
    Kind.FUND: _fund_status,
}

_ENDPOINTS: Mapping[tuple[str, str], Callable[[_Call], object]] = {
    ("GET", "/"): _ping,
    ("GET", "/cancelorder"): _cancel_order,
    ("GET", "/orderstatus"): _order_status,
    ("POST", "/createorder"): _create_order,
    ("POST", "/createsendorder"): _create_send_order,
    ("GET", "/getCountries"): _countries,
    ("GET", "/getnumbersstatus"): _services,
    ("GET", "/getRentalCountries"): _rental_countries,
    ("GET", "/price"): _price,
    ("POST", "/fund"): _fund,
    ("GET", "/balance"): _balance,
    ("GET", "/history"): _history,
}
