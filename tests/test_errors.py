"""Every error: its place in the tree, its text, and that it can be pickled and copied."""

import copy
import pickle
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from sms4sats_async import errors
from sms4sats_async._http import endpoints as _operations
from sms4sats_async._http.endpoints import Operation
from sms4sats_async._http.messages import Safety
from sms4sats_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ClientStateError,
    CodeTimeoutError,
    InvalidArgumentError,
    InvalidResponseError,
    JournalError,
    OrderError,
    OrderRefundedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    Sms4SatsError,
    TransportError,
    UnableToSaveDataError,
)
from sms4sats_async.models import Money, OrderState, OrderStatus, ReceiveOrder, RequestOutcome

ORDER_ID = "0123456789abcdef" * 4
STATUS = OrderStatus(ORDER_ID, OrderState.CODE_RECEIVED, paid=True, code="0042", raw={"id": 7})
ORDER = ReceiveOrder(ORDER_ID, "lnbc1", datetime(2027, 1, 15, tzinfo=UTC))
NOT_SENT, REFUSED, UNKNOWN = RequestOutcome

BASES: dict[type[Sms4SatsError], tuple[type[BaseException], ...]] = {
    Sms4SatsError: (Exception,),
    InvalidArgumentError: (Sms4SatsError, ValueError),
    ClientStateError: (Sms4SatsError, RuntimeError),
    TransportError: (Sms4SatsError,),
    RequestTimeoutError: (TransportError, TimeoutError),
    InvalidResponseError: (Sms4SatsError,),
    JournalError: (Sms4SatsError,),
    APIError: (Sms4SatsError,),
    BadRequestError: (APIError,),
    AuthenticationError: (APIError,),
    RateLimitError: (APIError,),
    ServerError: (APIError,),
    UnableToSaveDataError: (ServerError,),
    OrderError: (Sms4SatsError,),
    OrderRefundedError: (OrderError,),
    CodeTimeoutError: (OrderError, TimeoutError),
}
COMMON: dict[str, Any] = {
    "operation": "cancel_order",
    "order_id": ORDER_ID,
    "attempts": 4,
    "request_outcome": REFUSED,
}
# An error about an order, not about a request, has no request outcome.
WITHOUT_OUTCOME = {name: value for name, value in COMMON.items() if name != "request_outcome"}
API: dict[str, Any] = {"status_code": 500, "reason": "unable to save data", "retry_after": 2.5}


def common_fields(kind: type[Sms4SatsError]) -> dict[str, Any]:
    """What a class takes of the fields that errors have in common."""
    return WITHOUT_OUTCOME if issubclass(kind, OrderError) else COMMON


def own_fields(kind: type[Sms4SatsError]) -> dict[str, Any]:
    """What a class takes beyond the common fields."""
    if issubclass(kind, APIError):
        return API
    if issubclass(kind, OrderError):
        return {"status": STATUS}
    if issubclass(kind, JournalError):
        return {"order": ORDER}
    return {"status_code": 502} if issubclass(kind, InvalidResponseError) else {}


each_class = pytest.mark.parametrize("kind", BASES, ids=lambda kind: kind.__name__)


# --- the tree -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "bases"), BASES.items(), ids=lambda it: getattr(it, "__name__", "")
)
def test_an_error_has_these_base_classes(
    kind: type[Sms4SatsError], bases: tuple[type[BaseException], ...]
) -> None:
    assert kind.__bases__ == bases


def test_the_tree_shows_every_error() -> None:
    defined = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, BaseException)
    }

    assert defined == set(BASES)


def test_the_tree_in_the_documentation_names_every_error() -> None:
    named = re.findall(r"^[ │├└─]*(\w+)", str(errors.__doc__).split("```")[1], re.MULTILINE)

    assert sorted(named) == sorted(kind.__name__ for kind in BASES)


# --- the attributes -------------------------------------------------------------------------------


@each_class
def test_an_error_has_its_arguments_as_attributes(kind: type[Sms4SatsError]) -> None:
    error = kind("it broke", **common_fields(kind), **own_fields(kind))

    fields = COMMON | {"request_outcome": None} if issubclass(kind, OrderError) else COMMON
    assert vars(error) == {"problem": "it broke"} | fields | own_fields(kind)
    assert error.args == ("it broke",)


@each_class
def test_every_argument_of_an_error_is_optional(kind: type[Sms4SatsError]) -> None:
    nothing: dict[str, Any] = dict.fromkeys(own_fields(kind))

    assert vars(kind()) == nothing | {
        "problem": "",
        "operation": None,
        "order_id": None,
        "attempts": 0,
        "request_outcome": None if issubclass(kind, OrderError) else NOT_SENT,
    }


@each_class
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_can_be_pickled(kind: type[Sms4SatsError], protocol: int) -> None:
    error = kind("it broke", **common_fields(kind), **own_fields(kind))
    error.add_note("a note")

    again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - our own bytes

    assert type(again) is kind
    assert vars(again) == vars(error)
    assert (again.args, str(again), repr(again)) == (error.args, str(error), repr(error))


