"""Many machines: a journal in PostgreSQL, and a scheduler that any number of workers run."""

try:
    from .journal import PostgresJournal
    from .scheduler import PostgresScheduler
except ImportError as _error:
    raise ImportError(
        "PostgreSQL needs asyncpg and pgqueuer: pip install 'sms4sats-async[postgres]'"
    ) from _error

__all__ = ["PostgresJournal", "PostgresScheduler"]
