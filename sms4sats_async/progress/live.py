"""What the displays with bars share: the thread that draws them, and a file that never raises."""

from __future__ import annotations

import atexit
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

from .rows import bars_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from sms4sats_async import Event

    from .rows import Row

__all__ = ["THREAD", "LiveDisplay", "SafeFile"]

THREAD: Final = "sms4sats-progress"


class LiveDisplay(ABC):
    """Lines and bars. A thread draws the bars again as long as there are any.

    The thread also draws while the event loop is busy. It ends with the last bar: when the order
    ended, when the wait is over, or when the task that waited has ended.

    Args:
        now: Returns the time in Unix seconds.
        pause: Seconds between two pictures.
    """

    def __init__(self, now: Callable[[], float], pause: float) -> None:
        self._now = now
        self._pause = pause
        self._rows: list[Row] = []
        self._bars: list[Row] = []
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    def show(self, rows: list[Row], row: Row, event: Event) -> None:
        """Show all rows, one of which changed with an event."""
        with self._lock:
            self._begin()
            self._rows = rows
            self._update()
            self._print(row, event)
            if self._bars and self._thread is None:
                self._start()

    def frame(self) -> bool:
        """Draw the bars again, and return whether there still are any."""
        with self._lock:
            if self._update():
                self._draw()
            return bool(self._bars)

    def close(self) -> None:
        """Remove the bars, and stop."""
        with self._lock:
            self._rows = self._bars = []
            thread = self._stop()
        if thread is not None:
            thread.join()

    # --- what differs between displays ------------------------------------------------------------

    def _begin(self) -> None:  # noqa: B027 - not every display needs it
        """Prepare for an event."""

    @abstractmethod
    def _print(self, row: Row, event: Event) -> None:
        """Show the news of an event."""

    @abstractmethod
    def _say(self, line: str) -> None:
        """Show a line."""

    def _open(self) -> None:  # noqa: B027 - not every display needs it
        """Begin to draw bars."""

    @abstractmethod
    def _draw(self) -> None:
        """Draw the bars."""

    @abstractmethod
    def _clear(self) -> None:
        """Remove the bars."""

    # --- the thread -------------------------------------------------------------------------------

    def _update(self) -> list[Row]:
        """Return the bars there are now, and show which waits ended without a result."""
        names = {bar.name for bar in self._bars}
        self._bars = bars_of(self._rows, self._now())
        for row in self._rows:
            if row.name in names and row.is_abandoned:
                self._say(f"{row.name}: stopped waiting, {row.state}")
        if not self._bars:
            self._stop()
        return self._bars

    def _start(self) -> None:
        self._open()
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._keep_drawing, args=(self._stopped,), name=THREAD, daemon=True
        )
        self._thread.start()
        atexit.register(self.close)

    def _stop(self) -> threading.Thread | None:
        """Remove the bars, and return the thread, which ends soon."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopped.set()
            self._clear()
            atexit.unregister(self.close)
        return thread

    def _keep_drawing(self, stopped: threading.Event) -> None:
        while not stopped.wait(self._pause) and self.frame():
            pass


class SafeFile:
    """A text file to which writing never fails: a display must not stop what it shows.

    A letter that the file's encoding does not have is replaced. What a terminal or a pipe that has
    been closed does not take is dropped.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write a text, as far as that is possible."""
        encoding = getattr(self._file, "encoding", None) or "utf-8"
        try:
            self._file.write(text.encode(encoding, "replace").decode(encoding))
            self._file.flush()
        except (OSError, ValueError):  # closed at the other end, or here
            pass
        return len(text)

    def flush(self) -> None:
        """Do nothing, because every text is flushed when it is written."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the file has
        return getattr(self._file, name)
