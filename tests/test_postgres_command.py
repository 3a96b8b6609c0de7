"""The command `sms4sats postgres init`."""

import json
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

pytest.importorskip("asyncpg", reason="the extra `postgres` is not installed")
pytest.importorskip("typer", reason="the extra `cli` is not installed")

from sms4sats_async.cli import main
from sms4sats_async.postgres import PostgresJournal
from tests.postgres import execute, fetch

Captured = pytest.CaptureFixture[str]
NAME = "SMS4SATS_POSTGRES_DSN"


@pytest.fixture
def empty(dsn: str) -> Iterator[str]:
    """A database without the tables, now and afterwards."""
    drop = "DROP SCHEMA IF EXISTS sms4sats CASCADE"
    anyio.run(execute, dsn, drop)
    yield dsn
    anyio.run(execute, dsn, drop)


def test_init_makes_the_tables_and_can_be_repeated(
    empty: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv(NAME, empty)
    for _ in range(2):
        assert main(["postgres", "init"]) == 0
    assert capsys.readouterr() == ("The tables are ready.\n" * 2, "")
    assert main(["postgres", "init", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"done": "init"}

    async def use() -> None:
        async with PostgresJournal(empty) as journal:
            assert await journal.history() == []

    anyio.run(use)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "Error: The command needs the DSN of a database. Nothing was changed."),
        ("http://u:secret@h/d", "Error: The DSN of the journal's database is invalid."),
        ("postgresql://u:secret@/x?host=/nowhere", "Error: The journal's database cannot be prep"),
    ],
)
def test_a_database_that_cannot_be_used_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured, value: str | None, problem: str
) -> None:
    if value is not None:
        monkeypatch.setenv(NAME, value)
    assert main(["postgres", "init"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(problem)
    assert NAME in err
    assert "secret" not in err


def test_the_tables_of_a_newer_version_are_left_alone(
    empty: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv(NAME, empty)
    assert main(["postgres", "init"]) == 0
    anyio.run(execute, empty, "UPDATE sms4sats.version SET version = 9")
    assert main(["postgres", "init"]) == 2
    assert "update sms4sats-async" in capsys.readouterr().err
    rows: list[Any] = anyio.run(fetch, empty, "SELECT version FROM sms4sats.version")
    assert [version for (version,) in rows] == [9]


def test_the_dsn_is_never_an_argument(capsys: Captured) -> None:
    assert main(["postgres", "init", "postgresql://host/name"]) == 2
    assert "Nothing was sent." in capsys.readouterr().err
