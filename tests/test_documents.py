"""What README.md and docs/ tell a reader to run does run.

Python blocks are executed, each in a namespace of its own and with `await` allowed at the top, as
in a notebook. They talk to the service that the fixture `service_for_documents` names in the
environment. A block in the language `output` is what the Python block before it prints. Shell
blocks are not executed, but what they call must exist.

What is only to be looked at stands in a block of another kind, such as `text` or `pycon`.
"""

import ast
import asyncio
import importlib.metadata
import importlib.util
import inspect
import re
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path

import pytest

DISTRIBUTION = "sms4sats-async"
PACKAGE = "sms4sats_async"

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"

# Spelled any of these ways, it is code that a reader will copy.
PYTHON = frozenset({"python", "python3", "py"})
SHELL = frozenset({"bash", "sh", "shell", "console"})
OUTPUT = "output"

# What a reader is taken to have, beside what this project brings. Asking the machine instead would
# make the answer depend on the machine.
READERS_COMMANDS = frozenset({"cd", "export", "git", "pip", "pipx", "source", "uv"})

FENCE = re.compile(r"^\s*(?P<fence>`{3,}|~{3,})(?P<info>.*)$")
# Also the directives of MyST: ```{code-block} python
LANGUAGE = re.compile(r"\s*(?:\{[\w-]+\}\s*)?(?P<language>[\w+-]*)")
ASSIGNMENT = re.compile(r"[A-Z_][A-Z0-9_]*=")
SEPARATORS = frozenset({"&&", "||", "|", ";", "&"})


@dataclass(frozen=True)
class Block:
    """A fenced block of a document; `line` is where its first line of code stands."""

    file: str
    line: int
    language: str
    code: str


def blocks_of(file: str, text: str) -> Iterator[Block]:
    """Every fenced block of a Markdown text, also in a list."""
    lines = enumerate(text.splitlines(), start=1)
    for number, line in lines:
        if not (opening := FENCE.match(line)):
            continue
        fence = opening["fence"]

        def goes_on(item: tuple[int, str], fence: str = fence) -> bool:
            closing = item[1].strip()
            return set(closing) != {fence[0]} or len(closing) < len(fence)

        code = textwrap.dedent("\n".join(line for _, line in takewhile(goes_on, lines)))
        language = LANGUAGE.match(opening["info"])
        assert language
        yield Block(file, number + 1, language["language"].lower(), code)


def documents() -> Iterator[Block]:
    """Every block of every document of this project."""
    for path in (README, CONTRIBUTING, *sorted((ROOT / "docs").rglob("*.md"))):
        if path.is_file():
            yield from blocks_of(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))


def in_language(blocks: Iterator[Block], languages: frozenset[str]) -> list[object]:
    """Those blocks as parameters of a test, named by where they stand."""
    return [
        pytest.param(block, id=f"{block.file}:{block.line}")
        for block in blocks
        if block.language in languages
    ]


def programs(blocks: Iterator[Block]) -> list[object]:
    """The Python blocks as parameters of a test, each with what it prints if that is shown."""
    every = [*blocks, None]
    return [
        pytest.param(
            block,
            after if after and after.language == OUTPUT else None,
            id=f"{block.file}:{block.line}",
        )
        for block, after in pairwise(every)
        if block and block.language in PYTHON
    ]


def execute(block: Block) -> None:
    """Run a Python block from its first line to its last, in an event loop if it awaits."""
    # Lines of nothing in front make a traceback name the line of the document.
    code = compile(
        "\n" * (block.line - 1) + block.code,
        block.file,
        "exec",
        flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )
    # "__main__", so that `if __name__ == "__main__":` does what it does for the reader.
    namespace: dict[str, object] = {"__name__": "__main__"}
    result: object = eval(code, namespace)  # noqa: S307  (our own documents)
    if code.co_flags & inspect.CO_COROUTINE:
        assert inspect.iscoroutine(result)
        asyncio.run(result)


@dataclass(frozen=True)
class Offered:
    """What a shell block may name."""

    make_targets: frozenset[str]
    commands: frozenset[str]
    extras: frozenset[str]


