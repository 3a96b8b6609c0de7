"""Every error: where it stands in the tree, what it says, and that it survives being passed on."""

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
    CodeAlreadyReceivedError,
    CodeTimeoutError,
    CodeTimeoutRefundedError,
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
from sms4sats_async.models import OrderState, OrderStatus, ReceiveOrder, RequestOutcome

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
    CodeAlreadyReceivedError: (OrderError,),
    OrderRefundedError: (OrderError,),
    CodeTimeoutError: (OrderError, TimeoutError),
    CodeTimeoutRefundedError: (OrderRefundedError, CodeTimeoutError),
}
COMMON: dict[str, Any] = {
    "operation": "cancel_order",
    "order_id": ORDER_ID,
    "attempts": 4,
    "request_outcome": REFUSED,
}
API: dict[str, Any] = {"status_code": 500, "reason": "unable to save data", "retry_after": 2.5}


def own_fields(kind: type[Sms4SatsError]) -> dict[str, Any]:
    """What a class takes beyond the fields that all have."""
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
def test_an_error_stands_where_the_tree_shows_it(
    kind: type[Sms4SatsError], bases: tuple[type[BaseException], ...]
) -> None:
    assert kind.__bases__ == bases


def test_a_timeout_that_ended_well_is_caught_as_a_timeout_and_as_a_refund() -> None:
    """Somebody who asks only whether the money is back need not know how the wait ended."""
    for kind in (CodeTimeoutError, OrderRefundedError, TimeoutError, OrderError):
        assert issubclass(CodeTimeoutRefundedError, kind)


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
def test_an_error_keeps_what_it_is_given(kind: type[Sms4SatsError]) -> None:
    error = kind("it broke", **COMMON, **own_fields(kind))

    assert vars(error) == {"problem": "it broke"} | COMMON | own_fields(kind)
    assert error.args == ("it broke",)


@each_class
def test_an_error_needs_nothing_at_all(kind: type[Sms4SatsError]) -> None:
    nothing: dict[str, Any] = dict.fromkeys(own_fields(kind))

    assert vars(kind()) == nothing | {
        "problem": "",
        "operation": None,
        "order_id": None,
        "attempts": 0,
        "request_outcome": NOT_SENT,
    }


@each_class
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling_whole(kind: type[Sms4SatsError], protocol: int) -> None:
    error = kind("it broke", **COMMON, **own_fields(kind))
    error.add_note("seen by the bot")

    again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - our own bytes

    assert type(again) is kind
    assert vars(again) == vars(error)
    assert (again.args, str(again), repr(again)) == (error.args, str(error), repr(error))


@each_class
@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_a_copy_of_an_error_is_as_whole_and_its_own(
    make: Callable[[Sms4SatsError], Sms4SatsError], kind: type[Sms4SatsError]
) -> None:
    error = kind("it broke", **COMMON, **own_fields(kind))

    again = make(error)
    again.attempts = 9

    assert type(again) is kind
    assert (error.attempts, again.args) == (4, error.args)
    assert vars(again) == vars(error) | {"attempts": 9}


class OwnError(APIError):
    """A user's error, which takes other arguments than ours."""

    def __init__(self, color: str) -> None:
        super().__init__(f"it is {color}", status_code=418, attempts=2)
        self.color = color


def test_an_error_of_a_users_own_making_survives_pickling_too() -> None:
    again = pickle.loads(pickle.dumps(OwnError("red")))  # noqa: S301 - our own bytes

    assert type(again) is OwnError
    assert vars(again) == vars(OwnError("red"))
    assert str(again) == "2 attempts: it is red"


def test_the_original_stays_as_the_cause() -> None:
    original = OSError("broken pipe")

    with pytest.raises(TransportError) as caught:
        raise TransportError("no answer") from original

    assert caught.value.__cause__ is original


# --- the words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "told"),
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
def test_an_error_says_what_happened_to_which_order_after_how_many_attempts(
    fields: dict[str, Any], told: str
) -> None:
    said = str(Sms4SatsError("it broke", **fields))

    assert said.startswith(told)
    assert said == told or "operation" in fields


RETURNS = "without a code the service returns the money by itself 21 minutes after the order"
# What it means for the money, and what to do next.
MEANING: dict[tuple[str, RequestOutcome], tuple[str, ...]] = {
    ("cancel_order", NOT_SENT): ("No cancel was sent", "Try again", RETURNS),
    ("cancel_order", REFUSED): ("did not cancel it", "get_order_status() tells", RETURNS),
    ("cancel_order", UNKNOWN): ("is unknown", "cancel again is safe", RETURNS),
    ("create_order", NOT_SENT): ("No order was made", "no money moved", "asking again is safe"),
    ("create_order", REFUSED): ("No order was made", "no money moved"),
    ("create_order", UNKNOWN): ("an order may exist", "do not simply ask again", "get_balance()"),
    ("create_send_order", NOT_SENT): ("no message sent", "no money moved", "asking again is safe"),
    ("create_send_order", REFUSED): ("No order was made", "no message sent", "no money moved"),
    ("create_send_order", UNKNOWN): (
        *("an order may exist", "do not simply ask again", "may have been sent", "get_balance()"),
    ),
    ("fund", NOT_SENT): ("No invoice was made", "no money moved", "asking again is safe"),
    ("fund", REFUSED): ("No invoice was made", "no money moved"),
    ("fund", UNKNOWN): ("An invoice may exist", "no money moved", "get_history()"),
}
READS = (
    *("ping", "get_countries", "get_services", "get_rental_countries", "get_price"),
    *("get_order_status", "get_balance", "get_history"),
)


