"""`OrderScheduler`: each order ends once, with its code or its refund, and at its time."""

import asyncio
import gc
import tracemalloc
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.lowlevel
import attrs
import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import sms4sats_async
from sms4sats_async import (
    AttemptFailed,
    ClientStateError,
    Event,
    InvalidArgumentError,
    JournalEntry,
    JournalError,
    JournalFailed,
    MemoryJournal,
    OrderEnded,
    OrderOutcome,
    OrderResult,
    OrderResults,
    OrderScheduler,
    ReceiveOrder,
    RequestOutcome,
    Sms4SatsClient,
)
from sms4sats_async._http.retrying import CONNECTIONS
from sms4sats_async._orders.many import ResultStore
from sms4sats_async.simulator import Behaviour, Fault, ManualClock, ScaledClock
from tests.many import (
    FIRST_POLL,
    LONGEST_PAUSE,
    Scene,
    collect,
    moment,
    on_time,
    running,
    take,
    tasks,
    turns,
)
from tests.simulated import (
    CODE,
    HELD,
    METADATA,
    NEVER_REFUNDED,
    NO_NUMBER,
    REFUSED,
    FailingJournal,
    entry_of,
)

pytestmark = pytest.mark.anyio

OTHER_ROOT = "https://other.example"


# --- one order ------------------------------------------------------------------------------------

# how the service treats the order, the wait, how it ends, its code, and its age at the cancel
ENDS = [
    pytest.param(CODE, 300, OrderOutcome.CODE_RECEIVED, "007", None, id="code in time"),
    pytest.param(CODE, 0, OrderOutcome.CODE_RECEIVED, "007", None, id="code before the cancel"),
    pytest.param(HELD, 300, OrderOutcome.CANCELLED, None, 300, id="no code until the deadline"),
    pytest.param(HELD, 30, OrderOutcome.CANCELLED, None, 120, id="a deadline below 2 minutes"),
    pytest.param(NO_NUMBER, 300, OrderOutcome.REFUNDED, None, None, id="no number"),
]


@pytest.mark.parametrize("journal", [None, MemoryJournal], ids=["no journal", "journal"])
@pytest.mark.parametrize(("behaviour", "timeout", "outcome", "code", "age"), ENDS)
async def test_an_order_ends_with_its_code_or_its_refund(
    *,
    behaviour: Behaviour,
    timeout: float,
    outcome: OrderOutcome,
    code: str | None,
    age: float | None,
    journal: type[MemoryJournal] | None,
) -> None:
    scene = Scene(behaviour, journal=None if journal is None else journal())
    scheduler = OrderScheduler(scene.client)
    order = await scene.order(metadata=METADATA)
    async with running(scheduler):
        await scheduler.add(order, timeout=timeout)
        assert len(scheduler) == 1
        await scene.advance(310)
        assert len(scheduler) == 0
        result = await anext(scheduler.results())
    assert (result.order_id, result.outcome, result.code) == (order.order_id, outcome, code)
    assert (result.metadata, result.error) == (METADATA, None)
    assert (result.number is not None) is (behaviour is not NO_NUMBER)
    assert scene.cancel_ages() == ([] if age is None else [on_time(age)])
    assert result.attempts == len(scene.cancel_ages())
    assert scene.ended() == [result]


async def test_an_order_is_polled_first_within_6_seconds_then_every_5_with_jitter() -> None:
    scene = Scene()
    scheduler = OrderScheduler(scene.client)
    orders = await scene.orders(20)
    async with running(scheduler):
        for order in orders:
            await scheduler.add(order, timeout=60)
        await scene.advance(70)
    firsts: list[float] = []
    pauses: list[float] = []
    for order in orders:
        ages = scene.poll_ages_of(order)
        firsts.append(ages[0])
        pauses += [later - earlier for earlier, later in pairwise(ages)]
    assert max(firsts) <= FIRST_POLL
    assert max(firsts) - min(firsts) > 2  # not all at once
    assert min(pauses) >= 5 * 0.85 - 0.01
    assert max(pauses) <= LONGEST_PAUSE
    assert max(pauses) - min(pauses) > 0.5


@pytest.mark.parametrize("when", ["before run", "after run"])
@pytest.mark.parametrize("kind", ["order", "id"])
async def test_an_order_can_be_added_before_and_after_run_starts(when: str, kind: str) -> None:
    scene = Scene(journal=MemoryJournal())
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    added = order if kind == "order" else order.order_id
    if when == "before run":
        await scheduler.add(added)
    async with running(scheduler):
        if when == "after run":
            await scheduler.add(added)
        await scene.advance(121)
    assert scene.cancels() == [order.order_id]
    assert [result.outcome for result in scene.ended()] == [OrderOutcome.CANCELLED]


async def test_an_order_that_is_added_twice_is_cancelled_once() -> None:
    scene = Scene()
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    async with running(scheduler):
        await scheduler.add(order)
        await scheduler.add(order.order_id)
        assert len(scheduler) == 1
        await scene.advance(60)
        await scheduler.add(order)
        await scene.advance(120)
    assert scene.cancel_ages() == [on_time(120)]
    assert len(scene.ended()) == 1


# what is added at an age of 60 seconds after timeout=300, and the age at the cancel
CHANGES = [
    pytest.param({"timeout": 300}, 360, id="a later deadline"),
    pytest.param({"timeout": timedelta(seconds=90)}, 150, id="an earlier deadline"),
    pytest.param({"timeout": 0}, 120, id="no deadline"),
    pytest.param({}, 300, id="None keeps the deadline"),
    pytest.param({"not_before": 400}, 400, id="not before a later time"),
    pytest.param({"not_before": 200}, 300, id="not before an earlier time"),
    pytest.param({"timeout": 0, "not_before": 200}, 200, id="both"),
    pytest.param({"timeout": 0, "not_before": 20}, 120, id="not before a time that has passed"),
]


@pytest.mark.parametrize("kind", ["order", "id"])
@pytest.mark.parametrize("journal", [None, MemoryJournal], ids=["no journal", "journal"])
@pytest.mark.parametrize(("change", "age"), CHANGES)
async def test_adding_again_changes_the_deadline(
    change: dict[str, Any], age: float, journal: type[MemoryJournal] | None, kind: str
) -> None:
    kept = None if journal is None else journal()
    scene = Scene(journal=kept)
    scheduler = OrderScheduler(scene.client, timeout=1000)
    order = await scene.order()
    if "not_before" in change:
        not_before = order.created_at + timedelta(seconds=change["not_before"])
        change = change | {"not_before": not_before}
    async with running(scheduler):
        await scheduler.add(order, timeout=300)
        await scene.advance(60)
        await scheduler.add(order if kind == "order" else order.order_id, **change)
        if kept is not None:
            entry = await entry_of(kept, order.order_id)
            assert entry.not_before == change.get("not_before")
        await scene.advance(400)
    assert scene.cancel_ages() == [on_time(age)]


async def test_no_poll_comes_between_the_deadline_and_not_before() -> None:
    scene = Scene()
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    async with running(scheduler):
        not_before = order.created_at + timedelta(minutes=10)
        await scheduler.add(order, timeout=60, not_before=not_before)
        await scene.advance(610)
    assert 50 < max(scene.poll_ages()) < 60
    assert scene.cancel_ages() == [on_time(600)]


