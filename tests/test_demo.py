"""`sms4sats demo`: the whole story over a real socket."""

import io
import re

import pytest
from rich.console import Console

from sms4sats_async import OrderOutcome
from sms4sats_async.cli import demo
from sms4sats_async.simulator import ManualClock


@pytest.mark.anyio
async def test_the_demo_tells_the_whole_story() -> None:
    page = io.StringIO()
    console = Console(file=page, width=120, force_terminal=True, color_system=None)

    done = await demo.Demo(console, ManualClock()).run()

    told = page.getvalue()
    assert (done.outcome, done.attempts) == (OrderOutcome.CANCELLED, 3)
    order = [
        "12 times faster",
        "money not paid | create_order",
        "lnbcrt",
        "money held     | a wallet pays",
        "waiting: the service does not cancel younger orders",
        "attempt 1 failed, next in",
        "attempt 2 failed, next in",
        "money refunded | attempt 3: cancelled",
        "get_order_status confirms: refunded",
        "where the money was",
        "Money: refunded.",
    ]
    places = [told.index(text) for text in order]
    assert places == sorted(places)
    assert "left" in told
    assert re.search("[0-9a-f]{64}", told) is None
