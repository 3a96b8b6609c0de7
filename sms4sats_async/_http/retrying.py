"""The only retry loop: one call with its attempts, waits and deadline."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote as quote_plainly

import anyio
from anyio.lowlevel import current_token

from sms4sats_async._cancellation import CancelledElsewhereError, cancellations_of_others
from sms4sats_async._logging import log_answer
from sms4sats_async._redact import hide, hide_in_causes
from sms4sats_async._validate import instance
from sms4sats_async.errors import (
    ClientStateError,
    RequestTimeoutError,
    Sms4SatsError,
    TransportError,
)
from sms4sats_async.events import AttemptFailed
from sms4sats_async.models import RequestOutcome
from sms4sats_async.retry import RetryPolicy, next_delay

from .decode import read_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sms4sats_async._clock import Clock
    from sms4sats_async.events import Event

    from .endpoints import Operation
    from .messages import Request, Response
    from .transports.base import Transport

T = TypeVar("T")

CONNECTIONS: Final = 100
"""How many requests of one client are under way at the same time; the others wait in line."""

# What is known of several attempts together is what is known of the least certain one.
_CERTAINTY: Final = (RequestOutcome.NOT_SENT, RequestOutcome.REFUSED, RequestOutcome.UNKNOWN)


class Calls:
    """Sends requests with retries; belongs to one client and, once used, to one event loop."""

    def __init__(
        self,
        transport: Transport,
        *,
        timeout: float,
        retry: RetryPolicy,
        clock: Clock,
        report: Callable[[Event], None],
        root: str,
        secret: str | None = None,
    ) -> None:
        self.retry = retry
        self.random: Callable[[], float] = random.random
        self._clock = clock
        self._transport = transport
        self._timeout = timeout
        self._report = report
        self._root = root
        self._secret = secret
        self._loop: object | None = None
        self._closed = False
        self._places: anyio.Semaphore | None = None

    async def call(
        self,
        operation: Operation[T],
        request: Request,
        *,
        order_id: str | None = None,
        retry: RetryPolicy | None = None,
        after_failure: Callable[[Sms4SatsError, float], Awaitable[T | None]] | None = None,
    ) -> tuple[T, int]:
        """Send until it works, until it cannot help, or until the deadline.

        Args:
            operation: What is asked for.
            request: It, ready to send.
            order_id: The order it is about.
            retry: The policy for this call; the client's own if None.
            after_failure: Awaited after each failed attempt, with the failure and the seconds
                left; a result from it ends the call well, an error ends it, None lets it go on.

        Returns:
            The result, and how many attempts it took.
        """
        self.bind(operation.name, order_id)
        policy = self.retry if retry is None else instance("retry", retry, RetryPolicy)
        started = self._clock.monotonic()
        deadline = math.inf if policy.total_timeout is None else started + policy.total_timeout
        known = RequestOutcome.NOT_SENT
        attempt = 0
        while True:
            attempt += 1
            try:
                response = await self._attempt(request, deadline)
                answer = read_json(response, request, now=self._clock.now())
                value = operation.decode(answer, order_id)
            except Sms4SatsError as error:
                failure = error
            else:
                log_answer(operation.name, order_id, attempt, response.status)
                return value, attempt
            outcome = failure.request_outcome or RequestOutcome.UNKNOWN
            if isinstance(failure, TransportError) and outcome is RequestOutcome.NOT_SENT:
                failure.problem += f"; the service root is {self._root}"
            known = max(known, outcome, key=_CERTAINTY.index)
            self._hide_secrets(failure, order_id)
            failure.operation = operation.name
            failure.order_id = order_id
            failure.attempts = attempt
            failure.request_outcome = known
            if after_failure is not None:
                found = await after_failure(failure, self._left(deadline))
                if found is not None:
                    return found, attempt
            delay = next_delay(
                policy,
                safety=request.safety,
                error=failure,
                attempt=attempt,
                elapsed=self._clock.monotonic() - started,
                random=self.random(),
            )
            self._report(
                AttemptFailed(order_id, operation.name, attempt, policy.attempts, failure, delay)
            )
            if delay is None:
                raise failure
            await self._clock.sleep(delay)
            # The sleep may have taken longer than it was asked to, and the client may be closed.
            if self._left(deadline) <= 0 or self._closed:
                raise failure

    async def close(self) -> None:
        """Close the transport; calling it again does nothing."""
        if self._loop is not None and not self._closed:
            self.bind()
        self._closed = True
        await self._transport.close()

    def bind(self, operation: str | None = None, order_id: str | None = None) -> None:
        """Belong to the event loop that runs.

        Raises:
            ClientStateError: The client is closed, or belongs to another event loop.
        """
        if self._closed:
            problem = "the client is closed; make a new one"
            raise ClientStateError(problem, operation=operation, order_id=order_id)
        loop = current_token()
        if self._loop is None:
            self._loop = loop
            self._places = anyio.Semaphore(CONNECTIONS, fast_acquire=True)
        elif self._loop != loop:
            problem = (
                "the client was used in another event loop, where its connections live; make one "
                "client per loop"
            )
            raise ClientStateError(problem, operation=operation, order_id=order_id)

    def _hide_secrets(self, failure: Sms4SatsError, order_id: str | None) -> None:
        """Take the key and the order ID out of what an answer echoed and a library quoted."""
        secrets = [secret for secret in (self._secret, order_id) if secret is not None]
        for secret in secrets:
            failure.problem = hide(failure.problem, secret)
        failure.args = (failure.problem,)
        if order_id is not None:
            secrets.append(quote_plainly(order_id, safe=""))
        hide_in_causes(failure, secrets)

    def _left(self, deadline: float) -> float:
        return deadline - self._clock.monotonic()

    async def _attempt(self, request: Request, deadline: float) -> Response:
        """Send once, within the time of an attempt; waiting for a place is not counted to it."""
        places = self._places
        assert places is not None  # noqa: S101 - `_bind` made it; for the type checkers
        try:
            places.acquire_nowait()
        except anyio.WouldBlock:
            with anyio.move_on_after(self._left(deadline)) as line:
                await places.acquire()
            if line.cancelled_caught:
                problem = (
                    f"all {CONNECTIONS} connections of the client stayed busy until the call's "
                    "time was up"
                )
                raise RequestTimeoutError(problem) from None
        try:
            limit = min(self._timeout, self._left(deadline))
            if limit <= 0:
                problem = "the call's time was up before anything was sent"
                raise RequestTimeoutError(problem)
            with anyio.CancelScope(deadline=anyio.current_time() + limit) as scope:
                with cancellations_of_others():
                    return await self._transport.send(request, timeout=limit)
        except CancelledElsewhereError as error:
            problem = "the HTTP library cancelled the request"
            raise TransportError(problem, request_outcome=RequestOutcome.UNKNOWN) from error
        finally:
            places.release()
        # The scope swallowed its own cancellation, so there was no return above.
        assert scope.cancelled_caught  # noqa: S101
        problem = f"no whole answer within {limit:.3g} s"
        raise RequestTimeoutError(problem, request_outcome=RequestOutcome.UNKNOWN)
