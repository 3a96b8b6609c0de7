"""The contract of an `OrderJournal`, as tests that run over every journal.

A test module makes a subclass for its journal, which says how to open one:

    class TestMyJournal(StoredJournalContract):
        @staticmethod
        def open(folder: Path) -> AbstractAsyncContextManager[OrderJournal]:
            return MyJournal(folder / "journal")

`StoredJournalContract` is for journals that outlive the process: opened again with the same folder,
they have the same entries.
"""

from __future__ import annotations

import secrets
import tempfile
from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sms4sats_async import (
    InvalidArgumentError,
    JournalChange,
    JournalEntry,
    JournalError,
    MemoryJournal,
    OrderJournal,
    OrderOutcome,
    OrderState,
    OrderStatus,
    ReceiveOrder,
    RequestOutcome,
    SendOrder,
    SmsStatus,
)
from sms4sats_async._orders.states import Facts, row_for
from sms4sats_async.journal.entry import (
    acknowledge,
    claim,
    defer,
    ensure_entry,
    put,
    record_creation,
    record_intent,
    record_outcome,
    record_status,
    release_claim,
    remove,
    request_entry,
)

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

START: Final = datetime(2027, 1, 15, 8, 0, tzinfo=UTC)
LATER: Final = START + timedelta(minutes=3)
ID: Final = "0123456789abcdef" * 4
ROOT: Final = "https://api2.sms4sats.com"
OTHER_ROOT: Final = "http://127.0.0.1:8021"
ORDER: Final = ReceiveOrder(ID, "lnbc1", START, 187, "tg", metadata={"chat": "42"})


def status_of(
    order_id: str = ID,
    *,
    paid: bool | None = None,
    code: str | None = None,
    number: str | None = None,
    sms_status: SmsStatus | None = None,
    error: str | None = None,
) -> OrderStatus:
    """A status as the client reads it, with its state."""
    state = row_for(Facts(paid, code, number, sms_status, error)).state
    return OrderStatus(order_id, state, paid, code, number, sms_status, error=error)


def numbered_order(number: int) -> ReceiveOrder:
    return ReceiveOrder(f"{number:064x}", "lnbc1", START + timedelta(seconds=number), 187, "tg")


def add_order(number: int, base_url: str = ROOT) -> tuple[str, JournalChange]:
    """What adds an order, to pass to `update`."""
    order = numbered_order(number)
    return order.order_id, ensure_entry(order, LATER, base_url)


def requested(at: datetime, **details: Any) -> JournalEntry:
    """The entry of a receive order that is about to be requested."""
    return request_entry("receive", at, base_url=ROOT, metadata={}, **details)


def lives(_owner: str) -> bool:
    """`has_died` for processes that all live."""
    return False


def dies(_owner: str) -> bool:
    """`has_died` for processes that have all died."""
    return True


async def add_code(journal: OrderJournal, order_id: str, code: str, at: datetime = LATER) -> None:
    await journal.update([(order_id, record_status(status_of(order_id, code=code), at))])


# --- any change -----------------------------------------------------------------------------------

Call = tuple[Callable[..., JournalChange], tuple[Any, ...]]
"""A change as its function and arguments, so that a failure shows what it was."""

moments: Final = st.integers(0, 30).map(lambda minutes: START + timedelta(minutes=minutes))
optional_moments: Final = st.none() | moments
request_outcomes: Final = st.sampled_from(RequestOutcome)
roots: Final = st.sampled_from([ROOT, OTHER_ROOT])
statuses: Final = st.builds(
    status_of,
    paid=st.none() | st.booleans(),
    code=st.sampled_from([None, None, "1", "2", "3"]),
    number=st.sampled_from([None, "+491"]),
    sms_status=st.none() | st.sampled_from(SmsStatus),
    error=st.sampled_from([None, None, "no numbers", "half \ud800 a letter"]),
)


def status_recorded(status: OrderStatus, at: datetime, root: str) -> JournalChange:
    return record_status(status, at, root)


def ended(outcome: OrderOutcome | RequestOutcome, at: datetime) -> JournalChange:
    return record_outcome(outcome, at, final=True)


def failed(outcome: RequestOutcome, at: datetime) -> JournalChange:
    return record_outcome(outcome, at, final=False)


def wanted(
    order: ReceiveOrder | SendOrder | str,
    at: datetime,
    root: str,
    deadline: datetime | None,
    not_before: datetime | None,
) -> JournalChange:
    return record_intent(order, at, root, code_deadline=deadline, not_before=not_before)


