"""Every endpoint but the cancel: what is sent, what is returned, and what is refused before."""

import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeAlias

import httpx
import pytest
import respx

from sms4sats_async import (
    DEFAULT_BASE_URL,
    AuthenticationError,
    ComputedPrice,
    Country,
    Event,
    FundingEntry,
    FundingHistory,
    FundOrder,
    InvalidArgumentError,
    InvalidResponseError,
    MemoryJournal,
    Order,
    OrderCreated,
    Price,
    RentalCountry,
    RequestOutcome,
    RequestTimeoutError,
    RetryPolicy,
    SendOrder,
    Service,
    Sms4SatsClient,
    TransportError,
)
from sms4sats_async.simulator import Behaviour, ManualClock, Simulator

pytestmark = pytest.mark.anyio

Call: TypeAlias = Callable[[Sms4SatsClient], Awaitable[object]]

KEY = "key-that-is-a-secret"
ID = "0123456789abcdef" * 4
MADE = {"status": "OK", "orderId": ID, "payreq": "lnbc1invoice"}
ONCE = RetryPolicy(attempts=1)
COUNTRIES = [
    {"id": 999, "eng": "Auto-Select"},
    {"id": "43", "eng": "Germany", "visible": 1, "rent": 0},
    {"id": 187, "eng": "USA", "visible": True, "rent": "true", "more": "?"},
    {"id": 1, "eng": "United Kingdom", "visible": "perhaps"},
]


@pytest.fixture
def service() -> Iterator[respx.MockRouter]:
    with respx.mock(base_url=DEFAULT_BASE_URL, assert_all_called=False) as router:
        yield router


def sent(route: respx.Route) -> Any:
    return json.loads(route.calls.last.request.content)


# --- what can be had ------------------------------------------------------------------------------


async def test_get_countries_reads_the_list(service: respx.MockRouter) -> None:
    service.get("/getCountries").respond(json=COUNTRIES)
    async with Sms4SatsClient() as client:
        countries = await client.get_countries()
    assert countries == [
        Country(999, "Auto-Select"),
        Country(43, "Germany", visible=True, rentable=False),
        Country(187, "USA", visible=True, rentable=True),
        Country(1, "United Kingdom"),
    ]
    assert countries[2].raw["more"] == "?"


async def test_get_services_reads_the_list(service: respx.MockRouter) -> None:
    entries = [
        {"key": 1, "text": "Telegram", "value": "tg", "count": "17", "image": {"src": "/tg.png"}},
        {"value": "wa", "count": 3, "image": None},
    ]
    route = service.get("/getnumbersstatus", params={"country": "187"}).respond(json=entries)
    async with Sms4SatsClient() as client:
        services = await client.get_services(187)
    assert services == [Service("tg", "Telegram", 17, "/tg.png"), Service("wa", "wa", 3)]
    assert route.called


@pytest.mark.parametrize("service_code", [None, "full", "tg"])
async def test_get_rental_countries_reads_the_list(
    service_code: str | None, service: respx.MockRouter
) -> None:
    entry = {"cc": 6, "country": "Indonesia", "duration": "2", "price": 1368}
    route = service.get("/getRentalCountries").respond(json=[entry])
    async with Sms4SatsClient() as client:
        assert await client.get_rental_countries(service_code) == [
            RentalCountry(country_id=6, country="Indonesia", duration_weeks=2, price=1368)
        ]
    query = dict(route.calls.last.request.url.params)
    assert query == ({} if service_code is None else {"service": service_code})


async def test_get_price_reads_numbers_and_numeric_strings(service: respx.MockRouter) -> None:
    answer = {"receive": "1500", "send": 3000, "rent": 15000, "s4s": "4000"}
    service.get("/price", params={}).respond(json=answer)
    async with Sms4SatsClient() as client:
        price = await client.get_price()
    assert price == Price(receive=1500, send=3000, rent=15000, platform_fee=4000)
    assert price.raw == answer


