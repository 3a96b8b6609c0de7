"""What a command prints: results on standard output, everything else on standard error."""

import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, TextIO

import attrs

from sms4sats_async import Order

from .ends import End, ExitCode
from .facts import described, in_json, in_words, order_facts, shortened
from .streams import discard
from .times import local

_WHOLE_SECONDS: Final = len("2026-11-23 14:03:00")
_FROM_THE_BALANCE: Final = frozenset({"paid", ""})


@attrs.frozen
class Output:
    """The two streams, in one of three manners: JSON, plain lines, or for somebody at a terminal.

    Attributes:
        json: One JSON object per line on standard output, and nothing else there.
    """

    json: bool

    def show(self, known: Mapping[str, object], text: str | None = None) -> None:
        """Show one result: as `text` if there is one, else a line for each fact."""
        if self.json:
            text = in_json(known)
        elif text is None:
            text = _in_lines({name: _short(fact, name) for name, fact in known.items()})
        _say(text, sys.stdout)

    def table(self, rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> None:
        """Show many results: of each those columns, in a table, or with tabs between them."""
        if self.json:
            for row in rows:
                self.show(row)
            return
        if not sys.stdout.isatty():
            for row in rows:
                _say("\t".join(in_words(row[name], name) for name in columns), sys.stdout)
            return
        from rich.console import Console  # noqa: PLC0415 - slow, and for a terminal only
        from rich.table import Table  # noqa: PLC0415

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        shown = [name for name in columns if any(row[name] is not None for row in rows)]
        for name in shown:
            number = all(type(row[name]) in {int, type(None)} for row in rows)
            title = name.removesuffix("_id").replace("_", " ")
            table.add_column(title, justify="right" if number else "left", overflow="fold")
        for row in rows:
            table.add_row(*(_cell(row[name], name) for name in shown))
        if rows:
            Console(highlight=False, markup=False, emoji=False).print(table)

    def order(self, order: Order, *, on_the_way: bool = False) -> None:
        """Show an order, and its invoice as a QR code where it can be seen.

        Args:
            order: The order.
            on_the_way: It is no result, but what somebody has to pay while the command runs: it
                goes to standard error, and leaves standard output to the result. Not in JSON, where
                a program may have to pay it.
        """
        known = order_facts(order)
        if self.json:
            self.show(known)
            return
        stream = sys.stderr if on_the_way else sys.stdout
        if order.invoice in _FROM_THE_BALANCE:
            self.note("It is paid from the balance.")
        else:
            if _can_draw(stream):
                self._qr(order.invoice, stream)
            if known["amount_sat"] is None:
                self.note("The invoice has no readable amount. Check it in your wallet.")
        _say(_in_lines(known), stream)

    def note(self, text: str) -> None:
        """Print a note on standard error."""
        _say(_wrapped(text), sys.stderr)

    def end(self, end: End, order_id: str | None = None) -> None:
        """Print why the command failed, or its work for one of many orders."""
        if self.json:
            known = {"error": end.message, "next_step": end.next_step, "exit_code": end.code}
            self.show(known if order_id is None else known | {"order_id": order_id})
            return
        about = "" if order_id is None else f"{shortened(order_id)}  "
        head = "" if end.code is ExitCode.INTERRUPTED else "Error: "
        self.note(f"{about}{head}{end.message}")
        if end.next_step is not None:
            self.note(end.next_step)

    def _qr(self, invoice: str, stream: TextIO) -> None:
        from .qr import draw  # noqa: PLC0415 - needed where somebody looks, and not else

        columns, lines = _size(stream)
        drawn = draw(invoice.upper(), columns)
        if drawn is None:
            self.note(f"The QR code is wider than the {columns} columns of this terminal.")
            return
        _say("\n".join(drawn), stream)
        if lines <= len(drawn):
            self.note(f"The QR code has {len(drawn)} lines. Make the terminal higher to scan it.")


def _cell(fact: object, name: str) -> str:
    """Return a value for a cell of a table."""
    if isinstance(fact, datetime):
        return local(fact)[:_WHOLE_SECONDS]
    return in_words(_short(fact, name), name)


def _short(fact: object, name: str) -> object:
    """Return a value in its short form; commands accept this form of an ID too."""
    return shortened(fact) if name == "order_id" and isinstance(fact, str) else fact


def _say(text: str, stream: TextIO) -> None:
    try:
        stream.write(f"{text}\n")
        stream.flush()  # a program may act on each line
    except BrokenPipeError:
        if stream is not sys.stderr:
            raise
        # The reader of the notes is gone. The command goes on, because its result still counts.
        discard(stream)


def _can_draw(stream: TextIO) -> bool:
    """Return whether the stream is a terminal with colours and block characters."""
    try:
        "▀▄".encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _size(stream: TextIO) -> tuple[int, int]:
    """Return the columns and lines of a terminal; 80 by 24 if they are unknown."""
    columns, lines = os.get_terminal_size(stream.fileno())
    return columns or 80, lines or 24


def _in_lines(known: Mapping[str, object]) -> str:
    parts = [*described(known)]
    width = max((len(label) for label, _ in parts), default=0)
    return "\n".join(f"{label:<{width}}  {words}" for label, words in parts)


def _wrapped(text: str) -> str:
    """Return a text that breaks between words, for a terminal."""
    if not sys.stderr.isatty():
        return text
    columns, _ = _size(sys.stderr)
    return textwrap.fill(text, columns, break_long_words=False, break_on_hyphens=False)
