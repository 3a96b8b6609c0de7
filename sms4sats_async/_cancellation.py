"""Tell a cancellation of our own task from one that happened elsewhere."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator


class CancelledElsewhereError(RuntimeError):
    """If foreign code raises a cancellation although this task is not being cancelled."""


@contextmanager
def cancellations_of_others() -> Generator[None]:
    """Raise `CancelledElsewhereError` for a `CancelledError` that is not about this task.

    On asyncio, awaiting a future that another task cancelled raises the same exception as being
    cancelled oneself. Only the task's own count (`cancelling`, Python 3.11) tells them apart.

    Raises:
        CancelledElsewhereError: Foreign code raised a cancellation; it is the `__cause__`.
    """
    try:
        yield
    except BaseException as error:
        if is_of_others(error):
            raise CancelledElsewhereError("a cancellation that was not about this task") from error
        raise


def is_of_others(error: BaseException) -> bool:
    """Return whether an exception is a cancellation that is not about this task."""
    import asyncio  # noqa: PLC0415 - anyio does not know the difference; a Trio program needs none

    if not isinstance(error, asyncio.CancelledError):
        return False
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop of asyncio runs: a worker thread's loop raised it
        return True
    return task is None or task.cancelling() == 0
