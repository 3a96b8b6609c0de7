"""The public API: what can be imported, what the import costs, and that each name is documented."""

import ast
import enum
import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import sms4sats_async
from sms4sats_async import wallets

(FOLDER,) = map(Path, sms4sats_async.__path__)


def in_a_fresh_python(code: str) -> Any:
    """Return what `code` prints as JSON, in a process that has imported nothing yet."""
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(FOLDER.parent)},
        capture_output=True,
        check=True,
        text=True,
    )
    return json.loads(done.stdout)


def test_all_lists_every_public_name_once_and_sorted() -> None:
    """Constants come first, then classes and functions, both in alphabetical order."""
    listed = sms4sats_async.__all__
    public = {
        name
        for name, value in vars(sms4sats_async).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }

    assert listed == sorted(listed, key=lambda name: (not name.isupper(), name))
    assert len(set(listed)) == len(listed)
    assert set(listed) == public


def test_star_import_brings_exactly_the_names_of_all() -> None:
    names = in_a_fresh_python(
        "from sms4sats_async import *\n"
        "names = sorted(name for name in globals() if not name.startswith('_'))\n"
        "import json; print(json.dumps(names))"
    )

    assert names == sorted(sms4sats_async.__all__)


def test_importing_the_package_imports_no_http_library() -> None:
    """A program imports only the HTTP library that it uses, and only when it uses it."""
    loaded = in_a_fresh_python(
        "import json, sms4sats_async, sys; print(json.dumps(sorted(sys.modules)))"
    )
    roots = {name.partition(".")[0] for name in loaded}

    assert "sms4sats_async" in roots
    assert roots.isdisjoint({"httpx", "httpx2", "httpcore", "aiohttp", "uvicorn", "rich", "trio"})


# --- the docstrings -------------------------------------------------------------------------------


def documented_constants() -> set[str]:
    """Return the constants that a docstring follows, as documentation tools read it."""
    found: set[str] = set()
    for path in FOLDER.rglob("*.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for node, after in pairwise(body):
            match node, after:
                case (
                    ast.AnnAssign(target=ast.Name(id=name))
                    | ast.Assign(targets=[ast.Name(id=name)]),
                    ast.Expr(value=ast.Constant(value=str())),
                ):
                    found.add(name)
                case _:
                    pass
    return found


def undocumented(name: str, value: object) -> Iterator[str]:
    """Yield what has no docstring of its own: the name itself, or its public members."""
    if isinstance(value, types.FunctionType):
        if not value.__doc__:
            yield name
        return
    if not isinstance(value, type):
        if name not in documented_constants():
            yield name
        return
    if not vars(value).get("__doc__"):
        yield name
    for member, inner in vars(value).items():
        public = not member.startswith("_")
        function: object = getattr(inner, "__func__", inner)
        kinds = types.FunctionType | property
        if public and isinstance(function, kinds) and not function.__doc__:
            yield f"{name}.{member}"


@pytest.mark.parametrize(
    ("module", "name"),
    [(module, name) for module in (sms4sats_async, wallets) for name in module.__all__],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_public_name_is_documented(module: types.ModuleType, name: str) -> None:
    assert list(undocumented(name, getattr(module, name))) == []


def test_undocumented_name_is_found() -> None:
    class Silent:
        def method(self) -> None: ...

        @property
        def attribute(self) -> None: ...

        @classmethod
        def made(cls) -> None: ...

    def silent() -> None: ...

    class Inherited(enum.Enum):
        pass

    assert list(undocumented("Silent", Silent)) == [
        *("Silent", "Silent.method", "Silent.attribute", "Silent.made")
    ]
    assert list(undocumented("silent", silent)) == ["silent"]
    assert list(undocumented("Inherited", Inherited)) in ([], ["Inherited"])
    assert list(undocumented("NO_SUCH_CONSTANT", 5)) == ["NO_SUCH_CONSTANT"]
