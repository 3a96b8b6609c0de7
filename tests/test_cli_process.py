"""The command `sms4sats` as a process: exit codes, signals and closed pipes, as in a shell."""

import re
import runpy
import signal
import sqlite3
import subprocess
import sys
import sysconfig
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import anyio.from_thread
import pytest

from sms4sats_async.simulator import Behaviour, Holder, ManualClock, ScaledClock, Simulator

MODULE: Final = (sys.executable, "-m", "sms4sats_async")
SCRIPT: Final = (str(Path(sysconfig.get_path("scripts"), "sms4sats")),)
SPEED: Final = 2000.0

CODE: Final = Behaviour(pay_delay=0)
NO_CODE: Final = Behaviour(pay_delay=0, code_delay=None)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Simulator]:
    """A simulator whose time runs fast, also for the command."""
    clock = ScaledClock(SPEED)
    simulator = Simulator(CODE, clock=clock)
    monkeypatch.setenv("SMS4SATS_JOURNAL", str(tmp_path / "orders.sqlite"))
    monkeypatch.setenv("SMS4SATS_SPEED", clock.setting)
    # A warning of any library would be on standard error.
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(simulator.serve()) as root,
    ):
        monkeypatch.setenv("SMS4SATS_BASE_URL", root)
        yield simulator


@pytest.fixture
def slow_service(service: Simulator, monkeypatch: pytest.MonkeyPatch) -> Simulator:
    """A simulator with a stopped clock, and a command in real time: no wait ends."""
    service.clock = ManualClock()
    monkeypatch.delenv("SMS4SATS_SPEED")
    return service


@contextmanager
def started(*words: str) -> Generator[subprocess.Popen[str]]:
    """A process that is ended whatever happens in the test."""
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


