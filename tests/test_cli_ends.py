"""How a command ends: every outcome and every error has one exit code and one text.

`TABLE` has all of them side by side, as a user reads them.
"""

import re
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Final

import pytest

import sms4sats_async
from sms4sats_async import (
    APIError,
    AuthenticationError,
    CodeTimeoutError,
    InvalidArgumentError,
    InvalidResponseError,
    JournalError,
    OrderError,
    OrderOutcome,
    OrderResult,
    RateLimitError,
    ReceiveOrder,
    RequestOutcome,
    ServerError,
    Sms4SatsError,
    TransportError,
)
from sms4sats_async.cli.ends import (
    RESULTS,
    TEXTS,
    End,
    ExitCode,
    Interrupted,
    Stage,
    Stop,
    end_of,
    result_in_words,
    sentence,
)
from sms4sats_async.cli.facts import local

ORDER_ID: Final = "0123456789abcdef" * 4
ORDER: Final = ReceiveOrder(ORDER_ID, "lnbc1", datetime(2026, 11, 23, tzinfo=UTC))
ORDERED_AT: Final = datetime(2026, 11, 23, 14, tzinfo=UTC)
REFUND: Final = (
    "Without a code, the service refunds the order automatically at "
    f"{local(datetime(2026, 11, 23, 14, 21, tzinfo=UTC))}."
)
CHECK: Final = (
    "`sms4sats status` shows what the service reports, and you can safely run `sms4sats cancel` "
    f"again. {REFUND}"
)
CODE: Final = OrderResult(ORDER_ID, OrderOutcome.CODE_RECEIVED, "012345")
REFUNDED: Final = OrderResult("f" * 64, OrderOutcome.REFUNDED)
NOT_SENT, REFUSED, UNKNOWN = RequestOutcome

CHANGING: Final = ("create_order", "create_send_order", "cancel_order", "fund")
READING: Final = ("get_price", "get_order_status", "get_balance", "get_history", "get_services")
CALLS: Final = (*CHANGING, *READING, None)


def failed(operation: str, outcome: RequestOutcome) -> Sms4SatsError:
    """The error of a call, as it usually ends so."""
    if outcome is NOT_SENT:
        return TransportError("cannot connect to the service", operation=operation, attempts=4)
    if outcome is UNKNOWN:
        problem = "no complete answer within 10 s"
        return TransportError(problem, operation=operation, request_outcome=outcome)
    problem = "the service answered HTTP 500: backend error"
    return ServerError(problem, operation=operation, request_outcome=outcome)


def journal(operation: str | None = None, order: ReceiveOrder | None = None) -> JournalError:
    return JournalError("the journal x cannot be used: disk full", operation=operation, order=order)


CONNECT: Final = "Cannot connect to the service (4 attempts)."
NO_ANSWER: Final = "No complete answer within 10 s."
REFUSAL: Final = "The service answered HTTP 500: backend error."
MAYBE_ORDER: Final = "An order may exist, but its invoice did not arrive. No wallet can pay it."
ORDER_AGAIN: Final = (
    "You can order again. With --immediate, first check `sms4sats balance`: the order may have "
    "been paid from it."
)
OPEN: Final = "The order is open, and what was paid for it is held."
RESUME: Final = (
    "`sms4sats resume` continues to wait for the code. `sms4sats cancel` cancels the order for a "
    f"refund. {REFUND}"
)
JOURNAL: Final = "The journal x cannot be used: disk full."

# Each result, in words.
RESULTS_TABLE: Final = [
    (CODE, "The code arrived, and the money is settled. Code: 012345"),
    (REFUNDED, "The service refunded the order. No code will arrive."),
    (
        OrderResult(ORDER_ID, OrderOutcome.CANCELLED),
        "The order is cancelled. The service refunds what was paid.",
    ),
    (
        OrderResult(ORDER_ID, OrderOutcome.MESSAGE_SENT),
        "The message was sent, and the money is settled.",
    ),
]

