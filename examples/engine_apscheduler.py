"""Drive orders with APScheduler: each job is one step of an order, and plans the next one.

    pip install . 'apscheduler<4'

A job has the order's ID, with which anyone can read the code: protect a store of the jobs like the
journal.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sms4sats_async import JournalError, OrderResult, Sms4SatsClient, Sms4SatsError

OUTAGE = timedelta(minutes=1)


class Steps:
    """The steps of orders, as jobs.

    Args:
        engine: The engine, an `AsyncIOScheduler` of APScheduler 3.
        client: The client. Its journal knows the orders.
        answer: Takes each result; an error, if the end of an order is unknown.
    """

    def __init__(
        self,
        engine: Any,  # noqa: ANN401 - it has no types
        client: Sms4SatsClient,
        answer: Callable[[OrderResult | Sms4SatsError], None],
    ) -> None:
        self._engine = engine
        self._client = client
        self._answer = answer

    def plan(self, order_id: str, at: datetime) -> None:
        """Plan a step of an order, also a late one: it has its own deadline in the journal."""
        self._engine.add_job(
            self._step, "date", run_date=at, args=[order_id], misfire_grace_time=None
        )

    async def _step(self, order_id: str) -> None:
        try:
            after = await self._client.advance_order(order_id)
        except JournalError:  # nothing was sent
            self.plan(order_id, datetime.now(UTC) + OUTAGE)
        except Sms4SatsError as error:
            self._answer(error)
        else:
            if isinstance(after, OrderResult):
                self._answer(after)
            else:
                self.plan(order_id, after)
