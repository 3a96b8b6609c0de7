"""Decode Lightning invoices (BOLT 11) from bech32 (BIP 173) to plain values.

For every argument, the only exception is `NotAnInvoiceError`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Network: TypeAlias = Literal["bitcoin", "testnet", "signet", "regtest"]

_SCHEME: Final = "lightning:"
# BOLT 11 sets no limit. Wallets do (LND: 7,089), and a long text that is no invoice costs time.
_LONGEST: Final = 10_000

# BIP 173: "This part MUST contain 1 to 83 US-ASCII characters". Of its limits, BOLT 11 lifts only
# that of the whole ("MAY exceed the 90-character limit").
_LONGEST_READABLE: Final = 83
_READABLE: Final = re.compile(r"ln([a-z]*)(.*)", re.DOTALL)
_NETWORKS: Final[dict[str, Network]] = {
    "bc": "bitcoin",
    "tb": "testnet",
    "tbs": "signet",
    "bcrt": "regtest",
}
NETWORKS: Final = tuple(_NETWORKS.values())
_AMOUNT: Final = re.compile(r"([0-9]+)([munp]?)")
_MULTIPLIERS: Final = {"": 10**12, "m": 10**9, "u": 10**6, "n": 10**3, "p": 1}  # pico-bitcoin
_PICO_IN_MILLISATOSHI: Final = 10
_ALL_BITCOIN: Final = 21_000_000 * _MULTIPLIERS[""]
_MILLISATOSHI_IN_SATOSHI: Final = 1000

# BIP 173: each letter means five bits, its index in this row.
_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_NO_LETTER: Final = re.compile(f"[^{_ALPHABET}]")
_CHECKSUM: Final = 6  # words of five bits, like all lengths below
_LOW_BITS: Final = (1 << 25) - 1
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)

_TIMESTAMP: Final = 7  # BOLT 11: "seconds-since-1970 (35 bits, big-endian)"
_SIGNATURE: Final = 104  # "Bitcoin-style signature of above (520 bits)"
_FIELD_HEAD: Final = 3  # "`type` (5 bits)", "`data_length` (10 bits, big-endian)"
_HASH: Final = 52  # "`p` (1): `data_length` 52. 256-bit SHA256 payment_hash"
_EXPIRY: Final = 3600  # "Default is 3600 (1 hour) if not specified"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MOMENT: Final = datetime.max.replace(tzinfo=UTC)


class NotAnInvoiceError(ValueError):
    """If the argument is not an invoice of a known network."""


class Parts(NamedTuple):
    """What an invoice says; `Invoice` documents each part."""

    bolt11: str
    network: Network
    amount_msat: int | None
    created_at: datetime
    expires_at: datetime
    payment_hash: str
    description: str | None


def read(bolt11: object) -> Parts:
    """Decode an invoice and check its checksum, but not its signature.

    Raises:
        NotAnInvoiceError: If it is not an invoice of a known network.
    """
    text = _alone(bolt11)
    readable, letters = _split(text)
    network, amount = _network(readable)
    words = _words(readable, letters)
    amount_msat = _millisatoshis(amount) if amount else None
    if len(words) < _TIMESTAMP + _SIGNATURE:
        raise _refusal("it is too short to have a time and a signature")
    created_at = _EPOCH + timedelta(seconds=_number(words[:_TIMESTAMP]))
    fields = _first_fields(words[_TIMESTAMP:-_SIGNATURE])
    # BOLT 11: "MUST include exactly one `p` field" (writer).
    if "p" not in fields:
        raise _refusal("it has no payment hash")
    # Writers omit leading 0s of `x`. Only later versions of BOLT 11 say that a reader "SHOULD treat
    # the invoice as invalid" for them, so they are accepted.
    expiry = _number(fields["x"]) if "x" in fields else _EXPIRY
    return Parts(
        bolt11=text,
        network=network,
        amount_msat=amount_msat,
        created_at=created_at,
        expires_at=_after(created_at, expiry),
        payment_hash=_octets(fields["p"]).hex(),
        description=_octets(fields["d"]).decode(errors="replace") if "d" in fields else None,
    )


def satoshis(amount_msat: int | None) -> int | None:
    """Return an amount in satoshis, rounded up; None if there is no amount."""
    return None if amount_msat is None else -(-amount_msat // _MILLISATOSHI_IN_SATOSHI)


def _refusal(why: str) -> NotAnInvoiceError:
    return NotAnInvoiceError(f"not a Lightning invoice (BOLT 11): {why}")


# --- bech32 ---------------------------------------------------------------------------------------


def _alone(bolt11: object) -> str:
    """Return the invoice without scheme and surrounding blanks, in its own case."""
    if not isinstance(bolt11, str):
        raise _refusal(f"it must be a str, not {type(bolt11).__name__}")
    text = bolt11.strip()
    if text == "paid":
        raise _refusal("'paid' means that the order was paid from the balance")
    if len(text) > _LONGEST:
        raise _refusal(f"it has {len(text)} characters, more than {_LONGEST}")
    # BIP 173 knows US-ASCII only. Before any change of case: "\N{KELVIN SIGN}".lower() is "k".
    if not text.isascii():
        raise _refusal("it has a character that is not ASCII")
    # BOLT 11: "use 'lightning:' as a prefix before the BOLT-11 encoding (note: not 'lightning://')"
    if text[: len(_SCHEME)].lower() == _SCHEME:
        text = text[len(_SCHEME) :].lstrip()
    return text


def _split(text: str) -> tuple[str, str]:
    """Return the human-readable part and the letters of the data part, in lower case."""
    # BIP 173: "Decoders MUST NOT accept strings where some characters are uppercase and some are
    # lowercase"; "The lowercase form is used when determining a character's value".
    if text not in {text.lower(), text.upper()}:
        raise _refusal("it mixes upper and lower case")
    # "In case "1" is allowed inside the human-readable part, the last one in the string is the
    # separator"
    readable, separator, letters = text.lower().rpartition("1")
    if not separator:
        raise _refusal("it has no '1' before its data")
    if len(readable) > _LONGEST_READABLE:
        raise _refusal(f"it has more than {_LONGEST_READABLE} characters before its last '1'")
    return readable, letters


def _words(readable: str, letters: str) -> bytes:
    """Return the values of the data part's letters, without the checksum, which is checked."""
    strange = _NO_LETTER.search(letters)
    if strange is not None:
        place = len(readable) + len("1") + strange.start() + 1
        raise _refusal(f"its character {place}, {strange.group()!r}, is not a bech32 character")
    words = bytes(map(_ALPHABET.index, letters))
    codes = readable.encode()
    # BIP 173: "first feeding the higher bits of each character's US-ASCII value into the checksum
    # calculation followed by a zero and then the lower bits of each"
    readable_words = bytes([*(code >> 5 for code in codes), 0, *(code & 31 for code in codes)])
    if _remainder(readable_words + words) != 1:
        raise _refusal("its checksum is wrong: a character was changed, lost or added")
    return words[:-_CHECKSUM]


