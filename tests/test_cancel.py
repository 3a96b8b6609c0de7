"""`cancel_order`: one endpoint, its retries, and the look at the status."""

from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime

import httpx
import pytest
import respx

from sms4sats_async import (
    DEFAULT_BASE_URL,
    APIError,
    AttemptFailed,
    AuthenticationError,
    BadRequestError,
    Cancellation,
    CancelOutcome,
    CodeAlreadyReceivedError,
    Event,
    InvalidResponseError,
    OrderCancelled,
    RateLimitError,
    RequestOutcome,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    Sms4SatsClient,
    Sms4SatsError,
    TransportError,
    UnableToSaveDataError,
)
from sms4sats_async.simulator import Behaviour, Fault, ManualClock, Simulator

ID = "0123456789abcdef" * 4
START = 1_800_000_000
OK = httpx.Response(200, json={"status": "OK"})
UNABLE = httpx.Response(500, json={"status": "error", "reason": "unable to save data"})


@pytest.fixture
def service() -> Iterator[respx.MockRouter]:
    with respx.mock(base_url=DEFAULT_BASE_URL, assert_all_called=False) as router:
        yield router


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.mark.anyio
async def test_the_services_ok_is_a_cancellation(service: respx.MockRouter) -> None:
    route = service.get("/cancelorder", params={"orderId": ID}).mock(return_value=OK)
    async with Sms4SatsClient() as client:
        done = await client.cancel_order(ID)

    assert done == Cancellation(ID, CancelOutcome.CANCELLED, None, 1)
    assert done.raw == {"status": "OK"}
    assert done.outcome.funds_returned
    assert route.calls.last.request.content == b""


@pytest.mark.anyio
async def test_unable_to_save_data_is_tried_again(
    service: respx.MockRouter, clock: ManualClock
) -> None:
    route = service.get("/cancelorder").mock(side_effect=[UNABLE, UNABLE, OK])
    events: list[Event] = []
    async with Sms4SatsClient(clock=clock, on_event=events.append) as client:
        done = await client.cancel_order(ID)

    assert (done.attempts, route.call_count) == (3, 3)
    first, second, last = events
    assert isinstance(first, AttemptFailed)
    assert isinstance(second, AttemptFailed)
    assert [first.delay, second.delay] == clock.sleeps
    assert isinstance(first.error, UnableToSaveDataError)
    assert (first.attempt, second.attempt) == (1, 2)
    assert last == OrderCancelled(ID, done)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (UNABLE, UnableToSaveDataError),
        (httpx.Response(500, json={"status": "error", "reason": "backend error"}), ServerError),
        (httpx.Response(502, html="<h1>Bad gateway</h1>"), ServerError),
        (httpx.Response(503), ServerError),
        (httpx.Response(504), ServerError),
        (httpx.Response(429), RateLimitError),
        (httpx.Response(200, html="<h1>hello</h1>"), InvalidResponseError),
        (httpx.Response(200, content=b'{"status":"O'), InvalidResponseError),
        (httpx.Response(200, content=b""), InvalidResponseError),
        (httpx.Response(200, json={"status": "perhaps"}), InvalidResponseError),
        (httpx.Response(200, json=["OK"]), InvalidResponseError),
        (httpx.Response(204), InvalidResponseError),
        (httpx.ReadTimeout("late"), RequestTimeoutError),
        (httpx.ReadError("lost"), TransportError),
        (httpx.RemoteProtocolError("cut"), TransportError),
        (httpx.ConnectError("refused"), TransportError),
    ],
)
@pytest.mark.anyio
async def test_what_a_repeat_can_cure_is_tried_as_often_as_the_policy_says(
    answer: httpx.Response | Exception,
    kind: type[Sms4SatsError],
    service: respx.MockRouter,
    clock: ManualClock,
) -> None:
    route = service.get("/cancelorder").mock(
        side_effect=[answer, answer, answer] if isinstance(answer, Exception) else None,
        return_value=None if isinstance(answer, Exception) else answer,
    )
    async with Sms4SatsClient(clock=clock) as client:
        with pytest.raises(kind) as caught:
            await client.cancel_order(ID, retry=RetryPolicy(attempts=3))

    assert type(caught.value) is kind
    assert route.call_count == 3
    assert (caught.value.operation, caught.value.order_id) == ("cancel_order", ID)
    assert caught.value.attempts == 3
    assert "3 attempts" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, APIError),
        (409, APIError),
        (301, APIError),
    ],
)
@pytest.mark.anyio
async def test_a_refusal_that_stays_is_never_repeated(
    status: int, kind: type[APIError], service: respx.MockRouter, clock: ManualClock
) -> None:
    route = service.get("/cancelorder").respond(status, html="<h1>No</h1>")
    async with Sms4SatsClient(clock=clock) as client:
        with pytest.raises(kind) as caught:
            await client.cancel_order(ID)

    assert type(caught.value) is kind
    assert (route.call_count, caught.value.status_code) == (1, status)
    assert clock.sleeps == []


