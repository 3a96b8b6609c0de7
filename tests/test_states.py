"""The state table of an order: what a status means, where the money is, and what can follow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms4sats_async import AUTOMATIC_CANCEL_AGE, MINIMUM_CANCEL_AGE
from sms4sats_async._orders.states import (
    STATES,
    Facts,
    is_last,
    money_in,
    outcome_of,
    row_for,
)
from sms4sats_async.models import Money, OrderOutcome, OrderState, SmsStatus

FACTS = st.builds(
    Facts,
    paid=st.none() | st.booleans(),
    code=st.none() | st.text(),
    number=st.none() | st.text(),
    sms_status=st.none() | st.sampled_from(SmsStatus),
    error=st.none() | st.text(),
)

# At least one for each row of STATES, in its order, and for each pair where two rows could hold.
EXAMPLES: list[tuple[Facts, OrderState]] = [
    (Facts(code="0042"), OrderState.CODE_RECEIVED),
    (Facts(code="0042", paid=True, number="+1"), OrderState.CODE_RECEIVED),
    (Facts(code="0042", error="refunded"), OrderState.CODE_RECEIVED),
    (Facts(code="0042", paid=False, sms_status=SmsStatus.FAILED), OrderState.CODE_RECEIVED),
    (Facts(error="refunded"), OrderState.REFUNDED),
    (Facts(error="refunded", paid=True, number="+1"), OrderState.REFUNDED),
    (Facts(error="refunded", paid=False), OrderState.REFUNDED),
    (Facts(error="refunded", sms_status=SmsStatus.DELIVERED), OrderState.REFUNDED),
    (Facts(sms_status=SmsStatus.DELIVERED), OrderState.MESSAGE_DELIVERED),
    (Facts(sms_status=SmsStatus.DELIVERED, paid=False), OrderState.MESSAGE_DELIVERED),
    (Facts(sms_status=SmsStatus.SENT, paid=True), OrderState.MESSAGE_SENT),
    (Facts(sms_status=SmsStatus.SENT, paid=False, number="+1"), OrderState.MESSAGE_SENT),
    (Facts(sms_status=SmsStatus.FAILED, paid=True), OrderState.MESSAGE_FAILED),
    (Facts(sms_status=SmsStatus.FAILED, paid=False), OrderState.MESSAGE_FAILED),
    (Facts(paid=False), OrderState.UNPAID),
    (Facts(paid=False, number="+1"), OrderState.UNPAID),
    (Facts(paid=False, sms_status=SmsStatus.CREATED), OrderState.UNPAID),
    (Facts(paid=False, sms_status=SmsStatus.UNKNOWN), OrderState.UNPAID),
    (Facts(sms_status=SmsStatus.CREATED), OrderState.MESSAGE_CREATED),
    (Facts(sms_status=SmsStatus.CREATED, paid=True, number="+1"), OrderState.MESSAGE_CREATED),
    (Facts(number="+1"), OrderState.NUMBER_ASSIGNED),
    (Facts(number="+1", paid=True), OrderState.NUMBER_ASSIGNED),
    (Facts(paid=True), OrderState.HELD),
    (Facts(), OrderState.UNKNOWN),
    (Facts(paid=True, sms_status=SmsStatus.UNKNOWN), OrderState.UNKNOWN),
    (Facts(number="+1", sms_status=SmsStatus.UNKNOWN), OrderState.UNKNOWN),
]

# Where the money is in each state, how an order in it has ended, and whether another can follow.
MEANINGS: dict[OrderState, tuple[Money, OrderOutcome | None, bool]] = {
    OrderState.UNPAID: (Money.WITH_PAYER, None, False),
    OrderState.HELD: (Money.HELD, None, False),
    OrderState.NUMBER_ASSIGNED: (Money.HELD, None, False),
    OrderState.CODE_RECEIVED: (Money.SETTLED, OrderOutcome.CODE_RECEIVED, True),
    OrderState.REFUNDED: (Money.REFUNDED, OrderOutcome.REFUNDED, True),
    OrderState.MESSAGE_CREATED: (Money.HELD, None, False),
    OrderState.MESSAGE_SENT: (Money.SETTLED, OrderOutcome.MESSAGE_SENT, False),
    OrderState.MESSAGE_DELIVERED: (Money.SETTLED, OrderOutcome.MESSAGE_SENT, True),
    OrderState.MESSAGE_FAILED: (Money.UNKNOWN, None, True),
    OrderState.UNKNOWN: (Money.UNKNOWN, None, False),
}


@pytest.mark.parametrize(("facts", "state"), EXAMPLES)
def test_the_state_is_the_first_row_that_holds(facts: Facts, state: OrderState) -> None:
    assert row_for(facts).state is state


def test_every_state_has_one_row_and_an_example() -> None:
    rows = [row.state for row in STATES]
    assert sorted(rows, key=str) == sorted(OrderState, key=str)
    # The examples come in the order of the rows, so that one can be read beside the other.
    assert list(dict.fromkeys(state for _, state in EXAMPLES)) == rows


def test_every_row_has_its_condition_in_words() -> None:
    conditions = [row.when for row in STATES]
    assert len(set(conditions)) == len(conditions)
    assert all(conditions)


@pytest.mark.parametrize("state", OrderState)
def test_a_state_has_its_money_its_outcome_and_whether_it_is_the_last(state: OrderState) -> None:
    assert (money_in(state), outcome_of(state), is_last(state)) == MEANINGS[state]


@given(FACTS)
def test_every_answer_has_a_state(facts: Facts) -> None:
    holding = [row for row in STATES if row.holds(facts)]
    assert row_for(facts) is holding[0]


@given(FACTS)
def test_money_is_settled_only_by_a_delivery_and_refunded_only_by_an_error(facts: Facts) -> None:
    money = row_for(facts).money
    delivered = facts.code is not None or facts.sms_status in {SmsStatus.SENT, SmsStatus.DELIVERED}
    assert money is not Money.SETTLED or delivered
    assert money is not Money.REFUNDED or facts.error is not None
    assert facts.code is None or money is Money.SETTLED


@pytest.mark.parametrize("state", OrderState)
def test_a_status_is_no_evidence_of_a_cancel(state: OrderState) -> None:
    assert outcome_of(state) is not OrderOutcome.CANCELLED


def test_money_that_is_settled_or_refunded_stays_so() -> None:
    for row in STATES:
        if row.money in {Money.SETTLED, Money.REFUNDED}:
            after = {money_in(state) for state in row.then}
            assert after <= {row.money, Money.UNKNOWN}


def test_the_documented_ages_are_2_and_21_minutes() -> None:
    assert MINIMUM_CANCEL_AGE.total_seconds() == 120
    assert AUTOMATIC_CANCEL_AGE.total_seconds() == 1260
