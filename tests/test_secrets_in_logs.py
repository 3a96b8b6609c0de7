"""No log line, repr, event, error or traceback has a whole secret."""

import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import anyio
import httpx
import httpx2
import pytest

from sms4sats_async import (
    Event,
    Invoice,
    MemoryJournal,
    OrderResult,
    OrderScheduler,
    RequestTimeoutError,
    RetryPolicy,
    Sms4SatsClient,
    Sms4SatsError,
)
from sms4sats_async._redact import mask
from sms4sats_async.simulator import Behaviour, Fault
from tests.servers import (
    FAILURES,
    KEY,
    ORDER_ID,
    Failure,
    Server,
    answer,
    everywhere,
    opened,
    service,
)
from tests.simulated import CODE, HELD, LATE_CODE, NEVER_REFUNDED, Simulated

ODD_ID = 'an ID/of "no known" kind? & more, é'


@pytest.fixture(autouse=True)
def _logs_of_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the filters that clients of other tests added to the libraries' loggers."""
    for name, logger in logging.Logger.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.startswith(("http", "hpack")):
            monkeypatch.setattr(logger, "filters", [])


def assert_masked(text: str, *, order_id: str = ORDER_ID) -> None:
    """Assert that a text is not empty and has no secret."""
    assert text
    for secret in (order_id, quote(order_id, safe=""), KEY):
        assert secret not in text


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """Return all that was logged, in every form in which a handler could write it."""
    formatter = logging.Formatter("%(name)s %(pathname)s %(message)s")
    return "\n".join(
        f"{formatter.format(record)} {record.args!r} {record.msg!r}" for record in caplog.records
    )


