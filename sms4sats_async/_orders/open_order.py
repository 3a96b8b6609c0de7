"""An order for the length of an `async with`: left without an end, it is cancelled."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol, Self

import anyio
import attrs

from sms4sats_async._logging import LOGGER
from sms4sats_async._redact import mask
from sms4sats_async._validate import positive_seconds, seconds
from sms4sats_async.errors import ClientStateError, JournalError, OrderError, Sms4SatsError
from sms4sats_async.journal.entry import record_intent
from sms4sats_async.models import OrderResult
from sms4sats_async.retry import RetryPolicy

from .decisions import AUTOMATIC_CANCEL_AGE, Intent
from .drivers import deliver, drive, first_or_next, record, wait_for_code
from .steps import moment_of, release

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime
    from types import TracebackType

    from sms4sats_async.journal.entry import JournalChange
    from sms4sats_async.models import CodeStatus, Order

    from .steps import DrivenOrder, OrderContext

_LAST_ATTEMPT: Final = 5.0
"""Seconds that a task which is being cancelled takes at most to cancel its order."""


class Scheduler(Protocol):
    """What takes over an order that cannot be cancelled yet; an `OrderScheduler` does."""

    def add(
        self,
        order: Order,
        *,
        timeout: float | timedelta | None = None,
        not_before: datetime | None = None,
    ) -> Awaitable[None]:
        """Drive an order to its code or its refund; await it to know that it is recorded."""
        ...


class OpenOrder:
    """An order that is cancelled when its `async with` block is left, unless it has ended.

    Attributes:
        result: How the order ended: set as soon as that is known, also after the block. None if
            the block was left by a cancellation and the order was handed over.
    """

    def __init__(
        self,
        context: OrderContext,
        make: Callable[[Intent], Awaitable[tuple[DrivenOrder, Order]]],
        *,
        minimum_age: float,
        poll_interval: float,
        scheduler: Scheduler | None,
    ) -> None:
        self.result: OrderResult | None = None
        self._context = context
        self._make = make
        self._intent = Intent(poll_interval=poll_interval, minimum_age=minimum_age)
        self._scheduler = scheduler
        self._order: Order | None = None
        self._held: DrivenOrder | None = None
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
    def invoice(self) -> str:
        """The hold invoice to pay; empty for a resumed order whose invoice is not recorded."""
        return self.order.invoice

    @property
    def created_at(self) -> datetime:
        """When the order was created."""
        return self.order.created_at

    @property
    def metadata(self) -> Mapping[str, str]:
        """Your own notes on the order."""
        return self.order.metadata

    async def wait_for_code(self, *, timeout: float | timedelta) -> CodeStatus:
        """Wait until the code arrives; see `Sms4SatsClient.wait_for_code`.

        The deadline is recorded in the journal, so a process that resumes the order waits as long.

        Args:
            timeout: Seconds (or a timedelta) to wait at most.

        Returns:
            The status with the code in `code`.

        Raises:
            CodeTimeoutError: No code arrived in time. Leaving the `async with` cancels the order.
            OrderRefundedError: The service refunded the order.
            OrderError: The order is not one for a code.
            JournalError: The deadline cannot be recorded; nothing was sent.
        """
        limit = positive_seconds("timeout", timeout)
        waited = await self._driven("wait_for_code", limit, cancels=False)
        end, result = await wait_for_code(self._context, waited, timeout=limit, keep_claim=True)
        self._take_over(waited)
        if result.outcome is not None:
            self._end(result)
        if isinstance(end, OrderError):
            raise end
        return end

    async def code_or_refund(self, *, timeout: float | timedelta) -> OrderResult:
        """Wait for the code, then cancel; see `Sms4SatsClient.code_or_refund`.

        Args:
            timeout: Seconds (or a timedelta) to wait for the code; 0 cancels as soon as allowed.

        Returns:
            How the order ended; also in `result`.

        Raises:
            JournalError: The deadline cannot be recorded; nothing was sent.
            Sms4SatsError: The last refusal, where the end is unknown or the cancel was refused.
        """
        if self.result is not None:
            return self.result
        held = await self._driven("code_or_refund", seconds("timeout", timeout), cancels=True)
        return await self._drive(held)

    async def __aenter__(self) -> Self:
        if self._order is not None:
            problem = "the order was opened before; use resume_order()"
            raise ClientStateError(problem, order_id=self._order.order_id)
        if self._is_opening:
            problem = "another task is opening the order; each task needs its own"
            raise ClientStateError(problem)
        self._is_opening = True
        try:
            self._held, self._order = await self._make(self._intent)
        finally:
            self._is_opening = False
        if self._held.entry is not None and self._held.entry.result is not None:
            self.result = await deliver(self._context, self._held.entry.result)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.result is not None:
            return
        if error is not None and not isinstance(error, Exception):
            await self._leave()
            return
        try:
            # Where the journal fails, the money matters more than the record.
            await self._drive(await self._driven("code_or_refund", 0.0, cancels=True, must=False))
        except Sms4SatsError as failure:
            if error is None:
                raise
            # The caller who handles the block's exception must learn of this one too.
            error.add_note(str(failure))
            LOGGER.error("%s", failure)
        except BaseException:
            await self._leave()
            raise
        else:
            if error is not None and self.code is not None:
                error.add_note("The code arrived meanwhile: it is in the open order's result.")
                LOGGER.warning(
                    "order %s: the code arrived while the block was left by an exception; it is in "
                    "the open order's result",
                    mask(self.order_id),
                )

    @property
    def code(self) -> str | None:
        """The code, or None as long as there is none."""
        return None if self.result is None else self.result.code

    def _repr_html_(self) -> str | None:
        from sms4sats_async._notebook import order_card  # noqa: PLC0415 - for notebooks only

        return None if self._order is None else order_card(self._order, self.result)

    # --- driving ----------------------------------------------------------------------------------

    async def _driven(
        self, operation: str, timeout: float, *, cancels: bool, must: bool = True
    ) -> DrivenOrder:
        """Return the order with a new deadline, which is recorded."""
        context, before = self._context, self._driven_before
        held = attrs.evolve(
            before,
            intent=attrs.evolve(before.intent, cancels=cancels),
            deadline=before.age(context) + timeout,
        )
        try:
            await record(context, held, self._intent_until(timeout), operation=operation)
        except JournalError as error:
            if must:
                raise
            context.recorder.complain(self.order_id, error)
        return held

    def _intent_until(self, timeout: float) -> JournalChange:
        recorder = self._context.recorder
        now = recorder.now()
        return record_intent(
            self.order,
            now,
            recorder.base_url,
            code_deadline=now + timedelta(seconds=timeout),
            minimum_age=timedelta(seconds=self._intent.minimum_age),
        )

    @property
    def _driven_before(self) -> DrivenOrder:
        if self._held is None:
            problem = "the order is not open yet; use it inside `async with`"
            raise ClientStateError(problem)
        return self._held

    def _take_over(self, held: DrivenOrder) -> None:
        """Keep what a driver learned for the next one."""
        self._held = attrs.evolve(held, intent=self._intent)

    async def _drive(self, held: DrivenOrder) -> OrderResult:
        try:
            result = await drive(self._context, held, keep_claim=True)
        finally:
            self._take_over(held)
        self._end(result)
        return await deliver(self._context, result)

    def _end(self, result: OrderResult) -> None:
        self.result = result

    # --- in a task that is being cancelled --------------------------------------------------------

    async def _leave(self) -> None:
        """Do what can be done in 5 seconds by a task that is being cancelled."""
        held, context = self._driven_before, self._context
        held = attrs.evolve(held, deadline=0.0, intent=attrs.evolve(self._intent, watch=False))
        self._held = held
        due = moment_of(context, held, self._intent.minimum_age)
        try:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _LAST_ATTEMPT):
                await self._try_to_cancel(held)
        finally:  # a task of asyncio can be cancelled once more meanwhile, despite the shield
            if self.result is None:
                await self._hand_over(due)

    async def _try_to_cancel(self, held: DrivenOrder) -> None:
        """Take one step, which cancels if that is allowed now."""
        held.retry = RetryPolicy(attempts=1, total_timeout=_LAST_ATTEMPT)
        try:
            step = await first_or_next(self._context, held)
        except Sms4SatsError as error:
            LOGGER.error("%s", error)
            return
        if isinstance(step, OrderResult) and step.outcome is not None:
            self._end(step)
            await deliver(self._context, step)

    async def _hand_over(self, due: datetime) -> None:
        """Leave the order to the scheduler, or to a process that reads the journal."""
        context, added = self._context, None
        if self._scheduler is not None:
            # The scheduler drives it from this call on, before anything is awaited.
            added = self._scheduler.add(self.order, timeout=0)
            kept = "the scheduler drives it now"
        elif context.recorder.journal is not None:
            kept = "it is in the journal, for the next scheduler"
        else:
            kept = "it is in no journal, so cancel it yourself"
        LOGGER.warning(
            "order %s was left without an end; %s. It can be cancelled from %s on; the service "
            "refunds it automatically at %s",
            mask(self.order_id),
            kept,
            due.replace(microsecond=0),
            self.created_at.replace(microsecond=0) + AUTOMATIC_CANCEL_AGE,
        )
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _LAST_ATTEMPT):
            await release(context, self._driven_before)
            try:
                if added is not None:
                    await added
                elif context.recorder.journal is not None:
                    await context.recorder.write([(self.order_id, self._intent_until(0.0))])
            except JournalError as error:
                context.recorder.complain(self.order_id, error)
