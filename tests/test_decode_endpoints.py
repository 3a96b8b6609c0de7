"""From the answers of the endpoints that only tell something, and of the prepaid ones, to models.

An answer without what it is about is refused. A list is read without its odd entries.
"""

import logging
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
def test_a_documented_answer_is_read_completely(
    decoder: Decoder, answer: object, model: object
) -> None:
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


WHOLES_OF_RENTAL = ("cc", "duration", "price")
PRICE: dict[str, object] = {"receive": 1, "send": 2, "rent": 3, "s4s": 4}


RENTAL: dict[str, object] = {"cc": 6, "country": "Indonesia", "duration": "2", "price": 1368}


def of_wholes(value: object) -> list[tuple[Decoder, object, str]]:
    """Each decoder, an answer that has `value` where a whole number is needed, and its name."""
    return [
        (decode_countries, [{"id": value, "eng": "Germany"}], "id"),
        *((decode_rental_countries, [RENTAL | {name: value}], name) for name in WHOLES_OF_RENTAL),
        (decode_balance, {"balance": value}, "balance"),
        (decode_history, {"totalAmount": value, "orders": []}, "totalAmount"),
        (decode_history, {"totalAmount": 1, "orders": [{"amount": value}]}, "amount"),
    ]


def of_prices(value: object) -> list[tuple[Decoder, object, str]]:
    """The same for the prices, which may be missing."""
    return [
        *((decode_price, PRICE | {name: value}, name) for name in PRICE),
        (decode_price, PRICE | {"computed": {"price": value}}, "computed price"),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((0, 0), ("0", 0), (10000, 10000), ("10000", 10000), (" 7\n", 7), ("007", 7)),
        *((7.0, 7), (-0.0, 0), (1e17, 10**17), (10**18 - 1, 10**18 - 1), ("9" * 18, 10**18 - 1)),
        *(("1500.00", 1500), ("1500.0", 1500), ("0.000", 0), (" 7.0 ", 7)),
    ],
    ids=ascii,
)
def test_a_whole_number_comes_as_a_number_or_as_text(value: object, expected: int) -> None:
    assert decode_balance({"balance": value}, None) == expected
    for decoder, answer, _ in of_wholes(value) + of_prices(value):
        assert decoder(answer, None) not in ([], None)


MISSING: tuple[object, ...] = (None, "", " ", "null", "None", "undefined")
NO_WHOLES: tuple[object, ...] = (
    *(-1, "-1", -1.0, "--5", "-", "+7", 1.5, "1.5", "1e3", "0x10", "1 000", "1_000", "1,000"),
    *(1500.5, "1500.5", "1500.01", "1500.", ".0", "1,500.00", "1500.0.0"),
    *(True, False, "true", [], [1], {}, {"sat": 1}, "\u0663", "\u00b2", "\uff17"),
    *(math.nan, math.inf, -math.inf, 1e300, 10**18, "1" * 19, 10**400, HUGE, "9" * 5000),
)


@pytest.mark.parametrize("value", NO_WHOLES, ids=show)
def test_an_invalid_whole_number_is_refused_by_its_name(value: object) -> None:
    for decoder, answer, name in of_wholes(value) + of_prices(value):
        with pytest.raises(InvalidResponseError, match=f"answer's {name} is not a whole number"):
            decoder(answer, None)


@pytest.mark.parametrize("value", MISSING, ids=show)
def test_a_missing_whole_number_is_refused_where_one_is_needed(value: object) -> None:
    for decoder, answer, name in of_wholes(value):
        with pytest.raises(InvalidResponseError, match=f"answer's {name} is not a whole number"):
            decoder(answer, None)


@pytest.mark.parametrize("value", [None, 5, "", " \n", "null", True, [], {}], ids=ascii)
def test_what_says_nothing_is_refused_where_a_name_is_needed(value: object) -> None:
    rental = RENTAL | {"country": value}
    answers: dict[Decoder, tuple[object, str]] = {
        decode_countries: ([{"id": 1, "eng": value}], "eng"),
        decode_services: ([{"text": "Telegram", "value": value}], "value"),
        decode_rental_countries: ([rental], "country"),
    }
    for decoder, (answer, name) in answers.items():
        with pytest.raises(InvalidResponseError, match=f"answer's {name} is not a text"):
            decoder(answer, None)


# --- odd entries ----------------------------------------------------------------------------------

GERMANY: dict[str, object] = {"id": 43, "eng": "Germany"}
TELEGRAM: dict[str, object] = {"value": "tg", "text": "Telegram"}
NAMELESS: tuple[object, ...] = (None, "", " ", "null", 5, True, [], {})
NUMBERLESS: tuple[object, ...] = (None, "", "null", "x", -1, 1.5, True, [], {})
NO_ENTRIES: tuple[object, ...] = (None, 5, "Germany", [], [GERMANY])


def without(entry: dict[str, object], name: str) -> dict[str, object]:
    return {each: value for each, value in entry.items() if each != name}


# A decoder, a good entry, and one that lacks what identifies it.
ODD: list[tuple[Decoder, dict[str, object], object]] = [
    *((decode_countries, GERMANY, entry) for entry in NO_ENTRIES),
    *((decode_countries, GERMANY, without(GERMANY, name)) for name in GERMANY),
    *((decode_countries, GERMANY, GERMANY | {"eng": value}) for value in NAMELESS),
    *((decode_countries, GERMANY, GERMANY | {"id": value}) for value in NUMBERLESS),
    *((decode_services, TELEGRAM, entry) for entry in NO_ENTRIES),
    (decode_services, TELEGRAM, without(TELEGRAM, "value")),
    *((decode_services, TELEGRAM, TELEGRAM | {"value": value}) for value in NAMELESS),
    *((decode_rental_countries, RENTAL, entry) for entry in NO_ENTRIES),
    *((decode_rental_countries, RENTAL, without(RENTAL, name)) for name in RENTAL),
    *((decode_rental_countries, RENTAL, RENTAL | {"country": value}) for value in NAMELESS),
    *((decode_rental_countries, RENTAL, RENTAL | {"cc": value}) for value in NUMBERLESS),
    *((decode_rental_countries, RENTAL, RENTAL | {"duration": value}) for value in NUMBERLESS),
    *((decode_rental_countries, RENTAL, RENTAL | {"price": value}) for value in MISSING),
]


