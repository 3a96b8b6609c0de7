"""`sms4sats demo`: a whole order over a real socket."""

import io
import re

import pytest
from rich.console import Console

from sms4sats_async import OrderOutcome
from sms4sats_async.cli import demo
from sms4sats_async.simulator import ManualClock


@pytest.mark.anyio
@pytest.mark.parametrize("is_terminal", [True, False])
async def test_the_demo_shows_a_whole_order(*, is_terminal: bool) -> None:
    page = io.StringIO()
    console = Console(file=page, width=120, force_terminal=is_terminal, color_system=None)

    result = await demo.Demo(console, ManualClock()).run()

    text = page.getvalue()
    assert (result.outcome, result.attempts) == (OrderOutcome.CANCELLED, 3)
    order = [
        "12 times faster",
        "create_order",
        "0:00 | money not paid | ordered",
        "lnbcrt",
        "0:00 | money held     | a wallet pays",
        "code_or_refund",
        "money held     | waiting 2:00: the order cannot be cancelled earlier",
        "2:00 | money held     | cancel_order attempt 1 of 4 failed, next in",
        "money held     | cancel_order attempt 2 of 4 failed, next in",
        "money refunded | cancelled, what was paid is refunded",
        "get_order_status confirms: refunded",
        "where the money was",
        "Outcome: cancelled after 3 attempts. Money: refunded.",
    ]
    places = [text.index(line) for line in order]
    assert places == sorted(places)
    assert re.search("0:00 left *\n", text)
    assert re.search("[0-9a-f]{64}", text) is None
