"""`open_order` and `resume_order`: left without an end, the order is cancelled."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest

from sms4sats_async import (
    DEFAULT_BASE_URL,
    AttemptFailed,
    AuthenticationError,
    ClientStateError,
    CodeStatus,
    CodeTimeoutError,
    InvalidArgumentError,
    JournalEntry,
    JournalError,
    JournalFailed,
    MemoryJournal,
    OpenOrder,
    OrderError,
    OrderOutcome,
    OrderRefundedError,
    OrderScheduler,
    ReceiveOrder,
    RequestOutcome,
    Sms4SatsError,
    SqliteJournal,
    UnableToSaveDataError,
)
from sms4sats_async._orders.drivers import RENEWAL
from sms4sats_async._orders.steps import LONGEST_STEP
from sms4sats_async.journal import JournalChange
from sms4sats_async.journal.entry import LEASE, record_intent, record_outcome, release_claim
from sms4sats_async.simulator import Behaviour, Fault, ManualClock
from tests.many import claim_as
from tests.simulated import (
    CODE,
    HELD,
    LATE_CODE,
    METADATA,
    NEVER_REFUNDED,
    NO_NUMBER,
    FailingJournal,
    Simulated,
    entry_of,
    running,
    task_count,
    turns,
)

pytestmark = pytest.mark.anyio

only_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])
with_and_without_journal = pytest.mark.parametrize(
    "has_journal", [False, True], ids=["no journal", "journal"]
)


def simulated(behaviour: Behaviour, *, has_journal: bool) -> Simulated:
    return Simulated(behaviour, journal=MemoryJournal() if has_journal else None)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings and errors of the library."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "sms4sats_async" and record.levelno >= logging.WARNING
    ]


# --- inside, and a normal exit --------------------------------------------------------------------


@with_and_without_journal
async def test_a_code_inside_the_block_is_its_result(*, has_journal: bool) -> None:
    it = simulated(CODE, has_journal=has_journal)
    async with it.client.open_order(187, "tg", metadata=METADATA) as order:
        status = await order.wait_for_code(timeout=60)
        assert isinstance(status, CodeStatus)
        assert status.code == "007"
    assert order.result is not None
    assert (order.result.outcome, order.result.code) == (OrderOutcome.CODE_RECEIVED, "007")
    assert (order.code, order.result.metadata) == ("007", METADATA)
    assert order.result.number == status.number
    assert it.cancel_ages() == []
    assert it.ended() == [order.result]
    assert it.clock.now() - order.created_at.timestamp() < 60


async def test_an_open_order_has_the_attributes_of_its_order() -> None:
    it = Simulated()
    opened = it.client.open_order(
        187, "tg", real_phone=True, referral="a@b.example", metadata=METADATA
    )
    async with opened as order:
        assert order is opened
        made = order.order
        assert isinstance(made, ReceiveOrder)
        assert (order.order_id, order.invoice) == (made.order_id, made.invoice)
        assert (order.created_at, order.metadata) == (made.created_at, METADATA)
        assert (made.country, made.service) == (187, "tg")
        assert (order.result, order.code) == (None, None)
    assert it.simulator.requests[0].json == {
        "country": 187,
        "service": "tg",
        "realphone": True,
        "ref": "a@b.example",
    }


@with_and_without_journal
async def test_left_without_an_end_it_is_cancelled_when_allowed(*, has_journal: bool) -> None:
    it = simulated(HELD, has_journal=has_journal)
    async with it.client.open_order(187, "tg") as order:
        pass
    assert order.result is not None
    assert (order.result.outcome, order.result.attempts) == (OrderOutcome.CANCELLED, 1)
    assert order.result.number == it.simulator.order(order.order_id).number
    assert it.cancel_ages() == [pytest.approx(120, abs=0.01)]
    assert it.is_refunded(order.order_id)
    assert it.ended() == [order.result]


async def test_another_minimum_age_and_poll_interval_are_obeyed() -> None:
    it = Simulated()
    async with it.client.open_order(187, "tg", minimum_age=timedelta(minutes=5), poll_interval=30):
        pass
    assert it.cancel_ages() == [pytest.approx(300, abs=0.01)]
    assert 9 <= len(it.poll_ages()) <= 13


@pytest.mark.parametrize(
    ("behaviour", "outcome", "code", "attempts"),
    [
        (CODE, OrderOutcome.CODE_RECEIVED, "007", 0),
        (attrs.evolve(LATE_CODE, code_delay=119.999), OrderOutcome.CODE_RECEIVED, "007", 1),
        (NO_NUMBER, OrderOutcome.REFUNDED, None, 0),
    ],
    ids=["code before the cancel", "code during the cancel", "refund"],
)
@with_and_without_journal
async def test_an_end_that_comes_on_leaving_is_the_result(
    behaviour: Behaviour,
    outcome: OrderOutcome,
    code: str | None,
    attempts: int,
    *,
    has_journal: bool,
) -> None:
    it = simulated(behaviour, has_journal=has_journal)
    async with it.client.open_order(187, "tg") as order:
        pass
    assert order.result is not None
    assert (order.result.outcome, order.code) == (outcome, code)
    assert len(it.cancel_ages()) == attempts
    assert it.ended() == [order.result]


async def test_a_code_timeout_inside_is_raised_and_the_order_cancelled() -> None:
    it = Simulated()
    order = it.client.open_order(187, "tg")
    with pytest.raises(CodeTimeoutError) as caught:
        async with order:
            await order.wait_for_code(timeout=timedelta(seconds=30))
    assert not hasattr(caught.value, "__notes__")
    assert order.result is not None
    assert order.result.outcome is OrderOutcome.CANCELLED
    assert it.cancel_ages() == [pytest.approx(120, abs=0.01)]


async def test_a_wait_can_follow_another() -> None:
    it = Simulated(CODE, journal=MemoryJournal())
    async with it.client.open_order(187, "tg") as order:
        with pytest.raises(CodeTimeoutError):
            await order.wait_for_code(timeout=10)
        first = await order.wait_for_code(timeout=60)
        polls = len(it.poll_ages())
        assert await order.wait_for_code(timeout=60) == first
        assert (await order.code_or_refund(timeout=60)).code == "007"
    assert len(it.poll_ages()) == polls
    assert len(it.ended()) == 1


async def test_a_refund_inside_the_block_is_its_result() -> None:
    it = Simulated(NO_NUMBER)
    order = it.client.open_order(187, "tg")
    with pytest.raises(OrderRefundedError):
        async with order:
            await order.wait_for_code(timeout=60)
    assert order.result is not None
    assert (order.result.outcome, order.result.refunded) == (OrderOutcome.REFUNDED, True)
    assert it.cancel_ages() == []
    assert it.ended() == [order.result]


@pytest.mark.parametrize(
    ("behaviour", "timeout", "code", "cancels"),
    [(CODE, 60, "007", []), (HELD, 0, None, [120]), (HELD, 200, None, [200])],
)
async def test_code_or_refund_inside_the_block_is_its_result(
    behaviour: Behaviour, timeout: float, code: str | None, cancels: list[float]
) -> None:
    it = Simulated(behaviour, journal=MemoryJournal())
    async with it.client.open_order(187, "tg") as order:
        result = await order.code_or_refund(timeout=timeout)
        assert await order.code_or_refund(timeout=0) is result
        if code is None:
            with pytest.raises(OrderRefundedError, match="the order was cancelled"):
                await order.wait_for_code(timeout=60)
    assert (result.code, order.result) == (code, result)
    assert it.cancel_ages() == [pytest.approx(age, abs=0.02) for age in cancels]
    assert it.ended() == [result]


async def test_a_message_that_failed_is_still_cancelled() -> None:
    it = Simulated(Behaviour(pay_delay=0, sms_delay=1, sms_fails=True))
    message = await it.client.create_send_order("+4915112345678", "hello")
    order = it.client.resume_order(message)
    with pytest.raises(OrderError) as caught:
        async with order:
            await order.wait_for_code(timeout=60)
    assert type(caught.value) is OrderError
    assert it.cancel_ages() != []
    assert order.order == message


async def test_a_refusal_on_leaving_is_raised() -> None:
    it = Simulated(NEVER_REFUNDED)
    with pytest.raises(UnableToSaveDataError, match="may or may not be cancelled"):
        async with it.client.open_order(187, "tg"):
            pass


@pytest.mark.parametrize("inside", [False, True], ids=["on leaving", "inside"])
async def test_a_refusal_releases_the_claim(*, inside: bool) -> None:
    journal = MemoryJournal()
    refusing = Behaviour(pay_delay=None, cancel_refusal_status=403, minimum_cancel_age=1e6)
    it = Simulated(refusing, journal=journal)

    async def leave() -> None:
        async with it.client.open_order(187, "tg") as order:
            it.simulator.script("/orderstatus", *[Fault.reset()] * 100)
            if inside:
                await order.code_or_refund(timeout=0)

    with pytest.raises(AuthenticationError):
        await leave()
    (entry,) = await journal.pending()
    assert (entry.claimed_by, entry.claimed_until) == (None, None)


async def test_what_create_order_raises_is_raised_on_entering() -> None:
    it = Simulated()
    it.simulator.script("/createorder", Fault.http(400, "no"))
    with pytest.raises(Sms4SatsError, match="no"):
        async with it.client.open_order(187, "tg"):
            pytest.fail("there is no order")
    assert it.requests() == ["/createorder"]


@pytest.mark.parametrize(
    "options", [{"minimum_age": -1}, {"poll_interval": 0}, {"poll_interval": "5"}], ids=str
)
async def test_an_invalid_argument_is_refused_and_nothing_is_sent(
    options: dict[str, Any],
) -> None:
    it = Simulated()
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        it.client.open_order(187, "tg", **options)
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        it.client.resume_order("x", **options)
    assert it.requests() == []


async def test_an_invalid_order_is_refused() -> None:
    it = Simulated()
    with pytest.raises(InvalidArgumentError, match="order ID"):
        it.client.resume_order("")
    naive = datetime(2027, 1, 1)  # noqa: DTZ001
    with pytest.raises(InvalidArgumentError, match="created_at must have a time zone"):
        it.client.resume_order(ReceiveOrder("x", "", naive))
    assert it.requests() == []


@pytest.mark.parametrize("wrong", [-1, float("nan"), "60"])
async def test_an_invalid_timeout_is_refused(wrong: Any) -> None:
    it = Simulated()
    async with it.client.open_order(187, "tg") as order:
        with pytest.raises(InvalidArgumentError, match="timeout"):
            await order.wait_for_code(timeout=wrong)
        with pytest.raises(InvalidArgumentError, match="timeout"):
            await order.code_or_refund(timeout=wrong)
        with pytest.raises(InvalidArgumentError, match="timeout"):
            await order.wait_for_code(timeout=0)
    assert len(it.cancel_ages()) == 1


async def test_an_open_order_cannot_be_used_outside_of_its_block() -> None:
    order = Simulated().client.open_order(187, "tg")
    for name in ("order", "order_id", "invoice", "created_at", "metadata"):
        with pytest.raises(ClientStateError, match="async with"):
            getattr(order, name)
    with pytest.raises(ClientStateError, match="async with"):
        await order.wait_for_code(timeout=1)
    with pytest.raises(ClientStateError, match="async with"):
        await order.code_or_refund(timeout=1)
    assert (order.result, order.code) == (None, None)


async def test_an_open_order_cannot_be_entered_twice() -> None:
    it = Simulated()
    opened = it.client.open_order(187, "tg")
    async with opened:
        with pytest.raises(ClientStateError, match="opened before"):
            await opened.__aenter__()
    assert len(it.simulator.orders) == 1


async def test_an_open_order_cannot_be_entered_by_two_tasks_at_once() -> None:
    it = Simulated()
    it.simulator.script("/createorder", Fault.slow(3), Fault.slow(3))
    opened = it.client.open_order(187, "tg")
    errors: list[ClientStateError] = []

    async def enter() -> None:
        try:
            async with opened:
                pass
        except ClientStateError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(enter)
        group.start_soon(enter)
    (error,) = errors
    assert "another task" in str(error)
    assert len(it.simulator.orders) == 1


async def test_an_open_order_can_be_entered_again_after_a_failed_creation() -> None:
    it = Simulated()
    it.simulator.script("/createorder", Fault.http(400))
    opened = it.client.open_order(187, "tg")
    with pytest.raises(Sms4SatsError):
        await opened.__aenter__()
    async with opened:
        pass
    assert len(it.simulator.orders) == 1


def displayed(order: Any) -> object:
    """What a notebook shows."""
    return order._repr_html_()


async def test_a_notebook_shows_the_order_and_then_its_result() -> None:
    it = Simulated(CODE)
    opened = it.client.open_order(187, "tg")
    assert displayed(opened) is None
    async with opened as order:
        open_card = displayed(order)
        await order.wait_for_code(timeout=60)
    assert open_card is not None
    assert displayed(order) not in {None, open_card}


# --- an exception in the block --------------------------------------------------------------------


@with_and_without_journal
async def test_an_exception_is_raised_unchanged_and_the_order_cancelled(
    *, has_journal: bool
) -> None:
    it = simulated(HELD, has_journal=has_journal)
    order = it.client.open_order(187, "tg")
    with pytest.raises(ZeroDivisionError) as caught:
        async with order:
            raise ZeroDivisionError
    assert not hasattr(caught.value, "__notes__")
    assert order.result is not None
    assert order.result.outcome is OrderOutcome.CANCELLED
    assert it.cancel_ages() == [pytest.approx(120, abs=0.01)]


@pytest.mark.parametrize(
    "behaviour", [CODE, attrs.evolve(LATE_CODE, code_delay=119.999)], ids=["before", "during"]
)
async def test_a_code_that_arrives_after_an_exception_is_noted_and_logged(
    behaviour: Behaviour, caplog: pytest.LogCaptureFixture
) -> None:
    journal = MemoryJournal()
    it = Simulated(behaviour, journal=journal)
    order = it.client.open_order(187, "tg")
    with pytest.raises(ZeroDivisionError) as caught:
        async with order:
            raise ZeroDivisionError
    assert order.code == "007"
    (note,) = caught.value.__notes__
    assert "The code arrived" in note
    (line,) = logged(caplog)
    assert "the code arrived" in line
    assert order.order_id not in f"{note} {line}"
    assert "007" not in f"{note} {line}"
    assert (await entry_of(journal, order.order_id)).delivered_at is not None


async def test_a_code_inside_the_block_is_not_noted_on_a_later_exception(
    caplog: pytest.LogCaptureFixture,
) -> None:
    it = Simulated(CODE)

    async def leave() -> None:
        async with it.client.open_order(187, "tg") as order:
            await order.wait_for_code(timeout=60)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        await leave()
    assert not hasattr(caught.value, "__notes__")
    assert logged(caplog) == []


async def test_a_failed_cancel_after_an_exception_is_noted_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    it = Simulated(NEVER_REFUNDED)
    order = it.client.open_order(187, "tg")
    with pytest.raises(ZeroDivisionError) as caught:
        async with order:
            raise ZeroDivisionError
    (note,) = caught.value.__notes__
    assert "may or may not be cancelled" in note
    assert logged(caplog) == [note]
    assert order.order_id not in note
    assert order.result is None


async def test_a_client_that_is_closed_inside_raises_on_leaving() -> None:
    it = Simulated()
    with pytest.raises(ClientStateError, match="closed"):
        async with it.client.open_order(187, "tg"):
            await it.client.aclose()
    assert it.cancel_ages() == []


@only_asyncio
async def test_a_cancellation_of_others_in_the_block_is_handled_as_an_exception() -> None:
    """The task itself is not cancelled, so there is time to wait for the end."""
    it = Simulated()
    order = it.client.open_order(187, "tg")
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with order:
            await future
    assert order.result is not None
    assert order.result.outcome is OrderOutcome.CANCELLED
    assert it.cancel_ages() == [pytest.approx(120, abs=0.01)]


# --- the journal ----------------------------------------------------------------------------------


async def test_the_end_of_the_minimum_age_is_recorded_as_deadline() -> None:
    journal = MemoryJournal()
    it = Simulated(journal=journal)
    async with it.client.open_order(187, "tg", minimum_age=180, metadata=METADATA) as order:
        entry = await entry_of(journal, order.order_id)
        assert entry.code_deadline == order.created_at + timedelta(seconds=180)
        assert (entry.minimum_age, entry.metadata) == (timedelta(seconds=180), METADATA)
        assert entry.claimed_by is not None
    entry = await entry_of(journal, order.order_id)
    assert entry.result is not None
    assert entry.result.outcome is OrderOutcome.CANCELLED
    assert (entry.claimed_by, entry.delivered_at is not None) == (None, True)


async def test_each_wait_records_its_own_deadline() -> None:
    journal = MemoryJournal()
    it = Simulated(journal=journal)
    deadlines: list[float] = []

    async def record(order: OpenOrder) -> None:
        entry = await entry_of(journal, order.order_id)
        assert entry.code_deadline is not None
        deadlines.append((entry.code_deadline - entry.created_at).total_seconds())

    async with it.client.open_order(187, "tg") as order:
        with pytest.raises(CodeTimeoutError):
            await order.wait_for_code(timeout=200)
        await record(order)
        with pytest.raises(CodeTimeoutError):
            await order.wait_for_code(timeout=timedelta(seconds=100))
        await record(order)
    await record(order)
    assert deadlines == [pytest.approx(age, abs=0.1) for age in (200, 300, 300)]
    assert it.cancel_ages() == [pytest.approx(300, abs=0.1)]


async def test_a_deadline_that_cannot_be_recorded_is_a_journal_error() -> None:
    journal = FailingJournal()
    it = Simulated(journal=journal)
    async with it.client.open_order(187, "tg") as order:
        journal.error = OSError("disk full")
        with pytest.raises(JournalError) as caught:
            await order.wait_for_code(timeout=60)
        assert (caught.value.operation, caught.value.order_id) == ("wait_for_code", order.order_id)
        with pytest.raises(JournalError):
            await order.code_or_refund(timeout=60)
        assert it.requests() == ["/createorder"]
    # The refund matters more than the record.
    assert order.result is not None
    assert order.result.outcome is OrderOutcome.CANCELLED
    assert it.events_of(JournalFailed)


async def test_leaving_does_not_wait_for_a_deadline_that_the_journal_kept() -> None:
    journal = FailingJournal()
    it = Simulated(journal=journal)

    def recover(_: object) -> None:
        journal.error = None

    client = it.new_client(journal, on_event=recover)
    async with client.open_order(187, "tg") as order:
        later = order.created_at + timedelta(seconds=600)
        change = record_intent(order.order, order.created_at, DEFAULT_BASE_URL, code_deadline=later)
        await journal.update([(order.order_id, change)])
        journal.error = OSError("disk full")
    assert it.cancel_ages() == [pytest.approx(120, abs=0.1)]


@pytest.mark.parametrize("step", [-3600, -30])
@with_and_without_journal
async def test_a_clock_that_is_set_back_in_the_block_does_not_shorten_the_wait(
    step: float, *, has_journal: bool
) -> None:
    clock = ManualClock(autojump=False)
    it = Simulated(LATE_CODE, clock=clock, journal=MemoryJournal() if has_journal else None)
    async with anyio.create_task_group() as group:
        inside = Inside(it.client.open_order(187, "tg"), leaving=True, timeout=100)
        group.start_soon(inside.run)
        await clock.advance(0)
        clock.step_wall(step)
        await clock.advance(99)
        assert not inside.left.is_set()
        assert it.cancel_ages() == []
        group.cancel_scope.cancel()


@with_and_without_journal
async def test_a_clock_that_was_set_back_does_not_end_a_wait_that_begins(
    *, has_journal: bool
) -> None:
    it = simulated(LATE_CODE, has_journal=has_journal)
    assert isinstance(it.clock, ManualClock)
    async with it.client.open_order(187, "tg") as order:
        await it.clock.sleep(60)
        it.clock.step_wall(-3600)
        assert (await order.wait_for_code(timeout=100)).code == "007"
    assert it.cancel_ages() == []


@with_and_without_journal
async def test_a_clock_that_was_set_back_does_not_lengthen_the_exit(*, has_journal: bool) -> None:
    it = simulated(HELD, has_journal=has_journal)
    assert isinstance(it.clock, ManualClock)
    async with it.client.open_order(187, "tg"):
        await it.clock.sleep(60)
        it.clock.step_wall(-3600)
    assert it.cancel_ages() == [pytest.approx(120, abs=0.1)]


# --- cancelled ------------------------------------------------------------------------------------


class KillError(BaseException):
    """Something like KeyboardInterrupt, which pytest would take for its own."""


WAYS = [
    pytest.param("scope", "asyncio", id="scope-asyncio"),
    pytest.param("scope", "trio", id="scope-trio"),
    pytest.param("task", "asyncio", id="task.cancel"),
    pytest.param("twice", "asyncio", id="task.cancel twice"),
    pytest.param("exception", "asyncio", id="exception-asyncio"),
    pytest.param("exception", "trio", id="exception-trio"),
]

by_every_way = pytest.mark.parametrize(("way", "anyio_backend"), WAYS)
by_cancellation = pytest.mark.parametrize(("way", "anyio_backend"), WAYS[:4])
by_one_blow = pytest.mark.parametrize(("way", "anyio_backend"), [*WAYS[:3], *WAYS[4:]])


class Inside:
    """A task inside an open order, until it is ended; or on its way out, which takes a while."""

    def __init__(self, opened: OpenOrder, *, leaving: bool = False, timeout: float = 0) -> None:
        self.order = opened
        self.leaving = leaving
        self.timeout = timeout
        self.entered = anyio.Event()
        self.left = anyio.Event()
        self.kill = anyio.Event()

    async def run(self) -> None:
        try:
            async with self.order:
                self.entered.set()
                if self.timeout:
                    await self.order.wait_for_code(timeout=self.timeout)
                if not self.leaving:
                    await self.kill.wait()
                    raise KillError
        finally:
            self.left.set()


@asynccontextmanager
async def cancelled(
    it: Simulated, inside: OpenOrder | Inside, way: str, *, age: float
) -> AsyncGenerator[None]:
    """Open an order and cancel the task at an age; on leaving, all of it has ended."""
    if isinstance(inside, OpenOrder):
        inside = Inside(inside)
    before = task_count()
    if way in {"task", "twice"}:
        task = asyncio.create_task(inside.run())
        await inside.entered.wait()
        await it.advance(age)
        task.cancel()
        if way == "twice":
            await turns(20)
            task.cancel()
        yield
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
    elif way == "scope":
        async with anyio.create_task_group() as group:
            group.start_soon(inside.run)
            await inside.entered.wait()
            await it.advance(age)
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                yield
    else:
        with pytest.RaisesGroup(KillError):
            async with anyio.create_task_group() as group:
                group.start_soon(inside.run)
                await inside.entered.wait()
                await it.advance(age)
                inside.kill.set()
                with anyio.CancelScope(shield=True):
                    await turns()
                    yield
    assert inside.left.is_set()
    assert task_count() == before


def with_stopped_clock(behaviour: Behaviour = HELD, **settings: Any) -> Simulated:
    """Return a scene with a clock that only `advance` moves."""
    return Simulated(behaviour, clock=ManualClock(autojump=False), **settings)


@by_every_way
async def test_cancelled_too_young_it_is_left_in_the_journal_at_once(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    journal = MemoryJournal()
    it = with_stopped_clock(journal=journal)
    opened = it.client.open_order(187, "tg")
    async with cancelled(it, opened, way, age=60):
        await turns()
        (line,) = logged(caplog)
    assert it.requests() == ["/createorder"]
    assert opened.result is None
    entry = await entry_of(journal, opened.order_id)
    assert entry.pending
    # The next scheduler may claim it now, and cancels it as soon as allowed.
    assert (entry.claimed_by, entry.claimed_until) == (None, None)
    assert entry.code_deadline == entry.created_at + timedelta(minutes=1)
    assert opened.order_id not in caplog.text
    assert f"{opened.order_id[:4]}…{opened.order_id[-4:]}" in line
    assert "it is in the journal" in line
    assert f"from {entry.created_at + timedelta(minutes=2)} on" in line
    assert f"automatically at {entry.created_at + timedelta(minutes=21)}" in line


async def test_cancelled_without_a_journal_it_says_so(caplog: pytest.LogCaptureFixture) -> None:
    it = with_stopped_clock()
    async with cancelled(it, it.client.open_order(187, "tg"), "scope", age=60):
        await turns()
    assert "is in no journal" in caplog.text


@by_every_way
@with_and_without_journal
async def test_cancelled_too_young_it_is_handed_to_the_scheduler(
    way: str, caplog: pytest.LogCaptureFixture, *, has_journal: bool
) -> None:
    it = with_stopped_clock(journal=MemoryJournal() if has_journal else None)
    scheduler = OrderScheduler(it.client)
    opened = it.client.open_order(
        187, "tg", scheduler=scheduler, minimum_age=180, metadata=METADATA
    )
    async with running(scheduler):
        async with cancelled(it, opened, way, age=60):
            await turns()
        assert len(scheduler) == 1
        assert "the scheduler drives it now" in caplog.text
        await it.advance(130)
        result = await anext(scheduler.results())
        assert (result.outcome, result.metadata) == (OrderOutcome.CANCELLED, METADATA)
    assert it.cancel_ages() == [pytest.approx(183, abs=3)]
    assert it.is_refunded(opened.order_id)


async def test_handed_over_under_a_clock_that_was_set_back_it_is_cancelled_in_time() -> None:
    clock = ManualClock(autojump=False)
    it = Simulated(journal=MemoryJournal(), clock=clock)
    scheduler = OrderScheduler(it.client)
    opened = it.client.open_order(187, "tg", scheduler=scheduler)
    async with running(scheduler):
        with anyio.CancelScope() as scope:
            async with opened:
                clock.step_wall(-3600)
                scope.cancel()
                await anyio.sleep_forever()
        await it.advance(127)
    assert it.cancel_ages() == [pytest.approx(120, abs=6)]


@pytest.mark.parametrize("has_run", [False, True], ids=["ends with it", "has ended before"])
async def test_handed_to_a_scheduler_that_ended_it_is_in_the_journal(*, has_run: bool) -> None:
    journal = MemoryJournal()
    it = with_stopped_clock(journal=journal)
    scheduler = OrderScheduler(it.client)
    opened = it.client.open_order(187, "tg", scheduler=scheduler)
    if has_run:
        async with running(scheduler):
            pass
    async with anyio.create_task_group() as group:
        if not has_run:
            group.start_soon(scheduler.run)
        group.start_soon(Inside(opened).run)
        await it.advance(60)
        group.cancel_scope.cancel()
    (entry,) = await journal.pending()
    assert (entry.order, entry.claimed_by) == (opened.order, None)


@pytest.mark.parametrize("has_scheduler", [False, True], ids=["no scheduler", "scheduler"])
async def test_handed_over_to_a_journal_that_fails_it_says_so(*, has_scheduler: bool) -> None:
    journal = FailingJournal()
    it = Simulated(journal=journal)
    scheduler = OrderScheduler(it.client) if has_scheduler else None
    opened = it.client.open_order(187, "tg", scheduler=scheduler)
    with anyio.CancelScope() as scope:
        async with opened:
            journal.error = OSError("gone")
            scope.cancel()
            await anyio.sleep_forever()
    events = it.events_of(JournalFailed)
    assert events
    assert {event.order_id for event in events} == {opened.order_id}
    assert scheduler is None or len(scheduler) == 1


@by_one_blow
@pytest.mark.parametrize(
    ("behaviour", "outcome", "code"),
    [
        (HELD, OrderOutcome.CANCELLED, None),
        (CODE, OrderOutcome.CODE_RECEIVED, "007"),
        (NO_NUMBER, OrderOutcome.REFUNDED, None),
    ],
    ids=["held", "code", "refunded"],
)
@with_and_without_journal
async def test_cancelled_old_enough_it_is_cancelled_by_one_request(
    way: str,
    behaviour: Behaviour,
    outcome: OrderOutcome,
    code: str | None,
    caplog: pytest.LogCaptureFixture,
    *,
    has_journal: bool,
) -> None:
    it = with_stopped_clock(behaviour, journal=MemoryJournal() if has_journal else None)
    it.simulator.script("/cancelorder", Fault.slow(1))
    opened = it.client.open_order(187, "tg")
    async with cancelled(it, opened, way, age=120):
        await it.advance(2)
    assert len(it.cancel_ages()) == 1
    assert opened.result is not None
    assert (opened.result.outcome, opened.code) == (outcome, code)
    assert it.ended() == [opened.result]
    lines = logged(caplog)
    assert len(lines) == (0 if code is None else 1)
    assert "007" not in caplog.text


@by_one_blow
async def test_a_code_found_while_cancelled_is_delivered_by_the_next_scheduler(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The code after the block may never run, so the result does not count as delivered."""
    journal = MemoryJournal()
    it = with_stopped_clock(CODE, journal=journal)
    opened = it.client.open_order(187, "tg", metadata=METADATA)
    async with cancelled(it, opened, way, age=130):
        await turns()
    assert opened.code == "007"
    assert "the code arrived" in caplog.text
    entry = await entry_of(journal, opened.order_id)
    assert (entry.claimed_by, entry.delivered_at) == (None, None)
    scheduler = OrderScheduler(it.new_client(journal))
    async with running(scheduler):
        await it.advance(1)
        result = await anext(scheduler.results())
        assert (result.code, result.metadata) == ("007", METADATA)


