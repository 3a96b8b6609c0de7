"""`cancel_order_when_allowed`: never early, never without evidence, never endless."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

import anyio
import attrs
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms4sats_async import (
    APIError,
    AttemptFailed,
    ClientStateError,
    InvalidArgumentError,
    JournalFailed,
    MemoryJournal,
    OrderCreated,
    OrderOutcome,
    RequestOutcome,
    RetryPolicy,
    Sms4SatsClient,
    Sms4SatsError,
    StatusPolled,
    TransportError,
    UnableToSaveDataError,
    Waiting,
)
from sms4sats_async.simulator import Behaviour, Fault, ManualClock
from tests.simulated import (
    CODE,
    HELD,
    LATE_CODE,
    METADATA,
    NEVER_REFUNDED,
    NO_NUMBER,
    ODD_ANSWERS,
    REFUSED,
    FailingJournal,
    Simulated,
    entry_of,
)

pytestmark = pytest.mark.anyio


# --- the wait -------------------------------------------------------------------------------------


async def test_cancel_when_allowed_waits_two_minutes_and_cancels_once() -> None:
    it = Simulated()
    order = await it.order(metadata=METADATA)
    result = await it.client.cancel_order_when_allowed(order)

    assert (result.outcome, result.attempts) == (OrderOutcome.CANCELLED, 1)
    assert (result.refunded, result.code, result.metadata) == (True, None, METADATA)
    assert result.number == it.simulator.order(order.order_id).number
    assert it.cancel_ages() == [pytest.approx(120, abs=0.01)]
    assert it.is_refunded(order.order_id)


async def test_cancel_when_allowed_polls_and_reports_every_event() -> None:
    it = Simulated()
    order = await it.order()
    result = await it.client.cancel_order_when_allowed(order)

    assert 20 <= len(it.poll_ages()) <= 29
    assert len(it.events_of(StatusPolled)) == len(it.poll_ages())
    assert it.events[0] == OrderCreated(order.order_id, order)
    (waiting,) = it.events_of(Waiting)
    assert abs(waiting.until - order.created_at - timedelta(minutes=2)) < timedelta(seconds=0.01)
    assert it.ended() == [result]


async def test_polls_have_jitter() -> None:
    it = Simulated()
    await it.client.cancel_order_when_allowed(await it.order())
    gaps = [later - earlier for earlier, later in pairwise(it.poll_ages())]
    assert len(set(gaps)) == len(gaps)
    assert all(4.25 <= gap <= 5.76 for gap in gaps)


async def test_without_watch_it_reads_no_status() -> None:
    it = Simulated()
    result = await it.client.cancel_order_when_allowed(await it.order(), watch=False)
    assert result.outcome is OrderOutcome.CANCELLED
    assert it.poll_ages() == []


@pytest.mark.parametrize("has_journal", [False, True], ids=["no journal", "journal"])
async def test_an_old_order_is_cancelled_at_once(*, has_journal: bool) -> None:
    it = Simulated(journal=MemoryJournal() if has_journal else None)
    order = await it.order()
    await it.clock.sleep(500)
    before = it.clock.monotonic()
    result = await it.client.cancel_order_when_allowed(order)
    assert result.outcome is OrderOutcome.CANCELLED
    assert it.clock.monotonic() == before
    assert it.poll_ages() == []
    assert it.events_of(Waiting) == []


@pytest.mark.parametrize(
    ("options", "age"),
    [
        ({}, 180),
        ({"created_at": timedelta(seconds=30)}, 150),
        ({"created_at": timedelta(0)}, 120),
        ({"created_at": timedelta(days=365)}, 180),
        ({"minimum_age": 300}, 360),
        ({"minimum_age": timedelta(minutes=5)}, 360),
        ({"minimum_age": 0}, 60),
    ],
    ids=str,
)
async def test_an_id_alone_counts_as_created_now_or_as_given(
    options: dict[str, Any], age: float
) -> None:
    it = Simulated(attrs.evolve(HELD, minimum_cancel_age=0))
    order = await it.order()
    await it.clock.sleep(60)
    if "created_at" in options:
        options = {"created_at": order.created_at + options["created_at"]}
    await it.client.cancel_order_when_allowed(order.order_id, **options)
    assert it.cancel_ages() == [pytest.approx(age, abs=0.01)]


async def test_the_given_creation_counts_more_than_the_orders_own() -> None:
    it = Simulated()
    order = await it.order()
    await it.clock.sleep(60)
    given = order.created_at + timedelta(seconds=30)
    await it.client.cancel_order_when_allowed(order, created_at=given)
    assert it.cancel_ages() == [pytest.approx(150, abs=0.01)]


@pytest.mark.parametrize("minimum_age", [1e12, 1e300, timedelta.max], ids=str)
async def test_a_minimum_age_of_centuries_waits_for_the_automatic_refund(
    minimum_age: float | timedelta,
) -> None:
    it = Simulated(journal=MemoryJournal())
    order = await it.order()
    result = await it.client.cancel_order_when_allowed(order, minimum_age=minimum_age)
    assert result.outcome is OrderOutcome.REFUNDED
    assert it.cancel_ages() == []


async def test_a_machine_that_was_suspended_does_not_wait_again() -> None:
    clock = ManualClock(autojump=False)
    it = Simulated(clock=clock)
    order = await it.order()
    async with anyio.create_task_group() as group:
        group.start_soon(it.client.cancel_order_when_allowed, order)
        await clock.advance(20)
        clock.suspend(3600)
        await clock.advance(6)
    assert it.is_refunded(order.order_id)


async def test_a_clock_that_is_set_back_does_not_lengthen_the_wait() -> None:
    clock = ManualClock(autojump=False)
    it = Simulated(clock=clock)
    order = await it.order()
    async with anyio.create_task_group() as group:
        group.start_soon(it.client.cancel_order_when_allowed, order)
        await clock.advance(60)
        clock.step_wall(-3600)
        await clock.advance(59)
        assert it.cancel_ages() == []
        await clock.advance(2)
    assert it.is_refunded(order.order_id)


@given(
    age=st.floats(0, 130),
    interval=st.floats(0.01, 50),
    start=st.floats(1e9, 4e9),
    created_late=st.floats(0, 1e-6),
    watch=st.booleans(),
    has_journal=st.booleans(),
)
def test_cancel_is_never_sent_before_minimum_age(
    *,
    age: float,
    interval: float,
    start: float,
    created_late: float,
    watch: bool,
    has_journal: bool,
) -> None:
    async def run() -> None:
        journal = MemoryJournal() if has_journal else None
        it = Simulated(clock=ManualClock(start), journal=journal)
        order = await it.order()
        await it.clock.sleep(age + created_late)
        await it.client.cancel_order_when_allowed(
            order, poll_interval=max(interval, 1.0) if watch else interval, watch=watch
        )
        # The simulator refuses what is early by the last bit of its clock.
        (sent,) = it.cancel_ages()
        assert sent >= 120

    anyio.run(run)


# --- the order ends -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "outcome", "code"),
    [
        (CODE, OrderOutcome.CODE_RECEIVED, "007"),
        (NO_NUMBER, OrderOutcome.REFUNDED, None),
    ],
    ids=["code", "refund"],
)
async def test_cancel_when_allowed_stops_at_once_when_the_order_has_ended(
    behaviour: Behaviour, outcome: OrderOutcome, code: str | None
) -> None:
    it = Simulated(behaviour)
    order = await it.order()
    result = await it.client.cancel_order_when_allowed(order)
    assert (result.outcome, result.code, result.attempts) == (outcome, code, 0)
    assert result.status is not None
    assert it.age(order) < 60
    assert it.cancel_ages() == []
    assert it.ended() == [result]


async def test_a_code_that_arrives_during_the_cancel_is_the_result() -> None:
    it = Simulated(LATE_CODE)
    result = await it.client.cancel_order_when_allowed(await it.order(), watch=False)
    assert (result.outcome, result.code) == (OrderOutcome.CODE_RECEIVED, "007")
    assert (result.refunded, result.attempts) == (False, 1)
    assert it.ended() == [result]


async def test_a_code_that_arrives_between_refused_cancels_is_the_result() -> None:
    behaviour = Behaviour(
        pay_delay=0, number_delay=0, code_delay=200, code="007", minimum_cancel_age=1000
    )
    it = Simulated(behaviour)
    result = await it.client.cancel_order_when_allowed(await it.order())
    assert result.code == "007"
    assert result.attempts == len(it.cancel_ages()) > 0


async def test_a_message_that_was_sent_is_the_result() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/orderstatus"
        return httpx.Response(200, json={"paid": True, "smsStatus": "sent", "id": "SM1"})

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    async with Sms4SatsClient(http_client=http, clock=ManualClock()) as client:
        result = await client.cancel_order_when_allowed("ab" * 32)
    assert (result.outcome, result.refunded) == (OrderOutcome.MESSAGE_SENT, False)


@pytest.mark.parametrize("fault", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
async def test_an_odd_answer_is_a_lost_poll(fault: Fault) -> None:
    it = Simulated()
    order = await it.order()
    it.simulator.script("/orderstatus", *[fault] * 3)
    result = await it.client.cancel_order_when_allowed(order)
    assert result.outcome is OrderOutcome.CANCELLED
    assert len(it.events_of(AttemptFailed)) == 3


async def test_a_client_that_is_closed_ends_the_wait() -> None:
    clock = ManualClock(autojump=False)
    it = Simulated(clock=clock)
    order = await it.order()
    with pytest.RaisesGroup(ClientStateError):
        async with anyio.create_task_group() as group:
            group.start_soon(it.client.cancel_order_when_allowed, order)
            await clock.advance(60)
            await it.client.aclose()
            await clock.advance(6)
    assert it.cancel_ages() == []


# --- refusals -------------------------------------------------------------------------------------


async def test_a_service_that_counts_from_the_payment_is_waited_for() -> None:
    it = Simulated(Behaviour(pay_delay=90, code_delay=None, age_counts_from="payment"))
    result = await it.client.cancel_order_when_allowed(await it.order())
    assert result.outcome is OrderOutcome.CANCELLED
    assert result.attempts == len(it.cancel_ages()) > 1
    assert 120 <= it.cancel_ages()[0] < 121
    assert 210 <= it.cancel_ages()[-1] < 280


async def test_the_status_is_read_after_each_refusal_before_the_next_cancel() -> None:
    it = Simulated(REFUSED)
    await it.client.cancel_order_when_allowed(await it.order(), watch=False)
    requests = it.requests()
    cancels = [number for number, path in enumerate(requests) if path == "/cancelorder"]
    assert {requests[number + 1] for number in cancels} == {"/orderstatus"}


async def test_intervals_between_refused_cancels_grow_to_a_minute() -> None:
    it = Simulated(REFUSED)
    await it.client.cancel_order_when_allowed(await it.order(), watch=False)
    first, *waits = [event.until.timestamp() for event in it.events_of(Waiting)]
    assert first < waits[0]
    gaps = [later - earlier for earlier, later in pairwise(waits)]
    assert gaps[:3] == sorted(gaps[:3])
    assert all(gap < 60 + 15 for gap in gaps)


@pytest.mark.parametrize("number_delay", [30, 100, 200])
@pytest.mark.parametrize("watch", [True, False])
async def test_one_retry_comes_120_s_after_the_number_was_first_seen(
    number_delay: float, *, watch: bool
) -> None:
    behaviour = attrs.evolve(REFUSED, number_delay=number_delay)
    it = Simulated(behaviour, retry=RetryPolicy(attempts=1))
    order = await it.order()
    await it.client.cancel_order_when_allowed(order, watch=watch)
    polls, cancels = it.poll_ages(), it.cancel_ages()
    seen = min(age for age in polls if age >= number_delay)
    assert any(seen + 120 <= age <= seen + 121 for age in cancels)


async def test_after_21_minutes_only_the_status_counts() -> None:
    it = Simulated(REFUSED)
    result = await it.client.cancel_order_when_allowed(await it.order(), watch=False)
    assert result.outcome is OrderOutcome.REFUNDED
    assert result.attempts == len(it.cancel_ages())
    assert all(age < 21 * 60 for age in it.cancel_ages())
    assert result.status is not None
    assert result.status.error is not None


async def test_without_evidence_after_21_minutes_the_last_refusal_is_raised() -> None:
    it = Simulated(NEVER_REFUNDED)
    order = await it.order()
    with pytest.raises(UnableToSaveDataError, match="may or may not be cancelled") as caught:
        await it.client.cancel_order_when_allowed(order)

    assert caught.value.request_outcome is RequestOutcome.UNKNOWN
    assert caught.value.attempts == len(it.cancel_ages())
    assert caught.value.order_id == order.order_id
    assert all(age < 21 * 60 for age in it.cancel_ages())
    assert 22 * 60 <= it.age(order) < 22 * 60 + 10
    assert it.ended() == []


async def test_a_service_that_counts_from_later_is_polled_for_another_minute() -> None:
    it = Simulated(attrs.evolve(REFUSED, automatic_cancel_age=21 * 60 + 40))
    order = await it.order()
    await it.clock.sleep(21 * 60 + 1)
    result = await it.client.cancel_order_when_allowed(order)
    assert result.outcome is OrderOutcome.REFUNDED
    assert result.attempts == len(it.cancel_ages()) == RetryPolicy().attempts
    assert 40 <= it.age(order) - 21 * 60 < 46


async def test_the_end_of_an_order_older_than_21_minutes_is_read_from_its_status() -> None:
    it = Simulated()
    order = await it.order()
    await it.clock.sleep(30 * 60)
    result = await it.client.cancel_order_when_allowed(order)
    assert (result.outcome, result.attempts) == (OrderOutcome.REFUNDED, 0)
    assert it.requests() == ["/createorder", "/orderstatus"]


async def test_an_order_older_than_22_minutes_that_is_open_is_cancelled_once() -> None:
    it = Simulated(NEVER_REFUNDED)
    order = await it.order()
    await it.clock.sleep(30 * 60)
    with pytest.raises(UnableToSaveDataError) as caught:
        await it.client.cancel_order_when_allowed(order)
    assert caught.value.request_outcome is RequestOutcome.UNKNOWN
    assert it.age(order) < 31 * 60
    assert len(it.cancel_ages()) == RetryPolicy().attempts


async def test_the_cancel_continues_after_an_outage_of_the_service() -> None:
    it = Simulated()
    order = await it.order()
    await it.clock.sleep(120)
    it.simulator.script("*", *[Fault.reset()] * 23)
    result = await it.client.cancel_order_when_allowed(order)
    assert result.outcome is OrderOutcome.CANCELLED
    assert result.attempts > 4


@pytest.mark.parametrize(("outage", "is_lost"), [(60, False), (290, False), (400, True)])
async def test_a_machine_that_wakes_after_an_hour_waits_for_its_network(
    outage: float, *, is_lost: bool
) -> None:
    it = Simulated(journal=MemoryJournal())
    order = await it.order()
    await it.clock.sleep(3600)
    woken = it.clock.monotonic()

    def answer(request: httpx.Request) -> httpx.Response:
        if it.clock.monotonic() - woken < outage:
            raise httpx.ConnectError("no network")
        done = it.simulator.handle(request.method, request.url.raw_path.decode())
        return httpx.Response(done.status, content=done.body)

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    client = it.new_client(it.client.journal, http_client=http)
    if is_lost:
        with pytest.raises(TransportError):
            await client.cancel_order_when_allowed(order)
    else:
        result = await client.cancel_order_when_allowed(order)
        assert result.outcome is OrderOutcome.REFUNDED
    assert outage - 5 < it.clock.monotonic() - woken < outage + 10 or is_lost


async def test_a_lost_ok_is_not_reported_as_cancelled_without_evidence() -> None:
    it = Simulated(attrs.evolve(HELD, status_after_cancel="unchanged"))
    order = await it.order()
    it.simulator.script("/cancelorder", Fault.cut_json(after_change=True))
    with pytest.raises(Sms4SatsError) as caught:
        await it.client.cancel_order_when_allowed(order)
    assert caught.value.request_outcome is RequestOutcome.UNKNOWN
    assert it.is_refunded(order.order_id)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_lasting_refusal_of_an_order_without_a_status_is_raised(status: int) -> None:
    it = Simulated(Behaviour(cancel_refusal_status=status, cancel_refusal_reason="no such order"))
    with pytest.raises(APIError, match="no such order") as caught:
        await it.client.cancel_order_when_allowed("ab" * 32, watch=False)
    assert caught.value.status_code == status
    assert it.requests() == ["/cancelorder", "/orderstatus"]


async def test_a_lasting_refusal_of_an_open_order_is_retried() -> None:
    behaviour = Behaviour(
        pay_delay=90,
        code_delay=None,
        age_counts_from="payment",
        cancel_refusal_status=400,
        cancel_refusal_reason="too early",
    )
    it = Simulated(behaviour)
    result = await it.client.cancel_order_when_allowed(await it.order())
    assert result.outcome is OrderOutcome.CANCELLED
    assert result.attempts > 1


# --- the journal ----------------------------------------------------------------------------------


async def test_the_end_is_recorded_and_delivered() -> None:
    journal = MemoryJournal()
    it = Simulated(journal=journal)
    order = await it.order()
    await it.client.cancel_order_when_allowed(order.order_id)
    entry = await entry_of(journal, order.order_id)
    assert entry.outcome is OrderOutcome.CANCELLED
    assert entry.delivered_at is not None
    assert (entry.claimed_by, entry.claimed_until) == (None, None)
    assert await journal.undelivered() == []


async def test_the_journal_knows_when_an_id_was_created() -> None:
    it = Simulated(journal=MemoryJournal())
    order = await it.order()
    await it.clock.sleep(60)
    await it.client.cancel_order_when_allowed(order.order_id)
    assert it.cancel_ages() == [pytest.approx(120, abs=0.01)]


async def test_an_unknown_order_is_not_added_to_the_journal() -> None:
    journal = MemoryJournal()
    it = Simulated()
    order = await it.order()
    result = await it.new_client(journal).cancel_order_when_allowed(order)
    assert result.outcome is OrderOutcome.CANCELLED
    assert await journal.history() == []


async def test_a_journal_that_fails_does_not_stop_the_cancel() -> None:
    journal = FailingJournal()
    it = Simulated(journal=journal)
    order = await it.order()
    journal.error = OSError("disk full")
    result = await it.client.cancel_order_when_allowed(order)
    assert result.outcome is OrderOutcome.CANCELLED
    assert it.events_of(JournalFailed)


async def test_an_order_of_another_service_root_is_refused() -> None:
    journal = MemoryJournal()
    it = Simulated(journal=journal)
    order = await it.order()
    other = it.new_client(journal, base_url="https://other.example")
    with pytest.raises(InvalidArgumentError, match=r"other\.example"):
        await other.cancel_order_when_allowed(order)
    assert it.requests() == ["/createorder"]


async def test_a_long_wait_keeps_its_claim() -> None:
    clock, journal = ManualClock(autojump=False), MemoryJournal()
    it = Simulated(clock=clock, journal=journal)
    order = await it.order()
    async with anyio.create_task_group() as group:
        wait = it.client.cancel_order_when_allowed
        group.start_soon(lambda: wait(order, watch=False, minimum_age=600))
        for _ in range(20):
            await clock.advance(29)
            entry = await entry_of(journal, order.order_id)
            assert entry.claimed_until is not None
            assert entry.claimed_until.timestamp() > clock.now()
        await clock.advance(30)
    assert it.cancel_ages() == [pytest.approx(600, abs=0.01)]


# --- cancelled from outside -----------------------------------------------------------------------


async def test_a_wait_that_is_cancelled_leaves_the_client_usable_and_no_claim() -> None:
    clock, journal = ManualClock(autojump=False), MemoryJournal()
    it = Simulated(clock=clock, journal=journal)
    order = await it.order()
    async with anyio.create_task_group() as group:
        group.start_soon(it.client.cancel_order_when_allowed, order)
        await clock.advance(60)
        group.cancel_scope.cancel()
    assert it.cancel_ages() == []
    assert (await entry_of(journal, order.order_id)).claimed_by is None
    await clock.advance(60)
    result = await it.client.cancel_order(order, retry=RetryPolicy(attempts=1))
    assert result.outcome is OrderOutcome.CANCELLED
