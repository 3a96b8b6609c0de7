"""Whether an argument can be meant: each check returns the value as the library uses it.

Everything here raises `InvalidArgumentError` and nothing else, before anything is sent.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import urlsplit

from ._redact import show
from .errors import InvalidArgumentError

if TYPE_CHECKING:
    import attrs

T = TypeVar("T")

_LONGEST_COUNTRY: Final = 9  # digits
_LONGEST_MESSAGE: Final = 140
_LARGEST_METADATA: Final = 4096  # bytes
_ALL_SATOSHIS: Final = 21_000_000 * 100_000_000
_E164: Final = re.compile(r"\+[1-9][0-9]{6,14}")
_LIGHTNING_ADDRESS: Final = re.compile(
    r"[a-z0-9._+-]+@[a-z0-9-]+(\.[a-z0-9-]+)+", re.ASCII | re.IGNORECASE
)
_WEBHOOK_URL: Final = re.compile(r"https?://(?![/?#:@])[!-~]+")
_LARGEST_COUNTRY: Final = 999_999_999
_NEVER_IN_A_URL: Final = frozenset('\\^|<>{}"`')
_LONGEST_ORDER_ID: Final = 1024


def seconds(name: str, value: object) -> float:
    """Return a time span as seconds; it must be a finite number or a timedelta, not negative."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        problem = f"{name} must be a number of seconds or a timedelta, not {show(value)}"
        raise InvalidArgumentError(problem)
    try:
        span = float(value)
    except OverflowError:
        span = math.inf
    if not math.isfinite(span) or span < 0:
        problem = f"{name} must be a finite time span of at least 0 seconds, not {span!r}"
        raise InvalidArgumentError(problem)
    return span


def positive_seconds(name: str, value: object) -> float:
    """Return a time span as seconds; 0 would leave no time for anything."""
    span = seconds(name, value)
    if span == 0:
        problem = f"{name} must be more than 0 seconds"
        raise InvalidArgumentError(problem)
    return span


def as_seconds(value: float | timedelta) -> float:
    """Turn a timedelta into seconds, for attrs: the validator that follows does the checking."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def as_optional_seconds(value: float | timedelta | None) -> float | None:
    """Do as `as_seconds` does; None stays None."""
    return None if value is None else as_seconds(value)


def check_seconds(_instance: object, attribute: "attrs.Attribute[Any]", value: float) -> None:
    """Validate an attrs field that holds a time span."""
    seconds(attribute.name, value)


def check_positive_seconds(
    _instance: object, attribute: "attrs.Attribute[Any]", value: float | None
) -> None:
    """Validate an attrs field that holds a time span which may not be 0, or None."""
    if value is not None:
        positive_seconds(attribute.name, value)


def instance(name: str, value: object, kind: type[T]) -> T:
    """Return a value of the class that belongs here."""
    if not isinstance(value, kind):
        problem = f"{name} must be a {kind.__name__}, not {type(value).__name__}"
        raise InvalidArgumentError(problem)
    return value


def function(name: str, value: object) -> None:
    """Refuse what cannot be called."""
    if not callable(value):
        problem = f"{name} must be a function, async or not, not {show(value)}"
        raise InvalidArgumentError(problem)


def journal(name: str, value: T) -> T:
    """Return a journal; a path, which is easily taken for one, is refused."""
    if not callable(getattr(value, "update", None)):
        problem = f"{name} must be a journal, such as SqliteJournal(path), not {show(value)}"
        raise InvalidArgumentError(problem)
    return value


def one_of(name: str, value: object, known: Iterable[str]) -> None:
    """Refuse a word that is not one of those known."""
    if not isinstance(value, str) or value not in known:
        problem = f"{name} must be one of {', '.join(known)}, not {show(value)}"
        raise InvalidArgumentError(problem)


def text(name: str, value: object) -> str:
    """Return a text that says something, without the blanks around it."""
    if not isinstance(value, str) or not value.strip() or not value.strip().isprintable():
        problem = f"{name} must be a printable text that is not empty, not {show(value)}"
        raise InvalidArgumentError(problem)
    return value.strip()


def message(value: object) -> str:
    """Return a message that fits: at most 140 characters (documented)."""
    if not isinstance(value, str) or not value.strip():
        problem = "message must be a text that is not empty"
        raise InvalidArgumentError(problem)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        problem = "message holds half a character (a lone surrogate); check how it was read"
        raise InvalidArgumentError(problem) from error
    if len(value) > _LONGEST_MESSAGE:
        problem = f"message has {len(value)} characters; the service takes {_LONGEST_MESSAGE}"
        raise InvalidArgumentError(problem)
    return value


def metadata(value: object) -> dict[str, str]:
    """Return a copy of the caller's notes: at most 4 KiB as compact JSON in UTF-8."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        problem = f"metadata must be a mapping of str to str, not {type(value).__name__}"
        raise InvalidArgumentError(problem)
    notes: dict[str, str] = {}
    for name, note in cast("Mapping[object, object]", value).items():
        if not isinstance(name, str) or not isinstance(note, str):
            problem = "metadata must be a mapping of str to str"
            raise InvalidArgumentError(problem)
        notes[name] = note
    try:
        size = len(json.dumps(notes, ensure_ascii=False, separators=(",", ":")).encode())
    except UnicodeEncodeError as error:
        problem = "metadata has half a character (a lone surrogate)"
        raise InvalidArgumentError(problem) from error
    if size > _LARGEST_METADATA:
        problem = f"metadata has {size} bytes as JSON, more than {_LARGEST_METADATA}"
        raise InvalidArgumentError(problem)
    return notes


