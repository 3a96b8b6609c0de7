"""The simulated service behind a real socket, on loopback, under asyncio and Trio."""

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
    """Where the simulator is served."""
    async with simulator.serve() as url:
        yield url


@pytest.fixture
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=5) as client:
        yield client


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """No test leaves a server behind; Trio and anyio keep worker threads of their own."""
    yield
    assert "sms4sats-simulator" not in [thread.name for thread in threading.enumerate()]


@pytest.fixture(autouse=True)
def _nothing_is_complained_of(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a client does, uvicorn has no reason to warn of anything."""
    yield
    records = caplog.get_records("setup") + caplog.get_records("call") + caplog.records
    assert [record.getMessage() for record in records if record.levelno >= logging.WARNING] == []


class BusyClock(ScaledClock):
    """A clock that can keep whoever asks for the time waiting: a server that is busy."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.free = threading.Event()
        self.free.set()

    def true_time(self) -> float:
        self.free.wait(5)
        return super().true_time()


@contextlib.asynccontextmanager
async def connection(url: str) -> AsyncGenerator[anyio.abc.SocketStream]:
    """A bare connection to the server."""
    port = urlsplit(url).port
    assert port is not None
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        yield stream


async def requests_arrived(simulator: Simulator, number: int) -> None:
    """Wait until the server has seen that many requests."""
    with anyio.fail_after(5):
        while len(simulator.requests) < number:  # noqa: ASYNC110 - it is another thread's list
            await anyio.sleep(0.005)


async def read_all(stream: anyio.abc.SocketStream) -> bytes:
    """Everything until the other side closes."""
    parts: list[bytes] = []
    with contextlib.suppress(anyio.EndOfStream):
        while True:
            parts.append(await stream.receive())
    return b"".join(parts)


async def test_an_order_over_a_socket(simulator: Simulator, client: httpx.AsyncClient) -> None:
    """Requests, bodies, queries and headers arrive as they were sent, and answers come back."""
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


async def test_only_loopback_hears(url: str) -> None:
    """Unless asked otherwise, the server listens on the loopback address alone."""
    port = urlsplit(url).port
    assert url == f"http://127.0.0.1:{port}"
    with pytest.raises(OSError, match="attempts failed"):
        await anyio.connect_tcp("127.0.0.2", port or 0)


async def test_another_address(simulator: Simulator) -> None:
    """An IPv6 address can be asked for, and stands in brackets in the URL."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    async with simulator.serve("::1") as url, httpx.AsyncClient(base_url=url) as client:
        assert url.startswith("http://[::1]:")
        assert (await client.get("/")).status_code == 200


async def test_a_port_that_is_taken(simulator: Simulator, url: str) -> None:
    """A port that is taken is an error on entering."""
    with pytest.raises(OSError, match="in use"):
        async with simulator.serve(port=urlsplit(url).port or 0):
            pytest.fail("two servers on one port")


async def test_keep_alive(url: str) -> None:
    """One connection carries many requests."""
    async with connection(url) as stream:
        for _ in range(3):
            await stream.send(GET)
            answer = b""
            while not answer.endswith(b'{"status": "OK"}'):
                answer += await stream.receive()
            assert answer.startswith(b"HTTP/1.1 200")


async def test_answers_come_at_once(client: httpx.AsyncClient) -> None:
    """A request with a body takes a millisecond or so, not the 40 of two small packets waiting."""
    took: list[float] = []
    for _ in range(50):
        began = time.monotonic()
        await client.post("/createorder", json={"country": 187, "service": "tg"})
        took.append(time.monotonic() - began)
    assert statistics.median(took) < 0.02


async def test_reset(simulator: Simulator, url: str) -> None:
    """A reset is one: the connection breaks, it is not closed, and not a byte is answered."""
    simulator.script("/", Fault.reset())
    async with connection(url) as stream:
        await stream.send(GET)
        with pytest.raises(anyio.BrokenResourceError):
            await stream.receive()


async def test_cut_body(simulator: Simulator, url: str) -> None:
    """A cut body has half of what its length promised, and then the connection is closed."""
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
async def test_broken_connections_as_httpx_sees_them(
    simulator: Simulator, client: httpx.AsyncClient, fault: Fault, error: type[Exception]
) -> None:
    """A broken connection is the same error over a socket and without one."""
    simulator.script("/", fault, fault)
    with pytest.raises(error):
        await client.get("/")
    async with simulator.http_client() as socketless:
        with pytest.raises(error):
            await socketless.get("/")
    assert (await client.get("/")).status_code == 200


async def test_complete_answers(simulator: Simulator, client: httpx.AsyncClient) -> None:
    """Answers that are complete for HTTP arrive as they are, whatever is in them."""
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
async def test_a_client_that_gives_up(
    simulator: Simulator, client: httpx.AsyncClient, fault: Fault
) -> None:
    """A client that gives up leaves a server that goes on, and a slow request is never handled."""
    simulator.script("/createorder", fault)

    async def create() -> None:
        await client.post("/createorder", json={"country": 187, "service": "tg"})

    async with anyio.create_task_group() as group:
        group.start_soon(create)
        await requests_arrived(simulator, 1)
        group.cancel_scope.cancel()
    assert (await client.get("/")).status_code == 200
    assert (simulator.count("/createorder"), simulator.orders) == (1, [])


async def test_a_client_that_leaves_in_mid_request(simulator: Simulator, url: str) -> None:
    """A request whose body never comes is no request."""
    async with connection(url) as stream:
        await stream.send(b"POST /fund HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nhalf")
        await anyio.sleep(0.02)
    await anyio.sleep(0.02)
    assert simulator.requests == []


async def test_a_body_in_pieces(simulator: Simulator, url: str) -> None:
    """A body that comes in pieces is put together."""
    async with connection(url) as stream:
        await stream.send(b'POST /fund HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{"amo')
        await anyio.sleep(0.02)
        await stream.send(b'unt": 5}')
        await stream.receive()
    assert simulator.requests[0].body == b'{"amount": 5}'


async def test_stops_at_once_whatever_hangs(simulator: Simulator) -> None:
    """With requests that hang, drip and wait, the server stops within two seconds."""
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


async def test_connections_of_the_last_moment() -> None:
    """Connections that a busy server accepts only while it stops are closed as well."""
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


async def test_stops_when_cancelled(simulator: Simulator) -> None:
    """A server whose block is cancelled is stopped all the same, and nobody listens there."""
    url = ""
    with anyio.CancelScope() as scope:
        async with simulator.serve() as url:
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(OSError, match="attempts failed"):
        async with connection(url):
            pytest.fail("still there")


async def test_logs_of_other_servers_are_left_alone(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The access log, which would show order ids, says nothing; its logger is untouched."""
    caplog.set_level(logging.INFO)
    await client.get("/orderstatus", params={"orderId": "ab" * 32})
    uvicorn_records = [each for each in caplog.records if each.name.startswith("uvicorn")]
    assert "abab" not in "".join(each.getMessage() for each in uvicorn_records)
    assert logging.getLogger("uvicorn.access").propagate


async def test_time_goes_on_while_nobody_asks(simulator: Simulator, url: str) -> None:
    """The other side of the counter may be used from the test's thread while the server runs."""
    async with httpx.AsyncClient(base_url=url) as client:
        created = await client.post("/createorder", json={"country": 187, "service": "tg"})
        order_id = created.json()["orderId"]
        simulator.pay(order_id)
        simulator.deliver_code(order_id, "0042")
        status = await client.get("/orderstatus", params={"orderId": order_id})
    assert status.json()["code"] == "0042"
    assert simulator.holder(order_id) is Holder.SETTLED


async def test_without_uvicorn(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without uvicorn, serving says how to install it, and everything else works."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "sms4sats_async.simulator.server", raising=False)
    for serve in (simulator.serve, lambda: simulator.run(on_ready=print)):
        with pytest.raises(ImportError, match=r"pip install 'sms4sats-async\[simulator\]'"):
            serve()
    assert simulator.handle("GET", "/").status == 200


def test_run_blocks_until_an_exception(simulator: Simulator) -> None:
    """`run` serves, and an exception such as Ctrl-C ends it and the server."""
    answers: list[httpx.Response] = []

    def ready(url: str) -> None:
        answers.append(httpx.get(url, trust_env=False))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulator.run(on_ready=ready)
    assert answers[0].json() == {"status": "OK"}


def test_run_ends_with_its_server(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the server should ever end by itself, `run` does not wait for it for ever."""

    async def end_at_once(_: object) -> None:
        pass

    monkeypatch.setattr(uvicorn.Server, "main_loop", end_at_once)
    urls: list[str] = []
    simulator.run(on_ready=urls.append)
    assert len(urls) == 1
