"""Arguments are validated before anything is sent, and the error names what is allowed."""

import contextlib
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms4sats_async import MemoryJournal, OrderScheduler, ReceiveOrder, RetryPolicy, Sms4SatsClient
from sms4sats_async import _validate as arguments
from sms4sats_async.errors import InvalidArgumentError
from tests.simulated import Simulated

# More digits than Python converts to text, so even an error message about it can fail.
HUGE = 10**5000
FAR_EAST, FAR_WEST = (timezone(timedelta(hours=hours)) for hours in (23.9, -23.9))

EDGES_OF_TIME = (datetime.min.replace(tzinfo=FAR_EAST), datetime.max.replace(tzinfo=FAR_WEST))

NOT_SPANS: tuple[object, ...] = (
    -1,
    -0.001,
    timedelta(seconds=-1),
    math.nan,
    math.inf,
    -math.inf,
    HUGE,
    -HUGE,
    True,
    False,
    "3",
    b"3",
    None,
    3j,
    [],
    datetime(2026, 11, 1, tzinfo=UTC),
)


# A time zone without a `utcoffset`.
UNFINISHED_ZONE: tzinfo = type("UnfinishedZone", (tzinfo,), {})()


class Unshowable:
    """A value whose `repr` raises."""

    def __repr__(self) -> str:
        raise KeyError


def nested(depth: int) -> list[object]:
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


def show(value: object) -> str:
    """Return a name for a case."""
    if value in (HUGE, -HUGE):
        return "huge" if value == HUGE else "-huge"
    text = ascii(value)
    return text if len(text) <= 24 else f"{text[:24]}-{len(text)}"


# --- time spans -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0.0),
        (3, 3.0),
        (0.25, 0.25),
        (timedelta(minutes=2), 120.0),
        (timedelta(0), 0.0),
        (timedelta.max, timedelta.max.total_seconds()),
    ],
)
def test_time_span_may_be_seconds_or_a_timedelta(value: object, expected: float) -> None:
    assert arguments.seconds("timeout", value) == expected


@pytest.mark.parametrize("value", NOT_SPANS, ids=show)
@pytest.mark.parametrize("check", [arguments.seconds, arguments.positive_seconds])
def test_invalid_time_span_is_refused(check: Callable[[str, object], float], value: object) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check("poll_interval", value)

    assert caught.value.problem.startswith("poll_interval must be ")


@pytest.mark.parametrize("value", [0, 0.0, -0.0, timedelta(0)])
def test_zero_is_refused_where_the_span_must_be_longer(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match="timeout must be more than 0 seconds"):
        arguments.positive_seconds("timeout", value)


def test_shortest_time_span_is_longer_than_zero() -> None:
    assert arguments.positive_seconds("timeout", 5e-324) == 5e-324
    assert arguments.positive_seconds("timeout", timedelta(microseconds=1)) == 1e-6


@attrs.frozen
class Spans:
    """A class whose fields are validated like those of the library's classes."""

    any_span: float = attrs.field(
        default=0.0, converter=arguments.as_seconds, validator=arguments.check_seconds
    )
    longer: float | None = attrs.field(
        default=None,
        converter=arguments.as_optional_seconds,
        validator=arguments.check_positive_seconds,
    )


def test_field_converts_a_timedelta_to_seconds() -> None:
    minute = timedelta(minutes=1)

    assert Spans(minute, minute) == Spans(60.0, 60.0)
    assert Spans(0, None) == Spans()


@pytest.mark.parametrize("value", NOT_SPANS, ids=show)
def test_field_refuses_an_invalid_time_span(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="any_span must be"):
        Spans(any_span=value)
    if value is not None:
        with pytest.raises(InvalidArgumentError, match="longer must be"):
            Spans(longer=value)


def test_field_refuses_zero_where_the_span_must_be_longer() -> None:
    with pytest.raises(InvalidArgumentError, match="longer must be more than 0"):
        Spans(longer=0)


# --- order IDs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["0123456789abcdef" * 4, "1", "SM-12/34 +&?#%", "ünï", "x" * 1024]
)
def test_printable_order_id_is_used_unchanged(value: str) -> None:
    assert arguments.order_id(value) == value


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "not be empty"),
        ("  ", "not be empty"),
        ("\n", "not be empty"),
        ("\u3000", "not be empty"),
        ("abc\n", "control character"),
        ("a\x00c", "control character"),
        ("abc\x7f", "control character"),
        ("\u202eabc", "control character"),
        ("\ud800", "control character"),
        ("abc\udfff", "control character"),
        ("x" * 1025, "at most 1024 characters, not 1025"),
        ("x" * 2_000_000, "at most 1024 characters, not 2000000"),
        (None, "NoneType"),
        (12, "int"),
        (True, "bool"),
        (b"abc", "bytes"),
        (["abc"], "list"),
        (math.nan, "float"),
        (HUGE, "int"),
    ],
    ids=show,
)
def test_invalid_order_id_is_refused_and_not_shown(value: object, problem: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"the order ID must .*{problem}") as caught:
        arguments.order_id(value)

    assert "abc" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_coroutine_in_the_place_of_an_order_names_the_missing_await() -> None:
    async def create_order() -> None: ...

    with (
        contextlib.closing(create_order()) as made,
        pytest.raises(InvalidArgumentError, match="coroutine; is an `await` missing"),
    ):
        arguments.order_id(made)