# The end, its exit code, what happened and what it means for the money, and what to do next.
TABLE: Final[list[tuple[End, int, str, str]]] = [
    # An order for a code.
    (
        end_of(failed("create_order", REFUSED)),
        3,
        f"{REFUSAL} No order was created, and no money moved.",
        (
            "`sms4sats countries` and `sms4sats services` list what you can order. With "
            "--immediate, `sms4sats balance` must show enough for the price."
        ),
    ),
    (
        end_of(failed("create_order", UNKNOWN)),
        4,
        f"{NO_ANSWER} {MAYBE_ORDER}",
        ORDER_AGAIN,
    ),
    (
        end_of(failed("create_order", NOT_SENT)),
        5,
        f"{CONNECT} No order was created, and no money moved.",
        "Check the network, then try again.",
    ),
    # An order for a message.
    (
        end_of(failed("create_send_order", REFUSED)),
        3,
        f"{REFUSAL} No order was created, and no money moved.",
        (
            "Check the number and the message. With --immediate, `sms4sats balance` must show "
            "enough for the price."
        ),
    ),
    (
        end_of(failed("create_send_order", UNKNOWN)),
        4,
        f"{NO_ANSWER} {MAYBE_ORDER}",
        ORDER_AGAIN,
    ),
    (
        end_of(failed("create_send_order", NOT_SENT)),
        5,
        f"{CONNECT} No order was created, and no money moved.",
        "Check the network, then try again.",
    ),
    # An invoice for the balance.
    (
        end_of(failed("fund", REFUSED)),
        3,
        f"{REFUSAL} No invoice was created, and no money moved.",
        "Check the amount, and the key in SMS4SATS_API_KEY.",
    ),
    (
        end_of(failed("fund", UNKNOWN)),
        4,
        (
            f"{NO_ANSWER} An invoice may exist, but it did not arrive. No wallet can pay it, so no "
            "money moved."
        ),
        "You can try again.",
    ),
    (
        end_of(failed("fund", NOT_SENT)),
        5,
        f"{CONNECT} No invoice was created, and no money moved.",
        "Check the network, then try again.",
    ),
    # A cancel.
    (
        end_of(failed("cancel_order", REFUSED), Stage.CANCELLING, ORDERED_AT),
        3,
        (
            f"{REFUSAL} The order may be younger than 2 minutes, may have ended, or may be unknown "
            "to the service."
        ),
        CHECK,
    ),
    (
        end_of(failed("cancel_order", UNKNOWN), Stage.CANCELLING, ORDERED_AT),
        4,
        f"{NO_ANSWER} The order may or may not be cancelled.",
        CHECK,
    ),
    (
        end_of(failed("cancel_order", NOT_SENT), Stage.CANCELLING, ORDERED_AT),
        5,
        f"{CONNECT} No cancel was sent, so the order is unchanged.",
        f"Check the network, then run `sms4sats cancel` again. {REFUND}",
    ),
    (
        end_of(OrderError("the end is unknown"), Stage.CANCELLING, ORDERED_AT),
        4,
        "The end is unknown. Whether the order was refunded is unknown.",
        CHECK,
    ),
    # Calls that change nothing.
    (
        end_of(failed("get_order_status", REFUSED)),
        3,
        f"{REFUSAL} Nothing was changed.",
        "Check the order ID.",
    ),
    (
        end_of(failed("get_services", REFUSED)),
        3,
        f"{REFUSAL} Nothing was changed.",
        "Check the arguments, then try again.",
    ),
    (
        end_of(failed("get_price", NOT_SENT)),
        5,
        f"{CONNECT} Nothing was changed.",
        "Check the network and the address, then try again.",
    ),
    # Errors of every call.
    (
        end_of(InvalidArgumentError("the service's list has no country 'x'; see get_countries()")),
        2,
        "The service's list has no country 'x'; see `sms4sats countries`. Nothing was sent.",
        "`--help` shows the usage.",
    ),
    (
        end_of(
            AuthenticationError("this call needs an API key; set SMS4SATS_API_KEY or pass api_key")
        ),
        2,
        "This call needs an API key. Nothing was sent.",
        "Set SMS4SATS_API_KEY in the environment.",
    ),
    (
        end_of(AuthenticationError("the service answered HTTP 403", status_code=403)),
        3,
        "The service answered HTTP 403. Nothing was changed.",
        "Check the key in SMS4SATS_API_KEY.",
    ),
    (
        end_of(
            RateLimitError("the service answered HTTP 429", retry_after=90.4, operation="get_price")
        ),
        5,
        "The service answered HTTP 429. Nothing was changed.",
        "Wait 90 s, as the service asks, before you try again.",
    ),
    (
        end_of(
            RateLimitError(
                "the service answered HTTP 429",
                retry_after=90.4,
                operation="create_order",
                request_outcome=UNKNOWN,
            )
        ),
        4,
        f"The service answered HTTP 429. {MAYBE_ORDER}",
        f"Wait 90 s, as the service asks, before you try again. {ORDER_AGAIN}",
    ),
    (
        # A cancel sends no key, so the key is not the reason.
        end_of(
            AuthenticationError(
                "the service answered HTTP 403",
                status_code=403,
                operation="cancel_order",
                request_outcome=REFUSED,
            ),
            Stage.CANCELLING,
            ORDERED_AT,
        ),
        3,
        (
            "The service answered HTTP 403. The order may be younger than 2 minutes, may have "
            "ended, or may be unknown to the service."
        ),
        CHECK,
    ),
    (
        end_of(journal("create_order")),
        2,
        f"{JOURNAL} Nothing was sent.",
        "Repair the journal, or name another file in SMS4SATS_JOURNAL. Then try again.",
    ),
    (
        end_of(journal("create_order", ORDER)),
        4,
        (
            f"{JOURNAL} The order was created, but the journal does not have it. Its ID and its "
            "invoice are shown above."
        ),
        (
            "Keep the ID: nothing else identifies the order. `sms4sats cancel` with the whole ID "
            "cancels it for a refund."
        ),
    ),
    (
        end_of(journal("code_or_refund"), Stage.WAITING, ORDERED_AT),
        4,
        f"{JOURNAL} {OPEN}",
        (
            "`sms4sats cancel` with the whole ID cancels the order for a refund, even without the "
            f"journal. {REFUND}"
        ),
    ),
    # What the command itself refuses.
    (
        Stop("usage", ExitCode.USAGE, "no such option: --x", command="sms4sats code").end,
        2,
        "No such option: --x. Nothing was sent.",
        "`sms4sats code --help` shows the usage.",
    ),
    (
        end_of(ImportError("the simulator needs uvicorn")),
        2,
        "The simulator needs uvicorn. Nothing was sent.",
        "Install it, then try again.",
    ),
    (
        Stop("simulator", ExitCode.USAGE, "the simulator cannot start: address in use").end,
        2,
        "The simulator cannot start: address in use. No simulator was started.",
        "`sms4sats simulator --help` lists the options.",
    ),
    (
        Stop("postgres", ExitCode.USAGE, "the command needs the DSN of a database").end,
        2,
        "The command needs the DSN of a database. Nothing was changed.",
        (
            "Name a database that you may change in SMS4SATS_POSTGRES_DSN, such as "
            "postgresql://user:password@host/name."
        ),
    ),
    (
        Stop("home", ExitCode.USAGE, "the folder of the journal is unknown").end,
        2,
        "The folder of the journal is unknown. Nothing was sent.",
        "Name a file in SMS4SATS_JOURNAL.",
    ),
    (
        Stop("order ID", ExitCode.USAGE, "the journal has no order with an ID like 'zzzz'").end,
        2,
        "The journal has no order with an ID like 'zzzz'. Nothing was sent.",
        "`sms4sats pending` lists the open orders, and with --json their whole IDs.",
    ),
    (
        Stop("another service", ExitCode.USAGE, "the order belongs to x", root="x").end,
        2,
        "The order belongs to x. Nothing was sent, and the order is unchanged.",
        "Run the command with --base-url x.",
    ),
    (
        Stop("price limit", ExitCode.REFUSED, "the invoice is for 2 sat, and the limit is 1").end,
        3,
        (
            "The invoice is for 2 sat, and the limit is 1. The invoice was not shown, so nothing "
            "was paid."
        ),
        (
            "The order ends automatically, because it is not paid. A higher --max-price allows the "
            "price."
        ),
    ),
    (
        Stop("several orders", ExitCode.UNKNOWN, "2 of 3 orders did not end").end,
        4,
        "2 of 3 orders did not end. The lines above say why. What was paid for them may be held.",
        "`sms4sats pending` lists the open orders, and `sms4sats resume` tries again.",
    ),
    # Interruptions, and failures of the output or of the program, at each stage.
    (
        end_of(KeyboardInterrupt()),
        130,
        "Interrupted. Nothing was changed.",
        "You can try again.",
    ),
    (
        end_of(Interrupted(), Stage.ORDERING),
        130,
        f"Interrupted. {MAYBE_ORDER}",
        ORDER_AGAIN,
    ),
    (
        end_of(Interrupted(), Stage.ASKING, ORDERED_AT),
        130,
        ("Interrupted. The wallet paid nothing. The order ends automatically if it is not paid."),
        "If you paid the invoice from another wallet, `sms4sats resume` waits for the code.",
    ),
    (
        end_of(Interrupted(), Stage.WAITING, ORDERED_AT),
        130,
        f"Interrupted. {OPEN}",
        RESUME,
    ),
    (
        end_of(Interrupted(), Stage.MESSAGE, ORDERED_AT),
        130,
        (
            "Interrupted. The order is open, and what was paid for it is held until the message is "
            "sent."
        ),
        (
            "`sms4sats watch` shows whether it is sent. `sms4sats cancel` cancels the order for a "
            "refund."
        ),
    ),
    (
        end_of(Interrupted(), Stage.CANCELLING, ORDERED_AT),
        130,
        "Interrupted. A cancel may have been sent, so the order may or may not be cancelled.",
        CHECK,
    ),
    (
        end_of(Interrupted(), Stage.RESUMING),
        130,
        (
            "Interrupted. Orders that have not ended stay in the journal, and what was paid for "
            "them is held."
        ),
        (
            "`sms4sats resume` continues. Without a code, the service refunds an order "
            "automatically 21 minutes after it was created."
        ),
    ),
    (
        end_of(Interrupted(), Stage.FUNDING),
        130,
        "Interrupted. An invoice may exist. Money moves only if you pay it.",
        "`sms4sats history` lists what was funded.",
    ),
    (
        end_of(BrokenPipeError(), Stage.WAITING, ORDERED_AT),
        130,
        f"The reader of the output is gone. {OPEN}",
        RESUME,
    ),
    (
        end_of(OSError(28, "No space left on device"), Stage.WAITING, ORDERED_AT),
        4,
        f"Not all of the output was written: No space left on device. {OPEN}",
        RESUME,
    ),
    (
        end_of(KeyError(ORDER_ID), Stage.WAITING, ORDERED_AT),
        4,
        f"The program failed (KeyError). {OPEN}",
        RESUME,
    ),
    (
        end_of(ImportError("no segno"), Stage.WAITING, ORDERED_AT),
        4,
        f"The program failed (ImportError). {OPEN}",
        RESUME,
    ),
    # What the wallet of `--pay` refuses, or does not answer.
    (
        Stop("not paid", ExitCode.REFUSED, "the payment was refused at the terminal").end,
        3,
        (
            "The payment was refused at the terminal. Nothing was paid. The order ends "
            "automatically, because it is not paid."
        ),
        "With --max-price, --pay asks nothing.",
    ),
    (
        Stop("wallet", ExitCode.REFUSED, "the payment failed: no route").end,
        3,
        (
            "The payment failed: no route. The wallet paid nothing. The order ends automatically, "
            "because it is not paid."
        ),
        "Check the wallet with `sms4sats wallet`, then order again.",
    ),
    (
        Stop("wallet key", ExitCode.REFUSED, "the wallet refuses the credentials").end,
        3,
        "The wallet refuses the credentials. Nothing was paid.",
        "Check the wallet's credentials in the environment.",
    ),
    (
        Stop("no wallet", ExitCode.UNREACHABLE, "no connection").end,
        5,
        "No connection. Nothing was paid.",
        "Check the wallet's address in the environment, and that it runs.",
    ),
    # A result that was not shown before.
    (
        end_of(BrokenPipeError(), Stage.WAITING, ORDERED_AT, [CODE]),
        130,
        (
            "The reader of the output is gone. The code arrived, and the money is settled. "
            "Code: 012345"
        ),
        "`sms4sats resume 0123…cdef` shows this result again.",
    ),
    (
        end_of(Interrupted(), Stage.RESUMING, None, [CODE, REFUNDED]),
        130,
        (
            "Interrupted. Orders that have not ended stay in the journal, and what was paid for "
            "them is held. 0123…cdef: The code arrived, and the money is settled. Code: 012345; "
            "ffff…ffff: The service refunded the order. No code will arrive."
        ),
        (
            "`sms4sats resume` continues. Without a code, the service refunds an order "
            "automatically 21 minutes after it was created."
        ),
    ),
]


