"""The endpoints: each is a request, a decoder and what may be repeated, one short entry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import attrs

from . import _decode
from ._wire import Request, Safety, target

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
        decode: From the JSON value of a good answer, and the order's id, to the result.
        safety: What may be repeated.
    """

    name: str
    method: str
    path: str
    decode: Callable[[object, str | None], T]
    safety: Safety = Safety.REPEATABLE

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
            with_key=with_key,
        )


PING: Final = Operation("ping", "GET", "/", _decode.decode_ping)
CREATE_ORDER: Final = Operation(
    "create_order", "POST", "/createorder", _decode.decode_created, Safety.ONLY_IF_NOT_SENT
)
GET_ORDER_STATUS: Final = Operation(
    "get_order_status", "GET", "/orderstatus", _decode.decode_status
)
# A GET that changes state (documented). Repeating it is harmless: the order can only be
# cancelled once, and a second answer changes no money.
CANCEL_ORDER: Final = Operation("cancel_order", "GET", "/cancelorder", _decode.decode_cancelled)
