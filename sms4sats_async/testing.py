"""Helpers for testing a program that uses this library. No money and no telephone is involved.

The pytest fixtures `sms4sats_client`, `sms4sats_simulator` and `sms4sats_clock` need no import.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import httpx

from .simulator import Answer, Ending, Order, Simulator
from .simulator.in_process import InProcessTransport
from .simulator.masking import mask

__all__ = ["API_KEY", "assert_no_held_orders", "http_client"]

API_KEY: Final = "test-key"
"""The API key of the fixture's client. `simulator.credit(API_KEY, ...)` fills its balance."""

_TIMEOUT: Final = 10.0
"""Seconds until a request that hangs fails: the default time-out of the client."""


def http_client(simulator: Simulator) -> httpx.AsyncClient:
    """Return an httpx client of a simulator, for a `Sms4SatsClient` on the simulator's clock.

    With this client, a request that hangs fails with a time-out after 10 seconds of the simulator's
    clock. With `Simulator.http_client` it waits until it is cancelled. The client uses no socket,
    so you need not close it.

    Args:
        simulator: the service that receives every request, whatever its host.
    """

    async def respond(method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        answer = await simulator.respond(method, target, headers, body)
        if answer.ending is Ending.HANG:
            await simulator.clock.sleep(_TIMEOUT)
            raise httpx.ReadTimeout("no answer in time")
        return answer

    return httpx.AsyncClient(transport=InProcessTransport(respond))


def assert_no_held_orders(simulator: Simulator) -> None:
    """Fail if the payment of an order is held: neither settled nor refunded.

    Args:
        simulator: the service whose orders are checked.

    Raises:
        AssertionError: If a payment is held. The message lists the events of each such order, with
            the age of the order at each event. The order ID is masked.
    """
    __tracebackhide__ = True  # pytest shows the line of the test, not of this file
    held = simulator.held_orders()
    if held:
        title = "an order holds money" if len(held) == 1 else f"{len(held)} orders hold money"
        lines = (line for order in held for line in _events(simulator, order))
        raise AssertionError("\n".join([f"{title}:", *lines]))


def _events(simulator: Simulator, order: Order) -> Iterator[str]:
    """Yield the events of an order with a held payment. Every cancel of it has failed."""
    events = [(moment.time, moment.text) for moment in order.history]
    events += [
        (request.time, "cancel failed")
        for request in simulator.requests
        if request.path == "/cancelorder" and request.query.get("orderId") == order.order_id
    ]
    events.sort(key=lambda event: event[0])
    events.append((simulator.clock.now(), "still held"))
    yield f"{order.kind.value} order {mask(order.order_id)}, {order.price} sat"
    for time, text in events:
        minutes, seconds = divmod(int(time - order.created_at), 60)
        yield f"  {minutes}:{seconds:02d} {text}"
