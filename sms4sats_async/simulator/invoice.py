"""Lightning invoices that are well-formed, but that no wallet can pay.

The layout follows BOLT 11: a human-readable part with network and amount, then words of five bits.
The words have a timestamp, tagged fields and a signature, and last the bech32 checksum (BIP 173).
"""

from collections.abc import Iterable
from typing import Literal

__all__ = ["Network", "make_invoice"]

Network = Literal["bitcoin", "testnet", "signet", "regtest"]

_PREFIXES: dict[Network, str] = {
    "bitcoin": "lnbc",
    "testnet": "lntb",
    "signet": "lntbs",
    "regtest": "lnbcrt",
}
_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM_WORDS = 6
_TIMESTAMP_WORDS = 7  # 35 bits
_NO_SIGNATURE = bytes(65)
"""r = s = 0 is not a signature: a wallet can decode the invoice, but not pay it."""

# "m", "u" and "n" are a thousandth, a millionth and a billionth of a bitcoin. BOLT 11 asks for the
# shortest form ("SHOULD use the shortest representation possible").
_MULTIPLIERS = ((100_000_000, ""), (100_000, "m"), (100, "u"))
# Bit 8 (var_onion_optin) and bit 14 (payment_secret), which the field `s` requires.
_FEATURES = (1 << 14) | (1 << 8)


def make_invoice(
    *,
    amount_sat: int | None,
    payment_hash: bytes,
    payment_secret: bytes,
    description: str,
    timestamp: int,
    expiry: int,
    network: Network = "regtest",
    signature: bytes = _NO_SIGNATURE,
) -> str:
    """Return a BOLT 11 invoice with a correct checksum.

    Args:
        amount_sat: the amount in satoshis; None: the payer chooses it.
        payment_hash: 32 bytes.
        payment_secret: 32 bytes.
        description: the text for the payer, at most 639 bytes of UTF-8.
        timestamp: the creation time in Unix seconds.
        expiry: seconds until the invoice expires.
        network: the network, which the prefix names.
        signature: 64 bytes and the recovery id; it is not checked.
    """
    data = [
        *_number_words(timestamp, _TIMESTAMP_WORDS),
        *_field("s", _bytes_words(payment_secret)),
        *_field("p", _bytes_words(payment_hash)),
        *_field("d", _bytes_words(description.encode())),
        *_field("x", _number_words(expiry)),
        *_field("9", _number_words(_FEATURES)),
        *_bytes_words(signature),
    ]
    readable = _PREFIXES[network] + _amount(amount_sat)
    return f"{readable}1" + "".join(_ALPHABET[word] for word in data + _checksum(readable, data))


def _amount(amount_sat: int | None) -> str:
    if amount_sat is None:
        return ""
    for satoshis, letter in _MULTIPLIERS:
        if amount_sat % satoshis == 0:
            return f"{amount_sat // satoshis}{letter}"
    return f"{amount_sat * 10}n"


def _field(tag: str, words: list[int]) -> list[int]:
    return [_ALPHABET.index(tag), *_number_words(len(words), 2), *words]


def _number_words(value: int, length: int | None = None) -> list[int]:
    if length is None:
        length = -(-value.bit_length() // 5)
    return [(value >> 5 * place) & 31 for place in reversed(range(length))]


def _bytes_words(data: bytes) -> list[int]:
    bits = 8 * len(data)
    padding = -bits % 5
    return _number_words(int.from_bytes(data) << padding, (bits + padding) // 5)


def _checksum(readable: str, data: list[int]) -> list[int]:
    expanded = [*(ord(char) >> 5 for char in readable), 0, *(ord(char) & 31 for char in readable)]
    return _number_words(_polymod([*expanded, *data, *[0] * _CHECKSUM_WORDS]) ^ 1, _CHECKSUM_WORDS)


def _polymod(words: Iterable[int]) -> int:
    checksum = 1
    for word in words:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ word
        for place, generator in enumerate(_GENERATOR):
            checksum ^= generator if (top >> place) & 1 else 0
    return checksum