def claimed(owner: str, now: datetime) -> JournalChange:
    return claim(owner, now, has_died=lives)


def released() -> JournalChange:
    return release_claim("a")


def deferred() -> JournalChange:
    return defer


def calls_for(order_id: str) -> st.SearchStrategy[Call]:
    """Every change that exists, for an entry that has its ID."""
    receive, send = attrs.evolve(ORDER, order_id=order_id), SendOrder(order_id, "lnbc2", LATER)
    orders = st.sampled_from([receive, send, order_id])
    its_statuses = statuses.map(lambda status: attrs.evolve(status, order_id=order_id))

    def call(
        change: Callable[..., JournalChange], *arguments: st.SearchStrategy[Any]
    ) -> st.SearchStrategy[Call]:
        return st.tuples(st.just(change), st.tuples(*arguments))

    return st.one_of(
        call(status_recorded, its_statuses, moments, roots),
        call(ended, st.sampled_from(OrderOutcome) | request_outcomes, moments),
        call(failed, request_outcomes, moments),
        call(wanted, orders, moments, roots, optional_moments, optional_moments),
        call(ensure_entry, orders, moments, roots),
        call(claimed, st.sampled_from("ab"), moments),
        call(released),
        call(deferred),
        call(acknowledge, moments),
    )


# --- any entry ------------------------------------------------------------------------------------

any_moment: Final = st.datetimes(timezones=st.just(UTC))
any_text: Final = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
optional_text: Final = st.none() | any_text
optional_moment: Final = st.none() | any_moment
entries: Final = st.builds(
    JournalEntry,
    st.just(""),
    st.sampled_from(["receive", "send"]),
    any_moment,
    optional_text,
    any_text,
    country=st.none() | st.integers(0, 999_999_999) | any_text,
    service=optional_text,
    phone=optional_text,
    metadata=st.dictionaries(any_text, any_text),
    base_url=optional_text,
    state=st.none() | st.sampled_from(OrderState),
    paid=st.none() | st.booleans(),
    number=optional_text,
    number_seen_at=optional_moment,
    codes=st.lists(any_text).map(tuple),
    error=optional_text,
    outcome=st.none() | st.sampled_from(OrderOutcome) | request_outcomes,
    code_deadline=optional_moment,
    minimum_age=st.none() | st.timedeltas(timedelta(0), timedelta(days=10_000)),
    not_before=optional_moment,
    refusals=st.integers(0, 10_000),
    refused_at=optional_moment,
    finished_at=optional_moment,
    delivered_at=optional_moment,
    claimed_by=optional_text,
    claimed_until=optional_moment,
).map(lambda entry: attrs.evolve(entry, key=secrets.token_hex(16)))


def types_of(entry: JournalEntry) -> list[type]:
    """The types of an entry's values: `1 == True`, but a journal must not mix them up."""
    return [type(value) for value in attrs.astuple(entry, recurse=False)]


def fails(_entry: JournalEntry | None) -> JournalEntry | None:
    raise LookupError("a change that fails")


NO_ZONE: Final = datetime(2027, 1, 15)  # noqa: DTZ001 - the mistake itself
MISTAKES: Final[dict[str, Callable[[Any], Awaitable[object]]]] = {
    "since without a zone": lambda journal: journal.history(since=NO_ZONE),
    "limit below 0": lambda journal: journal.history(limit=-1),
    "limit True": lambda journal: journal.history(limit=True),
    "prune without a zone": lambda journal: journal.prune(NO_ZONE),
    "prune a text": lambda journal: journal.prune("yesterday"),
}


