"""Recorders, mocks and tracers see each request as it is sent: method, whole URL and answer."""

import hashlib
import importlib
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor, RequestInfo
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Span
from pytest_httpx import HTTPXMock

from sms4sats_async import (
    RequestOutcome,
    RequestTimeoutError,
    RetryPolicy,
    Sms4SatsClient,
    UnableToSaveDataError,
)
from sms4sats_async._http.messages import target
from sms4sats_async._http.transports.own import Urls
from tests.servers import KEY, ONCE, ORDER_ID, Seen, Server, answer, service

OTHER_ID = "f" * 64
VCR: Any = importlib.import_module("vcr")  # it has no types
ROOTS = [
    "http://127.0.0.1:8021",
    "https://api2.sms4sats.com",
    "https://api.example.com/a%20path/v2",
    "https://[::1]:8021/api",
    "https://bücher.example",
]
TARGETS = ["/", "/getCountries", f"/orderstatus?orderId={ORDER_ID}", "/price?country=0&service=a"]


# --- the URL itself -------------------------------------------------------------------------------


def assert_same(url: httpx.URL, parsed: httpx.URL) -> None:
    """Compare everything that a URL shows."""
    assert type(url) is httpx.URL
    assert vars(url) == vars(parsed)
    assert url == parsed == str(url)
    assert hash(url) == hash(parsed)
    names = ("scheme", "host", "raw_host", "port", "netloc", "path", "query", "raw_path", "params")
    for name in (*names, "fragment", "userinfo", "is_absolute_url", "__str__", "__repr__"):
        mine, theirs = (getattr(each, name) for each in (url, parsed))
        assert (mine() if callable(mine) else mine) == (theirs() if callable(theirs) else theirs)
    assert pickle.loads(pickle.dumps(url)) == parsed  # noqa: S301 - our own bytes
    assert url.copy_with(query=None) == parsed.copy_with(query=None)
    assert url.copy_set_param("a", "b") == parsed.copy_set_param("a", "b")
    assert url.join("/x?y=z") == parsed.join("/x?y=z")


@pytest.mark.parametrize("line", TARGETS)
@pytest.mark.parametrize("root", ROOTS)
def test_a_url_is_the_one_that_httpx_parses(root: str, line: str) -> None:
    assert_same(Urls(httpx.URL(root)).of(line), httpx.URL(root + line))


@given(st.text(min_size=1).filter(str.isprintable))
def test_a_url_of_any_order_id_is_the_one_that_httpx_parses(order_id: str) -> None:
    line = target("/cancelorder", {"orderId": order_id})
    assert_same(Urls(httpx.URL(ROOTS[1])).of(line), httpx.URL(ROOTS[1] + line))


def test_a_url_leaves_the_root_and_other_urls_alone() -> None:
    root = httpx.URL(ROOTS[2])
    urls = Urls(root)
    first = urls.of("/one?a=b")
    second = urls.of("/two")
    assert (str(root), str(first), str(second)) == (
        ROOTS[2],
        f"{ROOTS[2]}/one?a=b",
        f"{ROOTS[2]}/two",
    )


