"""`cancel_orders`: one result for each order, and no further request once the loop is left."""

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import anyio
import pytest

from sms4sats_async import (
    ClientStateError,
    Event,
    InvalidArgumentError,
    MemoryJournal,
    Order,
    OrderEnded,
    OrderOutcome,
    OrderResult,
    OrderResults,
    OrderScheduler,
    ReceiveOrder,
    RequestOutcome,
    RetryPolicy,
    Sms4SatsClient,
    UnableToSaveDataError,
)
from sms4sats_async.journal.entry import LEASE, record_intent
from sms4sats_async.simulator import Behaviour, Fault, ManualClock
from tests.many import Scene, claim_as, collect, moment, running, tasks, turns
from tests.simulated import CODE, NO_NUMBER

pytestmark = pytest.mark.anyio

UNKNOWN_ID = "ab" * 32


async def old(scene: Scene, count: int) -> list[ReceiveOrder]:
    """Make orders that may be cancelled."""
    orders = await scene.orders(count)
    await scene.clock.sleep(121)
    return orders


def jumping(behaviour: Behaviour | None = None, **settings: Any) -> Scene:
    """Return a scene whose clock jumps over every wait."""
    clock = ManualClock()
    if behaviour is None:
        return Scene(clock=clock, **settings)
    return Scene(behaviour, clock=clock, **settings)


def by_hand(scene: Scene, *, jump: bool = False) -> None:
    """Stop the clock from now on, or let it jump."""
    assert isinstance(scene.clock, ManualClock)
    scene.clock.autojump = jump


# --- one result for each --------------------------------------------------------------------------


async def test_every_order_is_cancelled_once_and_gets_one_result() -> None:
    scene = jumping()
    orders = await old(scene, 30)
    results = await collect(scene.client.cancel_orders(orders))
    assert sorted(scene.cancels()) == sorted(order.order_id for order in orders)
    assert sorted(results, key=lambda each: each.order_id) == sorted(
        (OrderResult(order.order_id, OrderOutcome.CANCELLED, attempts=1) for order in orders),
        key=lambda each: each.order_id,
    )
    assert scene.ended() == results


async def test_results_come_as_they_finish_and_failures_are_results() -> None:
    scene = jumping(NO_NUMBER)
    released = await scene.order()
    scene.simulator.behaviour = CODE
    arrived = await scene.order()
    scene.simulator.behaviour = Behaviour(pay_delay=0, code_delay=None)
    slow, plain = await scene.orders(2)
    await scene.clock.sleep(121)
    by_hand(scene)
    scene.simulator.script("/cancelorder", Fault.slow(20))
    results: list[OrderResult] = []

    async def listen() -> None:
        ids: list[Order | str] = [slow, UNKNOWN_ID, released.order_id, arrived, plain.order_id]
        results.extend([result async for result in scene.client.cancel_orders(ids)])

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        await scene.advance(60)
    assert {result.order_id: result.outcome for result in results} == {
        released.order_id: OrderOutcome.REFUNDED,
        arrived.order_id: OrderOutcome.CODE_RECEIVED,
        plain.order_id: OrderOutcome.CANCELLED,
        slow.order_id: OrderOutcome.CANCELLED,
        UNKNOWN_ID: None,
    }
    # The first that was sent met the slow answer.
    assert scene.cancels()[0] in [result.order_id for result in results[3:]]
    found = {result.order_id: result for result in results}
    assert found[arrived.order_id].code == "007"
    assert isinstance(found[UNKNOWN_ID].error, UnableToSaveDataError)
    assert found[UNKNOWN_ID].attempts == scene.cancels().count(UNKNOWN_ID) == 4


async def test_a_refusal_is_a_result_after_one_call() -> None:
    scene = jumping(Behaviour(pay_delay=0, code_delay=None, minimum_cancel_age=1e6))
    orders = await old(scene, 3)
    began = scene.clock.monotonic()
    results = await collect(scene.client.cancel_orders(orders))
    assert {result.outcome for result in results} == {None}
    assert all(isinstance(result.error, UnableToSaveDataError) for result in results)
    assert scene.clock.monotonic() - began < 60


async def test_a_lost_connection_is_a_result_too() -> None:
    scene = jumping()
    (order,) = await old(scene, 1)
    scene.simulator.script("*", *[Fault.reset()] * 20)
    (result,) = await collect(scene.client.cancel_orders([order]))
    assert (result.outcome, result.refunded) == (None, None)
    assert result.error is not None
    assert result.error.request_outcome is RequestOutcome.UNKNOWN


