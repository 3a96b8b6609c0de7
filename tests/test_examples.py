"""The programs in examples/ run against the simulator, and report only true facts about the money.

The tests add only a clock that jumps or is moved by hand, and a Bot API on loopback.
"""

import asyncio
import csv
import itertools
import runpy
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import uvicorn
from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiohttp import web
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from examples import many_orders, service, telegram_bot, wallet_bot
from sms4sats_async import (
    Event,
    OrderCreated,
    OrderOutcome,
    OrderResult,
    ReceiveOrder,
    Sms4SatsClient,
    SqliteJournal,
)
from sms4sats_async.simulator import Behaviour, Fault, ManualClock, Simulator
from sms4sats_async.testing import assert_no_held_orders, http_client
from tests.nwc_service import nwc_service
from tests.simulated import NEVER_REFUNDED, NO_NUMBER

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
TOKEN = "42:example"

Connect = Callable[..., Sms4SatsClient]
Listener = Callable[[Event], None]

PAYS = Behaviour(pay_delay=0)
NO_CODE = Behaviour(pay_delay=0, code_delay=None)


@pytest.fixture
def connect(sms4sats_simulator: Simulator, sms4sats_clock: ManualClock) -> Connect:
    """Return a function that makes a client of the simulator with a program's own settings."""

    def make(**settings: Any) -> Sms4SatsClient:
        wire = http_client(sms4sats_simulator)
        return Sms4SatsClient(http_client=wire, clock=sms4sats_clock, **settings)

    return make


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what a journal's thread or a socket will do."""
    with anyio.fail_after(10):
        while not is_so():  # noqa: ASYNC110 - there is no event to await
            await anyio.sleep(0.01)


# --- the web service ------------------------------------------------------------------------------


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncGenerator[httpx.AsyncClient]:
    """Start the service as a server does, stop it at the end, and yield a client of it."""
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        transport = httpx.ASGITransport(with_state)
        async with httpx.AsyncClient(transport=transport, base_url="http://codes") as http:
            yield http


@pytest.fixture
def app(connect: Connect, tmp_path: Path, sms4sats_clock: ManualClock) -> Callable[[], FastAPI]:
    """Return a function that makes the service, and makes it again after a restart."""
    sms4sats_clock.autojump = False
    return lambda: service.make_app(connect, str(tmp_path / "codes.sqlite3"))


async def order_code(http: httpx.AsyncClient) -> dict[str, str]:
    """Order a code, and return the header that names the order."""
    answer = await http.post("/codes", json={"country": "germany", "service": "tg"})
    assert answer.status_code == 201
    assert answer.json()["invoice"].startswith("lnbcrt")
    return {"Authorization": f"Bearer {answer.json()['token']}"}


async def report(http: httpx.AsyncClient, order: dict[str, str]) -> dict[str, Any]:
    """Return what the service reports about an order."""
    answer = await http.get("/codes", headers=order)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


async def until_set(http: httpx.AsyncClient, order: dict[str, str], fact: str) -> dict[str, Any]:
    """Wait until the service reports a fact about an order, and return the report."""
    with anyio.fail_after(10):
        while not (found := await report(http, order))[fact]:  # noqa: ASYNC110 - as above
            await anyio.sleep(0.01)
    return found


async def until_ended(http: httpx.AsyncClient, order: dict[str, str]) -> dict[str, Any]:
    """Wait until the service reports that an order ended, and return the report."""
    return await until_set(http, order, "ended")


@pytest.mark.anyio
async def test_service_reports_the_number_and_then_the_code(
    app: Callable[[], FastAPI], sms4sats_simulator: Simulator, sms4sats_clock: ManualClock
) -> None:
    sms4sats_simulator.behaviour = PAYS
    async with serving(app()) as http:
        order = await order_code(http)
        created = await report(http, order)
        await sms4sats_clock.advance(12)
        numbered = await until_set(http, order, "number")
        await sms4sats_clock.advance(60)
        done = await until_ended(http, order)

    assert created == {"ended": False, "number": None, "code": None, "money": "unknown"}
    assert numbered["number"].startswith("+1555")
    assert (numbered["code"], numbered["money"]) == (None, "held")
    assert done == {**numbered, "ended": True, "code": "012345", "money": "settled"}


