"""`CancelScheduler`: many orders, each cancelled once, in time, and never early."""

# What `schedule` returns may be awaited, and need not be.
# mypy: disable-error-code="unused-awaitable"

import asyncio
import gc
import weakref
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sms4sats_async import (
    CancelFinished,
    CancelOutcome,
    CancelResult,
    CancelResults,
    CancelScheduler,
    ClientStateError,
    Event,
    InvalidArgumentError,
    JournalEntry,
    MemoryJournal,
    ReceiveOrder,
    RequestOutcome,
    Sms4SatsClient,
)
from sms4sats_async.simulator import Behaviour, Fault, Holder, ManualClock
from tests.many import (
    CODE,
    HELD,
    NEVER,
    NEVER_EVER,
    NO_NUMBER,
    World,
    moment,
    running,
    tasks,
    turns,
)

pytestmark = pytest.mark.anyio


# --- one order ------------------------------------------------------------------------------------


async def test_an_order_is_cancelled_once_as_soon_as_that_is_allowed() -> None:
    world = World()
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    async with running(scheduler):
        scheduler.schedule(order)
        assert len(scheduler) == 1
        await world.advance(119.9)
        assert world.cancels() == []
        await world.advance(0.2)
    assert world.ages() == [pytest.approx(120, abs=0.01)]
    assert world.simulator.holder(order.order_id) is Holder.REFUNDED
    assert len(scheduler) == 0
    (result,) = world.finished()
    assert result == CancelResult(order.order_id, CancelOutcome.CANCELLED, attempts=1)
    assert result.funds_returned is True


@pytest.mark.parametrize("when", ["before run", "after run", "awaited before", "awaited after"])
@pytest.mark.parametrize("kind", ["order", "id"])
async def test_it_may_be_scheduled_before_and_after_run_starts(when: str, kind: str) -> None:
    world = World(journal=MemoryJournal())
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    asked = order if kind == "order" else order.order_id
    if when == "before run":
        scheduler.schedule(asked)
    if when == "awaited before":
        await scheduler.schedule(asked)
    async with running(scheduler):
        if when == "after run":
            scheduler.schedule(asked)
        if when == "awaited after":
            await scheduler.schedule(asked)
        await world.advance(121)
    assert world.cancels() == [order.order_id]
    assert [result.outcome for result in world.finished()] == [CancelOutcome.CANCELLED]


async def test_one_that_is_scheduled_twice_is_cancelled_once() -> None:
    world = World()
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    async with running(scheduler):
        scheduler.schedule(order)
        scheduler.schedule(order)
        assert len(scheduler) == 1
        await world.advance(60)
        scheduler.schedule(order)
        await world.advance(120)
    assert world.cancels() == [order.order_id]
    assert len(world.finished()) == 1


async def test_scheduled_again_it_can_be_put_off_and_drawn_forward() -> None:
    world = World()
    scheduler = CancelScheduler(world.client)
    later, sooner = await world.orders(2)
    async with running(scheduler):
        scheduler.schedule(later)
        scheduler.schedule(sooner, not_before=sooner.created_at + timedelta(minutes=9))
        await world.advance(60)
        scheduler.schedule(later, not_before=later.created_at + timedelta(minutes=5))
        scheduler.schedule(sooner, not_before=sooner.created_at + timedelta(minutes=3))
        await world.advance(600)
    assert world.cancels() == [sooner.order_id, later.order_id]
    assert world.ages() == [pytest.approx(180, abs=0.01), pytest.approx(300, abs=0.01)]


async def test_a_time_before_the_two_minutes_does_not_make_it_early() -> None:
    world = World()
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    async with running(scheduler):
        scheduler.schedule(order, not_before=order.created_at - timedelta(days=1))
        await world.advance(130)
    assert world.ages() == [pytest.approx(120, abs=0.01)]


async def test_an_id_that_nobody_knows_is_taken_to_be_made_now() -> None:
    world = World()
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    await world.advance(60)
    async with running(scheduler):
        await scheduler.schedule(order.order_id)
        await world.advance(130)
    assert world.ages() == [pytest.approx(180, abs=0.01)]


