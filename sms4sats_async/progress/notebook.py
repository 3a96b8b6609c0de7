"""A notebook: a display of a cell, in HTML."""

from __future__ import annotations

import html
import math
import time
from typing import TYPE_CHECKING, Any, Final

from sms4sats_async import Event, OrderCreated, Waiting

from .rows import MOST_BARS, Row, bars_of, minutes, whole_seconds

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

# In the page the bar and the seconds go on by themselves, as animations: no thread, no task and no
# message is needed between two events. `--left` counts down, and two counters write it as minutes
# and seconds. Where a notebook is not trusted, styles are taken out and the plain text stands.
_STYLE: Final = """
@property --sms4sats-left { syntax: "<integer>"; inherits: true; initial-value: 0 }
@keyframes sms4sats-left { from { --sms4sats-left: var(--from) } to { --sms4sats-left: 0 } }
@keyframes sms4sats-bar { from { width: var(--done) } to { width: 100% } }
.sms4sats-progress { font-size: 13px; line-height: 1.6; max-width: 60em; margin-left: 8px }
.sms4sats-progress code { opacity: .7; background: none; color: inherit; padding: 0 }
.sms4sats-progress small { display: block; opacity: .75; font-size: 12px }
.sms4sats-progress .wait { margin: 4px 0 8px }
.sms4sats-progress .track {
  height: 6px; margin: 3px 0; border-radius: 3px; overflow: hidden;
  background: rgba(128, 128, 128, .25)
}
.sms4sats-progress .track div {
  height: 100%; background: #f7931a; animation: sms4sats-bar var(--time) linear forwards
}
.sms4sats-progress .left {
  float: right; font-variant-numeric: tabular-nums;
  animation: sms4sats-left var(--time) linear forwards;
  counter-reset: minutes calc(var(--sms4sats-left) / 60 - .5) seconds mod(var(--sms4sats-left), 60)
}
.sms4sats-progress .left span { display: none }
.sms4sats-progress .left::before {
  content: counter(minutes) ":" counter(seconds, decimal-leading-zero)
}
"""

_MOST_LINES: Final = 8
_SHORTEST_PAUSE: Final = 0.2
"""Seconds between two drawings of which the second shows nothing but a later time."""


class Notebook:
    """A display of a cell, which each event updates."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._handle: Any = None
        self._cell: object = None
        self._lines: list[str] = []
        self._rows: list[Row] = []
        self._drawn = -math.inf

    def show(self, rows: list[Row], row: Row, event: Event) -> None:
        """Update the display of the cell, or begin one."""
        now = self._now()
        # What is awaited in a cell is shown there; what goes on in the background stays where it
        # began.
        cell = getattr(IPython.get_ipython(), "execution_count", None)
        if cell != self._cell and not bars_of(self._rows, now):
            self._cell, self._handle, self._lines = cell, None, []
        self._rows = rows
        if isinstance(event, OrderCreated):
            return  # the order has a display of its own
        if row.news and not isinstance(event, Waiting):
            self._lines.append(row.line)
        elif not row.news and time.monotonic() - self._drawn < _SHORTEST_PAUSE:
            return
        self._draw(bars_of(rows, now), now)

    def close(self) -> None:
        """Take the bars away."""
        if self._handle is not None:
            self._draw([], self._now())

    def _draw(self, bars: list[Row], now: float) -> None:
        self._drawn = time.monotonic()
        del self._lines[:-_MOST_LINES]
        waits = [f"{bar.name}: {minutes(bar.left(now))} left, {bar.reason}" for bar in bars]
        shown = {
            "text/plain": "\n".join([*waits[:MOST_BARS], *self._lines]),
            "text/html": _page(bars, self._lines, now),
        }
        if self._handle is None:
            self._handle = _ipython.display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)


def _page(bars: list[Row], lines: list[str], now: float) -> str:
    """Return the bars and the last lines as HTML."""
    parts = [_html_bar(bar, now) for bar in bars[:MOST_BARS]]
    if len(bars) > MOST_BARS:
        parts.append(f"<small>and {len(bars) - MOST_BARS} more</small>")
    parts += [f"<small>{html.escape(line)}</small>" for line in lines]
    return f'<style>{_STYLE}</style><div class="sms4sats-progress">{"".join(parts)}</div>'


def _html_bar(row: Row, now: float) -> str:
    left = row.left(now)
    name, state, reason = map(html.escape, (row.name, row.state, row.reason))
    return (
        f'<div class="wait" style="--time:{left:.1f}s;--from:{whole_seconds(left)};'
        f'--done:{row.part(now):.1%}"><span class="left"><span>{minutes(left)}</span> left</span>'
        f'<code>{name}</code> {state}<div class="track"><div></div></div>'
        f"<small>{reason}</small></div>"
    )
