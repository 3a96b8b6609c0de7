"""Mask secrets: no order ID, invoice, payment hash, preimage or API key is shown whole."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHORTEST_SHOWN = 12
# 64 hex digits are an order ID (documented), a payment hash or a preimage. The other is an invoice;
# any character may precede it, because `repr` writes a line end as `\n`.
_LOOKS_SECRET = re.compile(r"[0-9a-f]{64,}|ln(?:bcrt|tbs|bc|tb)[0-9a-z]{40,}", re.IGNORECASE)
_LONGEST_QUOTE = 200
_TEXTS = ("message", "strerror", "filename", "filename2")
"""Where the exceptions of aiohttp and of the system keep their texts, beside `args`."""


def mask(secret: str) -> str:
    """Return the first four and the last four characters of `secret`, nothing of a short one.

    Four characters are enough to clear a terminal, so only printable ones are shown.
    """
    if len(secret) < _SHORTEST_SHOWN:
        return "…"
    return printable(f"{secret[:4]}…{secret[-4:]}")


def mask_optional(secret: str | None) -> str:
    """Return what `repr` shows of a secret that may be absent."""
    return "None" if secret is None else mask(secret)


def mask_invoice(invoice: str) -> str:
    """Return what `repr` shows of an invoice.

    Whether its payment hash equals the order ID is unknown, so it is masked like the order ID.
    """
    return repr(invoice if invoice in {"", "paid"} else mask(invoice))


def mask_optional_invoice(invoice: str | None) -> str:
    """Return what `repr` shows of an invoice that may be absent."""
    return "None" if invoice is None else mask_invoice(invoice)


def hide(text: str, secret: str) -> str:
    """Return `text` with `secret` masked wherever it is a whole word.

    Only whole words are masked: an ID may be as short as `4`, and `HTTP 404` must stay readable.
    """
    if secret not in text:
        return text
    return re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", mask(secret), text)


def hide_known_forms(text: str) -> str:
    """Return `text` with everything masked that has the form of a secret."""
    return _LOOKS_SECRET.sub(lambda found: mask(found.group()), text)


def hide_in_causes(error: BaseException, secrets: Iterable[str]) -> None:
    """Mask secrets in the texts of the exceptions that caused `error`.

    These exceptions belong to other libraries and quote requests and answers. A logged traceback
    shows them.
    """
    seen = {id(error)}
    found = [error.__cause__ or error.__context__]
    while found:
        cause = found.pop()
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        _hide_in(cause, secrets)
        found.append(cause.__cause__ or cause.__context__)
        if isinstance(cause, BaseExceptionGroup):
            found += cast("BaseExceptionGroup[BaseException]", cause).exceptions


def _hide_in(error: BaseException, secrets: Iterable[str]) -> None:
    """Mask secrets in the texts that a traceback shows of one exception."""
    error.args = tuple(
        _hide_all(value, secrets) if isinstance(value, str) else value for value in error.args
    )
    notes: list[object] = getattr(error, "__notes__", [])
    notes[:] = [_hide_all(note, secrets) if isinstance(note, str) else note for note in notes]
    for name in _TEXTS:
        text = getattr(error, name, None)
        if isinstance(text, str):
            with suppress(AttributeError):  # a group's own text is read-only
                setattr(error, name, _hide_all(text, secrets))


def _hide_all(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = hide(text, secret)
    return hide_known_forms(text)


def quote(text: str) -> str:
    """Return foreign text as a message shows it: one short printable line, secrets masked."""
    text = printable(hide_known_forms(text))
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "…"


def printable(text: str) -> str:
    """Return foreign text on one line, without what moves a cursor or turns letters around."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def quote_optional(text: str | None) -> str:
    """Return what `repr` shows of a foreign text that may be absent."""
    return "None" if text is None else repr(quote(text))


def show(value: object) -> str:
    """Return what a message shows of an invalid argument, even if its `repr` raises."""
    try:
        return quote(repr(value))
    except Exception:  # noqa: BLE001 - a foreign `repr` may raise anything
        return f"a value of type {type(value).__name__}"
