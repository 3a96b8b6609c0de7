"""A journal that lives as long as its process: for tests, and to ask what goes on."""

from collections.abc import Sequence
from datetime import datetime

from sms4sats_async._validate import aware, whole_number

from .entry import JournalChange, JournalEntry, can_be_pruned, newest_first


class MemoryJournal:
    """An `OrderJournal` in memory; what it holds ends with the process."""

    def __init__(self) -> None:
        # By key, in the order in which they came; and the newest key of each order id.
        self._entries: dict[str, JournalEntry] = {}
        self._keys: dict[str, str] = {}

    async def update(
        self, changes: Sequence[tuple[str, JournalChange]], /
    ) -> Sequence[JournalEntry | None]:
        """Change entries; see `OrderJournal.update`."""
        # A single change that raises has changed nothing yet.
        before = dict(self._entries) if len(changes) > 1 else self._entries
        try:
            return [self._change(reference, change) for reference, change in changes]
        except BaseException:
            self._entries = before
            self._find_keys()
            raise

    async def pending(self) -> list[JournalEntry]:
        """Return the entries for which something is left to be done, the oldest first."""
        return newest_first(entry for entry in self._entries.values() if entry.pending)[::-1]

    async def get(self, order_id: str, /) -> JournalEntry | None:
        """Return the entry of an order, or None if there is none."""
        return self._entries[self._keys[order_id]] if order_id in self._keys else None

    async def history(
        self, *, since: datetime | None = None, limit: int | None = None
    ) -> list[JournalEntry]:
        """Return all entries, the newest first; see `OrderJournal.history`."""
        if since is not None:
            since = aware("since", since)
        if limit is not None:
            limit = whole_number("limit", limit, least=0)
        return newest_first(
            entry for entry in self._entries.values() if since is None or entry.created_at >= since
        )[:limit]

    async def prune(self, before: datetime, /) -> int:
        """Remove what was finished before that time; see `OrderJournal.prune`."""
        moment = aware("before", before)
        old = [entry.key for entry in self._entries.values() if can_be_pruned(entry, moment)]
        for key in old:
            del self._entries[key]
        self._find_keys()
        return len(old)

    def _change(self, reference: str, change: JournalChange) -> JournalEntry | None:
        before = self._entries.get(self._keys.get(reference, reference))
        after = change(before)
        if after is before:
            return after
        if after is not None:
            self._entries[after.key] = after
        if after is None and before is not None:
            del self._entries[before.key]
        was = None if before is None else before.order_id
        now = None if after is None else after.order_id
        if was is None and after is not None and now is not None and now not in self._keys:
            self._keys[now] = after.key
        elif was != now:
            self._find_keys()
        return after

    def _find_keys(self) -> None:
        self._keys = {
            entry.order_id: key
            for key, entry in self._entries.items()
            if entry.order_id is not None
        }
