"""`receive_code`: the code or the refund, whatever `pay` does."""

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from unittest.mock import AsyncMock, Mock

import anyio
import attrs
import httpx
import pytest

from sms4sats_async import (
    APIError,
    InvalidArgumentError,
    JournalError,
    MemoryJournal,
    OrderError,
    OrderOutcome,
    OrderRefundedError,
    OrderResult,
    RequestOutcome,
    ServerError,
    Waiting,
)
from sms4sats_async.simulator import Behaviour, Fault, ManualClock, make_invoice
from tests.simulated import METADATA, FailingJournal, Simulated, entry_of

pytestmark = pytest.mark.anyio

only_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])

A_CODE = Behaviour(network="bitcoin", code_delay=40, code="0042")
NO_CODE = Behaviour(network="bitcoin", code_delay=None)
NO_NUMBER = Behaviour(network="bitcoin", number_available=False)
PRICE = 1_000_000


def code_after(seconds: float, **behaviour: Any) -> Behaviour:
    return attrs.evolve(A_CODE, code_delay=seconds, **behaviour)


class ThreadsFirst(ManualClock):
    """A clock that does not jump while a worker thread works."""

    async def sleep(self, seconds: float) -> None:
        limiter = anyio.to_thread.current_default_thread_limiter()
        while limiter.borrowed_tokens > 0:  # noqa: ASYNC110 - a thread has no event
            await anyio.sleep(0.001)
        await super().sleep(seconds)


class Scene(Simulated):
    """A wallet too, whose call blocks until the payment settles or is refunded.

    Attributes:
        paid: The invoices that it was asked to pay.
        payment_ended: Whether its call ended.
    """

    def __init__(self, behaviour: Behaviour = A_CODE, **settings: Any) -> None:
        settings = {"clock": ThreadsFirst()} | settings
        super().__init__(behaviour, **settings)
        self.paid: list[str] = []
        self.payment_ended = False

    async def pay(self, invoice: str) -> None:
        self.paid.append(invoice)
        self.simulator.pay(invoice)
        try:
            await anyio.sleep_forever()
        finally:
            self.payment_ended = True

    def receive(
        self, pay: Callable[[str], object] | None = None, **options: Any
    ) -> Awaitable[OrderResult]:
        pay = self.pay if pay is None else pay
        every: dict[str, Any] = {"timeout": 60} | options
        return self.client.receive_code(187, "tg", pay=pay, **every)

    @property
    def order_id(self) -> str:
        (order,) = self.simulator.orders
        return order.order_id


# --- the end --------------------------------------------------------------------------------------

# The service's behaviour, how the order ends, its code, and the ages of the cancels.
ENDS: dict[str, tuple[Behaviour, OrderOutcome, str | None, list[float]]] = {
    "code in time": (A_CODE, OrderOutcome.CODE_RECEIVED, "0042", []),
    "code after the deadline": (code_after(62), OrderOutcome.CODE_RECEIVED, "0042", []),
    "code during the cancel": (code_after(114.9), OrderOutcome.CODE_RECEIVED, "0042", [120]),
    "no code": (NO_CODE, OrderOutcome.CANCELLED, None, [120]),
    "refunded by the service": (NO_NUMBER, OrderOutcome.REFUNDED, None, []),
}


