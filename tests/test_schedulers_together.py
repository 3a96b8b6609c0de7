"""Several drivers on one journal: each order ends once, and each result is delivered once."""

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from sms4sats_async import (
    JournalEntry,
    JournalError,
    MemoryJournal,
    OrderOutcome,
    OrderResult,
    OrderScheduler,
    RequestOutcome,
    Sms4SatsClient,
    SqliteJournal,
)
from sms4sats_async._process import new_owner
from sms4sats_async.journal.entry import CLOCK_DIFFERENCE, LEASE, acknowledge, both, record_outcome
from sms4sats_async.simulator import Fault, ManualClock, ScaledClock, Simulator
from tests.many import Scene, claim_as, collect, moment, on_time, running, take, turns
from tests.simulated import CODE, HELD, REFUSED, entry_of

pytestmark = pytest.mark.anyio

OTHER = "another driver"


def two(scene: Scene) -> tuple[OrderScheduler, OrderScheduler]:
    """Two schedulers on the journal of a scene."""
    second = scene.new_client(scene.client.journal)
    return OrderScheduler(scene.client), OrderScheduler(second)


def gone_owner() -> str:
    """The name of an owner whose process does not exist."""
    machine, _, start, name = new_owner().split("/")
    return f"{machine}/{2**22 + 1}/{start}/{name}"


@asynccontextmanager
async def reading(*schedulers: OrderScheduler) -> AsyncGenerator[list[OrderResult]]:
    """Run schedulers and read their results, all into one list."""
    found: list[OrderResult] = []

    async def read(scheduler: OrderScheduler) -> None:
        async for result in scheduler.results():
            found.append(result)  # noqa: PERF401 - the list is read meanwhile

    async with running(*schedulers) as scope, anyio.create_task_group() as group:
        for scheduler in schedulers:
            group.start_soon(read, scheduler)
        yield found
        await turns()
        scope.cancel()


# --- two schedulers in one process ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_two_schedulers_end_each_order_once_and_deliver_each_result_once(
    kind: str, tmp_path: Path
) -> None:
    chance = random.Random(20261123)  # noqa: S311 - the same disorder every time
    journal = MemoryJournal() if kind == "memory" else SqliteJournal(tmp_path / "journal")
    scene = Scene(journal=journal)
    schedulers = two(scene)
    orders = [await scene.order(metadata={"chat": str(number)}) for number in range(30)]
    found: list[OrderResult] = []

    async def read(scheduler: OrderScheduler) -> None:
        async for result in scheduler.results():
            found.append(result)
            await scene.clock.sleep(chance.uniform(0, 2))

    scene.simulator.script("/cancelorder", *[Fault.slow(chance.uniform(0, 5)) for _ in orders])
    for order in orders:
        scene.simulator.set_behaviour(order.order_id, CODE if chance.random() < 0.3 else HELD)
        await schedulers[chance.randrange(2)].add(order, timeout=chance.uniform(0, 150))
    async with anyio.create_task_group() as group:
        for scheduler in schedulers:
            group.start_soon(scheduler.run)
            group.start_soon(read, scheduler)
        await scene.advance(250)
        group.cancel_scope.cancel()
    assert max(Counter(scene.cancels()).values()) == 1
    assert Counter(result.order_id for result in found) == {each.order_id: 1 for each in orders}
    assert {result.order_id: result.metadata for result in found} == {
        order.order_id: order.metadata for order in orders
    }
    assert {result.outcome for result in found} == {
        OrderOutcome.CODE_RECEIVED,
        OrderOutcome.CANCELLED,
    }
    assert (await journal.pending(), await journal.undelivered()) == ([], [])


async def test_an_order_that_the_journal_does_not_know_yet_is_claimed_like_any_other() -> None:
    journal = MemoryJournal()
    scene = Scene()
    order = await scene.order()
    await scene.advance(130)
    schedulers = [OrderScheduler(scene.new_client(journal)) for _ in range(2)]
    scene.simulator.script("/cancelorder", Fault.slow(3), Fault.slow(3))
    async with running(*schedulers):
        # Both before either is recorded, so a worker of each may come first.
        recorded = [scheduler.add(order) for scheduler in schedulers]
        await turns()
        for each in recorded:
            await each
        await scene.advance(20)
    assert scene.cancels() == [order.order_id]
    assert [result.outcome for result in scene.ended()] == [OrderOutcome.CANCELLED]
    assert (await entry_of(journal, order.order_id)).order == order


