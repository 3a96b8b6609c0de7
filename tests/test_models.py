"""The values that a user meets: how they are made, compared, shown and sent on."""

import copy
import pickle
import re
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TypeAlias

import attrs
import pytest

from sms4sats_async import models
from sms4sats_async.models import (
    Cancellation,
    CancelOutcome,
    ComputedPrice,
    Country,
    FundingEntry,
    FundingHistory,
    FundOrder,
    Money,
    Order,
    OrderState,
    OrderStatus,
    Price,
    ReceiveOrder,
    RentalCountry,
    RequestOutcome,
    SendOrder,
    Service,
    SmsStatus,
)

ORDER_ID = "0123456789abcdef" * 4
PAYREQ = "lnbc15u1p3xnhl2pp5jptserfk3zk4qy42tlucycrfwxhydvlemu9pqr93tuzlv9cc7g3s"
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
RAW = {"status": "OK", "secret": "in the raw answer"}
STATUS = OrderStatus(ORDER_ID, OrderState.HELD, raw=RAW)
KEY = "key-which-nobody-may-see"
PREIMAGE = "5e" * 32
ENTRY = FundingEntry(
    *(1000, NOON, "funding", PAYREQ, PREIMAGE, "4a" * 32, 900, KEY), raw=RAW | {"userId": KEY}
)
COMPUTED = ComputedPrice(1500, 187, "Telegram, USA")

OfAnOrder: TypeAlias = Order | OrderStatus | Cancellation
Model: TypeAlias = (
    OfAnOrder | Country | Service | RentalCountry | Price | FundingEntry | FundingHistory
)

# Each value, its class's positional fields in their order, and how many of them it needs.
OF_AN_ORDER: list[tuple[OfAnOrder, str, int]] = [
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
        FundOrder(ORDER_ID, PAYREQ, NOON, 1000, raw=RAW),
        "order_id payreq created_at amount",
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
MODELS: list[tuple[Model, str, int]] = [
    *OF_AN_ORDER,
    (
        Country(43, "Germany", visible=True, rentable=False, raw=RAW),
        "id name visible rentable",
        2,
    ),
    (Service("tg", "Telegram", 17, "/tg.png", raw=RAW), "code name count image", 2),
    (
        RentalCountry(6, "Indonesia", 2, 1368, raw=RAW),
        "country_id country duration_weeks price",
        4,
    ),
    (
        Price(1500, 3000, 15000, 4000, COMPUTED, raw=RAW),
        "receive send rent platform_fee computed",
        4,
    ),
    (
        ENTRY,
        "amount created_at description invoice preimage preimage_hash price user_id",
        1,
    ),
    (FundingHistory(1000, (ENTRY,), raw=RAW), "total_amount entries", 1),
]
each_model = pytest.mark.parametrize(
    "model", [model for model, *_ in MODELS], ids=lambda model: type(model).__name__
)
each_model_of_an_order = pytest.mark.parametrize(
    "model", [model for model, *_ in OF_AN_ORDER], ids=lambda model: type(model).__name__
)


def test_every_model_is_seen_here() -> None:
    defined = {it for it in vars(models).values() if isinstance(it, type) and attrs.has(it)}

    # A part of a price, whose answer the price keeps.
    assert defined == {type(model) for model, *_ in MODELS} | {ComputedPrice}


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
    assert FundOrder("id", "ln", NOON) == FundOrder("id", "ln", NOON, None)
    assert Country(43, "Germany") == Country(43, "Germany", None, None)
    assert Service("tg", "Telegram") == Service("tg", "Telegram", None, None)
    assert Price(1, 2, 3, 4) == Price(1, 2, 3, 4, None)
    assert ComputedPrice(1) == ComputedPrice(1, None, None)
    assert FundingEntry(1) == FundingEntry(1, *[None] * 7)
    assert FundingHistory(1) == FundingHistory(1, ())


def test_a_status_that_says_nothing_says_nothing_of_the_money() -> None:
    bare = attrs.asdict(OrderStatus("id", OrderState.UNKNOWN))

    assert bare.pop("money") is Money.UNKNOWN
    assert [name for name, value in bare.items() if value is not None] == [
        *("order_id", "state", "raw")
    ]


def test_who_holds_the_money_is_named_in_a_status() -> None:
    status = OrderStatus("id", OrderState.HELD, money=Money.HELD)

    assert status.money is Money.HELD
    assert "money=<Money.HELD" in repr(status)
    assert status != OrderStatus("id", OrderState.HELD)


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

    assert model.raw.items() >= RAW.items()
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
def test_a_model_shows_no_secret_and_no_whole_invoice(model: Model) -> None:
    shown = f"{model} {model!r}"

    for secret in (ORDER_ID, PAYREQ, KEY, PREIMAGE, "in the raw answer"):
        assert secret not in shown


@each_model_of_an_order
def test_a_model_shows_the_ends_of_its_order_id(model: OfAnOrder) -> None:
    assert repr(model).startswith(f"{type(model).__name__}(order_id=0123…cdef, ")


def test_a_funding_shows_the_ends_of_its_secrets_or_that_there_are_none() -> None:
    shown = repr(ENTRY)

    assert f"invoice='{PAYREQ[:16]}…{PAYREQ[-4:]}', preimage=5e5e…5e5e, " in shown
    assert "user_id=key-…-see" in shown
    assert "invoice=None, preimage=None, preimage_hash=None, price=None, user_id=None" in (
        repr(FundingEntry(1))
    )


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
    assert again.raw == model.raw
    assert hash(again) == hash(model)


@each_model
def test_a_model_can_be_copied(model: Model) -> None:
    assert copy.copy(model) == copy.deepcopy(model) == model


def test_an_order_for_a_code_is_no_order_for_a_message() -> None:
    receive: Order = ReceiveOrder("id", "ln", NOON)

    assert receive != SendOrder("id", "ln", NOON)
    assert receive != FundOrder("id", "ln", NOON)


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
