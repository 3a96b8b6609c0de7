"""How a command ends: every outcome and every error has one exit code and one text."""

import re
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

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
    UnableToSaveDataError,
)
from sms4sats_async.cli.ends import (
    RESULTS,
    TEXTS,
    End,
    ExitCode,
    Stage,
    end_of,
    end_of_result,
    interrupted,
    sentence,
)

ORDER_ID = "0123456789abcdef" * 4
ORDER = ReceiveOrder(ORDER_ID, "lnbc1", datetime(2026, 11, 23, tzinfo=UTC))
NOT_SENT, REFUSED, UNKNOWN = RequestOutcome

CHANGING = ("create_order", "create_send_order", "cancel_order", "fund")
READING = ("get_price", "get_order_status", "get_balance", "get_history", "get_services", None)
CALLS = (*CHANGING, *READING)


def failed(
    operation: str, outcome: RequestOutcome, problem: str = "cannot connect to the service"
) -> TransportError:
    return TransportError(problem, operation=operation, request_outcome=outcome)


# Every end side by side, as a user reads them.
ENDS: list[tuple[End, str, str | None]] = [
    (
        end_of_result(OrderResult(ORDER_ID, OrderOutcome.CODE_RECEIVED, "012345")),
        "The code arrived, and the money is settled: 012345",
        None,
    ),
    (
        end_of_result(OrderResult(ORDER_ID, OrderOutcome.CANCELLED)),
        "The order is cancelled. The service refunds what was paid.",
        None,
    ),
    (
        end_of_result(OrderResult(ORDER_ID, OrderOutcome.REFUNDED)),
        "The service refunded the order.",
        None,
    ),
    (
        end_of_result(OrderResult(ORDER_ID, OrderOutcome.MESSAGE_SENT)),
        "The message was sent, and the money is settled.",
        None,
    ),
    (
        end_of(failed("create_order", NOT_SENT)),
        "Cannot connect to the service. No order was created and no money moved.",
        "Try again.",
    ),
    (
        end_of(failed("create_order", REFUSED, "the service answered HTTP 400: no such service")),
        (
            "The service answered HTTP 400: no such service. "
            "No order was created and no money moved."
        ),
        (
            "`sms4sats countries` and `sms4sats services` list what you can order. With "
            "--immediate, check `sms4sats balance` too."
        ),
    ),
    (
        end_of(failed("create_order", UNKNOWN, "no complete answer within 10 s")),
        (
            "No complete answer within 10 s. An order may exist, but its invoice did not arrive, "
            "so it cannot be paid."
        ),
        "With --immediate, check `sms4sats balance` before you order again.",
    ),
    (
        end_of(failed("create_send_order", REFUSED, "the service answered HTTP 500")),
        "The service answered HTTP 500. No order was created and no money moved.",
        "Check the number and the message. With --immediate, check `sms4sats balance`.",
    ),
    (
        end_of(
            UnableToSaveDataError(
                "the service answered HTTP 500: unable to save data",
                operation="cancel_order",
                attempts=4,
                request_outcome=REFUSED,
            )
        ),
        (
            "The service answered HTTP 500: unable to save data (4 attempts). The order was not "
            "cancelled."
        ),
        (
            "`sms4sats cancel` keeps trying. Without a code, the service refunds the order "
            "automatically 21 minutes after it was created."
        ),
    ),
    (
        end_of(failed("cancel_order", UNKNOWN, "no complete answer within 10 s")),
        "No complete answer within 10 s. The order may or may not be cancelled.",
        (
            "`sms4sats status` may show it, and you can safely cancel again. Without a code, the "
            "service refunds the order automatically 21 minutes after it was created."
        ),
    ),
    (
        end_of(failed("cancel_order", NOT_SENT)),
        "Cannot connect to the service. No cancel was sent, so the order is unchanged.",
        (
            "Cancel it again. Without a code, the service refunds the order automatically "
            "21 minutes after it was created."
        ),
    ),
    (
        end_of(failed("fund", UNKNOWN)),
        (
            "Cannot connect to the service. An invoice may exist, but it did not arrive, so it "
            "cannot be paid."
        ),
        "Try again.",
    ),
    (
        end_of(failed("get_price", UNKNOWN)),
        "Cannot connect to the service. Nothing was changed.",
        "Check the network and the address, then try again.",
    ),
    (
        end_of(InvalidArgumentError("the service's list has no country 'x'; see get_countries()")),
        "The service's list has no country 'x'; see `sms4sats countries`. Nothing was sent.",
        "`--help` shows the usage.",
    ),
    (
        end_of(
            AuthenticationError(
                "this call needs an API key; set SMS4SATS_API_KEY or pass api_key",
                operation="get_balance",
            )
        ),
        "This call needs an API key. Nothing was sent.",
        "Set SMS4SATS_API_KEY in the environment.",
    ),
    (
        end_of(AuthenticationError("the service answered HTTP 403", status_code=403)),
        "The service answered HTTP 403. Nothing was changed.",
        "Check the key in SMS4SATS_API_KEY.",
    ),
    (
        end_of(
            RateLimitError(
                "the service answered HTTP 429",
                operation="get_price",
                retry_after=90.4,
                request_outcome=REFUSED,
            )
        ),
        "The service answered HTTP 429. Nothing was changed.",
        "The service asks to wait 90 s before you try again.",
    ),
    (
        end_of(JournalError("the journal x cannot be used: the disk is full")),
        "The journal x cannot be used: the disk is full. Nothing was sent.",
        "Repair the journal, or name another file in SMS4SATS_JOURNAL, then try again.",
    ),
    (
        end_of(JournalError("the disk is full", order=ORDER)),
        "The disk is full. The order was created, but the journal does not have it.",
        "Keep its ID: nothing else identifies the order. Do not order again.",
    ),
    (
        end_of(OrderError("the order's invoice was refused: it expired")),
        "The order's invoice was refused: it expired.",
        "`sms4sats status` shows where the money is.",
    ),
    (
        end_of(OSError(28, "No space left on device")),
        (
            "Not all of the output was written: No space left on device. The command may have done "
            "its work."
        ),
        "Check with `sms4sats pending` before you retry.",
    ),
    (
        interrupted(Stage.READING),
        "Interrupted. Nothing was changed.",
        None,
    ),
    (
        interrupted(Stage.ORDERING),
        ("Interrupted. An order may exist, but its invoice did not arrive, so it cannot be paid."),
        "With --immediate, check `sms4sats balance` before you order again.",
    ),
    (
        interrupted(Stage.WAITING),
        "Interrupted. The order is open. What was paid for it is held.",
        (
            "`sms4sats resume` waits on, and `sms4sats cancel` cancels it for a refund. Without a "
            "code, the service refunds the order automatically 21 minutes after it was created."
        ),
    ),
    (
        interrupted(Stage.CANCELLING),
        ("Interrupted. A cancel was under way, so the order may or may not be cancelled."),
        (
            "You can safely run `sms4sats cancel` again; `sms4sats status` may show it. Without a "
            "code, the service refunds the order automatically 21 minutes after it was created."
        ),
    ),
]


