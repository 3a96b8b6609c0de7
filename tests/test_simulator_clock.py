"""The clocks of the simulator: one runs faster than real time, and a test moves the other."""

import hashlib
import math
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Iterator

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from sms4sats_async.simulator import Clock, ManualClock, ScaledClock, idle

START = 1_800_000_000.0
RUNS = 50

InThread = Callable[[], Awaitable[object]]


def work() -> None:
    """Work for about two milliseconds."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", 5_000)


class CountingThread(threading.Thread):
    """Works in its own thread and counts its jobs, as the thread of a `SqliteJournal` does."""

    def __init__(self) -> None:
        super().__init__()
        self.wake: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self.given = self.done = 0

    def sms4sats_jobs(self) -> tuple[int, int]:
        return self.given, self.done

    async def work(self) -> None:
        finished, token = anyio.Event(), anyio.lowlevel.current_token()
        self.given += 1
        self.wake.put(lambda: anyio.from_thread.run_sync(finished.set, token=token))
        await finished.wait()

    def run(self) -> None:
        while (wake := self.wake.get()) is not None:
            work()
            wake()
            self.done += 1


@pytest.fixture(params=["worker thread", "counting thread"])
def in_thread(request: pytest.FixtureRequest) -> Iterator[InThread]:
    """Yield a function that works in a thread while its task waits."""
    if request.param == "worker thread":
        yield lambda: anyio.to_thread.run_sync(work)
        return
    thread = CountingThread()
    thread.start()
    yield thread.work
    thread.wake.put(None)
    thread.join()


@pytest.mark.anyio
async def test_scaled_sleep_takes_less_real_time() -> None:
    clock: Clock = ScaledClock(1_000)
    simulated, real = clock.monotonic(), time.monotonic()
    await clock.sleep(100)
    assert clock.monotonic() - simulated >= 100
    assert 0.09 < time.monotonic() - real < 1


@pytest.mark.anyio
async def test_scaled_sleep_of_zero_seconds_can_be_cancelled() -> None:
    clock = ScaledClock()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await clock.sleep(0)
    assert scope.cancelled_caught


def test_scaled_clock_starts_at_the_real_time() -> None:
    clock = ScaledClock(60)
    assert clock.now() == pytest.approx(time.time(), abs=60)
    assert clock.true_time() == pytest.approx(clock.now(), abs=60)
    assert clock.speed == 60


@pytest.mark.parametrize("speed", [0, -1, math.inf, math.nan])
def test_scaled_clock_rejects_an_invalid_speed(speed: float) -> None:
    with pytest.raises(ValueError, match="speed must be positive and finite"):
        ScaledClock(speed)


@pytest.mark.anyio
async def test_autojump_moves_all_times() -> None:
    clock = ManualClock(START)
    before = clock.monotonic()
    await clock.sleep(120)
    await clock.sleep(0.5)
    assert (clock.now(), clock.true_time()) == (START + 120.5, START + 120.5)
    assert clock.monotonic() - before == 120.5
    assert clock.sleeps == [120, 0.5]


@pytest.mark.anyio
async def test_autojump_sleeps_at_the_same_time_overlap() -> None:
    clock = ManualClock(START)
    async with anyio.create_task_group() as group:
        group.start_soon(clock.sleep, 5)
        group.start_soon(clock.sleep, 10)
    assert clock.now() == START + 10


@pytest.mark.anyio
@pytest.mark.parametrize("autojump", [True, False])
async def test_sleep_of_zero_or_less_returns_at_once(*, autojump: bool) -> None:
    clock = ManualClock(START, autojump=autojump)
    await clock.sleep(-5)
    await clock.sleep(0)
    assert clock.now() == START


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", [math.inf, math.nan])
async def test_manual_clock_rejects_a_sleep_that_is_not_finite(seconds: float) -> None:
    clock = ManualClock()
    with pytest.raises(ValueError, match="cannot sleep for"):
        await clock.sleep(seconds)
    assert clock.sleeps == []


@pytest.mark.anyio
async def test_advance_wakes_each_task_at_its_own_time() -> None:
    clock = ManualClock(START, autojump=False)
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            woken.append((name, clock.now() - START))

    async with anyio.create_task_group() as group:
        group.start_soon(sleeper, "late", 30)
        group.start_soon(sleeper, "twice", 10, 5)
        group.start_soon(sleeper, "between", 12)
        await clock.advance(20)
        assert woken == [("twice", 10), ("between", 12), ("twice", 15)]
        assert clock.now() == START + 20
        assert clock.waiting == [10]
        await clock.advance(10)
    assert woken[3:] == [("late", 30)]
    assert clock.waiting == []


@pytest.mark.anyio
async def test_advance_waits_for_threads(in_thread: InThread) -> None:
    """Each task sleeps, works in a thread, and does so twice more. The test runs 50 times."""
    for _ in range(RUNS):
        clock = ManualClock(START, autojump=False)
        woken: list[float] = []

        async def sleep_and_work(clock: ManualClock, woken: list[float], *naps: float) -> None:
            for nap in naps:
                await clock.sleep(nap)
                await in_thread()
                await in_thread()
                woken.append(clock.now() - START)

        async with anyio.create_task_group() as group:
            group.start_soon(sleep_and_work, clock, woken, 10, 5, 5)
            group.start_soon(sleep_and_work, clock, woken, 12, 4, 4)
            await clock.advance(20)
            assert woken == [10, 12, 15, 16, 20, 20]


@pytest.mark.anyio
async def test_advance_does_not_wait_for_a_blocked_worker_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker thread waits for a sleep, which only `advance` can end."""
    monkeypatch.setattr(idle, "LONGEST_WORK", 0.02)
    clock = ManualClock(START, autojump=False)

    async def sleep_in_thread() -> None:
        await anyio.to_thread.run_sync(anyio.from_thread.run, clock.sleep, 30)

    async with anyio.create_task_group() as group:
        group.start_soon(sleep_in_thread)
        await clock.advance(20)
        assert clock.waiting == [10]
        await clock.advance(10)
    assert clock.waiting == []


