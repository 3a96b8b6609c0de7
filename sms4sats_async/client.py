"""The client: the public methods, each a thin layer over the modules below."""

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from . import _validate as validate
from ._clock import SHORTEST_SLEEP, Clock, ElapsedClock, SystemClock, time_span
from ._http.decode import Created
from ._http.endpoints import (
    CREATE_ORDER,
    CREATE_SEND_ORDER,
    FUND,
    GET_BALANCE,
    GET_COUNTRIES,
    GET_HISTORY,
    GET_PRICE,
    GET_RENTAL_COUNTRIES,
    GET_SERVICES,
    PING,
    Operation,
)
from ._http.retrying import Calls
from ._http.transports import open_transport
from ._logging import Reporter
from ._orders.decisions import MINIMUM_AGE, MINIMUM_CANCEL_AGE, Intent
from ._orders.drivers import (
    OrderWatch,
    check_invoice,
    code_status,
    deliver,
    drive,
    drive_with_payment,
    driven,
    first_or_next,
    record,
)
from ._orders.many import OrderQueue, OrderResults, QueuedOrder, ResultStore
from ._orders.open_order import OpenOrder, Scheduler
from ._orders.states import outcome_of
from ._orders.steps import (
    DrivenOrder,
    OrderContext,
    StatusCheck,
    moment_of,
    read_status,
    release,
    send_cancel,
)
from ._process import new_owner
from ._redact import show
from ._speed import clock_for
from .errors import (
    AuthenticationError,
    ClientStateError,
    InvalidArgumentError,
    InvalidResponseError,
    JournalError,
    OrderError,
    Sms4SatsError,
)
from .events import Event, OrderCreated, OrderEnded
from .invoice import NETWORKS, Network
from .journal import JournalChange, JournalEntry, OrderJournal
from .journal.entry import (
    LEASE,
    if_known,
    put,
    record_creation,
    record_intent,
    remove,
    request_entry,
)
from .journal.recorder import Recorder
from .models import (
    CodeStatus,
    Country,
    FundingHistory,
    FundOrder,
    Listing,
    Order,
    OrderOutcome,
    OrderStatus,
    Price,
    ReceiveOrder,
    RentalCountry,
    RequestOutcome,
    SendOrder,
    Service,
)
from .results import OrderResult
from .retry import RetryPolicy

T = TypeVar("T")
OrderT = TypeVar("OrderT", bound=Order)

DEFAULT_BASE_URL: Final = "https://api2.sms4sats.com"
"""The service's root (documented)."""


