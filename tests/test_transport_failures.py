"""Whatever goes wrong: one error of ours for it, the same over every HTTP library."""

import ssl
import tracemalloc

import httpx
import pytest

from sms4sats_async import (
    APIError,
    RequestOutcome,
    RequestTimeoutError,
    RetryPolicy,
    Sms4SatsClient,
    Sms4SatsError,
    TransportError,
)
from sms4sats_async._http.messages import MAXIMUM_BODY
from tests.servers import (
    FAILURES,
    KEY,
    OK,
    ONCE,
    ORDER_ID,
    Failure,
    Peer,
    Server,
    answer,
    bomb,
    certified,
    everywhere,
    opened,
    saying,
    service,
)

FAST = [failure for failure in FAILURES if failure.error is not RequestTimeoutError]


@everywhere
@pytest.mark.parametrize(
    ("name", "trusted", "reason"),
    [
        ("127.0.0.1", False, "unable to get local issuer certificate"),
        ("another.example", True, "IP address mismatch"),
    ],
)
@pytest.mark.anyio
async def test_a_refused_certificate_is_reported_with_the_reason(
    adapter: str, name: str, reason: str, *, trusted: bool
) -> None:
    with Server(service(), tls=certified(name)) as server:
        async with opened(adapter, server.url, trusted=trusted, retry=ONCE) as client:
            with pytest.raises(TransportError, match=f"certificate is refused: {reason}") as caught:
                await client.cancel_order(ORDER_ID)
    assert caught.value.request_outcome is RequestOutcome.NOT_SENT
    assert server.seen == []


