"""The recorder writes in bounded time, and reports whatever a journal does wrong."""

from __future__ import annotations

import asyncio
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel
import pytest

from sms4sats_async import Event, JournalEntry, JournalError, JournalFailed, MemoryJournal
from sms4sats_async.journal import recorder
from sms4sats_async.journal.entry import acknowledge, ensure_entry
from sms4sats_async.journal.recorder import Recorder
from sms4sats_async.simulator import ManualClock
from tests.journal_contract import ID, ORDER, OTHER_ROOT, ROOT, START, add_code, add_order

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sms4sats_async import JournalChange

pytestmark = pytest.mark.anyio

KEY: Final = "0f" * 16
CHANGE: Final = (ID, ensure_entry(ORDER, START, ROOT))


class Foreign:
    """A journal whose calls all do what the test says."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self._answer = answer

    def update(self, _changes: object, /) -> Any:
        return self._answer()

    def pending(self, _base_url: object = None) -> Any:
        return self._answer()

    def undelivered(self, _base_url: object = None) -> Any:
        return self._answer()

    def get(self, _order_id: object, /) -> Any:
        return self._answer()


def recording(journal: Any) -> tuple[Recorder, list[Event]]:
    events: list[Event] = []
    clock = ManualClock(START.timestamp())
    return Recorder(journal, base_url=ROOT, clock=clock, report=events.append), events


# --- what it does ---------------------------------------------------------------------------------


async def test_a_write_returns_the_entries() -> None:
    it, events = recording(MemoryJournal())
    (entry,) = await it.write([CHANGE])
    assert entry is not None
    assert entry == await it.find(ID)
    assert entry == await it.note(ID, lambda known: known)
    assert await it.note(None, lambda known: known, key=KEY) is None
    assert await it.find("unknown") is None
    assert events == []


async def test_the_recorded_time_is_the_clocks() -> None:
    it, _ = recording(None)
    assert it.now() == START
    assert it.now().tzinfo is UTC


async def test_nothing_is_recorded_without_a_journal() -> None:
    it, events = recording(None)
    assert list(await it.write([CHANGE])) == []
    assert await it.note(ID, acknowledge(START)) is None
    assert await it.find(ID) is None
    assert list(await it.pending()) == []
    assert events == []


async def test_a_scheduler_gets_undelivered_results_before_pending_orders_of_its_root() -> None:
    journal = MemoryJournal()
    it, _ = recording(journal)
    await journal.update([add_order(number) for number in (1, 2, 3)])
    await journal.update([add_order(4, OTHER_ROOT), add_order(5, OTHER_ROOT)])
    for number in (3, 5):
        await add_code(journal, f"{number:064x}", "0042")
    assert [entry.created_at.second for entry in await it.pending()] == [3, 1, 2]


# --- whatever a journal raises --------------------------------------------------------------------


def raises(error: BaseException) -> Callable[[], Any]:
    """A call that raises when it is awaited."""

    async def answer() -> None:
        await anyio.lowlevel.checkpoint()
        raise error

    return answer


def raises_at_once(error: BaseException) -> Callable[[], Any]:
    """A call that is no coroutine, and raises."""

    def answer() -> None:
        raise error

    return answer


def returns(value: object) -> Callable[[], Any]:
    async def answer() -> object:
        await anyio.lowlevel.checkpoint()
        return value

    return answer


async def write(it: Recorder) -> object:
    return await it.write([CHANGE])


async def pending(it: Recorder) -> object:
    return await it.pending()


CALLS: Final[dict[str, Callable[[Recorder], Awaitable[object]]]] = {
    "written": write,
    "read": pending,
}
ANY_FAILURES: Final[dict[str, tuple[Callable[[], Any], str]]] = {
    "error": (raises(OSError(ID)), "OSError"),
    "error without await": (raises_at_once(LookupError(ID)), "LookupError"),
    "no coroutine": (list, "TypeError"),
    "group": (raises(ExceptionGroup("two", [OSError(), KeyError(ID)])), "ExceptionGroup"),
}


@pytest.mark.parametrize("what", CALLS)
@pytest.mark.parametrize(("answer", "name"), ANY_FAILURES.values(), ids=ANY_FAILURES)
async def test_any_exception_becomes_a_journal_error(
    what: str, answer: Callable[[], Any], name: str
) -> None:
    it, events = recording(Foreign(answer))
    with pytest.raises(JournalError) as caught:
        await CALLS[what](it)
    assert caught.value.problem == f"the journal cannot be {what} ({name})"
    assert type(caught.value.__cause__).__name__ == name
    assert ID not in "".join(traceback.format_exception(caught.value))
    assert events == []


@pytest.mark.parametrize("answer", [None, [], [None, None], 5])
async def test_an_update_that_returns_no_entry_for_each_change_is_reported(answer: object) -> None:
    it, _ = recording(Foreign(returns(answer)))
    with pytest.raises(JournalError, match=r"cannot be written \(TypeError\)"):
        await it.write([CHANGE])


async def test_a_journal_error_passes_unchanged() -> None:
    error = JournalError("the journal /j cannot be used: the disk is full")
    it, _ = recording(Foreign(raises(error)))
    for call in CALLS.values():
        with pytest.raises(JournalError) as caught:
            await call(it)
        assert caught.value is error


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_of_the_journals_own_is_a_failure_of_the_journal() -> None:
    """As of a database driver that cancels its own future."""
    it, events = recording(Foreign(raises(asyncio.CancelledError())))
    for what, call in CALLS.items():
        with pytest.raises(JournalError, match=f"cannot be {what} .CancelledElsewhereError"):
            await call(it)
    assert await it.note(ID, acknowledge(START)) is None
    assert await it.find(ID) is None
    assert [type(event) for event in events] == [JournalFailed, JournalFailed]


async def test_a_failure_to_note_or_to_find_is_reported_and_not_raised() -> None:
    it, events = recording(Foreign(raises(OSError(ID))))
    assert await it.note(ID, acknowledge(START)) is None
    assert await it.note(None, acknowledge(START), key=KEY) is None
    assert await it.find(ID) is None
    reported = [event for event in events if isinstance(event, JournalFailed)]
    assert [(event.order_id, event.error.order_id, event.error.problem) for event in reported] == [
        (ID, ID, "the journal cannot be written (OSError)"),
        (None, None, "the journal cannot be written (OSError)"),
        (ID, ID, "the journal cannot be read (OSError)"),
    ]


class Quoting(MemoryJournal):
    """A journal whose errors quote what they were about."""

    def __init__(self, quote: Callable[[str], BaseException]) -> None:
        super().__init__()
        self._quote = quote

    async def update(
        self, changes: Sequence[tuple[str, JournalChange]], /
    ) -> Sequence[JournalEntry | None]:
        raise self._quote(changes[0][0])

    async def get(self, order_id: str, /) -> JournalEntry | None:
        raise self._quote(order_id)


def noted(order_id: str) -> Exception:
    error = OSError()
    error.add_note(f"at {order_id}")
    return error


def chained(order_id: str) -> BaseException:
    return _caused(LookupError(f"no place for {order_id}"), KeyError(order_id))


QUOTES: Final[dict[str, Callable[[str], BaseException]]] = {
    "text": lambda order_id: ValueError(f"bad {order_id}", 5),
    "JournalError": lambda order_id: _caused(JournalError("no"), KeyError(order_id)),
    "note": noted,
    "chain": chained,
    "file name": lambda order_id: FileNotFoundError(2, "No such file", f"/orders/{order_id}"),
    "two file names": lambda order_id: OSError(2, order_id, "/a", None, f"/orders/{order_id}"),
    "group": lambda order_id: BaseExceptionGroup("two", [noted(order_id), chained(order_id)]),
    "itself": lambda order_id: _caused(error := KeyError(order_id), error),
}


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("reference", [ID, "4f-not-hexadecimal", KEY])
@pytest.mark.parametrize("quote", QUOTES.values(), ids=QUOTES)
async def test_no_traceback_shows_what_a_journal_quoted(
    reference: str, quote: Callable[[str], BaseException]
) -> None:
    it, events = recording(Quoting(quote))
    with pytest.raises(JournalError) as caught:
        await it.write([(reference, acknowledge(START))])
    await it.find(reference)
    (failed,) = events
    assert isinstance(failed, JournalFailed)
    for error in (caught.value, failed.error):
        assert reference not in "".join(traceback.format_exception(error))


# --- bounded time ---------------------------------------------------------------------------------


class Slow(MemoryJournal):
    """A journal that writes only when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.let_go = anyio.Event(), anyio.Event()

    async def update(
        self, changes: Sequence[tuple[str, JournalChange]], /
    ) -> Sequence[JournalEntry | None]:
        self.reached.set()
        await self.let_go.wait()
        return await super().update(changes)

    async def get(self, order_id: str, /) -> JournalEntry | None:
        self.reached.set()
        await self.let_go.wait()
        return await super().get(order_id)