@pytest.mark.parametrize("has_journal", [False, True], ids=["no journal", "journal"])
@pytest.mark.parametrize("set_back", ["before the call", "after the call"])
async def test_not_before_is_the_time_that_was_left_at_the_call_by_the_wall_clock(
    set_back: str, *, has_journal: bool
) -> None:
    scene = Scene(journal=MemoryJournal() if has_journal else None)
    assert isinstance(scene.clock, ManualClock)
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    async with running(scheduler):
        await scene.advance(10)
        if set_back == "before the call":
            scene.clock.step_wall(-3600)
        await scheduler.add(order, timeout=0, not_before=moment(scene.clock.now() + 600))
        if set_back == "after the call":
            scene.clock.step_wall(-3600)
        await scene.advance(700)
    assert scene.cancel_ages() == [on_time(610)]


async def test_a_restart_keeps_not_before_under_a_clock_that_was_set_back() -> None:
    scene = Scene(journal=MemoryJournal())
    assert isinstance(scene.clock, ManualClock)
    order = await scene.order()
    scene.clock.step_wall(-3600)
    not_before = moment(scene.clock.now() + 600)
    await OrderScheduler(scene.client).add(order, timeout=0, not_before=not_before)
    async with running(OrderScheduler(scene.new_client(scene.client.journal))):
        await scene.advance(700)
    assert scene.cancel_ages() == [on_time(600)]


@pytest.mark.parametrize("removed", [True, False], ids=["removed meanwhile", "changed"])
async def test_a_change_during_a_request_counts_from_its_end_on(*, removed: bool) -> None:
    scene = Scene(REFUSED, journal=MemoryJournal())
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    scene.simulator.script("/cancelorder", *[Fault.slow(3)] * 9)
    async with running(scheduler):
        await scheduler.add(order)
        await scene.advance(121)
        assert scene.under_way == 1
        if removed:
            await scheduler.remove(order)
            assert len(scheduler) == 0
        await scheduler.add(order, not_before=order.created_at + timedelta(minutes=9))
        assert len(scheduler) == 1
        await scene.advance(50)
        sent = len(scene.cancels())
        await scene.advance(9 * 60 - 172)
        assert len(scene.cancels()) == sent
        await scene.advance(30)
    assert len(scene.cancels()) > sent
    assert scene.most_under_way == 1


async def test_an_id_that_is_unknown_counts_as_created_now() -> None:
    scene = Scene()
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    await scene.advance(60)
    async with running(scheduler):
        await scheduler.add(order.order_id)
        await scene.advance(130)
    assert scene.cancel_ages() == [on_time(180)]


async def test_the_journal_knows_when_an_id_was_created_and_its_metadata() -> None:
    scene = Scene(journal=MemoryJournal())
    order = await scene.order(metadata=METADATA)
    await scene.advance(60)
    scheduler = OrderScheduler(scene.new_client(scene.client.journal))
    async with running(scheduler):
        await scheduler.add(order.order_id, timeout=100)
        await scene.advance(110)
        result = await anext(scheduler.results())
    assert scene.cancel_ages() == [on_time(160)]
    assert result.metadata == METADATA


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, True, "20", None])
async def test_an_invalid_concurrency_is_refused(concurrency: object) -> None:
    given: dict[str, Any] = {"concurrency": concurrency}
    with pytest.raises(InvalidArgumentError, match="concurrency"):
        OrderScheduler(Scene().client, **given)


async def test_invalid_arguments_are_refused_and_nothing_is_driven() -> None:
    scheduler = OrderScheduler(Scene().client)
    order = ReceiveOrder("ab" * 32, "", moment(0))
    naive = moment(0).replace(tzinfo=None)
    with pytest.raises(InvalidArgumentError, match="order ID"):
        await scheduler.add("")
    with pytest.raises(InvalidArgumentError, match="timeout"):
        await scheduler.add(order, timeout=-1)
    with pytest.raises(InvalidArgumentError, match="time zone"):
        await scheduler.add(order, not_before=naive)
    with pytest.raises(InvalidArgumentError, match="created_at must have a time zone"):
        await scheduler.add(attrs.evolve(order, created_at=naive))
    with pytest.raises(InvalidArgumentError, match="order ID"):
        await scheduler.remove("\n")
    with pytest.raises(InvalidArgumentError, match="timeout"):
        OrderScheduler(Scene().client, timeout=-1)
    assert len(scheduler) == 0


@pytest.mark.parametrize("timeout", [timedelta.max, 1e300], ids=["timedelta.max", "1e300"])
async def test_the_longest_wait_is_a_wait(timeout: float | timedelta) -> None:
    scene = Scene(CODE, journal=MemoryJournal())
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    async with running(scheduler):
        await scheduler.add(order, timeout=timeout)
        await scene.advance(40)
    assert [result.code for result in scene.ended()] == ["007"]


# --- clocks: never early, and not late ------------------------------------------------------------


async def test_a_suspended_machine_does_not_wait_again() -> None:
    clock = ManualClock(autojump=False)
    scene = Scene(clock=clock)
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    async with running(scheduler):
        await scheduler.add(order)
        await clock.advance(20)
        clock.suspend(60)
        await clock.advance(39)
        assert scene.cancels() == []
        await clock.advance(2)
    assert scene.cancel_ages() == [pytest.approx(120, abs=0.1)]


@pytest.mark.parametrize("journal", [None, MemoryJournal], ids=["no journal", "journal"])
@pytest.mark.parametrize("timeout", [0, 300])
async def test_a_clock_that_is_set_back_makes_a_cancel_neither_early_nor_late(
    timeout: float, journal: type[MemoryJournal] | None
) -> None:
    clock = ManualClock(autojump=False)
    scene = Scene(clock=clock, journal=None if journal is None else journal())
    scheduler = OrderScheduler(scene.client)
    first = await scene.order()
    async with running(scheduler):
        await scheduler.add(first, timeout=timeout)
        await clock.advance(20)
        clock.step_wall(-3600)
        await clock.advance(20)
        second = await scene.order()
        await scheduler.add(second, timeout=timeout)
        await clock.advance(20)
        clock.step_wall(3600)
        await clock.advance(350)
    assert scene.cancels() == [first.order_id, second.order_id]
    assert scene.cancel_ages() == [on_time(max(120, timeout))] * 2


@pytest.mark.parametrize("journal", [None, MemoryJournal], ids=["no journal", "journal"])
async def test_a_wait_keeps_its_length_if_the_clock_was_set_back_since_the_order(
    journal: type[MemoryJournal] | None,
) -> None:
    clock = ManualClock(autojump=False)
    scene = Scene(clock=clock, journal=None if journal is None else journal())
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    await clock.advance(10)
    clock.step_wall(-3600)
    async with running(scheduler):
        await scheduler.add(order, timeout=300)
        await clock.advance(320)
    assert scene.cancel_ages() == [on_time(310)]


async def test_a_clock_that_is_set_forward_counts_as_time_that_passed() -> None:
    """It looks like a suspended machine; the service refuses what is early."""
    clock = ManualClock(autojump=False)
    scene = Scene(clock=clock)
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    async with running(scheduler):
        await scheduler.add(order)
        clock.step_wall(300)
        await clock.advance(200)
    assert scene.cancel_ages()[0] < 10
    assert scene.is_refunded(order.order_id)


async def test_an_order_from_the_future_counts_as_created_now() -> None:
    scene = Scene()
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    future = attrs.evolve(order, created_at=order.created_at + timedelta(days=365))
    async with running(scheduler):
        await scheduler.add(future)
        await scene.advance(130)
    assert scene.cancel_ages() == [on_time(120)]


_CLOCK_EVENT = st.tuples(
    st.sampled_from(["pass", "suspend", "back", "order"]), st.floats(0.001, 80)
)