@pytest.mark.anyio
async def test_a_certificate_that_the_caller_had_refused_before_is_no_reason() -> None:
    def fail(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("unreachable")

    another = ssl.SSLCertVerificationError(1, "of another program")
    another.verify_message = "of another program"
    async with httpx.AsyncClient(transport=httpx.MockTransport(fail)) as http_client:
        client = Sms4SatsClient(http_client=http_client, retry=ONCE)
        try:
            raise another
        except ssl.SSLError:
            with pytest.raises(TransportError, match="no connection"):
                await client.cancel_order(ORDER_ID)


@everywhere
@pytest.mark.parametrize("failure", FAST, ids=lambda failure: failure.name)
@pytest.mark.anyio
async def test_a_failure_is_the_same_error_over_every_library(
    adapter: str, failure: Failure
) -> None:
    with failure.open_place() as place:
        async with opened(adapter, place.url, proxy=place.proxy, trusted=place.trusted) as client:
            with pytest.raises(Sms4SatsError) as caught:
                await client.cancel_order(ORDER_ID)
            error = caught.value
            names_the_root = f"; the service root is {place.url}" in error.problem
            assert names_the_root is (
                isinstance(error, TransportError) and failure.outcome is RequestOutcome.NOT_SENT
            )
            assert (type(error), error.request_outcome) == (failure.error, failure.outcome)
            assert (error.operation, error.order_id, error.attempts) == (
                "cancel_order",
                ORDER_ID,
                1,
            )
        if place.server is not None:
            await place.server.settled()
            # An endless answer is refused, not read to its end.
            assert place.server.sent < 64 * MAXIMUM_BODY


@everywhere
@pytest.mark.parametrize("failure", FAST, ids=lambda failure: failure.name)
@pytest.mark.anyio
async def test_an_order_is_asked_for_again_only_where_nothing_can_have_arrived(
    adapter: str, failure: Failure
) -> None:
    with failure.open_place() as place:
        async with opened(
            adapter,
            place.url,
            proxy=place.proxy,
            trusted=place.trusted,
            retry=RetryPolicy(attempts=2, initial_delay=0),
        ) as client:
            with pytest.raises(Sms4SatsError) as caught:
                await client.create_order(187, "tg")
    not_sent = failure.outcome is RequestOutcome.NOT_SENT
    assert caught.value.attempts == (2 if not_sent else 1)
    assert (caught.value.request_outcome is RequestOutcome.NOT_SENT) == not_sent
    if place.server is not None and place.proxy is None:
        assert len(place.server.seen) == (0 if not_sent else 1)


@everywhere
@pytest.mark.parametrize("status", ["301 A", "302 B", "303 C", "307 D", "308 E"])
@pytest.mark.anyio
async def test_a_redirect_is_not_followed_and_the_key_stays_here(adapter: str, status: str) -> None:
    with Server(service()) as other:
        elsewhere = answer(b"", status, {"location": f"http://localhost:{other.port}/x"})
        with Server(service(lambda _: elsewhere)) as server:
            async with opened(adapter, server.url) as client:
                for call in (
                    lambda: client.create_order(187, "tg", immediate=True),
                    lambda: client.cancel_order(ORDER_ID),
                ):
                    with pytest.raises(APIError, match="redirect") as caught:
                        await call()
                    assert caught.value.status_code == int(status[:3])
        assert server.seen[0].headers["x-api-key"] == KEY
        assert "x-api-key" not in server.seen[1].headers
        assert other.accepted == 0


@everywhere
@pytest.mark.anyio
async def test_a_redirect_to_nowhere_is_an_error_of_ours(adapter: str) -> None:
    """To httpx the answer is no answer (TransportError), to the others a redirect (APIError)."""
    nowhere = answer(b"", "301 Moved", {"location": "http://[::1/"})
    with Server(saying(nowhere)) as server:
        async with opened(adapter, server.url) as client:
            with pytest.raises(Sms4SatsError) as caught:
                await client.cancel_order(ORDER_ID)
            assert caught.value.request_outcome is RequestOutcome.UNKNOWN


@everywhere
@pytest.mark.anyio
async def test_cookies_are_not_sent_back(adapter: str) -> None:
    cookies = answer({"status": "OK"}, headers={"set-cookie": "a=b; Path=/"})
    with Server(service(lambda _: cookies)) as server:
        # By name: aiohttp keeps no cookies of an address anyway.
        async with opened(adapter, f"http://localhost:{server.port}") as client:
            for _ in range(2):
                await client.cancel_order(ORDER_ID)
        assert ["cookie" in seen.headers for seen in server.seen] == [False, False]


@everywhere
@pytest.mark.parametrize(
    "headers",
    [
        {"content-encoding": "identity"},
        {"set-cookie": "\xff=;;; expires=x"},
        {"content-type": "text/html; charset=\xff\xfe"},
        {"retry-after": "\xe9"},
        {"x-many": "y" * 4000},
    ],
    ids=repr,
)
@pytest.mark.anyio
async def test_a_good_answer_with_odd_headers_is_read(
    adapter: str, headers: dict[str, str]
) -> None:
    with Server(saying(answer({"status": "OK"}, headers=headers))) as server:
        async with opened(adapter, server.url) as client:
            assert (await client.cancel_order(ORDER_ID)).order_id == ORDER_ID


@everywhere
@pytest.mark.anyio
async def test_an_answer_that_is_not_in_the_coding_it_names_is_read_where_it_can_be(
    adapter: str,
) -> None:
    wrong = answer({"status": "OK"}, headers={"content-encoding": "gzip"})
    with Server(saying(wrong)) as server:
        async with opened(adapter, server.url) as client:
            assert (await client.cancel_order(ORDER_ID)).order_id == ORDER_ID


@everywhere
@pytest.mark.anyio
async def test_an_answer_of_just_the_limit_is_read(adapter: str) -> None:
    body = b'{"status":"OK"}'.ljust(MAXIMUM_BODY)
    with Server(saying(answer(body))) as server:
        async with opened(adapter, server.url) as client:
            assert (await client.cancel_order(ORDER_ID)).order_id == ORDER_ID


@everywhere
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.anyio
async def test_a_decompression_bomb_uses_little_memory(adapter: str, coding: str) -> None:
    packed = answer(bomb(coding), headers={"content-encoding": coding})
    with Server(saying(packed)) as server:
        async with opened(adapter, server.url) as client:
            tracemalloc.start()
            try:
                with pytest.raises(Sms4SatsError):
                    await client.cancel_order(ORDER_ID)
                assert tracemalloc.get_traced_memory()[1] < 3 * MAXIMUM_BODY
            finally:
                tracemalloc.stop()


@everywhere
@pytest.mark.parametrize(
    "host",
    [
        "a..example",
        "a" * 64 + ".example",
        ".example",
        "xn--a.invalid",
        "a\\b.invalid",
        "[fe80::1%25nowhere]",
        "999.1.1.1",
        "a|b.invalid",
        "-a.invalid",
    ],
)
@pytest.mark.anyio
async def test_a_host_that_cannot_be_one_is_an_error_of_ours(adapter: str, host: str) -> None:
    with pytest.raises(Sms4SatsError) as caught:
        async with opened(adapter, f"https://{host}") as client:
            await client.cancel_order(ORDER_ID)
    assert caught.value.request_outcome is RequestOutcome.NOT_SENT


@everywhere
@pytest.mark.parametrize("ending", ["closed", "reset"])
@pytest.mark.anyio
async def test_no_library_repeats_a_request_automatically(adapter: str, ending: str) -> None:
    """A kept connection that is lost in the moment of its reuse."""
    first = True

    async def script(peer: Peer) -> None:
        nonlocal first
        await peer.request()
        if first:
            first = False
            await peer.send(OK)
            await peer.request()
        if ending == "reset":
            peer.reset()

    with Server(script) as server:
        async with opened(adapter, server.url) as client:
            await client.cancel_order(ORDER_ID)
            with pytest.raises(Sms4SatsError) as caught:
                await client.cancel_order(ORDER_ID)
        assert caught.value.request_outcome is RequestOutcome.UNKNOWN
        assert [seen.connection for seen in server.seen] == [1, 1]