async def test_a_refused_order_is_cancelled_by_one_at_a_time_and_ended_by_one() -> None:
    scene = Scene(REFUSED, journal=MemoryJournal())
    await scene.order()
    first, second = two(scene)
    scene.simulator.script("/cancelorder", *[Fault.slow(1)] * 200)
    async with reading(first, second) as found:
        await scene.advance(23 * 60)
        assert (len(first), len(second)) == (0, 0)
    assert scene.most_under_way == 1
    assert max(scene.cancel_ages()) < 21 * 60
    assert [result.outcome for result in found] == [OrderOutcome.REFUNDED]
    assert scene.ended() == found


async def test_an_end_that_is_unknown_is_delivered_once() -> None:
    scene = Scene(journal=MemoryJournal())
    order = await scene.order()
    first, second = two(scene)
    scene.simulator.script("/cancelorder", Fault.http(404))
    async with reading(first, second) as found:
        await scene.advance(115)
        scene.simulator.script("/orderstatus", *[Fault.http(404)] * 4)
        await scene.advance(130)
    assert [(result.order_id, result.outcome) for result in found] == [(order.order_id, None)]
    assert scene.ended() == found
    assert len(scene.cancels()) == 1


async def test_what_one_defers_or_removes_the_other_leaves_alone() -> None:
    journal = MemoryJournal()
    scene = Scene(journal=journal)
    deferred, removed = await scene.orders(2)
    first, second = two(scene)
    async with running(first, second):
        await scene.advance(60)
        later = deferred.created_at + timedelta(minutes=5)
        await first.add(deferred, timeout=0, not_before=later)
        await first.remove(removed)
        await scene.advance(4 * 60 - 1)
        assert scene.cancels() == []
        await scene.advance(20)
        assert scene.cancels() == [deferred.order_id]
        polls = len(scene.polls())
        await scene.advance(15 * 60)
        assert len(scene.polls()) == polls
    assert scene.cancels() == [deferred.order_id]


async def test_an_end_that_the_journal_knows_is_a_result_and_an_unclear_one_is_tried_again() -> (
    None
):
    journal = MemoryJournal()
    scene = Scene(CODE, journal=journal)
    arrived, unclear = await scene.orders(2)
    await scene.advance(60)
    await scene.client.get_order_status(arrived)
    unknown = record_outcome(RequestOutcome.UNKNOWN, moment(scene.clock.now()), final=True)
    delivered = acknowledge(moment(scene.clock.now()))
    await journal.update([(unclear.order_id, both(unknown, delivered))])
    scheduler = OrderScheduler(scene.client)
    async with running(scheduler):
        await scheduler.add(unclear)
        await scene.advance(6)
        found = await take(scheduler.results(), 2)
    assert {(result.order_id, result.outcome, result.code) for result in found} == {
        (arrived.order_id, OrderOutcome.CODE_RECEIVED, "007"),
        (unclear.order_id, OrderOutcome.CODE_RECEIVED, "007"),
    }
    assert scene.cancels() == []


async def test_many_orders_that_need_no_request_let_other_tasks_run() -> None:
    journal = MemoryJournal()
    scene = Scene(journal=journal)
    orders = await scene.orders(500)
    ended = record_outcome(OrderOutcome.CANCELLED, moment(scene.clock.now()), final=True)
    await journal.update([(order.order_id, ended) for order in orders])
    scheduler = OrderScheduler(scene.client, concurrency=1)
    async with running(scheduler):
        assert 0 < len(scene.ended()) < 100
        await scene.advance(6)
        assert len(scene.ended()) == 500


# --- claims ---------------------------------------------------------------------------------------


async def test_the_claim_of_another_machine_is_waited_for_as_long_as_its_lease() -> None:
    journal = MemoryJournal()
    scene = Scene(journal=journal)
    order = await scene.order()
    await scene.advance(120)
    await claim_as(OTHER, journal, order.order_id, scene.clock.now())
    async with running(OrderScheduler(scene.client)):
        await scene.advance(LEASE.total_seconds() - 1)
        assert scene.requests() == ["/createorder"]
        await scene.advance(7)
    assert scene.cancels() == [order.order_id]


