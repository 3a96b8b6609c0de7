"""`python -m sms4sats_async.simulator`: the simulated service as a command."""

import logging
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import httpx
import pytest

from sms4sats_async.simulator import Simulator
from sms4sats_async.simulator.__main__ import main

COMMAND = [sys.executable, "-m", "sms4sats_async.simulator"]


class Visitor:
    """A customer who waits for the server's address, uses it, and then ends the command."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.simulator: Simulator | None = None
        self.answers: list[httpx.Response] = []
        self.signal = signal.SIGTERM
        run = Simulator.run

        def spied(
            simulator: Simulator, host: str, port: int, *, on_ready: Callable[[str], None]
        ) -> None:
            self.simulator = simulator

            def ready(url: str) -> None:
                on_ready(url)
                threading.Thread(target=self.visit, args=(url,)).start()

            run(simulator, host, port, on_ready=ready)

        monkeypatch.setattr(Simulator, "run", spied)

    def visit(self, url: str) -> None:
        with httpx.Client(base_url=url, trust_env=False) as client:
            body = {"country": 187, "service": "tg"}
            created = client.post("/createorder", json=body)
            order_id = created.json()["orderId"]
            status = client.get("/orderstatus", params={"orderId": order_id})
            self.answers += [created, status]
        main_thread = threading.main_thread().ident
        assert main_thread is not None
        signal.pthread_kill(main_thread, self.signal)


@pytest.fixture
def visitor(monkeypatch: pytest.MonkeyPatch) -> Visitor:
    return Visitor(monkeypatch)


def test_a_visit(visitor: Visitor, capsys: pytest.CaptureFixture[str]) -> None:
    """It says where it is and how to get there, logs each request masked, and SIGTERM ends it."""
    before = signal.getsignal(signal.SIGTERM)
    assert main(["--port", "0", "--speed", "600"]) == 0
    order_id = visitor.answers[0].json()["orderId"]
    masked = f"{order_id[:4]}…{order_id[-4:]}"
    greeting, pointer, *lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"The simulated service is at http://127\.0\.0\.1:\d+ and lives 600 times faster\.",
        greeting,
    )
    assert pointer.startswith("Point a client at it: SMS4SATS_BASE_URL=http://127.0.0.1:")
    assert [line[9:] for line in lines] == [
        f"<POST /createorder> -> 200 orderId={masked}",
        f"<GET /orderstatus orderId={masked}> -> 200",
    ]
    assert signal.getsignal(signal.SIGTERM) is before
    log = logging.getLogger("sms4sats_async.simulator")
    assert (log.handlers, log.level) == ([], logging.NOTSET)


def test_interrupt(visitor: Visitor) -> None:
    """Ctrl-C ends it with 130, as shells expect."""
    visitor.signal = signal.SIGINT
    assert main(["--port", "0"]) == 130


def test_options(visitor: Visitor) -> None:
    """The options say how orders are treated, in simulated seconds."""
    options = ["--pay-after=1", "--number-after=2", "--code-after=3", "--no-number", "--seed=7"]
    assert main(["--port", "0", "--host", "localhost", *options]) == 0
    assert visitor.simulator is not None
    behaviour = visitor.simulator.behaviour
    assert (behaviour.pay_delay, behaviour.number_delay, behaviour.code_delay) == (1, 2, 3)
    assert not behaviour.number_available
    again = Simulator(behaviour, seed=7).handle(
        "POST", "/createorder", body=b'{"country": 187, "service": "tg"}'
    )
    assert again.json["orderId"] == visitor.answers[0].json()["orderId"]


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("--speed=0", "must be a positive number"),
        ("--speed=inf", "must be a positive number"),
        ("--speed=fast", "invalid"),
        ("--code-after=-1", "must be zero or more seconds"),
        ("--pay-after=nan", "must be zero or more seconds"),
    ],
)
def test_bad_options(option: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An option that makes no sense is refused before anything starts."""
    with pytest.raises(SystemExit) as refused:
        main([option])
    assert refused.value.code == 2
    assert complaint in capsys.readouterr().err


def test_an_address_that_cannot_be_had(capsys: pytest.CaptureFixture[str]) -> None:
    """An address that cannot be had is one line on standard error, and exit code 1."""
    assert main(["--host", "203.0.113.1", "--port", "0"]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_without_uvicorn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without uvicorn, the command says how to install it."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "sms4sats_async.simulator.server", raising=False)
    assert main([]) == 1
    assert "pip install 'sms4sats-async[simulator]'" in capsys.readouterr().err


def test_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` tells of all options; the module runs as a command."""
    monkeypatch.setattr(sys, "argv", ["simulator", "--help"])
    monkeypatch.delitem(sys.modules, "sms4sats_async.simulator.__main__")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("sms4sats_async.simulator", run_name="__main__")
    assert ended.value.code == 0
    assert "--code-after" in capsys.readouterr().out


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_as_a_process(sign: signal.Signals, code: int) -> None:
    """As a process of its own it answers, and a signal ends it with the usual code, in silence."""
    with subprocess.Popen(  # noqa: S603 - this very Python, with words of this file
        [*COMMAND, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        url = process.stdout.readline().rpartition("=")[2].strip()
        assert httpx.get(url, trust_env=False).json() == {"status": "OK"}
        process.send_signal(sign)
        _, complaints = process.communicate(timeout=10)
    assert (process.returncode, complaints) == (code, "")