@pytest.mark.parametrize(
    ("behaviour", "money"),
    [(NO_CODE, "refunded"), (NO_NUMBER, "refunded"), (NEVER_REFUNDED, "held")],
    ids=["cancelled", "refunded by the service", "cancel fails"],
)
@pytest.mark.anyio
async def test_service_reports_where_the_money_is_if_no_code_arrives(
    app: Callable[[], FastAPI],
    sms4sats_simulator: Simulator,
    sms4sats_clock: ManualClock,
    behaviour: Behaviour,
    money: str,
) -> None:
    sms4sats_simulator.behaviour = behaviour
    reports: list[dict[str, Any]] = []
    async with serving(app()) as http:
        order = await order_code(http)
        for _ in range(24):
            await sms4sats_clock.advance(60)
            reports.append(await report(http, order))
            if reports[-1]["money"] == "refunded":
                assert not sms4sats_simulator.held_orders()
        done = await until_ended(http, order)

    assert (done["code"], done["money"]) == (None, money)
    assert bool(sms4sats_simulator.held_orders()) == (money == "held")


@pytest.mark.anyio
async def test_service_cancels_after_five_minutes_and_not_before(
    app: Callable[[], FastAPI], sms4sats_simulator: Simulator, sms4sats_clock: ManualClock
) -> None:
    sms4sats_simulator.behaviour = NO_CODE
    async with serving(app()) as http:
        order = await order_code(http)
        await sms4sats_clock.advance(295)
        await anyio.sleep(0.05)  # a cancel that came too early would be sent in this time
        assert len(sms4sats_simulator.held_orders()) == 1
        await sms4sats_clock.advance(10)
        assert (await until_ended(http, order))["money"] == "refunded"


@pytest.mark.parametrize("code_comes", [False, True], ids=["no code", "late code"])
@pytest.mark.anyio
async def test_customer_who_gives_up_gets_the_refund_or_a_late_code(
    app: Callable[[], FastAPI],
    sms4sats_simulator: Simulator,
    sms4sats_clock: ManualClock,
    *,
    code_comes: bool,
) -> None:
    sms4sats_simulator.behaviour = NO_CODE
    async with serving(app()) as http:
        order = await order_code(http)
        await sms4sats_clock.advance(60)
        assert (await http.delete("/codes", headers=order)).status_code == 202
        assert not (await report(http, order))["ended"]
        if code_comes:
            (simulated,) = sms4sats_simulator.orders
            sms4sats_simulator.deliver_code(simulated.order_id, "0042")
        await sms4sats_clock.advance(65)
        done = await until_ended(http, order)
        assert (await http.delete("/codes", headers=order)).status_code == 202
        assert await report(http, order) == done

    expected = ("0042", "settled") if code_comes else (None, "refunded")
    assert (done["code"], done["money"]) == expected


@pytest.mark.anyio
async def test_next_start_of_the_service_goes_on_with_the_order_and_its_token(
    app: Callable[[], FastAPI], sms4sats_simulator: Simulator, sms4sats_clock: ManualClock
) -> None:
    sms4sats_simulator.behaviour = NO_CODE
    async with serving(app()) as http:
        order = await order_code(http)
        await sms4sats_clock.advance(60)

    async with serving(app()) as http:
        await sms4sats_clock.advance(180)
        (simulated,) = sms4sats_simulator.held_orders()
        sms4sats_simulator.deliver_code(simulated.order_id, "0042")
        await sms4sats_clock.advance(10)
        done = await until_ended(http, order)

    assert (done["code"], done["money"]) == ("0042", "settled")


