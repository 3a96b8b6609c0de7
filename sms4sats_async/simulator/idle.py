"""Wait until all other tasks of the event loop are blocked, including those that wait for a thread.

A task that waits for a thread looks like any blocked task, so the threads are checked too:

- A worker thread of `anyio.to_thread.run_sync` holds a token of anyio's default limiter.
- Any other thread, such as that of a `SqliteJournal`, can have a function `sms4sats_jobs`. It
  returns two numbers: how many jobs were given to the thread, and how many are done. A job is given
  before a task waits for it. It is done after the thread has woken that task.
"""

import threading
import time
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread

from sms4sats_async._event_loop import native_loop

__all__ = ["LONGEST_WORK", "IdleWatch"]

_ROUNDS = 100
"""How often the other tasks can run before the check whether they are all blocked."""

_PAUSE = 0.001
"""Real seconds between two checks of a thread that works."""

LONGEST_WORK = 2.0
"""Real seconds after which a worker thread counts as blocked."""

_Jobs = dict[threading.Thread, tuple[int, int]]


class IdleWatch:
    """Waits until the other tasks of an event loop are blocked."""

    def __init__(self) -> None:
        """Start without any knowledge of threads."""
        self._blocked: set[object] = set()

    async def wait(self) -> None:
        """Let the other tasks run until all of them wait, and none of them for a thread.

        A worker thread may itself wait for something that never comes while this waits, such as the
        end of a sleep. So it counts as blocked after two real seconds.
        """
        jobs: _Jobs | None = None
        # A task may give a job and be woken while the tasks run. So the threads must be idle, and
        # the jobs unchanged, before and after.
        while jobs is None or jobs != _jobs() or self._workers():
            jobs = await self._wait_for_threads()
            # On asyncio, `wait_all_tasks_blocked` sleeps for 0.1 s whenever it finds a task that
            # can run. The checkpoints before it make that rare.
            if not hasattr(native_loop(), "run_sync_soon"):
                for _ in range(_ROUNDS):
                    await anyio.lowlevel.checkpoint()
            await anyio.wait_all_tasks_blocked()

    async def _wait_for_threads(self) -> _Jobs:
        """Wait until no thread works, and return the finished jobs."""
        deadline = time.monotonic() + LONGEST_WORK
        while True:
            jobs, workers = _jobs(), self._workers()
            if time.monotonic() > deadline:
                self._blocked |= workers
            if workers <= self._blocked and all(given == done for given, done in jobs.values()):
                return jobs
            await anyio.sleep(_PAUSE)

    def _workers(self) -> set[object]:
        """Return the worker threads that work, by the borrowers of their tokens."""
        limiter = anyio.to_thread.current_default_thread_limiter()
        borrowers: set[object] = set(limiter.statistics().borrowers)
        self._blocked &= borrowers
        return borrowers - self._blocked


def _jobs() -> _Jobs:
    """Return the number of given and of done jobs of each thread that counts them."""
    threads: list[Any] = threading.enumerate()
    return {
        thread: thread.sms4sats_jobs() for thread in threads if hasattr(thread, "sms4sats_jobs")
    }
