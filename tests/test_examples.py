"""The programs in examples/, each run as it stands, against the simulator.

Only what a test must: a clock that jumps or is turned by hand, and a Bot API on loopback.
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

from examples import many_orders, service, telegram_bot
from sms4sats_async import Event, OrderCreated, ReceiveOrder, Sms4SatsClient
from sms4sats_async.simulator import Behaviour, Fault, ManualClock, Simulator
from sms4sats_async.testing import assert_no_held_orders, http_client

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
TOKEN = "42:example"

Connect = Callable[..., Sms4SatsClient]

PAYS = Behaviour(pay_delay=0)
NO_CODE = Behaviour(pay_delay=0, code_delay=None)


@pytest.fixture
def connect(sms4sats_simulator: Simulator, sms4sats_clock: ManualClock) -> Connect:
    """Make a client as a program does that has its own settings, but of the simulator."""

    def make(**settings: Any) -> Sms4SatsClient:
        wire = http_client(sms4sats_simulator)
        return Sms4SatsClient(http_client=wire, clock=sms4sats_clock, **settings)

    return make


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what a journal's thread or a socket has yet to bring about."""
    with anyio.fail_after(10):
        while not is_so():  # noqa: ASYNC110 - no event tells of it
            await anyio.sleep(0.01)


async def money_is_free(simulator: Simulator) -> None:
    """Wait until nobody's money is held."""
    await until(lambda: not simulator.held_orders())
    assert_no_held_orders(simulator)


# --- the web service ------------------------------------------------------------------------------


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncGenerator[httpx.AsyncClient]:
    """Start the service as a server does, stop it at the end, and speak to it meanwhile."""
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        transport = httpx.ASGITransport(with_state)
        async with httpx.AsyncClient(transport=transport, base_url="http://codes") as http:
            yield http


@pytest.fixture
def app(connect: Connect, tmp_path: Path, sms4sats_clock: ManualClock) -> Callable[[], FastAPI]:
    """The service, and its next start; its clock is turned by hand."""
    sms4sats_clock.autojump = False
    return lambda: service.make_app(connect, str(tmp_path / "codes.sqlite3"))


async def order_code(http: httpx.AsyncClient) -> dict[str, str]:
    """Order a code, and return the header that names the order."""
    answer = await http.post("/codes", json={"country": "germany", "service": "tg"})
    assert answer.status_code == 201
    assert answer.json()["invoice"].startswith("lnbcrt")
    return {"Authorization": f"Bearer {answer.json()['order_id']}"}


@pytest.mark.anyio
async def test_the_service_shows_the_number_and_then_the_code(
    app: Callable[[], FastAPI], sms4sats_simulator: Simulator, sms4sats_clock: ManualClock
) -> None:
    sms4sats_simulator.behaviour = PAYS
    async with serving(app()) as http:
        order = await order_code(http)
        await sms4sats_clock.advance(6)
        numbered = (await http.get("/codes", headers=order)).json()
        await sms4sats_clock.advance(60)
        done = (await http.get("/codes", headers=order)).json()

    assert numbered["number"].startswith("+1555")
    assert numbered["code"] is None
    assert done == {**numbered, "state": "code received", "code": "012345"}


@pytest.mark.anyio
async def test_the_service_cancels_after_five_minutes_without_a_code(
    app: Callable[[], FastAPI], sms4sats_simulator: Simulator, sms4sats_clock: ManualClock
) -> None:
    sms4sats_simulator.behaviour = NO_CODE
    async with serving(app()) as http:
        order = await order_code(http)
        await sms4sats_clock.advance(295)
        await anyio.sleep(0.05)  # so that a cancel that comes too early has the time to
        assert len(sms4sats_simulator.held_orders()) == 1
        await sms4sats_clock.advance(10)
        await money_is_free(sms4sats_simulator)
        assert (await http.get("/codes", headers=order)).json()["state"] == "refunded"


