"""Telling a cancellation of our own task from one that happened elsewhere."""

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import anyio.to_thread
import pytest

from sms4sats_async._cancellation import (
    CancelledElsewhereError,
    cancellations_of_others,
    is_of_others,
)

pytestmark = pytest.mark.anyio

only_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


async def a_cancelled_future() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def a_cancelled_task() -> None:
    task = asyncio.ensure_future(anyio.sleep_forever())
    task.cancel()
    await task


async def a_thread_with_a_loop() -> None:
    await anyio.to_thread.run_sync(lambda: asyncio.run(a_cancelled_task()))


async def a_raised_error() -> None:
    raise asyncio.CancelledError("not yours")


FOREIGN: dict[str, tuple[Callable[[], Awaitable[None]], list[str]]] = {
    "future": (a_cancelled_future, ["asyncio"]),
    "task": (a_cancelled_task, ["asyncio"]),
    "thread": (a_thread_with_a_loop, ["asyncio", "trio"]),
    "raised": (a_raised_error, ["asyncio", "trio"]),
}


@pytest.mark.parametrize(
    ("foreign", "anyio_backend"),
    [
        pytest.param(foreign, backend, id=f"{name}-{backend}")
        for name, (foreign, backends) in FOREIGN.items()
        for backend in backends
    ],
)
async def test_a_cancellation_of_others_is_an_error(
    foreign: Callable[[], Awaitable[None]],
) -> None:
    with pytest.raises(CancelledElsewhereError) as caught, cancellations_of_others():
        await foreign()
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)


async def test_the_cancellation_of_a_scope_passes() -> None:
    with anyio.CancelScope() as scope, cancellations_of_others():
        scope.cancel()
        await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_time_limit_passes() -> None:
    async def limited() -> None:
        with anyio.fail_after(0.01), cancellations_of_others():
            await anyio.sleep_forever()

    with pytest.raises(TimeoutError):
        await limited()


@only_asyncio
@pytest.mark.parametrize("times", [1, 2])
async def test_the_cancellation_of_the_own_task_passes(times: int) -> None:
    entered = asyncio.Event()

    async def run() -> None:
        with cancellations_of_others():
            entered.set()
            await anyio.sleep_forever()

    task = asyncio.ensure_future(run())
    await entered.wait()
    for _ in range(times):
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@only_asyncio
async def test_a_foreign_cancellation_in_a_cancelled_task_counts_as_its_own() -> None:
    """Asyncio does not tell which one it is, and then the task is to end."""

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with cancellations_of_others():
            await a_raised_error()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.ensure_future(run())


@pytest.mark.parametrize("error", [KeyError("x"), SystemExit(3), GeneratorExit()])
async def test_every_other_exception_passes(error: BaseException) -> None:
    assert not is_of_others(error)
    with pytest.raises(type(error)) as caught, cancellations_of_others():
        raise error
    assert caught.value is error


def test_without_a_loop_a_cancellation_is_of_others() -> None:
    assert is_of_others(asyncio.CancelledError())


@only_asyncio
async def test_in_a_callback_of_the_loop_a_cancellation_is_of_others() -> None:
    seen: list[bool] = []
    asyncio.get_running_loop().call_soon(
        lambda: seen.append(is_of_others(asyncio.CancelledError()))
    )
    await asyncio.sleep(0)
    assert seen == [True]