def phone(value: object) -> str:
    """Return a phone number in E.164 (documented): `+`, then at most 15 digits."""
    if not isinstance(value, str) or _E164.fullmatch(value) is None:
        problem = "phone must be in E.164: + and 7 to 15 digits, such as +4915112345678"
        raise InvalidArgumentError(problem)
    return value


def referral(value: object) -> str:
    """Return a Lightning address (LUD-16): it looks like an e-mail address."""
    if not isinstance(value, str) or _LIGHTNING_ADDRESS.fullmatch(value) is None:
        problem = "referral must be a Lightning address, such as name@example.com"
        raise InvalidArgumentError(problem)
    return value


def webhook_url(value: object) -> str:
    """Return the absolute http(s) URL that the service is to call."""
    if not isinstance(value, str) or _WEBHOOK_URL.fullmatch(value) is None:
        problem = "webhook_url must be an absolute http:// or https:// URL"
        raise InvalidArgumentError(problem)
    return value


def satoshis(name: str, value: object) -> int:
    """Return an amount of at least 1 satoshi, and at most all that there are."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _ALL_SATOSHIS:
        problem = f"{name} must be a whole number of satoshis, at least 1, not {show(value)}"
        raise InvalidArgumentError(problem)
    return value


def country(value: object) -> int | str:
    """Return a country as its number, also where that came as text, or as its name."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= _LARGEST_COUNTRY:
            problem = f"country must be a number of the service's list, not {show(value)}"
            raise InvalidArgumentError(problem)
        return value
    name = text("country", value)
    is_number = name.isascii() and name.isdigit() and len(name) <= _LONGEST_COUNTRY
    return int(name) if is_number else name


def order_id(value: object) -> str:
    """Return an order id that can be sent.

    The documentation shows 64 hex digits and calls it a string, so any printable text is sent as
    it is and the service decides.
    """
    if not isinstance(value, str):
        problem = f"an order id is a str, or an order that has one, not {type(value).__name__}"
        raise InvalidArgumentError(problem)
    if not value.strip():
        problem = "the order id is empty; pass the order_id that create_order() returned"
        raise InvalidArgumentError(problem)
    if len(value) > _LONGEST_ORDER_ID:
        problem = f"an order id of {len(value)} characters cannot be one"
        raise InvalidArgumentError(problem)
    # A control character or half a surrogate pair is the mark of a read error, never of an id.
    if not value.isprintable():
        problem = "the order id holds a control character; strip line ends and check its source"
        raise InvalidArgumentError(problem)
    return value


