"""The endpoints: each is a request, a decoder and what may be repeated, one short entry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import attrs

from .decode import (
    decode_balance,
    decode_cancelled,
    decode_countries,
    decode_created,
    decode_history,
    decode_ping,
    decode_price,
    decode_rental_countries,
    decode_services,
    decode_status,
)
from .messages import Request, Safety, target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

_JSON: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


@attrs.frozen
class Operation(Generic[T]):
    """One endpoint.

    Attributes:
        name: The client's method, as errors and events call it.
        method: The HTTP method.
        path: The path after the root.
        decode: From the JSON value of a good answer, and the order's ID, to the result.
        safety: What may be repeated.
        needs_key: Whether it is a prepaid call, which the service answers with the key alone.
    """

    name: str
    method: str
    path: str
    decode: Callable[[object, str | None], T]
    safety: Safety = Safety.REPEATABLE
    needs_key: bool = False

    def request(
        self,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        with_key: bool = False,
    ) -> Request:
        """Return the request for these values."""
        return Request(
            method=self.method,
            target=target(self.path, query or {}),
            safety=self.safety,
            body=None if body is None else _JSON.encode(body).encode(),
            with_key=with_key or self.needs_key,
        )


PING: Final = Operation("ping", "GET", "/", decode_ping)
CREATE_ORDER: Final = Operation(
    "create_order", "POST", "/createorder", decode_created, Safety.ONLY_IF_NOT_SENT
)
GET_ORDER_STATUS: Final = Operation("get_order_status", "GET", "/orderstatus", decode_status)
GET_COUNTRIES: Final = Operation("get_countries", "GET", "/getCountries", decode_countries)
GET_SERVICES: Final = Operation("get_services", "GET", "/getnumbersstatus", decode_services)
GET_RENTAL_COUNTRIES: Final = Operation(
    "get_rental_countries", "GET", "/getRentalCountries", decode_rental_countries
)
GET_PRICE: Final = Operation("get_price", "GET", "/price", decode_price)
CREATE_SEND_ORDER: Final = Operation(
    "create_send_order",
    "POST",
    "/createsendorder",
    decode_created,
    Safety.ONLY_IF_NOT_SENT,
)
FUND: Final = Operation(
    "fund", "POST", "/fund", decode_created, Safety.ONLY_IF_NOT_SENT, needs_key=True
)
GET_BALANCE: Final = Operation("get_balance", "GET", "/balance", decode_balance, needs_key=True)
GET_HISTORY: Final = Operation("get_history", "GET", "/history", decode_history, needs_key=True)
# A GET that changes state (documented). Repeating it is harmless: the order can only be
# cancelled once, and a second answer changes no money.
CANCEL_ORDER: Final = Operation("cancel_order", "GET", "/cancelorder", decode_cancelled)
