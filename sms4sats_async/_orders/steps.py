"""One step of one order: a poll or a cancel, executed as `decisions` says, and what follows.

This is the only place that sends polls and cancels for drivers. It claims the order in the journal
before it sends anything, and records what it learns.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from sms4sats_async._clock import LONGEST_SLEEP, SHORTEST_SLEEP, ElapsedClock
from sms4sats_async._event_loop import native_loop
from sms4sats_async._http.decode import Cancelled
from sms4sats_async._http.endpoints import CANCEL_ORDER, GET_ORDER_STATUS
from sms4sats_async._process import has_died
from sms4sats_async._redact import quote
from sms4sats_async.errors import (
    APIError,
    ClientStateError,
    InvalidArgumentError,
    RateLimitError,
    Sms4SatsError,
)
from sms4sats_async.events import OrderEnded, StatusPolled
from sms4sats_async.journal.entry import (
    LEASE,
    belongs_to,
    claim,
    claim_left,
    record_outcome,
    record_status,
    release_claim,
)
from sms4sats_async.models import OrderOutcome, OrderState, RequestOutcome
from sms4sats_async.results import OrderResult
from sms4sats_async.retry import RetryPolicy

from .decisions import (
    AUTOMATIC_AGE,
    NOTHING_KNOWN,
    Action,
    Ended,
    Intent,
    Known,
    Reason,
    Refusals,
    Request,
    WaitUntil,
    after_cancel,
    after_payment,
    after_poll,
    after_refusal,
    next_action,
)
from .states import outcome_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from sms4sats_async._clock import Clock
    from sms4sats_async._http.retrying import Calls
    from sms4sats_async.events import Event
    from sms4sats_async.journal.entry import JournalChange, JournalEntry
    from sms4sats_async.journal.recorder import Recorder
    from sms4sats_async.models import OrderStatus

LONGEST_STEP: Final = 25.0
"""Seconds that one step takes at most, so that a claim outlasts it."""

_UNKNOWN: Final = 1.0
"""The end of a claim that may be recorded: it is released like any other."""

_TIME_TO_DELIVER: Final = 30.0
"""Seconds that the claim of a result lasts at least when its reader gets it."""

_SHORTEST_CHECK: Final = 1.0
"""Seconds that a request gets at least, even where something else is due sooner."""

_JITTER: Final = 0.15
"""The share by which a poll interval varies, so that polls of many clients, and a server's
keep-alive limit, do not coincide."""

_SAME_TIME: Final = 0.01
"""Seconds by which the journal's rounded times may differ from the clock's."""

_LASTING: Final = range(300, 500)
_SERVICE_REFUSALS: Final = (400, 404)
"""What the service itself refuses lastingly; another 3xx or 4xx comes from a gateway."""


@attrs.frozen(eq=False)
class OrderContext:
    """What a step needs beside the order: requests, time, the journal, and events.

    Attributes:
        calls: Sends requests, with retries.
        recorder: Writes to the journal.
        clock: The source of time.
        elapsed: How much time has surely passed.
        report: Takes progress events.
        tasks: Tasks of the event loop that run until they end.
    """

    calls: Calls
    recorder: Recorder
    clock: Clock
    elapsed: ElapsedClock
    report: Callable[[Event], None]
    tasks: set[Any] = attrs.field(factory=set[Any])

    def pause(self, interval: float) -> float:
        """Return the seconds until the next poll."""
        return interval * (1 + _JITTER * (2 * self.calls.random() - 1))

    def spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a task of the event loop itself; `run` raises nothing."""
        loop = native_loop()
        if hasattr(loop, "run_sync_soon"):
            import trio  # noqa: PLC0415 - only where it runs

            trio.lowlevel.spawn_system_task(run)
            return
        task = loop.create_task(run())
        self.tasks.add(task)  # the event loop alone keeps no reference to it
        task.add_done_callback(self.tasks.discard)


