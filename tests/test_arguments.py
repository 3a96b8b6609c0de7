"""Whether an argument can be meant, and what is said of one that cannot."""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from fractions import Fraction
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms4sats_async import _validate as arguments
from sms4sats_async.errors import InvalidArgumentError

# More digits than Python turns into text, so even to tell of it takes care.
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


# A time zone whose author wrote no `utcoffset`.
UNFINISHED_ZONE: tzinfo = type("UnfinishedZone", (tzinfo,), {})()


class Unspeakable:
    """A value that cannot even be shown."""

    def __repr__(self) -> str:
        raise KeyError


def nested(depth: int) -> list[object]:
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


def show(value: object) -> str:
    """A name for a case."""
    if value in (HUGE, -HUGE):
        return "huge" if value == HUGE else "-huge"
    return ascii(value)[:24]


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
def test_a_time_span_is_seconds_or_a_timedelta(value: object, expected: float) -> None:
    assert arguments.seconds("timeout", value) == expected


@pytest.mark.parametrize("value", NOT_SPANS, ids=show)
@pytest.mark.parametrize("check", [arguments.seconds, arguments.positive_seconds])
def test_what_is_no_time_span_is_refused_by_its_name(
    check: Callable[[str, object], float], value: object
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check("poll_interval", value)

    assert caught.value.problem.startswith("poll_interval must be ")


@pytest.mark.parametrize("value", [0, 0.0, -0.0, timedelta(0)])
def test_no_time_at_all_is_no_positive_span(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match="timeout must be more than 0 seconds"):
        arguments.positive_seconds("timeout", value)


def test_a_moment_however_short_is_a_positive_span() -> None:
    assert arguments.positive_seconds("timeout", 5e-324) == 5e-324
    assert arguments.positive_seconds("timeout", timedelta(microseconds=1)) == 1e-6


@attrs.frozen
class Spans:
    """A class that checks its fields as the library's own classes do."""

    any_span: float = attrs.field(
        default=0.0, converter=arguments.as_seconds, validator=arguments.check_seconds
    )
    longer: float | None = attrs.field(
        default=None,
        converter=arguments.as_optional_seconds,
        validator=arguments.check_positive_seconds,
    )


def test_a_field_that_holds_a_time_span_turns_a_timedelta_into_seconds() -> None:
    minute = timedelta(minutes=1)

    assert Spans(minute, minute) == Spans(60.0, 60.0)
    assert Spans(0, None) == Spans()


@pytest.mark.parametrize("value", NOT_SPANS, ids=show)
def test_a_field_refuses_what_is_no_time_span(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="any_span must be"):
        Spans(any_span=value)
    if value is not None:
        with pytest.raises(InvalidArgumentError, match="longer must be"):
            Spans(longer=value)


def test_a_field_that_may_not_be_0_refuses_0() -> None:
    with pytest.raises(InvalidArgumentError, match="longer must be more than 0"):
        Spans(longer=0)


# --- order ids ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["0123456789abcdef" * 4, "1", "SM-12/34 +&?#%", "ünï", "x" * 1024]
)
def test_any_printable_order_id_is_sent_as_it_is(value: str) -> None:
    assert arguments.order_id(value) == value


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("\n", "is empty"),
        ("\u3000", "is empty"),
        ("abc\n", "control character"),
        ("a\x00c", "control character"),
        ("abc\x7f", "control character"),
        ("\u202eabc", "control character"),
        ("\ud800", "control character"),
        ("abc\udfff", "control character"),
        ("x" * 1025, "of 1025 characters"),
        ("x" * 2_000_000, "of 2000000 characters"),
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
def test_what_cannot_be_an_order_id_is_refused_without_being_shown(
    value: object, told: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=told) as caught:
        arguments.order_id(value)

    assert "abc" not in str(caught.value)
    assert len(str(caught.value)) < 200


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
def test_an_aware_datetime_is_the_same_moment_in_utc(value: datetime) -> None:
    moment = arguments.aware("created_at", value)

    assert moment == value
    assert moment.tzinfo is UTC


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (datetime(2026, 11, 1), "has no time zone"),  # noqa: DTZ001 - that is the test
        (datetime.min, "has no time zone"),  # noqa: DTZ901
        (datetime.max, "has no time zone"),  # noqa: DTZ901
        *((edge, "outside the years") for edge in EDGES_OF_TIME),
        (datetime(2026, 11, 1, tzinfo=UNFINISHED_ZONE), ""),
        (datetime(2026, 11, 1, tzinfo=UTC).date(), "must be a datetime, not date"),
        (1_700_000_000, "must be a datetime, not int"),
        ("2026-11-01T00:00:00Z", "must be a datetime, not str"),
        (None, "must be a datetime, not NoneType"),
        (timedelta(minutes=2), "must be a datetime, not timedelta"),
    ],
)
def test_a_time_that_nobody_can_place_is_refused(value: object, told: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^created_at .*{told}"):
        arguments.aware("created_at", value)


# --- texts, countries, classes --------------------------------------------------------------------


def test_a_text_is_used_without_the_blanks_around_it() -> None:
    assert arguments.text("service", " tg\n") == "tg"


@pytest.mark.parametrize(
    "value",
    ["", " ", "\n\t", "t\ng", "tg\x00", "\ud800", "tg\udfff", None, 0, True, b"tg", [], {}, HUGE],
    ids=show,
)
def test_what_says_nothing_is_no_text(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match="service must be a printable text"):
        arguments.text("service", value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((0, 0), (187, 187), (999_999_999, 999_999_999), ("germany", "germany"), ("us", "us")),
        *((" germany ", "germany"), ("côte d'ivoire", "côte d'ivoire"), ("-1", "-1")),
        # A number that came as text, from an environment variable or a command line.
        *(("187", 187), (" 187\n", 187), ("0", 0), ("007", 7), ("9" * 9, 999_999_999)),
        # Of more digits than a country has, or of others than 0 to 9, it is a name nobody has.
        *(("9" * 10, "9" * 10), ("9" * 5000, "9" * 5000), ("\u0663", "\u0663"), ("²", "²")),
    ],
    ids=show,
)
def test_a_country_is_a_number_or_a_name(value: object, expected: object) -> None:
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
def test_what_is_no_country_is_refused(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match="country must be"):
        arguments.country(value)


