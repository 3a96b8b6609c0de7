"""Several schedulers on one journal, and journals that fail: no order is cancelled twice."""

# What `schedule` returns may be awaited, and need not be.
# mypy: disable-error-code="unused-awaitable"

import random
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path
from subprocess import PIPE

import anyio
import pytest

from sms4sats_async import (
    CancelOutcome,
    CancelScheduler,
    Event,
    JournalEntry,
    JournalError,
    JournalFailed,
    MemoryJournal,
    OrderJournal,
    RequestOutcome,
    Sms4SatsClient,
    SqliteJournal,
)
from sms4sats_async.journal.entry import claimed, told
from sms4sats_async.simulator import Behaviour, Fault, Holder, ScaledClock, Simulator
from tests.many import (
    CODE,
    NEVER,
    NEVER_EVER,
    BrokenJournal,
    World,
    moment,
    running,
    turns,
)

pytestmark = pytest.mark.anyio

AT_ONCE = Behaviour(pay_delay=0, code_delay=None, minimum_cancel_age=0)


# --- two schedulers -------------------------------------------------------------------------------


async def test_an_order_that_the_journal_does_not_know_yet_is_claimed_like_any_other() -> None:
    journal = MemoryJournal()
    world = World()
    order = await world.order()
    await world.advance(130)
    client = world.new_client(journal)
    schedulers = [CancelScheduler(client), CancelScheduler(client)]
    world.simulator.script("/cancelorder", Fault.slow(3), Fault.slow(3))
    async with running(*schedulers):
        for scheduler in schedulers:
            scheduler.schedule(order)  # not awaited, so a worker may come before it is written
        await world.advance(20)
    assert world.cancels() == [order.order_id]
    assert [result.outcome for result in world.finished()] == [CancelOutcome.CANCELLED] * 2
    (entry,) = await journal.history()
    assert entry.order == order


async def test_an_unclear_end_is_asked_for_by_one_at_a_time() -> None:
    journal = MemoryJournal()
    world = World(journal=journal)
    order = await world.order()
    at = moment(world.clock.now())
    await journal.update([(order.order_id, told(RequestOutcome.UNKNOWN, at, final=True))])
    schedulers = [CancelScheduler(world.client), CancelScheduler(world.client)]
    world.simulator.script("/cancelorder", Fault.slow(3), Fault.slow(3))
    async with running(*schedulers):
        for scheduler in schedulers:
            await scheduler.schedule(order)
        await world.advance(140)
    assert world.cancels() == [order.order_id]
    assert [result.outcome for result in world.finished()] == [CancelOutcome.CANCELLED] * 2


async def test_one_that_is_refused_for_good_is_given_up_for_the_other_at_once() -> None:
    journal = MemoryJournal()
    world = World(journal=journal)
    order = await world.order()
    schedulers = [CancelScheduler(world.client), CancelScheduler(world.client)]
    world.simulator.script("/cancelorder", Fault.http(403))
    world.simulator.script("/orderstatus", Fault.http(403))
    async with running(*schedulers):
        await world.advance(130)
    assert [result.outcome for result in world.finished()] == [
        RequestOutcome.REFUSED,
        CancelOutcome.CANCELLED,
    ]
    assert world.cancels() == [order.order_id] * 2