@attrs.define(eq=False, weakref_slot=False)
class DrivenOrder:
    """An order that a driver drives to its end.

    Attributes:
        order_id: The order.
        birth: When it was created, on the context's elapsed clock.
        intent: What the caller wants.
        deadline: The age until which to wait for the code.
        known: What is known.
        metadata: The caller's notes, for the result.
        owner: The name under which this driver claims the order.
        claimed_until: When the claim ends, in Unix seconds; 0 without a claim.
        unrecorded: A change that the journal did not record yet.
        attempts: How many cancel requests were sent.
        number: The number that receives the code.
        status: The last status that was read.
        refusal: How the last cancel failed.
        raw: The answer to the cancel.
        entry: The entry of an order that ended elsewhere.
        read_deadline: The recorded deadline from which `deadline` was computed. Only another one
            replaces it: its age is wrong if the clock was set back before it was recorded.
        retry: The policy for cancels; None: the client's.
    """

    order_id: str
    birth: float
    intent: Intent
    deadline: float
    owner: str
    metadata: Mapping[str, str]
    known: Known = NOTHING_KNOWN
    claimed_until: float = 0.0
    unrecorded: JournalChange | None = None
    attempts: int = 0
    number: str | None = None
    status: OrderStatus | None = None
    refusal: Sms4SatsError | None = None
    raw: Mapping[str, object] | None = None
    entry: JournalEntry | None = None
    read_deadline: datetime | None = None
    retry: RetryPolicy | None = None

    def age(self, context: OrderContext) -> float:
        """Return the order's age in seconds, never more than is sure."""
        return context.elapsed.now() - self.birth

    def learn(self, entry: JournalEntry) -> None:
        """Take over what the journal knows about the order."""
        created_at = entry.created_at
        self.metadata = entry.metadata
        self.number = self.number or entry.number
        if entry.number_seen_at is not None and self.known.number_age is None:
            seen = (entry.number_seen_at - created_at).total_seconds()
            self.known = attrs.evolve(self.known, number_age=seen)
        # A driver that does not persist reports a refusal of its own cancel only.
        persists = self.intent.persists
        if entry.refused_at is not None and self.known.refusals is None and persists:
            # Refused in an earlier process, which read the status before it recorded that.
            age = (entry.refused_at - created_at).total_seconds()
            refusals = Refusals(entry.refusals, age)
            self.known = attrs.evolve(self.known, refusals=refusals)

    def adopt(self, entry: JournalEntry, context: OrderContext) -> None:
        """Take over that, and follow what the caller wants, which may be newer in the journal."""
        self.learn(entry)
        created_at = entry.created_at
        if entry.code_deadline is not None and entry.code_deadline != self.read_deadline:
            self.read_deadline = entry.code_deadline
            deadline = (entry.code_deadline - created_at).total_seconds()
            # A deadline of now, rounded, may be a little later, and would then cost a wait.
            if abs(deadline - self.deadline) > _SAME_TIME:
                self.deadline = deadline
        not_before = 0.0
        if entry.not_before is not None:
            not_before = (entry.not_before - created_at).total_seconds()
            if not_before < 0:  # the clock was set back since the order was created
                left = (entry.not_before - context.recorder.now()).total_seconds()
                not_before = max(0.0, self.age(context) + left)
            if entry.code_deadline is None:
                self.deadline = 0.0  # left to the service: no caller waits for its code
        minimum_age = self.intent.minimum_age
        if entry.minimum_age is not None:
            minimum_age = entry.minimum_age.total_seconds()
        if (minimum_age, not_before) != (self.intent.minimum_age, self.intent.not_before):
            self.intent = attrs.evolve(self.intent, minimum_age=minimum_age, not_before=not_before)


Step: TypeAlias = OrderResult | WaitUntil


class StatusCheck:
    """Reads the status after a failed cancel, for evidence of what became of the order.

    Attributes:
        tried: Whether the last check was tried.
        status: What it read, or None.
        last_status: The last status that a check of this call read, or None.
    """

    def __init__(self, context: OrderContext, order_id: str) -> None:
        self.tried = False
        self.status: OrderStatus | None = None
        self.last_status: OrderStatus | None = None
        self._context = context
        self._order_id = order_id

    async def __call__(self, failure: Sms4SatsError, left: float) -> Cancelled | None:
        """Return the end that the status proves, or None if it proves none."""
        self.tried, self.status = False, None
        if left <= 0 or isinstance(failure, ClientStateError):
            return None
        self.tried = True
        once = RetryPolicy(attempts=1, total_timeout=None if math.isinf(left) else left)
        try:
            self.status = await read_status(self._context, self._order_id, retry=once)
        except Sms4SatsError:
            return None  # reported as AttemptFailed; a status that was not read proves nothing
        self.last_status = self.status
        if outcome_of(self.status.state) is None:
            return None
        return Cancelled({}, self.status)


