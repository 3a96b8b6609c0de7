"""An order for the length of an `async with`: left without a code, its money is asked back."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final, Protocol, Self

import anyio

from sms4sats_async._http.retrying import Exchange
from sms4sats_async._logging import LOGGER
from sms4sats_async._redact import mask
from sms4sats_async._validate import positive_seconds
from sms4sats_async.errors import ClientStateError, JournalError, OrderError, Sms4SatsError
from sms4sats_async.models import Cancellation, Order, OrderStatus
from sms4sats_async.retry import RetryPolicy

from .old_orders import CancelSteps, PatientCancel
from .old_watching import Poller, moment, wait_for_code
from .states import AUTOMATIC_CANCEL_AGE, made_at, verdict

_LAST_ATTEMPT: Final = 5.0
"""Seconds that a task which is being cancelled takes at most to cancel its order."""


class Scheduler(Protocol):
    """What takes over an order that cannot be cancelled yet; a `CancelScheduler` does."""

    def schedule(self, order: Order, /, not_before: datetime | None = None) -> object:
        """Cancel an order when its time has come."""
        ...


class OpenOrder:
    """An order that is cancelled on the way out, unless its code came.

    Attributes:
        cancellation: How it ended on the way out: with a code after all
            (`cancellation.status.code`), or with the money back. None before, or if the code had
            come inside, or if the order was left to others.
    """

    def __init__(
        self,
        exchange: Exchange,
        make: Callable[[], Awaitable[tuple[Order, bool]]],
        *,
        minimum_age: float,
        poll_interval: float,
        scheduler: Scheduler | None,
    ) -> None:
        self.cancellation: Cancellation | None = None
        self._exchange = exchange
        self._make = make
        self._minimum_age = minimum_age
        self._poll_interval = poll_interval
        self._scheduler = scheduler
        self._order: Order | None = None
        self._has_ended = False
        self._is_opening = False

    @property
    def order(self) -> Order:
        """The order."""
        if self._order is None:
            problem = "the order is not open yet; use it inside `async with`"
            raise ClientStateError(problem)
        return self._order

    @property
    def order_id(self) -> str:
        """The order's id."""
        return self.order.order_id

    @property
    def payreq(self) -> str:
        """The hold invoice to pay; empty where an order is resumed whose invoice nobody kept."""
        return self.order.payreq

    @property
    def created_at(self) -> datetime:
        """When it was made."""
        return self.order.created_at

    async def wait_for_code(self, *, timeout: float | timedelta) -> OrderStatus:
        """Wait until the code is there; see `Sms4SatsClient.wait_for_code`.

        Args:
            timeout: Seconds (or a timedelta) to wait at most.

        Returns:
            The status with the code in `code`.

        Raises:
            CodeTimeoutError: No code in time. Leaving the `async with` by it cancels the order.
            OrderRefundedError: The service gave the order back; no code will come.
            OrderError: The order is not one for a code.
            APIError: A refusal that a repeat cannot cure.
        """
        limit = positive_seconds("timeout", timeout)
        try:
            status = await wait_for_code(self._poller(), timeout=limit)
        except OrderError as error:
            # Of a message that failed no code comes, and yet the money can be asked back. An end
            # that is known stays one, whatever a later status shows, or does not.
            if error.status is not None and verdict(error.status.state) is not None:
                self._has_ended = True
            raise
        self._has_ended = True
        return status

    async def __aenter__(self) -> Self:
        if self._order is not None:
            problem = "the order was opened before; resume() takes it up again"
            raise ClientStateError(problem, order_id=self._order.order_id)
        if self._is_opening:
            problem = "the order is being opened by another task; each needs one of its own"
            raise ClientStateError(problem)
        self._is_opening = True
        try:
            self._order, self._has_ended = await self._make()
        finally:
            self._is_opening = False
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._has_ended:
            return
        if error is not None and not isinstance(error, Exception):
            await self._leave()
            return
        try:
            self.cancellation = await PatientCancel(
                self._exchange,
                self.order_id,
                created_at=self.created_at.timestamp(),
                minimum_age=self._minimum_age,
                watch=True,
                poll_interval=self._poll_interval,
            ).run()
        except Sms4SatsError as failure:
            if error is None:
                raise
            # Whoever handles his own exception is to learn of this one too.
            error.add_note(str(failure))
            LOGGER.error("%s", failure)
        except BaseException:
            await self._leave()
            raise

    async def _leave(self) -> None:
        """Do what can be done in 5 seconds by a task that is being cancelled."""
        now = self._exchange.clock.now()
        due = made_at(self.created_at.timestamp(), now) + self._minimum_age
        try:
            if now >= due:
                with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _LAST_ATTEMPT):
                    await self._cancel_now()
        finally:  # a task of asyncio can be cancelled once more meanwhile, shield or no
            if self.cancellation is None:
                await self._hand_over(moment(due))

    async def _hand_over(self, when: datetime) -> None:
        """Leave the order to the scheduler, or to whoever reads the journal, and say so."""
        written: object = None
        if self._scheduler is not None:
            written = self._scheduler.schedule(self.order, not_before=when)
            kept = "is the scheduler's now, which cancels it while it runs"
        elif self._exchange.recorder.journal is not None:
            kept = "stands in the journal, for the next scheduler to cancel"
        else:
            kept = "is in no journal: cancel it yourself"
        LOGGER.warning(
            "order %s, left without a code, %s, from %s on; else the service gives the money back "
            "by itself at %s",
            mask(self.order_id),
            kept,
            when.replace(microsecond=0),
            self.created_at.replace(microsecond=0) + AUTOMATIC_CANCEL_AGE,
        )
        if isinstance(written, Awaitable):  # a scheduler that has ended writes nothing by itself
            try:
                with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _LAST_ATTEMPT):
                    await written
            except JournalError as error:
                self._exchange.recorder.complain(self.order_id, error)

    async def _cancel_now(self) -> None:
        """Send the cancel once, and look; told as `AttemptFailed` if that does not help."""
        once = RetryPolicy(attempts=1, total_timeout=_LAST_ATTEMPT)
        steps = CancelSteps(
            self._exchange,
            self.order_id,
            created_at=self.created_at.timestamp(),
            poll_interval=self._poll_interval,
        )
        with suppress(Sms4SatsError):
            done = await steps.next(once)
            self.cancellation = done if isinstance(done, Cancellation) else None

    def _poller(self) -> Poller:
        return Poller(self._exchange, self.order_id, self._poll_interval)