def test_a_value_of_another_class_is_refused_by_both_names() -> None:
    assert arguments.instance("retry", 5, int) == 5
    with pytest.raises(InvalidArgumentError, match="retry must be a timedelta, not int"):
        arguments.instance("retry", 5, timedelta)


@pytest.mark.parametrize(
    "value",
    [None, 5, "pay", b"pay", [], HUGE, pytest.param(Unspeakable(), id="raises")],
    ids=show,
)
def test_what_cannot_be_called_is_no_function(value: object) -> None:
    arguments.function("pay", print)
    with pytest.raises(InvalidArgumentError, match="pay must be an async function, not"):
        arguments.function("pay", value)


@pytest.mark.parametrize(
    "value", ["mainnet", "Bitcoin", "", "b", None, 5, ["bitcoin"], HUGE], ids=show
)
def test_a_word_that_is_not_known_is_refused_with_those_that_are(value: object) -> None:
    arguments.one_of("network", "bitcoin", ("bitcoin", "testnet"))
    with pytest.raises(InvalidArgumentError, match="network must be one of bitcoin, testnet, not"):
        arguments.one_of("network", value, ("bitcoin", "testnet"))


# --- a message, its receiver, a referral, a hook, an amount ---------------------------------------


@pytest.mark.parametrize("value", ["x", "x" * 140, " hello ", "two\nlines", "ünï \U0001f600", "0"])
def test_a_message_is_sent_as_it_is(value: str) -> None:
    assert arguments.message(value) == value


