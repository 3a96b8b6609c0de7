"""The pytest plugin of sms4sats-async: fixtures for a client, a simulator and their clock.

pytest loads this file at every start, in every project of the environment. So it imports only
pytest until a fixture is used. It is not part of the package: importing a module of the package
would import all of it, before coverage can measure it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sms4sats_async import Sms4SatsClient
    from sms4sats_async.simulator import ManualClock, Simulator


@pytest.fixture
def sms4sats_clock() -> ManualClock:
    """The clock of simulator and client. Every sleep moves it, unless `autojump` is False."""
    from sms4sats_async.simulator import ManualClock  # noqa: PLC0415

    return ManualClock()


@pytest.fixture
def sms4sats_simulator(sms4sats_clock: ManualClock) -> Simulator:
    """A simulator of the service, without orders. Set its `behaviour`, or `script` faults."""
    from sms4sats_async.simulator import Simulator  # noqa: PLC0415

    return Simulator(clock=sms4sats_clock)


@pytest.fixture
def sms4sats_client(sms4sats_simulator: Simulator, sms4sats_clock: ManualClock) -> Sms4SatsClient:
    """A client of the simulator, with an API key. You need not close it."""
    from sms4sats_async import Sms4SatsClient  # noqa: PLC0415
    from sms4sats_async.testing import API_KEY, http_client  # noqa: PLC0415

    return Sms4SatsClient(
        api_key=API_KEY,
        base_url="https://simulator.invalid",  # no request is sent to this host
        http_client=http_client(sms4sats_simulator),
        clock=sms4sats_clock,
    )