async def test_get_price_returns_the_computed_price(
    service: respx.MockRouter,
) -> None:
    answer = {
        "receive": 1500,
        "send": 3000,
        "rent": 15000,
        "s4s": 4000,
        "query": {"country": "usa", "service": "tg"},
        "computed": {"price": "1500", "country": 187, "description": "Telegram, USA"},
    }
    route = service.get("/price").respond(json=answer)
    async with Sms4SatsClient() as client:
        price = await client.get_price("usa", "tg")
    assert price.computed == ComputedPrice(1500, 187, "Telegram, USA")
    assert dict(route.calls.last.request.url.params) == {"country": "usa", "service": "tg"}


@pytest.mark.parametrize(
    ("country", "name", "query"),
    [
        (0, "tg", {"country": "0", "service": "tg"}),
        ("0", "tg", {"country": "0", "service": "tg"}),
        ("us", "telegram", {"country": "us", "service": "telegram"}),
        (
            "united kingdom",
            "google voice",
            {"country": "united kingdom", "service": "google voice"},
        ),
        (None, "telegram", {"service": "telegram"}),
        (0, None, {"country": "0"}),
    ],
    ids=repr,
)
async def test_get_price_sends_country_and_service_as_given(
    country: int | str | None, name: str | None, query: dict[str, str], service: respx.MockRouter
) -> None:
    route = service.get("/price").respond(json={"computed": {"price": 1, "country": 0}})
    async with Sms4SatsClient() as client:
        price = await client.get_price(country, name)
    assert price.computed == ComputedPrice(1, 0)
    assert dict(route.calls.last.request.url.params) == query


async def test_country_0_is_a_country(service: respx.MockRouter) -> None:
    service.get("/getCountries").respond(json=[{"id": 0, "eng": "Russia"}, {"id": 43, "eng": None}])
    route = service.get("/getnumbersstatus").respond(json=[{"value": "tg"}])
    async with Sms4SatsClient() as client:
        assert [country.id for country in await client.get_countries()] == [0]
        assert await client.get_services("russia") == [Service("tg", "tg")]
    assert dict(route.calls.last.request.url.params) == {"country": "0"}


OTHER_SHAPES: list[tuple[str, Call, object]] = [
    ("/getCountries", lambda c: c.get_countries(), {"status": "OK"}),
    ("/getCountries", lambda c: c.get_countries(), ["Germany"]),
    ("/getCountries", lambda c: c.get_countries(), [{"id": "x", "eng": "Germany"}]),
    ("/getCountries", lambda c: c.get_countries(), [{"id": -1, "eng": "Germany"}]),
    ("/getCountries", lambda c: c.get_countries(), [{"id": 1}]),
    ("/getnumbersstatus", lambda c: c.get_services(1), [{"text": "Telegram"}]),
    ("/getRentalCountries", lambda c: c.get_rental_countries(), [{"cc": 1}]),
    ("/price", lambda c: c.get_price(), {"receive": "many"}),
    ("/price", lambda c: c.get_price(), []),
    ("/balance", lambda c: c.get_balance(), {"status": "OK"}),
    ("/history", lambda c: c.get_history(), {"totalAmount": 1}),
    ("/history", lambda c: c.get_history(), {"totalAmount": 1, "orders": [{}]}),
]


@pytest.mark.parametrize(("path", "call", "answer"), OTHER_SHAPES)
async def test_an_answer_of_another_shape_is_an_invalid_response(
    path: str,
    call: Call,
    answer: object,
    service: respx.MockRouter,
) -> None:
    service.get(path).respond(json=answer)
    async with Sms4SatsClient(api_key=KEY, clock=ManualClock()) as client:
        with pytest.raises(InvalidResponseError):
            await call(client)


# --- countries by name ----------------------------------------------------------------------------


@pytest.mark.parametrize("country", [0, "0", "russia"], ids=repr)
async def test_country_0_can_be_ordered(country: int | str, service: respx.MockRouter) -> None:
    service.get("/getCountries").respond(json=[{"id": 0, "eng": "Russia"}])
    route = service.post("/createorder").respond(json=MADE)
    async with Sms4SatsClient() as client:
        await client.create_order(country, "tg")
    assert sent(route)["country"] == 0