@pytest.mark.parametrize("awaited", [True, False])
async def test_of_an_id_the_journal_knows_better_when_it_was_made(*, awaited: bool) -> None:
    world = World(journal=MemoryJournal())
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    await world.advance(60)
    async with running(scheduler):
        written = scheduler.schedule(order.order_id)
        if awaited:
            await written
        await world.advance(70)
    assert world.ages() == [pytest.approx(120, abs=0.01)]


async def test_another_minimum_age_is_obeyed() -> None:
    world = World()
    scheduler = CancelScheduler(world.client, minimum_age=timedelta(minutes=5))
    order = await world.order()
    async with running(scheduler):
        scheduler.schedule(order)
        await world.advance(310)
    assert world.ages() == [pytest.approx(300, abs=0.01)]


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, True, "20", None])
async def test_a_concurrency_that_cannot_be_meant_is_refused(concurrency: object) -> None:
    given: object = {"concurrency": concurrency}
    with pytest.raises(InvalidArgumentError, match="concurrency"):
        CancelScheduler(World().client, **given)  # type: ignore[arg-type]


async def test_what_cannot_be_meant_is_refused_and_nothing_is_in_hand() -> None:
    scheduler = CancelScheduler(World().client)
    order = ReceiveOrder("ab" * 32, "", moment(0))
    with pytest.raises(InvalidArgumentError, match="order id"):
        scheduler.schedule("")
    with pytest.raises(InvalidArgumentError, match="time zone"):
        scheduler.schedule(order, not_before=moment(0).replace(tzinfo=None))
    with pytest.raises(InvalidArgumentError, match="created_at must have a time zone"):
        scheduler.schedule(attrs.evolve(order, created_at=moment(0).replace(tzinfo=None)))
    with pytest.raises(InvalidArgumentError, match="order id"):
        scheduler.unschedule("\n")
    with pytest.raises(InvalidArgumentError, match="minimum_age"):
        CancelScheduler(World().client, minimum_age=-1)
    with pytest.raises(InvalidArgumentError, match=r"journal must be a journal.*SqliteJournal"):
        CancelScheduler(World().client, journal="orders.db")  # type: ignore[arg-type]
    assert len(scheduler) == 0


# --- never early, and not late --------------------------------------------------------------------


async def test_a_laptop_that_slept_does_not_wait_again() -> None:
    clock = ManualClock(autojump=False)
    world = World(clock=clock)
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    async with running(scheduler):
        scheduler.schedule(order)
        await clock.advance(20)
        clock.suspend(60)
        await clock.advance(39)
        assert world.cancels() == []
        await clock.advance(2)
        assert len(world.cancels()) == 1
    assert world.ages() == [pytest.approx(120, abs=0.1)]


async def test_a_clock_that_is_set_back_makes_it_neither_early_nor_late() -> None:
    clock = ManualClock(autojump=False)
    world = World(clock=clock)
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    async with running(scheduler):
        scheduler.schedule(order)
        await clock.advance(20)
        clock.step_wall(-3600)
        await clock.advance(130)
    assert world.ages() == [pytest.approx(120, abs=0.01)]


async def test_a_clock_that_is_set_back_does_not_make_late_what_was_put_off() -> None:
    clock = ManualClock(autojump=False)
    world = World(clock=clock, journal=MemoryJournal())
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    async with running(scheduler):
        await scheduler.schedule(order, not_before=order.created_at + timedelta(minutes=3))
        await clock.advance(20)
        clock.step_wall(-3600)
        await clock.advance(170)
    assert world.ages() == [pytest.approx(180, abs=0.01)]


