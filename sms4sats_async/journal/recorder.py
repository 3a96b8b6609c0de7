"""Writing in the journal for the client: in time, and never at the cost of what is known."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import anyio

from sms4sats_async._clock import Clock
from sms4sats_async._redact import hide_in_causes
from sms4sats_async.errors import JournalError
from sms4sats_async.events import Event, JournalFailed

from .entry import JournalChange, JournalEntry, OrderJournal

_BOUND: Final = 5.0
"""Seconds to wait at most for what is being written; a task that is being cancelled waits too."""


class Recorder:
    """Writes in one journal, or in none.

    Attributes:
        journal: The journal, or None.
    """

    def __init__(
        self, journal: OrderJournal | None, *, clock: Clock, tell: Callable[[Event], None]
    ) -> None:
        self.journal = journal
        self._clock = clock
        self._tell = tell

    def now(self) -> datetime:
        """Return the time that is written down."""
        return datetime.fromtimestamp(self._clock.now(), UTC)

    async def write(
        self, changes: Sequence[tuple[str, JournalChange]]
    ) -> Sequence[JournalEntry | None]:
        """Change entries, also while the task is being cancelled, for a bounded time.

        Raises:
            JournalError: They were not written, or nobody knows.
        """
        if self.journal is None:
            return []
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _BOUND):
            try:
                return await self.journal.update(changes)
            except JournalError:
                raise
            except Exception as error:
                problem = f"the journal cannot be written ({type(error).__name__})"
                failure = JournalError(problem)
                failure.__cause__ = error
                hide_in_causes(failure, [reference for reference, _ in changes])
                raise failure from error
        problem = f"the journal did not answer within {_BOUND:g} s"
        raise JournalError(problem)

    async def note(self, order_id: str | None, change: JournalChange, *, key: str = "") -> None:
        """Write down what became known of an order; `key` names one without an id.

        A journal that cannot be written must not cost anybody the knowledge of what became of the
        money, so the failure is told and logged, and the call goes on.
        """
        try:
            await self.write([(order_id or key, change)])
        except JournalError as error:
            self.complain(order_id, error)

    def complain(self, order_id: str | None, error: JournalError) -> None:
        """Tell that something was not written down."""
        error.order_id = order_id
        self._tell(JournalFailed(order_id, error))
