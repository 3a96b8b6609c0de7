"""`cancel_order`: one endpoint, its retries, and the check of the status."""

from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
import respx

from sms4sats_async import (
    DEFAULT_BASE_URL,
    APIError,
    AttemptFailed,
    AuthenticationError,
    BadRequestError,
    Event,
    InvalidResponseError,
    MemoryJournal,
    Money,
    OrderEnded,
    OrderOutcome,
    OrderResult,
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
from sms4sats_async.simulator import Fault, ManualClock
from tests.simulated import CODE, HELD, METADATA, FailingJournal, Simulated, entry_of

pytestmark = pytest.mark.anyio

ID = "0123456789abcdef" * 4
START = 1_800_000_000
OK = httpx.Response(200, json={"status": "OK"})
UNABLE = httpx.Response(500, json={"status": "error", "reason": "unable to save data"})
NUMBER = httpx.Response(200, json={"paid": True, "number": "49123"})


@pytest.fixture
def service() -> Iterator[respx.MockRouter]:
    with respx.mock(base_url=DEFAULT_BASE_URL, assert_all_called=False) as router:
        yield router


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


def paths(service: respx.MockRouter) -> list[str]:
    calls: list[Any] = list(service.calls)
    return [call.request.url.path for call in calls]


async def test_ok_is_the_result_cancelled(service: respx.MockRouter) -> None:
    route = service.get("/cancelorder", params={"orderId": ID}).mock(return_value=OK)
    async with Sms4SatsClient() as client:
        result = await client.cancel_order(ID)

    assert result == OrderResult(ID, OrderOutcome.CANCELLED, attempts=1)
    assert result.raw == {"status": "OK"}
    assert (result.refunded, result.money) == (True, Money.REFUNDED)
    assert route.calls.last.request.content == b""


async def test_unable_to_save_data_is_retried(
    service: respx.MockRouter, clock: ManualClock
) -> None:
    route = service.get("/cancelorder").mock(side_effect=[UNABLE, UNABLE, OK])
    events: list[Event] = []
    async with Sms4SatsClient(clock=clock, on_event=events.append) as client:
        result = await client.cancel_order(ID)

    assert (result.attempts, route.call_count) == (3, 3)
    first, second, last = events
    assert isinstance(first, AttemptFailed)
    assert isinstance(second, AttemptFailed)
    assert [first.delay, second.delay] == clock.sleeps
    assert isinstance(first.error, UnableToSaveDataError)
    assert (first.attempt, second.attempt) == (1, 2)
    assert last == OrderEnded(ID, result)


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
async def test_a_failure_that_may_pass_is_retried_as_the_policy_says(
    answer: httpx.Response | Exception,
    kind: type[Sms4SatsError],
    service: respx.MockRouter,
    clock: ManualClock,
) -> None:
    route = service.get("/cancelorder").mock(side_effect=[answer] * 3)
    events: list[Event] = []
    async with Sms4SatsClient(clock=clock, on_event=events.append) as client:
        with pytest.raises(kind) as caught:
            await client.cancel_order(ID, retry=RetryPolicy(attempts=3))

    assert type(caught.value) is kind
    assert route.call_count == 3
    assert (caught.value.operation, caught.value.order_id) == ("cancel_order", ID)
    assert caught.value.attempts == 3
    assert "3 attempts" in str(caught.value)
    assert {type(event) for event in events} == {AttemptFailed}


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
async def test_a_lasting_refusal_is_not_retried(
    status: int, kind: type[APIError], service: respx.MockRouter, clock: ManualClock
) -> None:
    route = service.get("/cancelorder").respond(status, html="<h1>No</h1>")
    async with Sms4SatsClient(clock=clock) as client:
        with pytest.raises(kind) as caught:
            await client.cancel_order(ID)

    assert type(caught.value) is kind
    assert (route.call_count, caught.value.status_code) == (1, status)
    assert clock.sleeps == []


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
async def test_a_call_waits_as_long_as_retry_after_says(
    retry_after: str, service: respx.MockRouter, clock: ManualClock
) -> None:
    slow_down = httpx.Response(429, headers={"Retry-After": retry_after})
    service.get("/cancelorder").mock(side_effect=[slow_down, OK])
    async with Sms4SatsClient(clock=clock) as client:
        assert (await client.cancel_order(ID)).attempts == 2
    assert clock.sleeps == [pytest.approx(7, abs=0.01)]


@pytest.mark.parametrize("retry_after", [25, 121], ids=["the deadline", "the limit"])
async def test_a_retry_after_that_is_too_long_ends_the_call(
    retry_after: int, service: respx.MockRouter, clock: ManualClock
) -> None:
    route = service.get("/cancelorder").respond(503, headers={"Retry-After": str(retry_after)})
    async with Sms4SatsClient(clock=clock) as client:
        with pytest.raises(ServerError) as caught:
            await client.cancel_order(ID, retry=RetryPolicy(total_timeout=20))
    assert (caught.value.retry_after, route.call_count, clock.sleeps) == (retry_after, 1, [])


async def test_the_least_certain_attempt_decides_the_request_outcome(
    service: respx.MockRouter, clock: ManualClock
) -> None:
    service.get("/cancelorder").mock(side_effect=[httpx.ReadTimeout("late"), UNABLE])
    async with Sms4SatsClient(clock=clock) as client:
        with pytest.raises(UnableToSaveDataError, match="may or may not be cancelled") as caught:
            await client.cancel_order(ID, retry=RetryPolicy(attempts=2))
    assert caught.value.request_outcome is RequestOutcome.UNKNOWN


async def test_a_cancel_that_was_not_sent_is_reported_as_not_sent(
    service: respx.MockRouter, clock: ManualClock
) -> None:
    service.get("/cancelorder").mock(side_effect=httpx.ConnectError("refused"))
    async with Sms4SatsClient(clock=clock) as client:
        with pytest.raises(TransportError, match="No cancel was sent") as caught:
            await client.cancel_order(ID)
    assert caught.value.request_outcome is RequestOutcome.NOT_SENT
    assert isinstance(caught.value.__cause__, httpx.ConnectError)


# --- confirm --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("confirm", "sent"),
    [
        (False, ["/cancelorder"] * 3),
        (True, ["/cancelorder", "/orderstatus", "/cancelorder", "/orderstatus", "/cancelorder"]),
    ],
)
async def test_confirm_reads_the_status_after_each_failure(
    sent: list[str], service: respx.MockRouter, clock: ManualClock, *, confirm: bool
) -> None:
    service.get("/cancelorder").mock(side_effect=[UNABLE, UNABLE, OK])
    service.get("/orderstatus").mock(side_effect=[httpx.Response(404), NUMBER])
    async with Sms4SatsClient(clock=clock) as client:
        result = await client.cancel_order(ID, confirm=confirm)
    assert paths(service) == sent
    assert (result.outcome, result.attempts) == (OrderOutcome.CANCELLED, 3)
    assert result.number == ("+49123" if confirm else None)
    assert (result.status is not None) is confirm


