"""The time of an attempt, and the wait for a place: two bounds that are never mixed up."""

import time
from typing import Any

import aiohttp
import anyio
import httpx
import httpx2
import pytest

from sms4sats_async import (
    RequestOutcome,
    RequestTimeoutError,
    RetryPolicy,
    Sms4SatsClient,
)
from sms4sats_async._http import retrying as exchange_room
from sms4sats_async._http.transports import aiohttp as _aiohttp
from sms4sats_async._http.transports import httpx as _httpx
from sms4sats_async._http.transports import own as _own
from sms4sats_async._http.transports.base import CONNECT_SHARE
from tests.servers import (
    FAILURES,
    ONCE,
    ORDER_ID,
    Failure,
    Server,
    eventually,
    everywhere,
    opened,
    service,
    silent,
)

LIMIT = 0.1

# What proves that nothing was sent comes when connecting took its share of an attempt's time. A
# machine that pauses for a second or two must not let the rest, 4.5 s, go by as well.
LONG_LIMIT = 5
SHARE = 0.1


def connecting_may_take(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Keep the end of connecting well away from the attempt's, however busy the machine is."""
    assert 0.5 < CONNECT_SHARE < 1
    for adapter in (_own, _httpx, _aiohttp):
        monkeypatch.setattr(adapter, "CONNECT_SHARE", share)


@everywhere
@pytest.mark.parametrize(
    "failure",
    [failure for failure in FAILURES if failure.error is RequestTimeoutError],
    ids=lambda failure: failure.name,
)
@pytest.mark.anyio
async def test_the_time_of_an_attempt_is_a_true_bound(
    adapter: str, failure: Failure, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsent = failure.outcome is RequestOutcome.NOT_SENT
    limit, share = (LONG_LIMIT, SHARE) if unsent else (LIMIT, 2)
    connecting_may_take(monkeypatch, share)
    ends = limit * min(share, 1)
    took: list[float] = []
    # What has no bound has none each time; a machine that stood still did so this once.
    while not took or (took[-1] >= ends + 2 and len(took) < 3):
        with failure.open_place() as place:
            async with opened(
                adapter, place.url, proxy=place.proxy, trusted=place.trusted, timeout=limit
            ) as client:
                began = time.monotonic()
                with pytest.raises(RequestTimeoutError) as caught:
                    await client.cancel_order(ORDER_ID)
                took.append(time.monotonic() - began)
                assert caught.value.request_outcome is failure.outcome
            if place.server is not None:
                await place.server.settled()
    assert 0.9 * ends < took[-1] < ends + 2


@pytest.mark.anyio
async def test_waiting_for_a_place_is_not_counted_to_the_time_of_an_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange_room, "CONNECTIONS", 2)
    done = 0
    with Server(service(after=0.1)) as server:
        async with opened("own", server.url, timeout=1.5) as client:

            async def call() -> None:
                nonlocal done
                await client.cancel_order(ORDER_ID)
                done += 1

            began = time.monotonic()
            async with anyio.create_task_group() as group:
                for _ in range(34):
                    group.start_soon(call)
            # The last ones waited longer than an attempt may take.
            assert time.monotonic() - began > 1.6
        assert done == 34
        assert server.most == 2


@pytest.mark.anyio
async def test_waiting_for_a_place_is_bounded_by_the_time_of_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange_room, "CONNECTIONS", 1)
    with Server(silent) as server:
        async with opened("own", server.url) as client, anyio.create_task_group() as group:
            group.start_soon(client.ping)
            await eventually(lambda: server.open == 1)
            began = time.monotonic()
            with pytest.raises(RequestTimeoutError, match="busy") as caught:
                await client.create_order(
                    187, "tg", retry=RetryPolicy(attempts=3, total_timeout=LIMIT)
                )
            assert time.monotonic() - began < LIMIT + 2
            assert caught.value.request_outcome is RequestOutcome.NOT_SENT
            assert caught.value.attempts == 1
            group.cancel_scope.cancel()
        assert server.accepted == 1


@pytest.mark.parametrize(
    ("library", "anyio_backend"),
    [
        (httpx, "asyncio"),
        (httpx, "trio"),
        (httpx2, "asyncio"),
        (httpx2, "trio"),
        (aiohttp, "asyncio"),
    ],
)
@pytest.mark.anyio
async def test_a_full_pool_of_the_callers_own_means_that_nothing_was_sent(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connecting_may_take(monkeypatch, SHARE)
    with Server(silent) as server:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
            if library is aiohttp
            else library.AsyncClient(limits=library.Limits(max_connections=1))
        ) as http_client:
            first = Sms4SatsClient(base_url=server.url, http_client=http_client)
            second = Sms4SatsClient(
                base_url=server.url, http_client=http_client, timeout=LONG_LIMIT, retry=ONCE
            )
            async with anyio.create_task_group() as group:
                group.start_soon(first.ping)
                await eventually(lambda: server.open == 1)
                with pytest.raises(RequestTimeoutError) as caught:
                    await second.ping()
                assert caught.value.request_outcome is RequestOutcome.NOT_SENT
                group.cancel_scope.cancel()
        assert server.accepted == 1
