"""Names of processes, so that the claims of a process that died can be recognized."""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")


def new_owner() -> str:
    """Return a new name for an owner of claims: machine, process, and a random part."""
    pid = os.getpid()
    return f"{_machine()}/{pid}/{_start_of(pid) or ''}/{secrets.token_hex(8)}"


def has_died(owner: str) -> bool:
    """Return whether the process of an owner provably ended.

    False where that is unknown: another machine, or a system without `/proc`.
    """
    machine, pid, start = [*owner.split("/"), "", ""][:3]
    if not machine or machine != _machine() or not pid.isdecimal() or not start:
        return False
    return _start_of(int(pid)) != start and not _is_hidden(int(pid))


def _is_hidden(pid: int) -> bool:
    """Return whether there is a process of another user, which `/proc` may hide."""
    try:
        os.kill(pid, 0)  # sends nothing
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _machine() -> str:
    """Return a name of this boot of this machine and its process namespace, or nothing."""
    with suppress(OSError):
        boot = (_PROC / "sys/kernel/random/boot_id").read_text()
        namespace = str((_PROC / "self/ns/pid").readlink())
        return hashlib.sha256(f"{boot}{namespace}".encode()).hexdigest()[:16]
    return ""


def _start_of(pid: int) -> str | None:
    """Return when a process started, in the kernel's ticks; None if there is no such process."""
    with suppress(OSError, IndexError):
        # The name of the program may hold blanks and brackets; the fields follow the last one.
        state, *fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else fields[18]
    return None
