"""What a person sees of a wait: the pure fold of events, and the three displays."""

import atexit
import io
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

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
    Sms4SatsClient,
    StatusPolled,
    TransportError,
    Waiting,
)
from sms4sats_async.progress import Lines, Progress, screen_for, terminal
from sms4sats_async.progress.notebook import Notebook
from sms4sats_async.progress.rows import Row, fold
from sms4sats_async.progress.terminal import THREAD, Terminal
from sms4sats_async.simulator import Behaviour, Fault, ManualClock, Simulator

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
CANCELLED = OrderResult(ORDER_ID, OrderOutcome.CANCELLED, attempts=2)
REFUNDED_BY_SERVICE = OrderResult(ORDER_ID, OrderOutcome.REFUNDED, status=REFUNDED, attempts=2)
TOO_LATE = OrderResult(ORDER_ID, OrderOutcome.CODE_RECEIVED, "0042", status=ARRIVED, attempts=2)


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
        pytest.param([failed(4, None), failed(4, None)], "", id="the-same-failure-again"),
        pytest.param([polled(HELD)], "money held", id="held"),
        pytest.param([polled(HELD), polled(HELD)], "", id="the-same-state-again"),
        pytest.param([polled(NUMBERED)], "number +15551234567, money held", id="numbered"),
        pytest.param(
            [polled(attrs.evolve(NUMBERED, number="\x1b[2J"))],
            "number �[2J, money held",
            id="hostile-number",
        ),
        pytest.param(
            [polled(attrs.evolve(NUMBERED, number=None))],
            "number assigned, money held",
            id="no-number",
        ),
        pytest.param([polled(ARRIVED)], "code received, money settled", id="code"),
        pytest.param([polled(OrderStatus("x", OrderState.UNKNOWN))], "unknown", id="unknown"),
        pytest.param([OrderEnded("x", CANCELLED)], "cancelled, money refunded", id="cancelled"),
        pytest.param(
            [OrderEnded("x", REFUNDED_BY_SERVICE)], "refunded, money refunded", id="refunded"
        ),
        pytest.param([OrderEnded("x", TOO_LATE)], "code received, money settled", id="late"),
    ],
)
def test_an_event_is_told_in_one_line(events: list[Event], news: str) -> None:
    assert folded(*events).news == news


def test_the_line_of_a_code_does_not_show_the_code() -> None:
    assert "0042" not in repr(folded(waiting(5), polled(ARRIVED)))


def test_what_a_status_told_is_not_told_again_by_the_end() -> None:
    row = folded(waiting(60), polled(REFUNDED))

    assert fold(row, OrderEnded(ORDER_ID, REFUNDED_BY_SERVICE), NOW) is row


def test_an_event_of_another_kind_changes_nothing() -> None:
    assert fold(ROW, Event(ORDER_ID), NOW) is ROW


def test_a_wait_runs_from_its_event_to_its_end() -> None:
    row = folded(waiting(100))

    assert (row.reason, row.part(NOW), row.left(NOW)) == ("too young", 0, 100)
    assert (row.part(NOW + 25), row.left(NOW + 25)) == (0.25, 75)
    assert (row.part(NOW + 200), row.left(NOW + 200)) == (1, 0)
    assert row.part(NOW - 5) == 0
    assert Row("never waited").part(NOW) == 1


def test_a_bar_stays_a_little_for_the_request_that_follows() -> None:
    row = folded(waiting(100))

    assert row.waits(NOW + 100.9)
    assert not row.waits(NOW + 101)


@pytest.mark.parametrize(
    "event",
    [polled(ARRIVED), polled(REFUNDED), OrderEnded(ORDER_ID, CANCELLED)],
    ids=["code", "refund", "cancel"],
)
def test_a_bar_ends_with_the_order(event: Event) -> None:
    assert not folded(waiting(100), event).waits(NOW)


def test_a_wait_after_the_end_is_a_wait() -> None:
    assert folded(polled(REFUNDED), waiting(100)).waits(NOW)


def test_the_pause_between_two_attempts_is_a_bar_too() -> None:
    row = folded(failed(2, 90))

    assert row.waits(NOW + 80)
    assert row.reason == "cancel_order attempt 3 of 4 comes next"
    assert row.left(NOW) == 90


def test_a_lost_look_at_the_status_does_not_end_a_wait() -> None:
    row = folded(waiting(100), failed(1, None))

    assert (row.reason, row.left(NOW)) == ("too young", 100)


# --- lines ----------------------------------------------------------------------------------------


