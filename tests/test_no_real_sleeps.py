"""No test waits for real time, because a slow machine would fail it."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

LIBRARIES = {"time", "asyncio", "anyio", "trio"}
# Seconds between two checks of another thread or a socket, where no event can be awaited.
LONGEST_PAUSE = 0.05


def sleeps(source: str) -> list[int]:
    """Return the lines on which a test waits for real time."""
    lines: list[int] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module=module, names=names) if module in LIBRARIES:
                lines += [node.lineno for name in names if name.name == "sleep"]
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=loop), attr="sleep" | "sleep_until"),
                args=[seconds],
            ) if loop in LIBRARIES:
                short = isinstance(seconds, ast.Constant) and isinstance(seconds.value, int | float)
                if not short or ast.literal_eval(seconds) > LONGEST_PAUSE:
                    lines.append(node.lineno)
            case _:
                pass
    return lines


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: path.name)
def test_no_test_waits_for_real_time(path: Path) -> None:
    assert sleeps(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import time\ntime.sleep(0.1)", [2]),
        ("async def f():\n    await asyncio.sleep(1)", [2]),
        ("async def f():\n    await anyio.sleep(delay)", [2]),
        ("from trio import sleep", [1]),
        ("async def f():\n    await trio.sleep_until(1.0)", [2]),
        ("async def f():\n    await anyio.sleep(0.05)\n    await clock.sleep(5)", []),
        ("async def f():\n    await anyio.sleep_forever()", []),
    ],
)
def test_sleep_is_found(source: str, lines: list[int]) -> None:
    assert sleeps(source) == lines
