"""A call that is cancelled at any await ends at once and leaves nothing behind."""

import asyncio
import contextlib
import time
import types
from collections.abc import Callable, Coroutine, Generator
from datetime import timedelta
from typing import Any, TypeVar

import aiohttp
import anyio
import httpx
import httpx2
import pytest

from sms4sats_async import RequestOutcome, Sms4SatsClient, TransportError
from sms4sats_async._http.messages import Request, Safety
from sms4sats_async._http.transports import open_transport
from sms4sats_async._http.transports.base import Transport
from tests.servers import (
    ADAPTERS,
    ORDER_ID,
    JumpingClock,
    Peer,
    Seen,
    Server,
    answer,
    certified,
    descriptors,
    eventually,
    opened,
    relayed_to,
    service,
    silent,
)

T = TypeVar("T")

# What cancels, and the event loop on which it can.
WAYS = [
    ("task", "asyncio"),
    ("asyncio.timeout", "asyncio"),
    ("scope", "asyncio"),
    ("scope", "trio"),
]

by_every_way = pytest.mark.parametrize(
    ("adapter", "way", "anyio_backend"),
    [
        (adapter, way, backend)
        for adapter in ADAPTERS
        for way, backend in WAYS
        if not (adapter == "aiohttp" and backend == "trio")
    ],
)