@pytest.mark.parametrize(
    ("value", "told"),
    [
        *(("", "not empty"), (" \n", "not empty"), ("\u3000", "not empty")),
        *((it, "a text") for it in (None, 5, True, HUGE, math.nan, b"hello", ["hello"])),
        *(("x" * 141, "has 141 characters"), (" " * 140 + "x", "has 141 characters")),
        ("x" * 2_000_000, "has 2000000 characters"),
        # Half a surrogate pair is no character: it cannot be sent, and is the mark of a cut text.
        *(("\ud800", "character"), ("hello \udfff", "character"), ("\ud83d" * 140, "character")),
    ],
    ids=show,
)
def test_what_cannot_be_a_message_is_refused_without_being_shown(value: object, told: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^message .*{told}") as caught:
        arguments.message(value)

    assert "hello" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", ["+1234567", "+4915112345678", "+123456789012345"])
def test_a_phone_number_in_e164_is_used_as_it_is(value: str) -> None:
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
def test_what_is_no_phone_number_is_refused_without_being_shown(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match="phone must be in E") as caught:
        arguments.phone(value)

    assert "4915112345678" not in str(caught.value).replace("such as +4915112345678", "")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "value", ["me@example.com", "a.b_c+d-1@pay.example.co.uk", "Me@Example.COM", "1@2.3"]
)
def test_a_lightning_address_is_used_as_it_is(value: str) -> None:
    assert arguments.referral(value) == value


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "@", "me", "me@", "@example.com", "me@host", "me@.com", "me@example."),
        *("me@example..com", "me@me@example.com", "a b@example.com", "me@exa mple.com"),
        *(" me@example.com", "me@example.com ", "me@example.com\n", "me@example.com\x00"),
        *("me@example.com\r\nX: 1", "lnurl1dp68gurn8ghj7", "lightning:me@example.com"),
        # Letters beyond ASCII, of which two look like s and k to a careless comparison.
        *("mé@example.com", "me@exämple.com", "\ud800@example.com", "me@example.\ud800"),
        *("\u017f@example.com", "me@\u212a.com", "me@example.\u0131o", "\u0130@example.com"),
        *(None, 5, True, b"me@example.com", ["me@example.com"], HUGE, math.nan),
    ],
    ids=show,
)
def test_what_is_no_lightning_address_is_refused(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match="referral must be a Lightning address"):
        arguments.referral(value)


@pytest.mark.parametrize(
    "value",
    [
        *("https://me.example/hook", "http://me.example:8080/hook?secret=a%20b#c"),
        *("https://[2001:db8::1]/", "https://me:pw@me.example/"),
    ],
)
def test_an_absolute_url_is_called_back_as_it_is(value: str) -> None:
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
def test_what_is_no_absolute_url_is_not_called_back_and_not_shown(value: object) -> None:
    """Not shown, because a secret may stand in it: it is how the caller tells who calls."""
    with pytest.raises(InvalidArgumentError, match="webhook_url must be an absolute") as caught:
        arguments.webhook_url(value)

    assert "me.example" not in str(caught.value)


@pytest.mark.parametrize(
    "value", ["https:///hook", "https://?a", "https://#", "http://:80", "https://@/"]
)
def test_a_url_without_a_host_cannot_be_called_back(value: str) -> None:
    with pytest.raises(InvalidArgumentError, match="webhook_url must be an absolute"):
        arguments.webhook_url(value)


@pytest.mark.parametrize("value", [1, 1000, 21_000_000 * 10**8])
def test_an_amount_is_a_whole_number_of_satoshis(value: int) -> None:
    assert arguments.satoshis("amount", value) == value


@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, 21_000_000 * 10**8 + 1, HUGE, -HUGE, 1.0, 1.5, math.nan, math.inf, -math.inf),
        *(True, False, None, "1000", b"1000", "", [], [1000], 1000j, timedelta(1), Fraction(2)),
    ],
    ids=show,
)
def test_what_is_no_amount_is_refused_by_its_name(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match="max_price must be a whole number") as caught:
        arguments.satoshis("max_price", value)

    assert len(str(caught.value)) < 300


