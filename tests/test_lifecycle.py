"""The law of an order: its state, who holds the money, and what follows a cancel that failed."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms4sats_async._orders.states import (
    AUTOMATIC_CANCEL_AGE,
    GRACE_AFTER_AUTOMATIC_CANCEL,
    LAWS,
    MINIMUM_CANCEL_AGE,
    Facts,
    Step,
    after_failed_cancel,
    has_ended,
    law_for,
    refusal_wait,
    verdict,
)
from sms4sats_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ClientStateError,
    InvalidResponseError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    Sms4SatsError,
    TransportError,
    UnableToSaveDataError,
)
from sms4sats_async.models import CancelOutcome, Money, OrderState, SmsStatus


def money_in(state: OrderState) -> Money:
    (law,) = [law for law in LAWS if law.state is state]
    return law.money


FACTS = st.builds(
    Facts,
    paid=st.none() | st.booleans(),
    code=st.none() | st.text(),
    number=st.none() | st.text(),
    sms_status=st.none() | st.sampled_from(SmsStatus),
    error=st.none() | st.text(),
)

# --- the state ------------------------------------------------------------------------------------

# At least one for each row of LAWS, in its order, and for each pair where two rows could hold.
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


@pytest.mark.parametrize(("facts", "state"), EXAMPLES)
def test_the_state_is_the_first_row_that_holds(facts: Facts, state: OrderState) -> None:
    assert law_for(facts).state is state


def test_every_state_has_one_row_and_an_example() -> None:
    rows = [law.state for law in LAWS]

    assert sorted(rows, key=str) == sorted(OrderState, key=str)
    # The examples come in the order of the rows, so that one can be read beside the other.
    assert list(dict.fromkeys(state for _, state in EXAMPLES)) == rows


def test_every_row_says_its_condition_in_words() -> None:
    conditions = [law.when for law in LAWS]

    assert len(set(conditions)) == len(conditions)
    assert all(conditions)


@given(FACTS)
def test_every_answer_means_some_state(facts: Facts) -> None:
    holding = [law for law in LAWS if law.holds(facts)]

    assert law_for(facts) is holding[0]


@given(FACTS)
def test_money_is_called_settled_only_for_what_was_delivered(facts: Facts) -> None:
    money = law_for(facts).money
    delivered = facts.code is not None or facts.sms_status in {SmsStatus.SENT, SmsStatus.DELIVERED}

    assert money is not Money.SETTLED or delivered
    assert money is not Money.RETURNED or facts.error is not None
    assert facts.code is None or money is Money.SETTLED


# --- the money ------------------------------------------------------------------------------------

# Who holds the money in each state, and how an order in it has ended.
ENDS: dict[OrderState, tuple[Money, CancelOutcome | None]] = {
    OrderState.UNPAID: (Money.WITH_PAYER, None),
    OrderState.HELD: (Money.HELD, None),
    OrderState.NUMBER_ASSIGNED: (Money.HELD, None),
    OrderState.CODE_RECEIVED: (Money.SETTLED, CancelOutcome.CODE_ARRIVED),
    OrderState.REFUNDED: (Money.RETURNED, CancelOutcome.ALREADY_RELEASED),
    OrderState.MESSAGE_CREATED: (Money.HELD, None),
    OrderState.MESSAGE_SENT: (Money.SETTLED, CancelOutcome.CODE_ARRIVED),
    OrderState.MESSAGE_DELIVERED: (Money.SETTLED, CancelOutcome.CODE_ARRIVED),
    OrderState.MESSAGE_FAILED: (Money.UNKNOWN, None),
    OrderState.UNKNOWN: (Money.UNKNOWN, None),
}


@pytest.mark.parametrize("state", OrderState)
def test_each_state_tells_who_holds_the_money_and_whether_the_order_has_ended(
    state: OrderState,
) -> None:
    assert (money_in(state), verdict(state)) == ENDS[state]


@pytest.mark.parametrize("state", OrderState)
def test_an_order_has_ended_where_nobody_waits_for_its_money_any_more(state: OrderState) -> None:
    ended = verdict(state)

    assert (ended is not None) == (money_in(state) in {Money.SETTLED, Money.RETURNED})
    if ended is not None:
        assert ended.funds_returned == (money_in(state) is Money.RETURNED)
    # A status is never evidence of a cancel of ours: only the service's OK is.
    assert ended is not CancelOutcome.CANCELLED


def test_an_order_whose_money_is_settled_or_back_stays_so() -> None:
    for law in LAWS:
        if law.money in {Money.SETTLED, Money.RETURNED}:
            after = {money_in(state) for state in law.then}
            assert after <= {law.money, Money.UNKNOWN}


def test_an_order_has_ended_where_nothing_can_follow() -> None:
    ended = {state for state in OrderState if has_ended(state)}

    assert ended == {
        OrderState.CODE_RECEIVED,
        OrderState.REFUNDED,
        OrderState.MESSAGE_DELIVERED,
        OrderState.MESSAGE_FAILED,
    }


def test_the_documented_ages_are_2_and_21_minutes() -> None:
    assert timedelta(minutes=2) == MINIMUM_CANCEL_AGE
    assert timedelta(minutes=21) == AUTOMATIC_CANCEL_AGE
    assert GRACE_AFTER_AUTOMATIC_CANCEL > 0


# --- after a cancel that failed -------------------------------------------------------------------

YOUNG, NEARLY, OLD = 120.0, 1259.9, 1260.0
# A refusal that lasts is final where no status shows that the order is open.
LASTING: list[Sms4SatsError] = [
    APIError(status_code=302),
    APIError(status_code=399),
    BadRequestError(status_code=400),
    AuthenticationError(status_code=401),
    AuthenticationError(status_code=403),
    APIError(status_code=404),
    APIError(status_code=499),
]
PASSING: list[Sms4SatsError] = [
    UnableToSaveDataError(status_code=500),
    ServerError(status_code=503),
    RateLimitError(status_code=429),
    APIError(status_code=200),
    APIError(status_code=299),
    APIError(status_code=None),
    InvalidResponseError(status_code=404),
    InvalidResponseError(),
    TransportError(),
    RequestTimeoutError(),
]


def name(error: Sms4SatsError) -> str:
    return f"{type(error).__name__}-{getattr(error, 'status_code', '')}"


@pytest.mark.parametrize("error", LASTING, ids=name)
@pytest.mark.parametrize("age", [YOUNG, NEARLY, OLD, 1e9])
def test_a_lasting_refusal_of_an_order_nobody_knows_is_believed(
    error: Sms4SatsError, age: float
) -> None:
    assert after_failed_cancel(error, age=age, order_is_open=False) is Step.GIVE_UP


@pytest.mark.parametrize("error", LASTING + PASSING, ids=name)
@pytest.mark.parametrize(
    ("age", "step"),
    [
        (0.0, Step.WAIT_AND_CANCEL),
        (YOUNG, Step.WAIT_AND_CANCEL),
        (NEARLY, Step.WAIT_AND_CANCEL),
        (OLD, Step.TRUST_THE_STATUS),
        (1e9, Step.TRUST_THE_STATUS),
    ],
)
def test_the_refusal_of_an_open_order_is_waited_out_until_the_service_cancels_it_itself(
    error: Sms4SatsError, age: float, step: Step
) -> None:
    assert after_failed_cancel(error, age=age, order_is_open=True) is step
    if error in PASSING:
        assert after_failed_cancel(error, age=age, order_is_open=False) is step


@pytest.mark.parametrize("age", [0.0, YOUNG, OLD])
@pytest.mark.parametrize("order_is_open", [True, False])
def test_a_closed_client_ends_the_wait_at_any_age(age: float, *, order_is_open: bool) -> None:
    step = after_failed_cancel(ClientStateError(), age=age, order_is_open=order_is_open)

    assert step is Step.GIVE_UP


@given(
    status=st.none() | st.integers(100, 999),
    kind=st.sampled_from([APIError, RateLimitError, ServerError]),
    age=st.floats(min_value=0),
    order_is_open=st.booleans(),
)
def test_some_step_follows_every_failure_and_an_open_order_is_never_given_up(
    status: int | None, kind: type[APIError], age: float, *, order_is_open: bool
) -> None:
    step = after_failed_cancel(kind(status_code=status), age=age, order_is_open=order_is_open)

    assert not (order_is_open and step is Step.GIVE_UP)
    if age >= AUTOMATIC_CANCEL_AGE.total_seconds():
        assert step is not Step.WAIT_AND_CANCEL


@pytest.mark.parametrize(
    ("refusals", "wait"), [(1, 5.0), (2, 10.0), (3, 20.0), (4, 40.0), (5, 60.0), (6, 60.0)]
)
def test_the_wait_doubles_with_each_refusal_up_to_a_minute(refusals: int, wait: float) -> None:
    assert refusal_wait(refusals) == wait


@given(st.integers(1, 10**6) | st.integers(min_value=1))
def test_the_wait_grows_and_is_bounded(refusals: int) -> None:
    assert 5.0 <= refusal_wait(refusals) <= refusal_wait(refusals + 1) <= 60.0
