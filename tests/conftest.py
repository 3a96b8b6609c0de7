"""What all tests share.

Two plugins drive async tests, and each touches only the tests that ask for it by a marker:

- `@pytest.mark.anyio` runs a test twice, on asyncio and on Trio: the choice for nearly all.
- `@pytest.mark.asyncio` (pytest-asyncio) is for what only a user of asyncio meets.

A coroutine test without a marker is an error, not a test that is skipped in silence.
"""

import os
import signal

import hypothesis
import pytest

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
