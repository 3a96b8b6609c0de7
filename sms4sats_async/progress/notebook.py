"""A notebook: a display of a cell, in HTML."""

from __future__ import annotations

import contextvars
import html
from typing import TYPE_CHECKING, Any, Final

from sms4sats_async import Event, OrderCreated, Waiting

from .live import LiveDisplay
from .rows import MOST_BARS, Row, minutes

try:
    import IPython
    from IPython import display as _display
except ImportError as _error:
    raise ImportError(
        "a display in a notebook needs IPython: pip install 'sms4sats-async[notebook]'"
    ) from _error

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Notebook"]

_ipython: Any = _display  # it has no types

FRAME: Final = 1.0
"""Seconds between two pictures."""

# Nothing in the page moves: a notebook is saved with its outputs, and a countdown that runs in the
# page would run again in the saved page. Where a notebook is not trusted, styles are removed, and
# the plain text remains.
_STYLE: Final = """
.sms4sats-progress { font-size: 13px; line-height: 1.6; max-width: 60em; margin-left: 8px }
.sms4sats-progress code { opacity: .7; background: none; color: inherit; padding: 0 }
.sms4sats-progress small { display: block; opacity: .75; font-size: 12px }
.sms4sats-progress .wait { margin: 4px 0 8px }
.sms4sats-progress .track {
  height: 6px; margin: 3px 0; border-radius: 3px; overflow: hidden;
  background: rgba(128, 128, 128, .25)
}
.sms4sats-progress .track div { height: 100%; background: #f7931a }
.sms4sats-progress .left { float: right; font-variant-numeric: tabular-nums }
"""

_MOST_LINES: Final = 8


class Notebook(LiveDisplay):
    """A display of a cell."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now, FRAME)
        self._handle: Any = None
        self._cell: object = None
        self._lines: list[str] = []

    def _begin(self) -> None:
        # A wait is shown in the cell that waits. A wait in the background stays in its cell.
        cell = getattr(IPython.get_ipython(), "execution_count", None)
        if cell != self._cell and not self._bars:
            self._cell, self._handle, self._lines = cell, None, []

    def _print(self, row: Row, event: Event) -> None:
        if isinstance(event, OrderCreated):
            return  # the order has its own display
        if row.news and not isinstance(event, Waiting):
            self._say(row.line)
        if row.news:
            self._draw()

    def _say(self, line: str) -> None:
        self._lines = [*self._lines, line][-_MOST_LINES:]

    def _draw(self) -> None:
        now = self._now()
        waits = [f"{bar.name}: {minutes(bar.left(now))} left, {bar.reason}" for bar in self._bars]
        shown = {
            "text/plain": "\n".join([*waits[:MOST_BARS], *self._lines]),
            "text/html": _page(self._bars, self._lines, now),
        }
        if self._handle is None:
            self._handle = _ipython.display(shown, raw=True, display_id=True)
        else:
            # The context of a background task names the cell that started it, and nbconvert reads
            # only updates that name the cell that runs. An empty context means that cell.
            contextvars.Context().run(self._handle.update, shown, raw=True)

    _clear = _draw


def _page(bars: list[Row], lines: list[str], now: float) -> str:
    """Return the bars and the last lines as HTML."""
    parts = [_html_bar(bar, now) for bar in bars[:MOST_BARS]]
    if len(bars) > MOST_BARS:
        parts.append(f"<small>and {len(bars) - MOST_BARS} more</small>")
    parts += [f"<small>{html.escape(line)}</small>" for line in lines]
    return f'<style>{_STYLE}</style><div class="sms4sats-progress">{"".join(parts)}</div>'


def _html_bar(row: Row, now: float) -> str:
    name, state, reason = map(html.escape, (row.name, row.state, row.reason))
    return (
        f'<div class="wait"><span class="left">{minutes(row.left(now))} left</span>'
        f'<code>{name}</code> {state}<div class="track">'
        f'<div style="width:{row.part(now):.1%}"></div></div><small>{reason}</small></div>'
    )
