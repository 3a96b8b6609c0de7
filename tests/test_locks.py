"""The lock files name everything that their packages require, with the extras that it needs."""

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
PINNED = re.compile(r"^[A-Za-z0-9].*==[^\\]*", re.MULTILINE)


def locked(text: str) -> dict[str, set[str]]:
    """Return the pinned names of this environment, each with its extras."""
    found: dict[str, set[str]] = {}
    for line in PINNED.findall(text):
        requirement = Requirement(line.strip())
        if requirement.marker is None or requirement.marker.evaluate():
            found.setdefault(canonicalize_name(requirement.name), set()).update(requirement.extras)
    return found


def missing(pinned: dict[str, set[str]]) -> Iterator[str]:
    """Return each requirement of a pinned package that is not pinned itself."""
    for name, extras in pinned.items():
        try:
            wanted = requires(name) or []
        except PackageNotFoundError:  # of another group, and not installed here
            continue
        for text in wanted:
            need = Requirement(text)
            marker = need.marker
            if marker and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                continue
            if not need.extras <= pinned.get(canonicalize_name(need.name), {"nothing"}):
                yield f"{name} needs {need}"
            if canonicalize_name(need.name) not in pinned:
                yield f"{name} needs {need}"


@pytest.mark.parametrize("name", ["dev.txt", "test.txt", "demo.txt"])
def test_a_lock_file_names_all_that_its_packages_require(name: str) -> None:
    assert list(missing(locked((REQUIREMENTS / name).read_text("utf-8")))) == []


def test_a_lock_file_without_an_extra_is_incomplete() -> None:
    pinned = {"pytest-cov": set[str](), "coverage": set[str](), "pluggy": {"x"}, "pytest": {"x"}}
    assert [line.partition("[")[0] for line in missing(pinned)][:1] == ["pytest-cov needs coverage"]
