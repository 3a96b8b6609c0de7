"""The code in README.md and docs/ runs, has the right types, and prints the truth about the money.

Each Python block is a program of its own, with `await` allowed at the top, as in a notebook. It
runs against a simulated service, once for each way in which an order can end there. A block in the
language `output` is what the Python block before it prints; a word after `output` names the ending
that it belongs to. Shell blocks do not run, but what they call must exist.

What is not a program is in a block of another kind, such as `text` or `pycon`.
"""

import ast
import asyncio
import importlib.metadata
import importlib.util
import inspect
import logging
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import anyio.from_thread
import attrs
import pytest

from sms4sats_async import Sms4SatsError
from sms4sats_async._http.transports import open_transport
from sms4sats_async._http.transports.base import Transport
from sms4sats_async.simulator import (
    Answer,
    Behaviour,
    Holder,
    ManualClock,
    Order,
    Simulator,
    StateError,
)
from sms4sats_async.testing import http_client

DISTRIBUTION = "sms4sats-async"
PACKAGE = "sms4sats_async"

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"

# Spelled any of these ways, it is code that a reader will copy.
PYTHON = frozenset({"python", "python3", "py"})
SHELL = frozenset({"bash", "sh", "shell", "console"})
OUTPUT = "output"

# What a reader has, beside what this project brings. Asking the machine instead would make the
# answer depend on the machine.
READERS_COMMANDS = frozenset({"cd", "export", "git", "pip", "pipx", "source", "uv"})

FENCE = re.compile(r"^\s*(?P<fence>`{3,}|~{3,})(?P<info>.*)$")
# Also the directives of MyST: ```{code-block} python
INFO = re.compile(r"\s*(?:\{[\w-]+\}\s*)?(?P<language>[\w+-]*) *(?P<note>.*)")
ASSIGNMENT = re.compile(r"[A-Z_][A-Z0-9_]*=")
SEPARATORS = frozenset({"&&", "||", "|", ";", "&"})


@dataclass(frozen=True)
class Block:
    """A fenced block of a document; `line` is the line of its first line of code."""

    file: str
    line: int
    language: str
    code: str
    note: str = ""


def blocks_of(file: str, text: str) -> Iterator[Block]:
    """Return every fenced block of a Markdown text, also in a list."""
    lines = enumerate(text.splitlines(), start=1)
    for number, line in lines:
        if not (opening := FENCE.match(line)):
            continue
        fence = opening["fence"]

        def goes_on(item: tuple[int, str], fence: str = fence) -> bool:
            closing = item[1].strip()
            return set(closing) != {fence[0]} or len(closing) < len(fence)

        code = textwrap.dedent("\n".join(line for _, line in takewhile(goes_on, lines)))
        info = INFO.match(opening["info"])
        assert info
        yield Block(file, number + 1, info["language"].lower(), code, info["note"].strip())


def documents() -> Iterator[Block]:
    """Return every block of every document of this project."""
    for path in (README, CONTRIBUTING, *sorted((ROOT / "docs").rglob("*.md"))):
        if "_build" not in path.parts:
            yield from blocks_of(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))


def programs() -> Iterator[tuple[Block, Block | None]]:
    """Return each Python block, with the block of what it prints if there is one."""
    for block, after in pairwise([*documents(), None]):
        if block and block.language in PYTHON:
            yield block, after if after and after.language == OUTPUT else None


# --- the endings ----------------------------------------------------------------------------------


