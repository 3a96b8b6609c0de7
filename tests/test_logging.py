"""The library's own lines in the log: one for each attempt, wait and outcome, with its facts."""

import logging
from datetime import UTC, datetime

import pytest

from sms4sats_async import (
    CancelFinished,
    CancelOutcome,
    CancelResult,
    Event,
    JournalError,
    JournalFailed,
    RequestOutcome,
    Sms4SatsClient,
    UnableToSaveDataError,
)
from sms4sats_async._logging import log_event
from sms4sats_async.simulator import Behaviour, Fault, ManualClock, Simulator

ORDER_ID = "0123456789abcdef" * 4
# What every record has, whatever it is about.
PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in PLAIN}


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name == "sms4sats_async"
    ]


@pytest.mark.anyio
async def test_an_order_leaves_a_line_for_each_attempt_wait_and_outcome(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    clock = ManualClock(datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp())
    simulator = Simulator(Behaviour(pay_delay=0, code_delay=None), clock=clock)
    simulator.script("/cancelorder", Fault.unable_to_save_data())
    async with Sms4SatsClient(http_client=simulator.http_client(), clock=clock) as client:
        order = await client.create_order(187, "tg")
        await client.cancel_order_when_allowed(order, watch=False)

    who = f"order {order.order_id[:4]}…{order.order_id[-4:]}"
    told = lines(caplog)
    (delay,) = (fields["delay"] for fields in map(fields_of, caplog.records) if "delay" in fields)
    noon_and_two, why = (
        "2026-11-01 12:02:00+00:00",
        "the service cancels no order younger than this",
    )
    failed, problem = (
        "attempt 1 of 4 failed (refused)",
        "the service answered HTTP 500: unable to save data",
    )
    assert told == [
        ("DEBUG", "create_order: attempt 1 was answered (HTTP 200)"),
        ("INFO", f"{who}: made"),
        ("INFO", f"{who}: waiting until {noon_and_two}: {why}"),
        ("DEBUG", f"get_order_status of {who}: attempt 1 was answered (HTTP 200)"),
        ("INFO", f"cancel_order of {who}: {failed}, the next in {delay:.1f} s: {problem}"),
        ("DEBUG", f"cancel_order of {who}: attempt 2 was answered (HTTP 200)"),
        ("INFO", f"{who}: ended, cancelled"),
    ]


@pytest.mark.anyio
async def test_a_line_has_its_facts_as_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    clock = ManualClock()
    simulator = Simulator(Behaviour(pay_delay=0, code_delay=None), clock=clock)
    async with Sms4SatsClient(http_client=simulator.http_client(), clock=clock) as client:
        order = await client.create_order(187, "tg")
        await client.cancel_order_when_allowed(order)

    masked = f"{order.order_id[:4]}…{order.order_id[-4:]}"
    found = [fields_of(record) for record in caplog.records if record.name == "sms4sats_async"]
    answered = {"order": masked, "operation": "get_order_status", "attempt": 1, "status_code": 200}
    assert answered in found
    assert {"order": masked, "event": "StatusPolled", "state": "HELD"} in found
    assert found[-1] == {"order": masked, "event": "OrderCancelled", "outcome": "CANCELLED"}


REFUSED = UnableToSaveDataError("no", operation="cancel_order", order_id=ORDER_ID)


@pytest.mark.parametrize(
    ("event", "level", "line"),
    [
        (
            CancelFinished(ORDER_ID, CancelResult(ORDER_ID, CancelOutcome.CODE_ARRIVED, "123")),
            "INFO",
            "order 0123…cdef: done with, code arrived",
        ),
        (
            CancelFinished(ORDER_ID, CancelResult(ORDER_ID, RequestOutcome.REFUSED, error=REFUSED)),
            "INFO",
            "order 0123…cdef: the cancel failed, refused",
        ),
        (
            JournalFailed(None, JournalError("the disk is full")),
            "ERROR",
            "an order: not written down, what became known: the disk is full",
        ),
        (Event(ORDER_ID), "INFO", "order 0123…cdef: Event(order_id=0123…cdef)"),
    ],
    ids=["ended", "failed", "unwritten", "other"],
)
def test_every_event_has_a_line(
    caplog: pytest.LogCaptureFixture, event: Event, level: str, line: str
) -> None:
    caplog.set_level(logging.DEBUG)

    log_event(event)

    assert lines(caplog) == [(level, line)]


@pytest.mark.anyio
async def test_nothing_is_written_unless_somebody_listens(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    clock = ManualClock()
    simulator = Simulator(Behaviour(code_delay=None), clock=clock)
    simulator.script("/cancelorder", Fault.unable_to_save_data())
    async with Sms4SatsClient(http_client=simulator.http_client(), clock=clock) as client:
        await client.cancel_order_when_allowed(await client.create_order(187, "tg"))

    assert lines(caplog) == []