class JournalContract:
    """What every journal does."""

    pytestmark = pytest.mark.anyio

    @staticmethod
    @abstractmethod
    def open(folder: Path) -> AbstractAsyncContextManager[OrderJournal]:
        """Return the journal of a folder; what is written is there when it is left."""

    @pytest.fixture
    async def journal(self, tmp_path: Path) -> AsyncGenerator[OrderJournal]:
        async with self.open(tmp_path) as journal:
            yield journal

    # --- update and get ---------------------------------------------------------------------------

    async def test_update_returns_the_entries_after_the_changes_in_order(
        self, journal: OrderJournal
    ) -> None:
        one, two, none = await journal.update([add_order(1), add_order(2), ("x", remove)])
        assert one is not None
        assert two is not None
        assert (one.order, two.order, none) == (numbered_order(1), numbered_order(2), None)
        assert await journal.get(numbered_order(1).order_id) == one
        assert await journal.get("x") is None

    async def test_an_entry_is_found_by_its_key_before_it_has_an_id(
        self, journal: OrderJournal
    ) -> None:
        entry = requested(START, country=187, service="tg")
        await journal.update([(entry.key, put(entry))])
        await journal.update([(entry.key, put(record_creation(entry, ORDER)))])
        await journal.update([(ID, acknowledge(LATER))])
        (found,) = await journal.history()
        assert (found.key, found.order_id, found.metadata) == (entry.key, ID, {})

    async def test_a_change_sees_the_changes_before_it_in_the_same_update(
        self, journal: OrderJournal
    ) -> None:
        order_id = numbered_order(1).order_id
        code = record_status(status_of(order_id, code="0042"), LATER)
        _, entry = await journal.update([add_order(1), (order_id, code)])
        assert entry is not None
        assert (entry.code, entry.order) == ("0042", numbered_order(1))

    async def test_update_makes_all_changes_or_none(self, journal: OrderJournal) -> None:
        await journal.update([add_order(1)])
        code = record_status(status_of(code="0042"), LATER)
        with pytest.raises((LookupError, JournalError), match="a change that fails"):
            await journal.update(
                [add_order(2), (numbered_order(1).order_id, code), ("x", fails), add_order(3)]
            )
        with pytest.raises((LookupError, JournalError), match="a change that fails"):
            await journal.update([("x", fails)])
        (entry,) = await journal.history()
        assert (entry.order, entry.codes) == (numbered_order(1), ())
        assert await journal.get(numbered_order(2).order_id) is None

    async def test_an_empty_update_changes_nothing(self, journal: OrderJournal) -> None:
        assert list(await journal.update([])) == []
        assert await journal.history() == []

    async def test_an_entry_can_be_removed_by_its_key(self, journal: OrderJournal) -> None:
        entry = requested(START)
        await journal.update([(entry.key, put(entry)), add_order(1)])
        assert list(await journal.update([(entry.key, remove)])) == [None]
        assert [each.order for each in await journal.history()] == [numbered_order(1)]

    async def test_a_removed_order_is_not_found(self, journal: OrderJournal) -> None:
        await journal.update([add_order(1)])
        await journal.update([(numbered_order(1).order_id, remove)])
        assert await journal.get(numbered_order(1).order_id) is None
        assert await journal.pending() == []

    async def test_the_newest_of_two_entries_with_one_order_id_is_meant(
        self, journal: OrderJournal
    ) -> None:
        first, second = requested(START), requested(START)
        await journal.update([(first.key, put(first)), (second.key, put(second))])
        await journal.update([(second.key, put(record_creation(second, ORDER)))])
        await journal.update([(first.key, put(record_creation(first, ORDER)))])
        await add_code(journal, ID, "0042")
        found = await journal.get(ID)
        assert found is not None
        assert (found.key, found.code) == (second.key, "0042")
        await journal.update([(ID, acknowledge(LATER))])
        await journal.prune(LATER + timedelta(seconds=1))
        left = await journal.get(ID)
        assert left is not None
        assert (left.key, left.code) == (first.key, None)

    async def test_an_entry_under_another_key_is_another_entry(self, journal: OrderJournal) -> None:
        (entry,) = await journal.update([add_order(1)])
        assert entry is not None
        assert entry.order_id is not None
        copy = attrs.evolve(entry, key="copy")
        await journal.update([(entry.order_id, put(copy))])
        assert await journal.history() == [copy, entry]
        assert await journal.get(entry.order_id) == copy

    # --- pending and undelivered ------------------------------------------------------------------

    async def test_pending_lists_what_has_not_ended_oldest_first(
        self, journal: OrderJournal
    ) -> None:
        await journal.update([add_order(number) for number in (2, 3, 1, 4)])
        unknown = requested(START)
        cancel = ended(OrderOutcome.CANCELLED, LATER)
        unclear = ended(RequestOutcome.UNKNOWN, LATER)
        await journal.update(
            [
                (unknown.key, put(unknown)),
                (numbered_order(2).order_id, cancel),
                (numbered_order(4).order_id, unclear),
            ]
        )
        assert [entry.order for entry in await journal.pending()] == [
            numbered_order(1),
            numbered_order(3),
        ]

    async def test_undelivered_lists_what_ended_and_was_not_acknowledged_oldest_first(
        self, journal: OrderJournal
    ) -> None:
        await journal.update([add_order(number) for number in (4, 3, 2, 1)])
        for number in (4, 3, 2):
            await add_code(journal, numbered_order(number).order_id, str(number))
        await journal.update([(numbered_order(3).order_id, acknowledge(LATER))])
        assert [entry.code for entry in await journal.undelivered()] == ["2", "4"]
        await journal.update([(numbered_order(2).order_id, acknowledge(LATER))])
        assert [entry.code for entry in await journal.undelivered()] == ["4"]

    async def test_a_root_selects_its_own_orders_and_those_of_an_unknown_root(
        self, journal: OrderJournal
    ) -> None:
        await journal.update([add_order(1, ROOT), add_order(2, OTHER_ROOT), add_order(3)])
        await journal.update([add_order(4, ROOT), add_order(5, OTHER_ROOT), add_order(6)])
        for number in (3, 6):
            order_id = numbered_order(number).order_id
            entry = await journal.get(order_id)
            assert entry is not None
            await journal.update([(order_id, put(attrs.evolve(entry, base_url=None)))])
        for number in (4, 5, 6):
            await add_code(journal, numbered_order(number).order_id, str(number))

        async def numbers(base_url: str | None = None) -> tuple[list[int], list[str | None]]:
            pending = [entry.created_at.second for entry in await journal.pending(base_url)]
            return pending, [entry.code for entry in await journal.undelivered(base_url)]

        assert await numbers() == ([1, 2, 3], ["4", "5", "6"])
        assert await numbers(ROOT) == ([1, 3], ["4", "6"])
        assert await numbers(OTHER_ROOT) == ([2, 3], ["5", "6"])
        assert await numbers("https://elsewhere") == ([3], ["6"])

    # --- history and prune ------------------------------------------------------------------------

    async def test_history_lists_all_entries_newest_first(self, journal: OrderJournal) -> None:
        await journal.update([add_order(number) for number in (2, 3, 1)])
        await add_code(journal, numbered_order(2).order_id, "0042")
        unknown = requested(START + timedelta(seconds=4))
        await journal.update([(unknown.key, put(unknown))])

        async def seconds(**options: Any) -> list[int]:
            return [entry.created_at.second for entry in await journal.history(**options)]

        assert await seconds() == [4, 3, 2, 1]
        assert await seconds(limit=2) == [4, 3]
        assert await seconds(limit=0) == []
        assert await seconds(limit=10**9) == [4, 3, 2, 1]
        assert await seconds(since=START + timedelta(seconds=2)) == [4, 3, 2]
        assert await seconds(since=datetime.min.replace(tzinfo=UTC), limit=1) == [4]
        assert await seconds(since=datetime.max.replace(tzinfo=UTC)) == []

    async def test_the_last_of_one_moment_is_the_newest(self, journal: OrderJournal) -> None:
        records = [requested(START) for _ in range(3)]
        await journal.update([(record.key, put(record)) for record in records])
        assert await journal.history() == records[::-1]

    async def test_prune_keeps_pending_orders_and_undelivered_results(
        self, journal: OrderJournal
    ) -> None:
        await journal.update([add_order(number) for number in (1, 2, 3, 4)])
        unknown = requested(START)
        await journal.update([(unknown.key, put(unknown))])
        for number in (2, 3, 4):
            await add_code(journal, numbered_order(number).order_id, str(number))
        for number, at in ((3, LATER), (4, LATER + timedelta(days=5))):
            await journal.update([(numbered_order(number).order_id, acknowledge(at))])
        never = LATER + timedelta(days=1000)
        assert await journal.prune(START) == 0
        assert await journal.prune(LATER) == 1  # the creation that ended unknown
        assert await journal.prune(never) == 2
        assert [entry.order for entry in await journal.history()] == [
            numbered_order(2),
            numbered_order(1),
        ]
        await journal.update([(numbered_order(2).order_id, acknowledge(LATER))])
        assert await journal.prune(never) == 1
        assert await journal.get(numbered_order(2).order_id) is None

    @pytest.mark.parametrize("call", MISTAKES.values(), ids=MISTAKES)
    async def test_an_invalid_argument_is_refused(
        self, journal: OrderJournal, call: Callable[[Any], Awaitable[object]]
    ) -> None:
        with pytest.raises(InvalidArgumentError):
            await call(journal)

    # --- any entry --------------------------------------------------------------------------------

    async def test_metadata_comes_back_unchanged(self, journal: OrderJournal) -> None:
        notes = {"chat": "42", "": "", "zürich": '"{}\n\u2028', "1": "a" * 4000}
        order = attrs.evolve(ORDER, metadata=notes)
        await journal.update([(ID, ensure_entry(order, LATER, ROOT))])
        entry = await journal.get(ID)
        assert entry is not None
        assert list(entry.metadata.items()) == list(notes.items())
        assert entry.order == order

    @given(entry=entries)
    @settings(max_examples=60, suppress_health_check=[HealthCheck.differing_executors])
    def test_any_entry_survives_a_round_trip(self, entry: JournalEntry) -> None:
        async def round_trip() -> None:
            with tempfile.TemporaryDirectory() as folder:
                async with self.open(Path(folder)) as journal:
                    await journal.update([(entry.key, put(entry))])
                    (found,) = await journal.history()
            assert found == entry
            assert types_of(found) == types_of(entry)

        anyio.run(round_trip)


