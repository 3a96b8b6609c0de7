"""Many machines: a journal in PostgreSQL, and a scheduler that any number of workers run."""

try:
    import asyncpg as _asyncpg  # type: ignore[import-untyped] # noqa: F401
    import pgqueuer as _pgqueuer  # noqa: F401
except ImportError as error:
    raise ImportError(
        "PostgreSQL needs asyncpg and pgqueuer: pip install 'sms4sats-async[postgres]'"
    ) from error

from .journal import PostgresJournal
from .scheduler import PostgresScheduler

__all__ = ["PostgresJournal", "PostgresScheduler"]
