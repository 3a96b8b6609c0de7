"""Draw the messages in the life of an order, and where the money is meanwhile.

Writes docs/sequence.svg; `make docs` runs it. tools/draw_states.py has the colours of the money.
"""

from pathlib import Path
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

from draw_states import ARROW, COLOURS, DOCS, FONT, INK, look_of, rectangle, text, write

from sms4sats_async.models import Money

PICTURE: Final = DOCS / "sequence.svg"

JOURNAL, PROGRAM, WALLET, SERVICE = range(4)
NAMES: Final = ("journal", "your program", "wallet", "service")
X: Final = (70, 262, 414, 606)
BAND: Final = 700
"""The left edge of the band that shows where the money is."""
BAND_WIDTH: Final = 110
TOP, STEP = 56, 31


class Message(NamedTuple):
    """A message from one to another."""

    sender: int
    receiver: int
    words: str
    money: Money
    """Where the money is from then on."""


class Heading(NamedTuple):
    """The title of one way in which the order can go on."""

    words: str


PAYER, HELD = Money.WITH_PAYER, Money.HELD
SETTLED, REFUNDED = Money.SETTLED, Money.REFUNDED
STEPS: Final[tuple[Message | Heading, ...]] = (
    Message(PROGRAM, JOURNAL, "an order is requested", PAYER),
    Message(PROGRAM, SERVICE, "create_order()", PAYER),
    Message(SERVICE, PROGRAM, "order ID, hold invoice", PAYER),
    Message(PROGRAM, JOURNAL, "the order and its deadline", PAYER),
    Message(PROGRAM, WALLET, "the invoice", PAYER),
    Message(WALLET, SERVICE, "pays: held", HELD),
    Message(PROGRAM, SERVICE, "get_order_status(), every few seconds", HELD),
    Heading("either the code arrives"),
    Message(SERVICE, PROGRAM, "the code", SETTLED),
    Message(PROGRAM, JOURNAL, "the code", SETTLED),
    Heading("or no code arrived at the deadline, after two minutes or more"),
    Message(PROGRAM, JOURNAL, "a claim on the order", HELD),
    Message(PROGRAM, SERVICE, "cancel_order()", HELD),
    Message(SERVICE, WALLET, "cancels the hold invoice", REFUNDED),
    Message(SERVICE, PROGRAM, "OK", REFUNDED),
    Message(PROGRAM, JOURNAL, "cancelled", REFUNDED),
    Heading("or no cancel is sent for 21 minutes"),
    Message(SERVICE, WALLET, "cancels the hold invoice", REFUNDED),
)


def row(number: int) -> int:
    """Return the height of a step."""
    return TOP + 24 + number * STEP


def draw_message(number: int, step: Message) -> list[str]:
    """Return an arrow with its words on it."""
    y = row(number)
    begin, end = X[step.sender], X[step.receiver]
    middle, width = (begin + end) // 2, 14 + int(6.6 * len(step.words))
    look = 'fill="#ffffff" fill-opacity="0.94"'
    line = f'd="M{begin},{y} H{end}" stroke="{ARROW}" stroke-width="2"'
    return [
        f'<path {line} marker-end="url(#arrow)"/>',
        rectangle(middle - width // 2, y - 19, width, 17, look),
        text(middle, y - 6, step.words, 12.5),
    ]


def draw_heading(number: int, words: str) -> list[str]:
    """Return a bar over the whole width."""
    return [
        rectangle(8, row(number) - 17, BAND - 20, 22, 'fill="#e4e6ea"'),
        text(BAND // 2, row(number) - 2, words, 12.5, bold=True),
    ]


def draw_money() -> list[str]:
    """Return the band beside the steps: where the money is, and until when."""
    drawn: list[str] = []
    begin = 0
    for number, step in enumerate(STEPS):
        following = STEPS[number + 1] if number + 1 < len(STEPS) else None
        money = step.money if isinstance(step, Message) else None
        same = isinstance(following, Message) and following.money is money
        if money is None:
            begin = number + 1
        elif not same:
            top, bottom = row(begin) - 21, row(number) + 8
            drawn += [
                rectangle(BAND, top, BAND_WIDTH, bottom - top, look_of(money)),
                text(BAND + BAND_WIDTH // 2, (top + bottom) // 2 + 4, money.value, 12.5),
            ]
            begin = number + 1
    return drawn


def picture() -> str:
    """Return the whole picture as SVG."""
    height, width = row(len(STEPS)) - 4, BAND + BAND_WIDTH + 8
    described = "; ".join(
        step.words
        if isinstance(step, Heading)
        else f"{NAMES[step.sender]} to {NAMES[step.receiver]}: {step.words}"
        for step in STEPS
    )
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="title described"',
        f'  viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        '<title id="title">The messages in the life of an order</title>',
        f'<desc id="described">{escape(described)}.</desc>',
        '<marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="6" markerHeight="6"',
        f'  orient="auto"><path d="M0,0.5 L10,5 L0,9.5 z" fill="{ARROW}"/></marker>',
        f'<g font-family="{FONT}" text-anchor="middle" fill="{INK}">',
        *(
            f'<path d="M{x},{TOP - 18} V{height - 6}" stroke="{ARROW}" stroke-width="1.25" '
            'stroke-dasharray="3 4"/>'
            for x in X
        ),
    ]
    _, border = COLOURS[Money.UNKNOWN]
    for x, name in zip((*X, BAND + BAND_WIDTH // 2), (*NAMES, "the money"), strict=True):
        lines += [
            rectangle(x - 60, 8, 120, 30, f'fill="#ffffff" stroke="{border}" stroke-width="1.25"'),
            text(x, 28, name, 13.5, bold=True),
        ]
    for number, step in enumerate(STEPS):
        if isinstance(step, Message):
            lines += draw_message(number, step)
        else:
            lines += draw_heading(number, step.words)
    return "\n".join([*lines, *draw_money(), "</g>", "</svg>"]) + "\n"


def written() -> dict[Path, str]:
    """Return the file and its content."""
    return {PICTURE: picture()}


if __name__ == "__main__":
    write(written())