async def test_confirm_reads_no_status_after_an_ok(service: respx.MockRouter) -> None:
    service.get("/cancelorder").mock(return_value=OK)
    async with Sms4SatsClient() as client:
        result = await client.cancel_order(ID, confirm=True)
    assert result.status is None
    assert paths(service) == ["/cancelorder"]


@pytest.mark.parametrize(
    "answer", [UNABLE, httpx.Response(404), httpx.Response(403), httpx.ReadTimeout("late")]
)
@pytest.mark.parametrize(
    ("status", "end"),
    [
        (
            {"paid": True, "code": "007", "number": "49123"},
            (OrderOutcome.CODE_RECEIVED, False, "007", "+49123"),
        ),
        (
            {"paid": True, "error": "No available number", "number": "49123"},
            (OrderOutcome.REFUNDED, True, None, "+49123"),
        ),
        ({"paid": True, "smsStatus": "sent"}, (OrderOutcome.MESSAGE_SENT, False, None, None)),
    ],
    ids=["code", "refund", "message"],
)
async def test_confirm_returns_the_end_that_the_status_shows(
    answer: httpx.Response | Exception,
    status: dict[str, object],
    end: tuple[object, ...],
    service: respx.MockRouter,
    clock: ManualClock,
) -> None:
    route = service.get("/cancelorder").mock(side_effect=[answer])
    service.get("/orderstatus").respond(json=status)
    events: list[Event] = []
    async with Sms4SatsClient(clock=clock, on_event=events.append) as client:
        result = await client.cancel_order(ID, confirm=True)

    assert (result.outcome, result.refunded, result.code, result.number) == end
    assert result.status is not None
    assert (result.attempts, route.call_count) == (1, 1)
    assert (result.error, result.raw) == (None, {})
    assert events[-1] == OrderEnded(ID, result)
    assert [type(event) for event in events].count(OrderEnded) == 1


