"""`RetryPolicy` and the decision after a failed attempt, whatever the numbers.

The arithmetic is checked against fractions, which neither round nor overflow.
"""

import math
import pickle
from datetime import timedelta
from fractions import Fraction
from typing import Any

import attrs
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sms4sats_async._http.messages import Safety
from sms4sats_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ClientStateError,
    CodeTimeoutError,
    InvalidArgumentError,
    InvalidResponseError,
    OrderError,
    OrderRefundedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    Sms4SatsError,
    TransportError,
    UnableToSaveDataError,
)
from sms4sats_async.models import RequestOutcome
from sms4sats_async.retry import RetryPolicy, may_repeat, next_delay

NOT_SENT, REFUSED, UNKNOWN = RequestOutcome
LOST = TransportError("no answer", request_outcome=UNKNOWN)
HUGE = 10**5000

# --- the policy -----------------------------------------------------------------------------------


def test_the_defaults_are_four_attempts_within_30_seconds() -> None:
    assert attrs.asdict(RetryPolicy()) == {
        "attempts": 4,
        "initial_delay": 0.5,
        "maximum_delay": 8.0,
        "multiplier": 2.0,
        "total_timeout": 30.0,
        "retry_after_limit": 120.0,
    }
    assert RetryPolicy() == RetryPolicy(4, 0.5, 8.0, 2.0, 30.0, 120.0)


def test_a_time_span_can_be_a_timedelta() -> None:
    span = timedelta(seconds=1.5)
    policy = RetryPolicy(
        initial_delay=span, maximum_delay=span, total_timeout=span, retry_after_limit=span
    )

    assert policy == RetryPolicy(4, 1.5, 1.5, 2.0, 1.5, 1.5)


NO_NUMBERS: tuple[object, ...] = (True, False, "3", b"3", None, math.nan, math.inf, -math.inf, [])
NO_SPANS = (*NO_NUMBERS, -1, -0.001, timedelta(seconds=-1), HUGE, -HUGE)
REFUSED_VALUES: dict[str, tuple[object, ...]] = {
    "attempts": (*NO_NUMBERS, 0, -1, 1.0, 1.5, timedelta(1), -HUGE),
    "initial_delay": NO_SPANS,
    "maximum_delay": NO_SPANS,
    # None is no bound; 0 would leave no time for the first attempt.
    "total_timeout": (*(value for value in NO_SPANS if value is not None), 0, 0.0, timedelta(0)),
    "multiplier": (*NO_NUMBERS, 0, 0.999, -2, 1000.001, timedelta(1), HUGE, -HUGE),
    "retry_after_limit": NO_SPANS,
}


def test_every_field_has_invalid_values_to_try() -> None:
    assert set(REFUSED_VALUES) == {field.name for field in attrs.fields(RetryPolicy)}


def names(values: dict[str, tuple[object, ...]]) -> list[str]:
    return [f"{field}-{number}" for field, group in values.items() for number in range(len(group))]


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in REFUSED_VALUES.items() for value in values],
    ids=names(REFUSED_VALUES),
)
def test_an_invalid_value_is_refused(field: str, value: object) -> None:
    settings: dict[str, Any] = {field: value}

    with pytest.raises(InvalidArgumentError, match=f"^{field} must be "):
        RetryPolicy(**settings)
    with pytest.raises(InvalidArgumentError, match=f"^{field} must be "):
        attrs.evolve(RetryPolicy(), **settings)


ACCEPTED_VALUES: dict[str, tuple[object, ...]] = {
    "attempts": (1, 2, 10**100),
    "initial_delay": (0, 0.0, 1e308, timedelta(0)),
    "maximum_delay": (0, 0.0, 1e308, timedelta.max),
    "total_timeout": (None, 5e-324, 1, 1e308, timedelta.max),
    "multiplier": (1, 1.0, 1.5, 1000),
    "retry_after_limit": (0, 0.0, 1e308, timedelta(0)),
}


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in ACCEPTED_VALUES.items() for value in values],
    ids=names(ACCEPTED_VALUES),
)
def test_a_value_at_the_edge_is_accepted(field: str, value: object) -> None:
    settings: dict[str, Any] = {field: value}
    wanted = value.total_seconds() if isinstance(value, timedelta) else value

    assert getattr(RetryPolicy(**settings), field) == wanted


def test_a_policy_is_frozen_comparable_hashable_and_picklable() -> None:
    policy = RetryPolicy(attempts=2)

    for field in attrs.fields(RetryPolicy):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(policy, field.name, 1)
    assert pickle.loads(pickle.dumps(policy)) == policy  # noqa: S301 - our own bytes
    assert {policy, RetryPolicy(2), RetryPolicy()} == {policy, RetryPolicy(4)}


# --- what may be repeated -------------------------------------------------------------------------