@pytest.mark.parametrize(("way", "anyio_backend"), WAYS[:3])
async def test_cancelled_in_a_long_wait_it_does_not_go_on_with_the_deadline(way: str) -> None:
    journal = MemoryJournal()
    it = with_stopped_clock(journal=journal)
    inside = Inside(it.client.open_order(187, "tg"), timeout=600)
    async with cancelled(it, inside, way, age=200):
        await turns()
    assert it.cancel_ages() == [pytest.approx(200, abs=0.1)]
    assert inside.order.result is not None
    assert (await entry_of(journal, inside.order.order_id)).claimed_by is None


@pytest.mark.parametrize("age", [121, 140, 170, 199])
async def test_a_renewal_of_the_claim_does_not_bring_the_recorded_deadline_back(
    age: float,
) -> None:
    it = with_stopped_clock(journal=MemoryJournal())
    inside = Inside(it.client.open_order(187, "tg", poll_interval=200), timeout=600)
    async with cancelled(it, inside, "scope", age=age):
        await turns()
    assert it.cancel_ages() == [pytest.approx(age, abs=0.1)]


@by_cancellation
async def test_cancelled_in_a_wait_too_young_it_releases_its_claim(way: str) -> None:
    journal = MemoryJournal()
    it = with_stopped_clock(journal=journal)
    inside = Inside(it.client.open_order(187, "tg"), timeout=600)
    async with cancelled(it, inside, way, age=60):
        await turns()
    assert it.cancel_ages() == []
    entry = await entry_of(journal, inside.order.order_id)
    assert (entry.claimed_by, entry.claimed_until) == (None, None)
    assert entry.code_deadline == entry.created_at + timedelta(minutes=1)


