"""Fixtures and settings of all tests.

Two plugins run async tests. A marker chooses one:

- `@pytest.mark.anyio` runs a test twice, on asyncio and on Trio. Nearly all tests use it.
- `@pytest.mark.asyncio` (pytest-asyncio) is for behaviour that concerns asyncio only.

A coroutine test without a marker is an error, so no test is skipped silently.
"""

import gc
import os
import signal
from collections.abc import Iterator

import hypothesis
import pytest

# No deadline per example, because it depends on how busy the machine is. `settings.default` is the
# base because hypothesis has another one on CI, which draws the same examples every time.
hypothesis.settings.register_profile("project", hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("project")

# A shell makes its background processes ignore Ctrl-C, and the children of the tests inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Let garbage collection skip the collected tests: they are many, and live until the end."""
    gc.freeze()


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run tests on both event loops; by default, anyio takes those that are installed."""
    backend = request.param
    assert isinstance(backend, str)
    return backend


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the user's settings from the environment: a key, a root, a proxy."""
    for name in list(os.environ):
        # Names of proxies may be in upper or lower case.
        if name.startswith("SMS4SATS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres_server(testrun_uid: str) -> str:
    """The DSN of a PostgreSQL server, which all processes of a test run share."""
    postgres = pytest.importorskip("tests.postgres", reason="asyncpg is not installed")
    dsn: str = postgres.SYSTEM_DSN or postgres.Server(testrun_uid).dsn
    return dsn


@pytest.fixture(scope="session")
def dsn(postgres_server: str) -> Iterator[str]:
    """The DSN of an empty database."""
    from tests.postgres import database  # noqa: PLC0415 - not every Python has a server

    with database(postgres_server) as found:
        yield found