@pytest.mark.parametrize("clients", [1, 2])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_two_schedulers_never_cancel_the_same_order_twice_and_both_tell(
    kind: str, clients: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In real time, which SQLite's thread takes; so what waits for the other looks more often.
    monkeypatch.setattr("sms4sats_async._many._LONGEST_NAP", 0.01)
    chance = random.Random(20261123)  # noqa: S311 - the same disorder every time
    journal = MemoryJournal() if kind == "memory" else SqliteJournal(tmp_path / "journal")
    world = World(AT_ONCE, journal=journal, clock=ScaledClock(1.0))
    orders = await world.orders(100)
    second = world.client if clients == 1 else world.new_client(journal)
    schedulers = [
        CancelScheduler(client, concurrency=5, minimum_age=0) for client in (world.client, second)
    ]
    now = world.clock.now()
    for order in orders:
        not_before = moment(now + chance.uniform(0, 0.1))
        await schedulers[chance.randrange(2)].schedule(order, not_before=not_before)
    faults = [Fault.slow(chance.uniform(0, 0.01), after_change=True) for _ in orders]
    world.simulator.script("/cancelorder", *faults)
    results = [scheduler.results() for scheduler in schedulers]
    with anyio.fail_after(20):
        async with running(*schedulers):
            told_by = [{(await anext(each)).order_id for _ in orders} for each in results]
    assert Counter(world.cancels()) == {order.order_id: 1 for order in orders}
    assert told_by == [{order.order_id for order in orders}] * 2
    assert {result.outcome for result in world.finished()} == {CancelOutcome.CANCELLED}
    assert await journal.pending() == []


_PROGRAM = """
import sys
import anyio
from sms4sats_async import CancelScheduler, Sms4SatsClient, SqliteJournal, _many

_many._LONGEST_NAP = 0.05

async def main(root, file, count):
    async with Sms4SatsClient(base_url=root, journal=SqliteJournal(file)) as client:
        scheduler = CancelScheduler(client, minimum_age=0)
        results = scheduler.results()
        async with anyio.create_task_group() as group:
            group.cancel_scope.deadline = anyio.current_time() + 30
            print("ready", flush=True)
            sys.stdin.readline()
            group.start_soon(scheduler.run)
            for _ in range(int(count)):
                print((await anext(results)).outcome.value)
            group.cancel_scope.cancel()

anyio.run(main, *sys.argv[1:])
"""


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_two_processes_never_cancel_the_same_order_twice_and_both_tell(
    tmp_path: Path,
) -> None:
    simulator = Simulator(AT_ONCE)
    file = tmp_path / "journal"
    async with (
        simulator.serve() as root,
        Sms4SatsClient(base_url=root, journal=SqliteJournal(file)) as client,
    ):
        orders = [await client.create_order(187, "tg") for _ in range(60)]
        simulator.script("/cancelorder", *[Fault.slow(0.02)] * 60)
        command = [sys.executable, "-c", _PROGRAM, root, str(file), "60"]
        with anyio.fail_after(30):
            async with (
                await anyio.open_process(command, stdin=PIPE, stderr=None) as one,
                await anyio.open_process(command, stdin=PIPE, stderr=None) as other,
            ):
                said = [""] * 2
                for process in (one, other):
                    assert process.stdout is not None
                    assert (await process.stdout.receive()).strip() == b"ready"
                for process in (one, other):
                    assert process.stdin is not None
                    await process.stdin.aclose()
                for number, process in enumerate((one, other)):
                    assert process.stdout is not None
                    async for part in process.stdout:
                        said[number] += part.decode()
    cancels = Counter(
        request.query["orderId"] for request in simulator.requests if "cancel" in request.path
    )
    assert cancels == {order.order_id: 1 for order in orders}
    assert [Counter(each.split()) for each in said] == [{"cancelled": 60}] * 2


async def test_one_that_is_in_anothers_hands_is_told_soon_after_its_end() -> None:
    journal = MemoryJournal()
    world = World(journal=journal)
    order = await world.order()
    schedulers = [CancelScheduler(world.client), CancelScheduler(world.new_client(journal))]
    world.simulator.script("/cancelorder", Fault.slow(3))
    async with running(*schedulers):
        await world.advance(124)
        assert len(world.finished()) == 1
        await world.advance(5)
        assert len(world.finished()) == 2
    assert world.cancels() == [order.order_id]
    assert {result.outcome for result in world.finished()} == {CancelOutcome.CANCELLED}
    assert [result.attempts for result in world.finished()] == [1, 0]


async def test_a_refused_order_is_waited_out_by_both_and_ended_by_one() -> None:
    journal = MemoryJournal()
    world = World(NEVER, journal=journal)
    order = await world.order()
    schedulers = [CancelScheduler(world.client), CancelScheduler(world.new_client(journal))]
    world.simulator.script("/cancelorder", *[Fault.slow(1)] * 200)
    async with running(*schedulers):
        await world.advance(23 * 60)
        assert [len(scheduler) for scheduler in schedulers] == [0, 0]
        assert [scheduler._queue._steps for scheduler in schedulers] == [{}, {}]  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    assert world.simulator.most == 1
    assert max(world.ages()) < 21 * 60
    assert [result.order_id for result in world.finished()] == [order.order_id] * 2
    assert {result.outcome for result in world.finished()} == {CancelOutcome.ALREADY_RELEASED}


async def claim_by_another(journal: OrderJournal, order_id: str, now: float) -> None:
    lease = timedelta(seconds=90)
    (entry,) = await journal.update([(order_id, claimed("a scheduler that died", now, lease))])
    assert entry is not None
    assert entry.claimed_by == "a scheduler that died"


async def test_the_claim_of_a_dead_scheduler_is_taken_over_after_its_lease() -> None:
    journal = MemoryJournal()
    world = World(journal=journal)
    order = await world.order()
    await world.advance(120)
    await claim_by_another(journal, order.order_id, world.clock.now())
    async with running(CancelScheduler(world.client)):
        await world.advance(89)
        assert world.cancels() == []
        await world.advance(7)
    assert world.cancels() == [order.order_id]
    assert world.simulator.holder(order.order_id) is Holder.REFUNDED


async def test_a_claim_that_ran_out_and_is_anothers_by_now_is_left_to_that() -> None:
    journal = MemoryJournal()
    world = World(NEVER, journal=journal)
    order = await world.order()
    world.simulator.script("/cancelorder", Fault.slow(1))
    async with running(CancelScheduler(world.client)):
        await world.advance(120.5)
        assert world.simulator.in_hand == 1
        await claim_by_another(journal, order.order_id, world.clock.now() + 100)
        await world.advance(10)
    entry = await journal.get(order.order_id)
    assert entry is not None
    assert entry.claimed_by == "a scheduler that died"


async def test_what_one_puts_off_or_leaves_alone_the_other_does_too() -> None:
    journal = MemoryJournal()
    world = World(journal=journal)
    put_off, left_alone = await world.orders(2)
    one, other = CancelScheduler(world.client), CancelScheduler(world.new_client(journal))
    async with running(one, other):
        await world.advance(60)
        await one.schedule(put_off, not_before=put_off.created_at + timedelta(minutes=5))
        await one.unschedule(left_alone)
        await world.advance(4 * 60 - 1)
        assert world.cancels() == []
        assert {entry.claimed_by for entry in await journal.pending()} == {None}
        await world.advance(20)
        assert world.cancels() == [put_off.order_id]
        await world.advance(15 * 60)
    assert world.cancels() == [put_off.order_id]


async def test_an_end_that_the_journal_knows_is_told_and_an_unclear_one_asked_for_again() -> None:
    journal = MemoryJournal()
    world = World(CODE, journal=journal)
    arrived, unclear = await world.orders(2)
    await world.advance(60)
    await world.client.get_order_status(arrived)
    at = moment(world.clock.now())
    await journal.update([(unclear.order_id, told(RequestOutcome.UNKNOWN, at, final=True))])
    async with running(scheduler := CancelScheduler(world.client)):
        scheduler.schedule(arrived)
        scheduler.schedule(unclear)
        await world.advance(61)
    assert world.cancels() == [unclear.order_id] * len(world.cancels())
    assert {(result.order_id, result.outcome, result.code) for result in world.finished()} == {
        (arrived.order_id, CancelOutcome.CODE_ARRIVED, "007"),
        (unclear.order_id, CancelOutcome.CODE_ARRIVED, "007"),
    }


async def test_many_that_need_no_request_do_not_hold_the_others_up() -> None:
    journal = MemoryJournal()
    world = World(journal=journal)
    orders = await world.orders(500)
    at = moment(world.clock.now())
    ended = told(CancelOutcome.CANCELLED, at, final=True)
    await journal.update([(order.order_id, ended) for order in orders])
    scheduler = CancelScheduler(world.client, concurrency=1)
    for order in orders:
        scheduler.schedule(order)
    await world.advance(121)
    async with running(scheduler):
        assert 0 < len(world.finished()) < 100
        await world.advance(1)
        assert len(world.finished()) == 500


# --- another journal than the client's ------------------------------------------------------------


@pytest.mark.parametrize(
    "of_client", [None, MemoryJournal], ids=["client without", "client with another"]
)
@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (None, CancelOutcome.CANCELLED),
        (CODE, CancelOutcome.CODE_ARRIVED),
        (NEVER, CancelOutcome.ALREADY_RELEASED),
        (NEVER_EVER, RequestOutcome.UNKNOWN),
    ],
    ids=["cancelled", "code", "released", "unknown"],
)
async def test_the_end_stands_in_the_schedulers_own_journal_and_in_the_clients(
    behaviour: Behaviour | None,
    outcome: CancelOutcome | RequestOutcome,
    of_client: type[MemoryJournal] | None,
) -> None:
    clients = None if of_client is None else of_client()
    world = World(journal=clients) if behaviour is None else World(behaviour, journal=clients)
    own = MemoryJournal()
    scheduler = CancelScheduler(world.client, journal=own)
    order = await world.order()
    async with running(scheduler):
        await scheduler.schedule(order)
        await world.advance(23 * 60)
    for journal in [own] if clients is None else [own, clients]:
        (entry,) = await journal.history()
        assert entry.order_id == order.order_id
        assert entry.outcome is outcome
        assert entry.code == ("007" if outcome is CancelOutcome.CODE_ARRIVED else None)
        assert not entry.pending


