"""A scheduler for any number of workers: each drives the orders that it has claimed."""

import random
import time
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import anyio
import attrs

from sms4sats_async import _validate as validate
from sms4sats_async._clock import time_span
from sms4sats_async._orders.many import AT_ONCE
from sms4sats_async._orders.steps import OrderContext, check_root, claim_if_ours
from sms4sats_async._process import has_died
from sms4sats_async.client import Sms4SatsClient, order_context
from sms4sats_async.errors import InvalidArgumentError, JournalError
from sms4sats_async.journal import JournalChange, JournalEntry
from sms4sats_async.journal.entry import both, defer, record_intent, release_claim
from sms4sats_async.journal.recorder import Recorder
from sms4sats_async.journal.rows import DamagedRowError, microseconds
from sms4sats_async.models import Order
from sms4sats_async.results import OrderResult
from sms4sats_async.scheduler import OrderScheduler

from . import queue
from .connection import Link, explained
from .journal import Follow, Pairs, PostgresJournal
from .schema import Connection

MOST_CLAIMED: Final = 20_000
"""Orders that one worker claims at most. The others wait for another worker, or for their turn."""

_BATCH: Final = 200
"""Orders that are claimed in one transaction."""

_LOOK: Final = 5.0
"""Seconds between two looks for wake-ups, if no message comes."""

_SWEEP: Final = 8.0
"""Seconds between two sweeps, on average."""

_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 5.0


