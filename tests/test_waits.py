"""`wait_for_code` and `watch_order`: one deadline, no lost code, no scope held open."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms4sats_async import (
    APIError,
    AttemptFailed,
    ClientStateError,
    CodeTimeoutError,
    Event,
    InvalidArgumentError,
    OrderError,
    OrderRefundedError,
    OrderState,
    OrderStatus,
    ReceiveOrder,
    Sms4SatsClient,
    StatusPolled,
    Waiting,
)
from sms4sats_async.simulator import Behaviour, Fault, ManualClock, Simulator

pytestmark = pytest.mark.anyio

ID = "0123456789abcdef" * 4
CODE_AFTER_A_MINUTE = Behaviour(pay_delay=5, number_delay=5, code_delay=50, code="0042")
NO_CODE = Behaviour(pay_delay=5, code_delay=None)


class World:
    def __init__(self, behaviour: Behaviour) -> None:
        self.clock = ManualClock()
        self.simulator = Simulator(behaviour, clock=self.clock)
        self.events: list[Event] = []
        self.client = Sms4SatsClient(
            http_client=self.simulator.http_client(),
            clock=self.clock,
            on_event=self.events.append,
            timeout=0.1,
        )


@asynccontextmanager
async def a_world(behaviour: Behaviour) -> AsyncGenerator[tuple[World, ReceiveOrder]]:
    world = World(behaviour)
    async with world.client:
        yield world, await world.client.create_order(187, "tg")


def a_client(clock: ManualClock, *answers: object) -> Sms4SatsClient:
    """A client of a service that gives these status answers, the last one for ever."""
    left = list(answers)

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=left.pop(0) if len(left) > 1 else left[0])

    transport = httpx.MockTransport(answer)
    return Sms4SatsClient(http_client=httpx.AsyncClient(transport=transport), clock=clock)


# --- wait_for_code --------------------------------------------------------------------------------


async def test_the_code_is_returned_as_soon_as_a_read_shows_it() -> None:
    async with a_world(CODE_AFTER_A_MINUTE) as (world, order):
        start = world.clock.monotonic()
        status = await world.client.wait_for_code(order, timeout=300)
        assert (status.state, status.code) == (OrderState.CODE_RECEIVED, "0042")
        assert 60 <= world.clock.monotonic() - start < 60 + 5.75
        assert isinstance(world.events[1], Waiting)
        assert any(isinstance(event, StatusPolled) for event in world.events)


async def test_a_code_that_is_there_costs_no_wait() -> None:
    async with a_world(CODE_AFTER_A_MINUTE) as (world, order):
        await world.clock.sleep(70)
        start = world.clock.monotonic()
        assert (await world.client.wait_for_code(order.order_id, timeout=0.5)).code == "0042"
        assert world.clock.monotonic() == start


async def test_a_wait_for_nothing_ends_at_its_deadline_with_the_last_status() -> None:
    async with a_world(NO_CODE) as (world, order):
        start = world.clock.monotonic()
        with pytest.raises(CodeTimeoutError, match="still held") as caught:
            await world.client.wait_for_code(order, timeout=timedelta(seconds=30))
        assert world.clock.monotonic() - start == pytest.approx(30, abs=0.01)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.status is not None
        assert caught.value.status.state is OrderState.NUMBER_ASSIGNED
        assert caught.value.operation == "wait_for_code"
        assert caught.value.attempts == world.simulator.count("/orderstatus")


@given(
    timeout=st.floats(1.5, 100),
    interval=st.floats(0.5, 200),
    early=st.floats(1.01, 1.4),
)
def test_a_code_that_comes_more_than_a_second_before_the_deadline_is_never_lost(
    timeout: float, interval: float, early: float
) -> None:
    async def run() -> None:
        comes = max(0.0, timeout - early)
        behaviour = Behaviour(pay_delay=0, number_delay=0, code_delay=comes)
        async with a_world(behaviour) as (world, order):
            status = await world.client.wait_for_code(
                order, timeout=timeout, poll_interval=interval
            )
            assert status.code == "012345"

    anyio.run(run)


async def test_a_code_in_an_answer_that_comes_at_the_deadline_is_not_lost() -> None:
    clock = ManualClock()

    async def answer(_: httpx.Request) -> httpx.Response:
        await clock.sleep(60)
        return httpx.Response(200, json={"paid": True, "code": "7"})

    transport = httpx.MockTransport(answer)
    client = Sms4SatsClient(http_client=httpx.AsyncClient(transport=transport), clock=clock)
    assert (await client.wait_for_code(ID, timeout=30)).code == "7"


async def test_a_read_is_cut_to_what_is_left_of_the_wait() -> None:
    simulator = Simulator()
    simulator.script("/orderstatus", Fault.hang(), Fault.hang())
    client = Sms4SatsClient(http_client=simulator.http_client())
    with anyio.fail_after(5), pytest.raises(CodeTimeoutError) as caught:
        await client.wait_for_code(ID, timeout=0.05)
    assert caught.value.status is None


async def test_lost_reads_do_not_end_the_wait() -> None:
    async with a_world(CODE_AFTER_A_MINUTE) as (world, order):
        faults = [Fault.reset(), Fault.html(), Fault.http(500), Fault.hang(), Fault.cut_json()]
        world.simulator.script("/orderstatus", *faults)
        assert (await world.client.wait_for_code(order, timeout=300)).code == "0042"
        failed = [event for event in world.events if isinstance(event, AttemptFailed)]
        assert len(failed) == len(faults)


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_a_refusal_that_stays_ends_the_wait(status: int) -> None:
    async with a_world(NO_CODE) as (world, order):
        world.simulator.script("/orderstatus", Fault.http(status))
        with pytest.raises(APIError) as caught:
            await world.client.wait_for_code(order, timeout=300)
        assert caught.value.status_code == status


async def test_a_refund_ends_the_wait() -> None:
    async with a_world(Behaviour(pay_delay=0, number_available=False)) as (world, order):
        with pytest.raises(OrderRefundedError, match="No available number") as caught:
            await world.client.wait_for_code(order, timeout=300)
        assert caught.value.status is not None
        assert caught.value.order_id == order.order_id


@pytest.mark.parametrize("word", ["sent", "delivered", "failed"])
async def test_an_order_for_a_message_has_no_code_to_wait_for(word: str) -> None:
    client = a_client(ManualClock(), {"paid": True, "smsStatus": word})
    with pytest.raises(OrderError, match=f"message {word}"):
        await client.wait_for_code(ID, timeout=300)


@pytest.mark.parametrize("timeout", [1e9, 1e12, 1e308, timedelta.max], ids=str)
async def test_a_wait_may_be_longer_than_any_calendar(timeout: float | timedelta) -> None:
    """Who means "for ever" says a large number, and still gets the code."""
    async with a_world(CODE_AFTER_A_MINUTE) as (world, order):
        assert (await world.client.wait_for_code(order, timeout=timeout)).code == "0042"
        assert isinstance(world.events[1], Waiting)


@pytest.mark.parametrize(
    "wrong",
    [{"timeout": 0}, {"timeout": -1}, {"timeout": float("nan")}, {"poll_interval": 0}],
)
async def test_a_wait_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    client = a_client(ManualClock(), {})
    with pytest.raises(InvalidArgumentError):
        await client.wait_for_code(ID, **{"timeout": 1, **wrong})


async def test_a_wait_ends_with_the_client() -> None:
    async with a_world(NO_CODE) as (world, order):
        await world.client.aclose()
        with pytest.raises(ClientStateError):
            await world.client.wait_for_code(order, timeout=1)


async def test_reads_are_not_in_step_with_a_keep_alive_limit() -> None:
    async with a_world(NO_CODE) as (world, order):
        with pytest.raises(CodeTimeoutError):
            await world.client.wait_for_code(order, timeout=300)
        waits = world.clock.sleeps[:-2]
        assert len(set(waits)) == len(waits)
        assert all(4.25 <= wait <= 5.75 for wait in waits)


# --- watch_order ----------------------------------------------------------------------------------


async def test_a_watch_gives_each_change_once_and_ends_with_the_order() -> None:
    async with a_world(CODE_AFTER_A_MINUTE) as (world, order):
        watch = world.client.watch_order(order, poll_interval=1)
        assert [status.state async for status in watch] == [
            OrderState.UNPAID,
            OrderState.HELD,
            OrderState.NUMBER_ASSIGNED,
            OrderState.CODE_RECEIVED,
        ]


async def test_a_watch_that_has_ended_stays_ended() -> None:
    watch = a_client(ManualClock(), {"paid": True, "code": "7"}).watch_order(ID)
    assert [status.code async for status in watch] == ["7"]
    assert [status async for status in watch] == []


async def test_another_time_stamp_alone_is_no_change() -> None:
    answers = [{"paid": True, "timestamp": moment} for moment in range(1, 5)]
    watch = a_client(ManualClock(), *answers, {"paid": True, "code": "7"}).watch_order(ID)
    assert [status.state async for status in watch] == [OrderState.HELD, OrderState.CODE_RECEIVED]


async def test_lost_reads_do_not_end_a_watch() -> None:
    async with a_world(CODE_AFTER_A_MINUTE) as (world, order):
        await world.clock.sleep(100)
        world.simulator.script("/orderstatus", *[Fault.reset()] * 9)
        codes = [status.code async for status in world.client.watch_order(order)]
        assert codes == ["0042"]


async def test_a_refusal_that_stays_ends_a_watch() -> None:
    async with a_world(NO_CODE) as (world, order):
        world.simulator.script("/orderstatus", Fault.http(404))
        with pytest.raises(APIError):
            await anext(world.client.watch_order(order))


async def test_a_watch_can_be_left_and_taken_up_in_another_task() -> None:
    async with a_world(CODE_AFTER_A_MINUTE) as (world, order):
        watch = world.client.watch_order(order, poll_interval=timedelta(seconds=1))
        seen: list[OrderStatus] = []

        async def take_one() -> None:
            seen.append(await anext(watch))

        for _ in range(4):
            async with anyio.create_task_group() as group:
                group.start_soon(take_one)
        assert seen[-1].code == "0042"


async def test_a_watch_that_cannot_be_meant_is_refused_at_once() -> None:
    client = a_client(ManualClock(), {})
    with pytest.raises(InvalidArgumentError):
        client.watch_order("")
    with pytest.raises(InvalidArgumentError):
        client.watch_order(ID, poll_interval=-1)
