"""How a command ends: every outcome and every error of the library has one exit code."""

import re
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest

import sms4sats_async
from sms4sats_async import (
    APIError,
    AuthenticationError,
    Cancellation,
    CancelOutcome,
    CodeAlreadyReceivedError,
    CodeTimeoutError,
    InvalidArgumentError,
    InvalidResponseError,
    JournalError,
    OrderError,
    OrderRefundedError,
    OrderState,
    OrderStatus,
    RateLimitError,
    ReceiveOrder,
    RequestOutcome,
    ServerError,
    Sms4SatsError,
    TransportError,
    UnableToSaveDataError,
)
from sms4sats_async.cli.ends import End, ExitCode, Stage, end_of, interrupted, sentence

ORDER_ID = "0123456789abcdef" * 4
ORDER = ReceiveOrder(ORDER_ID, "lnbc1", datetime(2026, 11, 23, tzinfo=UTC))
STATUS = OrderStatus(ORDER_ID, OrderState.CODE_RECEIVED, code="012345")
NOT_SENT, REFUSED, UNKNOWN = RequestOutcome

CHANGING = ("create_order", "create_send_order", "cancel_order", "fund")
READING = ("get_price", "get_order_status", "get_balance", "get_history", "get_services", None)
CALLS = (*CHANGING, *READING)