class Steps:
    """Counts how often a coroutine waits, and cancels it at one of those times."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0
        self.cancelled_at = 0.0
        self.lasted = 0.0

    @types.coroutine
    def drive(
        self, coroutine: Coroutine[Any, Any, T], cancel: Callable[[], object]
    ) -> Generator[Any, Any, T]:
        """Run `coroutine`, and call `cancel` in the moment in which it waits that often."""
        resume: Callable[[Any], Any] = coroutine.send
        value: Any = None
        while True:
            try:
                waits_for = resume(value)
            except StopIteration as done:
                result: T = done.value
                return result
            self.count += 1
            if self.count == self.at:
                self.cancelled_at = time.monotonic()
                cancel()
            try:
                value = yield waits_for
                resume = coroutine.send
            except BaseException as error:  # noqa: BLE001 - all of them go into the coroutine
                value, resume = error, coroutine.throw


async def cancelled(way: str, steps: Steps, coroutine: Coroutine[Any, Any, object]) -> bool:
    """Run `coroutine`, cancelled by `steps`; tell whether it was."""
    if way == "task":

        async def main() -> None:
            task = asyncio.current_task()
            assert task is not None
            await steps.drive(coroutine, task.cancel)

        try:
            await asyncio.create_task(main())
        except asyncio.CancelledError:
            return True
        return False
    if way == "asyncio.timeout":
        now = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(None) as limit:
                await steps.drive(coroutine, lambda: limit.reschedule(now()))
        except TimeoutError:
            return True
        return False
    with anyio.CancelScope() as scope:
        await steps.drive(coroutine, scope.cancel)
    return scope.cancelled_caught


def tasks() -> int:
    """Return how many tasks of asyncio there are; Trio ends no nursery before its tasks."""
    with contextlib.suppress(RuntimeError):
        return len(asyncio.all_tasks())
    return 0


async def at_every_step(
    way: str,
    call: Callable[[Sms4SatsClient], Coroutine[Any, Any, object]],
    open_client: Callable[[], contextlib.AbstractAsyncContextManager[Sms4SatsClient]],
    *,
    warm: bool,
) -> None:
    """Cancel `call` at its first await, at its second, and so on until it is done before.

    Args:
        way: What cancels.
        call: What is cancelled.
        open_client: A new client for each time.
        warm: Whether the client has a connection already.
    """
    before = tasks()
    sockets = descriptors()

    async def once(steps: Steps) -> bool:
        async with open_client() as client:
            if warm:
                await client.ping()
            was_cancelled = await cancelled(way, steps, call(client))
            steps.lasted = time.monotonic() - steps.cancelled_at
            assert tasks() == before
            await client.ping()
        await eventually(lambda: descriptors() == sockets)
        return was_cancelled

    for at in range(1, 500):
        # A call that lingers does so each time; a machine that stood still did so this once.
        lasted: list[float] = []
        while True:
            steps = Steps(at)
            was_cancelled = await once(steps)
            lasted.append(steps.lasted)
            if not was_cancelled or steps.lasted < 0.5:
                break
            assert len(lasted) < 3, f"cancelled at await {at}, it lasted so many seconds: {lasted}"
        if steps.count < at:
            assert not was_cancelled
            assert at > 1
            return
    pytest.fail("it never ended")


def reply(_: Seen) -> bytes:
    return answer({"status": "OK", "paid": True})


@by_every_way
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.anyio
async def test_a_cancel_order_that_is_cancelled_leaves_nothing(
    adapter: str, way: str, *, warm: bool
) -> None:
    with Server(service(reply)) as server:
        await at_every_step(
            way,
            lambda client: client.cancel_order(ORDER_ID, confirm=True),
            lambda: opened(adapter, server.url),
            warm=warm,
        )


@pytest.mark.parametrize(("way", "anyio_backend"), WAYS)
@pytest.mark.anyio
async def test_a_patient_cancel_that_is_cancelled_leaves_nothing(way: str) -> None:
    with Server(service(reply)) as server:
        await at_every_step(
            way,
            lambda client: client.cancel_order_when_allowed(
                ORDER_ID, minimum_age=timedelta(seconds=8), poll_interval=5
            ),
            lambda: opened("own", server.url, clock=JumpingClock()),
            warm=False,
        )


@by_every_way
@pytest.mark.anyio
async def test_a_call_over_tls_that_is_cancelled_leaves_nothing(adapter: str, way: str) -> None:
    with Server(service(reply), tls=certified("127.0.0.1")) as server:
        await at_every_step(
            way,
            lambda client: client.cancel_order(ORDER_ID),
            lambda: opened(adapter, server.url, trusted=True),
            warm=False,
        )


async def cancelled_while_it_hangs(
    way: str, coroutine: Coroutine[Any, Any, object], server: Server
) -> None:
    """Run `coroutine` into a server that is silent, and cancel it there."""

    async def then(cancel: Callable[[], object]) -> None:
        await eventually(lambda: server.open == 1)
        await anyio.sleep(0.01)
        cancel()

    async with anyio.create_task_group() as group:
        if way == "task":
            task = asyncio.create_task(coroutine)
            group.start_soon(then, task.cancel)
            with pytest.raises(asyncio.CancelledError):
                await task
        elif way == "asyncio.timeout":

            async def limited() -> None:
                now = asyncio.get_running_loop().time
                async with asyncio.timeout(None) as limit:
                    group.start_soon(then, lambda: limit.reschedule(now()))
                    await coroutine

            with pytest.raises(TimeoutError):
                await limited()
        else:
            with anyio.CancelScope() as scope:
                group.start_soon(then, scope.cancel)
                await coroutine
            assert scope.cancelled_caught


@by_every_way
@pytest.mark.anyio
async def test_a_handshake_that_never_ends_and_is_cancelled_leaves_no_socket(
    adapter: str, way: str
) -> None:
    before = descriptors()
    with Server(silent) as server:
        for _ in range(2):
            async with opened(adapter, server.url.replace("http:", "https:")) as client:
                await cancelled_while_it_hangs(way, client.cancel_order(ORDER_ID), server)
            await server.settled()
    await eventually(lambda: descriptors() == before)


@by_every_way
@pytest.mark.anyio
async def test_nor_does_one_that_takes_the_place_of_a_connection_that_was_closed_meanwhile(
    adapter: str, way: str
) -> None:
    """The HTTP library opens it automatically, on a transport that has been used before."""
    before = descriptors()
    with Server(service(reply), tls=certified("127.0.0.1")) as good:

        async def good_once(peer: Peer) -> None:
            await (relayed_to(good.port) if peer.number == 1 else silent)(peer)

        with Server(good_once) as server:
            url = server.url.replace("http:", "https:")
            async with opened(adapter, url, trusted=True) as client:
                await client.ping()
                server.drop()
                await server.settled()
                await anyio.sleep(0.01)
                await cancelled_while_it_hangs(way, client.ping(), server)
            await server.settled()
            assert server.accepted == 2
    await eventually(lambda: descriptors() == before)


# --- cancellations that are not about our task ----------------------------------------------------

PING = Request("GET", "/", Safety.REPEATABLE)


async def not_about_this_task(transport: Transport) -> None:
    """Send, and expect a cancellation of the library's own, neither swallowed nor translated.

    What sends again is above the transports, and tells the two kinds apart there.
    """
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(asyncio.CancelledError):
        await transport.send(PING, timeout=5)
    assert task.cancelling() == 0


@pytest.mark.asyncio
async def test_a_session_that_is_closed_cancels_what_waits_in_its_pool() -> None:
    before = descriptors()
    with Server(silent) as server:
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
        transport = open_transport(session, base_url=server.url, api_key=None)
        first = asyncio.create_task(transport.send(PING, timeout=5))
        await eventually(lambda: server.open == 1)
        second = asyncio.create_task(not_about_this_task(transport))
        await asyncio.sleep(0)
        await session.close()
        await second
        with pytest.raises(TransportError) as caught:
            await first
        assert caught.value.request_outcome is RequestOutcome.UNKNOWN
        await server.settled()
    await eventually(lambda: descriptors() == before)


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.asyncio
async def test_a_cancelled_future_of_an_httpx_client_leaves_send_as_it_is(library: Any) -> None:
    async def handle(_request: object) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with library.AsyncClient(transport=library.MockTransport(handle)) as http_client:
        await not_about_this_task(
            open_transport(http_client, base_url="http://127.0.0.1:1", api_key=None)
        )


@pytest.mark.asyncio
async def test_a_cancelled_future_of_an_own_connection_closes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Server(service()) as server:
        transport = open_transport(None, base_url=server.url, api_key=None)
        await transport.send(PING, timeout=5)
        with monkeypatch.context() as patch:

            async def cancelled(*_arguments: object) -> None:
                raise asyncio.CancelledError

            patch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", cancelled)
            await not_about_this_task(transport)
        await server.settled()
        await transport.send(PING, timeout=5)
        assert [seen.connection for seen in server.seen] == [1, 2]
        await transport.close()
