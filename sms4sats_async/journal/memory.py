"""A journal that lives as long as its process: for tests, and to ask what goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .entry import can_be_pruned, newest_first

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from .entry import Change, JournalEntry


class MemoryJournal:
    """An `OrderJournal` in memory; what it holds ends with the process."""

    def __init__(self) -> None:
        # By key, in the order in which they came; and the newest key of each order id.
        self._entries: dict[str, JournalEntry] = {}
        self._keys: dict[str, str] = {}

    async def update(
        self, changes: Sequence[tuple[str, Change]], /
    ) -> Sequence[JournalEntry | None]:
        """Change entries; see `OrderJournal.update`."""
        return [self._change(reference, change) for reference, change in changes]

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
        return newest_first(
            entry for entry in self._entries.values() if since is None or entry.created_at >= since
        )[:limit]

    async def prune(self, before: datetime, /) -> int:
        """Remove what was finished before that time; see `OrderJournal.prune`."""
        old = [entry for entry in self._entries.values() if can_be_pruned(entry, before)]
        for entry in old:
            self._remove(entry)
        return len(old)

    def _change(self, reference: str, change: Change) -> JournalEntry | None:
        before = self._entries.get(self._keys.get(reference, reference))
        after = change(before)
        if after is None:
            if before is not None:
                self._remove(before)
        elif after is not before:
            self._entries[after.key] = after
            if after.order_id is not None:
                self._keys[after.order_id] = after.key
        return after

    def _remove(self, entry: JournalEntry) -> None:
        del self._entries[entry.key]
        if entry.order_id is not None and self._keys.get(entry.order_id) == entry.key:
            del self._keys[entry.order_id]
