"""How much time has surely passed: suspends count, and settings of the wall clock do not."""

import time

import anyio
import attrs
import pytest

from sms4sats_async import MemoryJournal, OrderResult
from sms4sats_async import _clock as clocks  # pyright: ignore[reportPrivateUsage]
from sms4sats_async._clock import ElapsedClock, SystemClock
from sms4sats_async.simulator import ManualClock
from tests.many import Scene
from tests.simulated import CODE


class BootClock(ManualClock):
    """A clock of a machine that has one which counts suspends."""

    def since_boot(self) -> float:
        return self.true_time()


@pytest.mark.parametrize("jump", [600, 1300, 86_400, -3600])
@pytest.mark.anyio
async def test_a_wall_clock_that_is_set_ends_no_wait_early(jump: float) -> None:
    clock = BootClock(autojump=False)
    scene = Scene(attrs.evolve(CODE, code_delay=100), clock=clock, journal=MemoryJournal())
    order = await scene.order()
    results: list[OrderResult] = []

    async def wait() -> None:
        results.append(await scene.client.code_or_refund(order, timeout=600))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await scene.advance(30)
        clock.step_wall(jump)
        await scene.advance(100)
    assert [result.code for result in results] == ["007"]
    assert scene.cancels() == []


@pytest.mark.parametrize("kind", [ManualClock, BootClock])
def test_a_suspend_counts(kind: type[ManualClock]) -> None:
    clock = kind()
    elapsed = ElapsedClock(clock)
    birth = elapsed.birth(clock.now())
    clock.suspend(600)
    assert elapsed.now() - birth == pytest.approx(600)


def test_an_age_by_the_wall_clock_is_taken_over() -> None:
    clock = BootClock()
    elapsed = ElapsedClock(clock)
    assert elapsed.now() - elapsed.birth(clock.now() - 60) == pytest.approx(60, abs=0.01)


def test_the_machine_counts_since_its_boot() -> None:
    since_boot = SystemClock().since_boot()
    assert since_boot is not None
    assert since_boot >= time.monotonic() - 1


@pytest.mark.parametrize("error", [AttributeError, OSError])
def test_a_machine_without_such_a_clock_is_asked_for_nothing(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> float:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(time, "clock_gettime", fail)
        found = clocks._boot_time()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    assert found is None
    monkeypatch.setattr(clocks, "_BOOT_TIME", found)
    assert SystemClock().since_boot() is None
