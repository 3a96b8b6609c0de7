"""Run the simulator on a port of this machine: `python -m sms4sats_async.simulator`.

The command `sms4sats simulator` passes its arguments to `run`, so every option is declared here and
only here.
"""

import argparse
import json
import logging
import math
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, TextIO

import attrs

from .behaviour import Behaviour
from .clock import ScaledClock
from .service import Simulator

__all__ = ["main", "run"]

_FASTEST = 1_000_000
_LAST_PORT = 65535
_FAILED = 2
_INTERRUPTED = 130  # 128 + SIGINT, as in shells


class _Terminated(BaseException):
    """SIGTERM arrived. Not an error, like KeyboardInterrupt."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program until Ctrl-C or SIGTERM.

    Args:
        argv: the arguments; by default those of the process.

    Returns:
        The exit code: 0 after SIGTERM, 130 after Ctrl-C, 2 if the simulator cannot start.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        return run(arguments, prog="python -m sms4sats_async.simulator")
    except (ImportError, OSError, ValueError) as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201 - this is a program
        return _FAILED


def run(arguments: Sequence[str], *, prog: str) -> int:
    """Serve as the arguments say, until Ctrl-C or SIGTERM. Print the address and each request.

    Args:
        arguments: the arguments of the program, without its name.
        prog: the name of the program, for its help.

    Returns:
        The exit code: 0 after SIGTERM or `--help`, 130 after Ctrl-C.

    Raises:
        ImportError: if uvicorn is not installed.
        OSError: if the address cannot be used.
        ValueError: if an argument is invalid.
    """
    try:
        options = _parser(prog).parse_args(arguments)
    except SystemExit:  # after --help
        return 0
    settings = attrs.fields_dict(Behaviour)
    behaviour = Behaviour(
        **{name: value for name, value in vars(options).items() if name in settings}
    )
    simulator = Simulator(behaviour, clock=ScaledClock(options.speed), seed=options.seed)

    def announce(url: str) -> None:
        environment = simulator.environment(url)
        if options.json:
            known = {"base_url": url, "speed": options.speed, "environment": environment}
            lines = [json.dumps(known)]
        else:
            factor = f"{options.speed:g} times as fast as real time"
            lines = [
                f"The simulator listens on {url}. Its time runs {factor}.",
                "To use it, run these lines in another terminal:",
                *(f"export {name}={value}" for name, value in environment.items()),
            ]
        for line in lines:
            # Flushed, because a program that reads a pipe waits for the address.
            print(line, flush=True)  # noqa: T201 - this is a program

    try:
        with _log_to(sys.stderr if options.json else sys.stdout), _sigterm_as_exception():
            simulator.run(options.host, options.port, on_ready=announce)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except _Terminated:
        pass
    return 0


@contextmanager
def _log_to(stream: TextIO) -> Generator[None]:
    log = logging.getLogger("sms4sats_async.simulator")
    handler = logging.StreamHandler(stream)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


@contextmanager
def _sigterm_as_exception() -> Generator[None]:
    def terminate(_signal: int, _frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise the error, so that each program reports it in its own format."""
        raise ValueError(message)

    def format_help(self) -> str:
        """Return the help with the headings of the command `sms4sats`."""
        text = super().format_help()
        return text.replace("usage:", "Usage:", 1).replace("options:", "Options:", 1)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=prog,
        usage="%(prog)s [OPTIONS]",
        description="Run a simulator of the sms4sats service, without money and telephones.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    default = "(default: %(default)s)"
    add("--host", default="127.0.0.1", help=f"address to listen on {default}")
    add("--port", type=_port, default=8021, help=f"port to listen on; 0: any free port {default}")
    add("--speed", type=_speed, default=60.0, help=f"simulated seconds per real second {default}")
    # `dest` is the setting of Behaviour.
    for flag, setting, seconds, end in (
        ("--pay-after", "pay_delay", 5.0, "the payment"),
        ("--number-after", "number_delay", 5.0, "the number, from the payment"),
        ("--code-after", "code_delay", 60.0, "the code, from the number"),
    ):
        text = f"simulated seconds until {end} {default}"
        add(flag, dest=setting, type=_seconds, default=seconds, metavar="S", help=text)
    add(
        "--no-number",
        dest="number_available",
        action="store_false",
        help="no number is available: the service refunds every order",
    )
    add("--seed", type=int, help="make IDs and numbers the same in every run")
    add(
        "--json",
        action="store_true",
        help="print the address as a JSON object, and the requests on standard error",
    )
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError("must be zero or more seconds")
    return seconds


def _speed(text: str) -> float:
    speed = float(text)
    # Faster clocks soon leave the calendar.
    if not 0 < speed <= _FASTEST:
        raise argparse.ArgumentTypeError(f"must be a positive number, at most {_FASTEST}")
    return speed


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= _LAST_PORT:
        raise argparse.ArgumentTypeError(f"must be from 0 to {_LAST_PORT}")
    return port


if __name__ == "__main__":
    sys.exit(main())
