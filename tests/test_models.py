"""The values that a user meets: how they are made, compared, shown and sent on."""

import copy
import pickle
import re
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TypeAlias

import attrs
import pytest

from sms4sats_async.models import (
    Cancellation,
    CancelOutcome,
    Money,
    Order,
    OrderState,
    OrderStatus,
    ReceiveOrder,
    RequestOutcome,
    SendOrder,
    SmsStatus,
)

ORDER_ID = "0123456789abcdef" * 4
PAYREQ = "lnbc15u1p3xnhl2pp5jptserfk3zk4qy42tlucycrfwxhydvlemu9pqr93tuzlv9cc7g3s"
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
RAW = {"status": "OK", "secret": "in the raw answer"}
STATUS = OrderStatus(ORDER_ID, OrderState.HELD, raw=RAW)

Model: TypeAlias = Order | OrderStatus | Cancellation

# Each value, its class's positional fields in their order, and how many of them it needs.
MODELS: list[tuple[Model, str, int]] = [
    (Order(ORDER_ID, PAYREQ, NOON, raw=RAW), "order_id payreq created_at", 3),
    (
        ReceiveOrder(ORDER_ID, PAYREQ, NOON, 187, "tg", raw=RAW),
        "order_id payreq created_at country service",
        3,
    ),
    (
        SendOrder(ORDER_ID, PAYREQ, NOON, "+491701234567", raw=RAW),
        "order_id payreq created_at phone",
        3,
    ),
    (
        OrderStatus(
            *(ORDER_ID, OrderState.CODE_RECEIVED, True, "0042", "+62812345678", SmsStatus.SENT, 6),
            *("tg", NOON, "an error"),
            raw=RAW,
        ),
        "order_id state paid code number sms_status country service timestamp error",
        2,
    ),
    (
        Cancellation(ORDER_ID, CancelOutcome.CANCELLED, STATUS, 3, raw=RAW),
        "order_id outcome status attempts",
        2,
    ),
]
each_model = pytest.mark.parametrize(
    "model", [model for model, *_ in MODELS], ids=lambda model: type(model).__name__
)


@pytest.mark.parametrize(
    ("model", "names", "least"), MODELS, ids=[type(model).__name__ for model, *_ in MODELS]
)
def test_a_model_is_made_of_its_fields_in_this_order(model: Model, names: str, least: int) -> None:
    kind: Any = type(model)
    positional = [field for field in attrs.fields(type(model)) if not field.kw_only]
    values = [getattr(model, name) for name in names.split()]

    assert [field.name for field in positional] == names.split()
    assert kind(*values) == model
    assert [field.name for field in positional if field.default is attrs.NOTHING] == (
        names.split()[:least]
    )
    one, other = (kind(*values[:least]) for _ in range(2))
    assert one.raw == other.raw == {}
    assert one.raw is not other.raw


def test_what_is_left_out_of_a_model_is_absent() -> None:
    assert ReceiveOrder("id", "ln", NOON) == ReceiveOrder("id", "ln", NOON, None, None)
    assert SendOrder("id", "ln", NOON) == SendOrder("id", "ln", NOON, None)
    assert Cancellation("id", CancelOutcome.CANCELLED) == (
        Cancellation("id", CancelOutcome.CANCELLED, None, 0)
    )
    bare = OrderStatus("id", OrderState.UNKNOWN)
    assert set(attrs.astuple(bare)[2:-1]) == {None}


@each_model
def test_a_model_cannot_be_changed(model: Model) -> None:
    for field in attrs.fields(type(model)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(model, field.name, None)
    with pytest.raises((AttributeError, TypeError)):
        object.__setattr__(model, "another", 1)
    assert not hasattr(model, "__dict__")


@each_model
def test_the_raw_answer_is_named_and_counts_for_nothing(model: Model) -> None:
    other = attrs.evolve(model, raw={"unhashable": []})

    assert model.raw == RAW
    assert other == model
    assert hash(other) == hash(model)
    assert "raw" not in repr(model)


@each_model
def test_a_model_differs_by_each_of_its_other_fields(model: Model) -> None:
    for field in attrs.fields(type(model)):
        if field.name != "raw":
            change: dict[str, Any] = {field.name: "another"}
            assert attrs.evolve(model, **change) != model


@each_model
def test_a_model_shows_neither_its_order_id_nor_its_whole_invoice(model: Model) -> None:
    shown = f"{model} {model!r}"

    assert shown.startswith(f"{type(model).__name__}(order_id=0123…cdef, ")
    assert ORDER_ID not in shown
    assert PAYREQ not in shown
    assert "in the raw answer" not in shown


@pytest.mark.parametrize(
    ("payreq", "shown"),
    [
        ("", "''"),
        ("paid", "'paid'"),
        (PAYREQ, "'lnbc15u1p3xnhl2p…7g3s'"),
    ],
)
def test_an_invoice_is_shown_by_its_ends(payreq: str, shown: str) -> None:
    assert f"payreq={shown}, " in repr(Order("id", payreq, NOON))


@each_model
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_model_survives_pickling_whole(model: Model, protocol: int) -> None:
    again = pickle.loads(pickle.dumps(model, protocol))  # noqa: S301 - our own bytes

    assert again == model
    assert type(again) is type(model)
    assert again.raw == RAW
    assert hash(again) == hash(model)


@each_model
def test_a_model_can_be_copied(model: Model) -> None:
    assert copy.copy(model) == copy.deepcopy(model) == model


def test_an_order_for_a_code_is_no_order_for_a_message() -> None:
    receive: Order = ReceiveOrder("id", "ln", NOON)

    assert receive != SendOrder("id", "ln", NOON)


@pytest.mark.parametrize(
    ("outcome", "returned"),
    [
        (CancelOutcome.CANCELLED, True),
        (CancelOutcome.ALREADY_RELEASED, True),
        (CancelOutcome.CODE_ARRIVED, False),
    ],
)
def test_an_outcome_tells_whether_the_money_returns(
    outcome: CancelOutcome, *, returned: bool
) -> None:
    assert outcome.funds_returned is returned


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (RequestOutcome, "NOT_SENT REFUSED UNKNOWN"),
        (Money, "WITH_PAYER HELD SETTLED RETURNED UNKNOWN"),
        (
            OrderState,
            (
                "UNPAID HELD NUMBER_ASSIGNED CODE_RECEIVED REFUNDED MESSAGE_CREATED MESSAGE_SENT "
                "MESSAGE_DELIVERED MESSAGE_FAILED UNKNOWN"
            ),
        ),
        (SmsStatus, "CREATED SENT DELIVERED FAILED UNKNOWN"),
        (CancelOutcome, "CANCELLED ALREADY_RELEASED CODE_ARRIVED"),
    ],
)
def test_an_enumeration_has_these_members_and_says_them_in_words(
    kind: type[Enum], names: str
) -> None:
    assert " ".join(member.name for member in kind) == names
    for member in kind:
        assert re.fullmatch("[a-z]+( [a-z]+)*", str(member.value))
