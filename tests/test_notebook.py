"""What a notebook displays: facts about the money, a QR code that scans, and no active content."""

import copy
import html
import json
import pickle
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
import zxingcpp

from sms4sats_async import (
    APIError,
    CodeStatus,
    ComputedPrice,
    Country,
    FundOrder,
    Money,
    OpenOrder,
    Order,
    OrderOutcome,
    OrderResult,
    OrderState,
    OrderStatus,
    Price,
    ReceiveOrder,
    RentalCountry,
    SendOrder,
    Service,
    SmsStatus,
)
from sms4sats_async._notebook import render
from sms4sats_async.models import Listing
from sms4sats_async.simulator import Network, make_invoice
from tests.simulated import CODE, HELD, Simulated

ORDER_ID = "0123456789abcdef" * 4
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
HOSTILE = "<img src=x onerror=alert(1)>\"'&\x1b[2J\u202e\u2066\ud800"


def invoice(
    amount: int | None = 1500,
    *,
    network: Network = "bitcoin",
    expiry: int = 1260,
    signature: int = 65,
) -> str:
    return make_invoice(
        amount_sat=amount,
        payment_hash=bytes(32),
        payment_secret=bytes(32),
        description="x",
        timestamp=int(NOON.timestamp()),
        expiry=expiry,
        network=network,
        signature=bytes(signature),
    )


ORDER = ReceiveOrder(ORDER_ID, invoice(), NOON, 187, "tg")
NOTES = {"chat": "42", "money": "refunded"}
ARRIVED = CodeStatus(
    ORDER_ID,
    OrderState.CODE_RECEIVED,
    paid=True,
    code="0042",
    number="+15551234567",
    country=187,
    service="tg",
    timestamp=NOON,
    money=Money.SETTLED,
)
SENT = OrderStatus(
    ORDER_ID, OrderState.MESSAGE_SENT, sms_status=SmsStatus.SENT, money=Money.SETTLED
)
REFUNDED = OrderStatus(
    ORDER_ID, OrderState.REFUNDED, error=f"no number for {ORDER_ID}", money=Money.REFUNDED
)


@pytest.fixture(autouse=True)
def _a_minute_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: NOON.timestamp() + 65.9)


def page_of(model: object) -> str:
    page = getattr(model, "_repr_html_")()  # noqa: B009 - IPython asks for it by this name
    assert isinstance(page, str)
    return page


def facts_of(model: object) -> dict[str, str]:
    """Return the facts of a page, with its title and its big fact under those names."""
    page = page_of(model)
    facts = re.findall('<div class="name">(.*?)</div><div>(.*?)</div>', page)
    facts += re.findall('<div class="(title|big)">(.*?)</div>', page)
    return {html.unescape(name): html.unescape(text) for name, text in facts}


# --- orders ---------------------------------------------------------------------------------------


def test_order_shows_price_expiry_and_where_the_money_is() -> None:
    assert facts_of(ORDER) == {
        "title": "order for a code",
        "order": "0123…cdef",
        "country": "187",
        "service": "tg",
        "created": "2026-11-01 12:00:00 UTC, 1:05 ago",
        "amount": "1500 sat",
        "payable": "until 2026-11-01 12:21:00 UTC, 19:54 from now",
        "money": "with the payer until the invoice is paid, then held",
    }


@pytest.mark.parametrize(
    ("order", "name", "fact"),
    [
        (SendOrder(ORDER_ID, invoice(), NOON, "+4915112345678"), "phone", "+4915112345678"),
        (SendOrder(ORDER_ID, invoice(), NOON), "title", "order for a message"),
        (FundOrder(ORDER_ID, invoice(), NOON, 1000), "title", "invoice to fund the balance"),
        (
            FundOrder(ORDER_ID, invoice(), NOON, 1000),
            "money",
            "with the payer until the invoice is paid",
        ),
        (Order(ORDER_ID, invoice(), NOON), "title", "order for a code"),
        (Order(ORDER_ID, invoice(None), NOON), "amount", "chosen by the payer"),
        (Order(ORDER_ID, invoice(network="regtest"), NOON), "network", "regtest"),
        (
            Order(ORDER_ID, invoice(expiry=65), NOON),
            "payable",
            "no, it expired at 2026-11-01 12:01:05 UTC",
        ),
        (
            Order(ORDER_ID, invoice(expiry=10**12), NOON),
            "payable",
            "until 9999-12-31 23:59:59 UTC, 2912138 days from now",
        ),
        (
            Order(ORDER_ID, invoice(), NOON + timedelta(1)),
            "created",
            "2026-11-02 12:00:00 UTC, 0:00 ago",
        ),
        (Order(ORDER_ID, "paid", NOON), "money", "held, paid from the balance"),
        (Order(ORDER_ID, "lnbc", NOON), "money", "unknown"),
        (
            Order(ORDER_ID, f"lnbc{ORDER_ID}", NOON),
            "problem",
            "not a Lightning invoice (BOLT 11): its character 64, 'b', is not a bech32 character",
        ),
        (
            ReceiveOrder(ORDER_ID, invoice(), NOON, 187, "tg", metadata=NOTES),
            "metadata",
            "chat: 42; money: refunded",
        ),
    ],
    ids=[
        *("phone", "message", "balance", "balance-money", "any", "open-amount", "network"),
        *(
            "expired",
            "never-expires",
            "from-the-future",
            "prepaid",
            "broken",
            "hides-the-id",
            "metadata",
        ),
    ],
)
def test_order_shows_fact(order: Order, name: str, fact: str) -> None:
    assert facts_of(order)[name] == fact


