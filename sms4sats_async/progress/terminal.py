"""A terminal: lines, and under them live bars."""

from __future__ import annotations

import atexit
import sys
import threading
from typing import TYPE_CHECKING, Final, TextIO

from sms4sats_async import AttemptFailed, Event, Waiting

from .rows import MOST_BARS, Row, bars_of, minutes

try:
    from rich.console import Console, Group, RenderableType
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text
except ImportError as _error:
    raise ImportError(
        "a live display in a terminal needs rich: pip install 'sms4sats-async[cli]'"
    ) from _error

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["THREAD", "Terminal"]

THREAD: Final = "sms4sats-progress"
FRAME: Final = 0.1
"""Seconds between two pictures."""

_WIDTH: Final = 24
_WIDE: Final = 80


class Terminal:
    """Lines, and under them the bars, which a thread draws anew for as long as there are any."""

    def __init__(self, file: TextIO, now: Callable[[], float]) -> None:
        self._console = Console(file=file, force_terminal=True, highlight=False)
        self._now = now
        self._rows: list[Row] = []
        self._live: Live | None = None
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    def show(self, rows: list[Row], row: Row, event: Event) -> None:
        """Print the news, and start or stop the bars."""
        with self._lock:
            self._rows = rows
            now = self._now()
            waits = any(each.waits(now) for each in rows)
            if not waits:
                self._stop()
            # Of a wait the bar tells.
            if row.news and not isinstance(event, Waiting):
                color = "yellow" if isinstance(event, AttemptFailed) else ""
                color = "green" if row.ended else color
                self._console.print(Text(row.line, style=color))
            if waits and self._live is None:
                self._start()

    def close(self) -> None:
        """Take the bars away."""
        with self._lock:
            self._stop()
        if self._thread is not None:
            self._thread.join()

    def frame(self) -> bool:
        """Draw the bars, and tell whether there still are any."""
        with self._lock:
            if not bars_of(self._rows, self._now()):
                self._stop()
            if self._live is not None:
                self._live.refresh()
            return self._live is not None

    def _start(self) -> None:
        self._live = Live(
            get_renderable=self._draw,
            console=self._console,
            auto_refresh=False,
            transient=True,
            # What a program prints into a terminal stands above the bars; what it prints into a
            # pipe is none of theirs.
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
        )
        self._live.start(refresh=True)
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._keep_drawing, args=(self._stopped,), name=THREAD, daemon=True
        )
        self._thread.start()
        atexit.register(self.close)

    def _stop(self) -> None:
        if self._live is None:
            return
        self._stopped.set()
        self._live.stop()
        self._live = None
        atexit.unregister(self.close)

    def _keep_drawing(self, stopped: threading.Event) -> None:
        while not stopped.wait(FRAME) and self.frame():
            pass

    def _draw(self) -> RenderableType:
        now = self._now()
        bars = bars_of(self._rows, now)
        most = max(1, min(MOST_BARS, self._console.height // 2 - 1))
        parts: list[RenderableType] = []
        for row in bars[:most]:
            # One line each, whatever the width: the height is counted on.
            line = Table.grid(padding=(0, 1))
            bar = ProgressBar(
                total=1.0,
                completed=row.part(now),
                width=_WIDTH if self._console.width >= _WIDE else _WIDTH // 2,
                style="dim",
                complete_style="dark_orange",
                finished_style="dark_orange",
            )
            left = Text(f"{minutes(row.left(now))} left", style="bold")
            line.add_row(Text(row.name), bar, left, _one_line(row.state))
            parts += [line, _one_line(f"  {row.reason}", style="dim")]
        if len(bars) > most:
            parts.append(Text(f"and {len(bars) - most} more", style="dim"))
        return Group(*parts)


def _one_line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
