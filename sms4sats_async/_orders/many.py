"""Many orders at once: one heap, one timer and a fixed number of workers."""

from __future__ import annotations

import weakref
from collections import deque
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Final, Self

import anyio
import attrs
from anyio.lowlevel import checkpoint, current_token

from sms4sats_async._clock import LONGEST_SLEEP, SHORTEST_SLEEP
from sms4sats_async.errors import ClientStateError, JournalError
from sms4sats_async.events import OrderEnded
from sms4sats_async.journal.entry import release_claim
from sms4sats_async.results import OrderResult

from .decisions import Request, WaitUntil, next_action
from .drivers import first_or_next
from .steps import DrivenOrder, release

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .steps import OrderContext

_SAME_TIME: Final = 0.01
"""Seconds by which the journal's rounded times may differ from the clock's."""

_TICK: Final = 0.1
"""Seconds between two looks for due polls, at least: polls come in small groups, not one by one."""

_FEW: Final = 100
"""Replaced entries of the heap that are not worth removing yet."""

_MOVED_AT_ONCE: Final = 200
"""Orders that one worker moves from the heap to the ready queues in one go."""

AT_ONCE: Final = 2_000
"""Orders that are scheduled or recorded in one go: some milliseconds."""


@attrs.define(eq=False, weakref_slot=False)
class QueuedOrder(DrivenOrder):
    """An order in the queue.

    Attributes:
        due: When its next step is due, on the elapsed clock.
        is_urgent: Whether a cancel or a deadline is due then, and not only a poll.
        is_current: Whether this is the order's place in the queue; False if it was replaced.
        is_busy: Whether a worker takes a step of it.
        is_changed: Whether the caller changed it meanwhile.
    """

    due: float = 0.0
    is_urgent: bool = False
    is_current: bool = True
    is_busy: bool = False
    is_changed: bool = False

    def __lt__(self, other: QueuedOrder) -> bool:
        return self.due < other.due

    def differs(self, other: QueuedOrder) -> bool:
        """Return whether the steps of another place of the same order are due at other times."""
        return (
            self.intent != other.intent
            or abs(self.birth - other.birth) > _SAME_TIME
            or abs(self.deadline - other.deadline) > _SAME_TIME
        )


