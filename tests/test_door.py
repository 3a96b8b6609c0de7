"""The door: what can be imported, what it costs, and that all of it says what it is for."""

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

(FOLDER,) = map(Path, sms4sats_async.__path__)
TESTS = Path(__file__).parent

# What DESIGN promises at the door and is there today. Other names may come.
PROMISED = """
    Sms4SatsClient DEFAULT_BASE_URL RetryPolicy Clock OrderWatch Order ReceiveOrder SendOrder
    FundOrder OrderStatus OrderState Money SmsStatus Cancellation CancelOutcome MINIMUM_CANCEL_AGE
    AUTOMATIC_CANCEL_AGE RequestOutcome
    Sms4SatsError InvalidArgumentError ClientStateError TransportError RequestTimeoutError
    InvalidResponseError APIError BadRequestError AuthenticationError RateLimitError ServerError
    UnableToSaveDataError OrderError CodeAlreadyReceivedError OrderRefundedError CodeTimeoutError
    CodeTimeoutRefundedError
    Event OrderCreated AttemptFailed Waiting StatusPolled OrderCancelled
    Country Service RentalCountry Price ComputedPrice FundingHistory FundingEntry
    Invoice parse_webhook
    OrderJournal MemoryJournal SqliteJournal JournalEntry JournalChange JournalError JournalFailed
    OpenOrder Scheduler CancelScheduler CancelResult CancelResults CancelFinished
"""


def in_a_fresh_python(code: str) -> Any:
    """What `code` prints, run where nothing has been imported yet."""
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(FOLDER.parent)},
        capture_output=True,
        check=True,
        text=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", PROMISED.split())
def test_a_promised_name_is_at_the_door(name: str) -> None:
    assert name in sms4sats_async.__all__
    assert getattr(sms4sats_async, name) is not None


def test_the_list_of_names_is_sorted_and_true() -> None:
    """Constants first, then classes, each by the alphabet; nothing public is left out."""
    listed = sms4sats_async.__all__
    public = {
        name
        for name, value in vars(sms4sats_async).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }

    assert listed == sorted(listed, key=lambda name: (not name.isupper(), name))
    assert len(set(listed)) == len(listed)
    assert set(listed) == public


def test_a_star_import_brings_exactly_the_listed_names() -> None:
    names = in_a_fresh_python(
        "from sms4sats_async import *\n"
        "names = sorted(name for name in globals() if not name.startswith('_'))\n"
        "import json; print(json.dumps(names))"
    )

    assert names == sorted(sms4sats_async.__all__)


def test_importing_the_package_imports_no_http_library() -> None:
    """A bot that starts has the client at once, and pays for the HTTP library it uses."""
    loaded = in_a_fresh_python(
        "import json, sms4sats_async, sys; print(json.dumps(sorted(sys.modules)))"
    )
    roots = {name.partition(".")[0] for name in loaded}

    assert "sms4sats_async" in roots
    assert roots.isdisjoint({"httpx", "httpx2", "httpcore", "aiohttp", "uvicorn", "rich", "trio"})


# --- what it says ---------------------------------------------------------------------------------


def documented_constants() -> set[str]:
    """The constants of the package that a text stands under, as documentation tools read it."""
    found: set[str] = set()
    for path in FOLDER.glob("*.py"):
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
    """What of a public name has no docstring of its own: itself, or its public methods."""
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


@pytest.mark.parametrize("name", sms4sats_async.__all__)
def test_a_public_name_says_what_it_is_for(name: str) -> None:
    assert list(undocumented(name, getattr(sms4sats_async, name))) == []


def test_a_public_name_that_says_nothing_is_seen() -> None:
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


# --- the tests themselves -------------------------------------------------------------------------

LOOPS = {"time", "asyncio", "anyio", "trio"}
# Seconds between two looks at another thread or a socket, where there is nothing to wait on.
LONGEST_LOOK = 0.05


def sleeps(source: str) -> list[int]:
    """The lines where a test waits for real time."""
    lines: list[int] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module=module, names=names) if module in LOOPS:
                lines += [node.lineno for name in names if name.name == "sleep"]
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=loop), attr="sleep" | "sleep_until"),
                args=[seconds],
            ) if loop in LOOPS:
                short = isinstance(seconds, ast.Constant) and isinstance(seconds.value, int | float)
                if not short or ast.literal_eval(seconds) > LONGEST_LOOK:
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
def test_a_test_that_waits_is_seen(source: str, lines: list[int]) -> None:
    assert sleeps(source) == lines
