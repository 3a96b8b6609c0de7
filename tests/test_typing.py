"""The types at the door: signatures as promised, hints that resolve, and returns that are exact.

`Checked` is never run. It is for mypy and pyright, which fail on an `assert_type` that is not so.
"""

import inspect
import typing
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import FunctionType
from typing import Any, assert_type

import httpx
import pytest

import sms4sats_async
from sms4sats_async import (
    MINIMUM_CANCEL_AGE,
    Cancellation,
    CancelOutcome,
    CodeTimeoutRefundedError,
    ComputedPrice,
    Country,
    Event,
    FundingEntry,
    FundingHistory,
    FundOrder,
    Invoice,
    Money,
    Order,
    OrderCreated,
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
    SmsStatus,
    parse_webhook,
)

NO_COROUTINES = {"__init__", "watch_order", "open_order", "resume", "cancel_orders"}

# --- the signatures -------------------------------------------------------------------------------

# DESIGN's door, word for word, and `retry=` where a call is one request ("every call takes it").
SIGNATURES = {
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
        "immediate=False, retry=None"
    ),
    "create_send_order": "self, phone, message, *, immediate=False, webhook_url=None, retry=None",
    "get_order_status": "self, order_id, *, retry=None",
    "cancel_order": "self, order_id, *, retry=None, confirm=False",
    "cancel_order_when_allowed": (
        "self, order, *, created_at=None, minimum_age=MINIMUM_CANCEL_AGE, watch=True, "
        "poll_interval=5.0"
    ),
    "wait_for_code": "self, order, *, timeout, poll_interval=5.0",
    "watch_order": "self, order, *, poll_interval=5.0",
    "receive_code": (
        "self, country, service, *, pay, timeout, max_price=None, network='bitcoin', "
        "poll_interval=5.0, rental=False, real_phone=False, referral=None"
    ),
    "open_order": (
        "self, country, service, *, minimum_age=MINIMUM_CANCEL_AGE, poll_interval=5.0, "
        "scheduler=None, rental=False, real_phone=False, referral=None, immediate=False, "
        "retry=None"
    ),
    "resume": ("self, order, *, minimum_age=MINIMUM_CANCEL_AGE, poll_interval=5.0, scheduler=None"),
    "cancel_orders": "self, orders, *, concurrency=20",
    "fund": "self, amount, *, retry=None",
    "get_balance": "self, *, retry=None",
    "get_history": "self, *, retry=None",
}


def shape(function: object) -> list[tuple[str, object, object]]:
    """Name, kind and default of each parameter."""
    assert callable(function)
    parameters = inspect.signature(function).parameters.values()
    return [(it.name, it.kind, it.default) for it in parameters]


@pytest.mark.parametrize(("method", "promised"), SIGNATURES.items(), ids=SIGNATURES)
def test_a_method_is_called_exactly_as_promised(method: str, promised: str) -> None:
    names = {"RetryPolicy": RetryPolicy, "MINIMUM_CANCEL_AGE": MINIMUM_CANCEL_AGE}
    wanted = eval(f"lambda {promised}: None", names)  # noqa: S307 - the table of this file

    assert shape(getattr(Sms4SatsClient, method)) == shape(wanted)


def test_every_method_of_the_client_is_in_the_table() -> None:
    methods = {
        name
        for name, value in vars(Sms4SatsClient).items()
        if isinstance(value, FunctionType) and not name.startswith("_")
    }

    assert methods == SIGNATURES.keys() - {"__init__"}


@pytest.mark.parametrize("method", SIGNATURES)
def test_every_call_is_a_coroutine(method: str) -> None:
    function = getattr(Sms4SatsClient, method)

    assert inspect.iscoroutinefunction(function) == (method not in NO_COROUTINES)


