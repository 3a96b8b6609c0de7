"""Getting the code or the money back: drives the law of `_lifecycle` and does no I/O itself."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio
import attrs

from sms4sats_async._clock import CLOCKS_DIFFER
from sms4sats_async._http.endpoints import CANCEL_ORDER
from sms4sats_async.errors import (
    APIError,
    ClientStateError,
    CodeAlreadyReceivedError,
    CodeTimeoutError,
    CodeTimeoutRefundedError,
    InvalidArgumentError,
    OrderError,
    OrderRefundedError,
    Sms4SatsError,
)
from sms4sats_async.events import OrderCancelled, Waiting
from sms4sats_async.invoice import Invoice
from sms4sats_async.journal.entry import told
from sms4sats_async.models import Cancellation, CancelOutcome, RequestOutcome
from sms4sats_async.retry import RetryPolicy

from .old_watching import SHORTEST_SLEEP, Poller, get_status, moment, wait_for_code
from .states import (
    AUTOMATIC_CANCEL_AGE,
    GRACE_AFTER_AUTOMATIC_CANCEL,
    MINIMUM_CANCEL_AGE,
    Step,
    after_failed_cancel,
    made_at,
    refusal_wait,
    verdict,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from sms4sats_async._http.retrying import Exchange
    from sms4sats_async.models import OrderStatus, ReceiveOrder

_AUTOMATIC: Final = AUTOMATIC_CANCEL_AGE.total_seconds()

_SHORTEST_LOOK: Final = 1.0
"""Seconds that a look at the status may take at least, even where the cancel is due sooner."""

_ABOUT_THE_ORDER: Final = (400, 404)
"""What the service itself refuses for good with; another 3xx or 4xx is a gateway's word."""


class Look:
    """Looks at the status after a failed cancel: the evidence of what became of the order.

    Attributes:
        status: What the last look saw, or None if it saw nothing.
    """

    def __init__(self, exchange: Exchange, order_id: str) -> None:
        self.status: OrderStatus | None = None
        self._exchange = exchange
        self._order_id = order_id

    async def __call__(self, failure: Sms4SatsError, left: float) -> Cancellation | None:
        """Return the cancellation that the status proves, or None if it proves nothing.

        Raises:
            CodeAlreadyReceivedError: The code is there, so nothing can be cancelled any more.
        """
        self.status = None
        if left <= 0 or isinstance(failure, ClientStateError):
            return None
        once = RetryPolicy(attempts=1, total_timeout=None if math.isinf(left) else left)
        try:
            self.status = await get_status(self._exchange, self._order_id, retry=once)
        except Sms4SatsError:
            return None  # told as AttemptFailed; a look that saw nothing proves nothing
        outcome = verdict(self.status.state)
        if outcome is CancelOutcome.CODE_ARRIVED:
            problem = "the code arrived before the cancel"
            raise CodeAlreadyReceivedError(
                problem,
                status=self.status,
                operation=failure.operation,
                order_id=self._order_id,
                attempts=failure.attempts,
                request_outcome=RequestOutcome.REFUSED,
            ) from failure
        return None if outcome is None else Cancellation(self._order_id, outcome, self.status)


async def cancel(
    exchange: Exchange, order_id: str, *, retry: RetryPolicy | None, look: Look | None
) -> Cancellation:
    """Send the cancel, with its retries, and with a look between them where one is given."""
    request = CANCEL_ORDER.request(query={"orderId": order_id})
    recorder = exchange.recorder
    try:
        found, attempts = await exchange.call(
            CANCEL_ORDER, request, order_id=order_id, retry=retry, after_failure=look
        )
    except CodeAlreadyReceivedError:
        raise  # the look has written it down
    except Sms4SatsError as error:
        await recorder.note(order_id, told(error.request_outcome, recorder.now(), final=False))
        raise
    cancellation = Cancellation(order_id, found.outcome, found.status, attempts, raw=found.raw)
    await recorder.note(order_id, told(found.outcome, recorder.now(), final=True))
    exchange.tell(OrderCancelled(order_id, cancellation))
    return cancellation