async def test_a_young_order_is_cancelled_when_it_is_old_enough() -> None:
    scene = jumping()
    first = await scene.order()
    await scene.clock.sleep(60)
    second = await scene.order()
    results = await collect(scene.client.cancel_orders(iter([second, first])))
    assert [result.order_id for result in results] == [first.order_id, second.order_id]
    assert scene.cancel_ages() == [pytest.approx(120, abs=5.1)] * 2
    assert min(scene.cancel_ages()) >= 120


async def test_an_order_from_the_future_is_waited_for_two_minutes() -> None:
    scene = jumping()
    order = await scene.order()
    future = ReceiveOrder(order.order_id, "", order.created_at + timedelta(days=365))
    (result,) = await collect(scene.client.cancel_orders([future]))
    assert result.outcome is OrderOutcome.CANCELLED
    assert scene.cancel_ages() == [pytest.approx(120, abs=5.1)]


@pytest.mark.parametrize("turned", [False, True])
async def test_an_order_that_is_named_twice_is_cancelled_once_and_not_early(
    *, turned: bool
) -> None:
    scene = jumping()
    order = await scene.order()
    named: list[Order | str] = [order, order.order_id, order]
    results = await collect(scene.client.cancel_orders(named[1:] if turned else named[:2]))
    assert len(results) == 1
    assert scene.cancels() == [order.order_id]
    assert min(scene.cancel_ages()) >= 120


async def test_no_orders_are_no_results() -> None:
    assert await collect(jumping().client.cancel_orders([])) == []


async def test_concurrency_is_reached_and_never_exceeded() -> None:
    scene = jumping()
    orders = await old(scene, 20)
    scene.simulator.script("/cancelorder", *[Fault.slow(1)] * 20)
    results = await collect(scene.client.cancel_orders(orders, concurrency=4))
    assert len(results) == 20
    assert scene.most_under_way == 4


async def test_a_slow_consumer_gets_every_result() -> None:
    scene = jumping()
    orders = await old(scene, 9)
    results: list[OrderResult] = []
    async for result in scene.client.cancel_orders(orders, concurrency=2):
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
async def test_invalid_orders_are_refused_before_anything_is_sent(
    orders: Any,
) -> None:
    scene = jumping()
    with pytest.raises(InvalidArgumentError):
        scene.client.cancel_orders(orders)
    await turns()
    assert scene.simulator.requests == []


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, True, "20", None])
async def test_an_invalid_concurrency_is_refused(concurrency: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="concurrency"):
        jumping().client.cancel_orders([], concurrency=concurrency)


# --- begun late, left early -----------------------------------------------------------------------


async def test_nothing_is_sent_before_the_first_result_is_asked_for() -> None:
    scene = jumping()
    orders = await old(scene, 2)
    before = tasks()
    results = scene.client.cancel_orders(orders)
    await turns()
    assert (scene.cancels(), tasks()) == ([], before)
    await anext(results)
    assert scene.cancels() != []


async def leave_by_break(results: Callable[[], OrderResults]) -> None:
    async for _ in results():
        break


async def leave_by_exception(results: Callable[[], OrderResults]) -> None:
    async def loop() -> None:
        async for _ in results():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await loop()


async def leave_by_scope(results: Callable[[], OrderResults]) -> None:
    with anyio.CancelScope() as scope:
        async for _ in results():
            scope.cancel()


async def leave_held(results: Callable[[], OrderResults]) -> None:
    """Leave the loop before the iterator."""
    held = results()
    async for _ in held:
        break
    del held


async def leave_task(results: Callable[[], OrderResults]) -> None:
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
    leave: Callable[[Callable[[], OrderResults]], Awaitable[None]],
) -> None:
    scene = jumping(journal=MemoryJournal())
    orders = await old(scene, 40)
    # The clock is stopped while the first are answered, so that others hang in the service.
    by_hand(scene)
    scene.simulator.script("/cancelorder", None, *[Fault.slow(3)] * 39)
    before = tasks()
    await leave(lambda: scene.client.cancel_orders(orders, concurrency=5))
    gc.collect()
    begun = len(scene.cancels())
    assert 1 <= begun <= 6
    await scene.advance(600)
    assert len(scene.cancels()) == begun
    assert len(scene.ended()) == begun
    assert tasks() == before
    journal = scene.client.journal
    assert journal is not None
    pending = await journal.pending()
    assert len(pending) == 40 - begun
    assert {entry.claimed_by for entry in pending} == {None}


async def test_a_loop_left_while_all_orders_wait_ends() -> None:
    scene = Scene()
    first = await scene.order()
    await scene.advance(60)
    orders = await scene.orders(5)
    before = tasks()
    async with anyio.create_task_group() as group:

        async def leave() -> None:
            async for _ in scene.client.cancel_orders([first, *orders]):
                break

        group.start_soon(leave)
        await scene.advance(61)
    gc.collect()
    await scene.advance(6)
    assert tasks() == before
    await scene.advance(600)
    assert scene.cancels() == [first.order_id]


