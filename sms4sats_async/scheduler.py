"""Many orders at once: drives each to its code or its refund, also after a restart."""

from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import Final

import anyio
import anyio.lowlevel

from . import _validate as validate
from ._orders.decisions import Intent, Known
from ._orders.drivers import check_root
from ._orders.many import AT_ONCE, OrderQueue, OrderResults, QueuedOrder, ResultStore
from ._orders.steps import OrderContext, release
from ._process import new_owner
from .client import Sms4SatsClient, order_context
from .errors import ClientStateError, JournalError
from .journal import JournalEntry
from .journal.entry import acknowledge, defer, record_intent
from .models import Order
from .results import OrderResult

_POLL_INTERVAL: Final = 5.0
_CHECK_SPREAD: Final = 1.0
_NO_METADATA: Final[dict[str, str]] = {}


class OrderScheduler:
    """Drives any number of orders to their codes or refunds: one timer and a few workers.

    It polls each order for its code until the order's own deadline, then cancels as soon as the
    service allows it. Start `run` in a task group of your own. `run` first resumes the orders of
    this service root that the journal has as pending, so a process that restarts after a crash goes
    on where it was.

    Several schedulers may share a journal, in one process or in several: each order is claimed
    before a request is sent for it.

    Args:
        client: The client to send with. You own it; the scheduler never closes it.
        concurrency: How many requests are under way at the same time, at most.
        timeout: Seconds (or a timedelta) to wait for the code of a pending order that has no
            recorded deadline, from the start of `run` or from `add`.

    Raises:
        InvalidArgumentError: If an argument is invalid.
    """

    def __init__(
        self,
        client: Sms4SatsClient,
        *,
        concurrency: int = 20,
        timeout: float | timedelta = 0,
    ) -> None:
        self._context: OrderContext = order_context(client)
        self._timeout = validate.seconds("timeout", timeout)
        self._intent = Intent(poll_interval=_POLL_INTERVAL)
        self._owner = new_owner()
        self._store = ResultStore(self._acknowledge)
        self._reader: OrderResults | None = None
        self._queue = OrderQueue(
            self._context,
            concurrency=validate.whole_number("concurrency", concurrency, least=1),
            finish=self._store.put,
        )
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
            order: The order, or its id. An id that the journal does not know counts as created now.
            timeout: Seconds (or a timedelta) from now to wait for the code. None keeps the recorded
                deadline, or takes the scheduler's `timeout` where none is recorded.
            not_before: With a time zone: leave the order alone from the deadline until then.

        Raises:
            InvalidArgumentError: If an argument is invalid, or the order belongs to another service
                root.
            JournalError: The journal cannot be written. The order is driven, but would not survive
                a crash.
        """
        order_id = validate.order_id(order.order_id if isinstance(order, Order) else order)
        limit = None if timeout is None else validate.seconds("timeout", timeout)
        if not_before is not None:
            not_before = validate.aware("not_before", not_before)
        recorder = self._context.recorder
        now = recorder.now()
        created_at = now
        metadata = _NO_METADATA if isinstance(order, str) else order.metadata
        if isinstance(order, Order):
            created_at = validate.aware("created_at", order.created_at)
        queued = self._queued(order_id, created_at)
        queued.metadata = metadata
        queued.deadline = queued.age(self._context) + (self._timeout if limit is None else limit)
        if limit is None and (known := self._queue.get(order_id)) is not None:
            queued.deadline = known.deadline
        if not_before is not None:
            later = (not_before - now).total_seconds()
            age = queued.age(self._context) + later
            queued.intent = Intent(poll_interval=_POLL_INTERVAL, not_before=age)
        if recorder.journal is not None:
            queued.unrecorded = record_intent(
                order,
                now,
                recorder.base_url,
                code_deadline=None if limit is None else now + timedelta(seconds=limit),
                default_deadline=now + timedelta(seconds=self._timeout),
                not_before=not_before,
            )
        self._queue.add(queued)
        return self._record(queued)

    async def remove(self, order: Order | str) -> None:
        """Leave an order to the service, which refunds it automatically after 21 minutes.

        A request that is under way goes on. A scheduler that resumes the order after a restart
        leaves it alone for those 21 minutes too.

        Args:
            order: The order, or its id.

        Raises:
            InvalidArgumentError: If the id is invalid.
            JournalError: The journal cannot be written. The order is not driven here any more, but
                a scheduler would resume it after a restart.
        """
        order_id = validate.order_id(order.order_id if isinstance(order, Order) else order)
        removed = self._queue.remove(order_id)
        if removed is not None:
            removed.unrecorded = None
        await self._context.recorder.write([(order_id, defer)])
        if removed is not None and not removed.is_busy:
            await release(self._context, removed)

    def results(self) -> OrderResults:
        """Return an async iterator of the results.

        A result counts as delivered when the loop asks for the next one, and the journal records
        that first. A result whose handling was interrupted by a crash comes again after the
        restart; so does one whose loop ended early, to the next iterator. Only the newest iterator
        gets results: other listeners use `on_event`. It ends when `run` does.
        """
        self._reader = OrderResults(self._store, is_current=lambda reader: reader is self._reader)
        return self._reader

    async def run(self) -> None:
        """Resume what the journal has as pending, and drive orders until the task is cancelled.

        Raises:
            ClientStateError: The scheduler runs already, or the client or its HTTP session is
                closed. The orders stay pending.
            JournalError: The journal cannot be read. Nothing was sent.
        """
        if self._running:
            problem = "the scheduler runs already"
            raise ClientStateError(problem)
        self._running = True
        self._store.reopen()
        try:
            # Outside of the task group, which would wrap what this raises.
            await self._resume()
            await self._queue.run()
        finally:
            self._running = False
            self._store.end()

    async def _resume(self) -> None:
        for number, entry in enumerate(await self._context.recorder.pending()):
            if entry.order_id is not None and self._queue.get(entry.order_id) is None:
                self._queue.add(self._resumed(entry, entry.order_id), soon=entry.undelivered)
            if number % AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()  # many orders must not stop the event loop

    def _resumed(self, entry: JournalEntry, order_id: str) -> QueuedOrder:
        queued = self._queued(order_id, entry.created_at)
        queued.deadline = queued.age(self._context) + self._timeout
        queued.adopt(entry)
        if entry.undelivered:
            # The first step claims it, and finds the result.
            queued.intent, queued.deadline = self._intent, queued.age(self._context) + _CHECK_SPREAD
            queued.known = Known(next_poll=0.0)
        return queued

    def _queued(self, order_id: str, created_at: datetime) -> QueuedOrder:
        birth = self._context.elapsed.birth(created_at.timestamp())
        return QueuedOrder(order_id, birth, self._intent, 0.0, self._owner, _NO_METADATA)

    async def _record(self, queued: QueuedOrder) -> None:
        recorder = self._context.recorder
        change = queued.unrecorded
        if recorder.journal is None or change is None:
            await anyio.lowlevel.checkpoint()  # many in a loop must not stop the event loop
            return
        try:
            (entry,) = await recorder.write([(queued.order_id, change)])
        except JournalError as error:
            error.order_id = queued.order_id
            raise
        if queued.unrecorded is change:
            queued.unrecorded = None
        if entry is None:
            return
        try:
            check_root(self._context, entry)
        except ValueError:
            self._queue.remove(queued.order_id)
            raise
        if queued.is_current and not queued.is_busy:
            # The journal may know better when the order was created, and the deadline.
            updated = self._queued(queued.order_id, entry.created_at)
            updated.deadline, updated.intent = queued.deadline, queued.intent
            updated.adopt(entry)
            if updated.differs(queued):
                self._queue.add(updated)
            else:
                queued.metadata, queued.number = updated.metadata, updated.number

    async def _acknowledge(self, result: OrderResult) -> None:
        recorder = self._context.recorder
        await recorder.write([(result.order_id, acknowledge(recorder.now()))])
