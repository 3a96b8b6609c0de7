"""Times, time spans and amounts, as people type them."""

import re
from datetime import datetime, timedelta
from typing import Final

import typer

_SPAN: Final = re.compile(r"(?=\d)(?:(\d{1,4})h)?(?:(\d{1,4})m)?(?:(\d{1,6})s)?", re.ASCII)


def span(text: str | timedelta) -> timedelta:
    """Return the time span that was typed, such as `90s`, `3m`, `2m30s` or `1h`.

    A default is a time span already.

    Raises:
        typer.BadParameter: The text is invalid; the message has an example.
    """
    if isinstance(text, timedelta):
        return text
    found = _SPAN.fullmatch(text.replace(" ", "").lower())
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a time span; write it like 90s, 3m or 2m30s.")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def moment(text: str) -> datetime:
    """Return the moment that was typed in ISO 8601, with its time zone.

    Raises:
        typer.BadParameter: The text is invalid, or has no time zone; the message has an example.
    """
    try:
        found = datetime.fromisoformat(text.strip())
        here = found.astimezone()
    # OverflowError: the first and the last day of the calendar do not exist in every zone.
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            f"{text!r} is not a date and time; write it like 2026-11-23T14:03:00Z."
        ) from error
    if found.tzinfo is None:
        raise typer.BadParameter(
            f"{text!r} has no time zone; write {found.isoformat()}Z if it is in UTC, or "
            f"{here.isoformat()} if it is the time of this machine."
        )
    return found


def satoshis(text: str) -> int:
    """Return the amount that was typed, such as `1500` or `1,500`.

    Raises:
        typer.BadParameter: The text is invalid; the message has an example.
    """
    digits = text.replace(",", "").replace("_", "")
    if not (digits.isascii() and digits.isdigit()):
        raise typer.BadParameter(f"{text!r} is not a number of satoshis; write it like 1500.")
    return int(digits)
