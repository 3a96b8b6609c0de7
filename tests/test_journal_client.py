"""What the client writes in its journal, and when: before it sends, and before it returns."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import sqlite3
import traceback
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel
import attrs
import httpx
import pytest
import respx

from sms4sats_async import (
    DEFAULT_BASE_URL,
    CancelOutcome,
    ClientStateError,
    CodeAlreadyReceivedError,
    Event,
    InvalidResponseError,
    JournalEntry,
    JournalError,
    JournalFailed,
    MemoryJournal,
    Order,
    OrderCreated,
    OrderJournal,
    OrderState,
    RequestOutcome,
    RetryPolicy,
    Sms4SatsClient,
    Sms4SatsError,
    SqliteJournal,
)
from sms4sats_async.journal import recorder
from sms4sats_async.simulator import Behaviour, Fault, ManualClock, Simulator

if TYPE_CHECKING:
    from pathlib import Path

    from sms4sats_async.journal import JournalChange

pytestmark = pytest.mark.anyio

PHONE: Final = "+4915112345678"
ID: Final = "0123456789abcdef" * 4
BY_HAND: Final = Behaviour(pay_delay=None, number_delay=None, code_delay=None)
ONCE: Final = RetryPolicy(attempts=1)

Call = Callable[[Sms4SatsClient], Awaitable[Order]]

CALLS: dict[str, Call] = {
    "/createorder": lambda client: client.create_order(187, "tg"),
    "/createsendorder": lambda client: client.create_send_order(PHONE, "hello"),
}
each_call = pytest.mark.parametrize("path", CALLS)


class World:
    """A simulator with a clock that jumps, a client of both, its journal, and what it told."""

    def __init__(self, journal: OrderJournal | None = None) -> None:
        self.clock = ManualClock()
        self.simulator = Simulator(BY_HAND, clock=self.clock)
        self.journal = MemoryJournal() if journal is None else journal
        self.events: list[Event] = []
        self.client = Sms4SatsClient(
            http_client=self.simulator.http_client(),
            clock=self.clock,
            on_event=self.events.append,
            timeout=0.05,
            journal=self.journal,
        )

    async def entry(self, order: Order) -> JournalEntry:
        entry = await self.journal.get(order.order_id)
        assert entry is not None
        return entry

    async def created(self) -> Order:
        return await self.client.create_order(187, "tg")


class AroundMemory:
    """A user's own journal: one in memory, with something of its own around each update."""

    def __init__(self) -> None:
        self.inner = MemoryJournal()
        self.pending = self.inner.pending
        self.get = self.inner.get
        self.history = self.inner.history
        self.prune = self.inner.prune

    async def update(
        self, changes: Sequence[tuple[str, JournalChange]], /
    ) -> Sequence[JournalEntry | None]:
        return await self.inner.update(changes)


# --- an order that is made ------------------------------------------------------------------------


class Witness(AroundMemory):
    """Sees at each update what the service has been asked for until then."""

    def __init__(self) -> None:
        super().__init__()
        self.simulator: Simulator | None = None
        self.seen: list[tuple[int, list[str | None], list[object]]] = []

    async def update(
        self, changes: Sequence[tuple[str, JournalChange]], /
    ) -> Sequence[JournalEntry | None]:
        assert self.simulator is not None
        await anyio.lowlevel.checkpoint()
        changed = await super().update(changes)
        entries = await self.inner.history()
        self.seen.append(
            (
                len(self.simulator.requests),
                [entry.order_id for entry in entries],
                [entry.outcome for entry in entries],
            )
        )
        await anyio.lowlevel.checkpoint()
        return changed


@each_call
async def test_an_order_is_written_down_before_it_is_asked_for_and_before_it_is_returned(
    path: str,
) -> None:
    world = World(witness := Witness())
    witness.simulator = world.simulator
    order = await CALLS[path](world.client)
    assert witness.seen == [
        (0, [None], [RequestOutcome.UNKNOWN]),
        (1, [order.order_id], [None]),
    ]
    assert world.events == [OrderCreated(order.order_id, order)]
    (entry,) = await world.journal.pending()
    assert entry.order == order