@settings(max_examples=20)
@given(clock_events=st.lists(_CLOCK_EVENT, max_size=8), start=st.floats(1e9, 4e9))
# Two sleeps that are each too short to be seen.
@example(clock_events=[("suspend", 1.0), ("order", 1.0), ("suspend", 1.0)], start=1e9)
def test_no_cancel_is_sent_early_whatever_the_clock_does(
    clock_events: list[tuple[str, float]], start: float
) -> None:
    async def run() -> None:
        clock = ManualClock(start, autojump=False)
        scene = Scene(clock=clock)
        scheduler = OrderScheduler(scene.client)
        async with running(scheduler):
            await scheduler.add(await scene.order())
            for what, seconds in clock_events:
                match what:
                    case "pass":
                        await clock.advance(seconds)
                    case "suspend":
                        clock.suspend(seconds)
                    case "back":
                        clock.step_wall(-seconds)
                    case _:
                        await scheduler.add(await scene.order())
            await clock.advance(130)
        assert len(scene.cancels()) == len(scene.simulator.orders)
        assert min(scene.cancel_ages()) >= 120

    anyio.run(run)


# --- what the journal has as pending --------------------------------------------------------------


async def test_run_resumes_pending_orders_with_their_deadlines_and_metadata() -> None:
    journal = MemoryJournal()
    scene = Scene(journal=journal)
    short, long, without = [await scene.order(metadata={"chat": str(n)}) for n in range(3)]
    first = OrderScheduler(scene.client)
    await first.add(short, timeout=200)
    await first.add(long, timeout=500)
    await scene.advance(50)

    second = OrderScheduler(scene.new_client(journal), timeout=250)
    async with running(second):
        await scene.advance(500)
        results = await take(second.results(), 3)
    assert [(result.order_id, result.metadata) for result in results] == [
        (short.order_id, {"chat": "0"}),
        (without.order_id, {"chat": "2"}),
        (long.order_id, {"chat": "1"}),
    ]
    # The timeout of the scheduler counts from `run`.
    assert scene.cancel_ages() == [on_time(age) for age in (200, 300, 500)]


async def test_a_code_that_arrives_in_minute_8_reaches_the_next_process() -> None:
    journal = MemoryJournal()
    scene = Scene(attrs.evolve(CODE, code_delay=8 * 60 - 5), journal=journal)
    order = await scene.order(metadata=METADATA)
    async with running(first := OrderScheduler(scene.client)):
        await first.add(order, timeout=timedelta(minutes=10))
        await scene.advance(120)
    await scene.advance(30)
    async with running(second := OrderScheduler(scene.new_client(journal))):
        await scene.advance(7 * 60)
        result = await anext(second.results())
    assert (result.code, result.metadata, scene.cancels()) == ("007", METADATA, [])


async def test_orders_of_another_root_stay_pending() -> None:
    journal = MemoryJournal()
    scene = Scene(journal=journal)
    other = scene.new_client(journal, base_url=OTHER_ROOT)
    theirs = await other.create_order(187, "tg")
    ours = await scene.order()
    async with running(scheduler := OrderScheduler(scene.client)):
        await scene.advance(130)
        with pytest.raises(InvalidArgumentError, match=r"belongs to https://other\.example"):
            await scheduler.add(theirs)
        assert len(scheduler) == 0
        await scene.advance(130)
    assert scene.cancels() == [ours.order_id]
    assert theirs.order_id not in scene.polls()
    (entry,) = await journal.pending()
    assert (entry.order_id, entry.base_url) == (theirs.order_id, OTHER_ROOT)
    assert (entry.claimed_by, entry.code_deadline) == (None, None)


class SlowJournal(MemoryJournal):
    """A `MemoryJournal` in which other tasks have their turns before a change."""

    async def update(self, changes: Any, /) -> Sequence[JournalEntry | None]:
        await turns()
        return await super().update(changes)


async def test_an_old_order_of_another_root_is_not_cancelled_while_it_is_being_added() -> None:
    journal = SlowJournal()
    scene = Scene(journal=journal)
    theirs = await scene.new_client(journal, base_url=OTHER_ROOT).create_order(187, "tg")
    await scene.advance(130)
    async with running(scheduler := OrderScheduler(scene.client)):
        with pytest.raises(InvalidArgumentError, match="belongs to"):
            await scheduler.add(theirs)
        await scene.advance(30)
    assert (scene.cancels(), scene.polls()) == ([], [])
    (entry,) = await journal.pending()
    assert (entry.claimed_by, entry.refusals) == (None, 0)


async def test_an_order_that_the_journal_does_not_know_is_recorded_before_add_returns() -> None:
    journal = MemoryJournal()
    scene = Scene()
    order = await scene.order(metadata=METADATA)
    scheduler = OrderScheduler(scene.new_client(journal))
    await scheduler.add(order, timeout=600)
    entry = await entry_of(journal, order.order_id)
    assert entry.order == order
    assert entry.code_deadline is not None
    assert entry.code_deadline - entry.created_at == timedelta(seconds=600)


async def test_pending_orders_are_resumed_once_by_a_second_run() -> None:
    scene = Scene(journal=MemoryJournal())
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    for _ in range(2):
        async with running(scheduler):
            await scene.advance(30)
            assert len(scheduler) == 1
    async with running(scheduler):
        await scene.advance(70)
    assert scene.cancels() == [order.order_id]


@pytest.mark.parametrize("same", [True, False], ids=["second run", "next process"])
async def test_the_wait_after_a_refusal_goes_on_after_a_restart(*, same: bool) -> None:
    scene = Scene(REFUSED, journal=MemoryJournal())
    scheduler = OrderScheduler(scene.client)
    await scene.order()
    async with running(scheduler):
        await scene.advance(180)
    sent = len(scene.cancels())
    if not same:
        scheduler = OrderScheduler(scene.new_client(scene.client.journal))
    async with running(scheduler):
        await scene.advance(0.1)
        assert len(scene.cancels()) == sent
        await scene.advance(120)
        assert len(scene.cancels()) > sent


# --- remove ---------------------------------------------------------------------------------------


async def test_an_order_that_was_removed_is_neither_polled_nor_cancelled() -> None:
    scene = Scene()
    scheduler = OrderScheduler(scene.client)
    first, second = await scene.orders(2)
    await scheduler.add(first)
    await scheduler.add(second)
    await scheduler.remove(first)
    async with running(scheduler):
        await scene.advance(60)
        await scheduler.remove(second.order_id)
        await scheduler.remove("cd" * 32)
        polls = len(scene.polls())
        await scene.advance(600)
        assert len(scheduler) == 0
    assert (scene.cancels(), scene.ended()) == ([], [])
    assert first.order_id not in scene.polls()
    assert len(scene.polls()) == polls


@pytest.mark.parametrize("timeout", [0, 300])
async def test_a_restart_leaves_a_removed_order_alone_for_21_minutes(timeout: float) -> None:
    journal = MemoryJournal()
    scene = Scene(journal=journal)
    order = await scene.order()
    async with running(first := OrderScheduler(scene.client)):
        await first.add(order, timeout=900)
        await scene.advance(10)
        await first.remove(order)
        entry = await entry_of(journal, order.order_id)
        assert entry.claimed_by is None
    polls = len(scene.polls())
    async with running(OrderScheduler(scene.new_client(journal), timeout=timeout)):
        await scene.advance(20 * 60)
        assert (len(scene.polls()), scene.cancels()) == (polls, [])
        await scene.advance(120)
    assert [result.outcome for result in scene.ended()] == [OrderOutcome.REFUNDED]


