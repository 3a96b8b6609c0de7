"""Draw the states of an order from the state table in `sms4sats_async/_orders/states.py`.

Writes docs/states.svg, and the table in docs/states.md between its two marks; `make docs` runs it.
This file only places the states. The state table has the rest.
"""

from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

import attrs

from sms4sats_async._orders.states import STATES, StateRow
from sms4sats_async.models import Money, OrderState

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
PAGE: Final = DOCS / "states.md"
PICTURE: Final = DOCS / "states.svg"
BEGIN: Final = "<!-- written by tools/draw_states.py: begin -->\n"
END: Final = "<!-- written by tools/draw_states.py: end -->\n"

# Column and row of each state. The middle column is free beside a state from which an arrow leads
# to the end of that column.
LEFT, MIDDLE, RIGHT = range(3)
PLACES: Final = {
    OrderState.UNPAID: (MIDDLE, 0),
    OrderState.HELD: (LEFT, 1),
    OrderState.NUMBER_ASSIGNED: (LEFT, 2),
    OrderState.CODE_RECEIVED: (LEFT, 3),
    OrderState.UNKNOWN: (LEFT, 4),
    OrderState.REFUNDED: (MIDDLE, 3),
    OrderState.MESSAGE_CREATED: (RIGHT, 1),
    OrderState.MESSAGE_SENT: (RIGHT, 2),
    OrderState.MESSAGE_DELIVERED: (RIGHT, 3),
    OrderState.MESSAGE_FAILED: (RIGHT, 4),
}
HEADINGS: Final = {LEFT: "to receive a code", RIGHT: "to send a message"}

# Fill and border by where the money is. All text is on a fill, and the grey of the arrows is
# visible on white and on black, so the picture needs no background.
COLOURS: Final = {
    Money.WITH_PAYER: ("#e9f7ec", "#3d8f57"),
    Money.HELD: ("#ffe2a0", "#a87400"),
    Money.SETTLED: ("#cfe0fc", "#3566b8"),
    Money.REFUNDED: ("#93dcaa", "#1f7a41"),
    Money.UNKNOWN: ("#e4e6ea", "#6d747e"),
}
INK: Final = "#1b1f24"
ARROW: Final = "#858b94"
FONT: Final = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

MARGIN: Final = 6
WIDTH, HEIGHT = 178, 54
GAP, STEP = 26, 92
OUTSIDE: Final = 24
"""How far beside the last column an arrow runs that passes a state."""
ROUND: Final = 10


@attrs.frozen
class Box:
    """The place of a state; the numbers are its middle."""

    x: int
    y: int

    @property
    def top(self) -> int:
        """Its upper edge."""
        return self.y - HEIGHT // 2

    @property
    def bottom(self) -> int:
        """Its lower edge."""
        return self.y + HEIGHT // 2

    def side(self, direction: int) -> int:
        """Its right edge, or its left one if the direction is negative."""
        return self.x + direction * WIDTH // 2


def box_of(state: OrderState) -> Box:
    """Return the place of a state."""
    column, row = PLACES[state]
    return Box(
        MARGIN + WIDTH // 2 + column * (WIDTH + GAP),
        MARGIN + HEIGHT // 2 + row * STEP,
    )


def is_free(column: int, above: int, below: int) -> bool:
    """Return whether a column has no state between two rows."""
    return not any(at == column and above < row < below for at, row in PLACES.values())


def route(start: OrderState, end: OrderState) -> str:
    """Return the path of an arrow, in SVG's syntax.

    Raises:
        ValueError: If it would cross a state. Give one of the two another place.
    """
    (column, row), (to_column, to_row) = PLACES[start], PLACES[end]
    a, b = box_of(start), box_of(end)
    if start is end:
        x = a.side(1)
        return f"M{x},{a.y - 11} C{x + 34},{a.y - 26} {x + 34},{a.y + 26} {x},{a.y + 11}"
    if column == to_column and row < to_row:
        if is_free(column, row, to_row):
            return f"M{a.x},{a.bottom} V{b.top}"
        if column == RIGHT:
            x = a.side(1) + OUTSIDE
            return (
                f"M{a.side(1)},{a.y} H{x - ROUND} Q{x},{a.y} {x},{a.y + ROUND} "
                f"V{b.y - ROUND} Q{x},{b.y} {x - ROUND},{b.y} H{b.side(1)}"
            )
    towards = 1 if to_column > column else -1
    if abs(to_column - column) == 1 and row < to_row and is_free(to_column, row - 1, to_row):
        return (
            f"M{a.side(towards)},{a.y} H{b.x - towards * ROUND} "
            f"Q{b.x},{a.y} {b.x},{a.y + ROUND} V{b.top}"
        )
    raise ValueError(f"no way to draw an arrow from {start.value!r} to {end.value!r}")


