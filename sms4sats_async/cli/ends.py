"""How a command ends that did not do its work: the exit code, what happened, what to do next.

Nothing here does I/O.
"""

import enum
import re
import traceback
from collections.abc import Sequence
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

from .facts import in_words, local, shortened


class ExitCode(enum.IntEnum):
    """The exit code of the command; docs/command.md has the table."""

    DONE = 0
    """Done: the order ended with its code or its refund, or the answer was shown."""

    USAGE = 2
    """The command is invalid. Nothing was sent."""

    REFUSED = 3
    """The service, the wallet, or a limit that you gave, refused it."""

    UNKNOWN = 4
    """Whether it was done is unknown."""

    UNREACHABLE = 5
    """The service gave no usable answer. Nothing was changed."""

    INTERRUPTED = 130
    """Ctrl-C or SIGTERM (128 + SIGINT, as shells do), or the reader of the output is gone."""


_USAGE: Final = ExitCode.USAGE
_REFUSED: Final = ExitCode.REFUSED
_UNKNOWN: Final = ExitCode.UNKNOWN
_UNREACHABLE: Final = ExitCode.UNREACHABLE
_INTERRUPTED: Final = ExitCode.INTERRUPTED


class Stage(enum.Enum):
    """What a command does at the moment; the values are operations of the table below."""

    READING = "read"
    """It changes nothing."""

    ORDERING = "order"
    """An order may have been requested, and the answer has not arrived."""

    ASKING = "ask"
    """An order for a code exists, and a person is asked whether the wallet may pay it."""

    WAITING = "wait"
    """An order for a code exists, and no cancel was sent."""

    MESSAGE = "message"
    """An order for a message exists."""

    CANCELLING = "cancel"
    """A cancel may have been sent."""

    RESUMING = "resume"
    """Several orders may be at any of these points."""

    FUNDING = "balance"
    """An invoice for the balance may have been requested."""


@attrs.frozen
class End:
    """How a command ends that did not do its work.

    Attributes:
        code: The exit code.
        message: What happened, and what it means for the money.
        next_step: What to do next.
    """

    code: ExitCode
    message: str
    next_step: str


class Text(NamedTuple):
    """What the end of an operation means for the money, and what to do next."""

    effect: str
    next_step: str


_REFUND: Final = "Without a code, the service refunds the order automatically {when}."
_RETRY: Final = "Check the network, then try again."
_NO_ORDER: Final = "No order was created, and no money moved."
_NO_INVOICE: Final = "No invoice was created, and no money moved."
_ENOUGH: Final = "With --immediate, `sms4sats balance` must show enough for the price."
_MAYBE_ORDER: Final = Text(
    "An order may exist, but its invoice did not arrive. No wallet can pay it.",
    "You can order again. With --immediate, first check `sms4sats balance`: the order may have "
    "been paid from it.",
)
_CHECK: Final = (
    "`sms4sats status` shows what the service reports, and you can safely run `sms4sats cancel` "
    f"again. {_REFUND}"
)

