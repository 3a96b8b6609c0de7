"""How an entry becomes a row of a database's table, and a row an entry.

A time is a whole number of microseconds, and whatever a database cannot store is JSON.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from types import NoneType
from typing import Any, Final, TypeVar

import attrs

from sms4sats_async._redact import mask
from sms4sats_async.models import OrderOutcome, OrderState, RequestOutcome

from .entry import JournalEntry

Row = TypeVar("Row")

_LOGGER: Final = logging.getLogger("sms4sats_async.journal")

FIELDS: Final = tuple(field.name for field in attrs.fields(JournalEntry))
"""The columns, in the order of a row's values."""

LARGEST: Final = 2**63 - 1
"""The largest whole number that a database stores."""

PENDING: Final = "order_id IS NOT NULL AND finished_at IS NULL"
"""In SQL, whether an entry is `pending`."""

UNDELIVERED: Final = "order_id IS NOT NULL AND finished_at IS NOT NULL AND delivered_at IS NULL"
"""In SQL, whether an entry is `undelivered`."""

PRUNED_FROM: Final = (
    "CASE WHEN order_id IS NULL THEN created_at WHEN delivered_at IS NOT NULL THEN finished_at END"
)
"""In SQL, the time after which an entry may be pruned; NULL: never."""

DAMAGED: Final = "it is damaged; keep it, because it has order IDs, and give another path"

_VALUES: Final = attrgetter(*FIELDS)


class DamagedRowError(ValueError):
    """If a row cannot be read.

    Args:
        row: Its number, if it has one.
        order_id: What it has as the order's ID.
    """

    def __init__(self, row: int | None, order_id: object) -> None:
        number = "a row" if row is None else f"row {row}"
        order = f" (order {mask(order_id)})" if isinstance(order_id, str) else ""
        super().__init__(
            f"{number} of the table `orders`{order} is damaged and is left as it is; no scheduler "
            "drives that order, and the service refunds it automatically after 21 minutes; keep "
            "the journal, because the row has the order's ID"
        )


def row_of(entry: JournalEntry) -> list[Any]:
    """Return the values of an entry, as a database can hold them."""
    values: list[Any] = list(_VALUES(entry))
    for place in _TEXTS:
        values[place] = storable(values[place])
    for place, (encode, _) in _CODECS.items():
        if values[place] is not None:
            values[place] = encode(values[place])
    return values


def entry_of(row: Sequence[Any], number: int | None = None) -> JournalEntry:
    """Return the entry of a row.

    Args:
        row: The values, as `row_of` returns them.
        number: The number of the row, for an error.

    Raises:
        DamagedRowError: A value is not one that `row_of` returns.
    """
    values = list(row)
    cause: Exception | None = None
    try:
        for place, (_, decode) in _CODECS.items():
            if values[place] is not None:
                values[place] = decode(values[place])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        cause = error
    if cause or not all(isinstance(values[place], kinds) for place, kinds in _KINDS.items()):
        raise DamagedRowError(number, values[_ORDER_ID]) from cause
    return JournalEntry(*values)


def readable(
    rows: Iterable[Row], read: Callable[[Row], JournalEntry], journal: object
) -> list[JournalEntry]:
    """Return the entries of rows. One that is damaged is logged, and costs no other.

    Args:
        rows: The rows.
        read: Reads one, and raises `DamagedRowError` if it cannot.
        journal: How the log names the journal.
    """
    entries: list[JournalEntry] = []
    for row in rows:
        try:
            entries.append(read(row))
        except DamagedRowError as error:
            _LOGGER.error("the journal %s: %s", journal, error)  # noqa: TRY400 - no cause
    return entries


def storable(value: object) -> object:
    """Return a value that a database can store: a lone surrogate, as in JSON, becomes `?`.

    Otherwise, one invalid character in an error text would prevent that the code is recorded.
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

_KIND_OF: Final[Mapping[str, type | tuple[type, ...]]] = {
    "key": str,
    "kind": str,
    "created_at": datetime,
    "order_id": (str, NoneType),
    "invoice": str,
    "metadata": dict,
    "base_url": (str, NoneType),
    "codes": tuple,
    "refusals": int,
    "claimed_by": (str, NoneType),
}
_ORDER_ID: Final = FIELDS.index("order_id")
_KINDS: Final = {FIELDS.index(name): kinds for name, kinds in _KIND_OF.items()}
"""What the values are on which drivers rely, by their columns' positions."""

_TEXTS: Final = tuple(place for place in range(len(FIELDS)) if place not in _CODECS)
"""The positions of the other columns, most of which are texts."""

MOMENTS: Final = tuple(place for place, codec in _CODECS.items() if codec is _MOMENT)
"""The positions of the times."""
