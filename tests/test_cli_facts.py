"""What people type at the command `sms4sats`, and what they read there."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
import typer

from sms4sats_async import OrderState, ReceiveOrder
from sms4sats_async.cli.facts import described, facts, in_json, in_words, local, order_facts
from sms4sats_async.cli.times import moment, satoshis, span

# --- what people type -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("3m", 180),
        ("2m30s", 150),
        ("2m 30s", 150),
        ("1h", 3600),
        ("1h5s", 3605),
        ("0s", 0),
        ("3M", 180),
        ("999999s", 999_999),
    ],
)
def test_a_time_span_is_read(text: str, seconds: int) -> None:
    assert span(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "90",
        "s",
        "m30s",
        "-3m",
        "3m2m",
        "30s2m",
        "1.5m",
        "3 minutes",
        "\N{ARABIC-INDIC DIGIT THREE}m",
        "1234567s",
    ],
)
def test_an_invalid_time_span_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write it like 90s, 3m or 2m30s"):
        span(text)


def test_a_default_is_a_time_span_already() -> None:
    assert span(timedelta(minutes=5)) == timedelta(minutes=5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-23T14:03:00Z", datetime(2026, 11, 23, 14, 3, tzinfo=UTC)),
        ("2026-11-23 14:03:00+00:00", datetime(2026, 11, 23, 14, 3, tzinfo=UTC)),
        (
            " 20261123T1403+0130 ",
            datetime(2026, 11, 23, 14, 3, tzinfo=timezone(timedelta(hours=1, minutes=30))),
        ),
    ],
    ids=["utc", "as-it-is-shown", "short"],
)
def test_a_time_is_read_with_its_zone(text: str, expected: datetime) -> None:
    assert moment(text) == expected


def test_a_time_without_a_zone_is_refused_with_both_readings() -> None:
    here = datetime(2026, 11, 23, 14, 3).astimezone().isoformat()

    with pytest.raises(typer.BadParameter, match="has no time zone") as refused:
        moment("2026-11-23T14:03")

    assert "write 2026-11-23T14:03:00Z if it is in UTC" in refused.value.message
    assert f"or {here} if it is the time of this machine" in refused.value.message


@pytest.mark.parametrize("text", ["", "now", "yesterday", "14:03", "23.11.2026", "0001-01-01"])
def test_an_invalid_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write it like 2026-11-23T14:03:00Z"):
        moment(text)


@pytest.mark.parametrize(("text", "amount"), [("1500", 1500), ("1,500", 1500), ("1_500", 1500)])
def test_an_amount_is_read(text: str, amount: int) -> None:
    assert satoshis(text) == amount


@pytest.mark.parametrize("text", ["", "x", "1.5", "-1", "1500 sat", "\N{ARABIC-INDIC DIGIT ONE}"])
def test_an_invalid_amount_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write it like 1500"):
        satoshis(text)


# --- what people read -----------------------------------------------------------------------------


@pytest.fixture
def _tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The local time is nine hours ahead of UTC."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_tokyo")
@pytest.mark.parametrize(
    ("moment", "words"),
    [
        (datetime(2026, 11, 23, 14, tzinfo=UTC), "2026-11-23 23:00:00+09:00"),
        (datetime.max.replace(tzinfo=UTC), "9999-12-31 23:59:59+00:00"),
    ],
    ids=["local-time", "beyond-the-calendar"],
)
def test_a_time_is_local_or_in_utc_beyond_the_calendar(moment: datetime, words: str) -> None:
    assert local(moment) == words


@pytest.mark.parametrize(
    ("fact", "name", "words"),
    [
        (None, "code", ""),
        (True, "visible", "yes"),
        (False, "visible", "no"),
        (1500, "price", "1,500 sat"),
        (1500, "count", "1500"),
        (OrderState.HELD, "state", "held"),
        ({"chat": "42", "user": "\x1b[2Jeve"}, "metadata", "chat: 42; user: �[2Jeve"),
        ("1234\x1b]0;owned\x07\r\nx\u202e", "code", "1234�]0;owned���x�"),
        ("half \ud800", "error", "half �"),
    ],
)
def test_a_fact_is_one_line_of_words(fact: object, name: str, words: str) -> None:
    assert in_words(fact, name) == words


def test_facts_have_labels_and_nested_facts_are_facts() -> None:
    known = {"amount_sat": 5, "computed": {"price": 7}, "metadata": {"money": "mine"}, "code": None}

    assert [*described(known)] == [
        ("to pay", "5 sat"),
        ("price", "7 sat"),
        ("metadata", "money: mine"),
    ]


def test_json_has_times_spans_and_states_as_text() -> None:
    known = {
        "at": datetime(2026, 11, 23, tzinfo=UTC),
        "age": timedelta(minutes=2),
        "state": OrderState.HELD,
        "error": ValueError("no"),
        "name": "я",
    }

    assert in_json(known) == (
        '{"at": "2026-11-23T00:00:00+00:00", "age": 120.0, "state": "held", "error": "no", '
        '"name": "\\u044f"}'
    )


def test_an_unreadable_invoice_has_no_amount() -> None:
    order = ReceiveOrder("f" * 64, "lnbc1x", datetime(2026, 11, 23, tzinfo=UTC), raw={"x": 1})

    known = order_facts(order)

    assert (known["amount_sat"], known["expires_at"]) == (None, None)
    assert "raw" not in facts(order)
