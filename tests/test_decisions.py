"""The one decision about an order, over random observations."""

import math
from collections.abc import Iterator

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms4sats_async._orders.decisions import (
    AFTER_NUMBER,
    AUTOMATIC_AGE,
    GRACE,
    MINIMUM_AGE,
    NOTHING_KNOWN,
    OUTAGE,
    Action,
    Ended,
    Intent,
    Known,
    Reason,
    Refusals,
    Request,
    WaitUntil,
    after_cancel,
    after_payment,
    after_poll,
    after_refusal,
    next_action,
)
from sms4sats_async._orders.states import STATES, is_last, money_in, outcome_of
from sms4sats_async.models import Money, OrderOutcome, OrderState, OrderStatus

ORDER_ID = "0123456789abcdef" * 4
POLL, CANCEL = Request.POLL, Request.CANCEL
OPEN = [row.state for row in STATES if row.outcome is None]
PAUSE = 5.0
MOST_STEPS = 2_000


def status(state: OrderState, *, number: bool = False) -> OrderStatus:
    return OrderStatus(
        ORDER_ID,
        state,
        code="0042" if state is OrderState.CODE_RECEIVED else None,
        number="+1555" if number or state is OrderState.NUMBER_ASSIGNED else None,
    )


def polled(known: Known, age: float, state: OrderState | None) -> Known:
    return after_poll(known, age, None if state is None else status(state), pause=PAUSE)


def refused(
    known: Known,
    age: float,
    state: OrderState | None = OrderState.HELD,
    *,
    lasting: bool = False,
    checked: bool = True,
) -> Known:
    seen = None if state is None else status(state)
    return after_refusal(known, age, seen, lasting=lasting, checked=checked, pause=PAUSE)


# --- single decisions -----------------------------------------------------------------------------

HELD = polled(NOTHING_KNOWN, 0, OrderState.HELD)
UNPAID = after_payment(polled(NOTHING_KNOWN, 0, OrderState.UNPAID), 10)
REFUSED = refused(polled(NOTHING_KNOWN, 120, OrderState.HELD), 121)
NO_WATCH = Intent(watch=False)

