"""Masking shows enough of a secret to tell two apart, and too little to use it."""

import string
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms4sats_async import FundingEntry, Invoice
from sms4sats_async._redact import (
    hide,
    hide_in_causes,
    hide_known_forms,
    mask,
    mask_invoice,
    mask_optional,
    mask_optional_invoice,
    quote,
    quote_optional,
    show,
)
from sms4sats_async.simulator import make_invoice

ORDER_ID = "0123456789abcdef" * 4
PREIMAGE = "fedcba9876543210" * 4
INVOICE = make_invoice(
    amount_sat=1500,
    payment_hash=bytes.fromhex(ORDER_ID),
    payment_secret=bytes(32),
    description=f"order {ORDER_ID}",
    timestamp=1_800_000_000,
    expiry=1260,
)
SHORT = f"{INVOICE[:4]}…{INVOICE[-4:]}"
HEX = st.text(string.hexdigits, min_size=64, max_size=64)
INVOICES = st.builds(
    "{}{}".format,
    st.sampled_from(["lnbc", "lntb", "lntbs", "lnbcrt", "LNBC"]),
    st.text(string.ascii_letters + string.digits, min_size=40, max_size=400),
)
# No letter of a hex digit or an invoice, so that the text around a secret cannot repeat a part.
AROUND = st.text(" \n\x00\ud800é-:,")


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        ("", "…"),
        ("short", "…"),
        ("a" * 11, "…"),
        ("abcd5678wxyz", "abcd…wxyz"),
        (ORDER_ID, "0123…cdef"),
        ("\x1b[2Jabcd\u202e\ud800\r\n", "�[2J…����"),
    ],
)
def test_mask_shows_both_ends_of_a_long_secret_only(secret: str, shown: str) -> None:
    assert mask(secret) == shown


@pytest.mark.parametrize(("secret", "shown"), [(None, "None"), ("", "…"), (ORDER_ID, "0123…cdef")])
def test_missing_secret_is_shown_as_none(secret: str | None, shown: str) -> None:
    assert mask_optional(secret) == shown


@given(st.text(min_size=1))
def test_mask_shows_at_most_eight_characters(secret: str) -> None:
    shown = mask(secret)

    assert shown != secret or secret == "…"
    assert len(shown) <= 9
    assert "…" in shown


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("nothing secret", "nothing secret"),
        (f"no order {ORDER_ID}", "no order 0123…cdef"),
        (f"no order {ORDER_ID.upper()}!", "no order 0123…CDEF!"),
        (f"cannot pay {INVOICE}.", f"cannot pay {SHORT}."),
        (f"lightning:{INVOICE}", f"lightning:{SHORT}"),
        (f"{INVOICE.upper()}", f"{INVOICE[:4].upper()}…{INVOICE[-4:].upper()}"),
        (repr(f"pay\n{INVOICE}\n{ORDER_ID}"), f"'pay\\n{SHORT}\\n0123…cdef'"),
        (f"hash {ORDER_ID}, preimage {PREIMAGE}", "hash 0123…cdef, preimage fedc…3210"),
        (f"{ORDER_ID}{PREIMAGE}", "0123…3210"),
        ("lnbc is a prefix, deadbeef is short", "lnbc is a prefix, deadbeef is short"),
        ("two\r\nlines\x00\ud800", "two��lines��"),
        ("é" * 200, "é" * 200),
        ("é" * 201, "é" * 199 + "…"),
    ],
)
def test_quote_is_one_short_line_with_secrets_masked(text: str, quoted: str) -> None:
    assert quote(text) == quoted
    assert quote_optional(text) == repr(quoted)
    assert quote_optional(None) == "None"


@pytest.mark.parametrize(
    ("text", "secret", "hidden"),
    [
        ("no order abc-1 here", "abc-1", "no order … here"),
        ("key sk_live_0123456789", "sk_live_0123456789", "key sk_l…6789"),
        ("HTTP 404: no order 4", "4", "HTTP 404: no order …"),
        ("no order a.c, but abc", "a.c", "no order …, but abc"),
        ("nothing of it", "secret", "nothing of it"),
    ],
)
def test_hide_masks_a_secret_where_it_is_a_whole_word(text: str, secret: str, hidden: str) -> None:
    assert hide(text, secret) == hidden


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("text", "'text'"),
        (Unshowable(), "a value of type Unshowable"),
        (10**5000, "a value of type int"),
    ],
    ids=["text", "unshowable", "huge"],
)
def test_show_returns_a_text_for_any_value(value: object, shown: str) -> None:
    assert show(value) == shown


@given(before=AROUND, secret=HEX | INVOICES, after=AROUND)
def test_quote_never_has_a_whole_secret_or_a_line_end(before: str, secret: str, after: str) -> None:
    text = f"{before}{secret}{after}"

    for quoted in (quote(text), quote(repr(text))):
        assert secret not in quoted
        assert quoted.isprintable()
        assert len(quoted) <= 200
    assert secret not in hide_known_forms(text)


@pytest.mark.parametrize(
    ("invoice", "shown"),
    [("", "''"), ("paid", "'paid'"), (INVOICE, f"'{SHORT}'"), ("lnbc1", "'…'")],
)
def test_repr_of_an_invoice_is_masked_like_an_order_id(invoice: str, shown: str) -> None:
    assert mask_invoice(invoice) == shown
    assert mask_optional_invoice(invoice) == shown
    assert mask_optional_invoice(None) == "None"


def test_repr_of_values_shows_no_payment_hash_and_no_preimage() -> None:
    values = [
        Invoice.parse(INVOICE),
        FundingEntry(
            1000,
            invoice=INVOICE,
            description=f"funded by {ORDER_ID}",
            preimage=PREIMAGE,
            preimage_hash=ORDER_ID,
            user_id="key-0123456789",
            raw={"preimage": PREIMAGE},
        ),
    ]

    shown = repr(values)

    for secret in (INVOICE, ORDER_ID, PREIMAGE, "key-0123456789"):
        assert secret not in shown
    assert "0123…cdef" in shown


# --- the exceptions of other libraries ------------------------------------------------------------


class LibraryError(Exception):
    """An error with a text of its own, as aiohttp's have."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 404)
        self.message = message


def test_secrets_in_the_causes_of_an_error_are_masked() -> None:
    key = "key-0123456789"
    first = LibraryError(f"{key} cannot see {ORDER_ID}")
    second = OSError(2, "no such file", f"/orders/{ORDER_ID}")
    second.add_note(f"the invoice was {INVOICE}")
    group = ExceptionGroup("two failures", [first, second])
    error = ValueError("the outcome is unknown")
    error.__cause__ = group
    second.__cause__ = error  # a circle must not hang

    hide_in_causes(error, [key])

    text = "".join(traceback.format_exception(error))
    assert "key-…6789 cannot see 0123…cdef" in text
    assert first.args == ("key-…6789 cannot see 0123…cdef", 404)
    assert first.message == first.args[0]
    assert SHORT in text
    for secret in (key, INVOICE, ORDER_ID):
        assert secret not in text
    assert second.filename == "/orders/0123…cdef"
