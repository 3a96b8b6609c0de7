"""The progress display: the fold of events, and what lines, terminals and notebooks show."""

import asyncio
import atexit
import io
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

import anyio
import attrs
import IPython
import pytest

from sms4sats_async import (
    AttemptFailed,
    Event,
    Money,
    OrderCreated,
    OrderEnded,
    OrderOutcome,
    OrderResult,
    OrderState,
    OrderStatus,
    ReceiveOrder,
    StatusPolled,
    TransportError,
    Waiting,
)
from sms4sats_async.progress import Lines, Progress, screen_for, terminal
from sms4sats_async.progress.live import THREAD
from sms4sats_async.progress.notebook import Notebook
from sms4sats_async.progress.rows import Row, fold
from sms4sats_async.progress.terminal import Terminal
from sms4sats_async.simulator import Fault, ManualClock

from .simulated import HELD as PAID
from .simulated import Simulated, turns

ORDER_ID = "0123456789abcdef" * 4
OTHER_ID = "fedcba9876543210" * 4
NOW = 1_800_000_000.0
ROW = Row("0123…cdef")
FAILURE = TransportError("no answer")
CREATED = OrderCreated(ORDER_ID, ReceiveOrder(ORDER_ID, "lnbc1", datetime.fromtimestamp(NOW, UTC)))
HELD = OrderStatus(ORDER_ID, OrderState.HELD, paid=True, money=Money.HELD)
NUMBERED = OrderStatus(
    ORDER_ID, OrderState.NUMBER_ASSIGNED, number="+15551234567", money=Money.HELD
)
ARRIVED = OrderStatus(
    ORDER_ID, OrderState.CODE_RECEIVED, number="+1555", code="0042", money=Money.SETTLED
)
REFUNDED = OrderStatus(ORDER_ID, OrderState.REFUNDED, money=Money.REFUNDED)
CANCELLED = OrderEnded(ORDER_ID, OrderResult(ORDER_ID, OrderOutcome.CANCELLED, attempts=2))
REFUNDED_END = OrderEnded(
    ORDER_ID, OrderResult(ORDER_ID, OrderOutcome.REFUNDED, status=REFUNDED, attempts=2)
)
CODE = OrderEnded(ORDER_ID, OrderResult(ORDER_ID, OrderOutcome.CODE_RECEIVED, "0042"))
UNKNOWN_END = OrderEnded(ORDER_ID, OrderResult(ORDER_ID, None, status=HELD, error=FAILURE))


def waiting(seconds: float, order_id: str | None = ORDER_ID, start: float = NOW) -> Waiting:
    return Waiting(order_id, datetime.fromtimestamp(start + seconds, UTC), "too young")


def failed(attempt: int, delay: float | None, order_id: str | None = ORDER_ID) -> AttemptFailed:
    return AttemptFailed(order_id, "cancel_order", attempt, 4, FAILURE, delay)


def polled(status: OrderStatus) -> StatusPolled:
    return StatusPolled(status.order_id, status)


def folded(*events: Event, now: float = NOW) -> Row:
    row = ROW
    for event in events:
        row = fold(row, event, now)
    return row


