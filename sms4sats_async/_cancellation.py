"""Tell a cancellation of our own task from one that happened elsewhere."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from anyio import get_cancelled_exc_class

if TYPE_CHECKING:
    from collections.abc import Generator


class CancelledElsewhereError(RuntimeError):
    """If foreign code raises a cancellation although this task is not being cancelled."""


@contextmanager
def cancellations_of_others() -> Generator[None]:
    """Raise `CancelledElsewhereError` for a `CancelledError` that is not about this task.

    On asyncio, awaiting a future that somebody cancelled raises the same exception as being
    cancelled oneself. Only the task's own count (`cancelling`, Python 3.11) tells them apart. Trio
    has no such case.

    Raises:
        CancelledElsewhereError: Foreign code raised a cancellation; it is the `__cause__`.
    """
    try:
        yield
    except get_cancelled_exc_class() as error:
        if _is_about_this_task(error):
            raise
        raise CancelledElsewhereError("a cancellation that was not about this task") from error


def _is_about_this_task(error: BaseException) -> bool:
    import asyncio  # noqa: PLC0415 - anyio does not know the difference; a Trio program needs none

    if not isinstance(error, asyncio.CancelledError):
        return True
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
