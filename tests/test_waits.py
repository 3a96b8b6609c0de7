"""`wait_for_code` and `watch_order`: one deadline, no lost code, no scope held open."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms4sats_async import (
    AttemptFailed,
    ClientStateError,
    CodeStatus,
    CodeTimeoutError,
    InvalidArgumentError,
    MemoryJournal,
    Money,
    OrderError,
    OrderOutcome,
    OrderRefundedError,
    OrderState,
    OrderStatus,
    Sms4SatsClient,
    StatusPolled,
    Waiting,
)
from sms4sats_async.simulator import Behaviour, Fault, ManualClock
from tests.simulated import CODE, HELD, METADATA, NO_NUMBER, ODD_ANSWERS, Simulated, entry_of

pytestmark = pytest.mark.anyio

ID = "0123456789abcdef" * 4
CODE_AFTER_A_MINUTE = Behaviour(pay_delay=5, number_delay=5, code_delay=50, code="0042")


def client_of(clock: ManualClock, *answers: object, **settings: Any) -> Sms4SatsClient:
    """A client of a service that gives these status answers, the last one for ever."""
    left = list(answers)

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=left.pop(0) if len(left) > 1 else left[0])

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return Sms4SatsClient(http_client=http, clock=clock, **settings)


# --- wait_for_code --------------------------------------------------------------------------------


async def test_the_code_is_returned_by_the_first_poll_that_shows_it() -> None:
    it = Simulated(CODE_AFTER_A_MINUTE)
    order = await it.order(metadata=METADATA)
    status = await it.client.wait_for_code(order, timeout=300)
    assert isinstance(status, CodeStatus)
    code: str = status.code
    assert (status.state, code) == (OrderState.CODE_RECEIVED, "0042")
    assert 60 <= it.age(order) < 60 + 5.75
    assert len(it.events_of(Waiting)) == 1
    assert it.events_of(StatusPolled)[-1].status == status
    (result,) = it.ended()
    assert (result.outcome, result.code) == (OrderOutcome.CODE_RECEIVED, code)
    assert (result.status, result.number) == (status, status.number)
    assert result.metadata == METADATA


async def test_a_code_that_has_arrived_is_returned_without_a_wait() -> None:
    it = Simulated(CODE_AFTER_A_MINUTE)
    order = await it.order()
    await it.clock.sleep(70)
    start = it.clock.monotonic()
    assert (await it.client.wait_for_code(order.order_id, timeout=0.5)).code == "0042"
    assert it.clock.monotonic() == start
    assert it.events_of(Waiting) == []


# What the service answers, and what is known about the money.
UNTIL_THE_DEADLINE: dict[str, tuple[dict[str, object], Money, str]] = {
    "held": ({"paid": True}, Money.HELD, "The order is open and the money is held."),
    "number": ({"paid": True, "number": 49123}, Money.HELD, "open and the money is held."),
    "unpaid": ({"paid": False}, Money.WITH_PAYER, "open and its invoice is not paid."),
    "unknown": ({}, Money.UNKNOWN, "The order may be open and the money may be held."),
}


@pytest.mark.parametrize(
    ("answer", "money", "text"), UNTIL_THE_DEADLINE.values(), ids=UNTIL_THE_DEADLINE
)
async def test_the_deadline_raises_what_the_last_status_shows_about_the_money(
    answer: dict[str, object], money: Money, text: str
) -> None:
    clock = ManualClock()
    start = clock.monotonic()
    with pytest.raises(CodeTimeoutError) as caught:
        await client_of(clock, answer).wait_for_code(ID, timeout=timedelta(seconds=30))
    assert clock.monotonic() - start == pytest.approx(30, abs=0.01)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.status is not None
    assert caught.value.status.money is money
    assert text in str(caught.value)
    assert (caught.value.operation, caught.value.order_id) == ("wait_for_code", ID)
    assert caught.value.request_outcome is None


async def test_a_deadline_without_any_status_says_that_the_money_may_be_held() -> None:
    it = Simulated()
    order = await it.order()
    it.simulator.script("/orderstatus", *[Fault.reset()] * 30)
    with pytest.raises(CodeTimeoutError, match="the money may be held") as caught:
        await it.client.wait_for_code(order, timeout=60)
    assert caught.value.status is None
    assert it.ended() == []


@given(
    timeout=st.floats(1.5, 100),
    interval=st.floats(0.5, 200),
    early=st.floats(1.01, 1.4),
)
def test_a_code_more_than_a_second_before_the_deadline_is_never_missed(
    timeout: float, interval: float, early: float
) -> None:
    async def run() -> None:
        behaviour = Behaviour(pay_delay=0, number_delay=0, code_delay=max(0.0, timeout - early))
        it = Simulated(behaviour)
        order = await it.order()
        status = await it.client.wait_for_code(order, timeout=timeout, poll_interval=interval)
        assert status.code == "012345"

    anyio.run(run)


async def test_a_code_in_an_answer_after_the_deadline_is_not_lost() -> None:
    clock = ManualClock()

    async def answer(_: httpx.Request) -> httpx.Response:
        await clock.sleep(60)
        return httpx.Response(200, json={"paid": True, "code": "7"})

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    client = Sms4SatsClient(http_client=http, clock=clock)
    assert (await client.wait_for_code(ID, timeout=30)).code == "7"


async def test_a_poll_gets_no_more_time_than_the_rest_of_the_wait() -> None:
    it = Simulated()
    it.simulator.script("/orderstatus", Fault.hang(), Fault.hang())
    client = Sms4SatsClient(http_client=it.simulator.http_client())
    with anyio.fail_after(5), pytest.raises(CodeTimeoutError) as caught:
        await client.wait_for_code(ID, timeout=0.05)
    assert caught.value.status is None


@pytest.mark.parametrize("fault", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
async def test_an_odd_answer_is_a_lost_poll(fault: Fault) -> None:
    it = Simulated(CODE_AFTER_A_MINUTE)
    order = await it.order()
    it.simulator.script("/orderstatus", fault, fault, fault)
    assert (await it.client.wait_for_code(order, timeout=300)).code == "0042"
    assert len(it.events_of(AttemptFailed)) == 3


async def test_a_refund_by_the_service_is_raised() -> None:
    it = Simulated(NO_NUMBER)
    order = await it.order()
    with pytest.raises(OrderRefundedError, match="No available number") as caught:
        await it.client.wait_for_code(order, timeout=300)
    assert caught.value.status is not None
    assert (caught.value.order_id, caught.value.request_outcome) == (order.order_id, None)
    (result,) = it.ended()
    assert (result.outcome, result.refunded) == (OrderOutcome.REFUNDED, True)


@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        ("sent", OrderOutcome.MESSAGE_SENT),
        ("delivered", OrderOutcome.MESSAGE_SENT),
        ("failed", None),
    ],
)
async def test_a_message_to_send_has_no_code(word: str, outcome: OrderOutcome | None) -> None:
    events: list[Any] = []
    client = client_of(ManualClock(), {"paid": True, "smsStatus": word}, on_event=events.append)
    with pytest.raises(OrderError, match="no code can arrive: message") as caught:
        await client.wait_for_code(ID, timeout=300)
    assert type(caught.value) is OrderError
    ended = [event.result.outcome for event in events if hasattr(event, "result")]
    assert ended == ([] if outcome is None else [outcome])


@pytest.mark.parametrize("timeout", [1e9, 1e12, 1e308, timedelta.max], ids=str)
async def test_a_wait_may_be_longer_than_any_calendar(timeout: float | timedelta) -> None:
    it = Simulated(CODE_AFTER_A_MINUTE)
    assert (await it.client.wait_for_code(await it.order(), timeout=timeout)).code == "0042"
    assert len(it.events_of(Waiting)) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"poll_interval": 0},
        {"order": ""},
    ],
    ids=str,
)
async def test_an_invalid_argument_is_refused(wrong: dict[str, Any]) -> None:
    it = Simulated()
    options: dict[str, Any] = {"order": ID, "timeout": 1}
    with pytest.raises(InvalidArgumentError):
        await it.client.wait_for_code(**options | wrong)
    assert it.requests() == []


async def test_a_closed_client_ends_the_wait() -> None:
    it = Simulated()
    order = await it.order()
    await it.client.aclose()
    with pytest.raises(ClientStateError):
        await it.client.wait_for_code(order, timeout=1)


async def test_polls_have_jitter() -> None:
    it = Simulated()
    with pytest.raises(CodeTimeoutError):
        await it.client.wait_for_code(await it.order(), timeout=300)
    gaps = [later - earlier for earlier, later in pairwise(it.poll_ages())][:-1]
    assert len(set(gaps)) == len(gaps)
    assert all(4.25 <= gap <= 5.76 for gap in gaps)


async def test_a_wait_never_cancels_and_claims_nothing() -> None:
    journal = MemoryJournal()
    it = Simulated(journal=journal)
    order = await it.order()
    with pytest.raises(CodeTimeoutError):
        await it.client.wait_for_code(order, timeout=1000)
    assert it.cancel_ages() == []
    entry = await entry_of(journal, order.order_id)
    assert (entry.claimed_by, entry.code_deadline) == (None, None)


async def test_the_code_is_recorded_and_delivered() -> None:
    journal = MemoryJournal()
    it = Simulated(CODE, journal=journal)
    order = await it.order(metadata=METADATA)
    await it.client.wait_for_code(order.order_id, timeout=60)
    entry = await entry_of(journal, order.order_id)
    assert (entry.code, entry.outcome) == ("007", OrderOutcome.CODE_RECEIVED)
    assert entry.delivered_at is not None
    (result,) = it.ended()
    assert result.metadata == METADATA


# --- watch_order ----------------------------------------------------------------------------------


async def test_a_watch_yields_each_change_once_and_ends_with_the_order() -> None:
    it = Simulated(CODE_AFTER_A_MINUTE)
    watch = it.client.watch_order(await it.order(), poll_interval=1)
    assert [status.state async for status in watch] == [
        OrderState.UNPAID,
        OrderState.HELD,
        OrderState.NUMBER_ASSIGNED,
        OrderState.CODE_RECEIVED,
    ]
    assert [status async for status in watch] == []


async def test_another_time_stamp_alone_is_no_change() -> None:
    answers = [{"paid": True, "timestamp": moment} for moment in range(1, 5)]
    watch = client_of(ManualClock(), *answers, {"paid": True, "code": "7"}).watch_order(ID)
    assert [status.state async for status in watch] == [OrderState.HELD, OrderState.CODE_RECEIVED]


@pytest.mark.parametrize("fault", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
async def test_an_odd_answer_does_not_end_a_watch(fault: Fault) -> None:
    it = Simulated(CODE)
    order = await it.order()
    await it.clock.sleep(100)
    it.simulator.script("/orderstatus", *[fault] * 9)
    assert [status.code async for status in it.client.watch_order(order)] == ["007"]


async def test_a_watch_can_be_left_and_continued_in_another_task() -> None:
    it = Simulated(CODE_AFTER_A_MINUTE)
    watch = it.client.watch_order(await it.order(), poll_interval=timedelta(seconds=1))
    seen: list[OrderStatus] = []

    async def take_one() -> None:
        seen.append(await anext(watch))

    for _ in range(4):
        async with anyio.create_task_group() as group:
            group.start_soon(take_one)
    assert seen[-1].code == "0042"


async def test_an_end_that_a_watch_sees_is_left_for_a_scheduler_to_deliver() -> None:
    journal = MemoryJournal()
    it = Simulated(CODE, journal=journal)
    order = await it.order()
    async for _ in it.client.watch_order(order):
        pass
    (entry,) = await journal.undelivered()
    assert entry.code == "007"
    assert it.ended() == []


async def test_an_invalid_watch_is_refused_at_once() -> None:
    it = Simulated(HELD)
    with pytest.raises(InvalidArgumentError):
        it.client.watch_order("")
    with pytest.raises(InvalidArgumentError):
        it.client.watch_order(ID, poll_interval=-1)
