"""The retry loop: what is sent again, when, for how long, and what is reported."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from sms4sats_async import (
    APIError,
    AttemptFailed,
    ClientStateError,
    Event,
    InvalidResponseError,
    RateLimitError,
    RequestOutcome,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    Sms4SatsError,
    TransportError,
    UnableToSaveDataError,
)
from sms4sats_async._http import endpoints as op
from sms4sats_async._http import retrying
from sms4sats_async._http.decode import Cancelled
from sms4sats_async._http.messages import Request, Response
from sms4sats_async._http.retrying import Calls
from sms4sats_async._logging import Reporter
from sms4sats_async.models import OrderState, OrderStatus
from tests.servers import ORDER_ID, JumpingClock

NOT_SENT, REFUSED, UNKNOWN = RequestOutcome

Scripted = Response | BaseException | Callable[[], Awaitable[Response]]


def answer(body: bytes, status: int = 200, **headers: str) -> Response:
    return Response(
        status, {name.replace("_", "-"): value for name, value in headers.items()}, body
    )


OK = answer(b'{"status":"OK","orderId":"%s","payreq":"lnbc1"}' % ORDER_ID.encode())
DONE = Cancelled({"status": "OK", "orderId": ORDER_ID, "payreq": "lnbc1"}, None)
UNABLE = answer(b'{"status":"error","reason":"unable to save data"}', 500)
BAD = answer(b'{"status":"error","reason":"no"}', 400)
HTML = answer(b"<html>")
BUSY = answer(b"", 429)


def lost(outcome: RequestOutcome = UNKNOWN) -> TransportError:
    return TransportError("lost", request_outcome=outcome)


class Script:
    """A transport that answers as scripted, one request after the other."""

    def __init__(self, *script: Scripted) -> None:
        self.script: Iterator[Scripted] = iter(script)
        self.sent: list[tuple[str, float]] = []
        self.closed = 0

    async def send(self, request: Request, *, timeout: float) -> Response:
        await anyio.lowlevel.checkpoint()
        self.sent.append((request.method, timeout))
        next_ = next(self.script)
        if isinstance(next_, Response):
            return next_
        if isinstance(next_, BaseException):
            raise next_
        return await next_()

    async def close(self) -> None:
        self.closed += 1


class Scene:
    """Calls over a script, with a clock that jumps and a jitter that is always the longest.

    The waits are then 1, 2, 4 and so on seconds.
    """

    def __init__(self, *script: Scripted, **policy: Any) -> None:
        self.clock = JumpingClock()
        self.events: list[Event] = []
        self.transport = Script(*script)
        self.retry = RetryPolicy(**{"initial_delay": 1, "maximum_delay": 100, **policy})
        self.calls = self.calls_with()

    def calls_with(
        self, *, timeout: float = 10, report: Callable[[Event], object] | None = None
    ) -> Calls:
        calls = Calls(
            self.transport,
            timeout=timeout,
            retry=self.retry,
            clock=self.clock,
            report=Reporter(self.events.append if report is None else report),
            root="https://sms4sats.com",
        )
        calls.random = lambda: 1.0
        return calls

    async def cancel(self, **more: Any) -> tuple[Cancelled, int]:
        return await self.calls.call(
            op.CANCEL_ORDER, op.CANCEL_ORDER.request(), order_id=ORDER_ID, **more
        )

    async def create(self) -> int:
        _, attempts = await self.calls.call(
            op.CREATE_ORDER, op.CREATE_ORDER.request(body={"country": 1})
        )
        return attempts

    def failures(self) -> list[tuple[int, float | None]]:
        assert all(isinstance(event, AttemptFailed) for event in self.events)
        return [
            (event.attempt, event.delay)
            for event in self.events
            if isinstance(event, AttemptFailed)
        ]


@pytest.mark.anyio
async def test_a_good_answer_ends_the_call() -> None:
    it = Scene(OK)
    assert await it.cancel() == (DONE, 1)
    assert (it.events, it.clock.slept, len(it.transport.sent)) == ([], [], 1)


@pytest.mark.anyio
async def test_waits_grow_and_each_failure_is_reported() -> None:
    it = Scene(UNABLE, lost(), HTML, OK)
    assert await it.cancel() == (DONE, 4)
    assert it.clock.slept == [1, 2, 4]
    assert it.failures() == [(1, 1), (2, 2), (3, 4)]
    assert {(event.order_id, event.operation) for event in it.events} == {  # type: ignore[attr-defined]
        (ORDER_ID, "cancel_order")
    }


@pytest.mark.anyio
async def test_the_last_failure_is_raised_and_reported_without_a_delay() -> None:
    it = Scene(lost(), HTML, UNABLE, attempts=3)
    with pytest.raises(UnableToSaveDataError) as caught:
        await it.cancel()
    error = caught.value
    assert (error.operation, error.order_id, error.attempts) == ("cancel_order", ORDER_ID, 3)
    assert it.clock.slept == [1, 2]
    assert it.failures() == [(1, 1), (2, 2), (3, None)]
    # The error of the event is the one that is raised, complete when it was reported.
    assert it.events[-1].error is error  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_a_wait_is_drawn_between_0_and_its_bound() -> None:
    it = Scene(UNABLE, UNABLE, OK)
    draws = iter([0.0, 0.25])
    it.calls.random = lambda: next(draws)
    await it.cancel()
    assert it.clock.slept == [0.0, 0.5]


@pytest.mark.anyio
async def test_a_lasting_failure_is_not_retried() -> None:
    it = Scene(BAD)
    with pytest.raises(APIError) as caught:
        await it.cancel()
    assert (caught.value.attempts, caught.value.request_outcome) == (1, REFUSED)
    assert it.failures() == [(1, None)]


@pytest.mark.anyio
async def test_a_call_can_have_its_own_policy() -> None:
    it = Scene(UNABLE, attempts=4)
    with pytest.raises(UnableToSaveDataError):
        await it.cancel(retry=RetryPolicy(attempts=1))
    assert len(it.transport.sent) == 1


# --- Retry-After ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "waited"),
    [("7", 7.0), ("0", 1.0), ("0.5", 1.0), ("soon", 1.0), ("-5", 1.0)],
)
@pytest.mark.anyio
async def test_retry_after_is_the_least_wait(value: str, waited: float) -> None:
    it = Scene(answer(b"", 503, retry_after=value), OK)
    await it.cancel()
    assert it.clock.slept == [waited]


@pytest.mark.anyio
async def test_retry_after_can_be_a_date_by_the_clock_of_the_client() -> None:
    it = Scene(OK)
    date = datetime.fromtimestamp(it.clock.now() + 9, UTC)
    it.transport.script = iter(
        [answer(b"", 429, retry_after=format_datetime(date, usegmt=True)), OK]
    )
    await it.cancel()
    assert it.clock.slept == [pytest.approx(9)]


@pytest.mark.parametrize(
    "policy",
    [
        {"retry_after_limit": 119.0, "total_timeout": None},
        {"total_timeout": 120.0},
        {"total_timeout": 30.0},
    ],
    ids=["the limit", "just the deadline", "the deadline"],
)
@pytest.mark.anyio
async def test_a_retry_after_that_is_too_long_ends_the_call(
    policy: dict[str, Any],
) -> None:
    it = Scene(answer(b"", 429, retry_after="120"), OK, **policy)
    with pytest.raises(RateLimitError) as caught:
        await it.cancel()
    assert caught.value.retry_after == 120
    assert (it.clock.slept, it.failures()) == ([], [(1, None)])


# --- the deadline ---------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_no_wait_ends_after_the_deadline() -> None:
    it = Scene(*[UNABLE] * 9, attempts=9, total_timeout=8)
    with pytest.raises(UnableToSaveDataError) as caught:
        await it.cancel()
    # 1 + 2 have passed, and 4 more leave a second; 8 more would not.
    assert (it.clock.slept, caught.value.attempts) == ([1, 2, 4], 4)


@pytest.mark.anyio
async def test_a_sleep_past_the_deadline_is_followed_by_no_attempt() -> None:
    it = Scene(UNABLE, OK, total_timeout=5)

    async def oversleep() -> None:
        it.clock.time += 60

    it.clock.on_sleep = oversleep
    with pytest.raises(UnableToSaveDataError) as caught:
        await it.cancel()
    assert (caught.value.attempts, len(it.transport.sent)) == (1, 1)


@pytest.mark.anyio
async def test_an_attempt_gets_no_more_time_than_the_deadline_leaves() -> None:
    it = Scene(UNABLE, UNABLE, UNABLE, OK, total_timeout=12)
    await it.cancel()
    assert [timeout for _, timeout in it.transport.sent] == [10, 10, 9, 5]


@pytest.mark.anyio
async def test_without_a_deadline_only_the_attempts_are_bounded() -> None:
    it = Scene(*[UNABLE] * 12, OK, attempts=13, total_timeout=None)
    await it.cancel()
    assert sum(it.clock.slept) == 1 + 2 + 4 + 8 + 16 + 32 + 64 + 5 * 100


@pytest.mark.anyio
async def test_a_connection_that_is_free_too_late_sends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retrying, "CONNECTIONS", 1)
    go_on = anyio.Event()

    async def slow() -> Response:
        await go_on.wait()
        it.clock.time += 60
        return OK

    it = Scene(slow, OK, total_timeout=5)

    async def second() -> None:
        with pytest.raises(RequestTimeoutError) as caught:
            await it.create()
        assert caught.value.request_outcome is NOT_SENT

    async with anyio.create_task_group() as group:
        group.start_soon(it.cancel)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(second)
        await anyio.wait_all_tasks_blocked()
        go_on.set()
    assert len(it.transport.sent) == 1


# --- what is known of all attempts together -------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ([lost(NOT_SENT), lost(NOT_SENT)], NOT_SENT),
        ([lost(NOT_SENT), UNABLE], REFUSED),
        ([UNABLE, lost(NOT_SENT)], REFUSED),
        ([lost(UNKNOWN), UNABLE], UNKNOWN),
        ([UNABLE, lost(UNKNOWN)], UNKNOWN),
        ([HTML, lost(NOT_SENT)], UNKNOWN),
        ([lost(UNKNOWN), BAD], UNKNOWN),
    ],
)
@pytest.mark.anyio
async def test_the_least_certain_attempt_decides_the_request_outcome(
    script: list[Scripted], outcome: RequestOutcome
) -> None:
    it = Scene(*script, attempts=2)
    with pytest.raises(Sms4SatsError) as caught:
        await it.cancel()
    assert (caught.value.request_outcome, caught.value.attempts) == (outcome, 2)


# --- an order is made once ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        lost(UNKNOWN),
        RequestTimeoutError("late", request_outcome=UNKNOWN),
        HTML,
        answer(b""),
        answer(b'{"status":"OK"}'),
        answer(b"[]"),
        UNABLE,
        answer(b"", 502),
        answer(b"", 503, retry_after="1"),
        BUSY,
        BAD,
        answer(b"", 401),
        answer(b"", 307),
        answer(b'{"status":"error"}'),
    ],
    ids=repr,
)
@pytest.mark.anyio
async def test_a_creation_that_may_have_arrived_is_sent_once(failure: Scripted) -> None:
    it = Scene(failure, OK)
    with pytest.raises(Sms4SatsError) as caught:
        await it.create()
    assert (caught.value.attempts, it.transport.sent) == (1, [("POST", 10)])


@pytest.mark.anyio
async def test_a_creation_is_retried_only_while_no_request_was_sent() -> None:
    it = Scene(lost(NOT_SENT), lost(NOT_SENT), OK)
    assert await it.create() == 3

    it = Scene(lost(NOT_SENT), lost(UNKNOWN), OK)
    with pytest.raises(TransportError) as caught:
        await it.create()
    assert (caught.value.attempts, caught.value.request_outcome) == (2, UNKNOWN)


# --- what comes after a failure -------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_result_of_the_check_after_a_failure_ends_the_call() -> None:
    it = Scene(UNABLE)
    seen: list[tuple[int, float]] = []

    found = Cancelled({}, OrderStatus(ORDER_ID, OrderState.REFUNDED))

    async def check(failure: Sms4SatsError, left: float) -> Cancelled:
        seen.append((failure.attempts, left))
        return found

    assert await it.cancel(after_failure=check) == (found, 1)
    assert seen == [(1, 30.0)]


@pytest.mark.anyio
async def test_a_check_without_a_result_lets_the_call_go_on() -> None:
    it = Scene(UNABLE, OK)

    async def check(_failure: Sms4SatsError, _left: float) -> None:
        it.clock.time += 3

    assert (await it.cancel(after_failure=check))[1] == 2
    assert it.clock.slept == [1]


@pytest.mark.anyio
async def test_an_error_of_the_check_ends_the_call() -> None:
    async def check(failure: Sms4SatsError, _left: float) -> None:
        raise InvalidResponseError("found") from failure

    with pytest.raises(InvalidResponseError, match="found"):
        await Scene(UNABLE).cancel(after_failure=check)


# --- listeners ------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_what_a_listener_raises_is_logged_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    it = Scene(UNABLE, OK)

    def fail(_event: Event) -> None:
        raise KeyError("mine")

    it.calls = it.calls_with(report=fail)
    assert (await it.cancel())[1] == 2
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.name == "sms4sats_async"
    assert record.getMessage() == "on_event raised on AttemptFailed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


@pytest.mark.anyio
async def test_a_listener_is_optional() -> None:
    transport = Script(UNABLE, OK)
    calls = Calls(
        transport,
        timeout=10,
        retry=RetryPolicy(),
        clock=JumpingClock(),
        report=Reporter(None),
        root="https://sms4sats.com",
    )
    assert (await calls.call(op.PING, op.PING.request()))[1] == 2


# --- cancellations of others ----------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_cancellation_by_the_http_library_is_a_lost_request() -> None:
    it = Scene(asyncio.CancelledError("a closed session"), OK)
    assert (await it.cancel())[1] == 2
    (event,) = it.events
    assert isinstance(event, AttemptFailed)
    assert isinstance(event.error, TransportError)
    assert event.error.request_outcome is UNKNOWN
    assert "the HTTP library cancelled the request" in str(event.error)


@pytest.mark.anyio
async def test_the_cancellation_of_the_call_passes() -> None:
    it = Scene(anyio.sleep_forever, OK)  # type: ignore[arg-type]
    with anyio.move_on_after(0.01) as scope:
        await it.cancel()
    assert scope.cancelled_caught
    assert (len(it.transport.sent), it.events) == (1, [])


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_after_close_nothing_is_sent() -> None:
    it = Scene(OK, OK)
    await it.cancel()
    await it.calls.close()
    await it.calls.close()
    with pytest.raises(ClientStateError, match="closed") as caught:
        await it.cancel()
    assert caught.value.request_outcome is NOT_SENT
    assert len(it.transport.sent) == 1
    assert it.transport.closed >= 1


@pytest.mark.anyio
async def test_calls_that_were_never_used_can_be_closed() -> None:
    it = Scene()
    await it.calls.close()
    assert it.transport.closed == 1


@pytest.mark.anyio
async def test_a_close_during_a_wait_ends_the_call_with_its_failure() -> None:
    it = Scene(UNABLE, OK)
    it.clock.on_sleep = it.calls.close
    with pytest.raises(ServerError) as caught:
        await it.cancel()
    assert (caught.value.attempts, len(it.transport.sent)) == (1, 1)


@pytest.mark.anyio
async def test_the_timeout_ends_an_attempt_of_a_transport_that_hangs() -> None:
    it = Scene(anyio.sleep_forever, OK)  # type: ignore[arg-type]
    it.calls = it.calls_with(timeout=0.02)
    assert await it.cancel() == (DONE, 2)
