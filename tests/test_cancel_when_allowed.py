"""`cancel_order_when_allowed`: never early, never without evidence, never for ever."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms4sats_async import (
    APIError,
    AttemptFailed,
    CancelOutcome,
    ClientStateError,
    Event,
    OrderCancelled,
    OrderCreated,
    ReceiveOrder,
    RequestOutcome,
    RetryPolicy,
    Sms4SatsClient,
    Sms4SatsError,
    StatusPolled,
    UnableToSaveDataError,
    Waiting,
)
from sms4sats_async.simulator import Behaviour, Fault, Holder, ManualClock, Simulator

pytestmark = pytest.mark.anyio

NO_CODE = Behaviour(pay_delay=10, code_delay=None)
NEVER = Behaviour(pay_delay=10, code_delay=None, minimum_cancel_age=10_000)


class World:
    """A simulator, a clock that jumps, a client of both, and what the client told."""

    def __init__(self, behaviour: Behaviour, clock: ManualClock | None = None) -> None:
        self.clock = ManualClock() if clock is None else clock
        self.simulator = Simulator(behaviour, clock=self.clock)
        self.events: list[Event] = []
        self.client = Sms4SatsClient(
            http_client=self.simulator.http_client(),
            clock=self.clock,
            on_event=self.events.append,
            timeout=0.1,
        )

    def cancels(self) -> list[float]:
        """When each cancel reached the service."""
        return [request.time for request in self.simulator.requests if "cancel" in request.path]

    def ages(self, order: ReceiveOrder) -> list[float]:
        """How old the order was at each cancel."""
        return [moment - order.created_at.timestamp() for moment in self.cancels()]

    def told(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


@asynccontextmanager
async def a_world(
    behaviour: Behaviour, clock: ManualClock | None = None
) -> AsyncGenerator[tuple[World, ReceiveOrder]]:
    world = World(behaviour, clock)
    async with world.client:
        yield world, await world.client.create_order(187, "tg")


# --- the wait -------------------------------------------------------------------------------------


async def test_it_waits_out_the_two_minutes_and_cancels_once() -> None:
    async with a_world(NO_CODE) as (world, order):
        done = await world.client.cancel_order_when_allowed(order)

        assert (done.outcome, done.attempts) == (CancelOutcome.CANCELLED, 1)
        assert world.simulator.holder(order.order_id) is Holder.RETURNED
        (age,) = world.ages(order)
        assert 120 <= age < 120.01


async def test_it_polls_the_status_meanwhile_and_tells_of_everything() -> None:
    async with a_world(NO_CODE) as (world, order):
        done = await world.client.cancel_order_when_allowed(order)

        assert 20 <= world.simulator.count("/orderstatus") <= 29
        assert len(world.told(StatusPolled)) == world.simulator.count("/orderstatus")
        assert world.events[0] == OrderCreated(order.order_id, order)
        waiting = world.events[1]
        assert isinstance(waiting, Waiting)
        assert waiting.until == order.created_at + timedelta(minutes=2)
        assert world.told(OrderCancelled) == [OrderCancelled(order.order_id, done)]


async def test_polls_are_not_in_step() -> None:
    async with a_world(NO_CODE) as (world, order):
        await world.client.cancel_order_when_allowed(order)
        assert len(set(world.clock.sleeps)) > 10
        assert all(seconds <= 5.75 for seconds in world.clock.sleeps)


async def test_unwatched_it_asks_for_no_status() -> None:
    async with a_world(NO_CODE) as (world, order):
        done = await world.client.cancel_order_when_allowed(order, watch=False)
        assert done.outcome is CancelOutcome.CANCELLED
        assert world.simulator.count("/orderstatus") == 0


async def test_an_old_enough_order_is_cancelled_at_once() -> None:
    async with a_world(NO_CODE) as (world, order):
        await world.clock.sleep(500)
        before = world.clock.monotonic()
        done = await world.client.cancel_order_when_allowed(order)
        assert done.outcome is CancelOutcome.CANCELLED
        assert world.clock.monotonic() == before


async def test_an_id_alone_is_taken_to_be_made_now() -> None:
    async with a_world(NO_CODE) as (world, order):
        await world.clock.sleep(60)
        await world.client.cancel_order_when_allowed(order.order_id)
        assert world.ages(order) == [pytest.approx(180, abs=0.01)]


async def test_a_given_time_of_making_counts_more_than_the_orders() -> None:
    async with a_world(NO_CODE) as (world, order):
        await world.clock.sleep(60)
        given = order.created_at + timedelta(seconds=30)
        await world.client.cancel_order_when_allowed(order, created_at=given)
        assert world.ages(order) == [pytest.approx(150, abs=0.01)]


async def test_an_order_from_the_future_is_taken_to_be_made_now() -> None:
    async with a_world(NO_CODE) as (world, order):
        given = order.created_at + timedelta(days=365)
        await world.client.cancel_order_when_allowed(order.order_id, created_at=given)
        assert world.ages(order) == [pytest.approx(120, abs=0.01)]


@pytest.mark.parametrize("minimum_age", [300, timedelta(minutes=5)])
async def test_another_minimum_age_is_obeyed(minimum_age: float | timedelta) -> None:
    async with a_world(NO_CODE) as (world, order):
        await world.client.cancel_order_when_allowed(order, minimum_age=minimum_age)
        assert world.ages(order) == [pytest.approx(300, abs=0.01)]


@pytest.mark.parametrize("minimum_age", [1e12, timedelta.max], ids=str)
async def test_a_minimum_age_beyond_any_calendar_only_waits_for_the_end(
    minimum_age: float | timedelta,
) -> None:
    async with a_world(NO_CODE) as (world, order):
        done = await world.client.cancel_order_when_allowed(order, minimum_age=minimum_age)
        assert done.outcome is CancelOutcome.ALREADY_RELEASED
        assert world.cancels() == []


async def test_a_laptop_that_slept_does_not_wait_again() -> None:
    clock = ManualClock(autojump=False)
    async with a_world(NO_CODE, clock) as (world, order), anyio.create_task_group() as group:
        group.start_soon(world.client.cancel_order_when_allowed, order)
        await clock.advance(20)
        clock.suspend(3600)
        await clock.advance(6)
    assert world.simulator.holder(order.order_id) is Holder.RETURNED


async def test_a_clock_that_is_set_back_does_not_make_it_wait_longer() -> None:
    clock = ManualClock(autojump=False)
    async with a_world(NO_CODE, clock) as (world, order), anyio.create_task_group() as group:
        group.start_soon(world.client.cancel_order_when_allowed, order)
        await clock.advance(60)
        clock.step_wall(-3600)
        await clock.advance(59)
        assert world.cancels() == []
        await clock.advance(2)
    assert world.simulator.holder(order.order_id) is Holder.RETURNED


@given(
    age=st.floats(0, 130),
    interval=st.floats(0.01, 50),
    start=st.floats(1e9, 4e9),
    created_late=st.floats(0, 1e-6),
)
def test_the_cancel_is_never_sent_early(
    age: float, interval: float, start: float, created_late: float
) -> None:
    async def run() -> None:
        world = World(Behaviour(code_delay=None), ManualClock(start))
        async with world.client:
            order = await world.client.create_order(187, "tg")
            await world.clock.sleep(age + created_late)
            await world.client.cancel_order_when_allowed(order, poll_interval=interval, watch=False)
            # The simulator refuses what is early by the last bit of its clock.
            (sent,) = world.cancels()
            assert sent - world.simulator.order(order.order_id).created_at >= 120

    anyio.run(run)


# --- it stops -------------------------------------------------------------------------------------


async def test_it_stops_at_once_when_the_code_arrives() -> None:
    behaviour = Behaviour(pay_delay=0, number_delay=0, code_delay=33, code="007")
    async with a_world(behaviour) as (world, order):
        done = await world.client.cancel_order_when_allowed(order)

        assert (done.outcome, done.attempts) == (CancelOutcome.CODE_ARRIVED, 0)
        assert not done.outcome.funds_returned
        assert done.status is not None
        assert done.status.code == "007"
        assert world.cancels() == []
        assert world.told(OrderCancelled) == [OrderCancelled(order.order_id, done)]


async def test_it_stops_at_once_when_the_service_has_refunded() -> None:
    async with a_world(Behaviour(pay_delay=0, number_available=False)) as (world, order):
        done = await world.client.cancel_order_when_allowed(order)
        assert done.outcome is CancelOutcome.ALREADY_RELEASED
        assert done.outcome.funds_returned
        assert world.cancels() == []


async def test_a_code_that_comes_just_before_the_cancel_is_found_by_the_confirmation() -> None:
    behaviour = Behaviour(pay_delay=0, number_delay=0, code_delay=119, code="007")
    async with a_world(behaviour) as (world, order):
        done = await world.client.cancel_order_when_allowed(order, watch=False)
        assert (done.outcome, done.attempts) == (CancelOutcome.CODE_ARRIVED, 1)
        assert done.status is not None
        assert done.status.code == "007"


@pytest.mark.parametrize(
    "fault", [Fault.http(500, "?"), Fault.http(404), Fault.html(), Fault.reset(), Fault.hang()]
)
async def test_failed_polls_do_not_end_the_wait(fault: Fault) -> None:
    async with a_world(NO_CODE) as (world, order):
        world.simulator.script("/orderstatus", *[fault] * 3)
        done = await world.client.cancel_order_when_allowed(order)
        assert done.outcome is CancelOutcome.CANCELLED
        assert len(world.told(AttemptFailed)) == 3


async def test_a_client_that_is_closed_meanwhile_ends_the_wait() -> None:
    clock = ManualClock(autojump=False)
    world = World(NO_CODE, clock)
    order = await world.client.create_order(187, "tg")
    with pytest.RaisesGroup(ClientStateError):
        async with anyio.create_task_group() as group:
            group.start_soon(world.client.cancel_order_when_allowed, order)
            await clock.advance(60)
            await world.client.aclose()
            await clock.advance(6)
    assert world.cancels() == []


# --- refusals -------------------------------------------------------------------------------------


async def test_a_service_that_counts_from_the_payment_is_waited_out() -> None:
    behaviour = Behaviour(pay_delay=90, code_delay=None, age_counts_from="payment")
    async with a_world(behaviour) as (world, order):
        done = await world.client.cancel_order_when_allowed(order)

        assert done.outcome is CancelOutcome.CANCELLED
        assert done.attempts == len(world.cancels()) > 1
        ages = world.ages(order)
        assert 120 <= ages[0] < 121
        assert 210 <= ages[-1] < 280


async def test_the_waits_between_refused_cancels_grow_and_are_bounded() -> None:
    async with a_world(NEVER) as (world, order):
        await world.client.cancel_order_when_allowed(order, watch=False)
        waits = [event.until.timestamp() for event in world.events if isinstance(event, Waiting)]
        gaps = [later - earlier for earlier, later in pairwise(waits)]
        assert gaps[:3] == sorted(gaps[:3])
        assert all(gap < 60 + 15 for gap in gaps)


async def test_after_21_minutes_the_status_tells_that_the_money_is_back() -> None:
    async with a_world(NEVER) as (world, order):
        done = await world.client.cancel_order_when_allowed(order, watch=False)

        assert done.outcome is CancelOutcome.ALREADY_RELEASED
        assert done.attempts == len(world.cancels())
        assert all(age < 21 * 60 for age in world.ages(order))
        assert done.status is not None
        assert done.status.error is not None


async def test_where_the_status_does_not_tell_either_the_outcome_is_unknown() -> None:
    never_ever = Behaviour(
        pay_delay=10, code_delay=None, minimum_cancel_age=1e6, automatic_cancel_age=1e6
    )
    async with a_world(never_ever) as (world, order):
        with pytest.raises(UnableToSaveDataError, match="is unknown") as caught:
            await world.client.cancel_order_when_allowed(order)

        assert caught.value.request_outcome is RequestOutcome.UNKNOWN
        assert caught.value.attempts == len(world.cancels())
        assert caught.value.order_id == order.order_id
        assert all(age < 21 * 60 for age in world.ages(order))
        age = world.clock.now() - order.created_at.timestamp()
        assert 22 * 60 <= age < 22 * 60 + 10
        assert world.told(OrderCancelled) == []


async def test_an_order_that_is_open_after_21_minutes_is_not_cancelled_again_and_again() -> None:
    """The service may count from a moment later than ours: then its status alone tells."""
    late = Behaviour(
        pay_delay=10, code_delay=None, minimum_cancel_age=10_000, automatic_cancel_age=21 * 60 + 40
    )
    async with a_world(late) as (world, order):
        await world.clock.sleep(21 * 60)
        done = await world.client.cancel_order_when_allowed(order)

        assert done.outcome is CancelOutcome.ALREADY_RELEASED
        assert done.attempts == len(world.cancels()) == RetryPolicy().attempts
        assert done.status is not None
        assert done.status.error is not None
        assert 40 <= world.clock.now() - order.created_at.timestamp() - 21 * 60 < 46


async def test_an_order_older_than_21_minutes_is_tried_once_and_then_looked_at() -> None:
    async with a_world(NO_CODE) as (world, order):
        await world.clock.sleep(30 * 60)
        done = await world.client.cancel_order_when_allowed(order)
        assert done.outcome is CancelOutcome.ALREADY_RELEASED
        assert len(world.cancels()) == 1


async def test_an_order_older_than_21_minutes_that_still_looks_open_is_unknown_at_once() -> None:
    never_ever = Behaviour(
        pay_delay=10, code_delay=None, minimum_cancel_age=1e6, automatic_cancel_age=1e6
    )
    async with a_world(never_ever) as (world, order):
        await world.clock.sleep(30 * 60)
        with pytest.raises(UnableToSaveDataError) as caught:
            await world.client.cancel_order_when_allowed(order)
        assert caught.value.request_outcome is RequestOutcome.UNKNOWN
        assert world.clock.now() - order.created_at.timestamp() < 31 * 60


async def test_a_service_that_cannot_be_reached_for_a_while_is_waited_for() -> None:
    async with a_world(NO_CODE) as (world, order):
        await world.clock.sleep(120)
        world.simulator.script("*", *[Fault.reset()] * 23)
        done = await world.client.cancel_order_when_allowed(order)
        assert done.outcome is CancelOutcome.CANCELLED
        assert done.attempts > 4


async def test_a_lost_ok_is_never_reported_as_cancelled_without_evidence() -> None:
    shows_nothing = Behaviour(pay_delay=10, code_delay=None, status_after_cancel="unchanged")
    async with a_world(shows_nothing) as (world, order):
        world.simulator.script("/cancelorder", Fault.cut_json(after_change=True))
        with pytest.raises(Sms4SatsError) as caught:
            await world.client.cancel_order_when_allowed(order)
        assert caught.value.request_outcome is RequestOutcome.UNKNOWN
        assert world.simulator.holder(order.order_id) is Holder.RETURNED


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_lasting_refusal_of_an_order_that_the_status_does_not_know_is_raised(
    status: int,
) -> None:
    world = World(Behaviour(cancel_refusal_status=status, cancel_refusal_reason="no such order"))
    async with world.client:
        with pytest.raises(APIError, match="no such order") as caught:
            await world.client.cancel_order_when_allowed("ab" * 32, watch=False)
    assert caught.value.status_code == status
    assert len(world.cancels()) == 1


async def test_a_lasting_refusal_of_an_order_that_is_open_is_waited_out() -> None:
    behaviour = Behaviour(
        pay_delay=90,
        code_delay=None,
        age_counts_from="payment",
        cancel_refusal_status=400,
        cancel_refusal_reason="too early",
    )
    async with a_world(behaviour) as (world, order):
        done = await world.client.cancel_order_when_allowed(order)
        assert done.outcome is CancelOutcome.CANCELLED
        assert done.attempts > 1


async def test_a_code_that_arrives_between_refused_cancels_ends_it() -> None:
    late = Behaviour(pay_delay=0, number_delay=0, code_delay=200, minimum_cancel_age=1000)
    async with a_world(late) as (world, order):
        done = await world.client.cancel_order_when_allowed(order)
        assert done.outcome is CancelOutcome.CODE_ARRIVED
        assert done.attempts == len(world.cancels()) > 0


async def test_the_status_is_asked_with_retries_once_it_alone_counts() -> None:
    async with a_world(NEVER) as (world, order):
        await world.clock.sleep(21 * 60 - 1)
        world.simulator.script("/orderstatus", None, *[Fault.http(503)] * 2)
        done = await world.client.cancel_order_when_allowed(order, watch=False)
        assert done.outcome is CancelOutcome.ALREADY_RELEASED
        assert world.simulator.count("/orderstatus") >= 4


async def test_a_message_that_was_sent_is_no_money_to_ask_back() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/orderstatus"
        return httpx.Response(200, json={"paid": True, "smsStatus": "sent", "id": "SM1"})

    http_client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    async with Sms4SatsClient(http_client=http_client, clock=ManualClock()) as client:
        done = await client.cancel_order_when_allowed("ab" * 32)
    assert not done.outcome.funds_returned


# --- cancelled from outside -----------------------------------------------------------------------


async def test_a_wait_that_is_cancelled_from_outside_leaves_the_client_usable() -> None:
    clock = ManualClock(autojump=False)
    async with a_world(NO_CODE, clock) as (world, order):
        async with anyio.create_task_group() as group:
            group.start_soon(world.client.cancel_order_when_allowed, order)
            await clock.advance(60)
            group.cancel_scope.cancel()
        assert world.cancels() == []
        await clock.advance(60)
        done = await world.client.cancel_order(order, retry=RetryPolicy(attempts=1))
        assert done.outcome is CancelOutcome.CANCELLED