def in_shell(script: str) -> tuple[int, str, str]:
    """Run a shell script in which `$SMS4SATS` is the command."""
    return run("bash", "-c", script.replace("$SMS4SATS", " ".join(MODULE)))


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What a process printed on standard error, up to that text."""
    assert process.stderr is not None
    read = ""
    for line in process.stderr:
        read += line
        if text in line:
            return read
    raise AssertionError(f"it ended, and printed: {read}")


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


@pytest.mark.parametrize(("behaviour", "out"), [(CODE, "012345\n"), (NO_CODE, "")])
def test_a_shell_gets_the_code_or_nothing(
    service: Simulator, behaviour: Behaviour, out: str
) -> None:
    service.behaviour = behaviour

    code, printed, err = run(*MODULE, "code", "187", "tg")

    (order,) = service.orders
    assert (code, printed) == (0, out)
    assert order.payreq in err
    assert "\x1b" not in err
    assert order.holder is (Holder.SETTLED if out else Holder.REFUNDED)


# --- killed ---------------------------------------------------------------------------------------


def test_resume_waits_for_the_rest_of_the_time_of_a_killed_command(
    service: Simulator, tmp_path: Path
) -> None:
    service.behaviour = Behaviour(pay_delay=0, number_delay=0, code_delay=480)
    # Slow enough to kill the process in the first minutes of the wait.
    service.clock = clock = ScaledClock(200.0)
    speed = {"SMS4SATS_SPEED": clock.setting}
    env = [f"{name}={value}" for name, value in speed.items()]

    with started("env", *env, *MODULE, "code", "187", "tg", "--timeout", "10m") as process:
        read_until(process, "the code has not arrived yet")
        process.kill()
    with sqlite3.connect(tmp_path / "orders.sqlite") as file:
        assert file.execute("SELECT finished_at FROM orders").fetchone() == (None,)
    code, out, err = run("env", *env, *MODULE, "resume")

    assert (code, service.count("/cancelorder")) == (0, 0)
    assert out.endswith("  The code arrived, and the money is settled. Code: 012345\n")
    assert re.search(r"waiting \d:\d\d: the code has not arrived yet", err)


# --- signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_says_where_the_money_is(slow_service: Simulator, sign: signal.Signals) -> None:
    run(*MODULE, "order", "187", "tg")
    order_id = slow_service.orders[0].order_id

    with started(*MODULE, "cancel", order_id) as process:
        read_until(process, "the order cannot be cancelled earlier")
        process.send_signal(sign)
        out, err = process.communicate(timeout=30)

    assert (process.returncode, out) == (130, "")
    assert "Interrupted. The order is open, and what was paid for it is held." in err
    assert re.search(r"refunds the order automatically at 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", err)
    assert "Traceback" not in err
    assert slow_service.count("/cancelorder") == 0


@pytest.mark.usefixtures("slow_service")
@pytest.mark.parametrize(
    ("program", "second"),
    [
        pytest.param(MODULE, signal.SIGINT, id="twice"),
        # A script starts its background jobs so, and `trap` does it to all that follows.
        pytest.param(
            ("sh", "-c", """trap '' INT; exec "$@" """, "sh", *MODULE),
            signal.SIGTERM,
            id="SIGTERM-where-Ctrl-C-is-ignored",
        ),
    ],
)
def test_a_second_signal_ends_the_command_with_its_message(
    program: tuple[str, ...], second: signal.Signals
) -> None:
    with started(*program, "code", "187", "tg") as process:
        read_until(process, "the code has not arrived yet")
        process.send_signal(signal.SIGINT)
        process.send_signal(second)
        out, err = process.communicate(timeout=30)

    assert (process.returncode, out) == (130, "")
    assert "Interrupted. The order is open, and what was paid for it is held." in err
    assert "Traceback" not in err


# --- readers that are gone, and full disks --------------------------------------------------------

GONE: Final = "The reader of the output is gone. "


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("script", "code", "out", "err"),
    [
        pytest.param("$SMS4SATS order 187 tg 2>&1 | true", 130, "", "", id="both"),
        pytest.param(
            "$SMS4SATS order 187 tg | true", 130, "", f"{GONE}The order is open", id="order"
        ),
        pytest.param("$SMS4SATS price | true", 130, "", f"{GONE}Nothing was changed.", id="price"),
        pytest.param("$SMS4SATS --help | true", 130, "", f"{GONE}Nothing was changed.", id="help"),
        pytest.param("$SMS4SATS code 187 tg 2> >(head -2 >/dev/null)", 0, "012345\n", "", id="err"),
        pytest.param(
            "$SMS4SATS code 187 tg | true",
            130,
            "",
            f"{GONE}The code arrived, and the money is settled. Code: 012345",
            id="code",
        ),
        pytest.param(
            "$SMS4SATS code 187 tg >/dev/full",
            4,
            "",
            "Error: Not all of the output was written: No space left on device. The code arrived, "
            "and the money is settled. Code: 012345",
            id="full-disk",
        ),
        pytest.param(
            "$SMS4SATS price >/dev/full",
            4,
            "",
            "No space left on device. Nothing was changed.",
            id="full-disk-of-a-price",
        ),
    ],
)
def test_a_broken_output_has_its_exit_code_and_message(
    script: str, code: int, out: str, err: str
) -> None:
    if "/dev/full" in script and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")

    ended, printed, message = in_shell(f"{script}; exit ${{PIPESTATUS[0]}}")

    assert (ended, printed) == (code, out)
    assert err in message
    assert "Traceback" not in message
    assert "Exception ignored" not in message


# --- homes ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("variables", "command", "code", "text"),
    [
        ("-u HOME", "pending", 0, "No order is pending in "),
        ("-u HOME", "price", 0, "receive"),
        ("SMS4SATS_JOURNAL=~no-such-user/j", "pending", 2, "Name a file in SMS4SATS_JOURNAL."),
        ("SMS4SATS_JOURNAL=~no-such-user/j", "price", 0, "receive"),
    ],
)
def test_a_home_directory_is_needed_only_for_the_default_journal(
    variables: str, command: str, code: int, text: str
) -> None:
    ended, out, err = run("env", *variables.split(), *MODULE, command)

    assert ended == code
    assert text in out + err


# --- what a shell needs ---------------------------------------------------------------------------


def test_help_loads_nothing_that_only_the_work_needs() -> None:
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
