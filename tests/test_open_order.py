"""`open_order` and `resume`: left without a code, the money is asked back, however it is left."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest

from sms4sats_async import (
    AttemptFailed,
    CancelOutcome,
    CancelScheduler,
    ClientStateError,
    CodeTimeoutError,
    InvalidArgumentError,
    JournalEntry,
    JournalError,
    JournalFailed,
    MemoryJournal,
    OpenOrder,
    OrderError,
    OrderRefundedError,
    ReceiveOrder,
    RequestOutcome,
    Sms4SatsError,
    UnableToSaveDataError,
)
from sms4sats_async.journal.entry import told
from sms4sats_async.simulator import Behaviour, Fault, Holder, ManualClock, Stage
from tests.many import (
    CODE,
    HELD,
    NEVER_EVER,
    NO_NUMBER,
    BrokenJournal,
    World,
    moment,
    running,
    tasks,
    turns,
)

pytestmark = pytest.mark.anyio


def jumping(behaviour: Behaviour = HELD, **settings: Any) -> World:
    """Return a world whose clock jumps over every wait."""
    return World(behaviour, clock=ManualClock(), **settings)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "sms4sats_async"]


# --- inside, and a normal exit --------------------------------------------------------------------


async def test_a_code_inside_is_no_reason_to_cancel() -> None:
    world = jumping(CODE)
    async with world.client.open_order(187, "tg") as order:
        status = await order.wait_for_code(timeout=60)
    assert status.code == "007"
    assert order.cancellation is None
    assert world.cancels() == []
    assert world.clock.now() - order.created_at.timestamp() < 60


async def test_it_shows_what_the_order_is() -> None:
    world = jumping()
    opened = world.client.open_order(187, "tg", real_phone=True, referral="a@b.example")
    async with opened as order:
        assert order is opened
        made = order.order
        assert isinstance(made, ReceiveOrder)
        assert (order.order_id, order.payreq) == (made.order_id, made.payreq)
        assert order.created_at == made.created_at
        assert (made.country, made.service) == (187, "tg")
    (request, *_) = world.simulator.requests
    assert request.json == {
        "country": 187,
        "service": "tg",
        "realphone": True,
        "ref": "a@b.example",
    }


async def test_a_normal_exit_without_a_code_waits_until_it_is_allowed_and_cancels() -> None:
    world = jumping()
    async with world.client.open_order(187, "tg") as order:
        pass
    assert order.cancellation is not None
    assert order.cancellation.outcome is CancelOutcome.CANCELLED
    assert world.ages() == [pytest.approx(120, abs=0.01)]
    assert world.simulator.holder(order.order_id) is Holder.REFUNDED


async def test_another_minimum_age_and_poll_interval_are_obeyed() -> None:
    world = jumping()
    async with world.client.open_order(
        187, "tg", minimum_age=timedelta(minutes=5), poll_interval=30
    ):
        pass
    assert world.ages() == [pytest.approx(300, abs=0.01)]
    assert 9 <= world.simulator.count("/orderstatus") <= 13


async def test_a_code_that_arrives_during_the_exit_is_on_the_cancellation() -> None:
    world = jumping(CODE)
    async with world.client.open_order(187, "tg") as order:
        pass
    assert world.cancels() == []
    assert order.cancellation is not None
    assert order.cancellation.outcome is CancelOutcome.CODE_ARRIVED
    assert order.cancellation.status is not None
    assert order.cancellation.status.code == "007"


async def test_no_code_in_time_is_raised_and_the_order_cancelled() -> None:
    world = jumping()
    order = world.client.open_order(187, "tg")
    with pytest.raises(CodeTimeoutError) as caught:
        async with order:
            await order.wait_for_code(timeout=timedelta(seconds=30))
    assert not hasattr(caught.value, "__notes__")
    assert order.cancellation is not None
    assert order.cancellation.outcome is CancelOutcome.CANCELLED
    assert world.ages() == [pytest.approx(120, abs=0.01)]


async def test_a_wait_that_ended_in_time_out_can_be_followed_by_another() -> None:
    world = jumping(CODE)
    async with world.client.open_order(187, "tg") as order:
        with pytest.raises(CodeTimeoutError):
            await order.wait_for_code(timeout=10)
        assert (await order.wait_for_code(timeout=60)).code == "007"
    assert world.cancels() == []


async def test_an_order_whose_code_came_stays_ended_whatever_a_later_wait_ends_in() -> None:
    world = jumping(CODE)
    async with world.client.open_order(187, "tg") as order:
        await order.wait_for_code(timeout=60)
        world.simulator.script("/orderstatus", *[Fault.http(500)] * 100)
        with pytest.raises(CodeTimeoutError):
            await order.wait_for_code(timeout=200)
    assert order.cancellation is None
    assert world.cancels() == []


async def test_refunded_inside_is_no_reason_to_cancel() -> None:
    world = jumping(NO_NUMBER)
    order = world.client.open_order(187, "tg")
    with pytest.raises(OrderRefundedError):
        async with order:
            await order.wait_for_code(timeout=60)
    assert order.cancellation is None
    assert world.cancels() == []


async def test_a_message_that_failed_is_still_asked_back() -> None:
    world = jumping(Behaviour(pay_delay=0, sms_delay=1, sms_fails=True))
    message = await world.client.create_send_order("+4915112345678", "hello")
    order = world.client.resume(message)
    with pytest.raises(OrderError) as caught:
        async with order:
            await order.wait_for_code(timeout=60)
    assert type(caught.value) is OrderError
    assert world.cancels() != []
    assert order.order == message


async def test_a_timeout_that_cannot_be_meant_is_refused() -> None:
    world = jumping()
    order = world.client.open_order(187, "tg")
    with pytest.raises(InvalidArgumentError, match="timeout"):
        async with order:
            await order.wait_for_code(timeout=0)
    assert len(world.cancels()) == 1


async def test_a_refusal_on_a_normal_exit_is_raised() -> None:
    world = jumping(NEVER_EVER)
    with pytest.raises(UnableToSaveDataError, match="is unknown"):
        async with world.client.open_order(187, "tg"):
            pass


async def test_what_create_order_raises_is_raised_on_entering() -> None:
    world = jumping()
    world.simulator.script("/createorder", Fault.http(400, "no"))
    with pytest.raises(Sms4SatsError, match="no"):
        async with world.client.open_order(187, "tg"):
            pytest.fail("there is no order")
    assert world.cancels() == []


@pytest.mark.parametrize("options", [{"minimum_age": -1}, {"poll_interval": 0}], ids=str)
async def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
    options: dict[str, Any],
) -> None:
    world = jumping()
    for call in (world.client.open_order, world.client.resume):
        arguments: tuple[Any, ...] = (187, "tg") if call == world.client.open_order else ("x",)
        with pytest.raises(InvalidArgumentError, match=next(iter(options))):
            call(*arguments, **options)
    with pytest.raises(InvalidArgumentError, match="order id"):
        world.client.resume("")
    with pytest.raises(InvalidArgumentError, match="created_at has no time zone"):
        world.client.resume(ReceiveOrder("x", "", moment(0).replace(tzinfo=None)))
    assert world.simulator.requests == []


async def test_outside_an_async_with_it_is_a_clear_error() -> None:
    order = jumping().client.open_order(187, "tg")
    for use in ("order", "order_id", "payreq", "created_at"):
        with pytest.raises(ClientStateError, match="async with"):
            getattr(order, use)
    with pytest.raises(ClientStateError, match="async with"):
        await order.wait_for_code(timeout=1)


async def test_entered_again_it_is_a_clear_error_and_no_second_order() -> None:
    world = jumping()
    opened = world.client.open_order(187, "tg")
    async with opened:
        with pytest.raises(ClientStateError, match="opened before"):
            await opened.__aenter__()
    assert len(world.simulator.orders) == 1


# --- exceptions -----------------------------------------------------------------------------------


async def test_entered_by_two_tasks_at_once_it_is_a_clear_error_and_no_second_order() -> None:
    world = jumping()
    world.simulator.script("/createorder", Fault.slow(3), Fault.slow(3))
    opened = world.client.open_order(187, "tg")
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
    assert len(world.simulator.orders) == 1


async def test_one_that_could_not_be_made_may_be_entered_again() -> None:
    world = jumping()
    world.simulator.script("/createorder", Fault.http(400))
    opened = world.client.open_order(187, "tg")
    with pytest.raises(Sms4SatsError):
        await opened.__aenter__()
    async with opened:
        pass
    assert len(world.simulator.orders) == 1


async def test_an_exception_is_not_hidden_and_the_order_cancelled() -> None:
    world = jumping()
    order = world.client.open_order(187, "tg")
    with pytest.raises(ZeroDivisionError) as caught:
        async with order:
            raise ZeroDivisionError
    assert not hasattr(caught.value, "__notes__")
    assert order.cancellation is not None
    assert world.ages() == [pytest.approx(120, abs=0.01)]


async def test_where_giving_back_fails_too_the_exception_is_noted_and_not_hidden(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = jumping(NEVER_EVER)
    order = world.client.open_order(187, "tg")
    with pytest.raises(ZeroDivisionError) as caught:
        async with order:
            raise ZeroDivisionError
    (note,) = caught.value.__notes__
    assert "is unknown" in note
    assert warnings(caplog) == [note]
    assert order.order_id not in note
    assert order.cancellation is None


async def test_a_client_that_was_closed_inside_is_said_so() -> None:
    world = jumping()
    with pytest.raises(ClientStateError, match="closed"):
        async with world.client.open_order(187, "tg"):
            await world.client.aclose()
    assert world.cancels() == []


# --- cancelled ------------------------------------------------------------------------------------


class KillError(BaseException):
    """Something like KeyboardInterrupt, which pytest would take for its own."""


BY = [
    pytest.param("scope", "asyncio", id="scope-asyncio"),
    pytest.param("scope", "trio", id="scope-trio"),
    pytest.param("task", "asyncio", id="task.cancel"),
    pytest.param("twice", "asyncio", id="task.cancel twice"),
    pytest.param("exception", "asyncio", id="exception-asyncio"),
    pytest.param("exception", "trio", id="exception-trio"),
]

by_every_way = pytest.mark.parametrize(("way", "anyio_backend"), BY)
by_cancellation = pytest.mark.parametrize(("way", "anyio_backend"), BY[:4])
by_one_blow = pytest.mark.parametrize(("way", "anyio_backend"), [*BY[:3], *BY[4:]])


class Inside:
    """A task inside an open order, until it is ended; or on its way out, which takes a while."""

    def __init__(self, opened: OpenOrder, *, leaving: bool = False) -> None:
        self.order = opened
        self.leaving = leaving
        self.entered = anyio.Event()
        self.left = anyio.Event()
        self.kill = anyio.Event()

    async def run(self) -> None:
        try:
            async with self.order:
                self.entered.set()
                if not self.leaving:
                    await self.kill.wait()
                    raise KillError
        finally:
            self.left.set()


@asynccontextmanager
async def cancelled(
    world: World, opened: OpenOrder, way: str, *, age: float, leaving: bool = False
) -> AsyncGenerator[None]:
    """Open an order, cancel the task at an age; on leaving, all of it has ended."""
    inside = Inside(opened, leaving=leaving)
    before = tasks()
    if way in {"task", "twice"}:
        task = asyncio.create_task(inside.run())
        await inside.entered.wait()
        await world.advance(age)
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
            await world.advance(age)
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                yield
    else:
        with pytest.RaisesGroup(KillError):
            async with anyio.create_task_group() as group:
                group.start_soon(inside.run)
                await inside.entered.wait()
                await world.advance(age)
                inside.kill.set()
                with anyio.CancelScope(shield=True):
                    await turns()
                    yield
    assert inside.left.is_set()
    assert tasks() == before


@by_every_way
async def test_cancelled_while_too_young_it_does_not_wait_and_says_what_will_happen(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    journal = MemoryJournal()
    world = World(journal=journal)
    async with cancelled(world, world.client.open_order(187, "tg"), way, age=60):
        await turns()
        (line,) = warnings(caplog)
    (entry,) = await journal.pending()
    assert world.cancels() == []
    assert world.simulator.count("/orderstatus") == 0
    assert entry.order_id is not None
    assert entry.order_id not in caplog.text
    assert f"{entry.order_id[:4]}…{entry.order_id[-4:]}" in line
    assert "journal" in line
    assert f"from {entry.created_at + timedelta(minutes=2)} on" in line
    assert f"by itself at {entry.created_at + timedelta(minutes=21)}" in line
    assert caplog.records[-1].levelno == logging.WARNING


async def test_cancelled_without_a_journal_it_says_so(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    async with cancelled(world, world.client.open_order(187, "tg"), "scope", age=60):
        await turns()
    assert "is in no journal" in caplog.text


@by_every_way
async def test_cancelled_while_too_young_it_is_handed_to_the_scheduler_given(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(journal=MemoryJournal())
    scheduler = CancelScheduler(world.client)
    opened = world.client.open_order(187, "tg", scheduler=scheduler, minimum_age=180)
    async with running(scheduler):
        async with cancelled(world, opened, way, age=60):
            await turns()
        assert len(scheduler) == 1
        assert "the scheduler's now" in caplog.text
        await world.advance(121)
    assert world.ages() == [pytest.approx(180, abs=0.01)]
    assert world.simulator.holder(opened.order_id) is Holder.REFUNDED


async def test_handed_over_by_a_clock_that_was_set_back_it_is_cancelled_in_time() -> None:
    clock = ManualClock(autojump=False)
    world = World(journal=MemoryJournal(), clock=clock)
    scheduler = CancelScheduler(world.client)
    opened = world.client.open_order(187, "tg", scheduler=scheduler)
    async with running(scheduler):
        with anyio.CancelScope() as scope:
            async with opened:
                clock.step_wall(-3600)
                scope.cancel()
                await anyio.sleep_forever()
        await world.advance(121)
    assert world.ages() == [pytest.approx(120, abs=0.01)]


async def test_handed_to_a_scheduler_that_is_ended_with_it_it_stands_in_the_journal() -> None:
    journal = MemoryJournal()
    world = World()
    scheduler = CancelScheduler(world.client, journal=journal)
    opened = world.client.open_order(187, "tg", scheduler=scheduler)
    async with anyio.create_task_group() as group:
        group.start_soon(scheduler.run)
        group.start_soon(Inside(opened).run)
        await world.advance(60)
        group.cancel_scope.cancel()
    (entry,) = await journal.pending()
    assert entry.order == opened.order


async def test_handed_to_a_scheduler_that_has_ended_before_it_stands_in_the_journal() -> None:
    journal = MemoryJournal()
    world = World()
    scheduler = CancelScheduler(world.client, journal=journal)
    opened = world.client.open_order(187, "tg", scheduler=scheduler)
    async with running(scheduler):
        pass
    with anyio.CancelScope() as scope:
        async with opened:
            scope.cancel()
            await anyio.sleep_forever()
    (entry,) = await journal.pending()
    assert entry.order == opened.order


async def test_handed_over_to_a_journal_that_cannot_be_written_it_says_so() -> None:
    journal = BrokenJournal()
    world = World()
    scheduler = CancelScheduler(world.client, journal=journal)
    journal.error = OSError("gone")
    opened = world.client.open_order(187, "tg", scheduler=scheduler)
    with anyio.CancelScope() as scope:
        async with opened:
            scope.cancel()
            await anyio.sleep_forever()
    (event,) = [event for event in world.events if isinstance(event, JournalFailed)]
    assert event.order_id == opened.order_id
    assert len(scheduler) == 1


@by_one_blow
@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (HELD, CancelOutcome.CANCELLED),
        (CODE, CancelOutcome.CODE_ARRIVED),
        (NO_NUMBER, CancelOutcome.ALREADY_RELEASED),
    ],
    ids=["held", "code", "released"],
)
async def test_cancelled_while_old_enough_it_is_given_back_by_one_request(
    way: str, behaviour: Behaviour, outcome: CancelOutcome, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(behaviour)
    world.simulator.script("/cancelorder", Fault.slow(1))
    opened = world.client.open_order(187, "tg")
    async with cancelled(world, opened, way, age=120):
        await world.advance(2)
    assert world.cancels() == [opened.order_id]
    assert opened.cancellation is not None
    assert opened.cancellation.outcome is outcome
    assert warnings(caplog) == []


@pytest.mark.parametrize("path", ["/cancelorder", "/orderstatus"])
@by_every_way
async def test_cancelled_while_the_service_hangs_it_ends_within_its_bound(
    way: str, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sms4sats_async._orders.old_open._LAST_ATTEMPT", 0.1)  # 5 s
    world = World(journal=MemoryJournal())
    scheduler = CancelScheduler(world.client)
    opened = world.client.open_order(187, "tg", scheduler=scheduler)
    if path == "/orderstatus":
        world.simulator.script("/cancelorder", Fault.http(500))
    world.simulator.script(path, Fault.hang())
    with anyio.fail_after(4):
        async with cancelled(world, opened, way, age=125):
            pass
    assert world.cancels() == [opened.order_id]
    assert opened.cancellation is None
    assert len(warnings(caplog)) == 1
    assert len(scheduler) == 1
    async with running(scheduler):
        await world.advance(1)
    assert world.simulator.holder(opened.order_id) is Holder.REFUNDED


@pytest.mark.parametrize(
    "fault",
    [Fault.unable_to_save_data(), Fault.http(404), Fault.reset()],
    ids=["500", "404", "reset"],
)
async def test_cancelled_while_the_service_refuses_it_is_left_after_one_request(
    fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(journal=MemoryJournal())
    world.simulator.script("/cancelorder", *[fault] * 9)
    world.simulator.script("/orderstatus", *[Fault.http(404)] * 9)
    opened = world.client.open_order(187, "tg")
    async with cancelled(world, opened, "scope", age=120):
        await turns()
    assert len(world.cancels()) == 1
    assert opened.cancellation is None
    assert len(warnings(caplog)) == 1
    assert [type(event) for event in world.events].count(AttemptFailed) == 2
    assert opened.order_id not in caplog.text


@by_cancellation
async def test_cancelled_during_the_wait_of_the_exit_it_waits_no_longer(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(journal=MemoryJournal())
    opened = world.client.open_order(187, "tg")
    async with cancelled(world, opened, way, age=60, leaving=True):
        await turns()
    assert len(warnings(caplog)) == 1
    assert world.cancels() == []
    assert [order.stage for order in world.simulator.orders] == [Stage.NUMBERED]


async def test_cancelled_after_the_code_it_just_ends(caplog: pytest.LogCaptureFixture) -> None:
    world = jumping(CODE)
    with anyio.CancelScope() as scope:
        async with world.client.open_order(187, "tg") as order:
            await order.wait_for_code(timeout=60)
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert world.cancels() == []
    assert warnings(caplog) == []


async def test_a_time_limit_around_it_is_a_cancellation_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = jumping()

    async def limited() -> None:
        with anyio.fail_after(None) as limit:
            async with world.client.open_order(187, "tg"):
                limit.deadline = anyio.current_time() + 0.01
                await anyio.sleep_forever()

    with pytest.raises(TimeoutError):
        await limited()
    assert len(warnings(caplog)) == 1
    assert world.cancels() == []


# --- resume ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [True, False], ids=["journal", "no journal"])
async def test_an_order_is_taken_up_again(*, kept: bool) -> None:
    journal = MemoryJournal() if kept else None
    world = jumping(journal=journal)
    order = await world.order()
    await world.clock.sleep(60)
    async with world.new_client(journal).resume(order) as resumed:
        assert resumed.order == order
    assert world.ages() == [pytest.approx(120, abs=0.01)]
    assert resumed.cancellation is not None
    if journal is not None:
        assert await journal.pending() == []


async def test_of_an_id_the_journal_knows_the_rest() -> None:
    journal = MemoryJournal()
    world = jumping(journal=journal)
    order = await world.order()
    await world.clock.sleep(60)
    async with world.new_client(journal).resume(order.order_id) as resumed:
        assert resumed.order == order
        assert resumed.payreq == order.payreq
    assert world.ages() == [pytest.approx(120, abs=0.01)]


@pytest.mark.parametrize("kept", [True, False], ids=["journal", "no journal"])
async def test_an_id_that_nobody_knows_is_taken_to_be_made_now(*, kept: bool) -> None:
    journal = MemoryJournal() if kept else None
    world = jumping()
    order = await world.order()
    await world.clock.sleep(60)
    async with world.new_client(journal).resume(order.order_id) as resumed:
        assert resumed.payreq == ""
        assert resumed.created_at == moment(world.clock.now())
        if journal is not None:
            (entry,) = await journal.pending()
            assert entry.order_id == order.order_id
    assert world.ages() == [pytest.approx(180, abs=0.01)]


async def test_a_finished_order_is_not_cancelled_and_its_code_can_be_had() -> None:
    journal = MemoryJournal()
    world = jumping(CODE, journal=journal)
    order = await world.order()
    await world.client.wait_for_code(order, timeout=60)
    async with world.new_client(journal).resume(order.order_id) as resumed:
        assert (await resumed.wait_for_code(timeout=5)).code == "007"
    async with world.new_client(journal).resume(order.order_id) as resumed:
        pass
    assert resumed.cancellation is None
    assert world.cancels() == []


async def test_an_order_that_was_cancelled_stays_so_whatever_its_status_shows() -> None:
    world = jumping(attrs.evolve(HELD, status_after_cancel="unchanged"), journal=MemoryJournal())
    order = await world.order()
    await world.client.cancel_order_when_allowed(order)
    with pytest.raises(CodeTimeoutError) as caught:
        async with world.client.resume(order) as resumed:
            await resumed.wait_for_code(timeout=10)
    assert not hasattr(caught.value, "__notes__")
    assert world.cancels() == [order.order_id]


async def test_an_order_that_ended_unclear_is_asked_back_again() -> None:
    journal = MemoryJournal()
    world = jumping(journal=journal)
    order = await world.order()
    at = moment(world.clock.now())
    await journal.update([(order.order_id, told(RequestOutcome.REFUSED, at, final=True))])
    async with world.client.resume(order) as resumed:
        pass
    assert resumed.cancellation is not None
    assert resumed.cancellation.outcome is CancelOutcome.CANCELLED
    assert world.simulator.holder(order.order_id) is Holder.REFUNDED


async def test_an_order_that_the_service_does_not_know_is_an_error_on_leaving() -> None:
    world = jumping(Behaviour(cancel_refusal_status=404, cancel_refusal_reason="no such order"))
    with pytest.raises(Sms4SatsError, match="no such order"):
        async with world.client.resume("ab" * 32):
            pass


async def test_a_journal_that_cannot_be_used_is_an_error_on_entering() -> None:
    journal = BrokenJournal()
    world = jumping(journal=journal)
    order = await world.order()
    journal.error = OSError("no")
    with pytest.raises(JournalError):
        async with world.client.resume(order):
            pytest.fail("it was not written down")
    assert world.cancels() == []


class Forgetful(MemoryJournal):
    async def update(self, changes: object, /) -> list[JournalEntry | None]:
        assert isinstance(changes, list)
        return [None]


async def test_a_journal_that_does_not_do_as_it_is_asked_costs_nothing() -> None:
    world = jumping(journal=Forgetful())
    order = await world.order()
    async with world.client.resume(order.order_id) as resumed:
        assert resumed.order_id == order.order_id
    assert world.ages() == [pytest.approx(120, abs=0.01)]