@pytest.mark.anyio
async def test_the_service_cancels_as_soon_as_allowed_for_a_customer_who_gives_up(
    app: Callable[[], FastAPI], sms4sats_simulator: Simulator, sms4sats_clock: ManualClock
) -> None:
    sms4sats_simulator.behaviour = NO_CODE
    async with serving(app()) as http:
        order = await order_code(http)
        assert (await http.delete("/codes", headers=order)).status_code == 202
        await sms4sats_clock.advance(125)
        await money_is_free(sms4sats_simulator)


@pytest.mark.anyio
async def test_the_service_cancels_what_is_open_when_it_is_stopped(
    app: Callable[[], FastAPI], sms4sats_simulator: Simulator, sms4sats_clock: ManualClock
) -> None:
    sms4sats_simulator.behaviour = NO_CODE
    async with serving(app()) as http:
        await order_code(http)
        await sms4sats_clock.advance(125)
        assert len(sms4sats_simulator.held_orders()) == 1

    assert_no_held_orders(sms4sats_simulator)


@pytest.mark.anyio
async def test_the_next_start_of_the_service_cancels_what_was_too_young_to_be(
    app: Callable[[], FastAPI],
    sms4sats_simulator: Simulator,
    sms4sats_clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "GRACE", 0.05)
    sms4sats_simulator.behaviour = NO_CODE
    async with serving(app()) as http:
        await order_code(http)
    assert len(sms4sats_simulator.held_orders()) == 1

    async with serving(app()):
        await sms4sats_clock.advance(305)
        await money_is_free(sms4sats_simulator)


@pytest.mark.anyio
async def test_the_service_answers_in_words_what_cannot_be_done(
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


# --- the Telegram bot -----------------------------------------------------------------------------


class FakeTelegram:
    """The Bot API on loopback, with one chat: what is said in it goes to the bot."""

    def __init__(self) -> None:
        self.blocked = False
        self._numbers = itertools.count(1)
        self._said: asyncio.Queue[str] = asyncio.Queue()
        self._answers: asyncio.Queue[str] = asyncio.Queue()
        self._over = asyncio.Event()

    def say(self, text: str) -> None:
        """Write to the bot."""
        self._said.put_nowait(text)

    async def hear(self, *expected: str) -> str:
        """Return the bot's next answers, the last of them, and see that they begin as expected."""
        answer = ""
        for beginning in expected:
            async with asyncio.timeout(10):
                answer = await self._answers.get()
            assert answer.startswith(beginning)
        return answer

    @asynccontextmanager
    async def serve(self) -> AsyncGenerator[TelegramAPIServer]:
        """Serve, and yield where."""
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
            case "sendMessage" if self.blocked:
                refusal = {"ok": False, "error_code": 403, "description": "Forbidden: blocked"}
                return web.json_response(refusal, status=403)
            case "sendMessage":
                self._answers.put_nowait(str(fields["text"]))
                result = self._message(str(fields["text"]))
            case method:
                pytest.fail(f"the bot asks for {method}")
        return web.json_response({"ok": True, "result": result})

    async def _updates(self) -> list[object]:
        """Answer as soon as something is said, or it is over."""
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
            "chat": {"id": 7, "type": "private"},
            "from": {"id": 7, "is_bot": False, "first_name": "c"},
            "text": text,
        }


@asynccontextmanager
async def running_bot(connect: Connect, journal: Path) -> AsyncGenerator[FakeTelegram]:
    """Run the bot until the end of the block, where it is told to stop as a server tells it."""
    telegram = FakeTelegram()
    async with telegram.serve() as server, asyncio.TaskGroup() as group:
        bot = Bot(TOKEN, session=AiohttpSession(api=server))
        group.create_task(telegram_bot.run(bot, str(journal), connect))
        telegram.say("/back")  # so that it is known to run
        await telegram.hear("You have no order")
        yield telegram
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.asyncio
async def test_the_bot_tells_the_number_and_the_code(
    connect: Connect, sms4sats_simulator: Simulator, tmp_path: Path
) -> None:
    sms4sats_simulator.behaviour = PAYS
    async with running_bot(connect, tmp_path / "bot") as telegram:
        telegram.say("/code 43 tg")
        await telegram.hear("Order ", "lnbcrt", "Your number: +1555", "Your code: 012345")
        telegram.say("/code germany tg")
        await telegram.hear("Order ", "lnbcrt", "Your number: +1555", "Your code: 012345")


