"""The command `sms4sats` at a terminal: what a person sees, and what a telephone's camera sees.

The terminal is a pseudo-terminal. The tests compute what it shows, cell by cell, with the colours
that the program set. A QR reader that is independent of the library reads it.
"""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TextIO

import attrs
import pytest
import zxingcpp

from sms4sats_async import Country, Invoice, Sms4SatsClient
from sms4sats_async.cli import main
from sms4sats_async.cli.qr import draw
from sms4sats_async.simulator import Fault, Simulator
from sms4sats_async.simulator.invoice import make_invoice

from .command_line import Server, Shell, new_shell, no_code, served, short

SGR: Final = re.compile(r"\x1b\[([0-9;:]*)m")
BLACK, WHITE = 0, 255
BACKGROUNDS = pytest.mark.parametrize("background", [BLACK, WHITE], ids=["dark", "light"])

COLOURS: Final = {16: BLACK, 231: WHITE}
"""The corners of the cube of 256 colours. Any other colour depends on the theme."""

INKED: Final = {" ": (False, False), "▀": (True, False), "▄": (False, True), "█": (True, True)}
"""Which halves of its cell a letter fills, the upper and the lower."""


# --- what a terminal shows ------------------------------------------------------------------------


@attrs.frozen
class Cell:
    """One letter, and the colours it was printed in; None: those of the terminal."""

    letter: str
    ink: int | None = None
    paper: int | None = None


def screen_of(lines: Sequence[str]) -> list[list[Cell]]:
    """Lines of output as a terminal shows them; a colour lasts until there is another."""
    ink: int | None = None
    paper: int | None = None
    screen: list[list[Cell]] = []
    for line in lines:
        screen.append([])
        for place, part in enumerate(SGR.split(line)):
            if place % 2 == 0:
                screen[-1] += [Cell(letter, ink, paper) for letter in part]
                continue
            codes = [int(code or 0) for code in part.replace(":", ";").split(";")]
            while codes:
                code = codes.pop(0)
                if code in {38, 48}:
                    assert codes.pop(0) == 5, "a colour that is none of the 256"
                if code in {0, 38, 39}:
                    ink = codes.pop(0) if code == 38 else None
                if code in {0, 48, 49}:
                    paper = codes.pop(0) if code == 48 else None
    return screen


def rendered(lines: Sequence[str], columns: int, background: int, scale: int = 4) -> memoryview:
    """The picture of a terminal whose own paper is of that grey: two rows of dots to a line."""
    rows: list[list[int]] = []
    for line in screen_of(lines):
        for start in range(0, max(len(line), 1), columns):  # what is too long goes on below
            shown = line[start : start + columns]
            shown += [Cell(" ")] * (columns - len(shown))
            for half in (0, 1):
                row: list[int] = []
                for cell in shown:
                    paper = background if cell.paper is None else COLOURS[cell.paper]
                    ink = WHITE - background if cell.ink is None else COLOURS[cell.ink]
                    inked = INKED.get(cell.letter, (True, False))[half]
                    row += [ink if inked else paper] * scale
                rows += [row] * scale
    dots = bytes(dot for row in rows for dot in row)
    return memoryview(dots).cast("B", (len(rows), columns * scale))


def codes_in(picture: memoryview) -> list[str]:
    """What a QR reader finds in a picture."""
    return [found.text for found in zxingcpp.read_barcodes(picture)]


# --- a terminal -----------------------------------------------------------------------------------


class Terminal:
    """A pseudo-terminal, and what was printed to it."""

    def __init__(self, columns: int, lines: int, encoding: str = "utf-8") -> None:
        self._master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.slave, (lines, columns))
        self.stream: TextIO = os.fdopen(os.dup(self.slave), "w", encoding=encoding)
        self._encoding = encoding
        self._seen = bytearray()
        # Read as it comes, because unread output stops the program that prints.
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self._master, 65536)
            except OSError:  # no process has it open any more
                return
            if not piece:
                return
            self._seen += piece

    def close(self) -> list[str]:
        """Close it and return the lines that were printed."""
        self.stream.close()
        os.close(self.slave)
        self._reader.join()
        os.close(self._master)
        return self._seen.decode(self._encoding).replace("\r\n", "\n").splitlines()