async def test_a_name_that_comes_twice_with_one_number_is_not_ambiguous(
    service: respx.MockRouter,
) -> None:
    twice = [{"id": 1, "eng": "Congo"}, {"id": "1", "eng": "congo"}, {"id": 2, "eng": "Mali"}]
    service.get("/getCountries").respond(json=twice)
    route = service.post("/createorder").respond(json=MADE)
    async with Sms4SatsClient() as client:
        await client.create_order("Congo", "tg")
    assert sent(route)["country"] == 1


@pytest.mark.parametrize("name", ["germany", " GERMANY ", "Germany"])
async def test_a_country_can_be_given_by_name(name: str, service: respx.MockRouter) -> None:
    service.get("/getCountries").respond(json=COUNTRIES)
    route = service.post("/createorder").respond(json=MADE)
    async with Sms4SatsClient() as client:
        order = await client.create_order(name, "tg")
    assert sent(route)["country"] == 43
    assert order.country == name


async def test_a_name_with_two_numbers_is_refused(
    service: respx.MockRouter,
) -> None:
    two = [{"id": 1, "eng": "Congo"}, {"id": 2, "eng": "congo"}]
    service.get("/getCountries").respond(json=two)
    async with Sms4SatsClient() as client:
        with pytest.raises(InvalidArgumentError, match=r"\[1, 2\]"):
            await client.create_order("Congo", "tg")


async def test_the_list_of_countries_is_read_once_and_only_for_a_name(
    service: respx.MockRouter,
) -> None:
    countries = service.get("/getCountries").respond(json=COUNTRIES)
    route = service.post("/createorder").respond(json=MADE)
    async with Sms4SatsClient() as client:
        await client.create_order(187, "tg")
        await client.create_order("187", "tg")
        assert sent(route)["country"] == 187
        assert countries.call_count == 0
        await client.create_order("united-kingdom", "tg")
        assert sent(route)["country"] == 1
        await client.create_order("usa", "tg")
    assert countries.call_count == 1


async def test_get_services_sends_the_number_of_the_country(
    service: respx.MockRouter,
) -> None:
    service.get("/getCountries").respond(json=COUNTRIES)
    route = service.get("/getnumbersstatus").respond(json=[])
    async with Sms4SatsClient() as client:
        assert await client.get_services("Germany") == []
    assert dict(route.calls.last.request.url.params) == {"country": "43"}


async def test_without_the_list_of_countries_nothing_is_ordered(service: respx.MockRouter) -> None:
    countries = service.get("/getCountries").mock(side_effect=httpx.ReadTimeout("late"))
    orders = service.post("/createorder").respond(json=MADE)
    async with Sms4SatsClient() as client:
        with pytest.raises(RequestTimeoutError) as caught:
            await client.create_order("germany", "tg", retry=RetryPolicy(attempts=1))
        assert caught.value.operation == "get_countries"
        assert (countries.call_count, orders.call_count) == (1, 0)
        # A list that was not read is requested again.
        countries.mock(side_effect=None, return_value=httpx.Response(200, json=COUNTRIES))
        assert (await client.create_order("germany", "tg")).order_id == ID


async def test_the_refusal_of_a_long_name_is_short(
    service: respx.MockRouter,
) -> None:
    service.get("/getCountries").respond(json=COUNTRIES)
    async with Sms4SatsClient() as client:
        with pytest.raises(InvalidArgumentError) as caught:
            await client.get_services("x" * 1_000_000)
    assert len(str(caught.value)) < 400


async def test_an_unknown_country_is_refused_and_nothing_is_ordered(
    service: respx.MockRouter,
) -> None:
    service.get("/getCountries").respond(json=COUNTRIES)
    orders = service.post("/createorder").respond(json=MADE)
    async with Sms4SatsClient() as client:
        with pytest.raises(InvalidArgumentError, match="Atlantis"):
            await client.create_order("Atlantis", "tg")
        with pytest.raises(InvalidArgumentError, match="Atlantis"):
            await client.get_services("Atlantis")
    assert not orders.called


# --- a message to send ----------------------------------------------------------------------------