async def test_a_countrys_name_is_looked_up_first_and_stands_as_it_was_given() -> None:
    world = World(witness := Witness())
    witness.simulator = world.simulator
    order = await world.client.create_order("germany", "tg")
    assert [requests for requests, _, _ in witness.seen] == [1, 2]
    assert (await world.entry(order)).country == "germany"


async def test_the_client_shows_its_journal_and_leaves_it_open(tmp_path: Path) -> None:
    async with SqliteJournal(tmp_path / "journal") as journal:
        world = World(journal)
        assert world.client.journal is journal
        order = await world.created()
        await world.client.aclose()
        assert (await world.entry(order)).order == order
    assert Sms4SatsClient().journal is None


async def test_what_is_not_an_order_is_not_written_down() -> None:
    simulator = Simulator(clock=ManualClock())
    journal = MemoryJournal()
    client = Sms4SatsClient(api_key="key", http_client=simulator.http_client(), journal=journal)
    await client.fund(1000)
    await client.get_balance()
    await client.get_countries()
    await client.ping()
    assert await journal.history() == []


# --- an order that is not made, or nobody knows ---------------------------------------------------

UNKNOWN_ENDS: dict[str, Fault] = {
    "hang": Fault.hang(after_change=True),
    "hang before": Fault.hang(),
    "reset": Fault.reset(after_change=True),
    "502": Fault.html(502, after_change=True),
    "500": Fault.unable_to_save_data(after_change=True),
    "cut JSON": Fault.cut_json(after_change=True),
}


@pytest.mark.parametrize("fault", UNKNOWN_ENDS.values(), ids=UNKNOWN_ENDS)
@each_call
async def test_a_creation_that_ended_unknown_stays_as_that(path: str, fault: Fault) -> None:
    world = World()
    world.simulator.script(path, fault)
    with pytest.raises(Sms4SatsError) as caught:
        await CALLS[path](world.client)
    assert caught.value.request_outcome is RequestOutcome.UNKNOWN
    (entry,) = await world.journal.history()
    assert (entry.outcome, entry.order_id) == (RequestOutcome.UNKNOWN, None)
    asked_for = {"/createorder": ("receive", 187, "tg", None)}
    assert (entry.kind, entry.country, entry.service, entry.phone) == asked_for.get(
        path, ("send", None, None, PHONE)
    )
    assert entry.created_at == datetime.fromtimestamp(world.clock.now(), UTC)
    assert await world.journal.pending() == []


@each_call
async def test_a_creation_that_was_refused_leaves_nothing(path: str) -> None:
    world = World()
    world.simulator.script(path, Fault.http(400, "no such service"))
    with pytest.raises(Sms4SatsError) as caught:
        await CALLS[path](world.client)
    assert caught.value.request_outcome is RequestOutcome.REFUSED
    assert await world.journal.history() == []


@each_call
async def test_a_creation_that_never_left_leaves_nothing(path: str) -> None:
    journal = MemoryJournal()
    with respx.mock(base_url=DEFAULT_BASE_URL) as service:
        service.post(path).mock(side_effect=httpx.ConnectError("no"))
        async with Sms4SatsClient(journal=journal, retry=ONCE) as client:
            with pytest.raises(Sms4SatsError) as caught:
                await CALLS[path](client)
            assert caught.value.request_outcome is RequestOutcome.NOT_SENT
    with pytest.raises(ClientStateError):
        await CALLS[path](client)
    assert await journal.history() == []


MISTAKES: dict[str, Call] = {
    "country": lambda client: client.create_order(-1, "tg"),
    "country's name": lambda client: client.create_order("atlantis", "tg"),
    "no key": lambda client: client.create_order(187, "tg", immediate=True),
    "phone": lambda client: client.create_send_order("1", "hello"),
}


@pytest.mark.parametrize("call", MISTAKES.values(), ids=MISTAKES)
async def test_what_cannot_be_meant_is_not_written_down(call: Call) -> None:
    world = World()
    with pytest.raises(Sms4SatsError):
        await call(world.client)
    assert await world.journal.history() == []


