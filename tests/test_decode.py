"""From bytes to a model or one of our errors, and from a call to its request line.

The documented answers are exact tests; whatever else a server, a gateway or a captive portal might
send is left to Hypothesis, and is either read or refused by one of our errors.
"""

import gzip
import json
import math
import pickle
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sms4sats_async import Sms4SatsClient
from sms4sats_async._http import endpoints as operations
from sms4sats_async._http.decode import (
    Cancelled,
    Created,
    decode_balance,
    decode_cancelled,
    decode_countries,
    decode_created,
    decode_history,
    decode_ping,
    decode_price,
    decode_rental_countries,
    decode_services,
    decode_status,
    read_json,
)
from sms4sats_async._http.endpoints import Operation
from sms4sats_async._http.messages import MAXIMUM_BODY, Request, Response, Safety, target
from sms4sats_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    InvalidResponseError,
    RateLimitError,
    ServerError,
    Sms4SatsError,
    UnableToSaveDataError,
)
from sms4sats_async.models import (
    CodeStatus,
    Country,
    FundingHistory,
    Money,
    OrderState,
    OrderStatus,
    Price,
    RentalCountry,
    RequestOutcome,
    Service,
    SmsStatus,
)
from tests.test_decode_endpoints import SAMPLES, Decoder

ORDER_ID = "0123456789abcdef" * 4
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
NOW = NOON.timestamp()
REPEATABLE = Request("GET", "/", Safety.REPEATABLE)
ONLY_IF_NOT_SENT = Request("POST", "/createorder", Safety.ONLY_IF_NOT_SENT)
NOT_SENT, REFUSED, UNKNOWN = RequestOutcome


def packed(value: object) -> bytes:
    return json.dumps(value).encode()


