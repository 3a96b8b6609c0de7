"""Kill, stop and cut off workers, and the server itself; then compare the results with the ledger.

The workers (tests/postgres_worker.py) are real processes on a real PostgreSQL. The simulated
service runs here, over a real socket. All use one clock that runs faster than real time.
`TORTURE=200` does 200 rounds of each fault, and stops the server and fills a disk 25 times.
"""

import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest

pytest.importorskip("asyncpg", reason="the extra `postgres` is not installed")

from collections.abc import Coroutine, Sequence

from sms4sats_async import JournalEntry, OrderOutcome, Sms4SatsClient
from sms4sats_async.postgres import PostgresJournal, PostgresScheduler
from sms4sats_async.simulator import Behaviour, Holder, Simulator, StateError
from tests.crash_bot import SharedClock
from tests.postgres import Server, execute, fetch

ROUNDS = int(os.environ.get("TORTURE", "2"))
PART = 8
"""Rounds of one test: less than a minute."""

PARTS = -(-ROUNDS // PART)
SPEED = 30.0
BEHAVIOURS = tuple(Behaviour(pay_delay=0, code_delay=delay) for delay in (None, None, 60, 200))
MINIMUM_AGE = 120.0
SHORTLY = 1.0
"""Real seconds by which the measured clocks of two machines may differ and count as one."""

NOTICED = 3.0
"""Real seconds after which a worker uses a database that is back: a connection may take as long."""

WORKER = Path(__file__).with_name("postgres_worker.py")
LIFE = 90.0
"""Real seconds after which a worker that lives on has failed the test."""


class Worker:
    """A worker process, and what it said."""

    def __init__(
        self, scene: "Scene", name: str, *, ahead: float = 0.0, alone: bool = False
    ) -> None:
        self.name = name
        self.ready = threading.Event()
        times = (scene.speed, scene.epoch, scene.origin, ahead, float(alone))
        self._scene = scene
        self.process = subprocess.Popen(  # noqa: S603 - Python itself, with words of ours
            [sys.executable, str(WORKER), name, scene.root, scene.schema]
            + [repr(each) for each in times],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ
            | {"PYTHONPATH": str(WORKER.parent.parent), "SMS4SATS_POSTGRES_DSN": scene.dsn},
        )
        self._guard = threading.Timer(LIFE, self.process.kill)
        self._guard.start()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            match line.split():
                case ["READY"]:
                    self.ready.set()
                case ["RESULT", order_id, outcome, code, _]:
                    self._scene.results.append((order_id, outcome, code))
                case _:
                    pass

    def kill(self) -> None:
        self._guard.cancel()
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


class Scene:
    """The service, the database, and the workers."""

    def __init__(self, dsn: str, seed: object, portal: Any, speed: float = SPEED) -> None:
        self.dsn = dsn
        self.draw = random.Random(str(seed))  # noqa: S311 - a test's dice
        self.schema = f"s_{secrets.token_hex(6)}"
        self.speed, self.epoch, self.origin = speed, time.time(), time.monotonic()
        self.clock = SharedClock(speed, self.epoch, self.origin)
        self.simulator = Simulator(Behaviour(code_delay=None), clock=self.clock)
        self.root = ""
        self.workers: list[Worker] = []
        self.results: list[tuple[str, str, str]] = []
        self.stops = Counter[str]()
        self.ended: dict[str, float] = {}
        self.outages: list[tuple[float, float]] = []
        self._portal = portal

    def call(self, function: Callable[..., Coroutine[Any, Any, Any]], *words: object) -> Any:
        return self._portal.call(function, *words)

    def start(self, **options: Any) -> Worker:
        worker = Worker(self, f"w{len(self.ended) + len(self.workers)}", **options)
        self.workers.append(worker)
        assert worker.ready.wait(30)
        return worker

    def end(self, worker: Worker) -> None:
        worker.kill()
        self.workers.remove(worker)
        self.ended[worker.name] = self.clock.now()

    def add(self, count: int) -> None:
        """Create paid orders, and add them."""
        self.call(self._add, count)

    async def _add(self, count: int) -> None:
        async with (
            PostgresJournal(self.dsn, schema=self.schema) as journal,
            Sms4SatsClient(base_url=self.root, clock=self.clock, journal=journal) as client,
        ):
            scheduler = PostgresScheduler(client)
            for _ in range(count):
                self.simulator.behaviour = self.draw.choice(BEHAVIOURS)
                order = await client.create_order(187, "tg", metadata={"name": "x"})
                with suppress(StateError):
                    self.simulator.pay(order.order_id)
                await scheduler.add(order, timeout=self.draw.choice([0, 100, 150, 250]))

    async def _entries(self) -> list[JournalEntry]:
        async with PostgresJournal(self.dsn, schema=self.schema) as journal:
            return await journal.history()

    def finish(self) -> list[JournalEntry]:
        """Wait until every result was delivered."""
        until = time.monotonic() + LIFE / 2
        while True:
            entries: list[JournalEntry] = self.call(self._entries)
            if all(entry.delivered_at is not None for entry in entries):
                return entries
            left = Counter(
                (entry.outcome, entry.claimed_by) for entry in entries if entry.delivered_at is None
            )
            assert time.monotonic() < until, left
            time.sleep(0.05)

    @contextmanager
    def outage(self) -> Generator[None]:
        """Remember when no claim could be recorded."""
        begin = self.clock.now()
        yield
        self.outages.append((begin, self.clock.now()))

    def wait(self, seconds: float) -> None:
        """Let real time pass."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.01)

    def check(self, entries: Sequence[JournalEntry]) -> dict[str, int]:
        """Compare what is recorded and delivered with the ledger."""
        orders = {order.order_id: order for order in self.simulator.orders}
        assert {entry.order_id for entry in entries} == set(orders)
        for entry in entries:
            order = orders[entry.order_id or ""]
            assert order.holder is not Holder.HELD
            assert not entry.pending
            if order.holder is Holder.SETTLED:
                assert (entry.outcome, entry.code) == (OrderOutcome.CODE_RECEIVED, order.code)
            else:
                assert entry.result is not None
                assert entry.result.refunded
        delivered = {order_id for order_id, _, _ in self.results}
        assert delivered == set(orders)
        for order_id, _, code in self.results:
            assert (code == "-") is (orders[order_id].holder is not Holder.SETTLED)
        twice, unclaimed = self._check_cancels(entries)
        return {
            "orders": len(orders),
            "codes": sum(order.holder is Holder.SETTLED for order in orders.values()),
            "results again": len(self.results) - len(delivered),
            "cancelled twice, after the first lease": twice,
            "cancelled without a claim": unclaimed,
        }

    def _check_cancels(self, entries: Sequence[JournalEntry]) -> tuple[int, int]:
        """Check when each cancel came, and by which claim."""
        deadlines = {entry.order_id: entry.code_deadline for entry in entries}
        cancels: dict[str, list[tuple[float, str, float]]] = {}
        twice = unclaimed = 0
        for request in self.simulator.requests:
            if request.path == "/cancelorder":
                order_id, at = request.query["orderId"], request.time
                worker, claimed = request.headers["x-worker"], float(request.headers["x-claimed"])
                deadline = deadlines[order_id]
                assert deadline is not None
                assert at - self.simulator.order(order_id).created_at >= MINIMUM_AGE
                assert at >= deadline.timestamp() - SHORTLY * self.speed
                cancels.setdefault(order_id, []).append((at, worker, claimed))
                if claimed <= at:
                    # A database that is away stops no cancel: the refund matters more than a cancel
                    # that may be sent twice. One that a stopped worker was sending arrives late.
                    unclaimed += 1
                    assert self.stops[worker] or any(
                        begin <= at <= end + NOTICED * self.speed for begin, end in self.outages
                    ), (at, worker, claimed)
        for sent in cancels.values():
            for (_, first, claimed), (at, second, own) in pairwise(sent):
                if first != second:
                    twice += 1
                    died = self.ended.get(first, at) < at
                    assert died or claimed - SHORTLY <= at or own <= at, sent
        return twice, unclaimed


@contextmanager
def scene_on(dsn: str, seed: object, **options: Any) -> Generator[Scene]:
    with anyio.from_thread.start_blocking_portal() as portal:
        made = Scene(dsn, seed, portal, **options)
        journal = PostgresJournal(dsn, schema=made.schema)
        portal.call(journal.create_schema)
        portal.call(journal.aclose)
        with portal.wrap_async_context_manager(made.simulator.serve()) as root:
            made.root = root
            try:
                yield made
            finally:
                for worker in list(made.workers):
                    worker.kill()


@pytest.fixture
def scene(dsn: str, request: pytest.FixtureRequest) -> Iterator[Scene]:
    with scene_on(dsn, request.node.name) as made:
        yield made


CRASH = """
import asyncio, os, signal, subprocess, sys
from sms4sats_async.postgres import PostgresJournal
from tests.postgres import Server
from tests.test_postgres_faults import WORKER
server = Server(sys.argv[1])
asyncio.run(PostgresJournal(server.dsn).create_schema())
words = ["w0", "http://127.0.0.1:9", "sms4sats", "1.0", "0.0", "0.0", "0.0", "0.0"]
worker = subprocess.Popen(
    [sys.executable, str(WORKER), *words],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    env=os.environ | {"PYTHONPATH": ".", "SMS4SATS_POSTGRES_DSN": server.dsn},
)
assert worker.stdout.readline() == b"READY\\n"
print(server.folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_test_process_that_is_killed_leaves_no_server(testrun_uid: str) -> None:
    done = subprocess.run(  # noqa: S603 - Python itself, with words of ours
        [sys.executable, "-c", CRASH, f"{testrun_uid}-crash"],
        capture_output=True,  # its pipes are open as long as any of the processes lives
        text=True,
        check=False,
        timeout=LIFE,
        cwd=WORKER.parent.parent,
    )
    assert done.returncode == -signal.SIGKILL
    assert not Path(done.stdout.strip()).exists()


# --- the faults -----------------------------------------------------------------------------------


def kill(scene: Scene) -> None:
    """Kill a worker at a random moment, and start another."""
    scene.end(scene.draw.choice(scene.workers))
    scene.start()


def stop(scene: Scene) -> None:
    """Stop a worker for longer than its claims last."""
    worker = scene.draw.choice(scene.workers)
    scene.stops[worker.name] += 1
    worker.process.send_signal(signal.SIGSTOP)
    scene.wait(scene.draw.uniform(50, 80) / scene.speed)
    worker.process.send_signal(signal.SIGCONT)


def terminate(scene: Scene) -> None:
    """End every connection of the workers, whatever they are doing."""
    for _ in range(3):
        scene.call(
            fetch,
            scene.dsn,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = "
            "'sms4sats' AND datname = current_database()",
        )
        scene.wait(scene.draw.uniform(0, 0.1))


def fill_the_disk(scene: Scene) -> None:
    """Let each write fail like one on a full disk, by the server's own error."""
    table = f"{scene.schema}.orders"
    function = f"{scene.schema}.fail()"
    with scene.outage():
        scene.call(
            execute,
            scene.dsn,
            f"CREATE OR REPLACE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END $$",
            f"CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON {table} "
            f"EXECUTE FUNCTION {function}",
        )
        scene.wait(scene.draw.uniform(0.3, 1.0))
        scene.call(execute, scene.dsn, f"DROP TRIGGER full_disk ON {table}")


FAULTS: dict[str, Callable[[Scene], None]] = {
    "SIGKILL": kill,
    "SIGSTOP": stop,
    "pg_terminate_backend": terminate,
    "full disk": fill_the_disk,
}


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_no_order_and_no_code_is_lost(
    scene: Scene, fault: Callable[[Scene], None], part: int, request: pytest.FixtureRequest
) -> None:
    rounds = ROUNDS // PARTS + (part < ROUNDS % PARTS)
    for _ in range(2):
        scene.start()
    for _ in range(rounds):
        scene.add(4)
        scene.wait(scene.draw.uniform(0.1, 0.8))
        fault(scene)
    counts = scene.check(scene.finish())
    print(f"{request.node.callspec.id}: {rounds} rounds, {counts}")


@pytest.mark.parametrize("ahead", [3600.0, -3600.0], ids=["ahead", "behind"])
def test_a_clock_that_is_an_hour_wrong_cancels_no_order_early(scene: Scene, ahead: float) -> None:
    workers = {scene.start().name, scene.start(ahead=ahead, alone=True).name}
    # Until both listen, one may take every order.
    while not workers <= {each.headers.get("x-worker") for each in scene.simulator.requests}:
        assert len(scene.simulator.orders) < 200
        scene.add(1)
    scene.add(12)
    counts = scene.check(scene.finish())
    print(f"a clock an hour wrong: {counts}")


@pytest.mark.parametrize("part", range(PARTS))
def test_workers_survive_a_server_that_is_stopped_for_10_seconds(
    request: pytest.FixtureRequest, testrun_uid: str, part: int
) -> None:
    server = Server(f"{testrun_uid}-stopped-{part}")
    request.addfinalizer(server.remove)
    with scene_on(server.dsn, request.node.name) as scene:
        for _ in range(2):
            scene.start()
        scene.add(8)
        scene.wait(0.3)
        with scene.outage():
            server.stop()
            scene.wait(10)
            server.start()
        scene.add(4)
        counts = scene.check(scene.finish())
    print(f"server stopped for 10 s-{part}: {counts}")


@pytest.fixture
def small_disk(testrun_uid: str, part: int) -> Iterator[Path]:
    """A folder on a file system of 120 MB."""
    folder = Path(tempfile.gettempdir(), f"sms4sats-disk-{testrun_uid}-{part}")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", str(folder)]
    try:
        if subprocess.run(mount, check=False, capture_output=True).returncode != 0:  # noqa: S603
            pytest.skip("this user may not mount a small disk")
        yield folder
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S603, S607
    finally:
        folder.rmdir()


@pytest.mark.parametrize("part", range(PARTS))
def test_workers_survive_a_disk_that_is_full(
    request: pytest.FixtureRequest, small_disk: Path, part: int
) -> None:
    """A real one. The server may also stop, because it cannot write its log."""
    server = Server("full", small_disk)
    filler = small_disk / "filler"
    try:
        with scene_on(server.dsn, request.node.name) as scene:
            for _ in range(2):
                scene.start()
            scene.add(8)
            scene.wait(0.3)
            with scene.outage():
                with suppress(OSError), filler.open("wb", buffering=0) as file:
                    while file.write(bytes(2**16)):
                        pass
                scene.wait(4)
                filler.unlink()
                server.start()
            scene.add(4)
            counts = scene.check(scene.finish())
        print(f"disk full for 4 s-{part}: {counts}")
    finally:
        server.remove()


@pytest.mark.parametrize(
    ("alone", "most"), [(False, 60.0), (True, 60.0)], ids=["same machine", "another machine"]
)
def test_the_orders_of_a_killed_worker_continue_elsewhere(
    dsn: str, request: pytest.FixtureRequest, *, alone: bool, most: float
) -> None:
    with scene_on(dsn, request.node.name, speed=10.0) as scene:
        first = scene.start(alone=alone)
        scene.add(6)
        while len({each.query.get("orderId") for each in scene.simulator.requests}) < 6:
            time.sleep(0.01)
        scene.start(alone=alone)
        scene.end(first)
        killed = scene.ended[first.name]
        seen: dict[str, float] = {}
        while len(seen) < 6:
            for each in scene.simulator.requests:
                if each.time > killed and "orderId" in each.query:
                    seen.setdefault(each.query["orderId"], each.time - killed)
            assert scene.clock.now() - killed < 2 * most
            time.sleep(0.01)
        print(f"continued after {max(seen.values()):.0f} s")
        assert max(seen.values()) <= most
