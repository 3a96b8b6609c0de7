"""Drive orders with pgqueuer: each job is one step of an order, and enqueues the next one.

    pip install '.[postgres]'

A job has the order's ID, with which anyone can read the code: protect the table of the jobs like
the journal.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from pgqueuer import Job, PgQueuer
from pgqueuer.queries import Queries

from sms4sats_async import JournalError, OrderResult, Sms4SatsClient, Sms4SatsError

STEP = "sms4sats_step"
OUTAGE = timedelta(minutes=1)


def register(
    engine: PgQueuer,
    queries: Queries,
    client: Sms4SatsClient,
    answer: Callable[[OrderResult | Sms4SatsError], None],
) -> None:
    """Let an engine drive orders.

    Args:
        engine: The engine.
        queries: Where the next job is enqueued.
        client: The client. All workers share its journal, which knows the orders.
        answer: Takes each result; an error, if the end of an order is unknown.
    """

    @engine.entrypoint(STEP)
    async def step(job: Job) -> None:
        order_id = (job.payload or b"").decode()
        try:
            after = await client.advance_order(order_id)
        except JournalError:  # nothing was sent
            await start(queries, order_id, OUTAGE)
            return
        except Sms4SatsError as error:
            answer(error)
            return
        if isinstance(after, OrderResult):
            answer(after)
        else:
            await start(queries, order_id, after - datetime.now(UTC))


async def start(queries: Queries, order_id: str, delay: timedelta = timedelta(0)) -> None:
    """Enqueue a step of an order."""
    await queries.enqueue(STEP, order_id.encode(), execute_after=max(delay, timedelta(0)))