@pytest.mark.parametrize("text", ["", "paid", "lnbc"])
def test_text_that_is_no_invoice_has_no_qr_code(text: str) -> None:
    page = page_of(Order(ORDER_ID, text, NOON))

    assert "<svg" not in page
    assert "to copy" not in page


def pixels_of(svg: str, scale: int = 4) -> memoryview:
    """Return the pixels that a browser draws: a light square with dark lines one unit high."""
    side = int(re.findall(r'viewBox="0 0 (\d+) \1"', svg)[0])
    rows = [bytearray(b"\xff" * side) for _ in range(side)]
    x = y = 0.0
    (lines,) = re.findall('class="qrline" stroke="#000" d="([^"]*)"', svg)
    for command, numbers in re.findall("([Mmh])([^Mmh]*)", lines):
        values = [float(number) for number in re.findall(r"-?[\d.]+", numbers)]
        if command == "h":
            start, x = int(x), x + values[0]
            rows[int(y)][start : int(x)] = bytes(int(x) - start)
        else:
            x, y = values if command == "M" else (x + values[0], y + values[1])
    wide = [bytes(each for each in row for _ in range(scale)) for row in rows for _ in range(scale)]
    return memoryview(b"".join(wide)).cast("B", shape=[side * scale, side * scale])


def test_qr_code_of_an_order_scans_and_is_small() -> None:
    (svg,) = re.findall("<svg.*</svg>", page_of(ORDER))

    (found,) = zxingcpp.read_barcodes(pixels_of(svg))

    assert found.text == f"LIGHTNING:{ORDER.invoice.upper()}"
    assert found.format == zxingcpp.BarcodeFormat.QRCode
    # In the byte mode 262 characters need version 10, which is 65 modules wide with its border.
    assert len(found.text) == 262
    assert 'viewBox="0 0 57 57"' in svg


def test_qr_code_is_dark_on_light_in_any_theme() -> None:
    (svg,) = re.findall("<svg.*</svg>", page_of(ORDER))
    side = 57

    assert f'<path fill="#fff" d="M0 0h{side}v{side}h-{side}z"/>' in svg
    quiet = [pixels_of(svg, 1)[row, column] for row in range(4) for column in range(side)]
    assert set(quiet) == {255}
    assert pixels_of(svg, 1)[4, 4] == 0


def test_invoice_can_be_copied() -> None:
    assert f"<code>{ORDER.invoice}</code>" in page_of(ORDER)


def test_invoice_that_is_too_long_for_a_qr_code_is_reported() -> None:
    order = Order(ORDER_ID, invoice(signature=3005), NOON)

    assert len(order.invoice) > 4296
    assert "<small>The invoice is too long for a QR code.</small>" in page_of(order)
    assert facts_of(order)["amount"] == "1500 sat"


def test_without_segno_everything_but_the_qr_code_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with_segno = facts_of(ORDER)
    monkeypatch.setitem(sys.modules, "segno", None)

    page = html.unescape(page_of(ORDER))

    assert facts_of(ORDER) == with_segno
    assert "<svg" not in page
    assert (
        "<small>For a QR code of the invoice: pip install 'sms4sats-async[notebook]'</small>"
    ) in page


# --- statuses, results and prices -----------------------------------------------------------------


def test_status_shows_the_code_and_where_the_money_is() -> None:
    assert facts_of(ARRIVED) == {
        "title": "code received",
        "big": "0042",
        "order": "0123…cdef",
        "money": "settled",
        "number": "+15551234567",
        "country": "187",
        "service": "tg",
        "as of": "2026-11-01 12:00:00 UTC",
    }