@pytest.mark.asyncio
async def test_the_bot_asks_for_the_money_back_when_no_code_comes(
    connect: Connect, sms4sats_simulator: Simulator, tmp_path: Path
) -> None:
    sms4sats_simulator.behaviour = NO_CODE
    async with running_bot(connect, tmp_path / "bot") as telegram:
        telegram.say("/code germany tg")
        await telegram.hear("Order ", "lnbcrt", "Your number", "I ask for", "No code. The money")
        assert_no_held_orders(sms4sats_simulator)


@pytest.mark.asyncio
async def test_a_customer_of_the_bot_may_ask_for_the_money_himself_and_get_the_code_after_all(
    connect: Connect, sms4sats_simulator: Simulator, sms4sats_clock: ManualClock, tmp_path: Path
) -> None:
    sms4sats_clock.autojump = False
    sms4sats_simulator.behaviour = NO_CODE
    async with running_bot(connect, tmp_path / "bot") as telegram:
        telegram.say("/code germany tg")
        await telegram.hear("Order ", "lnbcrt")
        telegram.say("/code germany tg")
        await telegram.hear("One order at a time")
        telegram.say("/back")
        await telegram.hear("I ask for")
        (order,) = sms4sats_simulator.orders
        sms4sats_simulator.deliver_code(order.order_id, "0042")
        await sms4sats_clock.advance(125)
        await telegram.hear("Your code came after all: 0042")


@pytest.mark.asyncio
async def test_the_bot_says_what_it_cannot_do(
    connect: Connect, sms4sats_simulator: Simulator, tmp_path: Path
) -> None:
    sms4sats_simulator.behaviour = Behaviour(pay_delay=0, number_available=False)
    async with running_bot(connect, tmp_path / "bot") as telegram:
        telegram.say("/code germany")
        await telegram.hear("Which country")
        telegram.say("/resume")
        await telegram.hear("Which order")
        telegram.say("/resume ???")
        await telegram.hear("Which order")
        telegram.say("/code atlantis tg")
        assert "atlantis" in await telegram.hear("")
        telegram.say("/code germany tg")
        await telegram.hear("Order ", "lnbcrt", "No code. The money")


