"""The models: how they are made, compared, shown, copied and pickled."""

import copy
import pickle
import re
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TypeAlias

import attrs
import pytest

from sms4sats_async import models, results
from sms4sats_async.errors import Sms4SatsError
from sms4sats_async.models import (
    CodeStatus,
    ComputedPrice,
    Country,
    FundingEntry,
    FundingHistory,
    FundOrder,
    Money,
    Order,
    OrderOutcome,
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
from sms4sats_async.results import OrderResult

ORDER_ID = "0123456789abcdef" * 4
INVOICE = "lnbc15u1p3xnhl2pp5jptserfk3zk4qy42tlucycrfwxhydvlemu9pqr93tuzlv9cc7g3s"
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
RAW = {"status": "OK", "secret": "in the raw answer"}
STATUS = OrderStatus(ORDER_ID, OrderState.HELD, raw=RAW)
KEY = "key-which-nobody-may-see"
PREIMAGE = "5e" * 32
ENTRY = FundingEntry(
    *(1000, NOON, "funding", INVOICE, PREIMAGE, "4a" * 32, 900, KEY), raw=RAW | {"userId": KEY}
)
COMPUTED = ComputedPrice(1500, 187, "Telegram, USA")
NOTES = {"chat": "42"}

OfAnOrder: TypeAlias = Order | OrderStatus | OrderResult
Model: TypeAlias = (
    OfAnOrder | Country | Service | RentalCountry | Price | FundingEntry | FundingHistory
)

# Each value, its class's positional fields in their order, and how many of them it needs.
OF_AN_ORDER: list[tuple[OfAnOrder, str, int]] = [
    (Order(ORDER_ID, INVOICE, NOON, raw=RAW), "order_id invoice created_at", 3),
    (
        ReceiveOrder(ORDER_ID, INVOICE, NOON, 187, "tg", metadata=NOTES, raw=RAW),
        "order_id invoice created_at country service",
        3,
    ),
    (
        SendOrder(ORDER_ID, INVOICE, NOON, "+491701234567", raw=RAW),
        "order_id invoice created_at phone",
        3,
    ),
    (
        FundOrder(ORDER_ID, INVOICE, NOON, 1000, raw=RAW),
        "order_id invoice created_at amount",
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
        CodeStatus(
            *(ORDER_ID, OrderState.CODE_RECEIVED, True, "+62812345678", SmsStatus.SENT, 6),
            *("tg", NOON, "an error"),
            code="0042",
            raw=RAW,
        ),
        "order_id state paid number sms_status country service timestamp error",
        2,
    ),
    (
        OrderResult(
            *(ORDER_ID, OrderOutcome.CODE_RECEIVED, "0042", "+62812345678", STATUS, 3),
            *(None, NOTES, RAW),
        ),
        "order_id outcome code number status attempts error metadata raw",
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


def test_every_model_is_tested_here() -> None:
    every = [*vars(models).values(), *vars(results).values()]
    defined = {it for it in every if isinstance(it, type) and attrs.has(it)}

    # A part of a price, whose answer the price keeps.
    assert defined == {type(model) for model, *_ in MODELS} | {ComputedPrice}


@pytest.mark.parametrize(
    ("model", "names", "least"), MODELS, ids=[type(model).__name__ for model, *_ in MODELS]
)
def test_a_model_is_made_of_its_fields_in_this_order(model: Model, names: str, least: int) -> None:
    kind: Any = type(model)
    positional = [field for field in attrs.fields(type(model)) if not field.kw_only]
    values = [getattr(model, name) for name in names.split()]
    more = {"code": model.code} if isinstance(model, CodeStatus) else {}

    assert [field.name for field in positional] == names.split()
    assert attrs.evolve(kind(*values, **more), **kept(model)) == model
    assert [field.name for field in positional if field.default is attrs.NOTHING] == (
        names.split()[:least]
    )
    one, other = (kind(*values[:least], **more) for _ in range(2))
    assert one.raw == other.raw == {}
    assert one.raw is not other.raw


def kept(model: Model) -> dict[str, Any]:
    """The fields that are given by name only, the answer apart."""
    return {"metadata": model.metadata} if isinstance(model, Order) else {}


def test_optional_fields_have_these_defaults() -> None:
    assert ReceiveOrder("id", "ln", NOON) == ReceiveOrder("id", "ln", NOON, None, None)
    assert SendOrder("id", "ln", NOON) == SendOrder("id", "ln", NOON, None)
    assert OrderResult("id", None) == OrderResult("id", None, None, None, None, 0, None, {}, {})
    assert FundOrder("id", "ln", NOON) == FundOrder("id", "ln", NOON, None)
    assert Country(43, "Germany") == Country(43, "Germany", None, None)
    assert Service("tg", "Telegram") == Service("tg", "Telegram", None, None)
    assert Price(1, 2, 3, 4) == Price(1, 2, 3, 4, None)
    assert ComputedPrice(1) == ComputedPrice(1, None, None)
    assert FundingEntry(1) == FundingEntry(1, *[None] * 7)
    assert FundingHistory(1) == FundingHistory(1, ())


def test_a_status_without_facts_has_unknown_money() -> None:
    bare = attrs.asdict(OrderStatus("id", OrderState.UNKNOWN))

    assert bare.pop("money") is Money.UNKNOWN
    assert [name for name, value in bare.items() if value is not None] == [
        *("order_id", "state", "raw")
    ]


def test_a_status_shows_where_the_money_is() -> None:
    status = OrderStatus("id", OrderState.HELD, money=Money.HELD)

    assert status.money is Money.HELD
    assert "money=<Money.HELD" in repr(status)
    assert status != OrderStatus("id", OrderState.HELD)


@each_model
def test_a_model_is_frozen(model: Model) -> None:
    for field in attrs.fields(type(model)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(model, field.name, None)
    with pytest.raises((AttributeError, TypeError)):
        object.__setattr__(model, "another", 1)
    assert not hasattr(model, "__dict__")


@each_model
def test_raw_does_not_count_in_comparisons_and_repr(model: Model) -> None:
    other = attrs.evolve(model, raw={"unhashable": []})

    assert model.raw.items() >= RAW.items()
    assert other == model
    assert hash(other) == hash(model)
    assert "raw" not in repr(model)


@each_model
def test_every_other_field_counts_in_comparisons(model: Model) -> None:
    for field in attrs.fields(type(model)):
        if field.eq:
            change: dict[str, Any] = {field.name: "another"}
            assert attrs.evolve(model, **change) != model


@each_model
def test_repr_shows_no_secret_and_no_whole_invoice(model: Model) -> None:
    shown = f"{model} {model!r}"

    for secret in (ORDER_ID, INVOICE, KEY, PREIMAGE, "in the raw answer"):
        assert secret not in shown


@each_model_of_an_order
def test_repr_masks_the_order_id(model: OfAnOrder) -> None:
    assert repr(model).startswith(f"{type(model).__name__}(order_id=0123…cdef, ")


def test_repr_of_a_funding_masks_its_secrets() -> None:
    shown = repr(ENTRY)

    assert f"invoice='{INVOICE[:4]}…{INVOICE[-4:]}', preimage=5e5e…5e5e, " in shown
    assert "user_id=key-…-see" in shown
    assert "invoice=None, preimage=None, preimage_hash=None, price=None, user_id=None" in (
        repr(FundingEntry(1))
    )


@pytest.mark.parametrize(
    ("invoice", "shown"),
    [
        ("", "''"),
        ("paid", "'paid'"),
        (INVOICE, "'lnbc…7g3s'"),
    ],
)
def test_repr_masks_the_invoice(invoice: str, shown: str) -> None:
    assert f"invoice={shown}, " in repr(Order("id", invoice, NOON))


@each_model
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_model_can_be_pickled(model: Model, protocol: int) -> None:
    again = pickle.loads(pickle.dumps(model, protocol))  # noqa: S301 - our own bytes

    assert again == model
    assert type(again) is type(model)
    assert again.raw == model.raw
    assert hash(again) == hash(model)


@each_model
def test_a_model_can_be_copied(model: Model) -> None:
    assert copy.copy(model) == copy.deepcopy(model) == model


def test_orders_of_different_kinds_differ() -> None:
    receive: Order = ReceiveOrder("id", "ln", NOON)

    assert receive != SendOrder("id", "ln", NOON)
    assert receive != FundOrder("id", "ln", NOON)


@pytest.mark.parametrize(
    ("outcome", "refunded", "money"),
    [
        (OrderOutcome.CANCELLED, True, Money.REFUNDED),
        (OrderOutcome.REFUNDED, True, Money.REFUNDED),
        (OrderOutcome.CODE_RECEIVED, False, Money.SETTLED),
        (OrderOutcome.MESSAGE_SENT, False, Money.SETTLED),
        (None, None, Money.UNKNOWN),
    ],
)
def test_a_result_says_whether_it_is_refunded_and_where_the_money_is(
    outcome: OrderOutcome | None, *, refunded: bool | None, money: Money
) -> None:
    result = OrderResult("id", outcome)
    assert (result.refunded, result.money) == (refunded, money)


def test_the_money_of_an_unknown_end_is_where_the_last_status_shows_it() -> None:
    status = OrderStatus("id", OrderState.HELD, money=Money.HELD)
    assert OrderResult("id", None, status=status).money is Money.HELD


def test_the_error_of_a_result_does_not_count_in_comparisons() -> None:
    assert OrderResult("id", None, error=Sms4SatsError("x")) == OrderResult("id", None)


def test_metadata_counts_in_comparisons_and_can_be_hashed() -> None:
    one, other = (
        ReceiveOrder("id", "ln", NOON, metadata=notes) for notes in (NOTES, {"chat": "43"})
    )
    assert one != other
    assert hash(one) == hash(other)
    assert "42" in repr(one)


def test_the_code_of_a_code_status_is_required() -> None:
    missing: dict[str, Any] = {}
    with pytest.raises(TypeError, match="code"):
        CodeStatus("id", OrderState.CODE_RECEIVED, **missing)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (RequestOutcome, "NOT_SENT REFUSED UNKNOWN"),
        (Money, "WITH_PAYER HELD SETTLED REFUNDED UNKNOWN"),
        (
            OrderState,
            (
                "UNPAID HELD NUMBER_ASSIGNED CODE_RECEIVED REFUNDED MESSAGE_CREATED MESSAGE_SENT "
                "MESSAGE_DELIVERED MESSAGE_FAILED UNKNOWN"
            ),
        ),
        (SmsStatus, "CREATED SENT DELIVERED FAILED UNKNOWN"),
        (OrderOutcome, "CODE_RECEIVED MESSAGE_SENT CANCELLED REFUNDED"),
    ],
)
def test_an_enumeration_has_these_members_with_readable_values(
    kind: type[Enum], names: str
) -> None:
    assert " ".join(member.name for member in kind) == names
    for member in kind:
        assert re.fullmatch("[a-z]+( [a-z]+)*", str(member.value))
