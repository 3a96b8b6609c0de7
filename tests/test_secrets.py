"""How a secret is shown: enough to tell two apart, never enough to use."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms4sats_async._redact import hide, mask, mask_optional, quote, quote_optional, show

ORDER_ID = "0123456789abcdef" * 4
HEX = st.text(string.hexdigits, min_size=64, max_size=64)
# Shares no letter with a hex digit, so that nothing around a secret can make it up again.
AROUND = st.text("xyz \n\x00\ud800é")


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        ("", "…"),
        ("short", "…"),
        ("a" * 11, "…"),
        ("abcd5678wxyz", "abcd…wxyz"),
        (ORDER_ID, "0123…cdef"),
    ],
)
def test_a_secret_shows_its_two_ends_and_a_short_one_nothing(secret: str, shown: str) -> None:
    assert mask(secret) == shown


@pytest.mark.parametrize(("secret", "shown"), [(None, "None"), ("", "…"), (ORDER_ID, "0123…cdef")])
def test_an_absent_secret_is_shown_as_absent(secret: str | None, shown: str) -> None:
    assert mask_optional(secret) == shown


@given(st.text(min_size=1))
def test_a_mask_never_shows_more_than_eight_characters(secret: str) -> None:
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
        ("two\r\nlines\x00\ud800", "two��lines��"),
        ("é" * 200, "é" * 200),
        ("é" * 201, "é" * 199 + "…"),
    ],
)
def test_foreign_text_is_quoted_masked_on_one_short_line(text: str, quoted: str) -> None:
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
def test_a_secret_is_hidden_wherever_it_is_a_word(text: str, secret: str, hidden: str) -> None:
    assert hide(text, secret) == hidden


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("text", "'text'"),
        (Unshowable(), "a Unshowable that cannot be shown"),
        (10**5000, "a int that cannot be shown"),
    ],
    ids=["text", "unshowable", "huge"],
)
def test_a_refused_value_is_shown_whatever_it_is(value: object, shown: str) -> None:
    assert show(value) == shown


@given(before=AROUND, order_id=HEX, after=AROUND)
def test_a_quote_never_holds_an_order_id_nor_breaks_a_line(
    before: str, order_id: str, after: str
) -> None:
    quoted = quote(f"{before}{order_id}{after}")

    assert order_id not in quoted
    assert quoted.isprintable()
    assert len(quoted) <= 200