async def read_status(
    context: OrderContext,
    order_id: str,
    *,
    retry: RetryPolicy | None = None,
    known_state: OrderState | None = None,
    known_number: str | None = None,
) -> OrderStatus:
    """Read the status of an order, and record it unless it is already known."""
    request = GET_ORDER_STATUS.request(query={"orderId": order_id})
    status, _ = await context.calls.call(GET_ORDER_STATUS, request, order_id=order_id, retry=retry)
    is_known = status.state is known_state and status.number == known_number
    recorder = context.recorder
    if recorder.journal is not None and not (is_known and outcome_of(status.state) is None):
        change = record_status(status, recorder.now(), recorder.base_url)
        await recorder.note(order_id, change)
    return status


async def poll(
    context: OrderContext,
    order_id: str,
    *,
    retry: RetryPolicy,
    known_state: OrderState | None = None,
    known_number: str | None = None,
) -> OrderStatus | None:
    """Read the status during a wait; None if the poll was lost.

    No odd answer ends a wait: a 403, 404, redirect or HTML page may come from a gateway.

    Raises:
        ClientStateError: The client is closed.
    """
    try:
        status = await read_status(
            context, order_id, retry=retry, known_state=known_state, known_number=known_number
        )
    except ClientStateError:
        raise
    except Sms4SatsError:
        return None  # reported as AttemptFailed
    context.report(StatusPolled(order_id, status))
    return status


async def send_cancel(
    context: OrderContext,
    order_id: str,
    *,
    retry: RetryPolicy | None,
    check: StatusCheck | None,
) -> tuple[Cancelled, int, JournalEntry | None]:
    """Send the cancel with its retries, and record how it ended.

    Returns:
        How it ended, how many requests that took, and the entry, if it was written.
    """
    request = CANCEL_ORDER.request(query={"orderId": order_id})
    recorder = context.recorder
    try:
        done, attempts = await context.calls.call(
            CANCEL_ORDER, request, order_id=order_id, retry=retry, after_failure=check
        )
    except Sms4SatsError as error:
        outcome = error.request_outcome or RequestOutcome.UNKNOWN
        await recorder.note(order_id, record_outcome(outcome, recorder.now(), final=False))
        raise
    entry = None
    if done.status is None:
        change = record_outcome(OrderOutcome.CANCELLED, recorder.now(), final=True)
        entry = await recorder.note(order_id, change)
    return done, attempts, entry


# --- the step -------------------------------------------------------------------------------------


async def advance(context: OrderContext, order: DrivenOrder, *, alone: bool = False) -> Step:
    """Take the next step of an order: at most one poll or one cancel.

    Args:
        context: The context.
        order: The order; what is learned is kept on it.
        alone: Leave the order alone while another driver holds its claim. If False, it is polled
            but not cancelled meanwhile.

    Returns:
        How the order ended; if that is unknown, the result has no outcome. Or when to take the next
        step.

    Raises:
        ClientStateError: The client is closed.
    """
    action = _decide(context, order)
    if isinstance(action, Request) or (isinstance(action, WaitUntil) and order.claimed_until > 0):
        action = await _execute(context, order, action, alone=alone)
    if order.entry is not None:
        # A scheduler drops a result that another process delivered.
        silent = alone and order.entry.delivered_at is not None
        return ended_elsewhere(context, order, silent=silent)
    if isinstance(action, WaitUntil):
        return action
    if isinstance(action, Ended):
        return await _end(context, order, action.outcome)
    age = order.age(context)
    return WaitUntil(age, Reason.REFUSED, age)  # another request is due at once


def _decide(context: OrderContext, order: DrivenOrder) -> Action:
    return next_action(order.intent, order.deadline, order.known, order.age(context))


