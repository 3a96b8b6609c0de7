"""What a journal records of an order, and the pure changes to it.

A change is a function from the entry before to the entry after. A journal needs no rule about
orders: it reads, applies the change, and writes, as one step.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Literal, Protocol

import attrs

from sms4sats_async._orders.decisions import AUTOMATIC_CANCEL_AGE, wanted_minimum_age
from sms4sats_async._orders.states import money_in, outcome_of
from sms4sats_async._redact import mask_invoice, mask_optional, quote_optional
from sms4sats_async.errors import OrderError
from sms4sats_async.models import (
    Money,
    Order,
    OrderOutcome,
    OrderState,
    OrderStatus,
    ReceiveOrder,
    RequestOutcome,
    SendOrder,
)
from sms4sats_async.results import OrderResult

Kind = Literal["receive", "send"]

LEASE: Final = timedelta(seconds=45)
"""How long a claim lasts that is not renewed."""

CLOCK_DIFFERENCE: Final = timedelta(seconds=60)
"""How far the clocks of two machines may differ. A claim that ends further ahead than a lease and
this was made before the clock was set back, so it counts as expired."""

# A proven end outranks an unclear one, and a code outranks all, as in the state table.
_RANK: Final = {
    None: 0,
    RequestOutcome.NOT_SENT: 1,
    RequestOutcome.REFUSED: 1,
    RequestOutcome.UNKNOWN: 1,
    OrderOutcome.REFUNDED: 2,
    OrderOutcome.CANCELLED: 2,
    OrderOutcome.MESSAGE_SENT: 3,
    OrderOutcome.CODE_RECEIVED: 3,
}


def _no_metadata() -> Mapping[str, str]:
    return {}


@attrs.frozen
class JournalEntry:
    """What a journal records of one order.

    Attributes:
        key: The entry's own identifier, which exists before the order has an ID.
        kind: What was ordered: `"receive"` or `"send"`.
        created_at: When the order was created; if the creation ended unknown, when it was
            requested.
        order_id: The order's ID, or None if the creation ended unknown; `repr` masks it.
        invoice: The hold invoice; empty where none arrived; `repr` masks it.
        country: The country as you gave it.
        service: The service's short code as you gave it.
        phone: The receiver's number of a message.
        metadata: Your own notes on the order.
        base_url: The root of the service that the order belongs to; None if it is unknown.
        state: The state of the order when its status was last read; None if it never was.
        paid: Whether the invoice was paid then.
        number: The number that receives the code.
        number_seen_at: When the number was first seen.
        codes: Every code that was seen, in order.
        error: The service's text about an order that found no number or was refunded.
        outcome: How the order ended: an `OrderOutcome`. Before that, what is known about the last
            cancel that failed: a `RequestOutcome`. `RequestOutcome.UNKNOWN` without an `order_id`
            if the creation ended unknown.
        code_deadline: Until when the caller waits for the code; None: no wait was recorded.
        minimum_age: The age before which no cancel is sent; None: the default.
        not_before: When a scheduler may go on with the order; None: at once.
        refusals: How many calls to cancel the order failed.
        refused_at: When the last one failed.
        finished_at: When the order ended, or no further attempt was useful; None: it is pending.
        delivered_at: When the caller received the result; None: not yet.
        claimed_by: The driver that holds the claim.
        claimed_until: When that claim ends, if it is not renewed.
    """

    key: str = attrs.field(repr=False)
    kind: Kind
    created_at: datetime
    order_id: str | None = attrs.field(default=None, repr=mask_optional)
    invoice: str = attrs.field(default="", repr=mask_invoice)
    country: int | str | None = None
    service: str | None = None
    phone: str | None = None
    metadata: Mapping[str, str] = attrs.field(factory=_no_metadata, hash=False)
    base_url: str | None = None
    state: OrderState | None = None
    paid: bool | None = None
    number: str | None = None
    number_seen_at: datetime | None = None
    codes: tuple[str, ...] = ()
    error: str | None = attrs.field(default=None, repr=quote_optional)
    outcome: OrderOutcome | RequestOutcome | None = None
    code_deadline: datetime | None = None
    minimum_age: timedelta | None = None
    not_before: datetime | None = None
    refusals: int = 0
    refused_at: datetime | None = None
    finished_at: datetime | None = None
    delivered_at: datetime | None = None
    claimed_by: str | None = attrs.field(default=None, repr=False)
    claimed_until: datetime | None = attrs.field(default=None, repr=False)

    @property
    def code(self) -> str | None:
        """The code that was seen last, or None."""
        return self.codes[-1] if self.codes else None

    @property
    def pending(self) -> bool:
        """Whether the order has an ID and has not ended."""
        return self.order_id is not None and self.finished_at is None

    @property
    def undelivered(self) -> bool:
        """Whether the order ended and its result was not delivered yet."""
        return (
            self.order_id is not None and self.finished_at is not None and self.delivered_at is None
        )

    @property
    def order(self) -> ReceiveOrder | SendOrder | None:
        """The order as the client returned it; None if the creation ended unknown."""
        if self.order_id is None:
            return None
        common = (self.order_id, self.invoice, self.created_at)
        if self.kind == "send":
            return SendOrder(*common, self.phone, metadata=self.metadata)
        return ReceiveOrder(*common, self.country, self.service, metadata=self.metadata)

    @property
    def result(self) -> OrderResult | None:
        """The result of an order that ended; None while it is pending."""
        if self.order_id is None or self.finished_at is None:
            return None
        outcome = self.outcome if isinstance(self.outcome, OrderOutcome) else None
        error = None
        if outcome is None:
            known = "unknown" if self.outcome is None else self.outcome.value
            problem = f"no attempt ended the order, the last cancel was: {known}"
            error = OrderError(problem, order_id=self.order_id)
        return OrderResult(
            self.order_id,
            outcome,
            self.code,
            self.number,
            error=error,
            metadata=self.metadata,
        )

    @property
    def money(self) -> Money:
        """Where the money is, as far as the journal knows."""
        if isinstance(self.outcome, OrderOutcome) and self.result is not None:
            return self.result.money
        return Money.UNKNOWN if self.state is None else money_in(self.state)


class JournalChange(Protocol):
    """A pure function from the entry before to the entry after.

    It gets None if there is no entry. If it returns the same object that it got, nothing changes;
    None removes the entry.
    """

    def __call__(self, entry: JournalEntry | None, /) -> JournalEntry | None:
        """Return the entry after the change."""
        ...


class OrderJournal(Protocol):
    """The interface of a journal; `MemoryJournal` and `SqliteJournal` implement it.

    The client reports whatever a journal raises as a `JournalError`.
    """

    async def update(
        self, changes: Sequence[tuple[str, JournalChange]], /
    ) -> Sequence[JournalEntry | None]:
        """Change entries, all or none of them, with no other writer in between.

        The changes are durable when it returns. They should not be lost if the task is cancelled
        meanwhile.

        Args:
            changes: The `order_id` or the `key` of an entry, and the change to it. If several
                entries have one order ID, the newest is meant.

        Returns:
            The entries after the changes, in the same order.
        """
        ...

    async def pending(self, base_url: str | None = None) -> list[JournalEntry]:
        """Return the entries of orders that have not ended, the oldest first.

        An entry that cannot be read stops no other: it is reported, left out, and kept.

        Args:
            base_url: Only orders of this service root, and orders whose root is unknown.
        """
        ...

    async def undelivered(self, base_url: str | None = None) -> list[JournalEntry]:
        """Return the entries of orders that ended and whose result was not delivered, oldest first.

        Args:
            base_url: Only orders of this service root, and orders whose root is unknown.
        """
        ...

    async def get(self, order_id: str, /) -> JournalEntry | None:
        """Return the entry of an order, or None if there is none."""
        ...

    async def history(
        self, *, since: datetime | None = None, limit: int | None = None
    ) -> list[JournalEntry]:
        """Return all entries, the newest first, also those whose creation ended unknown.

        Args:
            since: Only orders created at that time or later.
            limit: The largest number of entries.
        """
        ...

    async def prune(self, before: datetime, /) -> int:
        """Remove orders that ended before that time and whose result was delivered.

        Entries of creations that ended unknown before that time are removed too. Pending orders
        and results that were not delivered stay.

        Returns:
            How many entries were removed.
        """
        ...


def can_be_pruned(entry: JournalEntry, before: datetime) -> bool:
    """Return whether `prune(before)` removes an entry."""
    if entry.order_id is None:
        return entry.created_at < before
    return entry.delivered_at is not None and (entry.finished_at or before) < before


def belongs_to(entry: JournalEntry, base_url: str | None) -> bool:
    """Return whether an entry is of this service root; an unknown root is of every root."""
    return base_url is None or entry.base_url is None or entry.base_url == base_url


def oldest_first(entries: Iterable[JournalEntry]) -> list[JournalEntry]:
    """Return entries by the time of their orders; of the same time, in their given order."""
    return sorted(entries, key=lambda entry: entry.created_at)


# --- the changes ----------------------------------------------------------------------------------


def request_entry(
    kind: Kind,
    at: datetime,
    *,
    base_url: str,
    metadata: Mapping[str, str],
    country: int | str | None = None,
    service: str | None = None,
    phone: str | None = None,
    wait: timedelta | None = None,
    minimum_age: timedelta | None = None,
    owner: str | None = None,
) -> JournalEntry:
    """Return the entry of an order that is about to be requested.

    Its outcome is unknown from the start, because the process may die before it knows more.

    Args:
        kind: What is ordered.
        at: Now.
        base_url: The service root.
        metadata: The caller's notes.
        country: The country as the caller gave it.
        service: The service as the caller gave it.
        phone: The receiver of a message.
        wait: For how long the caller will wait for the code.
        minimum_age: The age before which no cancel is sent.
        owner: The driver that claims the order from its creation on.
    """
    return JournalEntry(
        secrets.token_hex(16),
        kind,
        at,
        country=country,
        service=service,
        phone=phone,
        metadata=metadata,
        base_url=base_url,
        outcome=RequestOutcome.UNKNOWN,
        code_deadline=None if wait is None else at + wait,
        minimum_age=minimum_age,
        claimed_by=owner,
        claimed_until=None if owner is None else at + LEASE,
    )


def put(entry: JournalEntry) -> JournalChange:
    """Return the change that replaces an entry."""
    return lambda _: entry


def remove(_entry: JournalEntry | None) -> None:
    """Remove an entry: no order was created."""


def record_creation(entry: JournalEntry, order: Order) -> JournalEntry:
    """Return the entry of an order that was created; the waits count from then on."""
    later = order.created_at - entry.created_at
    return attrs.evolve(
        entry,
        order_id=order.order_id,
        invoice=order.invoice,
        created_at=order.created_at,
        outcome=None,
        code_deadline=None if entry.code_deadline is None else entry.code_deadline + later,
        claimed_until=None if entry.claimed_until is None else entry.claimed_until + later,
    )


def record_status(status: OrderStatus, at: datetime, base_url: str | None = None) -> JournalChange:
    """Return the change for a status that was read.

    A code of an order that the journal does not know adds an entry: no code is lost.
    """

    def change(entry: JournalEntry | None) -> JournalEntry | None:
        if entry is None:
            if status.code is None:
                return None
            key = secrets.token_hex(16)
            entry = JournalEntry(key, "receive", at, status.order_id, base_url=base_url)
        new_code = () if status.code is None or status.code in entry.codes else (status.code,)
        outcome = outcome_of(status.state)
        # A later status that says less does not revoke the end.
        keeps_state = entry.finished_at is not None and _RANK[outcome] < _RANK[entry.outcome]
        after = attrs.evolve(
            entry,
            state=entry.state if keeps_state else status.state,
            paid=entry.paid if status.paid is None else status.paid,
            number=status.number or entry.number,
            number_seen_at=entry.number_seen_at or (None if status.number is None else at),
            codes=entry.codes + new_code,
            error=status.error or entry.error,
        )
        return _finish(after, outcome, at) if outcome is not None else after

    return _unless_same(change)


def record_outcome(
    outcome: OrderOutcome | RequestOutcome, at: datetime, *, final: bool
) -> JournalChange:
    """Return the change for a cancel that was answered or failed.

    Args:
        outcome: How it ended.
        at: When.
        final: Whether no further attempt is useful.
    """

    def change(entry: JournalEntry | None) -> JournalEntry | None:
        if entry is None:
            return None
        if final:
            return _finish(entry, outcome, at)
        if entry.finished_at is not None:
            return entry
        return attrs.evolve(
            entry,
            outcome=_stronger(entry.outcome, outcome),
            refusals=entry.refusals + 1,
            refused_at=at,
        )

    return _unless_same(change)


def ensure_entry(order: Order | str, at: datetime, base_url: str) -> JournalChange:
    """Return the change that adds an entry for an order that the journal does not know."""
    return lambda entry: _new_entry(order, at, base_url) if entry is None else entry


def record_intent(
    order: Order | str,
    at: datetime,
    base_url: str,
    *,
    created_at: datetime | None = None,
    code_deadline: datetime | None = None,
    minimum_age: timedelta | None = None,
    not_before: datetime | None = None,
    default_deadline: datetime | None = None,
) -> JournalChange:
    """Return the change that records what the caller wants; it adds an entry if there is none.

    Args:
        order: The order, or its ID.
        at: Now.
        base_url: The service root.
        created_at: When the order was created; None: as the journal or the order says, or now.
        code_deadline: Until when to wait for the code; None keeps the recorded deadline.
        minimum_age: The age before which no cancel is sent; None keeps the recorded one, and the
            default does not shorten it.
        not_before: When a scheduler may go on with the order; None: at once.
        default_deadline: The deadline if none is given and none is recorded.
    """
    # Of a hundred thousand orders in a scheduler, the garbage collector notices each object.
    return partial(
        _record_intent,
        order,
        at,
        base_url,
        (created_at, code_deadline, default_deadline, minimum_age, not_before),
    )


def if_known(change: JournalChange) -> JournalChange:
    """Return the change that does nothing for an order that the journal does not know."""
    return lambda entry: None if entry is None else change(entry)


def defer(entry: JournalEntry | None) -> JournalEntry | None:
    """Leave an order to the service, which refunds it automatically after 21 minutes."""
    if entry is None:
        return None
    until = entry.created_at + AUTOMATIC_CANCEL_AGE
    after = attrs.evolve(entry, not_before=until, code_deadline=None)
    return entry if after == entry else after


def claim(
    owner: str,
    now: datetime,
    *,
    has_died: Callable[[str], bool],
    intent: JournalChange | None = None,
) -> JournalChange:
    """Return the change by which a driver claims an order, or renews its claim, for a lease.

    Nothing changes where the result was delivered, or where the claim of another driver holds.

    Args:
        owner: The driver.
        now: The time.
        has_died: Returns whether the process of a driver provably ended.
        intent: What this driver's caller wants. It is recorded with the claim and not without:
            another driver goes on with what its own caller wants.
    """

    def change(entry: JournalEntry | None) -> JournalEntry | None:
        if (
            entry is not None
            and claim_left(entry, owner, now) > timedelta(0)
            and not has_died(entry.claimed_by or "")
        ):
            return entry
        if intent is not None:
            entry = intent(entry)
        if entry is None or entry.order_id is None or entry.delivered_at is not None:
            return entry
        return attrs.evolve(entry, claimed_by=owner, claimed_until=now + LEASE)

    return _unless_same(change)


def claim_left(entry: JournalEntry, owner: str, now: datetime) -> timedelta:
    """Return for how long the claim of another driver holds; 0 if none does."""
    if entry.claimed_by in {None, owner} or entry.claimed_until is None:
        return timedelta(0)
    left = entry.claimed_until - now
    return timedelta(0) if left > LEASE + CLOCK_DIFFERENCE else max(left, timedelta(0))


def release_claim(owner: str) -> JournalChange:
    """Return the change by which a driver releases its claim. The claim of another driver stays."""

    def change(entry: JournalEntry | None) -> JournalEntry | None:
        if entry is None or entry.claimed_by != owner:
            return entry
        return attrs.evolve(entry, claimed_by=None, claimed_until=None)

    return change


def acknowledge(at: datetime) -> JournalChange:
    """Return the change that records that the caller received the result."""

    def change(entry: JournalEntry | None) -> JournalEntry | None:
        if entry is None or entry.finished_at is None or entry.delivered_at is not None:
            return entry
        return attrs.evolve(entry, delivered_at=at, claimed_by=None, claimed_until=None)

    return change


def _finish(
    entry: JournalEntry, outcome: OrderOutcome | RequestOutcome, at: datetime
) -> JournalEntry:
    stronger = _stronger(entry.outcome, outcome)
    return attrs.evolve(
        entry,
        outcome=stronger,
        finished_at=at if entry.finished_at is None else entry.finished_at,
        # A code that shows after another end is news for the caller.
        delivered_at=entry.delivered_at if stronger is entry.outcome else None,
    )


def _stronger(
    before: OrderOutcome | RequestOutcome | None, after: OrderOutcome | RequestOutcome
) -> OrderOutcome | RequestOutcome:
    if before is None:
        return after
    same = _RANK[before] == _RANK[after] >= _RANK[OrderOutcome.CANCELLED]
    return before if same or _RANK[before] > _RANK[after] else after


def _new_entry(
    order: Order | str,
    at: datetime,
    base_url: str,
    *,
    created_at: datetime | None = None,
    code_deadline: datetime | None = None,
    minimum_age: timedelta | None = None,
    not_before: datetime | None = None,
) -> JournalEntry:
    key = secrets.token_hex(16)
    if isinstance(order, str):
        return JournalEntry(
            key,
            "receive",
            created_at or at,
            order,
            base_url=base_url,
            code_deadline=code_deadline,
            minimum_age=minimum_age,
            not_before=not_before,
        )
    # One object and no copies, because a hundred thousand orders may be added at once.
    return JournalEntry(
        key,
        "send" if isinstance(order, SendOrder) else "receive",
        created_at or order.created_at,
        order.order_id,
        order.invoice,
        order.country if isinstance(order, ReceiveOrder) else None,
        order.service if isinstance(order, ReceiveOrder) else None,
        order.phone if isinstance(order, SendOrder) else None,
        order.metadata,
        base_url,
        code_deadline=code_deadline,
        minimum_age=minimum_age,
        not_before=not_before,
    )


def _record_intent(
    order: Order | str,
    at: datetime,
    base_url: str,
    wanted: tuple[
        datetime | None, datetime | None, datetime | None, timedelta | None, datetime | None
    ],
    entry: JournalEntry | None,
    /,
) -> JournalEntry:
    created_at, code_deadline, default_deadline, minimum_age, not_before = wanted
    if entry is None:
        return _new_entry(
            order,
            at,
            base_url,
            created_at=created_at,
            code_deadline=code_deadline or default_deadline,
            minimum_age=minimum_age,
            not_before=not_before,
        )
    if not belongs_to(entry, base_url):
        return entry
    # A new intent for an order whose end is unclear: it is tried again.
    has_ended = isinstance(entry.outcome, OrderOutcome)
    after = attrs.evolve(
        entry,
        created_at=created_at or entry.created_at,
        base_url=entry.base_url or base_url,
        code_deadline=code_deadline or entry.code_deadline or default_deadline,
        minimum_age=wanted_minimum_age(entry.minimum_age, minimum_age),
        not_before=not_before,
        finished_at=entry.finished_at if has_ended else None,
        delivered_at=entry.delivered_at if has_ended else None,
    )
    return entry if after == entry else after


def both(first: JournalChange, second: JournalChange) -> JournalChange:
    """Return one change that does both, one after the other."""
    return lambda entry: second(first(entry))


def _unless_same(change: JournalChange) -> JournalChange:
    """Return `change`, made to return the same object that it got if nothing is different."""

    def careful(entry: JournalEntry | None) -> JournalEntry | None:
        after = change(entry)
        return entry if after == entry else after

    return careful
