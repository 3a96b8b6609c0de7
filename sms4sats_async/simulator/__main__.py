"""`python -m sms4sats_async.simulator`: the service in miniature on a port of this machine."""

import argparse
import logging
import math
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

from .behaviour import Behaviour
from .clock import ScaledClock
from .service import Simulator

__all__ = ["greeting", "main", "serve"]

_INTERRUPTED = 130  # 128 + SIGINT, as shells say it


class _Terminated(BaseException):
    """SIGTERM came: no error, as KeyboardInterrupt is none."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command until Ctrl-C or SIGTERM.

    Args:
        argv: the arguments; by default those of the process.

    Returns:
        The exit code: 0 after SIGTERM, 130 after Ctrl-C, 1 if the server cannot start.
    """
    options = _parser().parse_args(argv)
    simulator = Simulator(
        Behaviour(
            pay_delay=options.pay_after,
            number_delay=options.number_after,
            code_delay=options.code_after,
            number_available=not options.no_number,
        ),
        clock=ScaledClock(options.speed),
        seed=options.seed,
    )

    def greet(url: str) -> None:
        for line in greeting(url, options.speed):
            # Flushed, because whoever starts this in a pipe waits for the address.
            print(line, flush=True)  # noqa: T201 - this is a command

    try:
        return serve(simulator, options.host, options.port, on_ready=greet, log=sys.stdout)
    except (ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - this is a command
        return 1


def greeting(url: str, speed: float) -> tuple[str, str]:
    """Return what is said as soon as it can be reached: where it is, and how to get there."""
    return (
        f"The simulated service is at {url} and lives {speed:g} times faster.",
        f"Point a client at it: SMS4SATS_BASE_URL={url}",
    )


def serve(
    simulator: Simulator, host: str, port: int, *, on_ready: Callable[[str], None], log: TextIO
) -> int:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        simulator: the service.
        host: the address to listen on.
        port: the port; 0: any free one.
        on_ready: called with the base URL.
        log: where a line for each request goes.

    Returns:
        The exit code: 0 after SIGTERM, 130 after Ctrl-C.

    Raises:
        ImportError: if uvicorn is not installed.
        OSError: if that address cannot be had.
    """
    try:
        with _logging_to(log), _termination_as_exception():
            simulator.run(host, port, on_ready=on_ready)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except _Terminated:
        pass
    return 0


@contextmanager
def _logging_to(stream: TextIO) -> Generator[None]:
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
def _termination_as_exception() -> Generator[None]:
    def terminate(_signal: int, _frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sms4sats_async.simulator",
        description="Run the sms4sats service in miniature. No money and no telephone is involved.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=8021, help="port to listen on; 0: any free one")
    add("--speed", type=_speed, default=60.0, help="simulated seconds per real second")
    add("--pay-after", type=_seconds, default=5.0, metavar="S", help="simulated seconds")
    add("--number-after", type=_seconds, default=5.0, metavar="S", help="simulated seconds")
    add("--code-after", type=_seconds, default=60.0, metavar="S", help="simulated seconds")
    add("--no-number", action="store_true", help="no number is available: orders are refunded")
    add("--seed", type=int, help="makes ids and numbers the same in every run")
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError("must be zero or more seconds")
    return seconds


def _speed(text: str) -> float:
    speed = float(text)
    if not 0 < speed < math.inf:
        raise argparse.ArgumentTypeError("must be a positive number")
    return speed


if __name__ == "__main__":
    sys.exit(main())