def answered(body: object, status: int = 200, **headers: str) -> Response:
    """An answer; header names are written with `_` for `-`."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, names, body if isinstance(body, bytes) else packed(body))


def read(response: Response, request: Request = REPEATABLE) -> object:
    """What an answer is read as, or the error that it is refused with."""
    try:
        return read_json(response, request, now=NOW)
    except Sms4SatsError as error:
        return error


def status_of(answer: object) -> OrderStatus:
    """The status that an answer is read as, whose `raw` is seen here: `==` does not look at it."""
    status = decode_status(read(answered(answer)), ORDER_ID)
    assert status.raw == answer
    return status


# --- the documented answers -----------------------------------------------------------------------

REFUND = (
    "No available number, payment request is canceled. "
    "Your funds are returned to your wallet automatically."
)
MS = 1_793_534_400_000  # NOON, as the service writes it

# Each row of the documented /orderstatus table, and what it is read as.
STATUSES: list[tuple[dict[str, object], OrderState, Money, dict[str, Any]]] = [
    (
        {
            "status": "OK",
            "paid": True,
            "code": 123456,
            "id": 4711,
            "number": 79991234567,
            "timestamp": MS,
            "country": 187,
            "service": "tg",
        },
        OrderState.CODE_RECEIVED,
        Money.SETTLED,
        {
            "paid": True,
            "code": "123456",
            "number": "+79991234567",
            "timestamp": NOON,
            "country": 187,
            "service": "tg",
        },
    ),
    ({"paid": True}, OrderState.HELD, Money.HELD, {"paid": True}),
    ({"paid": False}, OrderState.UNPAID, Money.WITH_PAYER, {"paid": False}),
    (
        {"paid": True, "number": "79991234567", "country": "russia", "id": 1, "timestamp": MS},
        OrderState.NUMBER_ASSIGNED,
        Money.HELD,
        {"paid": True, "number": "+79991234567", "country": "russia", "timestamp": NOON},
    ),
    (
        {"status": "OK", "paid": True, "error": REFUND},
        OrderState.REFUNDED,
        Money.REFUNDED,
        {"paid": True, "error": REFUND},
    ),
    *(
        (
            {"paid": True, "id": "SM0123", "smsStatus": status.value, "timestamp": MS},
            state,
            money,
            {"paid": True, "sms_status": status, "timestamp": NOON},
        )
        for status, state, money in (
            (SmsStatus.CREATED, OrderState.MESSAGE_CREATED, Money.HELD),
            (SmsStatus.SENT, OrderState.MESSAGE_SENT, Money.SETTLED),
            (SmsStatus.DELIVERED, OrderState.MESSAGE_DELIVERED, Money.SETTLED),
            (SmsStatus.FAILED, OrderState.MESSAGE_FAILED, Money.UNKNOWN),
        )
    ),
    (
        {"paid": True, "smsStatus": "queued"},
        OrderState.UNKNOWN,
        Money.UNKNOWN,
        {"paid": True, "sms_status": SmsStatus.UNKNOWN},
    ),
    ({}, OrderState.UNKNOWN, Money.UNKNOWN, {}),
]


@pytest.mark.parametrize(("answer", "state", "money", "fields"), STATUSES)
def test_a_documented_status_is_read_completely(
    answer: dict[str, object], state: OrderState, money: Money, fields: dict[str, Any]
) -> None:
    kind = CodeStatus if "code" in fields else OrderStatus
    assert status_of(answer) == kind(ORDER_ID, state, money=money, **fields)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("0042", "0042"),
        ("0000", "0000"),
        ("0", "0"),
        ("12-34", "12-34"),
        ("12:34", "12:34"),
        ("null0", "null0"),
        (" 0042\n", "0042"),
        (42, "42"),
        (0, None),
        (0.0, None),
        (-1, None),
        (123456.0, "123456"),
        (10**400, str(10**400)),
        (10**5000, None),
        ("", None),
        ("  ", None),
        ("null", None),
        ("None", None),
        (" NULL ", None),
        ("undefined", None),
        ("false", None),
        (None, None),
        (False, None),
        (True, None),
        ([], None),
        ({}, None),
        (math.nan, None),
        (math.inf, None),
        (-math.inf, None),
    ],
    ids=lambda value: type(value).__name__ + ascii(value)[:9] if value != 10**5000 else "huge",
)
def test_a_code_is_text_and_a_string_keeps_its_leading_zeros(
    code: object, expected: str | None
) -> None:
    """What is no code must not be taken for one: the money of a delivered code is gone."""
    status = decode_status({"paid": True, "code": code}, ORDER_ID)

    assert status.code == expected
    assert (status.state is OrderState.CODE_RECEIVED) == (expected is not None)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (79991234567, "+79991234567"),
        (79991234567.0, "+79991234567"),
        ("79991234567", "+79991234567"),
        ("+79991234567", "+79991234567"),
        (" +79991234567 ", "+79991234567"),
        ("+7 999 123-45-67", "+7 999 123-45-67"),
        ("004915112345678", "+4915112345678"),
        ("+004915112345678", "+4915112345678"),
        ("00 49 151 12345678", "+49 151 12345678"),
        ("0000004915112345678", "+4915112345678"),
        ("015112345678", "015112345678"),
        ("\u0661\u0662 1", "\u0661\u0662 1"),
        (0, None),
        (-1, None),
        ("0", None),
        ("00", None),
        ("+", None),
        ("null", None),
        ("none", None),
        ("pending", None),
        ("", None),
        (None, None),
        (False, None),
        (math.nan, None),
    ],
    ids=ascii,
)
def test_a_number_is_plus_and_digits_whether_or_not_it_came_with_a_plus(
    number: object, expected: str | None
) -> None:
    assert decode_status({"number": number}, ORDER_ID).number == expected


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        (MS, NOON),
        (float(MS), NOON),
        (str(MS), NOON),
        (MS + 250, NOON.replace(microsecond=250_000)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        *((value, None) for value in (10**17, 10**400, -(10**17), math.nan, math.inf, 1e308)),
        # -1 is how many say "none", and before 1970 there was no SMS.
        *((value, None) for value in (-1, -1000, -0.5, -1e308, -math.inf, "-1", "-1000")),
        *((value, None) for value in ("soon", "", "9" * 18, "9" * 5000, "\u0663", "1.5")),
        *((value, None) for value in (None, True, "[]")),
        ([1], None),
        ({"ms": 1}, None),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_a_timestamp_is_unix_milliseconds_or_nothing(
    timestamp: object, expected: datetime | None
) -> None:
    assert decode_status({"timestamp": timestamp}, ORDER_ID).timestamp == expected


@pytest.mark.parametrize(
    ("field", "attribute", "value", "expected"),
    [
        ("paid", "paid", "true", None),
        ("paid", "paid", 1, None),
        ("paid", "paid", None, None),
        ("smsStatus", "sms_status", " Sent ", SmsStatus.SENT),
        ("smsStatus", "sms_status", 5, SmsStatus.UNKNOWN),
        ("smsStatus", "sms_status", "", SmsStatus.UNKNOWN),
        ("smsStatus", "sms_status", None, None),
        ("country", "country", 0, 0),
        ("country", "country", "null", None),
        ("error", "error", "null", None),
        ("country", "country", "germany", "germany"),
        ("country", "country", True, None),
        ("country", "country", "", None),
        ("country", "country", 1.5, None),
        ("service", "service", "tg", "tg"),
        ("service", "service", " ", None),
        ("service", "service", 5, None),
        ("error", "error", "", None),
        ("error", "error", None, None),
        ("error", "error", {}, None),
    ],
)
def test_what_a_field_cannot_mean_is_left_out(
    field: str, attribute: str, value: object, expected: object
) -> None:
    assert getattr(decode_status({field: value}, ORDER_ID), attribute) == expected


@pytest.mark.parametrize(
    "nothing", [None, "", "null", "None", "undefined", False, "false", "False"], ids=ascii
)
def test_an_error_that_says_nothing_is_no_refund(nothing: object) -> None:
    status = status_of({"status": "OK", "paid": True, "error": nothing})

    assert status.state is OrderState.HELD
    assert status.error is None


@pytest.mark.parametrize(
    ("answer", "order_id", "payreq"),
    [
        ({"status": "OK", "orderId": ORDER_ID, "payreq": "lnbc1"}, ORDER_ID, "lnbc1"),
        ({"status": "OK", "orderId": ORDER_ID, "payreq": "paid"}, ORDER_ID, "paid"),
        ({"orderId": " 0042\n", "payreq": " lnbc1\n"}, "0042", "lnbc1"),
        ({"orderId": 42, "payreq": "lnbc1"}, "42", "lnbc1"),
        # A wallet may refuse an invoice with its scheme, and a QR code has the scheme already.
        ({"orderId": ORDER_ID, "payreq": " lightning:lnbc1"}, ORDER_ID, "lnbc1"),
        ({"orderId": ORDER_ID, "payreq": "LIGHTNING:LNBC1"}, ORDER_ID, "LNBC1"),
        # An ID without an invoice is kept: money may be paid for it.
        ({"orderId": ORDER_ID}, ORDER_ID, ""),
        ({"orderId": ORDER_ID, "payreq": None}, ORDER_ID, ""),
        ({"orderId": ORDER_ID, "payreq": 5}, ORDER_ID, ""),
        ({"orderId": ORDER_ID, "payreq": "null"}, ORDER_ID, ""),
    ],
)
def test_a_new_order_is_read_with_its_id_before_all(
    answer: dict[str, object], order_id: str, payreq: str
) -> None:
    assert decode_created(answer, None) == Created(order_id, payreq, answer)


def test_a_new_order_does_not_show_its_id_on_the_way() -> None:
    assert ORDER_ID not in repr(decode_created({"orderId": ORDER_ID}, None))


@pytest.mark.parametrize(
    "answer", [{"status": "OK"}, {"status": "ok"}, {"status": " OK. ", "x": 1}]
)
def test_ok_is_the_evidence_of_a_cancel(answer: dict[str, object]) -> None:
    assert decode_cancelled(answer, ORDER_ID) == Cancelled(answer)


ODD_IDS = ("a\x00b", "a\nb", "\x1b[2J", "\u202eab", "a\ud800", "a" * 1025)
NO_OBJECTS: tuple[object, ...] = (None, True, 5, 1.5, "OK", [], [{"status": "OK"}], math.nan)


@pytest.mark.parametrize(
    ("decoder", "value"),
    [
        *((decode_cancelled, value) for value in NO_OBJECTS),
        *((decode_created, value) for value in NO_OBJECTS),
        *((decode_status, value) for value in NO_OBJECTS),
        *((decode_cancelled, {"status": word}) for word in ("KO", "", None, True, 200)),
        (decode_cancelled, {}),
        *((decode_created, {"orderId": word}) for word in ("", " ", None, True, ["1"], 0, "null")),
        (decode_created, {"status": "OK", "payreq": "lnbc1"}),
        (decode_created, {"orderId": math.nan}),
        # No later call could send such an id, so its order must not be paid.
        *((decode_created, {"orderId": odd, "payreq": "lnbc1"}) for odd in ODD_IDS),
    ],
)
def test_an_answer_of_the_wrong_shape_is_no_evidence_of_anything(
    decoder: Decoder, value: object
) -> None:
    with pytest.raises(InvalidResponseError) as caught:
        decoder(value, ORDER_ID)

    assert caught.value.request_outcome is UNKNOWN


@pytest.mark.parametrize("value", [*NO_OBJECTS, {}, {"status": "OK"}], ids=ascii)
def test_any_good_answer_means_that_the_service_is_up(value: object) -> None:
    decode_ping(value, None)


# --- refusals -------------------------------------------------------------------------------------

HTML = b"<html><h1>Bad Gateway</h1></html>"
SAVE = {"status": "error", "reason": "unable to save data"}
NO_KEY = {"status": "error", "reason": "X-API-Key header is missing."}
BACKEND = {"status": "error", "reason": "backend error"}

# The answer; the error; its reason; what is known of a request that may be repeated, and of one
# that may not, because a second one could buy twice.
REFUSALS: list[tuple[int, object, type[APIError], str | None, RequestOutcome, RequestOutcome]] = [
    (500, SAVE, UnableToSaveDataError, "unable to save data", REFUSED, UNKNOWN),
    (500, {"reason": "Unable to save data."}, UnableToSaveDataError, "*", UNKNOWN, UNKNOWN),
    (502, SAVE, ServerError, "unable to save data", REFUSED, UNKNOWN),
    (500, BACKEND, ServerError, "backend error", REFUSED, UNKNOWN),
    (500, HTML, ServerError, None, UNKNOWN, UNKNOWN),
    (502, HTML, ServerError, None, UNKNOWN, UNKNOWN),
    (503, b"", ServerError, None, UNKNOWN, UNKNOWN),
    (504, [], ServerError, None, UNKNOWN, UNKNOWN),
    (599, {"reason": 5}, ServerError, None, UNKNOWN, UNKNOWN),
    (400, NO_KEY, AuthenticationError, "X-API-Key header is missing.", REFUSED, REFUSED),
    (400, BACKEND, BadRequestError, "backend error", REFUSED, REFUSED),
    (400, HTML, BadRequestError, None, REFUSED, REFUSED),
    (401, b"", AuthenticationError, None, REFUSED, REFUSED),
    (403, HTML, AuthenticationError, None, REFUSED, REFUSED),
    (404, {"reason": "no such order"}, APIError, "no such order", REFUSED, REFUSED),
    (404, HTML, APIError, None, REFUSED, REFUSED),
    (409, {"reason": " "}, APIError, None, REFUSED, REFUSED),
    (429, b"", RateLimitError, None, REFUSED, UNKNOWN),
    (429, BACKEND, RateLimitError, "backend error", REFUSED, UNKNOWN),
    (302, HTML, APIError, None, UNKNOWN, UNKNOWN),
    (304, b"", APIError, None, UNKNOWN, UNKNOWN),
    (103, b"", APIError, None, UNKNOWN, UNKNOWN),
    # An error under a good status (seen) is the service's own word.
    (200, BACKEND, APIError, "backend error", REFUSED, REFUSED),
    (200, {"status": "ERROR"}, APIError, None, REFUSED, REFUSED),
    (201, {"status": "error", "reason": None}, APIError, None, REFUSED, REFUSED),
]


@pytest.mark.parametrize(
    ("status", "body", "kind", "reason", "repeatable", "only_if_not_sent"), REFUSALS
)
def test_a_refusal_is_the_error_of_its_status_and_says_what_is_sure(  # noqa: PLR0917
    status: int,
    body: object,
    kind: type[APIError],
    reason: str | None,
    repeatable: RequestOutcome,
    only_if_not_sent: RequestOutcome,
) -> None:
    for request, outcome in ((REPEATABLE, repeatable), (ONLY_IF_NOT_SENT, only_if_not_sent)):
        error = read(answered(body, status), request)

        assert type(error) is kind
        assert error.status_code == status
        assert reason in {error.reason, "*"}
        assert error.retry_after is None
        assert error.request_outcome is outcome
        assert str(error).startswith(f"the service answered HTTP {status}")
        assert (reason or "") in str(error) or reason == "*"


def test_a_redirect_says_that_it_is_not_followed() -> None:
    assert "redirects are not followed, check the base_url" in str(read(answered(HTML, 302)))
    assert "redirect" not in str(read(answered(HTML, 404)))


def test_a_reason_is_kept_whole_and_shown_masked_on_one_line() -> None:
    reason = f"no order {ORDER_ID}\r\n" + "x" * 500
    error = read(answered({"reason": reason}, 404))

    assert isinstance(error, APIError)
    assert error.reason == reason
    assert str(error).startswith("the service answered HTTP 404: no order 0123…cdef��xxx")
    assert str(error).isprintable()
    assert len(str(error)) < 300


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("1" * 400, math.inf),
        ("9" * 5000, math.inf),
        ("Sun, 01 Nov 2026 12:00:07 GMT", 7.0),
        ("Sunday, 01-Nov-26 12:00:07 GMT", 7.0),
        ("Sun Nov  1 12:00:07 2026", 7.0),
        ("Sun, 01 Nov 2026 12:00:07 -0000", 7.0),
        ("Sun, 01 Nov 2026 14:00:07 +0200", 7.0),
        ("Sun, 01 Nov 2026 11:00:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        *((value, None) for value in ("", " ", "soon", "-5", "1.5", "1e3", "\u0663", "\u00b2")),
        *((value, None) for value in ("7 s", "7, 8", "Sun, 32 Nov 2026 12:00:00 GMT", "0x10")),
        *((value, None) for value in ("Sun, 01 Nov 99999 12:00:00 GMT", "nan", "inf", "\ud800")),
        *(
            (value, None)
            for value in ("Sun, 01 Nov 2026 12:00:00 +" + "9" * 99, "1 Jan , 12:00 GMT")
        ),
        *(
            (value, None)
            for value in ("Sun, 01 Nov " + "9" * 5000 + " 12:00:00 GMT", "Jan 1 : : :")
        ),
    ],
    ids=lambda value: ascii(value)[:44],
)
@pytest.mark.parametrize("status", [429, 503, 200])
def test_retry_after_is_seconds_or_a_date_or_nothing(
    status: int, value: str, seconds: float | None
) -> None:
    error = read(answered({"status": "error"}, status, retry_after=value))

    assert isinstance(error, APIError)
    assert error.retry_after == seconds


# --- unreadable answers -----------------------------------------------------------------

BOM = b"\xef\xbb\xbf"
UNREADABLE: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n",
    "html": HTML,
    "cut": b'{"status":"OK"',
    "twice": b"{}{}",
    "trailing": b"{} <!-- served by gateway -->",
    "binary": b"\x00\xff\xfe",
    "no-text": b'"\xff\xff"',
    "deep": b"[" * 100_000,
    "deep-object": b'{"a":' * 100_000,
    "deep-closed": b"[" * 100_000 + b"]" * 100_000,
    "digits": b"1" * 5000,
    "digits-within": b'{"code":' + b"1" * 5000 + b"}",
    "python": b"{'status': 'OK'}",
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zlib.compress], ids=["", "gzip", "zlib"])
def test_a_good_status_with_an_unreadable_body_is_an_unknown_end(
    body: bytes, pack: Callable[[bytes], bytes]
) -> None:
    coding = "identity" if pack is bytes else "gzip"
    error = read(answered(pack(body), content_encoding=coding))

    assert type(error) is InvalidResponseError
    assert error.status_code == 200
    assert error.request_outcome is UNKNOWN


@pytest.mark.parametrize(
    ("response", "told"),
    [
        (answered(b"", 204), "the answer (HTTP 204) is empty"),
        (answered(HTML), "the answer (HTTP 200, 33 bytes) is not JSON"),
        (answered(b"x", content_encoding="br"), "content coding 'br', which was not asked for"),
        (answered(b"x", content_encoding="gzip, gzip"), "content coding 'gzip, gzip'"),
        (answered(b"x", content_encoding="a\nb"), "content coding 'a�b'"),
        (answered(b"x", content_encoding="\n"), "is not JSON"),
        (answered(b"x", content_encoding="gzip"), "calls itself gzip and is not JSON in it"),
    ],
)
def test_an_unreadable_answer_says_why(response: Response, told: str) -> None:
    assert told in str(read(response))


ANSWER = {"status": "OK", "orderId": "0042", "error": "ünï \U0001f600"}
JSON = packed(ANSWER)


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (JSON, None),
        (JSON, "identity"),
        (b" \n" + JSON + b"\n", None),
        (BOM + JSON, None),
        (json.dumps(ANSWER, ensure_ascii=False).encode(), None),
        (JSON.decode().encode("utf-16"), None),
        (JSON.decode().encode("utf-32-be"), None),
        (gzip.compress(JSON, mtime=0), "gzip"),
        (gzip.compress(JSON, mtime=0), " X-GZip "),
        (gzip.compress(BOM + JSON, mtime=0), "gzip"),
        (zlib.compress(JSON), "deflate"),
        (gzip.compress(JSON, mtime=0), "deflate"),
        # Some HTTP libraries unpack an answer and leave the header as it was.
        (JSON, "gzip"),
        (JSON, "br"),
    ],
)
def test_json_is_read_in_any_unicode_and_in_what_it_may_be_packed_in(
    body: bytes, coding: str | None
) -> None:
    headers = {} if coding is None else {"content-encoding": coding}

    assert read(Response(200, headers, body)) == ANSWER


def test_a_bomb_is_not_unpacked_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpacking stops at the limit: not a byte more than one over it is ever made."""
    made: list[int] = []
    unpacker = zlib.decompressobj

    class Watched:
        def __init__(self, wbits: int) -> None:
            self.inner = unpacker(wbits=wbits)

        def decompress(self, data: bytes, limit: int = 0) -> bytes:
            unpacked = self.inner.decompress(data, limit)
            made.append(len(unpacked))
            return unpacked

    monkeypatch.setattr(zlib, "decompressobj", Watched)
    bomb = gzip.compress(b" " * 100_000_000, mtime=0)
    assert len(bomb) < MAXIMUM_BODY

    error = read(answered(bomb, content_encoding="gzip"))

    assert type(error) is InvalidResponseError
    assert f"unpacks to more than {MAXIMUM_BODY} bytes" in str(error)
    assert made == [MAXIMUM_BODY + 1]


