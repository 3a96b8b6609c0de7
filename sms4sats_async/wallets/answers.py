"""Read the values that the answers of wallets share. Every function takes any JSON value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, cast

from sms4sats_async._bolt11 import satoshis

_NUMBER: Final = re.compile("-?[0-9]{1,18}", re.ASCII)
_PREIMAGE: Final = re.compile("[0-9a-f]{64}", re.IGNORECASE)


def fields(value: object) -> Mapping[str, object]:
    """Return a JSON object; any other value has no fields."""
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}


def text(value: object) -> str | None:
    """Return a text that is not empty, or None."""
    return value if isinstance(value, str) and value else None


def amount(value: object) -> int | None:
    """Return an amount without its sign, which some wallets use for the direction."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value)
    return abs(value) if isinstance(value, int) and not isinstance(value, bool) else None


def from_msat(value: object) -> int | None:
    """Return an amount of millisatoshis in satoshis, rounded up."""
    return satoshis(amount(value))


def preimage(value: object) -> str | None:
    """Return a preimage; wallets fill the field with zeros before they know it."""
    found = isinstance(value, str) and _PREIMAGE.fullmatch(value)
    return found[0] if found and found[0].strip("0") else None
