"""What the library writes to the standard library's log: a line for each attempt, wait and outcome.

Every line has its facts as fields too (`extra`), with order ids masked. No code is ever logged.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from ._redact import mask
from .events import (
    AttemptFailed,
    CancelFinished,
    Event,
    JournalFailed,
    OrderCancelled,
    OrderCreated,
    StatusPolled,
    Waiting,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

LOGGER: Final = logging.getLogger("sms4sats_async")

# A failure is handed to the caller, who decides how bad it is. Nobody else is told that something
# was not written down.
_LEVELS: Final[Mapping[type[Event], int]] = {
    StatusPolled: logging.DEBUG,
    JournalFailed: logging.ERROR,
}

Fields = dict[str, object]


def log_answer(operation: str, order_id: str | None, attempt: int, status: int) -> None:
    """Log an attempt that was answered well."""
    if LOGGER.isEnabledFor(logging.DEBUG):
        fields = _fields(order_id, operation=operation, attempt=attempt, status_code=status)
        line = "%s: attempt %d was answered (HTTP %d)"
        LOGGER.debug(line, _who(operation, order_id), attempt, status, extra=fields)


def log_event(event: Event) -> None:
    """Log what is told to `on_event`."""
    level = _LEVELS.get(type(event), logging.INFO)
    if LOGGER.isEnabledFor(level):
        line, fields = _describe(event)
        name = type(event).__name__
        LOGGER.log(level, "%s", line, extra=_fields(event.order_id, event=name, **fields))


def _describe(event: Event) -> tuple[str, Fields]:
    """Return the line that tells of an event, and its facts."""
    fields: Fields = {}
    match event:
        case AttemptFailed(operation=operation, attempt=attempt, error=error, delay=delay):
            then = "no further attempt" if delay is None else f"the next in {delay:.1f} s"
            known = error.request_outcome
            line = f"attempt {attempt} of {event.attempts} failed ({known.value}), {then}"
            line += f": {error.problem}"
            fields = {
                "operation": operation,
                "attempt": attempt,
                "attempts": event.attempts,
                "delay": delay,
                "request_outcome": known.name,
                "error": type(error).__name__,
            }
        case Waiting(until=until, reason=reason):
            line = f"waiting until {until.replace(microsecond=0)}: {reason}"
            fields = {"until": until, "reason": reason}
        case StatusPolled(status=status):
            line = status.state.value
            fields = {"state": status.state.name}
        case OrderCreated():
            line = "made"
        case OrderCancelled(cancellation=done):
            line = f"ended, {done.outcome.value}"
            fields = {"outcome": done.outcome.name}
        case CancelFinished(result=result):
            line = "done with" if result.error is None else "the cancel failed"
            line += f", {result.outcome.value}"
            fields = {"outcome": result.outcome.name}
        case JournalFailed(error=error):
            line = f"not written down, what became known: {error.problem}"
        case _:
            line = repr(event)
    return f"{_who(str(fields.get('operation', '')), event.order_id)}: {line}", fields


def _who(operation: str, order_id: str | None) -> str:
    order = "" if order_id is None else f"order {mask(order_id)}"
    return " of ".join(filter(None, (operation, order))) or "an order"


def _fields(order_id: str | None, **fields: object) -> Fields:
    return {"order": None if order_id is None else mask(order_id), **fields}