async def test_a_loop_that_was_left_can_go_on() -> None:
    scene = jumping()
    orders = await old(scene, 9)
    results = scene.client.cancel_orders(orders, concurrency=2)
    async for _ in results:
        break
    await turns()
    assert len(await collect(results)) == 8


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_event_loop_that_ends_meanwhile_ends_it_and_leaves_no_claim(backend: str) -> None:
    journal = MemoryJournal()
    seen: list[OrderResult] = []

    async def main() -> None:
        scene = jumping(journal=journal)
        orders = await old(scene, 9)
        by_hand(scene)
        scene.simulator.script("/cancelorder", None, *[Fault.slow(3)] * 9)
        async for result in scene.client.cancel_orders(orders, concurrency=3):
            seen.append(result)
            break
        assert scene.under_way > 0

    anyio.run(main, backend=backend)
    assert len(seen) == 1

    async def look() -> None:
        pending = await journal.pending()
        assert len(pending) == 8
        assert {entry.claimed_by for entry in pending} == {None}

    anyio.run(look, backend=backend)


async def test_a_client_that_is_closed_before_the_first_result_raises() -> None:
    scene = jumping()
    orders = await old(scene, 2)
    results = scene.client.cancel_orders(orders)
    await scene.client.aclose()
    for _ in range(2):
        with pytest.raises(ClientStateError):
            await anext(results)
    assert scene.cancels() == []


@pytest.mark.parametrize("has_journal", [False, True], ids=["no journal", "journal"])
async def test_each_order_has_a_result_if_the_client_is_closed_meanwhile(
    *, has_journal: bool
) -> None:
    journal = MemoryJournal() if has_journal else None
    scene = jumping(journal=journal)
    orders = await old(scene, 9)
    scene.simulator.script("/cancelorder", *[Fault.slow(1)] * 9)
    results = scene.client.cancel_orders(orders, concurrency=2)
    first = await anext(results)
    await scene.client.aclose()
    found = [first, *await collect(results)]
    assert {each.order_id for each in found} == {order.order_id for order in orders}
    cancelled = {each.order_id for each in found if each.outcome is OrderOutcome.CANCELLED}
    assert cancelled == set(scene.cancels())
    unknown = [each for each in found if each.order_id not in cancelled]
    assert len(unknown) > 1
    assert all(isinstance(each.error, ClientStateError) for each in unknown)
    if journal is not None:
        pending = await journal.pending()
        assert {each.order_id for each in pending} == {each.order_id for each in unknown}
        assert {each.claimed_by for each in pending} == {None}


class BrokenClock(ManualClock):
    broken = False

    async def sleep(self, seconds: float) -> None:
        if self.broken:
            raise OSError("the clock is broken")
        await super().sleep(seconds)


async def test_an_unexpected_error_is_raised_at_each_step() -> None:
    clock = BrokenClock()
    scene = Scene(clock=clock)
    order = await scene.order()
    clock.broken = True
    results = scene.client.cancel_orders([order])
    for _ in range(2):
        with pytest.raises(OSError, match="the clock is broken"):
            await anext(results)


async def test_an_error_of_on_event_does_not_stop_the_loop() -> None:
    scene = jumping()
    orders = await old(scene, 3)

    def fail(event: Event) -> None:
        if isinstance(event, OrderEnded):
            raise ZeroDivisionError

    client = scene.new_client(on_event=fail)
    assert len(await collect(client.cancel_orders(orders))) == 3


# --- with a journal -------------------------------------------------------------------------------


async def test_the_ends_are_recorded() -> None:
    journal = MemoryJournal()
    scene = jumping(journal=journal)
    orders = await old(scene, 3)
    await collect(scene.client.cancel_orders(order.order_id for order in orders))
    assert await journal.pending() == []
    assert {entry.outcome for entry in await journal.history()} == {OrderOutcome.CANCELLED}


async def test_an_order_that_was_deferred_is_cancelled_now() -> None:
    scene = jumping(journal=MemoryJournal())
    (order,) = await old(scene, 1)
    await OrderScheduler(scene.client).remove(order)
    (result,) = await collect(scene.client.cancel_orders([order]))
    assert result.outcome is OrderOutcome.CANCELLED
    assert scene.cancel_ages() == [pytest.approx(121, abs=0.1)]