class OrderQueue:
    """Drives many orders, some of them at the same time.

    When the workers cannot keep up, cancels and deadlines go first, and polls come later, in the
    order in which they were due.

    Args:
        context: The client's.
        concurrency: How many steps are taken at the same time.
        finish: Takes the result of an order.
        until_empty: Whether `run` ends when no order is left.
    """

    def __init__(
        self,
        context: OrderContext,
        *,
        concurrency: int,
        finish: Callable[[OrderResult], None],
        until_empty: bool = False,
    ) -> None:
        self._context = context
        self._concurrency = concurrency
        self._finish = finish
        self._until_empty = until_empty
        self._reader: Callable[[], object] = lambda: True
        self._heap: list[QueuedOrder] = []
        self._orders: dict[str, QueuedOrder] = {}
        self._urgent: deque[QueuedOrder] = deque()
        self._polls: deque[QueuedOrder] = deque()
        self._busy = 0
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
            if before.is_busy:
                # The request under way goes on; what the caller wants counts from its end on.
                before.intent, before.deadline = order.intent, order.deadline
                before.unrecorded, before.is_changed = order.unrecorded, True
                return
            before.is_current = False
            order.known = before.known
            order.claimed_until, order.owner = before.claimed_until, before.owner
        self._orders[order.order_id] = order
        self._arm(order, soon=soon)

    def remove(self, order_id: str) -> QueuedOrder | None:
        """Take an order out; a request that is under way goes on, and its result is reported."""
        order = self._orders.pop(order_id, None)
        if order is not None:
            order.is_current = False
            self._wake()
        return order

    def needed_by(self, reader: OrderResults) -> None:
        """Go on only as long as somebody may read the results."""
        self._reader = weakref.ref(reader)

    async def run(self) -> None:
        """Take the steps that are due, until the task is cancelled or a bounded queue is empty.

        Raises:
            ClientStateError: The client, or its HTTP session, is closed.
        """
        self._failure = None
        try:
            async with anyio.create_task_group() as group:
                self._scope = group.cancel_scope
                for _ in range(self._concurrency):
                    group.start_soon(self._work)
                await self._keep_time()
                group.cancel_scope.cancel()  # all workers are idle
        finally:
            self._idle.clear()
            await self._release_claims()
        if self._failure is not None:
            raise self._failure

    def run_detached(self, end: Callable[[Exception | None], None]) -> None:
        """Run until the queue is empty or not needed any more, in a task of its own.

        A task group cannot be held open from one step of an iterator to the next: the caller may
        leave the loop in another task. So this is a plain task of the event loop.
        """
        token: Any = current_token()
        loop: Any = getattr(token, "native_token", token)
        if hasattr(loop, "run_sync_soon"):
            import trio  # noqa: PLC0415 - only where it runs

            trio.lowlevel.spawn_system_task(self._run_to_the_end, end)
            return
        task = loop.create_task(self._run_to_the_end(end))
        tasks = self._context.tasks
        tasks.add(task)  # the event loop alone keeps no reference to it
        task.add_done_callback(tasks.discard)

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
        context = self._context
        age = order.age(context)
        if order.known.last_poll < 0 and not soon:
            # Many orders that come at once are not polled at once.
            first = age + context.calls.random() * order.intent.poll_interval
            order.known = attrs.evolve(order.known, next_poll=first)
        action = next_action(order.intent, order.deadline, order.known, age)
        self._push(order, action if isinstance(action, WaitUntil) else None)
        order.is_urgent = order.is_urgent or action is Request.CANCEL

    def _push(self, order: QueuedOrder, wait: WaitUntil | None) -> None:
        now = self._context.elapsed.now()
        if wait is None:
            order.due, order.is_urgent = now, False
        else:
            # Rounding may make the wait look over already, and a worker would spin.
            order.due = max(order.birth + wait.age, now + SHORTEST_SLEEP)
            order.is_urgent = wait.age >= wait.end
        heappush(self._heap, order)
        if len(self._heap) > 2 * len(self._orders) + _FEW:
            self._heap = [each for each in self._heap if each.is_current]
            heapify(self._heap)
        if self._heap[0] is order:
            self._wake()

    async def _keep_time(self) -> None:
        """Wake a worker whenever an order is due."""
        while self._goes_on():
            self._changed = anyio.Event()
            self._drop_replaced()
            has_ready = bool(self._urgent or self._polls)
            left = 0.0
            if not has_ready and self._heap:
                left = self._heap[0].due - self._context.elapsed.now()
            if left > 0:
                shortest = SHORTEST_SLEEP if self._heap[0].is_urgent else _TICK
                with anyio.CancelScope() as self._nap:
                    await self._context.clock.sleep(max(min(left, LONGEST_SLEEP), shortest))
                self._nap = None
                continue
            if has_ready or self._heap:
                self._wake_a_worker()
            await self._changed.wait()

    def _goes_on(self) -> bool:
        if not self._until_empty or self._busy:
            return True
        return bool(self._orders) and self._reader() is not None

    def _drop_replaced(self) -> None:
        while self._heap and not self._heap[0].is_current:
            heappop(self._heap)

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
            self._busy += 1
            order.is_busy = True
            before = order.known
            try:
                await self._take_a_step(order)
            except Exception as failure:  # noqa: BLE001 - carried out of the task group, whole
                self._failure = failure
                self._push(order, None)
                assert self._scope is not None  # noqa: S101 - a worker runs in it
                self._scope.cancel()
            except BaseException:  # the task is cancelled; a later `run` goes on with the order
                if order.is_current:
                    self._push(order, None)
                raise
            finally:
                self._busy -= 1
                order.is_busy = False
            if order.known is before:
                await checkpoint()  # many orders that need no request must not stop the event loop

    def _take(self) -> QueuedOrder | None:
        """Return an order that is due, and see to it that the next one is taken too."""
        if not self._reader() is not None:
            return None
        now = self._context.elapsed.now()
        for _ in range(_MOVED_AT_ONCE):
            if not self._heap or self._heap[0].due > now:
                break
            order = heappop(self._heap)
            if order.is_current:
                (self._urgent if order.is_urgent else self._polls).append(order)
        for ready in (self._urgent, self._polls):
            while ready:
                order = ready.popleft()
                if order.is_current:
                    # One worker wakes the next, so that a hundred do not begin in one turn of the
                    # event loop. What is due later is the timer's.
                    if self._urgent or self._polls:
                        self._wake_a_worker()
                    else:
                        self._wake()
                    return order
        return None

    async def _take_a_step(self, order: QueuedOrder) -> None:
        context = self._context
        step = await first_or_next(context, order, alone=True)
        if isinstance(step, OrderResult):
            await self._end(order, step)
            return
        order.status = None  # thousands of them would fill the memory
        if not order.is_current:
            await release(context, order)
            return
        self._push(order, None if order.is_changed else step)
        order.is_changed = False

    async def _end(self, order: QueuedOrder, result: OrderResult) -> None:
        if self._orders.get(order.order_id) is order:
            del self._orders[order.order_id]
        order.is_current = False
        if result.outcome is None and order.entry is None:
            await release(self._context, order)
            # The order may go on, but not here.
            self._context.report(OrderEnded(order.order_id, result))
        if order.entry is None or order.entry.delivered_at is None:
            self._finish(result)

    async def _release_claims(self) -> None:
        """Let other processes go on at once."""
        recorder = self._context.recorder
        if recorder.journal is None:
            return
        claimed = [order for order in self._orders.values() if order.claimed_until]
        for order in claimed:
            order.claimed_until = 0.0
        for start in range(0, len(claimed), AT_ONCE):
            changes = [
                (order.order_id, release_claim(order.owner))
                for order in claimed[start : start + AT_ONCE]
            ]
            try:
                await recorder.write(changes)
            except JournalError as error:
                recorder.complain(None, error)