def _feedback(top: int) -> int:
    """Return what five bits that are shifted out add to the remainder."""
    total = 0
    for place, term in enumerate(_GENERATOR):
        if top >> place & 1:
            total ^= term
    return total


_FEEDBACK: Final = tuple(map(_feedback, range(32)))


def _remainder(words: bytes) -> int:
    """Return the remainder by BIP 173's generator; 1 if the checksum is right."""
    remainder = 1
    for word in words:
        remainder = (remainder & _LOW_BITS) << 5 ^ word ^ _FEEDBACK[remainder >> 25]
    return remainder


# --- the human-readable part ----------------------------------------------------------------------


def _network(readable: str) -> tuple[Network, str]:
    """Return the network and the rest, which is the amount as written."""
    found = _READABLE.fullmatch(readable)
    # BOLT 11: "if it does NOT understand the `prefix`: MUST fail the payment"
    if found is None or found[1] not in _NETWORKS:
        known = ", ".join(f"ln{prefix}" for prefix in _NETWORKS)
        raise _refusal(f"it starts with none of {known}, so its network is unknown")
    return _NETWORKS[found[1]], found[2]


def _millisatoshis(amount: str) -> int:
    found = _AMOUNT.fullmatch(amount)
    # BOLT 11: "if `amount` contains a non-digit OR is followed by anything except a `multiplier`:
    # MUST fail the payment"
    if found is None:
        raise _refusal("its amount is not a number with an optional multiplier m, u, n or p")
    number, multiplier = found.groups()
    # "MUST encode `amount` as a positive decimal integer with no leading 0s" (writer). To some
    # wallets 0 means any amount, to others nothing, so it cannot be compared with a limit.
    if number.startswith("0"):
        raise _refusal("its amount is 0 or starts with a 0")
    pico = int(number) * _MULTIPLIERS[multiplier]
    millisatoshis, rest = divmod(pico, _PICO_IN_MILLISATOSHI)
    # BOLT 11 (reader): "if multiplier is `p` and the last decimal of `amount` is not 0: MUST fail
    # the payment"
    if rest:
        raise _refusal("its amount is not a whole number of millisatoshis")
    if pico > _ALL_BITCOIN:
        raise _refusal("its amount is more bitcoin than will ever exist")
    return millisatoshis


# --- the data part --------------------------------------------------------------------------------


def _first_fields(words: bytes) -> dict[str, bytes]:
    """Return the first valid field of each type."""
    found: dict[str, bytes] = {}
    for tag, data in _fields(words):
        # BOLT 11 (reader): "MUST skip over [...] `p`, `h`, `s` or `n` fields that do NOT have
        # `data_length`s of 52, 52, 52 or 53". Later versions fail the payment for them, but still
        # list an invoice with them among the valid examples.
        if tag == "p" and len(data) != _HASH:
            continue
        # "SHOULD use the first `p` field that it did NOT skip"; of any other type, a writer "MUST
        # specify the most-preferred field first".
        found.setdefault(tag, data)
    return found


def _fields(words: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield each tagged field as the letter of its type and its data."""
    place = 0
    while place < len(words):
        start = place + _FIELD_HEAD
        head = words[place:start]
        place = start + _number(head[1:])
        if place > len(words):
            raise _refusal("a field extends into its signature")
        yield _ALPHABET[head[0]], words[start:place]


def _number(words: bytes) -> int:
    """Return words as one number, the first word the most significant; 0 for no words."""
    number = 0
    for word in words:
        number = number << 5 | word
    return number


def _octets(words: bytes) -> bytes:
    """Return words as bytes, without the padding.

    BOLT 11: "MUST pad field data to a multiple of 5 bits, using 0s" (writer). It does not ask
    readers to check the padding.
    """
    bits = 5 * len(words)
    return (_number(words) >> bits % 8).to_bytes(bits // 8)


def _after(start: datetime, seconds: int) -> datetime:
    """Return the time `seconds` later, or the last time that a datetime can hold."""
    if seconds > (_LAST_MOMENT - start) // timedelta(seconds=1):
        return _LAST_MOMENT
    return start + timedelta(seconds=seconds)
