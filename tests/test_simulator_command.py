"""The programs `python -m sms4sats_async.simulator` and `sms4sats simulator`.

Both pass their arguments to the same function, so most tests run both.
"""

import json
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

from sms4sats_async.cli import main as sms4sats
from sms4sats_async.simulator import ScaledClock, Simulator
from sms4sats_async.simulator.__main__ import main as module

OPTIONS = [
    "--host",
    "--port",
    "--speed",
    "--pay-after",
    "--number-after",
    "--code-after",
    "--no-number",
    "--seed",
    "--json",
]

Program = Callable[[list[str]], int]


class Customer:
    """Waits for the address of the server, creates an order, and ends the program by a signal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.simulators: list[Simulator] = []
        self.answers: list[httpx.Response] = []
        self.signal = signal.SIGTERM
        run = Simulator.run

        def run_with_customer(
            simulator: Simulator, host: str, port: int, *, on_ready: Callable[[str], None]
        ) -> None:
            self.simulators.append(simulator)

            def ready(url: str) -> None:
                on_ready(url)
                threading.Thread(target=self.order, args=(url,)).start()

            run(simulator, host, port, on_ready=ready)

        monkeypatch.setattr(Simulator, "run", run_with_customer)

    def order(self, url: str) -> None:
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
def customer(monkeypatch: pytest.MonkeyPatch) -> Customer:
    return Customer(monkeypatch)


@pytest.fixture(params=["module", "sms4sats"])
def program(request: pytest.FixtureRequest) -> Program:
    if request.param == "module":
        return module
    return lambda arguments: sms4sats(["simulator", *arguments])


def test_output_has_the_variables_and_a_masked_line_for_each_request(
    customer: Customer, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program(["--port", "0", "--speed", "600"]) == 0
    (simulator,) = customer.simulators
    assert isinstance(simulator.clock, ScaledClock)
    order_id = customer.answers[0].json()["orderId"]
    masked = f"{order_id[:4]}…{order_id[-4:]}"
    address, hint, root, speed, *requests = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"The simulator listens on http://127\.0\.0\.1:\d+\. "
        r"Its time runs 600 times as fast as real time\.",
        address,
    )
    assert hint == "To use it, run these lines in another terminal:"
    assert root == f"export SMS4SATS_BASE_URL=http://{customer.answers[0].url.netloc.decode()}"
    assert speed == f"export SMS4SATS_SPEED=600@{simulator.clock.origin!r}".removesuffix(".0")
    assert [line[9:] for line in requests] == [
        f"<POST /createorder> -> 200 orderId={masked}",
        f"<GET /orderstatus orderId={masked}> -> 200",
    ]


def test_json_output_is_one_object_and_the_requests_are_on_standard_error(
    customer: Customer, program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program(["--json", "--port", "0", "--speed", "20"]) == 0
    out, err = capsys.readouterr()
    known = json.loads(out)
    assert known["base_url"] == f"http://{customer.answers[0].url.netloc.decode()}"
    assert known["speed"] == 20
    assert known["environment"] == customer.simulators[0].environment(known["base_url"])
    assert len(err.splitlines()) == 2


def test_signal_handler_and_log_are_restored(customer: Customer, program: Program) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert program(["--port", "0"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before
    log = logging.getLogger("sms4sats_async.simulator")
    assert (log.handlers, log.level) == ([], logging.NOTSET)
    assert customer.answers


def test_ctrl_c_ends_with_exit_code_130(customer: Customer, program: Program) -> None:
    customer.signal = signal.SIGINT
    assert program(["--port", "0"]) == 130


def test_options_set_the_behaviour(customer: Customer, program: Program) -> None:
    options = ["--pay-after=1", "--number-after=2", "--code-after", "3", "--no-number", "--seed=7"]
    assert program(["--port", "0", "--host", "localhost", *options]) == 0
    (simulator,) = customer.simulators
    behaviour = simulator.behaviour
    assert (behaviour.pay_delay, behaviour.number_delay, behaviour.code_delay) == (1, 2, 3)
    assert not behaviour.number_available
    again = Simulator(behaviour, seed=7).handle(
        "POST", "/createorder", body=b'{"country": 187, "service": "tg"}'
    )
    assert again.json["orderId"] == customer.answers[0].json()["orderId"]


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("--speed=0", "argument --speed: must be a positive number"),
        ("--speed=inf", "argument --speed: must be a positive number"),
        ("--speed=1e7", "argument --speed: must be a positive number, at most 1000000"),
        ("--port=-1", "argument --port: must be from 0 to 65535"),
        ("--port=99999", "argument --port: must be from 0 to 65535"),
        ("--port=http", "argument --port: invalid"),
        ("--speed=fast", "argument --speed: invalid"),
        ("--code-after=-1", "argument --code-after: must be zero or more seconds"),
        ("--pay-after=nan", "argument --pay-after: must be zero or more seconds"),
        ("--code", "unrecognized arguments: --code"),
    ],
)
def test_invalid_option_is_exit_code_2(
    program: Program, option: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program([option]) == 2
    out, err = capsys.readouterr()
    assert (out, err[:7]) == ("", "Error: ")
    assert problem in err


def test_unusable_address_is_exit_code_2(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program(["--host", "203.0.113.1", "--port", "0"]) == 2
    assert capsys.readouterr().err.startswith("Error: ")


def test_error_without_uvicorn_names_the_extra(
    program: Program, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "sms4sats_async.simulator.server", raising=False)
    assert program([]) == 2
    assert "pip install 'sms4sats-async[simulator]'" in capsys.readouterr().err


def test_error_in_json_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert sms4sats(["simulator", "--json", "--speed", "0"]) == 2
    known = json.loads(capsys.readouterr().out)
    assert known["error"] == (
        "The simulator cannot start: argument --speed: must be a positive number, "
        "at most 1000000. No simulator was started."
    )


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_every_option(
    program: Program, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program([option]) == 0
    text = capsys.readouterr().out
    assert set(OPTIONS) <= set(re.findall(r"--[a-z-]+", text))


def test_help_names_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    module(["--help"])
    sms4sats(["simulator", "--help"])
    text = capsys.readouterr().out
    assert "Usage: python -m sms4sats_async.simulator " in text
    assert "Usage: sms4sats simulator " in text


def test_module_runs_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["simulator", "--help"])
    monkeypatch.delitem(sys.modules, "sms4sats_async.simulator.__main__")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("sms4sats_async.simulator", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("Usage: ")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signal_ends_the_process_without_output(number: signal.Signals, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "sms4sats_async.simulator", "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    ) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["base_url"]
        assert httpx.get(url, trust_env=False).json() == {"status": "OK"}
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
    assert process.returncode == code
    assert (out, err[9:]) == ("", "<GET /> -> 200\n")