async def _execute(
    context: OrderContext, order: DrivenOrder, action: Action, *, alone: bool
) -> Action:
    """Renew the claim, send what is due if the claim allows it, and decide again."""
    age = order.age(context)
    claimed_elsewhere = await _claim(context, order, alone=alone)
    if order.entry is not None:
        return action
    if claimed_elsewhere > 0 and isinstance(action, Request):
        # The order is polled, so that a code or a refund is seen.
        if alone or not order.intent.watch or age < order.known.next_poll:
            return _wait_for_claim(order, age, claimed_elsewhere, alone=alone)
        action = Request.POLL
    elif order.claimed_until:  # the claim may have brought a newer intent
        action = _decide(context, order)
    if action is Request.POLL:
        await _poll(context, order)
    elif action is Request.CANCEL:
        await _cancel(context, order)
    return _decide(context, order)


def _wait_for_claim(order: DrivenOrder, age: float, left: float, *, alone: bool) -> WaitUntil:
    due = age + max(min(left, LONGEST_SLEEP), SHORTEST_SLEEP)
    if not alone and order.intent.watch:
        due = max(min(due, order.known.next_poll), age + SHORTEST_SLEEP)
    return WaitUntil(due, Reason.CLAIMED, age + left)


def ended_elsewhere(
    context: OrderContext, order: DrivenOrder, *, silent: bool = False
) -> OrderResult:
    """Return the result that the journal has of an order, and report it unless `silent`."""
    entry = order.entry
    assert entry is not None  # noqa: S101 - the caller checked it
    assert entry.result is not None  # noqa: S101 - only ended entries are kept
    result = attrs.evolve(entry.result, attempts=order.attempts)
    if not silent:
        context.report(OrderEnded(order.order_id, result))
    return result


async def _poll(context: OrderContext, order: DrivenOrder) -> None:
    intent, deadline = order.intent, math.inf if order.intent.cancels else order.deadline
    bound = LONGEST_STEP
    if not intent.cancels:
        bound = max(order.deadline - order.age(context), SHORTEST_SLEEP)
    elif order.known.refusals is None:
        # Not longer than until the cancel is due.
        left = max(intent.minimum_age, order.deadline) - order.age(context)
        bound = min(max(left, _SHORTEST_CHECK), LONGEST_STEP)
    payment_ended = order.known.payment_ended
    status = await poll(
        context,
        order.order_id,
        retry=_ONCE if bound == LONGEST_STEP else RetryPolicy(attempts=1, total_timeout=bound),
        known_state=order.known.state,
        known_number=order.number,
    )
    if status is not None:
        order.status, order.number = status, status.number or order.number
    order.known = after_poll(
        order.known,
        order.age(context),
        status,
        pause=context.pause(intent.poll_interval),
        deadline=deadline,
    )
    if order.known.payment_ended and not payment_ended:
        # The status was requested before the payment ended, so it does not show the payment.
        order.known = after_payment(order.known, order.age(context))


async def _cancel(context: OrderContext, order: DrivenOrder) -> None:
    check = StatusCheck(context, order.order_id)
    try:
        done, attempts, entry = await send_cancel(
            context, order.order_id, retry=_bounded(context, order), check=check
        )
    except ClientStateError:
        raise
    except Sms4SatsError as error:
        order.refusal = error
        order.attempts += error.attempts
        _see(order, check.last_status)
        order.known = after_refusal(
            order.known,
            order.age(context),
            check.status,
            lasting=_is_lasting(error),
            checked=check.tried,
            pause=context.pause(order.intent.poll_interval),
        )
        return
    order.attempts += attempts
    order.raw = done.raw
    _see(order, check.last_status)
    if done.status is None:
        order.known = after_cancel(order.known)
        if _contradicts(entry):
            # How the service answers a cancel after the code is unknown, so its OK proves nothing.
            order.entry = entry
    else:
        order.known = after_poll(order.known, order.age(context), done.status, pause=0.0)


def _contradicts(entry: JournalEntry | None) -> bool:
    """Return whether the journal knows of a code or a sent message, which is never refunded."""
    return entry is not None and entry.result is not None and entry.result.refunded is False


def _see(order: DrivenOrder, status: OrderStatus | None) -> None:
    if status is not None:
        order.status, order.number = status, status.number or order.number


_ONCE: Final = RetryPolicy(attempts=1, total_timeout=None)