async def test_an_add_that_is_awaited_after_remove_does_not_undo_it() -> None:
    journal = MemoryJournal()
    scene = Scene(journal=journal)
    order = await scene.order()
    async with running(scheduler := OrderScheduler(scene.client)):
        added = scheduler.add(order, timeout=10)
        await scheduler.remove(order)
        await added
        assert len(scheduler) == 0
    async with running(OrderScheduler(scene.client)):
        await scene.advance(20 * 60)
    assert (scene.cancels(), scene.polls()) == ([], [])


async def test_a_removed_order_that_is_added_again_is_driven() -> None:
    scene = Scene(journal=MemoryJournal())
    order = await scene.order()
    async with running(scheduler := OrderScheduler(scene.client)):
        await scene.advance(10)
        await scheduler.remove(order)
        await scheduler.add(order, timeout=200)
        await scene.advance(210)
    assert scene.cancel_ages() == [on_time(210)]


async def test_the_result_of_a_request_under_way_is_reported_of_a_removed_order() -> None:
    scene = Scene(journal=MemoryJournal())
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    scene.simulator.script("/cancelorder", Fault.slow(3))
    async with running(scheduler):
        await scheduler.add(order)
        await scene.advance(121)
        assert scene.under_way == 1
        await scheduler.remove(order)
        await scene.advance(5)
        result = await anext(scheduler.results())
    assert result.outcome is OrderOutcome.CANCELLED


async def test_a_removed_order_is_released_after_its_request() -> None:
    journal = MemoryJournal()
    scene = Scene(REFUSED, journal=journal)
    order = await scene.order()
    scene.simulator.script("/cancelorder", *[Fault.slow(3)] * 9)
    async with running(scheduler := OrderScheduler(scene.client)):
        await scene.advance(121)
        assert scene.under_way == 1
        await scheduler.remove(order)
        assert (await entry_of(journal, order.order_id)).claimed_by is not None
        await scene.advance(60)
        sent = len(scene.cancels())
        assert (await entry_of(journal, order.order_id)).claimed_by is None
        await scene.advance(600)
    assert len(scene.cancels()) == sent


class Interrupted(MemoryJournal):
    """A `MemoryJournal` that calls `meanwhile` once, between the claim of an order and its return.

    Attributes:
        meanwhile: What it calls.
    """

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def update(self, changes: Any, /) -> Sequence[JournalEntry | None]:
        found = await super().update(changes)
        if self.meanwhile is not None and any(entry and entry.claimed_by for entry in found):
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return found


async def test_an_order_that_is_removed_while_it_is_being_claimed_is_left_alone() -> None:
    journal = Interrupted()
    scene = Scene(journal=journal)
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    journal.meanwhile = lambda: scheduler.remove(order)
    async with running(scheduler):
        await scene.advance(125)
        assert len(scheduler) == 0
        await scene.advance(600)
    assert scene.cancels() == []
    (entry,) = await journal.pending()
    assert entry.claimed_by is None


async def test_an_order_that_is_changed_while_it_is_being_claimed_is_changed() -> None:
    journal = Interrupted()
    scene = Scene(journal=journal)
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()

    async def change() -> None:
        await scheduler.add(order, timeout=540)

    journal.meanwhile = change
    async with running(scheduler):
        await scene.advance(600)
    assert scene.cancel_ages() == [pytest.approx(540, abs=FIRST_POLL)]


class SlowToRead(MemoryJournal):
    """A `MemoryJournal` that removes what it lists as pending from a scheduler.

    Attributes:
        scheduler: The scheduler.
    """

    scheduler: OrderScheduler | None = None

    async def pending(self, base_url: str | None = None) -> list[JournalEntry]:
        found = await super().pending(base_url)
        if self.scheduler is not None:
            for entry in found:
                await self.scheduler.remove(entry.order_id or "")
        return found


async def test_an_order_that_is_removed_while_it_is_being_resumed_is_left_alone() -> None:
    journal = SlowToRead()
    scene = Scene(journal=journal)
    order = await scene.order()
    journal.scheduler = scheduler = OrderScheduler(scene.client)
    async with running(scheduler):
        await scene.advance(20 * 60)
    assert scene.cancels() == []
    assert scene.simulator.held_orders()[0].order_id == order.order_id


# --- tasks, workers, steps and memory -------------------------------------------------------------


async def test_a_thousand_waiting_orders_add_no_task() -> None:
    scene = Scene()
    scheduler = OrderScheduler(scene.client, concurrency=7)
    before = tasks()
    async with running(scheduler):
        with_none = tasks()
        assert with_none - before < 7 + 4
        for number in range(1000):
            order = ReceiveOrder(f"{number:064x}", "", moment(scene.clock.now()))
            await scheduler.add(order, timeout=600, not_before=moment(scene.clock.now() + 600))
        await scene.advance(0.1)
        assert len(scheduler) == 1000
        await turns(1000)
        assert tasks() == with_none
    assert tasks() == before


async def test_replaced_entries_do_not_pile_up() -> None:
    scene = Scene()
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    async with running(scheduler):
        for minutes in range(1000):
            await scheduler.add(order, not_before=order.created_at + timedelta(minutes=minutes))
        assert len(scheduler._queue._heap) < 200  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        await scheduler.add(order)
        await scene.advance(121)
    assert scene.cancels() == [order.order_id]


async def test_concurrency_is_reached_and_never_exceeded() -> None:
    scene = Scene()
    scheduler = OrderScheduler(scene.client, concurrency=5)
    orders = await scene.orders(40)
    scene.simulator.script("*", *[Fault.slow(1)] * 5000)
    async with running(scheduler):
        for order in orders:
            await scheduler.add(order)
        await scene.advance(140)
    assert scene.most_under_way == 5
    assert sorted(scene.cancels()) == sorted(order.order_id for order in orders)


async def test_a_request_that_hangs_does_not_delay_other_orders() -> None:
    scene = Scene()
    scheduler = OrderScheduler(scene.client, concurrency=2)
    first, second = await scene.orders(2)
    scene.simulator.script("/orderstatus", *[Fault.slow(60)])
    async with running(scheduler):
        for order in (first, second):
            await scheduler.add(order)
        await scene.advance(121)
    slow = next(order for order in (first, second) if len(scene.poll_ages_of(order)) < 20)
    fast = second if slow is first else first
    pauses = [later - earlier for earlier, later in pairwise(scene.poll_ages_of(fast))]
    assert max(pauses) <= LONGEST_PAUSE
    assert scene.cancel_ages() == [on_time(120)] * 2


async def test_a_refused_order_occupies_no_worker() -> None:
    scene = Scene(attrs.evolve(HELD, pay_delay=90, age_counts_from="payment"))
    scheduler = OrderScheduler(scene.client, concurrency=1)
    refused = await scene.order()
    scene.simulator.behaviour = HELD
    others = await scene.orders(5)
    async with running(scheduler):
        for order in [refused, *others]:
            await scheduler.add(order)
        await scene.advance(125)
        assert len(scene.ended()) == 5
        await scene.advance(200)
    last = scene.ended()[-1]
    assert (last.order_id, last.outcome) == (refused.order_id, OrderOutcome.CANCELLED)
    assert last.attempts == scene.cancels().count(refused.order_id) > 1