@pytest.mark.parametrize(
    ("function", "promised"),
    [
        (
            RetryPolicy,
            (
                "attempts=4, initial_delay=0.5, maximum_delay=8.0, multiplier=2.0, "
                "total_timeout=30.0, retry_after_limit=120.0"
            ),
        ),
        (parse_webhook, "body"),
        (Invoice.parse, "bolt11"),
        (Invoice.is_expired, "self, now"),
        (OrderWatch.__aiter__, "self"),
        (OrderWatch.__anext__, "self"),
    ],
    ids=lambda it: getattr(it, "__qualname__", ""),
)
def test_what_else_is_called_at_the_door_is_called_as_promised(
    function: object, promised: str
) -> None:
    wanted = eval(f"lambda {promised}: None", {})  # noqa: S307 - the table of this file

    assert shape(function) == shape(wanted)


# --- the hints ------------------------------------------------------------------------------------


def annotated() -> Iterator[tuple[str, Any]]:
    """Everything at the door that has annotations: functions, classes, methods and properties."""
    for name in sms4sats_async.__all__:
        value: Any = getattr(sms4sats_async, name)
        if isinstance(value, FunctionType | type):
            yield name, value
        for member, inner in vars(value).items() if isinstance(value, type) else ():
            function = getattr(inner, "fget", getattr(inner, "__func__", inner))
            if isinstance(function, FunctionType):
                yield f"{name}.{member}", function


ANNOTATED = dict(annotated())


def test_all_that_is_at_the_door_is_looked_at() -> None:
    assert ANNOTATED.keys() >= {
        *("parse_webhook", "OrderStatus", "Event", "Clock.sleep", "Invoice.parse"),
        *("Invoice.amount_sat", "CancelOutcome.funds_returned", "OrderWatch.__anext__"),
        *("RetryPolicy.__init__", "APIError.__init__", "Sms4SatsClient.__aexit__"),
        *(f"Sms4SatsClient.{method}" for method in SIGNATURES),
    }


@pytest.mark.parametrize("name", ANNOTATED)
def test_hints_resolve_at_run_time(name: str) -> None:
    """Documentation tools, notebooks and dependency injectors read them."""
    assert isinstance(typing.get_type_hints(ANNOTATED[name]), dict)


@pytest.mark.parametrize("name", ANNOTATED)
def test_no_class_of_an_http_library_stands_in_a_hint(name: str) -> None:
    hints = str(typing.get_type_hints(ANNOTATED[name]))

    assert not any(library in hints for library in ("httpx", "httpcore", "aiohttp", "anyio"))


@pytest.mark.parametrize("method", SIGNATURES)
def test_every_parameter_and_return_of_the_client_has_a_hint(method: str) -> None:
    function = getattr(Sms4SatsClient, method)
    parameters = inspect.signature(function).parameters.keys() - {"self"}

    assert typing.get_type_hints(function).keys() == parameters | {"return"}


def test_the_package_says_that_it_is_typed() -> None:
    (folder,) = map(Path, sms4sats_async.__path__)

    assert (folder / "py.typed").is_file()


# --- the returns ----------------------------------------------------------------------------------


