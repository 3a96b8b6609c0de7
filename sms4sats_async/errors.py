"""Every error of this library, and what each one means for the money.

```
Sms4SatsError
├── InvalidArgumentError (ValueError)
├── ClientStateError (RuntimeError)
├── TransportError
│   └── RequestTimeoutError (TimeoutError)
├── InvalidResponseError
├── JournalError
├── APIError
│   ├── BadRequestError
│   ├── AuthenticationError
│   ├── RateLimitError
│   └── ServerError
│       └── UnableToSaveDataError
└── OrderError
    ├── CodeAlreadyReceivedError
    ├── OrderRefundedError
    └── CodeTimeoutError (TimeoutError)
        └── CodeTimeoutRefundedError (OrderRefundedError too)
```
"""

from typing import Any, Final, TypedDict, Unpack

from ._redact import hide, mask
from .models import Order, OrderStatus, RequestOutcome

_NOT_SENT = RequestOutcome.NOT_SENT
_REFUSED = RequestOutcome.REFUSED
_UNKNOWN = RequestOutcome.UNKNOWN

_ORDER_UNKNOWN: Final = (
    "The request may have arrived, so an order may exist whose id was lost: do not simply ask "
    "again. An invoice that never arrived cannot be paid, so no wallet lost money"
)
_CONSEQUENCES: Final[dict[tuple[str, RequestOutcome], str]] = {
    ("cancel_order", _NOT_SENT): (
        "No cancel was sent, the order is as it was. Try again; without a code the service "
        "returns the money by itself 21 minutes after the order."
    ),
    ("cancel_order", _REFUSED): (
        "The service did not cancel it now: the order may be younger than 2 minutes, already "
        "ended, or unknown. get_order_status() tells which; without a code the service returns "
        "the money by itself 21 minutes after the order."
    ),
    ("cancel_order", _UNKNOWN): (
        "Whether the order was cancelled is unknown. get_order_status() may tell, and asking to "
        "cancel again is safe; without a code the service returns the money by itself 21 minutes "
        "after the order."
    ),
    ("create_order", _NOT_SENT): "No order was made and no money moved; asking again is safe.",
    ("create_order", _REFUSED): "No order was made and no money moved.",
    ("create_order", _UNKNOWN): (
        f"{_ORDER_UNKNOWN}; with immediate=True compare get_balance() with what it was."
    ),
    ("create_send_order", _NOT_SENT): (
        "No order was made, no message sent and no money moved; asking again is safe."
    ),
    ("create_send_order", _REFUSED): "No order was made, no message sent and no money moved.",
    ("create_send_order", _UNKNOWN): (
        f"{_ORDER_UNKNOWN}; with immediate=True the message may have been sent: compare "
        "get_balance() with what it was."
    ),
    ("fund", _NOT_SENT): "No invoice was made and no money moved; asking again is safe.",
    ("fund", _REFUSED): "No invoice was made and no money moved.",
    ("fund", _UNKNOWN): (
        "An invoice may exist that was lost on the way; it cannot be paid, so no money moved. "
        "get_history() shows what was funded."
    ),
}

_MAKES_AN_ORDER: Final = frozenset({"create_order", "create_send_order"})


class Common(TypedDict, total=False):
    """The keyword arguments that every error takes."""

    operation: str | None
    order_id: str | None
    attempts: int
    request_outcome: RequestOutcome


class Sms4SatsError(Exception):
    """The root of every error of this library.

    `str` of it tells what happened, whether anything was sent, what that means for the money and
    what to do next, and masks order ids and keys. It can be pickled (without its `__cause__`).

    Attributes:
        problem: What happened, alone.
        operation: The method of the client that failed, or None outside of one.
        order_id: The order, whole: the only handle on the money. Keep it out of logs.
        attempts: How many requests this call tried to send.
        request_outcome: What is known of them all together.
    """

    def __init__(
        self,
        problem: str = "",
        *,
        operation: str | None = None,
        order_id: str | None = None,
        attempts: int = 0,
        request_outcome: RequestOutcome = RequestOutcome.NOT_SENT,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.operation = operation
        self.order_id = order_id
        self.attempts = attempts
        self.request_outcome = request_outcome

    def __str__(self) -> str:
        where = self.operation or ""
        if self.order_id is not None:
            where += f"{' of ' if where else ''}order {mask(self.order_id)}"
        if self.attempts > 1:
            where += f"{', ' if where else ''}{self.attempts} attempts"
        problem = self.problem if self.order_id is None else hide(self.problem, self.order_id)
        told = f"{where}: {problem}" if where else problem
        consequence = self._consequence()
        return f"{told.rstrip('.')}. {consequence}" if consequence else told

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)

    def _consequence(self) -> str:
        """Return what the failure means and what to do next."""
        if self.operation is None:
            return ""
        return _CONSEQUENCES.get(
            (self.operation, self.request_outcome),
            "Nothing was changed by it; asking again is safe.",
        )


