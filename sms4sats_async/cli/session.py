"""One run of a command: its client, its journal, its signals, and its end."""

import logging
import os
import signal
from collections.abc import Awaitable, Callable, Generator
from contextlib import AsyncExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final

import anyio
import attrs
import platformdirs
import typer

from sms4sats_async import (
    Clock,
    Event,
    JournalEntry,
    JournalError,
    JournalFailed,
    OrderCreated,
    OrderStatus,
    Sms4SatsClient,
    SqliteJournal,
    StatusPolled,
    Waiting,
)
from sms4sats_async.progress import Progress

from .ends import End, ExitCode, Stage, end_of, interrupted
from .facts import facts
from .output import Output

_SHORTENED: Final = "…"
"""Stands for the middle of an order's id wherever one is shown that may not be shown whole."""

_SHORTEST_NAME: Final = 4
_WHOLE_NAME: Final = 64
"""Characters of an order's id (documented as 64 hex digits)."""


CLOCK: Clock | None = None
"""The clock of every command; None is the client's own. No option changes it, but a test does."""


class Stop(Exception):  # noqa: N818 - the end of the command, not always an error
    """Ends the command.

    Attributes:
        end: How.
    """

    def __init__(self, end: End) -> None:
        super().__init__(end.message)
        self.end = end