async def test_a_slow_service_delays_polls_evenly_and_no_cancel_or_deadline() -> None:
    """100 orders, 2 workers, and requests that take 2 s: a poll every 100 s instead of every 5."""
    scene = Scene()
    scheduler = OrderScheduler(scene.client, concurrency=2)
    orders = await scene.orders(100)
    scene.simulator.script("*", *[Fault.slow(2)] * 10_000)
    deadlines = {order.order_id: 150.0 + 40 * n for n, order in enumerate(orders[::10])}
    async with running(scheduler):
        for order in orders:
            await scheduler.add(order, timeout=deadlines.get(order.order_id, 1000))
        await scene.advance(530)
    assert dict(zip(scene.cancels(), scene.cancel_ages(), strict=True)) == {
        # A worker may have begun a poll just before, and a check for deadlines comes each second.
        each: pytest.approx(deadline + 1.5, abs=1.5 + 0.01)
        for each, deadline in deadlines.items()
    }
    polls = Counter(scene.polls())
    waiting = [polls[order.order_id] for order in orders if order.order_id not in deadlines]
    assert max(waiting) - min(waiting) <= 1
    assert min(waiting) >= 4
    assert not scene.events_of(AttemptFailed)


async def test_concurrency_is_bounded_by_the_connections_of_the_client() -> None:
    """More workers would wait for a connection until their time is up."""
    scene = Scene()
    scheduler = OrderScheduler(scene.client, concurrency=1000)
    orders = await scene.orders(150)
    await scene.advance(130)
    scene.simulator.script("*", *[Fault.slow(20)] * 5000)
    before = tasks()
    async with running(scheduler):
        assert tasks() <= before + CONNECTIONS + 4
        for order in orders:
            await scheduler.add(order)
        await scene.advance(50)
    assert scene.most_under_way == CONNECTIONS
    assert len(scene.ended()) == 150
    assert not scene.events_of(AttemptFailed)


async def test_a_wait_takes_few_steps() -> None:
    scene = Scene()
    assert isinstance(scene.clock, ManualClock)
    scheduler = OrderScheduler(scene.client)
    orders = await scene.orders(5)
    async with running(scheduler):
        await scene.advance(100)
        assert len(scene.clock.sleeps) <= 1  # without orders it only waits
        for order in orders:
            await scheduler.add(order, timeout=600)
        await scene.advance(290)
    # Each poll ends a sleep, and its end may begin a shorter one.
    assert len(scene.clock.sleeps) < 2 * len(scene.polls()) + 290 / 5 + 20
    assert 5 * 285 / LONGEST_PAUSE < len(scene.polls()) < 5 * 290 / (5 * 0.85) + 5


async def test_a_wait_that_is_over_by_a_rounding_error_does_not_spin() -> None:
    """With a clock of real time, which no float reaches exactly."""
    clock = CountingClock()
    scene = Scene(attrs.evolve(HELD, minimum_cancel_age=0), clock=clock)
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    old = attrs.evolve(order, created_at=order.created_at - timedelta(seconds=119.9))
    with anyio.fail_after(5):
        async with running(scheduler):
            await scheduler.add(old)
            await anext(scheduler.results())
    assert clock.count < 20


class CountingClock:
    """A clock that runs 5 times as fast, and counts its sleeps.

    Attributes:
        count: How many sleeps began.
    """

    def __init__(self) -> None:
        self._clock = ScaledClock(5)
        self.now, self.monotonic = self._clock.now, self._clock.monotonic
        self.count = 0

    async def sleep(self, seconds: float, /) -> None:
        self.count += 1
        await self._clock.sleep(seconds)


@pytest.mark.parametrize("journal", [None, MemoryJournal], ids=["no journal", "journal"])
async def test_a_thousand_orders_that_are_due_at_once_let_other_tasks_run(
    journal: type[MemoryJournal] | None,
) -> None:
    """Between two turns of another task, each worker handles a few orders at most."""
    handled, most = 0, 0

    async def answer(_: httpx.Request) -> httpx.Response:
        nonlocal handled
        await anyio.lowlevel.checkpoint()
        handled += 1
        return httpx.Response(200, json={"status": "OK"})

    async def watch() -> None:
        nonlocal most
        while True:
            before = handled
            await anyio.lowlevel.checkpoint()
            most = max(most, handled - before)

    clock = ManualClock(autojump=False)
    async with Sms4SatsClient(
        http_client=httpx.AsyncClient(transport=httpx.MockTransport(answer)),
        clock=clock,
        journal=None if journal is None else journal(),
    ) as client:
        scheduler = OrderScheduler(client)
        for number in range(1_000):
            await scheduler.add(ReceiveOrder(f"{number:064x}", "", moment(clock.now() - 130)))
        async with running(scheduler), anyio.create_task_group() as group:
            group.start_soon(watch)
            results = scheduler.results()
            for _ in range(1_000):
                assert (await anext(results)).outcome is OrderOutcome.CANCELLED
            group.cancel_scope.cancel()
    assert 0 < most <= 40


# What the service answers, and the KiB of an order that waits, its ID of 64 characters included.
ANSWERS = [
    pytest.param({"status": "OK", "paid": True}, 0.42, id="no number"),
    pytest.param({"status": "OK", "paid": True, "number": 15551234567}, 0.48, id="a number"),
]


OUR_FILES = (f"{Path(sms4sats_async.__file__).parent}/*", __file__)


@pytest.mark.parametrize(("answer", "kib"), ANSWERS)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_order_that_waits_takes_less_than_half_a_kib(
    answer: dict[str, Any], kib: float
) -> None:
    orders, polls = 600, 0

    def poll(_: httpx.Request) -> httpx.Response:
        nonlocal polls
        polls += 1
        return httpx.Response(200, json=answer)

    clock = ManualClock(autojump=False)
    http = httpx.AsyncClient(transport=httpx.MockTransport(poll))
    async with Sms4SatsClient(http_client=http, clock=clock) as client:
        scheduler = OrderScheduler(client)
        async with running(scheduler):
            gc.collect()
            tracemalloc.start()
            try:
                for number in range(orders):
                    order = ReceiveOrder(f"{number:064x}", "", moment(clock.now()))
                    await scheduler.add(order, timeout=600)
                while polls < orders:
                    await clock.advance(1)
                clock.sleeps.clear()
                gc.collect()
                snapshot = tracemalloc.take_snapshot()
            finally:
                tracemalloc.stop()
    # The ID is this file's. The caches of the HTTP library do not grow with the orders.
    ours = [tracemalloc.Filter(inclusive=True, filename_pattern=each) for each in OUR_FILES]
    memory = sum(trace.size for trace in snapshot.filter_traces(ours).traces)
    assert memory / 1024 / orders < kib


# --- results --------------------------------------------------------------------------------------


async def three_results(scene: Scene) -> tuple[OrderScheduler, list[ReceiveOrder]]:
    """A scheduler that has ended three orders."""
    scheduler, orders = OrderScheduler(scene.client), list[ReceiveOrder]()
    for number in range(3):
        orders.append(await scene.order(metadata={"chat": str(number)}))
        await scheduler.add(orders[-1])
        await scene.advance(1)
    async with running(scheduler):
        await scene.advance(121)
    return scheduler, orders


async def delivered(journal: MemoryJournal) -> int:
    """How many results count as delivered."""
    return sum(entry.delivered_at is not None for entry in await journal.history())


async def test_a_result_is_acknowledged_when_the_loop_asks_for_the_next() -> None:
    journal = MemoryJournal()
    scheduler, _ = await three_results(Scene(journal=journal))
    results, counts = scheduler.results(), list[int]()
    async for _ in results:
        counts.append(await delivered(journal))
    assert (counts, await delivered(journal)) == ([0, 1, 2], 3)


async def break_off(results: OrderResults) -> OrderResult:
    async for result in results:
        return result
    raise AssertionError


async def raise_in_loop(results: OrderResults) -> OrderResult:
    seen: list[OrderResult] = []
    with suppress(ZeroDivisionError):
        async for result in results:
            seen.append(result)
            raise ZeroDivisionError
    return seen[0]