class LateCode(Simulator):
    """A service at which the code arrives while the order is being cancelled."""

    async def respond(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        for order in self.held_orders():
            if target.startswith("/cancelorder") and order.order_id in target:
                with suppress(StateError):  # it waits for its number
                    self.deliver_code(order.order_id)
        return await super().respond(method, target, headers, body)


NO_CODE = Behaviour(pay_delay=0, code_delay=None)
ENDINGS: dict[str, tuple[type[Simulator], Behaviour]] = {
    "cancelled": (Simulator, NO_CODE),
    "code": (Simulator, Behaviour(pay_delay=0)),
    "late code": (LateCode, NO_CODE),
    "cancel refused": (
        Simulator,
        attrs.evolve(NO_CODE, minimum_cancel_age=1e6, automatic_cancel_age=300),
    ),
    "unknown": (
        Simulator,
        attrs.evolve(NO_CODE, minimum_cancel_age=1e6, automatic_cancel_age=1e6),
    ),
    "refunded": (Simulator, Behaviour(pay_delay=0, number_available=False)),
    "never paid": (Simulator, Behaviour()),
}
"""Each kind of service: what it does with an order. Every other order is paid at once."""

SIMULATES = re.compile(r"^from sms4sats_async\.simulator import .*\bSimulator\b", re.MULTILINE)
UNPAID = re.compile(r"(?<!what was paid is )\brefunded\b", re.IGNORECASE)
REFUND = re.compile(r"\brefunded\b|\bcancelled\b|\bmoney back\b", re.IGNORECASE)
FAILURE = re.compile(r"\berror\b|\bunknown\b|may or may not", re.IGNORECASE)


def untruths(printed: Sequence[str], orders: Sequence[Order]) -> list[str]:
    """Return what a program printed about the money, or kept to itself, against the ledger."""
    delivered = [order for order in orders if order.code is not None]
    without = [order for order in orders if order.holder in {Holder.REFUNDED, Holder.NONE}]
    codes = {order.code for order in delivered if order.code}
    shown = [line for line in printed if any(code in line for code in codes)]
    claims = [line for line in printed if REFUND.search(line) and not FAILURE.search(line)]
    allowed = len(without) if delivered or not without else len(claims)
    found = [f"claims a refund: {line}" for line in claims[allowed:]]
    found += [f"claims a refund beside a code: {line}" for line in claims if line in shown]
    if orders and all(order.holder is Holder.NONE for order in orders):
        found += [f"nothing was paid: {line}" for line in claims if UNPAID.search(line)]
    if len(shown) < len(delivered):
        found.append(f"{len(delivered)} codes arrived, {len(shown)} were shown")
    if not codes and any(Behaviour().code in line for line in printed):
        found.append("shows a code that did not arrive")
    return found


def execute(block: Block) -> dict[str, Any]:
    """Run a Python block, in an event loop if it awaits, and return its names."""
    # Empty lines in front make a traceback name the line of the document.
    code = compile(
        "\n" * (block.line - 1) + block.code,
        block.file,
        "exec",
        flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )
    # "__main__", so that `if __name__ == "__main__":` does what it does for the reader.
    namespace: dict[str, Any] = {"__name__": "__main__"}
    result: object = eval(code, namespace)  # noqa: S307  (our own documents)
    if code.co_flags & inspect.CO_COROUTINE:
        assert inspect.iscoroutine(result)
        asyncio.run(result)
    return namespace


def cases() -> Iterator[object]:
    """Return each program with each ending; one that brings its own simulator runs once."""
    for block, output in programs():
        shown = (output.note if output else "") or "cancelled"
        for ending in [shown] if SIMULATES.search(block.code) else ENDINGS:
            expected = output if ending == shown else None
            name = f"{block.file}:{block.line}-{ending.replace(' ', '_')}"
            yield pytest.param(block, ending, expected, id=name)


@pytest.fixture(scope="module")
def portal() -> Iterator[anyio.from_thread.BlockingPortal]:
    """Return an event loop in a thread, for the services."""
    with anyio.from_thread.start_blocking_portal() as portal:
        yield portal


@pytest.mark.parametrize(("block", "ending", "output"), list(cases()))
def test_program_runs_and_prints_the_truth(  # noqa: PLR0917 - fixtures
    block: Block,
    ending: str,
    output: Block | None,
    portal: anyio.from_thread.BlockingPortal,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kind, behaviour = ENDINGS[ending]
    clock = ManualClock()  # jumps over every wait
    simulator = kind(behaviour, clock=clock)
    monkeypatch.chdir(tmp_path)  # for the journals
    monkeypatch.setattr("sms4sats_async.client.SystemClock", lambda: clock)
    monkeypatch.setenv("SMS4SATS_API_KEY", "example-key")

    def connect(given: object | None, **settings: Any) -> Transport:
        # In-process is faster, so only programs with an HTTP client of their own use sockets.
        return open_transport(http_client(simulator) if given is None else given, **settings)

    monkeypatch.setattr("sms4sats_async.client.open_transport", connect)
    with ExitStack() as stack:
        root = "http://127.0.0.1:1"
        if "http_client" in block.code:
            root = stack.enter_context(portal.wrap_async_context_manager(simulator.serve()))
        monkeypatch.setenv("SMS4SATS_BASE_URL", root)
        log = logging.getLogger(PACKAGE)
        level = log.level
        try:
            simulator = execute(block).get("simulator", simulator)
        except* Sms4SatsError:
            assert ending not in {"code", "cancelled"}  # an error is true
        finally:
            log.setLevel(level)
    printed = capsys.readouterr().out.splitlines()

    assert untruths(printed, simulator.orders) == []
    if output is not None:
        assert printed == output.code.splitlines()


def test_programs_have_the_right_types(tmp_path: Path) -> None:
    """`mypy --strict` finds nothing in any of them, each as a module of its own."""
    pytest.importorskip("mypy")  # it is not among the requirements of the wheel run
    for block, _ in programs():
        code = block.code
        if awaits(code):
            code = "async def program() -> None:\n" + textwrap.indent(code, "    ")
        name = re.sub(r"\W", "_", f"{block.file}_{block.line}")
        (tmp_path / f"{name}.py").write_text(f"{code}\n", "utf-8")

    config = f"--config-file={ROOT / 'pyproject.toml'}"
    # A cache would have what was installed when it was written. The process is another one, because
    # mypy keeps millions of objects, which garbage collection would visit in the later tests.
    words = ["-m", "mypy", "--strict", config, "--cache-dir=/dev/null", str(tmp_path)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)  # noqa: S603

    assert done.returncode == 0, done.stdout + done.stderr


def awaits(code: str) -> bool:
    """Return whether a program awaits at its top, as only a notebook allows."""
    try:
        compile(code, "", "exec", dont_inherit=True)
    except SyntaxError:
        return True
    return False


def test_untruths_are_seen() -> None:
    simulator = Simulator(Behaviour(pay_delay=0, number_delay=0, code_delay=0), clock=ManualClock())
    simulator.handle("POST", "/createorder", {}, b'{"country": 187, "service": "tg"}')
    delivered = simulator.orders

    assert untruths(["Code: 012345"], delivered) == []
    assert untruths([], delivered) == ["1 codes arrived, 0 were shown"]
    assert untruths(["refunded: 012345"], delivered)
    assert untruths(["Refunded.", "Code: 012345"], delivered)
    assert untruths(["Code: 012345"], [])
    assert untruths(["Error: the order may be cancelled or refunded"], []) == []


def test_refund_of_an_order_that_was_never_paid_is_an_untruth() -> None:
    simulator = Simulator(clock=ManualClock())
    simulator.handle("POST", "/createorder", {}, b'{"country": 187, "service": "tg"}')
    unpaid = simulator.orders

    assert untruths(["Refunded."], unpaid) == ["nothing was paid: Refunded."]
    assert untruths(["What was paid is refunded."], unpaid) == []
    assert untruths(["cancelled"], unpaid) == []


# --- shell blocks ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Offered:
    """What a shell block may name."""

    make_targets: frozenset[str]
    commands: frozenset[str]
    extras: frozenset[str]


def offered() -> Offered:
    """Return what this project offers, from its Makefile and its installed metadata."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    distribution = importlib.metadata.distribution(DISTRIBUTION)
    scripts = distribution.entry_points.select(group="console_scripts")
    return Offered(
        make_targets=frozenset(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, re.MULTILINE)),
        commands=frozenset(script.name for script in scripts),
        extras=frozenset(distribution.metadata.get_all("Provides-Extra") or []),
    )


def commands_of(block: Block) -> Iterator[list[str]]:
    """Return the simple commands of a shell block, as words."""
    lines = block.code.replace("\\\n", " ").splitlines()
    if block.language == "console":
        # What does not follow a prompt is output.
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word not in SEPARATORS:
                words.append(word)
            elif words:
                yield words
                words = []


def shell_problems(block: Block, offer: Offered) -> list[str]:
    """Return what a shell block names that does not exist."""
    return [
        problem
        for words in commands_of(block)
        if (problem := command_problem(words, offer)) is not None
    ]


def command_problem(words: Sequence[str], offer: Offered) -> str | None:
    """Return what is wrong with one command; None if nothing."""
    problem = None
    match [word for word in words if not ASSIGNMENT.match(word)]:
        case ["make", *targets]:
            missing = [target for target in targets if target not in offer.make_targets]
            problem = f"make has no target {missing[0]}" if missing else None
        case (
            ["pip", "install", *arguments]
            | ["uv", "add", *arguments]
            | ["uv", "pip", "install", *arguments]
        ):
            problem = extras_problem(arguments, offer)
        case [python, "-m", *rest] if is_python(python):
            problem = module_problem(rest, offer)
        case [python, script, *_] if is_python(python) and script.endswith(".py"):
            problem = None if (ROOT / script).is_file() else f"there is no file {script}"
        case [command, *_]:
            known = command in READERS_COMMANDS | offer.commands or is_python(command)
            problem = None if known else f"there is no command {command}"
        case _:
            # Only assignments.
            pass
    return problem


def is_python(command: str) -> bool:
    """Return whether it is `python`, `python3.12` or `.venv/bin/python`."""
    return re.fullmatch(r"(.*/)?python(3(\.\d+)?)?", command) is not None


def extras_problem(arguments: Sequence[str], offer: Offered) -> str | None:
    """Return the extra that an argument such as `sms4sats-async[cli]` names and nothing offers."""
    for argument in arguments:
        if match := re.match(rf"(?:{DISTRIBUTION}|\.)\[(?P<extras>.*)\]", argument):
            for extra in match["extras"].split(","):
                if extra.strip() not in offer.extras:
                    return f"there is no extra {extra.strip()}"
    return None


def module_problem(rest: Sequence[str], offer: Offered) -> str | None:
    """Return what is wrong with `python -m` and a module; only this project's are checked."""
    module, *arguments = rest
    if module == "pip":
        return command_problem(["pip", *arguments], offer)
    if module.partition(".")[0] != PACKAGE:
        return None
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    return None if found else f"there is no module {module}"


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=f"{block.file}:{block.line}")
        for block in documents()
        if block.language in SHELL
    ],
)
def test_shell_block_names_what_exists(block: Block) -> None:
    assert shell_problems(block, offered()) == []