# --- datetimes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 11, 1, 12, tzinfo=UTC),
        datetime(2026, 11, 1, 14, tzinfo=timezone(timedelta(hours=2))),
        datetime.min.replace(tzinfo=FAR_WEST),
        datetime.max.replace(tzinfo=FAR_EAST),
    ],
)
def test_aware_datetime_is_converted_to_utc(value: datetime) -> None:
    moment = arguments.aware("created_at", value)

    assert moment == value
    assert moment.tzinfo is UTC


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (datetime(2026, 11, 1), "must have a time zone"),  # noqa: DTZ001 - that is the test
        (datetime.min, "must have a time zone"),  # noqa: DTZ901
        (datetime.max, "must have a time zone"),  # noqa: DTZ901
        *((edge, "must be between the years 1 and 9999") for edge in EDGES_OF_TIME),
        (datetime(2026, 11, 1, tzinfo=UNFINISHED_ZONE), ""),
        (datetime(2026, 11, 1, tzinfo=UTC).date(), "must be a datetime, not date"),
        (1_700_000_000, "must be a datetime, not int"),
        ("2026-11-01T00:00:00Z", "must be a datetime, not str"),
        (None, "must be a datetime, not NoneType"),
        (timedelta(minutes=2), "must be a datetime, not timedelta"),
    ],
)
def test_datetime_without_a_time_zone_is_refused(value: object, problem: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^created_at .*{problem}"):
        arguments.aware("created_at", value)


# --- texts, countries, classes --------------------------------------------------------------------


def test_blanks_around_a_text_are_removed() -> None:
    assert arguments.text("service", " tg\n") == "tg"


@pytest.mark.parametrize(
    "value",
    ["", " ", "\n\t", "t\ng", "tg\x00", "\ud800", "tg\udfff", None, 0, True, b"tg", [], {}, HUGE],
    ids=show,
)
def test_empty_or_unprintable_text_is_refused(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match="service must be printable text and not empty"):
        arguments.text("service", value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((0, 0), (187, 187), (999_999_999, 999_999_999), ("germany", "germany"), ("us", "us")),
        *((" germany ", "germany"), ("côte d'ivoire", "côte d'ivoire"), ("-1", "-1")),
        # A number given as text, from an environment variable or a command line.
        *(("187", 187), (" 187\n", 187), ("0", 0), ("007", 7), ("9" * 9, 999_999_999)),
        # With more digits than a country has, or other digits than 0 to 9, it is a name.
        *(("9" * 10, "9" * 10), ("9" * 5000, "9" * 5000), ("\u0663", "\u0663"), ("²", "²")),
    ],
    ids=show,
)
def test_country_is_a_number_or_a_name(value: object, expected: object) -> None:
    country = arguments.country(value)

    assert country == expected
    assert type(country) is type(expected)


@pytest.mark.parametrize(
    "value",
    [
        *(-1, 10**9, HUGE, -HUGE, True, False, 1.0, math.nan, "", " ", None, b"6", []),
        *("ger\nmany", "germany\x00", "\ud800", "\u202egermany"),
    ],
    ids=show,
)
def test_invalid_country_is_refused(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match="country must be"):
        arguments.country(value)


def test_value_of_another_class_is_refused() -> None:
    assert arguments.instance("retry", 5, int) == 5
    with pytest.raises(InvalidArgumentError, match="retry must be a timedelta, not int"):
        arguments.instance("retry", 5, timedelta)


@pytest.mark.parametrize(
    "value",
    [None, 5, "pay", b"pay", [], HUGE, pytest.param(Unshowable(), id="raises")],
    ids=show,
)
def test_value_that_is_not_callable_is_refused(value: object) -> None:
    arguments.function("pay", print)
    with pytest.raises(InvalidArgumentError, match="pay must be a function, sync or async, not"):
        arguments.function("pay", value)
    with pytest.raises(InvalidArgumentError, match="on_event must be a sync function, not"):
        arguments.listener(value)


@pytest.mark.parametrize(
    "value", ["mainnet", "Bitcoin", "", "b", None, 5, ["bitcoin"], HUGE], ids=show
)
def test_unknown_word_is_refused_and_the_known_ones_are_named(value: object) -> None:
    arguments.one_of("network", "bitcoin", ("bitcoin", "testnet"))
    with pytest.raises(InvalidArgumentError, match="network must be one of bitcoin, testnet, not"):
        arguments.one_of("network", value, ("bitcoin", "testnet"))