def test_an_answer_may_be_as_large_as_the_limit_unpacked_and_no_larger() -> None:
    body = b'"' + b"x" * (MAXIMUM_BODY - 2) + b'"'

    fits = read(answered(gzip.compress(body, mtime=0), content_encoding="gzip"))
    too_large = read(answered(gzip.compress(body + b" ", mtime=0), content_encoding="gzip"))

    assert fits == "x" * (MAXIMUM_BODY - 2)
    assert type(too_large) is InvalidResponseError


# --- anything at all ------------------------------------------------------------------------------

LETTERS = st.characters() | st.characters(categories=["Cs", "Cc", "Nd"])
TEXTS = st.text(LETTERS, max_size=20)
WORDS = st.sampled_from(
    ["OK", "error", "sent", "", "0042", ORDER_ID, "unable to save data", REFUND, "paid", "9" * 5000]
)
NUMBERS = st.one_of(
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.sampled_from([MS, -MS, 10**400]),
)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS | WORDS
FIELDS = st.sampled_from(
    [
        "status",
        "reason",
        "orderId",
        "payreq",
        "paid",
        "code",
        "number",
        "error",
        "smsStatus",
        "id",
        "timestamp",
        "country",
        "service",
        *("eng", "visible", "rent", "text", "value", "count", "image", "src", "cc", "duration"),
        *("price", "receive", "send", "s4s", "query", "computed", "description", "balance"),
        *("totalAmount", "orders", "amount", "createdAt", "desc", "holdinvoice", "preimage"),
        *("preimageHash", "userId"),
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS | TEXTS, inner, max_size=8),
    max_leaves=20,
)
ANSWERS = st.dictionaries(FIELDS, SCALARS | VALUES) | VALUES
PACKERS: list[Callable[[bytes], bytes]] = [
    bytes,
    gzip.compress,
    zlib.compress,
    lambda body: gzip.compress(body, mtime=0)[:-9],
    lambda body: zlib.compress(body)[2:-4],
    lambda body: body[:-1],
    lambda body: BOM + body,
    lambda body: body * 2,
]


