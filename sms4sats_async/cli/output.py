"""What a command prints: results on standard output, everything else on standard error."""

import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final, TextIO

import attrs

from sms4sats_async import Order

from .ends import End, ExitCode
from .facts import described, in_json, in_words, local, order_facts, shortened

_WHOLE_SECONDS: Final = len("2026-11-23 14:03:00")
_FROM_THE_BALANCE: Final = frozenset({"paid", ""})


@attrs.frozen
class Output:
    """Prints JSON, plain lines, or what fits a terminal.

    Attributes:
        json: One JSON object per line on standard output, and nothing else there.
    """

    json: bool

    def show(self, known: Mapping[str, object], text: str | None = None) -> None:
        """Print one result: in JSON, or as `text` on one line, or with a line for each fact."""
        if self.json:
            text = in_json(known)
        elif text is None:
            text = _in_lines({name: _short(fact, name) for name, fact in known.items()})
        else:
            text = in_words(text)
        _print(text, sys.stdout)

    def table(self, rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> None:
        """Print these columns of many results: as a table, or with tabs between them."""
        if self.json:
            for row in rows:
                self.show(row)
            return
        if not sys.stdout.isatty():
            for row in rows:
                _print("\t".join(in_words(row[name], name) for name in columns), sys.stdout)
            return
        from rich.console import Console  # noqa: PLC0415 - slow, and for a terminal only
        from rich.table import Table  # noqa: PLC0415

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        shown = [name for name in columns if any(in_words(row[name]) for row in rows)]
        for name in shown:
            number = all(type(row[name]) in {int, type(None)} for row in rows)
            title = name.removesuffix("_id").replace("_", " ")
            table.add_column(title, justify="right" if number else "left", overflow="fold")
        for row in rows:
            table.add_row(*(_cell(row[name], name) for name in shown))
        if rows:
            Console(highlight=False, markup=False, emoji=False).print(table)

    def order(self, order: Order, *, on_the_way: bool = False) -> None:
        """Print an order, and its invoice as a QR code on a terminal.

        Args:
            order: The order.
            on_the_way: The order is not the result of the command, so it goes to standard error.
                JSON goes to standard output, because a program may have to pay the invoice.
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
        _print(_in_lines(known), stream)

    def note(self, text: str) -> None:
        """Print a note on standard error, with line breaks between words on a terminal."""
        if sys.stderr.isatty():
            columns, _ = _size(sys.stderr)
            text = textwrap.fill(text, columns, break_long_words=False, break_on_hyphens=False)
        _print(text, sys.stderr)

    def end(self, end: End, order_id: str | None = None) -> None:
        """Print why the command failed, or its work for one of many orders."""
        about = "" if order_id is None else f"{shortened(order_id)}  "
        known = {"error": end.message, "next_step": end.next_step, "exit_code": end.code}
        if self.json:
            with suppress(OSError):  # standard output is broken, so use standard error
                self.show(known if order_id is None else known | {"order_id": order_id})
                return
        head = "" if end.code is ExitCode.INTERRUPTED else "Error: "
        self.note(f"{about}{head}{end.message}")
        self.note(end.next_step)

    def _qr(self, invoice: str, stream: TextIO) -> None:
        from .qr import draw  # noqa: PLC0415 - for a terminal only

        columns, lines = _size(stream)
        drawn = draw(invoice.upper(), columns)
        if drawn is None:
            self.note(f"The QR code is wider than the {columns} columns of this terminal.")
            return
        _print("\n".join(drawn), stream)
        if lines <= len(drawn):
            self.note(f"The QR code has {len(drawn)} lines. Make the terminal higher to scan it.")


def _print(text: str, stream: TextIO) -> None:
    """Print a text; a standard error that is gone stops nothing, because the result counts."""
    try:
        stream.write(f"{text}\n")
        stream.flush()  # a program may act on each line
    except OSError:
        if stream is not sys.stderr:
            raise


def _cell(fact: object, name: str) -> str:
    """Return a value for a cell of a table."""
    if isinstance(fact, datetime):
        return local(fact)[:_WHOLE_SECONDS]
    return in_words(_short(fact, name), name)


def _short(fact: object, name: str) -> object:
    """Return a value in its short form; commands accept this form of an ID too."""
    return shortened(fact) if name == "order_id" and isinstance(fact, str) else fact


def _can_draw(stream: TextIO) -> bool:
    """Return whether the stream is a terminal with colours and block characters."""
    try:
        "▀▄".encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _size(stream: TextIO) -> tuple[int, int]:
    """Return the columns and lines of a terminal; 80 by 24 if they are unknown."""
    columns = lines = 0
    with suppress(OSError):  # the terminal is gone
        columns, lines = os.get_terminal_size(stream.fileno())
    return columns or 80, lines or 24


def _in_lines(known: Mapping[str, object]) -> str:
    parts = [*described(known)]
    width = max((len(label) for label, _ in parts), default=0)
    return "\n".join(f"{label:<{width}}  {words}" for label, words in parts)
