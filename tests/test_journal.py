"""The pure changes to an entry, and the journal in memory."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms4sats_async import (
    FundOrder,
    JournalEntry,
    MemoryJournal,
    Money,
    Order,
    OrderError,
    OrderJournal,
    OrderOutcome,
    OrderResult,
    OrderState,
    OrderStatus,
    ReceiveOrder,
    RequestOutcome,
    SendOrder,
    SmsStatus,
)
from sms4sats_async._orders.states import outcome_of
from sms4sats_async.journal.entry import (
    CLOCK_DIFFERENCE,
    LEASE,
    acknowledge,
    belongs_to,
    both,
    claim,
    claim_left,
    defer,
    ensure_entry,
    record_creation,
    record_intent,
    record_outcome,
    record_status,
    release_claim,
    request_entry,
)
from tests.journal_contract import (
    ID,
    LATER,
    ORDER,
    OTHER_ROOT,
    ROOT,
    START,
    Call,
    JournalContract,
    calls_for,
    claimed,
    dies,
    ended,
    failed,
    lives,
    requested,
    status_of,
    status_recorded,
)

if TYPE_CHECKING:
    from pathlib import Path

    from sms4sats_async.journal import JournalChange

PHONE = "+4915112345678"
MINUTE = timedelta(minutes=1)
CODE = status_of(paid=True, code="0042", number="+49123")
REFUNDED = status_of(paid=True, error="no numbers")
HELD = status_of(paid=True)
NUMBER = status_of(paid=True, number="+49123")
SENT = status_of(paid=True, sms_status=SmsStatus.SENT)


class TestMemoryJournal(JournalContract):
    @staticmethod
    def open(folder: Path) -> AbstractAsyncContextManager[OrderJournal]:  # noqa: ARG004
        return nullcontext(MemoryJournal())


def after(*changes: JournalChange, entry: JournalEntry | None = None) -> JournalEntry:
    """The entry after changes, by default to an order that the journal knows."""
    found = ensure_entry(ORDER, START, ROOT)(None) if entry is None else entry
    for change in changes:
        found = change(found)
    assert found is not None
    return found


# --- a creation -----------------------------------------------------------------------------------


def test_a_request_is_recorded_with_an_unknown_outcome_before_it_is_sent() -> None:
    entry = request_entry(
        "receive", START, base_url=ROOT, metadata={"a": "b"}, country="germany", service="tg"
    )
    assert (entry.outcome, entry.order_id) == (RequestOutcome.UNKNOWN, None)
    assert (entry.order, entry.result, entry.money) == (None, None, Money.UNKNOWN)
    assert not entry.pending
    assert not entry.undelivered
    recorded = (entry.kind, entry.country, entry.service, entry.metadata, entry.base_url)
    assert recorded == ("receive", "germany", "tg", {"a": "b"}, ROOT)
    assert (entry.code_deadline, entry.minimum_age) == (None, None)
    assert (entry.claimed_by, entry.claimed_until) == (None, None)


def test_every_request_has_its_own_key() -> None:
    assert len({requested(START).key for _ in range(100)}) == 100


def test_a_created_order_is_pending_under_the_same_key() -> None:
    record = request_entry(
        "receive", START, base_url=ROOT, metadata={"chat": "42"}, country=187, service="tg"
    )
    order = attrs.evolve(ORDER, created_at=LATER)
    entry = record_creation(record, order)
    assert (entry.key, entry.outcome, entry.created_at) == (record.key, None, LATER)
    assert entry.pending
    assert entry.order == order


def test_the_intent_of_a_request_counts_from_the_creation() -> None:
    record = requested(START, wait=10 * MINUTE, minimum_age=3 * MINUTE, owner="a")
    assert (record.code_deadline, record.minimum_age) == (START + 10 * MINUTE, 3 * MINUTE)
    assert (record.claimed_by, record.claimed_until) == ("a", START + LEASE)
    entry = record_creation(record, attrs.evolve(ORDER, created_at=START + MINUTE))
    assert (entry.code_deadline, entry.minimum_age) == (START + 11 * MINUTE, 3 * MINUTE)
    assert (entry.claimed_by, entry.claimed_until) == ("a", START + MINUTE + LEASE)


def test_a_request_without_a_wait_has_no_deadline_after_the_creation() -> None:
    entry = record_creation(requested(START), attrs.evolve(ORDER, created_at=LATER))
    assert (entry.code_deadline, entry.claimed_until) == (None, None)


def test_a_wait_of_no_time_is_a_deadline() -> None:
    assert requested(START, wait=timedelta(0)).code_deadline == START


# --- an order of another place --------------------------------------------------------------------

ORDERS: dict[str, tuple[Order | str, Order]] = {
    "receive order": (ORDER, ORDER),
    "send order": (
        SendOrder(ID, "paid", START, PHONE, metadata={"a": "b"}),
        SendOrder(ID, "paid", START, PHONE, metadata={"a": "b"}),
    ),
    "id, which counts as created now": (ID, ReceiveOrder(ID, "", LATER)),
    "order of no kind": (FundOrder(ID, "lnbc1", START, 5), ReceiveOrder(ID, "lnbc1", START)),
}


@pytest.mark.parametrize(("order", "expected"), ORDERS.values(), ids=ORDERS)
def test_an_entry_returns_the_order(order: Order | str, expected: Order) -> None:
    entry = after(entry=ensure_entry(order, LATER, ROOT)(None))
    assert entry.order == expected
    assert (entry.base_url, entry.pending) == (ROOT, True)


def test_a_known_order_is_not_added_again() -> None:
    entry = after()
    assert ensure_entry(ID, LATER, OTHER_ROOT)(entry) is entry


@pytest.mark.parametrize(
    ("recorded", "asked", "belongs"),
    [
        (ROOT, ROOT, True),
        (ROOT, OTHER_ROOT, False),
        (None, OTHER_ROOT, True),
        (ROOT, None, True),
        (None, None, True),
    ],
)
def test_an_unknown_root_is_of_every_root(
    recorded: str | None, asked: str | None, *, belongs: bool
) -> None:
    assert belongs_to(attrs.evolve(after(), base_url=recorded), asked) is belongs


# --- a status -------------------------------------------------------------------------------------


def test_a_status_that_says_less_takes_nothing_away() -> None:
    entry = after(record_status(NUMBER, START), record_status(status_of(), LATER))
    assert (entry.paid, entry.number, entry.state) == (True, "+49123", OrderState.UNKNOWN)
    assert entry.pending


def test_the_number_is_recorded_with_the_time_at_which_it_was_first_seen() -> None:
    entry = after(record_status(HELD, START))
    assert entry.number_seen_at is None
    entry = after(record_status(NUMBER, LATER), record_status(CODE, LATER + MINUTE), entry=entry)
    assert (entry.number, entry.number_seen_at) == ("+49123", LATER)


ENDS: dict[str, tuple[OrderStatus, OrderOutcome]] = {
    "code": (CODE, OrderOutcome.CODE_RECEIVED),
    "refund": (REFUNDED, OrderOutcome.REFUNDED),
    "message sent": (SENT, OrderOutcome.MESSAGE_SENT),
}


@pytest.mark.parametrize(("status", "outcome"), ENDS.values(), ids=ENDS)
def test_a_status_ends_an_order(status: OrderStatus, outcome: OrderOutcome) -> None:
    entry = after(record_status(status, LATER))
    assert (entry.outcome, entry.finished_at, entry.delivered_at) == (outcome, LATER, None)
    assert (entry.pending, entry.undelivered) == (False, True)
    assert entry.error == status.error


def test_all_codes_are_kept_in_the_order_in_which_they_came() -> None:
    second = attrs.evolve(CODE, code="0043")
    entry = after(*(record_status(status, LATER) for status in (CODE, second, CODE)))
    assert (entry.codes, entry.code) == (("0042", "0043"), "0043")
    assert after().code is None


def test_a_code_of_an_unknown_order_adds_an_entry() -> None:
    entry = record_status(CODE, LATER, OTHER_ROOT)(None)
    assert entry is not None
    assert (entry.order_id, entry.code, entry.created_at) == (ID, "0042", LATER)
    assert (entry.base_url, entry.undelivered) == (OTHER_ROOT, True)


ON_UNKNOWN_ORDERS: dict[str, JournalChange] = {
    "refund": record_status(REFUNDED, LATER),
    "end": record_outcome(OrderOutcome.CANCELLED, LATER, final=True),
    "failed cancel": record_outcome(RequestOutcome.REFUSED, LATER, final=False),
    "defer": defer,
    "claim": claim("a", START, has_died=lives),
    "release": release_claim("a"),
    "acknowledge": acknowledge(LATER),
}


@pytest.mark.parametrize("change", ON_UNKNOWN_ORDERS.values(), ids=ON_UNKNOWN_ORDERS)
def test_other_changes_add_no_entry_of_an_unknown_order(change: JournalChange) -> None:
    assert change(None) is None


@pytest.mark.parametrize("less", [status_of(), HELD, status_of(paid=False), REFUNDED, SENT])
def test_no_later_status_revokes_a_code(less: OrderStatus) -> None:
    entry = after(record_status(CODE, START), record_status(less, LATER))
    assert (entry.code, entry.outcome) == ("0042", OrderOutcome.CODE_RECEIVED)
    assert entry.finished_at == START


def test_a_later_status_that_says_less_keeps_the_state_of_an_ended_order() -> None:
    entry = after(record_status(CODE, START), record_status(HELD, LATER))
    assert entry.state is OrderState.CODE_RECEIVED


# --- a cancel -------------------------------------------------------------------------------------


def test_a_failed_cancel_is_counted_and_the_order_stays_pending() -> None:
    entry = after(failed(RequestOutcome.UNKNOWN, START), failed(RequestOutcome.REFUSED, LATER))
    assert (entry.outcome, entry.pending) == (RequestOutcome.REFUSED, True)
    assert (entry.refusals, entry.refused_at) == (2, LATER)


def test_a_cancel_ends_an_order() -> None:
    entry = after(failed(RequestOutcome.REFUSED, START), ended(OrderOutcome.CANCELLED, LATER))
    assert (entry.outcome, entry.finished_at) == (OrderOutcome.CANCELLED, LATER)
    assert (entry.refusals, entry.refused_at, entry.undelivered) == (1, START, True)


@pytest.mark.parametrize("weaker", RequestOutcome)
@pytest.mark.parametrize("end", [*OrderOutcome, RequestOutcome.UNKNOWN, RequestOutcome.REFUSED])
def test_a_failed_cancel_changes_nothing_after_the_end(
    end: OrderOutcome | RequestOutcome, weaker: RequestOutcome
) -> None:
    entry = after(ended(end, START))
    assert failed(weaker, LATER)(entry) is entry


# Two ends of one order, and which of them counts.
_O = OrderOutcome
SECOND_ENDS: list[
    tuple[
        OrderOutcome | RequestOutcome,
        OrderOutcome | RequestOutcome,
        OrderOutcome | RequestOutcome,
    ]
] = [
    (_O.CANCELLED, _O.REFUNDED, _O.CANCELLED),
    (_O.REFUNDED, _O.CANCELLED, _O.REFUNDED),
    (_O.CANCELLED, _O.CODE_RECEIVED, _O.CODE_RECEIVED),
    (_O.REFUNDED, _O.MESSAGE_SENT, _O.MESSAGE_SENT),
    (_O.CODE_RECEIVED, _O.CANCELLED, _O.CODE_RECEIVED),
    (_O.MESSAGE_SENT, _O.REFUNDED, _O.MESSAGE_SENT),
    (RequestOutcome.UNKNOWN, _O.REFUNDED, _O.REFUNDED),
    (RequestOutcome.REFUSED, RequestOutcome.UNKNOWN, RequestOutcome.UNKNOWN),
    (_O.CANCELLED, RequestOutcome.UNKNOWN, _O.CANCELLED),
]


@pytest.mark.parametrize(("first", "second", "counts"), SECOND_ENDS)
def test_the_stronger_of_two_ends_counts_and_the_first_of_two_equal_ones(
    first: OrderOutcome | RequestOutcome,
    second: OrderOutcome | RequestOutcome,
    counts: OrderOutcome | RequestOutcome,
) -> None:
    entry = after(ended(first, START), acknowledge(START), ended(second, LATER))
    assert (entry.outcome, entry.finished_at) == (counts, START)
    # Another end is news for the caller, who has the first one.
    assert entry.undelivered is (counts is not first)


def test_a_code_after_a_delivered_cancel_is_delivered_too() -> None:
    entry = after(
        ended(OrderOutcome.CANCELLED, START), acknowledge(START), record_status(CODE, LATER)
    )
    assert (entry.code, entry.outcome) == ("0042", OrderOutcome.CODE_RECEIVED)
    assert (entry.state, entry.undelivered) == (OrderState.CODE_RECEIVED, True)


# --- the intent -----------------------------------------------------------------------------------


def test_an_intent_adds_an_unknown_order() -> None:
    change = record_intent(
        ORDER,
        LATER,
        ROOT,
        code_deadline=LATER + MINUTE,
        minimum_age=3 * MINUTE,
        not_before=LATER + 2 * MINUTE,
    )
    entry = change(None)
    assert entry is not None
    assert (entry.order, entry.base_url) == (ORDER, ROOT)
    assert (entry.code_deadline, entry.minimum_age) == (LATER + MINUTE, 3 * MINUTE)
    assert entry.not_before == LATER + 2 * MINUTE
    assert change(entry) is entry


def test_what_an_intent_does_not_say_stays_except_for_not_before() -> None:
    entry = after(
        record_intent(
            ORDER,
            LATER,
            ROOT,
            code_deadline=LATER,
            minimum_age=3 * MINUTE,
            not_before=LATER + MINUTE,
        ),
        record_intent(ID, LATER, ROOT, default_deadline=LATER + 9 * MINUTE),
    )
    assert (entry.code_deadline, entry.minimum_age) == (LATER, 3 * MINUTE)
    assert (entry.not_before, entry.metadata) == (None, ORDER.metadata)


def test_a_default_deadline_counts_where_none_is_recorded() -> None:
    entry = after(record_intent(ID, LATER, ROOT, default_deadline=LATER))
    assert entry.code_deadline == LATER
    later = record_intent(ID, LATER, ROOT, code_deadline=START, default_deadline=LATER)
    assert after(later, entry=entry).code_deadline == START


def test_a_minimum_age_of_zero_replaces_the_recorded_one() -> None:
    entry = after(record_intent(ID, LATER, ROOT, minimum_age=3 * MINUTE))
    entry = after(record_intent(ID, LATER, ROOT, minimum_age=timedelta(0)), entry=entry)
    assert entry.minimum_age == timedelta(0)


def test_an_intent_can_correct_the_time_of_creation() -> None:
    earlier = START - MINUTE
    assert after(record_intent(ID, LATER, ROOT, created_at=earlier)).created_at == earlier
    entry = record_intent(ORDER, LATER, ROOT, created_at=earlier)(None)
    assert entry is not None
    assert entry.created_at == earlier
    entry = record_intent(ID, LATER, ROOT, created_at=earlier)(None)
    assert entry is not None
    assert entry.created_at == earlier


def test_an_intent_gives_a_root_to_an_order_of_an_unknown_root() -> None:
    unknown = attrs.evolve(after(), base_url=None)
    assert after(record_intent(ID, LATER, OTHER_ROOT), entry=unknown).base_url == OTHER_ROOT


def test_an_intent_changes_no_order_of_another_root() -> None:
    entry = after()
    change = record_intent(ID, LATER, OTHER_ROOT, code_deadline=LATER, created_at=LATER)
    assert change(entry) is entry


@pytest.mark.parametrize("end", RequestOutcome)
def test_an_intent_reopens_an_order_whose_end_is_unclear(end: RequestOutcome) -> None:
    entry = after(failed(end, START), ended(end, START), acknowledge(START))
    entry = after(record_intent(ID, LATER, ROOT), entry=entry)
    assert (entry.pending, entry.delivered_at) == (True, None)
    # What is known about the cancels stays: the status is read before the next one.
    assert (entry.outcome, entry.refusals, entry.refused_at) == (end, 1, START)


@pytest.mark.parametrize("end", OrderOutcome)
def test_an_intent_reopens_no_order_that_ended(end: OrderOutcome) -> None:
    entry = after(ended(end, START), acknowledge(LATER))
    entry = after(record_intent(ID, LATER, ROOT, code_deadline=LATER), entry=entry)
    assert (entry.finished_at, entry.delivered_at, entry.outcome) == (START, LATER, end)


def test_a_deferred_order_is_left_to_the_service_for_21_minutes() -> None:
    entry = after(record_intent(ID, LATER, ROOT, code_deadline=LATER), defer)
    assert (entry.not_before, entry.code_deadline) == (START + 21 * MINUTE, None)
    assert defer(entry) is entry


# --- the claim ------------------------------------------------------------------------------------


def test_a_claim_holds_for_a_lease_and_only_its_owner_renews_it() -> None:
    entry = after(claimed("a", START))
    assert (entry.claimed_by, entry.claimed_until) == ("a", START + LEASE)
    almost = START + LEASE - timedelta(seconds=0.1)
    assert claimed("b", almost)(entry) is entry
    renewed = after(claimed("a", almost), entry=entry)
    assert (renewed.claimed_by, renewed.claimed_until) == ("a", almost + LEASE)
    assert after(claimed("b", START + LEASE), entry=entry).claimed_by == "b"


def test_only_the_owner_releases_a_claim() -> None:
    entry = after(claimed("a", START))
    assert release_claim("b")(entry) is entry
    free = after(release_claim("a"), entry=entry)
    assert (free.claimed_by, free.claimed_until) == (None, None)
    assert after(claimed("b", START), entry=free).claimed_by == "b"


def test_the_claim_of_a_process_that_died_is_free_at_once() -> None:
    asked: list[str] = []

    def has_died(owner: str) -> bool:
        asked.append(owner)
        return True

    entry = after(claimed("a", START))
    assert after(claim("b", START, has_died=has_died), entry=entry).claimed_by == "b"
    assert asked == ["a"]


def test_only_a_claim_that_holds_is_asked_about() -> None:
    def never(owner: str) -> bool:
        raise AssertionError(owner)

    entry = after(claim("a", START, has_died=never), claim("a", LATER, has_died=never))
    assert after(claim("b", LATER + LEASE, has_died=never), entry=entry).claimed_by == "b"


LEFT: list[tuple[timedelta, timedelta]] = [
    (timedelta(0), timedelta(0)),
    (-MINUTE, timedelta(0)),
    (timedelta(seconds=1), timedelta(seconds=1)),
    (LEASE, LEASE),
    (LEASE + CLOCK_DIFFERENCE, LEASE + CLOCK_DIFFERENCE),
    # The clock was set back since.
    (LEASE + CLOCK_DIFFERENCE + timedelta(microseconds=1), timedelta(0)),
    (timedelta(days=365), timedelta(0)),
]


@pytest.mark.parametrize(("ends_in", "left"), LEFT)
def test_a_claim_beyond_a_lease_and_a_clock_difference_has_expired(
    ends_in: timedelta, left: timedelta
) -> None:
    entry = attrs.evolve(after(), claimed_by="a", claimed_until=START + ends_in)
    assert claim_left(entry, "b", START) == left
    assert claim_left(entry, "a", START) == timedelta(0)
    taken = after(claimed("b", START), entry=entry)
    assert taken.claimed_by == ("a" if left else "b")


def test_claim_left_is_zero_without_a_claim() -> None:
    assert claim_left(after(), "b", START) == timedelta(0)
    endless = attrs.evolve(after(), claimed_by="a")
    assert claim_left(endless, "b", START) == timedelta(0)


NOT_CLAIMED: dict[str, JournalEntry] = {
    "creation unknown": requested(START),
    "delivered": after(record_status(CODE, START), acknowledge(START)),
}


@pytest.mark.parametrize("entry", NOT_CLAIMED.values(), ids=NOT_CLAIMED)
def test_what_needs_no_driver_is_not_claimed(entry: JournalEntry) -> None:
    assert claim("a", START, has_died=dies)(entry) is entry


def test_an_intent_is_recorded_with_the_claim_and_not_without_it() -> None:
    intent = record_intent(ORDER, START, ROOT, code_deadline=LATER)
    entry = claim("a", START, has_died=lives, intent=intent)(None)
    assert entry is not None
    assert (entry.claimed_by, entry.code_deadline) == ("a", LATER)
    other = record_intent(ORDER, START, ROOT, code_deadline=LATER + MINUTE)
    assert claim("b", START, has_died=lives, intent=other)(entry) is entry
    taken = after(claim("b", START, has_died=dies, intent=other), entry=entry)
    assert (taken.claimed_by, taken.code_deadline) == ("b", LATER + MINUTE)


def test_an_intent_reopens_an_unclear_end_for_its_claim() -> None:
    entry = after(ended(RequestOutcome.UNKNOWN, START), acknowledge(START))
    assert claim("a", START, has_died=lives)(entry) is entry
    intent = record_intent(ORDER, START, ROOT)
    entry = after(claim("a", START, has_died=lives, intent=intent), entry=entry)
    assert (entry.claimed_by, entry.pending) == ("a", True)


def test_two_changes_are_made_one_after_the_other() -> None:
    entry = after(both(record_status(CODE, START), acknowledge(LATER)))
    assert entry.delivered_at == LATER


def test_a_result_that_was_not_delivered_is_claimed_like_a_pending_order() -> None:
    entry = after(record_status(CODE, START), claimed("a", START))
    assert entry.claimed_by == "a"
    assert claimed("b", START)(entry) is entry


# --- the delivery ---------------------------------------------------------------------------------


def test_an_acknowledged_result_is_delivered_and_its_claim_is_free() -> None:
    entry = after(record_status(CODE, START), claimed("a", START), acknowledge(LATER))
    assert (entry.delivered_at, entry.undelivered) == (LATER, False)
    assert (entry.claimed_by, entry.claimed_until) == (None, None)
    assert acknowledge(LATER + MINUTE)(entry) is entry


def test_an_order_that_has_not_ended_is_not_acknowledged() -> None:
    entry = after()
    assert acknowledge(LATER)(entry) is entry


# --- what an entry says ---------------------------------------------------------------------------


def test_a_pending_order_has_no_result() -> None:
    assert after(record_status(NUMBER, START), failed(RequestOutcome.REFUSED, LATER)).result is None


RESULTS: dict[str, tuple[tuple[JournalChange, ...], OrderResult, Money]] = {
    "code": (
        (record_status(CODE, LATER),),
        OrderResult(ID, _O.CODE_RECEIVED, "0042", "+49123", metadata=ORDER.metadata),
        Money.SETTLED,
    ),
    "message": (
        (record_status(SENT, LATER),),
        OrderResult(ID, _O.MESSAGE_SENT, metadata=ORDER.metadata),
        Money.SETTLED,
    ),
    "cancel": (
        (record_status(NUMBER, START), ended(_O.CANCELLED, LATER)),
        OrderResult(ID, _O.CANCELLED, None, "+49123", metadata=ORDER.metadata),
        Money.REFUNDED,
    ),
    "refund": (
        (record_status(REFUNDED, LATER),),
        OrderResult(ID, _O.REFUNDED, metadata=ORDER.metadata),
        Money.REFUNDED,
    ),
    "unclear": (
        (record_status(HELD, START), ended(RequestOutcome.REFUSED, LATER)),
        OrderResult(ID, None, metadata=ORDER.metadata),
        Money.HELD,
    ),
    "unclear, status never read": (
        (ended(RequestOutcome.UNKNOWN, LATER),),
        OrderResult(ID, None, metadata=ORDER.metadata),
        Money.UNKNOWN,
    ),
}


@pytest.mark.parametrize(("changes", "result", "money"), RESULTS.values(), ids=RESULTS)
def test_an_ended_order_has_its_result(
    changes: tuple[JournalChange, ...], result: OrderResult, money: Money
) -> None:
    entry = after(*changes)
    found = entry.result
    assert found is not None
    assert found == result
    assert (found.error is None) is (result.outcome is not None)
    assert entry.money is money


def test_the_result_of_an_unclear_end_says_how_the_last_cancel_ended() -> None:
    result = after(ended(RequestOutcome.REFUSED, LATER)).result
    assert result is not None
    assert isinstance(result.error, OrderError)
    assert str(result.error) == (
        "order 0123…cdef: no attempt ended the order, the last cancel was: refused"
    )
    # As a file from elsewhere may have it.
    result = attrs.evolve(after(), finished_at=LATER).result
    assert result is not None
    assert str(result.error).endswith("the last cancel was: unknown")


@pytest.mark.parametrize(
    ("status", "money"),
    [
        (None, Money.UNKNOWN),
        (status_of(), Money.UNKNOWN),
        (status_of(paid=False), Money.WITH_PAYER),
        (HELD, Money.HELD),
        (NUMBER, Money.HELD),
    ],
)
def test_the_money_of_a_pending_order_is_where_the_last_status_says(
    status: OrderStatus | None, money: Money
) -> None:
    changes = [] if status is None else [record_status(status, LATER)]
    assert after(*changes, failed(RequestOutcome.UNKNOWN, LATER)).money is money


def test_an_entry_shows_no_secret() -> None:
    order = attrs.evolve(ORDER, invoice="lnbc" + "q" * 300)
    entry = ensure_entry(order, START, ROOT)(None)
    shown = repr(after(claimed("owner-of-it", START), entry=entry))
    assert ID not in shown
    assert "q" * 10 not in shown
    assert "owner-of-it" not in shown


# --- any sequence of changes ----------------------------------------------------------------------

sequences = st.lists(calls_for(ID), max_size=12)


@given(sequences)
def test_no_sequence_of_changes_loses_a_code(sequence: list[Call]) -> None:
    entry: JournalEntry | None = None
    codes: list[str] = []
    for make, arguments in sequence:
        if make is status_recorded:
            code = arguments[0].code
            codes += [] if code is None or code in codes else [code]
        entry = make(*arguments)(entry)
        assert list(() if entry is None else entry.codes) == codes
        if entry is not None and codes:
            assert isinstance(entry.outcome, OrderOutcome)
            assert entry.result is not None
            assert entry.result.code == codes[-1]
            assert entry.money is Money.SETTLED


@given(sequences)
def test_no_sequence_of_changes_revokes_an_end(sequence: list[Call]) -> None:
    strength = {OrderOutcome.CODE_RECEIVED: 2, OrderOutcome.MESSAGE_SENT: 2}
    before: JournalEntry | None = None
    for make, arguments in sequence:
        entry = make(*arguments)(before)
        if before is not None:
            assert entry is not None
            if isinstance(before.outcome, OrderOutcome):
                assert isinstance(entry.outcome, OrderOutcome)
                assert strength.get(entry.outcome, 1) >= strength.get(before.outcome, 1)
                assert entry.finished_at == before.finished_at
        before = entry


@given(sequences)
def test_a_delivered_result_comes_again_only_if_it_changed(sequence: list[Call]) -> None:
    before: JournalEntry | None = None
    for make, arguments in sequence:
        entry = make(*arguments)(before)
        if before is not None and before.delivered_at is not None:
            assert entry is not None
            is_same = entry.delivered_at == before.delivered_at
            assert is_same or entry.pending or entry.outcome is not before.outcome
        before = entry


@given(sequences)
def test_every_entry_is_consistent(sequence: list[Call]) -> None:
    entry: JournalEntry | None = None
    for make, arguments in sequence:
        entry = make(*arguments)(entry)
        if entry is not None:
            assert entry.pending is (entry.finished_at is None)
            assert entry.pending or entry.outcome is not None
            assert not (entry.pending and isinstance(entry.outcome, OrderOutcome))
            assert entry.delivered_at is None or entry.finished_at is not None
            assert (entry.result is None) is entry.pending
            assert (entry.claimed_by is None) is (entry.claimed_until is None)
            assert (entry.number is None) is (entry.number_seen_at is None)
            if entry.state is not None and (outcome := outcome_of(entry.state)) is not None:
                assert not entry.pending, outcome


@given(sequences)
def test_a_change_that_changes_nothing_returns_the_same_entry(sequence: list[Call]) -> None:
    """A journal writes nothing then, and most polls report nothing new."""
    before: JournalEntry | None = None
    for make, arguments in sequence:
        entry = make(*arguments)(before)
        assert entry is before or entry != before
        if make is not failed:  # each failed cancel is counted
            assert make(*arguments)(entry) is entry
        before = entry
