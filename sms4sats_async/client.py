"""The client: a thin typed face over the rooms below."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Self

from . import _arguments as arguments
from ._clock import SystemClock
from ._exchange import Exchange
from ._lifecycle import MINIMUM_CANCEL_AGE
from ._operations import CREATE_ORDER, PING
from ._orders import Look, PatientCancel, cancel, get_status
from ._transport import open_transport
from .errors import AuthenticationError, InvalidResponseError
from .models import Cancellation, Order, OrderStatus, ReceiveOrder, RequestOutcome
from .retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ._clock import Clock
    from .events import Event

DEFAULT_BASE_URL: Final = "https://api2.sms4sats.com"
"""The service's root (documented)."""


class Sms4SatsClient:
    """An asynchronous client for the sms4sats.com API, on asyncio and Trio.

    Use it with `async with`, or call `aclose()` at the end. It keeps no background task and no
    cancel scope, and belongs to the event loop in which it is first used.

    Args:
        api_key: The key for prepaid calls; from the environment's `SMS4SATS_API_KEY` if None. It
            is sent to the calls that need it, and to no other.
        base_url: The service's root; from `SMS4SATS_BASE_URL` if None, else the real service.
        timeout: Seconds (or a timedelta) that a single attempt may take: a true bound, also on an
            answer that drips. Waiting for a free connection is not counted to it.
        retry: How often and how patiently a call is tried; every call can override it.
        http_client: An `httpx.AsyncClient`, `httpx2.AsyncClient` or `aiohttp.ClientSession` to
            send with. It stays the caller's and is never closed. By default the client has
            connections of its own, and honours `HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE` and
            `SSL_CERT_DIR`.
        clock: Another source of time, for tests; see `Clock`.
        on_event: Called with an `Event` at each attempt that failed, each wait and each status
            read while waiting. It must not block. What it raises is logged and goes no further.

    Raises:
        InvalidArgumentError: An argument that cannot be meant, such as a key over plain http to
            another machine.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: float | timedelta = 10.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen, so one is as good as many
        http_client: object | None = None,
        clock: Clock | None = None,
        on_event: Callable[[Event], object] | None = None,
    ) -> None:
        if api_key is None:
            api_key = os.environ.get("SMS4SATS_API_KEY") or None
        if base_url is None:
            base_url = os.environ.get("SMS4SATS_BASE_URL") or DEFAULT_BASE_URL
        self._api_key = None if api_key is None else arguments.api_key(api_key)
        self._base_url = arguments.base_url(base_url, key_is_set=self._api_key is not None)
        self._exchange = Exchange(
            open_transport(http_client, base_url=self._base_url, api_key=self._api_key),
            timeout=arguments.positive_seconds("timeout", timeout),
            retry=arguments.instance("retry", retry, RetryPolicy),
            clock=SystemClock() if clock is None else clock,
            on_event=on_event,
            secret=self._api_key,
        )

    def __repr__(self) -> str:
        key = "without a key" if self._api_key is None else "with a key"
        return f"<Sms4SatsClient {self._base_url} {key}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the client's own connections; an injected HTTP client is left alone.

        Calling it again does nothing. A call after it is a `ClientStateError`.
        """
        await self._exchange.close()

    async def ping(self, *, retry: RetryPolicy | None = None) -> None:
        """Return if the service is up (`GET /`, documented).

        Args:
            retry: Another policy for this call.

        Raises:
            TransportError: No answer.
            APIError: The service said no.
            InvalidResponseError: Something else answered.
        """
        await self._exchange.call(PING, PING.request(), retry=retry)

    async def create_order(
        self,
        country: int | str,
        service: str,
        *,
        rental: bool = False,
        real_phone: bool = False,
        referral: str | None = None,
        immediate: bool = False,
        retry: RetryPolicy | None = None,
    ) -> ReceiveOrder:
        """Order a number to receive an activation code on (`POST /createorder`, documented).

        The request is sent again only if it provably never left: there is no idempotency key
        (none is documented), so a second request could be a second order.

        Args:
            country: The country's number, or its name such as `"germany"`.
            service: The service's short code, such as `"tg"`.
            rental: Rent the number.
            real_phone: Ask for a number of a real phone.
            referral: A Lightning address that gets 10 %.
            immediate: Pay from the key's balance at once; needs the key.
            retry: Another policy for this call.

        Returns:
            The order, with the hold invoice to pay. Keep its `order_id`: it is the only handle.

        Raises:
            InvalidArgumentError: An argument that cannot be meant; nothing was sent.
            AuthenticationError: `immediate` without a key; nothing was sent.
            APIError: The service said no.
            TransportError: No answer; `request_outcome` tells whether an order may exist.
            InvalidResponseError: An unreadable answer; an order may exist.
        """
        if immediate and self._api_key is None:
            problem = "paying from the balance needs an API key; set SMS4SATS_API_KEY or api_key"
            raise AuthenticationError(problem, operation=CREATE_ORDER.name)
        body: dict[str, object] = {
            "country": arguments.country(country),
            "service": arguments.text("service", service),
        }
        if rental:
            body["isRental"] = True
        if real_phone:
            body["realphone"] = True
        if referral is not None:
            body["ref"] = arguments.text("referral", referral)
        if immediate:
            body["immediate"] = True
        made, attempts = await self._exchange.call(
            CREATE_ORDER,
            CREATE_ORDER.request(body=body, with_key=immediate),
            retry=retry,
        )
        if not made.payreq and not immediate:
            problem = "the answer has an orderId and no payreq, so the order cannot be paid"
            raise InvalidResponseError(
                problem,
                operation=CREATE_ORDER.name,
                order_id=made.order_id,
                attempts=attempts,
                request_outcome=RequestOutcome.UNKNOWN,
            )
        return ReceiveOrder(
            order_id=made.order_id,
            payreq=made.payreq,
            created_at=_not_before(self._exchange.clock.now()),
            country=country,
            service=service,
            raw=made.raw,
        )

    async def get_order_status(
        self, order_id: Order | str, *, retry: RetryPolicy | None = None
    ) -> OrderStatus:
        """Ask where an order stands (`GET /orderstatus`, documented).

        Args:
            order_id: The order's id, or the order.
            retry: Another policy for this call.

        Returns:
            The status. `state` is the one word for it; `code` is the code once it is there.

        Raises:
            InvalidArgumentError: An id that cannot be one; nothing was sent.
            APIError: The service said no; an unknown id is expected to be a `ServerError`.
            TransportError: No answer.
            InvalidResponseError: An unreadable answer.
        """
        return await get_status(self._exchange, _order_id(order_id), retry=retry)

    async def cancel_order(
        self,
        order_id: Order | str,
        *,
        retry: RetryPolicy | None = None,
        confirm: bool = False,
    ) -> Cancellation:
        """Cancel an order, so that the held money returns (`GET /cancelorder`, documented).

        One endpoint and its retries, nothing hidden. The service refuses with a 500 `unable to
        save data` (documented), which is tried again, as are other 5xx, 429, time-outs, lost and
        refused connections and unreadable answers. 400, 401, 403 and 404 are not.

        Args:
            order_id: The order's id, or the order. It can be cancelled from an age of 2 minutes
                on, while no code has arrived (documented).
            retry: Another policy for this call.
            confirm: Look at the status after each failure: an order that has ended is not asked
                for again.

        Returns:
            CANCELLED if the service answered OK; with `confirm` also ALREADY_RELEASED, if the
            status shows that the money was given back.

        Raises:
            InvalidArgumentError: An id that cannot be one; nothing was sent.
            CodeAlreadyReceivedError: With `confirm`: the code is there, on the error's `status`.
            UnableToSaveDataError: The service refused to the last attempt.
            APIError: Another refusal.
            TransportError: No answer.
            InvalidResponseError: An unreadable answer. For these, `request_outcome` UNKNOWN means
                that the order may be cancelled and may not.
        """
        identifier = _order_id(order_id)
        look = Look(self._exchange, identifier) if confirm else None
        return await cancel(self._exchange, identifier, retry=retry, look=look)

    async def cancel_order_when_allowed(
        self,
        order: Order | str,
        *,
        created_at: datetime | None = None,
        minimum_age: float | timedelta = MINIMUM_CANCEL_AGE,
        watch: bool = True,
        poll_interval: float | timedelta = 5.0,
    ) -> Cancellation:
        """Get the money back as soon as the service allows it, unless the code comes first.

        Waits until the order is old enough, by the wall clock, and never sends the cancel early.
        Then cancels with `confirm`. While the service refuses, or does not answer, it tries again
        at growing intervals until the order is 21 minutes old, when the service gives the money
        back by itself (documented); from then on only the status counts.

        Args:
            order: The order, or its id.
            created_at: When it was made, with a time zone. Taken from the order if None; where
                nobody knows it, now, which is the safe guess.
            minimum_age: Seconds (or a timedelta) before which the cancel is not sent.
            watch: Read the status meanwhile, and stop as soon as the order has ended. A read that
                fails does not end the wait.
            poll_interval: Seconds (or a timedelta) between two reads, give or take 15 %.

        Returns:
            CANCELLED with the service's OK; ALREADY_RELEASED with a status that shows it; or
            CODE_ARRIVED with the code in `status.code`. For a message to send, that it was sent.

        Raises:
            InvalidArgumentError: An argument that cannot be meant; nothing was sent.
            ClientStateError: The client was closed.
            APIError: A refusal that will not change, such as a 404 for an id that the status does
                not know either.
            Sms4SatsError: The last failure, with `request_outcome` UNKNOWN, if after 21 minutes
                neither an answer nor the status tells what became of the money.
        """
        if created_at is None and isinstance(order, Order):
            created_at = order.created_at
        if created_at is not None:
            created_at = arguments.aware("created_at", created_at)
        return await PatientCancel(
            self._exchange,
            _order_id(order),
            created_at=None if created_at is None else created_at.timestamp(),
            minimum_age=arguments.seconds("minimum_age", minimum_age),
            watch=watch,
            poll_interval=arguments.positive_seconds("poll_interval", poll_interval),
        ).run()


def _not_before(seconds: float) -> datetime:
    """Return Unix seconds as a datetime, rounded up: half a microsecond early would be early."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment if moment.timestamp() >= seconds else moment + timedelta(microseconds=1)


def _order_id(order: Order | str) -> str:
    return arguments.order_id(order.order_id if isinstance(order, Order) else order)
