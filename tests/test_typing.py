"""The types of the public API: signatures as designed, hints that resolve, and exact returns.

`Checked` never runs. mypy and pyright read it, and fail on an `assert_type` that is wrong.
"""

import functools
import inspect
import typing
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import FunctionType
from typing import Any, assert_type

import httpx
import pytest

import sms4sats_async
from sms4sats_async import (
    MINIMUM_CANCEL_AGE,
    CodeStatus,
    CodeTimeoutError,
    ComputedPrice,
    Country,
    Event,
    FundingEntry,
    FundingHistory,
    FundOrder,
    Invoice,
    JournalEntry,
    Money,
    OpenOrder,
    Order,
    OrderCreated,
    OrderEnded,
    OrderJournal,
    OrderOutcome,
    OrderResult,
    OrderResults,
    OrderScheduler,
    OrderState,
    OrderStatus,
    OrderWatch,
    Price,
    ReceiveOrder,
    RentalCountry,
    RetryPolicy,
    SendOrder,
    Service,
    Sms4SatsClient,
    Sms4SatsError,
    SmsStatus,
    parse_webhook,
)

# --- the signatures -------------------------------------------------------------------------------

# As designed; calls that are one request take `retry` too.
METHODS = {
    "__init__": (
        "self, *, api_key=None, base_url=None, timeout=10.0, retry=RetryPolicy(), "
        "http_client=None, clock=None, on_event=None, journal=None"
    ),
    "aclose": "self",
    "ping": "self, *, retry=None",
    "get_countries": "self, *, retry=None",
    "get_services": "self, country, *, retry=None",
    "get_rental_countries": "self, service=None, *, retry=None",
    "get_price": "self, country=None, service=None, *, retry=None",
    "create_order": (
        "self, country, service, *, rental=False, real_phone=False, referral=None, "
        "immediate=False, metadata=None, retry=None"
    ),
    "create_send_order": (
        "self, phone, message, *, immediate=False, webhook_url=None, referral=None, "
        "metadata=None, retry=None"
    ),
    "get_order_status": "self, order, *, retry=None",
    "cancel_order": "self, order_id, *, retry=None, confirm=False",
    "cancel_order_when_allowed": (
        "self, order, *, created_at=None, minimum_age=MINIMUM_CANCEL_AGE, watch=True, "
        "poll_interval=5.0"
    ),
    "code_or_refund": (
        "self, order, *, timeout, created_at=None, minimum_age=MINIMUM_CANCEL_AGE, "
        "poll_interval=5.0"
    ),
    "receive_code": (
        "self, country, service, *, pay, timeout, max_price_sat=None, network='bitcoin', "
        "poll_interval=5.0, rental=False, real_phone=False, referral=None, metadata=None"
    ),
    "wait_for_code": "self, order, *, timeout, poll_interval=5.0",
    "watch_order": "self, order, *, poll_interval=5.0",
    "open_order": (
        "self, country, service, *, scheduler=None, minimum_age=MINIMUM_CANCEL_AGE, "
        "poll_interval=5.0, rental=False, real_phone=False, referral=None, immediate=False, "
        "metadata=None, retry=None"
    ),
    "resume_order": (
        "self, order, *, scheduler=None, minimum_age=MINIMUM_CANCEL_AGE, poll_interval=5.0"
    ),
    "cancel_orders": "self, orders, *, concurrency=20",
    "advance_order": "self, order",
    "fund": "self, amount_sat, *, retry=None",
    "get_balance": "self, *, retry=None",
    "get_history": "self, *, retry=None",
}
NO_COROUTINES = {"__init__", "watch_order", "open_order", "resume_order", "cancel_orders"}
OTHERS: dict[Callable[..., object], str] = {
    RetryPolicy: (
        "attempts=4, initial_delay=0.5, maximum_delay=8.0, multiplier=2.0, total_timeout=30.0, "
        "retry_after_limit=120.0"
    ),
    parse_webhook: "body",
    Invoice.parse: "bolt11",
    Invoice.is_expired: "self, now",
    OpenOrder.wait_for_code: "self, *, timeout",
    OpenOrder.code_or_refund: "self, *, timeout",
    OrderScheduler: "client, *, concurrency=20, timeout=0",
    OrderScheduler.add: "self, order, *, timeout=None, not_before=None",
    OrderScheduler.remove: "self, order",
    OrderScheduler.results: "self",
    OrderScheduler.run: "self",
    OrderJournal.pending: "self, base_url=None",
    OrderJournal.prune: "self, before, /",
    OrderResult: (
        "order_id, outcome, code=None, number=None, status=None, attempts=0, error=None, "
        "metadata=DEFAULT, raw=DEFAULT"
    ),
}


