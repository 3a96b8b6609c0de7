"""What is run from a terminal: the command `sms4sats`; needs the extra `cli`."""

import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

# As ends.ExitCode has them, which is not imported yet where they are needed.
_USAGE = 2
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `sms4sats`.

    Args:
        argv: The arguments; by default those of the process.

    Returns:
        The exit code.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # whoever started it has closed it
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115
    words = sys.argv[1:] if argv is None else [*argv]
    try:
        from .app import run_command  # noqa: PLC0415 - what it needs may be missing

        return run_command(words)
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"Error: The command needs {error.name}, which is not installed.\n"
            "Install it with pip install 'sms4sats-async[cli]'.\n"
        )
        return _USAGE
    except KeyboardInterrupt:  # before there was anything to interrupt
        return _INTERRUPTED
    finally:
        _give_up_what_nobody_takes()


def _give_up_what_nobody_takes() -> None:
    """Let Python not complain of it a second time, by a traceback, when the process ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