def packed_by(pack: Callable[[bytes], bytes], body: bytes) -> bytes:
    return pack(body)


ENCODINGS = st.sampled_from(["utf-8", "utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7"])


def encoded(value: object, encoding: str, *, ascii_only: bool) -> bytes:
    text = json.dumps(value, ensure_ascii=ascii_only)
    return text.encode(encoding, "surrogatepass" if encoding != "utf-7" else "replace")


BODIES = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(
        [*UNREADABLE.values(), HTML, JSON, gzip.compress(b" " * (2 * MAXIMUM_BODY), mtime=0)]
    ),
    st.builds(encoded, ANSWERS, ENCODINGS, ascii_only=st.booleans()),
    st.builds(encoded, ANSWERS, st.just("utf-8"), ascii_only=st.booleans()),
)
PACKED = BODIES | st.builds(packed_by, st.sampled_from(PACKERS), BODIES)
DATES = st.builds(
    " ".join,
    st.lists(
        st.sampled_from(
            ["Sun,", "01", "1", "Nov", "2026", "26", "12:00:07", "GMT", "+0200", "-0000"]
        )
        | st.sampled_from([",", ":", "-", "+", "9999999999", "\u0663", "99:99:99", "1-Nov-26", "."])
        | st.text(LETTERS, max_size=3),
        max_size=8,
    ),
)
RETRY_AFTERS = DATES | TEXTS | st.integers().map(str) | st.sampled_from(["9" * 400, "-5", "\u0663"])
CODINGS = st.sampled_from(["gzip", "deflate", "x-gzip", "identity", "br", "GZIP", "", " "]) | TEXTS
HEADERS = st.fixed_dictionaries(
    {}, optional={"content-encoding": CODINGS, "retry-after": RETRY_AFTERS}
)
STATUS_CODES = st.sampled_from([200, 200, 200, 400, 429, 500]) | st.integers(100, 999)
RESPONSES = st.builds(Response, STATUS_CODES, HEADERS, PACKED)
REQUESTS = st.sampled_from([REPEATABLE, ONLY_IF_NOT_SENT])
# What each decoder makes, alone or as the entries of a list.
DECODERS: dict[Decoder, type] = {
    decode_ping: type(None),
    decode_created: Created,
    decode_cancelled: Cancelled,
    decode_status: OrderStatus,
    decode_countries: Country,
    decode_services: Service,
    decode_rental_countries: RentalCountry,
    decode_price: Price,
    decode_balance: int,
    decode_history: FundingHistory,
}
LISTS: tuple[Decoder, ...] = (decode_countries, decode_services, decode_rental_countries)
each_decoder = pytest.mark.parametrize(
    "decoder", DECODERS, ids=lambda decoder: decoder.__name__.removeprefix("decode_")
)