@each_call
async def test_an_answer_without_an_invoice_is_pending_under_its_id(path: str) -> None:
    journal = MemoryJournal()
    events: list[Event] = []
    with respx.mock(base_url=DEFAULT_BASE_URL) as service:
        service.post(path).respond(json={"status": "OK", "orderId": ID})
        async with Sms4SatsClient(journal=journal, on_event=events.append) as client:
            with pytest.raises(InvalidResponseError, match="no payreq"):
                await CALLS[path](client)
    (entry,) = await journal.pending()
    assert (entry.order_id, entry.payreq, entry.outcome) == (ID, "", None)
    assert [event.order_id for event in events] == [ID]


async def test_a_creation_that_is_cancelled_on_its_way_stays_unknown() -> None:
    world = World()
    world.simulator.script("/createorder", Fault.hang(after_change=True))
    async with anyio.create_task_group() as group:
        group.start_soon(world.created)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert len(world.simulator.orders) == 1
    (entry,) = await world.journal.history()
    assert (entry.outcome, entry.order_id) == (RequestOutcome.UNKNOWN, None)


async def cancelled_at(turn: int, world: World, *, natively: bool) -> bool:
    """Cancel a creation after so many turns of the event loop; tell whether it was still going."""

    async def create() -> None:
        await world.created()

    if natively:
        task = asyncio.create_task(create())
        for _ in range(turn):
            await asyncio.sleep(0)
        was_going = not task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return was_going
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(create)
            for _ in range(turn):
                await anyio.lowlevel.checkpoint()
            scope.cancel()
    return scope.cancelled_caught


@pytest.mark.parametrize(
    ("anyio_backend", "natively"),
    [("asyncio", True), ("asyncio", False), ("trio", False)],
    ids=["natively", "by its scope", "by its scope on trio"],
)
async def test_whenever_a_creation_is_cancelled_the_journal_knows_of_each_order_that_may_exist(
    *, natively: bool
) -> None:
    """Natively a shield is of no help: what counts is that the journal is told in time."""
    known: list[tuple[int, list[str | None]]] = []
    for turn in range(60):
        world = World(witness := Witness())
        witness.simulator = world.simulator
        world.simulator.script("/createorder", Fault.slow(0.01, after_change=True))
        await cancelled_at(turn, world, natively=natively)
        entries = await world.journal.history()
        assert len(world.simulator.requests) <= len(entries) <= 1
        known.append(
            (len(world.simulator.requests), ["id" if each.order_id else "?" for each in entries])
        )
    # All that can be: nothing yet, asked for, sent, and made.
    assert (0, ["?"]) in known or not natively
    assert (1, ["?"]) in known
    assert known[-1] == (1, ["id"])


# --- what becomes known later ---------------------------------------------------------------------


async def test_each_fact_of_a_status_is_written_down_when_it_is_known() -> None:
    world = World()
    order = await world.created()
    client, simulator = world.client, world.simulator
    facts: list[tuple[object, ...]] = []

    async def look() -> None:
        await client.get_order_status(order)
        entry = await world.entry(order)
        facts.append((entry.state, entry.paid, entry.number, entry.code, entry.pending))

    await look()
    simulator.pay(order.order_id)
    await look()
    number = simulator.assign_number(order.order_id).number
    await look()
    simulator.deliver_code(order.order_id, "0042")
    await look()
    assert number is not None
    number = f"+{number.removeprefix('+')}"
    assert facts == [
        (OrderState.UNPAID, False, None, None, True),
        (OrderState.HELD, True, None, None, True),
        (OrderState.NUMBER_ASSIGNED, True, number, None, True),
        (OrderState.CODE_RECEIVED, True, number, "0042", False),
    ]
    assert (await world.entry(order)).outcome is CancelOutcome.CODE_ARRIVED
    assert await world.journal.pending() == []


async def test_a_code_that_is_waited_for_is_written_down_before_it_is_returned() -> None:
    world = World()
    order = await world.created()
    world.simulator.pay(order.order_id)
    world.simulator.deliver_code(order.order_id, "0042")
    status = await world.client.wait_for_code(order, timeout=60)
    assert (await world.entry(order)).codes == (status.code,) == ("0042",)


