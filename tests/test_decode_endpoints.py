"""From the answers of the endpoints that only tell something, and of the prepaid ones, to models.

What is needed and not there makes the whole answer one that nobody can read; what is only nice to
have is left out.
"""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias

import pytest

from sms4sats_async._http.decode import (
    decode_balance,
    decode_countries,
    decode_history,
    decode_price,
    decode_rental_countries,
    decode_services,
)
from sms4sats_async.errors import InvalidResponseError
from sms4sats_async.models import (
    ComputedPrice,
    Country,
    FundingEntry,
    FundingHistory,
    Price,
    RentalCountry,
    RequestOutcome,
    Service,
)

Decoder: TypeAlias = Callable[[object, str | None], object]

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
MS = 1_793_534_400_000  # NOON, as the service writes it
# More digits than Python turns into text.
HUGE = 10**5000


def show(value: object) -> str:
    """A name for a case."""
    return "huge" if value == HUGE else ascii(value)[:24]


# --- the documented answers -----------------------------------------------------------------------

# A documented or seen answer of each other endpoint, and what it is read as.
SAMPLES: dict[str, tuple[Decoder, object, object]] = {
    "countries": (
        decode_countries,
        [
            {"id": 999, "eng": "Auto-Select"},
            {"id": 187, "eng": "USA", "visible": 1, "rent": 0},
            {"id": "43", "eng": "Germany", "visible": "1", "rent": True},
        ],
        [
            Country(999, "Auto-Select"),
            Country(187, "USA", visible=True, rentable=False),
            Country(43, "Germany", visible=True, rentable=True),
        ],
    ),
    "no countries": (decode_countries, [], []),
    "services": (
        decode_services,
        [
            {"key": 1, "text": "Telegram", "value": "tg", "count": "17", "image": {"src": "tg"}},
            {"key": 2, "text": "WhatsApp", "value": "wa", "count": 3, "image": {"src": "/wa.png"}},
        ],
        [Service("tg", "Telegram", 17, "tg"), Service("wa", "WhatsApp", 3, "/wa.png")],
    ),
    "rental countries": (
        decode_rental_countries,
        [{"cc": 6, "country": "Indonesia", "duration": "2", "price": 1368}],
        [RentalCountry(6, "Indonesia", 2, 1368)],
    ),
    "price": (
        decode_price,
        {"receive": "1500", "send": 3000, "rent": 15000, "s4s": "4000"},
        Price(1500, 3000, 15000, 4000),
    ),
    "computed price": (
        decode_price,
        {
            "receive": "1500",
            "send": 3000,
            "rent": 15000,
            "s4s": "4000",
            "query": {"country": "187", "service": "tg"},
            "computed": {"price": 1500, "country": 187, "description": "Telegram, USA"},
        },
        Price(1500, 3000, 15000, 4000, ComputedPrice(1500, 187, "Telegram, USA")),
    ),
    "balance": (decode_balance, {"status": "OK", "balance": 10000}, 10000),
    "history": (
        decode_history,
        {
            "status": "OK",
            "totalAmount": 349500,
            "orders": [
                {
                    "amount": 1000,
                    "createdAt": MS,
                    "desc": "fund",
                    "description": "funding of 1000 sat",
                    "holdinvoice": "lnbc10u1hold",
                    "preimage": "5e" * 32,
                    "preimageHash": "4a" * 32,
                    "price": 1000,
                    "userId": "the-key",
                }
            ],
        },
        FundingHistory(
            349500,
            (
                FundingEntry(
                    *(1000, NOON, "funding of 1000 sat", "lnbc10u1hold"),
                    *("5e" * 32, "4a" * 32, 1000, "the-key"),
                ),
            ),
        ),
    ),
    "no history": (
        decode_history,
        {"status": "OK", "totalAmount": 0, "orders": []},
        FundingHistory(0),
    ),
}


@pytest.mark.parametrize(("decoder", "answer", "model"), SAMPLES.values(), ids=SAMPLES)
def test_a_documented_answer_is_read_whole(decoder: Decoder, answer: object, model: object) -> None:
    assert decoder(answer, None) == model


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "balance"])
def test_an_answer_is_kept_as_it_came(name: str) -> None:
    """In a list each entry by its model, so that what is new in an answer is never lost."""
    decoder, answer, _ = SAMPLES[name]
    model: Any = decoder(answer, None)

    if isinstance(answer, list):
        assert [entry.raw for entry in model] == answer
    else:
        assert model.raw == answer