async def test_the_clients_own_journal_is_not_written_twice() -> None:
    written: list[int] = []
    for named in (False, True):
        journal = BrokenJournal()
        world = World(journal=journal)
        order = await world.order()
        scheduler = CancelScheduler(world.client, journal=journal if named else None)
        async with running(scheduler):
            await scheduler.schedule(order)
            await world.advance(121)
        written.append(journal.updates)
    assert written[0] == written[1]


# --- journals that fail ---------------------------------------------------------------------------


@pytest.mark.parametrize("error", [JournalError("the disk is full"), OSError("no")], ids=repr)
async def test_a_journal_that_cannot_be_read_is_the_error_of_run_and_nothing_is_sent(
    error: Exception,
) -> None:
    journal = BrokenJournal()
    world = World(journal=journal)
    order = await world.order()
    scheduler = CancelScheduler(world.client)
    await world.advance(121)
    journal.error = error
    with pytest.raises(JournalError) as caught:
        await scheduler.run()
    assert caught.value is error or caught.value.__cause__ is error
    assert world.cancels() == []
    journal.error = None
    async with running(scheduler):
        await world.advance(1)
    assert world.cancels() == [order.order_id]


async def test_a_journal_that_fails_while_claiming_costs_nobody_his_money() -> None:
    journal = BrokenJournal()
    world = World(journal=journal)
    order = await world.order()
    scheduler = CancelScheduler(world.client)
    async with running(scheduler):
        journal.error = OSError("no space left")
        await world.advance(121)
    assert world.simulator.holder(order.order_id) is Holder.REFUNDED
    assert [result.outcome for result in world.finished()] == [CancelOutcome.CANCELLED]
    failed = [event for event in world.events if isinstance(event, JournalFailed)]
    assert {event.order_id for event in failed} == {order.order_id}


