"""Names of processes, so that the claims of a process that died can be recognized."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_OWNER: Final = re.compile(r"([0-9a-f]{16})/([1-9][0-9]{0,8})/([0-9]+)/[0-9a-f]{16}")
_ENDED: Final = frozenset("ZXx")
"""The states of a process that has ended, before and after its parent has noticed (proc(5))."""


def new_owner() -> str:
    """Return a new name for an owner of claims: machine, process, and a random part."""
    pid = os.getpid()
    _, start = _status(pid) or ("", "")
    return f"{_machine()}/{pid}/{start}/{secrets.token_hex(8)}"


def is_of_this_process(owner: str) -> bool:
    """Return whether this process named an owner: a process that was forked later did not."""
    return owner.split("/")[1] == str(os.getpid())


def has_died(owner: str) -> bool:
    """Return whether the process of an owner provably ended.

    False where that is unknown: another machine, or a system without `/proc`.
    """
    named = _OWNER.fullmatch(owner)
    if named is None or named[1] != _machine():
        return False
    pid = int(named[2])
    status = _status(pid)
    if status is None:
        return not _exists(pid)
    state, start = status
    # A process of another start has got the same number later.
    return start != named[3] or state in _ENDED


def _exists(pid: int) -> bool:
    """Return whether there may be such a process: `/proc` may hide those of other users."""
    try:
        os.kill(pid, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _machine() -> str:
    """Return a name of this boot of this machine and its process namespace, or nothing."""
    with suppress(OSError):
        boot = (_PROC / "sys/kernel/random/boot_id").read_text()
        namespace = str((_PROC / "self/ns/pid").readlink())
        # In a namespace that still sees the `/proc` of its parent, the numbers are other processes.
        if str((_PROC / "self").readlink()) == str(os.getpid()):
            return hashlib.sha256(f"{boot}{namespace}".encode()).hexdigest()[:16]
    return ""


def _status(pid: int) -> tuple[str, str] | None:
    """Return the state of a process, and its start in the kernel's ticks; None if unreadable."""
    with suppress(OSError, ValueError, IndexError):
        # The name of the program may hold blanks and brackets; the fields follow the last one.
        state, *fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return state, fields[18]
    return None
