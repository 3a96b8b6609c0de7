"""One run of a command: its client, its clock, its journal, its signals, and how it ends."""

import logging
import os
import signal
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
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
    OrderCreated,
    OrderStatus,
    Sms4SatsClient,
    SqliteJournal,
    StatusPolled,
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


class Stop(Exception):  # noqa: N818 - no error: the command has come to this end
    """The command ends here.

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
        out: What it prints.
        stage: What it is at, for somebody who interrupts it.
        client: The client, while the command runs.
        journal: Where orders are written down, while the command runs.
        ordered_at: When its order was made, if that is known.
    """

    out: Output
    stage: Stage = Stage.READING
    client: Sms4SatsClient = attrs.field(init=False)
    journal: SqliteJournal = attrs.field(init=False)
    ordered_at: datetime | None = None
    _last_seen: dict[str, object] = attrs.field(factory=dict[str, object])
    _journal_has_failed: bool = False
    _progress: Progress | None = None

    def tell(self, event: Event) -> None:
        """Show what the client tells, and remember what an interruption would mean."""
        match event:
            case OrderCreated(order=order):
                self.stage, self.ordered_at = Stage.WAITING, order.created_at
            case AttemptFailed(operation="cancel_order") if self.stage is Stage.WAITING:
                self.stage = Stage.CANCELLING
            case JournalFailed(error=error) if not self._journal_has_failed:
                self._journal_has_failed = True
                self.out.note(f"What becomes of the order is not written down: {error.problem}.")
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
        """Show a status in JSON if it is new: whoever waits for a code needs the number first."""
        known = (status.state, status.number)
        if self._last_seen.get(status.order_id) != known:
            self._last_seen[status.order_id] = known
            self.out.show(facts(status))

    def now(self) -> datetime:
        """Return the time of the command's clock."""
        return datetime.fromtimestamp(self.client.clock.now(), UTC)

    def interrupted(self) -> End:
        """Return what an interruption now means."""
        return interrupted(self.stage, self.ordered_at)

    def close(self) -> None:
        """Take away what shows the progress."""
        if self._progress is not None:
            self._progress.close()

    async def find(self, name: str) -> tuple[str, JournalEntry | None]:
        """Return the id of the order that is meant, and what the journal holds of it.

        Args:
            name: The id; of an order in the journal its beginning will do, or the form in which it
                is shown, such as `0123…cdef`.

        Raises:
            Stop: Several orders may be meant, or the one that is meant is not in the journal.
        """
        beginning, shortened, end = name.partition(_SHORTENED)
        try:
            entry = await self.journal.get(name)
            if entry is not None:
                return name, entry
            if len(name) < _SHORTEST_NAME:
                return self._as_typed(name), None
            entries = [
                entry
                for entry in await self.journal.history()
                if (entry.order_id or "").startswith(beginning)
                and (entry.order_id or "").endswith(end)
            ]
        except JournalError:  # whatever is done for the order is done without a journal too
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
        """Return a name that is taken for an id; a slip of the finger looks like a lost one."""
        if len(name) < _WHOLE_NAME:
            self.out.note(
                "The journal has no order whose id begins so (with four characters or more), so "
                "what was typed is taken for a whole id."
            )
        return name


def run(work: Callable[[Session], Awaitable[object]], *, base_url: str | None, json: bool) -> None:
    """Do a command's work with a client; raise `typer.Exit` if it does not come to its end."""

    async def work_with_a_client(session: Session) -> None:
        async with (
            SqliteJournal(_journal_path()) as session.journal,
            Sms4SatsClient(
                base_url=base_url,
                clock=CLOCK,
                on_event=session.tell,
                journal=session.journal,
            ) as session.client,
        ):
            try:
                await work(session)
            except JournalError as error:
                if error.order is not None:  # it is not written down, so it is shown
                    session.out.order(error.order)
                raise

    finish_async(work_with_a_client, json=json)


def finish_async(work: Callable[[Session], Awaitable[object]], *, json: bool) -> None:
    """Do a job that needs an event loop, and tell how it ended if that is not well."""
    finish(lambda session: anyio.run(_until_interrupted, work, session), json=json)


def finish(job: Callable[[Session], object], *, json: bool) -> None:
    """Do a job, and tell how it ended if that is not well.

    Raises:
        typer.Exit: It did not come to its end; what happened has been told.
    """
    session = Session(Output(json))
    try:
        with _termination_as_interrupt(), _silent_log():
            job(session)
    except typer.Exit:
        raise
    except Stop as stop:
        end = stop.end
    except (KeyboardInterrupt, BrokenPipeError):  # or whoever read the output has gone
        end = session.interrupted()
    except Exception as error:  # noqa: BLE001 - a traceback says nothing to whoever runs this
        end = end_of(error)
    else:
        return
    finally:
        session.close()
    try:
        session.out.end(end)
    except OSError:  # nobody takes the JSON, so it is told to whoever looks
        Output(json=False).end(end)
    raise typer.Exit(end.code)


def _journal_path() -> Path:
    """Return where the journal is, in a folder that is made for its owner alone."""
    named = os.environ.get("SMS4SATS_JOURNAL")
    folder = platformdirs.user_data_path("sms4sats", appauthor=False)
    path = Path(named).expanduser() if named else folder / "orders.sqlite"
    with suppress(OSError):  # the journal itself says what is wrong, as soon as it is needed
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


async def _until_interrupted(
    work: Callable[[Session], Awaitable[object]], session: Session
) -> None:
    """Do the work until Ctrl-C or SIGTERM cancels its task, which cleans up.

    A signal waits for the end of a step: an exception in the midst of one can leave anyio's scopes
    in disorder, and then the way out waits as if nobody had asked it to end. A second signal
    cancels what a shield kept from the first; only asyncio can do that.

    Raises:
        Stop: It was interrupted.
    """
    import asyncio  # noqa: PLC0415 - a loop has loaded it, and `--help` needs none

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - this runs in one
    for number in (signal.SIGINT, signal.SIGTERM):
        # A job in a script's background ignores Ctrl-C.
        if signal.getsignal(number) is not signal.SIG_IGN:
            with suppress(NotImplementedError):  # on Windows; there Python's own way stands
                loop.add_signal_handler(number, task.cancel)
    try:
        await work(session)
    except asyncio.CancelledError:
        raise Stop(session.interrupted()) from None


@contextmanager
def _termination_as_interrupt() -> Generator[None]:
    """Let SIGTERM end the work as Ctrl-C does, and leave both signals as they were."""

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
    """Keep the library's warnings from standard error: a command says the same in its own words."""
    log, handler = logging.getLogger("sms4sats_async"), logging.NullHandler()
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