@each_class
@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_an_error_can_be_copied(
    make: Callable[[Sms4SatsError], Sms4SatsError], kind: type[Sms4SatsError]
) -> None:
    error = kind("it broke", **common_fields(kind), **own_fields(kind))

    again = make(error)
    again.attempts = 9

    assert type(again) is kind
    assert (error.attempts, again.args) == (4, error.args)
    assert vars(again) == vars(error) | {"attempts": 9}


class OwnError(APIError):
    """A subclass whose constructor takes other arguments."""

    def __init__(self, color: str) -> None:
        super().__init__(f"it is {color}", status_code=418, attempts=2)
        self.color = color


def test_an_error_of_a_subclass_can_be_pickled() -> None:
    again = pickle.loads(pickle.dumps(OwnError("red")))  # noqa: S301 - our own bytes

    assert type(again) is OwnError
    assert vars(again) == vars(OwnError("red"))
    assert str(again) == "2 attempts: it is red"


def test_the_original_stays_as_the_cause() -> None:
    original = OSError("broken pipe")

    with pytest.raises(TransportError) as caught:
        raise TransportError("no answer") from original

    assert caught.value.__cause__ is original


# --- the text -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "start"),
    [
        ({}, "it broke"),
        ({"operation": "ping"}, "ping: it broke. "),
        ({"order_id": ORDER_ID}, "order 0123…cdef: it broke"),
        ({"attempts": 1}, "it broke"),
        ({"attempts": 4}, "4 attempts: it broke"),
        ({"operation": "ping", "attempts": 4}, "ping, 4 attempts: it broke. "),
        ({"order_id": ORDER_ID, "attempts": 4}, "order 0123…cdef, 4 attempts: it broke"),
        (COMMON, "cancel_order of order 0123…cdef, 4 attempts: it broke. "),
    ],
)
def test_an_error_names_the_operation_the_order_and_the_attempts(
    fields: dict[str, Any], start: str
) -> None:
    text = str(Sms4SatsError("it broke", **fields))

    assert text.startswith(start)
    assert text == start or "operation" in fields


REFUND = "the service refunds the order automatically 21 minutes after it was created"
# What it means for the money, and what to do next.
MEANING: dict[tuple[str, RequestOutcome], tuple[str, ...]] = {
    ("cancel_order", NOT_SENT): ("No cancel was sent", "Try again", REFUND),
    ("cancel_order", REFUSED): ("refused the cancel", "safely cancel again", REFUND),
    ("cancel_order", UNKNOWN): ("may or may not be cancelled", "safely cancel again", REFUND),
    ("create_order", NOT_SENT): ("No order was created", "no money moved", "You can try again"),
    ("create_order", REFUSED): ("No order was created", "no money moved", "Check the arguments"),
    ("create_order", UNKNOWN): (
        *("may or may not have created an order", "Before you order again"),
        *("cannot be paid", "get_balance()"),
    ),
    ("create_send_order", NOT_SENT): (
        *("no message was sent", "no money moved", "You can try again"),
    ),
    ("create_send_order", REFUSED): (
        *("No order was created", "no message was sent", "no money moved", "Check the arguments"),
    ),
    ("create_send_order", UNKNOWN): (
        *("may or may not have created an order", "Before you order again"),
        *("message may have been sent", "get_balance()"),
    ),
    ("fund", NOT_SENT): ("No invoice was created", "no money moved", "You can try again"),
    ("fund", REFUSED): ("No invoice was created", "no money moved", "Check the amount"),
    ("fund", UNKNOWN): (
        *("may or may not have created an invoice", "no money moved", "get_history()"),
    ),
}
READS = (
    *("ping", "get_countries", "get_services", "get_rental_countries", "get_price"),
    *("get_order_status", "get_balance", "get_history"),
)


@pytest.mark.parametrize(("operation", "outcome"), MEANING)
@pytest.mark.parametrize("kind", [Sms4SatsError, TransportError, APIError, InvalidResponseError])
def test_an_error_names_the_consequence_and_the_next_step(
    kind: type[Sms4SatsError], operation: str, outcome: RequestOutcome
) -> None:
    text = str(kind("it broke", operation=operation, request_outcome=outcome))

    assert text.startswith(f"{operation}: it broke. ")
    assert text.endswith(".")
    for phrase in MEANING[operation, outcome]:
        assert phrase in text


def test_an_error_about_an_order_names_no_consequence_of_a_request() -> None:
    assert str(OrderError("it broke", operation="receive_code")) == "receive_code: it broke"


@pytest.mark.parametrize("operation", ["create_order", "create_send_order", "fund"])
def test_after_an_unknown_outcome_a_retry_is_not_called_safe(operation: str) -> None:
    text = str(Sms4SatsError("it broke", operation=operation, request_outcome=UNKNOWN))

    assert "You can try again" not in text
    assert "safe" not in text


