"""A QR code out of the characters of a terminal."""

from itertools import groupby
from typing import Final

import segno

# The black and the white of the cube of 256 colours, which no theme changes, so that it is black on
# white also where the terminal is white on black. The 16 named colours are whatever a theme says.
_BLACK_ON_WHITE: Final = "\x1b[38;5;16;48;5;231m"
_ALL_BLACK: Final = "\x1b[48;5;16m"
_PLAIN: Final = "\x1b[0m"

# The upper and the lower half of a character's cell, black or not. A cell of one colour is a blank:
# the background fills it to its edges, which a block of the font does not always do.
_HALVES: Final = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): " "}

_QUIET_ZONES: Final = (4, 2)
"""Modules of white around the code: what the norm asks for, and what readers still read."""


def draw(text: str, columns: int) -> list[str] | None:
    """Return the lines that show `text` as a QR code, or None if it is wider than `columns`.

    Digits and upper-case letters make the smallest code.
    """
    try:
        code = segno.make_qr(text, error="l")
    except segno.DataOverflowError:
        return None
    for quiet in _QUIET_ZONES:
        rows = [*map(bytes, code.matrix_iter(border=quiet))]
        width = len(rows[0])
        if width <= columns:
            rows.append(bytes(width))  # two rows make a line, and the rows of a code are odd
            return [*map(_line, rows[::2], rows[1::2])]
    return None


def _line(upper: bytes, lower: bytes) -> str:
    cells = zip(upper, lower, strict=True)
    parts = [_BLACK_ON_WHITE]
    for cell, run in groupby(cells):
        drawn = _HALVES[cell] * len([*run])
        parts.append(f"{_ALL_BLACK}{drawn}{_BLACK_ON_WHITE}" if cell == (1, 1) else drawn)
    return "".join([*parts, _PLAIN])