async def cancel_in_loop(results: OrderResults) -> OrderResult:
    seen: list[OrderResult] = []
    with anyio.CancelScope() as scope:
        async for result in results:
            seen.append(result)
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    return seen[0]


LOOPS: list[Callable[[OrderResults], Awaitable[OrderResult]]] = [
    break_off,
    raise_in_loop,
    cancel_in_loop,
]


@pytest.mark.parametrize("leave", LOOPS)
@pytest.mark.parametrize("restart", [False, True], ids=["same process", "restart"])
async def test_a_result_whose_loop_ended_comes_again(
    leave: Callable[[OrderResults], Awaitable[OrderResult]], *, restart: bool
) -> None:
    journal = MemoryJournal()
    scene = Scene(journal=journal)
    scheduler, orders = await three_results(scene)
    results = scheduler.results()
    assert (await anext(results)).metadata == {"chat": "0"}
    assert (await leave(results)).metadata == {"chat": "1"}
    if restart:
        scheduler = OrderScheduler(scene.new_client(journal))
    async with running(scheduler):
        # The old process lives here, so its claim on the result in its hands must end.
        await scene.advance(100)
    again = await collect(scheduler.results())
    assert {each.order_id: each.metadata for each in again} == {
        order.order_id: order.metadata for order in orders[1:]
    }
    assert await delivered(journal) == 3


async def test_an_acknowledged_result_never_comes_again() -> None:
    journal = MemoryJournal()
    scene = Scene(journal=journal)
    scheduler, _ = await three_results(scene)
    assert len(await collect(scheduler.results())) == 3
    for client in (scene.client, scene.new_client(journal)):
        scheduler = OrderScheduler(client)
        async with running(scheduler):
            await scene.advance(6)
        assert await collect(scheduler.results()) == []
    assert len(scene.ended()) == 3


async def test_results_that_wait_are_not_resumed_by_a_second_run() -> None:
    journal = MemoryJournal()
    scene = Scene(journal=journal)
    scheduler, _ = await three_results(scene)
    results = scheduler.results()
    async with running(scheduler):
        await anext(results)
        await scene.advance(6)
        assert len(await take(results, 2)) == 2
    assert await collect(results) == []
    assert len(scene.ended()) == 3


async def test_prune_keeps_results_that_were_not_delivered() -> None:
    journal = MemoryJournal()
    scene = Scene(journal=journal)
    scheduler, orders = await three_results(scene)
    await take(scheduler.results(), 2)
    assert await journal.prune(moment(scene.clock.now() + 1)) == 1
    assert {entry.order_id for entry in await journal.history()} == {
        order.order_id for order in orders[1:]
    }


@pytest.mark.parametrize("waits", [True, False], ids=["while it waits", "between two results"])
async def test_only_the_newest_iterator_gets_results(*, waits: bool) -> None:
    scene = Scene(journal=MemoryJournal())
    scheduler = OrderScheduler(scene.client)
    older, failed = scheduler.results(), anyio.Event()
    orders = await scene.orders(2)

    async def read() -> None:
        with pytest.raises(ClientStateError, match="newest iterator"):
            await collect(older)
        failed.set()

    async with running(scheduler), anyio.create_task_group() as group:
        for order in orders:
            await scheduler.add(order)
        if waits:
            group.start_soon(read)
            await turns()
            newer = scheduler.results()
            await failed.wait()
            await scene.advance(121)
        else:
            await scene.advance(121)
            await anext(older)
            newer = scheduler.results()
            await read()
        found = {result.order_id for result in await take(newer, 2)}
        assert found == {order.order_id for order in orders}


async def test_an_acknowledgement_of_an_older_iterator_drops_no_other_result() -> None:
    journal = SlowJournal()
    scheduler, orders = await three_results(Scene(journal=journal))
    older = scheduler.results()
    await anext(older)
    seen: list[OrderResult] = []

    async def go_on() -> None:
        with pytest.raises(ClientStateError, match="newest iterator"):
            await anext(older)

    async with anyio.create_task_group() as group:
        group.start_soon(go_on)
        await turns(5)  # its acknowledgement is being written
        seen = await collect(scheduler.results())
    assert [each.order_id for each in seen] == [order.order_id for order in orders]


async def test_two_tasks_cannot_wait_in_one_iterator() -> None:
    scene = Scene()
    scheduler = OrderScheduler(scene.client)
    results = scheduler.results()
    async with anyio.create_task_group() as group:
        group.start_soon(anext, results)
        await turns()
        with pytest.raises(ClientStateError, match="another task waits"):
            await anext(results)
        group.cancel_scope.cancel()


@pytest.mark.parametrize("error", [JournalError("the disk is full"), OSError("no")], ids=repr)
async def test_a_result_that_cannot_be_acknowledged_comes_again(error: Exception) -> None:
    journal = FailingJournal()
    scheduler, orders = await three_results(Scene(journal=journal))
    results = scheduler.results()
    await anext(results)
    journal.error = error
    for _ in range(2):
        with pytest.raises(JournalError):
            await anext(results)
        # The next call has nothing to acknowledge, and returns the same result.
        assert (await anext(results)).order_id == orders[0].order_id
    journal.error = None
    assert [each.order_id for each in await collect(results)] == [
        order.order_id for order in orders[1:]
    ]


async def test_the_iterator_ends_with_run_and_keeps_results_for_a_slow_reader() -> None:
    scene = Scene()
    scheduler = OrderScheduler(scene.client)
    results = scheduler.results()
    for order in await scene.orders(3):
        await scheduler.add(order)
    async with running(scheduler):
        await scene.advance(121)
        await anext(results)
    assert len(await collect(results)) == 2


async def test_a_loop_over_many_results_lets_other_tasks_run() -> None:
    scene = Scene()
    scheduler, _ = await three_results(scene)
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await anyio.lowlevel.checkpoint()
            beats += 1

    async with anyio.create_task_group() as group:
        group.start_soon(beat)
        assert len(await collect(scheduler.results())) == 3
        group.cancel_scope.cancel()
    assert beats >= 2


@pytest.mark.parametrize("journal", [None, MemoryJournal], ids=["no journal", "journal"])
async def test_a_loop_that_adds_many_orders_lets_other_tasks_run(
    journal: type[MemoryJournal] | None,
) -> None:
    scheduler = OrderScheduler(Scene(journal=None if journal is None else SlowJournal()).client)
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await anyio.lowlevel.checkpoint()
            beats += 1

    async with anyio.create_task_group() as group:
        group.start_soon(beat)
        for number in range(50):
            await scheduler.add(f"{number:064x}")
        group.cancel_scope.cancel()
    assert beats >= 40


async def test_an_iterator_that_was_left_is_freed() -> None:
    scheduler, _ = await three_results(Scene())
    results = scheduler.results()
    gone = weakref.ref(results)
    await break_off(results)
    del results
    gc.collect()
    assert gone() is None


# --- ends that are unknown ------------------------------------------------------------------------


async def result_of(scene: Scene, minutes: float = 3) -> OrderResult:
    """The result of one order after so many minutes."""
    scheduler = OrderScheduler(scene.client)
    order = await scene.order(metadata=METADATA)
    async with running(scheduler):
        await scheduler.add(order)
        await scene.advance(minutes * 60)
        assert len(scheduler) == 0
        result = await anext(scheduler.results())
    assert scene.ended() == [result]
    assert (result.order_id, result.metadata) == (order.order_id, METADATA)
    assert result.attempts == len(scene.cancels())
    return result


