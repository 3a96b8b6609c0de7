"""How a command ends: an exit code, one sentence, and what to do next. Nothing here does I/O."""

import enum
import re
import traceback
from datetime import datetime
from pathlib import Path
from typing import Final

import attrs

from sms4sats_async import (
    AUTOMATIC_CANCEL_AGE,
    APIError,
    AuthenticationError,
    Cancellation,
    CancelOutcome,
    CodeAlreadyReceivedError,
    InvalidArgumentError,
    JournalError,
    OrderError,
    OrderRefundedError,
    OrderStatus,
    RequestOutcome,
    Sms4SatsError,
)


class ExitCode(enum.IntEnum):
    """What the shell is told; docs/command.md has the table for people."""

    DONE = 0
    """It is done: the money is back, the code is printed, what was asked is answered."""

    USAGE = 2
    """The command cannot be meant as it stands; nothing was sent."""

    REFUSED = 3
    """The service said no, or a limit that the command was given."""

    UNKNOWN = 4
    """Nobody can tell whether it was done."""

    UNREACHABLE = 5
    """No answer of the service that can be used; nothing was changed."""

    INTERRUPTED = 130
    """Ctrl-C or SIGTERM: 128 + SIGINT, as shells say it."""


class Stage(enum.Enum):
    """What a command is at, for somebody who interrupts it."""

    READING = enum.auto()
    """Nothing that it does changes anything."""

    ORDERING = enum.auto()
    """An order may have been asked for, and its answer is not here."""

    ORDERED = enum.auto()
    """There is an order, and nobody has asked for the money back."""

    RESUMING = enum.auto()
    """Several orders may be at any of these points."""

    WAITING_TO_CANCEL = enum.auto()
    """The money is to be asked back, and no request for that is under way."""

    CANCELLING = enum.auto()
    """A request for the money may be under way."""


@attrs.frozen
class End:
    """How a command ends.

    Attributes:
        code: What the shell is told.
        message: What happened, in one sentence.
        next_step: What to do now, in one sentence; None where there is nothing left to do.
    """

    code: ExitCode
    message: str
    next_step: str | None = None


_MONEY_IS_BACK: Final = "what was paid is back with the payer, or on its way"
_BY_ITSELF: Final = "without a code the service gives the money back by itself"
_AFTER_21_MINUTES: Final = f"{_BY_ITSELF} 21 minutes after the order"
_NO_ORDER: Final = "No order was made and no money moved"
_NO_INVOICE: Final = "No invoice was made and no money moved"
_NOTHING: Final = "Nothing was changed"
_MAYBE_AN_ORDER: Final = "An order may exist whose id was lost"
_LOST_ORDER: Final = (
    "An invoice that never arrived cannot be paid, so no wallet lost money; with --immediate look "
    "at `sms4sats balance` before you order again."
)
_MAY_BE_DONE: Final = "What was asked for may have been done; look before you ask again."
_SAFE: Final = "Ask again; that is safe."

