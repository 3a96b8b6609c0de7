"""A scheduler that runs takes over what other drivers leave in the journal."""

import anyio
import pytest

from sms4sats_async import (
    JournalEntry,
    JournalFailed,
    OrderOutcome,
    OrderResult,
    OrderScheduler,
    ReceiveOrder,
)
from sms4sats_async.journal.entry import record_outcome
from sms4sats_async.simulator import Fault
from tests.many import Scene, claim_as, running, take
from tests.simulated import CODE, NEVER_REFUNDED, FailingJournal

pytestmark = pytest.mark.anyio


class Counted(FailingJournal):
    """A journal that counts how often its pending orders are read.

    Attributes:
        looks: How often.
        ends: An order that ends just after the next list was read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.ends: ReceiveOrder | None = None

    async def pending(self, base_url: str | None = None) -> list[JournalEntry]:
        self.looks += 1
        entries = await super().pending(base_url)
        await self._end()
        return entries

    async def undelivered(self, base_url: str | None = None) -> list[JournalEntry]:
        entries = await super().undelivered(base_url)
        await self._end()
        return entries

    async def _end(self) -> None:
        if self.ends is not None:
            change = record_outcome(OrderOutcome.CANCELLED, self.ends.created_at, final=True)
            await self.update([(self.ends.order_id, change)])


@pytest.fixture(autouse=True)
def short_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a look come as soon as it is due."""
    monkeypatch.setattr("sms4sats_async.scheduler._TICK", 0.03)


@pytest.fixture
def journal() -> Counted:
    return Counted()


async def look(scene: Scene, journal: Counted) -> None:
    """Wait until the schedulers have read the journal again."""
    before = journal.looks
    await scene.advance(91)
    with anyio.fail_after(5):
        while journal.looks == before:  # noqa: ASYNC110 - another task counts
            await anyio.sleep(0.002)
    await scene.advance(7)


async def test_an_order_that_a_stopped_process_added_later_is_taken_over(journal: Counted) -> None:
    """During a deployment the old process may take an order when the new one runs already."""
    scene = Scene(journal=journal)
    new = OrderScheduler(scene.new_client(journal))
    async with running(new):
        old = OrderScheduler(scene.client)
        async with running(old):
            order = await scene.order(metadata={"chat": "42"})
            await old.add(order, timeout=600)
            await scene.advance(30)
        assert len(new) == 0
        await look(scene, journal)
        assert len(new) == 1
        await scene.advance(600)
        (result,) = await take(new.results(), 1)
    assert (result.outcome, result.metadata) == (OrderOutcome.CANCELLED, {"chat": "42"})
    assert scene.cancel_ages() == [pytest.approx(600, abs=0.2)]


async def test_a_wait_that_was_cancelled_is_taken_over(journal: Counted) -> None:
    scene = Scene(CODE, journal=journal)
    order = await scene.order()
    scheduler = OrderScheduler(scene.new_client(journal))
    async with running(scheduler):
        with anyio.move_on_after(0.01):
            await scene.client.code_or_refund(order, timeout=600)
        await look(scene, journal)
        (result,) = await take(scheduler.results(), 1)
    assert result.code == "007"


async def test_an_order_that_has_a_driver_is_left_to_it(journal: Counted) -> None:
    scene = Scene(journal=journal)
    scheduler = OrderScheduler(scene.new_client(journal))
    seen: list[OrderResult] = []

    async def drive() -> None:
        order = await scene.order()
        seen.append(await scene.client.code_or_refund(order, timeout=300))

    async with running(scheduler), anyio.create_task_group() as group:
        group.start_soon(drive)
        await look(scene, journal)
        assert len(scheduler) == 0
        await scene.advance(300)
    assert [result.outcome for result in seen] == [OrderOutcome.CANCELLED]


@pytest.mark.parametrize("why", ["no deadline", "removed"])
async def test_an_order_without_a_deadline_is_left_alone(why: str, journal: Counted) -> None:
    """A caller may wait for it with `wait_for_code`, which claims nothing."""
    scene = Scene(journal=journal)
    scheduler = OrderScheduler(scene.client)
    async with running(scheduler):
        order = await scene.order()
        if why == "removed":
            await scheduler.add(order, timeout=600)
            await scheduler.remove(order)
        for _ in range(3):
            await look(scene, journal)
        assert len(scheduler) == 0
    assert scene.cancels() == []


async def test_an_order_that_is_removed_while_the_journal_is_read_stays_removed(
    journal: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(journal=journal)
    scheduler = OrderScheduler(scene.client)
    read = journal.undelivered
    async with running(scheduler):
        order = await scene.order()
        await scheduler.add(order, timeout=600)

        async def remove_meanwhile(base_url: str | None = None) -> list[JournalEntry]:
            await scheduler.remove(order)
            return await read(base_url)

        monkeypatch.setattr(journal, "undelivered", remove_meanwhile)
        await look(scene, journal)
        assert len(scheduler) == 0


@pytest.mark.parametrize(
    ("owner", "taken"), [(None, 1), ("another machine", 0)], ids=["nobody", "another machine"]
)
async def test_a_result_is_taken_over_unless_a_driver_may_handle_it(
    owner: str | None, taken: int, journal: Counted
) -> None:
    """Its claim may have ended, because a lease is shorter than some handling of a result."""
    scene = Scene(journal=journal)
    scheduler = OrderScheduler(scene.client)
    async with running(scheduler):
        order = await scene.order()
        await OrderScheduler(scene.client).add(order, timeout=600)
        if owner is not None:
            await claim_as(owner, journal, order.order_id, scene.clock.now() - 60)
        ends = record_outcome(OrderOutcome.CANCELLED, order.created_at, final=True)
        await journal.update([(order.order_id, ends)])
        await look(scene, journal)
        assert [result.order_id for result in scene.ended()] == [order.order_id] * taken


async def test_an_unknown_end_is_reported_once(journal: Counted) -> None:
    scene = Scene(NEVER_REFUNDED, journal=journal)
    order = await scene.order()
    scheduler = OrderScheduler(scene.client)
    async with running(scheduler):
        await scheduler.add(order)
        await scene.advance(600)
        scene.simulator.script("/orderstatus", *[Fault.reset()] * 10_000)
        await scene.advance(1200)
        assert len(scheduler) == 0
        results = scheduler.results()
        assert (await anext(results)).outcome is None
        with anyio.move_on_after(0.01):
            await anext(results)
        assert [each.order_id for each in await journal.pending()] == [order.order_id]
        await look(scene, journal)
        assert (len(scheduler), len(scene.ended())) == (0, 1)
        await scheduler.add(order)
        assert len(scheduler) == 1


async def test_a_journal_that_fails_is_read_again(journal: Counted) -> None:
    scene = Scene(journal=journal)
    scheduler = OrderScheduler(scene.client)
    async with running(scheduler):
        await OrderScheduler(scene.client).add(await scene.order(), timeout=600)
        journal.error = OSError("disk full")
        await look(scene, journal)
        journal.error = None
        assert [each.order_id for each in scene.events_of(JournalFailed)] == [None]
        assert len(scheduler) == 0
        await look(scene, journal)
        assert len(scheduler) == 1


async def test_an_order_that_ends_while_the_journal_is_read_is_resumed(journal: Counted) -> None:
    scene = Scene(journal=journal)
    journal.ends = await scene.order()
    scheduler = OrderScheduler(scene.client)
    async with running(scheduler):
        await scene.advance(7)
        (result,) = await take(scheduler.results(), 1)
    assert result.order_id == journal.ends.order_id