def offered() -> Offered:
    """What this project really offers, asked of its Makefile and its installed metadata."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    distribution = importlib.metadata.distribution(DISTRIBUTION)
    scripts = distribution.entry_points.select(group="console_scripts")
    return Offered(
        make_targets=frozenset(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, re.MULTILINE)),
        commands=frozenset(script.name for script in scripts),
        extras=frozenset(distribution.metadata.get_all("Provides-Extra") or []),
    )


def commands_of(block: Block) -> Iterator[list[str]]:
    """The simple commands of a shell block, as words."""
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
    """What a reader who types this block would be told does not exist."""
    return [
        problem
        for words in commands_of(block)
        if (problem := command_problem(words, offer)) is not None
    ]


def command_problem(words: Sequence[str], offer: Offered) -> str | None:
    """What is wrong with one command; None if nothing."""
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
            problem = None if known else f"nobody brings the command {command}"
        case _:
            # Only assignments.
            pass
    return problem


def is_python(command: str) -> bool:
    """`python`, `python3.12`, `.venv/bin/python`."""
    return re.fullmatch(r"(.*/)?python(3(\.\d+)?)?", command) is not None


def extras_problem(arguments: Sequence[str], offer: Offered) -> str | None:
    """`pip install "sms4sats-async[cli]"` needs an extra of that name."""
    for argument in arguments:
        if match := re.match(rf"(?:{DISTRIBUTION}|\.)\[(?P<extras>.*)\]", argument):
            for extra in match["extras"].split(","):
                if extra.strip() not in offer.extras:
                    return f"there is no extra {extra.strip()}"
    return None


def module_problem(rest: Sequence[str], offer: Offered) -> str | None:
    """`python -m sms4sats_async.cli` needs a module of that name; others are not ours to judge."""
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


def test_the_readme_shows_python() -> None:
    """A README whose code has gone would leave nothing here to fail."""
    shown = {block.language for block in blocks_of(README.name, README.read_text("utf-8"))}

    assert shown & PYTHON


@pytest.mark.parametrize(("block", "output"), programs(documents()))
@pytest.mark.usefixtures("service_for_documents")
def test_python_block_runs(
    block: Block, output: Block | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Code in a document runs as it stands, and prints what is shown under it."""
    execute(block)
    if output is not None:
        assert capsys.readouterr().out.splitlines() == output.code.splitlines()


@pytest.mark.parametrize("block", in_language(documents(), SHELL))
def test_shell_block_names_what_exists(block: Block) -> None:
    """Commands, make targets, modules, files and extras in a document exist."""
    assert shell_problems(block, offered()) == []


def test_blocks_are_found_where_they_stand() -> None:
    """Indented, long, tilde and directive fences are read as Markdown reads them."""
    text = """\
Text
```python
one = 1
```
- item

  ```Python title="x"
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
```
"""

    assert list(blocks_of("x.md", text)) == [
        Block("x.md", 3, "python", "one = 1"),
        Block("x.md", 8, "python", "if two:\n    pass"),
        Block("x.md", 12, "text", "```python\nnot code\n```"),
        Block("x.md", 17, "py", "three"),
        Block("x.md", 20, "", ""),
    ]


def test_a_block_may_await_at_the_top(capsys: pytest.CaptureFixture[str]) -> None:
    """`await`, `async with` and `async for` need no function around them."""
    code = """\
import anyio
async with anyio.create_task_group() as group:
    group.start_soon(anyio.sleep, 0)
print(__name__, await anyio.to_thread.run_sync(lambda: 42))
"""

    execute(Block("x.md", 1, "python", code))

    assert capsys.readouterr().out == "__main__ 42\n"


def test_a_block_may_run_its_own_loop(capsys: pytest.CaptureFixture[str]) -> None:
    """A whole program calls `asyncio.run` or `trio.run` itself, which works only outside a loop."""
    code = """\
import trio
async def main():
    await trio.sleep(0)
    print("done")
if __name__ == "__main__":
    trio.run(main)
"""

    execute(Block("x.md", 1, "python", code))

    assert capsys.readouterr().out == "done\n"


def test_a_failing_block_names_its_line() -> None:
    """The traceback leads to the document, not to this file."""
    with pytest.raises(ZeroDivisionError) as caught:
        execute(Block("x.md", 40, "python", "pass\n1 / 0"))

    last = caught.traceback[-1]
    assert (Path(last.path).name, last.lineno + 1) == ("x.md", 41)


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
        pytest.param("sms4sat order", ["nobody brings the command sms4sat"], id="command"),
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
        pytest.param(
            "one; two", [f"nobody brings the command {x}" for x in ("one", "two")], id="two"
        ),
    ],
)
def test_a_wrong_shell_block_is_seen(code: str, problems: list[str]) -> None:
    """Each thing that does not exist turns the check red."""
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
def test_a_right_shell_block_passes(language: str, code: str) -> None:
    """What exists is not blamed, nor is what a command prints."""
    assert shell_problems(Block("x.md", 1, language, code), OFFER) == []
