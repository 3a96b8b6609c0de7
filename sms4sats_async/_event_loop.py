"""The running event loop, which anyio 4.11 and later wrap."""

from typing import Any

from anyio.lowlevel import current_token


def native_loop() -> Any:  # noqa: ANN401 - asyncio's and Trio's have no common type
    """Return asyncio's event loop, or Trio's token, which has `run_sync_soon`."""
    token: Any = current_token()
    return getattr(token, "native_token", token)
