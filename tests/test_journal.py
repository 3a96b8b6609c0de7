"""What a journal holds: the pure changes to an entry, and that all journals apply them alike."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sms4sats_async import (
    CancelOutcome,
    FundOrder,
    InvalidArgumentError,
    JournalEntry,
    MemoryJournal,
    Order,
    OrderJournal,
    OrderState,
    OrderStatus,
    ReceiveOrder,
    RequestOutcome,
    SendOrder,
    SmsStatus,
    SqliteJournal,
)
from sms4sats_async._orders.states import Facts, law_for, verdict
from sms4sats_async.journal import JournalChange
from sms4sats_async.journal.entry import (
    asked,
    claimed,
    given_up,
    left_alone,
    made,
    put,
    removed,
    scheduled,
    seen,
    taken_up,
    told,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

START = datetime(2027, 1, 15, 8, 0, tzinfo=UTC)
LATER = START + timedelta(minutes=3)
ID = "0123456789abcdef" * 4
ORDER = ReceiveOrder(ID, "lnbc1", START, 187, "tg")
LEASE = timedelta(seconds=90)


def a_status(
    *,
    paid: bool | None = None,
    code: str | None = None,
    number: str | None = None,
    sms_status: SmsStatus | None = None,
    error: str | None = None,
) -> OrderStatus:
    state = law_for(Facts(paid, code, number, sms_status, error)).state
    return OrderStatus(ID, state, paid, code, number, sms_status, error=error)


CODE = a_status(paid=True, code="0042", number="+49123")
GIVEN_BACK = a_status(paid=True, error="no numbers")
HELD = a_status(paid=True)


def after(*changes: JournalChange, entry: JournalEntry | None = None) -> JournalEntry:
    """The entry after changes, the first of them to an order that was just made."""
    found = taken_up(ORDER, START)(None) if entry is None else entry
    for change in changes:
        found = change(found)
    assert found is not None
    return found


# --- the life of an entry -------------------------------------------------------------------------


def test_an_order_that_is_about_to_be_asked_for_may_exist_and_nothing_can_be_done_for_it() -> None:
    entry = asked("receive", START, country="germany", service="tg")
    assert (entry.outcome, entry.order_id, entry.order) == (RequestOutcome.UNKNOWN, None, None)
    assert not entry.pending
    assert (entry.kind, entry.country, entry.service) == ("receive", "germany", "tg")


def test_every_entry_has_a_name_of_its_own() -> None:
    assert len({asked("send", START).key for _ in range(100)}) == 100


def test_an_order_that_was_made_is_pending_under_the_same_name_and_comes_back_whole() -> None:
    record = asked("receive", START, country=187, service="tg")
    entry = made(record, attrs.evolve(ORDER, created_at=LATER))
    assert (entry.key, entry.outcome, entry.created_at) == (record.key, None, LATER)
    assert entry.pending
    assert entry.order == attrs.evolve(ORDER, created_at=LATER)


def test_a_message_comes_back_whole_too() -> None:
    order = SendOrder(ID, "paid", START, "+4915112345678")
    assert made(asked("send", START, phone="+4915112345678"), order).order == order
    assert after(entry=taken_up(order, LATER)(None)).order == order


def test_an_order_known_by_its_id_alone_was_made_now_at_the_latest() -> None:
    entry = after(entry=taken_up(ID, LATER)(None))
    assert entry.order == ReceiveOrder(ID, "", LATER)
    assert entry.pending


def test_an_order_of_no_kind_is_taken_up_with_what_it_has() -> None:
    entry = after(entry=taken_up(FundOrder(ID, "lnbc1", START, 5), LATER)(None))
    assert entry.order == ReceiveOrder(ID, "lnbc1", START)


def test_an_order_that_is_known_is_not_taken_up_again() -> None:
    entry = after()
    assert taken_up(ID, LATER)(entry) is entry


def test_a_status_adds_what_it_says_and_takes_nothing_away() -> None:
    entry = after(seen(a_status(paid=True, number="+49123"), START), seen(a_status(), LATER))
    assert (entry.paid, entry.number, entry.state) == (True, "+49123", OrderState.UNKNOWN)
    assert entry.pending


def test_a_code_ends_an_order() -> None:
    entry = after(seen(CODE, LATER))
    assert (entry.code, entry.outcome) == ("0042", CancelOutcome.CODE_ARRIVED)
    assert (entry.finished_at, entry.pending) == (LATER, False)


def test_every_code_stays_in_the_order_in_which_it_came() -> None:
    second = attrs.evolve(CODE, code="0043")
    entry = after(seen(CODE, START), seen(second, START), seen(CODE, LATER))
    assert (entry.codes, entry.code) == (("0042", "0043"), "0043")
    assert after().code is None


def test_a_code_of_an_unknown_order_is_taken_up_and_nothing_else_is() -> None:
    entry = seen(CODE, LATER)(None)
    assert entry is not None
    assert (entry.order_id, entry.code, entry.created_at) == (ID, "0042", LATER)
    assert seen(GIVEN_BACK, LATER)(None) is None
    assert told(CancelOutcome.CANCELLED, LATER, final=True)(None) is None
    assert left_alone(None) is None
    assert given_up("a")(None) is None
    assert claimed("a", 0, LEASE)(None) is None


def test_a_code_that_comes_after_the_cancel_is_kept_and_outranks_it() -> None:
    entry = after(told(CancelOutcome.CANCELLED, START, final=True), seen(CODE, LATER))
    assert (entry.code, entry.outcome) == ("0042", CancelOutcome.CODE_ARRIVED)
    assert (entry.finished_at, entry.state) == (START, OrderState.CODE_RECEIVED)


@pytest.mark.parametrize("less", [a_status(), HELD, a_status(paid=False), GIVEN_BACK])
def test_no_status_takes_back_that_the_code_came(less: OrderStatus) -> None:
    entry = after(seen(CODE, START), seen(less, LATER))
    assert (entry.state, entry.code) == (OrderState.CODE_RECEIVED, "0042")
    assert (entry.outcome, entry.finished_at) == (CancelOutcome.CODE_ARRIVED, START)


def test_the_first_of_two_ways_in_which_money_returns_stands() -> None:
    entry = after(told(CancelOutcome.CANCELLED, START, final=True), seen(GIVEN_BACK, LATER))
    assert (entry.outcome, entry.error) == (CancelOutcome.CANCELLED, "no numbers")
    assert (entry.state, entry.finished_at) == (OrderState.REFUNDED, START)


def test_a_cancel_that_failed_leaves_the_order_pending_and_the_last_failure_stands() -> None:
    entry = after(
        told(RequestOutcome.UNKNOWN, START, final=False),
        told(RequestOutcome.REFUSED, LATER, final=False),
    )
    assert (entry.outcome, entry.pending) == (RequestOutcome.REFUSED, True)


@pytest.mark.parametrize("weaker", RequestOutcome)
@pytest.mark.parametrize("end", [*CancelOutcome, RequestOutcome.UNKNOWN, RequestOutcome.REFUSED])
def test_a_cancel_that_fails_after_the_end_changes_nothing(
    end: CancelOutcome | RequestOutcome, weaker: RequestOutcome
) -> None:
    entry = after(told(end, START, final=True))
    assert told(weaker, LATER, final=False)(entry) is entry


def test_what_nobody_could_tell_is_mended_by_who_can() -> None:
    entry = after(
        told(RequestOutcome.UNKNOWN, START, final=True),
        told(CancelOutcome.ALREADY_RELEASED, LATER, final=True),
    )
    assert (entry.outcome, entry.finished_at) == (CancelOutcome.ALREADY_RELEASED, START)


def test_a_claim_holds_against_others_until_it_runs_out_and_is_its_owners_to_renew() -> None:
    entry = after(claimed("a", 100, LEASE))
    assert (entry.claimed_by, entry.claimed_until) == ("a", 190)
    assert claimed("b", 189.9, LEASE)(entry) is entry
    assert claimed("a", 100, LEASE)(entry) is entry
    assert after(claimed("a", 150, LEASE), entry=entry).claimed_until == 240
    assert after(claimed("b", 190, LEASE), entry=entry).claimed_by == "b"
    assert given_up("b")(entry) is entry
    free = after(given_up("a"), entry=entry)
    assert (free.claimed_by, free.claimed_until) == (None, None)
    assert after(claimed("b", 100, LEASE), entry=free).claimed_by == "b"


@pytest.mark.parametrize(
    "entry", [after(seen(CODE, START)), asked("receive", START)], ids=["ended", "unknown"]
)
def test_nobody_claims_what_has_an_end_or_cannot_be_asked_for(entry: JournalEntry) -> None:
    assert claimed("a", 100, LEASE)(entry) is entry


def test_an_order_that_ended_unclear_is_claimed_like_any_other() -> None:
    entry = after(told(RequestOutcome.UNKNOWN, START, final=True), claimed("a", 100, LEASE))
    assert entry.claimed_by == "a"
    assert claimed("b", 100, LEASE)(entry) is entry


def test_a_scheduled_order_is_taken_up_and_its_time_can_be_changed() -> None:
    entry = after(entry=scheduled(ORDER, LATER, START)(None))
    assert (entry.order, entry.not_before) == (ORDER, LATER)
    assert scheduled(ORDER, LATER, START)(entry) is entry
    assert after(scheduled(ID, None, START), entry=entry).not_before is None


def test_an_order_that_is_left_alone_is_left_to_the_service_for_its_21_minutes() -> None:
    entry = after(left_alone)
    assert entry.not_before == START + timedelta(minutes=21)
    assert left_alone(entry) is entry


def test_an_entry_shows_neither_the_id_nor_the_whole_invoice_nor_who_claims_it() -> None:
    order = attrs.evolve(ORDER, payreq="lnbc" + "q" * 300)
    shown = repr(after(claimed("owner-of-it", 0, LEASE), entry=taken_up(order, START)(None)))
    assert ID not in shown
    assert "q" * 30 not in shown
    assert "owner-of-it" not in shown


# --- any sequence of changes ----------------------------------------------------------------------

Parts = tuple[Callable[..., JournalChange], tuple[Any, ...]]
"""A change before it is made, so that a failure shows of what."""

moments = st.integers(0, 30).map(lambda minutes: START + timedelta(minutes=minutes))
optional_moments = st.none() | moments
request_outcomes = st.sampled_from(RequestOutcome)
statuses = st.builds(
    a_status,
    paid=st.none() | st.booleans(),
    code=st.sampled_from([None, None, "1", "2", "3"]),
    number=st.sampled_from([None, "+491"]),
    sms_status=st.none() | st.sampled_from(SmsStatus),
    error=st.sampled_from([None, None, "no numbers", "half \ud800 a letter"]),
)


def changes_of(order_id: str) -> st.SearchStrategy[Parts]:
    """Every change that there is to an entry that has its id."""
    receive, send = attrs.evolve(ORDER, order_id=order_id), SendOrder(order_id, "lnbc2", LATER)
    orders = st.sampled_from([receive, send, order_id])
    its_statuses = statuses.map(lambda status: attrs.evolve(status, order_id=order_id))

    def ended(outcome: CancelOutcome | RequestOutcome, at: datetime) -> JournalChange:
        return told(outcome, at, final=True)

    def failed(outcome: RequestOutcome, at: datetime) -> JournalChange:
        return told(outcome, at, final=False)

    def let_go() -> JournalChange:
        return given_up("a")

    def leave() -> JournalChange:
        return left_alone

    def parts(
        change: Callable[..., JournalChange], *arguments: st.SearchStrategy[Any]
    ) -> st.SearchStrategy[Parts]:
        return st.tuples(st.just(change), st.tuples(*arguments))

    return st.one_of(
        parts(seen, its_statuses, moments),
        parts(ended, st.sampled_from(CancelOutcome) | request_outcomes, moments),
        parts(failed, request_outcomes, moments),
        parts(scheduled, orders, optional_moments, moments),
        parts(taken_up, orders, moments),
        parts(
            claimed, st.sampled_from("ab"), st.floats(0, 300), st.sampled_from([LEASE, LEASE * 2])
        ),
        parts(let_go),
        parts(leave),
    )


sequences = st.lists(changes_of(ID), max_size=12)


@given(sequences)
def test_no_sequence_of_changes_loses_a_code(sequence: list[Parts]) -> None:
    entry: JournalEntry | None = None
    codes: list[str] = []
    for make, parts in sequence:
        if make is seen and parts[0].code is not None and parts[0].code not in codes:
            codes.append(parts[0].code)
        entry = make(*parts)(entry)
        assert list(entry.codes if entry is not None else ()) == codes
        if entry is not None and codes:
            assert entry.outcome is CancelOutcome.CODE_ARRIVED
            assert entry.state is not None
            assert verdict(entry.state) is CancelOutcome.CODE_ARRIVED
            assert not entry.pending


@given(sequences)
def test_no_sequence_of_changes_undoes_an_end(sequence: list[Parts]) -> None:
    strength = {CancelOutcome.CODE_ARRIVED: 2}
    before: JournalEntry | None = None
    for make, parts in sequence:
        entry = make(*parts)(before)
        if before is not None:
            assert entry is not None
            if before.finished_at is not None:
                assert entry.finished_at == before.finished_at
                assert not entry.pending
            if isinstance(before.outcome, CancelOutcome):
                assert isinstance(entry.outcome, CancelOutcome)
                assert strength.get(entry.outcome, 1) >= strength.get(before.outcome, 1)
        before = entry


@given(sequences)
def test_an_entry_is_pending_until_its_end_is_known(
    sequence: list[Parts],
) -> None:
    entry: JournalEntry | None = None
    for make, parts in sequence:
        entry = make(*parts)(entry)
        if entry is not None:
            assert entry.pending is (entry.finished_at is None)
            assert entry.finished_at is not None or not isinstance(entry.outcome, CancelOutcome)
            assert (entry.claimed_by is None) is (entry.claimed_until is None)


@given(sequences)
def test_a_change_that_changes_nothing_returns_the_very_entry(sequence: list[Parts]) -> None:
    """A journal writes nothing then: most reads of a status tell nothing new."""
    before: JournalEntry | None = None
    for make, parts in sequence:
        entry = make(*parts)(before)
        assert entry is before or entry != before
        assert make(*parts)(entry) is entry
        before = entry


# --- both journals --------------------------------------------------------------------------------

IDS = (ID, "ab" * 32, "4")
KEYS = ("k1", "k2", "k3")
orders = st.builds(ReceiveOrder, st.sampled_from(IDS), st.just("lnbc1"), moments)
records = st.builds(
    JournalEntry,
    st.sampled_from(KEYS),
    st.just("receive"),
    moments,
    service=st.just("tg"),
    outcome=st.just(RequestOutcome.UNKNOWN),
)


def recorded(record: JournalEntry, order: Order | None) -> tuple[str, JournalChange]:
    return record.key, put(record if order is None else made(record, order))


updates = st.one_of(
    st.builds(recorded, records, st.none() | orders),
    st.tuples(st.sampled_from(KEYS), st.just(removed)),
    st.sampled_from(IDS).flatmap(
        lambda order_id: st.tuples(
            st.just(order_id), changes_of(order_id).map(lambda made_of: made_of[0](*made_of[1]))
        )
    ),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("update"), st.lists(updates, min_size=1, max_size=4)),
        st.tuples(st.just("prune"), moments),
        st.tuples(st.just("history"), st.tuples(optional_moments, st.none() | st.integers(0, 3))),
    ),
    max_size=12,
)


def without_name(entry: JournalEntry | None) -> JournalEntry | None:
    """What two journals agree on: the names of entries that they made themselves are random.

    Of half a character a file keeps a `?`.
    """
    if entry is None:
        return None
    error = None if entry.error is None else entry.error.replace("\ud800", "?")
    return attrs.evolve(entry, key="", error=error)


async def results_of(journal: OrderJournal, sequence: list[tuple[str, Any]]) -> list[object]:
    results: list[object] = []

    def note(entries: Sequence[JournalEntry | None]) -> None:
        results.append([without_name(entry) for entry in entries])

    for step, details in sequence:
        if step == "update":
            note(await journal.update(details))
        elif step == "prune":
            results.append(await journal.prune(details))
        else:
            since, limit = details
            note(await journal.history(since=since, limit=limit))
        note(await journal.pending())
        note([await journal.get(order_id) for order_id in IDS])
    return results


async def in_both(sequence: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with SqliteJournal(Path(folder) / "journal") as journal:
            in_a_file = await results_of(journal, sequence)
    assert in_a_file == await results_of(MemoryJournal(), sequence)


@given(steps)
@settings(max_examples=40)
def test_both_journals_tell_the_same_after_the_same(sequence: list[tuple[str, Any]]) -> None:
    anyio.run(partial(in_both, sequence))


@pytest.fixture(params=["memory", "sqlite"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[OrderJournal]:
    if request.param == "memory":
        yield MemoryJournal()
        return
    async with SqliteJournal(tmp_path / "journal") as journal:
        yield journal


def fails(_entry: JournalEntry | None) -> JournalEntry | None:
    raise RuntimeError("a change of somebody's own")


def an_order(number: int) -> ReceiveOrder:
    return ReceiveOrder(f"{number:064x}", "lnbc1", START + timedelta(seconds=number), 187, "tg")


def a_change(number: int) -> tuple[str, JournalChange]:
    """What takes up an order, to hand to `update`."""
    return an_order(number).order_id, taken_up(an_order(number), LATER)


@pytest.mark.anyio
async def test_of_several_changes_all_are_made_or_none(journal: OrderJournal) -> None:
    await journal.update([a_change(1)])
    with pytest.raises(Exception, match="a change of somebody's own"):
        await journal.update([a_change(2), (an_order(1).order_id, seen(CODE, LATER)), ("x", fails)])
    with pytest.raises(Exception, match="a change of somebody's own"):
        await journal.update([("x", fails)])
    (entry,) = await journal.history()
    assert (entry.order_id, entry.code) == (an_order(1).order_id, None)
    assert await journal.get(an_order(2).order_id) is None


@pytest.mark.anyio
async def test_pending_is_oldest_first_and_history_newest_first(journal: OrderJournal) -> None:
    await journal.update([a_change(number) for number in (2, 3, 1)])
    await journal.update([(an_order(2).order_id, told(CancelOutcome.CANCELLED, LATER, final=True))])
    unknown = asked("receive", START + timedelta(seconds=4))
    await journal.update([(unknown.key, put(unknown))])

    times = [entry.created_at.second for entry in await journal.pending()]
    assert times == [1, 3]
    assert [entry.created_at.second for entry in await journal.history()] == [4, 3, 2, 1]
    assert [entry.created_at.second for entry in await journal.history(limit=2)] == [4, 3]
    since = START + timedelta(seconds=2)
    assert [entry.created_at.second for entry in await journal.history(since=since)] == [4, 3, 2]
    assert await journal.history(limit=0) == []


@pytest.mark.anyio
async def test_pruning_takes_what_is_over_and_leaves_what_is_pending(journal: OrderJournal) -> None:
    unknown = asked("receive", START)
    over = told(CancelOutcome.CANCELLED, LATER, final=True)
    await journal.update([a_change(1), a_change(2), a_change(3), (unknown.key, put(unknown))])
    await journal.update([(an_order(2).order_id, over)])
    assert await journal.prune(START) == 0
    assert await journal.prune(LATER) == 1  # the one whose creation ended unknown
    assert await journal.prune(LATER + timedelta(days=9)) == 1
    assert [entry.order for entry in await journal.pending()] == [an_order(1), an_order(3)]
    assert await journal.get(an_order(2).order_id) is None


@pytest.mark.anyio
async def test_of_two_entries_of_one_order_the_newest_is_meant(journal: OrderJournal) -> None:
    """No service should give one id twice; if it does, both stay, and the code with its own."""
    first, second = asked("receive", START), asked("receive", START)
    await journal.update([(first.key, put(first)), (second.key, put(second))])
    await journal.update([(second.key, put(made(second, ORDER)))])
    await journal.update([(first.key, put(made(first, ORDER)))])
    await journal.update([(ID, seen(CODE, START))])
    found = await journal.get(ID)
    assert found is not None
    assert (found.key, found.code) == (second.key, "0042")
    await journal.prune(LATER)
    assert [entry.key for entry in await journal.history()] == [first.key]
    left = await journal.get(ID)
    assert left is not None
    assert left.key == first.key


NO_ZONE = datetime(2027, 1, 15)  # noqa: DTZ001 - the mistake itself
MISTAKES: dict[str, Callable[[Any], Awaitable[object]]] = {
    "since without a zone": lambda journal: journal.history(since=NO_ZONE),
    "limit below 0": lambda journal: journal.history(limit=-1),
    "limit True": lambda journal: journal.history(limit=True),
    "prune without a zone": lambda journal: journal.prune(NO_ZONE),
    "prune a text": lambda journal: journal.prune("yesterday"),
}


@pytest.mark.parametrize("call", MISTAKES.values(), ids=MISTAKES)
@pytest.mark.anyio
async def test_what_cannot_be_meant_is_refused(
    journal: OrderJournal, call: Callable[[Any], Awaitable[object]]
) -> None:
    with pytest.raises(InvalidArgumentError):
        await call(journal)
