"""The event loop that another thread can call, with the tokens of old and new anyio."""

import asyncio
from types import SimpleNamespace

import pytest
import trio.lowlevel

from sms4sats_async import _event_loop


@pytest.mark.anyio
@pytest.mark.parametrize("is_wrapped", [True, False], ids=["from anyio 4.11 on", "before"])
async def test_the_native_loop_is_found_in_each_version_of_anyio(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch, *, is_wrapped: bool
) -> None:
    on_trio = anyio_backend == "trio"
    native = trio.lowlevel.current_trio_token() if on_trio else asyncio.get_running_loop()
    token = SimpleNamespace(native_token=native) if is_wrapped else native
    monkeypatch.setattr(_event_loop, "current_token", lambda: token)

    assert _event_loop.native_loop() is native
    assert hasattr(_event_loop.native_loop(), "run_sync_soon") is on_trio
