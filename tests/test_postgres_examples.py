"""The programs in examples/ that drive orders on many machines, or with another engine."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest
import yaml

pytest.importorskip("asyncpg", reason="the extra `postgres` is not installed")

from apscheduler.schedulers import (  # pyright: ignore[reportMissingTypeStubs]
    asyncio as schedulers,
)
from pgqueuer import PgQueuer
from pgqueuer.queries import Queries

from examples import bot, engine_apscheduler, engine_pgqueuer, worker
from sms4sats_async import (
    JournalEntry,
    JournalError,
    MemoryJournal,
    Order,
    OrderError,
    OrderOutcome,
    OrderResult,
    OrderState,
    OrderStatus,
    Sms4SatsClient,
    Sms4SatsError,
)
from sms4sats_async._clock import SystemClock
from sms4sats_async.postgres import PostgresJournal, PostgresScheduler
from sms4sats_async.simulator import Behaviour, Simulator
from sms4sats_async.testing import http_client
from tests.postgres import connect, execute, fetch, until

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
DOCS = EXAMPLES.parent / "docs"

SOON = Behaviour(pay_delay=0, number_delay=0, code_delay=None)
"""The code arrives when a test says so."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio

Answers = list[OrderResult | Sms4SatsError]


@asynccontextmanager
async def pgqueuer(client: Sms4SatsClient, dsn: str, answers: Answers) -> AsyncGenerator[Any]:
    connection, other = await connect(dsn), await connect(dsn)
    queries = Queries.from_asyncpg_connection(other)
    if not await queries.schema_is_installed():
        await queries.install()
    engine = PgQueuer.from_asyncpg_connection(connection)
    engine_pgqueuer.register(engine, queries, client, answers.append)
    running = asyncio.create_task(engine.run())
    try:
        yield partial(engine_pgqueuer.start, queries)
    finally:
        engine.shutdown.set()
        await running
        await connection.close()
        await other.close()


@asynccontextmanager
async def apscheduler(client: Sms4SatsClient, _dsn: str, answers: Answers) -> AsyncGenerator[Any]:
    engine: Any = schedulers.AsyncIOScheduler()
    engine.start()
    steps = engine_apscheduler.Steps(engine, client, answers.append)

    async def start(order_id: str) -> None:
        steps.plan(order_id, datetime.now(UTC))

    try:
        yield start
    finally:
        engine.shutdown(wait=False)


