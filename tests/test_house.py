"""The house: each file of the package is a room on a floor, and imports only from floors below.

A rule of the house is seen here twice: kept by the package as it is, and broken by a made-up file,
so that a checker that finds nothing cannot pass for a house in order.
"""

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import sms4sats_async

PACKAGE = "sms4sats_async"
DOOR = "__init__"

# From the ground up. A room is a file, or a folder whose files may import each other.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"_wire", "_clock", "_secrets", "_bolt11", "_html"}),
    frozenset({"models"}),
    frozenset({"errors"}),
    frozenset({"events", "invoice", "_arguments", "_lifecycle"}),
    frozenset({"retry", "_decode", "_logging", "_transport", "journal"}),
    frozenset({"_operations"}),
    frozenset({"_exchange"}),
    frozenset({"_watching"}),
    frozenset({"_orders"}),
    frozenset({"_many", "_open"}),
    frozenset({"client"}),
    frozenset({"scheduler"}),
    frozenset({DOOR}),
    frozenset({"progress", "simulator"}),
    frozenset({"testing"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# Those above the door are its users: what they may import is said in full.
GUESTS: Mapping[str, frozenset[str]] = {
    "progress": frozenset({DOOR}),
    "simulator": frozenset({DOOR}),
    "testing": frozenset({DOOR, "simulator"}),
    "cli": frozenset({DOOR, "progress", "simulator"}),
}

HTTP_LIBRARIES = frozenset({"httpx", "httpx2", "httpcore", "aiohttp"})
# The only room below the door that knows them.
HTTP_ROOM = "_transport"

# The package runs on anyio, so that Trio is no afterthought. File -> why it needs asyncio itself.
ASYNCIO_ALLOWED: Mapping[str, str] = {
    "_transport/_aiohttp.py": "aiohttp runs on asyncio alone, and this tells whether it can here",
    "cli/session.py": "the command chose the loop, and a shield keeps off what anyio can cancel",
}


@dataclass(frozen=True)
class Import:
    """A line of a file, and the dotted name it makes that file depend on."""

    line: int
    target: str


def room_of(file: str) -> str:
    """`_transport/httpx.py` is in `_transport`, `client.py` in `client`."""
    return file.partition("/")[0].removesuffix(".py")


def module_of(file: str) -> str:
    """The dotted name of a file: a folder's `__init__.py` is the folder."""
    parts = [PACKAGE, *file.removesuffix(".py").split("/")]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(file: str, source: str, modules: frozenset[str]) -> Iterator[Import]:
    """Every import of a file, wherever it stands: in a function, under TYPE_CHECKING, by a call."""
    package = (
        module_of(file) if file.endswith("__init__.py") else module_of(file).rpartition(".")[0]
    )
    for node in ast.walk(ast.parse(source, file)):
        match node:
            case ast.Import(names=names):
                yield from (Import(node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                above = package.split(".")[: len(package.split(".")) + 1 - level] if level else []
                base = ".".join([*above, *([module] if module else [])])
                for alias in names:
                    # `from package import name` means the file, if there is one of that name.
                    inner = f"{base}.{alias.name}"
                    yield Import(node.lineno, inner if inner in modules else base)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module")
                | ast.Attribute(attr="import_module"),
                args=[first, *_],
            ):
                # An import by a computed name cannot be checked: "?" is on no floor.
                literal = isinstance(first, ast.Constant) and isinstance(first.value, str)
                yield Import(node.lineno, str(ast.literal_eval(first)) if literal else "?")
            case _:
                pass


def broken_rules(files: Mapping[str, str]) -> list[str]:
    """What is wrong with a house, given as its files' paths and sources; empty if nothing."""
    modules = frozenset(map(module_of, files))
    # Where an import leads within the package, file to module, for the search for circles.
    inside: dict[str, list[str]] = {}
    problems: list[str] = []
    for file, source in files.items():
        if room_of(file) not in FLOOR_OF:
            problems.append(f"{file} is on no floor: give it one in FLOORS")
            continue
        inside[module_of(file)] = []
        for found in imports_of(file, source, modules):
            problems += [
                f"{file}:{found.line}: {why}" for rule in RULES if (why := rule(file, found.target))
            ]
            # `from . import x` for something of `__init__` itself is no import of another file.
            if target_room(found.target) == room_of(file) and found.target in modules:
                inside[module_of(file)].append(found.target)
    try:
        TopologicalSorter(inside).prepare()
    except CycleError as error:
        problems.append(f"imports go in a circle: {' -> '.join(reversed(error.args[1]))}")
    # `from x import a, b` breaks a rule once, not twice.
    return list(dict.fromkeys(problems))


def target_room(target: str) -> str | None:
    """The room an import leads to; None outside the package."""
    if target == PACKAGE:
        return DOOR
    if not target.startswith(f"{PACKAGE}."):
        return None
    return target.split(".")[1]


def floor_rule(file: str, target: str) -> str | None:
    """A room imports from floors strictly below its own."""
    room, other = room_of(file), target_room(target)
    if other is None or other == room:
        return None
    if other not in FLOOR_OF:
        return f"there is no room {other}"
    if FLOOR_OF[other] >= FLOOR_OF[room]:
        return f"{other} (floor {FLOOR_OF[other]}) is not below {room} (floor {FLOOR_OF[room]})"
    return None


def guest_rule(file: str, target: str) -> str | None:
    """Above the door, the library is used as anyone would use it."""
    room, other = room_of(file), target_room(target)
    if room not in GUESTS or other is None or other == room or other in GUESTS[room]:
        return None
    return f"{room} does not import {other}, only {', '.join(sorted(GUESTS[room]))}"


def http_rule(file: str, target: str) -> str | None:
    """One room knows HTTP libraries; a guest may, as a user of them."""
    if target.partition(".")[0] not in HTTP_LIBRARIES or room_of(file) in {HTTP_ROOM, *GUESTS}:
        return None
    return f"{target} is for {HTTP_ROOM} only, where HTTP libraries live"


def asyncio_rule(file: str, target: str) -> str | None:
    """No file is for one event loop only, unless it says why."""
    if target.partition(".")[0] != "asyncio" or file in ASYNCIO_ALLOWED:
        return None
    return f"{target} shuts out Trio: use anyio, or say why in ASYNCIO_ALLOWED"


def simulator_rule(file: str, target: str) -> str | None:
    """The simulator's law of an order is its own."""
    if room_of(file) != "simulator" or target_room(target) != "_lifecycle":
        return None
    return "with _lifecycle as the law of both, client and simulator could be wrong alike"


def dynamic_rule(file: str, target: str) -> str | None:
    """An import by name is fine, one by a computed name cannot be checked.

    The HTTP room may: which library it loads depends on whose client it was handed.
    """
    if target != "?" or room_of(file) == HTTP_ROOM:
        return None
    return "a computed name is imported, and no rule can hold that"


RULES: tuple[Callable[[str, str], str | None], ...] = (
    floor_rule,
    guest_rule,
    http_rule,
    asyncio_rule,
    simulator_rule,
    dynamic_rule,
)


def the_house() -> dict[str, str]:
    """Every file of the package as it is imported here, from the source folder or a wheel."""
    (folder,) = map(Path, sms4sats_async.__path__)
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*.py"))
    }


def test_the_house_is_in_order() -> None:
    """Every file of the package keeps every rule."""
    house = the_house()

    assert house
    assert broken_rules(house) == []


def test_every_room_stands_on_one_floor() -> None:
    """A room named on two floors would silently stand on the upper one."""
    assert len(FLOOR_OF) == sum(map(len, FLOORS))


def test_exceptions_are_for_files_that_exist() -> None:
    """An exception outlives its reason if nobody removes it."""
    assert set(ASYNCIO_ALLOWED) <= set(the_house())
    assert all(ASYNCIO_ALLOWED.values())


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(
            {"new.py": ""},
            ["new.py is on no floor: give it one in FLOORS"],
            id="file-without-a-floor",
        ),
        pytest.param(
            {"new/inner.py": ""},
            ["new/inner.py is on no floor: give it one in FLOORS"],
            id="folder-without-a-floor",
        ),
        pytest.param(
            {"models.py": "import sms4sats_async.client"},
            ["models.py:1: client (floor 10) is not below models (floor 1)"],
            id="up",
        ),
        pytest.param(
            {"retry.py": "from ._decode import a, b"},
            ["retry.py:1: _decode (floor 4) is not below retry (floor 4)"],
            id="sideways",
        ),
        pytest.param(
            {"errors.py": "from . import events", "events.py": ""},
            ["errors.py:1: events (floor 3) is not below errors (floor 2)"],
            id="relative-file",
        ),
        pytest.param(
            {"errors.py": "from sms4sats_async import events", "events.py": ""},
            ["errors.py:1: events (floor 3) is not below errors (floor 2)"],
            id="absolute-file",
        ),
        pytest.param(
            {"_transport/inner.py": "from ..client import Sms4SatsClient"},
            ["_transport/inner.py:1: client (floor 10) is not below _transport (floor 4)"],
            id="relative-from-a-folder",
        ),
        pytest.param(
            {"_transport/__init__.py": "from ..client import Sms4SatsClient"},
            ["_transport/__init__.py:1: client (floor 10) is not below _transport (floor 4)"],
            id="relative-from-a-folder-itself",
        ),
        pytest.param(
            {"models.py": "if TYPE_CHECKING:\n    from .client import Sms4SatsClient"},
            ["models.py:2: client (floor 10) is not below models (floor 1)"],
            id="under-type-checking",
        ),
        pytest.param(
            {"client.py": "def f():\n    from sms4sats_async import RetryPolicy"},
            ["client.py:2: __init__ (floor 12) is not below client (floor 10)"],
            id="door-from-behind-in-a-function",
        ),
        pytest.param(
            {"client.py": "import sms4sats_async.cellar"},
            ["client.py:1: there is no room cellar"],
            id="no-such-room",
        ),
        pytest.param(
            {"cli/main.py": "from sms4sats_async.models import Price"},
            ["cli/main.py:1: cli does not import models, only __init__, progress, simulator"],
            id="guest-behind-the-door",
        ),
        pytest.param(
            {"cli/main.py": "from sms4sats_async import testing", "testing.py": ""},
            ["cli/main.py:1: cli does not import testing, only __init__, progress, simulator"],
            id="guest-of-a-guest",
        ),
        pytest.param(
            {"simulator/app.py": "import sms4sats_async.cli"},
            [
                "simulator/app.py:1: cli (floor 15) is not below simulator (floor 13)",
                "simulator/app.py:1: simulator does not import cli, only __init__",
            ],
            id="simulator-and-cli",
        ),
        pytest.param(
            {"simulator/law.py": "from .._lifecycle import TABLE"},
            [
                "simulator/law.py:1: simulator does not import _lifecycle, only __init__",
                (
                    "simulator/law.py:1: with _lifecycle as the law of both, "
                    "client and simulator could be wrong alike"
                ),
            ],
            id="simulator-and-lifecycle",
        ),
        *(
            pytest.param(
                {"_exchange.py": source},
                [f"_exchange.py:1: {name} is for _transport only, where HTTP libraries live"],
                id=source.replace(" ", "-"),
            )
            for source, name in (
                ("import aiohttp", "aiohttp"),
                ("import httpcore as core", "httpcore"),
                ("import httpx", "httpx"),
                ("from httpx2 import AsyncClient", "httpx2"),
                ("from httpx._config import Timeout", "httpx._config"),
                ("importlib.import_module('httpx')", "httpx"),
            )
        ),
        pytest.param(
            {"_exchange.py": "__import__(name)"},
            ["_exchange.py:1: a computed name is imported, and no rule can hold that"],
            id="computed-name",
        ),
        pytest.param(
            {"_clock.py": "from asyncio import sleep"},
            ["_clock.py:1: asyncio shuts out Trio: use anyio, or say why in ASYNCIO_ALLOWED"],
            id="asyncio",
        ),
        pytest.param(
            {"cli/demo.py": "import asyncio.events"},
            [
                (
                    "cli/demo.py:1: asyncio.events shuts out Trio: "
                    "use anyio, or say why in ASYNCIO_ALLOWED"
                )
            ],
            id="asyncio-above-the-door",
        ),
        pytest.param(
            {
                "_transport/__init__.py": "from ._one import A",
                "_transport/_one.py": "from . import _two",
                "_transport/_two.py": "from ._one import B",
            },
            [
                (
                    "imports go in a circle: sms4sats_async._transport._one -> "
                    "sms4sats_async._transport._two -> sms4sats_async._transport._one"
                )
            ],
            id="circle-in-a-folder",
        ),
    ],
)
def test_a_broken_rule_is_seen(files: dict[str, str], expected: list[str]) -> None:
    """Each rule of the house turns red on a house that breaks it, and says where."""
    assert broken_rules(files) == expected


def test_a_house_in_order_is_not_blamed() -> None:
    """What the rules allow passes: down, within a folder, by the door, and other packages."""
    files = {
        "__init__.py": "from .client import Sms4SatsClient",
        "client.py": "import attrs\nfrom . import errors, models\nfrom .retry import x",
        "errors.py": "from sms4sats_async.models import OrderStatus",
        "models.py": "import enum",
        "retry.py": "import asyncio_like_name, httpxyz",
        "_transport/__init__.py": "from ._httpx import HttpxTransport",
        "_transport/_httpx.py": "import httpx\nfrom .._wire import Request\nfrom . import _base",
        "_transport/_own.py": "importlib.import_module(library)",
        "_transport/_base.py": "import anyio",
        "_wire.py": "",
        "simulator/__init__.py": "from ._app import Simulator",
        "simulator/_app.py": "from sms4sats_async import OrderStatus",
        "testing.py": "from sms4sats_async.simulator import Simulator",
        "cli/__init__.py": "",
        "cli/demo.py": "import httpx\nfrom sms4sats_async import simulator, Sms4SatsClient",
    }

    assert broken_rules(files) == []