# --- a message, its receiver, a referral, a webhook, an amount ------------------------------------


@pytest.mark.parametrize("value", ["x", "x" * 140, " hello ", "two\nlines", "ünï \U0001f600", "0"])
def test_message_is_used_unchanged(value: str) -> None:
    assert arguments.message(value) == value


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        *(("", "not empty"), (" \n", "not empty"), ("\u3000", "not empty")),
        *((it, "must be text") for it in (None, 5, True, HUGE, math.nan, b"hello", ["hello"])),
        *(("x" * 141, "140 characters, not 141"), (" " * 140 + "x", "not 141")),
        ("x" * 2_000_000, "at most 140 characters, not 2000000"),
        # A lone surrogate cannot be sent. It comes from a text that was cut.
        *((it, "lone surrogate") for it in ("\ud800", "hello \udfff", "\ud83d" * 140)),
    ],
    ids=show,
)
def test_invalid_message_is_refused_and_not_shown(value: object, problem: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^message .*{problem}") as caught:
        arguments.message(value)

    assert "hello" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", ["+1234567", "+4915112345678", "+123456789012345"])
def test_phone_number_in_e164_is_used_unchanged(value: str) -> None:
    assert arguments.phone(value) == value


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "+", "+123456", "+1234567890123456", "+0123456789", "4915112345678"),
        *("004915112345678", "++4915112345678", "+49 15112345678", "+49-151-12345678", "+49(0)151"),
        *(" +4915112345678", "+4915112345678 ", "+4915112345678\n", "\n+4915112345678"),
        *("+" + "\u0664" * 9, "\uff0b4915112345678", "+491511234567\ud800", "+4915112345678\x00"),
        *("tel:+4915112345678", "+" + "1" * 5000, "+49151nummer"),
        *(None, 4915112345678, 4915112345678.0, True, b"+4915112345678", [], HUGE, math.nan),
    ],
    ids=show,
)
def test_invalid_phone_number_is_refused_and_not_shown(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match="phone must be in E") as caught:
        arguments.phone(value)

    assert "4915112345678" not in str(caught.value).replace("such as +4915112345678", "")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "value", ["me@example.com", "a.b_c+d-1@pay.example.co.uk", "Me@Example.COM", "1@2.3"]
)
def test_lightning_address_is_used_unchanged(value: str) -> None:
    assert arguments.referral(value) == value


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "@", "me", "me@", "@example.com", "me@host", "me@.com", "me@example."),
        *("me@example..com", "me@me@example.com", "a b@example.com", "me@exa mple.com"),
        *(" me@example.com", "me@example.com ", "me@example.com\n", "me@example.com\x00"),
        *("me@example.com\r\nX: 1", "lnurl1dp68gurn8ghj7", "lightning:me@example.com"),
        # Letters beyond ASCII; two of them equal s and k if a comparison ignores case.
        *("mé@example.com", "me@exämple.com", "\ud800@example.com", "me@example.\ud800"),
        *("\u017f@example.com", "me@\u212a.com", "me@example.\u0131o", "\u0130@example.com"),
        *(None, 5, True, b"me@example.com", ["me@example.com"], HUGE, math.nan),
    ],
    ids=show,
)
def test_invalid_lightning_address_is_refused(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match="referral must be a Lightning address"):
        arguments.referral(value)


@pytest.mark.parametrize(
    "value",
    [
        *("https://me.example/hook", "http://me.example:8080/hook?secret=a%20b#c"),
        *("https://[2001:db8::1]/", "https://me:pw@me.example/"),
    ],
)
def test_absolute_webhook_url_is_used_unchanged(value: str) -> None:
    assert arguments.webhook_url(value) == value


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "/", "/hook", "me.example/hook", "//me.example/hook", "https:", "https://"),
        *("https:me.example", "https:/me.example", "ftp://me.example", "file:///hook"),
        *(" https://me.example", "https://me.example ", "https://me .example", "mailto:a@b"),
        *("https://me.example/\n", "https://me.example/\nhook", "https://me.example/\x00"),
        *("https://me.example/\r\nX-Evil: 1", "https://mé.example", "https://me.example/é"),
        *("https://me.example/\ud800", "https://me.example/\u202e", "https://me\u3000.example"),
        *(None, 5, True, b"https://me.example", ["https://me.example"], HUGE, math.nan),
    ],
    ids=show,
)
def test_invalid_webhook_url_is_refused_and_not_shown(value: object) -> None:
    """It is not shown, because it may have a secret by which the receiver knows the sender."""
    with pytest.raises(InvalidArgumentError, match="webhook_url must be an absolute") as caught:
        arguments.webhook_url(value)

    assert "me.example" not in str(caught.value)