TEXTS: Final[dict[tuple[str, ExitCode | None], Text]] = {
    # Calls of the client, by their names.
    ("create_order", _REFUSED): Text(
        _NO_ORDER,
        f"`sms4sats countries` and `sms4sats services` list what you can order. {_ENOUGH}",
    ),
    ("create_order", _UNKNOWN): _MAYBE_ORDER,
    ("create_order", _UNREACHABLE): Text(_NO_ORDER, _RETRY),
    ("create_send_order", _REFUSED): Text(
        _NO_ORDER,
        f"Check the number and the message. {_ENOUGH}",
    ),
    ("create_send_order", _UNKNOWN): _MAYBE_ORDER,
    ("create_send_order", _UNREACHABLE): Text(_NO_ORDER, _RETRY),
    ("fund", _REFUSED): Text(_NO_INVOICE, "Check the amount, and the key in SMS4SATS_API_KEY."),
    ("fund", _UNKNOWN): Text(
        "An invoice may exist, but it did not arrive. No wallet can pay it, so no money moved.",
        "You can try again.",
    ),
    ("fund", _UNREACHABLE): Text(_NO_INVOICE, _RETRY),
    # A refusal can follow a cancel that worked, so it does not say where the money is.
    ("cancel_order", _REFUSED): Text(
        "The order may be younger than 2 minutes, may have ended, or may be unknown to the "
        "service.",
        _CHECK,
    ),
    ("cancel_order", _UNKNOWN): Text("The order may or may not be cancelled.", _CHECK),
    ("cancel_order", _UNREACHABLE): Text(
        "No cancel was sent, so the order is unchanged.",
        f"Check the network, then run `sms4sats cancel` again. {_REFUND}",
    ),
    ("get_order_status", _REFUSED): Text("Nothing was changed.", "Check the order ID."),
    ("", _REFUSED): Text("Nothing was changed.", "Check the arguments, then try again."),
    ("", _UNREACHABLE): Text(
        "Nothing was changed.", "Check the network and the address, then try again."
    ),
    # Errors of every call.
    ("argument", _USAGE): Text("Nothing was sent.", "`--help` shows the usage."),
    ("no key", _USAGE): Text("Nothing was sent.", "Set SMS4SATS_API_KEY in the environment."),
    ("wrong key", _REFUSED): Text("Nothing was changed.", "Check the key in SMS4SATS_API_KEY."),
    ("end of the order", _UNKNOWN): Text("Whether the order was refunded is unknown.", _CHECK),
    ("journal", _USAGE): Text(
        "Nothing was sent.",
        "Repair the journal, or name another file in SMS4SATS_JOURNAL. Then try again.",
    ),
    ("journal without the order", _UNKNOWN): Text(
        "The order was created, but the journal does not have it. Its ID and its invoice are shown "
        "above.",
        "Keep the ID: nothing else identifies the order. `sms4sats cancel` with the whole ID "
        "cancels it for a refund.",
    ),
    ("journal without the deadline", _UNKNOWN): Text(
        "The order is open, and what was paid for it is held.",
        "`sms4sats cancel` with the whole ID cancels the order for a refund, even without the "
        f"journal. {_REFUND}",
    ),
    # What the command itself refuses.
    ("usage", _USAGE): Text("Nothing was sent.", "`{command} --help` shows the usage."),
    ("package", _USAGE): Text("Nothing was sent.", "Install it, then try again."),
    ("simulator", _USAGE): Text(
        "No simulator was started.", "`sms4sats simulator --help` lists the options."
    ),
    ("postgres", _USAGE): Text(
        "Nothing was changed.",
        "Name a database that you may change in SMS4SATS_POSTGRES_DSN, such as "
        "postgresql://user:password@host/name.",
    ),
    ("home", _USAGE): Text("Nothing was sent.", "Name a file in SMS4SATS_JOURNAL."),
    ("order ID", _USAGE): Text(
        "Nothing was sent.",
        "`sms4sats pending` lists the open orders, and with --json their whole IDs.",
    ),
    ("another service", _USAGE): Text(
        "Nothing was sent, and the order is unchanged.", "Run the command with --base-url {root}."
    ),
    ("price limit", _REFUSED): Text(
        "The invoice was not shown, so nothing was paid.",
        "The order ends automatically, because it is not paid. A higher --max-price allows the "
        "price.",
    ),
    ("not paid", _REFUSED): Text(
        "Nothing was paid. The order ends automatically, because it is not paid.",
        "With --max-price, --pay asks nothing.",
    ),
    # What the wallet refuses, or does not answer.
    ("wallet", _REFUSED): Text(
        "The wallet paid nothing. The order ends automatically, because it is not paid.",
        "Check the wallet with `sms4sats wallet`, then order again.",
    ),
    ("wallet key", _REFUSED): Text(
        "Nothing was paid.", "Check the wallet's credentials in the environment."
    ),
    ("no wallet", _UNREACHABLE): Text(
        "Nothing was paid.", "Check the wallet's address in the environment, and that it runs."
    ),
    ("several orders", None): Text(
        "The lines above say why. What was paid for them may be held.",
        "`sms4sats pending` lists the open orders, and `sms4sats resume` tries again.",
    ),
    # What an interruption, or a failure of the output or of the program, means at each stage.
    (Stage.READING.value, None): Text("Nothing was changed.", "You can try again."),
    (Stage.ORDERING.value, None): _MAYBE_ORDER,
    (Stage.ASKING.value, None): Text(
        "The wallet paid nothing. The order ends automatically if it is not paid.",
        "If you paid the invoice from another wallet, `sms4sats resume` waits for the code.",
    ),
    (Stage.WAITING.value, None): Text(
        "The order is open, and what was paid for it is held.",
        "`sms4sats resume` continues to wait for the code. `sms4sats cancel` cancels the order for "
        f"a refund. {_REFUND}",
    ),
    (Stage.MESSAGE.value, None): Text(
        "The order is open, and what was paid for it is held until the message is sent.",
        "`sms4sats watch` shows whether it is sent. `sms4sats cancel` cancels the order for a "
        "refund.",
    ),
    (Stage.CANCELLING.value, None): Text(
        "A cancel may have been sent, so the order may or may not be cancelled.", _CHECK
    ),
    (Stage.RESUMING.value, None): Text(
        "Orders that have not ended stay in the journal, and what was paid for them is held.",
        "`sms4sats resume` continues. Without a code, the service refunds an order automatically "
        "21 minutes after it was created.",
    ),
    (Stage.FUNDING.value, None): Text(
        "An invoice may exist. Money moves only if you pay it.",
        "`sms4sats history` lists what was funded.",
    ),
    ("ended", None): Text("", "`sms4sats resume {order}` shows this result again."),
}
"""What each operation and outcome means. None as outcome: the same for every exit code."""