def test_every_decoder_is_tried_with_anything() -> None:
    room = decode_status.__globals__

    assert set(DECODERS) == {it for name, it in room.items() if name.startswith("decode_")}


def is_made_by(decoder: Decoder, result: object) -> bool:
    made = cast("list[object]", result) if decoder in LISTS else [result]
    return all(isinstance(it, DECODERS[decoder]) for it in made)


def near_answers(answer: object) -> st.SearchStrategy[object]:
    """An answer in which one or two values are replaced or missing."""
    if isinstance(answer, dict):
        fields = {
            name: near_answers(value) | SCALARS
            for name, value in cast("dict[str, object]", answer).items()
        }
        return st.fixed_dictionaries({}, optional=fields) | st.fixed_dictionaries(fields)
    if isinstance(answer, list):
        entries = [near_answers(entry) for entry in cast("list[object]", answer)]
        return st.lists(st.one_of(SCALARS, *entries), max_size=3)
    return st.just(answer) | st.just(str(answer)) | SCALARS


DOCUMENTED: list[object] = [
    *(answer for answer, *_ in STATUSES),
    *(answer for _, answer, _ in SAMPLES.values()),
    {"status": "OK", "orderId": ORDER_ID, "payreq": "lnbc1"},
    {"status": "OK"},
]
NEAR_ANSWERS = st.one_of([near_answers(answer) for answer in DOCUMENTED])


