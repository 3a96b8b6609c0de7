"""Countries, services and prices of the simulated service: short lists in the real format."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = [
    "AUTO_SELECT",
    "COUNTRIES",
    "PRICES",
    "RENTAL_COUNTRIES",
    "SEND_PRICE",
    "SERVICES",
    "country_id",
    "receive_price",
    "rental_price",
]

AUTO_SELECT = 999
"""The ID of "any country". (seen in clients)"""

COUNTRIES: tuple[Mapping[str, Any], ...] = (
    # `visible` and `rent` are missing on some countries; 0 is a valid id. (seen in clients)
    {"id": AUTO_SELECT, "eng": "Auto-Select"},
    {"id": 0, "eng": "Russia", "visible": 0},
    {"id": 6, "eng": "Indonesia", "visible": 1, "rent": 1},
    {"id": 16, "eng": "United Kingdom", "visible": 1, "rent": 0},
    {"id": 43, "eng": "Germany", "visible": 1, "rent": 1},
    {"id": 187, "eng": "United States", "visible": 1},
)

SERVICES: tuple[Mapping[str, Any], ...] = (
    # `value` is the code, `count` is a string, `image.src` may be relative. (seen in clients)
    {
        "key": "tg",
        "text": "Telegram",
        "value": "tg",
        "count": "412",
        "image": {"avatar": True, "src": "/assets/tg.png"},
    },
    {
        "key": "wa",
        "text": "WhatsApp",
        "value": "wa",
        "count": "87",
        "image": {"avatar": True, "src": "https://images.invalid/wa.png"},
    },
    {
        "key": "go",
        "text": "Google",
        "value": "go",
        "count": "0",
        "image": {"avatar": True, "src": "/assets/go.png"},
    },
)

RENTAL_COUNTRIES: tuple[Mapping[str, Any], ...] = (
    # The duration is a string, in weeks; the price is in satoshis. (documented)
    {"cc": 6, "country": "Indonesia", "duration": "2", "price": 1368},
    {"cc": 43, "country": "Germany", "duration": "4", "price": 15000},
)

PRICES: Mapping[str, Any] = MappingProxyType(
    # Numbers and numeric strings in satoshis. (documented)
    {"receive": "1500", "send": 3000, "rent": 15000, "s4s": "4000"}
)

SEND_PRICE = 3000
_RECEIVE_PRICES: Mapping[str, int] = {"tg": 1500, "wa": 1800, "go": 1200}


def country_id(country: object) -> int | None:
    """Return the ID of a country, given as an ID or a name in any case; None if it is unknown.

    An ID as a string is rejected: whether the real service accepts it is unknown.
    """
    if isinstance(country, bool):
        return None
    wanted = country.casefold() if isinstance(country, str) else country
    for known in COUNTRIES:
        if wanted in (known["id"], known["eng"].casefold()):
            return int(known["id"])
    return None


def receive_price(service: object) -> int | None:
    """Return the price of one code of a service, in satoshis; None if the service is unknown."""
    return _RECEIVE_PRICES.get(service) if isinstance(service, str) else None


def rental_price(country: int) -> int | None:
    """Return the price of renting a number, in satoshis; None if the country has none."""
    return next((int(each["price"]) for each in RENTAL_COUNTRIES if each["cc"] == country), None)
