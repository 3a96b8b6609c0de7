"""What a journal holds of an order, and the pure changes to it.

Every change is a function from the entry as it stands to the entry as it is to be, so that a
journal has to know nothing of orders: it reads, applies, and writes, as one step.
"""

import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Literal, Protocol

import attrs

from sms4sats_async._orders.states import AUTOMATIC_CANCEL_AGE, verdict
from sms4sats_async._redact import mask_optional, quote_optional, show_invoice
from sms4sats_async.models import (
    CancelOutcome,
    Order,
    OrderState,
    OrderStatus,
    ReceiveOrder,
    RequestOutcome,
    SendOrder,
)

Kind = Literal["receive", "send"]

# What is sure outranks what is not; a code outranks all, as in the law of an order.
_RANK: Final = {
    None: 0,
    RequestOutcome.NOT_SENT: 1,
    RequestOutcome.REFUSED: 1,
    RequestOutcome.UNKNOWN: 1,
    CancelOutcome.ALREADY_RELEASED: 2,
    CancelOutcome.CANCELLED: 2,
    CancelOutcome.CODE_ARRIVED: 3,
}


@attrs.frozen
class JournalEntry:
    """What a journal holds of one order.

    Attributes:
        key: The entry's own name, given before the order has an id.
        kind: What was ordered: `"receive"` or `"send"`.
        created_at: When the order was made; of one whose creation ended unknown, when it was asked
            for.
        order_id: The order's id, or None if its creation ended unknown; `repr` masks it.
        payreq: The hold invoice; empty where none came.
        country: The country as it was asked for.
        service: The service's short code as it was asked for.
        phone: The receiver's number of a message.
        state: Where the order stood when its status was last read; None if it never was.
        paid: Whether the invoice was paid then.
        number: The number to receive on.
        codes: Every code that was seen, in that order.
        error: The service's word on an order that found no number or was given back.
        outcome: How it ended: a `CancelOutcome`; or what is known of the last cancel that failed;
            `RequestOutcome.UNKNOWN` with no `order_id` if its creation ended unknown; None before.
        not_before: Before which no scheduler is to cancel it; None: as soon as allowed.
        finished_at: When nothing was left to be done for it; None: it is pending.
        claimed_by: The scheduler that is cancelling it.
        claimed_until: Until when, in Unix seconds; another may take it after that.
    """

    key: str = attrs.field(repr=False)
    kind: Kind
    created_at: datetime
    order_id: str | None = attrs.field(default=None, repr=mask_optional)
    payreq: str = attrs.field(default="", repr=show_invoice)
    country: int | str | None = None
    service: str | None = None
    phone: str | None = None
    state: OrderState | None = None
    paid: bool | None = None
    number: str | None = None
    codes: tuple[str, ...] = ()
    error: str | None = attrs.field(default=None, repr=quote_optional)
    outcome: CancelOutcome | RequestOutcome | None = None
    not_before: datetime | None = None
    finished_at: datetime | None = None
    claimed_by: str | None = attrs.field(default=None, repr=False)
    claimed_until: float | None = attrs.field(default=None, repr=False)

    @property
    def code(self) -> str | None:
        """The code that was seen last, or None."""
        return self.codes[-1] if self.codes else None

    @property
    def pending(self) -> bool:
        """Whether something is left to be done for it: it can be asked for, and has not ended."""
        return self.order_id is not None and self.finished_at is None

    @property
    def order(self) -> ReceiveOrder | SendOrder | None:
        """The order again, as the client takes it; None if its creation ended unknown."""
        if self.order_id is None:
            return None
        if self.kind == "send":
            return SendOrder(self.order_id, self.payreq, self.created_at, self.phone)
        return ReceiveOrder(self.order_id, self.payreq, self.created_at, self.country, self.service)


class JournalChange(Protocol):
    """A pure function from an entry as it stands to the entry as it is to be.

    It gets None where there is no entry. The very entry that it was given means that nothing
    changes, None that there is to be none.
    """

    def __call__(self, entry: JournalEntry | None, /) -> JournalEntry | None:
        """Return the entry as it is to be."""
        ...


