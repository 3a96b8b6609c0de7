"""Moments, time spans and amounts as people type them at the command `sms4sats`."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
import typer

from sms4sats_async.cli.times import local, moment, satoshis, span


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
def test_a_time_span_is_read_as_people_write_it(text: str, seconds: int) -> None:
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
def test_what_is_no_time_span_is_refused_with_an_example(text: str) -> None:
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
def test_a_moment_is_read_with_its_zone(text: str, expected: datetime) -> None:
    assert moment(text) == expected


def test_a_moment_without_a_zone_is_answered_with_what_to_write() -> None:
    """A guess would be hours wrong, and the cancel with it."""
    here = datetime(2026, 11, 23, 14, 3).astimezone().isoformat()

    with pytest.raises(typer.BadParameter, match="names no time zone") as refused:
        moment("2026-11-23T14:03")

    assert "write 2026-11-23T14:03:00Z if it is in UTC" in refused.value.message
    assert f"or {here} if it is the time of this machine" in refused.value.message


@pytest.mark.parametrize("text", ["", "now", "yesterday", "14:03", "23.11.2026", "0001-01-01"])
def test_what_is_no_moment_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write it like 2026-11-23T14:03:00Z"):
        moment(text)


@pytest.mark.parametrize(("text", "amount"), [("1500", 1500), ("1,500", 1500), ("1_500", 1500)])
def test_an_amount_is_read_as_people_write_it(text: str, amount: int) -> None:
    assert satoshis(text) == amount


@pytest.mark.parametrize("text", ["", "x", "1.5", "-1", "1500 sat", "\N{ARABIC-INDIC DIGIT ONE}"])
def test_what_is_no_amount_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write it like 1500"):
        satoshis(text)


@pytest.fixture
def _tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The local time is nine hours ahead of UTC."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_tokyo")
def test_a_time_is_shown_in_the_local_zone() -> None:
    assert local(datetime(2026, 11, 23, 14, tzinfo=UTC)) == "2026-11-23 23:00:00+09:00"


@pytest.mark.usefixtures("_tokyo")
def test_a_time_beyond_the_local_calendar_is_shown_in_utc() -> None:
    assert local(datetime.max.replace(tzinfo=UTC)) == "9999-12-31 23:59:59+00:00"
