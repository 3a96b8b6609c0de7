"""Mask secrets: an order ID can read the code and cancel the order, and a key can spend."""

import re

__all__ = ["mask", "mask_all"]

_SHORTEST_SHOWN = 12
_LONG_WORD = re.compile(r"[0-9A-Za-z]{16,}")


def mask(secret: str | None) -> str:
    """Return the first and last four characters of a secret, or none of a short one."""
    if secret is None:
        return "None"
    return f"{secret[:4]}…{secret[-4:]}" if len(secret) >= _SHORTEST_SHOWN else "…"


def mask_all(text: str) -> str:
    """Mask every word that is long enough to be an order ID."""
    return _LONG_WORD.sub(lambda match: mask(match[0]), text)
