"""What the client records in its journal, and when: before it sends, and before it returns."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel
import attrs
import httpx
import pytest
import respx

from sms4sats_async import (
    DEFAULT_BASE_URL,
    ClientStateError,
    Event,
    InvalidArgumentError,
    InvalidResponseError,
    JournalEntry,
    JournalError,
    JournalFailed,
    MemoryJournal,
    Money,
    Order,
    OrderCreated,
    OrderOutcome,
    OrderResult,
    OrderScheduler,
    OrderState,
    RequestOutcome,
    RetryPolicy,
    Sms4SatsClient,
    Sms4SatsError,
    SqliteJournal,
)
from sms4sats_async.journal import recorder
from sms4sats_async.journal.entry import record_outcome, record_status
from sms4sats_async.simulator import Behaviour, Fault
from tests.journal_contract import status_of
from tests.simulated import METADATA, Simulated, entry_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms4sats_async.journal import JournalChange

pytestmark = pytest.mark.anyio

PHONE: Final = "+4915112345678"
ID: Final = "0123456789abcdef" * 4
BY_HAND: Final = Behaviour(pay_delay=None, number_delay=None, code_delay=None)
ONCE: Final = RetryPolicy(attempts=1)

Call = Callable[[Sms4SatsClient], Awaitable[Order]]

CALLS: Final[dict[str, Call]] = {
    "/createorder": lambda client: client.create_order(187, "tg", metadata=METADATA),
    "/createsendorder": lambda client: client.create_send_order(PHONE, "hi", metadata=METADATA),
}
each_call = pytest.mark.parametrize("path", CALLS)


class Recorded(Simulated):
    """A simulated service whose orders are paid and end by hand, and a journal."""

    def __init__(
        self, journal: Any = None, behaviour: Behaviour = BY_HAND, **settings: Any
    ) -> None:
        self.journal = MemoryJournal() if journal is None else journal
        super().__init__(behaviour, journal=self.journal, **settings)

    async def entry(self, order: Order) -> JournalEntry:
        return await entry_of(self.journal, order.order_id)

    async def only_entry(self) -> JournalEntry:
        (entry,) = await self.journal.history()
        assert isinstance(entry, JournalEntry)
        return entry

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now(), UTC)


class CountingRequests(MemoryJournal):
    """A journal that notes at each update how many requests the service has had until then."""

    def __init__(self) -> None:
        super().__init__()
        self.service: Simulated | None = None
        self.seen: list[tuple[int, JournalEntry]] = []

    async def update(
        self, changes: Sequence[tuple[str, JournalChange]], /
    ) -> Sequence[JournalEntry | None]:
        assert self.service is not None
        await anyio.lowlevel.checkpoint()
        changed = await super().update(changes)
        requests = len(self.service.requests())
        self.seen += [(requests, entry) for entry in changed if entry is not None]
        await anyio.lowlevel.checkpoint()
        return changed


def watched(**settings: Any) -> tuple[Recorded, CountingRequests]:
    witness = CountingRequests()
    it = Recorded(witness, **settings)
    witness.service = it
    return it, witness


# --- an order that is created ---------------------------------------------------------------------


@each_call
async def test_an_order_is_recorded_before_the_request_and_before_it_is_returned(path: str) -> None:
    it, witness = watched()
    order = await CALLS[path](it.client)
    (before, requested), (after, created) = witness.seen
    assert (before, requested.order_id, requested.outcome) == (0, None, RequestOutcome.UNKNOWN)
    assert (after, created.order_id, created.outcome) == (1, order.order_id, None)
    for entry in (requested, created):
        assert (entry.metadata, entry.base_url) == (METADATA, DEFAULT_BASE_URL)
        assert (entry.code_deadline, entry.claimed_by) == (None, None)
    assert it.events == [OrderCreated(order.order_id, order)]
    (pending,) = await it.journal.pending()
    assert pending.order == order
    assert order.metadata == METADATA


async def test_metadata_is_a_copy_and_is_never_sent() -> None:
    it = Recorded()
    notes = {"chat": "a secret note"}
    order = await it.client.create_order(187, "tg", metadata=notes)
    notes["chat"] = "another"
    assert (await it.entry(order)).metadata == {"chat": "a secret note"}
    assert "a secret note" not in repr(it.simulator.requests)


async def test_a_countrys_name_is_recorded_as_given() -> None:
    it, witness = watched()
    order = await it.client.create_order("germany", "tg")
    assert [requests for requests, _ in witness.seen] == [1, 2]
    assert (await it.entry(order)).country == "germany"


async def test_the_root_is_recorded_as_the_client_uses_it() -> None:
    it = Recorded(base_url="http://127.0.0.1:8021/")
    assert (await it.entry(await it.order())).base_url == "http://127.0.0.1:8021"


async def test_the_client_shows_its_journal_and_never_closes_it(tmp_path: Path) -> None:
    async with SqliteJournal(tmp_path / "journal") as journal:
        it = Recorded(journal)
        assert it.client.journal is journal
        order = await it.order()
        await it.client.aclose()
        assert (await it.entry(order)).order == order
    assert Sms4SatsClient().journal is None


async def test_only_orders_are_recorded() -> None:
    it = Recorded(api_key="key")
    await it.client.fund(1000)
    await it.client.get_balance()
    await it.client.get_countries()
    await it.client.ping()
    assert await it.journal.history() == []


# --- an order that is not created, or perhaps -----------------------------------------------------

UNKNOWN_ENDS: Final[dict[str, Fault]] = {
    "hang": Fault.hang(after_change=True),
    "hang before": Fault.hang(),
    "reset": Fault.reset(after_change=True),
    "502": Fault.html(502, after_change=True),
    "500": Fault.unable_to_save_data(after_change=True),
    "cut JSON": Fault.cut_json(after_change=True),
}


@pytest.mark.parametrize("fault", UNKNOWN_ENDS.values(), ids=UNKNOWN_ENDS)
@each_call
async def test_a_creation_that_ended_unknown_is_recorded_with_its_metadata(
    path: str, fault: Fault
) -> None:
    it = Recorded()
    it.simulator.script(path, fault)
    requested_at = it.now()
    with pytest.raises(Sms4SatsError) as caught:
        await CALLS[path](it.client)
    assert caught.value.request_outcome is RequestOutcome.UNKNOWN
    entry = await it.only_entry()
    assert (entry.outcome, entry.order_id, entry.money) == (
        RequestOutcome.UNKNOWN,
        None,
        Money.UNKNOWN,
    )
    assert (entry.metadata, entry.base_url) == (METADATA, DEFAULT_BASE_URL)
    expected = (
        ("receive", 187, "tg", None) if path == "/createorder" else ("send", None, None, PHONE)
    )
    assert (entry.kind, entry.country, entry.service, entry.phone) == expected
    assert entry.created_at == requested_at
    assert await it.journal.pending() == await it.journal.undelivered() == []


@each_call
async def test_a_refused_creation_leaves_no_entry(path: str) -> None:
    it = Recorded()
    it.simulator.script(path, Fault.http(400, "no such service"))
    with pytest.raises(Sms4SatsError) as caught:
        await CALLS[path](it.client)
    assert caught.value.request_outcome is RequestOutcome.REFUSED
    assert await it.journal.history() == []


@each_call
async def test_a_creation_that_was_not_sent_leaves_no_entry(path: str) -> None:
    journal = MemoryJournal()
    with respx.mock(base_url=DEFAULT_BASE_URL) as service:
        service.post(path).mock(side_effect=httpx.ConnectError("no"))
        async with (
            httpx.AsyncClient() as http,
            Sms4SatsClient(journal=journal, retry=ONCE, http_client=http) as client,
        ):
            with pytest.raises(Sms4SatsError) as caught:
                await CALLS[path](client)
            assert caught.value.request_outcome is RequestOutcome.NOT_SENT
    with pytest.raises(ClientStateError):
        await CALLS[path](client)
    assert await journal.history() == []


MISTAKES: Final[dict[str, Call]] = {
    "country": lambda client: client.create_order(-1, "tg"),
    "country's name": lambda client: client.create_order("atlantis", "tg"),
    "no key": lambda client: client.create_order(187, "tg", immediate=True),
    "phone": lambda client: client.create_send_order("1", "hello"),
    "metadata": lambda client: client.create_order(187, "tg", metadata={"a": "b" * 5000}),
}


@pytest.mark.parametrize("call", MISTAKES.values(), ids=MISTAKES)
async def test_an_invalid_creation_leaves_no_entry(call: Call) -> None:
    it = Recorded()
    with pytest.raises(Sms4SatsError):
        await call(it.client)
    assert await it.journal.history() == []


@each_call
async def test_an_order_without_an_invoice_is_pending_under_its_id(path: str) -> None:
    journal = MemoryJournal()
    events: list[Event] = []
    with respx.mock(base_url=DEFAULT_BASE_URL) as service:
        service.post(path).respond(json={"status": "OK", "orderId": ID})
        async with (
            httpx.AsyncClient() as http,
            Sms4SatsClient(journal=journal, on_event=events.append, http_client=http) as client,
        ):
            with pytest.raises(InvalidResponseError, match="no payreq"):
                await CALLS[path](client)
    (entry,) = await journal.pending()
    assert (entry.order_id, entry.invoice, entry.outcome) == (ID, "", None)
    assert [event.order_id for event in events] == [ID]


async def test_a_creation_that_is_cancelled_under_way_stays_unknown() -> None:
    it = Recorded()
    it.simulator.script("/createorder", Fault.hang(after_change=True))
    client = it.new_client(it.journal, http_client=it.simulator.http_client())
    async with anyio.create_task_group() as group:
        group.start_soon(client.create_order, 187, "tg")
        while not it.simulator.orders:
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    entry = await it.only_entry()
    assert (entry.outcome, entry.order_id) == (RequestOutcome.UNKNOWN, None)


async def cancelled_at(turn: int, it: Recorded, *, natively: bool) -> None:
    """Cancel a creation after so many turns of the event loop."""

    async def create() -> None:
        await it.order()

    if natively:
        task = asyncio.create_task(create())
        for _ in range(turn):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return
    async with anyio.create_task_group() as group:
        group.start_soon(create)
        for _ in range(turn):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("anyio_backend", "natively"),
    [("asyncio", True), ("asyncio", False), ("trio", False)],
    ids=["natively", "by its scope", "by its scope on trio"],
)
async def test_the_journal_knows_every_order_whenever_its_creation_is_cancelled(
    *, natively: bool
) -> None:
    """A shield does not stop a native cancel: the journal must get the entry in time."""
    known: list[tuple[int, list[str]]] = []
    for turn in range(60):
        it, _ = watched()
        it.simulator.script("/createorder", Fault.slow(0.01, after_change=True))
        await cancelled_at(turn, it, natively=natively)
        entries = await it.journal.history()
        assert len(it.requests()) <= len(entries) <= 1
        known.append((len(it.requests()), ["id" if each.order_id else "?" for each in entries]))
    # Recorded, sent, and created. Before that, a shield lets the first record end.
    assert (0, ["?"]) in known or not natively
    assert (1, ["?"]) in known
    assert known[-1] == (1, ["id"])


# --- what becomes known later ---------------------------------------------------------------------


async def test_each_fact_of_a_status_is_recorded_when_it_is_known() -> None:
    it = Recorded()
    order = await it.order()
    facts: list[tuple[object, ...]] = []

    async def read() -> None:
        await it.client.get_order_status(order)
        entry = await it.entry(order)
        assert entry.money is not Money.UNKNOWN
        facts.append((entry.state, entry.paid, entry.number, entry.code, entry.pending))

    await read()
    it.simulator.pay(order.order_id)
    await read()
    number = it.simulator.assign_number(order.order_id).number
    seen_at = it.now()
    await read()
    await it.clock.sleep(30)
    it.simulator.deliver_code(order.order_id, "0042")
    await read()
    assert number is not None
    number = f"+{number.removeprefix('+')}"
    assert facts == [
        (OrderState.UNPAID, False, None, None, True),
        (OrderState.HELD, True, None, None, True),
        (OrderState.NUMBER_ASSIGNED, True, number, None, True),
        (OrderState.CODE_RECEIVED, True, number, "0042", False),
    ]
    entry = await it.entry(order)
    assert (entry.outcome, entry.number_seen_at) == (OrderOutcome.CODE_RECEIVED, seen_at)


async def test_a_code_of_an_order_that_the_journal_does_not_know_is_recorded() -> None:
    it = Recorded()
    order = await it.new_client().create_order(187, "tg")
    await it.client.get_order_status(order)
    assert await it.journal.history() == []
    it.simulator.pay(order.order_id)
    it.simulator.deliver_code(order.order_id, "0042")
    await it.client.get_order_status(order)
    entry = await it.entry(order)
    assert (entry.code, entry.base_url) == ("0042", DEFAULT_BASE_URL)


async def test_a_refund_is_recorded_with_the_text_of_the_service() -> None:
    it = Recorded()
    order = await it.order()
    it.simulator.pay(order.order_id)
    it.simulator.refund(order.order_id)
    status = await it.client.get_order_status(order)
    entry = await it.entry(order)
    assert (entry.outcome, entry.error) == (OrderOutcome.REFUNDED, status.error)
    assert (entry.finished_at, entry.money) == (it.now(), Money.REFUNDED)


FAILED_CANCELS: Final[dict[str, tuple[Fault, RequestOutcome]]] = {
    "500": (Fault.unable_to_save_data(), RequestOutcome.REFUSED),
    "404": (Fault.http(404), RequestOutcome.REFUSED),
    "hang": (Fault.hang(), RequestOutcome.UNKNOWN),
    "reset": (Fault.reset(after_change=True), RequestOutcome.UNKNOWN),
    "502": (Fault.html(502), RequestOutcome.UNKNOWN),
}


@pytest.mark.parametrize(("fault", "outcome"), FAILED_CANCELS.values(), ids=FAILED_CANCELS)
async def test_a_failed_cancel_is_recorded_and_the_order_stays_pending(
    fault: Fault, outcome: RequestOutcome
) -> None:
    it = Recorded()
    order = await it.order()
    await it.clock.sleep(121)
    it.simulator.script("/cancelorder", fault)
    with pytest.raises(Sms4SatsError) as caught:
        await it.client.cancel_order(order, retry=ONCE)
    entry = await it.entry(order)
    assert entry.outcome is caught.value.request_outcome is outcome
    assert (entry.pending, entry.refusals, entry.refused_at) == (True, 1, it.now())


async def test_an_order_whose_end_is_unknown_after_21_minutes_is_finished() -> None:
    late = attrs.evolve(BY_HAND, minimum_cancel_age=10_000, automatic_cancel_age=10_000)
    it = Recorded(behaviour=late)
    order = await it.order()
    with pytest.raises(Sms4SatsError) as caught:
        await it.client.cancel_order_when_allowed(order, watch=False)
    assert caught.value.request_outcome is RequestOutcome.UNKNOWN
    entry = await it.entry(order)
    assert (entry.outcome, entry.pending) == (RequestOutcome.UNKNOWN, False)
    assert entry.money is Money.WITH_PAYER


async def test_an_order_whose_status_was_never_read_stays_pending() -> None:
    """A later attempt may learn more."""
    it = Recorded()
    order = await it.order()
    it.simulator.script("*", *[Fault.unable_to_save_data()] * 1000)
    with pytest.raises(Sms4SatsError) as caught:
        await it.client.cancel_order_when_allowed(order, watch=False)
    assert caught.value.request_outcome is RequestOutcome.UNKNOWN
    entry = await it.entry(order)
    assert (entry.outcome, entry.pending) == (RequestOutcome.REFUSED, True)


@pytest.mark.parametrize(
    ("status", "pending"), [(400, False), (404, False), (403, True), (302, True)]
)
async def test_only_a_refusal_of_the_service_itself_finishes_an_order(
    status: int, *, pending: bool
) -> None:
    """A gateway's answer, or a hotel's login page, says nothing about the order."""
    it = Recorded()
    order = await it.order()
    it.simulator.script("*", *[Fault.http(status)] * 1000)
    await it.clock.sleep(121)
    with pytest.raises(Sms4SatsError):
        await it.client.cancel_order_when_allowed(order, watch=False)
    entry = await it.entry(order)
    assert (entry.outcome, entry.pending) == (RequestOutcome.REFUSED, pending)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancel_that_was_answered_ok_is_recorded_although_its_task_is_cancelled() -> None:
    """At whatever turn it comes: if the client read the OK, the journal has it."""
    recorded = 0
    for turn in range(60):
        it, _ = watched()
        order = await it.order()
        await it.clock.sleep(121)
        it.events.clear()
        task = asyncio.create_task(it.client.cancel_order(order))
        for _ in range(turn):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        entry = await it.entry(order)
        recorded += entry.outcome is OrderOutcome.CANCELLED
        assert not it.events or entry.outcome is OrderOutcome.CANCELLED
        assert entry.pending is (entry.outcome is None)
    assert 0 < recorded < 60


# --- the result and its delivery ------------------------------------------------------------------

Ending = Callable[[Sms4SatsClient, Order], Awaitable[object]]


async def opened(client: Sms4SatsClient, order: Order) -> None:
    async with client.resume_order(order):
        pass


DIRECT_CALLS: Final[dict[str, Ending]] = {
    "cancel_order": lambda client, order: client.cancel_order(order, confirm=True),
    "cancel_order_when_allowed": lambda client, order: client.cancel_order_when_allowed(order),
    "code_or_refund": lambda client, order: client.code_or_refund(order, timeout=0),
    "wait_for_code": lambda client, order: client.wait_for_code(order, timeout=60),
    "advance_order": lambda client, order: client.advance_order(order),
    "resume_order": opened,
}


@pytest.mark.parametrize("call", DIRECT_CALLS.values(), ids=DIRECT_CALLS)
async def test_a_direct_call_acknowledges_its_result_when_it_returns(call: Ending) -> None:
    it = Recorded()
    order = await it.order(metadata=METADATA)
    it.simulator.pay(order.order_id)
    it.simulator.deliver_code(order.order_id, "0042")
    await it.clock.sleep(121)
    await call(it.client, order)
    entry = await it.entry(order)
    assert entry.result == OrderResult(
        order.order_id, OrderOutcome.CODE_RECEIVED, "0042", entry.number, metadata=METADATA
    )
    assert (entry.money, entry.delivered_at) == (Money.SETTLED, entry.finished_at)
    assert entry.claimed_by is None
    assert await it.journal.undelivered() == []


async def test_reading_the_status_acknowledges_nothing() -> None:
    it = Recorded()
    order = await it.order(metadata=METADATA)
    it.simulator.pay(order.order_id)
    it.simulator.deliver_code(order.order_id, "0042")
    await it.client.get_order_status(order)
    (entry,) = await it.journal.undelivered(DEFAULT_BASE_URL)
    assert entry.result is not None
    assert (entry.result.code, entry.result.metadata) == ("0042", METADATA)


async def test_a_result_that_no_caller_received_comes_from_the_next_scheduler() -> None:
    it = Recorded()
    order = await it.order(metadata=METADATA)
    change = record_status(status_of(order.order_id, code="0042"), it.now())
    await it.journal.update([(order.order_id, change)])
    scheduler = OrderScheduler(it.new_client(it.journal))
    async with anyio.create_task_group() as group:
        group.start_soon(scheduler.run)
        async for result in scheduler.results():
            assert (result.code, result.metadata) == ("0042", METADATA)
            break
        assert [each.order_id for each in await it.journal.undelivered()] == [order.order_id]
        group.cancel_scope.cancel()


async def test_a_resumed_order_of_another_root_is_refused_and_stays_unchanged() -> None:
    it = Recorded()
    order = await it.order()
    before = await it.entry(order)
    other = it.new_client(it.journal, base_url="https://other.example")
    requests = len(it.requests())
    for call in (
        partial(other.code_or_refund, order, timeout=0),
        partial(other.advance_order, order),
        partial(opened, other, order),
    ):
        with pytest.raises(InvalidArgumentError, match=r"https://api2\.sms4sats\.com"):
            await call()
    assert len(it.requests()) == requests
    assert await it.entry(order) == before


async def test_an_unclear_end_is_opened_again_by_the_next_call() -> None:
    it = Recorded(behaviour=Behaviour(pay_delay=0, code_delay=None))
    order = await it.order()
    change = record_outcome(RequestOutcome.REFUSED, it.now(), final=True)
    await it.journal.update([(order.order_id, change)])
    assert await it.journal.pending() == []
    result = await it.client.code_or_refund(order, timeout=0)
    assert result.refunded
    assert (await it.entry(order)).outcome is OrderOutcome.CANCELLED


# --- a journal that fails -------------------------------------------------------------------------


class Failing(MemoryJournal):
    """A journal that raises from an update on."""

    def __init__(self, error: BaseException, *, at: int = 0) -> None:
        super().__init__()
        self.error = error
        self.left = at

    async def update(
        self, changes: Sequence[tuple[str, JournalChange]], /
    ) -> Sequence[JournalEntry | None]:
        self.left -= 1
        if self.left < 0:
            await self.fail()
        return await super().update(changes)

    async def get(self, order_id: str, /) -> JournalEntry | None:
        if self.left < 0:
            await self.fail()
        return await super().get(order_id)

    async def fail(self) -> None:
        raise self.error


class Hanging(Failing):
    """A journal that never answers from an update on."""

    def __init__(self, *, at: int = 0) -> None:
        super().__init__(OSError(), at=at)

    async def fail(self) -> None:
        await anyio.sleep_forever()


@pytest.fixture
def short_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert recorder._BOUND == 5  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(recorder, "_BOUND", 0.05)


FAILURES: Final[dict[str, tuple[Callable[[int], Failing], str]]] = {
    "a JournalError": (
        lambda at: Failing(JournalError("the journal /j cannot be used: the disk is full"), at=at),
        "the journal /j cannot be used: the disk is full",
    ),
    "another error": (
        lambda at: Failing(OSError(f"cannot write {ID}"), at=at),
        "the journal cannot be written (OSError)",
    ),
    "no answer": (lambda at: Hanging(at=at), "the journal did not answer within 0.05 s"),
}
each_failure = pytest.mark.parametrize(("make", "problem"), FAILURES.values(), ids=FAILURES)


@pytest.mark.usefixtures("short_bound")
@each_failure
@each_call
async def test_no_order_is_requested_without_a_record(
    path: str, make: Callable[[int], Failing], problem: str
) -> None:
    it = Recorded(make(0))
    with pytest.raises(JournalError) as caught:
        await CALLS[path](it.client)
    error = caught.value
    assert it.requests() == []
    assert (error.request_outcome, error.order) == (RequestOutcome.NOT_SENT, None)
    operation = {"/createorder": "create_order"}.get(path, "create_send_order")
    assert str(error) == (
        f"{operation}: {problem}. Nothing was sent, because no order is requested without a "
        "record. Repair the journal, then try again."
    )


@pytest.mark.usefixtures("short_bound")
@each_failure
@each_call
async def test_an_order_that_cannot_be_recorded_is_on_the_error(
    path: str, make: Callable[[int], Failing], problem: str
) -> None:
    it = Recorded(make(1))
    with pytest.raises(JournalError) as caught:
        await CALLS[path](it.client)
    error = caught.value
    (created,) = it.simulator.orders
    assert error.order is not None
    assert (error.order.order_id, error.order.metadata) == (created.order_id, METADATA)
    assert error.order_id == created.order_id
    assert str(error).endswith(
        f": {problem}. The order was created, but the journal does not have its ID and invoice. "
        "Both are in the error's `order`: keep them, and do not pay twice."
    )
    assert OrderCreated(created.order_id, error.order) in it.events
    entry = await it.only_entry()
    assert entry.outcome is RequestOutcome.UNKNOWN
    status = await it.client.get_order_status(error.order)
    assert status.state is OrderState.UNPAID


def failures_of(it: Recorded) -> list[str]:
    return [event.error.problem for event in it.events_of(JournalFailed)]


@pytest.mark.usefixtures("short_bound")
@each_failure
async def test_the_code_is_returned_although_the_journal_fails_later(
    make: Callable[[int], Failing], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    it = Recorded(make(2))
    order = await it.order()
    it.simulator.pay(order.order_id)
    it.simulator.deliver_code(order.order_id, "0042")
    with caplog.at_level(logging.ERROR, "sms4sats_async"):
        status = await it.client.wait_for_code(order, timeout=60)
    assert status.code == "0042"
    failed = it.events_of(JournalFailed)
    assert {(each.order_id, each.error.order_id) for each in failed} == {
        (order.order_id, order.order_id)
    }
    problems = {problem, problem.replace("written", "read")}
    assert set(failures_of(it)) <= problems
    assert problem in failures_of(it)
    prefix = f"order {order.order_id[:4]}…{order.order_id[-4:]}: not recorded in the journal: "
    assert caplog.messages
    assert all(line.startswith(prefix) for line in caplog.messages)
    assert order.order_id not in repr(failed)


@pytest.mark.usefixtures("short_bound")
@each_failure
async def test_the_refund_is_returned_although_the_journal_fails_later(
    make: Callable[[int], Failing], problem: str
) -> None:
    it = Recorded(make(2))
    order = await it.order()
    it.simulator.pay(order.order_id)
    await it.clock.sleep(121)
    result = await it.client.cancel_order(order)
    assert result.outcome is OrderOutcome.CANCELLED
    assert it.simulator.held_orders() == []
    assert problem in failures_of(it)


async def test_an_error_of_the_service_is_raised_although_the_journal_fails_too() -> None:
    it = Recorded(Failing(OSError(), at=1))
    it.simulator.script("/createorder", Fault.http(400, "no such service"))
    with pytest.raises(Sms4SatsError, match="no such service"):
        await it.order()
    assert [type(event).__name__ for event in it.events] == ["AttemptFailed", "JournalFailed"]


@pytest.mark.parametrize("at", [0, 1])
async def test_what_ends_the_program_passes_through_a_journal(at: int) -> None:
    class ProgramEndError(BaseException):
        pass

    it = Recorded(Failing(ProgramEndError(), at=at))
    with pytest.raises(ProgramEndError):
        await it.order()
    assert len(it.requests()) == at


@pytest.mark.usefixtures("short_bound")
async def test_a_cancelled_task_waits_a_bounded_time_for_a_journal_that_hangs() -> None:
    it = Recorded(Hanging(at=1))
    failures: list[JournalError] = []

    async def create() -> None:
        with pytest.raises(JournalError) as caught:
            await it.order()
        failures.append(caught.value)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(create)
            while not it.simulator.orders:
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
    (created,) = it.simulator.orders
    assert [failure.order_id for failure in failures] == [created.order_id]
    entry = await it.only_entry()
    assert entry.outcome is RequestOutcome.UNKNOWN


# --- files that cannot be used --------------------------------------------------------------------


def another_programs_file(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE bookmarks (url)")


def text_file(path: Path) -> None:
    path.write_text("[settings]\n" * 100, encoding="utf-8")


async def fill(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        it = Recorded(journal)
        for _ in range(30):
            await it.order()


def damaged_file(path: Path) -> None:
    anyio.run(fill, path)
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))


def missing_folder(path: Path) -> None:
    path.parent.rmdir()


UNUSABLE: Final[dict[str, tuple[Callable[[Path], None], str]]] = {
    "another program's": (another_programs_file, "the file belongs to another program; give"),
    "no journal": (text_file, "the file is not a journal; give another path"),
    "damaged": (damaged_file, "it is damaged; keep it, because it has order IDs, and give another"),
    "a folder": (Path.mkdir, "it is a folder; give the path of a file"),
    "no folder": (missing_folder, "it cannot be opened; its folder must exist, and"),
}


@pytest.mark.parametrize(("make_unusable", "problem"), UNUSABLE.values(), ids=UNUSABLE)
async def test_no_order_is_requested_with_a_file_that_cannot_be_used(
    make_unusable: Callable[[Path], None], problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "folder" / "journal"
    path.parent.mkdir()
    await anyio.to_thread.run_sync(make_unusable, path)
    async with SqliteJournal(path) as journal:
        it = Recorded(journal)
        for call in CALLS.values():
            with pytest.raises(JournalError, match=re.escape(problem)) as caught:
                await call(it.client)
            assert "Nothing was sent, because no order is requested without" in str(caught.value)
    assert it.requests() == []


async def test_no_order_is_requested_while_the_file_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with SqliteJournal(path, lock_timeout=0.1) as journal:
        it = Recorded(journal)
        await journal.pending()
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(JournalError, match="another program keeps it locked"):
                await it.order()
            assert it.requests() == []
        order = await it.order()
        assert (await it.entry(order)).pending


async def test_on_a_full_disk_every_order_is_in_the_journal_or_on_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def connect_to_a_small_disk(*args: Any, **options: Any) -> sqlite3.Connection:
        file: sqlite3.Connection = connect(*args, **options)
        file.execute("PRAGMA max_page_count = 14")
        return file

    monkeypatch.setattr(sqlite3, "connect", connect_to_a_small_disk)
    on_errors: list[str] = []
    problems: set[str] = set()
    async with SqliteJournal(tmp_path / "journal") as journal:
        it = Recorded(journal)
        refused = 0
        for _ in range(100):
            try:
                await it.order()
            except JournalError as error:
                problems.add(error.problem.partition("used: ")[2])
                if error.order is None:
                    refused += 1
                else:
                    on_errors.append(error.order.order_id)
        recorded = [entry.order_id for entry in await journal.pending()]
    assert refused
    assert recorded
    assert problems == {"the disk is full; free some space"}
    created = {order.order_id for order in it.simulator.orders}
    assert created == {*recorded, *on_errors}
    assert len(it.requests()) == 100 - refused


async def test_another_process_can_go_on_with_what_a_file_has(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with SqliteJournal(path) as journal:
        it = Recorded(journal)
        orders = [await it.order(metadata={"number": str(number)}) for number in range(3)]
    async with SqliteJournal(path) as journal:
        entries = await journal.pending(DEFAULT_BASE_URL)
        client = it.new_client(journal)
        results = [
            await client.cancel_order_when_allowed(entry.order)
            for entry in entries
            if entry.order is not None
        ]
        assert await journal.pending() == []
        assert await journal.prune(datetime.max.replace(tzinfo=UTC)) == 3
    assert [entry.order for entry in entries] == orders
    assert [result.metadata for result in results] == [{"number": str(n)} for n in range(3)]
    assert min(it.cancel_ages()) >= timedelta(minutes=2).total_seconds()
