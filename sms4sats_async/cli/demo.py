"""The main job in a quarter of a minute, on a simulator behind a real socket: `sms4sats demo`.

An order is created and paid, no code arrives, the two minutes pass (faster than in reality), two
cancels fail, the third works, and the order is refunded.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final, TextIO, cast

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from sms4sats_async import MINIMUM_CANCEL_AGE, OrderResult, Sms4SatsClient
from sms4sats_async.progress import Progress
from sms4sats_async.simulator import Behaviour, Clock, Fault, Simulator

from .facts import shortened

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

SPEED: Final = 12.0
"""How much faster than real the demo's time runs: two minutes take ten seconds."""

_WAIT: Final = MINIMUM_CANCEL_AGE.total_seconds()
_WIDTH: Final = 30


class Demo:
    """One run on `clock`; what it prints goes to `console`."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._simulator = Simulator(Behaviour(number_delay=8.0, code_delay=None), clock=clock)

    async def run(self) -> OrderResult:
        """Run the demo, and return how the order ended."""
        lines = cast("TextIO", _Lines(self._step))
        async with self._simulator.serve() as root:
            self._say(f"The simulator runs at {root}. No real money is involved.")
            self._say(f"Time runs {SPEED:g} times faster than in reality.")
            progress = Progress(clock=self._clock, display="plain", file=lines)
            async with Sms4SatsClient(
                base_url=root, clock=self._clock, on_event=progress
            ) as client:
                return await self._order_and_cancel(client)

    async def _order_and_cancel(self, client: Sms4SatsClient) -> OrderResult:
        self._say("create_order('germany', 'tg')")
        order = await client.create_order("germany", "tg")
        self._say(f"  order {shortened(order.order_id)}")
        self._say(f"  hold invoice to pay: {order.invoice[:40]}…{order.invoice[-6:]}")
        self._simulator.pay(order.invoice)
        self._step("a wallet pays the hold invoice")
        self._simulator.script("/cancelorder", *[Fault.unable_to_save_data()] * 2)

        self._say("code_or_refund(order, timeout=60)")
        with Live(get_renderable=self._bar, console=self._console):
            result = await client.code_or_refund(order, timeout=60)
        if not self._console.is_terminal:
            self._console.line()  # rich ends the line of the bar on terminals only

        status = await client.get_order_status(order)
        self._step(f"get_order_status confirms: {status.state.value}")
        self._say("What the service recorded, and where the money was:")
        self._console.print(self._timeline(order.order_id))
        outcome = "unknown" if result.outcome is None else result.outcome.value
        self._say(
            f"Outcome: {outcome} after {result.attempts} attempts. Money: {result.money.value}."
        )
        return result

    def _bar(self) -> Table:
        """Return a bar of the two minutes."""
        age = min(self._age(self._clock.now()), _WAIT)
        table = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=_WAIT, completed=age, width=_WIDTH)
        table.add_row("  the first two minutes", bar, f"{_minutes(_WAIT - age)} left")
        return table

    def _timeline(self, order_id: str) -> Table:
        """Return the service's own record of the order."""
        table = Table()
        table.add_column("time", justify="right")
        table.add_column("event")
        table.add_column("money")
        for moment in self._simulator.timeline(order_id):
            age = _minutes(self._age(moment.time))
            table.add_row(age, moment.text, moment.holder.value)
        return table

    def _step(self, text: str) -> None:
        (order,) = self._simulator.orders
        age = _minutes(self._age(self._clock.now()))
        self._say(f"{age} | money {order.holder.value:<8} | {text}")

    def _age(self, moment: float) -> float:
        (order,) = self._simulator.orders
        return max(0.0, moment - order.created_at)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)


class _Lines(io.TextIOBase):
    """Passes each line that `Progress` writes to a function, without the order's name."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def write(self, text: str, /) -> int:
        self._show(text.rstrip().partition(": ")[2])
        return len(text)


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
