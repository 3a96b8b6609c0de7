"""Many orders whose money is asked back: one timer and a fixed set of workers.

An order that waits costs a tuple in a heap, not a task.
"""

import secrets
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from heapq import heapify, heappop, heappush
from typing import Any, Final, NamedTuple, Self

import anyio
import attrs
from anyio.lowlevel import checkpoint, current_token

from sms4sats_async._clock import CLOCKS_DIFFER, Clock
from sms4sats_async._http.retrying import Exchange
from sms4sats_async.errors import JournalError, Sms4SatsError
from sms4sats_async.events import CancelFinished, CancelResult
from sms4sats_async.journal import JournalChange, JournalEntry
from sms4sats_async.journal.entry import claimed, given_up, seen, told
from sms4sats_async.journal.recorder import Recorder
from sms4sats_async.models import Cancellation, CancelOutcome, OrderStatus, RequestOutcome

from .old_orders import CancelSteps
from .old_watching import SHORTEST_SLEEP
from .states import made_at

_LONGEST_STEP: Final = 60.0
"""Seconds that one step of one order may take at most, so that its claim outlasts it."""

_LEASE: Final = timedelta(seconds=90)
"""How long a claim stands of a scheduler that does not come back."""

_LONGEST_NAP: Final = 5.0
"""Seconds that the timer sleeps at most: only the wall clock knows that a laptop was asleep."""

_JUMP: Final = 1.0
"""Seconds by which the wall clock gets ahead of the monotonic one if the machine was asleep."""

_FEW: Final = 100
"""Entries of the heap that were replaced, and are not yet worth cleaning up."""

_POLL_INTERVAL: Final = 5.0


class _Armed(NamedTuple):
    """An order that waits for its time; sorts by it."""

    due: float
    order_id: str
    created_at: float
    not_before: float