@pytest.mark.anyio
async def test_service_explains_what_it_cannot_do(
    app: Callable[[], FastAPI], sms4sats_simulator: Simulator
) -> None:
    async with serving(app()) as http:
        unknown = await http.get("/codes", headers={"Authorization": "Bearer 0123"})
        nameless = await http.get("/codes")
        nowhere = await http.post("/codes", json={"country": "atlantis", "service": "tg"})
        sms4sats_simulator.script("/createorder", Fault.http(503))
        failed = await http.post("/codes", json={"country": 43, "service": "tg"})

    assert (unknown.status_code, unknown.json()["detail"]) == (404, "no such order")
    assert nameless.status_code == 401
    assert (nowhere.status_code, "atlantis" in nowhere.json()["detail"]) == (422, True)
    assert (failed.status_code, "503" in failed.json()["detail"]) == (502, True)


# --- the bot with a wallet ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "line"),
    [
        (Behaviour(network="bitcoin", pay_delay=None, code="0042"), "187/tg: 0042\n"),
        (
            Behaviour(network="bitcoin", pay_delay=None, code_delay=None),
            "187/tg: no code, money refunded\n",
        ),
    ],
    ids=["code", "refund"],
)
@pytest.mark.asyncio
async def test_bot_pays_from_its_wallet(
    connect: Connect,
    sms4sats_simulator: Simulator,
    sms4sats_clock: ManualClock,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    behaviour: Behaviour,
    line: str,
) -> None:
    sms4sats_simulator.behaviour = behaviour
    sms4sats_clock.autojump = False
    async with nwc_service("holds") as wallet, asyncio.TaskGroup() as group:
        own = wallet.wallet(clock=sms4sats_clock)
        run = partial(wallet_bot.run, max_price_sat=10**6, journal_path=str(tmp_path / "bot"))
        bot = group.create_task(run(["187/tg"], own, connect=connect))
        await until(lambda: len(wallet.pays) == 1)
        sms4sats_simulator.pay(wallet.pays[0])
        while not bot.done():
            await sms4sats_clock.advance(5)
            await asyncio.sleep(0)

    (order,) = sms4sats_simulator.orders
    assert capsys.readouterr().out == f"187/tg: number {order.number}\n{line}"
    assert len(wallet.pays) == 1


