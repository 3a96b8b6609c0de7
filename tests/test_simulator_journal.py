"""`ManualClock.advance` waits for the thread of a `SqliteJournal`."""

from pathlib import Path

import anyio
import pytest

from sms4sats_async import MemoryJournal, Sms4SatsClient, SqliteJournal
from sms4sats_async.simulator import Behaviour, ManualClock, Simulator
from sms4sats_async.testing import http_client

RUNS = 50


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_advance_cancels_at_two_minutes_in_each_of_50_runs(kind: str, tmp_path: Path) -> None:
    journal = MemoryJournal() if kind == "memory" else SqliteJournal(tmp_path / "orders")
    for _ in range(RUNS):
        clock = ManualClock(autojump=False)
        simulator = Simulator(Behaviour(pay_delay=0, code_delay=None), clock=clock)
        client = Sms4SatsClient(http_client=http_client(simulator), clock=clock, journal=journal)
        order = await client.create_order(country=187, service="tg")

        async with anyio.create_task_group() as group:
            group.start_soon(client.cancel_order_when_allowed, order)
            await clock.advance(119)
            assert simulator.count("/cancelorder") == 0
            await clock.advance(2)
            assert simulator.count("/cancelorder") == 1
            assert await journal.pending() == []
    if isinstance(journal, SqliteJournal):
        await journal.aclose()


@pytest.mark.anyio
async def test_advance_waits_for_a_task_that_uses_the_journal(tmp_path: Path) -> None:
    async with SqliteJournal(tmp_path / "orders") as journal:
        for _ in range(RUNS):
            clock = ManualClock(0.0, autojump=False)
            read: list[float] = []

            async def read_often(clock: ManualClock, read: list[float]) -> None:
                for _ in range(3):
                    await clock.sleep(5)
                    await journal.pending()
                    await journal.history()
                    read.append(clock.now())

            async with anyio.create_task_group() as group:
                group.start_soon(read_often, clock, read)
                await clock.advance(15)
                assert read == [5, 10, 15]