@pytest.mark.parametrize("path", ["/cancelorder", "/orderstatus"])
@by_every_way
async def test_cancelled_while_the_service_hangs_it_ends_within_its_bound(
    way: str, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sms4sats_async._orders.open_order._LAST_ATTEMPT", 0.1)  # 5 s
    it = with_stopped_clock(journal=MemoryJournal())
    client = it.new_client(it.client.journal, http_client=it.simulator.http_client())
    scheduler = OrderScheduler(client)
    opened = client.open_order(187, "tg", scheduler=scheduler)
    if path == "/orderstatus":
        it.simulator.script("/cancelorder", Fault.http(500))
    it.simulator.script(path, Fault.hang())
    with anyio.fail_after(4):
        async with cancelled(it, opened, way, age=125):
            pass
    assert len(it.cancel_ages()) == 1
    assert opened.result is None
    assert "was left without an end" in logged(caplog)[-1]
    assert len(scheduler) == 1
    async with running(scheduler):
        await it.advance(30)
    assert it.is_refunded(opened.order_id)


@pytest.mark.parametrize(
    "fault",
    [Fault.unable_to_save_data(), Fault.http(404), Fault.reset()],
    ids=["500", "404", "reset"],
)
async def test_cancelled_while_the_service_refuses_it_sends_one_request(
    fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    it = with_stopped_clock(journal=MemoryJournal())
    it.simulator.script("/cancelorder", *[fault] * 9)
    it.simulator.script("/orderstatus", *[Fault.http(404)] * 9)
    opened = it.client.open_order(187, "tg")
    async with cancelled(it, opened, "scope", age=120):
        await turns()
    assert it.requests() == ["/createorder", "/cancelorder", "/orderstatus"]
    assert opened.result is None
    assert len(logged(caplog)) == 1
    assert len(it.events_of(AttemptFailed)) == 2
    assert opened.order_id not in caplog.text


async def test_cancelled_with_a_closed_client_it_logs_the_error_and_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    it = with_stopped_clock(journal=MemoryJournal())
    opened = it.client.open_order(187, "tg")
    async with anyio.create_task_group() as group:
        inside = Inside(opened)
        group.start_soon(inside.run)
        await it.advance(130)
        await it.client.aclose()
        group.cancel_scope.cancel()
    first, second = logged(caplog)
    assert "closed" in first
    assert "was left without an end" in second


@by_cancellation
async def test_cancelled_on_its_way_out_it_waits_no_longer(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    journal = MemoryJournal()
    it = with_stopped_clock(journal=journal)
    inside = Inside(it.client.open_order(187, "tg"), leaving=True)
    async with cancelled(it, inside, way, age=60):
        await turns()
    assert len(logged(caplog)) == 1
    assert it.cancel_ages() == []
    assert len(it.simulator.held_orders()) == 1
    assert (await entry_of(journal, inside.order.order_id)).claimed_by is None


async def test_cancelled_after_the_code_it_just_ends(caplog: pytest.LogCaptureFixture) -> None:
    it = Simulated(CODE)
    with anyio.CancelScope() as scope:
        async with it.client.open_order(187, "tg") as order:
            await order.wait_for_code(timeout=60)
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert it.cancel_ages() == []
    assert logged(caplog) == []


async def test_a_time_limit_around_it_is_a_cancellation_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    it = Simulated()

    async def limited() -> None:
        with anyio.fail_after(None) as limit:
            async with it.client.open_order(187, "tg"):
                limit.deadline = anyio.current_time() + 0.01
                await anyio.sleep_forever()

    with pytest.raises(TimeoutError):
        await limited()
    assert len(logged(caplog)) == 1
    assert it.cancel_ages() == []


@only_asyncio
async def test_cancelled_while_the_result_is_delivered_the_result_stays() -> None:
    it = Simulated()
    slow = asyncio.Event()

    class Slow(MemoryJournal):
        async def update(self, changes: Any, /) -> Any:
            written = await super().update(changes)
            if it.ended() and not slow.is_set():
                slow.set()
                await anyio.sleep_forever()
            return written

    opened = it.new_client(Slow()).open_order(187, "tg")
    task = asyncio.ensure_future(Inside(opened, leaving=True).run())
    await slow.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert opened.result is not None
    assert it.ended() == [opened.result]


# --- resume_order ---------------------------------------------------------------------------------


@with_and_without_journal
async def test_an_order_is_resumed(*, has_journal: bool) -> None:
    journal = MemoryJournal() if has_journal else None
    it = Simulated(journal=journal)
    order = await it.order(metadata=METADATA)
    await it.clock.sleep(60)
    async with it.new_client(journal).resume_order(order) as resumed:
        assert resumed.order == order
    assert it.cancel_ages() == [pytest.approx(120, abs=0.01)]
    assert resumed.result is not None
    assert resumed.result.metadata == METADATA
    if journal is not None:
        assert await journal.pending() == []


async def test_an_id_is_resumed_with_what_the_journal_knows() -> None:
    journal = MemoryJournal()
    it = Simulated(journal=journal)
    order = await it.order(metadata=METADATA)
    await it.clock.sleep(60)
    async with it.new_client(journal).resume_order(order.order_id) as resumed:
        assert resumed.order == order
        assert (resumed.invoice, resumed.metadata) == (order.invoice, METADATA)
    assert it.cancel_ages() == [pytest.approx(120, abs=0.01)]


@with_and_without_journal
async def test_an_unknown_id_counts_as_created_now(*, has_journal: bool) -> None:
    journal = MemoryJournal() if has_journal else None
    it = Simulated()
    order = await it.order()
    await it.clock.sleep(60)
    async with it.new_client(journal).resume_order(order.order_id) as resumed:
        assert resumed.invoice == ""
        assert resumed.created_at == datetime.fromtimestamp(it.clock.now(), UTC)
        if journal is not None:
            (entry,) = await journal.pending()
            assert entry.order_id == order.order_id
    assert it.cancel_ages() == [pytest.approx(180, abs=0.01)]


@pytest.mark.parametrize(
    ("behaviour", "outcome", "code"),
    [(CODE, OrderOutcome.CODE_RECEIVED, "007"), (HELD, OrderOutcome.CANCELLED, None)],
)
@pytest.mark.parametrize("delivered", [True, False])
async def test_an_order_that_ended_has_its_result_at_once(
    behaviour: Behaviour, outcome: OrderOutcome, code: str | None, *, delivered: bool
) -> None:
    journal = MemoryJournal()
    it = Simulated(behaviour, journal=journal)
    order = await it.order(metadata=METADATA)
    if delivered or code is None:
        await it.client.code_or_refund(order, timeout=0)
    else:
        await it.clock.sleep(60)
        await it.client.get_order_status(order)
    sent = it.requests()
    async with it.new_client(journal).resume_order(order.order_id) as resumed:
        assert resumed.result is not None
        assert (resumed.result.outcome, resumed.code) == (outcome, code)
        assert resumed.result.metadata == METADATA
        if code is not None:
            assert (await resumed.wait_for_code(timeout=5)).code == code
        else:
            with pytest.raises(OrderRefundedError):
                await resumed.wait_for_code(timeout=5)
        assert await resumed.code_or_refund(timeout=5) is resumed.result
    assert it.requests() == sent
    assert (await entry_of(journal, order.order_id)).delivered_at is not None


async def test_an_order_that_ended_unclear_is_cancelled_again() -> None:
    journal = MemoryJournal()
    it = Simulated(journal=journal)
    order = await it.order()
    refusal = record_outcome(RequestOutcome.REFUSED, order.created_at, final=True)
    await journal.update([(order.order_id, refusal)])
    async with it.client.resume_order(order) as resumed:
        before: object = resumed.result
    assert before is None
    assert resumed.result is not None
    assert resumed.result.outcome is OrderOutcome.CANCELLED
    assert it.is_refunded(order.order_id)


async def test_an_order_of_another_service_root_is_refused() -> None:
    journal = MemoryJournal()
    it = Simulated(journal=journal)
    order = await it.order()
    other = it.new_client(journal, base_url="https://other.example")
    with pytest.raises(Sms4SatsError, match=r"other\.example"):
        await other.resume_order(order).__aenter__()
    with pytest.raises(Sms4SatsError, match=r"other\.example"):
        await other.resume_order(order.order_id).__aenter__()
    assert it.requests() == ["/createorder"]
    assert (await entry_of(journal, order.order_id)).claimed_by is None


async def test_an_order_that_the_service_does_not_know_raises_on_leaving() -> None:
    it = Simulated(Behaviour(cancel_refusal_status=404, cancel_refusal_reason="no such order"))
    with pytest.raises(Sms4SatsError, match="no such order"):
        async with it.client.resume_order("ab" * 32):
            pass


async def test_a_journal_that_fails_is_an_error_on_entering() -> None:
    journal = FailingJournal()
    it = Simulated(journal=journal)
    order = await it.order()
    journal.error = OSError("no")
    with pytest.raises(JournalError) as caught:
        async with it.client.resume_order(order):
            pytest.fail("it was not recorded")
    assert caught.value.operation == "resume_order"
    assert it.cancel_ages() == []


async def test_the_order_is_cancelled_although_the_journal_does_not_add_it() -> None:
    class Forgetful(MemoryJournal):
        async def update(self, changes: Any, /) -> list[JournalEntry | None]:
            return [None for _ in changes]

    it = Simulated(journal=Forgetful())
    order = await it.order()
    async with it.client.resume_order(order.order_id) as resumed:
        assert resumed.order_id == order.order_id
    assert it.cancel_ages() == [pytest.approx(120, abs=0.01)]


async def test_an_order_that_another_process_drives_is_not_cancelled_on_leaving() -> None:
    clock, journal = ManualClock(autojump=False), MemoryJournal()
    it = Simulated(clock=clock, journal=journal)
    order = await it.order()
    inside = Inside(it.new_client(journal).resume_order(order), leaving=True)
    async with anyio.create_task_group() as group:
        group.start_soon(
            lambda: it.client.cancel_order_when_allowed(order, minimum_age=timedelta(minutes=5))
        )
        await clock.advance(1)
        group.start_soon(inside.run)
        await clock.advance(310)
    assert it.cancel_ages() == [pytest.approx(300, abs=0.1)]
    assert inside.order.result is not None
    assert inside.order.result.outcome is OrderOutcome.CANCELLED


# --- the claim of a block that calls nothing ------------------------------------------------------


@pytest.fixture
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a renewal come as soon as it is due. Only `suspend` can move the clock meanwhile."""
    monkeypatch.setattr("sms4sats_async._orders.open_order._TICK", 0)


def still(journal: MemoryJournal | None = None) -> tuple[Simulated, ManualClock]:
    """A scene whose clock only the test moves."""
    clock = ManualClock(autojump=False)
    return Simulated(clock=clock, journal=journal), clock


async def pass_time(clock: ManualClock, seconds: int, *, step: int = 10) -> None:
    """Let time pass without waking a task that sleeps on the clock."""
    for _ in range(0, seconds, step):
        clock.suspend(step)
        await turns()


@pytest.mark.usefixtures("without_pauses")
@pytest.mark.parametrize("way", ["open_order", "resume_order"])
async def test_a_block_that_calls_nothing_keeps_its_claim(way: str) -> None:
    it, clock = still(journal := MemoryJournal())
    other = it.new_client(journal)
    block = it.client.open_order(187, "tg")
    if way == "resume_order":
        block = it.client.resume_order(await it.order())
    async with block as order:
        before = len(it.requests())
        for _ in range(60):
            await pass_time(clock, 10)
            step = await other.advance_order(order.order_id)
            assert isinstance(step, datetime)
        assert len(it.requests()) == before


async def test_a_journal_in_a_file_has_the_renewed_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread asks whether the renewal is still needed, where no event loop runs."""
    monkeypatch.setattr("sms4sats_async._orders.open_order._TICK", 0.01)
    clock = ManualClock(autojump=False)
    async with SqliteJournal(tmp_path / "journal") as journal:
        it = Simulated(clock=clock, journal=journal)
        async with it.client.open_order(187, "tg") as order:
            await turns()  # the renewals have begun
            clock.suspend(130)
            with anyio.fail_after(5):
                while True:
                    entry = await entry_of(journal, order.order_id)
                    assert entry.claimed_until is not None
                    if entry.claimed_until.timestamp() > clock.now():
                        break
                    await anyio.sleep(0.01)
    assert it.events_of(JournalFailed) == []


def test_each_check_of_a_claim_comes_long_before_its_end() -> None:
    a_write = 15  # seconds, at most
    assert RENEWAL + a_write <= LONGEST_STEP <= LEASE.total_seconds() - a_write


@pytest.mark.usefixtures("without_pauses")
async def test_a_block_renews_its_claim_once_in_25_seconds() -> None:
    it, clock = still(journal := FailingJournal())
    async with it.client.open_order(187, "tg"):
        before = journal.updates
        await pass_time(clock, 600)
        assert 10 <= journal.updates - before <= 600 / 25


@pytest.mark.usefixtures("without_pauses")
async def test_a_journal_that_fails_is_asked_for_the_claim_every_10_seconds() -> None:
    it, clock = still(journal := FailingJournal())
    async with it.client.open_order(187, "tg"):
        journal.error = OSError("disk full")
        await pass_time(clock, 600, step=5)
        journal.error = None
        assert 50 <= len(it.events_of(JournalFailed)) <= 60


@pytest.mark.usefixtures("without_pauses")
@pytest.mark.parametrize("driver_ends", [False, True])
async def test_a_block_that_lost_its_claim_does_not_cancel(*, driver_ends: bool) -> None:
    it, clock = still(journal := MemoryJournal())
    order = it.client.open_order(187, "tg")
    with anyio.CancelScope() as scope:
        async with order:
            clock.suspend(200)  # the machine slept longer than the lease
            await claim_as("another", journal, order.order_id, clock.now())
            await pass_time(clock, 30)
            if driver_ends:
                await journal.update([(order.order_id, release_claim("another"))])
                await pass_time(clock, 30)
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert len(it.cancel_ages()) == driver_ends
    entry = await entry_of(journal, order.order_id)
    assert entry.claimed_by == (None if driver_ends else "another")


async def test_leaving_the_block_ends_the_renewals() -> None:
    it = Simulated(journal=MemoryJournal())
    before = task_count()
    async with it.client.open_order(187, "tg"):
        await turns()
        assert task_count() == before + 1
    await turns()
    assert task_count() == before


async def test_a_result_ends_the_renewals() -> None:
    it = Simulated(CODE, journal=MemoryJournal())
    before = task_count()
    async with it.client.open_order(187, "tg") as order:
        await order.wait_for_code(timeout=60)
        await turns()
        assert task_count() == before


async def test_without_a_journal_nothing_is_renewed() -> None:
    it = Simulated()
    before = task_count()
    async with it.client.open_order(187, "tg"):
        await turns()
        assert task_count() == before


@pytest.mark.usefixtures("without_pauses")
async def test_a_renewal_under_way_does_not_bring_a_released_claim_back() -> None:
    class Slow(MemoryJournal):
        """Its next change waits for an event."""

        gate: anyio.Event | None = None

        async def update(
            self, changes: Sequence[tuple[str, JournalChange]], /
        ) -> Sequence[JournalEntry | None]:
            gate, self.gate = self.gate, None
            if gate is not None:
                await gate.wait()
            return await super().update(changes)

    it, clock = still(journal := Slow())
    gate = anyio.Event()
    order = it.client.open_order(187, "tg")
    with anyio.CancelScope() as scope:
        async with order:
            journal.gate = gate
            await pass_time(clock, 60)
            assert gate.statistics().tasks_waiting == 1
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    gate.set()
    await turns()
    assert (await entry_of(journal, order.order_id)).claimed_by is None
