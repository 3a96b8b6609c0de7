"""`cancel_orders`: a list at once, one result for each, and nothing more once the loop is left."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import anyio
import pytest

from sms4sats_async import (
    CancelFinished,
    CancelOutcome,
    CancelResult,
    CancelResults,
    CancelScheduler,
    ClientStateError,
    InvalidArgumentError,
    MemoryJournal,
    Order,
    ReceiveOrder,
    RequestOutcome,
    RetryPolicy,
    UnableToSaveDataError,
)
from sms4sats_async.simulator import Behaviour, Fault, ManualClock
from tests.many import CODE, NO_NUMBER, World, moment, running, tasks, turns

pytestmark = pytest.mark.anyio

UNKNOWN_ID = "ab" * 32


async def old(world: World, count: int) -> list[ReceiveOrder]:
    """Make orders that may be cancelled."""
    orders = await world.orders(count)
    await world.clock.sleep(121)
    return orders


def jumping(behaviour: Behaviour | None = None, **settings: Any) -> World:
    """Return a world whose clock jumps over every wait."""
    clock = ManualClock()
    if behaviour is None:
        return World(clock=clock, **settings)
    return World(behaviour, clock=clock, **settings)


async def collect(results: CancelResults) -> list[CancelResult]:
    return [result async for result in results]


def by_hand(world: World, *, jump: bool = False) -> None:
    """Let the clock stand still from now on, or jump."""
    assert isinstance(world.clock, ManualClock)
    world.clock.autojump = jump


# --- one result for each --------------------------------------------------------------------------


async def test_every_order_is_cancelled_once_and_gets_one_result() -> None:
    world = jumping()
    orders = await old(world, 30)
    results = await collect(world.client.cancel_orders(orders))
    assert sorted(world.cancels()) == sorted(order.order_id for order in orders)
    assert sorted(results, key=lambda each: each.order_id) == sorted(
        (CancelResult(order.order_id, CancelOutcome.CANCELLED, attempts=1) for order in orders),
        key=lambda each: each.order_id,
    )
    assert world.finished() == results


async def test_results_come_as_they_finish_and_failures_are_results() -> None:
    world = jumping(NO_NUMBER)
    released = await world.order()
    world.simulator.behaviour = CODE
    arrived = await world.order()
    world.simulator.behaviour = Behaviour(pay_delay=0, code_delay=None)
    slow, plain = await world.orders(2)
    await world.clock.sleep(121)
    by_hand(world)
    world.simulator.script("/cancelorder", Fault.slow(20))
    results: list[CancelResult] = []

    async def listen() -> None:
        ids: list[Order | str] = [slow, UNKNOWN_ID, released.order_id, arrived, plain.order_id]
        results.extend([result async for result in world.client.cancel_orders(ids)])

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        await world.advance(60)
    assert {result.order_id: result.outcome for result in results} == {
        released.order_id: CancelOutcome.ALREADY_RELEASED,
        arrived.order_id: CancelOutcome.CODE_ARRIVED,
        plain.order_id: CancelOutcome.CANCELLED,
        slow.order_id: CancelOutcome.CANCELLED,
        UNKNOWN_ID: RequestOutcome.REFUSED,
    }
    # The first that was sent met the slow answer.
    assert world.cancels()[0] in [result.order_id for result in results[3:]]
    found = {result.order_id: result for result in results}
    assert found[arrived.order_id].code == "007"
    assert isinstance(found[UNKNOWN_ID].error, UnableToSaveDataError)
    assert found[UNKNOWN_ID].attempts == world.cancels().count(UNKNOWN_ID) == 4


async def test_a_refusal_that_can_pass_is_not_waited_out_longer_than_a_call_takes() -> None:
    world = jumping(Behaviour(pay_delay=0, code_delay=None, minimum_cancel_age=1e6))
    orders = await old(world, 3)
    began = world.clock.monotonic()
    results = await collect(world.client.cancel_orders(orders))
    assert {result.outcome for result in results} == {RequestOutcome.REFUSED}
    assert all(isinstance(result.error, UnableToSaveDataError) for result in results)
    assert world.clock.monotonic() - began < 60


async def test_a_lost_connection_is_a_result_too() -> None:
    world = jumping()
    (order,) = await old(world, 1)
    world.simulator.script("*", *[Fault.reset()] * 20)
    (result,) = await collect(world.client.cancel_orders([order]))
    assert result.outcome is RequestOutcome.UNKNOWN
    assert result.funds_returned is None


async def test_young_orders_are_waited_for() -> None:
    world = jumping()
    first = await world.order()
    await world.clock.sleep(60)
    second = await world.order()
    results = await collect(world.client.cancel_orders(iter([second, first])))
    assert [result.order_id for result in results] == [first.order_id, second.order_id]
    assert world.ages() == [pytest.approx(120, abs=5.1)] * 2
    assert min(world.ages()) >= 120


async def test_an_order_from_the_future_is_waited_for_two_minutes() -> None:
    world = jumping()
    order = await world.order()
    future = ReceiveOrder(order.order_id, "", order.created_at + timedelta(days=365))
    (result,) = await collect(world.client.cancel_orders([future]))
    assert result.outcome is CancelOutcome.CANCELLED
    assert world.ages() == [pytest.approx(120, abs=5.1)]


@pytest.mark.parametrize("turned", [False, True])
async def test_an_order_that_is_named_twice_is_cancelled_once_and_not_early(
    *, turned: bool
) -> None:
    world = jumping()
    order = await world.order()
    named: list[Order | str] = [order, order.order_id, order]
    results = await collect(world.client.cancel_orders(named[1:] if turned else named[:2]))
    assert len(results) == 1
    assert world.cancels() == [order.order_id]
    assert min(world.ages()) >= 120


async def test_no_orders_are_no_results() -> None:
    assert await collect(jumping().client.cancel_orders([])) == []


async def test_concurrency_is_reached_and_never_exceeded() -> None:
    world = jumping()
    orders = await old(world, 20)
    world.simulator.script("/cancelorder", *[Fault.slow(1)] * 20)
    results = await collect(world.client.cancel_orders(orders, concurrency=4))
    assert len(results) == 20
    assert world.simulator.most == 4


async def test_a_slow_consumer_gets_every_result() -> None:
    world = jumping()
    orders = await old(world, 9)
    results: list[CancelResult] = []
    async for result in world.client.cancel_orders(orders, concurrency=2):
        results.append(result)
        await turns()
    assert len(results) == 9


@pytest.mark.parametrize(
    "orders",
    [
        UNKNOWN_ID,
        ReceiveOrder(UNKNOWN_ID, "", moment(0)),
        None,
        7,
        [UNKNOWN_ID, ""],
        [7],
        [ReceiveOrder(UNKNOWN_ID, "", moment(0).replace(tzinfo=None))],
    ],
    ids=["id", "order", "None", "number", "empty id", "list of numbers", "no time zone"],
)
async def test_orders_that_cannot_be_meant_are_refused_before_anything_is_sent(
    orders: Any,
) -> None:
    world = jumping()
    with pytest.raises(InvalidArgumentError):
        world.client.cancel_orders(orders)
    await turns()
    assert world.simulator.requests == []


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, True, "20", None])
async def test_a_concurrency_that_cannot_be_meant_is_refused(concurrency: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="concurrency"):
        jumping().client.cancel_orders([], concurrency=concurrency)


# --- begun late, left early -----------------------------------------------------------------------


async def test_nothing_is_sent_before_the_first_result_is_asked_for() -> None:
    world = jumping()
    orders = await old(world, 2)
    before = tasks()
    results = world.client.cancel_orders(orders)
    await turns()
    assert (world.cancels(), tasks()) == ([], before)
    await anext(results)
    assert world.cancels() != []


async def leave_by_break(results: Callable[[], CancelResults]) -> None:
    async for _ in results():
        break


async def leave_by_exception(results: Callable[[], CancelResults]) -> None:
    async def loop() -> None:
        async for _ in results():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await loop()


async def leave_by_scope(results: Callable[[], CancelResults]) -> None:
    with anyio.CancelScope() as scope:
        async for _ in results():
            scope.cancel()


async def leave_held(results: Callable[[], CancelResults]) -> None:
    """Leave the loop before the iterator."""
    held = results()
    async for _ in held:
        break
    del held


async def leave_task(results: Callable[[], CancelResults]) -> None:
    async def consume() -> None:
        async for _ in results():
            await asyncio.sleep(0)

    task = asyncio.create_task(consume())
    await turns(20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task


WAYS = [leave_by_break, leave_by_exception, leave_by_scope, leave_held]


@pytest.mark.parametrize(
    ("leave", "anyio_backend"),
    [
        *((way, backend) for way in WAYS for backend in ("asyncio", "trio")),
        (leave_task, "asyncio"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_a_loop_left_early_begins_nothing_more_and_leaves_no_task(
    leave: Callable[[Callable[[], CancelResults]], Awaitable[None]],
) -> None:
    world = jumping(journal=MemoryJournal())
    orders = await old(world, 40)
    # The clock stands while the first are answered, so that others hang in the service.
    by_hand(world)
    world.simulator.script("/cancelorder", None, *[Fault.slow(3)] * 39)
    before = tasks()
    await leave(lambda: world.client.cancel_orders(orders, concurrency=5))
    gc.collect()
    begun = len(world.cancels())
    assert 1 <= begun <= 6
    await world.advance(600)
    assert len(world.cancels()) == begun
    assert len(world.finished()) == begun
    assert tasks() == before
    journal = world.client.journal
    assert journal is not None
    pending = await journal.pending()
    assert len(pending) == 40 - begun
    assert {entry.claimed_by for entry in pending} == {None}


async def test_left_while_all_orders_wait_for_their_time_it_ends_by_itself() -> None:
    world = World()
    first = await world.order()
    await world.advance(60)
    orders = await world.orders(5)
    before = tasks()
    async with anyio.create_task_group() as group:

        async def leave() -> None:
            async for _ in world.client.cancel_orders([first, *orders]):
                break

        group.start_soon(leave)
        await world.advance(61)
    gc.collect()
    await world.advance(6)
    assert tasks() == before
    await world.advance(600)
    assert world.cancels() == [first.order_id]


async def test_left_and_gone_on_with_it_goes_on() -> None:
    world = jumping()
    orders = await old(world, 9)
    results = world.client.cancel_orders(orders, concurrency=2)
    async for _ in results:
        break
    await turns()
    assert len(await collect(results)) == 8


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_event_loop_that_ends_meanwhile_ends_it_and_gives_the_claims_up(backend: str) -> None:
    journal = MemoryJournal()
    seen: list[CancelResult] = []

    async def main() -> None:
        world = jumping(journal=journal)
        orders = await old(world, 9)
        by_hand(world)
        world.simulator.script("/cancelorder", None, *[Fault.slow(3)] * 9)
        async for result in world.client.cancel_orders(orders, concurrency=3):
            seen.append(result)
            break
        assert world.simulator.in_hand > 0

    anyio.run(main, backend=backend)
    assert len(seen) == 1

    async def look() -> None:
        pending = await journal.pending()
        assert len(pending) == 8
        assert {entry.claimed_by for entry in pending} == {None}

    anyio.run(look, backend=backend)


async def test_a_client_that_is_closed_meanwhile_is_a_result_of_each_that_is_left() -> None:
    world = jumping()
    orders = await old(world, 9)
    world.simulator.script("/cancelorder", *[Fault.slow(1)] * 9)
    results = world.client.cancel_orders(orders, concurrency=2)
    first = await anext(results)
    await world.client.aclose()
    rest = await collect(results)
    assert first.outcome is CancelOutcome.CANCELLED
    assert len(rest) == 8
    after = [result for result in rest if result.outcome is not CancelOutcome.CANCELLED]
    assert after
    assert {result.outcome for result in after} == {RequestOutcome.NOT_SENT}
    assert {type(result.error) for result in after} == {ClientStateError}


class BrokenClock(ManualClock):
    broken = False

    async def sleep(self, seconds: float) -> None:
        if self.broken:
            raise OSError("the clock is broken")
        await super().sleep(seconds)


async def test_an_accident_reaches_whoever_iterates_again_and_again() -> None:
    clock = BrokenClock()
    world = World(clock=clock)
    order = await world.order()
    clock.broken = True
    results = world.client.cancel_orders([order])
    for _ in range(2):
        with pytest.RaisesGroup(OSError):
            await anext(results)


async def test_what_on_event_raises_goes_no_further() -> None:
    world = jumping()
    orders = await old(world, 3)

    def fail(event: object) -> None:
        if isinstance(event, CancelFinished):
            raise ZeroDivisionError

    client = world.new_client()
    client._exchange._on_event = fail  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    assert len(await collect(client.cancel_orders(orders))) == 3


# --- with a journal -------------------------------------------------------------------------------


async def test_the_ends_are_written_down() -> None:
    journal = MemoryJournal()
    world = jumping(journal=journal)
    orders = await old(world, 3)
    await collect(world.client.cancel_orders(order.order_id for order in orders))
    assert await journal.pending() == []
    assert {entry.outcome for entry in await journal.history()} == {CancelOutcome.CANCELLED}


async def test_what_was_put_off_is_cancelled_now_because_that_is_asked_for() -> None:
    world = jumping(journal=MemoryJournal())
    (order,) = await old(world, 1)
    await CancelScheduler(world.client).unschedule(order)
    (result,) = await collect(world.client.cancel_orders([order]))
    assert result.outcome is CancelOutcome.CANCELLED
    assert world.ages() == [pytest.approx(121, abs=0.1)]


async def test_an_order_in_a_schedulers_hands_is_left_to_it_and_told() -> None:
    world = World(journal=MemoryJournal())
    order = await world.order()
    world.simulator.script("/cancelorder", Fault.slow(4))
    seen: list[CancelResult] = []

    async def listen() -> None:
        seen.extend(await collect(world.client.cancel_orders([order])))

    async with running(CancelScheduler(world.client)):
        await world.advance(121)
        assert world.simulator.in_hand == 1
        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await world.advance(10)
    assert world.cancels() == [order.order_id]
    assert [result.outcome for result in seen] == [CancelOutcome.CANCELLED]


async def test_the_clients_retry_policy_is_obeyed_up_to_a_minute() -> None:
    world = jumping()
    (order,) = await old(world, 1)
    world.client = world.new_client(retry=RetryPolicy(attempts=100, total_timeout=None))
    world.simulator.script("/cancelorder", *[Fault.http(500)] * 100)
    began = world.clock.monotonic()
    (result,) = await collect(world.client.cancel_orders([order]))
    assert result.outcome is RequestOutcome.REFUSED
    assert result.attempts > 4
    assert world.clock.monotonic() - began < 61
