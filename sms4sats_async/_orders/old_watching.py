"""Reading the status of an order over time: one poll, a wait for the code, a watch of changes."""

from datetime import UTC, datetime
from typing import Final, Self

import attrs

from sms4sats_async._http.endpoints import GET_ORDER_STATUS
from sms4sats_async._http.messages import Safety
from sms4sats_async._http.retrying import Exchange
from sms4sats_async._redact import quote
from sms4sats_async.errors import (
    ClientStateError,
    CodeTimeoutError,
    OrderError,
    OrderRefundedError,
    Sms4SatsError,
)
from sms4sats_async.events import StatusPolled, Waiting
from sms4sats_async.journal.entry import seen
from sms4sats_async.models import CancelOutcome, OrderState, OrderStatus
from sms4sats_async.retry import RetryPolicy, may_repeat

from .states import has_ended, verdict

SHORTEST_SLEEP: Final = 0.001
"""Seconds below which no sleep is asked for: a timer can do no less, and a wait would spin."""

_LAST_LOOK: Final = 1.0
"""Seconds before the end of a wait at which the status is read for the last time."""

_JITTER: Final = 0.15
"""How far a poll interval is stretched or cut, so that many clients do not ask in step, nor one
client in step with a server's keep-alive limit."""


async def get_status(
    exchange: Exchange, order_id: str, *, retry: RetryPolicy | None = None
) -> OrderStatus:
    """Ask for the status of an order, and write down what it says."""
    request = GET_ORDER_STATUS.request(query={"orderId": order_id})
    status, _ = await exchange.call(GET_ORDER_STATUS, request, order_id=order_id, retry=retry)
    await exchange.recorder.note(order_id, seen(status, exchange.recorder.now()))
    return status


def moment(seconds: float) -> datetime:
    """Return Unix seconds as a datetime, or the last one that there is."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.max.replace(tzinfo=UTC)


class Poller:
    """Asks for the status of one order again and again."""

    def __init__(self, exchange: Exchange, order_id: str, interval: float) -> None:
        self.exchange = exchange
        self.order_id = order_id
        self._interval = interval

    async def poll(self, retry: RetryPolicy, *, patient: bool = False) -> OrderStatus | None:
        """Return the status, or None if the poll was lost.

        Args:
            retry: The policy for this poll.
            patient: Take a refusal that would be the same the next time for a lost poll too.
        """
        try:
            status = await get_status(self.exchange, self.order_id, retry=retry)
        except ClientStateError:
            raise
        except Sms4SatsError as error:
            if not (patient or may_repeat(Safety.REPEATABLE, error)):
                raise
            return None  # told as AttemptFailed; a lost poll does not end a wait
        self.exchange.tell(StatusPolled(self.order_id, status))
        return status

    def pause(self) -> float:
        """Return the seconds until the next poll."""
        return self._interval * (1 + _JITTER * (2 * self.exchange.random() - 1))


async def wait_for_code(poller: Poller, *, timeout: float) -> OrderStatus:
    """Poll until the code is there; see `Sms4SatsClient.wait_for_code`."""
    exchange = poller.exchange
    clock = exchange.clock
    deadline = clock.monotonic() + timeout
    until = moment(clock.now() + timeout)
    exchange.tell(Waiting(poller.order_id, until, "the code has not arrived yet"))
    last: OrderStatus | None = None
    polls = 0
    while (left := deadline - clock.monotonic()) > 0:
        polls += 1
        status = await poller.poll(RetryPolicy(attempts=1, total_timeout=left))
        if status is not None:
            if status.state is OrderState.CODE_RECEIVED:
                return status
            last = status
            _refuse_an_end(status, polls)
        left = deadline - clock.monotonic()
        pause = poller.pause()
        if pause >= left:
            # One more look just before the time is up; a code would be lost in the rest of it.
            pause = left - _LAST_LOOK if left > _LAST_LOOK else left
        await clock.sleep(max(pause, SHORTEST_SLEEP))
    raise CodeTimeoutError(
        f"no code within {timeout:g} s",
        status=last,
        operation="wait_for_code",
        order_id=poller.order_id,
        attempts=polls,
    )


def _refuse_an_end(status: OrderStatus, polls: int) -> None:
    """Raise if an order without a code has ended, or never was one for a code."""
    outcome = verdict(status.state)
    kind: type[OrderError]
    if outcome is CancelOutcome.ALREADY_RELEASED:
        kind, problem = OrderRefundedError, f"the service says: {quote(status.error or '')}"
    elif outcome is not None or has_ended(status.state):
        kind, problem = OrderError, f"no code can come: {status.state.value}"
    else:
        return
    raise kind(
        problem,
        status=status,
        operation="wait_for_code",
        order_id=status.order_id,
        attempts=polls,
    )


class OrderWatch:
    """An async iterator over the changes of one order; see `Sms4SatsClient.watch_order`.

    It holds nothing open between two statuses, so it can be left at any time.
    """

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._last: OrderStatus | None = None
        self._polled = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OrderStatus:
        if self._last is not None and has_ended(self._last.state):
            raise StopAsyncIteration
        exchange = self._poller.exchange
        while True:
            if self._polled:
                await exchange.clock.sleep(self._poller.pause())
            self._polled = True
            status = await self._poller.poll(exchange.retry)
            if status is not None and (self._last is None or _changed(self._last, status)):
                self._last = status
                return status


def _changed(before: OrderStatus, after: OrderStatus) -> bool:
    """Tell whether more than the service's time stamp is different."""
    return attrs.evolve(before, timestamp=None) != attrs.evolve(after, timestamp=None)
