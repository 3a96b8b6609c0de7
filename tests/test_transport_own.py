"""The client's own connections: how many there are, how long they live, and to whom they belong."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import anyio
import httpx
import pytest

from sms4sats_async import (
    ClientStateError,
    RequestOutcome,
    Sms4SatsClient,
    TransportError,
)
from sms4sats_async._http.transports import own as _own
from tests.servers import (
    KEY,
    OK,
    ORDER_ID,
    Seen,
    Server,
    answer,
    descriptors,
    eventually,
    opened,
    saying,
    service,
)

BACKENDS = ("asyncio", "trio")


async def at_once(count: int, call: Callable[[], Awaitable[object]]) -> None:
    """Call so many times side by side."""

    async def one() -> None:
        await call()

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(one)


@pytest.mark.anyio
async def test_calls_one_after_the_other_share_one_connection() -> None:
    with Server(service()) as server:
        async with opened("own", server.url) as client:
            for _ in range(5):
                await client.cancel_order(ORDER_ID)
            assert server.accepted == server.open == 1
        await server.settled()


@pytest.mark.anyio
async def test_an_order_is_always_made_over_a_fresh_connection() -> None:
    with Server(service()) as server:
        async with opened("own", server.url) as client:
            await client.cancel_order(ORDER_ID)
            await client.create_order(187, "tg")
            await client.create_order(187, "tg")
            await client.cancel_order(ORDER_ID)
            # Fresh, not more: each took the place of the one before.
            await server.settled(open_=1)
        assert [(seen.method, seen.connection) for seen in server.seen] == [
            ("GET", 1),
            ("POST", 2),
            ("POST", 3),
            ("GET", 3),
        ]


@pytest.mark.parametrize("through_a_proxy", [False, True])
@pytest.mark.anyio
async def test_a_second_answer_to_a_request_is_not_taken_for_that_of_the_next(
    monkeypatch: pytest.MonkeyPatch, *, through_a_proxy: bool
) -> None:
    def twice(seen: Seen) -> bytes:
        first = answer({"paid": True, "code": seen.target[-4:]})
        return first + answer({"paid": True, "code": "of another order"})

    with Server(service(twice)) as server:
        url = server.url
        if through_a_proxy:
            monkeypatch.setenv("HTTP_PROXY", server.url)
            url = "http://service.invalid"
        async with Sms4SatsClient(base_url=url) as client:
            for order_id in ("order-0001", "order-0002"):
                assert (await client.get_order_status(order_id)).code == order_id[-4:]
        assert server.accepted == 2


@pytest.mark.anyio
async def test_a_request_says_what_is_needed_and_no_more() -> None:
    with Server(service()) as server:
        async with opened("own", server.url) as client:
            await client.cancel_order(ORDER_ID)
            await client.create_order(187, "tg", immediate=True)
    cancel, create = server.seen
    common = {
        "accept": "application/json",
        "accept-encoding": "identity",
        "user-agent": "sms4sats-async",
        "host": f"127.0.0.1:{server.port}",
    }
    assert (cancel.target, cancel.body) == (f"/cancelorder?orderId={ORDER_ID}", b"")
    assert cancel.headers == common
    assert json.loads(create.body) == {"country": 187, "service": "tg", "immediate": True}
    assert create.headers == common | {
        "content-type": "application/json",
        "content-length": str(len(create.body)),
        "x-api-key": KEY,
    }


@pytest.mark.anyio
async def test_the_own_transport_opens_at_most_100_connections() -> None:
    with Server(service(after=0.01)) as server:
        async with opened("own", server.url) as client:
            await at_once(300, lambda: client.cancel_order(ORDER_ID))
            assert len(server.seen) == 300
            assert server.accepted == server.most == 100


@pytest.mark.anyio
async def test_connections_idle_for_too_long_are_closed_two_per_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    later = 0.0
    monkeypatch.setattr(_own, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + later))
    with Server(service(after=0.05)) as server:
        async with opened("own", server.url) as client:
            await at_once(6, lambda: client.cancel_order(ORDER_ID))
            later = _own.KEEP_ALIVE - 1
            await client.cancel_order(ORDER_ID)
            assert server.open == 6
            later += 2
            for left in (4, 2, 1, 1):
                await client.cancel_order(ORDER_ID)
                await server.settled(open_=left)
            assert server.accepted == 6


@pytest.mark.anyio
async def test_a_connection_taken_while_an_old_one_is_closed_disturbs_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    later = 0.0
    monkeypatch.setattr(_own, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + later))
    closing, go_on = anyio.Event(), anyio.Event()
    close = httpx.AsyncHTTPTransport.aclose

    async def slow_close(transport: httpx.AsyncHTTPTransport) -> None:
        closing.set()
        await go_on.wait()
        await close(transport)

    with Server(service(after=0.05)) as server:
        async with opened("own", server.url) as client:
            await at_once(2, lambda: client.cancel_order(ORDER_ID))
            later = _own.KEEP_ALIVE + 1
            monkeypatch.setattr(httpx.AsyncHTTPTransport, "aclose", slow_close)
            async with anyio.create_task_group() as group:
                group.start_soon(client.cancel_order, ORDER_ID)
                await closing.wait()
                group.start_soon(client.cancel_order, ORDER_ID)
                await eventually(lambda: len(server.seen) == 4)
                go_on.set()


@pytest.mark.anyio
async def test_a_connection_that_the_server_closed_meanwhile_is_replaced() -> None:
    with Server(saying(OK)) as server:
        async with opened("own", server.url) as client:
            for number in (1, 2):
                await client.cancel_order(ORDER_ID)
                await server.settled()
                assert len(server.seen) == server.accepted == number


@pytest.mark.anyio
async def test_after_aclose_no_socket_is_open_and_no_call_is_made() -> None:
    before = descriptors()
    with Server(service(after=0.02)) as server:
        async with opened("own", server.url) as client:
            await at_once(3, lambda: client.cancel_order(ORDER_ID))
            assert server.open == 3
            await client.aclose()
            await server.settled()
            await client.aclose()
            with pytest.raises(ClientStateError, match="closed"):
                await client.cancel_order(ORDER_ID)
            assert len(server.seen) == 3
    await eventually(lambda: descriptors() == before)


@pytest.mark.anyio
async def test_a_call_that_is_under_way_at_aclose_ends_well_and_leaves_no_socket() -> None:
    with Server(service(after=0.05)) as server:
        async with opened("own", server.url) as client, anyio.create_task_group() as group:

            async def call() -> None:
                done = await client.cancel_order(ORDER_ID)
                assert done.order_id == ORDER_ID

            group.start_soon(call)
            await eventually(lambda: len(server.seen) == 1)
            await client.aclose()
        await server.settled()


@pytest.mark.asyncio
async def test_an_aclose_that_is_cancelled_can_be_called_again() -> None:
    with Server(service(after=0.02)) as server:
        client = Sms4SatsClient(base_url=server.url)
        await at_once(4, lambda: client.cancel_order(ORDER_ID))
        closing = asyncio.ensure_future(client.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await client.aclose()
        await server.settled()


@pytest.mark.anyio
async def test_a_broken_connection_that_does_not_close_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    close = httpx.AsyncHTTPTransport.aclose
    transports: list[httpx.AsyncHTTPTransport] = []

    async def hang(transport: httpx.AsyncHTTPTransport) -> None:
        transports.append(transport)
        await anyio.sleep_forever()

    monkeypatch.setattr(_own, "CLEAN_UP", 0.02)
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "aclose", hang)
    with Server(saying()) as server, anyio.fail_after(5):
        async with opened("own", server.url) as client:
            with pytest.raises(TransportError):
                await client.cancel_order(ORDER_ID)
    for transport in transports:
        await close(transport)


@pytest.mark.parametrize("second", BACKENDS)
@pytest.mark.parametrize("first", BACKENDS)
def test_a_client_made_outside_of_any_loop_belongs_to_the_first_that_uses_it(
    first: str, second: str
) -> None:
    # No connection is kept, so none is left behind in the first loop.
    with Server(saying(answer({"status": "OK"}, headers={"connection": "close"}))) as server:
        client = Sms4SatsClient(base_url=server.url)
        anyio.run(client.cancel_order, ORDER_ID, backend=first)
        for again in (client.ping, client.aclose):
            with pytest.raises(ClientStateError, match="another event loop") as caught:
                anyio.run(again, backend=second)
            assert caught.value.request_outcome is RequestOutcome.NOT_SENT
        assert len(server.seen) == 1
