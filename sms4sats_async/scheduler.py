"""Many orders at once: cancels each when its time has come, also those of a process that died."""

from collections.abc import Awaitable, Callable, Coroutine, Generator
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

import anyio
import anyio.lowlevel

from . import _validate as arguments
from ._orders.old_many import CancelQueue, CancelResults
from ._orders.states import MINIMUM_CANCEL_AGE
from .client import Sms4SatsClient
from .errors import ClientStateError, JournalError
from .journal import OrderJournal
from .journal.entry import JournalChange, left_alone, scheduled
from .journal.recorder import Recorder
from .models import Order

_AT_ONCE: Final = 2_000
"""Orders that are armed, or written down, in one go: some milliseconds."""

_LAST_WORD: Final = 5.0
"""Seconds that `run` takes at most, when it is ended, to write down what nobody awaited."""


class CancelScheduler:
    """Gives the money of many orders back: one timer and a fixed set of workers.

    Start `run` in a task group of your own. It takes up what is pending in the journal first, so
    that a process that comes back after a crash goes on where it was.

    Several schedulers may share a journal, in one process or several: an order is claimed in it
    before it is cancelled, so that no two cancel the same one. What each takes up at its start is
    everything that is pending, though: give every bot a journal of its own.

    It goes by both clocks. What the wall clock gets ahead counts as time that a machine slept, so
    one that is set forward makes it early (the service refuses that, and it is waited out); one
    that is set back changes nothing.

    Args:
        client: The client to cancel with; it stays the caller's.
        journal: Where orders are claimed and taken up; the client's own if None.
        concurrency: How many orders are cancelled at the same time, and how many connections that
            takes at most.
        minimum_age: Seconds (or a timedelta) before which no cancel is sent.

    Raises:
        InvalidArgumentError: An argument that cannot be meant.
    """

    def __init__(
        self,
        client: Sms4SatsClient,
        *,
        journal: OrderJournal | None = None,
        concurrency: int = 20,
        minimum_age: float | timedelta = MINIMUM_CANCEL_AGE,
    ) -> None:
        # The same house, one floor up.
        exchange = client._exchange  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        self._recorder = exchange.recorder
        if journal is not None and journal is not client.journal:
            journal = arguments.journal("journal", journal)
            self._recorder = Recorder(journal, clock=exchange.clock, tell=exchange.tell)
        self._minimum_age = arguments.seconds("minimum_age", minimum_age)
        self._unwritten: dict[str, JournalChange] = {}
        self._queue = CancelQueue(
            exchange,
            self._recorder,
            self._unwritten,
            concurrency=arguments.whole_number("concurrency", concurrency, least=1),
            patient=True,
        )
        self._running = False
        self._something_to_write = anyio.Event()
        self._writing = anyio.Lock()
        self._written = _Written(self._write_down)

    def __len__(self) -> int:
        """Return how many orders it has in hand."""
        return len(self._queue)

    def schedule(
        self, order: Order | str, /, not_before: datetime | None = None
    ) -> Awaitable[None]:
        """Cancel an order as soon as that is allowed; again, to change the time.

        It is in hand at once. Await what is returned to know that it stands in the journal; `run`
        writes it down otherwise. Call it in the event loop in which `run` runs.

        Args:
            order: The order, or its id. Of an id that the journal does not know, now is taken as
                the time it was made, which is the safe guess.
            not_before: When to cancel it at the earliest, with a time zone, beyond the two
                minutes; kept in the journal.

        Returns:
            What can be awaited, and raises a `JournalError` then.

        Raises:
            InvalidArgumentError: An argument that cannot be meant.
        """
        order_id = arguments.order_id(order.order_id if isinstance(order, Order) else order)
        if not_before is not None:
            not_before = arguments.aware("not_before", not_before)
        now = self._recorder.now()
        made = arguments.aware("created_at", order.created_at) if isinstance(order, Order) else now
        self._arm(order_id, made, not_before)
        return self._write(order_id, scheduled(order, not_before, now))

    def unschedule(self, order: Order | str, /) -> Awaitable[None]:
        """Leave an order to the service, which gives its money back by itself after 21 minutes.

        A request that is under way goes on, and is not repeated. A scheduler that takes the order
        up again after a restart leaves it alone for those 21 minutes too.

        Args:
            order: The order, or its id.

        Returns:
            What can be awaited to know that it stands in the journal.

        Raises:
            InvalidArgumentError: An id that cannot be one.
        """
        order_id = arguments.order_id(order.order_id if isinstance(order, Order) else order)
        self._queue.remove(order_id)
        return self._write(order_id, left_alone)

    def results(self) -> CancelResults:
        """Return an async iterator over what becomes of the orders, from now on.

        It ends when `run` does. Leave the loop at any time: nothing is held open. The same results
        come as `CancelFinished` to the client's `on_event`.
        """
        return self._queue.listen()

    async def run(self) -> None:
        """Cancel what is due, until the task is cancelled.

        Raises:
            ClientStateError: It runs already.
            JournalError: The journal cannot be used; nothing was sent.
        """
        if self._running:
            problem = "the scheduler runs already"
            raise ClientStateError(problem)
        self._running = True
        try:
            # Outside the group, which would wrap what this raises.
            await self._take_up_what_is_pending()
            async with anyio.create_task_group() as group:
                group.start_soon(self._keep_writing)
                await self._queue.run()
        finally:
            self._running = False
            self._queue.end()
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _LAST_WORD):
                await self._write_what_nobody_awaits()

    async def _take_up_what_is_pending(self) -> None:
        journal = self._recorder.journal
        if journal is None:
            return
        await self._write_down()
        try:
            pending = await journal.pending()
        except JournalError:
            raise
        except Exception as error:
            problem = f"the journal cannot be read ({type(error).__name__})"
            raise JournalError(problem) from error
        for number, entry in enumerate(pending):
            if entry.order_id is not None and entry.order_id not in self._queue:
                self._arm(entry.order_id, entry.created_at, entry.not_before)
            if number % _AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()  # many orders must not stop the event loop

    def _arm(self, order_id: str, created_at: datetime, not_before: datetime | None) -> None:
        self._queue.add(
            order_id,
            created_at=created_at.timestamp(),
            minimum_age=self._minimum_age,
            not_before=0.0 if not_before is None else not_before.timestamp(),
        )

    def _write(self, order_id: str, change: JournalChange) -> Awaitable[None]:
        if self._recorder.journal is not None:
            self._unwritten[order_id] = change
            self._something_to_write.set()
        return self._written

    async def _keep_writing(self) -> None:
        while True:
            await self._something_to_write.wait()
            self._something_to_write = anyio.Event()
            await self._write_what_nobody_awaits()

    async def _write_what_nobody_awaits(self) -> None:
        try:
            await self._write_down()
        except JournalError as error:  # tried again with the next one, and at the end of `run`
            self._recorder.complain(None, error)

    async def _write_down(self) -> None:
        """Write what is to be written, and return when that and what came before it stands."""
        if self._recorder.journal is None:
            await anyio.lowlevel.checkpoint()  # many in a loop must not stop the event loop
        if not self._unwritten:
            return
        async with self._writing:
            while self._unwritten:
                some = list(islice(self._unwritten.items(), _AT_ONCE))
                entries = await self._recorder.write(some)
                for (order_id, change), entry in zip(some, entries, strict=True):
                    if self._unwritten.get(order_id) is change:  # and no newer one
                        del self._unwritten[order_id]
                    # The journal may know better than the caller when the order was made.
                    if entry is not None and order_id in self._queue:
                        self._arm(order_id, entry.created_at, entry.not_before)


class _Written:
    """What `schedule` returns: await it to know that the journal holds it."""

    def __init__(self, write_down: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._write_down = write_down

    def __await__(self) -> Generator[Any, None, None]:
        return self._write_down().__await__()