# (the client's method, how it failed): (what that means, what to do next).
_MEANINGS: Final = {
    ("create_order", ExitCode.REFUSED): (
        _NO_ORDER,
        (
            "`sms4sats countries` and `sms4sats services` show what can be ordered; with "
            "--immediate look at `sms4sats balance` too."
        ),
    ),
    ("create_order", ExitCode.UNKNOWN): (_MAYBE_AN_ORDER, _LOST_ORDER),
    ("create_order", ExitCode.UNREACHABLE): (_NO_ORDER, _SAFE),
    ("create_send_order", ExitCode.REFUSED): (
        _NO_ORDER,
        "Check the number and the message, and with --immediate `sms4sats balance`.",
    ),
    ("create_send_order", ExitCode.UNKNOWN): (_MAYBE_AN_ORDER, _LOST_ORDER),
    ("create_send_order", ExitCode.UNREACHABLE): (_NO_ORDER, _SAFE),
    ("fund", ExitCode.REFUSED): (_NO_INVOICE, "Check the amount, and the key in SMS4SATS_API_KEY."),
    ("fund", ExitCode.UNKNOWN): (
        "An invoice may exist that was lost on the way",
        "It cannot be paid, so no money moved; ask again.",
    ),
    ("fund", ExitCode.UNREACHABLE): (_NO_INVOICE, _SAFE),
    ("cancel_order", ExitCode.REFUSED): (
        "The order was not cancelled",
        f"`sms4sats cancel --wait` goes on trying while that can help; {_AFTER_21_MINUTES}.",
    ),
    ("cancel_order", ExitCode.UNKNOWN): (
        "Whether the order was cancelled is unknown",
        f"Cancel it again, which is safe, or look at `sms4sats status`; {_AFTER_21_MINUTES}.",
    ),
    ("cancel_order", ExitCode.UNREACHABLE): (
        "No cancel was sent, so the order is as it was",
        f"Cancel it again; {_AFTER_21_MINUTES}.",
    ),
    ("get_order_status", ExitCode.REFUSED): (_NOTHING, "Check the order id."),
}
_OTHERWISE: Final = (_NOTHING, "Check the network and the address, and ask again.")
_REFUSED: Final = (_NOTHING, "Check what was asked for.")
_CHANGING: Final = frozenset(
    {operation for operation, code in _MEANINGS if code is ExitCode.UNKNOWN}
)

# `{}` is for when the service gives the money back by itself.
_INTERRUPTIONS: Final = {
    Stage.READING: ("nothing was changed by it", None),
    Stage.ORDERING: ("an order may exist whose id was lost", _LOST_ORDER),
    Stage.ORDERED: (
        "the order stands, and what was paid for it is held",
        "`sms4sats resume` goes on with it, `sms4sats cancel` gets the money back sooner; {}.",
    ),
    Stage.RESUMING: (
        "what has not ended stays in the journal, and what was paid for it is held",
        "`sms4sats resume` goes on with it; {}.",
    ),
    Stage.WAITING_TO_CANCEL: (
        "no cancel is under way, so the order stands, and what was paid for it is held",
        "`sms4sats cancel` again gets it back sooner; {}.",
    ),
    Stage.CANCELLING: (
        "a cancel was under way, so whether it was done is unknown",
        "`sms4sats cancel` again is safe, and `sms4sats status` may tell; {}.",
    ),
}

# The library speaks of itself to whoever writes Python; here the same things have other names.
_SAID_OTHERWISE: Final = (
    ("get_countries()", "`sms4sats countries`"),
    ("base_url", "--base-url"),
    ("; set SMS4SATS_API_KEY or pass api_key", ""),
    ("api_key", "SMS4SATS_API_KEY"),
)
_ORDER_ID: Final = re.compile(r"\b([0-9a-fA-F]{4})[0-9a-fA-F]{56}([0-9a-fA-F]{4})\b")


def end_of(what: object) -> End:
    """Return how a command ends that came to `what`: the end of an order, or an exception."""
    match what:
        case Cancellation():
            return _cancelled(what)
        case CodeAlreadyReceivedError() | OrderRefundedError():
            return _cancelled(as_cancellation(what))
        case Sms4SatsError():
            return _failed(what)
        case ImportError():
            return End(ExitCode.USAGE, sentence(str(what)), "Install it, and ask again.")
        case OSError():
            problem = f"not all of the output was written: {what.strerror or type(what).__name__}"
            return End(ExitCode.UNKNOWN, sentence(problem), _MAY_BE_DONE)
        case _:
            return _mistake(what)


def as_cancellation(error: CodeAlreadyReceivedError | OrderRefundedError) -> Cancellation:
    """Return the end of an order that the library tells by an error."""
    arrived = isinstance(error, CodeAlreadyReceivedError)
    outcome = CancelOutcome.CODE_ARRIVED if arrived else CancelOutcome.ALREADY_RELEASED
    return Cancellation(error.order_id or "", outcome, error.status, error.attempts)


