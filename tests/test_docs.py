"""The pages under docs/ are complete, their links work, and their drawings are up to date.

`make docs` checks that Sphinx builds them without a warning. Nothing here needs Sphinx or the
network: only the form of a link to another site is checked.
"""

import posixpath
import re
import runpy
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import sms4sats_async
from sms4sats_async import (
    Sms4SatsClient,
    Sms4SatsError,
    postgres,
    progress,
    simulator,
    testing,
    wallets,
)
from sms4sats_async._http import endpoints as _operations
from sms4sats_async._http.endpoints import Operation

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

MODULE = re.compile(r"\.\. currentmodule:: ([\w.]+)")
DIRECTIVE = re.compile(r"\.\. auto(?:class|exception|function|method|property|data):: ([\w.]+)")

CODE = re.compile(r"^ *(`{3,}|~{3,}).*?^ *\1[`~]* *$|`[^`]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)\)|<(\w+:[^\s>]+)>")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
# Two addresses that differ in less than this are a typing error.
ALIKE = 0.95

FIRST_PAGE = (DOCS / "index.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

WORKFLOWS = ROOT / ".github" / "workflows"


def described() -> Counter[str]:
    """Return how often the reference describes each name."""
    names: Counter[str] = Counter()
    for page in sorted((DOCS / "reference").glob("*.md")):
        text = page.read_text("utf-8")
        (module,) = set(MODULE.findall(text))
        names.update(f"{module}.{name}" for name in DIRECTIVE.findall(text))
    return names


def public_methods(kind: type) -> list[str]:
    return [name for name in vars(kind) if not name.startswith("_")]


def test_reference_describes_every_public_name_once() -> None:
    expected = [
        *(f"sms4sats_async.{name}" for name in sms4sats_async.__all__),
        *(f"sms4sats_async.Sms4SatsClient.{name}" for name in public_methods(Sms4SatsClient)),
        *(f"sms4sats_async.postgres.{name}" for name in postgres.__all__),
        *(f"sms4sats_async.progress.{name}" for name in progress.__all__),
        *(f"sms4sats_async.simulator.{name}" for name in simulator.__all__),
        *(f"sms4sats_async.testing.{name}" for name in testing.__all__),
        *(f"sms4sats_async.wallets.{name}" for name in wallets.__all__),
    ]

    assert described() == Counter(expected)


def test_errors_page_says_of_each_error_when_it_is_raised_its_effect_and_the_next_step() -> None:
    page = (DOCS / "reference" / "errors.md").read_text("utf-8")
    rows = [row.split(" | ") for row in re.findall(r"^\| (`.*) \|$", page, re.MULTILINE)]
    modules = (sms4sats_async, wallets)
    public = {name: getattr(it, name) for it in modules for name in it.__all__}
    errors = [
        f"`{name}`"
        for name, value in public.items()
        if isinstance(value, type) and issubclass(value, Sms4SatsError)
    ]

    assert sorted(["`Sms4SatsError`", *(name for name, *_ in rows)]) == sorted(errors)
    for name, *cells in rows:
        assert list(map(bool, cells)) == [True, True, True], name


def test_each_how_to_begins_with_something_whole_to_copy() -> None:
    """Commands, a program or an example, at most below one heading.

    Only a notebook has `await` at its top. Other tests run the examples.
    """
    (names,) = re.findall(r'"How to"\n:maxdepth: 1\n\n(.*?)\n```', FIRST_PAGE, re.DOTALL)

    for name in names.split():
        page = (DOCS / f"{name}.md").read_text("utf-8")
        before = page.partition("\n```")[0]
        language, _, _ = page[len(before) + len("\n```") :].partition("\n")
        programs = [code for kind, code in BLOCK.findall(page) if kind == "python"]
        assert before.count("\n#") <= 1, name
        assert re.fullmatch(r"bash|python|\{literalinclude\} \.\./examples/\w+\.py", language), name
        if programs and name != "notebook":
            compile(programs[0], name, "exec")


def test_service_page_has_every_endpoint() -> None:
    page = (DOCS / "service.md").read_text("utf-8")
    endpoints: list[Operation[Any]] = [
        each for each in vars(_operations).values() if isinstance(each, Operation)
    ]

    assert endpoints
    for endpoint in endpoints:
        assert re.search(rf"`{endpoint.method} {re.escape(endpoint.path)}[?`]", page)


@pytest.mark.parametrize("name", ["draw_states", "draw_sequence"])
def test_drawings_are_up_to_date(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "tools"), *sys.path])
    tool = runpy.run_path(str(ROOT / "tools" / f"{name}.py"))

    for path, content in tool["written"]().items():
        assert path.read_text("utf-8") == content, "run `make docs`"