class Sms4SatsClient:
    """An asynchronous client for the sms4sats.com API, on asyncio and Trio.

    Use it with `async with`, or call `aclose()` at the end. It keeps no background task between
    calls, except that an open order renews its claim. It belongs to the event loop in which it is
    first used.

    Args:
        api_key: The key for prepaid calls; None: the environment's `SMS4SATS_API_KEY`. It is sent
            only to the calls that need it.
        base_url: The service root; None: `SMS4SATS_BASE_URL`, or the real service.
        timeout: Seconds (or a timedelta) for a single attempt. It bounds the whole attempt, also
            if the answer arrives slowly. Waiting for a free connection is not counted.
        retry: How often and how long a call is retried; every call can override it.
        http_client: An `httpx.AsyncClient`, `httpx2.AsyncClient` or `aiohttp.ClientSession` to
            send with. You own it; the client never closes it. By default the client has its own
            connections, and honours `HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE` and `SSL_CERT_DIR`.
        clock: Another source of time, for tests; see `Clock`. None: the machine's clock, or, only
            for a simulator on this machine, the one that `SMS4SATS_SPEED` names.
        on_event: Receives progress events: an order that was created or ended, an attempt that
            failed, a wait, a status read during a wait. It must not block. The client logs what it
            raises, and goes on.
        journal: Records every order before it is returned, and how it ended: a `SqliteJournal`, or
            another `OrderJournal`. You own it; the client never closes it.

    Raises:
        InvalidArgumentError: If an argument is invalid, such as a key over plain http to another
            machine.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: float | timedelta = 10.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen, so it can be shared
        http_client: object | None = None,
        clock: Clock | None = None,
        on_event: Callable[[Event], object] | None = None,
        journal: OrderJournal | None = None,
    ) -> None:
        if api_key is None:
            api_key = os.environ.get("SMS4SATS_API_KEY") or None
        if base_url is None:
            base_url = os.environ.get("SMS4SATS_BASE_URL") or DEFAULT_BASE_URL
        self._api_key = None if api_key is None else validate.api_key(api_key)
        self._base_url = validate.base_url(base_url, key_is_set=self._api_key is not None)
        if clock is not None:
            validate.clock(clock)
        else:
            clock = clock_for(self._base_url, os.environ)
        clock = SystemClock() if clock is None else clock
        report = Reporter(on_event)
        if journal is not None:
            validate.journal("journal", journal)
        if on_event is not None:
            validate.listener(on_event)
        self._calls = Calls(
            open_transport(http_client, base_url=self._base_url, api_key=self._api_key),
            timeout=validate.positive_seconds("timeout", timeout),
            retry=validate.instance("retry", retry, RetryPolicy),
            clock=clock,
            report=report,
            root=self._base_url,
            secret=self._api_key,
        )
        self._context = OrderContext(
            self._calls,
            Recorder(journal, base_url=self._base_url, clock=clock, report=report),
            clock,
            ElapsedClock(clock),
            report,
        )
        self._country_ids: dict[str, set[int]] | None = None

    def __repr__(self) -> str:
        key = "without a key" if self._api_key is None else "with a key"
        return f"<Sms4SatsClient {self._base_url} {key}>"

    @property
    def journal(self) -> OrderJournal | None:
        """The journal that you passed, or None."""
        return self._context.recorder.journal

    @property
    def base_url(self) -> str:
        """The service root."""
        return self._base_url

    @property
    def clock(self) -> Clock:
        """The source of time: the clock that you passed, or the machine's."""
        return self._context.clock

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
        """Close the client's own connections; an HTTP client that you passed stays open.

        Calling it again does nothing. Any other call after it raises `ClientStateError`.
        """
        await self._calls.close()

    # --- the service and its catalogue ------------------------------------------------------------

    async def ping(self, *, retry: RetryPolicy | None = None) -> None:
        """Return if the service is up (`GET /`, documented).

        Args:
            retry: Another policy for this call.

        Raises:
            TransportError: If no answer arrives.
            APIError: If the service rejects the request.
            InvalidResponseError: If the answer is unreadable.
        """
        await self._ask(PING, retry=retry)

    async def get_countries(self, *, retry: RetryPolicy | None = None) -> list[Country]:
        """Return the countries that orders can name (`GET /getCountries`, seen).

        Args:
            retry: Another policy for this call.

        Returns:
            Every country, in the service's order. With number 999 the service chooses (seen).

        Raises:
            APIError: If the service rejects the request.
            TransportError: If no answer arrives.
            InvalidResponseError: If the answer is unreadable.
        """
        countries = await self._ask(GET_COUNTRIES, retry=retry)
        return Listing(countries)

    async def get_services(
        self, country: int | str, *, retry: RetryPolicy | None = None
    ) -> list[Service]:
        """Return the services of a country (`GET /getnumbersstatus`, seen).

        Args:
            country: The country's number, or its name, which is looked up in the service's list.
            retry: Another policy for each request.

        Returns:
            Every service, with the count of its numbers.

        Raises:
            InvalidArgumentError: If the country is invalid, or its name is not in the list.
            APIError: If the service rejects the request.
            TransportError: If no answer arrives.
            InvalidResponseError: If the answer is unreadable.
        """
        number = await self._country_id(country, retry)
        services = await self._ask(GET_SERVICES, {"country": str(number)}, retry)
        return Listing(services)

    async def get_rental_countries(
        self, service: str | None = None, *, retry: RetryPolicy | None = None
    ) -> list[RentalCountry]:
        """Return where numbers can be rented (`GET /getRentalCountries`, documented).

        Args:
            service: A service's short code; None: the service's default, `full`.
            retry: Another policy for this call.

        Returns:
            Every offer, with its weeks and its price in satoshis.

        Raises:
            InvalidArgumentError: If the service is blank.
            APIError: If the service rejects the request.
            TransportError: If no answer arrives.
            InvalidResponseError: If the answer is unreadable.
        """
        query = {} if service is None else {"service": validate.text("service", service)}
        offers = await self._ask(GET_RENTAL_COUNTRIES, query, retry)
        return Listing(offers)

    async def get_price(
        self,
        country: int | str | None = None,
        service: str | None = None,
        *,
        retry: RetryPolicy | None = None,
    ) -> Price:
        """Return the prices in satoshis (`GET /price`, documented).

        Args:
            country: The country's number, name or ISO code such as `"us"`, for `Price.computed`.
            service: The service's short code or long name, for `Price.computed`.
            retry: Another policy for this call.

        Returns:
            The prices, with `computed` where the service computed one for this country and service.

        Raises:
            InvalidArgumentError: If the country or service is invalid.
            APIError: If the service rejects the request.
            TransportError: If no answer arrives.
            InvalidResponseError: If the answer is unreadable.
        """
        query: dict[str, str] = {}
        if country is not None:
            query["country"] = str(validate.country(country))
        if service is not None:
            query["service"] = validate.text("service", service)
        return await self._ask(GET_PRICE, query, retry)

    # --- creating orders --------------------------------------------------------------------------

    async def create_order(
        self,
        country: int | str,
        service: str,
        *,
        rental: bool = False,
        real_phone: bool = False,
        referral: str | None = None,
        immediate: bool = False,
        metadata: Mapping[str, str] | None = None,
        retry: RetryPolicy | None = None,
    ) -> ReceiveOrder:
        """Order a number to receive an activation code (`POST /createorder`, documented).

        The request is retried only if it provably was not sent. The service documents no
        idempotency key, so a second request could create a second order.

        Args:
            country: The country's number, or its name such as `"germany"`, which is looked up.
            service: The service's short code, such as `"tg"`.
            rental: Rent the number.
            real_phone: Require a number of a real phone.
            referral: A Lightning address that receives 10 %.
            immediate: Pay from the key's balance at once; needs the key.
            metadata: Your own notes on the order, at most 4 KiB. The journal keeps them, and every
                result of the order carries them. They are never sent to the service.
            retry: Another policy for this call.

        Returns:
            The order with the hold invoice to pay. Keep its `order_id`: nothing else identifies it.

        Raises:
            InvalidArgumentError: If an argument is invalid, or a country's name is not in the list.
                No order was requested.
            AuthenticationError: If `immediate` is set without a key. Nothing was sent.
            APIError: If the service rejects the request.
            TransportError: If no answer arrives; `request_outcome` says whether an order may exist.
            InvalidResponseError: If the answer is unreadable. An order may exist.
            JournalError: If the journal cannot be written. Nothing was sent; or the order was
                created and is on the error's `order`.
        """
        return await self._create_receive_order(
            country,
            service,
            rental=rental,
            real_phone=real_phone,
            referral=referral,
            immediate=immediate,
            metadata=metadata,
            retry=retry,
        )

    async def create_send_order(
        self,
        phone: str,
        message: str,
        *,
        immediate: bool = False,
        webhook_url: str | None = None,
        referral: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry: RetryPolicy | None = None,
    ) -> SendOrder:
        """Order a message to be sent (`POST /createsendorder`, documented).

        Like `create_order`, the request is retried only if it provably was not sent.

        Args:
            phone: The receiver in E.164, such as `"+4915112345678"`.
            message: At most 140 characters.
            immediate: Pay from the key's balance at once; needs the key. `invoice` is the word
                `"paid"` then.
            webhook_url: The URL to which the service POSTs the status; see `parse_webhook`.
            referral: A Lightning address that receives 10 % (seen, undocumented).
            metadata: Your own notes on the order, as for `create_order`.
            retry: Another policy for this call.

        Returns:
            The order with the hold invoice to pay. It settles when the message is sent.

        Raises:
            InvalidArgumentError: If an argument is invalid. Nothing was sent.
            AuthenticationError: If `immediate` is set without a key. Nothing was sent.
            APIError: If the service rejects the request.
            TransportError: If no answer arrives; `request_outcome` says whether an order may exist.
            InvalidResponseError: If the answer is unreadable. An order may exist.
            JournalError: As for `create_order`.
        """
        body: dict[str, object] = {
            "phone": validate.phone(phone),
            "message": validate.message(message),
        }
        if webhook_url is not None:
            body["webhookUrl"] = validate.webhook_url(webhook_url)
        if referral is not None:
            body["ref"] = validate.referral(referral)
        notes = validate.metadata(metadata)

        def order(answer: Created, created_at: datetime) -> SendOrder:
            return SendOrder(
                answer.order_id,
                answer.invoice,
                created_at,
                phone,
                metadata=notes,
                raw=answer.raw,
            )

        entry = request_entry(
            "send",
            self._context.recorder.now(),
            base_url=self._base_url,
            metadata=notes,
            phone=phone,
        )
        return await self._create(
            CREATE_SEND_ORDER, body, order, entry=entry, immediate=immediate, retry=retry
        )

    async def fund(self, amount_sat: int, *, retry: RetryPolicy | None = None) -> FundOrder:
        """Request an invoice that adds to the key's balance (`POST /fund`, documented).

        Like `create_order`, the request is retried only if it provably was not sent.

        Args:
            amount_sat: Satoshis, at least 1.
            retry: Another policy for this call.

        Returns:
            The order with the invoice to pay.

        Raises:
            InvalidArgumentError: If the amount is invalid. Nothing was sent.
            AuthenticationError: If there is no key, or the service refuses it.
            APIError: If the service rejects the request.
            TransportError: If no answer arrives. An invoice may exist, see `request_outcome`.
            InvalidResponseError: If the answer is unreadable. An invoice may exist.
        """
        body: dict[str, object] = {"amount": validate.satoshis("amount_sat", amount_sat)}

        def order(answer: Created, created_at: datetime) -> FundOrder:
            return FundOrder(
                answer.order_id, answer.invoice, created_at, amount_sat, raw=answer.raw
            )

        return await self._create(FUND, body, order, entry=None, immediate=False, retry=retry)

    async def get_balance(self, *, retry: RetryPolicy | None = None) -> int:
        """Return the key's balance in satoshis (`GET /balance`, documented).

        Args:
            retry: Another policy for this call.

        Raises:
            AuthenticationError: If there is no key, or the service refuses it.
            APIError: If the service rejects the request.
            TransportError: If no answer arrives.
            InvalidResponseError: If the answer is unreadable.
        """
        return await self._ask(GET_BALANCE, retry=retry)

    async def get_history(self, *, retry: RetryPolicy | None = None) -> FundingHistory:
        """Return how the key's balance was funded (`GET /history`, documented).

        The answer contains the key itself and proofs of payment; `repr` masks them, `raw` does not.

        Args:
            retry: Another policy for this call.

        Raises:
            AuthenticationError: If there is no key, or the service refuses it.
            APIError: If the service rejects the request.
            TransportError: If no answer arrives.
            InvalidResponseError: If the answer is unreadable.
        """
        return await self._ask(GET_HISTORY, retry=retry)

    # --- one order --------------------------------------------------------------------------------

    async def get_order_status(
        self, order: Order | str, *, retry: RetryPolicy | None = None
    ) -> OrderStatus:
        """Read the status of an order (`GET /orderstatus`, documented).

        Args:
            order: The order, or its ID.
            retry: Another policy for this call.

        Returns:
            The status. `state` sums it up, and `code` is the code once it arrived.

        Raises:
            InvalidArgumentError: If the ID is invalid. Nothing was sent.
            APIError: If the service rejects the request; expect a `ServerError` for an unknown ID.
            TransportError: If no answer arrives.
            InvalidResponseError: If the answer is unreadable.
        """
        return await read_status(self._context, validate.order_id(order), retry=retry)

    async def cancel_order(
        self,
        order_id: Order | str,
        *,
        retry: RetryPolicy | None = None,
        confirm: bool = False,
    ) -> OrderResult:
        """Cancel an order, so that the service refunds it (`GET /cancelorder`, documented).

        This is one endpoint and its retries. The service refuses with a 500 `unable to save data`
        (documented). That is retried, as are other 5xx, 429, time-outs, lost and refused
        connections and unreadable answers. 400, 401, 403 and 404 are not retried.

        Args:
            order_id: The order's ID, or the order. It can be cancelled from an age of 2 minutes on,
                as long as no code has arrived (documented).
            retry: Another policy for this call.
            confirm: Read the status after each failure, before the next attempt. If the order has
                ended, with its code or its refund, that is the result.

        Returns:
            `CANCELLED` if the service answered OK. With `confirm` also `REFUNDED`, `CODE_RECEIVED`
            or `MESSAGE_SENT`, if the status shows it.

        Raises:
            InvalidArgumentError: If the ID is invalid. Nothing was sent.
            UnableToSaveDataError: If the service refused every attempt.
            APIError: If the service refused otherwise.
            TransportError: If no answer arrives.
            InvalidResponseError: If the answer is unreadable. With `request_outcome` UNKNOWN the
                order may or may not be cancelled.
        """
        identifier, context = validate.order_id(order_id), self._context
        check = StatusCheck(context, identifier)
        done, attempts, entry = await send_cancel(
            context,
            identifier,
            retry=retry,
            check=check if validate.flag("confirm", confirm) else None,
        )
        status = check.last_status
        outcome = None if status is None else outcome_of(status.state)
        code = number = None
        if status is not None:
            code, number = status.code, status.number
        metadata: Mapping[str, str] = order_id.metadata if isinstance(order_id, Order) else {}
        if entry is None:
            entry = await context.recorder.find(identifier)
        if entry is not None:
            # How the service answers a cancel after the code is unknown, so a recorded code counts.
            outcome = entry.outcome if isinstance(entry.outcome, OrderOutcome) else outcome
            code, number, metadata = code or entry.code, number or entry.number, entry.metadata
        result = OrderResult(
            identifier,
            OrderOutcome.CANCELLED if outcome is None else outcome,
            code,
            number,
            status,
            attempts,
            metadata=metadata,
            raw=done.raw,
        )
        context.report(OrderEnded(identifier, result))
        return await deliver(context, result)

    async def cancel_order_when_allowed(
        self,
        order: Order | str,
        *,
        created_at: datetime | None = None,
        minimum_age: float | timedelta = MINIMUM_CANCEL_AGE,
        watch: bool = True,
        poll_interval: float | timedelta = 5.0,
    ) -> OrderResult:
        """Cancel an order as soon as the service allows it, unless the code arrives first.

        Waits until the order is old enough, and never sends the cancel early. Then cancels with
        `confirm`. While the service refuses, or does not answer, the cancel is retried at growing
        intervals. After 21 minutes the service refunds the order automatically (documented), and
        only the status counts.

        Args:
            order: The order, or its ID.
            created_at: When the order was created, with a time zone. None: the time that the order
                or the journal has; if neither has one, now, which is never too early.
            minimum_age: Seconds (or a timedelta) before which no cancel is sent. The default
                does not shorten the age that the journal has for this order.
            watch: Poll the status meanwhile, and stop as soon as the order has ended. A poll that
                fails does not end the wait.
            poll_interval: Seconds (or a timedelta) between two polls, give or take 15 %.

        Returns:
            `CANCELLED` if the service answered OK, `REFUNDED` if the status shows it, or
            `CODE_RECEIVED` with the code. For a message to send also `MESSAGE_SENT`.

        Raises:
            InvalidArgumentError: If an argument is invalid. Nothing was sent.
            ClientStateError: If the client is closed.
            APIError: If the service refuses lastingly, such as a 404 for an ID whose status is
                unknown too.
            Sms4SatsError: The last failure with `request_outcome` UNKNOWN, if after 21 minutes
                neither an answer nor the status shows where the money is.
        """
        context = self._context
        intent = Intent(
            poll_interval=validate.positive_seconds("poll_interval", poll_interval),
            minimum_age=validate.seconds("minimum_age", minimum_age),
            watch=validate.flag("watch", watch),
        )
        held, started = self._driven(order, intent, created_at), context.elapsed.now()
        change = if_known(self._intent_change(order, intent, 0.0, created_at))
        try:
            await record(context, held, change, operation="cancel_order")
        except JournalError as error:  # the refund matters more than the record
            context.recorder.complain(held.order_id, error)
        held.deadline = started - held.birth  # the journal may know another birth
        return await deliver(context, await drive(context, held))

    async def code_or_refund(
        self,
        order: Order | str,
        *,
        timeout: float | timedelta,
        created_at: datetime | None = None,
        minimum_age: float | timedelta = MINIMUM_CANCEL_AGE,
        poll_interval: float | timedelta = 5.0,
    ) -> OrderResult:
        """Wait for the code, then cancel the order as soon as the service allows it.

        The journal records the deadline first. After a crash, an `OrderScheduler` in the next
        process waits until the same deadline. While another process drives the order, this call
        polls it, and cancels only when the other process has released it.

        Args:
            order: The order, or its ID.
            timeout: Seconds (or a timedelta) to wait for the code; 0 cancels as soon as allowed.
            created_at: When the order was created, with a time zone. None: the time that the order
                or the journal has; if neither has one, now.
            minimum_age: Seconds (or a timedelta) before which no cancel is sent. The default
                does not shorten the age that the journal has for this order.
            poll_interval: Seconds (or a timedelta) between two polls, give or take 15 %.

        Returns:
            The code (`result.code`) or the refund (`result.refunded`).

        Raises:
            InvalidArgumentError: If an argument is invalid, or the order belongs to another service
                root. Nothing was sent.
            JournalError: If the deadline cannot be recorded. Nothing was sent.
            ClientStateError: If the client is closed.
            Sms4SatsError: The last failure, if the end is unknown or the cancel was refused
                lastingly.
        """
        intent = Intent(
            poll_interval=validate.positive_seconds("poll_interval", poll_interval),
            minimum_age=validate.seconds("minimum_age", minimum_age),
        )
        limit, context = validate.seconds("timeout", timeout), self._context
        held, started = self._driven(order, intent, created_at), context.elapsed.now()
        change = self._intent_change(order, intent, limit, created_at)
        await record(context, held, change, operation="code_or_refund")
        held.deadline = started - held.birth + limit  # the journal may know another birth
        return await deliver(context, await drive(context, held))

    async def receive_code(
        self,
        country: int | str,
        service: str,
        *,
        pay: Callable[[str], object],
        timeout: float | timedelta,
        max_price_sat: int | None = None,
        network: Network = "bitcoin",
        poll_interval: float | timedelta = 5.0,
        rental: bool = False,
        real_phone: bool = False,
        referral: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> OrderResult:
        """Order a number, pay, and return the code or the refund.

        Args:
            country: The country's number or name.
            service: The service's short code.
            pay: Called once with the invoice, in the background, because paying a hold invoice
                blocks until it is settled or cancelled. An async function runs as a task and is
                cancelled when the order has ended; a sync one runs in a worker thread. It decides
                nothing: when it returns or raises, the status of the order decides. If the status
                says paid, the wait for the code goes on; if it says unpaid, the order is cancelled.
            timeout: Seconds (or a timedelta) to wait for the code.
            max_price_sat: The highest price in satoshis, checked on the invoice itself before `pay`
                is called. An invoice without an amount, for another network, or expired is refused
                too.
            network: The network that the invoice must be for, if `max_price_sat` is given.
            poll_interval: Seconds (or a timedelta) between two polls, give or take 15 %.
            rental: Rent the number.
            real_phone: Require a number of a real phone.
            referral: A Lightning address that receives 10 %.
            metadata: Your own notes on the order, as for `create_order`.

        Returns:
            The code (`result.code`) or the refund (`result.refunded`).

        Raises:
            InvalidArgumentError: If an argument is invalid. Nothing was sent.
            OrderError: If the invoice is refused. Nothing was paid, and an order that is not paid
                ends automatically.
            JournalError: If the order or the deadline cannot be recorded; see `create_order`.
            Sms4SatsError: What `create_order` raises; or the last failure, if the end is unknown or
                the cancel was refused lastingly.
        """
        limit = validate.seconds("timeout", timeout)
        interval = validate.positive_seconds("poll_interval", poll_interval)
        validate.function("pay", pay)
        validate.one_of("network", network, NETWORKS)
        if max_price_sat is not None:
            validate.satoshis("max_price_sat", max_price_sat)
        context, owner = self._context, new_owner()
        order = await self._create_receive_order(
            country,
            service,
            rental=rental,
            real_phone=real_phone,
            referral=referral,
            metadata=metadata,
            timeout=limit,
            owner=owner,
        )
        held = self._created(order, Intent(poll_interval=interval), owner)
        held.deadline = held.age(context) + limit
        if max_price_sat is not None:
            try:
                check_invoice(
                    order, max_price_sat=max_price_sat, network=network, now=context.clock.now()
                )
            except OrderError:
                await release(context, held)
                raise
        result = await drive_with_payment(context, held, order.invoice, pay)
        return await deliver(context, result)

    async def wait_for_code(
        self,
        order: Order | str,
        *,
        timeout: float | timedelta,
        poll_interval: float | timedelta = 5.0,
    ) -> CodeStatus:
        """Wait until the code arrives, by polling the status. The order is never cancelled.

        Most codes arrive within 30 to 120 seconds (documented).

        Args:
            order: The order, or its ID.
            timeout: Seconds (or a timedelta) to wait at most, the last poll included.
            poll_interval: Seconds (or a timedelta) between two polls, give or take 15 %.

        Returns:
            The status with the code in `code`.

        Raises:
            InvalidArgumentError: If an argument is invalid. Nothing was sent.
            CodeTimeoutError: If no code arrived in time. `status` is the last one that was read, or
                None if no poll succeeded: an unknown ID is expected to be a 500, which ends no
                wait.
            OrderRefundedError: If the service refunded the order. No code will arrive.
            OrderError: If the order is not one for a code.
            ClientStateError: If the client is closed.
        """
        limit = validate.positive_seconds("timeout", timeout)
        interval = validate.positive_seconds("poll_interval", poll_interval)
        validate.order_id(order)
        context, intent = self._context, Intent(poll_interval=interval, cancels=False)
        result = await drive(context, driven(context, order, intent, timeout=limit))
        if result.outcome is not None:
            await deliver(context, result)
        return code_status(result, timeout=limit)

    def watch_order(
        self, order: Order | str, *, poll_interval: float | timedelta = 5.0
    ) -> OrderWatch:
        """Iterate over the statuses of an order: the first, then each that differs.

        It ends when nothing more can change. You can leave the loop at any time.

        Args:
            order: The order, or its ID.
            poll_interval: Seconds (or a timedelta) between two polls, give or take 15 %.

        Returns:
            An async iterator of `OrderStatus`. A poll that fails does not end it.

        Raises:
            InvalidArgumentError: If an argument is invalid. Nothing was sent.
        """
        interval = validate.positive_seconds("poll_interval", poll_interval)
        return OrderWatch(self._context, validate.order_id(order), interval)

    def open_order(
        self,
        country: int | str,
        service: str,
        *,
        scheduler: Scheduler | None = None,
        minimum_age: float | timedelta = MINIMUM_CANCEL_AGE,
        poll_interval: float | timedelta = 5.0,
        rental: bool = False,
        real_phone: bool = False,
        referral: str | None = None,
        immediate: bool = False,
        metadata: Mapping[str, str] | None = None,
        retry: RetryPolicy | None = None,
    ) -> OpenOrder:
        """Order a number for the length of an `async with` block.

        Leaving the block without an end does what `code_or_refund(timeout=0)` does, also on an
        exception. In a task that is being cancelled there is no time for that. An order that can
        be cancelled is cancelled, in at most 5 seconds. Another is handed to the scheduler, or left
        in the journal for the next one.

        Args:
            country: The country's number or name.
            service: The service's short code.
            scheduler: An `OrderScheduler` of this client that runs, to take the order over.
            minimum_age: Seconds (or a timedelta) before which no cancel is sent.
            poll_interval: Seconds (or a timedelta) between two polls, give or take 15 %.
            rental: Rent the number.
            real_phone: Require a number of a real phone.
            referral: A Lightning address that receives 10 %.
            immediate: Pay from the key's balance at once; needs the key.
            metadata: Your own notes on the order, as for `create_order`.
            retry: Another policy for creating the order.

        Returns:
            An async context manager; `as` gives the `OpenOrder`. Its `result` is set after the
            block whenever the end is known.

        Raises:
            InvalidArgumentError: If an argument is invalid. Nothing was sent.
            Sms4SatsError: On entering, what `create_order` raises. On leaving without an exception,
                what `code_or_refund` raises.
        """
        owner = new_owner()

        async def make(intent: Intent) -> tuple[DrivenOrder, Order]:
            order = await self._create_receive_order(
                country,
                service,
                rental=rental,
                real_phone=real_phone,
                referral=referral,
                immediate=immediate,
                metadata=metadata,
                retry=retry,
                timeout=intent.minimum_age,
                minimum_age=intent.minimum_age,
                owner=owner,
            )
            return self._created(order, intent, owner), order

        return self._open(make, minimum_age, poll_interval, scheduler)

    def resume_order(
        self,
        order: Order | str,
        *,
        scheduler: Scheduler | None = None,
        minimum_age: float | timedelta = MINIMUM_CANCEL_AGE,
        poll_interval: float | timedelta = 5.0,
    ) -> OpenOrder:
        """Open an order that exists, perhaps created by a process that has died.

        Like `open_order`. The journal's data is used, such as when the order was created. An ID
        that the journal does not know counts as created now.

        Args:
            order: The order, or its ID.
            scheduler: An `OrderScheduler` of this client that runs, to take the order over.
            minimum_age: Seconds (or a timedelta) before which no cancel is sent. The default
                does not shorten the age that the journal has for this order.
            poll_interval: Seconds (or a timedelta) between two polls, give or take 15 %.

        Returns:
            An async context manager; `as` gives the `OpenOrder`. Its `result` is set at once if the
            order has ended.

        Raises:
            InvalidArgumentError: If an argument is invalid; on entering, if the order belongs to
                another service root. Nothing was sent.
            JournalError: On entering, if the journal cannot be used.
            Sms4SatsError: On leaving, as with `open_order`.
        """
        identifier = validate.order_id(order)
        if isinstance(order, Order):
            validate.aware("created_at", order.created_at)

        async def make(intent: Intent) -> tuple[DrivenOrder, Order]:
            context = self._context
            held = self._driven(order, intent, None, owner=new_owner())
            change = record_intent(
                order,
                context.recorder.now(),
                self._base_url,
                minimum_age=time_span(intent.minimum_age),
            )
            entry = await record(context, held, change, operation="resume_order")
            if entry is not None and entry.order is not None:
                return held, entry.order
            if isinstance(order, Order):
                return held, order
            return held, ReceiveOrder(identifier, "", context.recorder.now())

        return self._open(make, minimum_age, poll_interval, scheduler)

    def cancel_orders(
        self, orders: Iterable[Order | str], *, concurrency: int = 20
    ) -> OrderResults:
        """Cancel many orders, some of them at the same time.

        Each is cancelled as `cancel_order(order, confirm=True)` does it. A failure is a result with
        an `error`, and stops no other order. An order that is known to be younger than 2 minutes is
        cancelled when it is old enough. The age of an ID alone is unknown, so it is cancelled at
        once.

        Each order is claimed in the journal first. While another driver holds the claim of an
        order, such as a scheduler, no cancel of that order is sent. It is cancelled once the claim
        is free, or its result is the end to which the other driver brought it.

        Nothing is sent before you ask for the first result. If you leave the loop early, it ends
        after the requests that are under way. If the client is closed meanwhile, each order that
        was not cancelled yet has a result whose `error` says so.

        Args:
            orders: The orders, or their IDs. An order that comes twice is cancelled once.
            concurrency: How many requests are under way at the same time, at most; more than the
                client's 100 connections count as 100.

        Returns:
            An async iterator of `OrderResult`, one for each order, as they finish.

        Raises:
            InvalidArgumentError: If an argument is invalid. Nothing was sent. An order of another
                service root is a result with that `error`.
            ClientStateError: From the iterator, if the client is closed before the first result is
                asked for. Nothing was sent.
        """
        validate.several("orders", orders)
        context = self._context
        workers = validate.whole_number("concurrency", concurrency, least=1)
        now = context.clock.now()
        created: dict[str, float] = {}
        metadata: dict[str, Mapping[str, str]] = {}
        for order in orders:
            order_id, created_at = validate.order_id(order), now - MINIMUM_AGE
            if isinstance(order, Order):
                created_at = validate.aware("created_at", order.created_at).timestamp()
                metadata[order_id] = order.metadata
            created[order_id] = max(created_at, created.get(order_id, created_at))
        store = ResultStore(self._acknowledge)
        queue = OrderQueue(
            context,
            concurrency=workers,
            finish=store.put,
            owner="" if self.journal is None else new_owner(),
            until_empty=True,
        )
        intent = Intent(watch=False, persists=False)

        def start() -> None:
            try:
                context.calls.bind("cancel_order")
            except ClientStateError as error:
                store.end(error)
                return
            wanted_at = context.recorder.now()
            for order_id, created_at in created.items():
                birth = context.elapsed.birth(created_at)
                queued = QueuedOrder(order_id, birth, intent, 0.0, metadata.get(order_id, {}))
                queued.read_deadline = wanted_at
                queued.unrecorded = if_known(
                    record_intent(order_id, wanted_at, self._base_url, code_deadline=wanted_at)
                )
                queue.add(queued, soon=True)
            queue.run_detached(store.end)

        results = OrderResults(store, start=start)
        queue.needed_by(results)
        return results

    async def advance_order(self, order: Order | str) -> OrderResult | datetime:
        """Take one step of an order that the journal knows: one poll or one cancel.

        For job engines: call it, then call it again at the time that it returns. The journal fences
        it, so it is safe to call early, twice, or from several places at once. An order without a
        recorded deadline is cancelled as soon as allowed.

        Args:
            order: The order, or its ID.

        Returns:
            How the order ended; or, with a time zone, when to call again.

        Raises:
            InvalidArgumentError: If the journal does not know the order, or it belongs to another
                service root. Nothing was sent.
            ClientStateError: If the client has no journal, or is closed.
            JournalError: If the journal cannot be used. Nothing was sent.
            Sms4SatsError: The last failure, if the end is unknown or the cancel was refused
                lastingly.
        """
        context, order_id = self._context, validate.order_id(order)
        if context.recorder.journal is None:
            problem = "advance_order() needs a client with a journal"
            raise ClientStateError(problem, order_id=order_id)
        held = self._driven(order, Intent(), None, owner=new_owner())
        entry = await record(
            context, held, lambda known: known, operation="advance_order", follows=True
        )
        if entry is None:
            problem = "the journal does not have this order"
            raise InvalidArgumentError(problem, order_id=order_id)
        try:
            step = await first_or_next(context, held, alone=True)
            if not isinstance(step, OrderResult) and step.age <= held.age(context):
                # An old order is polled and then cancelled. The journal does not have the poll, so
                # the next call would only poll again.
                step = await first_or_next(context, held, alone=True)
        except BaseException:
            await release(context, held)
            raise
        if isinstance(step, OrderResult) and step.outcome is not None:
            return await deliver(context, step)
        await release(context, held)
        if isinstance(step, OrderResult):
            assert step.error is not None  # noqa: S101 - without an outcome there is an error
            await deliver(context, step)
            raise step.error
        # Rounded to microseconds, a wait may look over already, and the engine would only poll.
        return moment_of(context, held, max(step.age, held.age(context)) + SHORTEST_SLEEP)

    # --- what the calls share ---------------------------------------------------------------------

    def _driven(
        self,
        order: Order | str,
        intent: Intent,
        created_at: datetime | None,
        *,
        owner: str | None = None,
    ) -> DrivenOrder:
        validate.order_id(order)
        if created_at is not None:
            created_at = validate.aware("created_at", created_at)
        elif isinstance(order, Order):
            validate.aware("created_at", order.created_at)
        owner = new_owner() if owner is None else owner
        return driven(self._context, order, intent, created_at=created_at, owner=owner)

    def _created(self, order: Order, intent: Intent, owner: str) -> DrivenOrder:
        """Return an order for the driver that claimed it from its creation on."""
        held = self._driven(order, intent, None, owner=owner)
        if self._context.recorder.journal is not None:
            held.claimed_until = (order.created_at + LEASE).timestamp()
        return held

    def _intent_change(
        self, order: Order | str, intent: Intent, limit: float, created_at: datetime | None
    ) -> JournalChange:
        now = self._context.recorder.now()
        return record_intent(
            order,
            now,
            self._base_url,
            created_at=created_at,
            code_deadline=now + time_span(limit),
            minimum_age=time_span(intent.minimum_age),
        )

    async def _acknowledge(self, result: OrderResult) -> None:
        await deliver(self._context, result)

    async def _ask(
        self,
        operation: Operation[T],
        query: Mapping[str, str] | None = None,
        retry: RetryPolicy | None = None,
    ) -> T:
        """Send a request that changes nothing."""
        self._check_key(operation, needed=operation.needs_key)
        answer, _ = await self._calls.call(operation, operation.request(query=query), retry=retry)
        return answer

    async def _create_receive_order(
        self,
        country: int | str,
        service: str,
        *,
        rental: bool = False,
        real_phone: bool = False,
        referral: str | None = None,
        immediate: bool = False,
        metadata: Mapping[str, str] | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        minimum_age: float | None = None,
        owner: str | None = None,
    ) -> ReceiveOrder:
        """Create an order; the caller's intent and claim are recorded with it."""
        body: dict[str, object] = {
            "country": validate.country(country),
            "service": validate.text("service", service),
        }
        if validate.flag("rental", rental):
            body["isRental"] = True
        if validate.flag("real_phone", real_phone):
            body["realphone"] = True
        if referral is not None:
            body["ref"] = validate.referral(referral)
        notes = validate.metadata(metadata)
        self._check_key(CREATE_ORDER, needed=validate.flag("immediate", immediate))
        body["country"] = await self._country_id(country, retry)

        def order(answer: Created, created_at: datetime) -> ReceiveOrder:
            return ReceiveOrder(
                answer.order_id,
                answer.invoice,
                created_at,
                country,
                service,
                metadata=notes,
                raw=answer.raw,
            )

        entry = request_entry(
            "receive",
            self._context.recorder.now(),
            base_url=self._base_url,
            metadata=notes,
            country=country,
            service=service,
            wait=None if timeout is None else time_span(timeout),
            minimum_age=None if minimum_age is None else time_span(minimum_age),
            owner=owner,
        )
        return await self._create(
            CREATE_ORDER, body, order, entry=entry, immediate=immediate, retry=retry
        )

    async def _create(
        self,
        operation: Operation[Created],
        body: dict[str, object],
        build: Callable[[Created, datetime], OrderT],
        *,
        entry: JournalEntry | None,
        immediate: bool,
        retry: RetryPolicy | None,
    ) -> OrderT:
        """Send a request that creates an order; record it before it is sent and afterwards."""
        validate.flag("immediate", immediate)
        self._check_key(operation, needed=operation.needs_key or immediate)
        if immediate:
            body["immediate"] = True
        request = operation.request(body=body, with_key=immediate)
        await self._write(operation, entry)
        try:
            answer, attempts = await self._calls.call(operation, request, retry=retry)
        except Sms4SatsError as error:
            # The entry says "unknown" from the start; it stays if that is so.
            if entry is not None and error.request_outcome is not RequestOutcome.UNKNOWN:
                await self._context.recorder.note(None, remove, key=entry.key)
            raise
        order = build(answer, _not_before(self._context.clock.now()))
        # Before anything can fail: a listener may keep the ID where the journal cannot.
        self._context.report(OrderCreated(order.order_id, order))
        await self._write(operation, entry, order)
        if not order.invoice and not immediate:
            problem = "the answer has an orderId but no payreq, so the order cannot be paid"
            raise InvalidResponseError(
                problem,
                operation=operation.name,
                order_id=order.order_id,
                attempts=attempts,
                request_outcome=RequestOutcome.UNKNOWN,
            )
        return order

    async def _write(
        self, operation: Operation[Created], entry: JournalEntry | None, order: Order | None = None
    ) -> None:
        """Record that an order is requested, or that it was created."""
        if entry is None:
            return
        after = entry if order is None else record_creation(entry, order)
        try:
            await self._context.recorder.write([(entry.key, put(after))])
        except JournalError as error:
            error.operation = operation.name
            if order is None:  # nothing was sent, and a journal may write late
                await self._context.recorder.note(None, remove, key=entry.key)
            else:
                error.order = order
                error.order_id = order.order_id
                error.request_outcome = RequestOutcome.UNKNOWN
            raise

    def _check_key(self, operation: Operation[Any], *, needed: bool) -> None:
        if needed and self._api_key is None:
            problem = "this call needs an API key; set SMS4SATS_API_KEY or pass api_key"
            raise AuthenticationError(problem, operation=operation.name)

    async def _country_id(self, country: int | str, retry: RetryPolicy | None) -> int:
        """Return a country's number; a name is looked up in the service's list, which is kept."""
        wanted = validate.country(country)
        if isinstance(wanted, int):
            return wanted
        if self._country_ids is None:
            found: dict[str, set[int]] = {}
            for each in await self.get_countries(retry=retry):
                found.setdefault(_plain(each.name), set()).add(each.id)
            self._country_ids = found
        ids = sorted(self._country_ids.get(_plain(wanted), ()))
        if len(ids) > 1:
            problem = f"{show(wanted)} is the name of several countries, {ids}; give the number"
            raise InvalidArgumentError(problem)
        if not ids:
            problem = f"the service's list has no country {show(wanted)}; see get_countries()"
            raise InvalidArgumentError(problem)
        return ids[0]

    def _open(
        self,
        make: Callable[[Intent], Awaitable[tuple[DrivenOrder, Order]]],
        minimum_age: float | timedelta,
        poll_interval: float | timedelta,
        scheduler: Scheduler | None,
    ) -> OpenOrder:
        return OpenOrder(
            self._context,
            make,
            minimum_age=validate.seconds("minimum_age", minimum_age),
            poll_interval=validate.positive_seconds("poll_interval", poll_interval),
            scheduler=validate.scheduler(scheduler),
        )


def order_context(client: Sms4SatsClient) -> OrderContext:
    """Return what drivers of a client's orders need."""
    return client._context  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - the same module


def _plain(name: str) -> str:
    """Return a country's name as it is compared: letters and digits, in one case."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _not_before(seconds: float) -> datetime:
    """Return Unix seconds as a datetime, rounded up: half a microsecond early would be early."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment if moment.timestamp() >= seconds else moment + timedelta(microseconds=1)
