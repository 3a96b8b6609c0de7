"""An HTTP client of the caller's: used as it is, never closed, and never a source of surprises."""

import asyncio
import contextlib
import gc
from collections.abc import Callable
from typing import Any

import aiohttp
import anyio
import anyio.to_thread
import httpx
import httpx2
import pytest

from sms4sats_async import (
    ClientStateError,
    InvalidArgumentError,
    RequestOutcome,
    Sms4SatsClient,
    TransportError,
    UnableToSaveDataError,
)
from tests.servers import (
    KEY,
    OK,
    ONCE,
    ORDER_ID,
    Seen,
    Server,
    answer,
    injectable,
    service,
)

injected = pytest.mark.parametrize(
    ("adapter", "anyio_backend"),
    [
        ("httpx", "asyncio"),
        ("httpx2", "asyncio"),
        ("aiohttp", "asyncio"),
        ("httpx", "trio"),
        ("httpx2", "trio"),
    ],
)

UNABLE = answer({"status": "error", "reason": "unable to save data"}, "500 No")


def is_closed(http_client: Any) -> bool:
    return bool(
        http_client.closed
        if isinstance(http_client, aiohttp.ClientSession)
        else http_client.is_closed
    )


async def close(http_client: Any) -> None:
    if isinstance(http_client, aiohttp.ClientSession):
        await http_client.close()
    else:
        await http_client.aclose()


@injected
@pytest.mark.anyio
async def test_an_injected_client_is_never_closed(adapter: str) -> None:
    with Server(service()) as server:
        async with injectable(adapter) as http_client:
            for _ in range(2):
                async with Sms4SatsClient(base_url=server.url, http_client=http_client) as client:
                    await client.cancel_order(ORDER_ID)
                assert not is_closed(http_client)
        assert [seen.connection for seen in server.seen] == [1, 1]


@injected
@pytest.mark.anyio
async def test_once_closed_it_is_a_client_state_error(adapter: str) -> None:
    with Server(service()) as server:
        async with injectable(adapter) as http_client:
            client = Sms4SatsClient(base_url=server.url, http_client=http_client)
            await client.cancel_order(ORDER_ID)
            await close(http_client)
            with pytest.raises(ClientStateError, match="closed") as caught:
                await client.cancel_order(ORDER_ID)
        assert caught.value.request_outcome is RequestOutcome.NOT_SENT
        # It is not tried again: that would not help.
        assert caught.value.attempts == 1
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("adapter", "first", "second"),
    [
        ("aiohttp", "asyncio", "asyncio"),
        ("aiohttp", "asyncio", "trio"),
        *(
            (adapter, first, second)
            for adapter in ("httpx", "httpx2")
            for first, second in (("asyncio", "asyncio"), ("asyncio", "trio"), ("trio", "asyncio"))
        ),
    ],
)
@pytest.mark.parametrize("kept", [False, True], ids=["no connection", "a kept connection"])
# A connection of a loop that has ended is left to the garbage collector, by the libraries too.
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_in_another_event_loop_no_foreign_error_comes_out_of_it(
    adapter: str, first: str, second: str, *, kept: bool
) -> None:
    """Whether a call can go well there is the library's affair."""

    def reply(_: Seen) -> bytes:
        keep = kept and len(server.seen) == 1
        return OK if keep else answer({"status": "OK"}, headers={"connection": "close"})

    async def call(http_client: object) -> None:
        client = Sms4SatsClient(
            base_url=server.url, http_client=http_client, retry=ONCE, timeout=0.5
        )
        with contextlib.suppress(ClientStateError, TransportError):
            await client.cancel_order(ORDER_ID)

    async def main() -> None:
        async with injectable(adapter) as http_client:
            if kept:
                await call(http_client)
            # In another thread, so that this loop is there to close what it opened.
            await anyio.to_thread.run_sync(lambda: anyio.run(call, http_client, backend=second))

    with Server(service(reply)) as server:
        anyio.run(main, backend=first)
    gc.collect()  # here, where it is not laid to another test's charge