@pytest.mark.asyncio
async def test_the_bot_cancels_for_a_customer_who_has_blocked_it(
    connect: Connect,
    sms4sats_simulator: Simulator,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sms4sats_simulator.behaviour = NO_CODE
    async with running_bot(connect, tmp_path / "bot") as telegram:
        telegram.blocked = True
        telegram.say("/code germany tg")
        await until(lambda: "a customer cannot be told" in caplog.text)
        telegram.blocked = False
        telegram.say("/back")
        await telegram.hear("You have no order")

    assert_no_held_orders(sms4sats_simulator)


@pytest.mark.asyncio
async def test_the_next_start_of_the_bot_gives_back_what_the_last_one_left(
    connect: Connect, sms4sats_simulator: Simulator, sms4sats_clock: ManualClock, tmp_path: Path
) -> None:
    sms4sats_clock.autojump = False
    sms4sats_simulator.behaviour = NO_CODE
    async with running_bot(connect, tmp_path / "bot") as telegram:
        telegram.say("/code germany tg")
        await telegram.hear("Order ", "lnbcrt")
    (order,) = sms4sats_simulator.held_orders()

    async with running_bot(connect, tmp_path / "bot") as telegram:
        await sms4sats_clock.advance(125)
        await money_is_free(sms4sats_simulator)
        telegram.say(f"/resume {order.order_id}")
        await telegram.hear("Order ", order.payreq, "No code. The money")


# --- the script -----------------------------------------------------------------------------------


def table(text: str) -> list[list[str]]:
    """The rows that the script has written, without their heading, sorted."""
    heading, *rows = csv.reader(text.splitlines())
    assert heading == ["country", "service", "code", "number", "money"]
    return sorted(rows)


def planned(simulator: Simulator, **plans: Behaviour) -> Callable[[Event], None]:
    """Return a listener that gives each service's orders a behaviour of their own."""

    def tell(event: Event) -> None:
        if isinstance(event, OrderCreated) and isinstance(event.order, ReceiveOrder):
            simulator.set_behaviour(event.order.order_id, plans[str(event.order.service)])

    return tell


@pytest.mark.anyio
async def test_the_script_gets_each_code_or_the_money_back(
    connect: Connect,
    sms4sats_simulator: Simulator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    released = Behaviour(pay_delay=0, number_available=False)
    tell = planned(sms4sats_simulator, tg=PAYS, wa=NO_CODE, go=released)

    failed = await many_orders.run(
        [(43, "tg"), ("germany", "wa"), (6, "go"), (6, "no-such-service")],
        wait=300,
        journal_path=str(tmp_path / "orders"),
        connect=partial(connect, on_event=tell),
    )

    shown = capsys.readouterr()
    rows = table(shown.out)
    assert [row[:3] + row[4:] for row in rows] == [
        ["43", "tg", "012345", "spent"],
        ["6", "go", "", "returned"],
        ["6", "no-such-service", "", rows[2][4]],
        ["germany", "wa", "", "returned"],
    ]
    assert rows[0][3] == rows[0][3].strip() != ""
    assert "no such service" in rows[2][4]
    assert failed == 1
    assert shown.err.count("lnbcrt") == 3
    assert_no_held_orders(sms4sats_simulator)


@pytest.mark.anyio
async def test_the_script_asks_back_what_a_broken_off_run_has_left(
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
    assert [row[:3] + row[4:] for row in table(capsys.readouterr().out)] == [
        ["43", "tg", "", "returned"],
        ["43", "wa", "", "returned"],
    ]


@pytest.mark.anyio
async def test_the_script_keeps_what_could_not_be_cancelled_for_the_next_run(
    connect: Connect,
    sms4sats_simulator: Simulator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sms4sats_simulator.behaviour = NO_CODE
    sms4sats_simulator.script("/cancelorder", *[Fault.unable_to_save_data()] * 4)
    path = str(tmp_path / "orders")

    failed = await many_orders.run([(43, "tg")], wait=300, journal_path=path, connect=connect)
    (refused,) = table(capsys.readouterr().out)
    assert failed == 1
    assert "unable to save data" in refused[4]
    assert len(sms4sats_simulator.held_orders()) == 1

    assert await many_orders.run([], wait=300, journal_path=path, connect=connect) == 0
    (returned,) = table(capsys.readouterr().out)
    assert returned[:3] + returned[4:] == ["43", "tg", "", "returned"]


@pytest.mark.anyio
async def test_the_script_writes_a_code_that_came_while_it_asked_for_the_money(
    connect: Connect,
    sms4sats_simulator: Simulator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sms4sats_simulator.behaviour = Behaviour(pay_delay=0, code_delay=100)
    sms4sats_simulator.script("/orderstatus", Fault.http(404))

    failed = await many_orders.run(
        [(43, "tg")], wait=300, journal_path=str(tmp_path / "orders"), connect=connect
    )

    shown = capsys.readouterr()
    ((*row, number, money),) = table(shown.out)
    assert (failed, row, money) == (0, ["43", "tg", "012345"], "spent")
    assert number.startswith("+1555")
    assert "404" in shown.err


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
        as_a_program("many_orders.py", "187/tg", "germany/wa")

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
