"""Show what a client waits for: in a notebook, in a terminal, or line by line.

```python
client = Sms4SatsClient(on_event=Progress())
```

`rows` folds the events into one row for each order. Each display shows the news as lines, and each
wait as a bar with the time left.
"""

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Literal, Protocol, Self, TextIO

import anyio
import attrs

from sms4sats_async import Clock, Event, OrderCreated, Waiting
from sms4sats_async._speed import clock_for

from .live import SafeFile
from .rows import Row, fold, mask

__all__ = ["Progress"]

_MEMORY: Final = 600.0
"""Seconds after which an order without events is forgotten."""


class Screen(Protocol):
    """Where rows are shown."""

    def show(self, rows: list[Row], row: Row, event: Event) -> None:
        """Show all rows, one of which changed with an event."""
        ...

    def close(self) -> None:
        """Remove the bars, and stop."""
        ...


class Progress:
    """Shows what a client waits for: `Sms4SatsClient(on_event=Progress())`.

    In a notebook, each cell that waits has a display with lines and bars. A terminal has lines, and
    below them live bars. Where standard error is no terminal, there are lines only. Several orders,
    and several clients of one event loop, can share a `Progress`.

    A bar disappears when the order has ended, when the wait is over, or when the task that waited
    has ended. Use `with`, or call `close`, to remove all bars earlier.

    Args:
        clock: The clock of the client. None: the clock of a client without arguments, which is the
            machine's, or that of a simulator (`SMS4SATS_SPEED`).
        display: `"notebook"`, `"terminal"`, `"plain"`, or `"auto"` for the one that fits.
        file: Where to write lines and bars; None: standard error. A file that cannot be written any
            more, such as a closed pipe, is ignored.

    Raises:
        ImportError: If a package is missing that the display needs; the message says what to
            install.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        display: Literal["auto", "notebook", "terminal", "plain"] = "auto",
        file: TextIO | None = None,
    ) -> None:
        if clock is None:
            clock = clock_for(os.environ.get("SMS4SATS_BASE_URL", ""), os.environ)
        self._now = time.time if clock is None else clock.now
        self._rows: dict[str | None, Row] = {}
        self._tidied = self._now()
        self._closed = False
        self._screen = screen_for(display, sys.stderr if file is None else file, self._now)

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if self._closed:
            return
        now = self._now()
        before = self._rows.get(event.order_id, Row(mask(event.order_id)))
        row = fold(before, event, now)
        if row is before:
            return
        if isinstance(event, Waiting) or getattr(event, "delay", None) is not None:
            row = attrs.evolve(row, waiter=_running_coroutine())
        self._rows[event.order_id] = row
        if isinstance(event, OrderCreated):
            self._rows.pop(None, None)  # the call that created it has ended
        self._tidy(now)
        self._screen.show(list(self._rows.values()), row, event)

    def close(self) -> None:
        """Remove the bars. Later events are not shown."""
        self._closed = True
        self._screen.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _tidy(self, now: float) -> None:
        """Forget orders without events, from time to time."""
        if now - self._tidied < _MEMORY:
            return
        self._tidied = now
        self._rows = {
            key: row
            for key, row in self._rows.items()
            if row.waits(now) or now - row.updated < _MEMORY
        }


def _running_coroutine() -> object:
    """Return the coroutine of the task that runs, or None outside of an event loop."""
    try:
        return anyio.get_current_task().coro
    except RuntimeError:
        return None


def screen_for(display: str, file: TextIO, now: Callable[[], float]) -> Screen:
    """Return the display with that name, or the one that fits."""
    if display == "auto":
        display = _fitting(file)
    # Each needs an extra.
    if display == "notebook":
        from .notebook import Notebook  # noqa: PLC0415

        return Notebook(now)
    if display == "terminal":
        from .terminal import Terminal  # noqa: PLC0415

        return Terminal(file, now)
    return Lines(file)


def _fitting(file: TextIO) -> str:
    """Return the name of the display that fits."""
    # A notebook has imported IPython.
    if "IPython" in sys.modules:
        from IPython import get_ipython  # noqa: PLC0415 - an extra

        # IPython in a terminal has no kernel.
        if getattr(get_ipython(), "kernel", None) is not None:
            return "notebook"
    dumb = os.environ.get("TERM") in {"dumb", "unknown"}
    return "terminal" if file.isatty() and not dumb else "plain"


class Lines:
    """Lines only, for a pipe or a log."""

    def __init__(self, file: TextIO) -> None:
        self._file = SafeFile(file)

    def show(self, rows: list[Row], row: Row, event: Event) -> None:  # noqa: ARG002
        """Print the news."""
        if row.news:
            self._file.write(f"{row.line}\n")

    def close(self) -> None:
        """Do nothing."""
