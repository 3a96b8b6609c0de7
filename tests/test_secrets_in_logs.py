"""Neither an order's id nor the key is written whole: in no log, no repr and no traceback."""

import logging
import traceback
from typing import Any
from urllib.parse import quote

import httpx
import httpx2
import pytest

from sms4sats_async import Event, RequestTimeoutError, RetryPolicy, Sms4SatsClient, Sms4SatsError
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

ODD_ID = 'an id/of "no known" kind? & more, é'


@pytest.fixture(autouse=True)
def _logs_of_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what another test's client did to the libraries' loggers."""
    for name, logger in logging.Logger.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.startswith("http"):
            monkeypatch.setattr(logger, "filters", [])


def assert_masked(text: str, *, order_id: str = ORDER_ID) -> None:
    """Assert that a text gives nothing away; that it says something is seen first."""
    assert text
    for secret in (order_id, quote(order_id, safe=""), KEY):
        assert secret not in text


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """Return everything that was logged, in every form a handler could write it in."""
    formatter = logging.Formatter("%(name)s %(pathname)s %(message)s")
    return "\n".join(
        f"{formatter.format(record)} {record.args!r} {record.msg!r}" for record in caplog.records
    )


@everywhere
@pytest.mark.parametrize("order_id", [ORDER_ID, ODD_ID], ids=["hex", "odd"])
@pytest.mark.anyio
async def test_calls_that_go_well_give_nothing_away(
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
async def test_an_order_that_is_made_gives_nothing_away(
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
async def test_a_failure_gives_nothing_away(
    adapter: str, failure: Failure, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    events: list[Event] = []
    limit = 0.05 if failure.error is RequestTimeoutError else 2
    with failure.door() as place:
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
                # The next call is not to run into a connection that is just being closed.
                if place.server is not None and failure.error is not RequestTimeoutError:
                    await place.server.settled()
    assert len(events) == 2
    assert_masked(repr(events))
    assert_masked(f"logged: {logged(caplog)}")


@everywhere
@pytest.mark.anyio
async def test_an_answer_that_echoes_key_and_order_gives_nothing_away(adapter: str) -> None:
    echo = answer({"status": "error", "reason": f"{KEY} may not see {ODD_ID}"}, "403 No")
    with Server(service(lambda _: echo)) as server:
        async with opened(adapter, server.url) as client:
            with pytest.raises(Sms4SatsError) as caught:
                await client.cancel_order(ODD_ID)
    error = caught.value
    shown = f"{error} {error!r} {error.problem} {error.args!r}"
    assert_masked(shown + "".join(traceback.format_exception(error)), order_id=ODD_ID)


@everywhere
@pytest.mark.anyio
async def test_a_listener_that_raises_gives_nothing_away(
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
async def test_other_lines_of_the_librarys_log_stay_as_they_are(
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