RESULTS: Final[dict[OrderOutcome, str]] = {
    OrderOutcome.CODE_RECEIVED: "The code arrived, and the money is settled. Code: {code}",
    OrderOutcome.MESSAGE_SENT: "The message was sent, and the money is settled.",
    OrderOutcome.CANCELLED: "The order is cancelled. The service refunds what was paid.",
    OrderOutcome.REFUNDED: "The service refunded the order. No code will arrive.",
}
"""The texts of the results of orders."""

_WITHOUT_KEY: Final = {"cancel_order", "get_order_status"}
_CHANGING: Final = {operation for operation, code in TEXTS if code is _UNKNOWN}

# The library's messages name its own arguments. The command has other names for them.
_COMMAND_NAMES: Final = (
    ("get_countries()", "`sms4sats countries`"),
    ("base_url", "--base-url"),
    ("; set SMS4SATS_API_KEY or pass api_key", ""),
    ("max_fee_sat must be None", "a fee limit is invalid here"),
    ("api_key", "SMS4SATS_API_KEY"),
)
_ORDER_ID: Final = re.compile(r"\b([0-9a-fA-F]{4})[0-9a-fA-F]{56}([0-9a-fA-F]{4})\b")


class Interrupted(Exception):  # noqa: N818 - not an error
    """A signal cancelled the work of the command."""


class Stop(Exception):  # noqa: N818 - the end of the command, not always an error
    """Ends the command.

    Attributes:
        end: How it ends.
    """

    def __init__(self, operation: str, code: ExitCode, problem: str, **values: str) -> None:
        """Set how the command ends.

        Args:
            operation: The operation, as the table names it.
            code: The exit code.
            problem: What failed.
            values: The values of the fields of the next step.
        """
        super().__init__(problem)
        self.end: End = _end(operation, code, problem, **values)


def result_in_words(result: OrderResult) -> str:
    """Return how an order ended, on one line."""
    assert result.outcome is not None  # noqa: S101 - the library raises instead
    return RESULTS[result.outcome].format(code=in_words(result.code))


