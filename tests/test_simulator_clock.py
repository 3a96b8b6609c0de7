"""The simulator's clocks: time that runs faster, and time that is moved by hand."""

import math
import threading
import time

import anyio
import pytest

from sms4sats_async.simulator import Clock, ManualClock, ScaledClock

START = 1_800_000_000.0


@pytest.mark.anyio
async def test_scaled_sleep_is_shorter() -> None:
    """At 1,000 times the speed, 100 s are over in a tenth of a second and not earlier."""
    clock: Clock = ScaledClock(1_000)
    simulated, real = clock.monotonic(), time.monotonic()
    await clock.sleep(100)
    assert clock.monotonic() - simulated >= 100
    assert 0.09 < time.monotonic() - real < 1


@pytest.mark.anyio
async def test_scaled_sleep_of_nothing_is_a_checkpoint() -> None:
    """A sleep of zero seconds can be cancelled, like any other."""
    clock = ScaledClock()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await clock.sleep(0)
    assert scope.cancelled_caught


def test_scaled_clock_starts_at_the_time_of_day() -> None:
    """The wall clock begins at the real time, and the true time is the same."""
    clock = ScaledClock(60)
    assert clock.now() == pytest.approx(time.time(), abs=60)
    assert clock.true_time() == pytest.approx(clock.now(), abs=60)
    assert clock.speed == 60


@pytest.mark.parametrize("speed", [0, -1, math.inf, math.nan])
def test_scaled_clock_refuses_a_speed(speed: float) -> None:
    """A clock that stands still, runs back or jumps to the end of time is refused."""
    with pytest.raises(ValueError, match="speed must be positive and finite"):
        ScaledClock(speed)


@pytest.mark.anyio
async def test_autojump_moves_all_readings() -> None:
    """A sleep moves wall, monotonic and true time alike, and is recorded."""
    clock = ManualClock(START)
    before = clock.monotonic()
    await clock.sleep(120)
    await clock.sleep(0.5)
    assert (clock.now(), clock.true_time()) == (START + 120.5, START + 120.5)
    assert clock.monotonic() - before == 120.5
    assert clock.sleeps == [120, 0.5]


@pytest.mark.anyio
async def test_autojump_sleeps_side_by_side_overlap() -> None:
    """Two tasks that sleep 5 s and 10 s at once take 10 s together, not 15 s."""
    clock = ManualClock(START)
    async with anyio.create_task_group() as group:
        group.start_soon(clock.sleep, 5)
        group.start_soon(clock.sleep, 10)
    assert clock.now() == START + 10


@pytest.mark.anyio
@pytest.mark.parametrize("autojump", [True, False])
async def test_sleep_that_is_over_already(*, autojump: bool) -> None:
    """A sleep of no time or less returns at once and never turns the clock back."""
    clock = ManualClock(START, autojump=autojump)
    await clock.sleep(-5)
    await clock.sleep(0)
    assert clock.now() == START


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", [math.inf, math.nan])
async def test_manual_clock_refuses_a_sleep(seconds: float) -> None:
    """A sleep without an end would break the clock for all later ones."""
    clock = ManualClock()
    with pytest.raises(ValueError, match="cannot sleep for"):
        await clock.sleep(seconds)
    assert clock.sleeps == []


@pytest.mark.anyio
async def test_advance_wakes_in_due_order_at_due_time() -> None:
    """Each sleeper wakes at its own due time, also one that goes to sleep again on the way."""
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
async def test_cancelled_sleeper_is_forgotten() -> None:
    """A sleeper that was cancelled waits for nothing any more."""
    clock = ManualClock(autojump=False)
    async with anyio.create_task_group() as group:
        group.start_soon(clock.sleep, 60)
        await clock.advance(1)
        assert clock.waiting == [59]
        group.cancel_scope.cancel()
    assert clock.waiting == []
    await clock.advance(100)


@pytest.mark.anyio
async def test_sleeper_cancelled_as_it_wakes() -> None:
    """A sleeper that is woken and cancelled in the same instant does no harm."""
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
async def test_advance_cannot_wake_another_thread() -> None:
    """A sleeper in another thread's event loop is an error, not a race."""
    clock = ManualClock(autojump=False)
    asleep = threading.Event()
    over = threading.Event()

    async def sleep_until_over() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(clock.sleep, 5)
            while not over.is_set():
                await anyio.sleep(0.001)
                if clock.waiting:
                    asleep.set()
            group.cancel_scope.cancel()

    thread = threading.Thread(target=anyio.run, args=(sleep_until_over,))
    thread.start()
    try:
        assert asleep.wait(5)
        with pytest.raises(RuntimeError, match="another thread"):
            await clock.advance(5)
    finally:
        over.set()
        thread.join(5)


def test_wall_clock_can_be_set_alone() -> None:
    """Setting or stepping the wall clock moves neither the monotonic clock nor the true time."""
    clock = ManualClock(START)
    before = clock.monotonic()
    clock.step_wall(-3600)
    assert clock.now() == START - 3600
    clock.set_wall(5.0)
    assert clock.now() == 5
    assert clock.monotonic() == before
    assert clock.true_time() == START


def test_suspend_is_unseen_by_the_monotonic_clock() -> None:
    """A laptop that slept has a later wall clock and the same monotonic one; the world went on."""
    clock = ManualClock(START)
    before = clock.monotonic()
    clock.suspend(1260)
    assert (clock.now(), clock.true_time()) == (START + 1260, START + 1260)
    assert clock.monotonic() == before


@pytest.mark.parametrize("seconds", [-1, math.inf, math.nan])
@pytest.mark.anyio
async def test_time_does_not_pass_backwards(seconds: float) -> None:
    """Time passes by a finite span of zero or more."""
    clock = ManualClock()
    with pytest.raises(ValueError, match="time can pass by"):
        await clock.advance(seconds)
    with pytest.raises(ValueError, match="time can pass by"):
        clock.suspend(seconds)
    assert clock.true_time() == START
