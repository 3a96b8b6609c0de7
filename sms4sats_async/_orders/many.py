"""Many orders at once: one heap, one timer and a fixed number of workers."""

from __future__ import annotations

import math
import weakref
from collections import deque
from functools import partial
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Final, Self

import anyio
import attrs
from anyio.lowlevel import checkpoint

from sms4sats_async._clock import LONGEST_SLEEP, SHORTEST_SLEEP
from sms4sats_async._http.retrying import CONNECTIONS
from sms4sats_async.errors import ClientStateError, JournalError, Sms4SatsError
from sms4sats_async.events import OrderEnded
from sms4sats_async.journal.entry import release_claim
from sms4sats_async.results import OrderResult

from .decisions import NOTHING_KNOWN, Known, Reason, Request, WaitUntil, next_action
from .drivers import first_or_next
from .steps import DrivenOrder, release

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
    from datetime import datetime

    from sms4sats_async.journal.entry import JournalChange
    from sms4sats_async.models import OrderState

    from .decisions import Action, Intent, Refusals
    from .steps import OrderContext, Step

_TICK_OF_EACH: Final = 0.00025
_LONGEST_TICK: Final = 0.25
"""Seconds between two looks for due polls: a quarter of a millisecond for each order, and at most
this. So the polls of thousands of orders come in groups, and those of a few orders come in time."""

_PROMOTION: Final = 1.0
"""Seconds between two checks whether a poll that waits for a worker has become a cancel."""

_FEW: Final = 100
"""Replaced entries of the heap that are not worth removing yet."""

_MOVED_AT_ONCE: Final = 200
"""Orders that one worker moves from the heap to the ready queues at a time."""

AT_ONCE: Final = 2_000
"""Orders that are scheduled or recorded at a time, which takes some milliseconds."""


@attrs.frozen
class Trouble:
    """What is known after a cancel that failed.

    Attributes:
        refusals: The cancels that failed, for the next decision.
        lost: Whether the last poll was lost.
        attempts: How many cancel requests were sent.
        error: How the last one failed; None if that was in another process.
    """

    refusals: Refusals
    lost: bool
    attempts: int
    error: Sms4SatsError | None


@attrs.define(eq=False, weakref_slot=False)
class QueuedOrder:
    """An order between two steps: what the next step needs, and when it is due.

    Tens of thousands may wait, so it holds as few objects as possible: it is a third smaller than a
    `DrivenOrder` with its `Known`, which exist only during a step.

    Attributes:
        order_id: The order.
        birth: When it was created, on the context's elapsed clock.
        intent: What the caller wants.
        deadline: The age until which to wait for the code.
        metadata: The caller's notes.
        claimed_until: When the claim ends, in Unix seconds; 0 without a claim.
        unrecorded: A change that the journal did not record yet.
        read_deadline: The recorded deadline from which `deadline` was computed.
        number: The number that receives the code.
        state: The state at the last poll; with the next three the order's `Known`.
        number_age: The age at which the number was first seen.
        last_poll: The age at the last poll; -1 before the first.
        next_poll: The age from which the next poll is due.
        trouble: What is known of cancels that failed, if any did.
        due: The age at which its next step is due.
        end: The age from which that step is more urgent than a poll.
    """

    order_id: str
    birth: float
    intent: Intent
    deadline: float
    metadata: Mapping[str, str]
    claimed_until: float = 0.0
    unrecorded: JournalChange | None = None
    read_deadline: datetime | None = None
    number: str | None = None
    state: OrderState | None = None
    number_age: float | None = None
    last_poll: float = NOTHING_KNOWN.last_poll
    next_poll: float = NOTHING_KNOWN.next_poll
    trouble: Trouble | None = None
    due: float = 0.0
    end: float = math.inf

    def __lt__(self, other: QueuedOrder) -> bool:
        return self.birth + self.due < other.birth + other.due

    @property
    def known(self) -> Known:
        """What is known, for the next decision. No payment is under way here."""
        refusals, lost = None, False
        if self.trouble is not None:
            refusals, lost = self.trouble.refusals, self.trouble.lost
        seen = (self.state, self.number_age, self.last_poll, self.next_poll)
        return Known(None, *seen, lost=lost, refusals=refusals)

    def driven(self, owner: str) -> DrivenOrder:
        """Return the order as a step takes it."""
        driven = DrivenOrder(
            self.order_id,
            self.birth,
            self.intent,
            self.deadline,
            owner,
            self.metadata,
            self.known,
            self.claimed_until,
            self.unrecorded,
        )
        driven.number, driven.read_deadline = self.number, self.read_deadline
        if self.trouble is not None:
            driven.attempts, driven.refusal = self.trouble.attempts, self.trouble.error
        return driven

    def learn(self, driven: DrivenOrder) -> None:
        """Keep what a step learned."""
        known = driven.known
        self.claimed_until, self.number = driven.claimed_until, driven.number
        self.state, self.number_age = known.state, known.number_age
        self.last_poll, self.next_poll = known.last_poll, known.next_poll
        if known.refusals is not None:
            self.trouble = Trouble(known.refusals, known.lost, driven.attempts, driven.refusal)

    def rest(self, driven: DrivenOrder) -> None:
        """Keep what a step learned, and the intent that it read in the journal."""
        self.learn(driven)
        self.intent, self.metadata = driven.intent, driven.metadata
        self.deadline, self.read_deadline = driven.deadline, driven.read_deadline
        if driven.unrecorded is None:
            self.unrecorded = None