def test_blocks_are_found_with_their_lines() -> None:
    text = """\
Text
```python
one = 1
```
- item

  ```Python
  if two:
      pass
  ```
````text
```python
not code
```
````
~~~{code-block} py
three
~~~
```output late code
four
```
```
"""

    assert list(blocks_of("x.md", text)) == [
        Block("x.md", 3, "python", "one = 1"),
        Block("x.md", 8, "python", "if two:\n    pass"),
        Block("x.md", 12, "text", "```python\nnot code\n```"),
        Block("x.md", 17, "py", "three"),
        Block("x.md", 20, "output", "four", "late code"),
        Block("x.md", 23, "", ""),
    ]


OFFER = Offered(
    make_targets=frozenset({"demo", "test"}),
    commands=frozenset({"sms4sats"}),
    extras=frozenset({"cli", "simulator"}),
)


@pytest.mark.parametrize(
    ("code", "problems"),
    [
        pytest.param("make dmeo", ["make has no target dmeo"], id="target"),
        pytest.param("make test bench", ["make has no target bench"], id="second-target"),
        pytest.param("cd x && make x", ["make has no target x"], id="after-and"),
        pytest.param("sms4sat order", ["there is no command sms4sat"], id="command"),
        pytest.param("pip install '.[cil]'", ["there is no extra cil"], id="extra"),
        pytest.param(
            "uv add 'sms4sats-async[cli, x]'", ["there is no extra x"], id="one-of-two-extras"
        ),
        pytest.param(
            "python -m pip install sms4sats-async[x]", ["there is no extra x"], id="extra-by-module"
        ),
        pytest.param(
            "python3 -m sms4sats_async.nothing.at_all",
            ["there is no module sms4sats_async.nothing.at_all"],
            id="module",
        ),
        pytest.param("python no/such.py", ["there is no file no/such.py"], id="file"),
        pytest.param("A=1 make \\\n  x", ["make has no target x"], id="continued"),
        pytest.param("one; two", [f"there is no command {x}" for x in ("one", "two")], id="two"),
    ],
)
def test_shell_block_with_unknown_name_fails(code: str, problems: list[str]) -> None:
    assert shell_problems(Block("x.md", 1, "bash", code), OFFER) == problems


@pytest.mark.parametrize(
    ("language", "code"),
    [
        pytest.param("sh", "# all of it\nmake demo test PYTHON=python3.12\n", id="make"),
        pytest.param("sh", "export SMS4SATS_API_KEY=x", id="environment"),
        pytest.param("sh", "ONLY=assignment", id="assignment"),
        pytest.param("bash", "pip install 'sms4sats-async[cli,simulator]' other[x]", id="extras"),
        pytest.param("bash", ".venv/bin/python -m sms4sats_async | sms4sats", id="own"),
        pytest.param("bash", "python3.11 -m venv x && python tests/conftest.py", id="python"),
        pytest.param("console", "$ git status\nno such output && !\n", id="output"),
    ],
)
def test_shell_block_with_known_names_passes(language: str, code: str) -> None:
    assert shell_problems(Block("x.md", 1, language, code), OFFER) == []