@pytest.mark.parametrize(
    ("decoder", "good", "odd"),
    ODD,
    ids=lambda part: part.__name__ if callable(part) else ascii(part),
)
def test_a_list_is_read_without_its_odd_entries(
    decoder: Decoder, good: dict[str, object], odd: object
) -> None:
    assert decoder([odd, good, odd], None) == decoder([good], None)


@pytest.mark.parametrize(
    "odd", [*NO_ENTRIES, {}, *({"amount": value} for value in MISSING)], ids=ascii
)
def test_a_history_is_read_without_its_odd_entries(odd: object) -> None:
    answer = {"totalAmount": 3, "orders": [odd, {"amount": 1}, odd, {"amount": 2}]}

    assert [entry.amount for entry in decode_history(answer, None).entries] == [1, 2]


@pytest.mark.parametrize("price", [1500.5, "1500.5", -1, "many", True, []], ids=show)
def test_an_invalid_price_in_a_list_is_refused(price: object) -> None:
    """A price must not be guessed, and an offer must not vanish for its price."""
    with pytest.raises(InvalidResponseError, match="answer's price is not a whole number"):
        decode_rental_countries([RENTAL, RENTAL | {"price": price}], None)


def test_skipped_entries_are_logged_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    decode_countries([GERMANY, GERMANY | {"eng": None}, None, {"eng": "USA"}], None)

    (record,) = caplog.records
    assert (record.name, record.levelname) == ("sms4sats_async", "WARNING")
    assert record.getMessage() == ("3 of 4 countries were skipped: the answer's eng is not a text")
    fields = {name: getattr(record, name) for name in ("order", "left_out", "list")}
    assert fields == {"order": None, "left_out": 3, "list": "countries"}


def test_a_list_without_odd_entries_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for decoder, answer, _ in SAMPLES.values():
        decoder(answer, None)

    assert caplog.records == []


def test_the_line_about_a_history_has_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    secrets = {"userId": "the-key", "preimage": "5e" * 32, "holdinvoice": "lnbc1hold"}
    decode_history({"totalAmount": 1, "orders": [secrets, secrets | {"amount": 1}]}, None)

    (record,) = caplog.records
    written = f"{record.getMessage()} {vars(record)}"
    assert not any(secret in written for secret in secrets.values())


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
def test_a_flag_is_true_false_or_missing(value: object, *, expected: bool | None) -> None:
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
def test_a_service_has_its_code_and_its_other_fields(
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
def test_a_service_with_only_a_code_is_kept(field: str, value: object) -> None:
    assert decode_services([{"value": "tg"}], None) == [Service("tg", "tg")]
    assert decode_services([{"value": "tg", field: value}], None) == [Service("tg", "tg")]


@pytest.mark.parametrize(
    ("computed", "expected"),
    [
        (None, None),
        ({}, None),
        ({"country": 187}, None),
        ({"price": None, "country": 187}, None),
        ({"price": "1500"}, ComputedPrice(1500)),
        ({"price": "1500.00"}, ComputedPrice(1500)),
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


NAMES = {"receive": "receive", "send": "send", "rent": "rent", "s4s": "platform_fee"}


@pytest.mark.parametrize("value", MISSING, ids=show)
@pytest.mark.parametrize(("name", "attribute"), NAMES.items())
def test_a_missing_price_is_none(name: str, attribute: str, value: object) -> None:
    prices: dict[str, Any] = {"receive": 1, "send": 2, "rent": 3, "platform_fee": 4}
    prices[attribute] = None
    expected = Price(**prices)

    assert decode_price(PRICE | {name: value}, None) == expected
    assert decode_price(without(PRICE, name), None) == expected


def test_a_computed_price_alone_is_a_price() -> None:
    price = decode_price({"computed": {"price": 1500}}, None)

    assert price == Price(None, None, None, None, ComputedPrice(1500))


@pytest.mark.parametrize("answer", [dict.fromkeys(PRICE), {"computed": {}}, {"rent": "null"}])
def test_an_answer_without_any_price_is_refused(answer: dict[str, object]) -> None:
    with pytest.raises(InvalidResponseError, match="the answer has no price"):
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
def test_a_funding_has_its_amount_and_its_other_fields(
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
    (decode_price, NO_OBJECTS[1:], lambda it: PRICE | {"computed": it}),
    (decode_balance, (*NO_OBJECTS, {}, {"status": "OK"}), lambda it: it),
    (decode_history, (*NO_OBJECTS, {}, {"orders": []}, {"totalAmount": 1}), lambda it: it),
    (decode_history, NO_LISTS, lambda it: {"totalAmount": 1, "orders": it}),
]


@pytest.mark.parametrize(
    ("decoder", "answer"),
    [(decoder, place(value)) for decoder, values, place in WRONG for value in values],
    ids=lambda part: part.__name__ if callable(part) else ascii(part),
)
def test_an_answer_of_the_wrong_shape_is_unreadable(decoder: Decoder, answer: object) -> None:
    with pytest.raises(InvalidResponseError, match="the answer") as caught:
        decoder(answer, None)

    assert caught.value.request_outcome is RequestOutcome.UNKNOWN