@pytest.mark.anyio
async def test_cancelled_sleep_is_not_waiting() -> None:
    clock = ManualClock(autojump=False)
    async with anyio.create_task_group() as group:
        group.start_soon(clock.sleep, 60)
        await clock.advance(1)
        assert clock.waiting == [59]
        group.cancel_scope.cancel()
    assert clock.waiting == []
    await clock.advance(100)


@pytest.mark.anyio
async def test_sleep_can_be_cancelled_at_its_end() -> None:
    clock = ManualClock(autojump=False)
    async with anyio.create_task_group() as group:
        group.start_soon(clock.sleep, 10)
        await clock.advance(5)

        async def cancel_when_due() -> None:
            await clock.sleep(5)
            group.cancel_scope.cancel()

        group.start_soon(cancel_when_due)
        with anyio.CancelScope(shield=True):
            await clock.advance(5)
    assert clock.waiting == []


@pytest.mark.anyio
async def test_advance_cannot_wake_a_task_in_another_thread() -> None:
    clock = ManualClock(autojump=False)
    asleep = threading.Event()
    stop = threading.Event()

    async def sleep_until_stopped() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(clock.sleep, 5)
            while not stop.is_set():
                await anyio.sleep(0.001)
                if clock.waiting:
                    asleep.set()
            group.cancel_scope.cancel()

    thread = threading.Thread(target=anyio.run, args=(sleep_until_stopped,))
    thread.start()
    try:
        assert asleep.wait(5)
        with pytest.raises(RuntimeError, match="another thread"):
            await clock.advance(5)
    finally:
        stop.set()
        thread.join(5)


def test_setting_the_wall_clock_moves_no_other_time() -> None:
    clock = ManualClock(START)
    before = clock.monotonic()
    clock.step_wall(-3600)
    assert clock.now() == START - 3600
    clock.set_wall(5.0)
    assert clock.now() == 5
    assert clock.monotonic() == before
    assert clock.true_time() == START


def test_suspend_does_not_move_the_monotonic_clock() -> None:
    clock = ManualClock(START)
    before = clock.monotonic()
    clock.suspend(1260)
    assert (clock.now(), clock.true_time()) == (START + 1260, START + 1260)
    assert clock.monotonic() == before


@pytest.mark.parametrize("seconds", [-1, math.inf, math.nan])
@pytest.mark.anyio
async def test_manual_clock_rejects_negative_and_infinite_time(seconds: float) -> None:
    clock = ManualClock()
    with pytest.raises(ValueError, match="time can pass by"):
        await clock.advance(seconds)
    with pytest.raises(ValueError, match="time can pass by"):
        clock.suspend(seconds)
    assert clock.true_time() == START
