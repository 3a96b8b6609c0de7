"""The pytest plugin of sms4sats-async: three fixtures, so that a program can be tested with it.

pytest loads this file at each start, in any project of the environment. So it imports nothing but
pytest until a fixture is used, and stands beside the package: a file within would bring all of it.
A measurement of coverage, which begins after the plugins are loaded, would miss those lines, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sms4sats_async import Sms4SatsClient
    from sms4sats_async.simulator import ManualClock, Simulator


@pytest.fixture
def sms4sats_clock() -> ManualClock:
    """The clock of simulator and client: it jumps over every wait; by hand if `autojump` is off."""
    from sms4sats_async.simulator import ManualClock  # noqa: PLC0415

    return ManualClock()


@pytest.fixture
def sms4sats_simulator(sms4sats_clock: ManualClock) -> Simulator:
    """The service in miniature, without orders yet; set its `behaviour`, and `script` faults."""
    from sms4sats_async.simulator import Simulator  # noqa: PLC0415

    return Simulator(clock=sms4sats_clock)


@pytest.fixture
def sms4sats_client(sms4sats_simulator: Simulator, sms4sats_clock: ManualClock) -> Sms4SatsClient:
    """A client of that simulator, with a key; there is nothing to close."""
    from sms4sats_async import Sms4SatsClient  # noqa: PLC0415
    from sms4sats_async.testing import API_KEY, http_client  # noqa: PLC0415

    return Sms4SatsClient(
        api_key=API_KEY,
        base_url="https://simulator.invalid",  # nobody asks for that host
        http_client=http_client(sms4sats_simulator),
        clock=sms4sats_clock,
    )