class Checked:
    """Read by type checkers, run by nobody."""

    async def of_the_client(self, client: Sms4SatsClient, order: ReceiveOrder) -> None:
        assert_type(await client.ping(), None)
        assert_type(await client.get_countries(), list[Country])
        assert_type(await client.get_services(187), list[Service])
        assert_type(await client.get_rental_countries(), list[RentalCountry])
        assert_type(await client.get_price(), Price)
        assert_type(await client.create_order(187, "tg"), ReceiveOrder)
        assert_type(await client.create_order(country="germany", service="tg"), ReceiveOrder)
        assert_type(await client.create_send_order("+4915112345678", "hello"), SendOrder)
        assert_type(await client.get_order_status(order), OrderStatus)
        assert_type(await client.get_order_status(order.order_id), OrderStatus)
        assert_type(await client.cancel_order(order, confirm=True), Cancellation)
        assert_type(await client.cancel_order_when_allowed("id", minimum_age=1), Cancellation)
        assert_type(await client.wait_for_code(order, timeout=timedelta(1)), OrderStatus)
        assert_type(client.watch_order(order, poll_interval=timedelta(1)), OrderWatch)
        async for status in client.watch_order("id"):
            assert_type(status, OrderStatus)
        assert_type(await client.receive_code(1, "tg", pay=self.pay, timeout=60), str)
        assert_type(await client.receive_code(1, "tg", pay=self.tell, timeout=60), str)
        assert_type(await client.fund(1000), FundOrder)
        assert_type(await client.get_balance(), int)
        assert_type(await client.get_history(), FundingHistory)
        async with client as entered:
            assert_type(entered, Sms4SatsClient)

    async def pay(self, invoice: str) -> None: ...

    async def tell(self, invoice: str) -> int:  # what a wallet returns is of no interest
        return len(invoice)

    def pay_at_once(self, invoice: str) -> None: ...

    def of_models(
        self, status: OrderStatus, price: Price, history: FundingHistory, order: ReceiveOrder
    ) -> None:
        assert_type(status.code, str | None)
        assert_type(status.number, str | None)
        assert_type(status.state, OrderState)
        assert_type(status.money, Money)
        assert_type(status.sms_status, SmsStatus | None)
        assert_type(status.country, int | str | None)
        assert_type(price.receive, int | None)
        assert_type(price.rent, int | None)
        assert_type(price.computed, ComputedPrice | None)
        assert_type(history.entries, tuple[FundingEntry, ...])
        assert_type(order.country, int | str | None)
        assert_type(parse_webhook(b"{}"), OrderStatus)

    def of_what_is_told(
        self,
        invoice: Invoice,
        done: Cancellation,
        created: OrderCreated,
        error: CodeTimeoutRefundedError,
    ) -> None:
        assert_type(Invoice.parse("lnbc1"), Invoice)
        assert_type(invoice.amount_sat, int | None)
        assert_type(done.outcome, CancelOutcome)
        assert_type(done.outcome.funds_returned, bool)
        assert_type(done.status, OrderStatus | None)
        assert_type(created.order, Order)
        assert_type(created.order_id, str | None)
        assert_type(error.status, OrderStatus | None)

    def is_made(self, events: list[Event]) -> None:
        assert_type(Sms4SatsClient(), Sms4SatsClient)
        Sms4SatsClient(http_client=httpx.AsyncClient(), on_event=events.append)
        Sms4SatsClient(timeout=timedelta(1), retry=RetryPolicy(attempts=1))
        assert_type(RetryPolicy(initial_delay=timedelta(1), total_timeout=None), RetryPolicy)

    async def is_refused(self, client: Sms4SatsClient, order: ReceiveOrder) -> None:
        """Each line is an error to both checkers; where it is none, the ignore is."""
        Sms4SatsClient("a-key")  # type: ignore[call-arg]
        Sms4SatsClient(retry=3)  # type: ignore[arg-type]
        await client.ping(retry=3)  # type: ignore[arg-type]
        await client.create_order(187)  # type: ignore[call-arg]
        await client.create_order(1.5, "tg")  # type: ignore[arg-type]
        await client.create_order(187, "tg", True)  # type: ignore[call-arg]  # noqa: FBT003
        await client.fund("1000")  # type: ignore[arg-type]
        await client.get_order_status(5)  # type: ignore[arg-type]
        await client.cancel_order(order, None)  # type: ignore[call-arg]
        await client.cancel_order_when_allowed(order, created_at=5)  # type: ignore[arg-type]
        await client.wait_for_code(order)  # type: ignore[call-arg]
        await client.wait_for_code(order, timeout=None)  # type: ignore[arg-type]
        await client.watch_order(order)  # type: ignore[misc]
        await client.receive_code(1, "tg", pay=self.pay)  # type: ignore[call-arg]
        await client.receive_code(
            1,
            "tg",
            pay=self.pay_at_once,  # type: ignore[arg-type]
            timeout=60,
        )
        parse_webhook("{}")  # type: ignore[arg-type]
        order.order_id = "another"  # type: ignore[misc]
