"""`code_or_refund`: the code or the refund, whatever the order and the service do."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import anyio
import anyio.lowlevel
import attrs
import httpx
import pytest

from sms4sats_async import (
    MINIMUM_CANCEL_AGE,
    APIError,
    ClientStateError,
    CodeStatus,
    Event,
    InvalidArgumentError,
    JournalEntry,
    JournalError,
    JournalFailed,
    MemoryJournal,
    OrderEnded,
    OrderOutcome,
    OrderScheduler,
    OrderState,
    RequestOutcome,
    Sms4SatsClient,
    StatusPolled,
    UnableToSaveDataError,
    Waiting,
)
from sms4sats_async._process import new_owner
from sms4sats_async.journal.entry import LEASE, claim, record_intent, record_outcome, record_status
from sms4sats_async.simulator import Behaviour, Fault, ManualClock
from tests.simulated import (
    CODE,
    HELD,
    METADATA,
    NEVER_REFUNDED,
    NO_NUMBER,
    ODD_ANSWERS,
    REFUSED,
    FailingJournal,
    Simulated,
    entry_of,
)

pytestmark = pytest.mark.anyio

only_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])

with_and_without_journal = pytest.mark.parametrize(
    "has_journal", [False, True], ids=["no journal", "journal"]
)


def journal_if(has_journal: bool) -> MemoryJournal | None:  # noqa: FBT001
    return MemoryJournal() if has_journal else None


# --- the end --------------------------------------------------------------------------------------

CODE_AT = {
    at: Behaviour(pay_delay=0, number_delay=0, code_delay=at, code="012345")
    for at in (0, 60, 100, 119.999, 200, 299.999)
}
# The service's behaviour, the time to wait, the end, and the ages of the cancels.
ENDS: dict[str, tuple[Behaviour, float, OrderOutcome, list[float]]] = {
    "code at once": (CODE_AT[0], 300, OrderOutcome.CODE_RECEIVED, []),
    "code in time": (CODE_AT[60], 300, OrderOutcome.CODE_RECEIVED, []),
    "code after the deadline": (CODE_AT[100], 60, OrderOutcome.CODE_RECEIVED, []),
    "code during the cancel": (CODE_AT[119.999], 0, OrderOutcome.CODE_RECEIVED, [120]),
    "code after the minimum age": (CODE_AT[200], 300, OrderOutcome.CODE_RECEIVED, []),
    "code just before the deadline": (CODE_AT[299.999], 300, OrderOutcome.CODE_RECEIVED, [300]),
    "no wait": (HELD, 0, OrderOutcome.CANCELLED, [120]),
    "wait shorter than the minimum age": (HELD, 30, OrderOutcome.CANCELLED, [120]),
    "wait longer than the minimum age": (HELD, 300, OrderOutcome.CANCELLED, [300]),
    "refunded by the service": (NO_NUMBER, 300, OrderOutcome.REFUNDED, []),
    "wait longer than 21 minutes": (HELD, 2000, OrderOutcome.REFUNDED, []),
    "not paid": (attrs.evolve(HELD, pay_delay=None), 300, OrderOutcome.CANCELLED, [300]),
}


@with_and_without_journal
@pytest.mark.parametrize(("behaviour", "timeout", "outcome", "cancels"), ENDS.values(), ids=ENDS)
async def test_code_or_refund_returns_the_code_or_the_refund(
    behaviour: Behaviour,
    timeout: float,
    outcome: OrderOutcome,
    cancels: list[float],
    *,
    has_journal: bool,
) -> None:
    journal = journal_if(has_journal)
    it = Simulated(behaviour, journal=journal)
    order = await it.order(metadata=METADATA)
    result = await it.client.code_or_refund(order, timeout=timeout)

    assert result.outcome is outcome
    assert it.cancel_ages() == [pytest.approx(age, abs=0.01) for age in cancels]
    assert result.attempts == len(cancels)
    received = outcome is OrderOutcome.CODE_RECEIVED
    assert (result.code, result.refunded) == ("012345" if received else None, not received)
    assert result.number == it.simulator.order(order.order_id).number
    assert (result.order_id, result.metadata) == (order.order_id, METADATA)
    assert it.ended() == [result]
    if journal is not None:
        entry = await entry_of(journal, order.order_id)
        assert entry.result == attrs.evolve(result, status=None, attempts=0)
        assert entry.delivered_at is not None
        assert (entry.claimed_by, entry.claimed_until) == (None, None)


@pytest.mark.parametrize(
    ("options", "age"),
    [
        ({"timeout": timedelta(minutes=5)}, 360),
        ({"timeout": 30}, 120),
        ({"timeout": 70}, 130),
        ({"timeout": 0, "minimum_age": 500}, 500),
        ({"timeout": 0, "minimum_age": timedelta(seconds=90)}, 90),
        ({"timeout": 0, "created_at": timedelta(seconds=-30)}, 90),
        ({"timeout": 0, "created_at": timedelta(seconds=30)}, 150),
    ],
    ids=str,
)
@with_and_without_journal
async def test_the_timeout_counts_from_the_call_and_the_age_from_the_order(
    options: dict[str, Any], age: float, *, has_journal: bool
) -> None:
    it = Simulated(attrs.evolve(HELD, minimum_cancel_age=0), journal=journal_if(has_journal))
    order = await it.order()
    await it.clock.sleep(60)
    if "created_at" in options:
        options = options | {"created_at": order.created_at + options["created_at"]}
    await it.client.code_or_refund(order, **options)
    assert it.cancel_ages() == [pytest.approx(age, abs=0.02)]


@pytest.mark.parametrize("timeout", [1e9, 1e12, 1e308, timedelta.max], ids=str)
@with_and_without_journal
async def test_a_wait_may_be_longer_than_any_calendar(
    timeout: float | timedelta, *, has_journal: bool
) -> None:
    it = Simulated(CODE, journal=journal_if(has_journal))
    result = await it.client.code_or_refund(await it.order(), timeout=timeout)
    assert result.code == "007"


async def test_an_unclear_end_is_raised() -> None:
    it = Simulated(NEVER_REFUNDED, journal=MemoryJournal())
    order = await it.order()
    with pytest.raises(UnableToSaveDataError) as caught:
        await it.client.code_or_refund(order, timeout=60)
    assert caught.value.request_outcome is RequestOutcome.UNKNOWN
    assert caught.value.attempts == len(it.cancel_ages())
    assert it.age(order) < 22 * 60 + 10
    assert it.ended() == []


async def test_a_lasting_refusal_is_raised_and_releases_the_claim() -> None:
    journal = MemoryJournal()
    it = Simulated(
        Behaviour(cancel_refusal_status=403, cancel_refusal_reason="no"), journal=journal
    )
    with pytest.raises(APIError, match="no"):
        await it.client.code_or_refund("ab" * 32, timeout=0)
    (entry,) = await journal.pending()
    assert entry.claimed_by is None
    assert it.ended() == []


async def test_a_lasting_refusal_of_the_service_itself_is_the_recorded_end() -> None:
    """A later attempt would meet the same 404, so no scheduler tries again."""
    journal = MemoryJournal()
    it = Simulated(
        Behaviour(cancel_refusal_status=404, cancel_refusal_reason="no"), journal=journal
    )
    with pytest.raises(APIError, match="no"):
        await it.client.code_or_refund("ab" * 32, timeout=0)
    assert await journal.pending() == []
    assert await journal.undelivered() == []


@pytest.mark.parametrize("fault", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
async def test_an_odd_answer_is_a_lost_poll(fault: Fault) -> None:
    it = Simulated(CODE)
    order = await it.order()
    it.simulator.script("/orderstatus", *[fault] * 2)
    assert (await it.client.code_or_refund(order, timeout=300)).code == "007"


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": "60"},
        {"poll_interval": 0},
        {"minimum_age": -1},
        {"created_at": 1_800_000_000},
        {"order": ""},
        {"order": None},
    ],
    ids=str,
)
async def test_an_invalid_argument_is_refused_and_nothing_is_sent(wrong: dict[str, Any]) -> None:
    it = Simulated(journal=MemoryJournal())
    options: dict[str, Any] = {"order": "ab" * 32, "timeout": 60}
    with pytest.raises(InvalidArgumentError):
        await it.client.code_or_refund(**options | wrong)
    assert it.requests() == []


@with_and_without_journal
async def test_a_clock_that_was_set_back_does_not_shorten_the_wait(*, has_journal: bool) -> None:
    it = Simulated(CODE, journal=journal_if(has_journal))
    order = await it.order()
    assert isinstance(it.clock, ManualClock)
    it.clock.step_wall(-3600)
    assert (await it.client.code_or_refund(order, timeout=60)).code == "007"


# --- events ---------------------------------------------------------------------------------------


async def test_each_wait_is_reported_once() -> None:
    it = Simulated(REFUSED, journal=MemoryJournal())
    order = await it.order()
    await it.client.code_or_refund(order, timeout=300)
    waits = it.events_of(Waiting)
    first, *others = waits
    assert first.until.timestamp() == pytest.approx(order.created_at.timestamp() + 300, abs=0.01)
    assert len({wait.until for wait in waits}) == len(waits)
    assert all("not cancelled the order yet" in wait.reason for wait in others)
    assert len(it.events_of(StatusPolled)) > len(waits)


async def test_a_wait_uses_few_sleeps() -> None:
    it = Simulated(REFUSED, journal=MemoryJournal())
    await it.client.code_or_refund(await it.order(), timeout=300, poll_interval=60)
    assert isinstance(it.clock, ManualClock)
    # A wait that is over already would spin.
    assert len(it.clock.sleeps) < 22 * 60 / 5 + 2 * len(it.requests())


# --- the journal ----------------------------------------------------------------------------------


async def test_the_deadline_is_recorded_before_anything_is_sent() -> None:
    it = Simulated()
    order = await it.order(metadata=METADATA)
    seen: list[JournalEntry] = []

    class Watching(MemoryJournal):
        async def update(self, changes: Any, /) -> Any:
            written = await super().update(changes)
            if it.requests() == ["/createorder"]:
                seen.extend(entry for entry in written if entry is not None)
            return written

    await it.new_client(Watching()).code_or_refund(
        order, timeout=600, minimum_age=timedelta(minutes=3)
    )
    (entry,) = seen
    assert entry.code_deadline == order.created_at + timedelta(minutes=10)
    assert (entry.minimum_age, entry.metadata) == (timedelta(minutes=3), METADATA)
    assert entry.order == order
    assert entry.claimed_by is not None


@pytest.mark.parametrize(
    ("recorded", "argument", "age"),
    [
        (None, None, 120),
        (300, None, 300),
        (300, MINIMUM_CANCEL_AGE, 300),
        (300, 120, 300),
        (300, 180, 180),
        (90, None, 120),
        (150, 240, 240),
    ],
)
@pytest.mark.parametrize(
    "way", ["code_or_refund", "cancel_order_when_allowed", "resume_order", "cancelled block"]
)
async def test_the_default_minimum_age_does_not_shorten_the_recorded_one(
    way: str, recorded: float | None, argument: Any, age: float
) -> None:
    it = Simulated(journal=(journal := MemoryJournal()))
    order = await it.order()
    if recorded is not None:
        minimum_age = timedelta(seconds=recorded)
        wanted = record_intent(order, order.created_at, it.client.base_url, minimum_age=minimum_age)
        await journal.update([(order.order_id, wanted)])
    options = {} if argument is None else {"minimum_age": argument}
    match way:
        case "code_or_refund":
            await it.client.code_or_refund(order, timeout=0, **options)
        case "cancel_order_when_allowed":
            await it.client.cancel_order_when_allowed(order, **options)
        case "resume_order":
            async with it.client.resume_order(order, **options):
                pass
        case _:
            with anyio.CancelScope() as scope:
                async with it.client.resume_order(order, **options):
                    await it.clock.sleep(age - 1)
                    scope.cancel()
                    await anyio.lowlevel.checkpoint()
            assert it.cancel_ages() == []
            assert (await entry_of(journal, order.order_id)).minimum_age == timedelta(seconds=age)
            return
    assert it.cancel_ages() == [pytest.approx(age, abs=0.1)]


async def test_a_deadline_that_cannot_be_recorded_is_a_journal_error() -> None:
    journal = FailingJournal()
    it = Simulated(journal=journal)
    order = await it.order()
    journal.error = OSError("disk full")
    with pytest.raises(JournalError) as caught:
        await it.client.code_or_refund(order, timeout=60)
    assert (caught.value.operation, caught.value.order_id) == ("code_or_refund", order.order_id)
    assert it.requests() == ["/createorder"]


async def test_a_journal_that_fails_later_is_reported_and_the_result_returned() -> None:
    journal = FailingJournal()
    it = Simulated(CODE, journal=journal)
    order = await it.order()

    def fail(event: Event) -> None:
        if isinstance(event, Waiting):
            journal.error = OSError("disk full")
        it.events.append(event)

    client = it.new_client(journal, on_event=fail)
    assert (await client.code_or_refund(order, timeout=300)).code == "007"
    assert it.events_of(JournalFailed)


@pytest.mark.parametrize(("behaviour", "code"), [(HELD, None), (CODE, "007")])
async def test_an_order_that_ended_before_returns_its_result_without_a_request(
    behaviour: Behaviour, code: str | None
) -> None:
    journal = MemoryJournal()
    it = Simulated(behaviour, journal=journal)
    order = await it.order(metadata=METADATA)
    first = await it.client.code_or_refund(order, timeout=60)
    sent = it.requests()
    again = await it.new_client(journal).code_or_refund(order.order_id, timeout=60)
    assert again == attrs.evolve(first, status=None, attempts=0)
    assert (again.code, again.metadata) == (code, METADATA)
    assert it.requests() == sent
    assert it.ended() == [first]


async def test_an_end_that_a_read_of_the_status_found_is_reported_once() -> None:
    it = Simulated(CODE, journal=MemoryJournal())
    order = await it.order()
    await it.clock.sleep(60)
    await it.client.get_order_status(order)
    result = await it.client.code_or_refund(order, timeout=60)
    assert result.code == "007"
    assert it.ended() == [result]
    assert len(it.poll_ages()) == 1


async def test_an_order_that_ended_unclear_is_driven_again() -> None:
    journal = MemoryJournal()
    it = Simulated(journal=journal)
    order = await it.order()
    at = order.created_at
    refusal = record_outcome(RequestOutcome.REFUSED, at, final=True)
    await journal.update([(order.order_id, refusal)])
    result = await it.client.code_or_refund(order, timeout=0)
    assert result.outcome is OrderOutcome.CANCELLED
    assert it.is_refunded(order.order_id)


@pytest.mark.parametrize("age", [0, 130], ids=["refund in the status", "OK to the cancel"])
async def test_a_code_that_another_process_recorded_outranks_a_refund(age: float) -> None:
    journal = MemoryJournal()
    it = Simulated(journal=journal)
    order = await it.order(metadata=METADATA)
    await it.clock.sleep(age)

    async def answer(_: httpx.Request) -> httpx.Response:
        status = CodeStatus(order.order_id, OrderState.CODE_RECEIVED, code="007")
        await journal.update([(order.order_id, record_status(status, order.created_at))])
        refund = {"status": "OK", "paid": True, "error": "refunded"}
        return httpx.Response(200, json=refund)

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    client = it.new_client(journal, http_client=http)
    result = await client.code_or_refund(order, timeout=0)
    assert (result.outcome, result.code) == (OrderOutcome.CODE_RECEIVED, "007")
    assert (result.metadata, result.attempts) == (METADATA, 0 if age == 0 else 1)
    assert it.ended() == [result]


async def test_an_order_of_another_service_root_is_refused() -> None:
    journal = MemoryJournal()
    it = Simulated(journal=journal)
    order = await it.order()
    other = it.new_client(journal, base_url="https://other.example")
    with pytest.raises(InvalidArgumentError, match=r"other\.example"):
        await other.code_or_refund(order, timeout=0)
    assert it.requests() == ["/createorder"]
    assert (await entry_of(journal, order.order_id)).code_deadline is None


# --- the claim ------------------------------------------------------------------------------------


async def hold(journal: MemoryJournal, it: Simulated, order_id: str, owner: str) -> None:
    """Claim the order, or renew the claim, as a driver in another live process does."""
    now = datetime.fromtimestamp(it.clock.now(), UTC)
    (entry,) = await journal.update([(order_id, claim(owner, now, has_died=lambda _: False))])
    assert entry is not None
    assert entry.claimed_by == owner


async def test_an_order_that_another_process_drives_is_polled_and_not_cancelled() -> None:
    clock, journal = ManualClock(autojump=False), MemoryJournal()
    it = Simulated(clock=clock, journal=journal)
    order = await it.order()
    await hold(journal, it, order.order_id, "other")
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: it.client.code_or_refund(order, timeout=0))
        for _ in range(10):
            await clock.advance(30)
            await hold(journal, it, order.order_id, "other")
        assert it.cancel_ages() == []
        assert len(it.poll_ages()) > 40
        await clock.advance(LEASE.total_seconds() + 6)
    lease = LEASE.total_seconds()
    assert 300 + lease - 0.1 <= it.cancel_ages()[0] <= 300 + lease + 6
    assert [wait.reason for wait in it.events_of(Waiting)].count(
        "another process drives the order"
    ) <= 2


async def test_the_driver_that_holds_the_claim_goes_on_with_its_own_deadline() -> None:
    clock, journal = ManualClock(autojump=False), MemoryJournal()
    it = Simulated(clock=clock, journal=journal)
    order = await it.order()
    other, first = it.new_client(journal), anyio.CancelScope()

    async def wait_for_ten_minutes() -> None:
        with first:
            await it.client.code_or_refund(order, timeout=600)

    async with anyio.create_task_group() as group:
        group.start_soon(wait_for_ten_minutes)
        await clock.advance(1)
        group.start_soon(lambda: other.code_or_refund(order, timeout=300))
        await clock.advance(298)
        entry = await entry_of(journal, order.order_id)
        assert entry.code_deadline == order.created_at + timedelta(minutes=10)
        # When the first is cancelled, the second goes on, by its own deadline.
        first.cancel()
        await clock.advance(9)
    assert it.cancel_ages() == [pytest.approx(301, abs=6)]


async def test_without_polls_a_claimed_order_is_left_alone() -> None:
    clock, journal = ManualClock(autojump=False), MemoryJournal()
    it = Simulated(clock=clock, journal=journal)
    order = await it.order()
    await clock.advance(100)
    await hold(journal, it, order.order_id, "other")
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: it.client.cancel_order_when_allowed(order, watch=False))
        await clock.advance(LEASE.total_seconds() - 1)
        assert it.requests() == ["/createorder"]
        await clock.advance(6)
    assert len(it.cancel_ages()) == 1


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [(attrs.evolve(HELD, status_after_cancel="unchanged"), None), (CODE, "007")],
    ids=["cancelled", "code"],
)
async def test_what_another_process_ended_is_returned(
    behaviour: Behaviour, code: str | None
) -> None:
    clock, journal = ManualClock(autojump=False), MemoryJournal()
    it = Simulated(behaviour, clock=clock, journal=journal)
    order = await it.order(metadata=METADATA)
    other, results = it.new_client(journal), list[Any]()

    async def drive(client: Sms4SatsClient) -> None:
        results.append(await client.code_or_refund(order, timeout=0))

    async with anyio.create_task_group() as group:
        group.start_soon(drive, it.client)
        await clock.advance(1)
        group.start_soon(drive, other)
        await clock.advance(140)
    first, second = results
    assert (first.outcome, first.code) == (second.outcome, second.code)
    assert (second.code, second.metadata) == (code, METADATA)
    assert len(it.cancel_ages()) == (1 if code is None else 0)
    assert len(it.ended()) == 2  # one for each process


async def test_a_claim_of_a_process_that_died_does_not_hold() -> None:
    journal = MemoryJournal()
    it = Simulated(journal=journal)
    order = await it.order()
    await it.clock.sleep(110)
    machine, _, start, name = new_owner().split("/")
    await hold(journal, it, order.order_id, f"{machine}/{2**22 + 1}/{start}/{name}")
    await it.client.code_or_refund(order, timeout=0)
    assert it.cancel_ages() == [pytest.approx(120, abs=0.01)]


@with_and_without_journal
async def test_a_long_poll_interval_keeps_the_claim(*, has_journal: bool) -> None:
    clock, journal = ManualClock(autojump=False), journal_if(has_journal)
    it = Simulated(clock=clock, journal=journal)
    order = await it.order()
    async with anyio.create_task_group() as group:
        wait = it.client.code_or_refund
        group.start_soon(lambda: wait(order, timeout=600, poll_interval=200))
        for _ in range(20):
            await clock.advance(29)
            if journal is not None:
                entry = await entry_of(journal, order.order_id)
                assert entry.claimed_until is not None
                assert entry.claimed_until.timestamp() > clock.now()
        await clock.advance(30)
    assert it.cancel_ages() == [pytest.approx(600, abs=0.02)]


CANCELLATIONS = [
    pytest.param("scope", "asyncio", id="scope-asyncio"),
    pytest.param("scope", "trio", id="scope-trio"),
    pytest.param("task", "asyncio", id="task.cancel"),
]


@pytest.mark.parametrize(("way", "anyio_backend"), CANCELLATIONS)
async def test_a_cancelled_call_releases_its_claim_and_keeps_its_deadline(way: str) -> None:
    clock, journal = ManualClock(autojump=False), MemoryJournal()
    it = Simulated(clock=clock, journal=journal)
    order = await it.order()

    async def call() -> None:
        await it.client.code_or_refund(order, timeout=600)

    await cancelled(call, clock, way)
    entry = await entry_of(journal, order.order_id)
    assert (entry.claimed_by, entry.claimed_until) == (None, None)
    assert entry.code_deadline == order.created_at + timedelta(minutes=10)
    assert entry.pending


async def cancelled(
    call: Callable[[], Coroutine[Any, Any, None]], clock: ManualClock, way: str
) -> None:
    """Run `call` for a minute, then cancel it."""
    if way == "task":
        task = asyncio.ensure_future(call())
        await clock.advance(60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return
    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await clock.advance(60)
        group.cancel_scope.cancel()


@only_asyncio
async def test_a_task_that_is_cancelled_while_it_claims_leaves_no_claim() -> None:
    """Asyncio delivers `task.cancel()` despite a shield."""
    it = Simulated()
    order = await it.order()
    go_on = asyncio.Event()

    class Slow(MemoryJournal):
        async def update(self, changes: Any, /) -> Any:
            written = await super().update(changes)
            if not go_on.is_set():
                go_on.set()
                await anyio.sleep_forever()
            return written

    journal = Slow()
    client = it.new_client(journal)
    task = asyncio.ensure_future(client.code_or_refund(order, timeout=60))
    await go_on.wait()
    assert (await entry_of(journal, order.order_id)).claimed_by is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await entry_of(journal, order.order_id)).claimed_by is None


async def test_the_next_process_waits_for_the_rest_of_the_deadline() -> None:
    clock, journal = ManualClock(autojump=False), MemoryJournal()
    behaviour = Behaviour(pay_delay=0, number_delay=0, code_delay=480, code="007")
    it = Simulated(behaviour, clock=clock, journal=journal)
    order = await it.order(metadata=METADATA)
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: it.client.code_or_refund(order, timeout=600))
        await clock.advance(60)
        group.cancel_scope.cancel()
    scheduler = OrderScheduler(it.new_client(journal))
    async with anyio.create_task_group() as group:
        group.start_soon(scheduler.run)
        await clock.advance(430)
        result = await anext(scheduler.results())
        assert (result.code, result.metadata) == ("007", METADATA)
        group.cancel_scope.cancel()
    assert it.cancel_ages() == []


# --- what others raise ----------------------------------------------------------------------------


class Others(MemoryJournal):
    """A journal that raises a cancellation of its own after the first write."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error
        self.writes = 0

    async def update(self, changes: Any, /) -> Any:
        self.writes += 1
        if self.writes > 1:
            raise self.error
        return await super().update(changes)


