"""Scripted failures of the simulated service, without a socket."""

import json
from collections.abc import Callable

import anyio
import httpx
import pytest

from sms4sats_async.simulator import Behaviour, Fault, Holder, ManualClock, Simulator, Stage

pytestmark = pytest.mark.anyio

UNABLE = {"status": "error", "reason": "unable to save data"}
FAULTS: dict[str, Callable[[bool], Fault]] = {
    "unable to save data": lambda after: Fault.unable_to_save_data(after_change=after),
    "http": lambda after: Fault.http(429, after_change=after),
    "html": lambda after: Fault.html(after_change=after),
    "cut json": lambda after: Fault.cut_json(after_change=after),
    "cut body": lambda after: Fault.cut_body(after_change=after),
    "hang": lambda after: Fault.hang(after_change=after),
    "drip": lambda after: Fault.drip(0, after_change=after),
    "reset": lambda after: Fault.reset(after_change=after),
    "big body": lambda after: Fault.big_body(1_000, after_change=after),
    "redirect": lambda after: Fault.redirect("/", after_change=after),
}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def simulator(clock: ManualClock) -> Simulator:
    return Simulator(Behaviour(code_delay=None), clock=clock)


@pytest.fixture
def order_id(simulator: Simulator, clock: ManualClock) -> str:
    """The ID of a paid order that can be cancelled."""
    body = json.dumps({"country": 187, "service": "tg"}).encode()
    order = simulator.pay(simulator.handle("POST", "/createorder", body=body).json["payreq"])
    clock.suspend(120)
    return order.order_id


async def cancel(simulator: Simulator, order_id: str) -> httpx.Response:
    """Send a cancel and return the answer."""
    async with simulator.http_client() as client:
        return await client.get("/cancelorder", params={"orderId": order_id})


async def test_http_client_sends_every_request_to_the_simulator(simulator: Simulator) -> None:
    async with simulator.http_client() as client:
        up = await client.get("/")
        created = await client.post(
            "https://elsewhere.invalid/createorder", json={"country": 187, "service": "tg"}
        )
    assert (up.status_code, up.json()) == (200, {"status": "OK"})
    assert up.headers["content-type"].startswith("application/json")
    assert int(up.headers["content-length"]) == len(up.content)
    assert simulator.order(created.json()["orderId"]).stage is Stage.CREATED
    assert simulator.requests[1].headers["host"] == "elsewhere.invalid"


@pytest.mark.parametrize("after_change", [False, True])
@pytest.mark.parametrize("name", FAULTS)
async def test_request_changes_the_order_only_with_after_change(
    simulator: Simulator, order_id: str, name: str, *, after_change: bool
) -> None:
    simulator.script("/cancelorder", FAULTS[name](after_change))

    async def attempt() -> None:
        try:
            with anyio.fail_after(5):
                answer = await cancel(simulator, order_id)
        except httpx.HTTPError:
            pass
        else:
            assert answer.content != b'{"status": "OK"}' or (name == "drip" and after_change)

    async with anyio.create_task_group() as group:
        group.start_soon(attempt)
        if name == "hang":
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
    assert simulator.holder(order_id) is (Holder.REFUNDED if after_change else Holder.HELD)
    assert simulator.count("/cancelorder") == 1
    assert simulator.unused_faults == {}


async def test_unable_to_save_data_is_a_500(simulator: Simulator, order_id: str) -> None:
    simulator.script("/cancelorder", Fault.unable_to_save_data())
    answer = await cancel(simulator, order_id)
    assert (answer.status_code, answer.json()) == (500, UNABLE)


@pytest.mark.parametrize(
    ("fault", "status", "reason", "retry_after"),
    [
        (Fault.http(503), 503, "Service Unavailable", None),
        (Fault.http(599), 599, "unknown", None),
        (Fault.http(400, "no"), 400, "no", None),
        (Fault.http(429, retry_after=30), 429, "Too Many Requests", "30"),
        (Fault.http(429, retry_after=0.5), 429, "Too Many Requests", "0.5"),
        (
            Fault.http(503, retry_after="Fri, 15 Jan 2027 08:00:00 GMT"),
            503,
            "Service Unavailable",
            "Fri, 15 Jan 2027 08:00:00 GMT",
        ),
    ],
)
async def test_http_fault_has_status_reason_and_retry_after(
    simulator: Simulator, fault: Fault, status: int, reason: str, retry_after: str | None
) -> None:
    simulator.script("/cancelorder", fault)
    answer = await cancel(simulator, "")
    assert (answer.status_code, answer.json()) == (status, {"status": "error", "reason": reason})
    assert answer.headers.get("retry-after") == retry_after


async def test_html_fault_is_a_page(simulator: Simulator) -> None:
    simulator.script("/cancelorder", Fault.html(), Fault.html(200))
    first, second = await cancel(simulator, ""), await cancel(simulator, "")
    assert (first.status_code, second.status_code) == (502, 200)
    assert first.headers["content-type"].startswith("text/html")
    assert first.text.startswith("<html>")


async def test_cut_json_is_a_complete_answer_with_half_the_json(
    simulator: Simulator, order_id: str
) -> None:
    simulator.script("/cancelorder", Fault.cut_json(), Fault.cut_json(after_change=True))
    answers = [await cancel(simulator, order_id) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.text for answer in answers] == ['{"status": "error", "reaso', '{"status']