@pytest.mark.parametrize(("result", "words"), RESULTS_TABLE)
def test_every_result_has_its_words(result: OrderResult, words: str) -> None:
    assert result_in_words(result) == words


def test_every_outcome_has_its_words() -> None:
    assert {*RESULTS} == {*OrderOutcome} == {result.outcome for result, _ in RESULTS_TABLE}


@pytest.mark.parametrize(("end", "code", "message", "next_step"), TABLE)
def test_every_end_says_what_happened_and_what_to_do(
    end: End, code: int, message: str, next_step: str
) -> None:
    assert (end.code, end.message, end.next_step) == (code, message, next_step)


def test_the_table_has_every_text() -> None:
    shown = " ".join(f"{message} {next_step}" for _, _, message, next_step in TABLE)

    def is_shown(text: str) -> bool:
        return all(part in shown for part in re.split(r"\{\w+\}", text))

    assert [key for key, text in TEXTS.items() if not all(map(is_shown, text))] == []


def test_every_part_of_an_end_is_a_sentence() -> None:
    for end, _, message, next_step in TABLE:
        assert message[0].isupper() or message[0].isdigit()
        assert message.endswith((".", "Code: 012345"))
        assert next_step.endswith(".")
        assert ORDER_ID not in f"{end}"


@pytest.mark.parametrize(
    ("outcome", "changing", "reading"), [(REFUSED, 3, 3), (UNKNOWN, 4, 5), (NOT_SENT, 5, 5)]
)
@pytest.mark.parametrize("kind", [TransportError, InvalidResponseError, ServerError])
def test_the_exit_code_says_what_is_known(
    kind: type[Sms4SatsError], outcome: RequestOutcome, changing: int, reading: int
) -> None:
    codes = {each: end_of(kind(operation=each, request_outcome=outcome)).code for each in CALLS}

    assert {codes[each] for each in CHANGING} == {changing}
    assert {codes[each] for each in (*READING, None)} == {reading}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (APIError("no", operation="get_services", request_outcome=REFUSED), 3),
        (CodeTimeoutError("no code within 5 s"), 4),
        (OSError(), 4),
    ],
)
def test_other_errors_have_an_exit_code(error: Exception, code: int) -> None:
    assert end_of(error).code == code