@pytest.mark.parametrize(
    ("status", "facts"),
    [
        (SENT, {"title": "message sent", "money": "settled", "message": "sent"}),
        (
            REFUNDED,
            {
                "title": "refunded",
                "money": "refunded",
                "the service reports": "no number for 0123…cdef",
            },
        ),
        (OrderStatus(ORDER_ID, OrderState.UNKNOWN), {"title": "unknown", "money": "unknown"}),
    ],
    ids=["message", "refund", "unknown"],
)
def test_status_shows_no_fact_that_is_unknown(status: OrderStatus, facts: dict[str, str]) -> None:
    assert facts_of(status) == facts | {"order": "0123…cdef"}


FAILURE = APIError("the cancel failed", operation="cancel_order", order_id=ORDER_ID, attempts=3)


@pytest.mark.parametrize(
    ("result", "facts"),
    [
        (
            OrderResult(ORDER_ID, OrderOutcome.CANCELLED, attempts=3, metadata=NOTES),
            {
                "title": "cancelled",
                "money": "refunded",
                "cancel requests": "3",
                "metadata": "chat: 42; money: refunded",
            },
        ),
        (
            OrderResult(ORDER_ID, OrderOutcome.REFUNDED, status=REFUNDED),
            {
                "title": "refunded",
                "money": "refunded",
                "last status": "refunded",
            },
        ),
        (
            OrderResult(
                ORDER_ID,
                OrderOutcome.CODE_RECEIVED,
                "0042",
                "+15551234567",
                ARRIVED,
                1,
                metadata={"money": "refunded"},
            ),
            {
                "title": "code received",
                "big": "0042",
                "money": "settled",
                "number": "+15551234567",
                "cancel requests": "1",
                "last status": "code received",
                "metadata": "money: refunded",
            },
        ),
        (
            OrderResult(ORDER_ID, OrderOutcome.MESSAGE_SENT, status=SENT),
            {
                "title": "message sent",
                "money": "settled",
                "last status": "message sent",
            },
        ),
        (
            OrderResult(ORDER_ID, None, attempts=3, error=FAILURE),
            {
                "title": "the outcome is unknown",
                "money": "unknown",
                "cancel requests": "3",
                "problem": str(FAILURE),
            },
        ),
    ],
    ids=["cancelled", "refunded", "code", "message", "unknown"],
)
def test_result_shows_the_outcome_and_where_the_money_is(
    result: OrderResult, facts: dict[str, str]
) -> None:
    assert facts_of(result) == facts | {"order": "0123…cdef"}


@pytest.mark.anyio
async def test_open_order_shows_its_qr_code_and_then_its_result() -> None:
    it = Simulated(HELD)
    opened = it.client.open_order(187, "tg", metadata=NOTES)
    assert shown_before(opened) is None
    async with opened as order:
        while_open = facts_of(order)
        (svg,) = re.findall("<svg.*</svg>", page_of(order))
    (found,) = zxingcpp.read_barcodes(pixels_of(svg))

    assert found.text == f"LIGHTNING:{order.invoice.upper()}"
    assert while_open["title"] == "order for a code"
    assert while_open["metadata"] == "chat: 42; money: refunded"
    after = facts_of(order)
    assert (after["title"], after["money"]) == ("cancelled", "refunded")
    assert "<svg" not in page_of(order)


def shown_before(order: OpenOrder) -> object:
    return getattr(order, "_repr_html_")()  # noqa: B009 - IPython asks for it by this name


@pytest.mark.anyio
async def test_open_order_shows_its_code() -> None:
    it = Simulated(CODE)
    async with it.client.open_order(187, "tg") as order:
        await order.wait_for_code(timeout=60)

        assert facts_of(order)["big"] == "007"


def test_prices_are_in_satoshis_and_the_computed_one_is_big() -> None:
    prices = {
        "title": "prices",
        "to receive a code": "1500 sat",
        "to send a message": "3000 sat",
        "to rent a number": "15000 sat",
        "the service's fee": "4000 sat",
    }

    assert facts_of(Price(1500, 3000, 15000, 4000)) == prices
    assert facts_of(Price(1500, 3000, 15000, 4000, ComputedPrice(1400, 187, "one code"))) == (
        prices | {"big": "1400 sat", "country": "187", "for": "one code"}
    )


def test_value_without_a_card_has_no_display() -> None:
    assert render(Country(43, "Germany")) is None


# --- tables ---------------------------------------------------------------------------------------

COUNTRIES = [Country(43, "Germany", visible=True, rentable=False), Country(999, "Auto")]


def cells_of(page: str) -> list[list[str]]:
    rows = re.findall("<tr>(.*?)</tr>", page)
    return [re.findall("<t[hd](?: class=number)?>(.*?)</t[hd]>", row) for row in rows]