class CancelSteps:
    """One order whose money is asked back, step by step; whoever takes them does the waiting.

    Attributes:
        attempts: How many times the cancel was sent so far.
        refusal: How the cancel failed last, or None.
        final: Whether an error that `next` raised can be taken for the last word on the order.
    """

    def __init__(
        self,
        exchange: Exchange,
        order_id: str,
        *,
        created_at: float | None,
        poll_interval: float,
    ) -> None:
        self.attempts = 0
        self.final = False
        self.poller = Poller(exchange, order_id, poll_interval)
        self._exchange = exchange
        self._clock = exchange.clock
        self._order_id = order_id
        self._look = Look(exchange, order_id)
        self._refusals = 0
        self.refusal: Sms4SatsError | None = None
        now = self._clock.now()
        self._created_at = made_at(created_at, now)
        self._first_age = now - self._created_at
        self._started = self._clock.monotonic()

    @property
    def only_the_status_counts(self) -> bool:
        """Whether the service has refused, and by now cancels the order by itself."""
        return self.refusal is not None and self.age() >= _AUTOMATIC

    async def next(self, retry: RetryPolicy) -> Cancellation | float:
        """Take the next step.

        Send the cancel; or, where it was refused and the order is 21 minutes old since, read the
        status, which alone can tell from then on.

        Args:
            retry: The policy for it.

        Returns:
            How the order ended, or the age in seconds at which to take the next step.

        Raises:
            Sms4SatsError: A refusal that will not change; or, with `request_outcome` UNKNOWN, that
                nobody can tell what became of the money.
        """
        if self.only_the_status_counts:
            return await self._trust_the_status(retry)
        try:
            done = await cancel(
                self._exchange, self._order_id, retry=self._before_21(retry), look=self._look
            )
        except CodeAlreadyReceivedError as error:
            self.attempts += error.attempts
            return self._ended(CancelOutcome.CODE_ARRIVED, error.status)
        except Sms4SatsError as error:
            self.attempts += error.attempts
            return await self._after(error)
        self.attempts += done.attempts
        return attrs.evolve(done, attempts=self.attempts)

    async def _after(self, error: Sms4SatsError) -> float:
        """Return the age at which the law says to go on after a failed cancel."""
        step = after_failed_cancel(
            error, age=self.age(), order_is_open=self._look.status is not None
        )
        if step is Step.GIVE_UP:
            self.final = isinstance(error, APIError) and error.status_code in _ABOUT_THE_ORDER
            raise error
        self.refusal = error
        self._refusals += 1
        if step is Step.TRUST_THE_STATUS:
            return self.age()
        return min(self.age() + refusal_wait(self._refusals), _AUTOMATIC)

    async def _trust_the_status(self, retry: RetryPolicy) -> Cancellation | float:
        """Return what the status shows after the service's own cancel, or raise the refusal."""
        refusal = self.refusal
        assert refusal is not None  # noqa: S101 - for the type checkers
        status = await self.poller.poll(retry, patient=True)
        ended = self.end_in(status)
        if ended is not None:
            return ended
        if self.age() < _AUTOMATIC + GRACE_AFTER_AUTOMATIC_CANCEL:
            return self.age() + self.poller.pause()
        # Who could not read the status does not know more tomorrow than the one who reads it then.
        self.final = status is not None
        refusal.attempts = self.attempts
        refusal.request_outcome = RequestOutcome.UNKNOWN
        raise refusal

    def end_in(self, status: OrderStatus | None) -> Cancellation | None:
        """Return the end of the order that a status shows, or None if it shows none."""
        outcome = None if status is None else verdict(status.state)
        return None if outcome is None else self._ended(outcome, status)

    def _ended(self, outcome: CancelOutcome, status: OrderStatus | None) -> Cancellation:
        ended = Cancellation(self._order_id, outcome, status, self.attempts)
        self._exchange.tell(OrderCancelled(self._order_id, ended))
        return ended

    def _before_21(self, retry: RetryPolicy) -> RetryPolicy:
        """Return the policy so that it sends no cancel after the service's own."""
        left = _AUTOMATIC - self.age()
        if left <= 0 or (retry.total_timeout is not None and retry.total_timeout <= left):
            return retry
        return attrs.evolve(retry, total_timeout=left)

    def age(self) -> float:
        """Return the order's age in seconds, never more than is sure.

        The wall clock counts a suspended laptop's sleep and the monotonic clock does not; the
        monotonic clock goes on where the wall clock is set back. Each alone is a lower bound, the
        second with a margin.
        """
        by_wall = self._clock.now() - self._created_at
        steady = self._first_age + self._clock.monotonic() - self._started
        return max(by_wall, steady - CLOCKS_DIFFER)


class PatientCancel:
    """One order whose money is asked back as soon as the service allows it."""

    def __init__(
        self,
        exchange: Exchange,
        order_id: str,
        *,
        created_at: float | None,
        minimum_age: float,
        watch: bool,
        poll_interval: float,
    ) -> None:
        self._exchange = exchange
        self._clock = exchange.clock
        self._order_id = order_id
        self._minimum_age = minimum_age
        self._watch = watch
        self._steps = CancelSteps(
            exchange, order_id, created_at=created_at, poll_interval=poll_interval
        )

    async def run(self) -> Cancellation:
        """Wait, cancel, and wait out refusals, until the end of the order is known."""
        recorder = self._exchange.recorder
        age, why = self._minimum_age, "the service cancels no order younger than this"
        try:
            while True:
                ended = await self._wait(age, why)
                if ended is not None:
                    return ended
                done = await self._steps.next(self._exchange.retry)
                if isinstance(done, Cancellation):
                    return done
                age, why = done, "the service did not cancel it yet"
        except Sms4SatsError as error:
            outcome = told(error.request_outcome, recorder.now(), final=self._steps.final)
            await recorder.note(self._order_id, outcome)
            raise

    async def _wait(self, until_age: float, reason: str) -> Cancellation | None:
        """Return None when the order is `until_age` seconds old, or earlier how it ended."""
        steps = self._steps
        if steps.only_the_status_counts:  # the step itself reads it
            await self._clock.sleep(max(until_age - steps.age(), SHORTEST_SLEEP))
            return None
        if steps.age() < until_age:
            until = moment(self._clock.now() + until_age - steps.age())
            self._exchange.tell(Waiting(self._order_id, until, reason))
        while (left := until_age - steps.age()) > 0:
            if self._watch:
                bound = max(left, _SHORTEST_LOOK)
                look = RetryPolicy(attempts=1, total_timeout=bound)
                ended = steps.end_in(await steps.poller.poll(look, patient=True))
                if ended is not None:
                    return ended
                left = until_age - steps.age()
            # Slept in pieces: only the wall clock knows that a laptop was asleep meanwhile. Never
            # less than a timer can do, or the last fraction of a second would spin.
            await self._clock.sleep(max(min(left, steps.poller.pause()), SHORTEST_SLEEP))
        return None