@pytest.mark.parametrize(
    "value", ["https:///hook", "https://?a", "https://#", "http://:80", "https://@/"]
)
def test_webhook_url_without_a_host_is_refused(value: str) -> None:
    with pytest.raises(InvalidArgumentError, match="webhook_url must be an absolute"):
        arguments.webhook_url(value)


@pytest.mark.parametrize("value", [1, 1000, 21_000_000 * 10**8])
def test_whole_number_of_satoshis_is_used_unchanged(value: int) -> None:
    assert arguments.satoshis("amount_sat", value) == value


@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, 21_000_000 * 10**8 + 1, HUGE, -HUGE, 1.0, 1.5, math.nan, math.inf, -math.inf),
        *(True, False, None, "1000", b"1000", "", [], [1000], 1000j, timedelta(1), Fraction(2)),
    ],
    ids=show,
)
def test_invalid_amount_is_refused(value: object) -> None:
    problem = "max_price_sat must be a whole number of satoshis from 1 to"
    with pytest.raises(InvalidArgumentError, match=problem) as caught:
        arguments.satoshis("max_price_sat", value)

    assert len(str(caught.value)) < 300


# --- metadata -------------------------------------------------------------------------------------


def of_size(size: int) -> dict[str, str]:
    """Return metadata of so many bytes of compact JSON."""
    return {"a": "x" * (size - len('{"a":""}'))}


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"chat": "42"},
        {"": ""},
        {"name": "Zoë \U0001f600\n\x00"},
        MappingProxyType({"chat": "42"}),
        of_size(4096),
        {"é" * 500: "é" * 1500},
    ],
    ids=show,
)
def test_metadata_is_copied(value: Mapping[str, str]) -> None:
    notes = arguments.metadata(value)

    assert notes == dict(value)
    assert notes is not value
    assert len(json.dumps(notes, ensure_ascii=False, separators=(",", ":")).encode()) <= 4096


def test_missing_metadata_is_empty() -> None:
    assert arguments.metadata(None) == {}


NOT_METADATA: dict[str, tuple[object, ...]] = {
    "must be a mapping of str to str, not": ("chat", 42, [("a", "b")], True),
    "must have only str as names and values": (
        *({"chat": 42}, {42: "chat"}, {"chat": None}, {"chat": b"42"}, {"a": {}}),
    ),
    "lone surrogate": ({"chat": "\ud800"}, {"\udfff": "42"}),
    "must have at most 4096 bytes as JSON, not 4097": (of_size(4097),),
    # A letter may have two bytes, and JSON escapes a line end.
    "not 4104": ({"a": "é" * 2048}, {"a": "\n" * 2048}),
}


@pytest.mark.parametrize(
    ("value", "problem"),
    [(value, problem) for problem, values in NOT_METADATA.items() for value in values],
    ids=show,
)
def test_invalid_metadata_is_refused_and_not_shown(value: object, problem: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^metadata .*{problem}") as caught:
        arguments.metadata(value)

    assert len(str(caught.value)) < 200


# --- flags, listeners, clocks, schedulers, paths --------------------------------------------------


@pytest.mark.parametrize("value", ["false", "", 0, 1, None, [], HUGE], ids=show)
def test_flag_that_is_not_a_bool_is_refused(value: object) -> None:
    """The text "false" of an environment variable is true to Python, and would pay."""
    assert arguments.flag("immediate", True) is True  # noqa: FBT003
    with pytest.raises(InvalidArgumentError, match="immediate must be True or False, not"):
        arguments.flag("immediate", value)


async def listen(_event: object) -> None: ...


class Listener:
    async def __call__(self, _event: object) -> None: ...


@pytest.mark.parametrize("value", [listen, Listener()], ids=["function", "object"])
def test_async_listener_is_refused(value: object) -> None:
    """Nothing would await it, so it would never run."""
    with pytest.raises(InvalidArgumentError, match="on_event must be a sync function, not"):
        arguments.listener(value)


def check_path(value: Any) -> None:
    arguments.path("path", value)


OBJECTS: dict[str, Callable[[object], object]] = {
    "clock must have": arguments.clock,
    "scheduler must be a scheduler, such as OrderScheduler": arguments.scheduler,
    "journal must be a journal, such as": partial(arguments.journal, "journal"),
    "orders must be a list or another iterable": partial(arguments.several, "orders"),
    "path must be the path of a file": check_path,
}


@pytest.mark.parametrize(
    ("problem", "check"), OBJECTS.items(), ids=[name.partition(" ")[0] for name in OBJECTS]
)
@pytest.mark.parametrize("value", [5, HUGE, 1.5, pytest.param(Unshowable(), id="raises")], ids=show)
def test_object_without_the_needed_methods_is_refused(
    problem: str, check: Callable[[object], object], value: object
) -> None:
    with pytest.raises(InvalidArgumentError, match=problem):
        check(value)


def test_path_passed_as_a_journal_is_refused() -> None:
    journal = MemoryJournal()

    assert arguments.journal("journal", journal) is journal
    with pytest.raises(InvalidArgumentError, match="journal must be a journal"):
        arguments.journal("journal", Path("orders.db"))


@pytest.mark.parametrize("value", ["", b"", b"orders.db", None], ids=show)
def test_path_that_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="path must be the path of a file"):
        arguments.path("path", value)