async def test_a_code_of_an_order_that_the_journal_does_not_know_is_written_down() -> None:
    world = World()
    elsewhere = Sms4SatsClient(http_client=world.simulator.http_client(), clock=world.clock)
    order = await elsewhere.create_order(187, "tg")
    await world.client.get_order_status(order)
    assert await world.journal.history() == []
    world.simulator.pay(order.order_id)
    world.simulator.deliver_code(order.order_id, "0042")
    await world.client.get_order_status(order)
    assert (await world.entry(order)).code == "0042"


async def test_an_order_that_was_given_back_is_finished_with_the_services_word() -> None:
    world = World()
    order = await world.created()
    world.simulator.pay(order.order_id)
    world.simulator.refund(order.order_id)
    status = await world.client.get_order_status(order)
    entry = await world.entry(order)
    assert (entry.outcome, entry.error) == (CancelOutcome.ALREADY_RELEASED, status.error)
    assert entry.finished_at == datetime.fromtimestamp(world.clock.now(), UTC)
    assert await world.journal.pending() == []


async def test_a_cancel_that_is_answered_ok_finishes_the_order() -> None:
    world = World()
    order = await world.created()
    await world.clock.sleep(121)
    await world.client.cancel_order(order)
    entry = await world.entry(order)
    assert (entry.outcome, entry.pending) == (CancelOutcome.CANCELLED, False)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fault.unable_to_save_data(), RequestOutcome.REFUSED),
        (Fault.http(404), RequestOutcome.REFUSED),
        (Fault.hang(), RequestOutcome.UNKNOWN),
        (Fault.reset(after_change=True), RequestOutcome.UNKNOWN),
        (Fault.html(502), RequestOutcome.UNKNOWN),
    ],
    ids=["500", "404", "hang", "reset", "502"],
)
async def test_a_cancel_that_fails_leaves_the_order_pending_with_what_is_known(
    fault: Fault, outcome: RequestOutcome
) -> None:
    world = World()
    order = await world.created()
    await world.clock.sleep(121)
    world.simulator.script("/cancelorder", fault)
    with pytest.raises(Sms4SatsError) as caught:
        await world.client.cancel_order(order, retry=ONCE)
    entry = await world.entry(order)
    assert (entry.outcome, entry.pending) == (caught.value.request_outcome, True)
    assert entry.outcome is outcome


async def test_a_code_that_the_look_after_a_cancel_finds_is_written_down() -> None:
    world = World()
    order = await world.created()
    world.simulator.pay(order.order_id)
    world.simulator.deliver_code(order.order_id, "0042")
    with pytest.raises(CodeAlreadyReceivedError):
        await world.client.cancel_order(order, confirm=True)
    assert (await world.entry(order)).code == "0042"


async def test_money_that_is_got_back_with_patience_finishes_the_order() -> None:
    world = World()
    order = await world.created()
    world.simulator.pay(order.order_id)
    await world.client.cancel_order_when_allowed(order)
    entry = await world.entry(order)
    assert (entry.outcome, entry.paid) == (CancelOutcome.CANCELLED, True)


async def test_an_order_of_which_nobody_can_tell_the_end_is_finished_as_unknown() -> None:
    world = World()
    order = await world.created()
    late = attrs.evolve(BY_HAND, minimum_cancel_age=10_000, automatic_cancel_age=10_000)
    world.simulator.set_behaviour(order.order_id, late)
    with pytest.raises(Sms4SatsError) as caught:
        await world.client.cancel_order_when_allowed(order, watch=False)
    assert caught.value.request_outcome is RequestOutcome.UNKNOWN
    entry = await world.entry(order)
    assert (entry.outcome, entry.pending) == (RequestOutcome.UNKNOWN, False)