REPEATED: list[tuple[Sms4SatsError, bool, bool]] = [
    # The failure; whether a read or a cancel is retried; whether a creation is retried.
    (TransportError(request_outcome=NOT_SENT), True, True),
    (TransportError(request_outcome=UNKNOWN), True, False),
    (TransportError(request_outcome=REFUSED), True, False),
    (RequestTimeoutError(request_outcome=NOT_SENT), True, True),
    (RequestTimeoutError(request_outcome=UNKNOWN), True, False),
    (InvalidResponseError(request_outcome=UNKNOWN), True, False),
    (InvalidResponseError(request_outcome=NOT_SENT), True, False),
    (UnableToSaveDataError(status_code=500, request_outcome=REFUSED), True, False),
    (ServerError(status_code=500, request_outcome=REFUSED), True, False),
    (ServerError(status_code=502, request_outcome=UNKNOWN), True, False),
    (RateLimitError(status_code=429, request_outcome=REFUSED), True, False),
    (RateLimitError(status_code=429, request_outcome=NOT_SENT), True, False),
    (BadRequestError(status_code=400, request_outcome=REFUSED), False, False),
    (AuthenticationError(status_code=401, request_outcome=REFUSED), False, False),
    (AuthenticationError(status_code=None, request_outcome=NOT_SENT), False, False),
    (APIError(status_code=404, request_outcome=REFUSED), False, False),
    (APIError(status_code=409, request_outcome=REFUSED), False, False),
    (APIError(status_code=302, request_outcome=UNKNOWN), False, False),
    (APIError(status_code=200, request_outcome=REFUSED), False, False),
    (InvalidArgumentError(), False, False),
    (ClientStateError(), False, False),
    (OrderError(), False, False),
    (OrderRefundedError(), False, False),
    (CodeTimeoutError(), False, False),
    (Sms4SatsError(), False, False),
]


@pytest.mark.parametrize(
    ("error", "read_again", "order_again"),
    REPEATED,
    ids=[f"{type(error).__name__}-{number}" for number, (error, *_) in enumerate(REPEATED)],
)
def test_a_failure_is_retried_only_where_that_is_useful_and_harmless(
    error: Sms4SatsError, *, read_again: bool, order_again: bool
) -> None:
    assert may_repeat(Safety.REPEATABLE, error) is read_again
    assert may_repeat(Safety.ONLY_IF_NOT_SENT, error) is order_again


# --- how long -------------------------------------------------------------------------------------


def decide(
    policy: RetryPolicy, error: Sms4SatsError = LOST, attempt: int = 1, **others: float
) -> float | None:
    """The decision for a read, at once, at half the jitter."""
    moment = {"elapsed": 0.0, "random": 0.5} | others
    return next_delay(policy, safety=Safety.REPEATABLE, error=error, attempt=attempt, **moment)


@pytest.mark.parametrize(
    ("attempt", "bound"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 8.0), (999, 8.0)]
)
def test_the_bound_of_the_wait_doubles(attempt: int, bound: float) -> None:
    policy = RetryPolicy(attempts=1000)

    assert policy.longest_delay(attempt) == bound
    assert [decide(policy, attempt=attempt, random=part) for part in (0.0, 0.25, 1.0)] == [
        0.0,
        bound / 4,
        bound,
    ]


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_the_policy_bounds_the_attempts(attempts: int) -> None:
    policy = RetryPolicy(attempts=attempts)
    decisions = [decide(policy, attempt=attempt) for attempt in range(1, attempts + 2)]

    assert [delay is not None for delay in decisions] == [True] * (attempts - 1) + [False] * 2


@pytest.mark.parametrize(
    ("elapsed", "delay"), [(0.0, 2.0), (7.999, 2.0), (8.0, None), (9.0, None), (1e308, None)]
)
def test_no_wait_ends_at_the_deadline_or_later(elapsed: float, delay: float | None) -> None:
    policy = RetryPolicy(initial_delay=2.0, total_timeout=10.0)

    assert decide(policy, elapsed=elapsed, random=1.0) == delay


def test_without_a_deadline_no_attempt_is_too_late() -> None:
    assert decide(RetryPolicy(total_timeout=None), elapsed=1e308) == 0.25


@pytest.mark.parametrize(
    ("retry_after", "delay"),
    [
        (None, 0.25),
        (0.0, 0.25),
        (0.1, 0.25),
        (7.0, 7.0),
        (20.0, 20.0),
        (20.001, None),
        (1e308, None),
        (math.inf, None),
    ],
)
@pytest.mark.parametrize("kind", [RateLimitError, ServerError, UnableToSaveDataError])
def test_a_wait_follows_retry_after_up_to_the_limit(
    kind: type[APIError], retry_after: float | None, delay: float | None
) -> None:
    policy = RetryPolicy(retry_after_limit=20.0)

    assert decide(policy, kind(retry_after=retry_after)) == delay


