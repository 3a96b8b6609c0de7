"""Validate arguments. Each function returns the value as the library uses it.

All raise `InvalidArgumentError` and nothing else, before anything is sent.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from inspect import iscoroutine, iscoroutinefunction
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import urlsplit

from ._redact import show
from .errors import InvalidArgumentError
from .models import Order

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
_LARGEST_COUNT: Final = 1_000_000_000
_LARGEST_COUNTRY: Final = 999_999_999
_NEVER_IN_A_URL: Final = frozenset('\\^|<>{}"`')
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_LONGEST_ORDER_ID: Final = 1024


def seconds(name: str, value: object) -> float:
    """Return a time span as seconds: a number or a timedelta, finite and not negative."""
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
        problem = f"{name} must be at least 0 seconds and finite, not {span!r}"
        raise InvalidArgumentError(problem)
    return span


def positive_seconds(name: str, value: object) -> float:
    """Return a time span as seconds; it must be longer than 0."""
    span = seconds(name, value)
    if span == 0:
        problem = f"{name} must be more than 0 seconds"
        raise InvalidArgumentError(problem)
    return span


def as_seconds(value: float | timedelta) -> float:
    """Convert a timedelta to seconds, for attrs. Its validator checks the value afterwards."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def as_optional_seconds(value: float | timedelta | None) -> float | None:
    """Convert a timedelta to seconds; None stays None."""
    return None if value is None else as_seconds(value)


def check_seconds(_instance: object, attribute: "attrs.Attribute[Any]", value: float) -> None:
    """Validate an attrs field that holds a time span."""
    seconds(attribute.name, value)


def check_positive_seconds(
    _instance: object, attribute: "attrs.Attribute[Any]", value: float | None
) -> None:
    """Validate an attrs field that holds None or a time span longer than 0."""
    if value is not None:
        positive_seconds(attribute.name, value)


def instance(name: str, value: object, kind: type[T]) -> T:
    """Return a value of this class."""
    if not isinstance(value, kind):
        problem = f"{name} must be a {kind.__name__}, not {type(value).__name__}"
        raise InvalidArgumentError(problem)
    return value


def function(name: str, value: object) -> None:
    """Refuse a value that is not callable."""
    if not callable(value):
        problem = f"{name} must be a function, sync or async, not {show(value)}"
        raise InvalidArgumentError(problem)


def listener(value: object) -> None:
    """Refuse a value that cannot be called as `on_event`; nothing awaits an async one."""
    call = getattr(value, "__call__", None)  # noqa: B004 - an object may have an async one
    if not callable(value) or iscoroutinefunction(value) or iscoroutinefunction(call):
        problem = f"on_event must be a sync function, not {show(value)}"
        raise InvalidArgumentError(problem)


def journal(name: str, value: T) -> T:
    """Return a journal. A path, which is easily passed by mistake, is refused."""
    if not has_methods(value, "update", "pending", "undelivered", "get"):
        problem = f"{name} must be a journal, such as SqliteJournal(path), not {show(value)}"
        raise InvalidArgumentError(problem)
    return value


def has_methods(value: object, *names: str) -> bool:
    """Return whether a value has all these methods."""
    return all(callable(getattr(value, name, None)) for name in names)


def clock(value: T) -> T:
    """Return a clock."""
    if not has_methods(value, "now", "monotonic", "sleep"):
        problem = f"clock must have now(), monotonic() and sleep(), not {show(value)}"
        raise InvalidArgumentError(problem)
    return value


def scheduler(value: T) -> T:
    """Return a scheduler, or None."""
    if value is not None and not has_methods(value, "add"):
        problem = (
            f"scheduler must be a scheduler, such as OrderScheduler(client), not {show(value)}"
        )
        raise InvalidArgumentError(problem)
    return value


def flag(name: str, value: object) -> bool:
    """Return True or False; the text "false" of an environment variable is neither."""
    if not isinstance(value, bool):
        problem = f"{name} must be True or False, not {show(value)}"
        raise InvalidArgumentError(problem)
    return value


def one_of(name: str, value: object, known: Iterable[str]) -> None:
    """Refuse a value that is not one of the known words."""
    if not isinstance(value, str) or value not in known:
        problem = f"{name} must be one of {', '.join(known)}, not {show(value)}"
        raise InvalidArgumentError(problem)


def text(name: str, value: object) -> str:
    """Return text without surrounding blanks; it must be printable and not empty."""
    if not isinstance(value, str) or not value.strip() or not value.strip().isprintable():
        problem = f"{name} must be printable text and not empty, not {show(value)}"
        raise InvalidArgumentError(problem)
    return value.strip()