class HastyClient(Sms4SatsClient):
    """A client whose steps are due soon, because an engine has no clock of a test.

    Attributes:
        steps: What each step returned.
        error: What the next step raises.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.steps: list[OrderResult | datetime] = []
        self.error: Sms4SatsError | None = None

    async def advance_order(self, order: Order | str) -> OrderResult | datetime:
        error, self.error = self.error, None
        if error is not None:
            raise error
        step = await super().advance_order(order)
        self.steps.append(step)
        soon = datetime.now(UTC) + timedelta(seconds=0.05)
        return soon if isinstance(step, datetime) else step


def client_of(simulator: Simulator) -> HastyClient:
    return HastyClient(http_client=http_client(simulator), journal=MemoryJournal())


@pytest.mark.parametrize("engine", [pgqueuer, apscheduler])
async def test_an_engine_drives_an_order_step_by_step(
    dsn: str, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (engine_pgqueuer, engine_apscheduler):
        monkeypatch.setattr(module, "OUTAGE", timedelta(0))
    simulator, answers = Simulator(SOON, clock=SystemClock()), Answers()
    client = client_of(simulator)
    order = await client.create_order(187, "tg", metadata={"chat": "42"})
    client.error = JournalError("the database is away")
    async with engine(client, dsn, answers) as start:
        await start(order.order_id)
        await until(lambda: len(client.steps) >= 2)
        assert answers == []
        simulator.deliver_code(order.order_id, "007")
        await until(lambda: answers)
    (result,) = answers
    assert isinstance(result, OrderResult)
    assert (result.code, result.metadata) == ("007", {"chat": "42"})
    assert client.steps[-1] == result


@pytest.mark.parametrize("engine", [pgqueuer, apscheduler])
async def test_an_engine_reports_an_unknown_end_once(dsn: str, engine: Any) -> None:
    answers = Answers()
    client = client_of(Simulator(SOON, clock=SystemClock()))
    order = await client.create_order(187, "tg")
    client.error = OrderError("the end is unknown")
    async with engine(client, dsn, answers) as start:
        await start(order.order_id)
        await until(lambda: answers)
    assert [str(answer) for answer in answers] == [str(OrderError("the end is unknown"))]


# --- pages ----------------------------------------------------------------------------------------


def test_the_queries_of_the_metrics_run(dsn: str) -> None:
    queries = re.findall(
        r"^```sql\n(.*?)^```", (DOCS / "metrics.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )

    async def ask() -> list[dict[str, Any]]:
        async with PostgresJournal(dsn) as journal:
            await journal.create_schema()
            await execute(dsn, "TRUNCATE sms4sats.orders, sms4sats.pgqueuer")
            client = Sms4SatsClient(http_client=http_client(Simulator()), journal=journal)
            await client.create_order(187, "tg")
            scheduler = PostgresScheduler(client)
            await scheduler.add(await client.create_order(187, "tg"))
        return [dict(row) for query in queries for row in await fetch(dsn, query)]

    depth, pending = anyio.run(ask)
    assert depth == {"sms4sats_queue_depth": 1}
    assert pending.pop("sms4sats_oldest_pending_seconds") < 60
    assert pending == {"sms4sats_pending": 2, "sms4sats_driven": 0}


def test_the_compose_file_names_what_exists() -> None:
    compose = yaml.safe_load((EXAMPLES / "compose.yaml").read_text("utf-8"))
    build = compose["services"]["init"]["build"]
    sources = [
        (EXAMPLES / build["context"] / name).resolve()
        for copied in re.findall(r"COPY (.*) /", build["dockerfile_inline"])
        for name in copied.split()
    ]
    assert [source for source in sources if not source.exists()] == []
    assert {EXAMPLES / "worker.py", EXAMPLES / "bot.py"} <= {*sources}
    # The image has all that a build of the package reads.
    hatch = tomllib.loads((DOCS.parent / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]
    needed = {DOCS.parent / name for name in hatch["build"]["targets"]["wheel"]["only-include"]}
    assert needed <= {*sources}
    assert "--host=localhost" in compose["services"]["db"]["healthcheck"]["test"]
    started = [each.get("entrypoint", each.get("command")) for each in compose["services"].values()]
    assert started == [
        None,
        ["sms4sats", "postgres", "init"],
        ["python", "/worker.py"],
        ["python", "/bot.py"],
    ]


# --- a worker -------------------------------------------------------------------------------------


def test_a_worker_answers_the_orders_of_a_bot(dsn: str) -> None:
    simulator = Simulator(SOON, clock=SystemClock())

    async def create() -> None:
        async with PostgresJournal(dsn) as journal:
            await journal.create_schema()
        for chat in "12":
            await bot.main(chat, "187", "tg")

    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(simulator.serve()) as root,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("SMS4SATS_POSTGRES_DSN", dsn)
        patch.setenv("SMS4SATS_BASE_URL", root)
        portal.call(create)
        with subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, str(EXAMPLES / "worker.py")],
            env=os.environ | {"PYTHONPATH": str(EXAMPLES.parent)},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            numbers = {process.stdout.readline() for _ in range(2)}
            for order, code in zip(simulator.orders, ("001", "002"), strict=True):
                simulator.deliver_code(order.order_id, code)
            lines = {process.stdout.readline() for _ in range(2)}
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    assert numbers == {
        f"chat {chat}: number {order.number}\n"
        for chat, order in zip("12", simulator.orders, strict=True)
    }
    assert lines == {"chat 1: code 001\n", "chat 2: code 002\n"}


class AwayOnce(MemoryJournal):
    """A journal whose database is away at the first read."""

    was_away = False

    async def get(self, order_id: str) -> JournalEntry | None:
        if not self.was_away:
            self.was_away = True
            raise JournalError("the database is away")
        return await super().get(order_id)


async def test_a_worker_tells_each_number_once(capsys: pytest.CaptureFixture[str]) -> None:
    journal: Any = AwayOnce()
    client = Sms4SatsClient(http_client=http_client(Simulator()), journal=journal)
    mine = await client.create_order(187, "tg", metadata={"chat": "42"})
    polls, statuses = anyio.create_memory_object_stream[OrderStatus](9)
    polls.send_nowait(OrderStatus(mine.order_id, OrderState.HELD))
    for _ in range(3):
        polls.send_nowait(OrderStatus(mine.order_id, OrderState.NUMBER_ASSIGNED, number="+1"))
    polls.send_nowait(OrderStatus("0" * 64, OrderState.NUMBER_ASSIGNED, number="+2"))
    polls.send_nowait(OrderStatus("1" * 64, OrderState.CODE_RECEIVED, number="+3"))
    polls.close()

    with statuses:
        await worker.tell_numbers(journal, statuses, set())

    assert capsys.readouterr().out == "chat 42: number +1\nchat -: number +2\n"


@pytest.mark.parametrize(
    ("outcome", "error", "line"),
    [
        (OrderOutcome.CANCELLED, None, "chat 42: refunded"),
        (OrderOutcome.MESSAGE_SENT, None, "chat 42: the message was sent"),
        (None, OrderError("the end is unknown"), "chat 42: the end is unknown"),
    ],
)
async def test_a_worker_answers_what_happened(
    capsys: pytest.CaptureFixture[str],
    outcome: OrderOutcome | None,
    error: OrderError | None,
    line: str,
) -> None:
    await worker.answer(OrderResult("4", outcome, error=error, metadata={"chat": "42"}))
    assert capsys.readouterr().out.startswith(line)