class OrderJournal(Protocol):
    """What the client asks of a journal; `MemoryJournal` and `SqliteJournal` are two.

    What it raises reaches nobody but as a `JournalError`.
    """

    async def update(
        self, changes: Sequence[tuple[str, JournalChange]], /
    ) -> Sequence[JournalEntry | None]:
        """Change entries, all or none of them, so that no other writer comes in between.

        When it returns, the changes are there to stay. It should not lose them when its task is
        cancelled meanwhile.

        Args:
            changes: The `order_id` or the `key` of an entry, and the change to it. Of several
                entries of one order id the newest is meant.

        Returns:
            What each is now, in the same order.
        """
        ...

    async def pending(self) -> list[JournalEntry]:
        """Return the entries for which something is left to be done, the oldest first."""
        ...

    async def get(self, order_id: str, /) -> JournalEntry | None:
        """Return the entry of an order, or None if there is none."""
        ...

    async def history(
        self, *, since: datetime | None = None, limit: int | None = None
    ) -> list[JournalEntry]:
        """Return all entries, the newest first, those whose creation ended unknown included.

        Args:
            since: Only orders made at that time or later.
            limit: How many at most.
        """
        ...

    async def prune(self, before: datetime, /) -> int:
        """Remove what was finished before that time, or was asked for and ended unknown.

        Returns:
            How many entries were removed, with their codes. What is pending stays.
        """
        ...


def can_be_pruned(entry: JournalEntry, before: datetime) -> bool:
    """Tell whether `prune(before)` removes an entry."""
    ended = entry.created_at if entry.order_id is None else entry.finished_at
    return ended is not None and ended < before


def newest_first(entries: Iterable[JournalEntry]) -> list[JournalEntry]:
    """Return entries by the time of their orders; of one moment the one that came last first."""
    return sorted(entries, key=lambda entry: entry.created_at)[::-1]


# --- the changes ----------------------------------------------------------------------------------


def asked(
    kind: Kind,
    at: datetime,
    *,
    country: int | str | None = None,
    service: str | None = None,
    phone: str | None = None,
) -> JournalEntry:
    """Return the entry of an order that is about to be asked for.

    It says "unknown" from the start, because the process may die before it learns more.
    """
    return JournalEntry(
        secrets.token_hex(16),
        kind,
        at,
        country=country,
        service=service,
        phone=phone,
        outcome=RequestOutcome.UNKNOWN,
    )


def put(entry: JournalEntry) -> JournalChange:
    """Return the change that makes an entry what it is here, whatever it was."""
    return lambda _: entry


def removed(_entry: JournalEntry | None) -> None:
    """Remove an entry: no order was made."""


def made(entry: JournalEntry, order: Order) -> JournalEntry:
    """Return the entry of an order that was asked for and made."""
    return attrs.evolve(
        entry,
        order_id=order.order_id,
        payreq=order.payreq,
        created_at=order.created_at,
        outcome=None,
    )


def seen(status: OrderStatus, at: datetime) -> JournalChange:
    """Return what a status that was read at that time adds.

    An order that the journal does not know is taken up with its code: a code is never lost.
    """

    def change(entry: JournalEntry | None) -> JournalEntry | None:
        if entry is None:
            if status.code is None:
                return None
            entry = JournalEntry(secrets.token_hex(16), "receive", at, status.order_id)
        new_code = () if status.code is None or status.code in entry.codes else (status.code,)
        ended = verdict(status.state)
        # A status that says less does not take back how the order ended.
        keeps_state = entry.finished_at is not None and _RANK[ended] < _RANK[entry.outcome]
        after = attrs.evolve(
            entry,
            state=entry.state if keeps_state else status.state,
            paid=entry.paid if status.paid is None else status.paid,
            number=status.number or entry.number,
            codes=entry.codes + new_code,
            error=status.error or entry.error,
        )
        return _finish(after, ended, at) if ended is not None else after

    return _if_different(change)


