"""The simulated service on a loopback socket, with clients on asyncio and Trio."""

import contextlib
import logging
import socket
import statistics
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from urllib.parse import urlsplit

import anyio
import anyio.abc
import httpx
import pytest
import uvicorn

from sms4sats_async.simulator import Behaviour, Fault, Holder, ScaledClock, Simulator

pytestmark = pytest.mark.anyio

GET = b"GET / HTTP/1.1\r\nHost: simulator\r\n\r\n"


@pytest.fixture
def simulator() -> Simulator:
    return Simulator(Behaviour(code_delay=None))


@pytest.fixture
async def url(simulator: Simulator) -> AsyncIterator[str]:
    """Serve the simulator and return its base URL."""
    async with simulator.serve() as url:
        yield url


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=5) as client:
        yield client


@pytest.fixture(autouse=True)
def _server_has_stopped() -> Iterator[None]:
    """Check that no server is left; Trio and anyio keep worker threads."""
    yield
    assert "sms4sats-simulator" not in [thread.name for thread in threading.enumerate()]


@pytest.fixture(autouse=True)
def _no_warning_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Check that uvicorn logs no warning, whatever a client does."""
    yield
    records = caplog.get_records("setup") + caplog.get_records("call") + caplog.records
    assert [record.getMessage() for record in records if record.levelno >= logging.WARNING] == []


class BusyClock(ScaledClock):
    """A clock that can block the server when it reads the time."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.free = threading.Event()
        self.free.set()

    def true_time(self) -> float:
        self.free.wait(5)
        return super().true_time()


@contextlib.asynccontextmanager
async def connection(url: str) -> AsyncGenerator[anyio.abc.SocketStream]:
    """Open a connection to the server without an HTTP client."""
    port = urlsplit(url).port
    assert port is not None
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        yield stream


async def requests_arrived(simulator: Simulator, number: int) -> None:
    """Wait until the server has received that many requests."""
    with anyio.fail_after(5):
        while len(simulator.requests) < number:  # noqa: ASYNC110 - another thread changes the list
            await anyio.sleep(0.005)


async def read_all(stream: anyio.abc.SocketStream) -> bytes:
    """Return all bytes until the server closes the connection."""
    parts: list[bytes] = []
    with contextlib.suppress(anyio.EndOfStream):
        while True:
            parts.append(await stream.receive())
    return b"".join(parts)


async def test_requests_arrive_as_they_were_sent(
    simulator: Simulator, client: httpx.AsyncClient
) -> None:
    created = await client.post(
        "/createorder", json={"country": 187, "service": "tg"}, headers={"X-API-Key": "some-key"}
    )
    order_id = created.json()["orderId"]
    simulator.pay(created.json()["payreq"])
    status = await client.get("/orderstatus", params={"orderId": order_id})
    assert (status.status_code, status.json()) == (200, {"status": "OK", "paid": True})
    refused = await client.get("/cancelorder", params={"orderId": order_id})
    assert refused.status_code == 500
    assert refused.headers["content-type"].startswith("application/json")
    first, second, _ = simulator.requests
    assert first.json == {"country": 187, "service": "tg"}
    assert first.api_key == "some-key"
    assert (second.path, second.query) == ("/orderstatus", {"orderId": order_id})


async def test_server_listens_only_on_the_loopback_address(url: str) -> None:
    port = urlsplit(url).port
    assert url == f"http://127.0.0.1:{port}"
    with pytest.raises(OSError, match="attempts failed"):
        await anyio.connect_tcp("127.0.0.2", port or 0)


async def test_ipv6_address_has_brackets_in_the_url(simulator: Simulator) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with simulator.serve("::1") as url, httpx.AsyncClient(base_url=url) as client:
        assert url.startswith("http://[::1]:")
        assert (await client.get("/")).status_code == 200


