"""HTML for notebooks, made of plain values: everything that comes in is text, and is escaped."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NO_SEGNO: Final = "For a QR code of the invoice: pip install 'sms4sats-async[notebook]'"

_LONG: Final = 48  # hours

# Colours are the notebook's own, whatever its theme. JupyterLab has styles of its own for lists of
# definitions and for cells: so these facts are no such list, and the rules for cells outrank its.
# Each display brings the style along, since nobody knows which of them the page still has.
_STYLE: Final = """
.sms4sats { display: flex; flex-wrap: wrap; gap: 16px; align-items: flex-start; line-height: 1.5 }
.sms4sats .title { font-weight: bold; margin-bottom: 4px }
.sms4sats .facts { display: grid; grid-template-columns: max-content auto; gap: 2px 16px }
.sms4sats .name { opacity: .7 }
.sms4sats .big { font-size: 160%; font-weight: bold; letter-spacing: .05em }
.sms4sats details { max-width: 36em; overflow-wrap: anywhere }
.sms4sats summary { cursor: pointer }
.sms4sats small { opacity: .7 }
.sms4sats svg { width: 240px; height: 240px }
.sms4sats .scroll { max-height: 340px; overflow: auto }
.sms4sats .scroll table { border-collapse: collapse; margin: 0 }
.sms4sats .scroll th, .sms4sats .scroll td { padding: 3px 12px; text-align: left; border: 0 }
.sms4sats .scroll th { position: sticky; top: 0; background: var(--jp-layout-color0, Canvas) }
.sms4sats .scroll tr { border-bottom: 1px solid rgba(128, 128, 128, .25) }
.sms4sats .scroll .number { text-align: right; font-variant-numeric: tabular-nums }
"""


def card(
    title: str, facts: Mapping[str, object], *, big: str | None = None, pay: str | None = None
) -> str:
    """Return a title and facts about one thing.

    Args:
        title: What it is.
        facts: Names and values, in order; what is None is left out.
        big: The one fact that everybody looks for.
        pay: An invoice, for a QR code and for copying.
    """
    parts = [f'<div class="title">{_text(title)}</div>']
    if big is not None:
        parts.append(f'<div class="big">{_text(big)}</div>')
    rows = (
        f'<div class="name">{_text(name)}</div><div>{_text(value)}</div>'
        for name, value in facts.items()
        if value is not None
    )
    parts.append(f'<div class="facts">{"".join(rows)}</div>')
    if pay is None:
        return _page(f"<div>{''.join(parts)}</div>")
    parts.append(
        f"<details><summary>the invoice, to copy</summary><code>{_text(pay)}</code></details>"
    )
    return _page(f"{_qr(pay)}<div>{''.join(parts)}</div>")


def table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table that scrolls where it is long; numbers stand on the right."""
    columns = zip(*rows, strict=True)
    sides = [" class=number" if any(map(_is_number, column)) else "" for column in columns]
    head = _cells("th", names, sides)
    body = "".join(f"<tr>{_cells('td', row, sides)}</tr>" for row in rows)
    return _page(
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def span(seconds: float) -> str:
    """Return a span as `1:42`, or in days where it is long."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= _LONG:
        return f"{hours // 24} days"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _page(inner: str) -> str:
    return f'<style>{_STYLE}</style><div class="sms4sats">{inner}</div>'


def _text(value: object) -> str:
    """Return a value as people read it, fit for HTML."""
    match value:
        case None:
            return ""
        case True:
            return "yes"
        case False:
            return "no"
        case _:
            return html.escape(str(value))


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _cells(tag: str, values: Sequence[object], sides: Sequence[str]) -> str:
    pairs = zip(values, sides, strict=True)
    return "".join(f"<{tag}{side}>{_text(value)}</{tag}>" for value, side in pairs)


def _qr(invoice: str) -> str:
    """Return a QR code that wallets read, or one line that says why there is none.

    In upper case it is written in the alphanumeric mode, which makes it smaller. It stays dark on
    light in a dark theme, with the light border of four modules that readers need.
    """
    try:
        import segno  # noqa: PLC0415 - an extra
    except ImportError:
        return f"<small>{_text(_NO_SEGNO)}</small>"
    try:
        code = segno.make_qr(f"LIGHTNING:{invoice.upper()}", error="L")
    except segno.DataOverflowError:
        return "<small>The invoice is too long for a QR code.</small>"
    return code.svg_inline(border=4, dark="#000", light="#fff", omitsize=True)