async def test_a_lasting_refusal_is_a_result_with_its_error() -> None:
    scene = Scene(Behaviour(cancel_refusal_status=404, cancel_refusal_reason="no such order"))
    scheduler = OrderScheduler(scene.client)
    async with running(scheduler):
        await scheduler.add("ab" * 32)
        await scene.advance(121)
        assert len(scheduler) == 0
        result = await anext(scheduler.results())
    assert (result.outcome, result.refunded) == (None, None)
    assert "no such order" in str(result.error)
    assert scene.cancels() == ["ab" * 32]


async def test_after_21_minutes_the_status_shows_the_refund() -> None:
    scene = Scene(REFUSED)
    result = await result_of(scene, 22)
    assert result.outcome is OrderOutcome.REFUNDED
    assert result.attempts > 10
    assert all(120 <= age < 21 * 60 for age in scene.cancel_ages())


@pytest.mark.parametrize(
    ("faults", "pending"),
    [(0, False), (400, True)],
    ids=["the status shows no end", "the status cannot be read"],
)
async def test_an_end_that_stays_unknown_is_a_result_and_ends_the_order_if_the_status_says_so(
    faults: int, *, pending: bool
) -> None:
    """The next scheduler may read the status, so the order stays pending if this one could not."""
    journal = MemoryJournal()
    scene = Scene(NEVER_REFUNDED, journal=journal)
    scene.simulator.script("/orderstatus", *[Fault.http(404)] * faults)
    result = await result_of(scene, 27)
    assert (result.outcome, result.refunded) == (None, None)
    assert result.error is not None
    assert result.error.request_outcome is RequestOutcome.UNKNOWN
    (entry,) = await journal.history()
    assert entry.pending is pending
    if not pending:
        assert (entry.outcome, entry.delivered_at) == (RequestOutcome.UNKNOWN, None)


async def test_a_listener_can_add_an_order_again_whose_end_is_unknown() -> None:
    scene = Scene()

    def add_again(event: Event) -> None:
        scene.events.append(event)
        if isinstance(event, OrderEnded) and event.result.outcome is None:
            added.append(scheduler.add(event.result.order_id))

    added: list[Awaitable[None]] = []
    scheduler = OrderScheduler(scene.new_client(on_event=add_again))
    order = await scene.order()
    async with running(scheduler):
        # Nothing is sent between these two times.
        not_before = order.created_at + timedelta(seconds=200)
        await scheduler.add(order, timeout=30, not_before=not_before)
        await scene.advance(100)
        scene.simulator.script("/cancelorder", Fault.http(403))
        scene.simulator.script("/orderstatus", Fault.http(403))
        await scene.advance(101)
        await added[0]
        assert len(scheduler) == 1
        await scene.advance(130)
    assert [result.outcome for result in scene.ended()] == [None, OrderOutcome.CANCELLED]


async def test_a_service_that_cannot_be_reached_for_a_while_is_waited_for() -> None:
    scene = Scene()
    scene.simulator.script("/createorder", None)
    scene.simulator.script("*", *[Fault.reset()] * 60)
    result = await result_of(scene, 12)
    assert result.outcome is OrderOutcome.CANCELLED
    assert result.attempts > 4


# --- run ------------------------------------------------------------------------------------------


async def test_a_second_run_at_once_is_an_error_and_does_not_disturb_the_first() -> None:
    scene = Scene()
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    results = scheduler.results()
    async with running(scheduler):
        with pytest.raises(ClientStateError, match="runs already"):
            await scheduler.run()
        await scheduler.add(order)
        await scene.advance(121)
        assert (await anext(results)).outcome is OrderOutcome.CANCELLED


async def test_run_can_be_started_again() -> None:
    scene = Scene()
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    await scheduler.add(order)
    async with running(scheduler):
        await scene.advance(60)
    await scene.advance(120)
    async with running(scheduler):
        await scene.advance(1)
    assert scene.cancels() == [order.order_id]


def httpx_client(scene: Scene) -> httpx.AsyncClient:
    async def answer(request: httpx.Request) -> httpx.Response:
        target = request.url.raw_path.decode()
        answered = await scene.simulator.respond(request.method, target, {}, request.content)
        return httpx.Response(answered.status, content=answered.body)

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


@pytest.mark.parametrize("closed", ["client", "HTTP client"])
async def test_run_raises_if_a_client_was_closed_and_its_orders_stay_pending(closed: str) -> None:
    journal = MemoryJournal()
    scene = Scene(journal=journal)
    http = httpx_client(scene)
    client = scene.new_client(journal, http_client=http)
    scheduler = OrderScheduler(client)
    orders = await scene.orders(3)
    results, raised = scheduler.results(), list[ClientStateError]()

    async def run() -> None:
        with pytest.raises(ClientStateError) as caught:
            await scheduler.run()
        raised.append(caught.value)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await scene.advance(20)
        assert len(scheduler) == 3
        await (client.aclose() if closed == "client" else http.aclose())
        await scene.advance(10)
        assert await collect(results) == []
    assert "closed" in str(raised[0])
    assert scene.ended() == []
    pending = await journal.pending()
    assert {entry.order_id for entry in pending} == {order.order_id for order in orders}
    assert {(entry.claimed_by, entry.refusals) for entry in pending} == {(None, 0)}

    async with running(OrderScheduler(scene.client)):
        await scene.advance(100)
    assert len(scene.ended()) == 3


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_run_raises_if_an_aiohttp_session_was_closed() -> None:
    scene = Scene(journal=MemoryJournal())
    await scene.order()
    session = aiohttp.ClientSession()
    await session.close()
    scheduler = OrderScheduler(scene.new_client(scene.client.journal, http_client=session))
    task = asyncio.create_task(scheduler.run())
    await scene.advance(6)
    with pytest.raises(ClientStateError, match="closed"):
        await task


class BrokenClock(ManualClock):
    """A clock whose sleeps fail on demand.

    Attributes:
        broken: Whether they fail.
    """

    broken = False

    async def sleep(self, seconds: float) -> None:
        if self.broken:
            raise OSError("the clock is broken")
        await super().sleep(seconds)


async def test_an_unexpected_exception_is_raised_unchanged_and_run_can_go_on() -> None:
    clock = BrokenClock(autojump=False)
    scene = Scene(clock=clock)
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    await scheduler.add(order)
    clock.broken = True
    with pytest.raises(OSError, match="the clock is broken"):
        await scheduler.run()
    clock.broken = False
    async with running(scheduler):
        await scene.advance(121)
    assert scene.cancels() == [order.order_id]


async def test_an_unexpected_exception_of_a_step_is_raised_unchanged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene()
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    await scheduler.add(order)
    raised: list[BaseException] = []

    async def run() -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            await scheduler.run()
        raised.append(caught.value)

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("sms4sats_async._orders.steps.after_poll", fail)
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await scene.advance(6)
    assert len(raised) == 1
    async with running(scheduler):
        await scene.advance(121)
    assert scene.cancels() == [order.order_id]


@pytest.mark.parametrize("error", [JournalError("the disk is full"), OSError("no")], ids=repr)
async def test_run_raises_if_the_journal_cannot_be_read_and_sends_nothing(
    error: Exception,
) -> None:
    journal = FailingJournal()
    scene = Scene(journal=journal)
    order = await scene.order()
    scheduler = OrderScheduler(scene.client)
    await scene.advance(121)
    journal.error = error
    with pytest.raises(JournalError) as caught:
        await scheduler.run()
    assert caught.value is error or caught.value.__cause__ is error
    assert scene.requests() == ["/createorder"]
    journal.error = None
    async with running(scheduler):
        await scene.advance(1)
    assert scene.cancels() == [order.order_id]