@attrs.frozen
class Seen:
    """What a command left on the terminal, and its exit code."""

    code: int
    lines: list[str]

    @property
    def text(self) -> str:
        """Without colours."""
        return SGR.sub("", "\n".join(self.lines))


@attrs.frozen
class TerminalRunner:
    """Runs commands at a terminal, and returns what it shows."""

    shell: Shell

    @property
    def service(self) -> Simulator:
        return self.shell.service

    def __call__(
        self, *words: str, columns: int = 100, lines: int = 60, encoding: str = "utf-8"
    ) -> Seen:
        """Run a command whose output and errors both go to the terminal."""
        return self._run(words, ("stdout", "stderr"), Terminal(columns, lines, encoding))

    def with_a_pipe(self, *words: str) -> tuple[Seen, str]:
        """Run a command of which only the errors go to the terminal: `CODE=$(sms4sats ...)`."""
        seen = self._run(words, ("stderr",), Terminal(100, 60))
        return seen, self.shell.captured.readouterr().out

    def _run(self, words: Sequence[str], streams: Sequence[str], terminal: Terminal) -> Seen:
        try:
            with self.shell.patch.context() as patch:
                for name in streams:
                    patch.setattr(sys, name, terminal.stream)
                code = main(words)
        finally:
            seen = terminal.close()
        return Seen(code, seen)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with served() as server:
        yield server


@pytest.fixture
def at_terminal(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> TerminalRunner:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return TerminalRunner(new_shell(server, monkeypatch, tmp_path, capsys))


# --- the QR code ----------------------------------------------------------------------------------


@BACKGROUNDS
@pytest.mark.parametrize("columns", [100, 60])
def test_a_qr_code_is_read_from_the_terminal(
    at_terminal: TerminalRunner, columns: int, background: int
) -> None:
    """In upper case, which makes the smaller code; also where there is little space around it."""
    seen = at_terminal("order", "187", "tg", columns=columns)

    (order,) = at_terminal.service.orders
    found = codes_in(rendered(seen.lines, columns, background))
    assert found == [order.payreq.upper()]
    assert Invoice.parse(found[0]).amount_sat == 1500


def test_amount_and_expiry_are_shown_below_the_qr_code(at_terminal: TerminalRunner) -> None:
    lines = at_terminal("order", "187", "tg").text.splitlines()

    last = max(number for number, line in enumerate(lines) if "▀" in line or "▄" in line)
    under = [line for line in lines[last + 1 :] if line.strip()]
    assert under[0] == "to pay      1,500 sat"
    assert under[1].startswith("pay until   20")


def test_the_qr_code_has_a_white_border_on_every_terminal(at_terminal: TerminalRunner) -> None:
    """Four modules on every side, as the norm asks for; a dark terminal has no white of its own."""
    lines = at_terminal("order", "187", "tg").lines
    code = screen_of([line for line in lines if "48;5;231" in line])

    for row in (*code[:2], *code[-2:]):
        assert {(cell.letter, cell.paper) for cell in row} == {(" ", 231)}
    for row in code:
        for cell in (*row[:4], *row[-4:]):
            assert (cell.letter, cell.paper) == (" ", 231)


def test_a_code_that_is_too_wide_is_not_drawn(at_terminal: TerminalRunner) -> None:
    text = at_terminal("order", "187", "tg", columns=50).text

    assert "▀" not in text
    assert "The QR code is wider than the 50 columns" in text
    assert at_terminal.service.orders[0].payreq in text.replace("\n", "")


def test_a_code_that_is_too_high_says_so(at_terminal: TerminalRunner) -> None:
    text = at_terminal("order", "187", "tg", lines=20).text

    assert "▀" in text
    assert "The QR code has 31 lines. Make the terminal higher to scan it." in text


def test_a_terminal_that_cannot_draw_gets_the_invoice_alone(at_terminal: TerminalRunner) -> None:
    """Neither colours nor blocks are taken for granted, and an order's ID is never lost by them."""
    old = at_terminal("order", "187", "tg", encoding="latin-1")
    at_terminal.shell.patch.setenv("TERM", "dumb")
    dumb = at_terminal("order", "187", "tg")

    for seen, order in zip((old, dumb), at_terminal.service.orders, strict=True):
        assert seen.code == 0
        assert "\x1b" not in "".join(seen.lines)
        assert order.order_id in seen.text
        assert order.payreq in seen.text.replace("\n", "")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("countries", "??????"),
        ("pending", "{0}{1}{2}"),
        ("status {3}", "{0}{1}{2}"),
        ("resume", "{0}{1}{2}  The code arrived"),
        ("code 187 tg", "012345"),
        ("order 187 tg", "lnbcrt"),
        ("cancel {3}", "The code arrived"),
        ("watch {3}", "code 012345"),
        ("cancel zzzz…zzzz", "an ID like 'zzzz{1}zzzz'"),
    ],
)
def test_a_letter_that_the_terminal_does_not_have_is_replaced(
    at_terminal: TerminalRunner, encoding: str, command: str, text: str
) -> None:
    async def get_countries(_client: Sms4SatsClient) -> list[Country]:
        return [Country(7, "Россия")]

    at_terminal.shell.patch.setattr(Sms4SatsClient, "get_countries", get_countries)
    order_id = at_terminal.shell.order()
    dots = "…" if encoding == "cp1252" else "?"
    parts = (order_id[:4], dots, order_id[-4:], order_id)

    seen = at_terminal(*command.format(*parts).split(), encoding=encoding)

    assert text.format(*parts) in seen.text
    assert seen.code == (2 if "zzzz" in command else 0)