def shape(function: Callable[..., object]) -> list[tuple[str, object, object]]:
    """Return the name, kind and default of each parameter."""
    parameters = inspect.signature(function).parameters.values()
    # A default that attrs creates for each object has no value here.
    return [
        (it.name, it.kind, "DEFAULT" if "NOTHING" in repr(it.default) else it.default)
        for it in parameters
    ]


def promised(signature: str) -> list[tuple[str, object, object]]:
    names = {
        "RetryPolicy": RetryPolicy,
        "MINIMUM_CANCEL_AGE": MINIMUM_CANCEL_AGE,
        "DEFAULT": "DEFAULT",
    }
    wanted: Any = eval(f"lambda {signature}: None", names)  # noqa: S307 - the tables of this file
    return shape(wanted)


@pytest.mark.parametrize(("method", "signature"), METHODS.items(), ids=METHODS)
def test_client_method_has_the_designed_signature(method: str, signature: str) -> None:
    assert shape(getattr(Sms4SatsClient, method)) == promised(signature)


@pytest.mark.parametrize(
    ("function", "signature"), OTHERS.items(), ids=[it.__qualname__ for it in OTHERS]
)
def test_function_has_the_designed_signature(
    function: Callable[..., object], signature: str
) -> None:
    assert shape(function) == promised(signature)


def test_table_has_every_method_of_the_client() -> None:
    methods = {
        name
        for name, value in vars(Sms4SatsClient).items()
        if isinstance(value, FunctionType) and not name.startswith("_")
    }

    assert methods == METHODS.keys() - {"__init__"}


@pytest.mark.parametrize("method", METHODS)
def test_client_method_is_a_coroutine(method: str) -> None:
    function = getattr(Sms4SatsClient, method)

    assert inspect.iscoroutinefunction(function) == (method not in NO_COROUTINES)


# --- the hints ------------------------------------------------------------------------------------


def annotated() -> Iterator[tuple[str, Any]]:
    """Yield all that has annotations: public functions and classes, and their public members."""
    for name in sms4sats_async.__all__:
        value: Any = getattr(sms4sats_async, name)
        if isinstance(value, FunctionType | type):
            yield name, value
        for member, inner in vars(value).items() if isinstance(value, type) else ():
            function = getattr(inner, "fget", getattr(inner, "__func__", inner))
            is_public = not member.startswith("_") or member.endswith("__")
            # A private class of anyio and the like is no part of what a user calls.
            is_built = member == "__init__" and value in {OpenOrder, OrderResults, OrderWatch}
            if isinstance(function, FunctionType) and is_public and not is_built:
                yield f"{name}.{member}", function


ANNOTATED = dict(annotated())


def test_public_api_is_annotated() -> None:
    assert ANNOTATED.keys() >= {
        *("parse_webhook", "OrderStatus", "Event", "Clock.sleep", "Invoice.parse"),
        *("Invoice.amount_sat", "OrderResult.refunded", "OrderWatch.__anext__"),
        *("RetryPolicy.__init__", "APIError.__init__", "Sms4SatsClient.__aexit__"),
        *("OpenOrder.invoice", "OpenOrder.__aenter__", "OrderScheduler.add", "Scheduler.add"),
        *(f"Sms4SatsClient.{method}" for method in METHODS),
    }


@pytest.mark.parametrize("name", ANNOTATED)
def test_hints_resolve_at_run_time(name: str) -> None:
    """Documentation tools, notebooks and dependency injectors read them."""
    assert isinstance(typing.get_type_hints(ANNOTATED[name]), dict)


@pytest.mark.parametrize("name", ANNOTATED)
def test_hint_names_no_class_of_an_http_library(name: str) -> None:
    hints = str(typing.get_type_hints(ANNOTATED[name]))

    assert not any(library in hints for library in ("httpx", "httpcore", "aiohttp", "anyio"))


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_and_return_of_the_client_has_a_hint(method: str) -> None:
    function = getattr(Sms4SatsClient, method)
    parameters = inspect.signature(function).parameters.keys() - {"self"}

    assert typing.get_type_hints(function).keys() == parameters | {"return"}