def test_a_funding_is_kept_as_it_came() -> None:
    orders = [{"amount": 1, "new": True}, {"amount": 2}]
    history = decode_history({"totalAmount": 3, "orders": orders}, None)

    assert [entry.raw for entry in history.entries] == orders


# --- what is needed -------------------------------------------------------------------------------


PRICE: dict[str, object] = {"receive": 1, "send": 2, "rent": 3, "s4s": 4}


def of_wholes(value: object) -> dict[Decoder, tuple[object, str]]:
    """An answer of each decoder that has `value` where a whole number is needed, and its name."""
    return {
        decode_countries: ([{"id": value, "eng": "Germany"}], "id"),
        decode_rental_countries: (
            [{"cc": 6, "country": "Indonesia", "duration": value, "price": 1368}],
            "duration",
        ),
        decode_price: (PRICE | {"computed": {"price": value}}, "computed price"),
        decode_balance: ({"balance": value}, "balance"),
        decode_history: ({"totalAmount": 1, "orders": [{"amount": value}]}, "amount"),
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((0, 0), ("0", 0), (10000, 10000), ("10000", 10000), (" 7\n", 7), ("007", 7)),
        *((7.0, 7), (-0.0, 0), (1e17, 10**17), (10**18 - 1, 10**18 - 1), ("9" * 18, 10**18 - 1)),
    ],
    ids=ascii,
)
def test_a_whole_number_comes_as_a_number_or_as_text(value: object, expected: int) -> None:
    assert decode_balance({"balance": value}, None) == expected
    for decoder, (answer, _) in of_wholes(value).items():
        assert decoder(answer, None) not in ([], None)


NO_WHOLES: tuple[object, ...] = (
    *(-1, "-1", -1.0, "--5", "-", "+7", 1.5, "1.5", "1e3", "0x10", "1 000", "1_000", "1,000"),
    *("", " ", None, True, False, "true", [], [1], {}, {"sat": 1}, "\u0663", "\u00b2", "\uff17"),
    *(math.nan, math.inf, -math.inf, 1e300, 10**18, "1" * 19, 10**400, HUGE, "9" * 5000),
)


@pytest.mark.parametrize("value", NO_WHOLES, ids=show)
def test_what_is_no_whole_number_is_refused_where_one_is_needed(value: object) -> None:
    """Rather no price at all than one that nobody said."""
    for decoder, (answer, name) in of_wholes(value).items():
        with pytest.raises(InvalidResponseError, match=f"answer's {name} is not a whole number"):
            decoder(answer, None)


@pytest.mark.parametrize("value", [None, 5, "", " \n", True, [], {}], ids=ascii)
def test_what_says_nothing_is_refused_where_a_name_is_needed(value: object) -> None:
    rental = {"cc": 6, "country": value, "duration": "2", "price": 1368}
    answers: dict[Decoder, tuple[object, str]] = {
        decode_countries: ([{"id": 1, "eng": value}], "eng"),
        decode_services: ([{"text": "Telegram", "value": value}], "value"),
        decode_rental_countries: ([rental], "country"),
    }
    for decoder, (answer, name) in answers.items():
        with pytest.raises(InvalidResponseError, match=f"answer's {name} is not a text"):
            decoder(answer, None)


# --- what is nice to have -------------------------------------------------------------------------

FLAGS: dict[bool | None, tuple[object, ...]] = {
    True: (True, 1, 1.0, "1", "true", "True", " TRUE "),
    False: (False, 0, 0.0, "0", "false", "FALSE\n"),
    None: (
        *(None, 2, -1, 0.5, "", "yes", "perhaps", "2", [], [1], {}, {"true": True}),
        *(math.nan, math.inf, 10**400, HUGE, "\ud800"),
    ),
}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(value, expected) for expected, values in FLAGS.items() for value in values],
    ids=show,
)
def test_a_flag_is_yes_or_no_or_not_said(value: object, *, expected: bool | None) -> None:
    (country,) = decode_countries(
        [{"id": 1, "eng": "Germany", "visible": value, "rent": value}], None
    )

    assert (country.visible, country.rentable) == (expected, expected)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("text", "Telegram", Service("tg", "Telegram")),
        ("count", 0, Service("tg", "tg", 0)),
        ("count", "0017", Service("tg", "tg", 17)),
        ("image", {"src": "../tg.png"}, Service("tg", "tg", None, "../tg.png")),
    ],
)
def test_a_service_has_its_code_and_what_else_is_said(
    field: str, value: object, expected: Service
) -> None:
    assert decode_services([{"value": "tg", field: value}], None) == [expected]


