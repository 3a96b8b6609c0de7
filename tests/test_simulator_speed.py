"""SMS4SATS_SPEED: a client in another process uses the clock of the simulator."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager

import anyio
import anyio.from_thread
import pytest

from sms4sats_async import InvalidArgumentError
from sms4sats_async._clock import Clock
from sms4sats_async._speed import clock_for
from sms4sats_async.simulator import Behaviour, Holder, ManualClock, ScaledClock, Simulator

LOOPBACK = "http://127.0.0.1:8021"

# A client as a program makes it: root and clock come from the environment.
CONNECT = """
import os
from sms4sats_async import Sms4SatsClient
from sms4sats_async._speed import clock_for
clock = clock_for(os.environ["SMS4SATS_BASE_URL"], os.environ)
client = Sms4SatsClient(clock=clock)
"""
SHOW_TIME = f"""
import sys
{CONNECT}
for line in sys.stdin:
    print(clock.now(), flush=True)
"""
CREATE = f"""
import anyio
{CONNECT}
async def main():
    async with client:
        order = await client.create_order(187, "tg")
        print(order.order_id, order.created_at.isoformat())
anyio.run(main)
"""
CANCEL = f"""
import anyio, sys
from datetime import datetime
{CONNECT}
async def main():
    async with client:
        order_id, created_at = sys.argv[1:]
        created_at = datetime.fromisoformat(created_at)
        await client.cancel_order_when_allowed(order_id, created_at=created_at)
        print(clock.now() - created_at.timestamp())
anyio.run(main)
"""


def read(value: str, root: str = LOOPBACK) -> Clock | None:
    return clock_for(root, {"SMS4SATS_SPEED": value})


@contextmanager
def process(*words: str, environment: Mapping[str, str]) -> Generator[subprocess.Popen[str]]:
    """Run a Python process, and kill it at the end of the block."""
    with subprocess.Popen(  # noqa: S603 - this Python, with words of this file
        [sys.executable, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def run(code: str, *words: str, environment: Mapping[str, str]) -> str:
    """Run a Python process to its end and return what it printed."""
    with process("-c", code, *words, environment=environment) as started:
        out, _ = started.communicate(timeout=30)
        assert started.returncode == 0
        return out


@pytest.fixture
def served() -> Iterator[tuple[Simulator, dict[str, str]]]:
    """Serve a simulator whose time runs 100 times as fast; return it and its variables."""
    simulator = Simulator(Behaviour(pay_delay=0, code_delay=None), clock=ScaledClock(100))
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(simulator.serve()) as url,
    ):
        yield simulator, simulator.environment(url)


# --- clock_for ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "root",
    [
        "http://127.0.0.1:8021",
        "http://127.8.9.10/prefix",
        "http://localhost:8021",
        "http://[::1]:8021",
    ],
)
def test_loopback_root_uses_the_speed(root: str) -> None:
    assert read("20", root) is not None


@pytest.mark.parametrize("value", ["20", "fast"])
@pytest.mark.parametrize(
    "root",
    [
        "https://api2.sms4sats.com",
        "https://127.0.0.1.example.com",
        "https://localhost.example.com",
        "http://sms.localhost",
        "http://192.168.0.1:8021",
        "http://0.0.0.0:8021",
        "nonsense",
    ],
)
def test_other_root_ignores_the_variable(root: str, value: str) -> None:
    assert read(value, root) is None


@pytest.mark.parametrize("value", ["", "1", "1.0", "1@1764110000"])
def test_speed_one_is_the_clock_of_the_machine(value: str) -> None:
    assert read(value) is None


def test_missing_variable_is_the_clock_of_the_machine() -> None:
    assert clock_for(LOOPBACK, {}) is None


@pytest.mark.parametrize(
    "value",
    ["fast", "0", "-1", "inf", "nan", "20@", "20@then", "20@nan", "20@inf", "@5", "1e12@0", "20,5"],
)
def test_invalid_value_is_an_error_that_names_the_variable(value: str) -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape("SMS4SATS_SPEED must be a positive")):
        read(value)


def test_speed_without_origin_starts_at_the_real_time() -> None:
    clock = read("20")
    assert clock is not None
    assert clock.now() == pytest.approx(time.time(), abs=20)


@pytest.mark.parametrize("speed", [0.1, 20, 1e6 / 3])
def test_setting_of_a_scaled_clock_is_read_without_a_loss(speed: float) -> None:
    theirs = ScaledClock(speed, origin=time.time() - 100 / 3)
    ours = read(theirs.setting)
    assert ours is not None
    before = theirs.now()
    assert before <= ours.now() <= theirs.now()


@pytest.mark.anyio
async def test_sleep_and_monotonic_clock_have_the_speed() -> None:
    clock = read("1000")
    assert clock is not None
    simulated, real = clock.monotonic(), time.monotonic()
    await clock.sleep(100)
    assert clock.monotonic() - simulated >= 100
    assert 0.09 < time.monotonic() - real < 1


@pytest.mark.anyio
async def test_sleep_of_zero_seconds_can_be_cancelled() -> None:
    clock = read("20")
    assert clock is not None
    with anyio.CancelScope() as scope:
        scope.cancel()
        await clock.sleep(0)
    assert scope.cancelled_caught


# --- Simulator.environment ------------------------------------------------------------------------


def test_environment_has_root_and_speed() -> None:
    simulator = Simulator(clock=ScaledClock(20, origin=1764110000.5))
    assert simulator.environment(LOOPBACK) == {
        "SMS4SATS_BASE_URL": LOOPBACK,
        "SMS4SATS_SPEED": "20@1764110000.5",
    }


def test_environment_of_another_clock_has_real_time() -> None:
    assert Simulator(clock=ManualClock()).environment(LOOPBACK)["SMS4SATS_SPEED"] == "1"


# --- two processes --------------------------------------------------------------------------------


def test_two_processes_show_the_same_time() -> None:
    """The second process starts later, as after a restart."""
    clock = ScaledClock(1000)
    environment = Simulator(clock=clock).environment(LOOPBACK)
    for _ in range(2):
        with process("-c", SHOW_TIME, environment=environment) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            for _ in range(3):
                before = clock.now()
                client.stdin.write("\n")
                client.stdin.flush()
                shown = float(client.stdout.readline())
                assert before <= shown <= clock.now()


def test_client_cancels_after_two_simulated_minutes_also_after_a_restart(
    served: tuple[Simulator, dict[str, str]],
) -> None:
    """One process creates the order and another cancels it."""
    simulator, environment = served
    created = run(CREATE, environment=environment).split()
    age = float(run(CANCEL, *created, environment=environment))
    (order,) = simulator.orders
    (cancel,) = (each for each in simulator.requests if each.path == "/cancelorder")
    assert cancel.time - order.created_at >= 120
    assert age >= 120
    assert order.holder is Holder.REFUNDED
