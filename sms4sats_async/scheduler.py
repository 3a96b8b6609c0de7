"""Many orders at once: drives each to its code or its refund, also after a restart."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import cache, partial
from itertools import islice
from typing import Final

import anyio
import anyio.lowlevel
import attrs

from . import _validate as validate
from ._clock import time_span
from ._orders.decisions import Intent
from ._orders.many import (
    AT_ONCE,
    OrderQueue,
    OrderResults,
    QueuedOrder,
    ResultStore,
    release_claims,
)
from ._orders.steps import OrderContext, check_root, hold_result
from ._process import has_died, is_of_this_process, new_owner
from .client import Sms4SatsClient, order_context
from .errors import ClientStateError, JournalError
from .journal import JournalChange, JournalEntry
from .journal.entry import (
    LEASE,
    acknowledge,
    belongs_to,
    both,
    claim_left,
    defer,
    record_intent,
    release_claim,
)
from .models import Order
from .results import OrderResult

_INTENT: Final = Intent(poll_interval=5.0)
_CHECK_SPREAD: Final = 1.0
_TICK: Final = 10.0
"""Seconds of real time between two checks whether to read the journal again. A clock for tests may
jump at each sleep."""

_SAME_TIME: Final = 0.01
"""Seconds by which the journal's rounded times may differ from the clock's."""

_NO_METADATA: Final[Mapping[str, str]] = {}


class OrderScheduler:
    """Drives any number of orders to their codes or refunds: one timer and a few workers.

    It polls each order for its code until the order's own deadline, then cancels as soon as the
    service allows it. Start `run` in a task group of your own. `run` first resumes the orders of
    this service root that the journal has as pending, so a process that restarts after a crash goes
    on where it was. Every 45 seconds it takes over what another driver left meanwhile: an order
    with a recorded deadline whose claim is free.

    Several schedulers may share a journal, in one process or in several: each order is claimed
    before a request is sent for it.

    Args:
        client: The client to send with. You own it; the scheduler never closes it.
        concurrency: How many requests are under way at the same time, at most; more than the
            client's 100 connections count as 100.
        timeout: Seconds (or a timedelta) to wait for the code of a pending order that has no
            recorded deadline, from the start of `run` or from `add`.

    Raises:
        InvalidArgumentError: If an argument is invalid.
    """

    _shared = False

    def __init__(
        self,
        client: Sms4SatsClient,
        *,
        concurrency: int = 20,
        timeout: float | timedelta = 0,
    ) -> None:
        self._context = self._context_of(validate.instance("client", client, Sms4SatsClient))
        self._timeout = validate.seconds("timeout", timeout)
        self._owner = new_owner()
        self._store = ResultStore(self._acknowledge, self._hold)
        self._queue = OrderQueue(
            self._context,
            concurrency=validate.whole_number("concurrency", concurrency, least=1),
            finish=self._finish,
            owner="" if client.journal is None else self._owner,
            shared=self._shared,
        )
        # Of each order the newest `add` that was not awaited yet.
        self._unrecorded: dict[str, QueuedOrder] = {}
        # The orders of each write that is under way, with the event of its end.
        self._being_recorded: dict[QueuedOrder, anyio.Event] = {}
        # Orders that were removed or whose end is unknown; only `add` drives them again.
        self._given_up: set[str] = set()
        self._running = False

    def __len__(self) -> int:
        """Return how many orders it drives."""
        return len(self._queue)

    def add(
        self,
        order: Order | str,
        *,
        timeout: float | timedelta | None = None,
        not_before: datetime | None = None,
    ) -> Awaitable[None]:
        """Drive an order to its code or its refund; call it again to change the deadline.

        The scheduler drives the order from this call on. Await the call to know that the journal
        has recorded it.

        Args:
            order: The order, or its ID. An ID that the journal does not know counts as created now.
            timeout: Seconds (or a timedelta) from now to wait for the code. None keeps the recorded
                deadline, or uses the scheduler's `timeout` if none is recorded.
            not_before: A time with a time zone, by the wall clock. From the deadline until then,
                the scheduler does nothing with the order. If that clock is set back later, the time
                that was left at the call counts, also after a restart.

        Raises:
            InvalidArgumentError: If an argument is invalid, or the order belongs to another service
                root.
            JournalError: If the journal cannot be written. The order is driven, but would not
                survive a crash.
        """
        order_id = validate.order_id(order)
        limit = None if timeout is None else validate.seconds("timeout", timeout)
        if not_before is not None:
            not_before = validate.aware("not_before", not_before)
        recorder = self._context.recorder
        now, known = recorder.now(), self._queue.get(order_id)
        if isinstance(order, Order):
            created_at = validate.aware("created_at", order.created_at)
            queued = self._queued(order_id, created_at, order.metadata)
        elif known is None:
            queued = self._queued(order_id, now)
        else:
            queued = QueuedOrder(order_id, known.birth, _INTENT, 0.0, known.metadata)
        age = self._age(queued)
        queued.deadline = age + (self._timeout if limit is None else limit)
        if limit is None and known is not None:
            queued.deadline = known.birth + known.deadline - queued.birth
        if not_before is not None:
            later = (not_before - now).total_seconds()
            queued.intent = attrs.evolve(_INTENT, not_before=age + later)
        if recorder.journal is not None:
            queued.read_deadline = now + time_span(max(0.0, queued.deadline - age))
            queued.unrecorded = record_intent(
                order,
                now,
                recorder.base_url,
                code_deadline=None if limit is None else queued.read_deadline,
                default_deadline=queued.read_deadline,
                not_before=not_before,
            )
            older = self._unrecorded.get(order_id)
            if older is not None:  # awaited later, it must not undo this one
                older.unrecorded = queued.unrecorded
            self._unrecorded[order_id] = queued
        self._given_up.discard(order_id)
        self._queue.add(queued)
        return self._record(queued)

    async def remove(self, order: Order | str) -> None:
        """Leave an order to the service, which refunds it automatically after 21 minutes.

        A request that is under way goes on. A scheduler that resumes the order after a restart
        leaves it alone for those 21 minutes too.

        Args:
            order: The order, or its ID.

        Raises:
            InvalidArgumentError: If the ID is invalid.
            JournalError: The journal cannot be written. The order is not driven here any more, but
                a scheduler would resume it after a restart.
        """
        order_id = validate.order_id(order)
        self._given_up.add(order_id)
        removed = self._queue.remove(order_id)
        for added in (removed, self._unrecorded.pop(order_id, None)):
            if added is not None:  # awaited later, that `add` must not undo this
                added.unrecorded = None
        change: JournalChange = defer
        if removed is not None:
            change = both(defer, release_claim(self._owner))
        await self._context.recorder.write([(order_id, change)])

    def results(self) -> OrderResults:
        """Return an async iterator of the results; it waits for ever if `run` is never started.

        A result counts as delivered when the loop asks for the next one, and the journal records
        that first. After a crash, the next process gets the result again that was being handled. If
        a loop ends early, the next iterator gets its last result again. Only the newest iterator
        gets results: other listeners use `on_event`. It ends when `run` does.

        Results that no loop reads stay in the journal. They are reported again after each restart,
        and `prune` keeps them. So read them in every process that runs a scheduler, even if you
        drop them.

        The claim of a result lasts for at least 30 seconds when the loop gets it. If the body of
        the loop takes longer, another process that runs at the same time may deliver it too.
        """
        return OrderResults(self._store)

    async def run(self) -> None:
        """Resume what the journal has as pending, and drive orders until the task is cancelled.

        Raises:
            ClientStateError: The scheduler runs already or was made before a fork, or the client or
                its HTTP session is closed. The orders stay pending.
            JournalError: The journal cannot be read. Nothing was sent.
        """
        if self._running:
            problem = "the scheduler runs already"
            raise ClientStateError(problem)
        if not is_of_this_process(self._owner):
            # Both processes would claim the same orders under one name, and cancel each twice.
            problem = "the scheduler was made before the process forked; make one in each process"
            raise ClientStateError(problem)
        self._running = True
        self._store.reopen()
        try:
            # Outside of the task group, which would wrap what this raises.
            await self._resume()
            await self._drive()
        finally:
            self._running = False
            self._store.end()
            await release_claims(self._context, self._owner, self._store.give_up_claims())

    def _context_of(self, client: Sms4SatsClient) -> OrderContext:
        return order_context(client)

    async def _resume(self) -> None:
        await self._take_over(lambda _: True)

    async def _drive(self) -> None:
        await self._queue.run(beside=self._look_again)

    async def _look_again(self) -> None:
        """Take over what other drivers left, such as a process that died or was stopped."""
        recorder, elapsed = self._context.recorder, self._context.elapsed
        due = elapsed.now() + LEASE.total_seconds()
        while recorder.journal is not None:
            await anyio.sleep(_TICK)
            if elapsed.now() >= due:
                due = elapsed.now() + LEASE.total_seconds()
                try:
                    # Thousands of orders may have the same driver, and each check reads files.
                    await self._take_over(partial(self._was_left, cache(has_died)))
                except JournalError as error:
                    recorder.complain(None, error)

    def _was_left(self, has_died: Callable[[str], bool], entry: JournalEntry) -> bool:
        """Return whether an order had a driver and has none now.

        An order without a deadline never had one: a caller may wait for it with `wait_for_code`.
        """
        if entry.code_deadline is None or entry.order_id in self._given_up:
            return False
        if entry.claimed_by is None or has_died(entry.claimed_by):
            return True
        # A process that lives may need longer than a lease to handle a result.
        left = claim_left(entry, self._owner, self._context.recorder.now())
        return left <= timedelta(0) and not entry.undelivered

    def _finish(self, result: OrderResult, claimed_until: float | None) -> None:
        if result.outcome is None:
            self._given_up.add(result.order_id)
        self._store.put(result, claimed_until)

    async def _take_over(self, is_wanted: Callable[[JournalEntry], bool]) -> None:
        entries = await self._context.recorder.pending()
        waiting = set(self._store.order_ids)
        for number, entry in enumerate(entries, 1):
            order_id = entry.order_id
            if order_id is None or order_id in waiting or self._queue.get(order_id) is not None:
                continue
            if is_wanted(entry):
                self._queue.add(self._resumed(entry, order_id), soon=entry.undelivered)
            if number % AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()  # many orders must not stop the event loop
                waiting.update(self._store.order_ids)

    def _resumed(self, entry: JournalEntry, order_id: str) -> QueuedOrder:
        queued = self._queued(order_id, entry.created_at, entry.metadata)
        queued.deadline = self._age(queued) + self._timeout
        if entry.undelivered:
            # The first step claims it, and finds the result.
            queued.deadline = self._age(queued) + _CHECK_SPREAD
        else:
            self._adopt(queued, entry)
        return queued

    def _adopt(self, queued: QueuedOrder, entry: JournalEntry) -> None:
        """Follow what the journal says the caller wants."""
        driven = queued.driven(self._owner)
        driven.adopt(entry, self._context)
        queued.rest(driven)

    def _queued(
        self, order_id: str, created_at: datetime, metadata: Mapping[str, str] = _NO_METADATA
    ) -> QueuedOrder:
        birth = self._context.elapsed.birth(created_at.timestamp())
        # One empty mapping for all orders that have no metadata.
        return QueuedOrder(order_id, birth, _INTENT, 0.0, metadata or _NO_METADATA)

    def _age(self, queued: QueuedOrder) -> float:
        return self._context.elapsed.now() - queued.birth

    async def _record(self, queued: QueuedOrder) -> None:
        """Record what the caller wants, with what other calls of `add` wait to record.

        A loop that first adds many orders and then awaits each call needs a few writes only.
        """
        if queued.unrecorded is None:
            await anyio.lowlevel.checkpoint()  # many in a loop must not stop the event loop
        while queued.unrecorded is not None:
            recorded = self._being_recorded.get(queued)
            if recorded is None:
                await self._record_with_others(queued)
            else:
                await recorded.wait()

    async def _record_with_others(self, queued: QueuedOrder) -> None:
        recorder, order_id = self._context.recorder, queued.order_id
        some = {order_id: queued}
        for each in islice(self._unrecorded.values(), AT_ONCE):
            some.setdefault(each.order_id, each)
        for each in some.values():
            self._unrecorded.pop(each.order_id, None)
        changes = [
            (each.order_id, each.unrecorded)
            for each in some.values()
            if each.unrecorded is not None
        ]
        recorded = anyio.Event()
        self._being_recorded |= dict.fromkeys(some.values(), recorded)
        try:
            entries = await recorder.write(changes)
        except JournalError as error:  # each other call tries again
            error.order_id = order_id
            raise
        finally:
            for each in some.values():
                del self._being_recorded[each]
            recorded.set()
        for (each_id, _), entry in zip(changes, entries, strict=True):
            assert entry is not None  # noqa: S101 - an intent adds an entry
            each = some[each_id]
            if belongs_to(entry, recorder.base_url):
                self._follow(each, entry)
            else:
                self._queue.remove(each_id)
                if each is queued:
                    check_root(self._context, entry)

    def _follow(self, queued: QueuedOrder, entry: JournalEntry) -> None:
        """Follow an entry that was recorded, as the journal may know better than the caller."""
        queued.unrecorded = None
        if self._queue.get(queued.order_id) is not queued:
            return
        # The journal may know better when the order was created, and the deadline.
        updated = self._queued(queued.order_id, entry.created_at, entry.metadata)
        updated.learn(queued.driven(self._owner))
        updated.deadline = queued.birth + queued.deadline - updated.birth
        updated.read_deadline = queued.read_deadline
        self._adopt(updated, entry)
        if (
            updated.intent != queued.intent
            or abs(updated.birth - queued.birth) > _SAME_TIME
            or abs(updated.deadline - queued.deadline) > _SAME_TIME
        ):
            self._queue.add(updated)
        else:
            queued.metadata, queued.number = updated.metadata, updated.number
            queued.read_deadline = updated.read_deadline

    async def _acknowledge(self, result: OrderResult) -> None:
        recorder = self._context.recorder
        await recorder.write([(result.order_id, acknowledge(recorder.now()))])

    async def _hold(self, order_id: str, claimed_until: float) -> float | None:
        return await hold_result(self._context, order_id, self._owner, claimed_until)
