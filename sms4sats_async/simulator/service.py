"""The service in miniature: the law, a clock, scripted faults, and a record of what was asked."""

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Literal

import httpx

from .clock import Clock, ScaledClock
from .endpoints import answer
from .faults import Fault
from .in_process import InProcessTransport
from .law import Behaviour, Event, Holder, Kind, LawError, Moment, Order, Stage, World
from .masking import mask
from .messages import Answer, Ending, Request

__all__ = ["Simulator"]

_log = logging.getLogger("sms4sats_async.simulator")

_ANY_PATH = "*"
_SMS_EVENTS: Mapping[str, Event] = {
    "sent": Event.SEND_SMS,
    "delivered": Event.DELIVER_SMS,
    "failed": Event.RELEASE,
}


class Simulator:
    """The service in miniature.

    Reach it with `http_client` (no socket) or `serve` (a real one), and see and steer from the
    other side what the service does: who has paid, whether a code comes, what goes wrong. All of it
    may be used from several threads at once.

    Attributes:
        behaviour: how orders are treated that are created from now on.
        clock: the clock the service lives by.
    """

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        *,
        clock: Clock | None = None,
        seed: int | None = 0,
    ) -> None:
        """Start a service that has no orders yet.

        Args:
            behaviour: how orders are treated; by default the wallet's owner pays by hand, a number
                comes 5 s and a code 65 s after that.
            clock: by default one that runs in real time. If it has a `true_time` (as the clocks of
                this package do), the service lives by that, else by its `now`.
            seed: makes ids, numbers and invoices the same in every run; None: different.
        """
        self.behaviour: Behaviour = Behaviour() if behaviour is None else behaviour
        self.clock: Clock = ScaledClock(1.0) if clock is None else clock
        self._world = World(seed)
        self._requests: list[Request] = []
        self._script: defaultdict[str, deque[Fault | None]] = defaultdict(deque)
        self._lock = threading.RLock()

    # --- being asked ---------------------------------------------------------------------------

    def handle(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Answer one request at once. Whatever the request, there is an answer.

        Args:
            method: the HTTP method.
            target: path and query.
            headers: the headers, names in any case.
            body: any bytes.

        Returns:
            The answer, and how it is to be delivered. A `Fault.slow` has no effect here.
        """
        request, fault = self._accept(method, target, headers or {}, body)
        return self._act(request, fault)

    async def respond(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """Answer one request, after the wait that a `Fault.slow` asks for."""
        request, fault = self._accept(method, target, headers, body)
        if fault is not None and fault.wait_before:
            await self.clock.sleep(fault.wait_before)
        answered = self._act(request, fault)
        if fault is not None and fault.wait_after:
            await self.clock.sleep(fault.wait_after)
        return answered

    def http_client(self) -> httpx.AsyncClient:
        """Return an httpx client whose every request ends up here, without a socket.

        The host it asks for does not matter. httpx's own time-outs do not apply to it: what hangs,
        hangs until it is cancelled.
        """
        return httpx.AsyncClient(
            transport=InProcessTransport(self.respond), base_url="http://simulator"
        )

    def serve(self, host: str = "127.0.0.1", port: int = 0) -> AbstractAsyncContextManager[str]:
        """Serve over a real socket for as long as an `async with` lasts, which gets the base URL.

        Args:
            host: the address to listen on, by default one that only this machine reaches.
            port: the port; 0: any free one.

        Raises:
            ImportError: if uvicorn is not installed; the message says how to install it.
            OSError: on entering, if that address cannot be had.
        """
        from .server import serve  # noqa: PLC0415 - only a served simulator needs uvicorn

        return serve(self.respond, host, port)

    def run(
        self, host: str = "127.0.0.1", port: int = 0, *, on_ready: Callable[[str], None]
    ) -> None:
        """Serve over a real socket until an exception comes, such as `KeyboardInterrupt`.

        Args:
            host: the address to listen on, by default one that only this machine reaches.
            port: the port; 0: any free one.
            on_ready: called with the base URL.

        Raises:
            ImportError: if uvicorn is not installed; the message says how to install it.
            OSError: if that address cannot be had.
        """
        from .server import run  # noqa: PLC0415 - only a served simulator needs uvicorn

        run(self.respond, host, port, on_ready=on_ready)

    # --- what was asked ------------------------------------------------------------------------

    @property
    def requests(self) -> list[Request]:
        """All requests so far, those that met a fault included."""
        with self._lock:
            return list(self._requests)

    def count(self, path: str) -> int:
        """Return how many requests have asked for a path, such as `/cancelorder`."""
        return sum(request.path == path for request in self.requests)

    # --- what goes wrong -----------------------------------------------------------------------

    def script(self, path: str, *faults: Fault | None) -> None:
        """Say what the next requests for a path meet, one after the other.

        Args:
            path: such as `/cancelorder`, or `*` for any path that has no script of its own left.
            faults: one for each request; None: nothing goes wrong.
        """
        with self._lock:
            self._script[path].extend(faults)

    @property
    def unused_faults(self) -> dict[str, tuple[Fault, ...]]:
        """The scripted faults that no request has met yet, by path."""
        with self._lock:
            left = {
                path: tuple(fault for fault in queue if fault is not None)
                for path, queue in self._script.items()
            }
        return {path: faults for path, faults in left.items() if faults}

    # --- the orders, and the other side of the counter -----------------------------------------

    @property
    def orders(self) -> list[Order]:
        """All orders as they are now, the oldest first."""
        with self._lock:
            return self._world.orders(self._now())

    def order(self, order_id: str) -> Order:
        """Return one order as it is now.

        Raises:
            LookupError: if there is no such order; so do all methods here that take an id.
        """
        with self._lock:
            return self._world.find(order_id, self._now())

    def holder(self, order_id: str) -> Holder:
        """Return who has the money of an order."""
        return self.order(order_id).holder

    def held_orders(self) -> list[Order]:
        """Return the orders whose money is held: neither settled nor returned."""
        return [order for order in self.orders if order.holder is Holder.HELD]

    def timeline(self, order_id: str) -> list[Moment]:
        """Return what has happened to an order: (time, text, holder of the money)."""
        return list(self.order(order_id).history)

    def pay(self, order_id_or_payreq: str) -> Order:
        """Pay an order's invoice, as a wallet does. From then on the money is held.

        Raises:
            LawError: if it is paid or over already.
        """
        return self._happen(self._world.id_behind(order_id_or_payreq), Event.PAY)

    def assign_number(self, order_id: str, number: str | None = None) -> Order:
        """Give a paid order a number, by default any.

        Raises:
            LawError: if it is not paid, has a number, or is over.
        """
        return self._happen(order_id, Event.ASSIGN_NUMBER, number=number)

    def deliver_code(self, order_id: str, code: str | None = None) -> Order:
        """Deliver the code of a paid order, giving it a number first if it has none.

        Args:
            order_id: the order.
            code: the code; by default the one in its behaviour.

        Raises:
            LawError: if it is not paid, or is over.
        """
        with self._lock:
            now = self._now()
            if self._world.find(order_id, now).stage is Stage.PAID:
                self._world.happen(order_id, Event.ASSIGN_NUMBER, now)
            return self._world.happen(order_id, Event.DELIVER_CODE, now, code=code)

    def set_sms_status(
        self, order_id: str, status: Literal["sent", "delivered", "failed"]
    ) -> Order:
        """Let the SMS of a paid send order be sent, delivered, or fail.

        Raises:
            LawError: if it is not paid, or the SMS is not at that point.
        """
        with self._lock:
            now = self._now()
            order = self._world.find(order_id, now)
            if order.kind is not Kind.SEND:
                raise LawError(f"not an order that sends an SMS: {order}")
            if status == "delivered" and order.stage is Stage.PAID:
                self._world.happen(order_id, Event.SEND_SMS, now)
            return self._world.happen(order_id, _SMS_EVENTS[status], now)

    def refund(self, order_id: str) -> Order:
        """Let the service give an order up, as it does when it has no number.

        Raises:
            LawError: if it is settled or over.
        """
        return self._happen(order_id, Event.RELEASE)

    def behave(self, order_id: str, behaviour: Behaviour) -> Order:
        """Treat one order differently from now on."""
        with self._lock:
            return self._world.change_behaviour(order_id, behaviour, self._now())

    def credit(self, api_key: str, amount: int) -> None:
        """Add satoshis to the prepaid balance of a key."""
        with self._lock:
            self._world.credit(api_key, amount)

    def balance(self, api_key: str) -> int:
        """Return the prepaid satoshis of a key."""
        with self._lock:
            return self._world.balance(api_key, self._now())

    # -------------------------------------------------------------------------------------------

    def _now(self) -> float:
        true_time = getattr(self.clock, "true_time", self.clock.now)
        return float(true_time())

    def _happen(
        self, order_id: str, event: Event, *, number: str | None = None, code: str | None = None
    ) -> Order:
        with self._lock:
            return self._world.happen(order_id, event, self._now(), number=number, code=code)

    def _accept(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[Request, Fault | None]:
        with self._lock:
            request = Request.from_wire(self._now(), method, target, headers, body)
            self._requests.append(request)
            queue = self._script.get(request.path) or self._script.get(_ANY_PATH)
            return request, queue.popleft() if queue else None

    def _act(self, request: Request, fault: Fault | None) -> Answer:
        with self._lock:
            now = self._now()  # not the request's own time: it may have waited
            if fault is None:
                given = answer(self._world, request, self.behaviour, now)
            elif fault.reaches_service:
                given = fault.spoil(answer(self._world, request, self.behaviour, now))
            else:
                given = fault.spoil(None)
        if _log.isEnabledFor(logging.INFO):
            _log.info("%s", _line(now, request, given, fault))
        return given


def _line(now: float, request: Request, given: Answer, fault: Fault | None) -> str:
    """Return what the log says of one request: no order id and no key whole."""
    outcome = given.status if given.ending is Ending.COMPLETE else given.ending.value
    words = [time.strftime("%H:%M:%S", time.gmtime(now)), str(request), "->", str(outcome)]
    match given.json:
        case {"orderId": str(order_id)}:
            words.append(f"orderId={mask(order_id)}")
        case _:
            pass
    if fault is not None:
        words.append(f"(fault: {fault.kind})")
    return " ".join(words)
