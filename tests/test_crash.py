"""Kill a bot at every moment that matters, start it again, and compare its results with the ledger.

The bot (tests/crash_bot.py) is a real process with a `SqliteJournal`. The simulated service runs
here, over a real socket. Both use one clock that runs 200 times faster than real time.
`make torture` kills ten times as often.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import anyio.from_thread
import pytest

from sms4sats_async import JournalEntry, OrderOutcome, SqliteJournal
from sms4sats_async.simulator import Behaviour, Fault, Holder, Order, Simulator, StateError
from tests.crash_bot import SharedClock

SPEED = 200.0
KILLS = int(os.environ.get("TORTURE", "20"))
ANY = "any"
POINTS = (
    "ASK",
    "AT answered",
    "ACK",
    "AT waiting",
    "AT claimed",
    "AT cancelled",
    "RESULT",
    ANY,
)
"""What the bot says last before it is killed, at once or a moment later; `any`: at any time."""

BEHAVIOURS = tuple(Behaviour(code_delay=delay) for delay in (None, None, 40, 110, 200, 280))
CREATE_FAULTS = (None, Fault.slow(2), Fault.slow(2, after_change=True))
CANCEL_FAULTS = (
    None,
    Fault.slow(2),
    Fault.slow(2, after_change=True),
    Fault.unable_to_save_data(),
    Fault.reset(after_change=True),
)
MINIMUM_AGE = 120.0
SHORTLY = 2.0
"""Simulated seconds by which two processes may read the shared clock differently."""
WAIT = 600.0
"""Simulated seconds of a long wait for the code."""
MANY = 1_000
"""Orders that no bot comes to the end of."""

BOT = Path(__file__).with_name("crash_bot.py")
LIFE = 20.0
"""Real seconds after which a bot that goes on living has failed the test."""


class Scene:
    """The service, the bot's journal, and a wallet that pays every order of the bot."""

    def __init__(self, path: Path, seed: object) -> None:
        self.path = path
        self.draw = random.Random(str(seed))  # noqa: S311 - a test's dice
        self.times = (SPEED, time.time(), time.monotonic())
        self.simulator = Simulator(Behaviour(code_delay=None), clock=SharedClock(*self.times))
        self.root = ""
        self.process: subprocess.Popen[str]
        self.behaviours = BEHAVIOURS
        self.asked = 0
        self.acknowledged: list[str] = []
        self.scheduled: set[str] = set()
        self.handled: set[str] = set()
        self.results: list[tuple[str, str, str, str]] = []
        self.again: list[str] = []
        self._handled = ""
        self._done: set[str] = set()

    @contextmanager
    def bot(self, *, orders: int, wait: float = 0) -> Generator[Iterator[str]]:
        """Start the bot; give what it says, line by line, and kill it in any case."""
        words = (self.root, self.path, *self.times, orders, self.draw.random(), wait)
        with subprocess.Popen(  # noqa: S603 - Python itself, with words of ours
            [sys.executable, str(BOT), *map(str, words)], stdout=subprocess.PIPE, text=True
        ) as process:
            self.process = process
            guard = threading.Timer(LIFE, process.kill)
            guard.start()
            assert process.stdout is not None
            try:
                yield map(self.hear, process.stdout)
            finally:
                guard.cancel()
                process.kill()
                for line in process.stdout:  # what it said before it died counts too
                    self.hear(line)
                self._handled = ""  # whether that was acknowledged is unknown

    def hear(self, line: str) -> str:
        """Do what follows from a line of the bot: pay its order, keep its result."""
        match line.split():
            case ["ASK"]:
                self.asked += 1
                self.simulator.behaviour = self.draw.choice(self.behaviours)
            case ["ACK", order_id, driver]:
                self.acknowledged.append(order_id)
                if driver == "scheduler":
                    self.scheduled.add(order_id)
                with suppress(StateError):  # the order may have ended already
                    self.simulator.pay(order_id)
            case ["RESULT", order_id, outcome, code, name]:
                if order_id in self._done:
                    self.again.append(order_id)
                # Asking for the next result has acknowledged the last one.
                self._done.add(self._handled)
                self._handled = ""
                self.results.append((order_id, outcome, code, name))
            case ["HANDLED", order_id]:
                self.handled.add(order_id)
                self._handled = order_id
            case _:
                pass
        return line.strip()

    def run_until_killed(self, point: str) -> str:
        """Let a bot live until it says `point`, or for a random time, and a moment more."""
        self.simulator.script("/createorder", *self.draw.choices(CREATE_FAULTS, k=3))
        self.simulator.script("/cancelorder", *self.draw.choices(CANCEL_FAULTS, k=3))
        with self.bot(orders=MANY) as lines:
            until = time.monotonic() + self.draw.uniform(0.3, 1.5)
            for line in lines:
                if line.startswith(point) or (point == ANY and time.monotonic() > until):
                    for _ in range(self.draw.randrange(4)):
                        time.sleep(0.005)
                    return point if line.startswith(point) else line
        raise AssertionError("the bot ended")

    def age_of(self, order: Order) -> float:
        """How old an order is now."""
        return self.simulator.clock.now() - order.created_at

    def run_to_the_end(self) -> None:
        """Let a bot live until its journal holds nothing that is pending."""
        with self.bot(orders=0) as lines:
            assert [line for line in lines if line.startswith("END")], "the bot came to no end"