def seeds(test: Callable[..., None]) -> Callable[..., None]:
    """The documented answers, and the worst known, as examples of a property."""
    responses = [
        *(answered(answer) for answer in DOCUMENTED),
        *(answered(body, status) for status, body, *_ in REFUSALS),
        *(answered(body) for body in UNREADABLE.values()),
        *(answered(pack(JSON), content_encoding="gzip") for pack in PACKERS),
        *(
            answered(zlib.compress(body), content_encoding="deflate")
            for body in UNREADABLE.values()
        ),
        answered(gzip.compress(b" " * (2 * MAXIMUM_BODY), mtime=0), content_encoding="gzip"),
        answered(b"", 429, retry_after="Sun, 01 Nov 2026 12:00:07 GMT"),
        answered(b"", 429, retry_after="9" * 5000),
        answered(b'{"code":NaN,"number":Infinity,"timestamp":-Infinity,"country":1e999}'),
        answered({"orderId": "\ud800", "error": "\udfff", "status": "\ud800"}),
    ]
    for response in responses:
        test = example(response=response, request=REPEATABLE)(test)
    return test


@each_decoder
@given(response=RESPONSES, request=REQUESTS)
@seeds
def test_any_answer_is_read_or_refused_by_one_of_our_errors(
    decoder: Decoder, response: Response, request: Request
) -> None:
    """Whatever the status, the headers and the bytes: a model or a Sms4SatsError, nothing else."""
    result = read_completely(response, request, decoder)

    assert repr(result)
    if isinstance(result, APIError | InvalidResponseError):
        check_error(result, response, request)
    else:
        assert is_made_by(decoder, result)