@everywhere
@pytest.mark.parametrize("order_id", [ORDER_ID, ODD_ID], ids=["hex", "odd"])
@pytest.mark.anyio
async def test_successful_calls_show_no_secret(
    adapter: str, order_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    events: list[Event] = []
    status = answer({"paid": True, "number": 1234567890, "status": "OK"})
    with Server(service(lambda _: status)) as server:
        async with opened(adapter, server.url, on_event=events.append) as client:
            results = (
                await client.get_order_status(order_id),
                await client.cancel_order(order_id),
            )
            shown = f"{results!r} {client!r} {client!s} {events!r}"
    assert server.targets[0].endswith(quote(order_id, safe=""))
    assert_masked(shown, order_id=order_id)
    assert_masked(f"logged: {logged(caplog)}", order_id=order_id)


@everywhere
@pytest.mark.anyio
async def test_creating_an_order_shows_no_secret(
    adapter: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    with Server(service()) as server:
        async with opened(adapter, server.url) as client:
            order = await client.create_order(187, "tg", immediate=True)
    assert (order.order_id, server.seen[0].headers["x-api-key"]) == (ORDER_ID, KEY)
    assert_masked(f"{order!r} {order!s} {logged(caplog)}")


@everywhere
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
@pytest.mark.anyio
async def test_failed_calls_show_no_secret(
    adapter: str, failure: Failure, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    events: list[Event] = []
    limit = 0.05 if failure.error is RequestTimeoutError else 2
    with failure.open_place() as place:
        async with opened(
            adapter,
            place.url,
            proxy=place.proxy,
            trusted=place.trusted,
            timeout=limit,
            on_event=events.append,
        ) as client:
            for call in (
                lambda: client.cancel_order(ORDER_ID),
                lambda: client.create_order(187, "tg", immediate=True),
            ):
                with pytest.raises(Sms4SatsError) as caught:
                    await call()
                error = caught.value
                assert_masked(f"{error} {error!r} {error.args!r} {error.problem}")
                assert_masked("".join(traceback.format_exception(error)))
                # The next call must not meet a connection that is just being closed.
                if place.server is not None and failure.error is not RequestTimeoutError:
                    await place.server.settled()
    assert len(events) == 2
    assert_masked(repr(events))
    assert_masked(f"logged: {logged(caplog)}")


@everywhere
@pytest.mark.anyio
async def test_answer_that_repeats_secrets_shows_none(adapter: str) -> None:
    echo = answer({"status": "error", "reason": f"{KEY} may not see {ODD_ID}"}, "403 No")
    with Server(service(lambda _: echo)) as server:
        async with opened(adapter, server.url) as client:
            with pytest.raises(Sms4SatsError) as caught:
                await client.cancel_order(ODD_ID)
    error = caught.value
    shown = f"{error} {error!r} {error.problem} {error.args!r}"
    assert_masked(shown + "".join(traceback.format_exception(error)), order_id=ODD_ID)


# --- the life of an order -------------------------------------------------------------------------

Call = Callable[[Simulated], Awaitable[object]]


async def code_or_refund(it: Simulated) -> OrderResult:
    return await it.client.code_or_refund(await it.order(), timeout=300)


async def wait_for_code(it: Simulated) -> object:
    return await it.client.wait_for_code(await it.order(), timeout=60)


async def receive_code(it: Simulated) -> OrderResult:
    def pay(invoice: str) -> None:
        raise ValueError(f"the wallet cannot pay {invoice}")

    return await it.client.receive_code(187, "tg", pay=pay, timeout=300)


async def open_order(it: Simulated) -> OrderResult | None:
    async with it.client.open_order(187, "tg") as order:
        pass
    return order.result


async def schedule(it: Simulated) -> OrderResult | None:
    client = it.new_client(MemoryJournal())
    scheduler = OrderScheduler(client)
    order = await client.create_order(187, "tg")
    found: OrderResult | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(scheduler.run)
        await scheduler.add(order, timeout=300)
        async for result in scheduler.results():
            found = result
            break
        group.cancel_scope.cancel()
    return found


async def cancel_orders(it: Simulated) -> list[OrderResult]:
    return [result async for result in it.client.cancel_orders([await it.order()])]


@pytest.mark.parametrize(
    "behaviour",
    [HELD, CODE, LATE_CODE, NEVER_REFUNDED],
    ids=["refund", "code", "late code", "cancel fails"],
)
@pytest.mark.parametrize(
    "call", [code_or_refund, wait_for_code, receive_code, open_order, schedule, cancel_orders]
)
@pytest.mark.anyio
async def test_life_of_an_order_logs_no_secret_and_no_code(
    call: Call, behaviour: Behaviour, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    it = Simulated(behaviour)
    it.simulator.script("/cancelorder", Fault.html(), Fault.unable_to_save_data())

    shown = ""
    try:
        shown = repr(await call(it))
    except Sms4SatsError as error:
        shown = f"{error!r} {error.args!r}" + "".join(traceback.format_exception(error))

    (order,) = it.simulator.orders
    secrets = [order.order_id, order.payreq, Invoice.parse(order.payreq).payment_hash]
    # The result shows the code and the number: it is for the caller. The log shows neither.
    for text in (shown, repr(it.events)):
        assert_has_none(text, secrets)
    lines = logged(caplog)
    assert f"order {mask(order.order_id)}" in lines
    assert_has_none(lines, [*secrets, *filter(None, [order.code, order.number])])


def assert_has_none(text: str, secrets: list[str]) -> None:
    assert text
    assert [secret for secret in secrets if secret.lower() in text.lower()] == []


@everywhere
@pytest.mark.anyio
async def test_listener_that_raises_shows_no_secret(
    adapter: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)

    def listen(event: Event) -> None:
        raise ValueError(repr(event))

    refusal = answer({"status": "error", "reason": f"no order {ORDER_ID}"}, "500 No")
    with Server(service(lambda _: refusal)) as server:
        async with opened(
            adapter,
            server.url,
            on_event=listen,
            retry=RetryPolicy(attempts=2, initial_delay=0),
        ) as client:
            with pytest.raises(Sms4SatsError) as caught:
                await client.cancel_order(ORDER_ID)
    assert ORDER_ID in (caught.value.order_id or "")
    assert "on_event raised" in logged(caplog)
    assert_masked(logged(caplog))


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.asyncio
async def test_headers_that_http_2_logs_are_dropped(
    library: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    hpack = [logging.getLogger(f"hpack.{part}") for part in ("hpack", "table")]

    def respond(request: Any) -> Any:
        # As hpack 4.2 does. It encodes the headers once more, and that can be decoded.
        for logger in hpack:
            for name, value in [(b":path", request.url.raw_path), *request.headers.raw]:
                logger.debug("Adding %s=%s to the header table", name, value)
        return library.Response(200, json={"status": "OK", "balance": 5})

    async with library.AsyncClient(transport=library.MockTransport(respond)) as http_client:
        client = Sms4SatsClient(http_client=http_client, api_key=KEY)
        await client.cancel_order(ORDER_ID)
        await client.get_balance()
        for logger in hpack:
            logger.debug("not ours: %s", b"x")
    assert_masked(logged(caplog))
    assert [record.getMessage() for record in caplog.records if "hpack" in record.name] == [
        "not ours: b'x'"
    ] * 2


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.asyncio
async def test_log_lines_of_other_programs_are_unchanged(
    library: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(1)
    async with library.AsyncClient(transport=library.MockTransport(dict)) as http_client:
        Sms4SatsClient(http_client=http_client)
    logger = logging.getLogger(library.__name__)
    logger.info("not ours: /cancelorder?orderId=1234567890abcdef")
    logger.info("no arguments")
    logger.info("%(one)s", {"one": "by name"})
    logger.info("%s %d %r", "by place", 7, None)
    assert [record.getMessage() for record in caplog.records][-4:] == [
        "not ours: /cancelorder?orderId=1234567890abcdef",
        "no arguments",
        "by name",
        "by place 7 None",
    ]
