"""One run of a command: its client, its journal, its signals, and its end."""

import logging
import os
import re
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import anyio
import attrs
import platformdirs
import typer

from sms4sats_async import (
    AttemptFailed,
    Clock,
    Event,
    JournalEntry,
    JournalError,
    JournalFailed,
    Money,
    OrderCreated,
    OrderEnded,
    OrderResult,
    OrderStatus,
    SendOrder,
    Sms4SatsClient,
    SqliteJournal,
    StatusPolled,
    Waiting,
)
from sms4sats_async.progress import Progress

from .ends import ExitCode, Interrupted, Stage, Stop, end_of, sentence
from .facts import facts, in_words, result_facts, shortened
from .output import Output

_SHORT_FORM: Final = re.compile(r"…|\.\.\.|\?")
"""What replaces the middle of an ID; `?` is how a terminal without the letter shows it."""

_SHORTEST_NAME: Final = 4
_SHORTEST_ID: Final = 16
"""Characters from which on a name that the journal does not have is used as an ID."""
_WHOLE_ID: Final = 64
"""Characters of an order's ID (documented as 64 hex digits)."""

_SILENT: Final = logging.NullHandler()
_JOURNAL_LOG: Final = logging.getLogger("sms4sats_async.journal")

CLOCK: Clock | None = None
"""The clock of every command; None is the client's own. No option changes it, but a test does."""