def every_error() -> list[type[Sms4SatsError]]:
    names = map(vars(sms4sats_async).get, sms4sats_async.__all__)
    return [each for each in names if isinstance(each, type) and issubclass(each, Sms4SatsError)]


@pytest.mark.parametrize("kind", every_error())
def test_every_error_has_a_next_step_and_shows_no_order_id(kind: type[Sms4SatsError]) -> None:
    for operation, outcome in product(CALLS, RequestOutcome):
        error = kind(f"it failed for {ORDER_ID}", operation=operation, order_id=ORDER_ID)
        if not isinstance(error, OrderError):
            error.request_outcome = outcome

        end = end_of(error)

        assert end.message.startswith("It failed for 0123…cdef. ")
        assert ORDER_ID not in end.message
        assert end.next_step.endswith(".")


def test_a_code_is_one_line_without_escape_sequences() -> None:
    result = OrderResult(ORDER_ID, OrderOutcome.CODE_RECEIVED, "1234\x1b]0;owned\x07\r\nx")

    assert result_in_words(result).endswith("Code: 1234�]0;owned���x")


def test_a_failure_of_the_program_names_its_place_and_no_foreign_text() -> None:
    with pytest.raises(KeyError) as caught:
        raise KeyError(ORDER_ID)

    message = end_of(caught.value).message

    assert message.startswith("The program failed (KeyError in test_cli_ends.py, line ")
    assert ORDER_ID[:8] not in message


def test_the_time_of_the_refund_may_be_unknown() -> None:
    assert end_of(Interrupted(), Stage.WAITING).next_step.endswith(
        "automatically 21 minutes after it was created."
    )


def test_a_sentence_has_a_capital_letter_and_a_full_stop() -> None:
    assert sentence("") == "."
    assert sentence(f"base_url of {ORDER_ID}.\n") == "--base-url of 0123…cdef.�."
    assert sentence("did you mean it?") == "Did you mean it?"


def test_the_documentation_lists_every_exit_code() -> None:
    page = Path(__file__).parent.parent / "docs" / "command.md"
    rows = re.findall(r"^\| (\d+) \|", page.read_text("utf-8"), re.MULTILINE)

    assert [*map(int, rows)] == [*ExitCode]
