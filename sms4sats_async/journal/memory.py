"""A journal in memory, for tests and for programs that need no restart."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from sms4sats_async._validate import aware, whole_number

from .entry import JournalChange, JournalEntry, belongs_to, can_be_pruned, oldest_first


class MemoryJournal:
    """An `OrderJournal` in memory. Its entries are lost when the process ends."""

    def __init__(self) -> None:
        # By key, in the order in which they came; and the newest key of each order ID.
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

    async def pending(self, base_url: str | None = None) -> list[JournalEntry]:
        """Return the entries of orders that have not ended; see `OrderJournal.pending`."""
        return self._select(base_url, lambda entry: entry.pending)

    async def undelivered(self, base_url: str | None = None) -> list[JournalEntry]:
        """Return the entries whose result was not delivered; see `OrderJournal.undelivered`."""
        return self._select(base_url, lambda entry: entry.undelivered)

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
        entries = oldest_first(
            entry for entry in self._entries.values() if since is None or entry.created_at >= since
        )
        return entries[::-1][:limit]

    async def prune(self, before: datetime, /) -> int:
        """Remove old entries; see `OrderJournal.prune`."""
        moment = aware("before", before)
        old = [entry.key for entry in self._entries.values() if can_be_pruned(entry, moment)]
        for key in old:
            del self._entries[key]
        self._find_keys()
        return len(old)

    def _select(
        self, base_url: str | None, wanted: Callable[[JournalEntry], bool]
    ) -> list[JournalEntry]:
        return oldest_first(
            entry
            for entry in self._entries.values()
            if wanted(entry) and belongs_to(entry, base_url)
        )

    def _change(self, reference: str, change: JournalChange) -> JournalEntry | None:
        before = self._entries.get(self._keys.get(reference, reference))
        after = change(before)
        if after is before:
            return after
        if after is None and before is not None:
            del self._entries[before.key]
        if after is not None:
            self._entries[after.key] = after
        (old_key, was), (key, now) = _names(before), _names(after)
        if was is None and key is not None and now is not None and now not in self._keys:
            self._keys[now] = key
        elif was != now or (now is not None and old_key != key):
            self._find_keys()
        return after

    def _find_keys(self) -> None:
        self._keys = {
            entry.order_id: key
            for key, entry in self._entries.items()
            if entry.order_id is not None
        }


def _names(entry: JournalEntry | None) -> tuple[str | None, str | None]:
    """Return the key and the order ID of an entry."""
    return (None, None) if entry is None else (entry.key, entry.order_id)


def holding(entries: Iterable[JournalEntry]) -> MemoryJournal:
    """Return a journal with these entries, the oldest first."""
    journal = MemoryJournal()
    journal._entries = {entry.key: entry for entry in entries}  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - the same module
    journal._find_keys()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - the same module
    return journal


def entries_of(journal: MemoryJournal) -> Mapping[str, JournalEntry]:
    """Return the entries that a journal has now by their keys, the oldest first."""
    return dict(journal._entries)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - the same module