@pytest.mark.parametrize("operation", READS)
@pytest.mark.parametrize("outcome", RequestOutcome)
def test_a_failed_read_changed_nothing(operation: str, outcome: RequestOutcome) -> None:
    text = str(APIError("it broke", operation=operation, request_outcome=outcome))

    refused = outcome is RequestOutcome.REFUSED
    advice = "Check the arguments, or try again later." if refused else "You can try again."
    assert text == f"{operation}: it broke. Nothing was changed. {advice}"


def test_without_a_key_no_error_advises_to_try_again() -> None:
    assert str(AuthenticationError("no key", operation="create_order")) == (
        "create_order: no key. Nothing was sent."
    )


def test_every_operation_that_changes_something_has_its_own_consequences() -> None:
    every: list[Any] = [it for it in vars(_operations).values() if type(it) is Operation]
    changing = {
        it.name for it in every if it.safety is not Safety.REPEATABLE or "cancel" in it.name
    }

    assert changing == {operation for operation, _ in MEANING}
    assert {it.name for it in every} - changing == set(READS)


NEXT = "Wait longer, or call code_or_refund(order, timeout=0) for the refund."


def status_with(money: Money) -> OrderStatus:
    return OrderStatus(ORDER_ID, OrderState.UNKNOWN, money=money)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InvalidArgumentError("no ID", operation="fund"), "fund: no ID. Nothing was sent."),
        (InvalidArgumentError("no ID"), "no ID. Nothing was sent."),
        (ClientStateError("closed"), "closed. Nothing was sent."),
        (ClientStateError("closed", operation="fund"), "fund: closed. Nothing was sent."),
        (ClientStateError("closed", request_outcome=UNKNOWN), "closed"),
        (
            ClientStateError("closed", operation="ping", request_outcome=UNKNOWN),
            "ping: closed. Nothing was changed. You can try again.",
        ),
        (
            OrderRefundedError("no number", operation="open_order"),
            (
                "open_order: no number. No code will arrive. The service refunds the payment "
                "automatically."
            ),
        ),
        (
            CodeTimeoutError("no code within 60 s", status=status_with(Money.HELD)),
            f"no code within 60 s. The order is open and the money is held. {NEXT}",
        ),
        (
            CodeTimeoutError("no code within 60 s", status=status_with(Money.WITH_PAYER)),
            f"no code within 60 s. The order is open and its invoice is not paid. {NEXT}",
        ),
        (
            CodeTimeoutError("no code within 60 s", status=status_with(Money.UNKNOWN)),
            f"no code within 60 s. The order may be open and the money may be held. {NEXT}",
        ),
        (
            CodeTimeoutError("no code within 60 s", operation="wait_for_code", order_id=ORDER_ID),
            (
                "wait_for_code of order 0123…cdef: no code within 60 s. The order may be open and "
                f"the money may be held. {NEXT}"
            ),
        ),
        (
            JournalError("the disk is full", operation="create_order"),
            (
                "create_order: the disk is full. Nothing was sent, because no order is requested "
                "without a record. Repair the journal, then try again."
            ),
        ),
        (
            JournalError("the disk is full", operation="create_send_order", order=ORDER),
            (
                "create_send_order: the disk is full. The order was created, but the journal does "
                "not have its ID and invoice. Both are in the error's `order`: keep them, and do "
                "not pay twice."
            ),
        ),
        (
            JournalError("the disk is full", operation="wait_for_code"),
            (
                "wait_for_code: the disk is full. Nothing was sent and the order is unchanged. "
                "Repair the journal, then try again. Without a code, the service refunds the order "
                "automatically 21 minutes after it was created."
            ),
        ),
        (JournalError("the disk is full"), "the disk is full"),
    ],
)
def test_the_text_of_an_error_of_this_class(error: Sms4SatsError, text: str) -> None:
    assert str(error) == text


def test_a_problem_that_ends_with_a_full_stop_gets_no_second_one() -> None:
    """The documented reason is `X-API-Key header is missing.`, full stop included."""
    error = AuthenticationError("HTTP 400: X-API-Key header is missing.", operation="fund")

    assert ".." not in str(error)


@each_class
@pytest.mark.parametrize("order_id", [ORDER_ID, "SM1234567890", "id-7", "7"])
def test_str_and_repr_mask_the_order_id(kind: type[Sms4SatsError], order_id: str) -> None:
    error = kind("it broke", **common_fields(kind) | {"order_id": order_id}, **own_fields(kind))

    assert f"order {order_id}" not in f"{error} {error!r}"
    assert repr(error) == f"<{kind.__name__}: {error}>"
    assert error.order_id == order_id


@pytest.mark.parametrize("order_id", [ORDER_ID, "SM1234567890", "id-7"])
def test_an_order_id_in_an_answer_is_masked(order_id: str) -> None:
    error = APIError(f"HTTP 404: no order {order_id}", reason=order_id, order_id=order_id)

    assert order_id not in f"{error} {error!r}"
