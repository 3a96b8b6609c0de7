"""How a command ends: an exit code, what happened, and what to do next. Nothing here does I/O."""

import enum
import re
import traceback
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import attrs

from sms4sats_async import (
    AUTOMATIC_CANCEL_AGE,
    APIError,
    AuthenticationError,
    InvalidArgumentError,
    JournalError,
    OrderError,
    OrderOutcome,
    OrderResult,
    RequestOutcome,
    Sms4SatsError,
)

from .times import local, printable


class ExitCode(enum.IntEnum):
    """The exit code of the command; docs/command.md has the table."""

    DONE = 0
    """Done: the order ended with its code or its refund, or the answer was shown."""

    USAGE = 2
    """The command is invalid. Nothing was sent."""

    REFUSED = 3
    """The service, or a limit that you gave, refused it."""

    UNKNOWN = 4
    """Whether it was done is unknown."""

    UNREACHABLE = 5
    """The service gave no usable answer. Nothing was changed."""

    INTERRUPTED = 130
    """Ctrl-C or SIGTERM (128 + SIGINT, as shells do)."""


class Stage(enum.Enum):
    """What a command does at the moment; the values are operations of the table below."""

    READING = "read"
    """Nothing that it does changes anything."""

    ORDERING = "order"
    """An order may have been requested, and its answer has not arrived."""

    WAITING = "wait"
    """An order exists, and no cancel was sent."""

    RESUMING = "resume"
    """Several orders may be at any of these points."""

    CANCELLING = "cancel"
    """A cancel may be under way."""


@attrs.frozen
class End:
    """How a command ends.

    Attributes:
        code: The exit code.
        message: What happened and what it means for the money.
        next_step: What to do next; None if nothing is left to do.
    """

    code: ExitCode
    message: str
    next_step: str | None = None


class Text(NamedTuple):
    """What the end of an operation means for the money, and what to do next."""

    effect: str
    next_step: str | None


_AGAIN: Final = "Try again."
_NO_ORDER: Final = "No order was created and no money moved."
_MAYBE_ORDER: Final = Text(
    "An order may exist, but its invoice did not arrive, so it cannot be paid.",
    "With --immediate, check `sms4sats balance` before you order again.",
)
# `{}` says when the service refunds automatically.
_REFUND: Final = "Without a code, the service refunds the order automatically {}."

TEXTS: Final[dict[tuple[str, ExitCode], Text]] = {
    ("create_order", ExitCode.REFUSED): Text(
        _NO_ORDER,
        "`sms4sats countries` and `sms4sats services` list what you can order. With --immediate, "
        "check `sms4sats balance` too.",
    ),
    ("create_order", ExitCode.UNKNOWN): _MAYBE_ORDER,
    ("create_order", ExitCode.UNREACHABLE): Text(_NO_ORDER, _AGAIN),
    ("create_send_order", ExitCode.REFUSED): Text(
        _NO_ORDER, "Check the number and the message. With --immediate, check `sms4sats balance`."
    ),
    ("create_send_order", ExitCode.UNKNOWN): _MAYBE_ORDER,
    ("create_send_order", ExitCode.UNREACHABLE): Text(_NO_ORDER, _AGAIN),
    ("fund", ExitCode.REFUSED): Text(
        "No invoice was created and no money moved.",
        "Check the amount, and the key in SMS4SATS_API_KEY.",
    ),
    ("fund", ExitCode.UNKNOWN): Text(
        "An invoice may exist, but it did not arrive, so it cannot be paid.", _AGAIN
    ),
    ("fund", ExitCode.UNREACHABLE): Text("No invoice was created and no money moved.", _AGAIN),
    ("cancel_order", ExitCode.REFUSED): Text(
        "The order was not cancelled.", f"`sms4sats cancel` keeps trying. {_REFUND}"
    ),
    ("cancel_order", ExitCode.UNKNOWN): Text(
        "The order may or may not be cancelled.",
        f"`sms4sats status` may show it, and you can safely cancel again. {_REFUND}",
    ),
    ("cancel_order", ExitCode.UNREACHABLE): Text(
        "No cancel was sent, so the order is unchanged.", f"Cancel it again. {_REFUND}"
    ),
    ("get_order_status", ExitCode.REFUSED): Text("Nothing was changed.", "Check the order ID."),
    ("order", ExitCode.REFUSED): Text("", "`sms4sats status` shows where the money is."),
    ("argument", ExitCode.USAGE): Text("Nothing was sent.", "`--help` shows the usage."),
    ("no key", ExitCode.USAGE): Text(
        "Nothing was sent.", "Set SMS4SATS_API_KEY in the environment."
    ),
    ("wrong key", ExitCode.REFUSED): Text(
        "Nothing was changed.", "Check the key in SMS4SATS_API_KEY."
    ),
    ("journal", ExitCode.USAGE): Text(
        "Nothing was sent.",
        "Repair the journal, or name another file in SMS4SATS_JOURNAL, then try again.",
    ),
    ("journal", ExitCode.UNKNOWN): Text(
        "The order was created, but the journal does not have it.",
        "Keep its ID: nothing else identifies the order. Do not order again.",
    ),
    ("install", ExitCode.USAGE): Text("Nothing was sent.", "Install it, then try again."),
    ("output", ExitCode.UNKNOWN): Text(
        "The command may have done its work.", "Check with `sms4sats pending` before you retry."
    ),
    ("program", ExitCode.UNKNOWN): Text(
        "The command may have done its work.", "Check with `sms4sats pending` before you retry."
    ),
    ("", ExitCode.REFUSED): Text("Nothing was changed.", "Check the arguments."),
    ("", ExitCode.UNREACHABLE): Text(
        "Nothing was changed.", "Check the network and the address, then try again."
    ),
    (Stage.READING.value, ExitCode.INTERRUPTED): Text("Nothing was changed.", None),
    (Stage.ORDERING.value, ExitCode.INTERRUPTED): _MAYBE_ORDER,
    (Stage.WAITING.value, ExitCode.INTERRUPTED): Text(
        "The order is open. What was paid for it is held.",
        f"`sms4sats resume` waits on, and `sms4sats cancel` cancels it for a refund. {_REFUND}",
    ),
    (Stage.RESUMING.value, ExitCode.INTERRUPTED): Text(
        "Orders that have not ended stay in the journal. What was paid for them is held.",
        f"`sms4sats resume` goes on. {_REFUND}",
    ),
    (Stage.CANCELLING.value, ExitCode.INTERRUPTED): Text(
        "A cancel was under way, so the order may or may not be cancelled.",
        f"You can safely run `sms4sats cancel` again; `sms4sats status` may show it. {_REFUND}",
    ),
}
"""The texts of every end that is not a result, by operation and exit code."""

