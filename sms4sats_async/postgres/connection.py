"""A connection to the database that is opened when it is used, and again when it was lost."""

from __future__ import annotations

import asyncio  # asyncpg runs on asyncio only
import time
from typing import TYPE_CHECKING, Any, Final

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from sms4sats_async._redact import quote
from sms4sats_async.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .schema import Connection

_asyncpg: Any = asyncpg  # it has no types

_PATIENCE: Final = 3.0
"""Seconds to wait for a new connection."""

_LONGEST_STATEMENT: Final = 15.0
"""Seconds after which a statement without an answer is a lost connection."""

_SETTINGS: Final = {
    "application_name": "sms4sats",
    # Every statement has its index. A table that grew fast has no statistics yet that say so.
    "enable_seqscan": "off",
    # A suspended process must not keep its locks: the server ends its transaction.
    "idle_in_transaction_session_timeout": "4000",
    "lock_timeout": "4000",
}

_PASSING: Final = ("08", "25006", "25P03", "40", "53", "55P03", "57", "58")
"""How the codes of errors begin that may be over at the next attempt: the connection, the disk, a
lock, a deadlock, a server that stops (PostgreSQL's manual, appendix A)."""

_CLOSE: Final = 1.0
"""Seconds by which the clocks of this machine and of the database may differ and count as one."""

_MEASURE_AFTER: Final = 10.0
"""Seconds after which the difference of the clocks is measured again."""

_STEADY: Final = 0.5
"""Seconds by which a measurement must differ from the last one, or a clock jump, to count."""

_MICROSECONDS: Final = 1_000_000
_NOW: Final = "SELECT extract(epoch FROM clock_timestamp())::float8"


def is_passing(error: BaseException) -> bool:
    """Return whether an error may be over at the next attempt."""
    state: object = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        return state.startswith(_PASSING)
    if isinstance(error, asyncpg.InterfaceError):  # the connection was closed meanwhile
        return not isinstance(error, ValueError)
    return isinstance(error, OSError)  # a TimeoutError too


def explained(error: BaseException, what: str) -> JournalError:
    """Return a `JournalError` that says why the database cannot be used."""
    if getattr(error, "detail", None) is not None:  # it shows a whole row, and tracebacks show it
        error.detail = None  # type: ignore[attr-defined]
    reason = quote(str(error).partition("\n")[0]) or type(error).__name__
    found = JournalError(f"the journal's database {what}: {reason}")
    found.__cause__ = error
    return found


class ClockShift:
    """By how much this machine's clock is ahead of the database's.

    A difference of less than a second counts as none.

    Attributes:
        microseconds: The difference.
    """

    def __init__(self) -> None:
        self.microseconds: int = 0
        self._measured_at = -_MEASURE_AFTER
        self._ahead = 0.0

    async def measure(self, connection: Connection) -> None:
        """Measure it, unless that was done a moment ago and no clock has jumped since.

        Raises:
            TimeoutError: The difference is not known.
        """
        steady = time.monotonic()
        has_jumped = abs(time.time() - steady - self._ahead) >= _STEADY  # or was never measured
        if steady - self._measured_at < _MEASURE_AFTER and not has_jumped:
            return
        before = time.time()
        database: float = await connection.fetchval(_NOW)
        after = time.time()
        if not 0 <= after - before < _STEADY:
            # The answer came late, the process stood still, or its clock was set.
            if has_jumped:  # to others, an order of a wrong time may be old enough for a cancel
                raise TimeoutError("it answers too slowly to compare the clocks")
            return  # the next use measures again
        self._measured_at = time.monotonic()
        self._ahead = time.time() - self._measured_at
        shift = (before + after) / 2 - database
        if abs(shift - self.microseconds / _MICROSECONDS) > _STEADY:
            self.microseconds = 0 if abs(shift) < _CLOSE else round(shift * _MICROSECONDS)


class Link:
    """One connection, which one task at a time may use.

    Args:
        dsn: The database.
        check: What is done with each new connection: to check the tables, to listen.

    Attributes:
        lock: Held by the task that uses the connection.
    """

    def __init__(
        self,
        dsn: str,
        *check: Callable[[Connection], Awaitable[None]],
    ) -> None:
        self._dsn = dsn
        self._check = check
        self._connection: Connection | None = None
        self.lock: asyncio.Lock = asyncio.Lock()

    async def connected(self) -> Connection:
        """Return the connection; open it if there is none.

        Raises:
            JournalError: The tables are of another version, or the DSN is invalid.
            Exception: There is no connection.
        """
        if self._connection is None or self._connection.is_closed():
            self._connection = None
            connection = await connect(self._dsn)
            try:
                for check in self._check:
                    await check(connection)
            except BaseException:
                connection.terminate()
                raise
            self._connection = connection
        return self._connection

    def drop(self) -> None:
        """Close the connection without waiting, after an error."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            try:
                await connection.close(timeout=_PATIENCE)
            except Exception:  # noqa: BLE001 - it is not needed any more, and it was lost
                connection.terminate()


async def connect(dsn: str) -> Connection:
    """Return a new connection.

    Raises:
        JournalError: The DSN is invalid.
        Exception: There is no connection.
    """
    try:
        connection: Connection = await _asyncpg.connect(
            dsn, timeout=_PATIENCE, command_timeout=_LONGEST_STATEMENT, server_settings=_SETTINGS
        )
    except ValueError:  # its text may quote the password
        problem = "the DSN of the journal's database is invalid"
        raise JournalError(problem) from None
    return connection
