"""What all tests share.

Two plugins drive async tests, and each touches only the tests that ask for it by a marker:

- `@pytest.mark.anyio` runs a test twice, on asyncio and on Trio: the choice for nearly all.
- `@pytest.mark.asyncio` (pytest-asyncio) is for what only a user of asyncio meets.

A coroutine test without a marker is an error, not a test that is skipped in silence.
"""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import anyio.from_thread
import hypothesis
import pytest

from sms4sats_async.simulator import Behaviour, ManualClock, Simulator

# A deadline per example measures how busy the machine is. `settings.default` is kept as the base
# because hypothesis chooses it by the place: on CI it draws the same examples every time.
hypothesis.settings.register_profile("project", hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("project")

# What a script starts in its background ignores Ctrl-C, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Both event loops, by name: without this, anyio takes whichever happen to be installed."""
    backend = request.param
    assert isinstance(backend, str)
    return backend


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of whoever runs it: a key, another service, a proxy."""
    for name in list(os.environ):
        # Proxies are read in either case.
        if name.startswith("SMS4SATS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def service_for_documents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Simulator]:
    """The service that the code in README.md and docs/ talks to (tests/test_documents.py).

    The documents show `Sms4SatsClient()` as a reader would write it. The environment sends it to a
    simulator, and the clock that it takes by default jumps, so nothing of the test has to stand in
    the text. Orders are paid at once and no code comes. What they write, they write elsewhere.
    """
    monkeypatch.chdir(tmp_path)
    clock = ManualClock()
    simulator = Simulator(Behaviour(pay_delay=0, code_delay=None), clock=clock)
    monkeypatch.setattr("sms4sats_async.client.SystemClock", lambda: clock)
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(simulator.serve()) as root,
    ):
        monkeypatch.setenv("SMS4SATS_BASE_URL", root)
        monkeypatch.setenv("SMS4SATS_API_KEY", "example-key")
        log = logging.getLogger("sms4sats_async")
        level = log.level
        yield simulator
        log.setLevel(level)