class PostgresScheduler(OrderScheduler):
    """An `OrderScheduler` of which any number may run on one database, on any number of machines.

    Each worker claims orders, drives them to their codes or refunds, and renews the claims. Others
    go on with the orders of a worker that died, once its claims have ended. That is within a
    minute, and within 15 seconds on the same machine.

    A result comes in the worker that drove the order, so read `results()` in each. A process that
    only adds or removes orders needs no `run`. `run` and `results` survive an outage of the
    database.

    Args:
        client: The client to send with; its journal is a `PostgresJournal`. You own both.
        concurrency: How many requests are under way at the same time, at most; more than the
            client's 100 connections count as 100. It does not bound the orders.
        timeout: Seconds (or a timedelta) to wait for the code of a pending order that has no
            recorded deadline, from `add`, or from when a worker claims it.

    Raises:
        InvalidArgumentError: If an argument is invalid.
    """

    _shared = True

    def __init__(
        self,
        client: Sms4SatsClient,
        *,
        concurrency: int = 20,
        timeout: float | timedelta = 0,
    ) -> None:
        self._journal = _journal_of(client)
        super().__init__(client, concurrency=concurrency, timeout=timeout)
        self._link = Link(self._journal.dsn, self._journal.check, self._listen)
        self._woken = anyio.Event()
        self._due: set[str] = set()

    def _context_of(self, client: Sms4SatsClient) -> OrderContext:
        context = order_context(client)
        recorder = Recorder(
            _WakingJournal(self._journal, self._wake),
            base_url=context.recorder.base_url,
            clock=context.clock,
            report=context.report,
        )
        return attrs.evolve(context, recorder=recorder)

    async def add(
        self,
        order: Order | str,
        *,
        timeout: float | timedelta | None = None,
        not_before: datetime | None = None,
    ) -> None:
        """Record an order for the workers; call it again to change the deadline.

        The order and the wake-up of a worker are written in one transaction.

        Args:
            order: The order, or its id. An id that the journal does not know counts as created now.
            timeout: Seconds (or a timedelta) from now to wait for the code. None keeps the recorded
                deadline, or takes the scheduler's `timeout` where none is recorded.
            not_before: With a time zone: leave the order alone from the deadline until then.

        Raises:
            InvalidArgumentError: If an argument is invalid, or the order belongs to another service
                root.
            JournalError: The database cannot be used. The order is added when it is back, if this
                process lives.
        """
        order_id = validate.order_id(order)
        if isinstance(order, Order):
            validate.aware("created_at", order.created_at)
        limit = None if timeout is None else validate.seconds("timeout", timeout)
        if not_before is not None:
            not_before = validate.aware("not_before", not_before)
        recorder = self._context.recorder
        now = recorder.now()
        intent = record_intent(
            order,
            now,
            recorder.base_url,
            code_deadline=None if limit is None else now + time_span(limit),
            default_deadline=now + time_span(self._timeout),
            not_before=not_before,
        )
        try:
            (entry,) = await recorder.write([(order_id, intent)])
        except JournalError as error:
            error.order_id = order_id
            raise
        assert entry is not None  # noqa: S101 - an intent adds an entry
        check_root(self._context, entry)

    async def remove(self, order: Order | str) -> None:
        """Leave an order to the service, which refunds it automatically after 21 minutes.

        A request that is under way goes on. A worker that drives the order leaves it alone from its
        next step on. The workers read how it ended after those 21 minutes.

        Args:
            order: The order, or its id.

        Raises:
            InvalidArgumentError: If the id is invalid.
            JournalError: The database cannot be used. The order is removed when it is back, if this
                process lives.
        """
        order_id = validate.order_id(order)
        self._queue.remove(order_id)
        change: JournalChange = both(defer, release_claim(self._owner))
        await self._context.recorder.write([(order_id, change)])

    # --- the worker -------------------------------------------------------------------------------

    async def _resume(self) -> None:
        """Raise now if the database or its queue cannot be used."""
        await self._journal.read(partial(queue.check, schema=self._journal.schema))

    async def _drive(self) -> None:
        try:
            await self._queue.run(beside=self._claim_orders)
        finally:
            with anyio.CancelScope(shield=True):
                await self._link.close()

    async def _claim_orders(self) -> None:
        """Claim orders for which there is a wake-up, and sweep for orders without one."""
        delay, sweep_at, has_more = 0.0, 0.0, False
        while True:
            await anyio.sleep(delay)
            self._woken = anyio.Event()
            # A worker that cannot keep up leaves what is free to others.
            is_busy = self._queue.urgent > _BATCH or len(self) >= MOST_CLAIMED
            most = 0 if is_busy else min(_BATCH, MOST_CLAIMED - len(self))
            try:
                connection = await self._link.connected()
                taken = await self._take(connection, most) if most else ()
                is_drained = len(taken) < most
                self._due.update(taken)
                await self._claim([*self._due][:AT_ONCE])
                if (has_more and is_drained) or time.monotonic() >= sweep_at:
                    # Not before the claims: what was taken has no wake-up any more.
                    has_more = await self._sweep(connection)
                    sweep_at = time.monotonic() + _SWEEP * random.uniform(0.8, 1.2)  # noqa: S311
                    is_drained = is_drained and not has_more
            except Exception as error:  # noqa: BLE001 - an outage, which ends some time
                self._link.drop()
                if delay == 0:
                    known = error if isinstance(error, JournalError) else None
                    failure = known or explained(error, "cannot be used")
                    self._context.recorder.complain(None, failure)
                delay = min(max(_FIRST_DELAY, 2 * delay), _LONGEST_DELAY)
                continue
            delay = 0.0
            if (is_busy or is_drained) and not self._due:
                with anyio.move_on_after(_FIRST_DELAY if is_busy else _LOOK):
                    await self._woken.wait()

    async def _take(self, connection: Connection, most: int) -> Sequence[str]:
        root = self._context.recorder.base_url
        return await queue.take(connection, self._journal.schema, root, most)

    async def _sweep(self, connection: Connection) -> bool:
        schema, recorder = self._journal.schema, self._context.recorder
        now = microseconds(recorder.now()) - self._journal.shift
        drivers = await queue.drivers(connection, schema, now)
        dead = [name for name in drivers if has_died(name)]
        return await queue.sweep(connection, schema, recorder.base_url, now, dead)

    async def _claim(self, references: Collection[str]) -> None:
        """Claim orders by their keys or ids, and drive those that could be claimed."""
        if not references:
            return
        recorder, change = self._context.recorder, claim_if_ours(self._context, self._owner)
        entries: Sequence[JournalEntry | None]
        self._due.difference_update(references)  # before the write: a change may come during it
        try:
            entries = await recorder.write([(reference, change) for reference in references])
        except JournalError as error:
            if not isinstance(error.__cause__, DamagedRowError):
                self._due.update(references)
                raise
            # One row that is damaged costs no other order.
            entries = [await recorder.note(None, change, key=each) for each in references]
        now, waiting = recorder.now(), set(self._store.order_ids)
        ours = [
            (entry, entry.order_id, entry.claimed_until)
            for entry in entries
            if entry is not None and entry.claimed_by == self._owner
        ]
        removed: list[tuple[str, JournalChange]] = []
        for entry, order_id, claimed_until in ours:
            if order_id is None or claimed_until is None or order_id in waiting:
                continue
            if _rests(entry, now):
                self._queue.remove(order_id)
                removed.append((entry.key, release_claim(self._owner)))
                continue
            queued = self._resumed(entry, order_id)
            if entry.pending:  # else its first step claims it again, and finds the result
                queued.claimed_until = claimed_until.timestamp()
            self._queue.add(queued, soon=entry.undelivered)
        if removed:
            await recorder.write(removed)

    async def _acknowledge(self, result: OrderResult) -> None:
        """Record that a result was received; wait for the end of an outage, as the loop does."""
        delay = _FIRST_DELAY
        while True:
            try:
                return await super()._acknowledge(result)
            except JournalError as error:
                self._context.recorder.complain(result.order_id, error)
            await anyio.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY)

    # --- messages ---------------------------------------------------------------------------------

    async def _wake(self, connection: Connection, pairs: Pairs) -> None:
        """Wake a worker for orders that are free now, and the workers whose orders have changed."""
        schema, root = self._journal.schema, self._context.recorder.base_url
        now = self._context.recorder.now()
        free: set[str] = set()
        changed: set[str] = set()
        for before, after in pairs:
            if after is None or after is before:
                continue
            if after.claimed_by is None:
                if after.undelivered or (after.pending and not _rests(after, now)):
                    free.add(after.key)
            elif before is not None and _wanted(before) != _wanted(after):
                changed.add(f"{after.claimed_by} {after.key}")
        if free:
            await queue.add(connection, schema, root, free)
        for message in changed:
            await connection.execute("SELECT pg_notify($1, $2)", _channel(schema), message)

    async def _listen(self, connection: Connection) -> None:
        schema = self._journal.schema
        await connection.add_listener(queue.wake_channel(schema), self._hear_wake_up)
        await connection.add_listener(_channel(schema), self._hear_change)
        # Messages may have been lost.
        self._due.update(self._queue.order_ids)

    def _hear_wake_up(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        if queue.is_wake_up(payload):
            self._woken.set()

    def _hear_change(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        owner, _, key = payload.rpartition(" ")
        if owner == self._owner:
            self._due.add(key)
            self._woken.set()


def _journal_of(client: Sms4SatsClient) -> PostgresJournal:
    journal = validate.instance("client", client, Sms4SatsClient).journal
    if not isinstance(journal, PostgresJournal):
        problem = "client must have a PostgresJournal"
        raise InvalidArgumentError(problem)
    return journal


class _WakingJournal:
    """A `PostgresJournal` whose writes wake workers."""

    def __init__(self, journal: PostgresJournal, wake: Follow) -> None:
        self._journal = journal
        self._wake = wake
        self.pending = journal.pending
        self.undelivered = journal.undelivered
        self.get = journal.get
        self.history = journal.history
        self.prune = journal.prune

    async def update(
        self, changes: Sequence[tuple[str, JournalChange]], /
    ) -> Sequence[JournalEntry | None]:
        return await self._journal.transact(changes, self._wake)


def _channel(schema: str) -> str:
    return f"{schema}_changed"


def _rests(entry: JournalEntry, now: datetime) -> bool:
    """Return whether an order is left to the service: a sweep finds it when its time has come."""
    return entry.not_before is not None and entry.not_before > now and entry.code_deadline is None


def _wanted(entry: JournalEntry) -> tuple[object, ...]:
    return entry.code_deadline, entry.not_before, entry.minimum_age
