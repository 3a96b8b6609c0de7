"""An order for the length of an `async with`: left without an end, it is cancelled."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Final, Protocol, Self

import anyio
import attrs

from sms4sats_async._cancellation import is_of_others
from sms4sats_async._clock import time_span
from sms4sats_async._logging import LOGGER
from sms4sats_async._process import has_died
from sms4sats_async._redact import mask
from sms4sats_async._validate import positive_seconds, seconds
from sms4sats_async.errors import ClientStateError, JournalError, Sms4SatsError
from sms4sats_async.journal.entry import (
    JournalChange,
    both,
    claim,
    record_intent,
    release_claim,
)
from sms4sats_async.models import CodeStatus, Order
from sms4sats_async.results import OrderResult
from sms4sats_async.retry import RetryPolicy

from .decisions import AUTOMATIC_AGE, Intent
from .drivers import RENEWAL, code_status, deliver, drive, first_or_next, record
from .steps import DrivenOrder, OrderContext, moment_of, release, renew

_TICK: Final = 2.0
"""Seconds of real time between two checks whether a claim must be renewed: short, because the time
of a simulator may run faster."""

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
        self._renewal: anyio.CancelScope | None = None
        self._renews = False

    @property
    def order(self) -> Order:
        """The order."""
        if self._order is None:
            problem = "the order is not open yet; use it inside `async with`"
            raise ClientStateError(problem)
        return self._order

    @property
    def order_id(self) -> str:
        """The order's ID."""
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
        result = self.result
        if result is None:
            waited = await self._driven("wait_for_code", limit, cancels=False)
            result = await self._drive(waited)
        return code_status(result, timeout=limit)

    async def code_or_refund(self, *, timeout: float | timedelta) -> OrderResult:
        """Wait for the code, then cancel; see `Sms4SatsClient.code_or_refund`.

        Args:
            timeout: Seconds (or a timedelta) to wait for the code; 0 cancels as soon as allowed.

        Returns:
            How the order ended; also in `result`.

        Raises:
            JournalError: The deadline cannot be recorded; nothing was sent.
            Sms4SatsError: The last failure, if the end is unknown or the cancel was refused.
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
        self._intent = self._held.intent  # the journal may have a longer minimum age
        if self._held.entry is not None and self._held.entry.result is not None:
            self.result = await deliver(self._context, self._held.entry.result)
        elif self._context.recorder.journal is not None:
            self._renewal, self._renews = anyio.CancelScope(), True
            self._context.spawn(partial(self._keep_claim, self._renewal))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end_renewals()
        if self.result is not None:
            return
        if error is not None and not isinstance(error, Exception) and not is_of_others(error):
            await self._leave()
            return
        try:
            # Where the journal fails, the money matters more than the record.
            await self._drive(await self._driven("code_or_refund", 0.0, cancels=True, must=False))
        except Sms4SatsError as failure:
            await release(self._context, self._driven_before)
            if error is None:
                raise
            # The caller who handles the block's exception must learn of this one too.
            error.add_note(str(failure))
            LOGGER.error("%s", failure)
        except BaseException:
            if self.result is None:
                await self._leave()
            raise
        if error is not None and self.code is not None:
            error.add_note("The code arrived meanwhile: it is in the open order's `result`.")
            self._warn_of_code("an exception")

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
            held.unrecorded = self._intent_until(timeout)
        # The clock may have been set back since the order was opened.
        held.birth = before.birth
        return held

    def _intent_until(self, timeout: float) -> JournalChange:
        recorder = self._context.recorder
        now = recorder.now()
        return record_intent(
            self.order,
            now,
            recorder.base_url,
            code_deadline=now + time_span(timeout),
            minimum_age=time_span(self._intent.minimum_age),
        )

    @property
    def _driven_before(self) -> DrivenOrder:
        if self._held is None:
            problem = "the order is not open yet; use it inside `async with`"
            raise ClientStateError(problem)
        return self._held

    async def _drive(self, held: DrivenOrder) -> OrderResult:
        try:
            result = await drive(self._context, held, keep_claim=True)
        finally:
            # What a driver learned is for the next one.
            self._held = attrs.evolve(held, intent=self._intent)
        if result.outcome is None:
            return result
        self.result = result
        self._end_renewals()
        return await deliver(self._context, result)

    async def _keep_claim(self, scope: anyio.CancelScope) -> None:
        """Renew the claim until the scope is cancelled, also while the block calls nothing.

        This is a task of the event loop, because `__aenter__` cannot hold a task group open. The
        block may be left in another task, and its exceptions would be wrapped in a group. It sleeps
        in real time, because a clock for tests may jump at each sleep.
        """
        elapsed = self._context.elapsed
        due = elapsed.now() + RENEWAL
        with scope:
            while True:
                await anyio.sleep(_TICK)
                if elapsed.now() >= due:
                    due = elapsed.now() + RENEWAL
                    # Asked in the thread of a journal, where Trio's scopes answer nothing.
                    await renew(self._context, self._driven_before, is_needed=lambda: self._renews)

    def _end_renewals(self) -> None:
        self._renews = False
        if self._renewal is not None:
            self._renewal.cancel()

    # --- in a task that is being cancelled --------------------------------------------------------

    async def _leave(self) -> None:
        """Do what can be done in 5 seconds by a task that is being cancelled."""
        context, before = self._context, self._driven_before
        intent = attrs.evolve(self._intent, watch=False)
        held = attrs.evolve(before, deadline=before.age(context), intent=intent)
        held.retry = RetryPolicy(attempts=1, total_timeout=_LAST_ATTEMPT)
        if context.recorder.journal is not None:
            # A renewal of the claim must not bring back the recorded deadline.
            held.unrecorded = self._intent_until(0.0)
        self._held = held
        try:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _LAST_ATTEMPT):
                await self._try_to_cancel(held)
        finally:  # a task of asyncio can be cancelled once more meanwhile, despite the shield
            await self._hand_over(held)

    async def _try_to_cancel(self, held: DrivenOrder) -> None:
        """Take one step, which cancels if that is allowed now."""
        try:
            step = await first_or_next(self._context, held)
        except Sms4SatsError as error:
            LOGGER.error("%s", error)
            return
        if isinstance(step, OrderResult) and step.outcome is not None:
            # The task may never show it, so it does not count as delivered.
            self.result = step
            if step.code is not None:
                self._warn_of_code("a cancellation")

    async def _hand_over(self, held: DrivenOrder) -> None:
        """Leave the order to the scheduler, or to a process that reads the journal."""
        context, added = self._context, None
        has_journal = context.recorder.journal is not None
        if self.result is None:
            if self._scheduler is not None:
                # The scheduler drives it from this call on, before anything is awaited. Without a
                # journal it does not know the minimum age.
                young = max(0.0, self._intent.minimum_age - held.age(context))
                added = self._scheduler.add(self.order, timeout=young)
                kept = "the scheduler drives it now"
            elif has_journal:
                kept = "it is in the journal, for the next scheduler"
            else:
                kept = "it is in no journal, so cancel it yourself"
            LOGGER.warning(
                "order %s was left without an end; %s. It can be cancelled from %s on; the service "
                "refunds it automatically at %s",
                mask(self.order_id),
                kept,
                moment_of(context, held, self._intent.minimum_age).replace(microsecond=0),
                moment_of(context, held, AUTOMATIC_AGE).replace(microsecond=0),
            )
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _LAST_ATTEMPT):
            if has_journal:
                change = release_claim(held.owner)
                if self.result is None:
                    intent, now = self._intent_until(0.0), context.recorder.now()
                    take = claim(held.owner, now, has_died=has_died, intent=intent)
                    change = both(take, change)
                await context.recorder.note(self.order_id, change)
            if added is not None:
                try:
                    await added
                except JournalError as error:
                    context.recorder.complain(self.order_id, error)

    def _warn_of_code(self, cause: str) -> None:
        LOGGER.warning(
            "order %s: the code arrived while %s ended the block; it is in the open order's result",
            mask(self.order_id),
            cause,
        )
