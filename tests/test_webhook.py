"""`parse_webhook`: the payload that the service POSTs for a message."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sms4sats_async import (
    InvalidArgumentError,
    InvalidResponseError,
    OrderState,
    OrderStatus,
    Sms4SatsError,
    SmsStatus,
    parse_webhook,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("word", "status", "state"),
    [
        ("created", SmsStatus.CREATED, OrderState.MESSAGE_CREATED),
        ("sent", SmsStatus.SENT, OrderState.MESSAGE_SENT),
        ("delivered", SmsStatus.DELIVERED, OrderState.MESSAGE_DELIVERED),
        ("failed", SmsStatus.FAILED, OrderState.MESSAGE_FAILED),
        ("lost in the post", SmsStatus.UNKNOWN, OrderState.UNKNOWN),
    ],
)
def test_the_payload_is_a_status(word: str, status: SmsStatus, state: OrderState) -> None:
    payload = {"paid": True, "id": "SM1", "smsStatus": word, "timestamp": 1_700_000_000_000}
    read = parse_webhook(json.dumps(payload).encode())
    assert (read.sms_status, read.state, read.paid) == (status, state, True)
    assert read.timestamp is not None
    assert read.raw == payload
    assert read.order_id == ""


def test_an_order_id_in_the_payload_is_kept() -> None:
    assert parse_webhook(b'{"orderId": "abc", "smsStatus": "sent"}').order_id == "abc"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"smsStatus":',
        b"[]",
        b"7",
        b"\xff\xfe",
        b"[" * 100_000,
        b" " * 2**20 + b"{}",
    ],
    ids=["empty", "html", "cut", "list", "number", "not text", "deep", "over 1 MiB"],
)
def test_an_unreadable_body_is_an_invalid_response(body: bytes) -> None:
    with pytest.raises(InvalidResponseError):
        parse_webhook(body)


def test_a_body_of_at_most_1_mib_is_read() -> None:
    body = b'{"smsStatus": "sent"}'.ljust(2**20)
    assert parse_webhook(body).sms_status is SmsStatus.SENT
    with pytest.raises(InvalidResponseError, match="larger than 1048576 bytes"):
        parse_webhook(body + b" ")


def test_repr_of_a_status_masks_the_order_id() -> None:
    order_id = "0123456789abcdef" * 4
    status = parse_webhook(json.dumps({"orderId": order_id, "error": order_id}).encode())
    assert status.order_id == order_id
    assert order_id not in repr(status)


@pytest.mark.parametrize("body", ["{}", None, 7, {"smsStatus": "sent"}, bytearray(b"{}")])
def test_a_body_that_is_not_bytes_is_refused(body: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="bytes"):
        parse_webhook(body)


@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
@example(b'{"paid": true, "id": "SM1", "smsStatus": "sent", "timestamp": 1700000000000}')
@example(b'{"paid": true, "error": "No available number", "orderId": 7}')
@example(b'{"orderId": "\\ud800", "error": "\\udfff", "smsStatus": "\\ud800"}')
@example(b'{"orderId": ' + b"1" * 5000 + b"}")
@example(b'{"timestamp": 1e400, "code": NaN, "number": -Infinity, "smsStatus": []}')
def test_any_body_is_a_status_or_an_invalid_response(body: bytes) -> None:
    read = status_or_error(body)

    assert isinstance(read, OrderStatus | InvalidResponseError)
    assert repr(read)


def status_or_error(body: bytes) -> object:
    try:
        return parse_webhook(body)
    except Sms4SatsError as error:
        return error