def read_completely(response: Response, request: Request, read_as: Decoder) -> object:
    try:
        return read_as(read_json(response, request, now=NOW), ORDER_ID)
    except Sms4SatsError as error:
        return error


def check_error(error: Sms4SatsError, response: Response, request: Request) -> None:
    """An error of any answer can be shown, sent on, and tells no more than is sure."""
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(again), vars(again), str(again)) == (type(error), vars(error), str(error))
    assert str(error).isprintable()
    assert len(str(error)) < 400
    assert ORDER_ID not in f"{error} {error!r}"
    assert error.request_outcome is not NOT_SENT
    if isinstance(error, APIError):
        assert error.status_code == response.status
        assert error.retry_after is None or error.retry_after >= 0
        if request.safety is Safety.ONLY_IF_NOT_SENT and response.status >= 500:
            assert error.request_outcome is UNKNOWN
    else:
        assert 200 <= response.status < 300
        assert error.request_outcome is UNKNOWN


def documented(test: Callable[..., None]) -> Callable[..., None]:
    """Every documented answer as an example of a property, also with the worst in each place."""
    for answer in DOCUMENTED:
        for value in [
            answer,
            *(bad for worst in WORST for bad in damaged_in_one_place(answer, worst)),
        ]:
            test = example(value=value, order_id=None)(test)
    return test


WORST: tuple[object, ...] = (10**5000, math.nan, -math.inf, 1e308, "\ud800", "9" * 5000, [], {})


def damaged_in_one_place(answer: object, worst: object) -> Iterator[object]:
    """The answer with `worst` in one place, for each of its places."""
    yield worst
    if isinstance(answer, dict):
        fields = cast("dict[str, object]", answer)
        for name, value in fields.items():
            yield from ({**fields, name: bad} for bad in damaged_in_one_place(value, worst))
    elif isinstance(answer, list):
        for value in cast("list[object]", answer):
            yield from ([bad] for bad in damaged_in_one_place(value, worst))


@each_decoder
@given(value=NEAR_ANSWERS | VALUES | st.dictionaries(FIELDS, SCALARS), order_id=st.none() | TEXTS)
@documented
def test_any_value_is_decoded_or_refused_as_unreadable(
    decoder: Decoder, value: object, order_id: str | None
) -> None:
    result = decoded(decoder, value, order_id)

    assert isinstance(result, InvalidResponseError) or is_made_by(decoder, result)