# --- the key --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["k", "0123456789abcdef" * 4, "!~-_.:/+="])
def test_a_key_of_visible_ascii_is_used_as_it_is(value: str) -> None:
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
def test_what_cannot_stand_in_a_header_is_no_key_and_is_not_shown(value: object) -> None:
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
        ("HTTPS://Host", "HTTPS://Host"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ("http://localhost", "http://localhost"),
        ("http://localhost:8080/", "http://localhost:8080"),
        ("http://sms.localhost", "http://sms.localhost"),
        ("http://LOCALHOST", "http://LOCALHOST"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.1.2.3", "http://127.1.2.3"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
@pytest.mark.parametrize("key_is_set", [True, False])
def test_a_root_is_kept_without_the_slash_at_its_end(
    value: str, expected: str, *, key_is_set: bool
) -> None:
    assert arguments.base_url(value, key_is_set=key_is_set) == expected


@pytest.mark.parametrize(
    "value",
    [
        "http://api2.sms4sats.com",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://notlocalhost",
        "http://128.0.0.1",
        "http://0.0.0.0",
        "http://192.168.0.1:8080",
        "http://[::2]",
        "http://[fe80::1]",
        # Another way to write a loopback address is not one that every resolver reads so.
        "http://127.1",
        "http://0x7f000001",
        "HTTP://example.com",
    ],
)
def test_a_key_goes_over_plain_http_to_this_machine_only(value: str) -> None:
    assert arguments.base_url(value, key_is_set=False) == value
    with pytest.raises(InvalidArgumentError, match="https only"):
        arguments.base_url(value, key_is_set=True)


NOT_ROOTS: dict[str, tuple[object, ...]] = {
    "must be an absolute": (
        *("", " ", "/", "host", "host:443", "//host", "ftp://host", "file:///x", "https:host"),
        *("https://", "https:///x", "https://:443", None, 5, True, b"https://host", []),
    ),
    "cannot be read": (
        *("https://host:0x1", "https://host:99999", "https://host:-1", "https://host:a"),
        *("https://[::1", "https://[nothing]", "https://ho\u2100st"),
    ),
    "that no URL can hold": (
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
    ("value", "told"),
    [(value, told) for told, values in NOT_ROOTS.items() for value in values],
)
def test_what_is_no_root_is_refused_with_the_reason(value: object, told: str) -> None:
    with pytest.raises(InvalidArgumentError, match=told) as caught:
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
def test_a_password_in_the_root_is_not_shown(value: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        arguments.base_url(value, key_is_set=False)

    assert "hunter2" not in str(caught.value)


# --- anything -------------------------------------------------------------------------------------

TEXTS = st.text(st.characters() | st.characters(categories=["Cs", "Cc", "Zs"]))
URLS = st.builds(
    "".join,
    st.lists(st.sampled_from(["http", "https", ":", "/", "//", "@", "[", "]", "::1", "?"]) | TEXTS),
)
# Texts that are nearly what is asked for.
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
        pytest.param(Unspeakable(), id="raises"),
        pytest.param(nested(9999), id="deep"),
        pytest.param([HUGE], id="digits"),
        pytest.param(HUGE, id="huge"),
        pytest.param(-HUGE, id="-huge"),
    ],
)
def test_what_cannot_even_be_shown_is_refused(
    check: Callable[[object], object], value: object
) -> None:
    with pytest.raises(InvalidArgumentError):
        check(value)


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@given(value=VALUES)
def test_any_value_is_either_used_or_refused_in_printable_words(
    check: Callable[[object], object], value: object
) -> None:
    """Whatever is passed, by whatever mistake, the caller meets one kind of error."""
    used = used_or_refused(check, value)

    if isinstance(used, Exception):
        assert isinstance(used, ValueError)
        assert str(used).isprintable()
    else:
        assert isinstance(used, float | int | str | datetime | timedelta)
        # What was let in can be let in again: a journal stores it and reads it back.
        assert check(used) == used