@pytest.mark.parametrize("line", TARGETS)
@pytest.mark.parametrize("root", ROOTS)
def test_a_url_is_parsed_if_httpx_keeps_its_parts_elsewhere(
    root: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = Urls(httpx.URL(root))
    monkeypatch.setattr(urls, "_parts", None)
    assert_same(urls.of(line), httpx.URL(root + line))


# --- vcrpy ----------------------------------------------------------------------------------------


def status_reply(seen: Seen) -> bytes:
    """Answer each order with a code of its own."""
    (order_id,) = parse_qs(urlsplit(seen.target).query)["orderId"]
    return answer({"status": "OK", "paid": True, "code": order_id[:4]})


async def codes(root: str, *order_ids: str) -> list[str | None]:
    async with Sms4SatsClient(base_url=root, retry=ONCE) as client:
        return [(await client.get_order_status(order_id)).code for order_id in order_ids]


@pytest.mark.anyio
async def test_vcrpy_replays_each_order_its_own_code(tmp_path: Path) -> None:
    cassette = str(tmp_path / "cassette.yaml")
    with Server(service(status_reply)) as server, VCR.use_cassette(cassette):
        assert await codes(server.url, ORDER_ID, OTHER_ID) == ["0123", "ffff"]
    with VCR.use_cassette(cassette, record_mode="none") as replay:
        assert await codes(server.url, OTHER_ID, ORDER_ID) == ["ffff", "0123"]
    assert [seen.uri for seen in replay.requests] == [
        f"{server.url}/orderstatus?orderId={order_id}" for order_id in (ORDER_ID, OTHER_ID)
    ]
    assert len(server.seen) == 2


@pytest.mark.anyio
async def test_vcrpy_replays_the_polls_of_an_order_in_their_order(tmp_path: Path) -> None:
    replies: list[dict[str, Any]] = [
        {"paid": False},
        {"paid": True},
        {"paid": True, "code": "0042"},
    ]
    answers = iter([answer(reply) for reply in replies])
    cassette = str(tmp_path / "cassette.yaml")
    expected = [(False, None), (True, None), (True, "0042")]

    async def polls(root: str) -> list[tuple[bool | None, str | None]]:
        async with Sms4SatsClient(base_url=root, retry=ONCE) as client:
            found = [await client.get_order_status(ORDER_ID) for _ in range(3)]
        return [(status.paid, status.code) for status in found]

    with Server(service(lambda _: next(answers))) as server, VCR.use_cassette(cassette):
        assert await polls(server.url) == expected
    with VCR.use_cassette(cassette, record_mode="none"):
        assert await polls(server.url) == expected


@pytest.mark.anyio
async def test_vcrpy_replays_a_refusal(tmp_path: Path) -> None:
    unable = answer({"status": "error", "reason": "unable to save data"}, "500 No")
    cassette = str(tmp_path / "cassette.yaml")
    with Server(service(lambda _: unable)) as server:
        for _ in range(2):
            with VCR.use_cassette(cassette):
                async with Sms4SatsClient(base_url=server.url, retry=ONCE) as client:
                    with pytest.raises(UnableToSaveDataError):
                        await client.cancel_order(ORDER_ID)
        assert len(server.seen) == 1


def scrub(request: Any) -> Any:
    """Do as docs/http_client.md shows."""

    def hashed(found: re.Match[str]) -> str:
        return "hash-" + hashlib.sha256(found[0].encode()).hexdigest()[:16]

    request.uri = re.sub("(?<=orderId=)(?!hash-)[^&]+", hashed, request.uri)
    return request


@pytest.mark.anyio
async def test_a_scrubbed_cassette_has_no_order_id_and_tells_orders_apart(tmp_path: Path) -> None:
    cassette = tmp_path / "cassette.yaml"
    recorder = VCR.VCR(before_record_request=scrub, filter_headers=["x-api-key"])
    with Server(service(status_reply)) as server, recorder.use_cassette(str(cassette)):
        assert await codes(server.url, ORDER_ID, OTHER_ID) == ["0123", "ffff"]
    with recorder.use_cassette(str(cassette), record_mode="none"):
        assert await codes(server.url, OTHER_ID, ORDER_ID) == ["ffff", "0123"]
    assert ORDER_ID not in cassette.read_text("utf-8")
    assert [urlsplit(seen).query for seen in server.targets] == [
        f"orderId={order_id}" for order_id in (ORDER_ID, OTHER_ID)
    ]


@pytest.mark.anyio
async def test_a_scrubbed_cassette_has_no_key(tmp_path: Path) -> None:
    cassette = tmp_path / "cassette.yaml"
    recorder = VCR.VCR(before_record_request=scrub, filter_headers=["x-api-key"])
    with Server(service()) as server, recorder.use_cassette(str(cassette)):
        async with Sms4SatsClient(base_url=server.url, api_key=KEY) as client:
            await client.create_order(187, "tg", immediate=True)
    assert KEY not in cassette.read_text("utf-8")
    assert server.seen[0].headers["x-api-key"] == KEY


# --- pytest-httpx ---------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_pytest_httpx_answers_by_the_whole_url(httpx_mock: HTTPXMock) -> None:
    for order_id in (OTHER_ID, ORDER_ID):
        httpx_mock.add_response(
            url=f"https://service.invalid/orderstatus?orderId={order_id}",
            json={"paid": True, "code": order_id[:4]},
        )
    assert await codes("https://service.invalid", ORDER_ID, OTHER_ID) == ["0123", "ffff"]
    assert [request.url.params["orderId"] for request in httpx_mock.get_requests()] == [
        ORDER_ID,
        OTHER_ID,
    ]


@pytest.mark.anyio
async def test_pytest_httpx_sees_body_and_key(httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(
        method="POST",
        url="https://service.invalid/createorder",
        match_json={"country": 187, "service": "tg", "immediate": True},
        match_headers={"x-api-key": KEY},
        json={"status": "OK", "orderId": ORDER_ID, "payreq": "paid"},
    )
    async with Sms4SatsClient(base_url="https://service.invalid", api_key=KEY) as client:
        order = await client.create_order(187, "tg", immediate=True)
    assert order.order_id == ORDER_ID


@pytest.mark.httpx_mock(assert_all_requests_were_expected=False)
@pytest.mark.anyio
async def test_pytest_httpx_without_an_answer_is_an_error_of_ours(httpx_mock: HTTPXMock) -> None:
    async with Sms4SatsClient(base_url="https://service.invalid", retry=ONCE) as client:
        with pytest.raises(RequestTimeoutError) as caught:
            await client.cancel_order(ORDER_ID)
    assert caught.value.request_outcome is RequestOutcome.UNKNOWN
    assert len(httpx_mock.get_requests()) == 1


# --- OpenTelemetry --------------------------------------------------------------------------------


def provider_for(exporter: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Instrument httpx for one test."""
    exporter = InMemorySpanExporter()
    HTTPXClientInstrumentor().instrument(tracer_provider=provider_for(exporter))
    yield exporter
    HTTPXClientInstrumentor().uninstrument()


def attribute(span: ReadableSpan, name: str) -> object:
    return (span.attributes or {})[name]


@pytest.mark.anyio
async def test_a_span_has_the_whole_url(spans: InMemorySpanExporter) -> None:
    with Server(service()) as server:
        async with Sms4SatsClient(base_url=server.url) as client:
            await client.cancel_order(ORDER_ID)
    (span,) = spans.get_finished_spans()
    assert span.name == "GET"
    assert attribute(span, "http.url") == f"{server.url}/cancelorder?orderId={ORDER_ID}"
    assert attribute(span, "http.status_code") == 200


@pytest.mark.anyio
async def test_a_scrubbed_span_has_no_order_id(spans: InMemorySpanExporter) -> None:
    async def scrub(span: Span, request: RequestInfo) -> None:  # as docs/http_client.md shows
        assert isinstance(request.url, httpx.URL)
        span.set_attribute("http.url", str(request.url.copy_with(query=None)))

    HTTPXClientInstrumentor().uninstrument()
    HTTPXClientInstrumentor().instrument(
        tracer_provider=provider_for(spans), async_request_hook=scrub
    )
    with Server(service()) as server:
        async with Sms4SatsClient(base_url=server.url) as client:
            await client.cancel_order(ORDER_ID)
    (span,) = spans.get_finished_spans()
    assert attribute(span, "http.url") == f"{server.url}/cancelorder"
    assert ORDER_ID not in span.to_json()


@pytest.mark.anyio
async def test_each_attempt_has_a_span_of_its_own(spans: InMemorySpanExporter) -> None:
    unable = answer({"status": "error", "reason": "unable to save data"}, "500 No")
    with Server(service(lambda _: unable)) as server:
        retry = RetryPolicy(attempts=3, initial_delay=0)
        async with Sms4SatsClient(base_url=server.url, retry=retry) as client:
            with pytest.raises(UnableToSaveDataError):
                await client.cancel_order(ORDER_ID)
    found = spans.get_finished_spans()
    assert [attribute(span, "http.status_code") for span in found] == [500] * 3
    # The header names the span of its own attempt, and is sent once.
    assert [seen.headers["traceparent"].split("-")[2] for seen in server.seen] == [
        f"{span.context.span_id:016x}" for span in found if span.context is not None
    ]


@pytest.mark.anyio
async def test_a_span_of_one_request_leaves_no_header_in_another(
    spans: InMemorySpanExporter,
) -> None:
    with Server(service()) as server:
        async with Sms4SatsClient(base_url=server.url) as client:
            await client.cancel_order(ORDER_ID)
            HTTPXClientInstrumentor().uninstrument()
            await client.cancel_order(ORDER_ID)
    assert ["traceparent" in seen.headers for seen in server.seen] == [True, False]
    assert len(spans.get_finished_spans()) == 1