# --- journals that outlive the process ------------------------------------------------------------

_IDS: Final = (ID, "ab" * 32, "4")
_KEYS: Final = ("k1", "k2", "k3")
_orders: Final = st.builds(ReceiveOrder, st.sampled_from(_IDS), st.just("lnbc1"), moments)
_records: Final = st.builds(
    JournalEntry,
    st.sampled_from(_KEYS),
    st.just("receive"),
    moments,
    service=st.just("tg"),
    base_url=roots,
    outcome=st.just(RequestOutcome.UNKNOWN),
)


def _recorded(record: JournalEntry, order: ReceiveOrder | None) -> tuple[str, JournalChange]:
    return record.key, put(record if order is None else record_creation(record, order))


_updates: Final = st.one_of(
    st.builds(_recorded, _records, st.none() | _orders),
    st.tuples(st.sampled_from(_KEYS), st.just(remove)),
    st.sampled_from(_IDS).flatmap(
        lambda order_id: st.tuples(
            st.just(order_id), calls_for(order_id).map(lambda call: call[0](*call[1]))
        )
    ),
)
_steps: Final = st.lists(
    st.one_of(
        st.tuples(st.just("update"), st.lists(_updates, min_size=1, max_size=4)),
        st.tuples(st.just("prune"), moments),
        st.tuples(st.just("history"), st.tuples(optional_moments, st.none() | st.integers(0, 3))),
    ),
    max_size=12,
)


