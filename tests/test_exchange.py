"""The retry loop: what is sent again, when, for how long, and what is told about it."""

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
    CancelOutcome,
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
from sms4sats_async._http import retrying as room
from sms4sats_async._http.messages import Request, Response
from sms4sats_async._http.retrying import Exchange
from tests.servers import ORDER_ID, JumpingClock

NOT_SENT, REFUSED, UNKNOWN = RequestOutcome

Said = Response | Sms4SatsError | Callable[[], Awaitable[Response]]


def said(body: bytes, status: int = 200, **headers: str) -> Response:
    return Response(
        status, {name.replace("_", "-"): value for name, value in headers.items()}, body
    )


OK = said(b'{"status":"OK","orderId":"%s","payreq":"lnbc1"}' % ORDER_ID.encode())
UNABLE = said(b'{"status":"error","reason":"unable to save data"}', 500)
BAD = said(b'{"status":"error","reason":"no"}', 400)
HTML = said(b"<html>")
BUSY = said(b"", 429)


def lost(outcome: RequestOutcome = UNKNOWN) -> TransportError:
    return TransportError("lost", request_outcome=outcome)


class Script:
    """A transport that says what stands in its script, one after the other."""

    def __init__(self, *script: Said) -> None:
        self.script: Iterator[Said] = iter(script)
        self.sent: list[tuple[str, float]] = []
        self.closed = 0

    async def send(self, request: Request, *, timeout: float) -> Response:
        await anyio.lowlevel.checkpoint()
        self.sent.append((request.method, timeout))
        next_ = next(self.script)
        if isinstance(next_, Response):
            return next_
        if isinstance(next_, Sms4SatsError):
            raise next_
        return await next_()

    async def close(self) -> None:
        self.closed += 1


class Setting:
    """An exchange over a script, with a clock that jumps and a jitter that is always the longest.

    The waits are then 1, 2, 4 and so on seconds.
    """

    def __init__(self, *script: Said, **policy: Any) -> None:
        self.clock = JumpingClock()
        self.events: list[Event] = []
        self.transport = Script(*script)
        self.exchange = Exchange(
            self.transport,
            timeout=10,
            retry=RetryPolicy(**{"initial_delay": 1, "maximum_delay": 100, **policy}),
            clock=self.clock,
            on_event=self.events.append,
        )
        self.exchange.random = lambda: 1.0

    async def cancel(self, **more: Any) -> tuple[CancelOutcome, int]:
        done, attempts = await self.exchange.call(
            op.CANCEL_ORDER, op.CANCEL_ORDER.request(), order_id=ORDER_ID, **more
        )
        return done.outcome, attempts

    async def create(self) -> int:
        _, attempts = await self.exchange.call(
            op.CREATE_ORDER, op.CREATE_ORDER.request(body={"country": 1})
        )
        return attempts

    def told(self) -> list[tuple[int, float | None]]:
        assert all(isinstance(event, AttemptFailed) for event in self.events)
        return [
            (event.attempt, event.delay)
            for event in self.events
            if isinstance(event, AttemptFailed)
        ]


@pytest.mark.anyio
async def test_the_first_good_answer_ends_it() -> None:
    it = Setting(OK)
    assert await it.cancel() == (CancelOutcome.CANCELLED, 1)
    assert (it.events, it.clock.slept, len(it.transport.sent)) == ([], [], 1)


@pytest.mark.anyio
async def test_it_waits_longer_after_each_failure_and_tells_of_each() -> None:
    it = Setting(UNABLE, lost(), HTML, OK)
    assert await it.cancel() == (CancelOutcome.CANCELLED, 4)
    assert it.clock.slept == [1, 2, 4]
    assert it.told() == [(1, 1), (2, 2), (3, 4)]
    assert {(event.order_id, event.operation) for event in it.events} == {  # type: ignore[attr-defined]
        (ORDER_ID, "cancel_order")
    }


@pytest.mark.anyio
async def test_the_last_failure_is_raised_and_told_without_a_delay() -> None:
    it = Setting(lost(), HTML, UNABLE, attempts=3)
    with pytest.raises(UnableToSaveDataError) as caught:
        await it.cancel()
    error = caught.value
    assert (error.operation, error.order_id, error.attempts) == ("cancel_order", ORDER_ID, 3)
    assert it.clock.slept == [1, 2]
    assert it.told() == [(1, 1), (2, 2), (3, None)]
    # An event's error is the very one that is raised, and knew its place when it was told.
    assert it.events[-1].error is error  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_a_wait_is_drawn_between_nothing_and_its_bound() -> None:
    it = Setting(UNABLE, UNABLE, OK)
    draws = iter([0.0, 0.25])
    it.exchange.random = lambda: next(draws)
    await it.cancel()
    assert it.clock.slept == [0.0, 0.5]