@pytest.mark.parametrize(("behaviour", "outcome", "code", "cancels"), ENDS.values(), ids=ENDS)
async def test_receive_code_orders_pays_and_returns_the_code_or_the_refund(
    behaviour: Behaviour,
    outcome: OrderOutcome,
    code: str | None,
    cancels: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # With other jitter, a poll just before the cancel may find the code.
    monkeypatch.setattr("random.random", lambda: 0.5)
    it = Scene(behaviour)
    result = await it.receive(poll_interval=25, metadata=METADATA)
    assert (result.outcome, result.code) == (outcome, code)
    assert result.refunded is (code is None)
    assert it.is_refunded(it.order_id) is (code is None)
    assert it.cancel_ages() == [pytest.approx(age, abs=0.01) for age in cancels]
    assert result.attempts == len(cancels)
    assert result.number == it.simulator.order(it.order_id).number
    assert result.metadata == METADATA
    assert len(it.paid) == 1
    assert it.payment_ended
    assert it.ended() == [result]


async def test_every_option_is_sent_and_the_metadata_is_not() -> None:
    it = Scene()
    await it.client.receive_code(
        6,
        "full",
        pay=it.pay,
        timeout=60,
        rental=True,
        real_phone=True,
        referral="a@b.example",
        metadata=METADATA,
    )
    assert it.simulator.requests[0].json == {
        "country": 6,
        "service": "full",
        "isRental": True,
        "realphone": True,
        "ref": "a@b.example",
    }


async def test_an_unclear_end_is_raised() -> None:
    it = Scene(attrs.evolve(NO_CODE, minimum_cancel_age=1e6, automatic_cancel_age=1e6))
    with pytest.raises(ServerError) as caught:
        await it.receive()
    assert caught.value.request_outcome is RequestOutcome.UNKNOWN
    assert caught.value.__cause__ is None
    assert it.payment_ended


async def test_an_order_that_was_not_created_is_not_paid() -> None:
    it = Scene()
    it.simulator.script("/createorder", Fault.http(400, "no such service"))
    with pytest.raises(APIError, match="no such service"):
        await it.receive()
    assert it.paid == []


async def test_a_wait_may_be_longer_than_any_calendar() -> None:
    it = Scene(journal=MemoryJournal())
    assert (await it.receive(timeout=timedelta.max)).code == "0042"


async def test_no_wait_cancels_as_soon_as_allowed() -> None:
    it = Scene(code_after(400))
    assert (await it.receive(timeout=0)).outcome is OrderOutcome.CANCELLED
    assert it.cancel_ages() == [pytest.approx(120, abs=0.01)]


async def test_waiting_is_reported_once_for_the_code_and_once_for_the_minimum_age() -> None:
    it = Scene(NO_CODE)
    await it.receive(timeout=300)
    (wait,) = it.events_of(Waiting)
    assert wait.reason == "the code has not arrived yet"


# --- pay decides nothing --------------------------------------------------------------------------


class WalletError(Exception):
    """What a wallet raises."""


# What the wallet does, and what `pay` does then.
PAYS = {"pays": True, "does not pay": False}
THEN: dict[str, BaseException | None] = {
    "returns": None,
    "raises": WalletError("no route"),
    "times out": TimeoutError("to a wallet this means unknown"),
    "raises a cancellation of its own": asyncio.CancelledError("not yours"),
}


@pytest.mark.parametrize("error", THEN.values(), ids=THEN)
@pytest.mark.parametrize("is_sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("pays", PAYS.values(), ids=PAYS)
async def test_the_status_decides_and_not_what_pay_does(
    error: BaseException | None, *, is_sync: bool, pays: bool
) -> None:
    it = Scene(code_after(200))

    def pay(invoice: str) -> str:
        if pays:
            it.simulator.pay(invoice)
        if error is not None:
            raise error
        return "whatever"

    async def pay_async(invoice: str) -> str:
        return pay(invoice)

    result = await it.receive(pay if is_sync else pay_async, timeout=600)
    if pays:
        assert result.code == "0042"
        assert it.cancel_ages() == []
    else:
        assert result.outcome is OrderOutcome.CANCELLED
        assert it.cancel_ages() == [pytest.approx(120, abs=0.01)]


async def test_a_payment_that_shows_before_the_cancel_goes_on_to_the_deadline() -> None:
    it = Scene(code_after(200, pay_delay=100))

    async def pay(_: str) -> None:
        raise WalletError("unknown")

    assert (await it.receive(pay, timeout=600)).code == "0042"
    assert it.cancel_ages() == []


async def test_a_payment_that_shows_between_the_last_poll_and_the_cancel_goes_on() -> None:
    it = Scene(code_after(100, pay_delay=119.999))

    async def pay(_: str) -> None:
        raise WalletError("unknown")

    assert (await it.receive(pay, timeout=600)).code == "0042"
    assert it.cancel_ages() == []


async def test_a_payment_that_shows_after_a_refused_cancel_goes_on() -> None:
    it = Scene(code_after(100, pay_delay=121))
    it.simulator.script("/cancelorder", Fault.slow(2, after_change=True))
    it.simulator.behaviour = attrs.evolve(it.simulator.behaviour, minimum_cancel_age=1e6)

    async def pay(_: str) -> None:
        raise WalletError("unknown")

    assert (await it.receive(pay, timeout=600)).code == "0042"
    assert all(age < 130 for age in it.cancel_ages())


async def test_a_status_from_before_the_end_of_the_payment_cancels_nothing() -> None:
    """The poll was under way when the invoice was paid, long after the minimum age."""
    clock = ManualClock(autojump=False)
    it = Scene(code_after(100), clock=clock)
    poll_begins = anyio.Event()

    async def pay(invoice: str) -> None:
        await poll_begins.wait()
        it.simulator.pay(invoice)

    results: list[OrderResult] = []

    async def receive() -> None:
        results.append(await it.receive(pay, timeout=600, poll_interval=10))

    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        await clock.advance(195)
        it.simulator.script("/orderstatus", *[Fault.slow(8, after_change=True)] * 2)
        polls = len(it.poll_ages())
        while len(it.poll_ages()) == polls:
            await clock.advance(1)
        poll_begins.set()
        await clock.advance(140)
    assert results[0].code == "0042"
    assert it.cancel_ages() == []


async def test_lost_polls_do_not_make_a_payment_count_as_missing() -> None:
    it = Scene(code_after(200))

    async def pay(invoice: str) -> None:
        it.simulator.pay(invoice)
        it.simulator.script("/orderstatus", *[Fault.http(404)] * 20)

    assert (await it.receive(pay, timeout=600)).code == "0042"


async def test_the_failure_of_the_payment_is_the_cause_where_the_end_is_unclear(
    caplog: pytest.LogCaptureFixture,
) -> None:
    it = Scene(attrs.evolve(NO_CODE, minimum_cancel_age=1e6, automatic_cancel_age=1e6))

    async def pay(invoice: str) -> None:
        raise WalletError(invoice)

    with pytest.raises(ServerError) as caught:
        await it.receive(pay)
    assert isinstance(caught.value.__cause__, WalletError)
    assert "WalletError; the status of the order decides" in caplog.text
    assert it.order_id not in caplog.text
    assert it.simulator.orders[0].payreq not in caplog.text


@only_asyncio
async def test_pay_that_cancels_its_own_task_does_not_end_the_wait() -> None:
    it = Scene()

    async def pay(invoice: str) -> None:
        it.simulator.pay(invoice)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    assert (await it.receive(pay)).code == "0042"


@only_asyncio
async def test_pay_may_await_a_future_that_is_cancelled() -> None:
    it = Scene()

    async def pay(invoice: str) -> None:
        it.simulator.pay(invoice)
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    assert (await it.receive(pay)).code == "0042"


# --- what pay can be ------------------------------------------------------------------------------


class Wallet:
    """An object that is called, or whose method is."""

    def __init__(self, it: Scene) -> None:
        self.it = it

    async def __call__(self, invoice: str, *, fee: int = 0) -> None:
        await self.pay(invoice, fee=fee)

    async def pay(self, invoice: str, *, fee: int = 0) -> None:
        del fee
        await self.it.pay(invoice)

    def pay_sync(self, invoice: str) -> None:
        assert threading.current_thread() is not threading.main_thread()
        self.it.paid.append(invoice)
        self.it.simulator.pay(invoice)


def returning_an_awaitable(it: Scene) -> Callable[[str], object]:
    def pay(invoice: str) -> Awaitable[None]:
        return it.pay(invoice)

    return pay


PAY: dict[str, Callable[[Scene], Callable[[str], object]]] = {
    "an async method": lambda it: Wallet(it).pay,
    "an object with an async call": Wallet,
    "a partial of an async method": lambda it: functools.partial(Wallet(it).pay, fee=1),
    "a partial of a partial": (
        lambda it: functools.partial(functools.partial(Wallet(it).pay), fee=1)
    ),
    "a partial of an object": lambda it: functools.partial(Wallet(it), fee=1),
    "a sync method": lambda it: Wallet(it).pay_sync,
    "a partial of a sync method": lambda it: functools.partial(Wallet(it).pay_sync),
    "a function that returns an awaitable": returning_an_awaitable,
    "a mock": lambda it: Mock(side_effect=Wallet(it).pay_sync),
    "an async mock": lambda it: AsyncMock(side_effect=Wallet(it).pay),
}


@pytest.mark.parametrize("make", PAY.values(), ids=PAY)
async def test_pay_is_called_once_with_the_invoice(
    make: Callable[[Scene], Callable[[str], object]],
) -> None:
    it = Scene()
    result = await it.receive(make(it))
    assert result.code == "0042"
    assert it.paid == [it.simulator.orders[0].payreq]


async def test_a_sync_pay_that_blocks_does_not_block_the_wait() -> None:
    it = Scene(code_after(40, pay_delay=1), clock=ManualClock())
    go_on = threading.Event()

    def pay(_: str) -> None:
        go_on.wait(30)

    with anyio.fail_after(20):
        assert (await it.receive(pay)).code == "0042"
    go_on.set()


async def test_the_payment_gets_a_head_start_before_the_first_poll() -> None:
    it = Scene()
    await it.receive()
    assert it.poll_ages()[0] == pytest.approx(0.05, abs=0.01)
    assert it.requests()[:2] == ["/createorder", "/orderstatus"]


# --- the invoice ----------------------------------------------------------------------------------


async def test_an_invoice_at_the_highest_price_is_paid() -> None:
    it = Scene()
    price = (await it.client.get_price(187, "tg")).computed
    assert price is not None
    assert (await it.receive(max_price_sat=price.price)).code == "0042"


@pytest.mark.parametrize("has_journal", [False, True], ids=["no journal", "journal"])
async def test_an_invoice_above_the_highest_price_is_not_paid(*, has_journal: bool) -> None:
    journal = MemoryJournal() if has_journal else None
    it = Scene(journal=journal)
    with pytest.raises(OrderError, match="more than 1 sat") as caught:
        await it.receive(max_price_sat=1)
    assert (caught.value.order_id, caught.value.request_outcome) == (it.order_id, None)
    assert "Nothing was paid" in str(caught.value)
    assert "Nothing was changed" not in str(caught.value)
    assert it.paid == []
    assert it.requests() == ["/createorder"]
    if journal is not None:
        (entry,) = await journal.pending()
        assert entry.claimed_by is None


@pytest.mark.parametrize(
    ("network", "expected", "is_paid"),
    [
        ("bitcoin", "bitcoin", True),
        ("testnet", "bitcoin", False),
        ("bitcoin", "regtest", False),
        ("regtest", "regtest", True),
    ],
)
async def test_an_invoice_for_another_network_is_not_paid(
    network: Any, expected: Any, *, is_paid: bool
) -> None:
    it = Scene(attrs.evolve(A_CODE, network=network))
    if is_paid:
        assert (await it.receive(max_price_sat=PRICE, network=expected)).code == "0042"
    else:
        with pytest.raises(OrderError, match=f"network {network}, not {expected}"):
            await it.receive(max_price_sat=PRICE, network=expected)
        assert it.paid == []


def invoice_of(amount_sat: int | None, made: float) -> str:
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
    ("invoice", "why"),
    [
        ("lnbc1nonsense", "unreadable"),
        (invoice_of(None, 1_800_000_000), "has no amount"),
        (invoice_of(1500, 1_800_000_000 - 600), "expired"),
    ],
    ids=["nonsense", "no amount", "expired"],
)
async def test_an_invoice_that_cannot_be_checked_is_not_paid(invoice: str, why: str) -> None:
    answer = {"status": "OK", "orderId": "ab" * 32, "payreq": invoice}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    it = Scene(http_client=httpx.AsyncClient(transport=transport))
    with pytest.raises(OrderError, match=why):
        await it.receive(max_price_sat=10**9)
    assert it.paid == []


INVALID: dict[str, dict[str, Any]] = {
    "timeout": {"timeout": -1},
    "timeout that is infinite": {"timeout": float("inf")},
    "poll_interval": {"poll_interval": -1},
    "network": {"network": "mainnet", "max_price_sat": 1000},
    "network that is None": {"network": None, "max_price_sat": 1000},
    "pay": {"pay": None},
    "pay that is a text": {"pay": "lnbc1"},
    "country": {"country": -1},
    "service": {"service": ""},
    "referral": {"referral": "me"},
    "metadata": {"metadata": {"chat": 42}},
    "max_price_sat of 0": {"max_price_sat": 0},
    "max_price_sat below 0": {"max_price_sat": -5},
    "max_price_sat that is True": {"max_price_sat": True},
    "max_price_sat that is a float": {"max_price_sat": 1.5},
}


@pytest.mark.parametrize("wrong", INVALID.values(), ids=INVALID)
async def test_an_invalid_argument_is_refused_and_nothing_is_ordered(
    wrong: dict[str, Any],
) -> None:
    it = Scene(journal=MemoryJournal())
    options: dict[str, Any] = {"country": 187, "service": "tg", "pay": it.pay, "timeout": 60}
    with pytest.raises(InvalidArgumentError):
        await it.client.receive_code(**options | wrong)
    assert it.requests() == []
    assert it.paid == []


# --- the journal and the claim --------------------------------------------------------------------


async def test_the_deadline_metadata_and_claim_are_recorded_with_the_request() -> None:
    journal = MemoryJournal()
    it = Scene(journal=journal)
    seen: list[Any] = []

    async def pay(invoice: str) -> None:
        seen.append(await entry_of(journal, it.order_id))
        it.simulator.pay(invoice)

    result = await it.receive(pay, timeout=600, metadata=METADATA)
    (entry,) = seen
    assert entry.code_deadline == entry.created_at + timedelta(minutes=10)
    assert (entry.metadata, entry.invoice) == (METADATA, it.simulator.orders[0].payreq)
    assert entry.claimed_by is not None
    entry = await entry_of(journal, it.order_id)
    assert entry.result == attrs.evolve(result, status=None)
    assert (entry.claimed_by, entry.delivered_at is not None) == (None, True)


async def test_without_a_record_nothing_is_ordered() -> None:
    journal = FailingJournal()
    it = Scene(journal=journal)
    journal.error = OSError("disk full")
    with pytest.raises(JournalError, match="Nothing was sent"):
        await it.receive()
    assert it.requests() == []


@pytest.mark.parametrize(
    ("way", "anyio_backend"),
    [
        pytest.param("scope", "asyncio", id="scope-asyncio"),
        pytest.param("scope", "trio", id="scope-trio"),
        pytest.param("task", "asyncio", id="task.cancel"),
    ],
)
@pytest.mark.parametrize("age", [0, 30], ids=["at once", "later"])
async def test_cancelled_while_pay_runs_it_ends_at_once_and_releases_the_claim(
    way: str, age: float
) -> None:
    clock, journal = ManualClock(autojump=False), MemoryJournal()
    it = Scene(NO_CODE, clock=clock, journal=journal)

    async def receive() -> None:
        await it.receive(timeout=600)

    if way == "task":
        task = asyncio.ensure_future(receive())
        await clock.advance(age)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        async with anyio.create_task_group() as group:
            group.start_soon(receive)
            await clock.advance(age)
            group.cancel_scope.cancel()
    assert it.payment_ended
    assert it.cancel_ages() == []
    (entry,) = await journal.pending()
    assert (entry.claimed_by, entry.claimed_until) == (None, None)
    assert entry.code_deadline == entry.created_at + timedelta(minutes=10)


async def test_a_refund_is_no_exception() -> None:
    it = Scene(NO_CODE)
    try:
        result = await it.receive()
    except OrderRefundedError:
        pytest.fail("a refund is a result")
    assert result.refunded