async def test_create_send_order_sends_what_is_documented(service: respx.MockRouter) -> None:
    route = service.post("/createsendorder").respond(json=MADE)
    events: list[Event] = []
    async with Sms4SatsClient(clock=ManualClock(1_800_000_000), on_event=events.append) as client:
        order = await client.create_send_order("+4915112345678", "hello")
    assert order == SendOrder(
        ID, "lnbc1invoice", datetime.fromtimestamp(1_800_000_000, UTC), "+4915112345678"
    )
    assert sent(route) == {"phone": "+4915112345678", "message": "hello"}
    assert events == [OrderCreated(ID, order)]


async def test_create_send_order_sends_every_option(service: respx.MockRouter) -> None:
    route = service.post("/createsendorder").respond(json={**MADE, "payreq": "paid"})
    async with Sms4SatsClient(api_key=KEY) as client:
        order = await client.create_send_order(
            "+4915112345678",
            "x" * 140,
            immediate=True,
            webhook_url="https://me.example/hook?a=b",
            referral="me@example.com",
        )
    assert order.invoice == "paid"
    assert sent(route)["immediate"] is True
    assert sent(route)["webhookUrl"] == "https://me.example/hook?a=b"
    assert sent(route)["ref"] == "me@example.com"
    assert route.calls.last.request.headers["x-api-key"] == KEY


@pytest.mark.parametrize(
    ("phone", "message", "more"),
    [
        ("4915112345678", "hello", {}),
        ("+49 151 123", "hello", {}),
        ("+0151123456", "hello", {}),
        ("+1234567890123456", "hello", {}),
        ("+٤٩١٥١١٢٣٤٥", "hello", {}),
        ("+4915112345678\n", "hello", {}),
        (4915112345678, "hello", {}),
        ("+4915112345678", "", {}),
        ("+4915112345678", " \n", {}),
        ("+4915112345678", "x" * 141, {}),
        ("+4915112345678", b"hello", {}),
        ("+4915112345678", "hello", {"webhook_url": "me.example/hook"}),
        ("+4915112345678", "hello", {"webhook_url": "https://me.example/\nhook"}),
        ("+4915112345678", "hello", {"webhook_url": ""}),
    ],
)
async def test_an_invalid_message_is_refused_and_nothing_is_sent(
    phone: Any, message: Any, more: dict[str, Any], service: respx.MockRouter
) -> None:
    async with Sms4SatsClient() as client:
        with pytest.raises(InvalidArgumentError) as caught:
            await client.create_send_order(phone, message, **more)
    assert caught.value.request_outcome is RequestOutcome.NOT_SENT
    assert not service.calls


@pytest.mark.parametrize("referral", ["me", "me@", "@example.com", "me@host", "a b@example.com"])
async def test_a_referral_that_is_no_lightning_address_is_refused(
    referral: str, service: respx.MockRouter
) -> None:
    async with Sms4SatsClient() as client:
        with pytest.raises(InvalidArgumentError, match="Lightning address"):
            await client.create_order(187, "tg", referral=referral)
        with pytest.raises(InvalidArgumentError, match="Lightning address"):
            await client.create_send_order("+4915112345678", "hello", referral=referral)
    assert not service.calls


# --- metadata -------------------------------------------------------------------------------------

CREATE: dict[str, Callable[[Sms4SatsClient, Any], Awaitable[Order]]] = {
    "create_order": lambda c, notes: c.create_order(187, "tg", metadata=notes),
    "create_send_order": (
        lambda c, notes: c.create_send_order("+4915112345678", "hello", metadata=notes)
    ),
}
each_creation = pytest.mark.parametrize("create", CREATE.values(), ids=CREATE)


@each_creation
async def test_metadata_is_on_the_order_and_in_the_journal_and_never_sent(
    create: Callable[[Sms4SatsClient, Any], Awaitable[Order]], service: respx.MockRouter
) -> None:
    service.post(path__regex="/create.*").respond(json=MADE)
    journal = MemoryJournal()
    notes = {"chat": "a note that is not sent", "ключ": "😀"}
    async with Sms4SatsClient(journal=journal) as client:
        order = await create(client, notes)
    kept = dict(notes)
    notes["chat"] = "changed afterwards"
    assert order.metadata == kept
    entry = await journal.get(ID)
    assert entry is not None
    assert entry.metadata == kept
    assert entry.order == order
    request = service.calls.last.request
    for secret in ("note", "chat", "metadata", "ключ", "😀", "\\u"):
        assert secret not in f"{request.url} {request.headers} {request.content.decode()}"