def aware(name: str, value: object) -> datetime:
    """Return a datetime that says its time zone."""
    if not isinstance(value, datetime):
        problem = f"{name} must be a datetime, not {type(value).__name__}"
        raise InvalidArgumentError(problem)
    if value.tzinfo is UTC:  # nearly always, and ten thousand orders may be armed in one breath
        return value
    no_zone = f"{name} has no time zone; use datetime.now(UTC) or .astimezone()"
    try:
        if value.utcoffset() is None:
            raise InvalidArgumentError(no_zone)
        return value.astimezone(UTC)
    except NotImplementedError as error:  # a bare tzinfo()
        raise InvalidArgumentError(no_zone) from error
    except OverflowError as error:
        problem = f"{name} lies outside the years that a datetime can hold"
        raise InvalidArgumentError(problem) from error


def path(name: str, value: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a file."""
    text: object = None
    with suppress(TypeError):
        text = os.fspath(value)
    if not isinstance(text, str) or not text:
        problem = f"{name} must be the path of a file as text, not {show(value)}"
        raise InvalidArgumentError(problem)
    try:
        # Half a character, or a NUL, is in no file's name; only opening the file would show it.
        is_possible = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        problem = f"{name} has a character that no file's name can have: {show(value)}"
        raise InvalidArgumentError(problem)
    return Path(text).absolute()


def several(name: str, values: object) -> None:
    """Refuse what is not several values; a text is one value and not many letters."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        problem = f"{name} must be a list or another iterable, not {type(values).__name__}"
        raise InvalidArgumentError(problem)


def whole_number(name: str, value: object, *, least: int) -> int:
    """Return a whole number that is not too small."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        problem = f"{name} must be a whole number, at least {least}, not {show(value)}"
        raise InvalidArgumentError(problem)
    return value


def api_key(value: object) -> str:
    """Return an API key that can stand in a header."""
    if not isinstance(value, str):
        problem = f"api_key must be a str, not {type(value).__name__}"
        raise InvalidArgumentError(problem)
    # RFC 9110, 5.5: a field value is visible ASCII here; a line end would start another header.
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        problem = (
            "api_key must be printable ASCII without blanks or line ends; strip it where it is "
            "read, or leave it out for calls that need none"
        )
        raise InvalidArgumentError(problem)
    return value


def base_url(value: object, *, key_is_set: bool) -> str:
    """Return an absolute http(s) root without a slash at its end.

    Plain http is for a simulator on this machine: elsewhere it would show the key to everyone on
    the way.
    """
    wanted = "base_url must be an absolute http:// or https:// URL such as https://host"
    if not isinstance(value, str):
        problem = f"{wanted}, not {type(value).__name__}"
        raise InvalidArgumentError(problem)
    try:
        parts = urlsplit(value)
        host, _port = parts.hostname, parts.port
    except ValueError:
        problem = f"{wanted}; this one cannot be read"
        # Without the cause: it quotes the URL, and a password in it.
        raise InvalidArgumentError(problem) from None
    if parts.scheme not in {"http", "https"} or not host:
        problem = wanted
        raise InvalidArgumentError(problem)
    if not value.isprintable() or value.split() != [value]:
        problem = f"{wanted}; this one holds a blank or a control character"
        raise InvalidArgumentError(problem)
    if not _NEVER_IN_A_URL.isdisjoint(value):
        problem = f"{wanted}; this one holds a character that no URL can hold"
        raise InvalidArgumentError(problem)
    if parts.username is not None or parts.password is not None:
        problem = "base_url may not hold a user name or password; pass the key as api_key"
        raise InvalidArgumentError(problem)
    if "?" in value or "#" in value:
        problem = "base_url may not have a query or a fragment"
        raise InvalidArgumentError(problem)
    if key_is_set and parts.scheme == "http" and not is_loopback(host):
        problem = "an API key goes over https only, or to this machine; use an https:// base_url"
        raise InvalidArgumentError(problem)
    return value.rstrip("/")


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, by its name or its address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
