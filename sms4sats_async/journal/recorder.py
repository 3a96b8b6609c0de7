"""Write to the journal for the client, in bounded time, and never lose what is known instead."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

import anyio

from sms4sats_async._cancellation import cancellations_of_others
from sms4sats_async._clock import Clock
from sms4sats_async._redact import hide_in_causes
from sms4sats_async.errors import JournalError
from sms4sats_async.events import Event, JournalFailed

from .entry import JournalChange, JournalEntry, OrderJournal

T = TypeVar("T")

_BOUND: Final = 5.0
"""Seconds to wait for the journal at most; for a write, also in a task that is being cancelled."""


class Recorder:
    """Writes to one journal, or to none.

    Attributes:
        journal: The journal, or None.
        base_url: The service root, which is recorded with every order.
    """

    def __init__(
        self,
        journal: OrderJournal | None,
        *,
        base_url: str,
        clock: Clock,
        report: Callable[[Event], None],
    ) -> None:
        self.journal = journal
        self.base_url = base_url
        self._clock = clock
        self._report = report

    def now(self) -> datetime:
        """Return the time that is recorded."""
        return datetime.fromtimestamp(self._clock.now(), UTC)

    async def write(
        self, changes: Sequence[tuple[str, JournalChange]]
    ) -> Sequence[JournalEntry | None]:
        """Change entries, also while the task is being cancelled, for a bounded time.

        Raises:
            JournalError: The changes were not recorded, or that is unknown.
        """
        if self.journal is None:
            return []
        update, references = self.journal.update, [reference for reference, _ in changes]

        async def write() -> Sequence[JournalEntry | None]:
            entries = await update(changes)
            if len(entries) != len(changes):
                raise TypeError("update() must return one entry for each change")
            return entries

        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _BOUND):
            return await _translate(write, "written", references)
        raise _too_late()

    async def pending(self) -> Sequence[JournalEntry]:
        """Return what a scheduler resumes: results that were not delivered, then pending orders.

        Raises:
            JournalError: The journal cannot be read.
        """
        if self.journal is None:
            return []
        # In this order, so that an order that ends between the two is in one of them at least.
        pending = await _translate(partial(self.journal.pending, self.base_url), "read")
        undelivered = await _translate(partial(self.journal.undelivered, self.base_url), "read")
        return [*undelivered, *pending]

    async def note(
        self, order_id: str | None, change: JournalChange, *, key: str = ""
    ) -> JournalEntry | None:
        """Record what became known about an order; `key` identifies one without an ID.

        The failure of a journal must not hide where the money is. So it is reported and logged, and
        the call goes on.
        """
        try:
            written = await self.write([(order_id or key, change)])
        except JournalError as error:
            self.complain(order_id, error)
            return None
        return written[0] if written else None

    async def find(self, order_id: str) -> JournalEntry | None:
        """Return the entry of an order, or None if there is none or the journal fails."""
        if self.journal is None:
            return None
        read = partial(self.journal.get, order_id)
        try:
            with anyio.move_on_after(_BOUND):
                return await _translate(read, "read", [order_id])
            raise _too_late()
        except JournalError as error:
            self.complain(order_id, error)
            return None

    def complain(self, order_id: str | None, error: JournalError) -> None:
        """Report that something was not recorded."""
        error.order_id = order_id
        self._report(JournalFailed(order_id, error))


def _too_late() -> JournalError:
    problem = f"the journal did not answer within {_BOUND:g} s"
    return JournalError(problem)


async def _translate(ask: Callable[[], Awaitable[T]], what: str, secrets: Sequence[str] = ()) -> T:
    """Return what a journal answers; whatever it raises is a `JournalError`."""
    try:
        with cancellations_of_others():
            return await ask()
    except Exception as error:
        failure = error
        if not isinstance(error, JournalError):
            problem = f"the journal cannot be {what} ({type(error).__name__})"
            failure = JournalError(problem)
            failure.__cause__ = error
        hide_in_causes(failure, secrets)
        if failure is error:
            raise
        raise failure from error