async def test_the_claim_of_a_process_that_died_is_free_within_10_seconds() -> None:
    journal = MemoryJournal()
    scene = Scene(journal=journal)
    ended, cancellable = await scene.orders(2)
    await scene.advance(119)
    young = await scene.order()
    await scene.advance(11)
    await scene.client.cancel_order(ended)
    (entry,) = [each for each in await journal.history() if each.order_id == ended.order_id]
    await journal.update([(ended.order_id, lambda _: attrs.evolve(entry, delivered_at=None))])
    for order in (ended, cancellable, young):
        await claim_as(gone_owner(), journal, order.order_id, scene.clock.now())
    async with running(scheduler := OrderScheduler(scene.client)):
        await scene.advance(10)
        assert len(await take(scheduler.results(), 2)) == 2
        claimed_by = (await entry_of(journal, young.order_id)).claimed_by
        assert claimed_by not in {None, gone_owner()}
    assert scene.cancels() == [ended.order_id, cancellable.order_id]


async def test_an_order_that_waits_10_minutes_keeps_its_claim() -> None:
    journal = MemoryJournal()
    scene = Scene(journal=journal)
    order = await scene.order()
    first, second = two(scene)
    owners: set[str | None] = set()
    async with running(first, second):
        await first.add(order, timeout=600)
        await scene.advance(7)
        for _ in range(59):
            await scene.advance(10)
            entry = await entry_of(journal, order.order_id)
            owners.add(entry.claimed_by)
            assert entry.claimed_until is not None
            assert entry.claimed_until > moment(scene.clock.now() + 20)
        await scene.advance(10)
    assert len(owners) == 1
    assert scene.cancel_ages() == [on_time(600)]


@pytest.mark.parametrize("driver", ["code_or_refund", "open_order", "receive_code"])
async def test_a_scheduler_leaves_an_order_alone_that_another_driver_has(driver: str) -> None:
    scene = Scene(journal=MemoryJournal())
    client = scene.new_client(scene.client.journal)
    results: list[OrderResult | None] = []

    async def drive() -> None:
        match driver:
            case "code_or_refund":
                order = await client.create_order(187, "tg")
                results.append(await client.code_or_refund(order, timeout=300))
            case "open_order":
                async with client.open_order(187, "tg") as opened:
                    results.append(await opened.code_or_refund(timeout=300))
            case _:
                result = await client.receive_code(187, "tg", pay=lambda _: None, timeout=300)
                results.append(result)

    async with anyio.create_task_group() as group:
        group.start_soon(drive)
        await scene.advance(10)
        scheduler = OrderScheduler(scene.client)
        group.start_soon(scheduler.run)
        await scene.advance(280)
        assert scene.cancels() == []
        assert len(scheduler) == 1
        assert len(scene.polls()) < 290 / 4  # it was polled by one
        await scene.advance(20)
        assert len(scheduler) == 0
        with anyio.move_on_after(0):
            await collect(scheduler.results())
            pytest.fail("the scheduler delivered the result of another driver")
        group.cancel_scope.cancel()
    assert scene.cancel_ages() == [on_time(300)]
    assert [result and result.outcome for result in results] == [OrderOutcome.CANCELLED]
    assert len(scene.ended()) == 1


async def test_a_claim_that_ends_too_far_ahead_has_expired() -> None:
    """The clock was set back since, so nothing else would end it for an hour."""
    journal = MemoryJournal()
    scene = Scene(journal=journal)
    order = await scene.order()
    await scene.advance(120)
    beyond = CLOCK_DIFFERENCE.total_seconds()
    await claim_as(OTHER, journal, order.order_id, scene.clock.now() + beyond - 6)
    async with running(OrderScheduler(scene.client)):
        await scene.advance(6)
        assert scene.cancels() == []  # clocks may differ that much
    await claim_as("a third", journal, order.order_id, scene.clock.now() + 1000)
    async with running(OrderScheduler(scene.client)):
        await scene.advance(6)
    assert scene.cancels() == [order.order_id]


@pytest.mark.parametrize("seconds", [-3600, -100, 100])
async def test_two_schedulers_cancel_once_although_the_clock_is_set(seconds: float) -> None:
    """A claim that others count as expired is renewed before anything is sent."""
    clock = ManualClock(autojump=False)
    scene = Scene(clock=clock, journal=MemoryJournal())
    order = await scene.order()
    first, second = two(scene)
    async with reading(first, second) as found:
        await first.add(order, timeout=300)
        await scene.advance(100)
        clock.step_wall(seconds)
        await scene.advance(400)
    assert scene.cancels() == [order.order_id]
    assert scene.ended() == found
    assert len(found) == 1