async def test_a_clock_that_is_set_back_and_right_again_makes_it_neither_early_nor_late() -> None:
    clock = ManualClock(autojump=False)
    world = World(clock=clock)
    scheduler = CancelScheduler(world.client)
    first = await world.order()
    async with running(scheduler):
        scheduler.schedule(first)
        await clock.advance(20)
        clock.step_wall(-3600)
        await clock.advance(20)
        second = await world.order()
        scheduler.schedule(second)
        await clock.advance(20)
        clock.step_wall(3600)
        await clock.advance(130)
    assert world.cancels() == [first.order_id, second.order_id]
    assert world.ages() == [pytest.approx(120, abs=0.01)] * 2


async def test_a_clock_that_is_set_forward_counts_as_time_that_passed() -> None:
    """Nobody can tell it from a machine that was asleep; the service refuses what is early."""
    clock = ManualClock(autojump=False)
    world = World(clock=clock)
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    async with running(scheduler):
        scheduler.schedule(order)
        clock.step_wall(300)
        await clock.advance(200)
    assert world.ages()[0] < 10
    assert world.simulator.holder(order.order_id) is Holder.REFUNDED


async def test_an_order_from_the_future_is_taken_to_be_made_now() -> None:
    world = World()
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    future = ReceiveOrder(order.order_id, "", order.created_at + timedelta(days=365))
    async with running(scheduler):
        scheduler.schedule(future)
        await world.advance(130)
    assert world.ages() == [pytest.approx(120, abs=0.01)]


_HAPPENING = st.tuples(st.sampled_from(["pass", "suspend", "back", "order"]), st.floats(0.001, 80))


@settings(max_examples=20)
@given(happenings=st.lists(_HAPPENING, max_size=8), start=st.floats(1e9, 4e9))
# Two sleeps that are each too short to be seen.
@example(happenings=[("suspend", 1.0), ("order", 1.0), ("suspend", 1.0)], start=1e9)
def test_nothing_is_sent_early_whatever_the_clock_does(
    happenings: list[tuple[str, float]], start: float
) -> None:
    async def run() -> None:
        clock = ManualClock(start, autojump=False)
        world = World(clock=clock)
        scheduler = CancelScheduler(world.client)
        async with running(scheduler):
            scheduler.schedule(await world.order())
            for what, seconds in happenings:
                match what:
                    case "pass":
                        await clock.advance(seconds)
                    case "suspend":
                        clock.suspend(seconds)
                    case "back":
                        clock.step_wall(-seconds)
                    case _:
                        scheduler.schedule(await world.order())
            await clock.advance(130)
        assert len(world.cancels()) == len(world.simulator.orders)
        assert min(world.ages()) >= 120

    anyio.run(run)


async def test_one_that_hangs_does_not_delay_those_that_come_due_meanwhile() -> None:
    world = World()
    scheduler = CancelScheduler(world.client, concurrency=2)
    first = await world.order()
    await world.advance(10)
    second = await world.order()
    scheduler.schedule(first)
    scheduler.schedule(second)
    world.simulator.script("/cancelorder", Fault.slow(40))
    # The attempt is bounded by real time, so what is slow by the clock alone is waited for.
    async with running(scheduler):
        await world.advance(121)
    assert world.cancels() == [first.order_id, second.order_id]
    assert world.ages()[1] == pytest.approx(120, abs=0.01)


# --- what is pending ------------------------------------------------------------------------------


async def test_run_picks_up_everything_pending_first() -> None:
    journal = MemoryJournal()
    world = World(journal=journal)
    ended, *orders = await world.orders(4)
    await world.advance(120)
    await world.client.cancel_order(ended)
    orders += await world.orders(1)
    scheduler = CancelScheduler(world.new_client(journal))
    async with running(scheduler):
        await world.advance(0.1)
        assert sorted(world.cancels()) == sorted(order.order_id for order in [ended, *orders[:3]])
        await world.advance(130)
    assert world.cancels()[4:] == [orders[3].order_id]
    assert min(world.ages()) >= 120
    assert await journal.pending() == []