@given(NEAR_ANSWERS)
def test_no_price_balance_or_amount_is_ever_negative(value: object) -> None:
    for decoder in DECODERS:
        read_as = decoded(decoder, value, None)
        models = cast("list[object]", read_as) if isinstance(read_as, list) else [read_as]
        for model in models:
            assert min((each for each in amounts(model) if each is not None), default=0) >= 0


def amounts(model: object) -> list[int | None]:
    match model:
        case int():
            return [model]
        case Price(computed=computed):
            parts: list[int | None] = [] if computed is None else [computed.price]
            return [model.receive, model.send, model.rent, model.platform_fee, *parts]
        case RentalCountry():
            return [model.price, model.duration_weeks]
        case FundingHistory(entries=entries):
            return [model.total_amount, *(entry.amount for entry in entries)]
        case _:
            return []


def decoded(read_as: Decoder, value: object, order_id: str | None) -> object:
    try:
        return read_as(value, order_id)
    except InvalidResponseError as error:
        return error


# --- the request line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, "/orderstatus"),
        ({"orderId": "0042"}, "/orderstatus?orderId=0042"),
        (
            {"orderId": "a b+c/d?e&f=g#h%i"},
            "/orderstatus?orderId=a%20b%2Bc%2Fd%3Fe%26f%3Dg%23h%25i",
        ),
        ({"a": "ü", "b": ""}, "/orderstatus?a=%C3%BC&b="),
    ],
)
def test_every_reserved_character_of_a_query_is_encoded(
    query: Mapping[str, str], expected: str
) -> None:
    assert target("/orderstatus", query) == expected


@given(st.dictionaries(st.sampled_from(["orderId", "country", "service"]), st.text()))
def test_a_query_comes_out_as_it_went_in(query: dict[str, str]) -> None:
    line = target("/orderstatus", query)

    assert line.isascii()
    assert line.isprintable()
    assert " " not in line
    parts = urlsplit(line)
    assert parts.path == "/orderstatus"
    assert dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(query))) == query


# The method of the client; the documented request line; what it answers.
ENDPOINTS: list[tuple[Operation[Any], str, str, Decoder]] = [
    (operations.PING, "ping", "GET /", decode_ping),
    (operations.GET_COUNTRIES, "get_countries", "GET /getCountries", decode_countries),
    (operations.GET_SERVICES, "get_services", "GET /getnumbersstatus", decode_services),
    (
        operations.GET_RENTAL_COUNTRIES,
        "get_rental_countries",
        "GET /getRentalCountries",
        decode_rental_countries,
    ),
    (operations.GET_PRICE, "get_price", "GET /price", decode_price),
    (operations.CREATE_ORDER, "create_order", "POST /createorder", decode_created),
    (operations.CREATE_SEND_ORDER, "create_send_order", "POST /createsendorder", decode_created),
    (operations.FUND, "fund", "POST /fund", decode_created),
    (operations.GET_ORDER_STATUS, "get_order_status", "GET /orderstatus", decode_status),
    (operations.CANCEL_ORDER, "cancel_order", "GET /cancelorder", decode_cancelled),
    (operations.GET_BALANCE, "get_balance", "GET /balance", decode_balance),
    (operations.GET_HISTORY, "get_history", "GET /history", decode_history),
]
PREPAID = {"fund", "get_balance", "get_history"}


def test_every_endpoint_is_seen_here() -> None:
    every: list[object] = [it for it in vars(operations).values() if type(it) is Operation]

    assert set(every) == {operation for operation, *_ in ENDPOINTS}
    assert len(every) == len(ENDPOINTS)


@pytest.mark.parametrize(
    ("operation", "name", "line", "decoder"), ENDPOINTS, ids=[name for _, name, *_ in ENDPOINTS]
)
def test_an_endpoint_is_the_documented_one_and_repeated_only_where_it_buys_nothing_twice(
    operation: Operation[Any], name: str, line: str, decoder: Decoder
) -> None:
    method, path = line.split()
    safety = Safety.ONLY_IF_NOT_SENT if method == "POST" else Safety.REPEATABLE

    assert operation.request() == Request(method, path, safety, None, with_key=name in PREPAID)
    assert operation.request(with_key=True).with_key
    assert operation.name == name
    assert operation.decode is decoder
    assert hasattr(Sms4SatsClient, name)


def test_a_request_carries_what_it_is_given() -> None:
    body = {"country": 187, "service": "tg", "name": "ü\ud800"}
    request = operations.CREATE_ORDER.request(query={"a": "b c"}, body=body, with_key=True)

    assert request.target == "/createorder?a=b%20c"
    assert request.with_key
    assert request.body == b'{"country":187,"service":"tg","name":"\\u00fc\\ud800"}'


def test_a_body_without_fields_is_a_body() -> None:
    assert operations.CREATE_ORDER.request(body={}).body == b"{}"
