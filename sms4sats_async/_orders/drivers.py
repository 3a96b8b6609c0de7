"""Drivers of one order: they wait between the steps, and contain no rule about money."""

from __future__ import annotations

import functools
import inspect
import math
from typing import TYPE_CHECKING, Any, Final, Self, TypeGuard, cast

import anyio
import attrs

from sms4sats_async._cancellation import is_of_others
from sms4sats_async._clock import LONGEST_SLEEP, SHORTEST_SLEEP, time_span
from sms4sats_async._logging import LOGGER
from sms4sats_async._redact import hide_in_causes, mask, quote
from sms4sats_async.errors import (
    CodeTimeoutError,
    InvalidArgumentError,
    JournalError,
    OrderError,
    OrderRefundedError,
    Sms4SatsError,
)
from sms4sats_async.events import Waiting
from sms4sats_async.invoice import Invoice
from sms4sats_async.journal.entry import acknowledge, release_claim
from sms4sats_async.models import (
    CodeStatus,
    Money,
    Order,
    OrderOutcome,
    OrderState,
    OrderStatus,
)
from sms4sats_async.results import OrderResult

from .decisions import Intent, Reason, WaitUntil, after_payment
from .states import is_last
from .steps import (
    DrivenOrder,
    OrderContext,
    Step,
    advance,
    check_root,
    claim_if_ours,
    ended_elsewhere,
    moment_of,
    poll,
    release,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

    from sms4sats_async.journal.entry import JournalChange, JournalEntry
    from sms4sats_async.models import ReceiveOrder

_HEAD_START: Final = 0.05
"""Seconds that a payment gets before the first poll, which then often shows it. For a sync `pay` it
is real time too: the clock of a test may jump, and the thread does not."""

RENEWAL: Final = 10.0
"""Seconds between two checks whether the claim must be renewed."""

_NO_METADATA: Final[Mapping[str, str]] = {}


def driven(
    context: OrderContext,
    order: Order | str,
    intent: Intent,
    *,
    created_at: datetime | None = None,
    timeout: float | None = None,
    owner: str = "",
) -> DrivenOrder:
    """Return an order as a driver takes it.

    Args:
        context: The context.
        order: The order, or its ID.
        intent: What the caller wants.
        created_at: When the order was created; None: as the order says, or now.
        timeout: Seconds from now to wait for the code; None: no wait.
        owner: The name under which the driver claims the order; empty: it claims nothing.
    """
    metadata = _NO_METADATA
    if isinstance(order, Order):
        metadata = order.metadata
        created_at = order.created_at if created_at is None else created_at
    order_id = order.order_id if isinstance(order, Order) else order
    now = context.clock.now()
    birth = context.elapsed.birth(now if created_at is None else created_at.timestamp())
    found = DrivenOrder(order_id, birth, intent, 0.0, owner, metadata)
    if timeout is not None:
        found.deadline = found.age(context) + timeout
    return found


async def record(
    context: OrderContext,
    order: DrivenOrder,
    intent: JournalChange,
    *,
    operation: str,
    follows: bool = False,
) -> JournalEntry | None:
    """Record what the caller wants, and claim the order in the same write.

    If another driver holds the claim, that is recorded later, with the claim.

    Args:
        context: The context.
        order: The order.
        intent: What the caller wants.
        operation: The client's method, for an error.
        follows: Whether the caller wants what is recorded already.

    Returns:
        The entry; None if there is no journal or it does not know the order.

    Raises:
        InvalidArgumentError: The order belongs to another service root.
        JournalError: The journal cannot be written; nothing was sent.
    """
    recorder = context.recorder
    if recorder.journal is None:
        return None
    change = claim_if_ours(context, order.owner, intent)
    try:
        (entry,) = await recorder.write([(order.order_id, change)])
    except JournalError as error:
        error.operation, error.order_id = operation, order.order_id
        raise
    except BaseException:  # a task of asyncio can be cancelled despite the shield
        await recorder.note(order.order_id, release_claim(order.owner))
        raise
    if entry is None:
        return None
    check_root(context, entry)
    # The journal may know better when the order was created.
    order.birth = context.elapsed.birth(entry.created_at.timestamp())
    if entry.claimed_by == order.owner and entry.claimed_until is not None:
        order.claimed_until = entry.claimed_until.timestamp()
        if follows:
            order.adopt(entry, context)
        else:
            order.read_deadline = entry.code_deadline
            order.learn(entry)
            # The journal may have a longer one.
            minimum_age = entry.minimum_age or time_span(order.intent.minimum_age)
            order.intent = attrs.evolve(order.intent, minimum_age=minimum_age.total_seconds())
    else:
        order.claimed_until, order.unrecorded = 0.0, intent
        order.learn(entry)
    if entry.finished_at is not None:
        order.entry = entry
    return entry


async def drive(
    context: OrderContext, order: DrivenOrder, nap: Nap | None = None, *, keep_claim: bool = False
) -> OrderResult:
    """Take steps until the order has ended, or until the wait is over.

    Args:
        context: The context.
        order: The order.
        nap: The sleep between two steps.
        keep_claim: Keep the claim if there is no result.

    Raises:
        Sms4SatsError: The last failure, if the end is unknown or the cancel was refused.
    """
    nap = Nap() if nap is None else nap
    announced: object = None
    try:
        while True:
            step = await first_or_next(context, order)
            if isinstance(step, OrderResult):
                break
            announced = _announce(context, order, step, announced)
            await nap.until(context, order, min(step.age, order.age(context) + RENEWAL))
    except BaseException:
        if not keep_claim:
            await release(context, order)
        raise
    if step.outcome is None and not keep_claim:
        await release(context, order)
    if step.error is not None:
        await deliver(context, step)  # who catches the error has received the result
        raise step.error
    return step


def _announce(
    context: OrderContext, order: DrivenOrder, wait: WaitUntil, announced: object
) -> object:
    """Report a wait that begins, once; return what was reported last."""
    # A claim is renewed, so its end moves.
    this = (wait.reason, None if wait.reason is Reason.CLAIMED else round(wait.end, 1))
    if this == announced or math.isinf(wait.end) or wait.end <= order.age(context):
        return announced
    until = moment_of(context, order, wait.end)
    context.report(Waiting(order.order_id, until, wait.reason.value))
    return this


async def first_or_next(context: OrderContext, order: DrivenOrder, *, alone: bool = False) -> Step:
    """Return the recorded result of an order that ended before, or take a step; see `advance`."""
    entry = order.entry
    if entry is None:
        return await advance(context, order, alone=alone)
    # The driver that received a result has reported it.
    return ended_elsewhere(context, order, silent=entry.delivered_at is not None)


async def deliver(context: OrderContext, result: OrderResult) -> OrderResult:
    """Record that the caller receives the result, and return it."""
    if context.recorder.journal is not None:
        await context.recorder.note(result.order_id, acknowledge(context.recorder.now()))
    return result


class Nap:
    """The sleep between two steps, which something else can end."""

    def __init__(self) -> None:
        self._scope: anyio.CancelScope | None = None
        self._woken = False

    async def until(self, context: OrderContext, order: DrivenOrder, age: float) -> None:
        """Sleep until the order has an age, or until `wake`."""
        with anyio.CancelScope() as self._scope:
            while (left := age - order.age(context)) > 0 and not self._woken:
                await context.clock.sleep(max(min(left, LONGEST_SLEEP), SHORTEST_SLEEP))
        self._scope, self._woken = None, False

    def wake(self) -> None:
        """End the sleep, or the next one."""
        self._woken = True
        if self._scope is not None:
            self._scope.cancel()


# --- only waiting ---------------------------------------------------------------------------------


def code_status(result: OrderResult, *, timeout: float) -> CodeStatus:
    """Return the status with the code; `result` is how the wait for it ended.

    Raises:
        OrderError: There is no code.
    """
    if result.code is not None:
        return _code_status(result, result.code)
    status = result.status
    kind: type[OrderError] = OrderError
    if result.outcome is OrderOutcome.CANCELLED:
        kind, problem = OrderRefundedError, "the order was cancelled"
    elif result.refunded:
        text = "" if status is None else f": {quote(status.error or '')}"
        kind, problem = OrderRefundedError, f"the service refunded the order{text}"
    elif result.outcome is not None:
        problem = f"no code can arrive: {result.outcome.value}"
    elif status is not None and is_last(status.state):
        problem = f"no code can arrive: {status.state.value}"
    else:
        kind, problem = CodeTimeoutError, f"no code within {timeout:g} s"
    raise kind(problem, status=status, operation="wait_for_code", order_id=result.order_id)


def _code_status(result: OrderResult, code: str) -> CodeStatus:
    """Return the status with the code; of an order that ended before, as the journal has it."""
    if isinstance(result.status, CodeStatus):
        return result.status
    return CodeStatus(
        result.order_id,
        OrderState.CODE_RECEIVED,
        number=result.number,
        money=Money.SETTLED,
        code=code,
    )


class OrderWatch:
    """An async iterator over the changes of one order; see `Sms4SatsClient.watch_order`.

    It holds nothing open between two statuses, so you can leave the loop at any time.
    """

    def __init__(self, context: OrderContext, order_id: str, poll_interval: float) -> None:
        self._context = context
        self._order_id = order_id
        self._poll_interval = poll_interval
        self._last: OrderStatus | None = None
        self._polled = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OrderStatus:
        if self._last is not None and is_last(self._last.state):
            raise StopAsyncIteration
        context = self._context
        while True:
            if self._polled:
                await context.clock.sleep(context.pause(self._poll_interval))
            self._polled = True
            last = self._last
            status = await poll(
                context,
                self._order_id,
                retry=context.calls.retry,
                known_state=None if last is None else last.state,
                known_number=None if last is None else last.number,
            )
            if status is not None and (last is None or _changed(last, status)):
                self._last = status
                return status


def _changed(before: OrderStatus, after: OrderStatus) -> bool:
    """Return whether more than the service's time stamp is different."""
    return attrs.evolve(before, timestamp=None) != attrs.evolve(after, timestamp=None)


# --- with a payment -------------------------------------------------------------------------------


def check_invoice(order: ReceiveOrder, *, max_price_sat: int, network: str, now: float) -> None:
    """Raise if the order's invoice is not one to pay for at most `max_price_sat` satoshis."""
    try:
        invoice = Invoice.parse(order.invoice)
    except InvalidArgumentError as error:
        raise _refused(order, f"it is unreadable: {error.problem}") from error
    if invoice.network != network:
        raise _refused(order, f"it is for the network {invoice.network}, not {network}")
    if invoice.amount_sat is None:
        raise _refused(order, "it has no amount, so a wallet would pay any amount")
    if invoice.amount_sat > max_price_sat:
        raise _refused(order, f"it is for {invoice.amount_sat} sat, more than {max_price_sat} sat")
    if invoice.expires_at.timestamp() <= now:
        raise _refused(order, f"it expired at {invoice.expires_at}")


def _refused(order: ReceiveOrder, why: str) -> OrderError:
    return OrderError(
        f"the order's invoice was refused: {why}. Nothing was paid, and an order that is not paid "
        "ends automatically. A higher max_price_sat accepts a higher price",
        operation="receive_code",
        order_id=order.order_id,
    )


async def drive_with_payment(
    context: OrderContext, order: DrivenOrder, invoice: str, pay: Callable[[str], object]
) -> OrderResult:
    """Drive an order while `pay` pays in the background.

    The payment decides nothing: when it returns or raises, the status of the order decides.
    """
    nap, returned = Nap(), anyio.Event()
    order.known = attrs.evolve(order.known, next_poll=order.age(context) + _HEAD_START)
    failures: list[BaseException] = []

    async def run_payment() -> None:
        try:
            await _call(pay, invoice)
        except BaseException as error:
            # The task is ours, so it is only cancelled with its group. Any other cancellation is
            # one of the wallet.
            if not isinstance(error, Exception) and not _is_cancelled_elsewhere(error):
                raise
            failures.append(error)
            LOGGER.warning(
                "order %s: the payment call raised %s; the status of the order decides",
                mask(order.order_id),
                type(error).__name__,
            )
        order.known = after_payment(order.known, order.age(context))
        returned.set()
        nap.wake()

    # Errors leave the group as values: raised inside, they would be wrapped in a group.
    ends: list[OrderResult | Sms4SatsError] = []
    async with anyio.create_task_group() as group:
        group.start_soon(run_payment)
        try:
            if not _is_async(pay):
                with anyio.move_on_after(_HEAD_START):
                    await returned.wait()
            ends.append(await drive(context, order, nap))
        except Sms4SatsError as error:
            ends.append(error)
        except BaseException:
            await release(context, order)
            raise
        # The order has ended, so the payment has too, or is useless.
        group.cancel_scope.cancel()
    (end,) = ends
    if isinstance(end, OrderResult):
        return end
    if failures and end.__cause__ is None:
        end.__cause__ = failures[0]
        hide_in_causes(end, [invoice, order.order_id])  # a wallet's error often quotes the invoice
    raise end


async def _call(pay: Callable[[str], object], invoice: str) -> None:
    """Call `pay`: an async one here, a sync one in a worker thread."""
    if _is_async(pay):
        await pay(invoice)
        return
    # In a list, because Trio takes a thread that returns a coroutine for a mistake.
    (answer,) = await anyio.to_thread.run_sync(lambda: [pay(invoice)], abandon_on_cancel=True)
    if inspect.isawaitable(answer):
        await cast("Awaitable[object]", answer)


def _is_cancelled_elsewhere(error: BaseException) -> bool:
    """Return whether an exception is a cancellation although no scope around is cancelled."""
    is_cancellation = is_of_others(error) or isinstance(error, anyio.get_cancelled_exc_class())
    return is_cancellation and anyio.current_effective_deadline() > -math.inf


def _is_async(pay: Callable[[str], object]) -> TypeGuard[Callable[[str], Awaitable[object]]]:
    function: Any = pay
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - a wallet is an object that is called
    )
