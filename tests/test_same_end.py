"""Every driver brings an order to the same end, which is the end in the service's own ledger."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import anyio
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sms4sats_async import (
    MemoryJournal,
    OrderOutcome,
    OrderResult,
    OrderScheduler,
    ReceiveOrder,
    Sms4SatsClient,
    Sms4SatsError,
)
from sms4sats_async.simulator import Behaviour, Fault, Holder, ManualClock, Simulator
from sms4sats_async.testing import http_client

METADATA: Final[Mapping[str, str]] = {"chat": "42"}


@attrs.define
class Scene:
    """One service, one client, one order, and how long its code is waited for."""

    simulator: Simulator
    client: Sms4SatsClient
    order: ReceiveOrder
    timeout: float

    def next_client(self) -> Sms4SatsClient:
        """A client of the next process: it has the journal, and nothing else."""
        return Sms4SatsClient(
            http_client=http_client(self.simulator),
            clock=self.simulator.clock,
            journal=self.client.journal,
        )


async def code_or_refund(scene: Scene) -> OrderResult:
    return await scene.client.code_or_refund(scene.order, timeout=scene.timeout)


async def scheduler(scene: Scene) -> OrderResult:
    return await _scheduled(scene.client, scene)


async def _scheduled(client: Sms4SatsClient, scene: Scene, *, add: bool = True) -> OrderResult:
    scheduler = OrderScheduler(client)
    results: list[OrderResult] = []
    async with anyio.create_task_group() as group:
        group.start_soon(scheduler.run)
        if add:
            await scheduler.add(scene.order, timeout=scene.timeout)
        results.append(await anext(scheduler.results()))
        group.cancel_scope.cancel()
    (result,) = results
    if result.error is not None:
        raise result.error
    return result


async def open_order(scene: Scene) -> OrderResult:
    async with scene.client.resume_order(scene.order) as order:
        await order.code_or_refund(timeout=scene.timeout)
    assert order.result is not None
    return order.result


async def job_engine(scene: Scene) -> OrderResult:
    await _record(scene)
    while True:
        step = await scene.client.advance_order(scene.order.order_id)
        if isinstance(step, OrderResult):
            return step
        now = datetime.fromtimestamp(scene.simulator.clock.now(), UTC)
        await scene.simulator.clock.sleep(max(0.001, (step - now).total_seconds()))


async def next_process(scene: Scene) -> OrderResult:
    await _record(scene)
    return await _scheduled(scene.next_client(), scene, add=False)


async def _record(scene: Scene) -> None:
    """Record the deadline, as a process does that dies right afterwards."""
    await OrderScheduler(scene.client).add(scene.order, timeout=scene.timeout)


DRIVERS: Final[Mapping[str, Callable[[Scene], Awaitable[OrderResult]]]] = {
    "code_or_refund": code_or_refund,
    "scheduler": scheduler,
    "open_order": open_order,
    "job_engine": job_engine,
    "next_process": next_process,
}

PREDICTABLE: Final = {
    "pay_delay": st.sampled_from([0.0, 10.0, 90.0]),
    "number_delay": st.sampled_from([0.0, 5.0, 60.0]),
    "code_delay": st.none() | st.sampled_from([1.0, 58.0, 118.0, 250.0, 500.0]),
    "code": st.sampled_from(["0042", "12:34"]),
    "number_available": st.sampled_from([True, True, True, False]),
    "minimum_cancel_age": st.sampled_from([120.0, 120.0, 1e6]),
}
# Backoff and jitter decide when a cancel is retried that was refused, so drivers may differ.
UNPREDICTABLE: Final = PREDICTABLE | {
    "age_counts_from": st.sampled_from(["creation", "payment"]),
    "minimum_cancel_age": st.sampled_from([120.0, 200.0, 1e6]),
    "cancel_refusal_status": st.sampled_from([500, 500, 400, 404]),
}
TIMEOUTS: Final = st.sampled_from([0.0, 60.0, 300.0, 600.0])
FAULTS = st.lists(
    st.sampled_from(
        [
            None,
            Fault.unable_to_save_data(),
            Fault.unable_to_save_data(after_change=True),
            Fault.html(),
            Fault.http(404, "not found"),
            Fault.reset(after_change=True),
            Fault.cut_json(after_change=True),
        ]
    ),
    max_size=6,
)


async def end_of(
    driver: Callable[[Scene], Awaitable[OrderResult]],
    behaviour: Behaviour,
    timeout: float,
    cancel_faults: list[Fault | None],
    status_faults: list[Fault | None],
) -> tuple[OrderOutcome | None, str | None]:
    """Drive one order, and check its result against the ledger."""
    clock = ManualClock()
    simulator = Simulator(behaviour, clock=clock)
    client = Sms4SatsClient(
        http_client=http_client(simulator), clock=clock, journal=MemoryJournal()
    )
    order = await client.create_order(187, "tg", metadata=METADATA)
    simulator.script("/cancelorder", *cancel_faults)
    simulator.script("/orderstatus", *status_faults)
    scene = Scene(simulator, client, order, timeout)
    try:
        result = await driver(scene)
    except Sms4SatsError:
        return None, None  # an end that is unknown is never a result
    assert result.metadata == METADATA
    ledger = simulator.order(order.order_id)
    if result.refunded:
        assert ledger.holder not in {Holder.SETTLED, Holder.HELD}
    else:
        assert ledger.holder is Holder.SETTLED
        assert result.code == ledger.code == behaviour.code
    cancels = [each.time for each in simulator.requests if each.path == "/cancelorder"]
    earliest = order.created_at.timestamp() + max(120.0, timeout)
    assert all(time >= earliest - 0.001 for time in cancels)
    return result.outcome, result.code


@pytest.mark.parametrize("name", [name for name in DRIVERS if name != "code_or_refund"])
@settings(max_examples=25)
@given(behaviour=st.builds(Behaviour, **PREDICTABLE), timeout=TIMEOUTS)
def test_every_driver_brings_an_order_to_the_same_end(
    name: str, behaviour: Behaviour, timeout: float
) -> None:
    no_faults: list[Fault | None] = []
    first, second = (
        anyio.run(end_of, DRIVERS[each], behaviour, timeout, no_faults, no_faults)
        for each in ("code_or_refund", name)
    )
    assert first == second


@pytest.mark.parametrize("name", DRIVERS)
@settings(max_examples=40)
@given(
    behaviour=st.builds(Behaviour, **UNPREDICTABLE),
    timeout=TIMEOUTS,
    cancel_faults=FAULTS,
    status_faults=FAULTS,
)
def test_every_result_is_what_the_ledger_says(
    name: str,
    behaviour: Behaviour,
    timeout: float,
    cancel_faults: list[Fault | None],
    status_faults: list[Fault | None],
) -> None:
    anyio.run(end_of, DRIVERS[name], behaviour, timeout, cancel_faults, status_faults)