def test_an_aiohttp_session_under_trio_is_a_client_state_error() -> None:
    with Server(service()) as server:

        async def use(session: aiohttp.ClientSession) -> None:
            client = Sms4SatsClient(base_url=server.url, http_client=session)
            with pytest.raises(ClientStateError) as caught:
                await client.cancel_order(ORDER_ID)
            assert caught.value.request_outcome is RequestOutcome.NOT_SENT

        async def main() -> None:
            async with aiohttp.ClientSession() as session:
                await asyncio.to_thread(lambda: anyio.run(use, session, backend="trio"))

        asyncio.run(main())
        assert server.seen == []


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.anyio
async def test_what_an_httpx_client_adds_to_its_owners_requests_is_not_added_to_ours(
    library: Any,
) -> None:
    with Server(service(after=0.02)) as server:
        async with library.AsyncClient(
            auth=("user", "password"),
            headers={"authorization": "Bearer x", "x-mine": "y"},
            cookies={"a": "b"},
            params={"c": "d"},
            base_url="http://elsewhere.invalid",
            timeout=0.001,
            follow_redirects=True,
            trust_env=False,
        ) as http_client:
            client = Sms4SatsClient(base_url=server.url, api_key=KEY, http_client=http_client)
            await client.cancel_order(ORDER_ID)
        (seen,) = server.seen
        assert seen.target == f"/cancelorder?orderId={ORDER_ID}"
        assert set(seen.headers) == {"accept", "accept-encoding", "user-agent", "host"}


@pytest.mark.asyncio
async def test_the_timeout_of_an_aiohttp_session_is_not_ours() -> None:
    with Server(service(after=0.02)) as server:
        async with injectable(
            "aiohttp", timeout=aiohttp.ClientTimeout(total=0.001, sock_read=0.001)
        ) as session:
            client = Sms4SatsClient(base_url=server.url, http_client=session)
            await client.cancel_order(ORDER_ID)


@pytest.mark.asyncio
async def test_an_aiohttp_session_that_raises_for_status_does_not_do_so_for_us() -> None:
    with Server(service(lambda _: UNABLE)) as server:
        async with injectable("aiohttp", raise_for_status=True) as session:
            client = Sms4SatsClient(base_url=server.url, http_client=session, retry=ONCE)
            with pytest.raises(UnableToSaveDataError):
                await client.cancel_order(ORDER_ID)


@pytest.mark.asyncio
async def test_the_credentials_of_an_aiohttp_session_are_for_its_owners_services_alone() -> None:
    with Server(service()) as server:
        async with injectable(
            "aiohttp", headers={"Authorization": "Bearer x"}, cookies={"a": "b"}
        ) as session:
            client = Sms4SatsClient(base_url=f"http://localhost:{server.port}", http_client=session)
            await client.cancel_order(ORDER_ID)
        assert {"authorization", "cookie"}.isdisjoint(server.seen[0].headers)


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.anyio
async def test_a_hook_that_reads_the_answer_leaves_it_to_us(
    library: Any,
) -> None:
    async def log(response: Any) -> None:
        await response.aread()

    with Server(service()) as server:
        async with library.AsyncClient(event_hooks={"response": [log]}) as http_client:
            client = Sms4SatsClient(
                base_url=server.url, http_client=http_client, retry=ONCE, timeout=0.5
            )
            assert (await client.cancel_order(ORDER_ID)).order_id == ORDER_ID


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.anyio
async def test_a_hook_that_raises_the_librarys_errors_makes_an_error_of_ours(
    library: Any,
) -> None:
    async def judge(response: Any) -> None:
        response.raise_for_status()

    with Server(service(lambda _: UNABLE)) as server:
        async with library.AsyncClient(event_hooks={"response": [judge]}) as http_client:
            client = Sms4SatsClient(base_url=server.url, http_client=http_client, retry=ONCE)
            with pytest.raises(TransportError) as caught:
                await client.cancel_order(ORDER_ID)
            assert caught.value.request_outcome is RequestOutcome.UNKNOWN


class Mine(httpx.AsyncClient):
    """A caller's own kind of client."""


@pytest.mark.anyio
async def test_a_client_of_a_class_of_the_callers_will_do() -> None:
    with Server(service()) as server:
        async with Mine() as http_client:
            await Sms4SatsClient(base_url=server.url, http_client=http_client).ping()
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    "make",
    [httpx.Client, httpx2.Client, lambda: httpx, lambda: "httpx", lambda: httpx.AsyncClient],
    ids=["httpx.Client", "httpx2.Client", "a module", "a name", "a class"],
)
def test_what_is_no_client_of_a_known_kind_is_refused(make: Callable[[], Any]) -> None:
    made = make()
    try:
        with pytest.raises(InvalidArgumentError, match="http_client must be"):
            Sms4SatsClient(http_client=made)
    finally:
        if isinstance(made, httpx.Client | httpx2.Client):
            made.close()


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.anyio
async def test_a_mock_transport_answers_without_any_socket(
    library: Any,
) -> None:
    seen: list[str] = []

    def handle(request: Any) -> Any:
        seen.append(str(request.url))
        return library.Response(200, json={"status": "OK"})

    async with library.AsyncClient(transport=library.MockTransport(handle)) as http_client:
        await Sms4SatsClient(http_client=http_client).cancel_order(ORDER_ID)
    assert seen == [f"https://api2.sms4sats.com/cancelorder?orderId={ORDER_ID}"]