def text(x: int, y: int, words: str, size: float, *, bold: bool = False) -> str:
    """Return words whose middle is at x."""
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x}" y="{y}" font-size="{size:g}"{weight}>{escape(words)}</text>'


def rectangle(x: int, y: int, width: int, height: int, look: str) -> str:
    """Return a rectangle with round corners."""
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" {look}/>'


def look_of(money: Money, *, ended: bool = False) -> str:
    """Return the fill and border for where the money is."""
    fill, border = COLOURS[money]
    return f'fill="{fill}" stroke="{border}" stroke-width="{3 if ended else 1.25}"'


def draw_state(row: StateRow) -> list[str]:
    """Return a state: its name over its condition, coloured by where the money is."""
    box = box_of(row.state)
    look = look_of(row.money, ended=row.outcome is not None)
    return [
        rectangle(box.side(-1), box.top, WIDTH, HEIGHT, look),
        text(box.x, box.y - 4, row.state.value, 15, bold=True),
        text(box.x, box.y + 15, row.when, 12.5),
    ]


def draw_headings() -> list[str]:
    """Return the headings of the two outer columns."""
    drawn: list[str] = []
    for column, words in HEADINGS.items():
        x = MARGIN + WIDTH // 2 + column * (WIDTH + GAP)
        drawn += [
            rectangle(x - 68, MARGIN - 3, 136, 22, 'fill="#e4e6ea"'),
            text(x, MARGIN + 12, words, 12.5),
        ]
    return drawn


def draw_legend(y: int) -> list[str]:
    """Return what the colours and borders mean."""
    widths = {money: 22 + 7 * len(money.value) for money in COLOURS}
    title, space = 66, 8
    x = MARGIN
    drawn = [
        rectangle(x, y, title, 24, 'fill="#e4e6ea"'),
        text(x + title // 2, y + 16, "money:", 12.5),
    ]
    x += title + space
    for money, width in widths.items():
        drawn += [
            rectangle(x, y, width, 24, look_of(money)),
            text(x + width // 2, y + 16, money.value, 12.5),
        ]
        x += width + space
    x += space
    _, border = COLOURS[Money.UNKNOWN]
    drawn += [
        rectangle(x, y, 94, 24, f'fill="#ffffff" stroke="{border}" stroke-width="3"'),
        text(x + 47, y + 16, "order ended", 12.5),
    ]
    return drawn


def picture() -> str:
    """Return the whole picture as SVG."""
    columns = 1 + max(column for column, _ in PLACES.values())
    rows = 1 + max(row for _, row in PLACES.values())
    width = 2 * MARGIN + columns * WIDTH + (columns - 1) * GAP + OUTSIDE
    legend = MARGIN + (rows - 1) * STEP + HEIGHT + 30
    height = legend + 24 + MARGIN
    arrows = [route(row.state, then) for row in STATES for then in row.then]
    described = "; ".join(
        f"{row.state.value}: then {', '.join(then.value for then in row.then)}"
        for row in STATES
        if row.then
    )
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="title described"',
        f'  viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        '<title id="title">The states of an order</title>',
        f'<desc id="described">{escape(described)}.</desc>',
        '<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7"',
        f'  orient="auto"><path d="M0,0.5 L10,5 L0,9.5 z" fill="{ARROW}"/></marker>',
        f'<g fill="none" stroke="{ARROW}" stroke-width="2">',
        *(f'<path d="{path}" marker-end="url(#head)"/>' for path in arrows),
        "</g>",
        f'<g font-family="{FONT}" text-anchor="middle" fill="{INK}">',
        *draw_headings(),
        *(line for row in STATES for line in draw_state(row)),
        *draw_legend(legend),
        "</g>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def table() -> str:
    """Return the table in Markdown."""
    lines = [
        "| `OrderState` | `/orderstatus` says | the money | can become | outcome |",
        "|---|---|---|---|---|",
    ]
    for row in STATES:
        then = ", ".join(f"`{state.name}`" for state in row.then) or "nothing"
        ends = "" if row.outcome is None else f"`{row.outcome.name}`"
        lines.append(f"| `{row.state.name}` | {row.when} | {row.money.value} | {then} | {ends} |")
    return "\n".join(lines) + "\n"


def written() -> dict[Path, str]:
    """Return each file and its content; the rest of the page does not change."""
    before, begin, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} has no marks for the table")
    return {PAGE: f"{before}{BEGIN}\n{table()}\n{END}{after}", PICTURE: picture()}


def write(files: dict[Path, str]) -> None:
    """Write the files that changed."""
    for path, content in files.items():
        if not path.is_file() or path.read_text("utf-8") != content:
            path.write_text(content, "utf-8")
            print(f"==> wrote {path.name}")


if __name__ == "__main__":
    write(written())
