"""The pages under docs/ say all there is to say, once, and what is drawn in them is up to date.

That they can be built without a warning is for `make docs`; here nothing needs Sphinx.
"""

import re
import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import sms4sats_async
from sms4sats_async import Sms4SatsClient, _operations, progress, simulator
from sms4sats_async._operations import Operation

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

MODULE = re.compile(r"\.\. currentmodule:: ([\w.]+)")
DIRECTIVE = re.compile(r"\.\. auto(?:class|exception|function|method|data):: ([\w.]+)")


def described() -> Counter[str]:
    """The full name of everything that has a place in the reference, and how many it has."""
    names: Counter[str] = Counter()
    for page in sorted((DOCS / "reference").glob("*.md")):
        text = page.read_text("utf-8")
        (module,) = set(MODULE.findall(text))
        names.update(f"{module}.{name}" for name in DIRECTIVE.findall(text))
    return names


def public_methods(kind: type) -> list[str]:
    return [name for name in vars(kind) if not name.startswith("_")]


def test_every_public_name_has_one_place_in_the_reference() -> None:
    """What can be imported is described, nothing is twice, and nothing else is."""
    expected = [
        *(f"sms4sats_async.{name}" for name in sms4sats_async.__all__),
        *(f"sms4sats_async.Sms4SatsClient.{name}" for name in public_methods(Sms4SatsClient)),
        *(f"sms4sats_async.progress.{name}" for name in progress.__all__),
        *(f"sms4sats_async.simulator.{name}" for name in simulator.__all__),
    ]

    assert described() == Counter(expected)


def test_every_endpoint_is_among_what_is_known_of_the_service() -> None:
    """docs/service.md says of each endpoint what is known of it."""
    page = (DOCS / "service.md").read_text("utf-8")
    endpoints: list[Operation[Any]] = [
        each for each in vars(_operations).values() if isinstance(each, Operation)
    ]

    assert endpoints
    for endpoint in endpoints:
        assert re.search(rf"`{endpoint.method} {re.escape(endpoint.path)}[?`]", page)


def test_the_states_are_drawn_from_the_table() -> None:
    """docs/states.md and docs/states.svg are what tools/draw_states.py writes."""
    tool = runpy.run_path(str(ROOT / "tools" / "draw_states.py"))

    for path, content in tool["written"]().items():
        assert path.read_text("utf-8") == content, "run `make docs`"


def test_the_pages_fetch_nothing() -> None:
    """No page, style or setting of ours names anything that a browser would fetch elsewhere."""
    assert not re.search(r"intersphinx|https?:", (DOCS / "conf.py").read_text("utf-8"))
    assert not re.search(r"@import|url\(", (DOCS / "_static" / "page.css").read_text("utf-8"))
    svg = (DOCS / "states.svg").read_text("utf-8")
    assert re.findall(r"https?://[^\"]+", svg) == ["http://www.w3.org/2000/svg"]