@pytest.mark.parametrize("value", ["orders\0.db", "orders\ud800.db"])
def test_path_that_no_file_can_have_is_refused(value: str) -> None:
    with pytest.raises(InvalidArgumentError, match="path must not have a NUL or a lone surrogate"):
        arguments.path("path", value)


@pytest.mark.parametrize("value", ["orders/", "/orders/"])
def test_path_of_a_folder_is_refused(value: str) -> None:
    with pytest.raises(InvalidArgumentError, match="path must be the path of a file, not a folder"):
        arguments.path("path", value)


def test_relative_path_in_a_folder_that_was_removed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "removed"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()

    with pytest.raises(InvalidArgumentError, match="path must be absolute"):
        arguments.path("path", "orders.db")

    assert arguments.path("path", "/orders.db") == Path("/orders.db")


def test_path_becomes_absolute() -> None:
    assert arguments.path("path", "orders.db") == Path.cwd() / "orders.db"


def test_text_is_not_several_values() -> None:
    arguments.several("orders", [])
    with pytest.raises(InvalidArgumentError, match="orders must be a list"):
        arguments.several("orders", "abc")


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "5", None, 10**9 + 1])
def test_number_out_of_range_is_refused(value: object) -> None:
    assert arguments.whole_number("concurrency", 1, least=1) == 1
    with pytest.raises(InvalidArgumentError, match="concurrency must be a whole number from 1 to"):
        arguments.whole_number("concurrency", value, least=1)


# --- the key --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["k", "0123456789abcdef" * 4, "!~-_.:/+="])
def test_api_key_of_visible_ascii_is_used_unchanged(value: str) -> None:
    assert arguments.api_key(value) == value


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "secret key", " secret", "secret ", "secret\n", "secret\r\nX-Evil: 1"),
        *("secret\x00", "secret\t1", "secret\x7f", "sécret", "secret\u00a0", "\uff53ecret"),
        *("\ud800", b"secret", None, 5, True),
    ],
    ids=show,
)
def test_api_key_that_no_header_can_have_is_refused_and_not_shown(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match="api_key must be") as caught:
        arguments.api_key(value)

    assert "secret" not in f"{caught.value} {caught.value!r}"


