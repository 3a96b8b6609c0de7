"""What the client waits for, shown while it waits: in a notebook, in a terminal, or line by line.

```python
client = Sms4SatsClient(on_event=Progress())
```

Events are folded into rows, one for each order (`rows`). What happens is told in lines, and what is
waited for is a bar with the time left.
"""

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Literal, Protocol, Self, TextIO

from sms4sats_async import Clock, Event, OrderCreated

from .rows import Row, fold, mask

__all__ = ["Progress"]

_MEMORY: Final = 600.0
"""Seconds after which an order that nothing is heard of is forgotten."""


class Screen(Protocol):
    """Where rows are shown."""

    def show(self, rows: list[Row], row: Row, event: Event) -> None:
        """Show all rows, of which one is new by an event."""
        ...

    def close(self) -> None:
        """Leave what is shown in its last state, and stop."""
        ...


class Progress:
    """Shows what a client waits for: `Sms4SatsClient(on_event=Progress())`.

    In a notebook it is a display that each event updates, and whose bar and seconds go on by
    themselves in the page; in a terminal lines, and under them live bars on standard error; where
    standard error is no terminal, lines alone. Several orders, and several clients of one event
    loop, can share one.

    It ends by itself with what is waited for. Use it with `with`, or call `close`, to end it at
    a certain place.

    Args:
        clock: The clock of the client, if that has another than the machine's.
        display: `"notebook"`, `"terminal"`, `"plain"`, or `"auto"`, which looks where it is.
        file: Where to write lines and bars; standard error if None.

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
        self._now = time.time if clock is None else clock.now
        self._rows: dict[str | None, Row] = {}
        self._tidied = self._now()
        self._closed = False
        self._screen = screen_for(display, sys.stderr if file is None else file, self._now)

    def __call__(self, event: Event) -> None:
        """Show what the client tells."""
        if self._closed:
            return
        now = self._now()
        before = self._rows.get(event.order_id, Row(mask(event.order_id)))
        row = fold(before, event, now)
        if row is before:
            return
        self._rows[event.order_id] = row
        if isinstance(event, OrderCreated):
            self._rows.pop(None, None)  # the call that made it has come to its end
        self._tidy(now)
        self._screen.show(list(self._rows.values()), row, event)

    def close(self) -> None:
        """End the display; what comes after that is not shown."""
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
        """Forget orders of long ago, now and then."""
        if now - self._tidied < _MEMORY:
            return
        self._tidied = now
        self._rows = {
            key: row
            for key, row in self._rows.items()
            if row.waits(now) or now - row.heard < _MEMORY
        }


def screen_for(display: str, file: TextIO, now: Callable[[], float]) -> Screen:
    """Return the display that was asked for, or the one that can be had."""
    if display == "auto":
        display = _fitting(file)
    # What each needs is an extra.
    if display == "notebook":
        from .notebook import Notebook  # noqa: PLC0415

        return Notebook(now)
    if display == "terminal":
        from .terminal import Terminal  # noqa: PLC0415

        return Terminal(file, now)
    return Lines(file)


def _fitting(file: TextIO) -> str:
    """Return which display can be had."""
    # Who is in a notebook has imported IPython.
    if "IPython" in sys.modules:
        from IPython import get_ipython  # noqa: PLC0415 - an extra

        # A terminal's IPython has no kernel.
        if getattr(get_ipython(), "kernel", None) is not None:
            return "notebook"
    dumb = os.environ.get("TERM") in {"dumb", "unknown"}
    return "terminal" if file.isatty() and not dumb else "plain"


class Lines:
    """Lines alone, where nothing can be drawn over: a pipe, a log."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def show(self, rows: list[Row], row: Row, event: Event) -> None:  # noqa: ARG002
        if row.news:
            print(row.line, file=self._file, flush=True)

    def close(self) -> None: ...