async def test_not_before_is_kept_over_a_restart() -> None:
    journal = MemoryJournal()
    world = World(journal=journal)
    order = await world.order()
    async with running(scheduler := CancelScheduler(world.client)):
        await scheduler.schedule(order, not_before=order.created_at + timedelta(minutes=7))
        await world.advance(60)
    async with running(CancelScheduler(world.new_client(journal))):
        await world.advance(500)
    assert world.ages() == [pytest.approx(420, abs=0.01)]


async def test_what_nobody_awaited_stands_in_the_journal_when_run_has_ended() -> None:
    journal = MemoryJournal()
    world = World()
    scheduler = CancelScheduler(world.client, journal=journal)
    order = await world.order()
    async with running(scheduler):
        scheduler.schedule(order)
    (entry,) = await journal.pending()
    assert entry.order == order


async def test_pending_orders_are_not_taken_up_twice_by_a_second_run() -> None:
    world = World(journal=MemoryJournal())
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    for _ in range(2):
        async with running(scheduler):
            await world.advance(30)
            assert len(scheduler) == 1
    async with running(scheduler):
        await world.advance(70)
    assert world.cancels() == [order.order_id]


async def test_a_second_run_goes_on_with_the_wait_for_a_refused_order() -> None:
    world = World(NEVER, journal=MemoryJournal())
    scheduler = CancelScheduler(world.client)
    await world.order()
    async with running(scheduler):
        await world.advance(180)
    sent = len(world.cancels())
    async with running(scheduler):
        await world.advance(0.1)
        assert len(world.cancels()) == sent
        await world.advance(120)
        assert len(world.cancels()) > sent


# --- unschedule -----------------------------------------------------------------------------------


async def test_what_is_taken_out_before_run_or_before_its_time_is_not_cancelled() -> None:
    world = World()
    scheduler = CancelScheduler(world.client)
    first, second = await world.orders(2)
    scheduler.schedule(first)
    scheduler.schedule(second)
    await scheduler.unschedule(first)
    async with running(scheduler):
        await world.advance(60)
        scheduler.unschedule(second.order_id)
        assert len(scheduler) == 0
        await world.advance(600)
    assert world.cancels() == []
    assert world.finished() == []


async def test_a_restart_leaves_alone_for_21_minutes_what_was_taken_out() -> None:
    journal = MemoryJournal()
    world = World(journal=journal)
    order = await world.order()
    async with running(scheduler := CancelScheduler(world.client)):
        await world.advance(10)
        await scheduler.unschedule(order)
    async with running(CancelScheduler(world.new_client(journal))):
        await world.advance(20 * 60)
        assert world.cancels() == []
        await world.advance(120)
    assert min(world.ages()) >= 21 * 60
    assert [result.outcome for result in world.finished()] == [CancelOutcome.ALREADY_RELEASED]


async def test_a_request_under_way_goes_on_and_is_not_repeated() -> None:
    world = World(NEVER)
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    world.simulator.script("/cancelorder", *[Fault.slow(3)] * 9)
    async with running(scheduler):
        scheduler.schedule(order)
        await world.advance(121)
        assert world.simulator.in_hand == 1
        scheduler.unschedule(order)
        assert len(scheduler) == 0
        await world.advance(60)
        sent = len(world.cancels())
        await world.advance(600)
    assert len(world.cancels()) == sent
    assert world.finished() == []


async def test_what_a_request_under_way_brings_is_told_of_an_order_taken_out_too() -> None:
    world = World()
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    world.simulator.script("/cancelorder", Fault.slow(3))
    async with running(scheduler):
        scheduler.schedule(order)
        await world.advance(121)
        scheduler.unschedule(order)
        await world.advance(5)
    assert [result.outcome for result in world.finished()] == [CancelOutcome.CANCELLED]


async def test_scheduled_again_during_the_request_it_is_not_cancelled_twice_at_once() -> None:
    world = World(NEVER)
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    world.simulator.script("/cancelorder", *[Fault.slow(20)] * 9)
    async with running(scheduler):
        scheduler.schedule(order)
        await world.advance(121)
        scheduler.unschedule(order)
        scheduler.schedule(order)
        assert len(scheduler) == 1
        await world.advance(600)
        assert world.simulator.most == 1
        assert len(scheduler) == 1
        assert len(world.cancels()) > 4