def interrupted(stage: Stage, ordered_at: datetime | None = None) -> End:
    """Return how a command ends that Ctrl-C or SIGTERM came to.

    Args:
        stage: What it was at.
        ordered_at: When the order was made, if that is known.
    """
    meaning, next_step = _INTERRUPTIONS[stage]
    by_itself = _AFTER_21_MINUTES
    if ordered_at is not None:
        at = (ordered_at + AUTOMATIC_CANCEL_AGE).astimezone().isoformat(" ", "seconds")
        by_itself = f"{_BY_ITSELF} at {at}"
    return End(
        ExitCode.INTERRUPTED,
        f"Interrupted: {meaning}.",
        None if next_step is None else next_step.format(by_itself),
    )


def sentence(text: str) -> str:
    """Return a text with a capital letter and a full stop, and no order id in it whole."""
    for ours, theirs in _SAID_OTHERWISE:
        text = text.replace(ours, theirs)
    text = _ORDER_ID.sub(r"\1…\2", text).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."


def _cancelled(done: Cancellation) -> End:
    match done:
        case Cancellation(outcome=CancelOutcome.CANCELLED):
            message = f"The order was cancelled: {_MONEY_IS_BACK}."
        case Cancellation(outcome=CancelOutcome.ALREADY_RELEASED):
            message = f"The service had given the order back already: {_MONEY_IS_BACK}."
        case Cancellation(status=OrderStatus(code=str(code))):
            message = f"The code is here, and the money is spent on it: {code}"
        case _:
            message = "The message was sent, and the money is spent on it."
    return End(ExitCode.DONE, message)


def _failed(error: Sms4SatsError) -> End:
    code = _code_of(error)
    meaning, next_step = _meaning(error, code)
    problem = f"{meaning}: {error.problem}" if meaning else error.problem
    tried = f" ({error.attempts} attempts)" if error.attempts > 1 else ""
    return End(code, sentence(f"{problem}{tried}"), next_step)


def _meaning(error: Sms4SatsError, code: ExitCode) -> tuple[str, str]:
    """Return what an error means, nothing where it says that itself, and what to do next."""
    otherwise = _REFUSED if code is ExitCode.REFUSED else _OTHERWISE
    meaning, next_step = _MEANINGS.get((error.operation or "", code), otherwise)
    match error:
        case InvalidArgumentError():
            meaning, next_step = "", "Nothing was sent; `--help` shows how it is used."
        case OrderError():
            meaning, next_step = "", "`sms4sats status` shows where the order stands."
        case JournalError(order=None):
            meaning = ""
            next_step = "Mend it, or name another file in SMS4SATS_JOURNAL; then ask again."
        case JournalError():
            meaning = "The order was made and is not written down"
            next_step = "Keep its id, which is the only handle on it, and do not order again."
        case AuthenticationError(status_code=None):
            meaning, next_step = "Nothing was sent", "Set SMS4SATS_API_KEY in the environment."
        case AuthenticationError():
            next_step = "Check the key in SMS4SATS_API_KEY."
        case APIError(retry_after=float(seconds)):
            next_step = f"Ask again in {seconds:.0f} s; the service wants a rest."
        case _:
            pass
    return meaning, next_step


def _code_of(error: Sms4SatsError) -> ExitCode:
    no_key = isinstance(error, AuthenticationError) and error.status_code is None
    if isinstance(error, JournalError):
        return ExitCode.USAGE if error.order is None else ExitCode.UNKNOWN
    if no_key or isinstance(error, InvalidArgumentError):
        return ExitCode.USAGE
    if isinstance(error, OrderError) or error.request_outcome is RequestOutcome.REFUSED:
        return ExitCode.REFUSED
    if error.request_outcome is RequestOutcome.UNKNOWN and error.operation in _CHANGING:
        return ExitCode.UNKNOWN
    return ExitCode.UNREACHABLE


def _mistake(error: object) -> End:
    """Return the end for an exception that nobody has thought of: where, and no foreign text."""
    place = ""
    if isinstance(error, BaseException) and error.__traceback__ is not None:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f" in {Path(last.filename).name}, line {last.lineno}"
    return End(
        ExitCode.UNKNOWN,
        f"The program itself went wrong ({type(error).__name__}{place}).",
        _MAY_BE_DONE,
    )
