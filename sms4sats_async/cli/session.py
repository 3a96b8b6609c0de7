"""One run of a command: its client, its clock, its signals, and how it ends."""

import signal
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from types import FrameType

import anyio
import attrs
import typer

from sms4sats_async import Clock, Event, OrderCreated, Sms4SatsClient, Waiting
from sms4sats_async.progress import Progress

from .ends import End, Stage, end_of, interrupted
from .output import Output


class _MachineClock:
    """The machine's own clocks."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(anyio.sleep)


CLOCK: Clock = _MachineClock()
"""What every command lives by. No option changes it; a test puts another in its place."""


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
    """

    out: Output
    stage: Stage = Stage.READING
    client: Sms4SatsClient = attrs.field(init=False)
    _quiet_until: float = 0.0
    _progress: Progress | None = None

    def tell(self, event: Event) -> None:
        """Show what the client tells, and remember what an interruption would mean."""
        match event:
            case OrderCreated():
                self.stage = Stage.ORDERED
            case Waiting(until=until):
                self._quiet_until = until.timestamp()
            case _:
                pass
        if self._progress is None:
            self._progress = Progress(clock=CLOCK)
        self._progress(event)

    def interrupted(self) -> End:
        """Return what an interruption now means."""
        if self.stage is Stage.CANCELLING and CLOCK.now() < self._quiet_until:
            return interrupted(Stage.WAITING_TO_CANCEL)
        return interrupted(self.stage)

    def close(self) -> None:
        """Take away what shows the progress."""
        if self._progress is not None:
            self._progress.close()


def run(
    work: Callable[[Session], Awaitable[object]], *, base_url: str | None, json: bool
) -> None:
    """Do a command's work with a client; raise `typer.Exit` if it does not come to its end."""

    async def work_with_a_client(session: Session) -> None:
        client = Sms4SatsClient(base_url=base_url, clock=CLOCK, on_event=session.tell)
        async with client as session.client:
            await work(session)

    finish(lambda session: anyio.run(work_with_a_client, session), json=json)


def finish(job: Callable[[Session], object], *, json: bool) -> None:
    """Do a job, and tell how it ended if that is not well.

    Raises:
        typer.Exit: It did not come to its end; what happened has been told.
    """
    session = Session(Output(json))
    try:
        with _termination_as_interrupt():
            job(session)
    except typer.Exit:
        raise
    except Stop as stop:
        end = stop.end
    except KeyboardInterrupt:
        end = session.interrupted()
    except Exception as error:  # noqa: BLE001 - a traceback says nothing to whoever runs this
        end = end_of(error)
    else:
        return
    finally:
        session.close()
    session.out.end(end)
    raise typer.Exit(end.code)


@contextmanager
def _termination_as_interrupt() -> Generator[None]:
    """Let SIGTERM end the work as Ctrl-C does: the task is cancelled, and then cleans up."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
