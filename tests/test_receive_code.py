"""`receive_code`: the code, or the money on its way back, and never a third thing."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import anyio
import httpx
import pytest

from sms4sats_async import (
    APIError,
    CodeTimeoutError,
    CodeTimeoutRefundedError,
    InvalidArgumentError,
    OrderError,
    OrderRefundedError,
    RequestOutcome,
    ServerError,
    Sms4SatsClient,
)
from sms4sats_async.simulator import (
    Behaviour,
    Fault,
    Holder,
    ManualClock,
    Simulator,
    make_invoice,
)

pytestmark = pytest.mark.anyio

A_CODE = Behaviour(network="bitcoin", code_delay=40, code="0042")
NO_CODE = Behaviour(network="bitcoin", code_delay=None)


class World:
    """A simulator, a client, and a wallet whose pay call blocks as a real one's does."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.clock = ManualClock()
        self.simulator = Simulator(behaviour, clock=self.clock)
        self.client = Sms4SatsClient(
            http_client=self.simulator.http_client(), clock=self.clock, timeout=0.1
        )
        self.paid: list[str] = []
        self.payment_left = False

    async def pay(self, invoice: str) -> None:
        self.paid.append(invoice)
        self.simulator.pay(invoice)
        try:
            await anyio.sleep_forever()
        finally:
            self.payment_left = True

    @property
    def holder(self) -> Holder:
        (order,) = self.simulator.orders
        return order.holder

    def receive(
        self, *, pay: Callable[[str], Awaitable[object]] | None = None, max_price: int | None = None
    ) -> Awaitable[str]:
        return self.client.receive_code(
            187, "tg", pay=self.pay if pay is None else pay, timeout=60, max_price=max_price
        )


async def test_it_orders_pays_and_returns_the_code() -> None:
    world = World(A_CODE)
    assert await world.receive() == "0042"
    assert world.holder is Holder.SETTLED
    assert len(world.paid) == 1
    assert world.payment_left
    assert world.simulator.count("/cancelorder") == 0


async def test_without_a_code_it_raises_when_the_money_is_back() -> None:
    world = World(NO_CODE)
    with pytest.raises(CodeTimeoutRefundedError, match="returns to the payer") as caught:
        await world.receive()
    assert isinstance(caught.value, CodeTimeoutError | OrderRefundedError)
    assert caught.value.order_id == world.simulator.orders[0].order_id
    assert world.holder is Holder.RETURNED
    assert world.payment_left
    (cancel,) = [each for each in world.simulator.requests if each.path == "/cancelorder"]
    assert cancel.time - world.simulator.orders[0].created_at >= 120


async def test_a_code_that_comes_after_the_timeout_and_before_the_cancel_is_returned() -> None:
    world = World(Behaviour(network="bitcoin", code_delay=90, code="0042"))
    assert await world.receive() == "0042"
    assert world.holder is Holder.SETTLED


async def test_an_order_that_the_service_gives_back_is_told_at_once() -> None:
    world = World(Behaviour(network="bitcoin", number_available=False))
    with pytest.raises(OrderRefundedError) as caught:
        await world.receive()
    assert not isinstance(caught.value, CodeTimeoutError)
    assert world.clock.monotonic() < 1000 + 60
    assert world.holder is Holder.RETURNED


async def test_a_payment_that_fails_is_the_cause_of_an_order_that_is_cancelled() -> None:
    world = World(NO_CODE)

    async def pay(_: str) -> None:
        raise ConnectionRefusedError("no node")

    with pytest.raises(OrderRefundedError, match="ConnectionRefusedError") as caught:
        await world.receive(pay=pay)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert not isinstance(caught.value, CodeTimeoutError)
    assert world.simulator.held_orders() == []


async def test_a_payment_that_fails_after_it_was_held_still_gets_its_code() -> None:
    world = World(A_CODE)

    async def pay(invoice: str) -> None:
        world.simulator.pay(invoice)
        raise TimeoutError("to a wallet this means unknown")

    assert await world.receive(pay=pay) == "0042"


async def test_a_payment_that_returns_early_changes_nothing() -> None:
    world = World(A_CODE)

    async def pay(invoice: str) -> str:
        world.simulator.pay(invoice)
        return "accepted"

    assert await world.receive(pay=pay) == "0042"


async def test_a_refused_read_of_the_status_makes_it_ask_the_money_back() -> None:
    world = World(NO_CODE)
    world.simulator.script("/orderstatus", Fault.http(404))
    with pytest.raises(OrderRefundedError):
        await world.receive()
    assert world.holder is Holder.RETURNED


async def test_an_order_whose_status_cannot_be_read_does_not_blame_the_payment() -> None:
    world = World(NO_CODE)
    world.simulator.script("/orderstatus", Fault.http(404))
    with pytest.raises(OrderRefundedError) as caught:
        await world.receive()
    assert "NoneType" not in str(caught.value)
    assert "payment" not in caught.value.problem