def test_where_nothing_can_be_drawn_over_there_are_lines() -> None:
    page = io.StringIO()
    shown = Progress(file=page, clock=ManualClock(NOW))

    for event in (CREATED, waiting(120), Event(ORDER_ID), polled(HELD), polled(HELD)):
        shown(event)
    shown(failed(1, 1.5, order_id=None))
    shown(OrderEnded("short", CANCELLED))

    assert page.getvalue().splitlines() == [
        "0123…cdef: ordered",
        "0123…cdef: waiting 2:00: too young",
        "0123…cdef: money held",
        "cancel_order attempt 1 of 4 failed, next in 1.5 s: no answer",
        "…: cancelled, money refunded",
    ]


def test_lines_go_to_standard_error_by_the_machines_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: NOW + 60)

    with Progress() as shown:
        shown(waiting(120))
    shown(polled(HELD))

    out, err = capsys.readouterr()
    assert (out, err) == ("", "0123…cdef: waiting 1:00: too young\n")


@pytest.mark.anyio
async def test_a_whole_run_is_told_without_an_order_id() -> None:
    clock = ManualClock()
    simulator = Simulator(Behaviour(pay_delay=3, code_delay=None), clock=clock)
    simulator.script("/cancelorder", *[Fault.unable_to_save_data()] * 5)
    page = io.StringIO()
    async with simulator.http_client() as http_client:
        client = Sms4SatsClient(
            http_client=http_client, clock=clock, on_event=Progress(file=page, clock=clock)
        )
        await client.cancel_order_when_allowed(await client.create_order(187, "tg"))

    told = page.getvalue()
    parts = [
        "ordered",
        "unpaid, money with the payer",
        "waiting 2:00: the service does not cancel younger orders",
        "money held",
        "number +1555",
        "cancel_order attempt 1 of 4 failed, next in ",
        "cancel_order attempt 4 of 4 failed: ",
        "waiting 0:05: the service has not cancelled the order yet",
        "cancelled, money refunded",
    ]
    places = [told.index(part) for part in parts]
    assert places == sorted(places)
    assert not re.search("[0-9a-f]{64}", told)


def test_orders_of_long_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
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


# --- which display --------------------------------------------------------------------------------


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


