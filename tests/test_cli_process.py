"""The command `sms4sats` as a process of its own: what its shell sees of it.

A process gets a clock that is fast from the program that starts it here. The command itself has
nothing by which anybody could.
"""

import re
import runpy
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import anyio.from_thread
import pytest

from sms4sats_async.simulator import Behaviour, ManualClock, ScaledClock, Simulator

MODULE: Final = (sys.executable, "-m", "sms4sats_async")
SCRIPT: Final = (str(Path(sysconfig.get_path("scripts"), "sms4sats")),)
SPEED: Final = 2000.0

# What is installed, but for the clock.
FAST: Final = (
    sys.executable,
    "-c",
    f"""
import sys
from sms4sats_async.cli import main, session
from sms4sats_async.simulator import ScaledClock
session.CLOCK = ScaledClock({SPEED})
sys.exit(main())
""",
)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Simulator]:
    simulator = Simulator(Behaviour(pay_delay=0), clock=ScaledClock(SPEED))
    monkeypatch.setenv("SMS4SATS_JOURNAL", str(tmp_path / "orders.sqlite"))
    # What a library would complain of is seen, and what a user never sees is an error.
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(simulator.serve()) as root,
    ):
        monkeypatch.setenv("SMS4SATS_BASE_URL", root)
        yield simulator


