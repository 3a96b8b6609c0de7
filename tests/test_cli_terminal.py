"""The command `sms4sats` at a terminal: what somebody sees, and what a telephone's camera sees.

The terminal is a pseudo-terminal. What it shows is worked out anew here, a cell at a time, with the
colours that the program asked for; and read by a QR reader that has nothing to do with the library
that drew the code.
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
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

import anyio.from_thread
import attrs
import pytest
import zxingcpp

from sms4sats_async import Country, Invoice, Sms4SatsClient
from sms4sats_async.cli import main, session
from sms4sats_async.cli.qr import draw
from sms4sats_async.simulator import Behaviour, Fault, ManualClock, Simulator

SGR: Final = re.compile(r"\x1b\[([0-9;:]*)m")
BLACK, WHITE = 0, 255
BACKGROUNDS = pytest.mark.parametrize("background", [BLACK, WHITE], ids=["dark", "light"])

COLOURS: Final = {16: BLACK, 231: WHITE}
"""The corners of the cube of 256 colours; any other colour would be a matter of the theme."""

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


def photograph(lines: Sequence[str], columns: int, background: int, scale: int = 4) -> memoryview:
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
        return self._seen.decode(errors="replace").replace("\r\n", "\n").splitlines()


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
class Desk:
    """Somebody at a terminal, with the service on the other side."""

    service: Simulator
    clock: ManualClock
    monkeypatch: pytest.MonkeyPatch
    captured: pytest.CaptureFixture[str]

    def __call__(
        self, *words: str, columns: int = 100, lines: int = 60, encoding: str = "utf-8"
    ) -> Seen:
        """Run a command whose output and errors both go to the terminal."""
        terminal = Terminal(columns, lines, encoding)
        try:
            with self.monkeypatch.context() as patch:
                patch.setattr(sys, "stdout", terminal.stream)
                patch.setattr(sys, "stderr", terminal.stream)
                code = main(words)
        finally:
            seen = terminal.close()
        return Seen(code, seen)

    def with_a_pipe(self, *words: str) -> tuple[Seen, str]:
        """Run a command whose errors alone go to the terminal: `CODE=$(sms4sats ...)`."""
        terminal = Terminal(100, 60)
        try:
            with self.monkeypatch.context() as patch:
                patch.setattr(sys, "stderr", terminal.stream)
                code = main(words)
        finally:
            seen = terminal.close()
        return Seen(code, seen), self.captured.readouterr().out


@pytest.fixture
def desk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Desk]:
    clock = ManualClock()
    service = Simulator(Behaviour(pay_delay=0), clock=clock)
    monkeypatch.setattr(session, "CLOCK", clock)
    monkeypatch.setenv("SMS4SATS_JOURNAL", str(tmp_path / "orders.sqlite"))
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(service.serve()) as root,
    ):
        monkeypatch.setenv("SMS4SATS_BASE_URL", root)
        yield Desk(service, clock, monkeypatch, capsys)


# --- the QR code ----------------------------------------------------------------------------------


@BACKGROUNDS
@pytest.mark.parametrize("columns", [100, 60])
def test_a_qr_code_is_read_from_the_terminal(desk: Desk, columns: int, background: int) -> None:
    """In upper case, which makes the smaller code; also where there is little space around it."""
    seen = desk("order", "187", "tg", columns=columns)

    (order,) = desk.service.orders
    found = codes_in(photograph(seen.lines, columns, background))
    assert found == [order.payreq.upper()]
    assert Invoice.parse(found[0]).amount_sat == 1500


def test_amount_and_expiry_stand_under_the_qr_code(desk: Desk) -> None:
    lines = desk("order", "187", "tg").text.splitlines()

    last = max(number for number, line in enumerate(lines) if "▀" in line or "▄" in line)
    under = [line for line in lines[last + 1 :] if line.strip()]
    assert under[0] == "to pay      1,500 sat"
    assert under[1].startswith("pay until   20")


def test_there_is_white_around_the_code_whatever_the_terminal(desk: Desk) -> None:
    """Four modules on every side, as the norm asks for; a dark terminal has no white of its own."""
    lines = desk("order", "187", "tg").lines
    code = screen_of([line for line in lines if "48;5;231" in line])

    for row in (*code[:2], *code[-2:]):
        assert {(cell.letter, cell.paper) for cell in row} == {(" ", 231)}
    for row in code:
        for cell in (*row[:4], *row[-4:]):
            assert (cell.letter, cell.paper) == (" ", 231)


def test_a_code_that_is_too_wide_is_not_drawn(desk: Desk) -> None:
    text = desk("order", "187", "tg", columns=50).text

    assert "▀" not in text
    assert "The QR code is wider than the 50 columns" in text
    assert desk.service.orders[0].payreq in text.replace("\n", "")


def test_a_code_that_is_too_high_says_so(desk: Desk) -> None:
    text = desk("order", "187", "tg", lines=20).text

    assert "▀" in text
    assert "The QR code has 31 lines. Make the terminal higher to scan it." in text


def test_a_terminal_that_cannot_draw_gets_the_invoice_alone(desk: Desk) -> None:
    """Neither colours nor blocks are taken for granted, and an order's id is never lost by them."""
    old = desk("order", "187", "tg", encoding="latin-1")
    desk.monkeypatch.setenv("TERM", "dumb")
    dumb = desk("order", "187", "tg")

    for seen, order in zip((old, dumb), desk.service.orders, strict=True):
        assert seen.code == 0
        assert "\x1b" not in "".join(seen.lines)
        assert order.order_id in seen.text
        assert order.payreq in seen.text.replace("\n", "")