# --- the fold -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "news"),
    [
        pytest.param([CREATED], "ordered", id="created"),
        pytest.param([waiting(119.2)], "waiting 2:00: too young", id="waiting"),
        pytest.param([waiting(5.000001)], "waiting 0:05: too young", id="a-microsecond-more"),
        pytest.param([waiting(3723)], "waiting 1:02:03: too young", id="hours"),
        pytest.param([waiting(-5)], "waiting 0:00: too young", id="past"),
        pytest.param(
            [failed(1, 0.84)],
            "cancel_order attempt 1 of 4 failed, next in 0.8 s: no answer",
            id="failed",
        ),
        pytest.param([failed(4, None)], "cancel_order attempt 4 of 4 failed: no answer", id="last"),
        pytest.param(
            [failed(1, None)],
            "cancel_order attempt 1 of 4 failed, no further attempt: no answer",
            id="refused",
        ),
        pytest.param([failed(4, None), failed(4, None)], "", id="same-failure-again"),
        pytest.param([polled(HELD)], "money held", id="held"),
        pytest.param([polled(HELD), polled(HELD)], "", id="same-state-again"),
        pytest.param([polled(NUMBERED)], "number +15551234567, money held", id="numbered"),
        pytest.param(
            [polled(attrs.evolve(NUMBERED, number="\x1b[2J"))],
            "number �[2J, money held",
            id="escape-sequence",
        ),
        pytest.param(
            [polled(attrs.evolve(NUMBERED, number=None))],
            "number assigned, money held",
            id="no-number",
        ),
        pytest.param([polled(ARRIVED)], "code received, money settled", id="code"),
        pytest.param([polled(OrderStatus("x", OrderState.UNKNOWN))], "unknown", id="unknown"),
        pytest.param([CANCELLED], "cancelled, what was paid is refunded", id="cancelled"),
        pytest.param([REFUNDED_END], "refunded, what was paid is refunded", id="refunded"),
        pytest.param([CODE], "code received, money settled", id="code-during-cancel"),
        pytest.param([UNKNOWN_END], "the end is unknown, money held", id="unknown-end"),
        pytest.param(
            [polled(REFUNDED), CODE], "code received, money settled", id="end-corrects-status"
        ),
    ],
)
def test_an_event_is_one_line(events: list[Event], news: str) -> None:
    assert folded(*events).news == news


def test_a_code_is_not_shown() -> None:
    assert "0042" not in repr(folded(waiting(5), polled(ARRIVED), CODE))


@pytest.mark.parametrize(
    ("events", "event"),
    [
        pytest.param([waiting(60), polled(REFUNDED)], REFUNDED_END, id="refund"),
        pytest.param([waiting(60), polled(ARRIVED)], CODE, id="code"),
        pytest.param([], Event(ORDER_ID), id="another-kind"),
    ],
)
def test_an_event_without_news_changes_nothing(events: list[Event], event: Event) -> None:
    row = folded(*events)

    assert fold(row, event, NOW) is row


def test_a_wait_lasts_from_its_event_to_its_end() -> None:
    row = folded(waiting(100))

    assert (row.reason, row.part(NOW), row.left(NOW)) == ("too young", 0, 100)
    assert (row.part(NOW + 25), row.left(NOW + 25)) == (0.25, 75)
    assert (row.part(NOW + 200), row.left(NOW + 200)) == (1, 0)
    assert row.part(NOW - 5) == 0
    assert Row("never waited").part(NOW) == 1


def test_a_bar_stays_for_a_second_after_the_wait() -> None:
    row = folded(waiting(100))

    assert row.waits(NOW + 100.9)
    assert not row.waits(NOW + 101)


@pytest.mark.parametrize(
    "event",
    [polled(ARRIVED), polled(REFUNDED), CANCELLED],
    ids=["code", "refund", "cancel"],
)
def test_a_bar_ends_with_the_order(event: Event) -> None:
    assert not folded(waiting(100), event).waits(NOW)


def test_a_wait_after_the_end_has_a_bar() -> None:
    assert folded(polled(REFUNDED), waiting(100)).waits(NOW)


def test_the_pause_between_two_attempts_has_a_bar() -> None:
    row = folded(failed(2, 90))

    assert row.waits(NOW + 80)
    assert row.reason == "cancel_order attempt 3 of 4 comes next"
    assert row.left(NOW) == 90


def test_a_lost_poll_does_not_end_a_wait() -> None:
    row = folded(waiting(100), failed(1, None))

    assert (row.reason, row.left(NOW)) == ("too young", 100)


# --- lines ----------------------------------------------------------------------------------------


def test_a_pipe_gets_lines() -> None:
    page = io.StringIO()
    shown = Progress(file=page, clock=ManualClock(NOW))

    for event in (CREATED, waiting(120), Event(ORDER_ID), polled(HELD), polled(HELD)):
        shown(event)
    shown(failed(1, 1.5, order_id=None))
    shown(OrderEnded("short", CANCELLED.result))
    shown.close()

    assert page.getvalue().splitlines() == [
        "0123…cdef: ordered",
        "0123…cdef: waiting 2:00: too young",
        "0123…cdef: money held",
        "cancel_order attempt 1 of 4 failed, next in 1.5 s: no answer",
        "…: cancelled, what was paid is refunded",
    ]