@contextmanager
def started(*words: str) -> Generator[subprocess.Popen[str]]:
    """A process that is ended whatever happens to the test."""
    with subprocess.Popen(  # noqa: S603 - our own program
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(*words: str) -> tuple[int, str, str]:
    """The exit code, and what a process printed."""
    with started(*words) as process:
        out, err = process.communicate(timeout=30)
        return process.returncode, out, err


def read_until(process: subprocess.Popen[str], said: str) -> str:
    """What a process printed on standard error, up to that."""
    assert process.stderr is not None
    read = ""
    for line in process.stderr:
        read += line
        if said in line:
            return read
    raise AssertionError(f"it ended, and said: {read}")


@pytest.mark.usefixtures("service")
def test_the_module_and_the_script_are_the_same_program() -> None:
    for words in (["--help"], ["cancel", "--help"], ["nonsense"], ["price", "--json"]):
        assert run(*MODULE, *words) == run(*SCRIPT, *words)


def test_the_module_runs_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sms4sats", "demo", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("sms4sats_async", run_name="__main__")

    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("Usage: sms4sats demo ")


def test_a_shell_can_keep_the_code(service: Simulator) -> None:
    code, out, err = run(*FAST, "code", "187", "tg")

    (order,) = service.orders
    assert (code, out) == (0, "012345\n")
    assert order.payreq in err
    assert "\x1b" not in err


def test_a_shell_sees_no_code_after_a_refund(service: Simulator) -> None:
    service.behaviour = Behaviour(pay_delay=0, code_delay=None)

    code, out, err = run(*FAST, "code", "187", "tg")

    assert (code, out) == (0, "")
    assert err.endswith("The order is cancelled. The service refunds what was paid.\n")
    assert service.held_orders() == []


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_cancel_says_what_happens_to_the_money(
    service: Simulator, sign: signal.Signals
) -> None:
    service.clock = ManualClock()
    run(*MODULE, "order", "187", "tg")
    order_id = service.orders[0].order_id

    with started(*MODULE, "cancel", order_id) as process:
        read_until(process, "the service does not cancel younger orders")
        process.send_signal(sign)
        out, err = process.communicate(timeout=30)

    assert (process.returncode, out) == (130, "")
    assert "Interrupted. The order is open. What was paid for it is held." in err
    assert re.search(r"refunds the order automatically at 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", err)
    assert "Traceback" not in err
    assert service.count("/cancelorder") == 0


@pytest.mark.parametrize(
    ("program", "second"),
    [
        pytest.param(MODULE, signal.SIGINT, id="twice: somebody is in a hurry"),
        # A script starts its background jobs so, and `trap` does it to all that follows.
        pytest.param(
            ("sh", "-c", """trap '' INT; exec "$@" """, "sh", *MODULE),
            signal.SIGTERM,
            id="SIGTERM where Ctrl-C is ignored",
        ),
    ],
)
def test_a_second_signal_ends_it_with_the_same_message(
    service: Simulator, program: tuple[str, ...], second: signal.Signals
) -> None:
    service.clock = ManualClock()

    with started(*program, "code", "187", "tg") as process:
        read_until(process, "the code has not arrived yet")
        process.send_signal(signal.SIGINT)
        process.send_signal(second)
        out, err = process.communicate(timeout=30)

    assert (process.returncode, out) == (130, "")
    assert "Interrupted. The order is open. What was paid for it is held." in err
    assert "Traceback" not in err


@pytest.mark.usefixtures("service")
def test_readers_of_both_streams_that_are_gone_are_an_interruption() -> None:
    with started(*MODULE, "order", "187", "tg") as process:
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        process.wait(timeout=30)

    assert process.returncode == 130


def test_a_code_is_printed_although_the_reader_of_the_progress_is_gone(service: Simulator) -> None:
    with started(*FAST, "code", "187", "tg") as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.stdout is not None
        out = process.stdout.read()
        process.wait(timeout=30)

    assert service.orders
    assert (process.returncode, out) == (0, "012345\n")


def test_a_named_journal_needs_no_home_directory(
    service: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setenv("SMS4SATS_JOURNAL", str(tmp_path / "o.sqlite"))

    code, _, err = run(*MODULE, "pending")

    assert service.requests == []
    assert (code, err) == (0, "No order is pending.\n")


@pytest.mark.usefixtures("service")
def test_an_unknown_home_directory_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMS4SATS_JOURNAL", "~no-such-user/j")

    pending, price = run(*MODULE, "pending"), run(*MODULE, "price")

    assert pending[0] == 2
    assert "Name a file in SMS4SATS_JOURNAL. Nothing was sent." in pending[2]
    assert price[0] == 0


@pytest.mark.usefixtures("service")
def test_a_reader_that_is_gone_is_an_interruption() -> None:
    with started(*MODULE, "order", "187", "tg") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(timeout=30)

    assert process.returncode == 130
    assert "Interrupted. The order is open." in err
    assert "Traceback" not in err
    assert "Exception ignored" not in err


@pytest.mark.usefixtures("service")
def test_the_disk_is_full() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(  # noqa: S603 - our own program
            [*MODULE, "order", "187", "tg"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            text=True,
            encoding="utf-8",
        )

    assert done.returncode == 4
    assert "Error: Not all of the output was written: No space left on device." in done.stderr
    assert "Exception ignored" not in done.stderr


def test_help_loads_nothing_that_only_the_work_needs() -> None:
    """It is asked for often, and rich alone takes as long as all the rest."""
    code = (
        "import sys; from sms4sats_async.cli import main; main(['--help']);"
        "print(*{name.partition('.')[0] for name in sys.modules}, *sys.modules)"
    )
    _, out, _ = run(sys.executable, "-c", code)
    loaded = set(out.splitlines()[-1].split())

    assert {"sms4sats_async.cli.app", "typer"} <= loaded
    assert loaded.isdisjoint(
        {"rich", "httpx", "segno", "uvicorn", "asyncio", "trio", "pydantic"}
        | {"sms4sats_async.simulator", "sms4sats_async.cli.demo", "sms4sats_async.cli.qr"}
    )


def test_the_shell_completes_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_SMS4SATS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "sms4sats re")
    monkeypatch.setenv("COMP_CWORD", "1")

    _, out, _ = run(*SCRIPT)

    assert out.split() == ["resume"]


def test_the_shell_gets_its_completion_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_SMS4SATS_COMPLETE", "source_bash")

    code, out, _ = run(*SCRIPT)

    assert code == 0
    assert "complete -o default -F" in out