# intent, deadline, what is known, age, and what to do.
DECISIONS: list[tuple[str, Intent, float, Known, float, Action]] = [
    ("an order is polled at once", Intent(), 300, NOTHING_KNOWN, 0, POLL),
    ("polls keep their interval", Intent(), 300, HELD, 1, WaitUntil(5, Reason.CODE, 300)),
    ("the next poll is due", Intent(), 300, HELD, 5, POLL),
    ("a wait ends at the deadline", Intent(), 7, polled(HELD, 119, None), 119,
     WaitUntil(120, Reason.MINIMUM_AGE, 120)),
    ("no cancel before the minimum age", Intent(), 0, polled(HELD, 119.9, None), 119.9,
     WaitUntil(120, Reason.MINIMUM_AGE, 120)),
    ("a cancel at the minimum age", Intent(), 0, polled(HELD, 119, None), 120, CANCEL),
    ("a cancel at the deadline", Intent(), 300, polled(HELD, 299, None), 300, CANCEL),
    ("no minimum age", Intent(minimum_age=0), 0, NOTHING_KNOWN, 0, CANCEL),
    ("a quiet wait does not poll", NO_WATCH, 0, NOTHING_KNOWN, 0,
     WaitUntil(120, Reason.MINIMUM_AGE, 120)),
    ("an order is left alone until its time", Intent(not_before=900), 0, NOTHING_KNOWN, 10,
     WaitUntil(900, Reason.NOT_BEFORE, 900)),
    ("a deadline counts before that time", Intent(not_before=900), 60, NOTHING_KNOWN, 10, POLL),
    ("a refused cancel is retried after 5 seconds", NO_WATCH, 0, REFUSED, 122,
     WaitUntil(126, Reason.REFUSED, 126)),
    ("then it is due", NO_WATCH, 0, REFUSED, 126, CANCEL),
    ("the status is read after an unchecked refusal", NO_WATCH, 0,
     refused(HELD, 121, None, checked=False), 122, POLL),
    ("the cancel is retried once the status was read after it", NO_WATCH, 0,
     polled(refused(HELD, 121, None, checked=False), 122, OrderState.HELD), 126, CANCEL),
    ("a lasting refusal of an order that the status does not know is final", Intent(), 0,
     refused(HELD, 121, None, lasting=True), 121, Ended(None)),
    ("a lasting refusal of an open order is retried", NO_WATCH, 0,
     refused(HELD, 121, lasting=True), 126, CANCEL),
    ("a single attempt ends with its refusal", Intent(persists=False), 0, REFUSED, 121,
     Ended(None)),
    ("an old order is polled before its first cancel", Intent(), 0, NOTHING_KNOWN, 1300, POLL),
    ("an old order that shows no end is cancelled", Intent(), 0,
     polled(NOTHING_KNOWN, 1300, OrderState.HELD), 1300, CANCEL),
    ("after 21 minutes a refused order is only polled", Intent(), 0, REFUSED, 1260, POLL),
    ("also without watching", NO_WATCH, 0, REFUSED, 1260, POLL),
    ("the grace ends without an end", Intent(), 0,
     polled(REFUSED, AUTOMATIC_AGE + GRACE, OrderState.HELD), 1321, Ended(None)),
    ("a lost poll after the grace is repeated", Intent(), 0,
     polled(refused(HELD, 2000, None, checked=True), 2005, None), 2006,
     WaitUntil(2010, Reason.REFUSED, math.inf)),
    ("until an outage has lasted too long", Intent(), 0,
     polled(refused(HELD, 2000, None, checked=True), 2000 + OUTAGE, None), 2301, Ended(None)),
    ("an unpaid order whose payment ended is not waited for", Intent(), 300,
     polled(UNPAID, 119, OrderState.UNPAID), 119.5, WaitUntil(120, Reason.MINIMUM_AGE, 120)),
    ("its status is read once more before the cancel", Intent(), 300,
     polled(UNPAID, 119, OrderState.UNPAID), 120, POLL),
    ("then it is cancelled", Intent(), 300, polled(UNPAID, 120, OrderState.UNPAID), 120, CANCEL),
    ("a late payment goes on to its deadline", Intent(), 300,
     polled(polled(UNPAID, 120, OrderState.UNPAID), 121, OrderState.HELD), 121,
     WaitUntil(126, Reason.CODE, 300)),
    ("an unpaid status from before the end of the payment does not count", Intent(), 300,
     polled(UNPAID, 121, None), 122, WaitUntil(126, Reason.CODE, 300)),
    ("a payment that ended polls at once", Intent(), 300, UNPAID, 10, POLL),
    ("a wait without a cancel ends at its deadline", Intent(cancels=False), 30, HELD, 30,
     Ended(None)),
    ("a wait without a cancel polls", Intent(cancels=False), 30, HELD, 6, POLL),
    ("a failed message ends a wait without a cancel", Intent(cancels=False), 30,
     polled(HELD, 6, OrderState.MESSAGE_FAILED), 6, Ended(None)),
    ("a failed message is still cancelled", Intent(), 0,
     polled(HELD, 119, OrderState.MESSAGE_FAILED), 120, CANCEL),
]  # fmt: skip


@pytest.mark.parametrize(
    ("intent", "deadline", "known", "age", "action"),
    [pytest.param(*row[1:], id=row[0]) for row in DECISIONS],
)
def test_decision(
    intent: Intent, deadline: float, known: Known, age: float, action: Action
) -> None:
    assert next_action(intent, deadline, known, age) == action


@pytest.mark.parametrize("state", list(OrderState))
def test_a_state_with_an_outcome_ends_the_order(state: OrderState) -> None:
    known = polled(NOTHING_KNOWN, 3, state)
    action = next_action(Intent(), 300, known, 3)
    outcome = outcome_of(state)
    assert (action == Ended(outcome)) is (outcome is not None)


@pytest.mark.parametrize(
    ("refusals", "backoff"), [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (5000, 60)]
)
def test_retries_come_at_growing_intervals(refusals: int, backoff: float) -> None:
    known = attrs.evolve(HELD, refusals=Refusals(refusals, 200))
    assert next_action(NO_WATCH, 0, known, 200) == WaitUntil(
        200 + backoff, Reason.REFUSED, 200 + backoff
    )


def test_a_retry_comes_120_seconds_after_the_number_was_first_seen() -> None:
    known = attrs.evolve(HELD, number_age=100, refusals=Refusals(5, 190))
    assert next_action(NO_WATCH, 0, known, 190) == WaitUntil(220, Reason.REFUSED, 220)


def test_no_retry_is_planned_after_the_automatic_cancel() -> None:
    known = attrs.evolve(HELD, refusals=Refusals(9, AUTOMATIC_AGE - 10))
    action = next_action(NO_WATCH, 0, known, AUTOMATIC_AGE - 5)
    assert action == WaitUntil(AUTOMATIC_AGE, Reason.REFUSED, AUTOMATIC_AGE)