async def test_an_order_whose_status_nobody_could_read_stays_pending() -> None:
    """Who asks again tomorrow may learn more."""
    world = World()
    order = await world.created()
    world.simulator.script("*", *[Fault.unable_to_save_data()] * 1000)
    with pytest.raises(Sms4SatsError):
        await world.client.cancel_order_when_allowed(order, watch=False)
    entry = await world.entry(order)
    assert (entry.outcome, entry.pending) == (RequestOutcome.UNKNOWN, True)


@pytest.mark.parametrize(
    ("status", "pending"), [(400, False), (404, False), (403, True), (302, True)]
)
async def test_only_a_refusal_that_is_about_the_order_finishes_it(
    status: int, *, pending: bool
) -> None:
    """A gateway's word, or a hotel's login page, says nothing of an order that a code may reach."""
    world = World()
    order = await world.created()
    world.simulator.script("*", *[Fault.http(status)] * 1000)
    await world.clock.sleep(121)
    with pytest.raises(Sms4SatsError):
        await world.client.cancel_order_when_allowed(order, watch=False)
    entry = await world.entry(order)
    assert (entry.outcome, entry.pending) == (RequestOutcome.REFUSED, pending)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancel_that_is_itself_cancelled_when_the_ok_is_here_is_written_down() -> None:
    """At whatever turn it comes: where the service's OK was read, the journal has it."""
    written = 0
    for turn in range(60):
        told: list[Event] = []
        world = World(witness := Witness())
        witness.simulator = world.simulator
        order = await world.created()
        await world.clock.sleep(121)
        task = asyncio.create_task(world.client.cancel_order(order))
        for _ in range(turn):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
            told = world.events
        entry = await world.entry(order)
        written += entry.outcome is CancelOutcome.CANCELLED
        assert not told or entry.outcome is CancelOutcome.CANCELLED
        assert entry.pending is (entry.outcome is None)
    assert 0 < written < 60


# --- a journal that fails -------------------------------------------------------------------------


class Failing(AroundMemory):
    """A journal that raises from the update on that it is told to fail at."""

    def __init__(self, error: BaseException, *, at: int = 0) -> None:
        super().__init__()
        self.error = error
        self.left = at

    async def update(
        self, changes: Sequence[tuple[str, JournalChange]], /
    ) -> Sequence[JournalEntry | None]:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return await super().update(changes)


class Hanging(Failing):
    """A journal that never comes back, from the update on that it is told to."""

    def __init__(self, *, at: int = 0) -> None:
        super().__init__(OSError(), at=at)

    async def update(
        self, changes: Sequence[tuple[str, JournalChange]], /
    ) -> Sequence[JournalEntry | None]:
        try:
            return await super().update(changes)
        except OSError:
            await anyio.sleep_forever()
            raise


@pytest.fixture
def short_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert recorder._BOUND == 5  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(recorder, "_BOUND", 0.05)


FAILURES: dict[str, tuple[Callable[[int], Failing], str]] = {
    "one of ours": (
        lambda at: Failing(JournalError("the journal /j cannot be used: the disk is full"), at=at),
        "the journal /j cannot be used: the disk is full",
    ),
    "somebody's": (
        lambda at: Failing(OSError(f"cannot write {ID}"), at=at),
        "the journal cannot be written (OSError)",
    ),
    "one that hangs": (lambda at: Hanging(at=at), "the journal did not answer within 0.05 s"),
}
each_failure = pytest.mark.parametrize(("make", "problem"), FAILURES.values(), ids=FAILURES)


@pytest.mark.usefixtures("short_bound")
@each_failure
@each_call
async def test_no_order_is_made_without_a_record(
    path: str, make: Callable[[int], Failing], problem: str
) -> None:
    world = World(make(0))
    with pytest.raises(JournalError) as caught:
        await CALLS[path](world.client)
    error = caught.value
    assert world.simulator.requests == []
    assert (error.request_outcome, error.order) == (RequestOutcome.NOT_SENT, None)
    operation = {"/createorder": "create_order"}.get(path, "create_send_order")
    assert str(error) == (
        f"{operation}: {problem}. Nothing was sent, because no order is made without a record. "
        "Mend the journal and ask again."
    )


