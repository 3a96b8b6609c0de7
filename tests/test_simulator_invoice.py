"""The invoices of the simulator follow BOLT 11. The test decodes them with code of its own."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms4sats_async.simulator import Network, make_invoice

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
HASH = bytes.fromhex("0001020304050607080900010203040506070809000102030405060708090102")
SECRET = b"\x11" * 32
PREFIXES: dict[Network, str] = {
    "bitcoin": "lnbc",
    "testnet": "lntb",
    "signet": "lntbs",
    "regtest": "lnbcrt",
}


def words_of(text: str) -> list[int]:
    """Return the values of bech32 letters."""
    return [ALPHABET.index(letter) for letter in text]


def number(words: list[int]) -> int:
    """Return words of five bits as one number; the first is the most significant."""
    return sum(word << 5 * place for place, word in enumerate(reversed(words)))


def data_bytes(words: list[int]) -> bytes:
    """Return words of five bits as bytes, without the padding at the end."""
    spare = len(words) * 5 % 8
    return (number(words) >> spare).to_bytes(len(words) * 5 // 8)


def checksum_is_right(invoice: str) -> bool:
    """Return whether the checksum is right, by a division of polynomials over GF(32)."""
    readable, _, letters = invoice.rpartition("1")
    codes = [ord(letter) for letter in readable]
    values = [*(code >> 5 for code in codes), 0, *(code & 31 for code in codes), *words_of(letters)]
    # The remainder after division by the generator of BIP 173, with these coefficients.
    generator = [29, 22, 20, 21, 29, 18]
    remainder = [0, 0, 0, 0, 0, 1]
    for value in values:
        top, *rest = remainder
        remainder = [
            low ^ multiply(top, coefficient)
            for low, coefficient in zip([*rest, value], generator, strict=True)
        ]
    return remainder == [0, 0, 0, 0, 0, 1]


def multiply(a: int, b: int) -> int:
    """Return the product in GF(32) with the modulus x^5 + x^3 + 1 (BIP 173)."""
    product = 0
    for place in range(5):
        if b >> place & 1:
            product ^= a << place
    for place in range(8, 4, -1):
        if product >> place & 1:
            product ^= 0b101001 << (place - 5)
    return product


def fields_of(invoice: str) -> dict[str, list[int]]:
    """Return the tagged fields of an invoice."""
    words = words_of(invoice.rpartition("1")[2])[7:-110]
    fields: dict[str, list[int]] = {}
    while words:
        length = number(words[1:3])
        fields[ALPHABET[words[0]]] = words[3 : 3 + length]
        words = words[3 + length :]
    return fields


def test_invoice_equals_the_example_of_bolt_11() -> None:
    signature = bytes.fromhex(
        "e59e3ffbd3945e4334879158d31e89b076dff54f3fa7979ae79df2db9dcaf589"
        "6cbfe1a478b8d2307e92c88139464cb7e6ef26e414c4abe33337961ddc5e8ab101"
    )
    invoice = make_invoice(
        amount_sat=250_000,
        payment_hash=HASH,
        payment_secret=SECRET,
        description="1 cup coffee",
        timestamp=1496314658,
        expiry=60,
        network="bitcoin",
        signature=signature,
    )
    assert invoice == (
        "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqw"
        "zqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu9qrsgquk0rl77nj30yxdy8"
        "j9vdx85fkpmdla2087ne0xh8nhedh8w27kyke0lp53ut353s06fv3qfegext0eh0ymjpf39tuven09sam30g4vgpf"
        "na3rh"
    )
    assert checksum_is_right(invoice)


@pytest.mark.parametrize(
    ("satoshis", "readable"),
    [
        (None, "lnbcrt"),
        (1, "lnbcrt10n"),
        (1368, "lnbcrt13680n"),
        (1500, "lnbcrt15u"),
        (300_000, "lnbcrt3m"),
        (200_000_000, "lnbcrt2"),
    ],
)
def test_amount_has_its_shortest_form(satoshis: int | None, readable: str) -> None:
    invoice = make_invoice(
        amount_sat=satoshis,
        payment_hash=HASH,
        payment_secret=SECRET,
        description="",
        timestamp=0,
        expiry=1260,
    )
    assert invoice.rpartition("1")[0] == readable
    assert checksum_is_right(invoice)


@given(
    preimage=st.binary(),
    description=st.text(max_size=150),
    timestamp=st.integers(0, 2**35 - 1),
    expiry=st.integers(0, 2**32),
    network=st.sampled_from(sorted(PREFIXES)),
)
def test_invoice_contains_the_arguments(
    preimage: bytes, description: str, timestamp: int, expiry: int, network: Network
) -> None:
    payment_hash = hashlib.sha256(preimage).digest()
    invoice = make_invoice(
        amount_sat=21,
        payment_hash=payment_hash,
        payment_secret=SECRET,
        description=description,
        timestamp=timestamp,
        expiry=expiry,
        network=network,
    )
    assert checksum_is_right(invoice)
    assert invoice.startswith(f"{PREFIXES[network]}210n1")
    fields = fields_of(invoice)
    assert number(words_of(invoice.rpartition("1")[2])[:7]) == timestamp
    assert data_bytes(fields["p"]) == payment_hash
    assert data_bytes(fields["s"]) == SECRET
    assert data_bytes(fields["d"]).decode() == description
    assert number(fields["x"]) == expiry
    assert number(fields["9"]) == 1 << 14 | 1 << 8
