"""Kill a bot at every moment that matters, start it again, and count what became of the money.

The bot (tests/crash_bot.py) is a real process with a `SqliteJournal`; the simulated service runs
here, over a real socket. Both live by one clock that runs 200 times faster. `make torture` kills
ten times as often.
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

from sms4sats_async import CancelOutcome, JournalEntry, SqliteJournal
from sms4sats_async.simulator import Behaviour, Fault, Holder, Simulator, StateError
from tests.crash_bot import SharedClock

SPEED = 200.0
KILLS = int(os.environ.get("TORTURE", "20"))
ANY = "any"
POINTS = ("ASK", "AT answered", "ACK", "AT waiting", "AT cancelling", "AT cancelled", ANY)
"""What the bot says last before it is killed, at once or a moment later; `any`: at any time."""

BEHAVIOURS = (Behaviour(code_delay=None), Behaviour(code_delay=40), Behaviour(code_delay=110))
CREATE_FAULTS = (None, Fault.slow(2), Fault.slow(2, after_change=True))
CANCEL_FAULTS = (
    None,
    Fault.slow(2),
    Fault.slow(2, after_change=True),
    Fault.unable_to_save_data(),
    Fault.reset(after_change=True),
)
MINIMUM_AGE = 120.0
MANY = 1_000
"""Orders that no bot comes to the end of."""

BOT = Path(__file__).with_name("crash_bot.py")
LIFE = 20.0
"""Real seconds after which a bot that goes on living has failed the test."""


class World:
    """The service, the bot's journal, and the wallet of whoever pays what the bot hands out."""

    def __init__(self, path: Path, seed: object) -> None:
        self.path = path
        self.draw = random.Random(str(seed))  # noqa: S311 - a test's dice
        self.times = (SPEED, time.time(), time.monotonic())
        self.simulator = Simulator(Behaviour(code_delay=None), clock=SharedClock(*self.times))
        self.root = ""
        self.process: subprocess.Popen[str]
        self.asked = 0
        self.acknowledged: list[str] = []

    @contextmanager
    def bot(self, *, orders: int) -> Generator[Iterator[str]]:
        """Start the bot; give what it says, line by line, and kill it in any case."""
        words = (self.root, self.path, *self.times, orders, self.draw.random())
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
                # What it had said before it died is heard too: somebody may have acted on it.
                for line in process.stdout:
                    self.hear(line)

    def hear(self, line: str) -> str:
        """Do what the world does when the bot says something: whoever gets an invoice pays it."""
        match line.split():
            case ["ASK"]:
                self.asked += 1
                self.simulator.behaviour = self.draw.choice(BEHAVIOURS)
            case ["ACK", order_id]:
                self.acknowledged.append(order_id)
                with suppress(StateError):  # over already, if this process was held up
                    self.simulator.pay(order_id)
            case _:
                pass
        return line.strip()

    def live_and_die(self, point: str) -> str:
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
        raise AssertionError("the bot ended by itself")

    def live_to_the_end(self) -> None:
        """Let a bot live until its journal holds nothing that is pending."""
        with self.bot(orders=0) as lines:
            assert [line for line in lines if line.startswith("END")], "the bot came to no end"


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(tmp_path / "journal", request.node.name)
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(made.simulator.serve()) as root,
    ):
        made.root = root
        yield made


def journal_of(world: World) -> list[JournalEntry]:
    async def read() -> list[JournalEntry]:
        async with SqliteJournal(world.path) as journal:
            return await journal.history()

    return anyio.run(read)


@pytest.mark.parametrize("point", POINTS)
def test_a_bot_that_is_killed_loses_no_order_and_no_code(world: World, point: str) -> None:
    died_at = Counter(world.live_and_die(point) for _ in range(-(-KILLS // len(POINTS))))
    world.live_to_the_end()

    entries = journal_of(world)
    by_id = {entry.order_id: entry for entry in entries if entry.order_id is not None}
    orders = {order.order_id: order for order in world.simulator.orders}
    print(f"killed after saying: {dict(died_at)}; {len(orders)} orders made")
    # Every order that was acknowledged is in the journal; of any other, that it may exist.
    assert set(world.acknowledged) <= set(by_id)
    assert len(orders.keys() - by_id) <= len(entries) - len(by_id)
    # No order was made twice.
    assert world.simulator.count("/createorder") <= world.asked
    assert len(orders) <= len(entries)
    for order_id, entry in by_id.items():
        order = orders[order_id]
        # Every order that was held ended cancelled, or with its code in the journal.
        assert order.holder is not Holder.HELD
        assert not entry.pending
        if order.holder is Holder.SETTLED:
            assert entry.outcome is CancelOutcome.CODE_ARRIVED
            assert entry.code == order.code
        if entry.outcome in {CancelOutcome.CANCELLED, CancelOutcome.ALREADY_RELEASED}:
            assert order.holder in {Holder.REFUNDED, Holder.NONE}
    # No cancel was sent early.
    for request in world.simulator.requests:
        if request.path == "/cancelorder":
            assert request.time - orders[request.query["orderId"]].created_at >= MINIMUM_AGE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda x: x.name)
def test_a_signal_ends_a_bot_within_six_seconds_though_the_service_hangs(
    world: World, number: signal.Signals
) -> None:
    """In real time, because a person waits in it: the last attempt may take five seconds."""
    world.simulator.script("/cancelorder", *[Fault.hang()] * 1000)
    # A bot that is slow is so each time; a machine that stood still for a moment did so once.
    for _ in range(3):
        sent = world.simulator.count("/cancelorder")
        with world.bot(orders=MANY) as lines:
            # More than the scheduler's four workers send: an order that is open is being cancelled.
            while world.simulator.count("/cancelorder") < sent + 6:
                next(lines)
            before = time.monotonic()
            world.process.send_signal(number)
            world.process.wait(LIFE)
            took = time.monotonic() - before
        print(f"{number.name}: ended after {took:.2f} s with {world.process.returncode}")
        assert world.process.returncode == (130 if number is signal.SIGINT else 0)
        assert set(world.acknowledged) <= {entry.order_id for entry in journal_of(world)}
        if took < 6:
            return
    pytest.fail("three bots took longer")