async def test_what_could_not_be_written_is_told_and_tried_again() -> None:
    journal = BrokenJournal()
    world = World()
    scheduler = CancelScheduler(world.client, journal=journal)
    first, second = await world.orders(2)
    async with running(scheduler):
        journal.error = JournalError("the disk is full")
        scheduler.schedule(first)
        await turns()
        with pytest.raises(JournalError, match="full"):
            await scheduler.schedule(second)
        told_of: list[Event] = [each for each in world.events if isinstance(each, JournalFailed)]
        assert told_of
        assert await journal.memory.pending() == []
        journal.error = None
    kept = await journal.pending()
    assert {entry.order_id for entry in kept} == {first.order_id, second.order_id}


class Meanwhile(MemoryJournal):
    """Calls something of the scheduler's in the middle of a write."""

    scheduler: CancelScheduler | None = None

    async def update(self, changes: object, /) -> list[JournalEntry | None]:
        entries = await super().update(changes)  # type: ignore[arg-type]
        if self.scheduler is not None:
            scheduler, self.scheduler = self.scheduler, None
            later = moment(0) + timedelta(days=40_000)
            for entry in entries:
                assert entry is not None
                assert entry.order_id is not None
                scheduler.schedule(entry.order_id, not_before=later)
        return list(entries)


async def test_what_changes_while_it_is_being_written_is_written_too() -> None:
    journal = Meanwhile()
    world = World()
    scheduler = CancelScheduler(world.client, journal=journal)
    order = await world.order()
    journal.scheduler = scheduler
    await scheduler.schedule(order)
    (entry,) = await journal.pending()
    assert entry.not_before == moment(0) + timedelta(days=40_000)