def test_the_clock_of_a_simulator_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setenv("SMS4SATS_BASE_URL", "http://127.0.0.1:8021")
    monkeypatch.setenv("SMS4SATS_SPEED", f"2@{now - 1000}")
    page = io.StringIO()

    Progress(file=page)(waiting(119.5, start=now + 1000))

    assert page.getvalue() == "0123…cdef: waiting 2:00: too young\n"


def test_lines_go_to_standard_error_by_the_time_of_the_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: NOW + 60)

    with Progress() as shown:
        shown(waiting(120))
    shown(polled(HELD))

    out, err = capsys.readouterr()
    assert (out, err) == ("", "0123…cdef: waiting 1:00: too young\n")


@pytest.mark.anyio
async def test_a_whole_order_is_shown_without_its_id() -> None:
    page, clock = io.StringIO(), ManualClock()
    scene = Simulated(
        attrs.evolve(PAID, pay_delay=3), clock=clock, on_event=Progress(file=page, clock=clock)
    )
    scene.simulator.script("/cancelorder", *[Fault.unable_to_save_data()] * 5)
    await scene.client.code_or_refund(await scene.order(), timeout=0)

    text = page.getvalue()
    parts = [
        "ordered",
        "unpaid, money with the payer",
        "waiting 2:00: the order cannot be cancelled earlier",
        "money held",
        "number +1555",
        "cancel_order attempt 1 of 4 failed, next in ",
        "cancel_order attempt 4 of 4 failed: ",
        "waiting 0:05: the service has not cancelled the order yet",
        "cancelled, what was paid is refunded",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert not re.search("[0-9a-f]{64}", text)


def test_orders_without_events_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock(NOW)
    shown = Progress(file=io.StringIO(), clock=clock)
    shown(CREATED)
    shown(waiting(10_000, OTHER_ID))
    seen: list[list[Row]] = []

    def see(_lines: Lines, rows: list[Row], _row: Row, _event: Event) -> None:
        seen.append(rows)

    monkeypatch.setattr(Lines, "show", see)

    clock.step_wall(599)
    shown(failed(1, None, None))
    clock.step_wall(2)
    shown(failed(1, None, "another"))

    assert [len(rows) for rows in seen] == [3, 3]
    assert [row.name for row in seen[-1]] == ["fedc…3210", "", "…"]


# --- files that cannot take everything ------------------------------------------------------------


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


class Old(io.TextIOWrapper):
    """A terminal whose encoding has few letters."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding)

    def isatty(self) -> bool:
        return True


class Gone(Screen):
    """A terminal that was closed at the other end."""

    def write(self, _text: str, /) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("display", ["plain", "terminal"])
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
def test_a_letter_that_the_file_does_not_have_is_replaced(
    encoding: str, display: Literal["plain", "terminal"]
) -> None:
    page = Old(encoding)
    with Progress(file=page, display=display, clock=ManualClock(NOW)) as shown:
        shown(waiting(120))
        shown(polled(attrs.evolve(NUMBERED, number="я")))

    text = page.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    name = "0123…cdef" if encoding == "cp1252" else "0123?cdef"
    assert f"{name}: number ?, money held" in text


@pytest.mark.parametrize("display", ["plain", "terminal"])
def test_a_closed_file_is_ignored(display: Literal["plain", "terminal"]) -> None:
    closed = Screen()
    closed.close()
    for page in (Gone(), closed):
        with Progress(file=page, display=display, clock=ManualClock(NOW)) as shown:
            shown(waiting(120))
            shown(polled(HELD))
            shown(CANCELLED)


# --- which display --------------------------------------------------------------------------------


class Shell:
    """What IPython returns in a notebook."""

    kernel: object = object()
    execution_count = 1


@pytest.mark.parametrize(
    ("page", "term", "kind"),
    [
        (Screen(), "xterm-256color", Terminal),
        (Screen(), None, Terminal),
        (Screen(), "dumb", Lines),
        (io.StringIO(), "xterm-256color", Lines),
    ],
    ids=["terminal", "no-term", "dumb", "pipe"],
)
def test_the_display_fits_the_file(
    page: io.StringIO, term: str | None, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TERM", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)

    assert type(screen_for("auto", page, time.time)) is kind


@pytest.mark.parametrize(
    ("shell", "kind"), [(Shell, Notebook), (object, Terminal)], ids=["kernel", "terminal"]
)
def test_ipython_has_the_display_of_a_notebook_only_in_a_kernel(
    shell: type, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IPython, "get_ipython", shell)
    monkeypatch.delenv("TERM", raising=False)

    assert type(screen_for("auto", Screen(), time.time)) is kind


def test_ipython_is_not_imported_without_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython")

    Progress(file=io.StringIO())

    assert "IPython" not in sys.modules


@pytest.mark.parametrize(
    ("display", "missing", "extra"),
    [("terminal", "rich.live", "cli"), ("notebook", "IPython", "notebook")],
)
def test_a_display_without_its_package_says_what_to_install(
    display: Literal["terminal", "notebook"],
    missing: str,
    extra: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, f"sms4sats_async.progress.{display}", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(ImportError, match=rf"pip install 'sms4sats-async\[{extra}\]'"):
        Progress(display=display)


# --- a terminal -----------------------------------------------------------------------------------


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A terminal of 80 columns and 24 lines, without colours."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    return Screen()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def _by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread draws nothing: a test requests each picture."""
    monkeypatch.setattr(terminal, "FRAME", 3600)
    monkeypatch.setattr("sms4sats_async.progress.notebook.FRAME", 3600)


@pytest.fixture
def screen(
    page: Screen, clock: ManualClock, _by_hand: None, monkeypatch: pytest.MonkeyPatch
) -> Terminal:
    """The terminal of the next `Progress`."""
    screen = Terminal(page, clock.now)

    def the_screen(_file: object, _now: object) -> Terminal:
        return screen

    monkeypatch.setattr(terminal, "Terminal", the_screen)
    return screen


@pytest.fixture
def shown(screen: Terminal, page: Screen, clock: ManualClock) -> Iterator[Progress]:
    del screen
    with Progress(file=page, clock=clock) as shown:
        yield shown


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


def text_of(page: io.StringIO) -> str:
    """What was written since the last call, without what moves the cursor."""
    text = page.getvalue()
    page.seek(0)
    page.truncate()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")


def test_a_wait_is_a_bar_with_the_time_left(
    shown: Progress, screen: Terminal, page: Screen, clock: ManualClock
) -> None:
    shown(polled(HELD))
    shown(waiting(120))
    clock.step_wall(60)
    first = text_of(page)
    assert screen.frame()

    half = text_of(page)
    assert first.startswith("0123…cdef: money held\n")
    assert "2:00 left money held\n  too young" in first
    assert "1:00 left money held\n  too young" in half
    assert half.count("━") + half.count("╸") == 12


def test_a_bar_disappears_with_its_order(shown: Progress, screen: Terminal, page: Screen) -> None:
    shown(waiting(120))
    text_of(page)
    shown(CANCELLED)

    assert not screen.frame()
    assert "\x1b[?25h" in page.getvalue()  # the cursor is visible again
    assert text_of(page).strip() == "0123…cdef: cancelled, what was paid is refunded"


def test_a_bar_disappears_after_the_wait_without_an_event(
    shown: Progress, screen: Terminal, page: Screen, clock: ManualClock
) -> None:
    shown(waiting(120))
    clock.step_wall(120.9)
    assert screen.frame()
    assert "0:00 left" in text_of(page)

    clock.step_wall(2)
    assert not screen.frame()
    assert "\x1b[?25h" in page.getvalue()
    assert "left" not in text_of(page)


@pytest.mark.anyio
async def test_a_bar_disappears_with_the_task_that_waited(
    shown: Progress, screen: Terminal, page: Screen
) -> None:
    async def wait() -> None:
        shown(polled(HELD))
        shown(waiting(120))
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await turns()
        assert screen.frame()
        group.cancel_scope.cancel()
    text_of(page)

    assert not screen.frame()
    assert "\x1b[?25h" in page.getvalue()
    assert text_of(page).startswith("0123…cdef: stopped waiting, money held\n")


@pytest.mark.anyio
async def test_a_bar_stays_when_another_task_of_the_order_ends(
    shown: Progress, screen: Terminal
) -> None:
    async def poll() -> None:
        shown(polled(HELD))
        shown(failed(4, None))

    shown(waiting(120))
    async with anyio.create_task_group() as group:
        group.start_soon(poll)

    assert screen.frame()


@pytest.mark.usefixtures("_by_hand")
def test_a_narrow_terminal_has_a_shorter_bar_and_no_third_line(
    page: Screen, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    screen = Terminal(page, clock.now)
    row = folded(polled(NUMBERED), waiting(120))
    screen.show([row], row, waiting(120))
    text_of(page)
    screen.frame()

    bar, reason = text_of(page).splitlines()
    screen.close()
    assert bar.split() == ["0123…cdef", "2:00", "left", "number", "+15551234…"]
    assert len(bar) == 50
    assert reason.strip() == "too young"


def test_orders_beyond_the_height_of_the_terminal_are_counted(
    shown: Progress, screen: Terminal, page: Screen
) -> None:
    for number in range(25):
        shown(waiting(120, f"{number:04}" + "0" * 60))
    text_of(page)
    screen.frame()

    lines = text_of(page)
    assert lines.count("2:00 left") == 11
    assert "and 14 more" in lines
    assert lines.count("\n") < 24


def test_the_pause_of_a_call_ends_with_the_order_that_it_created(
    shown: Progress, screen: Terminal
) -> None:
    shown(failed(1, 90, order_id=None))
    assert screen.frame()

    shown(CREATED)
    assert not screen.frame()


def test_a_failed_attempt_is_above_the_bar(shown: Progress, page: Screen) -> None:
    shown(failed(1, 8))

    text = text_of(page)
    assert "cancel_order attempt 1 of 4 failed, next in 8.0 s: no answer" in text
    assert "0:08 left ordered\n  cancel_order attempt 2 of 4 comes next" in text


def test_foreign_text_does_not_control_the_terminal(
    shown: Progress, screen: Terminal, page: Screen
) -> None:
    hostile = "[b]\x1b[2J" + "0" * 60
    shown(Waiting(hostile, datetime.fromtimestamp(NOW + 9, UTC), "[link=http://x]reason"))
    shown(AttemptFailed(hostile, "cancel_order", 1, 4, TransportError("\x1b]8;;[red]"), None))
    screen.frame()

    text = page.getvalue()
    assert "\x1b[2J" not in text
    assert "\x1b]8" not in text
    assert "[b]�…0000" in text
    assert "[link=http://x]reason" in text
    assert "no further attempt: �]8;;[red]" in text


def test_colours_are_used_unless_no_color_is_set(
    page: Screen, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    color = re.compile(r"\x1b\[(?:\d+;)*3[1-8]")
    plain = Progress(file=page, clock=clock)
    monkeypatch.delenv("NO_COLOR")
    colorful_page = Screen()
    colorful = Progress(file=colorful_page, clock=clock)

    for shown in (plain, colorful):
        shown(failed(1, None))
        shown(polled(ARRIVED))

    assert not color.search(page.getvalue())
    assert len(color.findall(colorful_page.getvalue())) == 2


def test_what_a_program_prints_into_a_pipe_is_not_redirected(
    shown: Progress, capsys: pytest.CaptureFixture[str], page: Screen
) -> None:
    shown(waiting(120))
    sys.stdout.write("the code is 0042\n")
    shown.close()

    assert capsys.readouterr().out == "the code is 0042\n"
    assert "0042" not in page.getvalue()


def test_a_thread_draws_the_bars_until_the_wait_is_over(
    page: Screen, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "FRAME", 0.001)
    shown = Progress(file=page, clock=clock)
    shown(waiting(120))
    (thread,) = threads()
    assert thread.daemon

    clock.step_wall(60)
    while "1:00 left" not in page.getvalue():
        time.sleep(0.001)
    clock.step_wall(200)
    thread.join(10)

    assert not thread.is_alive()
    assert page.getvalue().count("\x1b[?25l") == page.getvalue().count("\x1b[?25h") == 1


@pytest.mark.usefixtures("_by_hand")
def test_a_program_that_does_not_close_the_display_gets_its_cursor_back(
    page: Screen, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_exit: list[Any] = []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    monkeypatch.setattr(atexit, "unregister", at_exit.remove)
    Progress(file=page, clock=clock)(waiting(120))

    (close,) = at_exit
    close()

    assert "\x1b[?25h" in page.getvalue()
    assert at_exit == []
    assert threads() == []


def test_a_display_without_events_can_be_closed(page: Screen) -> None:
    with Progress(file=page):
        pass

    assert page.getvalue() == ""


def test_a_closed_display_can_be_closed_again_and_shows_nothing(page: Screen) -> None:
    shown = Progress(file=page)
    shown(waiting(10**9))
    shown.close()
    text_of(page)

    shown.close()
    shown(polled(HELD))

    assert page.getvalue() == ""


# --- a notebook -----------------------------------------------------------------------------------


class Cells(Shell):
    """A notebook: the displays of its cells, each with every version of its output."""

    def __init__(self) -> None:
        self.displays: list[list[dict[str, str]]] = []

    def display(self, shown: dict[str, str], *, raw: bool, display_id: bool) -> "Handle":
        assert raw
        assert display_id
        self.displays.append([shown])
        return Handle(self.displays[-1])

    @property
    def page(self) -> str:
        """The last display, as it is saved."""
        return self.displays[-1][-1]["text/html"].partition("</style>")[2]

    @property
    def plain(self) -> str:
        return self.displays[-1][-1]["text/plain"]


@attrs.frozen
class Handle:
    """A display that can be updated."""

    shown: list[dict[str, str]]

    def update(self, shown: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.shown.append(shown)


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> Cells:
    cells = Cells()
    monkeypatch.setattr(IPython, "get_ipython", lambda: cells)
    monkeypatch.setattr("IPython.display.display", cells.display)
    return cells


@pytest.fixture
def notebook(clock: ManualClock, _by_hand: None, monkeypatch: pytest.MonkeyPatch) -> Notebook:
    """The display of the next `Progress`."""
    screen = Notebook(clock.now)

    def the_notebook(_now: object) -> Notebook:
        return screen

    monkeypatch.setattr("sms4sats_async.progress.notebook.Notebook", the_notebook)
    return screen


@pytest.fixture
def in_notebook(cells: Cells, notebook: Notebook, clock: ManualClock) -> Iterator[Progress]:
    del cells, notebook
    with Progress(clock=clock) as shown:
        yield shown


def test_a_cell_has_one_display_that_every_event_updates(
    cells: Cells, in_notebook: Progress, clock: ManualClock
) -> None:
    in_notebook(waiting(120))
    clock.step_wall(30)
    in_notebook(polled(NUMBERED))

    (shown,) = cells.displays
    assert len(shown) == 2
    assert cells.plain.splitlines() == [
        "0123…cdef: 1:30 left, too young",
        "0123…cdef: number +15551234567, money held",
    ]
    assert '<span class="left">1:30 left</span>' in cells.page
    assert "width:25.0%" in cells.page
    assert "number +15551234567, money held" in cells.page
    assert "<small>too young</small>" in cells.page


def test_an_event_without_news_leaves_the_drawing_to_the_thread(
    cells: Cells, in_notebook: Progress, notebook: Notebook, clock: ManualClock
) -> None:
    in_notebook(waiting(120))
    in_notebook(polled(HELD))
    clock.step_wall(5)
    in_notebook(polled(HELD))
    assert len(cells.displays[0]) == 2

    notebook.frame()
    assert cells.plain.startswith("0123…cdef: 1:55 left")


def test_nothing_in_a_saved_page_moves(cells: Cells, in_notebook: Progress) -> None:
    in_notebook(waiting(120))

    saved = cells.displays[0][-1]["text/html"]
    assert "left" in saved
    for moving in ("animation", "keyframes", "counter", "transition", "<script"):
        assert moving not in saved


def test_an_order_that_has_ended_has_its_last_line_and_no_bar(
    cells: Cells, in_notebook: Progress
) -> None:
    in_notebook(waiting(120))
    in_notebook(CANCELLED)

    assert cells.plain == "0123…cdef: cancelled, what was paid is refunded"
    assert "track" not in cells.page


@pytest.mark.asyncio
async def test_the_page_of_a_background_task_that_was_cancelled_has_its_last_state_and_no_bar(
    cells: Cells, notebook: Notebook, clock: ManualClock
) -> None:
    scene = Simulated(clock=ManualClock(NOW, autojump=False))
    with Progress(clock=clock) as shown:
        client = scene.new_client(on_event=shown)
        order = await client.create_order(187, "tg")
        task = asyncio.create_task(client.code_or_refund(order, timeout=300))
        await turns()
        assert "left" in cells.plain
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

        assert not notebook.frame()

    assert cells.plain.splitlines()[-1].endswith(": stopped waiting, money held")
    assert "left" not in cells.page
    assert "track" not in cells.page


def test_the_next_cell_has_its_own_display(cells: Cells, in_notebook: Progress) -> None:
    in_notebook(polled(HELD))
    cells.execution_count = 2
    in_notebook(waiting(120))

    first, second = cells.displays
    assert (len(first), len(second)) == (1, 1)
    assert "money held" in first[0]["text/plain"]
    assert second[0]["text/plain"] == "0123…cdef: 2:00 left, too young"


def test_an_update_belongs_to_the_cell_that_runs(
    in_notebook: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent: ContextVar[str] = ContextVar("parent", default="the cell that runs")
    update, parents = Handle.update, list[str]()

    def record(self: Handle, shown: dict[str, str], *, raw: bool) -> None:
        parents.append(parent.get())
        update(self, shown, raw=raw)

    monkeypatch.setattr(Handle, "update", record)
    parent.set("the cell that started the task")
    in_notebook(waiting(120))
    in_notebook(polled(HELD))

    assert parents == ["the cell that runs"]


def test_an_order_has_its_own_display(cells: Cells, in_notebook: Progress) -> None:
    in_notebook(CREATED)

    assert cells.displays == []


def test_a_wait_in_the_background_stays_in_its_cell(cells: Cells, in_notebook: Progress) -> None:
    in_notebook(waiting(120))
    cells.execution_count = 2
    in_notebook(polled(HELD))

    (shown,) = cells.displays
    assert len(shown) == 2


def test_a_display_has_the_last_lines_and_counts_more_orders(
    cells: Cells, in_notebook: Progress
) -> None:
    for number in range(25):
        in_notebook(waiting(120, f"{number:04}" + "0" * 60))
    for attempt in range(20):
        in_notebook(failed(attempt, None))

    assert cells.page.count('class="track"') == 20
    assert "<small>and 5 more</small>" in cells.page
    assert cells.page.count("failed") == 8
    assert "attempt 19 of 4" in cells.page


def test_close_removes_the_bars(cells: Cells, in_notebook: Progress) -> None:
    in_notebook(waiting(120))
    in_notebook(polled(HELD))
    in_notebook.close()

    assert cells.plain == "0123…cdef: money held"
    assert threads() == []


def test_foreign_text_is_escaped_in_the_page(cells: Cells, in_notebook: Progress) -> None:
    hostile = "<script>alert(1)</script>"
    in_notebook(Waiting(ORDER_ID, datetime.fromtimestamp(NOW + 9, UTC), hostile))
    in_notebook(polled(attrs.evolve(NUMBERED, number=hostile)))
    in_notebook(AttemptFailed(None, hostile, 1, 4, TransportError(hostile), None))

    assert "<script" not in cells.page
    assert cells.page.count("&lt;script&gt;") == 5