@pytest.mark.anyio
async def test_what_a_repeat_cannot_cure_is_raised_at_once() -> None:
    it = Setting(BAD)
    with pytest.raises(APIError) as caught:
        await it.cancel()
    assert (caught.value.attempts, caught.value.request_outcome) == (1, REFUSED)
    assert it.told() == [(1, None)]


@pytest.mark.anyio
async def test_a_call_may_have_a_policy_of_its_own() -> None:
    it = Setting(UNABLE, attempts=4)
    with pytest.raises(UnableToSaveDataError):
        await it.cancel(retry=RetryPolicy(attempts=1))
    assert len(it.transport.sent) == 1


# --- Retry-After ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "waited"),
    [("7", 7.0), ("0", 1.0), ("0.5", 1.0), ("soon", 1.0), ("-5", 1.0)],
)
@pytest.mark.anyio
async def test_retry_after_is_the_least_that_is_waited(value: str, waited: float) -> None:
    it = Setting(said(b"", 503, retry_after=value), OK)
    await it.cancel()
    assert it.clock.slept == [waited]


@pytest.mark.anyio
async def test_retry_after_may_be_a_date_by_the_clients_own_clock() -> None:
    it = Setting(OK)
    date = datetime.fromtimestamp(it.clock.now() + 9, UTC)
    it.transport.script = iter([said(b"", 429, retry_after=format_datetime(date, usegmt=True)), OK])
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
async def test_a_retry_after_that_cannot_be_waited_out_is_raised_at_once(
    policy: dict[str, Any],
) -> None:
    it = Setting(said(b"", 429, retry_after="120"), OK, **policy)
    with pytest.raises(RateLimitError) as caught:
        await it.cancel()
    assert caught.value.retry_after == 120
    assert (it.clock.slept, it.told()) == ([], [(1, None)])


# --- the deadline ---------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_no_wait_goes_past_the_deadline() -> None:
    it = Setting(*[UNABLE] * 9, attempts=9, total_timeout=8)
    with pytest.raises(UnableToSaveDataError) as caught:
        await it.cancel()
    # 1 + 2 have passed, and 4 more leave a second; 8 more would not.
    assert (it.clock.slept, caught.value.attempts) == ([1, 2, 4], 4)


@pytest.mark.anyio
async def test_a_sleep_that_took_too_long_is_not_followed_by_an_attempt() -> None:
    it = Setting(UNABLE, OK, total_timeout=5)

    async def oversleep() -> None:
        it.clock.time += 60

    it.clock.on_sleep = oversleep
    with pytest.raises(UnableToSaveDataError) as caught:
        await it.cancel()
    assert (caught.value.attempts, len(it.transport.sent)) == (1, 1)


@pytest.mark.anyio
async def test_an_attempt_gets_no_more_than_what_is_left() -> None:
    it = Setting(UNABLE, UNABLE, UNABLE, OK, total_timeout=12)
    await it.cancel()
    assert [timeout for _, timeout in it.transport.sent] == [10, 10, 9, 5]


@pytest.mark.anyio
async def test_without_a_deadline_it_goes_on_for_as_long_as_it_takes() -> None:
    it = Setting(*[UNABLE] * 12, OK, attempts=13, total_timeout=None)
    await it.cancel()
    assert sum(it.clock.slept) == 1 + 2 + 4 + 8 + 16 + 32 + 64 + 5 * 100


@pytest.mark.anyio
async def test_a_place_that_comes_too_late_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "CONNECTIONS", 1)
    go_on = anyio.Event()

    async def slow() -> Response:
        await go_on.wait()
        it.clock.time += 60
        return OK

    it = Setting(slow, OK, total_timeout=5)

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
async def test_the_least_certain_attempt_decides_what_is_known(
    script: list[Said], outcome: RequestOutcome
) -> None:
    it = Setting(*script, attempts=2)
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
        said(b""),
        said(b'{"status":"OK"}'),
        said(b"[]"),
        UNABLE,
        said(b"", 502),
        said(b"", 503, retry_after="1"),
        BUSY,
        BAD,
        said(b"", 401),
        said(b"", 307),
        said(b'{"status":"error"}'),
    ],
    ids=repr,
)
@pytest.mark.anyio
async def test_an_order_that_may_have_arrived_is_sent_exactly_once(failure: Said) -> None:
    it = Setting(failure, OK)
    with pytest.raises(Sms4SatsError) as caught:
        await it.create()
    assert (caught.value.attempts, it.transport.sent) == (1, [("POST", 10)])