class OrderQueue:
    """Drives many orders, some of them at the same time.

    When the workers cannot keep up, cancels and deadlines go first, and polls come later, in the
    order in which they were due.

    Args:
        context: The client's.
        concurrency: How many steps are taken at the same time. More than the client's connections
            would only wait for one, and time out.
        finish: Takes the result of an order, and until when it is claimed; None without a claim.
        owner: The name under which orders are claimed; empty: none is claimed.
        until_empty: Whether `run` ends when no order is left. Each order gets a result then: also
            one that another process delivered, and one whose end is unknown because the client was
            closed. Otherwise such results are left to that process, or `run` raises.
        shared: Whether an order that another process has claimed is left to it; else the queue
            waits for the claim to end.
    """

    def __init__(
        self,
        context: OrderContext,
        *,
        concurrency: int,
        finish: Callable[[OrderResult, float | None], None],
        owner: str = "",
        until_empty: bool = False,
        shared: bool = False,
    ) -> None:
        self._context = context
        self._workers = min(concurrency, CONNECTIONS)
        self._finish = finish
        self._owner = owner
        self._until_empty = until_empty
        self._shared = shared
        self._reader: Callable[[], object] = lambda: True
        self._orders: dict[str, QueuedOrder] = {}
        self._busy: set[str] = set()
        self._heap: list[QueuedOrder] = []
        self._urgent: deque[QueuedOrder] = deque()
        self._polls: deque[QueuedOrder] = deque()
        self._promotion = 0.0
        self._idle: deque[anyio.Event] = deque()
        self._changed = anyio.Event()
        self._nap: anyio.CancelScope | None = None
        self._failure: Exception | None = None
        self._scope: anyio.CancelScope | None = None

    def __len__(self) -> int:
        return len(self._orders)

    def get(self, order_id: str) -> QueuedOrder | None:
        """Return an order of the queue."""
        return self._orders.get(order_id)

    def add(self, order: QueuedOrder, *, soon: bool = False) -> None:
        """Put an order into the queue, in the place of an earlier one of the same id.

        Args:
            order: The order.
            soon: Take a step now, instead of within one poll interval.
        """
        before = self._orders.get(order.order_id)
        if before is not None:
            order.learn(before.driven(self._owner))
        self._orders[order.order_id] = order
        if order.order_id not in self._busy:  # else a request is under way, and its end does it
            self._arm(order, soon=soon)

    def remove(self, order_id: str) -> QueuedOrder | None:
        """Take an order out; a request that is under way goes on, and its result is reported.

        Returns:
            The order, if no request is under way.
        """
        order = self._orders.pop(order_id, None)
        self._wake()
        return None if order_id in self._busy else order

    @property
    def order_ids(self) -> list[str]:
        """The orders of the queue."""
        return list(self._orders)

    @property
    def urgent(self) -> int:
        """How many orders wait for a worker with more than a poll."""
        return len(self._urgent)

    def needed_by(self, reader: OrderResults) -> None:
        """Continue only while `reader` exists."""
        self._reader = weakref.ref(reader)

    async def run(self, *, beside: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Take the steps that are due, until the task is cancelled or a bounded queue is empty.

        Args:
            beside: Something to run as long; it raises nothing.

        Raises:
            ClientStateError: The client, or its HTTP session, is closed.
        """
        self._failure = None
        try:
            async with anyio.create_task_group() as group:
                self._scope = group.cancel_scope
                for _ in range(self._workers):
                    group.start_soon(self._work)
                if beside is not None:
                    group.start_soon(beside)
                try:
                    await self._keep_time()
                except Exception as failure:  # noqa: BLE001 - carried out of the task group, whole
                    self._failure = failure
                group.cancel_scope.cancel()
        finally:
            self._idle.clear()
            claimed = [order for order in self._orders.values() if order.claimed_until]
            for order in claimed:
                order.claimed_until = 0.0
            await release_claims(self._context, self._owner, [each.order_id for each in claimed])
        if self._failure is not None:
            raise self._failure

    def run_detached(self, end: Callable[[Exception | None], None]) -> None:
        """Run until the queue is empty or not needed any more, in a task of its own.

        A task group cannot be held open from one step of an iterator to the next: the caller may
        leave the loop in another task. So this is a plain task of the event loop.
        """
        self._context.spawn(partial(self._run_to_the_end, end))

    async def _run_to_the_end(self, end: Callable[[Exception | None], None]) -> None:
        error: Exception | None = None
        try:
            await self.run()
        except Exception as failure:  # noqa: BLE001 - carried to the iterator
            error = failure
        finally:
            end(error)

    # --- the timer --------------------------------------------------------------------------------

    def _arm(self, order: QueuedOrder, *, soon: bool = False) -> None:
        """Put an order into the heap, at the time of its next step."""
        age = self._context.elapsed.now() - order.birth
        if order.last_poll < 0 and not soon:
            # Many orders that come at once are not polled at once.
            order.next_poll = age + self._context.calls.random() * order.intent.poll_interval
        self._push(order, next_action(order.intent, order.deadline, order.known, age))

    def _push(self, order: QueuedOrder, action: Action) -> None:
        age = self._context.elapsed.now() - order.birth
        if isinstance(action, WaitUntil):
            # Rounding may make the wait look over already, and a worker would spin.
            order.due = max(action.age, age + SHORTEST_SLEEP)
            order.end = action.end
        else:
            # Rounding may make what is due now look early, and the timer would sleep.
            order.due = age - SHORTEST_SLEEP
            order.end = math.inf if action is Request.POLL else order.due
        heappush(self._heap, order)
        if len(self._heap) > 2 * len(self._orders) + _FEW:
            self._heap = [each for each in self._heap if self._is_current(each)]
            heapify(self._heap)
        if self._heap and self._heap[0] is order:
            self._wake()

    def _is_current(self, order: QueuedOrder) -> bool:
        """Return whether an order was neither removed nor replaced."""
        return self._orders.get(order.order_id) is order

    async def _keep_time(self) -> None:
        """Wake a worker whenever an order is due."""
        while self._goes_on():
            self._changed = anyio.Event()
            while self._heap and not self._is_current(self._heap[0]):
                heappop(self._heap)
            has_ready = bool(self._urgent or self._polls)
            if not has_ready and self._heap:
                first = self._heap[0]
                left = first.birth + first.due - self._context.elapsed.now()
                if left > 0:
                    shortest = SHORTEST_SLEEP
                    if first.due < first.end:
                        tick = min(len(self._orders) * _TICK_OF_EACH, _LONGEST_TICK)
                        shortest = max(shortest, tick)
                    with anyio.CancelScope() as self._nap:
                        await self._context.clock.sleep(max(min(left, LONGEST_SLEEP), shortest))
                    self._nap = None
                    continue
            # Without a reader no worker takes an order; waking one would spin.
            if (has_ready or self._heap) and self._reader() is not None:
                self._wake_a_worker()
            await self._changed.wait()

    def _goes_on(self) -> bool:
        if not self._until_empty or self._busy:
            return True
        return bool(self._orders) and self._reader() is not None

    def _wake(self) -> None:
        """Make the timer look again."""
        self._changed.set()
        if self._nap is not None:
            self._nap.cancel()

    def _wake_a_worker(self) -> None:
        if self._idle:
            self._idle.popleft().set()

    # --- the workers ------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            order = self._take()
            if order is None:
                self._wake()
                woken = anyio.Event()
                self._idle.append(woken)
                await woken.wait()
                continue
            order_id, step = order.order_id, None
            self._busy.add(order_id)
            try:
                step = await self._take_a_step(order)
            except Exception as failure:  # noqa: BLE001 - carried out of the task group, whole
                self._failure = failure
                assert self._scope is not None  # noqa: S101 - a worker runs in it
                self._scope.cancel()
                return
            finally:
                self._busy.discard(order_id)
                queued = self._orders.get(order_id)
                if queued is order and step is not None:
                    self._push(order, step)
                elif queued is not None:  # changed meanwhile, or the step was interrupted
                    self._arm(queued)

    def _take(self) -> QueuedOrder | None:
        """Return an order that is due, and wake a worker for the next one."""
        if self._reader() is None:
            return None
        now = self._context.elapsed.now()
        for _ in range(_MOVED_AT_ONCE):
            if not self._heap or self._heap[0].birth + self._heap[0].due > now:
                break
            self._make_ready(heappop(self._heap), now)
        if self._polls and now >= self._promotion:
            # The deadline of an order may pass while it waits for a worker.
            self._promotion = now + _PROMOTION
            waiting, self._polls = self._polls, deque()
            for order in waiting:
                self._make_ready(order, now)
        for ready in (self._urgent, self._polls):
            while ready:
                order = ready.popleft()
                if self._is_current(order):
                    # One worker wakes the next, so that a hundred do not begin in one turn of the
                    # event loop. What is due later is the timer's.
                    if self._urgent or self._polls:
                        self._wake_a_worker()
                    else:
                        self._wake()
                    return order
        return None

    def _make_ready(self, order: QueuedOrder, now: float) -> None:
        if self._is_current(order):
            (self._urgent if order.birth + order.end <= now else self._polls).append(order)

    async def _take_a_step(self, order: QueuedOrder) -> WaitUntil | None:
        """Return when the next step is due; None if the order has ended or was removed."""
        driven = order.driven(self._owner)
        known = driven.known
        try:
            step = await self._step(driven)
        except BaseException:
            await self._keep(order, driven)
            raise
        if isinstance(step, OrderResult):
            await self._end(driven, step)
        elif self._shared and step.reason is Reason.CLAIMED and self._is_current(order):
            del self._orders[order.order_id]
        else:
            await self._keep(order, driven)
        if driven.known is known:
            await checkpoint()  # many orders that need no request must not stop the event loop
        return None if isinstance(step, OrderResult) else step

    async def _step(self, driven: DrivenOrder) -> Step:
        try:
            return await first_or_next(self._context, driven, alone=not self._until_empty)
        except Sms4SatsError as error:
            if not self._until_empty:
                raise
            notes = driven.metadata
            return OrderResult(
                driven.order_id, None, attempts=driven.attempts, error=error, metadata=notes
            )

    async def _keep(self, order: QueuedOrder, driven: DrivenOrder) -> None:
        """Keep what a step learned."""
        order.rest(driven)
        queued = self._orders.get(order.order_id)
        if queued is None:
            await release(self._context, driven)
        elif queued is not order:  # the caller wants something else now
            queued.learn(driven)

    async def _end(self, driven: DrivenOrder, result: OrderResult) -> None:
        self._orders.pop(driven.order_id, None)
        entry = driven.entry
        if result.outcome is None and entry is None:
            await release(self._context, driven)
            # The order may go on, but not here.
            self._context.report(OrderEnded(driven.order_id, result))
        if self._until_empty or entry is None or entry.delivered_at is None:
            self._finish(result, driven.claimed_until or None)


async def release_claims(context: OrderContext, owner: str, order_ids: Iterable[str]) -> None:
    """Release the claims of many orders, so that other processes can go on at once."""
    changes = [(order_id, release_claim(owner)) for order_id in order_ids]
    for start in range(0, len(changes), AT_ONCE):
        try:
            await context.recorder.write(changes[start : start + AT_ONCE])
        except JournalError as error:
            context.recorder.complain(None, error)


@attrs.define
class _Waiting:
    """A result that was not acknowledged yet.

    Attributes:
        result: The result.
        claimed_until: When the claim ends under which it is delivered; None without a claim.
    """

    result: OrderResult
    claimed_until: float | None


class ResultStore:
    """Results that wait for their reader, and the one that the reader has.

    A result is acknowledged when the reader asks for the next one. If its loop ended before, the
    next reader gets the same result again.

    Args:
        acknowledge: Records that the caller received a result.
        hold: Returns until when a claimed result may be delivered here; None if another process
            delivers it.
    """

    def __init__(
        self,
        acknowledge: Callable[[OrderResult], Awaitable[None]],
        hold: Callable[[str, float], Awaitable[float | None]] | None = None,
    ) -> None:
        self._acknowledge = acknowledge
        self._hold = hold
        self._waiting: deque[_Waiting] = deque()
        self._newest = 0
        self._more = anyio.Event()
        self._ended = False
        self._error: Exception | None = None

    @property
    def order_ids(self) -> list[str]:
        """The orders whose results wait here."""
        return [each.result.order_id for each in self._waiting]

    def put(self, result: OrderResult, claimed_until: float | None = None) -> None:
        """Add a result."""
        self._waiting.append(_Waiting(result, claimed_until))
        self._more.set()

    def give_up_claims(self) -> list[str]:
        """Return the orders whose results are claimed; they are claimed again when handed out."""
        claimed = [each for each in self._waiting if each.claimed_until is not None]
        for each in claimed:
            each.claimed_until = 0.0
        return [each.result.order_id for each in claimed]

    def reopen(self) -> None:
        """More results may come."""
        self._ended, self._error = False, None

    def end(self, error: Exception | None = None) -> None:
        """No more results come; `error` says why if that is an accident."""
        self._ended, self._error = True, error
        self._more.set()

    def new_reader(self) -> int:
        """Return the number of a new reader; the earlier ones get nothing more."""
        self._newest += 1
        self._more.set()
        return self._newest

    async def first(self, reader: int) -> OrderResult:
        """Return the first result, which stays here; wait until there is one.

        Raises:
            ClientStateError: There is a newer reader.
        """
        await checkpoint()  # a loop over many results must not stop the event loop
        while True:
            self._check(reader)
            if self._waiting:
                first = self._waiting[0]
                if await self._is_held(first):
                    self._check(reader)
                    return first.result
                continue
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._more = anyio.Event()  # only the newest reader comes here, and with one task
            await self._more.wait()

    async def _is_held(self, waiting: _Waiting) -> bool:
        """Return whether a result may be delivered here; remove it if another process has it."""
        if waiting.claimed_until is None or self._hold is None:
            return True
        until = await self._hold(waiting.result.order_id, waiting.claimed_until)
        if until is None:
            self._remove(waiting.result)
            return False
        waiting.claimed_until = until
        return True

    async def acknowledge(self, result: OrderResult, reader: int) -> None:
        """Remove the first result, once it is recorded that the caller has it.

        Raises:
            ClientStateError: There is a newer reader, which gets the result again.
        """
        self._check(reader)
        if self._waiting and self._waiting[0].result is result:
            await self._acknowledge(result)
            self._remove(result)

    def _check(self, reader: int) -> None:
        if reader != self._newest:
            problem = "results() was called again, and only the newest iterator gets results"
            raise ClientStateError(problem)

    def _remove(self, result: OrderResult) -> None:
        # Another reader may have removed it meanwhile.
        if self._waiting and self._waiting[0].result is result:
            self._waiting.popleft()


class OrderResults:
    """An async iterator of `OrderResult`; you can leave the loop at any time.

    A result counts as delivered when the loop asks for the next one.
    """

    def __init__(self, store: ResultStore, *, start: Callable[[], None] | None = None) -> None:
        self._store = store
        self._number = store.new_reader()
        self._start = start
        self._last: OrderResult | None = None
        self._is_asking = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OrderResult:
        if self._is_asking:
            problem = "another task waits for the next result of this iterator"
            raise ClientStateError(problem)
        if self._start is not None:
            start, self._start = self._start, None
            start()
        self._is_asking = True
        try:
            if self._last is not None:
                last, self._last = self._last, None
                await self._store.acknowledge(last, self._number)
            self._last = await self._store.first(self._number)
        finally:
            self._is_asking = False
        return self._last
