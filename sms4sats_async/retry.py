"""When to try again, and after how long: a policy and one pure decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from ._http.messages import Safety
from ._redact import show
from ._validate import (
    as_optional_seconds,
    as_seconds,
    check_positive_seconds,
    check_seconds,
)
from .errors import (
    APIError,
    InvalidArgumentError,
    InvalidResponseError,
    RateLimitError,
    ServerError,
    Sms4SatsError,
    TransportError,
)
from .models import RequestOutcome

if TYPE_CHECKING:
    from attrs import Attribute

_STEEPEST_GROWTH: Final = 1000


def _at_least_one(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        problem = (
            f"{attribute.name} must be a whole number of at least 1, not {show(value)}: it counts "
            "all attempts, so 1 means no retry"
        )
        raise InvalidArgumentError(problem)


def _growing(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 1 <= value <= _STEEPEST_GROWTH
    ):
        problem = (
            f"{attribute.name} must be a number from 1 to {_STEEPEST_GROWTH}, not {show(value)}"
        )
        raise InvalidArgumentError(problem)


@attrs.frozen
class RetryPolicy:
    """How often and for how long a call is retried.

    The wait before attempt n+1 is drawn evenly from 0 to
    `min(maximum_delay, initial_delay * multiplier ** (n - 1))`. This is full jitter: many clients
    that failed together do not retry together. Which failures are retried depends on the call, not
    on the policy.

    Attributes:
        attempts: The number of attempts, the first included; 1 means no retry.
        initial_delay: Seconds (or a timedelta) that the first wait lasts at most.
        maximum_delay: Seconds that any wait lasts at most.
        multiplier: How the bound of the wait grows.
        total_timeout: Seconds for everything together: attempts, waits, and waiting for a free
            connection; None means no such bound.
        retry_after_limit: The longest `Retry-After`, in seconds, that is waited out. A longer one
            ends the call at once and is on the error.

    Raises:
        InvalidArgumentError: If a value is invalid.
    """

    attempts: int = attrs.field(default=4, validator=_at_least_one)
    initial_delay: float = attrs.field(default=0.5, converter=as_seconds, validator=check_seconds)
    maximum_delay: float = attrs.field(default=8.0, converter=as_seconds, validator=check_seconds)
    multiplier: float = attrs.field(default=2.0, validator=_growing)
    total_timeout: float | None = attrs.field(
        default=30.0, converter=as_optional_seconds, validator=check_positive_seconds
    )
    retry_after_limit: float = attrs.field(
        default=120.0, converter=as_seconds, validator=check_seconds
    )

    def longest_delay(self, attempt: int) -> float:
        """Return the most seconds to wait after the failed attempt number `attempt`, from 1 on."""
        if self.initial_delay == 0:
            return 0.0
        try:
            return min(
                self.maximum_delay, self.initial_delay * float(self.multiplier) ** (attempt - 1)
            )
        except OverflowError:
            return self.maximum_delay


def may_repeat(safety: Safety, error: Sms4SatsError) -> bool:
    """Return whether a retry is harmless and useful.

    A 400, 401, 403, 404, or any other refusal that the same request would meet again, is not
    retried. A request that could buy twice is retried only if it was not sent.
    """
    if safety is Safety.ONLY_IF_NOT_SENT:
        return (
            isinstance(error, TransportError) and error.request_outcome is RequestOutcome.NOT_SENT
        )
    return isinstance(error, TransportError | InvalidResponseError | ServerError | RateLimitError)


def next_delay(
    policy: RetryPolicy,
    *,
    safety: Safety,
    error: Sms4SatsError,
    attempt: int,
    elapsed: float,
    random: float,
) -> float | None:
    """Decide what follows a failed attempt.

    Args:
        policy: The caller's policy.
        safety: Which failures of this operation can be retried.
        error: How the attempt failed.
        attempt: Which attempt it was, from 1 on.
        elapsed: Seconds since the call began.
        random: A number from 0 to 1, drawn by the caller.

    Returns:
        Seconds to wait before the next attempt. None to give up: no attempt is left, another one
        could not help or could do harm, or the wait would not end before the deadline.
    """
    if attempt >= policy.attempts or not may_repeat(safety, error):
        return None
    delay = policy.longest_delay(attempt) * random
    if isinstance(error, APIError) and error.retry_after is not None:
        if error.retry_after > policy.retry_after_limit:
            return None
        delay = max(delay, error.retry_after)
    if policy.total_timeout is not None and elapsed + delay >= policy.total_timeout:
        return None
    return delay