async def test_port_in_use_is_an_error_on_entering(simulator: Simulator, url: str) -> None:
    with pytest.raises(OSError, match="in use"):
        async with simulator.serve(port=urlsplit(url).port or 0):
            pytest.fail("two servers on one port")


async def test_one_connection_carries_many_requests(url: str) -> None:
    async with connection(url) as stream:
        for _ in range(3):
            await stream.send(GET)
            answer = b""
            while not answer.endswith(b'{"status": "OK"}'):
                answer += await stream.receive()
            assert answer.startswith(b"HTTP/1.1 200")


async def test_answer_is_not_delayed_by_40_milliseconds(client: httpx.AsyncClient) -> None:
    """Without TCP_NODELAY, the server would wait for an acknowledgement."""
    took: list[float] = []
    for _ in range(50):
        began = time.monotonic()
        await client.post("/createorder", json={"country": 187, "service": "tg"})
        took.append(time.monotonic() - began)
    assert statistics.median(took) < 0.02


async def test_reset_breaks_the_connection_without_an_answer(
    simulator: Simulator, url: str
) -> None:
    simulator.script("/", Fault.reset())
    async with connection(url) as stream:
        await stream.send(GET)
        with pytest.raises(anyio.BrokenResourceError):
            await stream.receive()


async def test_cut_body_sends_half_and_closes(simulator: Simulator, url: str) -> None:
    simulator.script("/", Fault.cut_body(after_change=True))
    async with connection(url) as stream:
        await stream.send(GET)
        head, _, body = (await read_all(stream)).partition(b"\r\n\r\n")
    assert b"content-length: 16" in head
    assert body == b'{"status'


@pytest.mark.parametrize(
    ("fault", "error"),
    [(Fault.reset(), httpx.ReadError), (Fault.cut_body(), httpx.RemoteProtocolError)],
)
async def test_broken_connection_is_the_same_error_with_and_without_a_socket(
    simulator: Simulator, client: httpx.AsyncClient, fault: Fault, error: type[Exception]
) -> None:
    simulator.script("/", fault, fault)
    with pytest.raises(error):
        await client.get("/")
    async with simulator.http_client() as without_socket:
        with pytest.raises(error):
            await without_socket.get("/")
    assert (await client.get("/")).status_code == 200


async def test_complete_answers_arrive_unchanged(
    simulator: Simulator, client: httpx.AsyncClient
) -> None:
    location = "http://elsewhere.invalid/"
    simulator.script(
        "/",
        Fault.html(),
        Fault.cut_json(after_change=True),
        Fault.big_body(200_000),
        Fault.redirect(location),
        Fault.http(429, retry_after=7),
        Fault.drip(0.0001, after_change=True),
        Fault.slow(0.001),
    )
    answers = [await client.get("/") for _ in range(7)]
    assert [answer.status_code for answer in answers] == [502, 200, 200, 307, 429, 200, 200]
    html, cut, big, redirect, limited, dripped, slow = answers
    assert html.headers["content-type"].startswith("text/html")
    assert cut.text == '{"status'
    assert len(big.content) == 200_000
    assert redirect.headers["location"] == location
    assert limited.headers["retry-after"] == "7"
    assert dripped.json() == slow.json() == {"status": "OK"}


@pytest.mark.parametrize("fault", [Fault.hang(), Fault.drip(0.01), Fault.slow(60)])
async def test_request_is_not_handled_after_the_client_disconnects(
    simulator: Simulator, client: httpx.AsyncClient, fault: Fault
) -> None:
    simulator.script("/createorder", fault)

    async def create() -> None:
        await client.post("/createorder", json={"country": 187, "service": "tg"})

    async with anyio.create_task_group() as group:
        group.start_soon(create)
        await requests_arrived(simulator, 1)
        group.cancel_scope.cancel()
    assert (await client.get("/")).status_code == 200
    assert (simulator.count("/createorder"), simulator.orders) == (1, [])