async def test_an_order_is_driven_although_the_journal_fails() -> None:
    journal = FailingJournal()
    scene = Scene(journal=journal)
    first, second = await scene.orders(2)
    scheduler = OrderScheduler(scene.client)
    async with running(scheduler):
        journal.error = OSError("no space left")
        with pytest.raises(JournalError) as caught:
            await scheduler.add(second)
        assert caught.value.order_id == second.order_id
        await scene.advance(121)
    assert scene.is_refunded(first.order_id)
    assert scene.is_refunded(second.order_id)
    assert {event.order_id for event in scene.events_of(JournalFailed)} >= {first.order_id}


async def test_what_could_not_be_recorded_is_recorded_with_the_next_claim() -> None:
    journal = FailingJournal()
    scene = Scene()
    order = await scene.order(metadata=METADATA)
    scheduler = OrderScheduler(scene.new_client(journal))
    async with running(scheduler):
        journal.error = JournalError("the disk is full")
        with pytest.raises(JournalError, match="full"):
            await scheduler.add(order, timeout=500)
        journal.error = None
        await scene.advance(6)
        entry = await entry_of(journal, order.order_id)
    assert entry.metadata == METADATA
    assert entry.code_deadline is not None
    assert entry.code_deadline - entry.created_at == timedelta(seconds=500)


@pytest.mark.parametrize("journal", [None, MemoryJournal], ids=["no journal", "journal"])
@pytest.mark.parametrize(
    ("native", "anyio_backend"),
    [(False, "asyncio"), (False, "trio"), (True, "asyncio")],
    ids=["scope, asyncio", "scope, trio", "task.cancel"],
)
async def test_cancelled_during_a_request_it_leaves_no_task_and_no_claim(
    *, native: bool, journal: type[MemoryJournal] | None
) -> None:
    kept = None if journal is None else journal()
    scene = Scene(journal=kept)
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    scene.simulator.script("/cancelorder", Fault.slow(30))
    before = tasks()
    await scheduler.add(order)
    if native:
        task = asyncio.create_task(scheduler.run())
        await scene.advance(121)
        assert scene.under_way == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        async with running(scheduler):
            await scene.advance(121)
            assert scene.under_way == 1
    assert tasks() == before
    assert (scene.under_way, scene.ended()) == (0, [])
    if kept is not None:
        (entry,) = await kept.pending()
        assert (entry.outcome, entry.claimed_by) == (None, None)
        scheduler = OrderScheduler(scene.new_client(kept))
    async with running(scheduler):
        await scene.advance(0.1)
    assert [result.outcome for result in scene.ended()] == [OrderOutcome.CANCELLED]


class HangingJournal(MemoryJournal):
    """A `MemoryJournal` that hangs after a claim was recorded.

    Attributes:
        hangs: Whether it does.
    """

    hangs = False

    async def update(self, changes: Any, /) -> Sequence[JournalEntry | None]:
        found = await super().update(changes)
        if self.hangs and found[0] is not None and found[0].claimed_by is not None:
            await anyio.sleep_forever()
        return found


@pytest.mark.parametrize("remove", [True, False], ids=["removed", "driven"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_claim_whose_recording_was_cancelled_is_released(
    monkeypatch: pytest.MonkeyPatch, *, remove: bool
) -> None:
    monkeypatch.setattr("sms4sats_async.journal.recorder._BOUND", 0.05)
    journal = HangingJournal()
    scene = Scene(journal=journal)
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    await scheduler.add(order)
    task = asyncio.create_task(scheduler.run())
    await turns()
    journal.hangs = True
    await scene.advance(6)
    assert (await entry_of(journal, order.order_id)).claimed_by is not None
    if remove:
        removal = asyncio.create_task(scheduler.remove(order))
        await turns()
        removal.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await entry_of(journal, order.order_id)).claimed_by is None


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_is_cancelled_in_the_moment_in_which_the_timer_is_woken_ends() -> None:
    scene = Scene()
    scheduler = OrderScheduler(scene.client)
    first, second = await scene.orders(2)
    await scheduler.add(first, not_before=first.created_at + timedelta(minutes=9))
    task = asyncio.create_task(scheduler.run())
    await scene.advance(6)
    added = scheduler.add(second)
    task.cancel()
    await added
    with pytest.raises(asyncio.CancelledError):
        await task


# --- many orders, removed or resumed --------------------------------------------------------------


async def test_orders_removed_before_they_are_due_are_never_polled() -> None:
    scene = Scene()
    scheduler = OrderScheduler(scene.client)
    orders = await scene.orders(30)
    async with running(scheduler):
        for order in orders:
            await scheduler.add(order)
        for order in orders[::2]:
            await scheduler.remove(order)
        await scene.advance(6)
    assert set(scene.polls()) == {order.order_id for order in orders[1::2]}


async def test_an_order_removed_while_it_waits_for_a_worker_is_not_polled() -> None:
    scene = Scene()
    scheduler = OrderScheduler(scene.client, concurrency=1)
    orders = await scene.orders(4)
    scene.simulator.script("/orderstatus", *[Fault.slow(10)] * 2)
    async with running(scheduler):
        for order in orders:
            await scheduler.add(order)
        await scene.advance(8)
        (busy,) = set(scene.polls())
        removed, *others = [order for order in orders if order.order_id != busy]
        await scheduler.remove(removed)
        await scene.advance(60)
    polled = set(scene.polls())
    assert removed.order_id not in polled
    assert polled >= {order.order_id for order in others}


async def test_other_tasks_have_their_turns_while_many_orders_are_resumed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sms4sats_async.scheduler.AT_ONCE", 2)
    scene = Scene(journal=MemoryJournal())
    await scene.orders(20)
    scheduler = OrderScheduler(scene.client)
    waiting: list[int] = []

    async def watch() -> None:
        while True:
            waiting.append(len(scheduler))
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        group.start_soon(scheduler.run)
        await turns()
        group.cancel_scope.cancel()
    assert len({count for count in waiting if 0 < count < 20}) >= 5


async def test_a_result_is_delivered_although_its_claim_cannot_be_renewed() -> None:
    journal = FailingJournal()
    scene = Scene(CODE, journal=journal)
    scheduler = OrderScheduler(scene.client)
    order = await scene.order()
    async with running(scheduler):
        await scheduler.add(order)
        await scene.advance(200)
        journal.error = OSError("no space left")
        result = await anext(scheduler.results())
        journal.error = None
    assert (result.order_id, result.code) == (order.order_id, "007")
    assert scene.events_of(JournalFailed)


async def test_a_result_is_acknowledged_once() -> None:
    acknowledged: list[OrderResult] = []

    async def acknowledge(result: OrderResult) -> None:
        acknowledged.append(result)

    store = ResultStore(acknowledge)
    store.put(OrderResult("1" * 64, OrderOutcome.CANCELLED))
    reader = store.new_reader()
    result = await store.first(reader)
    await store.acknowledge(result, reader)
    await store.acknowledge(result, reader)
    assert acknowledged == [result]


async def test_an_order_removed_as_the_next_of_a_worker_is_not_polled() -> None:
    scene = Scene()
    scheduler = OrderScheduler(scene.client, concurrency=1)
    orders = await scene.orders(30)
    scene.simulator.script("/orderstatus", *[Fault.slow(0.3)] * 5000)
    removed: list[str] = []
    async with running(scheduler):
        for order in orders:
            await scheduler.add(order)
        while len(removed) < 10:
            await scene.advance(0.3)
            waiting = scheduler._queue._polls  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
            if waiting:
                removed.append(waiting[0].order_id)
                polled = scene.polls().count(removed[-1])
                await scheduler.remove(removed[-1])
                await scene.advance(0.9)
                assert scene.polls().count(removed[-1]) == polled
