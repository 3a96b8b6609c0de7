"""The journal in PostgreSQL, on a real server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("asyncpg")

from sms4sats_async.postgres import PostgresJournal
from tests.journal_contract import StoredJournalContract

if TYPE_CHECKING:
    from sms4sats_async import OrderJournal


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class TestPostgresJournal(StoredJournalContract):
    """The contract of every journal; a folder stands for a schema."""

    dsn = ""

    @pytest.fixture(autouse=True)
    @classmethod
    def _server(cls, dsn: str) -> Iterator[None]:
        cls.dsn = dsn
        yield

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path) -> AsyncGenerator[OrderJournal]:  # type: ignore[override]
        schema = "t_" + "".join(x if x.isalnum() else "_" for x in folder.name.lower())[-40:]
        async with PostgresJournal(cls.dsn, schema=schema) as journal:
            await journal.create_schema()
            yield journal
