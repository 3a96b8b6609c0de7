"""Journals: they record every order and how it ended, so that orders survive a crash.

`entry` defines what is recorded and the pure changes to it, `recorder` writes for the client,
`memory` and `sqlite` are the two journals of the library.
"""

from .entry import JournalChange, JournalEntry, OrderJournal
from .memory import MemoryJournal
from .sqlite import SqliteJournal

__all__ = ["JournalChange", "JournalEntry", "MemoryJournal", "OrderJournal", "SqliteJournal"]