@pytest.mark.anyio
async def test_an_order_that_never_left_is_sent_again_until_one_may_have() -> None:
    it = Setting(lost(NOT_SENT), lost(NOT_SENT), OK)
    assert await it.create() == 3

    it = Setting(lost(NOT_SENT), lost(UNKNOWN), OK)
    with pytest.raises(TransportError) as caught:
        await it.create()
    assert (caught.value.attempts, caught.value.request_outcome) == (2, UNKNOWN)


# --- what comes after a failure -------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_result_found_after_a_failure_ends_the_call_well() -> None:
    it = Setting(UNABLE)
    seen: list[tuple[int, float]] = []

    async def look(failure: Sms4SatsError, left: float) -> object:
        seen.append((failure.attempts, left))
        return (await found())[0]

    async def found() -> tuple[Any, int]:
        return await Setting(OK).exchange.call(op.CANCEL_ORDER, op.CANCEL_ORDER.request())

    assert await it.cancel(after_failure=look) == (CancelOutcome.CANCELLED, 1)
    assert seen == [(1, 30.0)]


@pytest.mark.anyio
async def test_nothing_found_after_a_failure_lets_the_call_go_on() -> None:
    it = Setting(UNABLE, OK)

    async def look(_failure: Sms4SatsError, _left: float) -> None:
        it.clock.time += 3

    assert (await it.cancel(after_failure=look))[1] == 2
    assert it.clock.slept == [1]


@pytest.mark.anyio
async def test_an_error_found_after_a_failure_is_the_calls_own() -> None:
    async def look(failure: Sms4SatsError, _left: float) -> None:
        raise InvalidResponseError("found") from failure

    with pytest.raises(InvalidResponseError, match="found"):
        await Setting(UNABLE).cancel(after_failure=look)


# --- listeners ------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_listener_that_raises_is_logged_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    it = Setting(UNABLE, OK)

    def fail(_event: Event) -> None:
        raise KeyError("mine")

    exchange = Exchange(
        it.transport, timeout=10, retry=it.exchange.retry, clock=it.clock, on_event=fail
    )
    _, attempts = await exchange.call(op.CANCEL_ORDER, op.CANCEL_ORDER.request())
    assert attempts == 2
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("sms4sats_async", logging.ERROR)
    assert record.getMessage() == "on_event raised on AttemptFailed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


@pytest.mark.anyio
async def test_nobody_has_to_listen() -> None:
    transport = Script(UNABLE, OK)
    exchange = Exchange(
        transport, timeout=10, retry=RetryPolicy(), clock=JumpingClock(), on_event=None
    )
    assert (await exchange.call(op.PING, op.PING.request()))[1] == 2


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_after_close_nothing_is_sent_and_close_may_be_called_again() -> None:
    it = Setting(OK, OK)
    await it.cancel()
    await it.exchange.close()
    await it.exchange.close()
    with pytest.raises(ClientStateError, match="closed") as caught:
        await it.cancel()
    assert caught.value.request_outcome is NOT_SENT
    assert len(it.transport.sent) == 1
    assert it.transport.closed >= 1


@pytest.mark.anyio
async def test_what_was_never_used_can_be_closed() -> None:
    it = Setting()
    await it.exchange.close()
    assert it.transport.closed == 1


@pytest.mark.anyio
async def test_a_close_during_a_wait_ends_the_call_with_its_failure() -> None:
    it = Setting(UNABLE, OK)
    it.clock.on_sleep = it.exchange.close
    with pytest.raises(ServerError) as caught:
        await it.cancel()
    assert (caught.value.attempts, len(it.transport.sent)) == (1, 1)


@pytest.mark.anyio
async def test_the_time_of_an_attempt_ends_a_transport_that_does_not_end() -> None:
    it = Setting(anyio.sleep_forever, OK)  # type: ignore[arg-type]
    exchange = Exchange(
        it.transport, timeout=0.02, retry=it.exchange.retry, clock=it.clock, on_event=None
    )
    done, attempts = await exchange.call(op.CANCEL_ORDER, op.CANCEL_ORDER.request())
    assert (done.outcome, attempts) == (CancelOutcome.CANCELLED, 2)
