"""Names of processes: a claim is free at once only if its process provably died."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from sms4sats_async import _process
from sms4sats_async._process import has_died, is_of_this_process, new_owner

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")

OTHER: Final = 4_194_000
"""The number of a process that the test invents."""


@contextmanager
def process() -> Generator[tuple[str, subprocess.Popen[str]]]:
    """Another process, and an owner that it has named; it ends with the block."""
    code = "from sms4sats_async._process import new_owner; print(new_owner(), flush=True); input()"
    with subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        yield child.stdout.readline().strip(), child
        child.kill()


# --- real processes -------------------------------------------------------------------------------


@linux
def test_a_process_that_is_killed_has_died_before_and_after_its_parent_notices() -> None:
    with process() as (owner, child):
        assert not has_died(owner)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
        state = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0]
        assert state == "Z"
        assert has_died(owner)
        child.wait()
        assert has_died(owner)


@linux
def test_this_process_is_running() -> None:
    assert not has_died(new_owner())
    assert is_of_this_process(new_owner())


def test_every_owner_has_its_own_name() -> None:
    assert len({new_owner() for _ in range(50)}) == 50


@linux
def test_a_later_process_with_the_same_number_is_another_one() -> None:
    machine, pid, start, suffix = new_owner().split("/")
    assert has_died(f"{machine}/{pid}/{int(start) - 1}/{suffix}")


@linux
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_the_owner_of_a_forked_process_names_that_process() -> None:
    code = """
import os, sys
from sms4sats_async._process import has_died, is_of_this_process, new_owner

parent = new_owner()
child = os.fork()
if child == 0:
    assert is_of_this_process(new_owner())
    assert not is_of_this_process(parent)
    assert not has_died(parent)
    os._exit(0)
assert is_of_this_process(parent)
sys.exit(os.waitpid(child, 0)[1])
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)  # noqa: S603 - our own code


# --- a /proc of the test --------------------------------------------------------------------------


class Proc:
    """A `/proc` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.boot_id = folder / "sys/kernel/random/boot_id"
        self.boot_id.parent.mkdir(parents=True)
        self.boot_id.write_text("a boot\n")
        self.add(os.getpid())
        (folder / "self").symlink_to(str(os.getpid()))

    def add(self, pid: int, *, state: str = "S", start: int = 100, name: str = "python3") -> None:
        place = self.folder / str(pid)
        (place / "ns").mkdir(parents=True)
        (place / "ns/pid").symlink_to("pid:[4026531836]")
        before = " ".join(["1"] * 18)
        (place / "stat").write_text(f"{pid} ({name}) {state} {before} {start} 0 0\n")


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proc:
    proc = Proc(tmp_path / "proc")
    monkeypatch.setattr(_process, "_PROC", proc.folder)
    return proc


def owner_of(pid: int, start: int = 100) -> str:
    """The owner of a process on this machine."""
    machine, _, _, suffix = new_owner().split("/")
    return f"{machine}/{pid}/{start}/{suffix}"


@pytest.mark.parametrize(
    ("state", "died"),
    [("R", False), ("S", False), ("D", False), ("T", False), ("Z", True), ("X", True)],
)
def test_a_zombie_has_died_and_a_stopped_process_has_not(
    proc: Proc, state: str, *, died: bool
) -> None:
    proc.add(OTHER, state=state)
    assert has_died(owner_of(OTHER)) is died


@pytest.mark.parametrize("name", ["a b", "x) Z 1 1", "((", "", "a\nb"])
def test_the_name_of_a_program_may_have_any_letters(proc: Proc, name: str) -> None:
    proc.add(OTHER, name=name)
    assert not has_died(owner_of(OTHER))
    assert has_died(owner_of(OTHER, start=99))


def unknown(_pid: int, _signal: int) -> None:
    raise ProcessLookupError


def forbidden(_pid: int, _signal: int) -> None:
    raise PermissionError


def exists(_pid: int, signal: int) -> None:
    assert signal == 0


KILL: Final[dict[str, tuple[Callable[[int, int], None], bool]]] = {
    "no such process": (unknown, True),
    "hidden, of another user": (forbidden, False),
    "hidden, of the same user": (exists, False),
}


@pytest.mark.parametrize(("kill", "died"), KILL.values(), ids=KILL)
@pytest.mark.parametrize("stat", [None, "", f"{OTHER} (python3) S 1"], ids=["no", "empty", "cut"])
def test_a_process_that_proc_does_not_show_may_live(
    proc: Proc,
    stat: str | None,
    kill: Callable[[int, int], None],
    monkeypatch: pytest.MonkeyPatch,
    *,
    died: bool,
) -> None:
    """`/proc` can be mounted so that it hides processes (hidepid, proc(5))."""
    owner = owner_of(OTHER)
    if stat is not None:
        proc.add(OTHER)
        (proc.folder / str(OTHER) / "stat").write_text(stat)
    monkeypatch.setattr(os, "kill", kill)
    assert has_died(owner) is died


def another_boot(proc: Proc) -> None:
    proc.boot_id.write_text("another boot\n")


def another_namespace(proc: Proc) -> None:
    link = proc.folder / "self/ns/pid"
    link.unlink()
    link.symlink_to("pid:[4026532000]")


def proc_of_another_namespace(proc: Proc) -> None:
    """The numbers in it are those of other processes."""
    proc.add(1)
    link = proc.folder / "self"
    link.unlink()
    link.symlink_to("1")


def no_boot_id(proc: Proc) -> None:
    proc.boot_id.unlink()


MACHINES: Final[dict[str, Callable[[Proc], None]]] = {
    "another boot": another_boot,
    "another namespace": another_namespace,
    "/proc of another namespace": proc_of_another_namespace,
    "no boot id": no_boot_id,
}


@pytest.mark.parametrize("change", MACHINES.values(), ids=MACHINES)
def test_nothing_is_known_of_the_processes_of_another_machine(
    proc: Proc, change: Callable[[Proc], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "kill", unknown)
    owner = owner_of(OTHER)
    assert has_died(owner)
    change(proc)
    assert not has_died(owner)


def test_nothing_is_known_without_proc(
    proc: Proc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "kill", unknown)
    before = owner_of(OTHER)
    monkeypatch.setattr(_process, "_PROC", tmp_path / "missing")
    assert not has_died(before)
    owner = new_owner()
    assert owner.startswith(f"/{os.getpid()}//")
    assert not has_died(owner)
    monkeypatch.setattr(_process, "_PROC", proc.folder)
    assert not has_died(owner)


FORMS: Final[dict[str, Callable[[str], str]]] = {
    "empty": lambda _: "",
    "version 0.1": lambda _: "0123456789abcdef",
    "without the random part": lambda owner: owner.rpartition("/")[0],
    "with one part more": lambda owner: f"{owner}/more",
    "process 0": lambda owner: owner.replace(f"/{OTHER}/", "/0/"),
    "process -1": lambda owner: owner.replace(f"/{OTHER}/", "/-1/"),
    "process beyond all numbers": lambda owner: owner.replace(f"/{OTHER}/", f"/{10**30}/"),
    "no start": lambda owner: owner.replace("/100/", "//"),
    "start in letters": lambda owner: owner.replace("/100/", "/x/"),
}


@pytest.mark.parametrize("change", FORMS.values(), ids=FORMS)
@pytest.mark.usefixtures("proc")
def test_nothing_is_known_of_an_owner_in_another_form(
    change: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "kill", unknown)
    owner = owner_of(OTHER)
    assert has_died(owner)
    assert not has_died(change(owner))
