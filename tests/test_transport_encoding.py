"""An order's ID arrives as it was given, whatever it holds: encoded once and decoded once."""

from urllib.parse import parse_qs, unquote, unquote_plus, urlsplit

import httpx
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from sms4sats_async._http.messages import target
from tests.servers import ORDER_ID, Server, everywhere, opened, service

IDS = (
    ORDER_ID,
    "a b",
    "a/b?c=d&e#f",
    "%2F",
    "%",
    "ü€",
    "+",
    "a%20b",
    "..",
    "../..",
    "\N{COMBINING ACUTE ACCENT}e",
    "\N{SNAKE}",
    "'\"<>\\^`{|}~[]@:!$()*,;",
)

ROOT = "http://127.0.0.1:1"
UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


@everywhere
@pytest.mark.anyio
async def test_an_id_arrives_at_a_server_as_it_was_given(adapter: str) -> None:
    with Server(service()) as server:
        async with opened(adapter, server.url) as client:
            for order_id in IDS:
                await client.cancel_order(order_id)
    assert [parse_qs(urlsplit(seen).query, strict_parsing=True) for seen in server.targets] == [
        {"orderId": [order_id]} for order_id in IDS
    ]
    assert {urlsplit(seen).path for seen in server.targets} == {"/cancelorder"}


@everywhere
@pytest.mark.anyio
async def test_a_root_with_a_path_keeps_it(adapter: str) -> None:
    with Server(service()) as server:
        async with opened(adapter, f"{server.url}/api/v2/") as client:
            await client.cancel_order("a/b")
    assert server.targets == ["/api/v2/cancelorder?orderId=a%2Fb"]


@given(st.text(min_size=1).filter(str.isprintable))
def test_every_reading_of_the_query_gives_back_the_text(text: str) -> None:
    line = target("/cancelorder", {"orderId": text})
    path, _, value = line.partition("?orderId=")
    assert path == "/cancelorder"
    assert set(value) <= UNRESERVED | {"%"}
    # A form's reader and a URI's reader agree.
    assert unquote(value, errors="strict") == unquote_plus(value, errors="strict") == text
    assert parse_qs(urlsplit(line).query, strict_parsing=True) == {"orderId": [text]}


@given(st.text(min_size=1).filter(str.isprintable))
def test_no_library_encodes_it_in_another_way(text: str) -> None:
    line = target("/cancelorder", {"orderId": text})
    assert httpx.URL(ROOT + line).raw_path == line.encode()
    assert httpx2.URL(ROOT + line).raw_path == line.encode()
    assert URL(ROOT + line, encoded=True).raw_path_qs == line


@given(st.dictionaries(st.sampled_from(["country", "service"]), st.text(min_size=1)))
def test_a_query_of_several_values_is_read_back_completely(query: dict[str, str]) -> None:
    encodable = {name: text for name, text in query.items() if text.isprintable()}
    read = parse_qs(urlsplit(target("/price", encodable)).query)
    assert read == {name: [text] for name, text in encodable.items()}