@each_creation
async def test_an_order_without_metadata_has_an_empty_mapping(
    create: Callable[[Sms4SatsClient, Any], Awaitable[Order]], service: respx.MockRouter
) -> None:
    service.post(path__regex="/create.*").respond(json=MADE)
    async with Sms4SatsClient() as client:
        assert (await create(client, None)).metadata == {}
        assert (await create(client, {})).metadata == {}


def notes_of(size: int, letter: str = "x") -> dict[str, str]:
    """Notes whose compact JSON has so many bytes in UTF-8."""
    width = len(letter.encode())
    count, rest = divmod(size - len('{"a":""}'), width)
    return {"a": letter * count + "x" * rest}


@pytest.mark.parametrize("letter", ["x", "é", "€", "😀"])
async def test_metadata_may_have_4096_bytes(letter: str, service: respx.MockRouter) -> None:
    service.post("/createorder").respond(json=MADE)
    async with Sms4SatsClient() as client:
        notes = notes_of(4096, letter)
        assert (await client.create_order(187, "tg", metadata=notes)).metadata == notes


@pytest.mark.parametrize(
    "notes",
    [
        notes_of(4097),
        notes_of(4097, "€"),
        {str(number): "" for number in range(1000)},
        {"a": '"' * 2050},
        {"chat": 42},
        {42: "chat"},
        {"chat": None},
        {"chat": b"42"},
        {"chat": "half \ud83d"},
        {"half \ude00": "chat"},
        [("chat", "42")],
        "chat",
        42,
    ],
    ids=lambda notes: str(notes)[:20],
)
@each_creation
async def test_invalid_metadata_is_refused_and_nothing_is_sent(
    create: Callable[[Sms4SatsClient, Any], Awaitable[Order]],
    notes: Any,
    service: respx.MockRouter,
) -> None:
    journal = MemoryJournal()
    async with Sms4SatsClient(journal=journal) as client:
        with pytest.raises(InvalidArgumentError, match="metadata"):
            await create(client, notes)
    assert not service.calls
    assert await journal.history() == []


# --- what the calls share -------------------------------------------------------------------------

# Each call that is one request, where it goes, and an answer to it.
CALLS: dict[str, tuple[Call, str, str, object]] = {
    "ping": (lambda c: c.ping(retry=ONCE), "GET", "/", {}),
    "get_countries": (lambda c: c.get_countries(retry=ONCE), "GET", "/getCountries", COUNTRIES),
    "get_services": (lambda c: c.get_services(1, retry=ONCE), "GET", "/getnumbersstatus", []),
    "get_rental_countries": (
        *(lambda c: c.get_rental_countries(retry=ONCE), "GET", "/getRentalCountries", []),
    ),
    "get_price": (
        *(lambda c: c.get_price(retry=ONCE), "GET", "/price"),
        {"receive": 1, "send": 1, "rent": 1, "s4s": 1},
    ),
    "get_order_status": (
        *(lambda c: c.get_order_status(ID, retry=ONCE), "GET", "/orderstatus", {}),
    ),
    "cancel_order": (
        *(lambda c: c.cancel_order(ID, retry=ONCE), "GET", "/cancelorder", {"status": "OK"}),
    ),
    "create_order": (
        *(lambda c: c.create_order(187, "tg", retry=ONCE), "POST", "/createorder", MADE),
    ),
    "create_send_order": (
        lambda c: c.create_send_order("+4915112345678", "hello", retry=ONCE),
        *("POST", "/createsendorder", MADE),
    ),
    "fund": (lambda c: c.fund(1000, retry=ONCE), "POST", "/fund", MADE),
    "get_balance": (lambda c: c.get_balance(retry=ONCE), "GET", "/balance", {"balance": 1}),
    "get_history": (
        *(lambda c: c.get_history(retry=ONCE), "GET", "/history"),
        {"totalAmount": 0, "orders": []},
    ),
}
NEEDS_THE_KEY = {"fund", "get_balance", "get_history"}
MAKES_AN_ORDER = ("create_order", "create_send_order", "fund")


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_is_one_request_and_sends_the_key_only_where_needed(
    name: str, service: respx.MockRouter
) -> None:
    call, method, path, answer = CALLS[name]
    route = service.request(method, path).respond(json=answer)
    async with Sms4SatsClient(api_key=KEY) as client:
        await call(client)
    assert (route.call_count, service.calls.call_count) == (1, 1)
    assert ("x-api-key" in route.calls.last.request.headers) == (name in NEEDS_THE_KEY)
    assert KEY not in str(route.calls.last.request.url)


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_can_have_its_own_policy(name: str, service: respx.MockRouter) -> None:
    call, method, path, _ = CALLS[name]
    # After this failure the client's own policy retries even a creation.
    route = service.request(method, path).mock(side_effect=httpx.ConnectError("refused"))
    async with Sms4SatsClient(api_key=KEY, clock=ManualClock()) as client:
        with pytest.raises(TransportError) as caught:
            await call(client)
    assert (route.call_count, caught.value.attempts) == (1, 1)
    assert caught.value.operation == name
    assert caught.value.request_outcome is RequestOutcome.NOT_SENT