def test_a_letter_that_the_terminal_does_not_have_is_a_question_mark(desk: Desk) -> None:
    desk("order", "187", "tg")
    order_id = desk.service.orders[0].order_id

    seen = desk("status", order_id, encoding="latin-1")

    assert seen.code == 0
    assert f"{order_id[:4]}?{order_id[-4:]}" in seen.text


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
def test_a_table_on_a_terminal_without_its_letters_has_question_marks(
    desk: Desk, encoding: str
) -> None:
    async def get_countries(_client: Sms4SatsClient) -> list[Country]:
        return [Country(7, "Россия")]

    desk("order", "187", "tg")
    desk.monkeypatch.setattr(Sms4SatsClient, "get_countries", get_countries)

    countries = desk("countries", encoding=encoding)

    assert desk("pending", encoding=encoding).code == 0
    assert countries.code == 0
    assert "??????" in countries.text


def test_a_terminal_that_does_not_know_its_size_is_80_by_24(desk: Desk) -> None:
    lines = desk("order", "187", "tg", columns=0, lines=0).lines

    assert codes_in(photograph(lines[:-8], 80, BLACK)) == [desk.service.orders[0].payreq.upper()]


def test_a_text_that_no_code_can_hold_is_not_drawn() -> None:
    assert draw("A" * 5000, 1000) is None


@pytest.mark.parametrize(("columns", "width"), [(36, None), (37, 37), (40, 37), (41, 41), (99, 41)])
def test_each_width_gets_as_much_white_as_fits(columns: int, width: int | None) -> None:
    drawn = draw("LNBC1" * 20, columns)

    assert width == (None if drawn is None else len(screen_of(drawn)[0]))


@BACKGROUNDS
def test_tmux_shows_the_code_so_that_it_can_be_read(desk: Desk, background: int) -> None:
    """A terminal that somebody else wrote, asked for what is on its screen."""
    if shutil.which("tmux") is None:
        pytest.skip("there is no tmux here")
    with tmux(f"{sys.executable} -m sms4sats_async order 187 tg", 100, 60) as screen:
        shown = screen()

    (order,) = desk.service.orders
    assert codes_in(photograph(shown, 100, background)) == [order.payreq.upper()]


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


# --- what else somebody sees ----------------------------------------------------------------------


def test_a_table_is_for_people(desk: Desk) -> None:
    seen = desk("countries")

    assert seen.text.splitlines()[:2] == [
        " id  name            visible  rentable",
        "999  Auto-Select                      ",
    ]
    assert "\x1b[1m" in seen.lines[0]


def test_a_table_fits_into_60_columns(desk: Desk) -> None:
    """What no row has is left out, and an id is short: every command takes it so."""
    desk("order", "187", "tg")
    (order,) = desk.service.orders

    head, row = desk("pending", columns=60).text.splitlines()

    assert head.split() == ["order", "created", "at", "country", "service"]
    assert row.startswith(f"{order.order_id[:4]}…{order.order_id[-4:]}  2027-01-15 ")


def test_an_empty_table_is_nothing(desk: Desk) -> None:
    assert desk("pending").text == "No order is pending."


def test_a_name_cannot_move_the_cursor(desk: Desk) -> None:
    """What the service calls things is foreign text."""
    evil = {"id": 5, "eng": "\x1b[2J\x1b]0;x\x07[bold]Evil[/bold]"}
    desk.monkeypatch.setattr("sms4sats_async.simulator.endpoints.COUNTRIES", [evil])

    text = desk("countries").text

    assert "�[2J�]0;x�[bold]Evil[/bold]" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("columns", [60, 100])
def test_a_note_breaks_between_words(desk: Desk, columns: int) -> None:
    seen = desk("cancel", "0123", "--created-at", "2026-11-23T14:03", columns=columns)

    assert seen.code == 2
    assert max(map(len, seen.lines)) <= columns
    assert len(seen.lines) > 2


def test_a_wait_is_a_bar_with_the_time_left_and_the_reason(desk: Desk) -> None:
    desk("order", "187", "tg")
    (order,) = desk.service.orders
    desk.service.set_behaviour(order.order_id, Behaviour(code_delay=None))
    desk.service.script("/cancelorder", Fault.unable_to_save_data())

    text = desk("cancel", order.order_id).text

    assert "2:00 left" in text
    assert "the service does not cancel younger orders" in text
    assert "attempt 1 of 4 failed, next in" in text
    assert text.rstrip().endswith("The service refunds what was paid.")


def test_the_code_goes_into_the_pipe_and_the_invoice_to_the_terminal(desk: Desk) -> None:
    """So that `CODE=$(sms4sats code 187 tg)` shows what to pay, and keeps the code alone."""
    seen, piped = desk.with_a_pipe("code", "187", "tg")

    (order,) = desk.service.orders
    drawn = [line for line in seen.lines if "48;5;231" in line]
    assert seen.code == 0
    assert piped == "012345\n"
    assert codes_in(photograph(drawn, 100, BLACK)) == [order.payreq.upper()]


def test_json_is_json_at_a_terminal_too(desk: Desk) -> None:
    seen = desk("price", "--json")

    assert json.loads("".join(seen.lines))["receive"] == 1500
