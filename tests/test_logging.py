"""The library's log lines: one for each attempt, wait and outcome, with its facts as fields."""

import ast
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sms4sats_async import (
    AttemptFailed,
    Event,
    Invoice,
    JournalError,
    JournalFailed,
    OrderEnded,
    OrderOutcome,
    OrderResult,
    OrderState,
    OrderStatus,
    RequestOutcome,
    Sms4SatsError,
    StatusPolled,
    TransportError,
    UnableToSaveDataError,
)
from sms4sats_async._logging import Reporter
from sms4sats_async.simulator import Behaviour, Fault, ManualClock
from tests.simulated import CODE, HELD, LATE_CODE, NEVER_REFUNDED, NO_NUMBER, Simulated
from tests.test_documents import blocks_of

PAGE = Path(__file__).resolve().parent.parent / "docs" / "logging.md"
NOON = 1_793_534_400  # 2026-11-01 12:00:00 UTC
ORDER_ID = "0123456789abcdef" * 4
# What every record has.
PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in PLAIN}


def lines(
    caplog: pytest.LogCaptureFixture, logger: str = "sms4sats_async"
) -> list[tuple[str, str]]:
    return [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name == logger
    ]


@pytest.mark.anyio
async def test_each_attempt_wait_and_outcome_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    it = Simulated(clock=ManualClock(NOON))
    it.simulator.script("/cancelorder", Fault.unable_to_save_data())
    order = await it.order()
    await it.client.cancel_order_when_allowed(order, watch=False)

    who = f"order {order.order_id[:4]}…{order.order_id[-4:]}"
    (delay,) = (fields["delay"] for fields in map(fields_of, caplog.records) if "delay" in fields)
    assert lines(caplog) == [
        ("DEBUG", "create_order: attempt 1 was answered (HTTP 200)"),
        ("INFO", f"{who}: created"),
        (
            "INFO",
            (
                f"{who}: waiting until 2026-11-01 12:02:00+00:00: "
                "the order cannot be cancelled earlier"
            ),
        ),
        ("DEBUG", f"get_order_status of {who}: attempt 1 was answered (HTTP 200)"),
        (
            "INFO",
            (
                f"cancel_order of {who}: attempt 1 of 4 failed (refused), next in {delay:.1f} s: "
                "the service answered HTTP 500: unable to save data"
            ),
        ),
        ("DEBUG", f"cancel_order of {who}: attempt 2 was answered (HTTP 200)"),
        ("INFO", f"{who}: ended, cancelled"),
    ]


@pytest.mark.anyio
async def test_line_has_its_facts_as_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    it = Simulated()
    order = await it.order()
    await it.client.cancel_order_when_allowed(order)

    masked = f"{order.order_id[:4]}…{order.order_id[-4:]}"
    found = [fields_of(record) for record in caplog.records if record.name == "sms4sats_async"]
    answered = {"order": masked, "operation": "get_order_status", "attempt": 1, "status_code": 200}
    assert answered in found
    assert {"order": masked, "event": "OrderCreated"} in found
    assert {"order": masked, "event": "StatusPolled", "state": "HELD"} in found
    assert found[-1] == {"order": masked, "event": "OrderEnded", "outcome": "CANCELLED"}


REFUSED = UnableToSaveDataError("no", operation="cancel_order", order_id=ORDER_ID)
NOT_SENT = TransportError("no connection", operation="ping")
UNCLEAR = Sms4SatsError("no", operation="cancel_order", request_outcome=None)