@attrs.define
class Session:
    """What a command works with.

    Attributes:
        out: The output.
        stage: What the command does at the moment, for the message of an interruption.
        client: The client, while the command runs.
        journal: The journal, while the command runs.
        journal_path: Its path.
        ordered_at: When the command's order was created, if that is known.
        cancels_from: When the next cancel may be sent.
        is_paid: Whether a status said that the command's order is paid.
        is_done: Whether the work is done and its result was shown.
    """

    out: Output
    stage: Stage = Stage.READING
    client: Sms4SatsClient = attrs.field(init=False)
    journal: SqliteJournal = attrs.field(init=False)
    journal_path: Path = attrs.field(init=False)
    ordered_at: datetime | None = None
    cancels_from: datetime | None = None
    is_paid: bool = False
    is_done: bool = False
    _results: dict[str, OrderResult] = attrs.field(factory=dict[str, OrderResult])
    _last_seen: dict[str, object] = attrs.field(factory=dict[str, object])
    _journal_has_failed: bool = False
    _progress: Progress | None = None

    def show(self, event: Event) -> None:
        """Show an event, and keep what an interruption would mean."""
        is_result = self.stage is Stage.READING and isinstance(event, StatusPolled)
        self._note(event)
        if not is_result:
            if self._progress is None:
                self._progress = Progress(clock=self.client.clock)
            self._progress(event)

    def _note(self, event: Event) -> None:
        match event:
            case OrderCreated(order=order):
                self.ordered_at = order.created_at
                if self.stage is Stage.ORDERING:
                    is_message = isinstance(order, SendOrder)
                    self.stage = Stage.MESSAGE if is_message else Stage.WAITING
            case Waiting(until=until):
                self.cancels_from = until
            case AttemptFailed(operation="cancel_order") if self.stage is Stage.WAITING:
                self.stage = Stage.CANCELLING
            case StatusPolled(status=status) if self.stage is not Stage.READING:
                if self.stage is Stage.CANCELLING:  # the order is open, or its end comes next
                    self.stage = Stage.WAITING
                self.is_paid |= status.money is Money.HELD
                self._show_in_json(status)
            case OrderEnded(result=result) if result.outcome is not None:
                self._results[result.order_id] = result
            case JournalFailed(error=error) if not self._journal_has_failed:
                self._journal_has_failed = True
                self.out.note(f"The journal does not record how the order ends: {error.problem}.")
            case _:
                pass

    def _show_in_json(self, status: OrderStatus) -> None:
        """Show a new status in JSON: you need the number before the code."""
        known = (status.state, status.number)
        if self.out.json and self._last_seen.get(status.order_id) != known:
            self._last_seen[status.order_id] = known
            self.out.show(facts(status))

    def show_result(self, result: OrderResult, text: str | None) -> None:
        """Show how an order ended: the text, or in JSON all of it; None: a note is enough."""
        self.out.show(result_facts(result), text)
        self._results.pop(result.order_id, None)

    @property
    def nothing_pending(self) -> str:
        """The note for a journal without pending orders. It names the file: there may be others."""
        return f"No order is pending in {in_words(str(self.journal_path))}."

    def now(self) -> datetime:
        """Return the time of the command's clock."""
        return datetime.fromtimestamp(self.client.clock.now(), UTC)

    def show_end(self, error: BaseException) -> int:
        """Show why the command ends, and return its exit code."""
        stage = self.stage
        if stage is Stage.WAITING and self.cancels_from is not None:
            stage = Stage.WAITING if self.now() < self.cancels_from else Stage.CANCELLING
        end = end_of(error, stage, self.ordered_at, [*self._results.values()])
        self.out.end(end)
        return end.code

    def close(self) -> None:
        """Remove the progress display."""
        if self._progress is not None:
            self._progress.close()

    async def find(self, name: str) -> tuple[str, JournalEntry | None]:
        """Return the ID of an order, and its entry in the journal.

        Args:
            name: The ID. For an order in the journal also the beginning of its ID, of at least four
                characters, or the shown form, such as `0123…cdef`.

        Raises:
            Stop: The name is too short, several orders have it, the journal does not have it, or
                the order belongs to another service root.
            JournalError: The journal cannot be read, and the name is no whole ID.
        """
        entry = None
        try:
            entry = await self.journal.get(name) or await self._find_by_parts(name)
        except JournalError:
            if len(name) < _SHORTEST_ID:
                raise
        if entry is None:
            if len(name) < _WHOLE_ID:
                self.out.note("The journal has no order with this ID, so it is used as a whole ID.")
            return name, None
        order_id = entry.order_id or name
        root = entry.base_url
        if root not in {None, self.client.base_url}:
            problem = (
                f"the order {shortened(order_id)} belongs to {in_words(root)}, but this command "
                f"uses {self.client.base_url}"
            )
            raise Stop("another service", ExitCode.USAGE, problem, root=in_words(root))
        return order_id, entry

    async def _find_by_parts(self, name: str) -> JournalEntry | None:
        """Return the entry of the only order with an ID like this, or None for a whole ID."""
        # IDs are hex digits (documented), and some programs copy them in upper case.
        parts = _SHORT_FORM.split(name.lower(), maxsplit=1)
        if len("".join(parts)) < _SHORTEST_NAME:
            problem = f"{name!r} is too short for an order ID: type at least four characters"
            raise Stop("order ID", ExitCode.USAGE, problem)
        # The newest comes first, and counts if an ID comes twice.
        known = {entry.order_id or "": entry for entry in reversed(await self.journal.history())}
        beginning, end = parts[0], parts[-1] if len(parts) > 1 else ""
        found = [
            it for it in known if it.lower().startswith(beginning) and it.lower().endswith(end)
        ]
        if len(found) == 1:
            return known[found[0]]
        if not found and len(parts) == 1 and len(name) >= _SHORTEST_ID:
            return None  # the service decides
        count = "several orders" if found else "no order"
        problem = f"the journal has {count} with an ID like {name!r}"
        raise Stop("order ID", ExitCode.USAGE, problem)