@pytest.mark.parametrize(("end", "message", "next_step"), ENDS)
def test_an_end_has_its_text(end: End, message: str, next_step: str | None) -> None:
    assert (end.message, end.next_step) == (message, next_step)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        pytest.param(code, error, id=name)
        for name, code, error in (
            ("argument", 2, InvalidArgumentError("country must be a number")),
            ("no-key", 2, AuthenticationError("no key", operation="fund")),
            ("journal", 2, JournalError("it cannot be used", operation="create_order")),
            ("no-uvicorn", 2, ImportError("it needs uvicorn")),
            ("no-code-can-arrive", 3, OrderError("no code can arrive: message sent")),
            ("no-code-arrived", 3, CodeTimeoutError("no code within 5 s")),
            ("wrong-key", 3, AuthenticationError(status_code=401, request_outcome=REFUSED)),
            ("refusal", 3, APIError("no", operation="get_services", request_outcome=REFUSED)),
            ("not-recorded", 4, JournalError("the disk is full", order=ORDER)),
            ("full-disk", 4, OSError(28, "No space left on device")),
            ("another-disk", 4, OSError()),
            ("mistake", 4, KeyError("secret")),
        )
    ],
)
def test_an_error_has_an_exit_code(code: int, error: Exception) -> None:
    assert end_of(error).code == code


@pytest.mark.parametrize(
    ("outcome", "changing", "reading"), [(REFUSED, 3, 3), (UNKNOWN, 4, 5), (NOT_SENT, 5, 5)]
)
@pytest.mark.parametrize("kind", [TransportError, InvalidResponseError, ServerError])
def test_the_exit_code_says_what_is_known(
    kind: type[Sms4SatsError], outcome: RequestOutcome, changing: int, reading: int
) -> None:
    codes = {each: end_of(kind(operation=each, request_outcome=outcome)).code for each in CALLS}

    assert {codes[each] for each in CHANGING} == {changing}
    assert {codes[each] for each in READING} == {reading}


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

        assert end.message.startswith("It failed for 0123…cdef. ".rstrip())
        assert end.message.endswith(".")
        assert ORDER_ID not in end.message
        assert (end.next_step or "").endswith(".")


def test_every_text_of_the_table_is_sentences() -> None:
    texts = [text for pair in TEXTS.values() for text in pair if text] + [*RESULTS.values()]
    assert [text for text in texts if not text.endswith((".", "{}"))] == []


def test_every_outcome_has_a_text() -> None:
    assert {*RESULTS} == {*OrderOutcome}


def test_a_code_is_shown_on_one_line_without_escape_sequences() -> None:
    result = OrderResult(ORDER_ID, OrderOutcome.CODE_RECEIVED, "1234\x1b]0;owned\x07\r\nx")

    assert end_of_result(result).message.endswith(": 1234�]0;owned���x")


def test_a_failure_of_the_program_names_its_place_and_no_foreign_text() -> None:
    with pytest.raises(KeyError) as caught:
        raise KeyError(ORDER_ID)

    end = end_of(caught.value)

    assert end.message.startswith("The program failed (KeyError in test_cli_ends.py, line ")
    assert ORDER_ID[:8] not in end.message
    assert end_of(KeyError()).message.startswith("The program failed (KeyError). ")


@pytest.mark.parametrize("stage", Stage)
def test_an_interruption_names_the_time_of_the_refund_if_it_is_known(stage: Stage) -> None:
    end = interrupted(stage, datetime(2026, 11, 23, 14, tzinfo=UTC))

    there = datetime(2026, 11, 23, 14, 21, tzinfo=UTC).astimezone().isoformat(" ", "seconds")
    assert end.code is ExitCode.INTERRUPTED
    names_it = end.next_step is not None and f"automatically at {there}." in end.next_step
    assert names_it is (stage not in {Stage.READING, Stage.ORDERING})


def test_a_sentence_has_a_capital_letter_a_full_stop_and_no_order_id() -> None:
    assert sentence("") == "."
    assert sentence(f"base_url of {ORDER_ID}.") == "--base-url of 0123…cdef."


def test_the_documentation_lists_every_exit_code() -> None:
    page = Path(__file__).parent.parent / "docs" / "command.md"
    rows = re.findall(r"^\| (\d+) \|", page.read_text("utf-8"), re.MULTILINE)

    assert [*map(int, rows)] == [*ExitCode]