# --- the root -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://api2.sms4sats.com", "https://api2.sms4sats.com"),
        ("https://host/", "https://host"),
        ("https://host//", "https://host"),
        ("https://host:8443/", "https://host:8443"),
        ("https://host/sms/v2", "https://host/sms/v2"),
        ("https://host/sms/v2/", "https://host/sms/v2"),
        ("HTTPS://Host/SMS", "https://host/SMS"),
        ("https://host:443/", "https://host"),
        ("https://host:80", "https://host:80"),
        ("https://host:", "https://host"),
        ("https://[::443]", "https://[::443]"),
        ("https://[2001:DB8::1]:443", "https://[2001:db8::1]"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ("http://localhost", "http://localhost"),
        ("http://localhost:8080/", "http://localhost:8080"),
        ("http://LOCALHOST:80", "http://localhost"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.1.2.3", "http://127.1.2.3"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
@pytest.mark.parametrize("key_is_set", [True, False])
def test_root_has_one_form(value: str, expected: str, *, key_is_set: bool) -> None:
    assert arguments.base_url(value, key_is_set=key_is_set) == expected


@pytest.mark.parametrize(
    "value",
    [
        "http://api2.sms4sats.com",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://notlocalhost",
        # Not every resolver keeps such a name on this machine: some ask a name server.
        "http://sms.localhost",
        "http://128.0.0.1",
        "http://0.0.0.0",
        "http://192.168.0.1:8080",
        "http://[::2]",
        "http://[fe80::1]",
        # Resolvers read these forms of a loopback address differently.
        "http://127.1",
        "http://0x7f000001",
        "HTTP://example.com",
    ],
)
def test_plain_http_with_a_key_is_refused_except_on_this_machine(value: str) -> None:
    assert arguments.base_url(value, key_is_set=False) == value.lower()
    with pytest.raises(InvalidArgumentError, match="must be https:// if there is an API key"):
        arguments.base_url(value, key_is_set=True)


NOT_ROOTS: dict[str, tuple[object, ...]] = {
    "must be an absolute": (
        *("", " ", "/", "host", "host:443", "//host", "ftp://host", "file:///x", "https:host"),
        *("https://", "https:///x", "https://:443", None, 5, True, b"https://host", []),
    ),
    "is unreadable": (
        *("https://host:0x1", "https://host:99999", "https://host:-1", "https://host:a"),
        *("https://[::1", "https://[nothing]", "https://ho\u2100st"),
    ),
    "that a URL cannot have": (
        *("https://ho|st", "https://host\\a", "https://host/<a>", 'https://host/"', "https://h`t"),
        *("https://{host}", "https://host/^"),
    ),
    "user name": ("https://me@host", "https://me:pw@host", "https://@host", "https://:@host"),
    "query": ("https://host?a=b", "https://host/?", "https://host?"),
    "fragment": ("https://host#a", "https://host/#"),
    "blank or a control": (
        *(
            "https://ho st",
            "https://host/a b",
            " https://host",
            "https://host ",
            "https://h\u00a0t",
        ),
        *("https://host\n", "https://ho\nst", "https://host\x7f", "https://host/\x00"),
        *("https://host/\ud800", "https://host/\u202e"),
    ),
}


@pytest.mark.parametrize(
    ("value", "problem"),
    [(value, problem) for problem, values in NOT_ROOTS.items() for value in values],
)
def test_invalid_root_is_refused_with_the_reason(value: object, problem: str) -> None:
    with pytest.raises(InvalidArgumentError, match=problem) as caught:
        arguments.base_url(value, key_is_set=False)

    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "value",
    [
        "https://me:hunter2@host",
        "https://me:hunter2@host:port",
        "https://me:hunter2@ho\u2100st",
        "https://me:hunter2/x@host",
        "https://me:hunter2@[::1",
    ],
)
def test_password_in_the_root_is_not_shown(value: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        arguments.base_url(value, key_is_set=False)

    assert "hunter2" not in str(caught.value)


# --- random values --------------------------------------------------------------------------------

TEXTS = st.text(st.characters() | st.characters(categories=["Cs", "Cc", "Zs"]))
URLS = st.builds(
    "".join,
    st.lists(st.sampled_from(["http", "https", ":", "/", "//", "@", "[", "]", "::1", "?"]) | TEXTS),
)
# Texts that are nearly valid.
PHONES = st.text("+0123456789 \u0663\n", min_size=6, max_size=17).map("+{}".format)
ADDRESSES = st.builds("{}@{}.{}".format, *[st.text("ab.-_@ \n\u017f\u212a\ud800") | TEXTS] * 3)
MESSAGES = st.builds(str.__mul__, TEXTS, st.integers(0, 150))
ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
VALUES = st.recursive(
    st.one_of(
        st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | URLS | st.binary(),
        PHONES | ADDRESSES | MESSAGES,
        st.sampled_from([*EDGES_OF_TIME, 1e308, timedelta.max]),
        st.decimals() | st.fractions() | st.complex_numbers(),
        st.timedeltas() | st.dates() | st.times() | st.uuids(),
        st.datetimes(timezones=st.none() | ZONES | st.timezones()),
    ),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
CHECKS: dict[str, Callable[[object], object]] = {
    "seconds": lambda value: arguments.seconds("span", value),
    "positive_seconds": lambda value: arguments.positive_seconds("span", value),
    "instance": lambda value: arguments.instance("it", value, timedelta),
    "text": lambda value: arguments.text("text", value),
    "country": arguments.country,
    "message": arguments.message,
    "phone": arguments.phone,
    "referral": arguments.referral,
    "webhook_url": arguments.webhook_url,
    "satoshis": lambda value: arguments.satoshis("amount", value),
    "order_id": arguments.order_id,
    "aware": lambda value: arguments.aware("time", value),
    "api_key": arguments.api_key,
    "metadata": arguments.metadata,
    "flag": lambda value: arguments.flag("flag", value),
    "whole_number": lambda value: arguments.whole_number("limit", value, least=0),
    "base_url": lambda value: arguments.base_url(value, key_is_set=True),
}


def used_or_refused(check: Callable[[object], object], value: object) -> object:
    try:
        return check(value)
    except InvalidArgumentError as error:
        return error


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(Unshowable(), id="raises"),
        pytest.param(nested(9999), id="deep"),
        pytest.param([HUGE], id="digits"),
        pytest.param(HUGE, id="huge"),
        pytest.param(-HUGE, id="-huge"),
    ],
)
def test_value_that_cannot_be_shown_is_refused(
    check: Callable[[object], object], value: object
) -> None:
    with pytest.raises(InvalidArgumentError):
        check(value)


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@given(value=VALUES)
def test_random_value_is_used_or_refused_with_a_printable_message(
    check: Callable[[object], object], value: object
) -> None:
    """A wrong value of any type raises one kind of error."""
    used = used_or_refused(check, value)

    if isinstance(used, Exception):
        assert isinstance(used, ValueError)
        assert str(used).isprintable()
    else:
        assert type(used) in {float, int, bool, str, datetime, timedelta, dict}
        # A journal stores the value and reads it back, so it is valid again.
        assert check(used) == used


# --- the calls ------------------------------------------------------------------------------------

Call = Callable[[Sms4SatsClient, ReceiveOrder, Any], object]


def pay(_invoice: str) -> None: ...


# What a call does with an invalid value of one of its arguments.
CALLS: dict[str, Call] = {
    "create_order country": lambda c, _, bad: c.create_order(bad, "tg"),
    "create_order service": lambda c, _, bad: c.create_order(187, bad),
    "create_order rental": lambda c, _, bad: c.create_order(187, "tg", rental=bad),
    "create_order real_phone": lambda c, _, bad: c.create_order(187, "tg", real_phone=bad),
    "create_order referral": lambda c, _, bad: c.create_order(187, "tg", referral=bad),
    "create_order immediate": lambda c, _, bad: c.create_order(187, "tg", immediate=bad),
    "create_order metadata": lambda c, _, bad: c.create_order(187, "tg", metadata=bad),
    "create_send_order phone": lambda c, _, bad: c.create_send_order(bad, "hi"),
    "create_send_order message": lambda c, _, bad: c.create_send_order("+4915112345678", bad),
    "create_send_order immediate": lambda c, _, bad: c.create_send_order(
        "+4915112345678", "hi", immediate=bad
    ),
    "create_send_order webhook_url": lambda c, _, bad: c.create_send_order(
        "+4915112345678", "hi", webhook_url=bad
    ),
    "create_send_order referral": lambda c, _, bad: c.create_send_order(
        "+4915112345678", "hi", referral=bad
    ),
    "create_send_order metadata": lambda c, _, bad: c.create_send_order(
        "+4915112345678", "hi", metadata=bad
    ),
    "get_order_status order": lambda c, _, bad: c.get_order_status(bad),
    "get_services country": lambda c, _, bad: c.get_services(bad),
    "get_rental_countries service": lambda c, _, bad: c.get_rental_countries(bad),
    "get_price country": lambda c, _, bad: c.get_price(bad),
    "get_price service": lambda c, _, bad: c.get_price(187, bad),
    "cancel_order order_id": lambda c, _, bad: c.cancel_order(bad),
    "cancel_order confirm": lambda c, order, bad: c.cancel_order(order, confirm=bad),
    "cancel_order retry": lambda c, order, bad: c.cancel_order(order, retry=bad),
    "cancel_order_when_allowed order": lambda c, _, bad: c.cancel_order_when_allowed(bad),
    "cancel_order_when_allowed created_at": lambda c, order, bad: c.cancel_order_when_allowed(
        order, created_at=bad
    ),
    "cancel_order_when_allowed minimum_age": lambda c, order, bad: c.cancel_order_when_allowed(
        order, minimum_age=bad
    ),
    "cancel_order_when_allowed watch": lambda c, order, bad: c.cancel_order_when_allowed(
        order, watch=bad
    ),
    "cancel_order_when_allowed poll_interval": lambda c, order, bad: c.cancel_order_when_allowed(
        order, poll_interval=bad
    ),
    "code_or_refund order": lambda c, _, bad: c.code_or_refund(bad, timeout=1),
    "code_or_refund timeout": lambda c, order, bad: c.code_or_refund(order, timeout=bad),
    "code_or_refund created_at": lambda c, order, bad: c.code_or_refund(
        order, timeout=1, created_at=bad
    ),
    "code_or_refund minimum_age": lambda c, order, bad: c.code_or_refund(
        order, timeout=1, minimum_age=bad
    ),
    "code_or_refund poll_interval": lambda c, order, bad: c.code_or_refund(
        order, timeout=1, poll_interval=bad
    ),
    "receive_code country": lambda c, _, bad: c.receive_code(bad, "tg", pay=pay, timeout=1),
    "receive_code service": lambda c, _, bad: c.receive_code(187, bad, pay=pay, timeout=1),
    "receive_code pay": lambda c, _, bad: c.receive_code(187, "tg", pay=bad, timeout=1),
    "receive_code timeout": lambda c, _, bad: c.receive_code(187, "tg", pay=pay, timeout=bad),
    "receive_code max_price_sat": lambda c, _, bad: c.receive_code(
        187, "tg", pay=pay, timeout=1, max_price_sat=bad
    ),
    "receive_code network": lambda c, _, bad: c.receive_code(
        187, "tg", pay=pay, timeout=1, network=bad
    ),
    "receive_code poll_interval": lambda c, _, bad: c.receive_code(
        187, "tg", pay=pay, timeout=1, poll_interval=bad
    ),
    "receive_code rental": lambda c, _, bad: c.receive_code(
        187, "tg", pay=pay, timeout=1, rental=bad
    ),
    "receive_code referral": lambda c, _, bad: c.receive_code(
        187, "tg", pay=pay, timeout=1, referral=bad
    ),
    "receive_code metadata": lambda c, _, bad: c.receive_code(
        187, "tg", pay=pay, timeout=1, metadata=bad
    ),
    "wait_for_code order": lambda c, _, bad: c.wait_for_code(bad, timeout=1),
    "wait_for_code timeout": lambda c, order, bad: c.wait_for_code(order, timeout=bad),
    "wait_for_code poll_interval": lambda c, order, bad: c.wait_for_code(
        order, timeout=1, poll_interval=bad
    ),
    "watch_order order": lambda c, _, bad: c.watch_order(bad),
    "watch_order poll_interval": lambda c, order, bad: c.watch_order(order, poll_interval=bad),
    "open_order scheduler": lambda c, _, bad: c.open_order(187, "tg", scheduler=bad),
    "open_order minimum_age": lambda c, _, bad: c.open_order(187, "tg", minimum_age=bad),
    "open_order poll_interval": lambda c, _, bad: c.open_order(187, "tg", poll_interval=bad),
    "open_order metadata": lambda c, _, bad: c.open_order(187, "tg", metadata=bad).__aenter__(),
    "resume_order order": lambda c, _, bad: c.resume_order(bad),
    "resume_order scheduler": lambda c, order, bad: c.resume_order(order, scheduler=bad),
    "resume_order minimum_age": lambda c, order, bad: c.resume_order(order, minimum_age=bad),
    "resume_order poll_interval": lambda c, order, bad: c.resume_order(order, poll_interval=bad),
    "cancel_orders orders": lambda c, _, bad: c.cancel_orders(bad),
    "cancel_orders order": lambda c, _, bad: c.cancel_orders([bad]),
    "cancel_orders concurrency": lambda c, order, bad: c.cancel_orders([order], concurrency=bad),
    "advance_order order": lambda c, _, bad: c.advance_order(bad),
    "fund amount_sat": lambda c, _, bad: c.fund(bad),
    "OrderScheduler client": lambda _, __, bad: OrderScheduler(bad),
    "OrderScheduler concurrency": lambda c, _, bad: OrderScheduler(c, concurrency=bad),
    "OrderScheduler timeout": lambda c, _, bad: OrderScheduler(c, timeout=bad),
    "OrderScheduler.add order": lambda c, _, bad: OrderScheduler(c).add(bad),
    "OrderScheduler.add timeout": lambda c, order, bad: OrderScheduler(c).add(order, timeout=bad),
    "OrderScheduler.add not_before": lambda c, order, bad: OrderScheduler(c).add(
        order, not_before=bad
    ),
    "OrderScheduler.remove order": lambda c, _, bad: OrderScheduler(c).remove(bad),
    "Sms4SatsClient api_key": lambda _, __, bad: Sms4SatsClient(api_key=bad),
    "Sms4SatsClient base_url": lambda _, __, bad: Sms4SatsClient(base_url=bad),
    "Sms4SatsClient timeout": lambda _, __, bad: Sms4SatsClient(timeout=bad),
    "Sms4SatsClient retry": lambda _, __, bad: Sms4SatsClient(retry=bad),
    "Sms4SatsClient http_client": lambda _, __, bad: Sms4SatsClient(http_client=bad),
    "Sms4SatsClient clock": lambda _, __, bad: Sms4SatsClient(clock=bad),
    "Sms4SatsClient on_event": lambda _, __, bad: Sms4SatsClient(on_event=bad),
    "Sms4SatsClient journal": lambda _, __, bad: Sms4SatsClient(journal=bad),
    "RetryPolicy attempts": lambda _, __, bad: RetryPolicy(bad),
    "RetryPolicy initial_delay": lambda _, __, bad: RetryPolicy(initial_delay=bad),
    "RetryPolicy maximum_delay": lambda _, __, bad: RetryPolicy(maximum_delay=bad),
    "RetryPolicy multiplier": lambda _, __, bad: RetryPolicy(multiplier=bad),
    "RetryPolicy total_timeout": lambda _, __, bad: RetryPolicy(total_timeout=bad),
    "RetryPolicy retry_after_limit": lambda _, __, bad: RetryPolicy(retry_after_limit=bad),
    "MemoryJournal.history limit": lambda _, __, bad: MemoryJournal().history(limit=bad),
    "MemoryJournal.history since": lambda _, __, bad: MemoryJournal().history(since=bad),
    "MemoryJournal.prune before": lambda _, __, bad: MemoryJournal().prune(bad),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=[name.replace(" ", "-") for name in CALLS])
@pytest.mark.anyio
async def test_invalid_argument_of_a_call_is_refused_before_anything_is_sent(call: Call) -> None:
    it = Simulated(api_key="key")
    order = await it.order()
    sent = len(it.simulator.requests)

    async def make() -> None:
        answer = call(it.client, order, -1.5)
        if isinstance(answer, Awaitable):
            await answer

    with pytest.raises(InvalidArgumentError) as caught:
        await make()

    assert len(it.simulator.requests) == sent
    assert str(caught.value).endswith("Nothing was sent.")
    assert " must " in caught.value.problem