def test_package_is_marked_as_typed() -> None:
    (folder,) = map(Path, sms4sats_async.__path__)

    assert (folder / "py.typed").is_file()


# --- the returns ----------------------------------------------------------------------------------


class Checked:
    """Read by type checkers; it never runs."""

    async def of_one_request(self, client: Sms4SatsClient, order: ReceiveOrder) -> None:
        assert_type(await client.ping(), None)
        assert_type(await client.get_countries(), list[Country])
        assert_type(await client.get_services(187), list[Service])
        assert_type(await client.get_rental_countries(), list[RentalCountry])
        assert_type(await client.get_price(), Price)
        assert_type(await client.create_order(187, "tg"), ReceiveOrder)
        assert_type(await client.create_order(country="germany", service="tg"), ReceiveOrder)
        assert_type(await client.create_order(187, "tg", metadata={"chat": "42"}), ReceiveOrder)
        assert_type(await client.create_send_order("+4915112345678", "hello"), SendOrder)
        assert_type(await client.get_order_status(order), OrderStatus)
        assert_type(await client.get_order_status(order.order_id), OrderStatus)
        assert_type(await client.cancel_order(order, confirm=True), OrderResult)
        assert_type(await client.fund(1000), FundOrder)
        assert_type(await client.get_balance(), int)
        assert_type(await client.get_history(), FundingHistory)
        async with client as entered:
            assert_type(entered, Sms4SatsClient)
            assert_type(client.journal, OrderJournal | None)

    async def of_an_order(self, client: Sms4SatsClient, order: ReceiveOrder) -> None:
        assert_type(await client.cancel_order_when_allowed("id", minimum_age=1), OrderResult)
        assert_type(await client.code_or_refund(order, timeout=timedelta(1)), OrderResult)
        assert_type(await client.advance_order(order), OrderResult | datetime)
        status = await client.wait_for_code(order, timeout=timedelta(1))
        assert_type(status, CodeStatus)
        assert_type(status.code, str)
        assert_type(client.watch_order(order, poll_interval=timedelta(1)), OrderWatch)
        async for each in client.watch_order("id"):
            assert_type(each, OrderStatus)

    async def of_an_open_order(self, client: Sms4SatsClient, scheduler: OrderScheduler) -> None:
        async with client.open_order(1, "tg", scheduler=scheduler) as order:
            assert_type(order, OpenOrder)
            assert_type(order.order_id, str)
            assert_type(order.invoice, str)
            assert_type(order.created_at, datetime)
            assert_type(order.metadata, Mapping[str, str])
            assert_type((await order.wait_for_code(timeout=60)).code, str)
            assert_type(await order.code_or_refund(timeout=60), OrderResult)
        assert_type(order.result, OrderResult | None)
        async with client.resume_order("id") as resumed:
            assert_type(resumed, OpenOrder)

    async def of_many_orders(self, client: Sms4SatsClient, order: ReceiveOrder) -> None:
        scheduler = OrderScheduler(client, timeout=timedelta(minutes=5))
        await assert_type(scheduler.add(order, timeout=60), Awaitable[None])
        assert_type(await scheduler.remove(order), None)
        assert_type(scheduler.results(), OrderResults)
        async for result in scheduler.results():
            assert_type(result, OrderResult)
        async for result in client.cancel_orders([order, "id"]):
            assert_type(result, OrderResult)

    async def of_a_payment(self, client: Sms4SatsClient) -> None:
        """`pay` may be sync or async, a method or any other object that can be called."""
        get = functools.partial(client.receive_code, 1, "tg", timeout=60)
        assert_type(await client.receive_code(1, "tg", pay=self.pay, timeout=60), OrderResult)
        assert_type(await client.receive_code(1, "tg", pay=self.report, timeout=60), OrderResult)
        assert_type(await client.receive_code(1, "tg", pay=self.pay_sync, timeout=60), OrderResult)
        assert_type(await client.receive_code(1, "tg", pay=print, timeout=60), OrderResult)
        assert_type(await get(pay=functools.partial(self.pay_with, 5)), OrderResult)

    async def pay(self, invoice: str) -> None: ...

    async def report(self, invoice: str) -> int:  # what a wallet returns is not used
        return len(invoice)

    def pay_sync(self, invoice: str) -> None: ...

    async def pay_with(self, limit: int, invoice: str) -> None: ...

    def of_values(
        self, status: OrderStatus, price: Price, history: FundingHistory, order: ReceiveOrder
    ) -> None:
        assert_type(status.code, str | None)
        assert_type(status.number, str | None)
        assert_type(status.state, OrderState)
        assert_type(status.money, Money)
        assert_type(status.sms_status, SmsStatus | None)
        assert_type(status.country, int | str | None)
        assert_type(price.computed, ComputedPrice | None)
        assert_type(history.entries, tuple[FundingEntry, ...])
        assert_type(order.country, int | str | None)
        assert_type(order.invoice, str)
        assert_type(order.metadata, Mapping[str, str])
        assert_type(parse_webhook(b"{}"), OrderStatus)

    def of_results(self, result: OrderResult, entry: JournalEntry) -> None:
        assert_type(result.code, str | None)
        assert_type(result.number, str | None)
        assert_type(result.refunded, bool | None)
        assert_type(result.outcome, OrderOutcome | None)
        assert_type(result.status, OrderStatus | None)
        assert_type(result.error, Sms4SatsError | None)
        assert_type(result.metadata, Mapping[str, str])
        assert_type(result.money, Money)
        assert_type(entry.result, OrderResult | None)
        assert_type(entry.money, Money)
        assert_type(entry.order, ReceiveOrder | SendOrder | None)
        assert_type(entry.code_deadline, datetime | None)
        assert_type(entry.minimum_age, timedelta | None)

    def of_events(
        self, invoice: Invoice, created: OrderCreated, ended: OrderEnded, error: CodeTimeoutError
    ) -> None:
        assert_type(Invoice.parse("lnbc1"), Invoice)
        assert_type(invoice.amount_sat, int | None)
        assert_type(created.order, Order)
        assert_type(created.order_id, str | None)
        assert_type(ended.result, OrderResult)
        assert_type(error.status, OrderStatus | None)

    def is_made(self, events: list[Event]) -> None:
        assert_type(Sms4SatsClient(), Sms4SatsClient)
        Sms4SatsClient(http_client=httpx.AsyncClient(), on_event=events.append)
        Sms4SatsClient(timeout=timedelta(1), retry=RetryPolicy(attempts=1))
        assert_type(RetryPolicy(initial_delay=timedelta(1), total_timeout=None), RetryPolicy)

    async def is_refused(self, client: Sms4SatsClient, order: ReceiveOrder) -> None:
        """Each line is an error to mypy; an ignore that is not needed is one, too."""
        Sms4SatsClient("a-key")  # type: ignore[call-arg]
        Sms4SatsClient(retry=3)  # type: ignore[arg-type]
        await client.ping(retry=3)  # type: ignore[arg-type]
        await client.create_order(187)  # type: ignore[call-arg]
        await client.create_order(1.5, "tg")  # type: ignore[arg-type]
        await client.create_order(187, "tg", True)  # type: ignore[call-arg]  # noqa: FBT003
        await client.create_order(187, "tg", metadata={"chat": 42})  # type: ignore[dict-item]
        await client.fund("1000")  # type: ignore[arg-type]
        await client.get_order_status(5)  # type: ignore[arg-type]
        await client.cancel_order(order, None)  # type: ignore[call-arg]
        await client.cancel_order_when_allowed(order, created_at=5)  # type: ignore[arg-type]
        await client.wait_for_code(order)  # type: ignore[call-arg]
        await client.wait_for_code(order, timeout=None)  # type: ignore[arg-type]
        await client.code_or_refund(order)  # type: ignore[call-arg]
        await client.watch_order(order)  # type: ignore[misc]
        await client.receive_code(1, "tg", pay=self.pay)  # type: ignore[call-arg]
        await client.receive_code(1, "tg", pay=self.pay_with, timeout=60)  # type: ignore[arg-type]
        await client.receive_code(1, "tg", pay=self.pay("lnbc1"), timeout=60)  # type: ignore[arg-type]
        parse_webhook("{}")  # type: ignore[arg-type]
        order.order_id = "another"  # type: ignore[misc]