@pytest.mark.parametrize("retry", [3, 0, RetryPolicy, "once", 1.5, {"attempts": 1}], ids=repr)
async def test_an_invalid_policy_is_refused_and_nothing_is_sent(
    retry: Any, service: respx.MockRouter
) -> None:
    async with Sms4SatsClient() as client:
        with pytest.raises(InvalidArgumentError, match="retry"):
            await client.create_order(187, "tg", retry=retry)
        with pytest.raises(InvalidArgumentError, match="retry"):
            await client.cancel_order(ID, retry=retry)
    assert not service.calls


@pytest.mark.parametrize("name", MAKES_AN_ORDER)
async def test_a_new_order_is_reported_once(name: str, service: respx.MockRouter) -> None:
    call, method, path, answer = CALLS[name]
    service.request(method, path).respond(json=answer)
    events: list[Event] = []
    async with Sms4SatsClient(api_key=KEY, on_event=events.append) as client:
        order = await call(client)
    assert isinstance(order, Order)
    assert events == [OrderCreated(ID, order)]
    assert order.raw == answer


@pytest.mark.parametrize("payreq", [{}, {"payreq": ""}, {"payreq": None}, {"payreq": " "}])
@pytest.mark.parametrize("name", MAKES_AN_ORDER)
async def test_an_order_without_an_invoice_is_an_error_with_its_id(
    name: str, payreq: dict[str, object], service: respx.MockRouter
) -> None:
    call, method, path, _ = CALLS[name]
    service.request(method, path).respond(json={"status": "OK", "orderId": ID} | payreq)
    async with Sms4SatsClient(api_key=KEY) as client:
        with pytest.raises(InvalidResponseError, match="cannot be paid") as caught:
            await call(client)
    assert (caught.value.operation, caught.value.order_id) == (name, ID)
    assert caught.value.request_outcome is RequestOutcome.UNKNOWN


# --- prepaid --------------------------------------------------------------------------------------