@pytest.fixture
def scene(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    made = Scene(tmp_path / "journal", request.node.name)
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(made.simulator.serve()) as root,
    ):
        made.root = root
        yield made


def journal_of(scene: Scene) -> list[JournalEntry]:
    async def read() -> list[JournalEntry]:
        async with SqliteJournal(scene.path) as journal:
            return await journal.history()

    return anyio.run(read)


@pytest.mark.parametrize("point", POINTS)
def test_a_bot_that_is_killed_loses_no_order_and_no_code(scene: Scene, point: str) -> None:
    kills = max(-(-KILLS // len(POINTS)), KILLS // 4 if point == "RESULT" else 0)
    died_at = Counter(scene.run_until_killed(point) for _ in range(kills))
    scene.run_to_the_end()

    entries = journal_of(scene)
    by_id = {entry.order_id: entry for entry in entries if entry.order_id is not None}
    orders = {order.order_id: order for order in scene.simulator.orders}
    seen = Counter(order_id for order_id, *_ in scene.results)
    print(
        f"killed after saying: {dict(died_at)}; {len(orders)} orders; {len(scene.results)} results "
        f"of {len(seen)} orders, {len(scene.results) - len(seen)} of them again"
    )
    # Every order that was acknowledged is in the journal; of any other, that it may exist.
    assert set(scene.acknowledged) <= set(by_id)
    assert len(orders.keys() - by_id) <= len(entries) - len(by_id)
    # No order was created twice.
    assert scene.simulator.count("/createorder") <= scene.asked
    assert len(orders) <= len(entries)
    for order_id, entry in by_id.items():
        order = orders[order_id]
        # Every order has ended as the ledger says, with its metadata, and was delivered.
        assert order.holder is not Holder.HELD
        assert not entry.pending
        assert entry.delivered_at is not None
        assert entry.metadata["name"]
        if order.holder is Holder.SETTLED:
            assert entry.outcome is OrderOutcome.CODE_RECEIVED
            assert entry.code == order.code
        if entry.result is not None and entry.result.refunded:
            assert order.holder in {Holder.REFUNDED, Holder.NONE}
    for order_id, outcome, code, name in scene.results:
        entry = by_id[order_id]
        assert name == entry.metadata["name"]
        assert (code == "-") is (orders[order_id].holder is not Holder.SETTLED)
        assert outcome in {each.name for each in OrderOutcome}
    # Every result of the scheduler was handled, and none came again that was acknowledged.
    assert scene.scheduled <= scene.handled
    assert scene.again == []
    # No cancel was sent early, nor before the recorded deadline.
    for request in scene.simulator.requests:
        if request.path == "/cancelorder":
            order_id = request.query["orderId"]
            assert request.time - orders[order_id].created_at >= MINIMUM_AGE
            deadline = by_id[order_id].code_deadline
            assert deadline is None or request.time >= deadline.timestamp() - SHORTLY


@pytest.mark.parametrize("code_after", [8 * 60, None], ids=["code in minute 8", "no code"])
def test_a_wait_of_10_minutes_goes_on_in_the_next_process(
    scene: Scene, code_after: float | None
) -> None:
    delay = None if code_after is None else code_after - 5  # after the number
    scene.behaviours = (Behaviour(code_delay=delay),)
    with scene.bot(orders=6, wait=WAIT) as lines:
        for _ in lines:  # one for each poll, so there is always a next one
            orders = scene.simulator.orders
            if len(scene.acknowledged) == 6 and scene.age_of(orders[-1]) > 60:
                break
        assert scene.results == []
    scene.run_to_the_end()

    by_id = {order.order_id: order for order in scene.simulator.orders}
    found = {order_id: (outcome, code) for order_id, outcome, code, _ in scene.results}
    expected = ("CANCELLED", "-") if code_after is None else ("CODE_RECEIVED", "012345")
    assert found == dict.fromkeys(scene.acknowledged, expected)
    ages = [
        request.time - by_id[request.query["orderId"]].created_at
        for request in scene.simulator.requests
        if request.path == "/cancelorder"
    ]
    assert len(ages) >= (6 if code_after is None else 0)
    assert all(age >= WAIT - SHORTLY for age in ages)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda x: x.name)
def test_a_signal_ends_a_bot_within_six_seconds_though_the_service_hangs(
    scene: Scene, number: signal.Signals
) -> None:
    """In real time, because a person waits in it: the last attempt may take five seconds."""
    scene.simulator.script("/cancelorder", *[Fault.hang()] * 1000)
    # A bot that is slow is so each time; a machine that stood still for a moment did so once.
    for _ in range(3):
        sent = scene.simulator.count("/cancelorder")
        with scene.bot(orders=MANY) as lines:
            # More than the scheduler's four workers send: an order that is open is being cancelled.
            while scene.simulator.count("/cancelorder") < sent + 6:
                next(lines)
            before = time.monotonic()
            scene.process.send_signal(number)
            scene.process.wait(LIFE)
            took = time.monotonic() - before
        print(f"{number.name}: ended after {took:.2f} s with {scene.process.returncode}")
        assert scene.process.returncode == (130 if number is signal.SIGINT else 0)
        assert set(scene.acknowledged) <= {entry.order_id for entry in journal_of(scene)}
        if took < 6:
            return
    pytest.fail("three bots took longer")