async def test_a_claim_that_another_driver_has_by_now_is_not_released() -> None:
    journal = MemoryJournal()
    scene = Scene(REFUSED, journal=journal)
    order = await scene.order()
    scene.simulator.script("/cancelorder", Fault.slow(1))
    async with running(OrderScheduler(scene.client)):
        await scene.advance(120.5)
        assert scene.under_way == 1
        entry = await entry_of(journal, order.order_id)
        await journal.update([(order.order_id, lambda _: attrs.evolve(entry, claimed_by=OTHER))])
        await scene.advance(10)
    assert (await entry_of(journal, order.order_id)).claimed_by == OTHER


class StoppedClock:
    """The clock of a process that is stopped as by SIGSTOP: no sleep ends meanwhile."""

    def __init__(self, clock: ManualClock) -> None:
        self.now, self.monotonic = clock.now, clock.monotonic
        self._clock = clock
        self._goes_on = anyio.Event()
        self._goes_on.set()

    async def sleep(self, seconds: float, /) -> None:
        await self._clock.sleep(seconds)
        await self._goes_on.wait()

    def stop(self) -> None:
        self._goes_on = anyio.Event()

    def go_on(self) -> None:
        self._goes_on.set()


@pytest.mark.parametrize("delivers", [True, False], ids=["delivered", "undelivered"])
async def test_a_process_that_was_stopped_longer_than_a_lease_ends_no_order_again(
    *, delivers: bool
) -> None:
    journal = MemoryJournal()
    clock = ManualClock(autojump=False)
    scene = Scene(clock=clock, journal=journal)
    order = await scene.order()
    stopped = StoppedClock(clock)
    first = OrderScheduler(scene.new_client(journal, clock=stopped))
    second = OrderScheduler(scene.new_client(journal))
    async with running(first):
        await scene.advance(100)
        stopped.stop()
        async with running(second):
            await scene.advance(120)
            assert scene.cancels() == [order.order_id]
            (result,) = await take(second.results(), 1)
            if delivers:
                with anyio.move_on_after(0):
                    await collect(second.results())
                await journal.update([acknowledgement(result, clock)])
        stopped.go_on()
        await scene.advance(100)
        with anyio.move_on_after(0):
            found = await take(first.results(), 1)
            assert (found, delivers) == ([attrs.evolve(result, attempts=0, raw={})], False)
    assert scene.cancels() == [order.order_id]


def acknowledgement(result: OrderResult, clock: ManualClock) -> tuple[str, Any]:
    """The change of a loop that handled a result."""

    def change(entry: JournalEntry | None) -> JournalEntry | None:
        assert entry is not None
        return attrs.evolve(entry, delivered_at=moment(clock.now()), claimed_by=None)

    return result.order_id, change


@pytest.mark.parametrize("other", ["delivered it", "has it", "died"])
async def test_a_result_that_waited_longer_than_its_claim_is_delivered_by_one(other: str) -> None:
    journal = MemoryJournal()
    clock = ManualClock(autojump=False)
    scene = Scene(clock=clock, journal=journal)
    orders = await scene.orders(2)
    scheduler = OrderScheduler(scene.client)
    async with running(scheduler):
        await scene.advance(121)
        results = scheduler.results()
        first = await anext(results)
        await scene.advance(100)
        (last,) = {each.order_id for each in orders} - {first.order_id}
        owner = gone_owner() if other == "died" else OTHER
        await claim_as(owner, journal, last, clock.now())
        if other == "delivered it":
            (entry,) = [each for each in await journal.history() if each.order_id == last]
            assert entry.result is not None
            await journal.update([acknowledgement(entry.result, clock)])
        found: list[OrderResult] = []
        with anyio.move_on_after(10 if other == "died" else 0.2):
            found.append(await anext(results))
    assert [each.order_id for each in found] == ([last] if other == "died" else [])


async def test_a_result_that_is_handed_out_is_claimed_for_30_seconds_at_least() -> None:
    journal = MemoryJournal()
    scene = Scene(journal=journal)
    order = await scene.order()
    scheduler = OrderScheduler(scene.client)
    async with running(scheduler):
        await scene.advance(121)
        for _ in range(10):
            await scene.advance(20)
            await anext(scheduler.results())
            entry = await entry_of(journal, order.order_id)
            assert entry.claimed_until is not None
            assert entry.claimed_until >= moment(scene.clock.now() + 30)