def _bounded(context: OrderContext, order: DrivenOrder) -> RetryPolicy:
    """Return the policy, bounded so that the step ends before the automatic cancel."""
    retry = context.calls.retry if order.retry is None else order.retry
    bound = LONGEST_STEP
    left = AUTOMATIC_AGE - order.age(context)
    if left > 0:
        bound = min(bound, max(left, _SHORTEST_CHECK))
    if retry.total_timeout is not None and retry.total_timeout <= bound:
        return retry
    return attrs.evolve(retry, total_timeout=bound)


def _is_lasting(error: Sms4SatsError) -> bool:
    return (
        isinstance(error, APIError)
        and error.status_code in _LASTING
        and not isinstance(error, RateLimitError)
    )


# --- the end --------------------------------------------------------------------------------------


async def _end(
    context: OrderContext, order: DrivenOrder, outcome: OrderOutcome | None
) -> OrderResult:
    if outcome is None:
        return await _unknown_end(context, order)
    status = order.status
    if not order.owner or outcome is OrderOutcome.REFUNDED:
        entry = await context.recorder.find(order.order_id)
        if entry is not None:
            order.metadata, order.number = entry.metadata, order.number or entry.number
        if outcome is OrderOutcome.REFUNDED and _contradicts(entry):
            order.entry = entry  # a code that was seen once is the result
            return ended_elsewhere(context, order)
    result = OrderResult(
        order.order_id,
        outcome,
        None if status is None else status.code,
        order.number,
        status,
        order.attempts,
        metadata=order.metadata,
        raw=order.raw or {},
    )
    context.report(OrderEnded(order.order_id, result))
    return result


async def _unknown_end(context: OrderContext, order: DrivenOrder) -> OrderResult:
    """Return the result of a wait that is over, or of a cancel that did not work."""
    error, known = order.refusal, order.known
    refusals = known.refusals
    if refusals is not None:
        if error is None:  # a process that has ended got it
            error = Sms4SatsError(
                "the service refused the cancel, and the status does not show an end",
                operation="cancel_order",
                order_id=order.order_id,
                request_outcome=RequestOutcome.UNKNOWN,
            )
        error.attempts = order.attempts
        if known.last_poll >= AUTOMATIC_AGE and not refusals.is_final:
            # After the service's own cancel, the refusal says nothing.
            error.request_outcome = RequestOutcome.UNKNOWN
            final = not known.lost
        else:
            code = error.status_code if isinstance(error, APIError) else None
            final = refusals.is_final and code in _SERVICE_REFUSALS
        if final:
            # A later attempt would meet the same answer, so no scheduler resumes the order.
            outcome = error.request_outcome or RequestOutcome.UNKNOWN
            change = record_outcome(outcome, context.recorder.now(), final=True)
            await context.recorder.note(order.order_id, change)
            order.claimed_until = 0.0  # the claim stays until the result is delivered
    return OrderResult(
        order.order_id,
        None,
        None,
        order.number,
        order.status,
        order.attempts,
        error,
        order.metadata,
    )


# --- the claim ------------------------------------------------------------------------------------


async def _claim(context: OrderContext, order: DrivenOrder, *, alone: bool) -> float:
    """Claim the order if the claim would not outlast a step.

    Args:
        context: The context.
        order: The order. If it ended elsewhere, its entry is kept.
        alone: Leave the result of an order to the driver that holds the claim.

    Returns:
        For how many seconds another driver holds the claim; 0 if none does.
    """
    recorder = context.recorder
    if recorder.journal is None or not order.owner:
        return 0.0
    now = recorder.now()
    if _outlasts(order.claimed_until, now, LONGEST_STEP):
        return 0.0
    change = claim_if_ours(context, order.owner, order.unrecorded)
    # Even if this is cancelled, or the journal does not answer, the claim may be recorded.
    order.claimed_until = order.claimed_until or _UNKNOWN
    entry = await recorder.note(order.order_id, change)
    if entry is None:
        # The money matters more than a cancel that may be sent twice, so a journal that cannot
        # record the claim does not stop the order.
        return 0.0
    if not belongs_to(entry, recorder.base_url):
        if not alone:
            check_root(context, entry)
        return LEASE.total_seconds()  # the caller who added it gets an error
    left = claim_left(entry, order.owner, now).total_seconds()
    order.claimed_until = 0.0
    if left == 0:
        order.unrecorded = None
        if entry.claimed_until is not None:
            order.claimed_until = entry.claimed_until.timestamp()
    if entry.finished_at is not None:
        order.entry = entry if left == 0 or not alone else None
    elif left == 0:
        order.adopt(entry, context)
    else:
        order.learn(entry)
    return left