@pytest.mark.asyncio
async def test_next_start_of_the_bot_cancels_what_is_pending(
    connect: Connect,
    sms4sats_simulator: Simulator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sms4sats_simulator.behaviour = NO_CODE
    journal = str(tmp_path / "bot")
    async with SqliteJournal(journal) as orders, connect(journal=orders) as client:
        await client.create_order(187, "tg", metadata={"place": "187/tg"})
    async with nwc_service("holds") as wallet:
        await wallet_bot.run(
            ["atlantis/tg"],
            wallet.wallet(),
            max_price_sat=10**6,
            journal_path=journal,
            connect=connect,
        )

    first, second = capsys.readouterr().out.splitlines()
    assert first == "187/tg: no code, money refunded"
    assert second.startswith("atlantis/tg: the service's list has no country 'atlantis'")


# --- the service of the page ----------------------------------------------------------------------


@pytest.fixture
def page_app(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sms4sats_clock: ManualClock
) -> Callable[[], FastAPI]:
    """Return a function that runs the service of docs/web_service.md, also after a restart."""
    page = (EXAMPLES.parent / "docs" / "web_service.md").read_text("utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)  # for its journal
    monkeypatch.setattr("sms4sats_async.Sms4SatsClient", connect)
    sms4sats_clock.autojump = False

    def run() -> FastAPI:
        names: dict[str, Any] = {}
        exec(code, names)  # noqa: S102 - our own page
        app: FastAPI = names["app"]
        return app

    return run


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("behaviour", "seconds", "state", "code"),
    [
        pytest.param(PAYS, 60, "code received", "012345", id="code"),
        pytest.param(NO_CODE, 310, "cancelled", None, id="cancelled"),
    ],
)
async def test_service_of_the_page_returns_the_number_and_the_end_after_a_restart(
    page_app: Callable[[], FastAPI],
    sms4sats_simulator: Simulator,
    sms4sats_clock: ManualClock,
    *,
    behaviour: Behaviour,
    seconds: float,
    state: str,
    code: str | None,
) -> None:
    sms4sats_simulator.behaviour = behaviour
    async with serving(page_app()) as http:
        order = (await http.post("/codes")).json()
        ticket = {"ticket": order["ticket"]}
        created = await report(http, ticket)
        await sms4sats_clock.advance(12)
        numbered = await until_set(http, ticket, "number")
    async with serving(page_app()) as http:
        await sms4sats_clock.advance(seconds)
        done = await until_set(http, ticket, "end")
        missing = await http.get("/codes", headers={"ticket": "0123"})

    assert order["invoice"].startswith("lnbcrt")
    assert created == {"number": None, "code": None, "end": None}
    assert numbered["number"].startswith("+1555")
    assert done == {**numbered, "code": code, "end": state}
    assert missing.status_code == 404


# --- the Telegram bot -----------------------------------------------------------------------------

CHAT = 7
USAGE = "Which country, and which service? Such as: /code germany tg"


class FakeTelegram:
    """The Bot API on loopback, with one chat."""

    def __init__(self) -> None:
        self.blocked = False
        self.is_down = False
        self.refused = 0
        self.messages: list[str] = []
        self._numbers = itertools.count(1)
        self._said: asyncio.Queue[str] = asyncio.Queue()
        self._heard = 0
        self._over = asyncio.Event()

    def say(self, text: str) -> None:
        """Write to the bot."""
        self._said.put_nowait(text)

    async def hear(self, *expected: str) -> str:
        """Return the last of the bot's next messages, which must start as expected."""
        for beginning in expected:
            await until(lambda: len(self.messages) > self._heard)
            assert self.messages[self._heard].startswith(beginning)
            self._heard += 1
        return self.messages[self._heard - 1]

    @asynccontextmanager
    async def serve(self) -> AsyncGenerator[TelegramAPIServer]:
        """Serve, and yield the address."""
        app = web.Application()
        app.router.add_post(f"/bot{TOKEN}/{{method}}", self._handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        _, port, *_ = runner.addresses[0]
        try:
            yield TelegramAPIServer.from_base(f"http://127.0.0.1:{port}")
        finally:
            self._over.set()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        fields = await request.post()
        match request.match_info["method"]:
            case "getMe":
                result: object = {"id": 42, "is_bot": True, "first_name": "c", "username": "codes"}
            case "getUpdates":
                result = await self._updates()
            case "sendMessage" if self.is_down:
                self.refused += 1
                failure = {"ok": False, "error_code": 502, "description": "Bad Gateway"}
                return web.json_response(failure, status=502)
            case "sendMessage" if self.blocked:
                refusal = {"ok": False, "error_code": 403, "description": "Forbidden: blocked"}
                return web.json_response(refusal, status=403)
            case "sendMessage":
                assert str(fields["chat_id"]) == str(CHAT)
                self.messages.append(str(fields["text"]))
                result = self._message(str(fields["text"]))
            case method:
                pytest.fail(f"the bot calls {method}")
        return web.json_response({"ok": True, "result": result})

    async def _updates(self) -> list[object]:
        """Answer as soon as there is a message, or at the end."""
        said = asyncio.create_task(self._said.get())
        over = asyncio.create_task(self._over.wait())
        done, waiting = await asyncio.wait({said, over}, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        if said not in done:
            return []
        return [{"update_id": next(self._numbers), "message": self._message(said.result())}]

    def _message(self, text: str) -> object:
        return {
            "message_id": next(self._numbers),
            "date": 1_800_000_000,
            "chat": {"id": CHAT, "type": "private"},
            "from": {"id": CHAT, "is_bot": False, "first_name": "c"},
            "text": text,
        }


@asynccontextmanager
async def running_bot(connect: Connect, journal: Path) -> AsyncGenerator[FakeTelegram]:
    """Run the bot until the end of the block, and stop it with SIGTERM as a server does."""
    telegram = FakeTelegram()
    async with telegram.serve() as server, asyncio.TaskGroup() as group:
        bot = Bot(TOKEN, session=AiohttpSession(api=server))
        group.create_task(telegram_bot.run(bot, str(journal), connect))
        telegram.say("/code")  # its answer shows that the bot runs
        await until(lambda: USAGE in telegram.messages)
        telegram.messages.remove(USAGE)  # a message about an older order may come before it
        yield telegram
        signal.raise_signal(signal.SIGTERM)


CREATED = ("Order ", "lnbcrt")
REFUNDED = "No code arrived, and the order is cancelled. The service refunds what you paid."
UNKNOWN = "No code arrived, and the service has not confirmed the refund."


async def order_and_receive(telegram: FakeTelegram, clock: ManualClock, order: str) -> None:
    """Order a code, and see that the bot sends the number and then the code."""
    telegram.say(order)
    await telegram.hear(*CREATED)
    await clock.advance(12)
    await telegram.hear("Your number: +1555")
    await clock.advance(60)
    await telegram.hear("Your code: 012345")


@pytest.mark.asyncio
async def test_bot_sends_the_number_and_the_code(
    connect: Connect, sms4sats_simulator: Simulator, sms4sats_clock: ManualClock, tmp_path: Path
) -> None:
    sms4sats_clock.autojump = False
    sms4sats_simulator.behaviour = PAYS
    async with running_bot(connect, tmp_path / "bot") as telegram:
        for order in ("/code 43 tg", "/code germany tg"):
            await order_and_receive(telegram, sms4sats_clock, order)


@pytest.mark.parametrize(
    ("behaviour", "end", "is_held"),
    [(NO_CODE, REFUNDED, False), (NO_NUMBER, REFUNDED, False), (NEVER_REFUNDED, UNKNOWN, True)],
    ids=["cancelled", "refunded by the service", "cancel fails"],
)
@pytest.mark.asyncio
async def test_bot_reports_a_refund_only_if_the_service_confirmed_it(
    connect: Connect,
    sms4sats_simulator: Simulator,
    tmp_path: Path,
    behaviour: Behaviour,
    end: str,
    *,
    is_held: bool,
) -> None:
    sms4sats_simulator.behaviour = behaviour
    async with running_bot(connect, tmp_path / "bot") as telegram:
        telegram.say("/code germany tg")
        await until(lambda: any(text.startswith("No code") for text in telegram.messages))

    (text,) = [text for text in telegram.messages if text.startswith("No code")]
    assert text.startswith(end)
    assert bool(sms4sats_simulator.held_orders()) == is_held
    if is_held:
        (order,) = sms4sats_simulator.orders
        assert order.order_id in text


@pytest.mark.parametrize("code_comes", [False, True], ids=["no code", "late code"])
@pytest.mark.asyncio
async def test_customer_who_cancels_gets_the_refund_or_a_late_code(
    connect: Connect,
    sms4sats_simulator: Simulator,
    sms4sats_clock: ManualClock,
    tmp_path: Path,
    *,
    code_comes: bool,
) -> None:
    sms4sats_clock.autojump = False
    sms4sats_simulator.behaviour = Behaviour(pay_delay=0, number_delay=10_000, code_delay=None)
    async with running_bot(connect, tmp_path / "bot") as telegram:
        telegram.say("/code germany tg")
        await telegram.hear(*CREATED)
        telegram.say("/code germany tg")
        await telegram.hear("One order at a time")
        telegram.say("/cancel")
        await telegram.hear("I cancel the order as soon as")
        if code_comes:
            (order,) = sms4sats_simulator.orders
            sms4sats_simulator.assign_number(order.order_id)
            sms4sats_simulator.deliver_code(order.order_id, "0042")
        await sms4sats_clock.advance(125)
        await until(lambda: telegram.messages[-1] in {"Your code: 0042", REFUNDED})
        telegram.say("/cancel")
        await until(lambda: telegram.messages[-1] == "You have no order.")

    assert telegram.messages[-2] == ("Your code: 0042" if code_comes else REFUNDED)
    assert_no_held_orders(sms4sats_simulator)


@pytest.mark.asyncio
async def test_bot_explains_what_it_cannot_do(
    connect: Connect, sms4sats_simulator: Simulator, sms4sats_clock: ManualClock, tmp_path: Path
) -> None:
    sms4sats_clock.autojump = False
    sms4sats_simulator.behaviour = PAYS
    async with running_bot(connect, tmp_path / "bot") as telegram:
        telegram.say("/code germany")
        await telegram.hear(USAGE)
        telegram.say("/cancel")
        await telegram.hear("You have no order")
        telegram.say("/code atlantis tg")
        assert "atlantis" in await telegram.hear("")
        await order_and_receive(telegram, sms4sats_clock, "/code germany tg")


@pytest.mark.asyncio
async def test_bot_cancels_for_a_customer_who_has_blocked_it(
    connect: Connect,
    sms4sats_simulator: Simulator,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sms4sats_simulator.behaviour = NO_CODE
    async with running_bot(connect, tmp_path / "bot") as telegram:
        telegram.blocked = True
        telegram.say("/code germany tg")
        await until(lambda: caplog.text.count("a message cannot be sent") == 2)
        telegram.blocked = False
        telegram.say("/cancel")
        await telegram.hear("You have no order")

    assert_no_held_orders(sms4sats_simulator)


@pytest.mark.asyncio
async def test_next_start_of_the_bot_waits_for_the_rest_of_the_time(
    connect: Connect, sms4sats_simulator: Simulator, sms4sats_clock: ManualClock, tmp_path: Path
) -> None:
    sms4sats_clock.autojump = False
    sms4sats_simulator.behaviour = NO_CODE
    async with running_bot(connect, tmp_path / "bot") as telegram:
        telegram.say("/code germany tg")
        await telegram.hear(*CREATED)
        await sms4sats_clock.advance(60)
    (order,) = sms4sats_simulator.held_orders()

    async with running_bot(connect, tmp_path / "bot") as telegram:
        telegram.say("/code germany tg")
        await telegram.hear("One order at a time")
        await sms4sats_clock.advance(180)
        assert len(sms4sats_simulator.held_orders()) == 1
        sms4sats_simulator.deliver_code(order.order_id, "0042")
        await sms4sats_clock.advance(10)
        await until(lambda: telegram.messages[-1] == "Your code: 0042")


@pytest.mark.asyncio
async def test_order_of_another_service_root_does_not_block_a_chat(
    connect: Connect, sms4sats_clock: ManualClock, tmp_path: Path
) -> None:
    sms4sats_clock.autojump = False
    async with (
        SqliteJournal(tmp_path / "bot") as orders,
        connect(journal=orders, base_url="https://other.example.com") as client,
    ):
        await client.create_order(187, "tg", metadata={"chat": str(CHAT)})
    async with running_bot(connect, tmp_path / "bot") as telegram:
        telegram.say("/code germany tg")
        await telegram.hear(*CREATED)


@pytest.mark.parametrize("recovers", [True, False], ids=["telegram recovers", "bot restarts"])
@pytest.mark.asyncio
async def test_result_that_telegram_did_not_take_is_sent_again(
    connect: Connect,
    sms4sats_simulator: Simulator,
    sms4sats_clock: ManualClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    recovers: bool,
) -> None:
    monkeypatch.setattr(telegram_bot, "PAUSE", 0.01)
    sms4sats_clock.autojump = False
    sms4sats_simulator.behaviour = PAYS
    async with running_bot(connect, tmp_path / "bot") as telegram:
        telegram.say("/code germany tg")
        await telegram.hear(*CREATED)
        telegram.is_down = True
        await sms4sats_clock.advance(90)
        await until(lambda: telegram.refused >= 2)
        if recovers:
            telegram.is_down = False
            await until(lambda: "Your code: 012345" in telegram.messages)

    assert not sms4sats_simulator.held_orders()
    sms4sats_clock.autojump = True
    async with running_bot(connect, tmp_path / "bot") as telegram:
        if not recovers:
            await telegram.hear("Your code: 012345")
        telegram.say("/cancel")
        await telegram.hear("You have no order")


@pytest.mark.asyncio
async def test_order_of_another_program_in_the_same_journal_gets_no_message(
    connect: Connect, sms4sats_simulator: Simulator, sms4sats_clock: ManualClock, tmp_path: Path
) -> None:
    sms4sats_clock.autojump = False
    sms4sats_simulator.behaviour = PAYS
    async with SqliteJournal(tmp_path / "bot") as journal:
        await connect(journal=journal).create_order(43, "tg")

    async with running_bot(connect, tmp_path / "bot") as telegram:
        await order_and_receive(telegram, sms4sats_clock, "/code germany tg")
        await until(lambda: not sms4sats_simulator.held_orders())


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (OrderResult("id", OrderOutcome.CODE_RECEIVED, "0042"), "Your code: 0042"),
        (OrderResult("id", OrderOutcome.CANCELLED), REFUNDED),
        (OrderResult("id", OrderOutcome.REFUNDED), REFUNDED),
        (OrderResult("id", None), UNKNOWN),
        # A code counts, whatever else is known.
        (OrderResult("id", None, "0042"), "Your code: 0042"),
    ],
    ids=["code", "cancelled", "refunded", "unknown", "code and unknown"],
)
def test_bot_describes_every_result(result: OrderResult, text: str) -> None:
    assert telegram_bot.describe(result).startswith(text)


# --- the script -----------------------------------------------------------------------------------


def table(text: str) -> list[list[str]]:
    """The rows that the script has written, without their heading, sorted."""
    heading, *rows = csv.reader(text.splitlines())
    assert heading == ["country", "service", "code", "number", "end"]
    return sorted(rows)


def planned(simulator: Simulator, **plans: Behaviour) -> Listener:
    """Return a listener that gives each service's orders a behaviour of their own."""

    def tell(event: Event) -> None:
        if isinstance(event, OrderCreated) and isinstance(event.order, ReceiveOrder):
            simulator.set_behaviour(event.order.order_id, plans[str(event.order.service)])

    return tell


@pytest.mark.anyio
async def test_the_script_writes_each_code_or_refund(
    connect: Connect,
    sms4sats_simulator: Simulator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    released = Behaviour(pay_delay=0, number_available=False)
    tell = planned(sms4sats_simulator, tg=PAYS, wa=NO_CODE, go=released)

    def planned_connect(*, on_event: Listener, **settings: Any) -> Sms4SatsClient:
        def both(event: Event) -> None:
            tell(event)
            on_event(event)

        return connect(on_event=both, **settings)

    failed = await many_orders.run(
        [(43, "tg"), ("germany", "wa"), (6, "go"), (6, "no-such-service")],
        wait=300,
        journal_path=str(tmp_path / "orders"),
        connect=planned_connect,
    )

    shown = capsys.readouterr()
    rows = table(shown.out)
    assert [row[:3] + row[4:] for row in rows] == [
        ["43", "tg", "012345", "code received"],
        ["6", "go", "", "refunded"],
        ["6", "no-such-service", "", rows[2][4]],
        ["germany", "wa", "", "cancelled"],
    ]
    assert rows[0][3] == rows[0][3].strip() != ""
    assert "no such service" in rows[2][4]
    assert failed == 1
    assert shown.err.count("lnbcrt") == 3
    assert f"43/tg: number {rows[0][3]}\n" in shown.err
    assert shown.err.count(": number ") == 2
    assert_no_held_orders(sms4sats_simulator)


@pytest.mark.anyio
async def test_the_script_resumes_the_orders_of_an_interrupted_run(
    connect: Connect,
    sms4sats_simulator: Simulator,
    sms4sats_clock: ManualClock,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sms4sats_simulator.behaviour = NO_CODE

    async def run(*places: tuple[int, str]) -> None:
        path = str(tmp_path / "orders")
        failed = await many_orders.run(places, wait=300, journal_path=path, connect=connect)
        assert failed == 0

    sms4sats_clock.autojump = False
    async with anyio.create_task_group() as group:
        group.start_soon(run, (43, "tg"), (43, "wa"))
        await sms4sats_clock.advance(30)
        group.cancel_scope.cancel()
    assert len(sms4sats_simulator.held_orders()) == 2
    assert table(capsys.readouterr().out) == []

    sms4sats_clock.autojump = True
    await run()

    assert_no_held_orders(sms4sats_simulator)
    shown = capsys.readouterr()
    assert shown.err.count("43/tg: number +1555") == 1
    assert [row[:3] + row[4:] for row in table(shown.out)] == [
        ["43", "tg", "", "cancelled"],
        ["43", "wa", "", "cancelled"],
    ]


@pytest.mark.anyio
async def test_the_script_writes_an_order_whose_end_is_unknown(
    connect: Connect,
    sms4sats_simulator: Simulator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sms4sats_simulator.behaviour = Behaviour(
        pay_delay=0, code_delay=None, minimum_cancel_age=1e6, automatic_cancel_age=1e6
    )

    failed = await many_orders.run(
        [(43, "tg")], wait=300, journal_path=str(tmp_path / "orders"), connect=connect
    )

    (unknown,) = table(capsys.readouterr().out)
    assert failed == 1
    assert unknown[:3] == ["43", "tg", ""]
    assert "unable to save data" in unknown[4]


@pytest.mark.anyio
async def test_the_script_writes_a_code_that_arrives_during_the_cancel(
    connect: Connect,
    sms4sats_simulator: Simulator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sms4sats_simulator.behaviour = Behaviour(pay_delay=0, number_delay=0, code_delay=301)
    sms4sats_simulator.script("/cancelorder", Fault.slow(2))

    failed = await many_orders.run(
        [(43, "tg")], wait=300, journal_path=str(tmp_path / "orders"), connect=connect
    )

    ((*row, number, end),) = table(capsys.readouterr().out)
    assert (failed, row, end) == (0, ["43", "tg", "012345"], "code received")
    assert number.startswith("+1555")


def as_a_program(name: str, *arguments: str) -> None:
    """Run an example as Python runs it from the command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_the_script_is_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as misused:
        as_a_program("many_orders.py", "germany")
    with pytest.raises(SystemExit) as done:
        as_a_program("many_orders.py", "--journal", str(tmp_path / "orders"))

    assert (misused.value.code, done.value.code) == (2, 0)
    shown = capsys.readouterr()
    assert "'germany' is not COUNTRY/SERVICE" in shown.err
    assert table(shown.out) == []


def test_the_script_says_what_to_do_after_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(anyio, "run", interrupted)

    with pytest.raises(SystemExit) as ended:
        as_a_program("many_orders.py", "43/tg", "germany/wa")

    assert ended.value.code == 130
    assert "Run it again" in capsys.readouterr().err


def test_the_service_and_the_bot_are_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[object] = []
    monkeypatch.setattr(uvicorn, "run", ran.append)

    def run(*given: object) -> None:
        ran.extend(given)

    monkeypatch.setattr(anyio, "run", run)
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", TOKEN)

    as_a_program("service.py")
    as_a_program("telegram_bot.py")

    codes, _, bot, path = ran
    assert isinstance(codes, FastAPI)
    assert isinstance(bot, Bot)
    assert path == "bot.sqlite3"
