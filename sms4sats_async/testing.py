"""For the tests of a program that uses this library: no money, no telephone, and no waiting.

The fixtures for pytest need no import: `sms4sats_client`, `sms4sats_simulator`, `sms4sats_clock`.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import httpx

from .simulator import Answer, Ending, Order, Simulator
from .simulator.in_process import InProcessTransport
from .simulator.masking import mask

__all__ = ["API_KEY", "assert_no_held_orders", "http_client"]

API_KEY: Final = "test-key"
"""The key of the fixture's client. Its balance is empty until `simulator.credit(API_KEY, ...)`."""

_PATIENCE: Final = 10.0
"""Seconds until a request that hangs is given up: as long as the client's own default."""


def http_client(simulator: Simulator) -> httpx.AsyncClient:
    """Return an httpx client of a simulator, for a `Sms4SatsClient` on the simulator's clock.

    Unlike `Simulator.http_client` it does not let a `Fault.hang` take real time: a request that
    hangs fails with a time-out after 10 seconds of the simulator's clock. It holds no socket, and
    need not be closed.

    Args:
        simulator: the service that gets every request, whatever host it is for.
    """

    async def respond(method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        answer = await simulator.respond(method, target, headers, body)
        if answer.ending is Ending.HANG:
            await simulator.clock.sleep(_PATIENCE)
            raise httpx.ReadTimeout("no answer in time")
        return answer

    return httpx.AsyncClient(transport=InProcessTransport(respond))


def assert_no_held_orders(simulator: Simulator) -> None:
    """Fail if the money of an order is held: neither spent on a code nor given back.

    Args:
        simulator: the service whose orders are looked at, as they are now.

    Raises:
        AssertionError: Money is held. The message tells of each such order what has happened to
            it, by its age in minutes and seconds; of its id it shows the two ends.
    """
    __tracebackhide__ = True  # pytest shows the line of the test, not of this file
    held = simulator.held_orders()
    if held:
        title = "an order holds money" if len(held) == 1 else f"{len(held)} orders hold money"
        lines = (line for order in held for line in _story(simulator, order))
        raise AssertionError("\n".join([f"{title}:", *lines]))


def _story(simulator: Simulator, order: Order) -> Iterator[str]:
    """Tell what has happened to an order whose money is held, so no cancel has worked."""
    moments = [(moment.time, moment.text) for moment in order.history]
    moments += [
        (request.time, "asked to cancel, in vain")
        for request in simulator.requests
        if request.path == "/cancelorder" and request.query.get("orderId") == order.order_id
    ]
    moments.sort(key=lambda moment: moment[0])
    moments.append((simulator.clock.now(), "still held"))
    yield f"{order.kind.value} order {mask(order.order_id)}, {order.price} sat"
    for time, text in moments:
        minutes, seconds = divmod(int(time - order.created_at), 60)
        yield f"  {minutes}:{seconds:02d} {text}"