@pytest.mark.parametrize(
    ("items", "cells"),
    [
        (
            COUNTRIES,
            [
                ["id", "name", "visible", "rentable"],
                ["43", "Germany", "yes", "no"],
                ["999", "Auto", "", ""],
            ],
        ),
        (
            [Service("tg", "Telegram", 412, "//elsewhere.example/x.png")],
            [["code", "name", "count"], ["tg", "Telegram", "412"]],
        ),
        (
            [RentalCountry(6, "Indonesia", 2, 1368)],
            [["country id", "country", "duration weeks", "price"], ["6", "Indonesia", "2", "1368"]],
        ),
    ],
    ids=["countries", "services", "rental"],
)
def test_listing_is_a_table(items: list[Any], cells: list[list[str]]) -> None:
    assert cells_of(page_of(Listing(items))) == cells


def test_numbers_and_their_heading_are_aligned_right() -> None:
    page = page_of(Listing(COUNTRIES))

    assert re.findall("<t[hd] class=number>(.*?)</", page) == ["id", "43", "999"]


def test_empty_listing_has_no_table() -> None:
    empty: Listing[Country] = Listing()

    assert getattr(empty, "_repr_html_")() is None  # noqa: B009


def test_listing_is_a_list() -> None:
    listing = Listing(COUNTRIES)

    assert isinstance(listing, list)
    assert listing == COUNTRIES
    assert listing == COUNTRIES
    assert repr(listing) == repr(COUNTRIES)
    assert json.dumps(Listing()) == "[]"
    for again in (copy.copy(listing), copy.deepcopy(listing), pickle.loads(pickle.dumps(listing))):  # noqa: S301
        assert again == listing
    listing.append(COUNTRIES[0])
    assert len(listing) == 3


@pytest.mark.anyio
async def test_client_returns_listings() -> None:
    client = Simulated().client

    for listing in (
        await client.get_countries(),
        await client.get_services(187),
        await client.get_rental_countries(),
    ):
        assert len(cells_of(page_of(listing))) == len(listing) + 1


# --- foreign text ---------------------------------------------------------------------------------

SHOWN: list[Any] = [
    ReceiveOrder(HOSTILE * 3, invoice(), NOON, HOSTILE, HOSTILE, metadata={HOSTILE: HOSTILE}),
    SendOrder(HOSTILE * 3, HOSTILE, NOON, HOSTILE),
    FundOrder(HOSTILE * 3, "paid", NOON),
    OrderStatus(
        *(HOSTILE * 3, OrderState.REFUNDED, None, HOSTILE, HOSTILE, None, HOSTILE, HOSTILE, NOON),
        error=HOSTILE,
    ),
    OrderResult(
        HOSTILE * 3,
        OrderOutcome.CODE_RECEIVED,
        HOSTILE,
        HOSTILE,
        attrs.evolve(ARRIVED, code=HOSTILE),
        error=APIError(HOSTILE),
        metadata={HOSTILE: HOSTILE},
    ),
    Price(1, 2, 3, 4, ComputedPrice(5, HOSTILE, HOSTILE)),
    Listing([Country(1, HOSTILE)]),
    Listing([Service(HOSTILE, HOSTILE, 1, HOSTILE)]),
    Listing([RentalCountry(1, HOSTILE, 2, 3)]),
]
ALLOWED = {
    *("style", "div", "small", "details", "summary", "code", "svg", "path"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
each_shown = pytest.mark.parametrize("model", SHOWN, ids=[f"{n}" for n in range(len(SHOWN))])


@each_shown
def test_foreign_text_is_escaped(model: Any) -> None:
    page = page_of(model)

    assert "<img" not in page
    assert HOSTILE not in page
    # They would change the order of the letters that follow, or what a terminal shows.
    assert [letter for letter in page if not letter.isprintable() and letter != "\n"] == []
    assert "onerror" not in re.sub(r">[^<]*<", "><", page)


@each_shown
def test_page_has_no_script_and_loads_nothing(model: Any) -> None:
    tags = set(re.findall("<([a-z]+)", page_of(model)))

    assert tags <= ALLOWED
    assert not re.search(
        r"(href|src|url|@import|on\w+)\s*[=(]", re.sub(">[^<]*<", "><", page_of(model))
    )


@pytest.mark.parametrize(
    "model",
    [ORDER, ARRIVED, REFUNDED, OrderResult(ORDER_ID, OrderOutcome.REFUNDED, status=REFUNDED)],
    ids=["order", "arrived", "refunded", "result"],
)
def test_every_display_masks_the_order_id(model: object) -> None:
    assert ORDER_ID not in page_of(model)
    assert "0123…cdef" in page_of(model)
