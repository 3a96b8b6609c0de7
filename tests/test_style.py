"""Everything that people read follows the rules in styles/, which editors check with Vale.

Vale downloads its program when it runs for the first time, and these tests must work offline. So
they read the same rules, and apply them to the pages. They also apply them to what Vale does not
check: the notebook, docstrings, comments, messages and test names.
"""

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
STYLES = ROOT / "styles" / "Sms4sats"

# A finding that is right as it is: the text, and why.
EXCEPTIONS: dict[str, str] = {
    "real world": "a figure of speech of the field: the world outside of a simulation",
}

CODE = re.compile(r"`[^`\n]*`|\]\([^)\n]*\)|<[^>\n]*>|https?://\S+")
# Where a sentence ends: at its end mark, at a blank line, a list item, a cell of a table, or an
# entry of a docstring such as `name: its meaning`.
SENTENCE = re.compile(
    r"(?<=[.!?:])\s+(?=[A-Z`\"'])|\n\s*\n|\n(?=\s*[-*|#├└│]|\s*\d+\.\s|\s*\w+: )|(?<=[.;])\s|\|"
)
MESSAGE_WORDS = 3


@dataclass(frozen=True)
class Rule:
    """One pattern of a style, and what to say about it."""

    pattern: re.Pattern[str]
    message: str


@dataclass(frozen=True)
class Text:
    """Something that people read, and where it is."""

    where: str
    text: str


def style(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((STYLES / f"{name}.yml").read_text("utf-8"))
    return found


def rules() -> Iterator[Rule]:
    for name in ("Habits", "Metaphors", "Terms"):
        found = style(name)
        for token in found.get("tokens", []):
            yield Rule(_word(token), found["message"].replace("%s", token, 1))
        for token, better in found.get("swap", {}).items():
            yield Rule(_word(token), f"say {better!r}")


def _word(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)


def pages() -> Iterator[Text]:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]:
        yield from _page(path)
    for path in sorted((ROOT / "docs").rglob("*.md")):
        if "_build" not in path.parts:
            yield from _page(path)
    notebook = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text("utf-8"))
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "markdown":
            yield Text(f"docs/tutorial.ipynb, cell {number}", "".join(cell["source"]))


def _page(path: Path) -> Iterator[Text]:
    text = path.read_text("utf-8")
    text = re.sub(r"^(\s*)(`{3,}|~{3,}).*?^\s*\2\s*$", "\n", text, flags=re.MULTILINE | re.DOTALL)
    yield Text(path.relative_to(ROOT).as_posix(), text)


def code() -> Iterator[Text]:
    for folder in ("sms4sats_async", "tests", "tools", "bench", "examples"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield from _module(path)
    for path in (ROOT / "pytest_sms4sats.py", ROOT / "docs" / "conf.py"):
        yield from _module(path)


def settings() -> Iterator[Text]:
    """Return the comments of the files that no interpreter of Python reads, and make's help."""
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    for path in (ROOT / "Makefile", ROOT / "pyproject.toml", *workflows):
        for comment in re.findall(r"(?:^ *#.*\n)+|##.*\n", path.read_text("utf-8"), re.MULTILINE):
            text = re.sub(r"^ *#+", "", comment, flags=re.MULTILINE)
            yield Text(path.relative_to(ROOT).as_posix(), text)


def _module(path: Path) -> Iterator[Text]:
    name, source = path.relative_to(ROOT).as_posix(), path.read_text("utf-8")
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, documented) and (text := ast.get_docstring(node)):
            line = node.body[0].lineno
            docstrings.add(line)
            yield Text(f"{name}:{line}", text)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[:5] == "test_":
            yield Text(f"{name}:{node.lineno}", node.name[5:].replace("_", " "))
    if name.startswith("sms4sats_async"):
        yield from _messages(name, tree, docstrings)
    comment = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comment += token.string.lstrip("#: ").split("noqa")[0] + "\n"
        elif comment and token.type not in {tokenize.NL, tokenize.NEWLINE}:
            yield Text(f"{name}:{token.start[0] - 1}", comment)
            comment = ""


def _messages(name: str, tree: ast.Module, docstrings: set[int]) -> Iterator[Text]:
    """Return the texts of a module that have some words, and the docstrings of its constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words = len(node.value.split())
            is_prose = "{ " not in node.value and "</" not in node.value
            if node.lineno not in docstrings and words >= MESSAGE_WORDS and is_prose:
                yield Text(f"{name}:{node.lineno}", node.value)


def findings(texts: Iterator[Text]) -> list[str]:
    """Return what breaks a rule."""
    every = list(rules())
    longest = int(style("SentenceLength")["max"])
    found: list[str] = []
    for each in texts:
        text = CODE.sub("X", each.text)
        for rule in every:
            for match in rule.pattern.finditer(text):
                around = " ".join(text[max(0, match.start() - 30) : match.end() + 30].split())
                if not any(exception in around for exception in EXCEPTIONS):
                    found.append(f"{each.where}: {match.group()!r} in {around!r}: {rule.message}")
        for sentence in SENTENCE.split(text):
            words = sentence.split() if sentence else []
            if len(words) > longest:
                found.append(f"{each.where}: {len(words)} words: {' '.join(words)[:80]}...")
    return found


@pytest.mark.parametrize("part", [pages, code, settings])
def test_every_text_follows_the_style(part: Any) -> None:
    assert findings(part()) == []


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("Whoever has it can read the code.", "Whoever"),
        ("The service gives the money back by itself.", "by itself"),
        ("The service gives the money back.", "gives the money back"),
        ("This room knows HTTP.", "room"),
        ("word " * 31, "31 words"),
    ],
)
def test_a_text_that_breaks_a_rule_is_found(text: str, finding: str) -> None:
    assert any(finding in line for line in findings(iter([Text("x", text)])))


def test_code_in_a_text_is_not_prose() -> None:
    assert findings(iter([Text("x", "Use `whoever` and [a link](nobody.md).")])) == []