@pytest.fixture
def short_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_BOUND", 0.05)


async def test_a_write_ends_although_its_task_is_cancelled() -> None:
    journal = Slow()
    it, _ = recording(journal)
    written: list[object] = []

    async def write_and_note() -> None:
        written.append(await it.write([CHANGE]))
        await anyio.lowlevel.checkpoint()
        written.append("not reached")

    async with anyio.create_task_group() as group:
        group.start_soon(write_and_note)
        await journal.reached.wait()
        group.cancel_scope.cancel()
        journal.let_go.set()
    assert len(written) == 1
    assert [entry.order for entry in await journal.pending()] == [ORDER]


@pytest.mark.usefixtures("short_bound")
async def test_a_write_that_hangs_is_given_up_also_in_a_cancelled_task() -> None:
    it, _ = recording(Slow())
    with pytest.raises(JournalError, match=r"did not answer within 0\.05 s"):
        await it.write([CHANGE])
    with anyio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(JournalError, match=r"did not answer within 0\.05 s"):
            await it.write([CHANGE])


@pytest.mark.usefixtures("short_bound")
async def test_a_lookup_that_hangs_is_reported() -> None:
    it, events = recording(Slow())
    assert await it.find(ID) is None
    (failed,) = events
    assert isinstance(failed, JournalFailed)
    assert failed.error.problem == "the journal did not answer within 0.05 s"


async def test_a_lookup_ends_when_its_task_is_cancelled() -> None:
    journal = Slow()
    it, events = recording(journal)
    async with anyio.create_task_group() as group:
        group.start_soon(it.find, ID)
        await journal.reached.wait()
        group.cancel_scope.cancel()
    assert events == []


async def test_the_time_of_a_write_ends_with_it() -> None:
    it, _ = recording(MemoryJournal())
    await it.write([CHANGE])
    assert anyio.current_effective_deadline() == float("inf")
    assert (await it.write([(ID, acknowledge(datetime.now(UTC)))]))[0] is not None