@pytest.mark.parametrize(
    ("done", "message"),
    [
        pytest.param(
            Cancellation(ORDER_ID, CancelOutcome.CANCELLED),
            "The order was cancelled: what was paid is back with the payer, or on its way.",
            id="cancelled",
        ),
        pytest.param(
            OrderRefundedError(order_id=ORDER_ID),
            (
                "The service had given the order back already: what was paid is back with the "
                "payer, or on its way."
            ),
            id="given-back",
        ),
        pytest.param(
            CodeAlreadyReceivedError(order_id=ORDER_ID, status=STATUS),
            "The code is here, and the money is spent on it: 012345",
            id="code",
        ),
        pytest.param(
            Cancellation(
                ORDER_ID,
                CancelOutcome.CODE_ARRIVED,
                OrderStatus(ORDER_ID, OrderState.MESSAGE_SENT),
            ),
            "The message was sent, and the money is spent on it.",
            id="message",
        ),
    ],
)
def test_an_order_that_has_ended_is_done(done: object, message: str) -> None:
    assert end_of(done) == End(ExitCode.DONE, message)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        pytest.param(code, error, id=name)
        for name, code, error in (
            ("argument", 2, InvalidArgumentError("country must be a number")),
            ("no-key", 2, AuthenticationError("no key", operation="fund")),
            ("journal", 2, JournalError("it cannot be used", operation="create_order")),
            ("no-uvicorn", 2, ImportError("it needs uvicorn")),
            ("no-code-can-come", 3, OrderError("no code can come: message sent")),
            ("no-code-came", 3, CodeTimeoutError("no code within 5 s")),
            ("wrong-key", 3, AuthenticationError(status_code=401, request_outcome=REFUSED)),
            ("not-written-down", 4, JournalError("the disk is full", order=ORDER)),
            ("full-disk", 4, OSError(28, "No space left on device")),
            ("some-other-disk", 4, OSError()),
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
    """Of a request that changes nothing nothing can be unknown."""
    codes = {each: end_of(kind(operation=each, request_outcome=outcome)).code for each in CALLS}

    assert {codes[each] for each in CHANGING} == {changing}
    assert {codes[each] for each in READING} == {reading}


def every_error() -> list[type[Sms4SatsError]]:
    names = map(vars(sms4sats_async).get, sms4sats_async.__all__)
    return [each for each in names if isinstance(each, type) and issubclass(each, Sms4SatsError)]


@pytest.mark.parametrize("kind", every_error())
def test_every_error_is_one_sentence_and_a_next_step(kind: type[Sms4SatsError]) -> None:
    """Whatever fails, wherever: it is told, with what to do, and the order's id is not shown."""
    for operation, outcome in product(CALLS, RequestOutcome):
        error = kind(
            f"it failed for {ORDER_ID}",
            operation=operation,
            order_id=ORDER_ID,
            attempts=3,
            request_outcome=outcome,
        )

        end = end_of(error)

        assert end.message[0].isupper()
        assert end.message.endswith(".")
        assert ". " not in end.message
        assert ORDER_ID not in end.message
        assert end.code is ExitCode.DONE or (end.next_step or "").endswith(".")


@pytest.mark.parametrize(
    ("error", "message", "next_step"),
    [
        pytest.param(
            UnableToSaveDataError(
                "the service answered HTTP 500: unable to save data",
                operation="cancel_order",
                attempts=4,
                request_outcome=REFUSED,
            ),
            (
                "The order was not cancelled: the service answered HTTP 500: unable to save data "
                "(4 attempts)."
            ),
            "`sms4sats cancel --wait` goes on trying while that can help; without a code",
            id="cancel",
        ),
        pytest.param(
            InvalidArgumentError("the service's list has no country 'x'; see get_countries()"),
            "The service's list has no country 'x'; see `sms4sats countries`.",
            "Nothing was sent",
            id="words-of-the-library",
        ),
        pytest.param(
            AuthenticationError(
                "no", operation="create_order", request_outcome=REFUSED, status_code=403
            ),
            "No order was made and no money moved: no.",
            "Check the key in SMS4SATS_API_KEY.",
            id="key",
        ),
        pytest.param(
            RateLimitError(
                "slow",
                retry_after=90.4,
                operation="get_price",
                request_outcome=REFUSED,
                status_code=429,
            ),
            "Nothing was changed: slow.",
            "Ask again in 90 s",
            id="rest",
        ),
        pytest.param(
            APIError("no", operation="get_services", request_outcome=REFUSED, status_code=404),
            "Nothing was changed: no.",
            "Check what was asked for.",
            id="refusal-that-is-not-in-the-table",
        ),
        pytest.param(
            JournalError("the journal x cannot be used: the disk is full"),
            "The journal x cannot be used: the disk is full.",
            "Mend it, or name another file in SMS4SATS_JOURNAL; then ask again.",
            id="journal",
        ),
        pytest.param(
            AuthenticationError(
                "this call needs an API key; set SMS4SATS_API_KEY or pass api_key",
                operation="get_balance",
            ),
            "Nothing was sent: this call needs an API key.",
            "Set SMS4SATS_API_KEY in the environment.",
            id="no-key",
        ),
    ],
)
def test_what_is_said(error: Sms4SatsError, message: str, next_step: str) -> None:
    end = end_of(error)

    assert end.message == message
    assert end.next_step is not None
    assert end.next_step.startswith(next_step)


def test_a_mistake_of_the_program_says_where_and_quotes_nobody() -> None:
    """The text of a foreign error may hold anything."""
    with pytest.raises(KeyError) as caught:
        raise KeyError(ORDER_ID)

    end = end_of(caught.value)

    assert end.message.startswith("The program itself went wrong (KeyError in test_cli_ends.py, ")
    assert ORDER_ID[:8] not in end.message
    assert end_of("no end at all").message == "The program itself went wrong (str)."


@pytest.mark.parametrize("stage", Stage)
def test_an_interruption_says_what_happens_to_the_money(stage: Stage) -> None:
    end = interrupted(stage)
    known = interrupted(stage, datetime(2026, 11, 23, 14, tzinfo=UTC))

    assert end.code is known.code is ExitCode.INTERRUPTED
    assert end.message == known.message
    if stage in {Stage.READING, Stage.ORDERING}:
        assert end == known
    else:
        there = datetime(2026, 11, 23, 14, 21, tzinfo=UTC).astimezone()
        assert end.next_step is not None
        assert end.next_step.endswith("gives the money back by itself 21 minutes after the order.")
        assert known.next_step is not None
        assert known.next_step.endswith(f"by itself at {there.isoformat(' ', 'seconds')}.")


def test_a_sentence_is_one() -> None:
    assert sentence("") == "."
    assert sentence(f"base_url of {ORDER_ID}.") == "--base-url of 0123…cdef."


def test_the_documentation_lists_every_exit_code() -> None:
    page = Path(__file__).parent.parent / "docs" / "command.md"
    rows = re.findall(r"^\| (\d+) \|", page.read_text("utf-8"), re.MULTILINE)

    assert [*map(int, rows)] == [*ExitCode]