RESULTS: Final[dict[OrderOutcome, str]] = {
    OrderOutcome.CODE_RECEIVED: "The code arrived, and the money is settled: {}",
    OrderOutcome.MESSAGE_SENT: "The message was sent, and the money is settled.",
    OrderOutcome.CANCELLED: "The order is cancelled. The service refunds what was paid.",
    OrderOutcome.REFUNDED: "The service refunded the order.",
}
"""The texts of the results of orders."""

_CHANGING: Final = frozenset({operation for operation, code in TEXTS if code is ExitCode.UNKNOWN})

# The library's messages name its own arguments; the command has other names for them.
_COMMAND_NAMES: Final = (
    ("get_countries()", "`sms4sats countries`"),
    ("base_url", "--base-url"),
    ("; set SMS4SATS_API_KEY or pass api_key", ""),
    ("api_key", "SMS4SATS_API_KEY"),
)
_ORDER_ID: Final = re.compile(r"\b([0-9a-fA-F]{4})[0-9a-fA-F]{56}([0-9a-fA-F]{4})\b")


def end_of_result(result: OrderResult) -> End:
    """Return how a command ends whose order has ended."""
    assert result.outcome is not None  # noqa: S101 - the library raises instead
    return End(ExitCode.DONE, RESULTS[result.outcome].format(printable(result.code or "")))


def end_of(error: BaseException) -> End:
    """Return how a command ends that an exception ended."""
    match error:
        case Sms4SatsError():
            tried = f" ({error.attempts} attempts)" if error.attempts > 1 else ""
            end = _end(_operation_of(error), _code_of(error), f"{error.problem}{tried}")
            if isinstance(error, APIError) and error.retry_after is not None:
                wait = f"The service asks to wait {error.retry_after:.0f} s before you try again."
                return attrs.evolve(end, next_step=wait)
            return end
        case ImportError():
            return _end("install", ExitCode.USAGE, str(error))
        case OSError():
            reason = error.strerror or type(error).__name__
            return _end("output", ExitCode.UNKNOWN, f"not all of the output was written: {reason}")
        case _:
            place = ""
            if error.__traceback__ is not None:
                last = traceback.extract_tb(error.__traceback__)[-1]
                place = f" in {Path(last.filename).name}, line {last.lineno}"
            problem = f"the program failed ({type(error).__name__}{place})"
            return _end("program", ExitCode.UNKNOWN, problem)


def interrupted(stage: Stage, ordered_at: datetime | None = None) -> End:
    """Return how a command ends that Ctrl-C or SIGTERM ended.

    Args:
        stage: What it did at the moment.
        ordered_at: When the order was created, if that is known.
    """
    return _end(stage.value, ExitCode.INTERRUPTED, "interrupted", ordered_at)


def _end(operation: str, code: ExitCode, problem: str, ordered_at: datetime | None = None) -> End:
    text = TEXTS.get((operation, code)) or TEXTS["", code]
    when = "21 minutes after it was created"
    if ordered_at is not None:
        when = f"at {local(ordered_at + AUTOMATIC_CANCEL_AGE)}"
    message = f"{sentence(problem)} {text.effect}".rstrip()
    return End(code, message, None if text.next_step is None else text.next_step.format(when))


def sentence(text: str) -> str:
    """Return a text as a sentence, with the command's names and no whole order ID."""
    for library, command in _COMMAND_NAMES:
        text = text.replace(library, command)
    text = _ORDER_ID.sub(r"\1…\2", text).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."


def _operation_of(error: Sms4SatsError) -> str:
    match error:
        case InvalidArgumentError():
            return "argument"
        case JournalError():
            return "journal"
        case OrderError():
            return "order"
        case AuthenticationError(status_code=None):
            return "no key"
        case AuthenticationError():
            return "wrong key"
        case _:
            return error.operation or ""


def _code_of(error: Sms4SatsError) -> ExitCode:
    match error:
        case JournalError():
            return ExitCode.USAGE if error.order is None else ExitCode.UNKNOWN
        case InvalidArgumentError() | AuthenticationError(status_code=None):
            return ExitCode.USAGE
        case OrderError() | AuthenticationError():
            return ExitCode.REFUSED
        case Sms4SatsError(request_outcome=RequestOutcome.REFUSED):
            return ExitCode.REFUSED
        case Sms4SatsError(request_outcome=RequestOutcome.UNKNOWN) if error.operation in _CHANGING:
            return ExitCode.UNKNOWN
        case _:
            return ExitCode.UNREACHABLE