async def test_incomplete_request_is_ignored(simulator: Simulator, url: str) -> None:
    async with connection(url) as stream:
        await stream.send(b"POST /fund HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nhalf")
        await anyio.sleep(0.02)
    await anyio.sleep(0.02)
    assert simulator.requests == []


async def test_body_can_arrive_in_parts(simulator: Simulator, url: str) -> None:
    async with connection(url) as stream:
        await stream.send(b'POST /fund HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{"amo')
        await anyio.sleep(0.02)
        await stream.send(b'unt": 5}')
        await stream.receive()
    assert simulator.requests[0].body == b'{"amount": 5}'


async def test_server_stops_within_two_seconds_while_requests_hang(simulator: Simulator) -> None:
    faults = Fault.hang(), Fault.drip(5), Fault.slow(60), Fault.slow(60, after_change=True)
    simulator.script("/", *faults)
    async with contextlib.AsyncExitStack() as streams:
        async with simulator.serve() as url:
            opened = [await streams.enter_async_context(connection(url)) for _ in range(6)]
            for stream in opened[:5]:
                await stream.send(GET)
            await requests_arrived(simulator, 5)
            began = time.monotonic()
        assert time.monotonic() - began < 2
        for stream in opened:
            await read_all(stream)


async def test_server_closes_connections_that_it_accepts_while_it_stops() -> None:
    clock = BusyClock()
    async with contextlib.AsyncExitStack() as streams:
        async with Simulator(clock=clock).serve() as url:
            opened = [await streams.enter_async_context(connection(url))]
            clock.free.clear()
            await opened[0].send(GET)
            await anyio.sleep(0.02)
            opened += [await streams.enter_async_context(connection(url)) for _ in range(20)]
            threading.Timer(0.15, clock.free.set).start()
        for stream in opened[1:]:
            with contextlib.suppress(anyio.BrokenResourceError):
                assert await read_all(stream) == b""


async def test_server_stops_when_its_block_is_cancelled(simulator: Simulator) -> None:
    url = ""
    with anyio.CancelScope() as scope:
        async with simulator.serve() as url:
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(OSError, match="attempts failed"):
        async with connection(url):
            pytest.fail("the server still listens")


async def test_access_log_shows_no_order_id_and_its_logger_is_unchanged(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await client.get("/orderstatus", params={"orderId": "ab" * 32})
    uvicorn_records = [each for each in caplog.records if each.name.startswith("uvicorn")]
    assert "abab" not in "".join(each.getMessage() for each in uvicorn_records)
    assert logging.getLogger("uvicorn.access").propagate


async def test_methods_can_be_called_while_the_server_runs(simulator: Simulator, url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        created = await client.post("/createorder", json={"country": 187, "service": "tg"})
        order_id = created.json()["orderId"]
        simulator.pay(order_id)
        simulator.deliver_code(order_id, "0042")
        status = await client.get("/orderstatus", params={"orderId": order_id})
    assert status.json()["code"] == "0042"
    assert simulator.holder(order_id) is Holder.SETTLED


async def test_error_without_uvicorn_names_the_extra(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "sms4sats_async.simulator.server", raising=False)
    for serve in (simulator.serve, lambda: simulator.run(on_ready=print)):
        with pytest.raises(ImportError, match=r"pip install 'sms4sats-async\[simulator\]'"):
            serve()
    assert simulator.handle("GET", "/").status == 200


def test_run_serves_until_an_exception(simulator: Simulator) -> None:
    answers: list[httpx.Response] = []

    def ready(url: str) -> None:
        answers.append(httpx.get(url, trust_env=False))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulator.run(on_ready=ready)
    assert answers[0].json() == {"status": "OK"}


def test_run_ends_if_the_server_ends(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:

    async def end_at_once(_: object) -> None:
        pass

    monkeypatch.setattr(uvicorn.Server, "main_loop", end_at_once)
    urls: list[str] = []
    simulator.run(on_ready=urls.append)
    assert len(urls) == 1