def test_an_invoice_without_an_end_of_its_time_is_shown(
    at_terminal: TerminalRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    invoice = make_invoice(
        amount_sat=1500,
        payment_hash=bytes(32),
        payment_secret=bytes(32),
        description="a number",
        timestamp=1_800_000_000,
        expiry=2**65 - 1,  # 13 groups of 5 bits
    )
    create = Sms4SatsClient.create_order

    async def create_order(*arguments: Any, **options: Any) -> Any:
        return attrs.evolve(await create(*arguments, **options), invoice=invoice)

    monkeypatch.setattr(Sms4SatsClient, "create_order", create_order)
    try:
        seen = at_terminal("order", "187", "tg")
    finally:
        monkeypatch.undo()
        time.tzset()

    (order,) = at_terminal.service.orders
    assert seen.code == 0
    assert "pay until   9999-12-31 23:59:59+00:00" in seen.text
    assert "created at  2027-01-15 17:00:00+09:00" in seen.text
    assert order.order_id in seen.text
    assert codes_in(rendered(seen.lines, 100, BLACK)) == [invoice.upper()]


def test_a_code_is_printed_although_the_terminal_of_the_progress_is_gone(
    at_terminal: TerminalRunner,
) -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        assert stream.isatty()
        sleep = at_terminal.shell.clock.sleep

        async def hang_up(seconds: float) -> None:
            with suppress(OSError):  # closed before
                os.close(master)
            await sleep(seconds)

        at_terminal.shell.patch.setattr(at_terminal.shell.clock, "sleep", hang_up)
        at_terminal.shell.patch.setattr(sys, "stderr", stream)
        ended = at_terminal.shell("code", "187", "tg")

    assert (ended.code, ended.out) == (0, "012345\n")


def test_a_terminal_that_does_not_know_its_size_is_80_by_24(at_terminal: TerminalRunner) -> None:
    lines = at_terminal("order", "187", "tg", columns=0, lines=0).lines

    assert codes_in(rendered(lines[:-8], 80, BLACK)) == [
        at_terminal.service.orders[0].payreq.upper()
    ]


def test_a_text_that_no_code_can_hold_is_not_drawn() -> None:
    assert draw("A" * 5000, 1000) is None


@pytest.mark.parametrize(("columns", "width"), [(36, None), (37, 37), (40, 37), (41, 41), (99, 41)])
def test_each_width_gets_as_much_white_as_fits(columns: int, width: int | None) -> None:
    drawn = draw("LNBC1" * 20, columns)

    assert width == (None if drawn is None else len(screen_of(drawn)[0]))


@BACKGROUNDS
def test_tmux_shows_the_code_so_that_it_can_be_read(
    at_terminal: TerminalRunner, background: int
) -> None:
    """Compare with the screen of tmux, a terminal that is not part of this project."""
    if shutil.which("tmux") is None:
        pytest.skip("there is no tmux here")
    with tmux(f"{sys.executable} -m sms4sats_async order 187 tg", 100, 60) as screen:
        shown = screen()

    (order,) = at_terminal.service.orders
    assert codes_in(rendered(shown, 100, background)) == [order.payreq.upper()]


@contextmanager
def tmux(command: str, columns: int, lines: int) -> Generator[Callable[[], list[str]]]:
    """A tmux server of our own; what is yielded waits for the command's end and reads the screen.

    `-f /dev/null` leaves the settings of the user who runs the tests out of it.
    """
    with tempfile.TemporaryDirectory() as folder:
        control = ["tmux", "-f", os.devnull, "-S", f"{folder}/socket"]

        def ask(*words: str) -> str:
            return subprocess.run(  # noqa: S603 - tmux, with words of this file
                [*control, *words], capture_output=True, check=True, text=True
            ).stdout

        def screen() -> list[str]:
            while ask("display-message", "-p", "#{pane_dead}").strip() != "1":
                time.sleep(0.05)
            return ask("capture-pane", "-e", "-p", "-N").splitlines()

        size = ["-x", str(columns), "-y", str(lines)]
        # One command: without a session there is no server to set an option of.
        ask("new-session", "-d", *size, command, ";", "set-option", "remain-on-exit", "on")
        try:
            yield screen
        finally:
            ask("kill-server")


# --- other output at a terminal -------------------------------------------------------------------


def test_a_table_has_a_head_and_aligned_columns(at_terminal: TerminalRunner) -> None:
    seen = at_terminal("countries")

    assert seen.text.splitlines()[:2] == [
        " id  name            visible  rentable",
        "999  Auto-Select                      ",
    ]
    assert "\x1b[1m" in seen.lines[0]


def test_a_table_fits_into_60_columns(at_terminal: TerminalRunner) -> None:
    order_id = at_terminal.shell.order()

    head, row = at_terminal("pending", columns=60).text.splitlines()

    assert head.split() == ["order", "created", "at", "country", "service"]
    assert row.startswith(f"{short(order_id)}  2027-01-15 ")


def test_an_empty_table_is_nothing(at_terminal: TerminalRunner) -> None:
    assert at_terminal("pending").text.startswith("No order is pending in")


def test_a_name_cannot_move_the_cursor(at_terminal: TerminalRunner) -> None:
    evil = {"id": 5, "eng": "\x1b[2J\x1b]0;x\x07[bold]Evil[/bold]"}
    at_terminal.shell.patch.setattr("sms4sats_async.simulator.endpoints.COUNTRIES", [evil])

    text = at_terminal("countries").text

    assert "�[2J�]0;x�[bold]Evil[/bold]" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("columns", [60, 100])
def test_a_note_breaks_between_words(at_terminal: TerminalRunner, columns: int) -> None:
    seen = at_terminal("cancel", "0123", "--created-at", "2026-11-23T14:03", columns=columns)

    assert seen.code == 2
    assert max(map(len, seen.lines)) <= columns
    assert len(seen.lines) > 2


def test_a_wait_is_a_bar_with_the_time_left_and_the_reason(at_terminal: TerminalRunner) -> None:
    order_id = at_terminal.shell.order(no_code())
    at_terminal.service.script("/cancelorder", Fault.unable_to_save_data())

    text = at_terminal("cancel", order_id).text

    assert "2:00 left" in text
    assert "the order cannot be cancelled earlier" in text
    assert "attempt 1 of 4 failed, next in" in text
    assert text.rstrip().endswith("The service refunds what was paid.")


def test_the_code_goes_into_the_pipe_and_the_invoice_to_the_terminal(
    at_terminal: TerminalRunner,
) -> None:
    seen, piped = at_terminal.with_a_pipe("code", "187", "tg")

    (order,) = at_terminal.service.orders
    drawn = [line for line in seen.lines if "48;5;231" in line]
    assert seen.code == 0
    assert piped == "012345\n"
    assert codes_in(rendered(drawn, 100, BLACK)) == [order.payreq.upper()]


def test_json_is_json_at_a_terminal_too(at_terminal: TerminalRunner) -> None:
    seen = at_terminal("price", "--json")

    assert json.loads("".join(seen.lines))["receive"] == 1500
