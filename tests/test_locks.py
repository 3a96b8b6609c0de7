"""The lock files name everything that the project and its packages require, with the extras."""

import re
import tomllib
from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FILES = ("demo.txt", "dev.txt", "test.txt")
PIN = re.compile(r"^[A-Za-z0-9].*==[^\\\n]*", re.MULTILINE)


def read_lock(name: str) -> str:
    return (ROOT / "requirements" / name).read_text("utf-8")


def canonical(extras: Iterable[str]) -> set[str]:
    return {canonicalize_name(extra) for extra in extras}


def pins(text: str) -> dict[str, set[str]]:
    """Return the names that a lock file pins for this environment, each with its extras."""
    found: dict[str, set[str]] = {}
    for line in PIN.findall(text):
        pin = Requirement(line.strip())
        if pin.marker is None or pin.marker.evaluate():
            found.setdefault(canonicalize_name(pin.name), set()).update(canonical(pin.extras))
    return found


def unmet(
    needs: Iterable[str], pinned: dict[str, set[str]], extras: Collection[str] = ()
) -> Iterator[str]:
    """Yield each requirement that applies here and that the pins do not name."""
    for need in map(Requirement, needs):
        marker = need.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        found = pinned.get(canonicalize_name(need.name))
        if found is None or not canonical(need.extras) <= found:
            yield str(need)


def unmet_by_packages(pinned: dict[str, set[str]]) -> list[str]:
    return [
        f"{name} needs {need}"
        for name, extras in pinned.items()
        for need in unmet(requires(name) or (), pinned, extras)
    ]


def requested(project: dict[str, Any], recipe: str) -> Iterator[str]:
    """Yield what a line of `make lock` requests from pyproject.toml."""
    own = project["project"]

    def of_extra(extra: str) -> Iterator[str]:
        for need in own["optional-dependencies"][extra]:
            if need.startswith(f"{own['name']}["):
                for inner in Requirement(need).extras:
                    yield from of_extra(inner)
            else:
                yield need

    def of_group(group: str) -> Iterator[str]:
        for need in project["dependency-groups"][group]:
            if isinstance(need, str):
                yield need
            else:
                yield from of_group(need["include-group"])

    yield from own["dependencies"]
    for extra in re.findall(r"--extra (\S+)", recipe):
        yield from of_extra(extra)
    for group in re.findall(r"--group (\S+)", recipe):
        yield from of_group(group)


def requested_of(name: str) -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    makefile = (ROOT / "Makefile").read_text("utf-8")
    (recipe,) = re.findall(rf"^.*--output-file requirements/{name}$", makefile, re.MULTILINE)
    return list(requested(project, recipe))


def test_each_lock_file_is_checked() -> None:
    assert sorted(path.name for path in (ROOT / "requirements").glob("*.txt")) == list(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_lock_file_names_all_that_the_project_requires(name: str) -> None:
    assert list(unmet(requested_of(name), pins(read_lock(name)))) == []


@pytest.mark.parametrize("name", FILES)
def test_a_lock_file_names_all_that_its_packages_require(name: str) -> None:
    assert unmet_by_packages(pins(read_lock(name))) == []


@pytest.mark.parametrize(
    ("pin", "replacement", "packages_need", "project_needs"),
    [
        pytest.param("coverage[toml]", "coverage", {"pytest-cov"}, set[str](), id="extra"),
        pytest.param("pyright[nodejs]", "pyright", set[str](), {"pyright[nodejs]"}, id="project"),
        pytest.param("iniconfig", "# iniconfig", {"pytest"}, set[str](), id="package"),
    ],
)
def test_an_incomplete_lock_file_is_reported(
    pin: str, replacement: str, packages_need: set[str], project_needs: set[str]
) -> None:
    pinned = pins(read_lock("dev.txt").replace(f"\n{pin}==", f"\n{replacement}=="))

    assert {line.partition(" ")[0] for line in unmet_by_packages(pinned)} == packages_need
    assert set(unmet(requested_of("dev.txt"), pinned)) == project_needs