@pytest.mark.parametrize(("operation", "outcome"), MEANING)
@pytest.mark.parametrize("kind", [Sms4SatsError, TransportError, APIError, InvalidResponseError])
def test_an_error_says_what_it_means_for_the_money_and_what_to_do_next(
    kind: type[Sms4SatsError], operation: str, outcome: RequestOutcome
) -> None:
    said = str(kind("it broke", operation=operation, request_outcome=outcome))

    assert said.startswith(f"{operation}: it broke. ")
    assert said.endswith(".")
    for phrase in MEANING[operation, outcome]:
        assert phrase in said


def test_an_error_about_an_order_says_what_it_knows_and_no_more() -> None:
    assert str(OrderError("it broke", operation="receive_code")) == "receive_code: it broke"


@pytest.mark.parametrize("operation", ["create_order", "create_send_order", "fund"])
def test_asking_again_is_called_safe_only_where_it_buys_nothing_twice(operation: str) -> None:
    said = str(Sms4SatsError("it broke", operation=operation, request_outcome=UNKNOWN))

    assert "is safe" not in said


@pytest.mark.parametrize("operation", READS)
@pytest.mark.parametrize("outcome", RequestOutcome)
def test_a_failed_read_changed_nothing(operation: str, outcome: RequestOutcome) -> None:
    said = str(APIError("it broke", operation=operation, request_outcome=outcome))

    assert said == f"{operation}: it broke. Nothing was changed by it; asking again is safe."


def test_every_operation_that_changes_something_has_its_own_words() -> None:
    every: list[Any] = [it for it in vars(_operations).values() if type(it) is Operation]
    changing = {
        it.name for it in every if it.safety is not Safety.REPEATABLE or "cancel" in it.name
    }

    assert changing == {operation for operation, _ in MEANING}
    assert {it.name for it in every} - changing == set(READS)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InvalidArgumentError("no id", operation="fund"), "fund: no id. Nothing was sent."),
        (InvalidArgumentError("no id"), "no id. Nothing was sent."),
        (ClientStateError("closed"), "closed. Nothing was sent."),
        (ClientStateError("closed", operation="fund"), "fund: closed. Nothing was sent."),
        (ClientStateError("closed", request_outcome=UNKNOWN), "closed"),
        (
            ClientStateError("closed", operation="ping", request_outcome=UNKNOWN),
            "ping: closed. Nothing was changed by it; asking again is safe.",
        ),
        (
            CodeAlreadyReceivedError("too late", operation="cancel_order"),
            (
                "cancel_order: too late. The code stands in the error's status.code, and the money "
                "is spent on it."
            ),
        ),
        (
            OrderRefundedError("no number", operation="open_order"),
            "open_order: no number. No code will come; the money returns to the payer by itself.",
        ),
        (
            CodeTimeoutError("no code in 60 s", operation="wait_for_code"),
            (
                "wait_for_code: no code in 60 s. The order still stands and the money is still "
                "held: wait on, or get it back with cancel_order_when_allowed()."
            ),
        ),
        (
            CodeTimeoutRefundedError("no code in 60 s", operation="receive_code"),
            (
                "receive_code: no code in 60 s. No code will come; the money returns to the payer "
                "by itself."
            ),
        ),
    ],
)
def test_an_error_whose_class_says_it_all_says_it(error: Sms4SatsError, said: str) -> None:
    assert str(error) == said


def test_a_problem_that_ends_with_a_full_stop_is_not_given_a_second_one() -> None:
    """The documented reason is `X-API-Key header is missing.`, full stop included."""
    error = AuthenticationError("HTTP 400: X-API-Key header is missing.", operation="fund")

    assert ".." not in str(error)


@each_class
@pytest.mark.parametrize("order_id", [ORDER_ID, "SM1234567890", "id-7", "7"])
def test_neither_str_nor_repr_shows_an_order_id(kind: type[Sms4SatsError], order_id: str) -> None:
    error = kind("it broke", **COMMON | {"order_id": order_id}, **own_fields(kind))

    assert f"order {order_id}" not in f"{error} {error!r}"
    assert repr(error) == f"<{kind.__name__}: {error}>"
    assert error.order_id == order_id


@pytest.mark.parametrize("order_id", [ORDER_ID, "SM1234567890", "id-7"])
def test_an_order_id_that_the_service_echoes_is_not_shown_either(order_id: str) -> None:
    error = APIError(f"HTTP 404: no order {order_id}", reason=order_id, order_id=order_id)

    assert order_id not in f"{error} {error!r}"