def _rebuild(
    kind: type[Sms4SatsError], args: tuple[object, ...], state: dict[str, Any]
) -> Sms4SatsError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class InvalidArgumentError(Sms4SatsError, ValueError):
    """An argument cannot be meant; nothing was sent."""

    def _consequence(self) -> str:
        return "Nothing was sent."


class ClientStateError(Sms4SatsError, RuntimeError):
    """The client is closed, or belongs to another event loop; nothing was sent."""

    def _consequence(self) -> str:
        if self.request_outcome is RequestOutcome.NOT_SENT:
            return "Nothing was sent."
        return super()._consequence()


class TransportError(Sms4SatsError):
    """No answer: the connection failed before or after the request left (`request_outcome`)."""


class RequestTimeoutError(TransportError, TimeoutError):
    """No whole answer within the time that an attempt may take."""


class InvalidResponseError(Sms4SatsError):
    """An answer that nobody can read: HTML, cut JSON, a wrong shape, or over 1 MiB.

    Attributes:
        status_code: The HTTP status of that answer, or None where it was not kept.
    """

    def __init__(
        self, problem: str = "", *, status_code: int | None = None, **common: Unpack[Common]
    ) -> None:
        super().__init__(problem, **common)
        self.status_code = status_code


class JournalError(Sms4SatsError):
    """The journal cannot be read or written: a full disk, a damaged or locked file.

    Attributes:
        order: The order that was made and could not be written down, its id and invoice with it;
            None where none was made, since nothing is asked for without a record.
    """

    def __init__(
        self, problem: str = "", *, order: Order | None = None, **common: Unpack[Common]
    ) -> None:
        super().__init__(problem, **common)
        self.order = order

    def _consequence(self) -> str:
        if self.order is not None:
            return (
                "The order was made, and the journal holds only that one was asked for: its id and "
                "invoice stand on the error's order. Keep them; do not pay twice."
            )
        if self.operation in _MAKES_AN_ORDER:
            return (
                "Nothing was sent, because no order is made without a record. Mend the journal "
                "and ask again."
            )
        return ""


class APIError(Sms4SatsError):
    """The service said no.

    Attributes:
        status_code: The HTTP status, a 200 may carry an error too (seen); None where the library
            refused in the service's place, before anything was sent.
        reason: The service's own word for it, or None if it gave none.
        retry_after: Seconds that the service asked to wait, or None.
    """

    def __init__(
        self,
        problem: str = "",
        *,
        status_code: int | None = None,
        reason: str | None = None,
        retry_after: float | None = None,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(problem, **common)
        self.status_code = status_code
        self.reason = reason
        self.retry_after = retry_after


class BadRequestError(APIError):
    """HTTP 400: the same request will be refused again."""


class AuthenticationError(APIError):
    """The key is missing or not accepted: HTTP 401, 403, or 400 `X-API-Key header is missing.`."""


class RateLimitError(APIError):
    """HTTP 429; `retry_after` holds the seconds to wait where the service gave them."""


class ServerError(APIError):
    """HTTP 5xx."""


class UnableToSaveDataError(ServerError):
    """HTTP 500 `unable to save data`: the documented refusal of a cancel."""


class OrderError(Sms4SatsError):
    """The order ended otherwise than was asked for, or is not what was asked for.

    It is about the order and not about a request that failed, so `request_outcome` says nothing
    here, and `attempts` counts the reads or cancels that it took.

    Attributes:
        status: The last status seen, or None.
    """

    def __init__(
        self, problem: str = "", *, status: OrderStatus | None = None, **common: Unpack[Common]
    ) -> None:
        super().__init__(problem, **common)
        self.status = status

    def _consequence(self) -> str:
        return ""


class CodeAlreadyReceivedError(OrderError):
    """The code is there (`status.code`) and paid for, so the order cannot be cancelled."""

    def _consequence(self) -> str:
        return "The code stands in the error's status.code, and the money is spent on it."


class OrderRefundedError(OrderError):
    """The service gave the order back: no code will come, the money returns by itself."""

    def _consequence(self) -> str:
        return "No code will come; the money returns to the payer by itself."


class CodeTimeoutError(OrderError, TimeoutError):
    """No code within the time given; the order still stands and the money is still held."""

    def _consequence(self) -> str:
        return (
            "The order still stands and the money is still held: wait on, or get it back with "
            "cancel_order_when_allowed()."
        )


class CodeTimeoutRefundedError(OrderRefundedError, CodeTimeoutError):
    """No code within the time given, and the order was cancelled or given back: both in one."""