async def test_put_off_during_the_request_it_is_put_off_if_that_is_refused() -> None:
    world = World(NEVER)
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    world.simulator.script("/cancelorder", *[Fault.slow(3)] * 9)
    async with running(scheduler):
        scheduler.schedule(order)
        await world.advance(121)
        scheduler.schedule(order, not_before=order.created_at + timedelta(minutes=9))
        await world.advance(60)
        sent = len(world.cancels())
        await world.advance(9 * 60 - 190)
        assert len(world.cancels()) == sent
        await world.advance(30)
        assert len(world.cancels()) > sent


class Interrupted(MemoryJournal):
    """Calls `meanwhile` once, between the claim of an order and its return."""

    meanwhile: Callable[[], object] | None = None

    async def update(self, changes: Any, /) -> Sequence[JournalEntry | None]:
        found = await super().update(changes)
        if self.meanwhile is not None and any(entry and entry.claimed_by for entry in found):
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return found


async def test_taken_out_while_it_is_being_claimed_it_is_left_alone() -> None:
    journal = Interrupted()
    world = World(journal=journal)
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    journal.meanwhile = lambda: scheduler.unschedule(order)
    async with running(scheduler):
        await world.advance(125)
        assert len(scheduler) == 0
        await world.advance(600)
    assert world.cancels() == []
    (entry,) = await journal.pending()
    assert entry.claimed_by is None


async def test_put_off_while_it_is_being_claimed_it_is_put_off() -> None:
    journal = Interrupted()
    world = World(journal=journal)
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    later = order.created_at + timedelta(minutes=9)
    journal.meanwhile = lambda: scheduler.schedule(order, not_before=later)
    async with running(scheduler):
        await world.advance(600)
    assert world.ages() == [pytest.approx(540, abs=0.01)]


@pytest.mark.parametrize("journal", [None, MemoryJournal()], ids=["no journal", "journal"])
async def test_whoever_schedules_many_in_a_loop_lets_others_run(
    journal: MemoryJournal | None,
) -> None:
    scheduler = CancelScheduler(World(journal=journal).client)
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await anyio.lowlevel.checkpoint()
            beats += 1

    async with anyio.create_task_group() as group:
        group.start_soon(beat)
        for number in range(50):
            await scheduler.schedule(f"{number:064x}")
        group.cancel_scope.cancel()
    assert beats >= 40


async def test_taken_out_after_its_end_and_again_nothing_happens() -> None:
    journal = MemoryJournal()
    world = World(journal=journal)
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    async with running(scheduler):
        scheduler.schedule(order)
        await world.advance(121)
        await scheduler.unschedule(order)
        await scheduler.unschedule("cd" * 32)
    (entry,) = await journal.history()
    assert entry.outcome is CancelOutcome.CANCELLED


class SlowToWrite(MemoryJournal):
    async def update(self, changes: Any, /) -> Sequence[JournalEntry | None]:
        await turns()
        return await super().update(changes)


async def test_what_was_taken_out_before_run_is_left_alone_however_slow_the_journal_is() -> None:
    world = World(journal=SlowToWrite())
    order = await world.order()
    await world.advance(130)
    scheduler = CancelScheduler(world.client)
    scheduler.unschedule(order)
    async with running(scheduler):
        await world.advance(60)
    assert world.cancels() == []


