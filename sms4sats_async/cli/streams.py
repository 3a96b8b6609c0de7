"""Standard streams whose reader is gone."""

import os
from typing import TextIO

__all__ = ["discard"]


def discard(stream: TextIO) -> None:
    """Send the rest of a stream to the null device, also what it still holds."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
