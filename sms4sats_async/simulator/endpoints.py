"""The law over HTTP: which request asks for what, and how the answers look.

Total: whatever the request, there is an answer.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

import attrs

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
from .law import Behaviour, Kind, LawError, Order, Stage, World
from .messages import Answer, Request

__all__ = ["REFUND_TEXT", "answer"]

REFUND_TEXT = (
    "No available number, payment request is canceled. "
    "Your funds are returned to your wallet automatically."
)
"""What the status of a refunded order says. (documented)"""

_LONGEST_MESSAGE = 140  # characters (documented)
_LARGEST_FUND = 100_000_000  # satoshis; a limit is likely, this one is made up
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_LARGEST_JSON_NUMBER_DIGITS = 15  # what every JSON reader keeps exactly

_SMS_STATUS: Mapping[Stage, str] = {
    Stage.CREATED: "created",
    Stage.PAID: "created",
    Stage.SENT: "sent",
    Stage.DONE: "delivered",
    Stage.RELEASED: "failed",
}


class _RefusedError(Exception):
    """The service says no."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@attrs.frozen
class _Call:
    """A request together with all it may touch."""

    world: World
    request: Request
    behaviour: Behaviour
    now: float

    def key(self) -> str:
        """Return the API key, which the request must carry."""
        if self.request.api_key is None:
            raise _RefusedError(400, "X-API-Key header is missing.")  # (documented)
        return self.request.api_key

    def fields(self) -> dict[str, Any]:
        """Return the JSON object that the request must carry."""
        fields = self.request.json
        if not isinstance(fields, dict):
            raise _RefusedError(400, "the body must be a JSON object")
        return cast("dict[str, Any]", fields)

    def text(self, name: str) -> str:
        """Return a field that must be a text with something in it."""
        value = self.fields().get(name)
        if not isinstance(value, str) or not value:
            raise _RefusedError(400, f"{name} must be a text")
        return value

    def flag(self, name: str) -> bool:
        """Return a field that must be true or false, if it is there at all."""
        value = self.fields().get(name, False)
        if not isinstance(value, bool):
            raise _RefusedError(400, f"{name} must be true or false")
        return value


def answer(world: World, request: Request, behaviour: Behaviour, now: float) -> Answer:
    """Do what a request asks for, and answer it.

    Args:
        world: where it happens.
        request: any request.
        behaviour: how orders that it creates are treated.
        now: when it is handled, in Unix seconds.
    """
    endpoint = _ENDPOINTS.get((request.method, request.path))
    if endpoint is None:
        # How the real service answers those is unknown.
        return Answer.refusal(404, "no such endpoint")
    try:
        return Answer.from_json(endpoint(_Call(world, request, behaviour, now)))
    except _RefusedError as refused:
        return Answer.refusal(refused.status, refused.reason)


def _ping(_: _Call) -> object:
    return {"status": "OK"}


def _cancel_order(call: _Call) -> object:
    try:
        call.world.cancel(call.request.query.get("orderId", ""), call.now)
    except (LookupError, LawError):
        rules = call.behaviour
        raise _RefusedError(rules.cancel_refusal_status, rules.cancel_refusal_reason) from None
    return {"status": "OK"}


def _order_status(call: _Call) -> object:
    try:
        order = call.world.find(call.request.query.get("orderId", ""), call.now)
    except LookupError:
        raise _RefusedError(500, "order not found") from None
    return {"status": "OK", "paid": order.paid, **_STATUS_FIELDS[order.kind](order)}


def _receive_status(order: Order) -> dict[str, object]:
    refunded = order.stage is Stage.RELEASED or (
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
    return {}  # what more there is, is unknown


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
    return _open(call, Kind.RECEIVE, price, country=country, service=service)


def _create_send_order(call: _Call) -> object:
    if not _E164.fullmatch(call.text("phone")):
        raise _RefusedError(400, "phone must be in E.164 format")
    if len(call.text("message")) > _LONGEST_MESSAGE:
        raise _RefusedError(400, f"message is longer than {_LONGEST_MESSAGE} characters")
    if "webhookUrl" in call.fields():
        call.text("webhookUrl")  # the simulator posts nothing there
    return _open(call, Kind.SEND, SEND_PRICE)


def _fund(call: _Call) -> object:
    call.key()
    amount = call.fields().get("amount")
    if isinstance(amount, bool) or not isinstance(amount, int) or not 0 < amount <= _LARGEST_FUND:
        raise _RefusedError(400, "amount must be a positive number of satoshis")
    return _open(call, Kind.FUND, amount)


def _open(
    call: _Call, kind: Kind, price: int, *, country: int | None = None, service: str | None = None
) -> object:
    immediate = kind is not Kind.FUND and call.flag("immediate")
    try:
        order = call.world.open(
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
    except LawError as error:
        raise _RefusedError(400, str(error)) from None
    return {"status": "OK", "orderId": order.order_id, "payreq": order.payreq}


def _balance(call: _Call) -> object:
    return {"status": "OK", "balance": call.world.balance(call.key(), call.now)}


def _history(call: _Call) -> object:
    key = call.key()
    paid = [
        order
        for order in call.world.orders(call.now)
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
    if _asked_country(call) is None:
        raise _RefusedError(400, "country is missing")
    return SERVICES


def _rental_countries(_: _Call) -> object:
    return RENTAL_COUNTRIES


def _price(call: _Call) -> object:
    country, service = _asked_country(call), call.request.query.get("service")
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


def _asked_country(call: _Call) -> int | None:
    asked = call.request.query.get("country")
    if asked is None:
        return None
    # A query has no numbers, so here one must be read from text.
    country = country_id(int(asked) if re.fullmatch("[0-9]{1,9}", asked) else asked)
    if country is None:
        raise _RefusedError(400, "no such country")
    return country


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _digits(text: str, behaviour: Behaviour) -> str | int:
    """Return a code or number as the JSON type that the behaviour asks for."""
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