def told(outcome: CancelOutcome | RequestOutcome, at: datetime, *, final: bool) -> JournalChange:
    """Return what a cancel that was answered, or not, adds.

    Args:
        outcome: How it ended.
        at: When.
        final: Whether nothing is left to be done.
    """

    def change(entry: JournalEntry | None) -> JournalEntry | None:
        if entry is None:
            return None
        if final:
            return _finish(entry, outcome, at)
        if entry.finished_at is not None:
            return entry
        return attrs.evolve(entry, outcome=_stronger(entry.outcome, outcome))

    return _if_different(change)


def scheduled(order: Order | str, not_before: datetime | None, at: datetime) -> JournalChange:
    """Return what a scheduler adds that takes an order up at that time."""
    # Of a hundred thousand, each object more is felt by the garbage collector.
    return partial(_scheduled, order, not_before, at)


def taken_up(order: Order | str, at: datetime) -> JournalChange:
    """Return the change that makes sure that there is an entry of an order."""
    return lambda entry: _taken_up(order, at) if entry is None else entry


def left_alone(entry: JournalEntry | None) -> JournalEntry | None:
    """Leave an order to the service, which gives its money back by itself after 21 minutes."""
    if entry is None:
        return None
    until = entry.created_at + AUTOMATIC_CANCEL_AGE
    return entry if entry.not_before == until else attrs.evolve(entry, not_before=until)


def claimed(owner: str, now: float, lease: timedelta) -> JournalChange:
    """Return the claim of a scheduler to cancel an order alone, for so long.

    It changes nothing where there is no order to cancel, or where another's claim stands. One that
    ended unclear is to be claimed like any other, for it may be asked for again.
    """

    def change(entry: JournalEntry | None) -> JournalEntry | None:
        if entry is None or entry.order_id is None or isinstance(entry.outcome, CancelOutcome):
            return entry
        if entry.claimed_by not in {None, owner} and now < (entry.claimed_until or now):
            return entry
        return attrs.evolve(entry, claimed_by=owner, claimed_until=now + lease.total_seconds())

    return _if_different(change)


def given_up(owner: str) -> JournalChange:
    """Return the change by which a scheduler gives its claim up; another's stands."""

    def change(entry: JournalEntry | None) -> JournalEntry | None:
        if entry is None or entry.claimed_by != owner:
            return entry
        return attrs.evolve(entry, claimed_by=None, claimed_until=None)

    return change


def _finish(
    entry: JournalEntry, outcome: CancelOutcome | RequestOutcome, at: datetime
) -> JournalEntry:
    return attrs.evolve(
        entry,
        outcome=_stronger(entry.outcome, outcome),
        finished_at=at if entry.finished_at is None else entry.finished_at,
    )


def _stronger(
    before: CancelOutcome | RequestOutcome | None, after: CancelOutcome | RequestOutcome
) -> CancelOutcome | RequestOutcome:
    if before is None:
        return after
    same = _RANK[before] == _RANK[after] == _RANK[CancelOutcome.CANCELLED]
    return before if same or _RANK[before] > _RANK[after] else after


def _taken_up(order: Order | str, at: datetime) -> JournalEntry:
    key = secrets.token_hex(16)
    if isinstance(order, str):
        return JournalEntry(key, "receive", at, order)
    common = (order.created_at, order.order_id, order.payreq)
    if isinstance(order, SendOrder):
        return JournalEntry(key, "send", *common, phone=order.phone)
    if isinstance(order, ReceiveOrder):
        return JournalEntry(key, "receive", *common, order.country, order.service)
    return JournalEntry(key, "receive", *common)


def _scheduled(
    order: Order | str, not_before: datetime | None, at: datetime, entry: JournalEntry | None, /
) -> JournalEntry:
    if entry is None:
        entry = _taken_up(order, at)
    same = entry.not_before == not_before
    return entry if same else attrs.evolve(entry, not_before=not_before)


def _if_different(change: JournalChange) -> JournalChange:
    """Return `change`, giving back the very entry where nothing is different."""

    def careful(entry: JournalEntry | None) -> JournalEntry | None:
        after = change(entry)
        return entry if after == entry else after

    return careful
