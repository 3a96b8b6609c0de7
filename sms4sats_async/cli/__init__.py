"""The command `sms4sats`. It needs the extra `cli`."""

import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

__all__ = ["main"]

# From ends.ExitCode, which is not imported yet where they are needed.
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
        if getattr(sys, name) is None:  # closed by the program that started this one
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that a terminal cannot show is replaced
            stream.reconfigure(errors="replace")
    try:
        from .app import run_command  # noqa: PLC0415 - an extra may be missing

        return run_command(sys.argv[1:] if argv is None else argv)
    except ModuleNotFoundError as error:
        with suppress(OSError):
            sys.stderr.write(
                f"Error: The command needs {error.name}, which is not installed. Nothing was sent."
                "\nInstall it with pip install 'sms4sats-async[cli]'.\n"
            )
        return _USAGE
    except KeyboardInterrupt:  # before the command began
        return _INTERRUPTED
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:  # or Python would fail to flush it when the process ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