class _Passed:
    """Seconds that have surely passed, a suspended machine's sleep included.

    It goes with the monotonic clock, and jumps where the wall clock is farther ahead of that than
    it ever was: time passed that the other did not see. So a wall clock that is set back changes
    nothing, nor one that is set right again after it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead = clock.now() - clock.monotonic()

    def __call__(self) -> float:
        return self._steady_and_ahead()[0] + self._ahead

    def after(self, seconds: float) -> float:
        """Return what it will be when so many seconds have surely passed."""
        steady, ahead = self._steady_and_ahead()
        # Sleeps too short to be told from an unsteady clock may be counted later, all at once.
        return steady + max(self._ahead, ahead) + seconds

    def _steady_and_ahead(self) -> tuple[float, float]:
        # In this order, because a pause between the two must not look like a jump.
        wall = self._clock.now()
        steady = self._clock.monotonic()
        if wall - steady > self._ahead + _JUMP:
            self._ahead = wall - steady
        return steady, wall - steady


class CancelResults:
    """An async iterator of `CancelResult`; leave the loop at any time, nothing is held open."""

    def __init__(self, start: Callable[[], None] | None = None) -> None:
        self._start = start
        self._results: deque[CancelResult] = deque()
        self._more = anyio.Event()
        self._ended = False
        self._error: Exception | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CancelResult:
        if self._start is not None:
            start, self._start = self._start, None
            start()
        while not self._results:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            if self._more.is_set():
                self._more = anyio.Event()
            await self._more.wait()
        return self._results.popleft()

    def put(self, result: CancelResult) -> None:
        """Hand a result over."""
        self._results.append(result)
        self._more.set()

    def end(self, error: Exception | None = None) -> None:
        """Say that no more will come, and why if that is an accident."""
        self._ended = True
        self._error = error
        self._more.set()


class CancelQueue:
    """Cancels each of many orders when its time has come, some of them at once.

    Args:
        exchange: The client's.
        recorder: Of the journal in which orders are claimed.
        unwritten: What is still to be written in it, by order; a claim writes it along where the
            journal does not know the order yet, which could not be claimed otherwise.
        concurrency: How many are cancelled at the same time.
        patient: Wait refusals out; otherwise one call with its retries is all there is.
    """

    def __init__(
        self,
        exchange: Exchange,
        recorder: Recorder,
        unwritten: Mapping[str, JournalChange],
        *,
        concurrency: int,
        patient: bool,
    ) -> None:
        self._exchange = exchange
        self._recorder = recorder
        self._unwritten = unwritten
        self._concurrency = concurrency
        self._patient = patient
        self._clock = exchange.clock
        self._passed = _Passed(exchange.clock)
        self._heap: list[_Armed] = []
        # An entry of the heap that does not stand here was replaced, or taken out.
        self._armed: dict[str, _Armed] = {}
        # Those being cancelled, and what is wanted of each after that: the newest word on it.
        self._busy: dict[str, _Armed | None] = {}
        self._steps: dict[str, CancelSteps] = {}
        self._owner = secrets.token_hex(8)
        self._listeners: weakref.WeakSet[CancelResults] = weakref.WeakSet()
        self._to_the_end = False
        self._idle: deque[anyio.Event] = deque()
        self._changed = anyio.Event()
        self._nap: anyio.CancelScope | None = None
        total = exchange.retry.total_timeout
        self._retry = attrs.evolve(
            exchange.retry,
            total_timeout=_LONGEST_STEP if total is None else min(total, _LONGEST_STEP),
        )

    def add(
        self, order_id: str, *, created_at: float, minimum_age: float, not_before: float = 0.0
    ) -> None:
        """Arm an order; again, to change its time.

        The request of one that is being cancelled goes on; the time counts if that is refused.

        Args:
            order_id: The order.
            created_at: When it was made, in Unix seconds.
            minimum_age: Seconds before which not to cancel it.
            not_before: Nor before that, in Unix seconds.
        """
        now = self._clock.now()
        created_at = made_at(created_at, now)
        due = max(created_at + minimum_age, not_before)
        wait = due - now + CLOCKS_DIFFER if due > now else 0.0
        self._arm(_Armed(self._passed.after(wait), order_id, created_at, not_before))

    def _arm(self, armed: _Armed) -> None:
        if armed.order_id in self._busy:
            self._busy[armed.order_id] = armed
            return
        before = self._armed.get(armed.order_id)
        is_same = (
            before is not None
            and (before.created_at, before.not_before) == (armed.created_at, armed.not_before)
            and abs(before.due - armed.due) < CLOCKS_DIFFER
        )
        if is_same:
            return
        self._armed[armed.order_id] = armed
        heappush(self._heap, armed)
        if len(self._heap) > 2 * len(self._armed) + _FEW:
            self._heap = list(self._armed.values())
            heapify(self._heap)
        if self._heap[0] is armed:
            self._wake()

    def remove(self, order_id: str) -> None:
        """Take an order out.

        The request of one that is being cancelled goes on, and is not repeated.
        """
        self._armed.pop(order_id, None)
        self._steps.pop(order_id, None)
        if order_id in self._busy:
            self._busy[order_id] = None

    def __len__(self) -> int:
        return len(self._armed) + len(self._busy) - list(self._busy.values()).count(None)

    def __contains__(self, order_id: str) -> bool:
        return order_id in self._armed or self._busy.get(order_id) is not None

    def listen(self, start: Callable[[], None] | None = None) -> CancelResults:
        """Return an iterator over the results from now on."""
        results = CancelResults(start)
        self._listeners.add(results)
        return results

    def run_detached(self) -> None:
        """Run until every order is done, or nobody listens any more, in a task of nobody's.

        A task group cannot be held open from one step of an iterator to the next: whoever leaves
        the loop early would leave it in another task. So this is a plain task of the event loop,
        which ends by itself.
        """
        token: Any = current_token()
        loop: Any = getattr(token, "native_token", token)
        if hasattr(loop, "run_sync_soon"):
            import trio  # noqa: PLC0415 - only where it runs

            trio.lowlevel.spawn_system_task(self._run_to_the_end)
        else:
            self._exchange.keep(loop.create_task(self._run_to_the_end()))

    async def _run_to_the_end(self) -> None:
        self._to_the_end = True
        error: Exception | None = None
        try:
            await self.run()
        except Exception as accident:  # noqa: BLE001 - carried to whoever iterates
            error = accident
        finally:
            self.end(error)

    def end(self, error: Exception | None = None) -> None:
        """Tell whoever listens that no more will come."""
        for listener in self._listeners:
            listener.end(error)

    async def run(self) -> None:
        """Cancel what is due, until the task is cancelled, or the detached run is over."""
        try:
            async with anyio.create_task_group() as group:
                for _ in range(self._concurrency):
                    group.start_soon(self._work)
                await self._keep_time()
                group.cancel_scope.cancel()  # all of them are idle
        finally:
            self._idle.clear()

    # --- the timer --------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        """Wake a worker whenever an order is due."""
        while self._busy or not self._to_the_end or self._first() is not None:
            self._changed = anyio.Event()
            first = self._first()
            left = 0.0 if first is None else first.due - self._passed()
            if left > 0:
                with anyio.CancelScope() as self._nap:
                    await self._clock.sleep(max(min(left, _LONGEST_NAP), SHORTEST_SLEEP))
                continue
            if first is not None:
                self._wake_a_worker()
            await self._changed.wait()

    def _first(self) -> _Armed | None:
        """Return the order that is due next, or None if none waits, or nobody for the results."""
        if self._to_the_end and not self._listeners:
            return None
        while self._heap and self._armed.get(self._heap[0].order_id) is not self._heap[0]:
            heappop(self._heap)
        return self._heap[0] if self._heap else None

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
            armed = self._take()
            if armed is None:
                self._wake()
                woken = anyio.Event()
                self._idle.append(woken)
                await woken.wait()
                continue
            try:
                await self._cancel(armed)
            except BaseException:  # ended from outside; a `run` that comes later goes on
                self._again(armed.order_id, after=0.0)
                raise
            finally:
                self._busy.pop(armed.order_id, None)
            await checkpoint()  # many that need no request must not stop the event loop

    def _take(self) -> _Armed | None:
        """Return an order that is due, and see to it that the next one is taken too."""
        now = self._passed()
        first = self._first()
        if first is None or first.due > now:
            return None
        heappop(self._heap)
        del self._armed[first.order_id]
        self._busy[first.order_id] = first
        # One wakes the next, so that a hundred do not begin in one turn of the event loop. What
        # comes later is the timer's, because this one may take a minute.
        if self._heap and self._heap[0].due <= now:
            self._wake_a_worker()
        else:
            self._wake()
        return first

    async def _cancel(self, armed: _Armed) -> None:
        """Take the next step of one order; tell how it ended, or arm it again."""
        order_id = armed.order_id
        try:
            entry = await self._claim(armed)
            wanted = self._busy[order_id]
            if entry is not None and isinstance(entry.outcome, CancelOutcome):
                result: CancelResult | None = CancelResult(order_id, entry.outcome, entry.code)
            elif entry is not None and (wait := self._wait_for(entry, armed)) > 0:
                result = None
                self._again(order_id, after=wait)
            elif wanted is None or wanted.due > self._passed():  # since the claim was begun
                result = None
                await self._give_up(order_id)
                self._again(order_id, after=0.0)
            else:
                result = await self._step(armed)
        except BaseException:  # ended from outside: another scheduler may go on at once
            await self._give_up(order_id)
            raise
        if result is not None:
            self._tell(result)

    async def _step(self, armed: _Armed) -> CancelResult | None:
        order_id = armed.order_id
        steps = self._steps.get(order_id)
        if steps is None:
            steps = self._steps[order_id] = CancelSteps(
                self._exchange, order_id, created_at=armed.created_at, poll_interval=_POLL_INTERVAL
            )
        try:
            done = await steps.next(self._retry)
        except Sms4SatsError as error:
            return await self._failed(order_id, error, steps)
        if isinstance(done, Cancellation):
            await self._write_elsewhere(order_id, done.outcome, done.status, final=True)
            code = None if done.status is None else done.status.code
            return CancelResult(order_id, done.outcome, code, done.status, None, done.attempts)
        if not self._patient and steps.refusal is not None:
            return await self._failed(order_id, steps.refusal, steps)
        await self._give_up(order_id)
        self._again(order_id, after=done - steps.age())
        return None

    async def _failed(
        self, order_id: str, error: Sms4SatsError, steps: CancelSteps
    ) -> CancelResult:
        outcome = error.request_outcome
        if steps.final:
            await self._exchange.recorder.note(
                order_id, told(outcome, self._recorder.now(), final=True)
            )
        await self._write_elsewhere(order_id, outcome, final=steps.final)
        await self._give_up(order_id)
        return CancelResult(order_id, outcome, None, None, error, error.attempts)

    def _again(self, order_id: str, *, after: float) -> None:
        """Arm an order for so many seconds later, or for later still, unless it was taken out."""
        wanted = self._busy.pop(order_id, None)
        if wanted is not None:
            self._arm(wanted._replace(due=max(wanted.due, self._passed.after(after))))

    def _tell(self, result: CancelResult) -> None:
        self._steps.pop(result.order_id, None)
        self._busy.pop(result.order_id, None)  # whoever is told may arm it again
        for listener in self._listeners:
            listener.put(result)
        self._exchange.tell(CancelFinished(result.order_id, result))

    # --- the journal ------------------------------------------------------------------------------

    async def _claim(self, armed: _Armed) -> JournalEntry | None:
        """Claim an order for this scheduler; return its entry, or None where there is none.

        A journal that cannot be written claims nothing. The money matters more than a cancel that
        may be sent twice, so it is sent all the same.
        """
        if self._recorder.journal is None:
            return None
        order_id = armed.order_id
        now = self._clock.now()
        claim = claimed(self._owner, now, _LEASE)
        first = self._unwritten.get(order_id)

        def change(entry: JournalEntry | None) -> JournalEntry | None:
            entry = first(None) if entry is None and first is not None else entry
            put_off = entry is not None and self._put_off(entry, armed, now) > 0
            return entry if put_off else claim(entry)

        try:
            return (await self._recorder.write([(order_id, change)]))[0]
        except JournalError as error:
            self._recorder.complain(order_id, error)
            return None

    def _put_off(self, entry: JournalEntry, armed: _Armed, now: float) -> float:
        """Return for how long the journal puts an order off; whoever wrote it knows it newest.

        The time that the order was armed with has come, whatever the wall clock was set to since.
        """
        if entry.not_before is None or not self._patient:
            return 0.0
        not_before = entry.not_before.timestamp()
        return 0.0 if not_before == armed.not_before else not_before - now

    def _wait_for(self, entry: JournalEntry, armed: _Armed) -> float:
        """Return the seconds after which to look at the journal again, or none if that is mine."""
        now = self._clock.now()
        wait = self._put_off(entry, armed, now)
        if entry.claimed_by not in {None, self._owner}:
            # It may be done long before its claim ends.
            left = (entry.claimed_until or now) - now
            wait = max(wait, min(left, _LONGEST_NAP), SHORTEST_SLEEP)
        return wait

    async def _give_up(self, order_id: str) -> None:
        """Let another scheduler go on at once."""
        await self._recorder.note(order_id, given_up(self._owner))

    async def _write_elsewhere(
        self,
        order_id: str,
        outcome: CancelOutcome | RequestOutcome,
        status: OrderStatus | None = None,
        *,
        final: bool,
    ) -> None:
        """Write the end down where the client's own journal is another one, or none."""
        recorder = self._recorder
        if recorder is self._exchange.recorder:
            return
        if status is not None:
            await recorder.note(order_id, seen(status, recorder.now()))
        await recorder.note(order_id, told(outcome, recorder.now(), final=final))