def check_root(context: OrderContext, entry: JournalEntry) -> None:
    """Refuse an order of another service root.

    Raises:
        InvalidArgumentError: It belongs to another one.
    """
    root = context.recorder.base_url
    if not belongs_to(entry, root):
        problem = (
            f"the order belongs to {quote(str(entry.base_url))}, but this client uses "
            f"{quote(root)}; use a client with that base_url"
        )
        raise InvalidArgumentError(problem, order_id=entry.order_id)


def claim_if_ours(
    context: OrderContext, owner: str, intent: JournalChange | None = None
) -> JournalChange:
    """Return the change by which a driver claims an order, unless it is of another service root.

    Args:
        context: The context.
        owner: The driver.
        intent: What its caller wants; it is recorded with the claim, and not without.
    """
    recorder = context.recorder
    take = claim(owner, recorder.now(), has_died=has_died, intent=intent)

    def change(entry: JournalEntry | None) -> JournalEntry | None:
        if entry is None:
            return take(entry)
        # After an outage, a journal may write this minutes later than `take` reckons.
        left = claim_left(entry, owner, recorder.now()).total_seconds()
        is_held = left > 0 and not has_died(entry.claimed_by or "")
        return entry if is_held or not belongs_to(entry, recorder.base_url) else take(entry)

    return change


def _outlasts(claimed_until: float, now: datetime, seconds: float) -> bool:
    """Return whether a claim of our own lasts long enough.

    Others ignore one that ends too far ahead, because the clock was set back.
    """
    return seconds <= claimed_until - now.timestamp() <= LEASE.total_seconds() + 1


async def hold_result(
    context: OrderContext, order_id: str, owner: str, claimed_until: float
) -> float | None:
    """Claim a result again whose claim may have ended while it waited for its reader.

    Returns:
        When the claim ends; None if another process delivers the result.
    """
    recorder = context.recorder
    if _outlasts(claimed_until, recorder.now(), _TIME_TO_DELIVER):
        return claimed_until
    entry = await recorder.note(order_id, claim_if_ours(context, owner))
    if entry is None:
        return claimed_until  # the journal fails: better twice than never
    if entry.delivered_at is not None or entry.claimed_by != owner:
        return None
    assert entry.claimed_until is not None  # noqa: S101 - a claim has its end
    return entry.claimed_until.timestamp()


async def renew(
    context: OrderContext, order: DrivenOrder, *, is_needed: Callable[[], bool]
) -> None:
    """Claim an order again whose claim ends soon although its driver takes no step.

    Args:
        context: The context.
        order: The order.
        is_needed: Asked at the moment of the change. It returns False once the claim was given up,
            so that a renewal under way does not bring it back.
    """
    now = context.recorder.now()
    if _outlasts(order.claimed_until, now, LONGEST_STEP):
        return
    take = claim_if_ours(context, order.owner)
    entry = await context.recorder.note(
        order.order_id, lambda entry: take(entry) if is_needed() else entry
    )
    if entry is not None:
        # Where another driver has it, the next step must not trust the old claim.
        until = entry.claimed_until if entry.claimed_by == order.owner else None
        order.claimed_until = 0.0 if until is None else until.timestamp()


async def release(context: OrderContext, order: DrivenOrder) -> None:
    """Release the claim, so that another driver can go on at once."""
    if order.claimed_until:
        order.claimed_until = 0.0
        await context.recorder.note(order.order_id, release_claim(order.owner))


def moment_of(context: OrderContext, order: DrivenOrder, age: float) -> datetime:
    """Return the wall-clock time at which the order reaches an age."""
    return moment(context.clock.now() + age - order.age(context))


def moment(seconds: float) -> datetime:
    """Return Unix seconds as a datetime, or the last one that exists."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.max.replace(tzinfo=UTC)