class ResultStore:
    """Results that wait for their reader, and the one that the reader has.

    A result is acknowledged when the reader asks for the next one. If its loop ended before, the
    next reader gets the same result again.
    """

    def __init__(self, acknowledge: Callable[[OrderResult], Awaitable[None]]) -> None:
        self._acknowledge = acknowledge
        self._results: deque[OrderResult] = deque()
        self._more = anyio.Event()
        self._ended = False
        self._error: Exception | None = None

    def put(self, result: OrderResult) -> None:
        """Add a result."""
        self._results.append(result)
        self._more.set()

    def reopen(self) -> None:
        """More results may come."""
        self._ended, self._error = False, None

    def end(self, error: Exception | None = None) -> None:
        """No more results come; `error` says why if that is an accident."""
        self._ended, self._error = True, error
        self._more.set()

    async def first(self) -> OrderResult:
        """Return the first result, which stays here; wait until there is one."""
        while not self._results:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            if self._more.is_set():
                self._more = anyio.Event()
            await self._more.wait()
        return self._results[0]

    async def acknowledge(self, result: OrderResult) -> None:
        """Remove the first result, once it is recorded that the caller has it."""
        if self._results and self._results[0] is result:
            await self._acknowledge(result)
            self._results.popleft()


class OrderResults:
    """An async iterator of `OrderResult`; you can leave the loop at any time.

    A result counts as delivered when the loop asks for the next one.
    """

    def __init__(
        self,
        store: ResultStore,
        *,
        is_current: Callable[[OrderResults], bool] = lambda _: True,
        start: Callable[[], None] | None = None,
    ) -> None:
        self._store = store
        self._is_current = is_current
        self._start = start
        self._last: OrderResult | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OrderResult:
        if not self._is_current(self):
            problem = "results() was called again, and only the newest iterator gets results"
            raise ClientStateError(problem)
        if self._start is not None:
            start, self._start = self._start, None
            start()
        if self._last is not None:
            last, self._last = self._last, None
            await self._store.acknowledge(last)
        self._last = await self._store.first()
        return self._last
