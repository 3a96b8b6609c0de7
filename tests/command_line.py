"""The command `sms4sats`, run within a test, against a simulator whose clock jumps.

`CLOCK` is the only thing that is replaced. No option of the command could do that.
"""

import json
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import attrs
import pytest

from sms4sats_async.cli import main, session
from sms4sats_async.simulator import Answer, Behaviour, Holder, ManualClock, Simulator
from sms4sats_async.simulator.server import serve


def no_code(**more: Any) -> Behaviour:
    """Paid at once. No code arrives."""
    return Behaviour(pay_delay=0, code_delay=None, **more)


def short(order_id: str) -> str:
    """The form of an ID that the command shows."""
    return f"{order_id[:4]}…{order_id[-4:]}"


@attrs.frozen
class Ended:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def facts(self) -> dict[str, str]:
        """Standard output with a label and a fact in each line."""
        return dict(re.split("  +", line, maxsplit=1) for line in self.out.splitlines())

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Standard output with JSON in each line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def line(self) -> dict[str, Any]:
        """The only line of JSON."""
        (line,) = self.lines
        return line


@attrs.define
class Server:
    """One address for the simulators of all tests: to start a server takes longer than a test."""

    root: str = ""
    service: Simulator = attrs.field(factory=Simulator)

    async def respond(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        return await self.service.respond(method, target, headers, body)


@contextmanager
def served() -> Generator[Server]:
    """Run a server."""
    server = Server()
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serve(server.respond)) as server.root,
    ):
        yield server


@attrs.frozen
class Shell:
    """Runs commands."""

    service: Simulator
    clock: ManualClock
    journal: Path
    root: str
    patch: pytest.MonkeyPatch
    captured: pytest.CaptureFixture[str]

    def __call__(self, *words: str) -> Ended:
        code = main(words)
        out, err = self.captured.readouterr()
        return Ended(code, out, err)

    def order(self, behaviour: Behaviour | None = None) -> str:
        """Order a number and return the order's ID."""
        ended = self("order", "187", "tg", "--json")
        assert ended.code == 0
        order_id = ended.line["order_id"]
        assert isinstance(order_id, str)
        if behaviour is not None:
            self.service.set_behaviour(order_id, behaviour)
        return order_id

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        anyio.run(self.clock.sleep, seconds)

    def holder(self, order_id: str) -> Holder:
        return self.service.holder(order_id)

    def cancel_ages(self) -> list[float]:
        """How old the only order was at each cancel."""
        (order,) = self.service.orders
        cancels = [each.time for each in self.service.requests if each.path == "/cancelorder"]
        return [time - order.created_at for time in cancels]


def new_shell(
    server: Server,
    patch: pytest.MonkeyPatch,
    folder: Path,
    captured: pytest.CaptureFixture[str],
) -> Shell:
    """Return a shell with a service of its own, whose orders are paid at once."""
    clock = ManualClock()
    server.service = Simulator(Behaviour(pay_delay=0), clock=clock)
    journal = folder / "here" / "orders.sqlite"
    patch.setattr(session, "CLOCK", clock)
    patch.setenv("SMS4SATS_JOURNAL", str(journal))
    patch.setenv("SMS4SATS_BASE_URL", server.root)
    return Shell(server.service, clock, journal, server.root, patch, captured)
