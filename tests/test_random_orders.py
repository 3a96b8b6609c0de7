"""What holds for every call that ends an order, whatever the service does."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sms4sats_async import (
    MemoryJournal,
    OrderError,
    OrderResult,
    Sms4SatsError,
    Waiting,
)
from sms4sats_async.simulator import Behaviour, Fault, Holder, StateError
from tests.simulated import METADATA, Simulated, entry_of

BEHAVIOURS: Final = st.builds(
    Behaviour,
    pay_delay=st.sampled_from([0.0, 0.0, 10.0, 90.0, 150.0, None]),
    number_delay=st.sampled_from([0.0, 5.0, 60.0, None]),
    code_delay=st.sampled_from([None, None, 1.0, 58.0, 118.0, 119.99, 250.0, 500.0, 1259.0]),
    number_available=st.sampled_from([True, True, True, False]),
    age_counts_from=st.sampled_from(["creation", "payment"]),
    minimum_cancel_age=st.sampled_from([120.0, 120.0, 200.0, 1e6]),
    automatic_cancel_age=st.sampled_from([1260.0, 1260.0, 1300.0, 1e6]),
    status_after_cancel=st.sampled_from(["error", "unchanged"]),
    cancel_refusal_status=st.sampled_from([500, 500, 400, 403, 404]),
)
FAULTS: Final = st.lists(
    st.sampled_from(
        [
            None,
            Fault.unable_to_save_data(after_change=True),
            Fault.http(403),
            Fault.http(404),
            Fault.http(429, retry_after=3),
            Fault.http(503, retry_after=50),
            Fault.html(),
            Fault.redirect("https://elsewhere.example"),
            Fault.reset(after_change=True),
            Fault.hang(),
            Fault.cut_json(after_change=True),
            Fault.slow(7, after_change=True),
        ]
    ),
    max_size=12,
)
WAITS: Final = st.sampled_from([0.0, 1.0, 60.0, 119.0, 121.0, 300.0, 600.0, 1500.0])

Call = Callable[[Simulated, float, float], Awaitable[OrderResult | None]]


async def code_or_refund(it: Simulated, timeout: float, age: float) -> OrderResult | None:
    order = await it.order(metadata=METADATA)
    await it.clock.sleep(age)
    return await it.client.code_or_refund(order, timeout=timeout)


async def when_allowed(it: Simulated, _: float, age: float) -> OrderResult | None:
    order = await it.order(metadata=METADATA)
    await it.clock.sleep(age)
    return await it.client.cancel_order_when_allowed(order, watch=age < 100)


async def receive_code(it: Simulated, timeout: float, age: float) -> OrderResult | None:
    async def pay(invoice: str) -> None:
        await it.clock.sleep(age)
        with suppress(StateError):
            it.simulator.pay(invoice)

    return await it.client.receive_code(187, "tg", pay=pay, timeout=timeout, metadata=METADATA)


async def open_order(it: Simulated, timeout: float, age: float) -> OrderResult | None:
    opened = it.client.open_order(187, "tg", metadata=METADATA)
    with suppress(OrderError):
        async with opened:
            await it.clock.sleep(age)
            if timeout > 0:
                await opened.wait_for_code(timeout=timeout)
    return opened.result


async def advance_order(it: Simulated, _: float, age: float) -> OrderResult | None:
    order = await it.order(metadata=METADATA)
    await it.clock.sleep(age)
    while True:
        step = await it.new_client(it.client.journal).advance_order(order.order_id)
        if isinstance(step, OrderResult):
            return step
        now = datetime.fromtimestamp(it.clock.now(), UTC)
        assert step > now
        await it.clock.sleep((step - now).total_seconds())


CALLS: Final[Mapping[str, Call]] = {
    "code_or_refund": code_or_refund,
    "cancel_order_when_allowed": when_allowed,
    "receive_code": receive_code,
    "open_order": open_order,
    "advance_order": advance_order,
}


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=30)
@given(
    behaviour=BEHAVIOURS,
    cancel_faults=FAULTS,
    status_faults=FAULTS,
    timeout=WAITS,
    age=st.sampled_from([0.0, 0.0, 10.0, 130.0, 1250.0, 2000.0]),
)
def test_one_end_one_event_and_no_claim_left_behind(
    name: str,
    *,
    behaviour: Behaviour,
    cancel_faults: list[Any],
    status_faults: list[Any],
    timeout: float,
    age: float,
) -> None:
    async def run() -> None:
        journal = MemoryJournal()
        it = Simulated(behaviour, journal=journal)
        it.simulator.script("/cancelorder", *cancel_faults)
        it.simulator.script("/orderstatus", *status_faults)
        result = None
        with suppress(Sms4SatsError):
            result = await CALLS[name](it, timeout, age)

        (ledger,) = it.simulator.orders
        entry = await entry_of(journal, ledger.order_id)
        assert (entry.claimed_by, entry.claimed_until) == (None, None)
        assert it.ended() == ([] if result is None else [result])
        if result is not None:
            assert result.refunded is (ledger.holder not in {Holder.HELD, Holder.SETTLED})
            assert (result.code, result.metadata) == (ledger.code, METADATA)
            assert entry.delivered_at is not None
            assert entry.result is not None
            assert (entry.result.outcome, entry.code) == (result.outcome, result.code)
        assert all(cancel_age >= 120 for cancel_age in it.cancel_ages())
        waits = it.events_of(Waiting)
        assert all(first != second for first, second in pairwise(waits))
        assert len(waits) <= len(it.cancel_ages()) + 4
        # A wait that is over already would spin.
        assert len(it.requests()) < 2_000

    anyio.run(run)