def test_retry_after_does_not_extend_the_deadline() -> None:
    policy = RetryPolicy(total_timeout=30.0)

    assert decide(policy, RateLimitError(retry_after=7.0), elapsed=22.999) == 7.0
    assert decide(policy, RateLimitError(retry_after=7.0), elapsed=23.0) is None


def test_retry_after_does_not_make_a_lasting_refusal_retryable() -> None:
    assert decide(RetryPolicy(), BadRequestError(retry_after=1.0)) is None


@pytest.mark.parametrize("attempt", [1024, 1026, 10**6])
@pytest.mark.parametrize(
    ("initial", "multiplier", "bound"), [(0.5, 2.0, 8.0), (0.0, 2.0, 0.0), (0.5, 1.0, 0.5)]
)
def test_the_bound_of_a_late_attempt_does_not_overflow(
    attempt: int, initial: float, multiplier: float, bound: float
) -> None:
    policy = RetryPolicy(10**500, initial, multiplier=multiplier, total_timeout=None)

    assert policy.longest_delay(attempt) == bound


SPANS = st.floats(0, 1e308) | st.floats(0, 100) | st.integers(0, 10**6) | st.just(0)
# From a microsecond to 30 years.
DELAYS = st.just(0) | st.floats(1e-6, 100) | st.floats(1e-6, 1e9)
POLICIES = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 10) | st.integers(1, 2000),
    initial_delay=DELAYS,
    maximum_delay=DELAYS,
    multiplier=st.floats(1, 1000) | st.integers(1, 1000),
    total_timeout=st.none() | SPANS.filter(bool),
    retry_after_limit=SPANS,
)
# A power of floats may be wrong in its last digits.
ROUNDED_UP = 1 + 1e-9
RETRY_AFTERS = st.none() | st.floats(min_value=0) | SPANS
ERRORS = st.sampled_from([error for error, *_ in REPEATED]) | st.one_of(
    [
        st.builds(kind, retry_after=RETRY_AFTERS, request_outcome=st.sampled_from(RequestOutcome))
        for kind in (RateLimitError, ServerError, UnableToSaveDataError, BadRequestError)
    ]
)


@given(
    policy=POLICIES,
    safety=st.sampled_from(Safety),
    error=ERRORS,
    attempt=st.integers(1, 12) | st.integers(1, 2001),
    elapsed=SPANS,
    random=st.floats(0, 1),
)
@example(
    policy=RetryPolicy(2000, 0, 8.0, total_timeout=None),
    safety=Safety.REPEATABLE,
    error=LOST,
    attempt=1026,
    elapsed=0.0,
    random=1.0,
)
def test_a_wait_is_within_every_bound(
    *,
    policy: RetryPolicy,
    safety: Safety,
    error: Sms4SatsError,
    attempt: int,
    elapsed: float,
    random: float,
) -> None:
    delay = next_delay(
        policy, safety=safety, error=error, attempt=attempt, elapsed=elapsed, random=random
    )
    asked = error.retry_after if isinstance(error, APIError) else None
    growth = Fraction(policy.multiplier) ** (attempt - 1)
    bound = min(Fraction(policy.maximum_delay), Fraction(policy.initial_delay) * growth)

    if delay is None:
        # No further attempt, for one of four reasons.
        most = max(float(bound) * ROUNDED_UP, asked or 0.0)
        assert (
            attempt >= policy.attempts
            or not may_repeat(safety, error)
            or (asked is not None and asked > policy.retry_after_limit)
            or (policy.total_timeout is not None and elapsed + most >= policy.total_timeout)
        )
        return
    assert 0 <= delay < math.inf
    assert attempt < policy.attempts
    assert may_repeat(safety, error)
    assert policy.total_timeout is None or elapsed + delay < policy.total_timeout
    assert asked is None or asked <= min(delay, policy.retry_after_limit)
    assert delay <= max(float(bound) * ROUNDED_UP, asked or 0.0)


@given(policy=POLICIES, attempt=st.integers(1, 2000), less=st.floats(0, 1), more=st.floats(0, 1))
def test_the_wait_has_full_jitter(
    policy: RetryPolicy, attempt: int, less: float, more: float
) -> None:
    assume(less <= more)
    policy = attrs.evolve(policy, attempts=attempt + 1, total_timeout=None)
    waits = [decide(policy, attempt=attempt, random=part) for part in (0.0, less, more, 1.0)]

    bound = policy.longest_delay(attempt)
    assert waits == [0.0, bound * less, bound * more, bound]


@given(policy=POLICIES, attempt=st.integers(1, 2000))
def test_the_bound_grows_to_the_maximum(policy: RetryPolicy, attempt: int) -> None:
    now, later = policy.longest_delay(attempt), policy.longest_delay(attempt + 1)

    assert now <= later * ROUNDED_UP
    assert max(now, later) <= policy.maximum_delay