SAYS_NOTHING: dict[str, tuple[object, ...]] = {
    "text": (None, "", " ", 5, True, [], {}),
    "count": (None, "", "many", True, 1.5, math.nan, HUGE, [], {}),
    "image": (None, "tg.png", 5, [], {}, {"src": None}, {"src": " "}, {"src": 5}, {"src": {}}),
}


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in SAYS_NOTHING.items() for value in values],
    ids=show,
)
def test_a_service_is_kept_for_its_code_where_nothing_else_is_said(
    field: str, value: object
) -> None:
    assert decode_services([{"value": "tg"}], None) == [Service("tg", "tg")]
    assert decode_services([{"value": "tg", field: value}], None) == [Service("tg", "tg")]


@pytest.mark.parametrize(
    ("computed", "expected"),
    [
        (None, None),
        ({"price": "1500"}, ComputedPrice(1500)),
        ({"price": 0, "country": 0, "description": ""}, ComputedPrice(0, 0)),
        ({"price": 1, "country": "usa", "description": "x"}, ComputedPrice(1, "usa", "x")),
        ({"price": 1, "country": [], "description": 5}, ComputedPrice(1)),
    ],
)
def test_a_price_is_computed_for_what_was_asked_or_there_is_none(
    computed: object, expected: ComputedPrice | None
) -> None:
    assert decode_price(PRICE | {"computed": computed}, None).computed == expected
    assert decode_price(PRICE, None).computed is None


@pytest.mark.parametrize("name", PRICE)
def test_a_price_that_is_missing_is_no_price(name: str) -> None:
    answer = {each: price for each, price in PRICE.items() if each != name}

    with pytest.raises(InvalidResponseError, match=f"answer's {name} is not"):
        decode_price(answer, None)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, FundingEntry(1)),
        ({"createdAt": -1, "price": "many", "userId": 5, "preimage": ""}, FundingEntry(1)),
        ({"createdAt": str(MS), "price": "1000"}, FundingEntry(1, NOON, price=1000)),
        ({"desc": "fund"}, FundingEntry(1, description="fund")),
        ({"desc": "fund", "description": " "}, FundingEntry(1, description="fund")),
        ({"desc": "fund", "description": "more"}, FundingEntry(1, description="more")),
    ],
)
def test_a_funding_has_its_amount_and_what_else_is_said(
    entry: dict[str, object], expected: FundingEntry
) -> None:
    history = decode_history({"totalAmount": 1, "orders": [{"amount": 1} | entry]}, None)

    assert history.entries == (expected,)


# --- the wrong shape ------------------------------------------------------------------------------

NO_OBJECTS: tuple[object, ...] = (None, True, 5, 1.5, "OK", [], [{"status": "OK"}], math.nan)
NO_LISTS: tuple[object, ...] = (
    *(None, True, 5, 1.5, "OK", {}, {"0": {"id": 1}}, math.nan),
    *([None], [5], ["Germany"], [["Germany"]], [[{"id": 1}]], [{"new": 1}]),
)
# A decoder; what it must refuse; an answer with the refused thing where it belongs.
WRONG: list[tuple[Decoder, tuple[object, ...], Callable[[object], object]]] = [
    (decode_countries, NO_LISTS, lambda it: it),
    (decode_services, NO_LISTS, lambda it: it),
    (decode_rental_countries, NO_LISTS, lambda it: it),
    (decode_price, (*NO_OBJECTS, {}), lambda it: it),
    (decode_price, (*NO_OBJECTS[1:], {}), lambda it: PRICE | {"computed": it}),
    (decode_balance, (*NO_OBJECTS, {}, {"status": "OK"}), lambda it: it),
    (decode_history, (*NO_OBJECTS, {}, {"orders": []}, {"totalAmount": 1}), lambda it: it),
    (decode_history, NO_LISTS, lambda it: {"totalAmount": 1, "orders": it}),
]


@pytest.mark.parametrize(
    ("decoder", "answer"),
    [(decoder, place(value)) for decoder, values, place in WRONG for value in values],
    ids=lambda part: part.__name__ if callable(part) else ascii(part),
)
def test_an_answer_of_the_wrong_shape_is_one_that_nobody_can_read(
    decoder: Decoder, answer: object
) -> None:
    with pytest.raises(InvalidResponseError, match="the answer") as caught:
        decoder(answer, None)

    assert caught.value.request_outcome is RequestOutcome.UNKNOWN