class SlowToRead(MemoryJournal):
    """Calls `meanwhile` between the reading of what is pending, and its return."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler: CancelScheduler | None = None

    async def pending(self) -> list[JournalEntry]:
        found = await super().pending()
        if self.scheduler is not None:
            for entry in found:
                await self.scheduler.unschedule(entry.order_id or "")
        return found


async def test_what_is_taken_out_while_it_is_being_taken_up_is_left_alone() -> None:
    journal = SlowToRead()
    world = World(journal=journal)
    order = await world.order()
    journal.scheduler = scheduler = CancelScheduler(world.client)
    async with running(scheduler):
        await world.advance(20 * 60)
    assert world.cancels() == []
    assert world.simulator.holder(order.order_id) is Holder.HELD


# --- tasks, workers, results ----------------------------------------------------------------------


async def test_a_thousand_waiting_orders_add_no_task() -> None:
    world = World()
    scheduler = CancelScheduler(world.client, concurrency=7)
    before = tasks()
    async with running(scheduler):
        with_none = tasks()
        assert with_none - before < 7 + 4
        for number in range(1000):
            scheduler.schedule(ReceiveOrder(f"{number:064x}", "", moment(world.clock.now())))
        await world.advance(30)
        assert len(scheduler) == 1000
        assert tasks() == with_none
    assert tasks() == before


async def test_orders_that_are_taken_out_or_put_off_do_not_pile_up() -> None:
    world = World()
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    async with running(scheduler):
        for number in range(1000):
            scheduler.schedule(order, not_before=order.created_at + timedelta(minutes=3 + number))
        assert len(scheduler._queue._heap) < 200  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        scheduler.schedule(order)
        await world.advance(121)
    assert world.cancels() == [order.order_id]


async def test_concurrency_is_reached_and_never_exceeded() -> None:
    world = World()
    scheduler = CancelScheduler(world.client, concurrency=5)
    orders = await world.orders(40)
    world.simulator.script("/cancelorder", *[Fault.slow(1)] * 40)
    async with running(scheduler):
        for order in orders:
            scheduler.schedule(order)
        await world.advance(140)
    assert world.simulator.most == 5
    assert sorted(world.cancels()) == sorted(order.order_id for order in orders)
    assert len(world.finished()) == 40


async def test_a_refused_order_is_waited_out_and_holds_no_worker() -> None:
    behaviour = Behaviour(pay_delay=90, code_delay=None, age_counts_from="payment")
    world = World(behaviour)
    scheduler = CancelScheduler(world.client, concurrency=1)
    refused = await world.order()
    world.simulator.behaviour = HELD
    others = await world.orders(5)
    async with running(scheduler):
        for order in [refused, *others]:
            scheduler.schedule(order)
        await world.advance(125)
        assert len(world.finished()) == 5
        await world.advance(200)
    assert {result.order_id for result in world.finished()} == set(world.cancels())
    last = world.finished()[-1]
    assert last.order_id == refused.order_id
    assert last.outcome is CancelOutcome.CANCELLED
    assert last.attempts == world.cancels().count(refused.order_id) > 1


async def collect(results: CancelResults) -> list[CancelResult]:
    return [result async for result in results]


async def test_every_iterator_gets_every_result_and_ends_when_run_ends() -> None:
    world = World()
    scheduler = CancelScheduler(world.client)
    orders = await world.orders(3)
    seen: list[list[CancelResult]] = []

    async def listen() -> None:
        seen.append(await collect(scheduler.results()))

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        group.start_soon(listen)
        await turns()
        async with running(scheduler):
            for order in orders:
                scheduler.schedule(order)
            await world.advance(121)
    assert seen == [world.finished()] * 2
    assert {result.order_id for result in world.finished()} == set(world.cancels())


async def test_results_are_kept_for_a_slow_consumer_also_after_the_end() -> None:
    world = World()
    scheduler = CancelScheduler(world.client)
    results = scheduler.results()
    for order in await world.orders(3):
        scheduler.schedule(order)
    async with running(scheduler):
        await world.advance(121)
        await anext(results)
    assert len(await collect(results)) == 2


async def test_two_tasks_can_share_one_iterator() -> None:
    world = World()
    scheduler = CancelScheduler(world.client)
    results = scheduler.results()
    seen: list[CancelResult] = []

    async def listen() -> None:
        seen.extend(await collect(results))

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        group.start_soon(listen)
        async with running(scheduler):
            for order in await world.orders(3):
                scheduler.schedule(order)
            await world.advance(121)
    assert len(seen) == 3


async def test_a_loop_that_is_left_early_keeps_nothing() -> None:
    world = World()
    scheduler = CancelScheduler(world.client)
    for order in await world.orders(3):
        scheduler.schedule(order)
    results = scheduler.results()
    gone = weakref.ref(results)
    async with running(scheduler):
        await world.advance(121)
        async for _ in results:
            break
        del results
        gc.collect()
        assert gone() is None
        assert len(world.finished()) == 3


# --- outcomes -------------------------------------------------------------------------------------


async def outcome_of(world: World, minutes: float = 3) -> CancelResult:
    """Return what a scheduler says of one order after so many minutes."""
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    async with running(scheduler):
        scheduler.schedule(order)
        await world.advance(minutes * 60)
        assert len(scheduler) == 0
    (result,) = world.finished()
    assert result.order_id == order.order_id
    assert result.attempts == len(world.cancels())
    return result


async def test_an_order_that_the_service_had_released_is_told_so() -> None:
    result = await outcome_of(World(NO_NUMBER))
    assert result.outcome is CancelOutcome.ALREADY_RELEASED
    assert result.funds_returned is True
    assert result.status is not None
    assert result.error is None


@pytest.mark.parametrize("journal", [None, MemoryJournal], ids=["no journal", "journal"])
async def test_a_code_that_arrived_is_told(journal: type[MemoryJournal] | None) -> None:
    kept = None if journal is None else journal()
    result = await outcome_of(World(CODE, journal=kept))
    assert (result.outcome, result.code) == (CancelOutcome.CODE_ARRIVED, "007")
    assert result.funds_returned is False
    if kept is not None:
        (entry,) = await kept.history()
        assert (entry.outcome, entry.codes) == (CancelOutcome.CODE_ARRIVED, ("007",))


async def test_a_refusal_for_good_is_told() -> None:
    world = World(Behaviour(cancel_refusal_status=404, cancel_refusal_reason="no such order"))
    scheduler = CancelScheduler(world.client)
    async with running(scheduler):
        scheduler.schedule("ab" * 32)
        await world.advance(121)
        assert len(scheduler) == 0
    (result,) = world.finished()
    assert result.outcome is RequestOutcome.REFUSED
    assert result.funds_returned is None
    assert result.error is not None
    assert "no such order" in str(result.error)
    assert world.cancels() == ["ab" * 32]


async def test_after_21_minutes_the_status_tells_that_the_money_is_back() -> None:
    world = World(NEVER)
    result = await outcome_of(world, 22)
    assert result.outcome is CancelOutcome.ALREADY_RELEASED
    assert result.attempts == len(world.cancels()) > 10
    assert all(120 <= age < 21 * 60 for age in world.ages())


async def test_where_the_status_does_not_tell_either_it_is_unknown() -> None:
    journal = MemoryJournal()
    result = await outcome_of(World(NEVER_EVER, journal=journal), 23)
    assert result.outcome is RequestOutcome.UNKNOWN
    assert result.funds_returned is None
    assert result.error is not None
    assert result.error.request_outcome is RequestOutcome.UNKNOWN
    (entry,) = await journal.history()
    assert entry.outcome is RequestOutcome.UNKNOWN
    assert not entry.pending


async def test_whoever_is_told_of_an_unclear_end_may_schedule_the_order_again_at_once() -> None:
    world = World()

    def ask_again(event: Event) -> None:
        world.events.append(event)
        if isinstance(event, CancelFinished) and event.result.funds_returned is None:
            scheduler.schedule(event.result.order_id)

    client = Sms4SatsClient(
        http_client=world.simulator.http_client(), clock=world.clock, on_event=ask_again
    )
    scheduler = CancelScheduler(client)
    order = await world.order()
    world.simulator.script("/cancelorder", Fault.http(403))
    world.simulator.script("/orderstatus", Fault.http(403))
    async with running(scheduler):
        scheduler.schedule(order)
        await world.advance(300)
    assert [result.outcome for result in world.finished()] == [
        RequestOutcome.REFUSED,
        CancelOutcome.CANCELLED,
    ]


async def test_a_status_that_could_not_be_read_is_not_the_last_word() -> None:
    """The next scheduler may know more, so the order stays pending."""
    journal = MemoryJournal()
    world = World(journal=journal)
    world.simulator.script("/cancelorder", *[Fault.http(500)] * 200)
    world.simulator.script("/orderstatus", *[Fault.http(404)] * 400)
    result = await outcome_of(world, 23)
    assert result.outcome is RequestOutcome.UNKNOWN
    (entry,) = await journal.pending()
    assert entry.claimed_by is None


async def test_a_client_that_was_closed_is_told_and_the_order_stays_pending() -> None:
    journal = MemoryJournal()
    world = World(journal=journal)
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    async with running(scheduler):
        scheduler.schedule(order)
        await world.client.aclose()
        await world.advance(121)
    (result,) = world.finished()
    assert result.outcome is RequestOutcome.NOT_SENT
    assert isinstance(result.error, ClientStateError)
    assert world.cancels() == []
    (entry,) = await journal.pending()
    assert entry.claimed_by is None


async def test_a_service_that_cannot_be_reached_for_a_while_is_waited_for() -> None:
    world = World()
    world.simulator.script("/createorder", None)
    world.simulator.script("*", *[Fault.reset()] * 23)
    result = await outcome_of(world, 8)
    assert result.outcome is CancelOutcome.CANCELLED
    assert result.attempts > 4


# --- run ------------------------------------------------------------------------------------------


async def test_run_twice_is_an_error_and_does_not_disturb_the_first() -> None:
    world = World()
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    results = scheduler.results()
    async with running(scheduler):
        with pytest.raises(ClientStateError, match="runs already"):
            await scheduler.run()
        scheduler.schedule(order)
        await world.advance(121)
        assert (await anext(results)).outcome is CancelOutcome.CANCELLED


async def test_run_can_be_started_again() -> None:
    world = World()
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    scheduler.schedule(order)
    async with running(scheduler):
        await world.advance(60)
    await world.advance(120)
    async with running(scheduler):
        await world.advance(1)
    assert world.cancels() == [order.order_id]


@pytest.mark.parametrize("kept", [True, False], ids=["journal", "no journal"])
@pytest.mark.parametrize(
    ("native", "anyio_backend"),
    [(False, "asyncio"), (False, "trio"), (True, "asyncio")],
    ids=["scope, asyncio", "scope, trio", "task.cancel"],
)
async def test_cancelled_during_a_request_it_leaves_no_task_and_no_claim(
    *, native: bool, kept: bool
) -> None:
    journal = MemoryJournal() if kept else None
    world = World(journal=journal)
    scheduler = CancelScheduler(world.client)
    order = await world.order()
    world.simulator.script("/cancelorder", Fault.slow(30))
    before = tasks()
    scheduler.schedule(order)
    if native:
        task = asyncio.create_task(scheduler.run())
        await world.advance(121)
        assert world.simulator.in_hand == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        async with running(scheduler):
            await world.advance(121)
            assert world.simulator.in_hand == 1
    assert tasks() == before
    assert world.simulator.in_hand == 0
    assert world.finished() == []
    if journal is not None:
        (entry,) = await journal.pending()
        assert (entry.outcome, entry.claimed_by) == (None, None)
        scheduler = CancelScheduler(world.new_client(journal))
    async with running(scheduler):
        await turns()
    assert [result.outcome for result in world.finished()] == [CancelOutcome.CANCELLED]


@pytest.mark.asyncio
async def test_a_task_cancelled_in_the_moment_in_which_the_timer_is_woken_ends() -> None:
    world = World()
    scheduler = CancelScheduler(world.client)
    first, second = await world.orders(2)
    scheduler.schedule(first, not_before=first.created_at + timedelta(minutes=9))
    task = asyncio.create_task(scheduler.run())
    await world.advance(6)
    scheduler.schedule(second)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