@pytest.mark.anyio
async def test_an_error_in_a_200_is_an_api_error(service: respx.MockRouter) -> None:
    service.get("/cancelorder").respond(json={"status": "error", "reason": "order is busy"})
    async with Sms4SatsClient() as client:
        with pytest.raises(APIError, match="order is busy") as caught:
            await client.cancel_order(ID)
    assert (caught.value.status_code, caught.value.reason) == (200, "order is busy")
    assert caught.value.request_outcome is RequestOutcome.REFUSED


@pytest.mark.parametrize(
    "retry_after", ["7", format_datetime(datetime.fromtimestamp(START + 7, UTC), usegmt=True)]
)
@pytest.mark.anyio
async def test_retry_after_is_obeyed(
    retry_after: str, service: respx.MockRouter, clock: ManualClock
) -> None:
    slow_down = httpx.Response(429, headers={"Retry-After": retry_after})
    service.get("/cancelorder").mock(side_effect=[slow_down, OK])
    async with Sms4SatsClient(clock=clock) as client:
        assert (await client.cancel_order(ID)).attempts == 2
    assert clock.sleeps == [pytest.approx(7, abs=0.01)]


@pytest.mark.parametrize("retry_after", [25, 121])
@pytest.mark.anyio
async def test_a_retry_after_past_the_limit_or_the_deadline_ends_the_call_at_once(
    retry_after: int, service: respx.MockRouter, clock: ManualClock
) -> None:
    route = service.get("/cancelorder").respond(503, headers={"Retry-After": str(retry_after)})
    async with Sms4SatsClient(clock=clock) as client:
        with pytest.raises(ServerError) as caught:
            await client.cancel_order(ID, retry=RetryPolicy(total_timeout=20))
    assert (caught.value.retry_after, route.call_count, clock.sleeps) == (retry_after, 1, [])


@pytest.mark.anyio
async def test_several_attempts_are_as_unclear_as_the_least_clear_of_them(
    service: respx.MockRouter, clock: ManualClock
) -> None:
    service.get("/cancelorder").mock(side_effect=[httpx.ReadTimeout("late"), UNABLE])
    async with Sms4SatsClient(clock=clock) as client:
        with pytest.raises(UnableToSaveDataError, match="is unknown") as caught:
            await client.cancel_order(ID, retry=RetryPolicy(attempts=2))
    assert caught.value.request_outcome is RequestOutcome.UNKNOWN


@pytest.mark.anyio
async def test_a_cancel_that_never_left_is_known_not_to_have_left(
    service: respx.MockRouter, clock: ManualClock
) -> None:
    service.get("/cancelorder").mock(side_effect=httpx.ConnectError("refused"))
    async with Sms4SatsClient(clock=clock) as client:
        with pytest.raises(TransportError, match="No cancel was sent") as caught:
            await client.cancel_order(ID)
    assert caught.value.request_outcome is RequestOutcome.NOT_SENT
    assert isinstance(caught.value.__cause__, httpx.ConnectError)


@pytest.mark.anyio
async def test_without_confirm_nothing_but_the_cancel_is_asked(
    service: respx.MockRouter, clock: ManualClock
) -> None:
    service.get("/cancelorder").mock(return_value=UNABLE)
    status = service.get("/orderstatus").respond(json={})
    async with Sms4SatsClient(clock=clock) as client:
        with pytest.raises(UnableToSaveDataError):
            await client.cancel_order(ID)
    assert not status.called


