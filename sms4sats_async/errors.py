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
    ├── OrderRefundedError
    └── CodeTimeoutError (TimeoutError)
```
"""

from typing import Any, Final, TypedDict, Unpack

from ._redact import hide, mask
from .models import Money, Order, OrderStatus, RequestOutcome

_NOT_SENT = RequestOutcome.NOT_SENT
_REFUSED = RequestOutcome.REFUSED
_UNKNOWN = RequestOutcome.UNKNOWN

_AUTOMATIC_REFUND: Final = (
    "Without a code, the service refunds the order automatically 21 minutes after it was created."
)
_ORDER_UNKNOWN: Final = (
    "The service may or may not have created an order. It cannot be paid, because its invoice did "
    "not arrive. Before you order again with immediate=True, compare get_balance() with the "
    "balance before"
)
_CHECK: Final = "Check the arguments. With immediate=True, check the API key and the balance too."
_LISTS: Final = "get_countries() and get_services() list what can be ordered."
_CONSEQUENCES: Final[dict[tuple[str, RequestOutcome], str]] = {
    ("cancel_order", _NOT_SENT): (
        f"No cancel was sent and the order is unchanged. Try again. {_AUTOMATIC_REFUND}"
    ),
    ("cancel_order", _REFUSED): (
        "The service refused the cancel. The order may be younger than 2 minutes, may have ended, "
        "or may be unknown to the service. get_order_status() may show which, and you can safely "
        "cancel again. cancel_order_when_allowed() waits until an order is old enough. "
        f"{_AUTOMATIC_REFUND}"
    ),
    ("cancel_order", _UNKNOWN): (
        "The order may or may not be cancelled. get_order_status() may show which, and you can "
        f"safely cancel again. {_AUTOMATIC_REFUND}"
    ),
    ("create_order", _NOT_SENT): "No order was created and no money moved. You can try again.",
    ("create_order", _REFUSED): f"No order was created and no money moved. {_CHECK} {_LISTS}",
    ("create_order", _UNKNOWN): f"{_ORDER_UNKNOWN}.",
    ("create_send_order", _NOT_SENT): (
        "No order was created, no message was sent and no money moved. You can try again."
    ),
    ("create_send_order", _REFUSED): (
        f"No order was created, no message was sent and no money moved. {_CHECK}"
    ),
    ("create_send_order", _UNKNOWN): f"{_ORDER_UNKNOWN}: the message may have been sent.",
    ("fund", _NOT_SENT): "No invoice was created and no money moved. You can try again.",
    ("fund", _REFUSED): (
        "No invoice was created and no money moved. Check the amount and the API key."
    ),
    ("fund", _UNKNOWN): (
        "The service may or may not have created an invoice. It did not arrive, so it cannot be "
        "paid and no money moved. get_history() shows what was funded."
    ),
}

_MAKES_AN_ORDER: Final = frozenset({"create_order", "create_send_order"})


class Common(TypedDict, total=False):
    """The keyword arguments that every error takes."""

    operation: str | None
    order_id: str | None
    attempts: int
    request_outcome: RequestOutcome | None


class Sms4SatsError(Exception):
    """The base class of every error of this library.

    `str` of an error says what failed, whether a request was sent, what that means for the money
    and what to do next. It masks order IDs, invoices and keys. An error can be pickled, without its
    `__cause__`.

    Attributes:
        problem: What failed, without the consequences.
        operation: The client's method that failed, or None outside of one.
        order_id: The whole order ID. Keep it out of logs.
        attempts: How many requests this call tried to send.
        request_outcome: What is known about all these requests together. None for an error that is
            about an order and not about a failed request.
    """

    def __init__(
        self,
        problem: str = "",
        *,
        operation: str | None = None,
        order_id: str | None = None,
        attempts: int = 0,
        request_outcome: RequestOutcome | None = RequestOutcome.NOT_SENT,
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
        failed = f"{where}: {problem}" if where else problem
        consequence = self._consequence()
        return f"{failed.rstrip('.')}. {consequence}" if consequence else failed

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)

    def _consequence(self) -> str:
        """Return what the failure means for the money and what to do next."""
        if self.operation is None or self.request_outcome is None:
            return ""
        default = "Nothing was changed. You can try again."
        if self.request_outcome is _REFUSED:
            default = "Nothing was changed. Check the arguments, or try again later."
        return _CONSEQUENCES.get((self.operation, self.request_outcome), default)


def _rebuild(
    kind: type[Sms4SatsError], args: tuple[object, ...], state: dict[str, Any]
) -> Sms4SatsError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class InvalidArgumentError(Sms4SatsError, ValueError):
    """If an argument is invalid. Nothing was sent."""

    def _consequence(self) -> str:
        return "Nothing was sent."


class ClientStateError(Sms4SatsError, RuntimeError):
    """If the client is closed or belongs to another event loop. Nothing was sent."""

    def _consequence(self) -> str:
        if self.request_outcome is RequestOutcome.NOT_SENT:
            return "Nothing was sent."
        return super()._consequence()


class TransportError(Sms4SatsError):
    """If no answer arrived. `request_outcome` says whether the request was sent."""


class RequestTimeoutError(TransportError, TimeoutError):
    """If no complete answer arrived within the time for an attempt."""


class InvalidResponseError(Sms4SatsError):
    """If the answer is unreadable: HTML, cut JSON, a wrong shape, or more than 1 MiB.

    Attributes:
        status_code: The HTTP status of the answer, or None if it is not known.
    """

    def __init__(
        self, problem: str = "", *, status_code: int | None = None, **common: Unpack[Common]
    ) -> None:
        super().__init__(problem, **common)
        self.status_code = status_code


class JournalError(Sms4SatsError):
    """If the journal cannot be read or written: a full disk, a damaged or locked file.

    Attributes:
        order: The order that was created but could not be recorded, with its ID and invoice. None
            if no order was created: no order is requested without a record.
    """

    def __init__(
        self, problem: str = "", *, order: Order | None = None, **common: Unpack[Common]
    ) -> None:
        super().__init__(problem, **common)
        self.order = order

    def _consequence(self) -> str:
        if self.order is not None:
            return (
                "The order was created, but the journal does not have its ID and invoice. Both are "
                "in the error's `order`: keep them, and do not pay twice."
            )
        if self.operation in _MAKES_AN_ORDER:
            return (
                "Nothing was sent, because no order is requested without a record. Repair the "
                "journal, then try again."
            )
        if self.operation is None:
            return ""
        return (
            "Nothing was sent and the order is unchanged. Repair the journal, then try again. "
            f"{_AUTOMATIC_REFUND}"
        )


class APIError(Sms4SatsError):
    """If the service rejects the request.

    Attributes:
        status_code: The HTTP status; a 200 may have an error too (seen). None if the library
            rejected the request before it was sent.
        reason: The reason that the service gave, or None.
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
    """If the service answers HTTP 400. The same request will be refused again."""


class AuthenticationError(APIError):
    """If the key is missing or refused: HTTP 401, 403, or 400 `X-API-Key header is missing.`."""

    def _consequence(self) -> str:
        # Without a key, trying again fails in the same way; the problem says what to set.
        return "Nothing was sent." if self.request_outcome is _NOT_SENT else super()._consequence()


class RateLimitError(APIError):
    """If the service answers HTTP 429. `retry_after` has the seconds to wait, if it gave them."""


class ServerError(APIError):
    """If the service answers HTTP 5xx."""


class UnableToSaveDataError(ServerError):
    """If the service answers HTTP 500 `unable to save data`, its documented refusal of a cancel."""


class OrderError(Sms4SatsError):
    """If an order did not end as this call requires, or is an order of another kind.

    The error is about the order, not about a failed request: `request_outcome` is None.

    Attributes:
        status: The last status that was read, or None.
    """

    def __init__(
        self,
        problem: str = "",
        *,
        status: OrderStatus | None = None,
        operation: str | None = None,
        order_id: str | None = None,
        attempts: int = 0,
    ) -> None:
        super().__init__(
            problem,
            operation=operation,
            order_id=order_id,
            attempts=attempts,
            request_outcome=None,
        )
        self.status = status


class OrderRefundedError(OrderError):
    """If the service refunded the order while you waited for its code."""

    def _consequence(self) -> str:
        return "No code will arrive. The service refunds the payment automatically."


class CodeTimeoutError(OrderError, TimeoutError):
    """If no code arrived before the deadline. The order is still open."""

    def _consequence(self) -> str:
        money = Money.UNKNOWN if self.status is None else self.status.money
        match money:
            case Money.HELD:
                known = "The order is open and the money is held."
            case Money.WITH_PAYER:
                known = "The order is open and its invoice is not paid."
            case _:
                known = "The order may be open and the money may be held."
        return f"{known} Wait longer, or call code_or_refund(order, timeout=0) for the refund."
