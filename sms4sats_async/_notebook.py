"""Notebook displays: HTML for the models, as plain tables and cards. All values are escaped."""

from __future__ import annotations

import html
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import attrs

from ._bolt11 import NotAnInvoiceError, read, satoshis
from ._redact import mask, printable, quote
from .models import (
    FundOrder,
    Listing,
    Money,
    Order,
    OrderStatus,
    Price,
    SendOrder,
)
from .results import OrderResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NO_SEGNO: Final = "For a QR code of the invoice: pip install 'sms4sats-async[notebook]'"

_LONG: Final = 48  # hours

# Colours come from the notebook's theme. JupyterLab styles definition lists and table cells, so the
# facts are no definition list, and the rules for cells are more specific than JupyterLab's. Each
# display has the style, because the user may delete any other display of the page.
_STYLE: Final = """
.sms4sats { display: flex; flex-wrap: wrap; gap: 16px; align-items: flex-start; line-height: 1.5 }
.sms4sats .title { font-weight: bold; margin-bottom: 4px }
.sms4sats .facts { display: grid; grid-template-columns: max-content auto; gap: 2px 16px }
.sms4sats .facts div { overflow-wrap: anywhere }
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


def render(value: object) -> str | None:
    """Return the HTML of a value, or None if there is nothing to show."""
    match value:
        case Order():
            return order_card(value)
        case OrderStatus():
            return _status_card(value)
        case OrderResult():
            return _result_card(value)
        case Price():
            return _price_card(value)
        case Listing():
            return _listing(value)
        case _:
            return None


def order_card(order: Order, result: OrderResult | None = None) -> str:
    """Return the card of an order with its QR code, or of its result if that is given."""
    if result is not None:
        return _result_card(result)
    now = time.time()
    age = now - order.created_at.timestamp()
    of_all = {field.name for field in attrs.fields(Order)}
    own = [field.name for field in attrs.fields(type(order)) if field.name not in of_all]
    facts: dict[str, object] = {
        "order": mask(order.order_id),
        **{name: getattr(order, name) for name in own},
        "metadata": _metadata(order.metadata),
        "created": f"{_clock(order.created_at)}, {span(age)} ago",
    }
    match order:
        case SendOrder():
            title = "order for a message"
        case FundOrder():
            title = "invoice to fund the balance"
        case _:
            title = "order for a code"
    try:
        invoice = read(order.invoice)
    except NotAnInvoiceError as error:
        paid = order.invoice == "paid"
        facts["money"] = "held, paid from the balance" if paid else Money.UNKNOWN.value
        facts["problem"] = None if paid else str(error)
        return card(title, facts)
    amount = satoshis(invoice.amount_msat)
    left = invoice.expires_at.timestamp() - now
    facts["amount"] = "chosen by the payer" if amount is None else f"{amount} sat"
    facts["network"] = None if invoice.network == "bitcoin" else invoice.network
    until = _clock(invoice.expires_at)
    facts["payable"] = (
        f"until {until}, {span(left)} from now" if left > 0 else f"no, it expired at {until}"
    )
    facts["money"] = "with the payer until the invoice is paid"
    if not isinstance(order, FundOrder):
        facts["money"] = "with the payer until the invoice is paid, then held"
    return card(title, facts, pay=invoice.bolt11)


def _status_card(status: OrderStatus) -> str:
    facts = {
        "order": mask(status.order_id),
        "money": status.money.value,
        "number": status.number,
        "country": status.country,
        "service": status.service,
        "message": None if status.sms_status is None else status.sms_status.value,
        "as of": None if status.timestamp is None else _clock(status.timestamp),
        "the service reports": None if status.error is None else quote(status.error),
    }
    return card(status.state.value, facts, big=status.code)


def _result_card(result: OrderResult) -> str:
    facts: dict[str, object] = {
        "order": mask(result.order_id),
        "money": result.money.value,
        "number": result.number,
        "metadata": _metadata(result.metadata),
        "last status": None if result.status is None else result.status.state.value,
        "cancel requests": result.attempts or None,
        "problem": None if result.error is None else str(result.error),
    }
    title = "the outcome is unknown" if result.outcome is None else result.outcome.value
    return card(title, facts, big=result.code)


def _metadata(metadata: Mapping[str, str]) -> str | None:
    """Return metadata as one fact, because a name such as `money` must not replace a fact."""
    return "; ".join(f"{name}: {note}" for name, note in metadata.items()) or None


def _price_card(price: Price) -> str:
    facts: dict[str, object] = {
        "to receive a code": _sat(price.receive),
        "to send a message": _sat(price.send),
        "to rent a number": _sat(price.rent),
        "the service's fee": _sat(price.platform_fee),
    }
    if price.computed is None:
        return card("prices", facts)
    asked = {"country": price.computed.country, "for": price.computed.description}
    return card("prices", asked | facts, big=_sat(price.computed.price))


def _sat(amount: int | None) -> str | None:
    return None if amount is None else f"{amount} sat"


def _listing(values: Listing[Any]) -> str | None:
    if not values:
        return None
    first: attrs.AttrsInstance = values[0]
    names = [
        field.name for field in attrs.fields(type(first)) if field.name not in {"image", "raw"}
    ]
    return table(
        [name.replace("_", " ") for name in names],
        [[getattr(each, name) for name in names] for each in values],
    )


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def card(
    title: str, facts: Mapping[str, object], *, big: str | None = None, pay: str | None = None
) -> str:
    """Return a card: a title and facts.

    Args:
        title: The title.
        facts: Names and values. A fact that is None is omitted.
        big: The most important fact.
        pay: An invoice, to show as a QR code and to copy.
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
    """Return a table that scrolls if it is long. Numbers are aligned to the right."""
    columns = zip(*rows, strict=True)
    sides = [" class=number" if any(map(_is_number, column)) else "" for column in columns]
    head = _cells("th", names, sides)
    body = "".join(f"<tr>{_cells('td', row, sides)}</tr>" for row in rows)
    return _page(
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def span(seconds: float) -> str:
    """Return a time span such as `1:42`; in days if it is long."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= _LONG:
        return f"{hours // 24} days"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _page(inner: str) -> str:
    return f'<style>{_STYLE}</style><div class="sms4sats">{inner}</div>'


def _text(value: object) -> str:
    """Return a value as escaped text."""
    match value:
        case None:
            return ""
        case True:
            return "yes"
        case False:
            return "no"
        case _:
            return html.escape(printable(str(value)))


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _cells(tag: str, values: Sequence[object], sides: Sequence[str]) -> str:
    pairs = zip(values, sides, strict=True)
    return "".join(f"<{tag}{side}>{_text(value)}</{tag}>" for value, side in pairs)


def _qr(invoice: str) -> str:
    """Return a QR code that wallets read, or one line that says why there is none.

    Upper case allows the alphanumeric mode, which makes the code smaller. The code is dark on light
    in a dark theme too, with the light border of four modules that readers need.
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
