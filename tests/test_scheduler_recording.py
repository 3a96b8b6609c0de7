"""How `OrderScheduler.add` records many orders, and which process a scheduler belongs to."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from sms4sats_async import (
    ClientStateError,
    InvalidArgumentError,
    JournalEntry,
    JournalError,
    MemoryJournal,
    OrderScheduler,
)
from sms4sats_async.journal.entry import ensure_entry
from tests.journal_contract import OTHER_ROOT, numbered_order
from tests.simulated import FailingJournal, Simulated, entry_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from sms4sats_async import JournalChange

pytestmark = pytest.mark.anyio


class Counting(MemoryJournal):
    """A journal that notes how many changes each update has."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def update(
        self, changes: Sequence[tuple[str, JournalChange]], /
    ) -> Sequence[JournalEntry | None]:
        self.sizes.append(len(changes))
        await anyio.lowlevel.checkpoint()
        return await super().update(changes)


async def test_orders_that_are_added_before_the_first_await_are_recorded_together() -> None:
    journal = Counting()
    scheduler = OrderScheduler(Simulated(journal=journal).client)
    calls = [scheduler.add(numbered_order(number), timeout=60) for number in range(5000)]
    for call in calls:
        await call
    assert journal.sizes == [2000, 2000, 1000]
    assert len(await journal.pending()) == len(scheduler) == 5000


async def test_orders_that_are_added_in_tasks_are_recorded_once() -> None:
    journal = Counting()
    scheduler = OrderScheduler(Simulated(journal=journal).client)

    async def add(number: int) -> None:
        await scheduler.add(numbered_order(number))

    async with anyio.create_task_group() as group:
        for number in range(3000):
            group.start_soon(add, number)
    assert sum(journal.sizes) == len(await journal.pending()) == 3000


async def test_each_call_tries_again_if_the_write_of_another_call_failed() -> None:
    class FailsOnce(Counting):
        async def update(
            self, changes: Sequence[tuple[str, JournalChange]], /
        ) -> Sequence[JournalEntry | None]:
            entries = await super().update(changes)
            if len(self.sizes) == 1:
                raise OSError("no space")
            return entries

    journal = FailsOnce()
    scheduler = OrderScheduler(Simulated(journal=journal).client)
    calls = [scheduler.add(numbered_order(number)) for number in range(3)]
    failures: list[JournalError] = []

    async def add(call: Awaitable[None]) -> None:
        try:
            await call
        except JournalError as error:
            failures.append(error)

    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(add, call)
    assert (len(failures), journal.sizes) == (1, [3, 1, 1])


async def test_an_order_that_is_added_again_during_its_write_gets_the_newer_deadline() -> None:
    class Gated(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.gates = [anyio.Event(), anyio.Event()]

        async def update(
            self, changes: Sequence[tuple[str, JournalChange]], /
        ) -> Sequence[JournalEntry | None]:
            gate = self.gates[len(self.sizes)]
            entries = await super().update(changes)
            await gate.wait()
            return entries

    journal = Gated()
    scene = Simulated(journal=journal)
    scheduler, order = OrderScheduler(scene.client), numbered_order(1)

    async def add(timeout: float) -> None:
        await scheduler.add(order, timeout=timeout)

    async with anyio.create_task_group() as group:
        for timeout in (60, 90):
            group.start_soon(add, timeout)
            await anyio.wait_all_tasks_blocked()
        for gate in journal.gates:
            gate.set()
            await anyio.wait_all_tasks_blocked()
    (entry,) = await journal.pending()
    assert entry.code_deadline == datetime.fromtimestamp(scene.clock.now() + 90, UTC)
    assert journal.sizes == [1, 1]


async def test_an_order_that_is_awaited_at_once_is_recorded_at_once() -> None:
    journal = Counting()
    scheduler = OrderScheduler(Simulated(journal=journal).client)
    for number in range(3):
        await scheduler.add(numbered_order(number))
        assert len(await journal.pending()) == number + 1
    assert journal.sizes == [1, 1, 1]


@pytest.mark.parametrize("first", [0, 1], ids=["older first", "newer first"])
async def test_the_newest_call_counts_in_whatever_order_the_calls_are_awaited(first: int) -> None:
    journal = Counting()
    it = Simulated(journal=journal)
    order = await it.order()
    scheduler = OrderScheduler(it.client)
    calls = [scheduler.add(order, timeout=60), scheduler.add(order, timeout=600)]
    other = scheduler.add(numbered_order(1))
    await calls[first]
    await calls[1 - first]
    await other
    entry = await entry_of(journal, order.order_id)
    assert entry.code_deadline == datetime.fromtimestamp(it.clock.now(), UTC) + timedelta(
        seconds=600
    )


async def test_a_failed_write_is_an_error_of_the_call_and_others_try_again() -> None:
    journal = FailingJournal()
    it = Simulated(journal=journal)
    scheduler = OrderScheduler(it.client)
    one, two, three = (scheduler.add(numbered_order(number)) for number in range(3))
    journal.error = OSError("disk full")
    with pytest.raises(JournalError) as caught:
        await one
    assert caught.value.order_id == numbered_order(0).order_id
    with pytest.raises(JournalError) as caught:
        await two
    assert caught.value.order_id == numbered_order(1).order_id
    journal.error = None
    await three
    # The scheduler drives the others too, and records them with their claims.
    assert [entry.order_id for entry in await journal.pending()] == [numbered_order(2).order_id]
    assert len(scheduler) == 3


@pytest.mark.parametrize("first", [0, 1], ids=["foreign first", "own first"])
async def test_an_order_of_another_root_is_an_error_of_its_own_call_only(first: int) -> None:
    journal = MemoryJournal()
    foreign, own = numbered_order(0), numbered_order(1)
    change = ensure_entry(foreign, foreign.created_at, OTHER_ROOT)
    await journal.update([(foreign.order_id, change)])
    scheduler = OrderScheduler(Simulated(journal=journal).client)
    calls = [scheduler.add(foreign), scheduler.add(own)]
    for number in (first, 1 - first):
        if number == 0:
            with pytest.raises(InvalidArgumentError, match="the order belongs to"):
                await calls[0]
        else:
            await calls[1]
    assert len(scheduler) == 1
    assert (await entry_of(journal, own.order_id)).pending
    assert (await entry_of(journal, foreign.order_id)).base_url == OTHER_ROOT


async def test_a_scheduler_that_was_made_before_a_fork_does_not_run_in_the_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would claim orders under the name of the parent's scheduler."""
    scheduler = OrderScheduler(Simulated(journal=MemoryJournal()).client)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1)
        with pytest.raises(ClientStateError, match="made before the process forked"):
            await scheduler.run()
    with anyio.move_on_after(0):
        await scheduler.run()