class Shell:
    """What IPython says of itself in a notebook."""

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
def test_the_display_fits_the_place(
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


def test_ipython_is_not_loaded_to_ask_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython")

    Progress(file=io.StringIO())

    assert "IPython" not in sys.modules


@pytest.mark.parametrize(
    ("display", "missing", "extra"),
    [("terminal", "rich.live", "cli"), ("notebook", "IPython", "notebook")],
)
def test_a_display_whose_package_is_missing_says_what_to_install(
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
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread draws nothing: a test asks for each picture."""
    monkeypatch.setattr(terminal, "FRAME", 3600)


@pytest.fixture
def screen(
    page: Screen, clock: ManualClock, by_hand: None, monkeypatch: pytest.MonkeyPatch
) -> Terminal:
    """The terminal of the next `Progress`."""
    del by_hand
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
    """What was written, without what moves the cursor; from here on anew."""
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


def test_the_bar_is_gone_with_its_order(shown: Progress, screen: Terminal, page: Screen) -> None:
    shown(waiting(120))
    text_of(page)
    shown(OrderEnded(ORDER_ID, CANCELLED))

    assert not screen.frame()
    assert "\x1b[?25h" in page.getvalue()  # the cursor is there again
    assert text_of(page).strip() == "0123…cdef: cancelled, money refunded"


def test_the_bar_is_gone_when_nothing_comes_after_the_wait(
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


@pytest.mark.usefixtures("by_hand")
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


def test_several_orders_have_a_bar_each_and_the_rest_are_counted(
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


def test_the_pause_of_a_call_ends_with_the_order_that_it_made(
    shown: Progress, screen: Terminal
) -> None:
    shown(failed(1, 90, order_id=None))
    assert screen.frame()

    shown(CREATED)
    assert not screen.frame()


def test_a_failed_attempt_stands_above_the_bar(shown: Progress, page: Screen) -> None:
    shown(failed(1, 8))

    told = text_of(page)
    assert "cancel_order attempt 1 of 4 failed, next in 8.0 s: no answer" in told
    assert "0:08 left ordered\n  cancel_order attempt 2 of 4 comes next" in told


def test_foreign_text_is_text_in_the_terminal(
    shown: Progress, screen: Terminal, page: Screen
) -> None:
    hostile = "[b]\x1b[2J" + "0" * 60
    shown(Waiting(hostile, datetime.fromtimestamp(NOW + 9, UTC), "[link=http://x]reason"))
    shown(AttemptFailed(hostile, "cancel_order", 1, 4, TransportError("\x1b]8;;[red]"), None))
    screen.frame()

    told = page.getvalue()
    assert "\x1b[2J" not in told
    assert "\x1b]8" not in told
    assert "[b]�…0000" in told
    assert "[link=http://x]reason" in told
    assert "no further attempt: �]8;;[red]" in told


def test_no_color_is_honoured_and_colours_are_used_else(
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


def test_what_the_program_prints_into_a_pipe_stays_there(
    shown: Progress, capsys: pytest.CaptureFixture[str], page: Screen
) -> None:
    shown(waiting(120))
    sys.stdout.write("the code is 0042\n")
    shown.close()

    assert capsys.readouterr().out == "the code is 0042\n"
    assert "0042" not in page.getvalue()


def test_the_bars_are_drawn_while_the_event_loop_is_busy_and_end_by_themselves(
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


def test_a_program_that_ends_without_closing_gets_its_cursor_back(
    page: Screen, clock: ManualClock, by_hand: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del by_hand
    at_exit: list[Any] = []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    monkeypatch.setattr(atexit, "unregister", at_exit.remove)
    Progress(file=page, clock=clock)(waiting(120))

    (close,) = at_exit
    close()

    assert "\x1b[?25h" in page.getvalue()
    assert at_exit == []
    assert threads() == []


def test_a_display_that_showed_nothing_can_be_closed(page: Screen) -> None:
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
    """A notebook: the displays of its cells, each with all that it showed."""

    def __init__(self) -> None:
        self.displays: list[list[dict[str, str]]] = []

    def display(self, shown: dict[str, str], *, raw: bool, display_id: bool) -> "Handle":
        assert raw
        assert display_id
        self.displays.append([shown])
        return Handle(self.displays[-1])

    @property
    def page(self) -> str:
        """The last display as it stands."""
        return self.displays[-1][-1]["text/html"].partition("</style>")[2]

    @property
    def plain(self) -> str:
        return self.displays[-1][-1]["text/plain"]


@dataclass
class Handle:
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
def in_notebook(cells: Cells, clock: ManualClock) -> Progress:
    del cells
    return Progress(clock=clock)


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
    assert "1:30" in cells.page
    assert "--time:90.0s;--from:90;--done:25.0%" in cells.page
    assert "number +15551234567, money held" in cells.page
    assert "<small>too young</small>" in cells.page


def test_an_event_that_changes_nothing_draws_not_faster_than_an_eye_sees(
    cells: Cells, in_notebook: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    in_notebook(waiting(120))
    in_notebook(polled(HELD))
    in_notebook(polled(HELD))
    assert len(cells.displays[0]) == 2

    now = 1.0
    in_notebook(polled(HELD))
    assert len(cells.displays[0]) == 3


def test_an_order_that_has_ended_has_its_last_line_and_no_bar(
    cells: Cells, in_notebook: Progress
) -> None:
    in_notebook(waiting(120))
    in_notebook(OrderEnded(ORDER_ID, CANCELLED))

    assert cells.plain == "0123…cdef: cancelled, money refunded"
    assert "track" not in cells.page


def test_the_next_cell_has_a_display_of_its_own(cells: Cells, in_notebook: Progress) -> None:
    in_notebook(polled(HELD))
    cells.execution_count = 2
    in_notebook(waiting(120))

    first, second = cells.displays
    assert (len(first), len(second)) == (1, 1)
    assert "money held" in first[0]["text/plain"]
    assert second[0]["text/plain"] == "0123…cdef: 2:00 left, too young"


def test_an_order_is_left_to_its_own_display(cells: Cells, in_notebook: Progress) -> None:
    in_notebook(CREATED)

    assert cells.displays == []


def test_what_waits_in_the_background_stays_in_its_cell(
    cells: Cells, in_notebook: Progress
) -> None:
    in_notebook(waiting(120))
    cells.execution_count = 2
    in_notebook(polled(HELD))

    (shown,) = cells.displays
    assert len(shown) == 2


def test_a_display_keeps_the_last_lines_and_counts_what_has_no_place(
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


def test_close_takes_the_bars_away(cells: Cells, in_notebook: Progress) -> None:
    in_notebook.close()
    assert cells.displays == []

    with Progress(display="notebook", clock=ManualClock(NOW)) as shown:
        shown(waiting(120))
        shown(polled(HELD))

    assert cells.plain == "0123…cdef: money held"


def test_foreign_text_is_text_in_the_page(cells: Cells, in_notebook: Progress) -> None:
    hostile = "<script>alert(1)</script>"
    in_notebook(Waiting(ORDER_ID, datetime.fromtimestamp(NOW + 9, UTC), hostile))
    in_notebook(polled(attrs.evolve(NUMBERED, number=hostile)))
    in_notebook(AttemptFailed(None, hostile, 1, 4, TransportError(hostile), None))

    assert "<script" not in cells.page
    assert cells.page.count("&lt;script&gt;") == 5