async def test_fund_get_balance_and_get_history_send_the_key(service: respx.MockRouter) -> None:
    entry = {
        "amount": "1000",
        "createdAt": 1_700_000_000_000,
        "desc": "fund",
        "description": "funding of 1000 sat",
        "holdinvoice": "lnbc10u1holdinvoicewhichislong",
        "preimage": "aa" * 32,
        "preimageHash": "bb" * 32,
        "price": 1000,
        "userId": KEY,
    }
    routes = [
        service.post("/fund").respond(json=MADE),
        service.get("/balance").respond(json={"status": "OK", "balance": 10000}),
        service.get("/history").respond(
            json={"status": "OK", "totalAmount": 349500, "orders": [entry]}
        ),
    ]
    async with Sms4SatsClient(api_key=KEY) as client:
        order = await client.fund(amount_sat=1000)
        balance = await client.get_balance()
        history = await client.get_history()

    assert isinstance(order, FundOrder)
    assert (order.order_id, order.amount, balance) == (ID, 1000, 10000)
    assert sent(routes[0]) == {"amount": 1000}
    assert history == FundingHistory(
        349500,
        (
            FundingEntry(
                1000,
                datetime.fromtimestamp(1_700_000_000, UTC),
                "funding of 1000 sat",
                "lnbc10u1holdinvoicewhichislong",
                "aa" * 32,
                "bb" * 32,
                1000,
                KEY,
            ),
        ),
    )
    for route in routes:
        assert route.calls.last.request.headers["x-api-key"] == KEY
    shown = repr(history)
    assert KEY not in shown
    assert "aa" * 32 not in shown
    assert "holdinvoicewhichislong" not in shown
    assert repr(FundingEntry(1))


PREPAID: dict[str, Call] = {
    "fund": lambda c: c.fund(1000),
    "get_balance": lambda c: c.get_balance(),
    "get_history": lambda c: c.get_history(),
    "create_order": lambda c: c.create_order(187, "tg", immediate=True),
    "create_order by name": lambda c: c.create_order("germany", "tg", immediate=True),
    "create_send_order": lambda c: c.create_send_order("+4915112345678", "hello", immediate=True),
}


@pytest.mark.parametrize("call", PREPAID.values(), ids=PREPAID)
async def test_a_prepaid_call_without_a_key_is_refused_and_nothing_is_sent(
    call: Call, service: respx.MockRouter
) -> None:
    async with Sms4SatsClient() as client:
        with pytest.raises(AuthenticationError, match="SMS4SATS_API_KEY") as caught:
            await call(client)
    assert caught.value.request_outcome is RequestOutcome.NOT_SENT
    assert not service.calls


@pytest.mark.parametrize("amount", [0, -1, 1.5, "1000", True, None])
async def test_an_invalid_amount_is_refused(amount: Any, service: respx.MockRouter) -> None:
    async with Sms4SatsClient(api_key=KEY) as client:
        with pytest.raises(InvalidArgumentError, match="amount"):
            await client.fund(amount)
    assert not service.calls


async def test_a_refused_key_is_an_authentication_error(
    service: respx.MockRouter,
) -> None:
    refusal = {"status": "error", "reason": "X-API-Key header is missing."}
    service.get("/balance").respond(400, json=refusal)
    async with Sms4SatsClient(api_key=KEY) as client:
        with pytest.raises(AuthenticationError) as caught:
            await client.get_balance()
    assert caught.value.status_code == 400


# --- all of it, against the simulator -------------------------------------------------------------


async def test_every_call_works_against_the_simulator() -> None:
    clock = ManualClock()
    simulator = Simulator(Behaviour(sms_delay=5), clock=clock)
    simulator.credit(KEY, 100_000)
    async with Sms4SatsClient(
        api_key=KEY, http_client=simulator.http_client(), clock=clock
    ) as client:
        await client.ping()
        assert any(country.id == 999 for country in await client.get_countries())
        assert await client.get_services(187)
        assert await client.get_rental_countries()
        assert (await client.get_price(187, "tg")).computed is not None
        before = await client.get_balance()
        sms = await client.create_send_order("+4915112345678", "hello", immediate=True)
        assert sms.invoice == "paid"
        assert await client.get_balance() < before
        funding = await client.fund(5000)
        simulator.pay(funding.invoice)
        assert (await client.get_history()).total_amount >= 5000
        states = [status.state.value async for status in client.watch_order(sms)]
    assert states[-1] == "message delivered"


async def test_an_httpx_client_can_be_injected(service: respx.MockRouter) -> None:
    async with httpx.AsyncClient() as http_client:
        service.get("/balance").respond(json={"status": "OK", "balance": "7"})
        client = Sms4SatsClient(api_key=KEY, http_client=http_client)
        assert await client.get_balance() == 7
