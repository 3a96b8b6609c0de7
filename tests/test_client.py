"""The client: its settings, its lifetime, and the calls that create an order or read a status."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import respx

from sms4sats_async import (
    DEFAULT_BASE_URL,
    AuthenticationError,
    BadRequestError,
    ClientStateError,
    Event,
    InvalidArgumentError,
    InvalidResponseError,
    JournalError,
    MemoryJournal,
    OrderCreated,
    OrderState,
    RequestOutcome,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    Sms4SatsClient,
    Sms4SatsError,
)
from sms4sats_async.simulator import Behaviour, Fault, ManualClock, Simulator
from tests.simulated import METADATA, FailingJournal, Simulated

ID = "0123456789abcdef" * 4
KEY = "key-that-is-a-secret"


@pytest.fixture
def service() -> Iterator[respx.MockRouter]:
    """The real root, answered by respx."""
    with respx.mock(base_url=DEFAULT_BASE_URL, assert_all_called=False) as router:
        yield router


def body_of(request: httpx.Request) -> object:
    return json.loads(request.content)


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": "two\nlines"},
        {"api_key": ""},
        {"base_url": "api2.sms4sats.com"},
        {"base_url": "ftp://api2.sms4sats.com"},
        {"base_url": "http://api2.sms4sats.com", "api_key": KEY},
        {"base_url": "https://☃.example"},
        {"timeout": 0},
        {"timeout": -1.0},
        {"timeout": float("nan")},
        {"retry": 3},
        {"http_client": object()},
        {"http_client": httpx.Client},
        {"journal": "orders.db"},
        {"journal": Path("orders.db")},
    ],
)
def test_an_invalid_setting_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError):
        Sms4SatsClient(**settings)  # type: ignore[arg-type]


def test_a_synchronous_http_client_is_refused() -> None:
    with httpx.Client() as http_client, pytest.raises(InvalidArgumentError, match="AsyncClient"):
        Sms4SatsClient(http_client=http_client)


def test_a_key_over_plain_http_is_accepted_for_this_machine() -> None:
    for root in ("http://127.0.0.1:8000", "http://[::1]:8000", "http://localhost"):
        Sms4SatsClient(base_url=root, api_key=KEY)


def test_the_environment_gives_key_and_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMS4SATS_BASE_URL", "https://elsewhere.example/api/")
    monkeypatch.setenv("SMS4SATS_API_KEY", KEY)

    assert repr(Sms4SatsClient()) == "<Sms4SatsClient https://elsewhere.example/api with a key>"


def test_an_empty_environment_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMS4SATS_BASE_URL", "")
    monkeypatch.setenv("SMS4SATS_API_KEY", "")

    assert repr(Sms4SatsClient()) == f"<Sms4SatsClient {DEFAULT_BASE_URL} without a key>"


def test_the_settings_can_be_read() -> None:
    journal, clock = MemoryJournal(), ManualClock()
    client = Sms4SatsClient(base_url="https://elsewhere.example/api/", journal=journal, clock=clock)
    assert client.base_url == "https://elsewhere.example/api"
    assert (client.journal, client.clock) == (journal, clock)
    assert Sms4SatsClient().journal is None


# --- lifetime -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_closed_client_raises_and_sends_nothing(service: respx.MockRouter) -> None:
    async with Sms4SatsClient() as client:
        pass
    await client.aclose()

    with pytest.raises(ClientStateError, match="closed"):
        await client.ping()
    assert not service.calls


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_client_of_another_event_loop_raises(backend: str, service: respx.MockRouter) -> None:
    service.get("/").respond(json={})
    client = Sms4SatsClient()
    anyio.run(client.ping, backend=backend)

    with pytest.raises(ClientStateError, match="another event loop"):
        anyio.run(client.ping, backend=backend)
    assert service.calls.call_count == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_client_that_was_never_used_can_be_closed_anywhere(backend: str) -> None:
    client = Sms4SatsClient()
    anyio.run(client.aclose, backend=backend)
    anyio.run(client.aclose, backend=backend)


@pytest.mark.anyio
async def test_a_client_that_is_closed_in_a_wait_does_not_retry(
    service: respx.MockRouter,
) -> None:
    route = service.get("/").respond(503)
    clock = ManualClock(autojump=False)
    client = Sms4SatsClient(clock=clock)

    async def ping() -> None:
        with pytest.raises(ServerError) as caught:
            await client.ping()
        assert caught.value.attempts == 1

    async with anyio.create_task_group() as group:
        group.start_soon(ping)
        await anyio.wait_all_tasks_blocked()
        await client.aclose()
        await clock.advance(60)
    assert route.call_count == 1


@pytest.mark.anyio
async def test_a_request_waits_for_a_connection_until_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sms4sats_async._http.retrying.CONNECTIONS", 1)
    simulator = Simulator()
    simulator.script("/", Fault.hang())
    async with anyio.create_task_group() as group:
        client = Sms4SatsClient(http_client=simulator.http_client())
        group.start_soon(client.ping)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RequestTimeoutError, match="stayed busy") as caught:
            await client.create_order(187, "tg", retry=RetryPolicy(total_timeout=0.05))
        assert caught.value.request_outcome is RequestOutcome.NOT_SENT
        group.cancel_scope.cancel()
    assert simulator.count("/createorder") == 0


@pytest.mark.anyio
async def test_a_request_that_waits_for_a_connection_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sms4sats_async._http.retrying.CONNECTIONS", 1)
    simulator = Simulator()
    client = Sms4SatsClient(http_client=simulator.http_client())
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(client.ping)
    assert simulator.count("/") == 5


@pytest.mark.anyio
async def test_the_order_is_returned_although_the_listener_raises(
    service: respx.MockRouter, caplog: pytest.LogCaptureFixture
) -> None:
    def listen(_: object) -> None:
        raise ZeroDivisionError

    service.post("/createorder").respond(
        json={"status": "OK", "orderId": ID, "payreq": "lnbc1invoice"}
    )
    async with Sms4SatsClient(on_event=listen) as client:
        assert (await client.create_order(187, "tg")).order_id == ID
    assert "on_event raised on OrderCreated" in caplog.text
    assert ID not in caplog.text


# --- ping -----------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_ping_returns_for_any_json(
    service: respx.MockRouter,
) -> None:
    service.get("/").respond(json=["anything"])
    async with Sms4SatsClient() as client:
        await client.ping()


@pytest.mark.anyio
async def test_ping_raises_when_the_service_is_down(service: respx.MockRouter) -> None:
    service.get("/").respond(503)
    async with Sms4SatsClient(clock=ManualClock()) as client:
        with pytest.raises(ServerError) as caught:
            await client.ping()
    assert (caught.value.operation, caught.value.attempts) == ("ping", 4)


# --- create_order ---------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_create_order_returns_the_order_with_the_time_of_the_answer(
    service: respx.MockRouter,
) -> None:
    clock = ManualClock(1_800_000_000)
    answer = {"status": "OK", "orderId": ID, "payreq": "lnbc1invoice", "more": 1}
    route = service.post("/createorder").respond(json=answer)
    async with Sms4SatsClient(clock=clock, api_key=KEY) as client:
        order = await client.create_order(187, "tg")

    assert (order.order_id, order.invoice) == (ID, "lnbc1invoice")
    assert order.created_at == datetime.fromtimestamp(1_800_000_000, UTC)
    assert (order.country, order.service, order.raw) == (187, "tg", answer)
    request = route.calls.last.request
    assert body_of(request) == {"country": 187, "service": "tg"}
    assert "x-api-key" not in request.headers


@pytest.mark.anyio
async def test_create_order_sends_each_option_under_its_documented_name(
    service: respx.MockRouter,
) -> None:
    route = service.post("/createorder").respond(json={"orderId": ID, "status": "OK"})
    service.get("/getCountries").respond(json=[{"id": 43, "eng": "Germany"}])
    async with Sms4SatsClient(api_key=KEY) as client:
        order = await client.create_order(
            "germany",
            "wa",
            rental=True,
            real_phone=True,
            referral="me@example.com",
            immediate=True,
        )

    assert order.invoice == ""
    request = route.calls.last.request
    assert body_of(request) == {
        "country": 43,
        "service": "wa",
        "isRental": True,
        "realphone": True,
        "ref": "me@example.com",
        "immediate": True,
    }
    assert request.headers["x-api-key"] == KEY


@pytest.mark.anyio
async def test_immediate_without_a_key_is_refused_and_nothing_is_sent(
    service: respx.MockRouter,
) -> None:
    async with Sms4SatsClient() as client:
        with pytest.raises(AuthenticationError) as caught:
            await client.create_order(187, "tg", immediate=True)
    assert caught.value.request_outcome is RequestOutcome.NOT_SENT
    assert caught.value.status_code is None
    assert not service.calls


@pytest.mark.parametrize(
    ("country", "name", "referral"),
    [(True, "tg", None), (-1, "tg", None), (" ", "tg", None), (187, "", None), (187, "tg", "")],
)
@pytest.mark.anyio
async def test_an_invalid_order_is_refused_and_nothing_is_sent(
    country: int | str, name: str, referral: str | None, service: respx.MockRouter
) -> None:
    async with Sms4SatsClient() as client:
        with pytest.raises(InvalidArgumentError):
            await client.create_order(country, name, referral=referral)
    assert not service.calls


@pytest.mark.anyio
async def test_an_order_without_an_invoice_is_an_error_with_its_id(
    service: respx.MockRouter,
) -> None:
    service.post("/createorder").respond(json={"status": "OK", "orderId": ID})
    async with Sms4SatsClient() as client:
        with pytest.raises(InvalidResponseError) as caught:
            await client.create_order(187, "tg")
    assert caught.value.order_id == ID
    assert caught.value.request_outcome is RequestOutcome.UNKNOWN
    assert ID not in str(caught.value)


@pytest.mark.parametrize(
    "fault",
    [
        Fault.unable_to_save_data(),
        Fault.unable_to_save_data(after_change=True),
        Fault.http(500, "backend error", after_change=True),
        Fault.http(502),
        Fault.http(503, retry_after=1),
        Fault.http(429, retry_after=1),
        Fault.html(),
        Fault.html(200, after_change=True),
        Fault.cut_json(after_change=True),
        Fault.cut_body(after_change=True),
        Fault.reset(),
        Fault.reset(after_change=True),
        Fault.hang(after_change=True),
        Fault.big_body(2_000_000, after_change=True),
    ],
)
@pytest.mark.anyio
async def test_a_creation_that_may_have_arrived_is_not_retried(fault: Fault) -> None:
    simulator = Simulator(clock=ManualClock())
    simulator.script("/createorder", fault)
    async with Sms4SatsClient(
        http_client=simulator.http_client(), clock=simulator.clock, timeout=0.05
    ) as client:
        with pytest.raises(Sms4SatsError) as e:
            await client.create_order(187, "tg")

    assert simulator.count("/createorder") == 1
    assert e.value.request_outcome is RequestOutcome.UNKNOWN
    assert e.value.attempts == 1


@pytest.mark.anyio
async def test_a_refused_order_was_not_created(service: respx.MockRouter) -> None:
    service.post("/createorder").respond(400, json={"status": "error", "reason": "no such service"})
    async with Sms4SatsClient() as client:
        with pytest.raises(BadRequestError, match="No order was created") as caught:
            await client.create_order(187, "tg")
    assert caught.value.request_outcome is RequestOutcome.REFUSED
    assert service.calls.call_count == 1


@pytest.mark.anyio
async def test_a_creation_that_was_not_sent_is_retried(
    service: respx.MockRouter,
) -> None:
    route = service.post("/createorder").mock(
        side_effect=[
            httpx.ConnectError("refused"),
            httpx.ConnectTimeout("slow"),
            httpx.Response(200, json={"status": "OK", "orderId": ID, "payreq": "lnbc1"}),
        ]
    )
    async with Sms4SatsClient(clock=ManualClock()) as client:
        order = await client.create_order(187, "tg")
    assert order.order_id == ID
    assert route.call_count == 3


@pytest.mark.anyio
async def test_a_key_in_an_answer_is_masked(service: respx.MockRouter) -> None:
    service.get("/orderstatus").respond(
        401, json={"status": "error", "reason": f"key {KEY} unknown, order {ID}"}
    )
    async with Sms4SatsClient(api_key=KEY) as client:
        with pytest.raises(AuthenticationError, match="unknown") as caught:
            await client.get_order_status(ID)
    for shown in (str(caught.value), repr(caught.value)):
        assert KEY not in shown
        assert ID not in shown


@pytest.mark.anyio
async def test_an_order_that_could_not_be_recorded_is_on_the_error() -> None:
    journal = FailingJournal()

    def fail(event: Event) -> None:
        if isinstance(event, OrderCreated):
            journal.error = OSError("disk full")
        it.events.append(event)

    it = Simulated()
    client = it.new_client(journal, on_event=fail)
    with pytest.raises(JournalError, match="do not pay twice") as caught:
        await client.create_order(187, "tg", metadata=METADATA)
    (created,) = it.events_of(OrderCreated)
    assert caught.value.order == created.order
    assert caught.value.order_id == created.order.order_id
    assert caught.value.request_outcome is RequestOutcome.UNKNOWN
    assert caught.value.operation == "create_order"


# --- get_order_status -----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_get_order_status_takes_an_order_or_its_id() -> None:
    simulator = Simulator(Behaviour(code_delay=0, number_delay=0), clock=ManualClock())
    async with Sms4SatsClient(http_client=simulator.http_client(), clock=simulator.clock) as client:
        order = await client.create_order(187, "tg")
        assert (await client.get_order_status(order)).state is OrderState.UNPAID
        simulator.pay(order.order_id)
        status = await client.get_order_status(order.order_id)
    assert (status.state, status.code) == (OrderState.CODE_RECEIVED, "012345")


@pytest.mark.anyio
async def test_a_policy_holds_for_one_call(service: respx.MockRouter) -> None:
    route = service.get("/orderstatus").mock(side_effect=httpx.ReadTimeout("late"))
    async with Sms4SatsClient(clock=ManualClock()) as client:
        with pytest.raises(RequestTimeoutError):
            await client.get_order_status(ID, retry=RetryPolicy(attempts=1))
        assert route.call_count == 1
        with pytest.raises(RequestTimeoutError):
            await client.get_order_status(ID)
    assert route.call_count == 5


@pytest.mark.parametrize("order", ["", "  ", "line\nend", "\x00", "half \ud800", "x" * 2000])
@pytest.mark.anyio
async def test_an_invalid_id_is_refused_by_every_call(
    order: str, service: respx.MockRouter
) -> None:
    async with Sms4SatsClient() as client:
        for call in (
            client.get_order_status,
            client.cancel_order,
            client.cancel_order_when_allowed,
            partial(client.wait_for_code, timeout=1),
            partial(client.code_or_refund, timeout=1),
            client.advance_order,
        ):
            with pytest.raises(InvalidArgumentError):
                await call(order)
        for plain_call in (client.watch_order, client.resume_order):
            with pytest.raises(InvalidArgumentError):
                plain_call(order)
        with pytest.raises(InvalidArgumentError):
            client.cancel_orders([ID, order])
    assert not service.calls


@pytest.mark.anyio
async def test_an_invalid_time_is_refused(service: respx.MockRouter) -> None:
    now = datetime.now(UTC)
    async with Sms4SatsClient() as client:
        several: list[dict[str, Any]] = [
            {"created_at": now.replace(tzinfo=None)},
            {"created_at": 1_800_000_000},
            {"minimum_age": -1},
            {"minimum_age": float("nan")},
            {"minimum_age": timedelta(seconds=-1)},
            {"poll_interval": 0},
            {"poll_interval": float("inf")},
        ]
        for wrong in several:
            with pytest.raises(InvalidArgumentError):
                await client.cancel_order_when_allowed(ID, **wrong)
    assert not service.calls