def run(
    work: Callable[[Session], Awaitable[object]],
    *,
    base_url: str | None,
    json: bool,
    journal: bool,
    stage: Stage,
) -> None:
    """Do a command's work with a client.

    Args:
        work: The work.
        base_url: The service root, if it was given.
        json: Whether to print JSON.
        journal: Whether the command needs a journal.
        stage: What an interruption means at first.

    Raises:
        typer.Exit: The work failed; the reason was shown.
    """

    async def work_with_a_client(session: Session) -> None:
        async with AsyncExitStack() as stack:
            if journal:
                session.journal_path = _journal_path()
                session.journal = SqliteJournal(session.journal_path)
                await stack.enter_async_context(session.journal)
            session.client = Sms4SatsClient(
                base_url=base_url,
                clock=CLOCK,
                on_event=session.show,
                journal=session.journal if journal else None,
            )
            await stack.enter_async_context(session.client)
            session.stage = stage
            try:
                await work(session)
            except JournalError as error:
                if error.order is not None:  # the journal does not have it, so show it
                    session.out.order(error.order)
                raise
            session.is_done = True

    finish(work_with_a_client, json=json)


def finish(work: Callable[[Session], Awaitable[object]], *, json: bool) -> None:
    """Do a command's work in an event loop, and show why it failed if it does.

    Raises:
        typer.Exit: It failed; the reason was shown.
    """
    session = Session(Output(json))
    # The command has its own messages, so the library's log stays off standard error. Nothing but
    # the log tells of a damaged row of the journal.
    logging.getLogger("sms4sats_async").addHandler(_SILENT)
    damage = _Damage(session.out)
    _JOURNAL_LOG.addHandler(damage)
    try:
        anyio.run(_until_interrupted, work, session)
    except (Exception, KeyboardInterrupt) as error:
        if session.is_done and isinstance(error, Interrupted | KeyboardInterrupt):
            return
        session.close()
        raise typer.Exit(session.show_end(error)) from error
    finally:
        _JOURNAL_LOG.removeHandler(damage)
        session.close()


class _Damage(logging.Handler):
    """Shows each damaged row once."""

    def __init__(self, out: Output) -> None:
        super().__init__(logging.ERROR)
        self._out = out
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = sentence(record.getMessage())
        if text not in self._shown:
            self._shown.add(text)
            self._out.note(text)


def _journal_path() -> Path:
    """Return the path of the journal, in a folder that only its owner can read.

    Raises:
        Stop: There is no home directory, and no file is named.
    """
    named = os.environ.get("SMS4SATS_JOURNAL")
    try:
        if named:
            if named.endswith(("/", os.sep)):  # a Path would not show that
                raise Stop("home", ExitCode.USAGE, "SMS4SATS_JOURNAL names a folder, not a file")
            path = Path(named).expanduser().absolute()
        else:
            path = platformdirs.user_data_path("sms4sats", appauthor=False) / "orders.sqlite"
            if not path.is_absolute():
                raise RuntimeError("there is no home directory")  # noqa: TRY301
    except (RuntimeError, OSError) as error:  # no home, or the working folder was removed
        problem = f"the folder of the journal is unknown: {error}"
        raise Stop("home", ExitCode.USAGE, problem) from error
    with suppress(OSError):  # the journal reports the problem when it is used
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


async def _until_interrupted(
    work: Callable[[Session], Awaitable[object]], session: Session
) -> None:
    """Do the work until Ctrl-C or SIGTERM cancels its task, which cleans up.

    A signal takes effect between two steps. An exception inside of a step can leave anyio's scopes
    inconsistent, and the command would not end. A second signal also cancels what a shield protects
    from the first one; only asyncio can do that.

    Raises:
        Interrupted: The work was interrupted.
    """
    import asyncio  # noqa: PLC0415 - a loop has loaded it, and `--help` needs none

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - this runs in one
    for number in (signal.SIGINT, signal.SIGTERM):
        # A job in a script's background ignores Ctrl-C.
        if signal.getsignal(number) is not signal.SIG_IGN:
            with suppress(NotImplementedError):  # on Windows, where Python's own handling stays
                loop.add_signal_handler(number, task.cancel)
    try:
        await work(session)
    except asyncio.CancelledError:
        raise Interrupted from None