def test_pages_fetch_nothing_from_other_sites() -> None:
    assert not re.search(r"intersphinx|https?:", (DOCS / "conf.py").read_text("utf-8"))
    assert not re.search(r"@import|url\(", (DOCS / "_static" / "page.css").read_text("utf-8"))
    for svg in DOCS.glob("*.svg"):
        addresses = re.findall(r"[=(][\"']?(https?://[^\"')]+)", svg.read_text("utf-8"))
        assert addresses == ["http://www.w3.org/2000/svg"]


def documents() -> dict[str, str]:
    """Return every page by its path."""
    pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    return {page.relative_to(ROOT).as_posix(): page.read_text("utf-8") for page in sorted(pages)}


def anchors_of(text: str) -> set[str]:
    """Return the anchors that both Sphinx and GitHub make of the headings of a page."""
    headings = HEADING.findall(re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def links_of(text: str) -> Iterator[str]:
    """Return the links of a page, without those in code."""
    for inline, bare in LINK.findall(CODE.sub("", text)):
        yield inline or bare


def link_problems(pages: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the links of these pages."""
    problems: list[str] = []
    elsewhere: set[str] = set()
    for page, text in pages.items():
        for link in links_of(text):
            if urlsplit(link).scheme:
                elsewhere.add(link)
                if not re.fullmatch(r"https://[\w-]+(\.[\w-]+)+(/\S*)?", link):
                    problems.append(f"{page}: {link} is no https address")
                continue
            path, _, anchor = link.partition("#")
            to = posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) if path else page
            if to not in pages and not (ROOT / to).is_file():
                problems.append(f"{page}: {link} leads to no file")
            elif anchor and anchor not in anchors_of(pages.get(to, "")):
                problems.append(f"{page}: {link} leads to no heading")
    problems += [
        f"{link} and {twin} are nearly the same"
        for link in sorted(elsewhere)
        for twin in get_close_matches(link, [each for each in elsewhere if each > link], 1, ALIKE)
    ]
    return problems


def test_every_link_has_a_target() -> None:
    assert link_problems(documents()) == []


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        pytest.param("[x](gone.md)", ["docs/a.md: gone.md leads to no file"], id="file"),
        pytest.param("[x](../README.md)", [], id="up"),
        pytest.param("[x](../b.md)", ["docs/a.md: ../b.md leads to no file"], id="above"),
        pytest.param("[x\ny](b.md#no)", ["docs/a.md: b.md#no leads to no heading"], id="heading"),
        pytest.param("[x](b.md#what-is-a-thing)", [], id="heading-with-code"),
        pytest.param("[x](#of-its-own)\n# Of its own", [], id="own-heading"),
        pytest.param(
            "[x](#code)\n```\n# Code\n```", ["docs/a.md: #code leads to no heading"], id="comment"
        ),
        pytest.param("`[x](gone.md)`\n```text\n[x](gone.md)\n```", [], id="code"),
        pytest.param(
            "<http://x.example>", ["docs/a.md: http://x.example is no https address"], id="http"
        ),
        pytest.param("[x](https://x)", ["docs/a.md: https://x is no https address"], id="host"),
        pytest.param(
            "<https://name.example/page> [y](https://name.exmaple/page)",
            ["https://name.example/page and https://name.exmaple/page are nearly the same"],
            id="slip",
        ),
        pytest.param("<https://name.example/> <https://other.example/>", [], id="two"),
    ],
)
def test_broken_links_are_found(text: str, problems: list[str]) -> None:
    pages = {"docs/a.md": text, "docs/b.md": "# What `is` a thing?", "README.md": ""}

    assert link_problems(pages) == problems


def test_workflows_use_the_targets_of_make() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "wheel_test.py"))
    makefile = (ROOT / "Makefile").read_text("utf-8")
    workflows = "\n".join(path.read_text("utf-8") for path in sorted(WORKFLOWS.glob("*.yml")))
    (matrix,) = re.findall(r"python: \[(.*)\]", workflows)

    assert tuple(re.findall(r"[\d.]+", matrix)) == tool["VERSIONS"]
    assert set(re.findall(r"run: make (\w+)", workflows)) == {"test", "docs", "wallets"}
    assert all(f"\n{target}: " in makefile for target in ("test", "docs", "wallets"))


def test_workflows_have_the_least_rights() -> None:
    """Each has its rights, no action can change its major version, and one job publishes."""
    for path in WORKFLOWS.glob("*.yml"):
        text = path.read_text("utf-8")
        rights = re.findall(r"^ *(\S+): write", text, re.MULTILINE)

        assert re.search(r"^permissions:", text, re.MULTILINE)
        assert rights == (["id-token"] if path.name == "publish.yml" else [])
        assert re.findall(r"uses: (?!\S+@(?:v|release/v)\d+$).*", text, re.MULTILINE) == []