def message(value: object) -> str:
    """Return a message of at most 140 characters (documented)."""
    if not isinstance(value, str) or not value.strip():
        problem = "message must be text and not empty"
        raise InvalidArgumentError(problem)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        problem = "message must not have a lone surrogate; check how the text was decoded"
        raise InvalidArgumentError(problem) from error
    if len(value) > _LONGEST_MESSAGE:
        problem = f"message must have at most {_LONGEST_MESSAGE} characters, not {len(value)}"
        raise InvalidArgumentError(problem)
    return value


def metadata(value: object) -> dict[str, str]:
    """Return a copy of the metadata: at most 4 KiB as compact JSON in UTF-8."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        problem = f"metadata must be a mapping of str to str, not {type(value).__name__}"
        raise InvalidArgumentError(problem)
    notes: dict[str, str] = {}
    for name, note in cast("Mapping[object, object]", value).items():
        if not isinstance(name, str) or not isinstance(note, str):
            problem = "metadata must have only str as names and values"
            raise InvalidArgumentError(problem)
        notes[name] = note
    try:
        size = len(json.dumps(notes, ensure_ascii=False, separators=(",", ":")).encode())
    except UnicodeEncodeError as error:
        problem = "metadata must not have a lone surrogate; check how the text was decoded"
        raise InvalidArgumentError(problem) from error
    if size > _LARGEST_METADATA:
        problem = f"metadata must have at most {_LARGEST_METADATA} bytes as JSON, not {size}"
        raise InvalidArgumentError(problem)
    return notes


def phone(value: object) -> str:
    """Return a phone number in E.164 (documented): `+`, then at most 15 digits."""
    if not isinstance(value, str) or _E164.fullmatch(value) is None:
        problem = "phone must be in E.164: + and 7 to 15 digits, such as +4915112345678"
        raise InvalidArgumentError(problem)
    return value


def referral(value: object) -> str:
    """Return a Lightning address (LUD-16), which looks like an e-mail address."""
    if not isinstance(value, str) or _LIGHTNING_ADDRESS.fullmatch(value) is None:
        problem = "referral must be a Lightning address, such as name@example.com"
        raise InvalidArgumentError(problem)
    return value


def webhook_url(value: object) -> str:
    """Return the absolute http(s) URL that the service will call."""
    if not isinstance(value, str) or _WEBHOOK_URL.fullmatch(value) is None:
        problem = "webhook_url must be an absolute http:// or https:// URL"
        raise InvalidArgumentError(problem)
    return value


def satoshis(name: str, value: object, *, least: int = 1) -> int:
    """Return an amount from `least` to all the satoshis that can exist."""
    in_range = isinstance(value, int) and least <= value <= _ALL_SATOSHIS
    if isinstance(value, bool) or not isinstance(value, int) or not in_range:
        allowed = f"a whole number of satoshis from {least} to {_ALL_SATOSHIS}"
        problem = f"{name} must be {allowed}, not {show(value)}"
        raise InvalidArgumentError(problem)
    return value


def country(value: object) -> int | str:
    """Return a country as its number, which may be given as text, or as its name."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= _LARGEST_COUNTRY:
            problem = f"country must be from 0 to {_LARGEST_COUNTRY}, not {show(value)}"
            raise InvalidArgumentError(problem)
        return value
    name = text("country", value)
    is_number = name.isascii() and name.isdigit() and len(name) <= _LONGEST_COUNTRY
    return int(name) if is_number else name


def order_id(value: object) -> str:
    """Return the ID of an order, or an order ID that can be sent.

    It is documented as a string, with examples of 64 hex digits. So any printable text is sent
    unchanged, and the service decides.
    """
    if isinstance(value, Order):
        value = value.order_id
    if not isinstance(value, str):
        problem = f"the order ID must be a str, or an order, not {type(value).__name__}"
        if iscoroutine(value):
            problem += "; is an `await` missing?"
        raise InvalidArgumentError(problem)
    if not value.strip():
        problem = "the order ID must not be empty; pass the order that create_order() returned"
        raise InvalidArgumentError(problem)
    if len(value) > _LONGEST_ORDER_ID:
        problem = f"the order ID must have at most {_LONGEST_ORDER_ID} characters, not {len(value)}"
        raise InvalidArgumentError(problem)
    # A control character or a lone surrogate comes from a reading error, never from an ID.
    if not value.isprintable():
        problem = (
            "the order ID must not have control characters; strip line ends and check its source"
        )
        raise InvalidArgumentError(problem)
    return value