@pytest.mark.parametrize(
    ("event", "level", "line", "facts"),
    [
        (
            OrderEnded(ORDER_ID, OrderResult(ORDER_ID, OrderOutcome.CODE_RECEIVED, "123")),
            "INFO",
            "order 0123…cdef: ended, code received",
            {"outcome": "CODE_RECEIVED"},
        ),
        (
            OrderEnded(ORDER_ID, OrderResult(ORDER_ID, None, error=REFUSED)),
            "INFO",
            "order 0123…cdef: the outcome is unknown: no",
            {"outcome": None},
        ),
        (
            OrderEnded(ORDER_ID, OrderResult(ORDER_ID, None)),
            "INFO",
            "order 0123…cdef: the outcome is unknown",
            {"outcome": None},
        ),
        (
            StatusPolled(ORDER_ID, OrderStatus(ORDER_ID, OrderState.CODE_RECEIVED, code="123")),
            "DEBUG",
            "order 0123…cdef: code received",
            {"state": "CODE_RECEIVED"},
        ),
        (
            JournalFailed(None, JournalError("the disk is full")),
            "ERROR",
            "an order: not recorded in the journal: the disk is full",
            {},
        ),
        (
            AttemptFailed(None, "ping", 4, 4, NOT_SENT, None),
            "INFO",
            "ping: attempt 4 of 4 failed (not sent), no more attempts: no connection",
            {
                "operation": "ping",
                "attempt": 4,
                "attempts": 4,
                "delay": None,
                "request_outcome": "NOT_SENT",
                "error": "TransportError",
            },
        ),
        (
            AttemptFailed(ORDER_ID, "cancel_order", 1, 2, UNCLEAR, 0.25),
            "INFO",
            "cancel_order of order 0123…cdef: attempt 1 of 2 failed, next in 0.2 s: no",
            {
                "operation": "cancel_order",
                "attempt": 1,
                "attempts": 2,
                "delay": 0.25,
                "request_outcome": None,
                "error": "Sms4SatsError",
            },
        ),
        (Event(ORDER_ID), "INFO", "order 0123…cdef: Event(order_id=0123…cdef)", {}),
    ],
    ids=["end", "no-end", "no-error", "poll", "journal", "last", "unclear", "other"],
)
def test_event_has_a_line_and_fields(
    caplog: pytest.LogCaptureFixture,
    event: Event,
    level: str,
    line: str,
    facts: dict[str, object],
) -> None:
    caplog.set_level(logging.DEBUG)

    Reporter(None)(event)

    assert lines(caplog) == [(level, line)]
    order = None if event.order_id is None else "0123…cdef"
    assert fields_of(caplog.records[0]) == {"order": order, "event": type(event).__name__} | facts


@pytest.mark.anyio
async def test_nothing_is_logged_below_the_level_of_the_logger(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    it = Simulated()
    it.simulator.script("/cancelorder", Fault.unable_to_save_data())
    await it.client.code_or_refund(await it.order(), timeout=60)

    assert lines(caplog) == []


@pytest.mark.anyio
async def test_error_of_a_listener_is_logged_and_the_call_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def listen(event: Event) -> None:
        raise ValueError(type(event).__name__)

    it = Simulated(on_event=listen)
    result = await it.client.code_or_refund(await it.order(), timeout=60)

    assert result.outcome is OrderOutcome.CANCELLED
    assert ("ERROR", "on_event raised on OrderEnded") in lines(caplog)


# --- the sample of docs/logging.md ----------------------------------------------------------------


def sample() -> Callable[[Event], None]:
    """Return the listener that the page shows, without the calls below it."""
    (code,) = [
        block.code
        for block in blocks_of(PAGE.name, PAGE.read_text("utf-8"))
        if "def log(" in block.code
    ]
    module = ast.parse(code)
    module.body = [node for node in module.body if not isinstance(node, ast.Expr)]
    names: dict[str, Any] = {}
    exec(compile(module, PAGE.name, "exec"), names)  # noqa: S102 - the project's own page
    listener: Callable[[Event], None] = names["log"]
    return listener


@pytest.mark.parametrize(
    ("behaviour", "ends"),
    [
        (CODE, "customer: OrderOutcome.CODE_RECEIVED, refunded: False"),
        (LATE_CODE, "customer: OrderOutcome.CODE_RECEIVED, refunded: False"),
        (HELD, "customer: OrderOutcome.CANCELLED, refunded: True"),
        (NO_NUMBER, "customer: OrderOutcome.REFUNDED, refunded: True"),
        (NEVER_REFUNDED, ""),
    ],
    ids=["code", "late code", "cancelled", "refunded", "cancel fails"],
)
@pytest.mark.anyio
async def test_sample_listener_logs_no_secret(
    behaviour: Behaviour, ends: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    it = Simulated(behaviour, on_event=sample())
    it.simulator.script("/cancelorder", Fault.unable_to_save_data())
    order = await it.order()
    if ends:
        await it.client.code_or_refund(order, timeout=60)
    else:
        with pytest.raises(Sms4SatsError):
            await it.client.code_or_refund(order, timeout=60)

    logged = [line for _, line in lines(caplog, "codes")]
    (simulated,) = it.simulator.orders
    secrets = [
        order.order_id,
        order.invoice,
        Invoice.parse(order.invoice).payment_hash,
        *filter(None, [simulated.code, simulated.number]),
    ]
    assert len(logged) > 3
    assert [line for line in logged for secret in secrets if secret in line] == []
    assert any(line.endswith(ends) for line in logged)


def test_sample_listener_logs_every_event(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    listen = sample()
    failure = TransportError("no answer", request_outcome=RequestOutcome.UNKNOWN)

    listen(AttemptFailed(ORDER_ID, "cancel_order", 1, 2, failure, 0.5))
    listen(AttemptFailed(ORDER_ID, "cancel_order", 2, 2, failure, None))
    listen(JournalFailed(ORDER_ID, JournalError("the disk is full")))
    listen(Event(ORDER_ID))

    assert [level for level, _ in lines(caplog, "codes")] == ["WARNING", "ERROR", "ERROR"]