def check_invoice(order: ReceiveOrder, *, max_price: int, network: str, now: float) -> None:
    """Raise if the order's invoice is not one to pay for at most `max_price` satoshis."""
    try:
        invoice = Invoice.parse(order.payreq)
    except InvalidArgumentError as error:
        raise _refused(order, f"it cannot be read: {error.problem}") from error
    if invoice.network != network:
        raise _refused(order, f"it is for the network {invoice.network}, not {network}")
    if invoice.amount_sat is None:
        raise _refused(order, "it has no amount, so it would pay whatever is asked")
    if invoice.amount_sat > max_price:
        raise _refused(order, f"it asks {invoice.amount_sat} sat, more than {max_price} sat")
    if invoice.expires_at.timestamp() <= now:
        raise _refused(order, f"it expired at {invoice.expires_at}")


def _refused(order: ReceiveOrder, why: str) -> OrderError:
    return OrderError(
        f"the order's invoice was refused and not paid: {why}. What nobody pays for ends by "
        "itself; asking again makes another order",
        operation="receive_code",
        order_id=order.order_id,
        attempts=1,
    )


class ReceiveCode:
    """The whole job of one order: the payment in the background, then the code or the money."""

    def __init__(
        self,
        exchange: Exchange,
        order: ReceiveOrder,
        *,
        pay: Callable[[str], Awaitable[object]],
        timeout: float,
        poll_interval: float,
    ) -> None:
        self._exchange = exchange
        self._order = order
        self._pay = pay
        self._timeout = timeout
        self._poll_interval = poll_interval
        self._error: Exception | None = None

    async def run(self) -> str:
        """Return the code, or raise when the money is on its way back."""
        # Whatever ends it is carried out of the group as a value: raised inside, it would arrive
        # wrapped in an exception group.
        async with self._paying() as waiting:
            end = await self._wait(waiting)
        if not isinstance(end, Sms4SatsError):
            return end
        if self._error is not None and end.__cause__ is None:
            raise end from self._error
        raise end

    @asynccontextmanager
    async def _paying(self) -> AsyncGenerator[anyio.CancelScope]:
        """Pay in the background; a payment that fails cancels the scope."""
        async with anyio.create_task_group() as group:
            waiting = anyio.CancelScope()
            group.start_soon(self._run_payment, waiting)
            yield waiting
            # The order has ended, so the payment has too, or is of no more use.
            group.cancel_scope.cancel()

    async def _run_payment(self, waiting: anyio.CancelScope) -> None:
        """Pay, which blocks until the hold invoice is settled or cancelled.

        A payment that failed ends the wait for the code, not the order: to a wallet a time-out
        means "unknown", so the money may be held all the same.
        """
        try:
            await self._pay(self._order.payreq)
        except Exception as error:  # noqa: BLE001 - whatever a wallet raises; it is the cause later
            self._error = error
            waiting.cancel()

    async def _wait(self, waiting: anyio.CancelScope) -> str | Sms4SatsError:
        kind: type[OrderRefundedError] = OrderRefundedError
        poller = Poller(self._exchange, self._order.order_id, self._poll_interval)
        try:
            with waiting:
                return _code(await wait_for_code(poller, timeout=self._timeout))
            why = f"the payment failed ({type(self._error).__name__})"
        except OrderRefundedError as error:
            return error
        except CodeTimeoutError:
            kind, why = CodeTimeoutRefundedError, f"no code within {self._timeout:g} s"
        except Sms4SatsError as error:
            self._error = error
            why = "its status was refused"
        return await self._get_the_money_back(kind, why)

    async def _get_the_money_back(
        self, kind: type[OrderRefundedError], why: str
    ) -> str | Sms4SatsError:
        try:
            done = await PatientCancel(
                self._exchange,
                self._order.order_id,
                created_at=self._order.created_at.timestamp(),
                minimum_age=MINIMUM_CANCEL_AGE.total_seconds(),
                watch=True,
                poll_interval=self._poll_interval,
            ).run()
        except Sms4SatsError as error:
            return error
        if done.status is not None and not done.outcome.funds_returned:
            return _code(done.status)
        return kind(
            f"{why}; the order was ended ({done.outcome.value})",
            status=done.status,
            operation="receive_code",
            order_id=self._order.order_id,
            attempts=done.attempts,
        )


def _code(status: OrderStatus) -> str:
    return status.code or ""
