"""The simulated service: orders, a clock, scripted faults, and a list of all requests."""

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Literal

import httpx

from .behaviour import Behaviour
from .clock import Clock, ScaledClock
from .endpoints import answer
from .faults import Fault
from .in_process import InProcessTransport
from .masking import mask
from .messages import Answer, Ending, Request
from .order import Moment, Order
from .states import Event, Holder, Kind, Stage, StateError
from .store import Store

__all__ = ["Simulator"]

_log = logging.getLogger("sms4sats_async.simulator")

_ANY_PATH = "*"
_SMS_EVENTS: Mapping[str, Event] = {
    "sent": Event.SEND_SMS,
    "delivered": Event.DELIVER_SMS,
    "failed": Event.FAIL,
}


class Simulator:
    """A simulator of the service. No money and no telephone is involved.

    Send requests to it with `http_client` (no socket) or `serve` (a real socket). The other methods
    control the service: they pay orders, deliver codes and script faults. All methods are
    thread-safe.

    Attributes:
        behaviour: the behaviour of the orders that are created from now on.
        clock: the clock of the service.
    """

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        *,
        clock: Clock | None = None,
        seed: int | None = 0,
    ) -> None:
        """Start a service without orders.

        Args:
            behaviour: how the service treats orders. By default an order is paid only by `pay`;
                its number is assigned 5 s, and its code delivered 65 s after the payment.
            clock: the clock of the service; by default real time. The service uses the clock's
                `true_time` if it has one (the clocks of this package have), else its `now`.
            seed: makes IDs, numbers and invoices the same in every run; None: different ones.
        """
        self.behaviour: Behaviour = Behaviour() if behaviour is None else behaviour
        self.clock: Clock = ScaledClock(1.0) if clock is None else clock
        self._store = Store(seed)
        self._requests: list[Request] = []
        self._script: defaultdict[str, deque[Fault | None]] = defaultdict(deque)
        self._lock = threading.RLock()

    # --- requests ------------------------------------------------------------------------------

    def handle(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Return the answer to a request at once. Every request gets an answer.

        Args:
            method: the HTTP method.
            target: path and query.
            headers: the headers, names in any case.
            body: any bytes.

        Returns:
            The answer. `Fault.slow` has no effect here.
        """
        request, fault = self._record(method, target, headers or {}, body)
        return self._answer(request, fault)

    async def respond(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """Return the answer to a request, after the delay of a `Fault.slow`."""
        request, fault = self._record(method, target, headers, body)
        if fault is not None and fault.wait_before:
            await self.clock.sleep(fault.wait_before)
        sent = self._answer(request, fault)
        if fault is not None and fault.wait_after:
            await self.clock.sleep(fault.wait_after)
        return sent

    def http_client(self) -> httpx.AsyncClient:
        """Return an httpx client that sends every request to this simulator, without a socket.

        The host of a request does not matter. The time-outs of httpx do not apply: a request that
        hangs waits until it is cancelled.
        """
        return httpx.AsyncClient(
            transport=InProcessTransport(self.respond), base_url="http://simulator"
        )

    def serve(self, host: str = "127.0.0.1", port: int = 0) -> AbstractAsyncContextManager[str]:
        """Return an async context manager that serves on a real socket and gives the base URL.

        Args:
            host: the address to listen on; by default only this machine can connect.
            port: the port; 0: any free port.

        Raises:
            ImportError: if uvicorn is not installed; the message says how to install it.
            OSError: on entering, if the address cannot be used.
        """
        from .server import serve  # noqa: PLC0415 - only a served simulator needs uvicorn

        return serve(self.respond, host, port)

    def run(
        self, host: str = "127.0.0.1", port: int = 0, *, on_ready: Callable[[str], None]
    ) -> None:
        """Serve on a real socket until an exception such as `KeyboardInterrupt` is raised.

        Args:
            host: the address to listen on; by default only this machine can connect.
            port: the port; 0: any free port.
            on_ready: called with the base URL.

        Raises:
            ImportError: if uvicorn is not installed; the message says how to install it.
            OSError: if the address cannot be used.
        """
        from .server import run  # noqa: PLC0415 - only a served simulator needs uvicorn

        run(self.respond, host, port, on_ready=on_ready)

    def environment(self, base_url: str) -> dict[str, str]:
        """Return the environment variables for a client in another process.

        Args:
            base_url: the base URL that `serve` or `run` gave.

        Returns:
            `SMS4SATS_BASE_URL` and `SMS4SATS_SPEED`. With a `ScaledClock`, the client's clock then
            agrees with it. With any other clock, the client uses real time.
        """
        speed = self.clock.setting if isinstance(self.clock, ScaledClock) else "1"
        return {"SMS4SATS_BASE_URL": base_url, "SMS4SATS_SPEED": speed}

    @property
    def requests(self) -> list[Request]:
        """All requests so far, including those with a fault."""
        with self._lock:
            return list(self._requests)

    def count(self, path: str) -> int:
        """Return the number of requests for a path such as `/cancelorder`."""
        return sum(request.path == path for request in self.requests)

    # --- faults --------------------------------------------------------------------------------

    def script(self, path: str, *faults: Fault | None) -> None:
        """Add faults for the next requests for a path, in order.

        Args:
            path: such as `/cancelorder`; `*` is for requests whose path has no faults left.
            faults: one for each request; None: the request succeeds.
        """
        with self._lock:
            self._script[path].extend(faults)

    @property
    def unused_faults(self) -> dict[str, tuple[Fault, ...]]:
        """The scripted faults that were not used yet, by path."""
        with self._lock:
            left = {
                path: tuple(fault for fault in queue if fault is not None)
                for path, queue in self._script.items()
            }
        return {path: faults for path, faults in left.items() if faults}

    # --- orders and balances -------------------------------------------------------------------

    @property
    def orders(self) -> list[Order]:
        """All orders as they are now, the oldest first."""
        with self._lock:
            return self._store.orders(self._now())

    def order(self, order_id: str) -> Order:
        """Return one order as it is now.

        Raises:
            LookupError: if there is no such order. Every method that takes an ID raises it.
        """
        with self._lock:
            return self._store.find(order_id, self._now())

    def holder(self, order_id: str) -> Holder:
        """Return where the payment of an order is."""
        return self.order(order_id).holder

    def held_orders(self) -> list[Order]:
        """Return the orders whose payment is held: neither settled nor refunded."""
        return [order for order in self.orders if order.holder is Holder.HELD]

    def timeline(self, order_id: str) -> list[Moment]:
        """Return the history of an order: time, event, and where the payment was after it."""
        return list(self.order(order_id).history)

    def pay(self, order_id_or_payreq: str) -> Order:
        """Pay the invoice of an order, as a wallet does. The payment is then held.

        Raises:
            StateError: if the order is already paid or has ended.
        """
        return self._apply(self._store.order_id_of(order_id_or_payreq), Event.PAY)

    def assign_number(self, order_id: str, number: str | None = None) -> Order:
        """Assign a number to a paid order; by default a random one.

        Raises:
            StateError: if the order is not paid, has a number, or has ended.
        """
        return self._apply(order_id, Event.ASSIGN_NUMBER, number=number)

    def deliver_code(self, order_id: str, code: str | None = None) -> Order:
        """Deliver the code of a paid order; assign a number first if there is none.

        Args:
            order_id: the ID of the order.
            code: the code; by default the one in the behaviour of the order.

        Raises:
            StateError: if the order is not paid or has ended.
        """
        with self._lock:
            now = self._now()
            if self._store.find(order_id, now).stage is Stage.PAID:
                self._store.apply(order_id, Event.ASSIGN_NUMBER, now)
            return self._store.apply(order_id, Event.DELIVER_CODE, now, code=code)

    def set_sms_status(
        self, order_id: str, status: Literal["sent", "delivered", "failed"]
    ) -> Order:
        """Set the SMS status of a paid send order.

        Raises:
            StateError: if the order sends no SMS, or its state does not allow that status.
        """
        with self._lock:
            now = self._now()
            order = self._store.find(order_id, now)
            if order.kind is not Kind.SEND:
                raise StateError(f"not a send order: {order}")
            if status == "delivered" and order.stage is Stage.PAID:
                self._store.apply(order_id, Event.SEND_SMS, now)
            return self._store.apply(order_id, _SMS_EVENTS[status], now)

    def refund(self, order_id: str) -> Order:
        """End an order and refund its payment, as the service does when it has no number.

        Raises:
            StateError: if the order is settled or has ended.
        """
        return self._apply(order_id, Event.FAIL)

    def set_behaviour(self, order_id: str, behaviour: Behaviour) -> Order:
        """Change the behaviour for one order from now on."""
        with self._lock:
            return self._store.set_behaviour(order_id, behaviour, self._now())

    def credit(self, api_key: str, amount: int) -> None:
        """Add satoshis to the prepaid balance of a key."""
        with self._lock:
            self._store.credit(api_key, amount)

    def balance(self, api_key: str) -> int:
        """Return the prepaid satoshis of a key."""
        with self._lock:
            return self._store.balance(api_key, self._now())

    # -------------------------------------------------------------------------------------------

    def _now(self) -> float:
        true_time = getattr(self.clock, "true_time", self.clock.now)
        return float(true_time())

    def _apply(
        self, order_id: str, event: Event, *, number: str | None = None, code: str | None = None
    ) -> Order:
        with self._lock:
            return self._store.apply(order_id, event, self._now(), number=number, code=code)

    def _record(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[Request, Fault | None]:
        with self._lock:
            request = Request.from_wire(self._now(), method, target, headers, body)
            self._requests.append(request)
            queue = self._script.get(request.path) or self._script.get(_ANY_PATH)
            return request, queue.popleft() if queue else None

    def _answer(self, request: Request, fault: Fault | None) -> Answer:
        with self._lock:
            now = self._now()  # later than request.time after a Fault.slow
            if fault is None:
                sent = answer(self._store, request, self.behaviour, now)
            elif fault.reaches_service:
                sent = fault.change(answer(self._store, request, self.behaviour, now))
            else:
                sent = fault.change(None)
        if _log.isEnabledFor(logging.INFO):
            _log.info("%s", _log_line(now, request, sent, fault))
        return sent


def _log_line(now: float, request: Request, sent: Answer, fault: Fault | None) -> str:
    """Return the log line of one request, with order ID and key masked."""
    outcome = sent.status if sent.ending is Ending.COMPLETE else sent.ending.value
    parts = [time.strftime("%H:%M:%S", time.gmtime(now)), str(request), "->", str(outcome)]
    match sent.json:
        case {"orderId": str(order_id)}:
            parts.append(f"orderId={mask(order_id)}")
        case _:
            pass
    if fault is not None:
        parts.append(f"(fault: {fault.kind})")
    return " ".join(parts)