FOREIGN = [
    pytest.param(asyncio.CancelledError("not yours"), "asyncio", id="asyncio"),
    pytest.param(asyncio.CancelledError("not yours"), "trio", id="trio"),
    pytest.param(KeyError("mine"), "asyncio", id="KeyError"),
]


@pytest.mark.parametrize(("error", "anyio_backend"), FOREIGN)
async def test_what_a_journal_raises_is_a_journal_failure(error: BaseException) -> None:
    it = Simulated(CODE)
    order = await it.order()
    client = it.new_client(Others(error))
    assert (await client.code_or_refund(order, timeout=60)).code == "007"
    assert it.events_of(JournalFailed)


@pytest.mark.parametrize(("error", "anyio_backend"), FOREIGN)
async def test_the_result_is_returned_although_on_event_raises(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    it = Simulated(CODE)
    order = await it.order()

    def listen(event: Event) -> None:
        it.events.append(event)
        raise error

    client = it.new_client(MemoryJournal(), on_event=listen)
    assert (await client.code_or_refund(order, timeout=60)).code == "007"
    assert len(it.events_of(OrderEnded)) == 1
    assert "on_event raised on OrderEnded" in caplog.text


@only_asyncio
async def test_a_closed_session_is_a_client_state_error_and_leaves_no_claim() -> None:
    journal = MemoryJournal()
    it = Simulated(journal=journal)
    order = await it.order()
    session = aiohttp.ClientSession()
    await session.close()
    client = it.new_client(journal, http_client=session)
    for call in (
        lambda: client.code_or_refund(order, timeout=0),
        lambda: client.cancel_order(order, confirm=True),
        lambda: client.wait_for_code(order, timeout=9),
        lambda: anext(client.watch_order(order)),
    ):
        with pytest.raises(ClientStateError):
            await call()
    assert (await entry_of(journal, order.order_id)).claimed_by is None
    assert it.requests() == ["/createorder"]
