"""Report progress events: log a line for each attempt, wait and outcome, and call `on_event`.

Every line has its facts as fields too (`extra`). Order IDs are masked; codes, numbers and invoices
are never logged.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from ._cancellation import cancellations_of_others
from ._redact import mask
from .events import (
    AttemptFailed,
    Event,
    JournalFailed,
    OrderCreated,
    OrderEnded,
    StatusPolled,
    Waiting,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LOGGER: Final = logging.getLogger("sms4sats_async")

# A failed attempt is INFO, because the caller gets the error and decides how bad it is. A failed
# journal is an ERROR, because no exception reports it.
_LEVELS: Final[Mapping[type[Event], int]] = {
    StatusPolled: logging.DEBUG,
    JournalFailed: logging.ERROR,
}

Fields = dict[str, object]


def log_answer(operation: str, order_id: str | None, attempt: int, status: int) -> None:
    """Log an attempt that succeeded."""
    if LOGGER.isEnabledFor(logging.DEBUG):
        fields = _fields(order_id, operation=operation, attempt=attempt, status_code=status)
        line = "%s: attempt %d was answered (HTTP %d)"
        LOGGER.debug(line, _who(operation, order_id), attempt, status, extra=fields)


class Reporter:
    """Logs each event and passes it to the caller's `on_event`."""

    def __init__(self, on_event: Callable[[Event], object] | None) -> None:
        self._on_event = on_event

    def __call__(self, event: Event) -> None:
        """Report an event.

        If the listener raises, its error is logged and the call goes on: the caller must learn
        where the money is.
        """
        _log(event)
        if self._on_event is None:
            return
        try:
            with cancellations_of_others():
                self._on_event(event)
        except Exception:
            LOGGER.exception("on_event raised on %s", type(event).__name__)


def _log(event: Event) -> None:
    level = _LEVELS.get(type(event), logging.INFO)
    if LOGGER.isEnabledFor(level):
        line, fields = _describe(event)
        name = type(event).__name__
        LOGGER.log(level, "%s", line, extra=_fields(event.order_id, event=name, **fields))


def _describe(event: Event) -> tuple[str, Fields]:
    """Return the log line of an event, and its facts."""
    fields: Fields = {}
    match event:
        case AttemptFailed(operation=operation, attempt=attempt, error=error, delay=delay):
            then = "no more attempts" if delay is None else f"next in {delay:.1f} s"
            known = error.request_outcome
            line = f"attempt {attempt} of {event.attempts} failed"
            line += f"{'' if known is None else f' ({known.value})'}, {then}: {error.problem}"
            fields = {
                "operation": operation,
                "attempt": attempt,
                "attempts": event.attempts,
                "delay": delay,
                "request_outcome": None if known is None else known.name,
                "error": type(error).__name__,
            }
        case Waiting(until=until, reason=reason):
            line = f"waiting until {until.replace(microsecond=0)}: {reason}"
            fields = {"until": until, "reason": reason}
        case StatusPolled(status=status):
            line = status.state.value
            fields = {"state": status.state.name}
        case OrderCreated():
            line = "created"
        case OrderEnded(result=result):
            fields = {"outcome": None if result.outcome is None else result.outcome.name}
            if result.outcome is not None:
                line = f"ended, {result.outcome.value}"
            else:
                # The service may still cancel the order, so the line must not say that it ended.
                line = "the outcome is unknown"
                if result.error is not None:
                    line += f": {result.error.problem}"
        case JournalFailed(error=error):
            line = f"not recorded in the journal: {error.problem}"
        case _:
            line = repr(event)
    return f"{_who(str(fields.get('operation', '')), event.order_id)}: {line}", fields


def _who(operation: str, order_id: str | None) -> str:
    order = "" if order_id is None else f"order {mask(order_id)}"
    return " of ".join(filter(None, (operation, order))) or "an order"


def _fields(order_id: str | None, **fields: object) -> Fields:
    return {"order": None if order_id is None else mask(order_id), **fields}
