"""How a secret is shown: an order id or an API key is never written whole."""

from __future__ import annotations

import re

_SHORTEST_SHOWN = 12
_LOOKS_LIKE_AN_ORDER_ID = re.compile(r"[0-9a-fA-F]{64}")
_LONGEST_QUOTE = 200


def mask(secret: str) -> str:
    """Return the first four and the last four characters of `secret`, nothing of a short one."""
    if len(secret) < _SHORTEST_SHOWN:
        return "…"
    return f"{secret[:4]}…{secret[-4:]}"


def mask_optional(secret: str | None) -> str:
    """Return what `repr` shows of a secret that may be absent."""
    return "None" if secret is None else mask(secret)


def quote(text: str, *secrets: str | None) -> str:
    """Return foreign text fit for a message: secrets masked, one printable line, not too long.

    Whatever looks like an order id is masked as well: an answer may echo an id that the caller
    wrote in another way.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, mask(secret))
    text = _LOOKS_LIKE_AN_ORDER_ID.sub(lambda found: mask(found.group()), text)
    text = "".join(letter if letter.isprintable() else "�" for letter in text)
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "…"