class OftenBroken(MemoryJournal):
    """A `MemoryJournal` that cannot be written now and then.

    Attributes:
        updates: How often a change was requested.
    """

    updates = 0

    async def update(self, changes: Any, /) -> Sequence[JournalEntry | None]:
        self.updates += 1
        if self.updates % 3 == 0:
            raise OSError("no space left")
        return await super().update(changes)


async def test_every_order_is_refunded_although_the_journal_often_fails() -> None:
    journal = OftenBroken()
    scene = Scene()
    orders = await scene.orders(5)
    scheduler = OrderScheduler(scene.new_client(journal))
    async with running(scheduler):
        recorded = [scheduler.add(order, timeout=150) for order in orders]
        for each in recorded:
            with suppress(JournalError):  # what failed is recorded with the next claim
                await each
        await scene.advance(160)
        assert len(await take(scheduler.results(), 1)) == 1
    assert all(scene.is_refunded(order.order_id) for order in orders)
    assert scene.cancel_ages() == [on_time(150)] * 5


# --- two processes --------------------------------------------------------------------------------

SPEED = 20.0

_PROGRAM = """
import signal
import sys

import anyio

from sms4sats_async import OrderScheduler, Sms4SatsClient, SqliteJournal


async def until_sigterm(scope):
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        print("ready", flush=True)
        async for _ in signals:
            scope.cancel()


async def main(file):
    async with Sms4SatsClient(journal=SqliteJournal(file)) as client:
        scheduler = OrderScheduler(client)
        async with anyio.create_task_group() as group:
            group.start_soon(until_sigterm, group.cancel_scope)
            group.start_soon(scheduler.run)
            async for result in scheduler.results():
                print(result.order_id, result.code, result.metadata["chat"], flush=True)


anyio.run(main, sys.argv[1])
"""


class Bot:
    """A process with a scheduler, and what it wrote."""

    def __init__(self, environment: dict[str, str], file: Path) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - Python itself, with a program of ours
            [sys.executable, "-c", _PROGRAM, str(file)],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> list[str]:
        """End it, and return what it wrote."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        lines, _ = self._process.communicate(timeout=20)
        assert self._process.returncode == 0
        return lines.splitlines()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("stopped", [False, True], ids=["overlap", "one is stopped"])
async def test_two_processes_that_overlap_for_a_minute_end_each_order_once(
    tmp_path: Path, *, stopped: bool
) -> None:
    chance = random.Random(20261126)  # noqa: S311 - the same disorder every time
    clock = ScaledClock(SPEED)
    simulator = Simulator(HELD, clock=clock)
    file = tmp_path / "journal"
    codes: dict[str, bool] = {}
    async with simulator.serve() as root, SqliteJournal(file) as journal:
        environment = simulator.environment(root)
        async with Sms4SatsClient(base_url=root, journal=journal, clock=clock) as client:
            scheduler = OrderScheduler(client)
            for number in range(40):
                code = chance.random() < 0.5
                delay = chance.uniform(5, 130)
                simulator.behaviour = attrs.evolve(CODE if code else HELD, code_delay=delay)
                if not code:
                    simulator.behaviour = HELD
                order = await client.create_order(187, "tg", metadata={"chat": str(number)})
                codes[order.order_id] = code
                await scheduler.add(order, timeout=600 if code else chance.uniform(0, 130))
        first = Bot(environment, file)
        await clock.sleep(30)
        if stopped:
            first.send(signal.SIGSTOP)
        second = Bot(environment, file)
        await clock.sleep(LEASE.total_seconds() + 20 if stopped else 60)
        lines = [] if stopped else first.end()
        while await journal.pending() or await journal.undelivered():
            await clock.sleep(1)
        lines += [*second.end(), *(first.end() if stopped else [])]
        entries = {entry.order_id: entry for entry in await journal.history()}
    cancels = Counter(
        request.query["orderId"] for request in simulator.requests if "cancel" in request.path
    )
    assert cancels == {order_id: 1 for order_id, code in codes.items() if not code}
    delivered = [line.split() for line in lines]
    assert Counter(order_id for order_id, *_ in delivered) == dict.fromkeys(codes, 1)
    assert {order_id: code != "None" for order_id, code, _ in delivered} == codes
    for order_id, _, chat in delivered:
        assert entries[order_id].metadata == {"chat": chat}