@attrs.define
class Session:
    """What a command works with.

    Attributes:
        out: The output.
        stage: What the command does at the moment, for the message of an interruption.
        client: The client, while the command runs.
        journal: The journal, while the command runs.
        ordered_at: When the command's order was created, if that is known.
    """

    out: Output
    stage: Stage = Stage.READING
    client: Sms4SatsClient = attrs.field(init=False)
    journal: SqliteJournal = attrs.field(init=False)
    ordered_at: datetime | None = None
    _waits_until: float = 0.0
    _last_seen: dict[str, object] = attrs.field(factory=dict[str, object])
    _journal_has_failed: bool = False
    _progress: Progress | None = None

    def show(self, event: Event) -> None:
        """Show an event, and keep what an interruption would mean."""
        match event:
            case OrderCreated(order=order):
                self.stage, self.ordered_at = Stage.WAITING, order.created_at
            case Waiting(until=until):
                self._waits_until = until.timestamp()
                if self.stage is Stage.CANCELLING:
                    self.stage = Stage.WAITING
            case JournalFailed(error=error) if not self._journal_has_failed:
                self._journal_has_failed = True
                self.out.note(f"The journal does not record how the order ends: {error.problem}.")
            case StatusPolled() if self.stage is Stage.READING:
                return  # a result, and no progress
            case StatusPolled(status=status) if self.out.json:
                self._show_once(status)
            case _:
                pass
        if self._progress is None:
            self._progress = Progress(clock=self.client.clock)
        self._progress(event)

    def _show_once(self, status: OrderStatus) -> None:
        """Show a new status in JSON: you need the number before the code."""
        known = (status.state, status.number)
        if self._last_seen.get(status.order_id) != known:
            self._last_seen[status.order_id] = known
            self.out.show(facts(status))

    def now(self) -> datetime:
        """Return the time of the command's clock."""
        return datetime.fromtimestamp(self.client.clock.now(), UTC)

    def interrupted(self) -> End:
        """Return what an interruption now means."""
        stage = self.stage
        # When the wait is over, a cancel is sent.
        if stage is Stage.WAITING and 0 < self._waits_until <= self.client.clock.now():
            stage = Stage.CANCELLING
        return interrupted(stage, self.ordered_at)

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
            Stop: The name is too short, several orders have it, or the journal does not have it.
        """
        beginning, shortened, end = name.partition(_SHORTENED)
        try:
            entry = await self.journal.get(name)
            if entry is not None:
                return name, entry
            if len(name) < _SHORTEST_NAME:
                problem = f"{name} is too short for an order ID: type at least four characters."
                next_step = "`sms4sats pending` lists the open orders. Nothing was sent."
                raise Stop(End(ExitCode.USAGE, problem, next_step))
            entries = [
                entry
                for entry in await self.journal.history()
                if (entry.order_id or "").startswith(beginning)
                and (entry.order_id or "").endswith(end)
            ]
        except JournalError:  # the command works without a journal too
            return self._as_typed(name), None
        match entries:
            case [JournalEntry(order_id=str(order_id)) as entry]:
                return order_id, entry
            case [] if not shortened:
                return self._as_typed(name), None  # the service decides
            case _:
                problem = f"{len(entries)} orders in the journal have an ID like {name}."
                next_step = "`sms4sats pending --json` has whole IDs."
                raise Stop(End(ExitCode.USAGE, problem, next_step))

    def _as_typed(self, name: str) -> str:
        """Return a name that is used as an ID, with a note if it may be a typing error."""
        if len(name) < _WHOLE_NAME:
            self.out.note("The journal has no order with this ID, so it is used as a whole ID.")
        return name


def run(
    work: Callable[[Session], Awaitable[object]],
    *,
    base_url: str | None,
    json: bool,
    journal: bool = True,
) -> None:
    """Do a command's work with a client.

    Args:
        work: The work.
        base_url: The service root, if it was given.
        json: Whether to print JSON.
        journal: Whether the command needs a journal.

    Raises:
        typer.Exit: The work failed; the reason was shown.
    """

    async def work_with_a_client(session: Session) -> None:
        async with AsyncExitStack() as stack:
            if journal:
                session.journal = SqliteJournal(_journal_path())
                await stack.enter_async_context(session.journal)
            session.client = Sms4SatsClient(
                base_url=base_url,
                clock=CLOCK,
                on_event=session.show,
                journal=session.journal if journal else None,
            )
            await stack.enter_async_context(session.client)
            try:
                await work(session)
            except JournalError as error:
                if error.order is not None:  # the journal does not have it, so show it
                    session.out.order(error.order)
                raise

    finish_async(work_with_a_client, json=json)


def finish_async(work: Callable[[Session], Awaitable[object]], *, json: bool) -> None:
    """Do a job in an event loop, and show why it failed if it does."""
    finish(lambda session: anyio.run(_until_interrupted, work, session), json=json)


def finish(job: Callable[[Session], object], *, json: bool) -> None:
    """Do a job, and show why it failed if it does.

    Raises:
        typer.Exit: It failed; the reason was shown.
    """
    session = Session(Output(json))
    try:
        with _termination_as_interrupt(), _silent_log():
            job(session)
    except typer.Exit:
        raise
    except Stop as stop:
        end = stop.end
    except (KeyboardInterrupt, BrokenPipeError):  # the reader of the output may be gone
        end = session.interrupted()
    except Exception as error:  # noqa: BLE001 - a traceback does not help a user of the command
        end = end_of(error)
    else:
        return
    finally:
        with suppress(OSError):  # the reader of the progress may be gone
            session.close()
    try:
        session.out.end(end)
    except OSError:  # standard output is broken, so use standard error
        with suppress(OSError):
            Output(json=False).end(end)
    raise typer.Exit(end.code)


def _journal_path() -> Path:
    """Return the path of the journal, in a folder that only its owner can read.

    Raises:
        Stop: There is no home directory, and no file is named.
    """
    named = os.environ.get("SMS4SATS_JOURNAL")
    try:
        if named:
            path = Path(named).expanduser()
        else:
            path = platformdirs.user_data_path("sms4sats", appauthor=False) / "orders.sqlite"
            if not path.is_absolute():
                raise RuntimeError("there is no home directory")  # noqa: TRY301
    except RuntimeError as error:
        problem = f"The journal's folder is unknown: {error}."
        next_step = "Name a file in SMS4SATS_JOURNAL. Nothing was sent."
        raise Stop(End(ExitCode.USAGE, problem, next_step)) from error
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
        Stop: The work was interrupted.
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
        raise Stop(session.interrupted()) from None


@contextmanager
def _termination_as_interrupt() -> Generator[None]:
    """Let SIGTERM end the work as Ctrl-C does, and restore both handlers afterwards."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    on_interrupt = signal.getsignal(signal.SIGINT)
    on_termination = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, on_termination)
        signal.signal(signal.SIGINT, on_interrupt)


@contextmanager
def _silent_log() -> Generator[None]:
    """Keep the library's log off standard error: the command has its own messages."""
    log, handler = logging.getLogger("sms4sats_async"), logging.NullHandler()
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