async def test_confirm_finds_a_refund_whose_answer_was_lost() -> None:
    it = Simulated()
    order = await it.order()
    await it.clock.sleep(130)
    it.simulator.script("/cancelorder", Fault.reset(after_change=True))
    result = await it.client.cancel_order(order, confirm=True)
    assert result.outcome is OrderOutcome.REFUNDED
    assert len(it.cancel_ages()) == 1
    assert it.is_refunded(order.order_id)


async def test_confirm_keeps_to_the_deadline_of_the_call(
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


async def test_a_closed_client_sends_neither_cancel_nor_status() -> None:
    it = Simulated()
    order = await it.order()
    await it.client.aclose()
    with pytest.raises(Sms4SatsError, match="closed"):
        await it.client.cancel_order(order, confirm=True)
    assert it.requests() == ["/createorder"]


# --- the journal ----------------------------------------------------------------------------------


async def test_the_result_has_the_metadata_and_number_that_the_journal_has() -> None:
    journal = MemoryJournal()
    it = Simulated(journal=journal)
    order = await it.order(metadata=METADATA)
    await it.clock.sleep(130)
    status = await it.client.get_order_status(order)
    result = await it.client.cancel_order(order.order_id)
    assert (result.metadata, result.number) == (METADATA, status.number)
    entry = await entry_of(journal, order.order_id)
    assert entry.outcome is OrderOutcome.CANCELLED
    assert entry.delivered_at is not None


async def test_the_result_has_the_metadata_of_the_order_without_a_journal() -> None:
    it = Simulated()
    order = await it.order(metadata=METADATA)
    await it.clock.sleep(130)
    assert (await it.client.cancel_order(order)).metadata == METADATA


async def test_a_refusal_is_recorded_and_the_order_stays_pending() -> None:
    journal = MemoryJournal()
    it = Simulated(journal=journal)
    order = await it.order()
    with pytest.raises(UnableToSaveDataError):
        await it.client.cancel_order(order)
    (entry,) = await journal.pending()
    assert (entry.refusals, entry.outcome) == (1, RequestOutcome.REFUSED)


async def test_a_recorded_code_outranks_an_ok_to_a_late_cancel() -> None:
    """How the service answers a cancel after the code is unknown: it may be an OK."""
    it = Simulated(CODE, journal=MemoryJournal())
    order = await it.order()
    await it.clock.sleep(130)
    await it.client.get_order_status(order)
    it.simulator.script("/cancelorder", Fault.big_body(0))
    result = await it.client.cancel_order(order)
    assert (result.outcome, result.code) == (OrderOutcome.CODE_RECEIVED, "007")
    assert it.ended() == [result]


async def test_the_result_is_returned_although_the_journal_fails() -> None:
    journal = FailingJournal()
    it = Simulated(HELD, journal=journal)
    order = await it.order()
    await it.clock.sleep(130)
    journal.error = OSError("disk full")
    result = await it.client.cancel_order(order)
    assert result.outcome is OrderOutcome.CANCELLED
