"""A request that creates an order is never sent twice where the first may have arrived."""

from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import httpx
import pytest
import respx

from sms4sats_async import (
    DEFAULT_BASE_URL,
    Order,
    RequestOutcome,
    Sms4SatsClient,
    Sms4SatsError,
)
from sms4sats_async.simulator import Fault, ManualClock, Simulator

pytestmark = pytest.mark.anyio

Call = Callable[[Sms4SatsClient], Coroutine[Any, Any, Order]]

CALLS: dict[str, Call] = {
    "/createorder": lambda client: client.create_order(187, "tg"),
    "/createsendorder": lambda client: client.create_send_order("+4915112345678", "hello"),
    "/fund": lambda client: client.fund(1000),
}

FAULTS = {
    "500 before": Fault.http(500, "backend error"),
    "500 after": Fault.http(500, "backend error", after_change=True),
    "500 unable to save data": Fault.unable_to_save_data(after_change=True),
    "502 before": Fault.html(502),
    "502 after": Fault.html(502, after_change=True),
    "503 with Retry-After before": Fault.http(503, retry_after=1),
    "503 with Retry-After after": Fault.http(503, retry_after=1, after_change=True),
    "504 after": Fault.http(504, after_change=True),
    "429 with Retry-After": Fault.http(429, retry_after=1),
    "429 after": Fault.http(429, after_change=True),
    "reset before": Fault.reset(),
    "reset after": Fault.reset(after_change=True),
    "hang before": Fault.hang(),
    "hang after": Fault.hang(after_change=True),
    "drip after": Fault.drip(0.03, after_change=True),
    "cut body after": Fault.cut_body(after_change=True),
    "cut JSON after": Fault.cut_json(after_change=True),
    "HTML in a 200 after": Fault.html(200, after_change=True),
    "over 1 MiB after": Fault.big_body(2 << 20, after_change=True),
    "redirect after": Fault.redirect("https://elsewhere.example/", after_change=True),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("path", CALLS)
async def test_the_service_gets_one_request_and_the_error_is_unknown(
    path: str, fault: Fault
) -> None:
    clock = ManualClock()
    simulator = Simulator(clock=clock)
    simulator.script(path, fault)
    client = Sms4SatsClient(
        api_key="a-key", http_client=simulator.http_client(), clock=clock, timeout=0.05
    )
    with pytest.raises(Sms4SatsError) as caught:
        await CALLS[path](client)

    assert simulator.count(path) == 1
    assert len(simulator.orders) <= 1
    assert caught.value.attempts == 1
    assert caught.value.request_outcome is RequestOutcome.UNKNOWN
    assert clock.sleeps == []
    text = str(caught.value)
    assert "may or may not have created an" in text
    assert "get_balance()" in text or "get_history()" in text


@pytest.mark.parametrize(
    ("fault", "timeout"),
    # Only an answer that never comes has to be waited for.
    [(Fault.reset(after_change=True), 10), (Fault.hang(after_change=True), 0.2)],
    ids=["reset", "hang"],
)
@pytest.mark.parametrize("path", CALLS)
async def test_a_real_socket_makes_no_difference(path: str, fault: Fault, timeout: float) -> None:
    simulator = Simulator()
    simulator.script(path, fault)
    async with (
        simulator.serve() as root,
        Sms4SatsClient(api_key="a-key", base_url=root, timeout=timeout) as client,
    ):
        await client.ping()
        with pytest.raises(Sms4SatsError) as caught:
            await CALLS[path](client)
    assert simulator.count(path) == len(simulator.orders) == 1
    assert caught.value.request_outcome is RequestOutcome.UNKNOWN


@pytest.mark.parametrize("path", CALLS)
async def test_a_request_that_was_not_sent_is_retried(path: str) -> None:
    answer = httpx.Response(200, json={"status": "OK", "orderId": "ab" * 32, "payreq": "lnbc1"})
    failures = [httpx.ConnectError("no"), httpx.ConnectTimeout("no"), httpx.PoolTimeout("no")]
    with respx.mock(base_url=DEFAULT_BASE_URL) as service:
        route = service.post(path).mock(side_effect=[*failures, answer])
        async with Sms4SatsClient(api_key="a-key", clock=ManualClock()) as client:
            order = await CALLS[path](client)
    assert (order.order_id, route.call_count) == ("ab" * 32, 4)


@pytest.mark.parametrize("path", CALLS)
async def test_a_cancelled_call_is_not_retried(path: str) -> None:
    simulator = Simulator(clock=ManualClock())
    simulator.script(path, Fault.hang(after_change=True))
    client = Sms4SatsClient(api_key="a-key", http_client=simulator.http_client())
    async with anyio.create_task_group() as group:
        group.start_soon(CALLS[path], client)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert simulator.count(path) == 1