def end_of(
    error: BaseException,
    stage: Stage = Stage.READING,
    ordered_at: datetime | None = None,
    results: Sequence[OrderResult] = (),
) -> End:
    """Return how a command ends that an exception ended.

    Args:
        error: The exception.
        stage: What the command did at the moment.
        ordered_at: When the order was created, if that is known.
        results: Results of orders that were not shown yet.
    """
    when = _refunded_at(ordered_at)
    if isinstance(error, Stop):
        return error.end
    if isinstance(error, Sms4SatsError):
        tried = f" ({error.attempts} attempts)" if error.attempts > 1 else ""
        end = _end(*_classify(error), f"{error.problem}{tried}", when=when)
        if isinstance(error, APIError) and error.retry_after is not None:
            wait = f"Wait {error.retry_after:.0f} s, as the service asks, before you try again."
            if error.operation in _CHANGING:
                wait += f" {end.next_step}"
            end = attrs.evolve(end, next_step=wait)
        return end
    if isinstance(error, ImportError) and stage is Stage.READING:
        return _end("package", _USAGE, str(error))
    code, problem = _describe(error)
    if not results:
        return _end(stage.value, code, problem, when=when)
    if stage is Stage.RESUMING:
        ended = "; ".join(f"{shortened(it.order_id)}: {result_in_words(it)}" for it in results)
        end = _end(stage.value, code, problem)
    else:
        ended = " ".join(map(result_in_words, results))
        end = _end("ended", code, problem, order=shortened(results[0].order_id))
    return attrs.evolve(end, message=f"{end.message} {ended}")


def sentence(text: str) -> str:
    """Return a text as a sentence, with the command's names and no whole order ID."""
    for library, command in _COMMAND_NAMES:
        text = text.replace(library, command)
    text = _ORDER_ID.sub(r"\1…\2", in_words(text)).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('?') else '.'}"


def _classify(error: Sms4SatsError) -> tuple[str, ExitCode]:
    """Return the operation and the outcome of an error of the library, as the table has them."""
    found = error.operation or "", _UNREACHABLE
    match error:
        case InvalidArgumentError():
            found = "argument", _USAGE
        case AuthenticationError(status_code=None):
            found = "no key", _USAGE
        case AuthenticationError() if found[0] not in _WITHOUT_KEY:
            found = "wrong key", _REFUSED
        case OrderError():
            found = "end of the order", _UNKNOWN
        case JournalError(order=None, operation="code_or_refund"):
            found = "journal without the deadline", _UNKNOWN
        case JournalError(order=None):
            found = "journal", _USAGE
        case JournalError():
            found = "journal without the order", _UNKNOWN
        case Sms4SatsError(request_outcome=RequestOutcome.REFUSED):
            found = found[0], _REFUSED
        case Sms4SatsError(request_outcome=RequestOutcome.UNKNOWN) if found[0] in _CHANGING:
            found = found[0], _UNKNOWN
        case _:
            pass
    return found


def _describe(error: BaseException) -> tuple[ExitCode, str]:
    """Return the exit code and the problem of another exception."""
    match error:
        case KeyboardInterrupt() | Interrupted():
            return _INTERRUPTED, "interrupted"
        case BrokenPipeError():
            return _INTERRUPTED, "the reader of the output is gone"
        case OSError():
            reason = error.strerror or type(error).__name__
            return _UNKNOWN, f"not all of the output was written: {reason}"
        case _:
            # Where the program failed, without foreign text.
            place = ""
            for frame in traceback.extract_tb(error.__traceback__)[-1:]:
                place = f" in {Path(frame.filename).name}, line {frame.lineno}"
            return _UNKNOWN, f"the program failed ({type(error).__name__}{place})"


def _end(operation: str, code: ExitCode, problem: str, **values: str) -> End:
    text = TEXTS.get((operation, code)) or TEXTS.get((operation, None)) or TEXTS["", code]
    message = f"{sentence(problem)} {text.effect}".rstrip()
    return End(code, message, text.next_step.format(**{"when": _refunded_at(None)} | values))


def _refunded_at(ordered_at: datetime | None) -> str:
    if ordered_at is None:
        return "21 minutes after it was created"
    return f"at {local(ordered_at + AUTOMATIC_CANCEL_AGE)}"
