"""A terminal: lines, and below them live bars."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, TextIO, cast

from sms4sats_async import AttemptFailed, Event, Waiting

from .live import LiveDisplay, SafeFile
from .rows import MOST_BARS, Row, minutes

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

__all__ = ["Terminal"]

FRAME: Final = 0.1
"""Seconds between two pictures."""

_WIDTH: Final = 24
_WIDE: Final = 80


class Terminal(LiveDisplay):
    """Lines, and below them the bars."""

    def __init__(self, file: TextIO, now: Callable[[], float]) -> None:
        super().__init__(now, FRAME)
        self._console = Console(
            file=cast("TextIO", SafeFile(file)), force_terminal=True, highlight=False
        )
        self._live: Live

    def _print(self, row: Row, event: Event) -> None:
        # A wait has a bar.
        if row.news and not isinstance(event, Waiting):
            color = "yellow" if isinstance(event, AttemptFailed) else ""
            self._say(row.line, "green" if row.ended else color)

    def _say(self, line: str, color: str = "") -> None:
        self._console.print(Text(line, style=color))

    def _open(self) -> None:
        self._live = Live(
            get_renderable=self._picture,
            console=self._console,
            auto_refresh=False,
            transient=True,
            # What a program prints into a terminal appears above the bars. A pipe has no bars.
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
        )
        self._live.start(refresh=True)

    def _draw(self) -> None:
        self._live.refresh()

    def _clear(self) -> None:
        self._live.stop()

    def _picture(self) -> RenderableType:
        now = self._now()
        bars = self._bars
        most = max(1, min(MOST_BARS, self._console.height // 2 - 1))
        parts: list[RenderableType] = []
        for row in bars[:most]:
            # One line each, so that the height of the picture is known.
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