def aware(name: str, value: object) -> datetime:
    """Return an aware datetime, in UTC."""
    if not isinstance(value, datetime):
        problem = f"{name} must be a datetime, not {type(value).__name__}"
        raise InvalidArgumentError(problem)
    if value.tzinfo is UTC:  # nearly always, and a scheduler may add thousands of orders at once
        return value
    no_zone = f"{name} must have a time zone; use datetime.now(UTC) or .astimezone()"
    try:
        if value.utcoffset() is None:
            raise InvalidArgumentError(no_zone)
        return value.astimezone(UTC)
    except NotImplementedError as error:  # a bare tzinfo()
        raise InvalidArgumentError(no_zone) from error
    except OverflowError as error:
        problem = f"{name} must be between the years 1 and 9999 in UTC"
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
        # No file name has these characters, but only opening the file would show it.
        is_possible = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        problem = f"{name} must not have a NUL or a lone surrogate, not {show(value)}"
        raise InvalidArgumentError(problem)
    if text.endswith(("/", os.sep)):
        # A file of that name could be beside the volume that was meant, and be lost with it.
        problem = f"{name} must be the path of a file, not a folder such as {show(value)}"
        raise InvalidArgumentError(problem)
    try:
        return Path(text).absolute()
    except OSError as error:
        problem = f"{name} must be absolute, because the working folder was removed"
        raise InvalidArgumentError(problem) from error


def several(name: str, values: object) -> None:
    """Refuse a value that is not iterable; text is one value, not many letters."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        problem = f"{name} must be a list or another iterable, not {type(values).__name__}"
        raise InvalidArgumentError(problem)


def whole_number(name: str, value: object, *, least: int) -> int:
    """Return a whole number from `least` to a billion, which databases can store."""
    in_range = isinstance(value, int) and least <= value <= _LARGEST_COUNT
    if isinstance(value, bool) or not isinstance(value, int) or not in_range:
        problem = (
            f"{name} must be a whole number from {least} to {_LARGEST_COUNT}, not {show(value)}"
        )
        raise InvalidArgumentError(problem)
    return value


def api_key(value: object) -> str:
    """Return an API key that a header can have."""
    if not isinstance(value, str):
        problem = f"api_key must be a str, not {type(value).__name__}"
        raise InvalidArgumentError(problem)
    # RFC 9110, 5.5: a field value is visible ASCII here; a line end would start another header.
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        problem = (
            "api_key must be printable ASCII without blanks or line ends, and not empty; strip it "
            "where it is read, or pass none for calls that need none"
        )
        raise InvalidArgumentError(problem)
    return value


def base_url(value: object, *, key_is_set: bool, name: str = "base_url") -> str:
    """Return an absolute http(s) root in one form: the journal tells services apart by it.

    Scheme and host are in lower case, and a default port or a slash at the end is removed. With a
    key, plain http is only allowed to this machine: the network could read the key.
    """
    wanted = f"{name} must be an absolute http:// or https:// URL such as https://host"
    if not isinstance(value, str):
        problem = f"{wanted}, not {type(value).__name__}"
        raise InvalidArgumentError(problem)
    try:
        parts = urlsplit(value)
        host, _port = parts.hostname, parts.port
    except ValueError:
        problem = f"{wanted}; this one is unreadable"
        # Without the cause, which quotes the URL and a password in it.
        raise InvalidArgumentError(problem) from None
    if parts.scheme not in {"http", "https"} or not host:
        problem = wanted
        raise InvalidArgumentError(problem)
    if not value.isprintable() or value.split() != [value]:
        problem = f"{wanted}; this one has a blank or a control character"
        raise InvalidArgumentError(problem)
    if not _NEVER_IN_A_URL.isdisjoint(value):
        problem = f"{wanted}; this one has a character that a URL cannot have"
        raise InvalidArgumentError(problem)
    if parts.username is not None or parts.password is not None:
        problem = f"{name} must not have a user name or password; pass the key as an argument"
        raise InvalidArgumentError(problem)
    if "?" in value or "#" in value:
        problem = f"{name} must not have a query or a fragment"
        raise InvalidArgumentError(problem)
    if key_is_set and parts.scheme == "http" and not is_loopback(host):
        problem = (
            f"{name} must be https:// if there is an API key or another credential, except on this "
            "machine"
        )
        raise InvalidArgumentError(problem)
    address = parts.netloc.lower().removesuffix(_DEFAULT_PORTS[parts.scheme]).removesuffix(":")
    return f"{parts.scheme}://{address}{parts.path}".rstrip("/")


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, by its name or its address.

    A name below `localhost` is not: RFC 6761 keeps it on this machine, but not every resolver does.
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