@pytest.mark.usefixtures("short_bound")
@each_failure
@each_call
async def test_an_order_that_was_made_and_cannot_be_written_down_is_on_the_error(
    path: str, make: Callable[[int], Failing], problem: str
) -> None:
    world = World(make(1))
    with pytest.raises(JournalError) as caught:
        await CALLS[path](world.client)
    error = caught.value
    (made,) = world.simulator.orders
    assert error.order is not None
    assert (error.order.order_id, error.order.payreq) == (made.order_id, made.payreq)
    assert error.order_id == made.order_id
    assert str(error).endswith(
        f": {problem}. The order was made, and the journal holds only that one was asked for: its "
        "id and invoice stand on the error's order. Keep them; do not pay twice."
    )
    assert OrderCreated(made.order_id, error.order) in world.events
    (entry,) = await world.journal.history()
    assert entry.outcome is RequestOutcome.UNKNOWN
    # What was kept is enough to go on with.
    assert (await world.client.get_order_status(error.order)).state is OrderState.UNPAID


@pytest.mark.usefixtures("short_bound")
@each_failure
async def test_a_journal_that_fails_later_costs_nobody_the_code(
    make: Callable[[int], Failing], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(make(2))
    order = await world.created()
    world.simulator.pay(order.order_id)
    world.simulator.deliver_code(order.order_id, "0042")
    with caplog.at_level(logging.ERROR, "sms4sats_async"):
        status = await world.client.wait_for_code(order, timeout=60)
    assert status.code == "0042"
    (failed,) = [event for event in world.events if isinstance(event, JournalFailed)]
    assert (failed.order_id, failed.error.order_id) == (order.order_id, order.order_id)
    assert failed.error.problem == problem
    (line,) = caplog.messages
    assert line == (
        f"order {order.order_id[:4]}…{order.order_id[-4:]}: not written down, what became known: "
        f"{problem}"
    )
    assert order.order_id not in repr(failed)


@pytest.mark.usefixtures("short_bound")
@each_failure
async def test_a_journal_that_fails_later_costs_nobody_the_money(
    make: Callable[[int], Failing], problem: str
) -> None:
    world = World(make(2))
    order = await world.created()
    world.simulator.pay(order.order_id)
    await world.clock.sleep(121)
    done = await world.client.cancel_order(order)
    assert done.outcome is CancelOutcome.CANCELLED
    assert world.simulator.held_orders() == []
    told = [event.error.problem for event in world.events if isinstance(event, JournalFailed)]
    assert told == [problem]


async def test_an_error_of_the_service_is_raised_though_the_journal_fails_too() -> None:
    world = World(Failing(OSError(), at=1))
    world.simulator.script("/createorder", Fault.http(400, "no such service"))
    with pytest.raises(Sms4SatsError, match="no such service"):
        await world.created()
    assert [type(event).__name__ for event in world.events] == ["AttemptFailed", "JournalFailed"]


async def test_no_traceback_shows_an_order_id_that_a_journal_quoted() -> None:
    class Quoting(AroundMemory):
        async def update(
            self, changes: Sequence[tuple[str, JournalChange]], /
        ) -> Sequence[JournalEntry | None]:
            (entry,) = await super().update(changes)
            if entry is not None and entry.order_id is not None:
                raise KeyError(entry.order_id, f"no place for {changes[0][0]}")
            return [entry]

    world = World(Quoting())
    with pytest.raises(JournalError) as caught:
        await world.created()
    (made,) = world.simulator.orders
    assert isinstance(caught.value.__cause__, KeyError)
    assert made.order_id not in "".join(traceback.format_exception(caught.value))
    (entry,) = await world.journal.history()
    assert entry.key not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("at", [0, 1])
async def test_what_ends_the_program_ends_it_also_out_of_a_journal(at: int) -> None:
    class EndOfItAll(BaseException):
        pass

    world = World(Failing(EndOfItAll(), at=at))
    with pytest.raises(EndOfItAll):
        await world.created()
    assert len(world.simulator.requests) == at


@pytest.mark.usefixtures("short_bound")
async def test_a_task_that_is_being_cancelled_waits_a_bounded_time_for_a_journal_that_hangs() -> (
    None
):
    world = World(Hanging(at=1))
    failures: list[JournalError] = []

    async def create() -> None:
        with pytest.raises(JournalError) as caught:
            await world.created()
        failures.append(caught.value)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(create)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
    (made,) = world.simulator.orders
    assert [failure.order_id for failure in failures] == [made.order_id]


# --- files that cannot be used --------------------------------------------------------------------


def belongs_to_another(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE bookmarks (url)")


def is_no_journal(path: Path) -> None:
    path.write_text("[settings]\n" * 100, encoding="utf-8")


def is_damaged(path: Path) -> None:
    anyio.run(fill, path)
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))