# --- confirm --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_confirm_does_not_look_where_the_service_says_ok(service: respx.MockRouter) -> None:
    service.get("/cancelorder").mock(return_value=OK)
    status = service.get("/orderstatus").respond(json={})
    async with Sms4SatsClient() as client:
        done = await client.cancel_order(ID, confirm=True)
    assert done.outcome is CancelOutcome.CANCELLED
    assert not status.called


@pytest.mark.anyio
async def test_confirm_finds_the_code_and_stops(
    service: respx.MockRouter, clock: ManualClock
) -> None:
    route = service.get("/cancelorder").mock(return_value=UNABLE)
    service.get("/orderstatus").respond(json={"paid": True, "code": "007", "number": "49123"})
    async with Sms4SatsClient(clock=clock) as client:
        with pytest.raises(CodeAlreadyReceivedError) as caught:
            await client.cancel_order(ID, confirm=True)

    error = caught.value
    assert error.status is not None
    assert (error.status.code, error.status.number) == ("007", "+49123")
    assert (error.operation, error.order_id, error.attempts) == ("cancel_order", ID, 1)
    assert isinstance(error.__cause__, UnableToSaveDataError)
    assert route.call_count == 1


@pytest.mark.parametrize("answer", [UNABLE, httpx.Response(404), httpx.ReadTimeout("late")])
@pytest.mark.anyio
async def test_confirm_finds_that_the_money_was_given_back(
    answer: httpx.Response | Exception, service: respx.MockRouter, clock: ManualClock
) -> None:
    route = service.get("/cancelorder").mock(side_effect=[answer])
    service.get("/orderstatus").respond(json={"paid": True, "error": "No available number"})
    async with Sms4SatsClient(clock=clock) as client:
        done = await client.cancel_order(ID, confirm=True)

    assert done.outcome is CancelOutcome.ALREADY_RELEASED
    assert done.outcome.funds_returned
    assert done.status is not None
    assert done.status.error == "No available number"
    assert (done.attempts, route.call_count) == (1, 1)


@pytest.mark.parametrize(
    "look",
    [
        httpx.Response(200, json={"paid": True}),
        httpx.Response(500, json={"status": "error", "reason": "?"}),
        httpx.ReadTimeout("late"),
    ],
)
@pytest.mark.anyio
async def test_confirm_goes_on_where_the_status_proves_nothing(
    look: httpx.Response | Exception, service: respx.MockRouter, clock: ManualClock
) -> None:
    route = service.get("/cancelorder").mock(side_effect=[UNABLE, OK])
    status = service.get("/orderstatus").mock(side_effect=[look])
    async with Sms4SatsClient(clock=clock) as client:
        done = await client.cancel_order(ID, confirm=True)
    assert (done.outcome, done.attempts) == (CancelOutcome.CANCELLED, 2)
    assert (route.call_count, status.call_count) == (2, 1)


@pytest.mark.anyio
async def test_a_cancel_whose_answer_was_lost_is_found_by_the_look() -> None:
    simulator = Simulator(Behaviour(code_delay=None, pay_delay=0), clock=ManualClock())
    simulator.script("/cancelorder", Fault.reset(after_change=True))
    async with Sms4SatsClient(http_client=simulator.http_client(), clock=simulator.clock) as client:
        order = await client.create_order(187, "tg")
        await simulator.clock.sleep(130)
        done = await client.cancel_order(order, confirm=True)
    assert done.outcome is CancelOutcome.ALREADY_RELEASED
    assert simulator.count("/cancelorder") == 1
    assert simulator.held_orders() == []


@pytest.mark.anyio
async def test_confirm_keeps_to_the_calls_deadline(
    service: respx.MockRouter, clock: ManualClock
) -> None:
    async def take_ten_seconds(_: httpx.Request) -> httpx.Response:
        await clock.sleep(10)
        return UNABLE

    service.get("/cancelorder").mock(side_effect=take_ten_seconds)
    status = service.get("/orderstatus").respond(json={})
    async with Sms4SatsClient(clock=clock) as client:
        with pytest.raises(UnableToSaveDataError):
            await client.cancel_order(ID, confirm=True, retry=RetryPolicy(total_timeout=5))
        assert not status.called
        policy = RetryPolicy(total_timeout=None, attempts=2)
        with pytest.raises(UnableToSaveDataError):
            await client.cancel_order(ID, confirm=True, retry=policy)
    assert status.call_count == 2
