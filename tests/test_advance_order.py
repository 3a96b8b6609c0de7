"""`advance_order`: one step of an order that the journal knows, for job engines."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import anyio
import attrs
import pytest

from sms4sats_async import (
    APIError,
    ClientStateError,
    InvalidArgumentError,
    JournalError,
    MemoryJournal,
    OrderOutcome,
    OrderResult,
    OrderScheduler,
    ReceiveOrder,
    RequestOutcome,
    RetryPolicy,
    Sms4SatsError,
    UnableToSaveDataError,
)
from sms4sats_async.journal.entry import record_intent
from sms4sats_async.simulator import Behaviour, Fault, ManualClock
from tests.simulated import (
    CODE,
    HELD,
    LATE_CODE,
    METADATA,
    NEVER_REFUNDED,
    NO_NUMBER,
    REFUSED,
    FailingJournal,
    Simulated,
    entry_of,
    running,
)

pytestmark = pytest.mark.anyio

ONCE = RetryPolicy(attempts=1)


class Engine(Simulated):
    """A job engine: it calls again at the returned time, with a new client each time."""

    def __init__(
        self,
        behaviour: Behaviour = HELD,
        *,
        clock: ManualClock | None = None,
        journal: MemoryJournal | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.journal = MemoryJournal() if journal is None else journal
        self.retry = RetryPolicy() if retry is None else retry
        super().__init__(behaviour, clock=clock, journal=self.journal, retry=self.retry)
        self.calls = 0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now(), UTC)

    async def plan(self, order: ReceiveOrder, timeout: float) -> None:
        """Record the deadline, as another process did."""
        deadline = self.now() + timedelta(seconds=timeout)
        root = self.client.base_url
        change = record_intent(order, self.now(), root, code_deadline=deadline)
        await self.journal.update([(order.order_id, change)])

    async def step(self, order: ReceiveOrder) -> OrderResult | datetime:
        self.calls += 1
        client = self.new_client(self.journal, retry=self.retry)
        return await client.advance_order(order.order_id)

    async def run(self, order: ReceiveOrder) -> OrderResult:
        for _ in range(1_000):
            step = await self.step(order)
            if isinstance(step, OrderResult):
                return step
            assert step.utcoffset() == timedelta(0)
            await self.clock.sleep(max(0.0, (step - self.now()).total_seconds()))
        raise AssertionError("the order did not end")


# The service's behaviour, the deadline, the end, its code, and the ages of the cancels.
ENDS: dict[str, tuple[Behaviour, float | None, OrderOutcome, str | None, list[float]]] = {
    "no deadline": (HELD, None, OrderOutcome.CANCELLED, None, [120]),
    "deadline": (HELD, 300, OrderOutcome.CANCELLED, None, [300]),
    "code": (CODE, 300, OrderOutcome.CODE_RECEIVED, "007", []),
    "code during the cancel": (
        attrs.evolve(LATE_CODE, code_delay=119.999),
        None,
        OrderOutcome.CODE_RECEIVED,
        "007",
        [120],
    ),
    "refund": (NO_NUMBER, 300, OrderOutcome.REFUNDED, None, []),
}


@pytest.mark.parametrize("case", ENDS.values(), ids=ENDS)
async def test_step_by_step_an_order_comes_to_its_end(
    case: tuple[Behaviour, float | None, OrderOutcome, str | None, list[float]],
) -> None:
    behaviour, timeout, outcome, code, cancels = case
    it = Engine(behaviour)
    order = await it.order(metadata=METADATA)
    if timeout is not None:
        await it.plan(order, timeout)
    result = await it.run(order)
    assert (result.outcome, result.code, result.metadata) == (outcome, code, METADATA)
    assert result.number == it.simulator.order(order.order_id).number
    assert it.cancel_ages() == [pytest.approx(age, abs=0.1) for age in cancels]
    assert it.ended() == [result]
    entry = await entry_of(it.journal, order.order_id)
    assert entry.delivered_at is not None
    assert (entry.claimed_by, entry.claimed_until) == (None, None)
    # An engine may run a job again after its end.
    assert await it.step(order) == attrs.evolve(result, status=None, attempts=0)
    assert it.ended() == [result]


async def test_a_step_is_one_request_and_holds_no_claim_afterwards() -> None:
    it = Engine()
    order = await it.order()
    step = await it.step(order)
    assert isinstance(step, datetime)
    assert timedelta(seconds=4) < step - it.now() < timedelta(seconds=6)
    assert it.requests() == ["/createorder", "/orderstatus"]
    assert (await entry_of(it.journal, order.order_id)).claimed_by is None


async def test_an_order_object_is_taken_like_its_id() -> None:
    it = Engine(NO_NUMBER)
    order = await it.order()
    await it.clock.sleep(10)
    result = await it.client.advance_order(order)
    assert isinstance(result, OrderResult)
    assert result.refunded


async def test_a_step_that_comes_early_sends_no_cancel() -> None:
    it = Engine()
    order = await it.order()
    for _ in range(10):
        await it.clock.sleep(11)
        assert isinstance(await it.step(order), datetime)
        assert isinstance(await it.step(order), datetime)
    assert it.cancel_ages() == []


@pytest.mark.parametrize("behaviour", [HELD, REFUSED], ids=["cancelled", "refused"])
async def test_steps_at_the_same_time_send_one_cancel(behaviour: Behaviour) -> None:
    clock = ManualClock(autojump=False)
    it = Engine(behaviour, clock=clock)
    order = await it.order()
    await clock.advance(130)
    it.simulator.script("/cancelorder", Fault.slow(2), None)
    steps: list[OrderResult | datetime] = []
    early: list[OrderResult | datetime] = []

    async def step() -> None:
        steps.append(await it.step(order))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(step)
        await clock.advance(1)
        early += steps
        await clock.advance(20)
    assert len(early) == 4
    assert all(isinstance(each, datetime) for each in early)
    bursts = [age for age in it.cancel_ages() if age < 131]
    assert len(bursts) == 1
    if behaviour is HELD:
        assert isinstance(steps[-1], OrderResult)


async def test_intervals_between_refused_cancels_grow_from_call_to_call() -> None:
    it = Engine(attrs.evolve(REFUSED, number_delay=None), retry=ONCE)
    result = await it.run(await it.order())
    assert result.outcome is OrderOutcome.REFUNDED
    ages = it.cancel_ages()
    assert all(120 <= age < 21 * 60 for age in ages)
    gaps = [later - earlier for earlier, later in pairwise(ages)]
    assert gaps[:4] == [pytest.approx(gap, abs=6) for gap in (5, 10, 20, 40)]
    assert all(55 < gap < 70 for gap in gaps[4:-1])


@pytest.mark.parametrize("number_delay", [30, 130, 200])
async def test_one_retry_comes_120_s_after_the_number_was_first_seen(number_delay: float) -> None:
    it = Engine(attrs.evolve(REFUSED, number_delay=number_delay), retry=ONCE)
    await it.run(await it.order())
    seen = min(age for age in it.poll_ages() if age >= number_delay)
    assert any(seen + 120 <= age <= seen + 126 for age in it.cancel_ages())


async def test_without_evidence_the_end_comes_a_minute_after_21_minutes() -> None:
    it = Engine(NEVER_REFUNDED)
    order = await it.order()
    with pytest.raises(Sms4SatsError, match="may or may not be cancelled") as caught:
        await it.run(order)
    assert caught.value.request_outcome is RequestOutcome.UNKNOWN
    assert (caught.value.operation, caught.value.order_id) == ("cancel_order", order.order_id)
    assert it.age(order) < 22 * 60 + 10
    assert it.calls < 400
    assert it.ended() == []
    # The end is recorded, and the caller has it.
    requests = it.requests()
    with pytest.raises(Sms4SatsError, match="no attempt ended the order"):
        await it.step(order)
    assert it.requests() == requests
    assert await it.journal.pending() == await it.journal.undelivered() == []


@pytest.mark.parametrize(("behaviour", "requests"), [(NEVER_REFUNDED, 4), (HELD, 2)])
async def test_an_engine_that_was_down_for_21_minutes_polls_and_cancels_once(
    behaviour: Behaviour, requests: int
) -> None:
    it = Engine(behaviour, retry=ONCE)
    order = await it.order()
    await it.clock.sleep(30 * 60)
    if behaviour is HELD:
        assert (await it.run(order)).outcome is OrderOutcome.REFUNDED
        assert it.cancel_ages() == []
    else:
        with pytest.raises(UnableToSaveDataError):
            await it.run(order)
        assert len(it.cancel_ages()) == 1
    assert it.calls == 1
    assert len(it.requests()) == requests


async def test_a_lasting_refusal_is_raised() -> None:
    it = Engine(Behaviour(cancel_refusal_status=404, cancel_refusal_reason="no such order"))
    await it.plan(ReceiveOrder("ab" * 32, "", it.now() - timedelta(minutes=3)), 0)
    await it.clock.sleep(1)
    with pytest.raises(APIError, match="no such order"):
        await it.client.advance_order("ab" * 32)
    assert await it.journal.pending() == await it.journal.undelivered() == []


async def test_a_refusal_that_may_pass_keeps_the_order_pending_and_free() -> None:
    it = Engine(Behaviour(cancel_refusal_status=403, cancel_refusal_reason="no"))
    await it.plan(ReceiveOrder("ab" * 32, "", it.now() - timedelta(minutes=3)), 0)
    await it.clock.sleep(1)
    with pytest.raises(APIError, match="no"):
        await it.client.advance_order("ab" * 32)
    (entry,) = await it.journal.pending()
    assert (entry.claimed_by, entry.refusals) == (None, 1)


# --- the claim ------------------------------------------------------------------------------------


async def test_an_order_that_a_scheduler_drives_is_left_alone() -> None:
    clock = ManualClock(autojump=False)
    it = Engine(clock=clock)
    order = await it.order()
    scheduler = OrderScheduler(it.client)
    async with running(scheduler):
        await scheduler.add(order, timeout=600)
        await clock.advance(130)
        polls = len(it.poll_ages())
        step = await it.step(order)
        assert isinstance(step, datetime)
        assert it.now() < step < it.now() + timedelta(seconds=6)
        assert len(it.poll_ages()) == polls
    # The scheduler released it, so the next call takes a step.
    await it.step(order)
    assert len(it.poll_ages()) == polls + 1
    entry = await entry_of(it.journal, order.order_id)
    assert entry.code_deadline is not None
    assert entry.code_deadline - order.created_at > timedelta(seconds=599)


async def test_a_cancelled_step_releases_its_claim() -> None:
    clock = ManualClock(autojump=False)
    it = Engine(clock=clock)
    order = await it.order()
    it.simulator.script("/orderstatus", Fault.slow(30))
    async with anyio.create_task_group() as group:
        group.start_soon(it.step, order)
        await clock.advance(1)
        assert (await entry_of(it.journal, order.order_id)).claimed_by is not None
        group.cancel_scope.cancel()
    assert (await entry_of(it.journal, order.order_id)).claimed_by is None


# --- what it needs --------------------------------------------------------------------------------


async def test_advance_order_needs_a_journal() -> None:
    it = Simulated()
    order = await it.order()
    with pytest.raises(ClientStateError, match="journal"):
        await it.client.advance_order(order)
    assert it.requests() == ["/createorder"]


async def test_an_order_that_the_journal_does_not_know_is_refused() -> None:
    it = Simulated()
    order = await it.order()
    with pytest.raises(InvalidArgumentError, match="does not have this order") as caught:
        await it.new_client(MemoryJournal()).advance_order(order)
    assert caught.value.order_id == order.order_id
    assert it.requests() == ["/createorder"]


@pytest.mark.parametrize("order", ["", "line\nend", None])
async def test_an_invalid_order_is_refused(order: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        await Engine().client.advance_order(order)


async def test_an_order_of_another_service_root_is_refused() -> None:
    it = Engine()
    order = await it.order()
    other = it.new_client(it.journal, base_url="https://other.example")
    with pytest.raises(InvalidArgumentError, match=r"other\.example"):
        await other.advance_order(order)
    assert it.requests() == ["/createorder"]
    assert (await entry_of(it.journal, order.order_id)).claimed_by is None


async def test_a_journal_that_fails_is_an_error_and_nothing_is_sent() -> None:
    journal = FailingJournal()
    it = Engine(journal=journal)
    order = await it.order()
    journal.error = OSError("disk full")
    with pytest.raises(JournalError) as caught:
        await it.step(order)
    assert (caught.value.operation, caught.value.order_id) == ("advance_order", order.order_id)
    assert it.requests() == ["/createorder"]


async def test_a_closed_client_is_an_error_and_leaves_no_claim() -> None:
    it = Engine()
    order = await it.order()
    await it.client.aclose()
    with pytest.raises(ClientStateError, match="closed"):
        await it.client.advance_order(order)
    assert (await entry_of(it.journal, order.order_id)).claimed_by is None