async def fill(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        world = World(journal)
        for _ in range(30):
            await world.created()


def is_missing_its_folder(path: Path) -> None:
    path.parent.rmdir()


UNUSABLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "another program's": (belongs_to_another, "the file belongs to another program; give another"),
    "no journal": (is_no_journal, "the file is no journal; give another path"),
    "damaged": (is_damaged, "it is damaged; keep it, for the order ids in it, and give another"),
    "no folder": (is_missing_its_folder, "it cannot be opened; its folder must exist, and"),
}


@pytest.mark.parametrize(("spoil", "problem"), UNUSABLE.values(), ids=UNUSABLE)
async def test_with_a_file_that_cannot_be_used_no_order_is_made(
    spoil: Callable[[Path], None], problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "folder" / "journal"
    path.parent.mkdir()
    await anyio.to_thread.run_sync(spoil, path)
    async with SqliteJournal(path) as journal:
        world = World(journal)
        for call in CALLS.values():
            with pytest.raises(JournalError, match=re.escape(problem)) as caught:
                await call(world.client)
            assert "Nothing was sent, because no order is made without a record" in str(
                caught.value
            )
    assert world.simulator.requests == []


async def test_with_a_locked_file_no_order_is_made_until_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with SqliteJournal(path, lock_timeout=0.1) as journal:
        world = World(journal)
        await journal.pending()
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(JournalError, match="another program keeps it locked"):
                await world.created()
            assert world.simulator.requests == []
        order = await world.created()
        assert (await world.entry(order)).pending


async def test_on_a_full_disk_every_order_of_the_service_is_in_the_journal_or_on_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def connect_to_a_small_disk(*args: Any, **options: Any) -> sqlite3.Connection:
        file: sqlite3.Connection = connect(*args, **options)
        file.execute("PRAGMA max_page_count = 12")
        return file

    monkeypatch.setattr(sqlite3, "connect", connect_to_a_small_disk)
    on_errors: list[str] = []
    problems: set[str] = set()
    async with SqliteJournal(tmp_path / "journal") as journal:
        world = World(journal)
        refused = 0
        for _ in range(100):
            try:
                await world.created()
            except JournalError as error:
                problems.add(error.problem.partition("used: ")[2])
                if error.order is None:
                    refused += 1
                else:
                    on_errors.append(error.order.order_id)
        written = [entry.order_id for entry in await journal.pending()]
    assert refused
    assert written
    assert problems == {"the disk is full; make room on it"}
    made = {order.order_id for order in world.simulator.orders}
    assert made == {*written, *on_errors}
    assert len(world.simulator.requests) == 100 - refused


async def test_what_a_file_holds_is_all_that_it_takes_to_go_on_in_another_process(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal"
    async with SqliteJournal(path) as journal:
        world = World(journal)
        orders = [await world.created() for _ in range(3)]
    async with SqliteJournal(path) as journal:
        entries = await journal.pending()
        client = Sms4SatsClient(
            http_client=world.simulator.http_client(), clock=world.clock, journal=journal
        )
        for entry in entries:
            assert entry.order is not None
            await client.cancel_order_when_allowed(entry.order)
        assert await journal.pending() == []
        assert await journal.prune(datetime.max.replace(tzinfo=UTC)) == 3
    assert [entry.order for entry in entries] == [attrs.evolve(order) for order in orders]
    assert (
        world.clock.now() - orders[0].created_at.timestamp() >= timedelta(minutes=2).total_seconds()
    )
