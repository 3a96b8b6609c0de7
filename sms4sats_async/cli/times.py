"""Times, time spans and amounts, as people type and read them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import typer

_SPAN: Final = re.compile(r"(?=\d)(?:(\d{1,4})h)?(?:(\d{1,4})m)?(?:(\d{1,6})s)?", re.ASCII)


def local(moment: datetime) -> str:
    """Return a time in this machine's time zone, or in UTC where that zone has no such time."""
    try:
        moment = moment.astimezone()
    except (OverflowError, ValueError, OSError):
        moment = moment.astimezone(UTC)
    return moment.isoformat(sep=" ", timespec="seconds")


def printable(text: str) -> str:
    """Return a foreign text on one line, without control characters that move the cursor."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def span(text: str | timedelta) -> timedelta:
    """Return the time span that was typed, such as `90s`, `3m`, `2m30s` or `1h`.

    A default comes this way too, and is a time span already.

    Raises:
        typer.BadParameter: It is none, with a sentence that says how one is written.
    """
    if isinstance(text, timedelta):
        return text
    found = _SPAN.fullmatch(text.replace(" ", "").lower())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no time span; write it like 90s, 3m or 2m30s.")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def moment(text: str) -> datetime:
    """Return the moment that was typed in ISO 8601, with its time zone.

    Raises:
        typer.BadParameter: It is none, or names no zone; a sentence says what to write.
    """
    try:
        found = datetime.fromisoformat(text.strip())
        here = found.astimezone()
    # OverflowError: the first and the last day that a datetime knows have no time everywhere.
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            f"{text!r} is no date and time; write it like 2026-11-23T14:03:00Z."
        ) from error
    if found.tzinfo is None:
        raise typer.BadParameter(
            f"{text!r} names no time zone; write {found.isoformat()}Z if it is in UTC, or "
            f"{here.isoformat()} if it is the time of this machine."
        )
    return found


def satoshis(text: str) -> int:
    """Return the amount that was typed, such as `1500` or `1,500`.

    Raises:
        typer.BadParameter: It is none, with a sentence that says how one is written.
    """
    digits = text.replace(",", "").replace("_", "")
    if not (digits.isascii() and digits.isdigit()):
        raise typer.BadParameter(f"{text!r} is no number of satoshis; write it like 1500.")
    return int(digits)
