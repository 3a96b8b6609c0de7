"""What survives a crash: every order, and what became of it, written down.

`entry` holds what is written and the pure changes to it, `recorder` writes for the client, `memory`
and `sqlite` are the two journals there are.
"""

from .entry import JournalChange, JournalEntry, OrderJournal
from .memory import MemoryJournal
from .sqlite import SqliteJournal

__all__ = ["JournalChange", "JournalEntry", "MemoryJournal", "OrderJournal", "SqliteJournal"]