def _comparable(entry: JournalEntry | None) -> JournalEntry | None:
    """An entry without its key, which is random; a file keeps `?` of half a character."""
    if entry is None:
        return None
    error = None if entry.error is None else entry.error.replace("\ud800", "?")
    return attrs.evolve(entry, key="", error=error)


async def _answers(journal: OrderJournal, steps: list[tuple[str, Any]]) -> list[object]:
    answers: list[object] = []
    for step, details in steps:
        found: list[JournalEntry | None] = []
        if step == "update":
            found += await journal.update(details)
        elif step == "prune":
            answers.append(await journal.prune(details))
        else:
            since, limit = details
            found += await journal.history(since=since, limit=limit)
        for root in (None, ROOT):
            found += await journal.pending(root)
            found += await journal.undelivered(root)
        found += [await journal.get(order_id) for order_id in _IDS]
        answers.append([_comparable(entry) for entry in found])
    return answers


class StoredJournalContract(JournalContract):
    """What a journal does that outlives the process."""

    async def test_an_opened_journal_has_what_was_written_before(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as journal:
            await journal.update([add_order(1), add_order(2)])
            await add_code(journal, numbered_order(2).order_id, "0042")
            before = await journal.history()
        async with self.open(tmp_path) as journal:
            assert await journal.history() == before
            assert [entry.order for entry in await journal.pending(ROOT)] == [numbered_order(1)]
            assert [entry.code for entry in await journal.undelivered(ROOT)] == ["0042"]

    async def test_a_code_is_kept_although_the_text_with_it_has_half_a_character(
        self, journal: OrderJournal
    ) -> None:
        broken = record_status(status_of(code="0042", error="no \ud800 such"), START)
        await journal.update([(ID, broken)])
        entry = await journal.get(ID)
        assert await journal.get("\ud800") is None
        assert entry is not None
        assert (entry.code, entry.error) == ("0042", "no ? such")

    @given(steps=_steps)
    @settings(max_examples=40, suppress_health_check=[HealthCheck.differing_executors])
    def test_any_sequence_of_calls_answers_like_the_memory_journal(
        self, steps: list[tuple[str, Any]]
    ) -> None:
        async def compare() -> None:
            with tempfile.TemporaryDirectory() as folder:
                async with self.open(Path(folder)) as journal:
                    stored = await _answers(journal, steps)
            assert stored == await _answers(MemoryJournal(), steps)

        anyio.run(compare)