def test_the_number_is_first_seen_once() -> None:
    known = polled(NOTHING_KNOWN, 10, OrderState.NUMBER_ASSIGNED)
    assert polled(known, 15, OrderState.NUMBER_ASSIGNED).number_age == 10


def test_the_last_poll_of_a_wait_comes_a_second_before_its_end() -> None:
    known = after_poll(NOTHING_KNOWN, 8, status(OrderState.HELD), pause=5, deadline=10)
    assert known.next_poll == 9


def test_a_wait_with_less_than_a_second_left_polls_no_more() -> None:
    known = after_poll(NOTHING_KNOWN, 9.5, status(OrderState.HELD), pause=5, deadline=10)
    assert next_action(Intent(cancels=False), 10, known, 9.6) == WaitUntil(10, Reason.CODE, 10)


# --- random orders --------------------------------------------------------------------------------


@attrs.frozen
class Trace:
    """What a driver did with one order.

    Attributes:
        end: The last decision.
        cancels: The ages at which a cancel was sent.
        polls: The ages at which the status was read, alone or as the check after a refusal.
        answered: Whether a cancel was answered OK.
        seen: Every status that was read.
        refused: The ages at which a cancel was refused.
        restarts: How often the process restarted.
    """

    end: Ended
    cancels: list[float]
    polls: list[float]
    answered: bool
    seen: list[OrderState]
    refused: list[float]
    restarts: int


@attrs.define
class RandomService:
    """Answers polls and cancels at random, and lets time pass at random.

    Attributes:
        data: The source of chance.
        age: The age of the order.
        calm: Whether nothing slips: sleeps are exact and no process restarts.
    """

    data: st.DataObject
    age: float
    calm: bool = False

    def pass_time(self, seconds: float) -> None:
        """Let time pass; a suspended machine sleeps longer than it wanted to."""
        slip = 0.0
        if not self.calm:
            slip = self.data.draw(st.sampled_from([0.0, 0.0, 0.0, 0.5, 30.0, 400.0]))
        self.age += seconds + slip

    def poll(self) -> OrderState | None:
        answers: list[OrderState | None] = [*OPEN, *OPEN, *OrderState, None, None]
        return answers[self.data.draw(st.integers(0, len(answers) - 1))]

    def check(self) -> tuple[bool, OrderState | None]:
        checked = self.data.draw(st.booleans())
        return checked, self.poll() if checked else None

    def restarts(self) -> bool:
        return not self.calm and self.data.draw(st.integers(0, 19)) == 0


def as_recorded(known: Known) -> Known:
    """What the next process knows, from the journal."""
    refusals = known.refusals
    if refusals is not None:
        refusals = Refusals(refusals.count, refusals.age)
    return Known(number_age=known.number_age, refusals=refusals)


def drive(intent: Intent, deadline: float, service: RandomService) -> Trace:
    known = NOTHING_KNOWN
    cancels: list[float] = []
    polls: list[float] = []
    refusals: list[float] = []
    seen: list[OrderState] = []
    answered, restarts = False, 0
    for _ in range(MOST_STEPS):
        action = next_action(intent, deadline, known, service.age)
        match action:
            case Ended():
                return Trace(action, cancels, polls, answered, seen, refusals, restarts)
            case WaitUntil(age=age):
                assert age > service.age, "a wait that is over already would spin"
                service.pass_time(age - service.age)
            case Request.POLL:
                state = service.poll()
                polls.append(service.age)
                seen += [] if state is None else [state]
                known = polled(known, service.age, state)
                service.pass_time(0.1)
            case Request.CANCEL:
                cancels.append(service.age)
                if service.data.draw(st.integers(0, 4)) == 0:
                    answered = True
                    known = after_cancel(known)
                    continue
                checked, state = service.check()
                refusals.append(service.age)
                polls += [service.age] if checked else []
                seen += [] if state is None else [state]
                lasting = service.data.draw(st.integers(0, 9)) == 0
                known = refused(known, service.age, state, lasting=lasting, checked=checked)
                service.pass_time(0.1)
        is_recorded = known.refusals is None or not known.refusals.unchecked
        if known.outcome is None and is_recorded and service.restarts():
            known = as_recorded(known)
            restarts += 1
    raise AssertionError("the order did not end")


AGES = st.sampled_from([0.0, 0.0, 1.0, 60.0, 119.0, 121.0, 600.0, 1259.0, 1261.0, 4000.0])
INTENTS = st.builds(
    Intent,
    poll_interval=st.just(PAUSE),
    minimum_age=st.sampled_from([0.0, 90.0, MINIMUM_AGE, 300.0]),
    not_before=st.sampled_from([0.0, 0.0, 400.0, AUTOMATIC_AGE]),
    watch=st.booleans(),
    persists=st.booleans(),
)
DEADLINES = st.sampled_from([0.0, 30.0, 300.0, 600.0, 1500.0])


