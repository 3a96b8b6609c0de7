"""How an entry becomes a row of a database's table, and a row an entry.

A time is a whole number of microseconds, and whatever a database cannot store is JSON.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Final

import attrs

from sms4sats_async.models import OrderOutcome, OrderState, RequestOutcome

from .entry import JournalEntry

FIELDS: Final = tuple(field.name for field in attrs.fields(JournalEntry))
"""The columns, in the order of a row's values."""

LARGEST: Final = 2**63 - 1
"""The largest whole number that a database stores."""

DAMAGED: Final = "it is damaged; keep it, because it has order ids, and give another path"

_VALUES: Final = attrgetter(*FIELDS)


def row_of(entry: JournalEntry) -> list[Any]:
    """Return the values of an entry, as a database can hold them."""
    values: list[Any] = list(_VALUES(entry))
    for place in _TEXTS:
        values[place] = storable(values[place])
    for place, (encode, _) in _CODECS.items():
        if values[place] is not None:
            values[place] = encode(values[place])
    return values


def entry_of(row: Sequence[Any]) -> JournalEntry:
    """Return the entry of a row.

    Raises:
        ValueError: A value is not one that `row_of` returns.
    """
    values = list(row)
    try:
        for place, (_, decode) in _CODECS.items():
            if values[place] is not None:
                values[place] = decode(values[place])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(DAMAGED) from error
    return JournalEntry(*values)


def storable(value: object) -> object:
    """Return a value as a file can hold it: of half a character (JSON may bring one) a `?` stays.

    Without it a bad letter in an error text would cost the code that came with it.
    """
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode(errors="replace").decode()


def microseconds(moment: datetime) -> int:
    """Return a time as a whole number: a float rounds, and the last moments of 9999 up to none."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_OUTCOMES: Final = {each.value: each for each in (*OrderOutcome, *RequestOutcome)}

_Codec = tuple[Callable[[Any], object], Callable[[Any], object]]
_MOMENT: Final[_Codec] = (
    microseconds,
    lambda microseconds: _EPOCH + timedelta(microseconds=microseconds),
)
_SPAN: Final[_Codec] = (
    lambda span: min(span // timedelta(microseconds=1), LARGEST),
    lambda microseconds: timedelta(microseconds=microseconds),
)
_CODEC_OF: Final[Mapping[str, _Codec]] = {
    "created_at": _MOMENT,
    "number_seen_at": _MOMENT,
    "code_deadline": _MOMENT,
    "not_before": _MOMENT,
    "refused_at": _MOMENT,
    "finished_at": _MOMENT,
    "delivered_at": _MOMENT,
    "claimed_until": _MOMENT,
    "minimum_age": _SPAN,
    "metadata": (
        lambda notes: json.dumps(dict(notes)) if notes else "{}",
        lambda text: {} if text == "{}" else dict(json.loads(text)),
    ),
    "state": (lambda state: state.value, OrderState),
    "outcome": (lambda outcome: outcome.value, _OUTCOMES.__getitem__),
    "codes": (
        lambda codes: json.dumps(codes) if codes else "[]",
        lambda text: () if text == "[]" else tuple(json.loads(text)),
    ),
    "paid": (int, bool),
}
_CODECS: Final = {FIELDS.index(name): codec for name, codec in _CODEC_OF.items()}
"""How a value is written and read that SQLite cannot store as it is, by its column's position."""

_TEXTS: Final = tuple(place for place in range(len(FIELDS)) if place not in _CODECS)
"""The positions of the other columns, most of which are texts."""

MOMENTS: Final = tuple(place for place, codec in _CODECS.items() if codec is _MOMENT)
"""The positions of the times."""