async def test_an_order_that_a_scheduler_drives_gets_one_result_from_each() -> None:
    scene = Scene(journal=MemoryJournal())
    order = await scene.order()
    seen: list[OrderResult] = []

    async def listen() -> None:
        seen.extend(await collect(scene.client.cancel_orders([order])))

    scheduler = OrderScheduler(scene.client)
    async with running(scheduler):
        await scheduler.add(order)
        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await scene.advance(180)
    assert [result.refunded for result in seen] == [True]


async def test_the_clients_retry_policy_holds_for_up_to_a_minute() -> None:
    scene = jumping()
    (order,) = await old(scene, 1)
    scene.client = scene.new_client(retry=RetryPolicy(attempts=100, total_timeout=None))
    scene.simulator.script("/cancelorder", *[Fault.http(500)] * 100)
    began = scene.clock.monotonic()
    (result,) = await collect(scene.client.cancel_orders([order]))
    assert result.error is not None
    assert result.error.request_outcome is not None
    assert result.attempts > 4
    assert scene.clock.monotonic() - began < 61


async def test_an_order_that_another_driver_has_is_cancelled_when_its_claim_is_free() -> None:
    scene = Scene(journal=(journal := MemoryJournal()))
    order = await scene.order()
    seen: list[OrderResult] = []

    async def listen() -> None:
        seen.extend(await collect(scene.client.cancel_orders([order])))

    await scene.advance(121)
    await claim_as("another driver", journal, order.order_id, scene.clock.now())
    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        await scene.advance(LEASE.total_seconds() - 1)
        assert scene.cancels() == []
        await scene.advance(7)
    assert [result.outcome for result in seen] == [OrderOutcome.CANCELLED]
    assert scene.cancels() == [order.order_id]


async def test_two_processes_that_cancel_the_same_orders_send_each_cancel_once() -> None:
    scene = Scene(journal=MemoryJournal())
    orders = await scene.orders(5)
    await scene.advance(121)
    seen: list[list[OrderResult]] = []
    scene.simulator.script("/cancelorder", *[Fault.slow(2)] * 5)

    async def listen(client: Sms4SatsClient) -> None:
        seen.append(await collect(client.cancel_orders(orders)))

    async with anyio.create_task_group() as group:
        group.start_soon(listen, scene.client)
        group.start_soon(listen, scene.new_client(scene.client.journal))
        await scene.advance(30)
    assert Counter(scene.cancels()) == Counter(order.order_id for order in orders)
    for results in seen:
        assert {each.order_id for each in results} == {order.order_id for order in orders}
        assert {each.outcome for each in results} == {OrderOutcome.CANCELLED}


async def test_an_order_that_ended_before_has_its_recorded_result() -> None:
    scene = jumping(CODE, journal=MemoryJournal())
    order = await scene.order(metadata={"chat": "42"})
    before = await scene.client.code_or_refund(order, timeout=60)
    (result,) = await collect(scene.client.cancel_orders([order.order_id]))
    assert (result.code, result.number, result.metadata) == ("007", before.number, order.metadata)
    assert scene.cancels() == []


async def test_a_recorded_deadline_is_not_waited_for() -> None:
    scene = jumping(journal=MemoryJournal())
    order = await scene.order()
    await OrderScheduler(scene.client).add(order, timeout=600)
    await scene.clock.sleep(60)
    await collect(scene.client.cancel_orders([order]))
    assert scene.cancel_ages() == [pytest.approx(120, abs=0.1)]


async def test_a_recorded_minimum_age_is_waited_for() -> None:
    scene = jumping(journal=(journal := MemoryJournal()))
    order = await scene.order()
    wanted = record_intent(
        order, order.created_at, scene.client.base_url, minimum_age=timedelta(minutes=5)
    )
    await journal.update([(order.order_id, wanted)])
    await collect(scene.client.cancel_orders([order]))
    assert scene.cancel_ages() == [pytest.approx(300, abs=0.1)]


async def test_an_earlier_refusal_is_not_the_result() -> None:
    scene = jumping(journal=MemoryJournal())
    (order,) = await old(scene, 1)
    scene.simulator.script("/cancelorder", Fault.http(404))
    for outcome in (None, OrderOutcome.CANCELLED):
        (result,) = await collect(scene.client.cancel_orders([order]))
        assert result.outcome is outcome
    assert scene.cancels() == [order.order_id] * 2


async def test_an_order_of_another_service_root_is_a_result_with_an_error() -> None:
    scene = jumping(journal=MemoryJournal())
    orders = await old(scene, 1)
    other = scene.new_client(scene.client.journal, base_url="http://127.0.0.1:8021")
    (result,) = await collect(other.cancel_orders(orders))
    assert isinstance(result.error, InvalidArgumentError)
    assert scene.cancels() == []