async def test_cut_body_breaks_the_connection_within_the_body(
    simulator: Simulator, order_id: str
) -> None:
    simulator.script("/cancelorder", Fault.cut_body(after_change=True))
    async with simulator.http_client() as client:
        request = client.build_request("GET", "/cancelorder", params={"orderId": order_id})
        answer = await client.send(request, stream=True)
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b'{"status'
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete") as caught:
            await anext(pieces)
    assert (answer.headers["content-length"], caught.value.request) == ("16", request)


async def test_reset_breaks_the_connection_before_the_answer(
    simulator: Simulator, order_id: str
) -> None:
    simulator.script("/cancelorder", Fault.reset())
    with pytest.raises(httpx.ReadError) as caught:
        await cancel(simulator, order_id)
    assert caught.value.request.url.path == "/cancelorder"


async def test_hang_ignores_the_time_out_of_httpx(simulator: Simulator, order_id: str) -> None:
    simulator.script("/cancelorder", Fault.hang())
    with anyio.move_on_after(0.02) as scope:
        async with simulator.http_client() as client:
            await client.get("/cancelorder", params={"orderId": order_id}, timeout=0.001)
    assert scope.cancelled_caught


async def test_drip_sends_one_byte_at_a_time(simulator: Simulator, order_id: str) -> None:
    simulator.script("/cancelorder", Fault.drip(0.0001, after_change=True), Fault.drip(10))
    async with simulator.http_client() as client:
        request = client.build_request("GET", "/cancelorder", params={"orderId": order_id})
        answer = await client.send(request, stream=True)
        pieces = [piece async for piece in answer.aiter_raw()]
    assert {len(piece) for piece in pieces} == {1}
    assert json.loads(b"".join(pieces)) == {"status": "OK"}
    with anyio.move_on_after(0.02) as scope:
        await cancel(simulator, order_id)
    assert scope.cancelled_caught


@pytest.mark.parametrize(("size", "length"), [(2_000, 2_000), (1, 31)])
async def test_big_body_has_the_given_size(simulator: Simulator, size: int, length: int) -> None:
    simulator.script("/", Fault.big_body(size))
    async with simulator.http_client() as client:
        answer = await client.get("/")
    assert len(answer.content) == length
    assert answer.json()["status"] == "OK"


async def test_redirect_leads_to_the_given_address(simulator: Simulator) -> None:
    simulator.script("/balance", Fault.redirect("http://other.invalid/"))
    async with simulator.http_client() as client:
        answer = await client.get("/balance", follow_redirects=True)
    assert [each.status_code for each in answer.history] == [307]
    assert simulator.requests[-1].headers["host"] == "other.invalid"


async def test_slow_request_is_handled_after_the_delay(
    simulator: Simulator, clock: ManualClock, order_id: str
) -> None:
    simulator.script("/cancelorder", Fault.slow(30))
    answer = await cancel(simulator, order_id)
    assert answer.json() == {"status": "OK"}
    assert clock.sleeps == [30]
    created, *_, cancelled = simulator.timeline(order_id)
    assert cancelled.time - created.time == 150


async def test_cancelled_slow_request_changes_the_order_only_with_after_change(
    simulator: Simulator, clock: ManualClock, order_id: str
) -> None:
    clock.autojump = False
    simulator.script("/cancelorder", Fault.slow(30), Fault.slow(30, after_change=True))
    for holder in (Holder.HELD, Holder.REFUNDED):
        async with anyio.create_task_group() as group:
            group.start_soon(cancel, simulator, order_id)
            await clock.advance(29)
            assert clock.waiting == [1]
            group.cancel_scope.cancel()
        assert simulator.holder(order_id) is holder


async def test_faults_are_used_in_order_and_star_comes_last(
    simulator: Simulator, order_id: str
) -> None:
    simulator.script("/cancelorder", Fault.html(), None)
    simulator.script("*", Fault.http(418))
    simulator.script("/cancelorder", Fault.http(503))
    statuses = [(await cancel(simulator, order_id)).status_code for _ in range(5)]
    assert statuses == [502, 200, 503, 418, 500]
    simulator.script("*", Fault.http(418))
    async with simulator.http_client() as client:
        assert (await client.get("/balance")).status_code == 418


async def test_unused_faults_lists_the_faults_that_are_left(simulator: Simulator) -> None:
    simulator.script("/cancelorder", Fault.html(), None, Fault.reset())
    simulator.script("/balance", None)
    await cancel(simulator, "")
    assert simulator.unused_faults == {"/cancelorder": (Fault.reset(),)}


async def test_faults_are_values() -> None:
    assert Fault.slow(3) == Fault.slow(3)
    assert len({Fault.slow(3), Fault.slow(4), Fault.hang(), Fault.hang(after_change=True)}) == 4
    assert repr(Fault.hang()) == "Fault(kind='hang', after_change=False)"


async def test_slow_has_no_effect_on_handle(simulator: Simulator, clock: ManualClock) -> None:
    simulator.script("/", Fault.slow(30), Fault.slow(30, after_change=True))
    assert simulator.handle("GET", "/").json == {"status": "OK"}
    assert simulator.handle("GET", "/").json == {"status": "OK"}
    assert clock.sleeps == []