async def test_where_nobody_can_tell_it_says_unknown() -> None:
    lost = Behaviour(
        network="bitcoin", code_delay=None, minimum_cancel_age=1e6, automatic_cancel_age=1e6
    )
    world = World(lost)
    with pytest.raises(ServerError) as caught:
        await world.receive()
    assert caught.value.request_outcome is RequestOutcome.UNKNOWN
    assert caught.value.__cause__ is None


async def test_an_order_that_was_not_made_is_not_paid() -> None:
    world = World(A_CODE)
    world.simulator.script("/createorder", Fault.http(400, "no such service"))
    with pytest.raises(APIError, match="no such service"):
        await world.receive()
    assert world.paid == []


# --- the ceiling ----------------------------------------------------------------------------------


async def test_an_invoice_below_the_ceiling_is_paid() -> None:
    world = World(A_CODE)
    price = 1_000_000
    assert await world.receive(max_price=price) == "0042"


async def test_an_invoice_above_the_ceiling_is_not_paid() -> None:
    world = World(A_CODE)
    with pytest.raises(OrderError, match="more than 1 sat") as caught:
        await world.receive(max_price=1)
    assert caught.value.order_id == world.simulator.orders[0].order_id
    assert world.paid == []
    assert world.holder is Holder.NONE


async def test_the_ceiling_itself_is_paid() -> None:
    world = World(A_CODE)
    price = (await world.client.get_price(187, "tg")).computed
    assert price is not None
    assert await world.receive(max_price=price.price) == "0042"


@pytest.mark.parametrize("ceiling", [0, -5, True, 1.5])
async def test_a_ceiling_that_cannot_be_meant_is_refused_before_anything_is_ordered(
    ceiling: int,
) -> None:
    world = World(A_CODE)
    with pytest.raises(InvalidArgumentError, match="max_price"):
        await world.receive(max_price=ceiling)
    assert world.simulator.requests == []


async def test_an_invoice_that_was_refused_is_not_called_nothing() -> None:
    """An order was made, and its id stands on the error: "nothing was changed" is not so."""
    world = World(A_CODE)
    with pytest.raises(OrderError) as caught:
        await world.receive(max_price=1)
    assert "Nothing was changed" not in str(caught.value)


NEVER_MEANT: dict[str, dict[str, Any]] = {
    "timeout": {"timeout": 0},
    "timeout is not a span": {"timeout": float("inf")},
    "poll_interval": {"poll_interval": -1},
    "network": {"network": "mainnet", "max_price": 1000},
    "network is no text": {"network": None, "max_price": 1000},
    "pay": {"pay": None},
    "pay is no function": {"pay": "lnbc1"},
    "country": {"country": -1},
    "service": {"service": ""},
    "referral": {"referral": "me"},
}


@pytest.mark.parametrize("wrong", NEVER_MEANT.values(), ids=NEVER_MEANT)
async def test_what_cannot_be_meant_is_refused_before_anything_is_ordered(
    wrong: dict[str, Any],
) -> None:
    world = World(A_CODE)
    meant: dict[str, Any] = {"country": 187, "service": "tg", "pay": world.pay, "timeout": 60}
    with pytest.raises(InvalidArgumentError):
        await world.client.receive_code(**meant | wrong)
    assert world.simulator.requests == []
    assert world.paid == []


async def test_a_wait_beyond_any_calendar_still_gets_the_code() -> None:
    world = World(A_CODE)
    code = await world.client.receive_code(187, "tg", pay=world.pay, timeout=timedelta.max)
    assert code == "0042"


async def test_an_invoice_for_another_network_is_not_paid() -> None:
    world = World(Behaviour(network="testnet"))
    with pytest.raises(OrderError, match="network testnet"):
        await world.receive(max_price=1_000_000)
    assert world.paid == []


def an_invoice(amount_sat: int | None, made: float) -> str:
    return make_invoice(
        amount_sat=amount_sat,
        payment_hash=bytes(32),
        payment_secret=bytes(32),
        description="a code",
        timestamp=int(made),
        expiry=600,
        network="bitcoin",
    )


@pytest.mark.parametrize(
    ("payreq", "why"),
    [
        ("lnbc1nonsense", "cannot be read"),
        (an_invoice(None, 1_800_000_000), "has no amount"),
        (an_invoice(1500, 1_800_000_000 - 600), "expired"),
    ],
    ids=["nonsense", "open", "expired"],
)
async def test_an_invoice_that_cannot_be_judged_is_not_paid(payreq: str, why: str) -> None:
    world = World(A_CODE)
    answer = {"status": "OK", "orderId": "ab" * 32, "payreq": payreq}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    client = Sms4SatsClient(
        http_client=httpx.AsyncClient(transport=transport), clock=ManualClock(1_800_000_000)
    )
    with pytest.raises(OrderError, match=why):
        await client.receive_code(187, "tg", pay=world.pay, timeout=60, max_price=10**9)
    assert world.paid == []


async def test_it_is_left_at_once_when_it_is_cancelled_from_outside() -> None:
    world = World(NO_CODE)
    world.clock.autojump = False
    ended = False

    async def receive() -> None:
        nonlocal ended
        await world.receive()
        ended = True

    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert not ended
    assert world.payment_left
    order = world.simulator.orders[0]
    assert (await world.client.get_order_status(order.order_id)).paid
