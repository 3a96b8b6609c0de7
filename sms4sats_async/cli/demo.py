"""The main job in a quarter of a minute, on a simulator behind a real socket: `sms4sats demo`.

An order is created and paid, no code arrives, the two minutes pass (faster than in reality), two
cancels fail, the third works, and the order is refunded.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from sms4sats_async import (
    MINIMUM_CANCEL_AGE,
    AttemptFailed,
    Event,
    Order,
    OrderEnded,
    OrderResult,
    Sms4SatsClient,
    StatusPolled,
    Waiting,
)
from sms4sats_async.simulator import Behaviour, Clock, Fault, Simulator

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from rich.console import Console

SPEED: Final = 12.0
"""How much faster than real the demo's time runs: two minutes take ten seconds."""

_FRAME: Final = 0.1


class Demo:
    """One run on `clock`; what it prints goes to `console`."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._simulator = Simulator(Behaviour(number_delay=8.0, code_delay=None), clock=clock)
        self._started = self._clock.now()
        self._state = ""

    async def run(self) -> OrderResult:
        """Run the demo, and return how the order ended."""
        async with self._simulator.serve() as root:
            self._say(f"The simulator runs at {root}. No real money is involved.")
            self._say(f"Time runs {SPEED:g} times faster than in reality.")
            async with Sms4SatsClient(
                base_url=root, clock=self._clock, on_event=self._tell
            ) as client:
                return await self._order_and_cancel(client)

    async def _order_and_cancel(self, client: Sms4SatsClient) -> OrderResult:
        order = await client.create_order(country=187, service="tg")
        self._started = order.created_at.timestamp()
        self._step(f"create_order: {_short(order.order_id)}")
        self._say(f"  hold invoice to pay: {order.invoice[:40]}…{order.invoice[-6:]}")
        self._simulator.pay(order.invoice)
        self._step("a wallet pays the hold invoice")
        self._simulator.script("/cancelorder", *[Fault.unable_to_save_data()] * 2)

        self._step("code_or_refund(order, timeout=60)")
        async with self._bar(order):
            result = await client.code_or_refund(order, timeout=60)

        status = await client.get_order_status(order)
        self._step(f"get_order_status confirms: {status.state.value}")
        self._say(f"  the service says: {status.error}")
        self._say("What the service recorded, and where the money was:")
        self._console.print(self._timeline(order.order_id))
        outcome = "unknown" if result.outcome is None else result.outcome.value
        self._say(
            f"Outcome: {outcome} after {result.attempts} attempts. Money: {result.money.value}."
        )
        return result

    @asynccontextmanager
    async def _bar(self, order: Order) -> AsyncGenerator[None]:
        """Show a bar of the two minutes for as long as the block lasts."""
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[left]:>4} left"),
        )
        total = MINIMUM_CANCEL_AGE.total_seconds()
        with Progress(*columns, console=self._console) as progress:
            bar = progress.add_task("waiting", total=total, left="2:00")

            async def move() -> None:
                while True:
                    age = self._clock.now() - order.created_at.timestamp()
                    left = _minutes(max(0.0, total - age))
                    what = f"waiting ({self._state})" if self._state else "waiting"
                    progress.update(bar, completed=min(age, total), left=left, description=what)
                    await anyio.sleep(_FRAME)

            async with anyio.create_task_group() as group:
                group.start_soon(move)
                yield
                group.cancel_scope.cancel()

    def _tell(self, event: Event) -> None:
        """Show what the client tells while it works."""
        match event:
            case Waiting(reason=reason):
                self._step(f"waiting: {reason}")
            case StatusPolled(status=status) if status.state.value != self._state:
                self._state = status.state.value
                self._step(f"status: {self._state}")
            case AttemptFailed(attempt=attempt, error=error, delay=delay):
                then = "no further attempt" if delay is None else f"next in {delay:.1f} s"
                self._step(f"attempt {attempt} failed, {then}:\n  {error.problem}")
            case OrderEnded(result=OrderResult(outcome=outcome, attempts=attempts)) if outcome:
                self._step(f"attempt {attempts}: {outcome.value}")
            case _:
                pass

    def _timeline(self, order_id: str) -> Table:
        """Return the service's own record of the order."""
        table = Table()
        table.add_column("time", justify="right")
        table.add_column("event")
        table.add_column("money")
        for moment in self._simulator.timeline(order_id):
            table.add_row(self._age(moment.time), moment.text, moment.holder.value)
        return table

    def _step(self, text: str) -> None:
        (order,) = self._simulator.orders
        age = self._age(self._clock.now())
        self._say(f"{age} | money {order.holder.value:<8} | {text}")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def _age(self, moment: float) -> str:
        return _minutes(max(0.0, moment - self._started))


def _minutes(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


def _short(order_id: str) -> str:
    return f"{order_id[:4]}…{order_id[-4:]}"
