"""`python -m sms4sats_async.simulator`: the service in miniature on a port of this machine."""

import argparse
import logging
import math
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import FrameType

from .clock import ScaledClock
from .law import Behaviour
from .service import Simulator

__all__ = ["main"]

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
        _say(f"The simulated service is at {url} and lives {options.speed:g} times faster.")
        _say(f"Point a client at it: SMS4SATS_BASE_URL={url}")

    try:
        with _logging_to_stdout(), _termination_as_exception():
            simulator.run(options.host, options.port, on_ready=greet)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - this is a command
        return 1
    except _Terminated:
        pass
    return 0


def _say(line: str) -> None:
    # Flushed, because whoever starts this in a pipe waits for the address.
    print(line, flush=True)  # noqa: T201 - this is a command


@contextmanager
def _logging_to_stdout() -> Generator[None]:
    log = logging.getLogger("sms4sats_async.simulator")
    handler = logging.StreamHandler(sys.stdout)
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