@st.composite
def random_traces(draw: st.DrawFn) -> tuple[Intent, float, float, Trace]:
    intent, deadline, age = draw(INTENTS), draw(DEADLINES), draw(AGES)
    service = RandomService(draw(st.data()), age)
    return intent, deadline, age, drive(intent, deadline, service)


@given(random_traces())
def test_no_cancel_is_sent_before_the_minimum_age_the_deadline_and_the_given_time(
    found: tuple[Intent, float, float, Trace],
) -> None:
    intent, deadline, _, trace = found
    first = max(intent.minimum_age, deadline, intent.not_before)
    assert all(age >= first for age in trace.cancels)


@given(random_traces())
def test_no_refund_is_reported_without_evidence(
    found: tuple[Intent, float, float, Trace],
) -> None:
    *_, trace = found
    match trace.end.outcome:
        case OrderOutcome.CANCELLED:
            assert trace.answered
        case OrderOutcome.REFUNDED:
            assert trace.seen[-1] is OrderState.REFUNDED
        case _:
            assert not trace.answered


@given(random_traces())
def test_a_code_that_was_seen_is_the_result(found: tuple[Intent, float, float, Trace]) -> None:
    *_, trace = found
    was_seen = OrderState.CODE_RECEIVED in trace.seen
    assert (trace.end.outcome is OrderOutcome.CODE_RECEIVED) is was_seen


@given(random_traces())
def test_the_status_is_read_between_two_cancels(
    found: tuple[Intent, float, float, Trace],
) -> None:
    *_, trace = found
    for first, second in zip(trace.cancels, trace.cancels[1:], strict=False):
        assert any(first <= age <= second for age in trace.polls)


@given(random_traces())
def test_after_21_minutes_a_refused_order_is_not_cancelled_again(
    found: tuple[Intent, float, float, Trace],
) -> None:
    *_, trace = found
    assert not trace.refused or all(
        age < AUTOMATIC_AGE for age in trace.cancels if age > trace.refused[0]
    )


@given(random_traces())
def test_the_number_of_requests_is_bounded(found: tuple[Intent, float, float, Trace]) -> None:
    intent, deadline, age, trace = found
    last = max(AUTOMATIC_AGE + GRACE, deadline, intent.not_before, age) + OUTAGE
    assert len(trace.cancels) <= AUTOMATIC_AGE / PAUSE + 1
    # Polls keep their interval; a refusal and a restart add one at once.
    extra = 2 * len(trace.cancels) + trace.restarts + 3
    assert len(trace.polls) <= (last - age) / PAUSE + extra


@given(st.data(), DEADLINES, st.integers(1, 600))
def test_one_cancel_comes_120_seconds_after_the_number(
    data: st.DataObject, deadline: float, number_at: int
) -> None:
    due = number_at + AFTER_NUMBER
    intent = Intent(poll_interval=PAUSE)

    @attrs.define
    class Refusing(RandomService):
        def poll(self) -> OrderState | None:
            return OrderState.NUMBER_ASSIGNED if self.age >= number_at else OrderState.HELD

    service = Refusing(data, 0.0, calm=True)
    cancels = [*_refused_cancels(intent, deadline, service)]
    first = max(deadline, MINIMUM_AGE)
    if first < due < AUTOMATIC_AGE:
        assert any(due <= age <= due + PAUSE + 1 for age in cancels)


def _refused_cancels(intent: Intent, deadline: float, service: RandomService) -> Iterator[float]:
    known = NOTHING_KNOWN
    while True:
        match next_action(intent, deadline, known, service.age):
            case Ended():
                return
            case WaitUntil(age=age):
                service.age = age
            case Request.POLL:
                known = polled(known, service.age, service.poll())
            case Request.CANCEL:
                yield service.age
                known = refused(known, service.age, service.poll())


@given(st.sampled_from(OrderState))
def test_money_that_is_settled_or_refunded_ends_an_order(state: OrderState) -> None:
    over = money_in(state) in {Money.SETTLED, Money.REFUNDED}
    assert over is (outcome_of(state) is not None)


def test_every_last_state_is_an_end_or_a_failed_message() -> None:
    last = {state for state in OrderState if is_last(state)}
    assert last == {
        OrderState.CODE_RECEIVED,
        OrderState.REFUNDED,
        OrderState.MESSAGE_DELIVERED,
        OrderState.MESSAGE_FAILED,
    }
