"""The client: a thin typed face over the rooms below."""

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from . import _validate as arguments
from ._clock import Clock, SystemClock
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
from ._http.retrying import Exchange
from ._http.transports import open_transport
from ._orders.old_many import CancelQueue, CancelResults
from ._orders.old_open import OpenOrder, Scheduler
from ._orders.old_orders import Look, PatientCancel, ReceiveCode, cancel, check_invoice
from ._orders.old_watching import OrderWatch, Poller, get_status, wait_for_code
from ._orders.states import MINIMUM_CANCEL_AGE
from ._redact import show
from .errors import (
    AuthenticationError,
    InvalidArgumentError,
    InvalidResponseError,
    JournalError,
    Sms4SatsError,
)
from .events import Event, OrderCreated
from .invoice import NETWORKS, Network
from .journal import JournalEntry, OrderJournal
from .journal.entry import asked, made, put, removed, taken_up
from .models import (
    Cancellation,
    CancelOutcome,
    Country,
    FundingHistory,
    FundOrder,
    Listing,
    Order,
    OrderStatus,
    Price,
    ReceiveOrder,
    RentalCountry,
    RequestOutcome,
    SendOrder,
    Service,
)
from .retry import RetryPolicy

T = TypeVar("T")
OrderT = TypeVar("OrderT", bound=Order)

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
        on_event: Called with an `Event` at each order that is made or ended, each attempt that
            failed, each wait, and each status read while waiting. It must not block. What it
            raises is logged and goes no further.
        journal: Where every order is written down before it is returned, and what becomes of it:
            a `SqliteJournal`, or another `OrderJournal`. It stays the caller's.

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
        journal: OrderJournal | None = None,
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
            journal=None if journal is None else arguments.journal("journal", journal),
        )
        self._country_ids: dict[str, list[int]] | None = None

    def __repr__(self) -> str:
        key = "without a key" if self._api_key is None else "with a key"
        return f"<Sms4SatsClient {self._base_url} {key}>"

    @property
    def journal(self) -> OrderJournal | None:
        """The journal that was handed in, or None."""
        return self._exchange.recorder.journal

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
        await self._ask(PING, retry=retry)

    async def get_countries(self, *, retry: RetryPolicy | None = None) -> list[Country]:
        """Ask for the countries that orders can name (`GET /getCountries`, seen).

        Args:
            retry: Another policy for this call.

        Returns:
            Every country, in the service's order; number 999 lets the service choose (seen).

        Raises:
            APIError: The service said no.
            TransportError: No answer.
            InvalidResponseError: An unreadable answer.
        """
        countries = await self._ask(GET_COUNTRIES, retry=retry)
        return Listing(countries)

    async def get_services(
        self, country: int | str, *, retry: RetryPolicy | None = None
    ) -> list[Service]:
        """Ask for the services of a country (`GET /getnumbersstatus`, seen).

        Args:
            country: The country's number, or its name, which is looked up.
            retry: Another policy for each request.

        Returns:
            Every service, with how many numbers there are.

        Raises:
            InvalidArgumentError: A country that cannot be meant, or a name that is not in the list.
            APIError: The service said no.
            TransportError: No answer.
            InvalidResponseError: An unreadable answer.
        """
        number = await self._country_id(country, retry)
        services = await self._ask(GET_SERVICES, {"country": str(number)}, retry)
        return Listing(services)

    async def get_rental_countries(
        self, service: str | None = None, *, retry: RetryPolicy | None = None
    ) -> list[RentalCountry]:
        """Ask where numbers can be rented (`GET /getRentalCountries`, documented).

        Args:
            service: A service's short code; the service takes `full` where it is left out.
            retry: Another policy for this call.

        Returns:
            Every offer: weeks, and satoshis.

        Raises:
            InvalidArgumentError: A blank service.
            APIError: The service said no.
            TransportError: No answer.
            InvalidResponseError: An unreadable answer.
        """
        query = {} if service is None else {"service": arguments.text("service", service)}
        offers = await self._ask(GET_RENTAL_COUNTRIES, query, retry)
        return Listing(offers)

    async def get_price(
        self,
        country: int | str | None = None,
        service: str | None = None,
        *,
        retry: RetryPolicy | None = None,
    ) -> Price:
        """Ask for the prices, in satoshis (`GET /price`, documented).

        Args:
            country: The country's number or name, for `Price.computed`.
            service: The service's short code, for `Price.computed`.
            retry: Another policy for this call.

        Returns:
            The prices; `computed` where the service worked one out for what was asked.

        Raises:
            InvalidArgumentError: A country or service that cannot be meant.
            APIError: The service said no.
            TransportError: No answer.
            InvalidResponseError: An unreadable answer.
        """
        query: dict[str, str] = {}
        if country is not None:
            query["country"] = str(arguments.country(country))
        if service is not None:
            query["service"] = arguments.text("service", service)
        return await self._ask(GET_PRICE, query, retry)

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
            country: The country's number, or its name such as `"germany"`, which is looked up.
            service: The service's short code, such as `"tg"`.
            rental: Rent the number.
            real_phone: Ask for a number of a real phone.
            referral: A Lightning address that gets 10 %.
            immediate: Pay from the key's balance at once; needs the key.
            retry: Another policy for this call.

        Returns:
            The order, with the hold invoice to pay. Keep its `order_id`: it is the only handle.

        Raises:
            InvalidArgumentError: An argument that cannot be meant, or a country's name that is not
                in the list; no order was asked for.
            AuthenticationError: `immediate` without a key; nothing was sent.
            APIError: The service said no.
            TransportError: No answer; `request_outcome` tells whether an order may exist.
            InvalidResponseError: An unreadable answer; an order may exist.
            JournalError: The journal could not be written: nothing was sent; or the order was
                made, and stands on the error's `order`.
        """
        body: dict[str, object] = {
            "country": arguments.country(country),
            "service": arguments.text("service", service),
        }
        if rental:
            body["isRental"] = True
        if real_phone:
            body["realphone"] = True
        if referral is not None:
            body["ref"] = arguments.referral(referral)
        self._check_key(CREATE_ORDER, needed=immediate)
        body["country"] = await self._country_id(country, retry)

        def order(answer: Created, created_at: datetime) -> ReceiveOrder:
            return ReceiveOrder(
                answer.order_id, answer.payreq, created_at, country, service, raw=answer.raw
            )

        record = asked("receive", self._exchange.recorder.now(), country=country, service=service)
        return await self._create(
            CREATE_ORDER, body, order, record=record, immediate=immediate, retry=retry
        )

    async def create_send_order(
        self,
        phone: str,
        message: str,
        *,
        immediate: bool = False,
        webhook_url: str | None = None,
        retry: RetryPolicy | None = None,
    ) -> SendOrder:
        """Order a message to be sent (`POST /createsendorder`, documented).

        Like `create_order`, it is sent again only if it provably never left.

        Args:
            phone: The receiver, in E.164, such as `"+4915112345678"`.
            message: At most 140 characters.
            immediate: Pay from the key's balance at once; needs the key. `payreq` is the word
                `"paid"` then.
            webhook_url: Where the service is to POST the status; see `parse_webhook`.
            retry: Another policy for this call.

        Returns:
            The order, with the hold invoice to pay: it settles when the message is sent.

        Raises:
            InvalidArgumentError: An argument that cannot be meant; nothing was sent.
            AuthenticationError: `immediate` without a key; nothing was sent.
            APIError: The service said no.
            TransportError: No answer; `request_outcome` tells whether an order may exist.
            InvalidResponseError: An unreadable answer; an order may exist.
            JournalError: As for `create_order`.
        """
        body: dict[str, object] = {
            "phone": arguments.phone(phone),
            "message": arguments.message(message),
        }
        if webhook_url is not None:
            body["webhookUrl"] = arguments.webhook_url(webhook_url)

        def order(answer: Created, created_at: datetime) -> SendOrder:
            return SendOrder(answer.order_id, answer.payreq, created_at, phone, raw=answer.raw)

        record = asked("send", self._exchange.recorder.now(), phone=phone)
        return await self._create(
            CREATE_SEND_ORDER, body, order, record=record, immediate=immediate, retry=retry
        )

    async def fund(self, amount: int, *, retry: RetryPolicy | None = None) -> FundOrder:
        """Ask for an invoice that fills the key's balance (`POST /fund`, documented).

        Like `create_order`, it is sent again only if it provably never left.

        Args:
            amount: Satoshis, at least 1.
            retry: Another policy for this call.

        Returns:
            The order, with the invoice to pay.

        Raises:
            InvalidArgumentError: An amount that cannot be meant; nothing was sent.
            AuthenticationError: No key, or one that the service does not take.
            APIError: The service said no.
            TransportError: No answer; `request_outcome` tells whether an invoice may exist.
            InvalidResponseError: An unreadable answer; an invoice may exist.
        """
        body: dict[str, object] = {"amount": arguments.satoshis("amount", amount)}

        def order(answer: Created, created_at: datetime) -> FundOrder:
            return FundOrder(answer.order_id, answer.payreq, created_at, amount, raw=answer.raw)

        return await self._create(FUND, body, order, record=None, immediate=False, retry=retry)

    async def get_balance(self, *, retry: RetryPolicy | None = None) -> int:
        """Ask for the key's balance in satoshis (`GET /balance`, documented).

        Args:
            retry: Another policy for this call.

        Raises:
            AuthenticationError: No key, or one that the service does not take.
            APIError: The service said no.
            TransportError: No answer.
            InvalidResponseError: An unreadable answer.
        """
        return await self._ask(GET_BALANCE, retry=retry)

    async def get_history(self, *, retry: RetryPolicy | None = None) -> FundingHistory:
        """Ask how the key's balance was filled (`GET /history`, documented).

        The answer holds the key itself and proofs of payment; `repr` masks them, `raw` does not.

        Args:
            retry: Another policy for this call.

        Raises:
            AuthenticationError: No key, or one that the service does not take.
            APIError: The service said no.
            TransportError: No answer.
            InvalidResponseError: An unreadable answer.
        """
        return await self._ask(GET_HISTORY, retry=retry)

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

    async def wait_for_code(
        self,
        order: Order | str,
        *,
        timeout: float | timedelta,
        poll_interval: float | timedelta = 5.0,
    ) -> OrderStatus:
        """Wait until the code is there, by reading the status every few seconds.

        Most codes arrive within 30 to 120 seconds (documented). The order is left as it is
        whatever happens.

        Args:
            order: The order, or its id.
            timeout: Seconds (or a timedelta) to wait at most: one deadline for everything, the
                last read included.
            poll_interval: Seconds (or a timedelta) between two reads, give or take 15 %.

        Returns:
            The status with the code in `code`.

        Raises:
            InvalidArgumentError: An argument that cannot be meant; nothing was sent.
            CodeTimeoutError: No code in time; `status` is the last one that was read, or None
                where none could be: an unknown id is expected to be a 500, which ends no wait.
            OrderRefundedError: The service gave the order back; no code will come.
            OrderError: The order is not one for a code.
            APIError: A refusal that a repeat cannot cure. Other failed reads do not end the wait.
        """
        poller = self._poller(order, poll_interval)
        return await wait_for_code(poller, timeout=arguments.positive_seconds("timeout", timeout))

    def watch_order(
        self, order: Order | str, *, poll_interval: float | timedelta = 5.0
    ) -> OrderWatch:
        """Iterate over the statuses of an order: the first, and then each that is different.

        Ends when nothing more can change. Leave the loop at any time: nothing is held open.

        Args:
            order: The order, or its id.
            poll_interval: Seconds (or a timedelta) between two reads, give or take 15 %.

        Returns:
            An asynchronous iterator of `OrderStatus`. It raises an `APIError` that a repeat cannot
            cure; other failed reads do not end it.

        Raises:
            InvalidArgumentError: An argument that cannot be meant; nothing was sent.
        """
        return OrderWatch(self._poller(order, poll_interval))

    def open_order(
        self,
        country: int | str,
        service: str,
        *,
        minimum_age: float | timedelta = MINIMUM_CANCEL_AGE,
        poll_interval: float | timedelta = 5.0,
        scheduler: Scheduler | None = None,
        rental: bool = False,
        real_phone: bool = False,
        referral: str | None = None,
        immediate: bool = False,
        retry: RetryPolicy | None = None,
    ) -> OpenOrder:
        """Order a number for the length of an `async with`; left without a code, it is cancelled.

        On the way out, by an exception or not, it waits until the order may be cancelled, and
        cancels it as `cancel_order_when_allowed` does. Where the task itself is being cancelled
        there is no time for that: an order that may be cancelled is, with one request of at most
        5 seconds; another is handed to the scheduler, or left in the journal for the next one.

        Args:
            country: The country's number or name.
            service: The service's short code.
            minimum_age: Seconds (or a timedelta) before which the cancel is not sent.
            poll_interval: Seconds (or a timedelta) between two reads of the status, give or take
                15 %.
            scheduler: A `CancelScheduler` of this client that runs, to take the order over.
            rental: Rent the number.
            real_phone: Ask for a number of a real phone.
            referral: A Lightning address that gets 10 %.
            immediate: Pay from the key's balance at once; needs the key.
            retry: Another policy for making the order.

        Returns:
            An asynchronous context manager; `as` gives the `OpenOrder`.

        Raises:
            InvalidArgumentError: An argument that cannot be meant; nothing was sent.
            Sms4SatsError: On entering, what `create_order` raises; on a leaving that is no
                exception's, what `cancel_order_when_allowed` raises.
        """

        async def make() -> tuple[Order, bool]:
            order = await self.create_order(
                country,
                service,
                rental=rental,
                real_phone=real_phone,
                referral=referral,
                immediate=immediate,
                retry=retry,
            )
            return order, False

        return self._open(make, minimum_age, poll_interval, scheduler)

    def resume(
        self,
        order: Order | str,
        *,
        minimum_age: float | timedelta = MINIMUM_CANCEL_AGE,
        poll_interval: float | timedelta = 5.0,
        scheduler: Scheduler | None = None,
    ) -> OpenOrder:
        """Take an order up again that was made before, perhaps by a process that has died.

        Like `open_order`, for an order that there is. What the journal holds of it, such as when
        it was made, is used; of an id that it does not know, now is taken as the time.

        Args:
            order: The order, or its id.
            minimum_age: Seconds (or a timedelta) before which the cancel is not sent.
            poll_interval: Seconds (or a timedelta) between two reads of the status, give or take
                15 %.
            scheduler: A `CancelScheduler` of this client that runs, to take the order over.

        Returns:
            An asynchronous context manager; `as` gives the `OpenOrder`.

        Raises:
            InvalidArgumentError: An argument that cannot be meant; nothing was sent.
            JournalError: On entering: the journal cannot be used.
            Sms4SatsError: On leaving, as with `open_order`.
        """
        identifier = _order_id(order)
        if isinstance(order, Order):
            arguments.aware("created_at", order.created_at)

        async def find() -> tuple[Order, bool]:
            recorder = self._exchange.recorder
            change = taken_up(order, recorder.now())
            found = await recorder.write([(identifier, change)])
            entry = found[0] if found else change(None)
            known = None if entry is None else entry.order
            if entry is None or known is None:  # a journal that does not do as it is asked
                return ReceiveOrder(identifier, "", recorder.now()), False
            # An end that is unclear is none: who names the order again wants to know.
            return known, isinstance(entry.outcome, CancelOutcome)

        return self._open(find, minimum_age, poll_interval, scheduler)

    def cancel_orders(
        self, orders: Iterable[Order | str], *, concurrency: int = 20
    ) -> CancelResults:
        """Cancel many orders, some at a time; an async iterator with one result for each.

        Each is cancelled as `cancel_order(order, confirm=True)` does it: what fails is a result,
        and never raised over the others. One that is known to be younger than 2 minutes is waited
        for until then; of an id whose order is not in hand the age is not known, so it is asked
        for at once.

        Nothing is sent before the first result is asked for. Whoever leaves the loop early ends
        it after the requests that are under way.

        Args:
            orders: The orders, or their ids; one that is named twice is cancelled once.
            concurrency: How many are cancelled at the same time, and how many connections that
                takes at most.

        Returns:
            An asynchronous iterator of `CancelResult`, as they finish.

        Raises:
            InvalidArgumentError: An argument that cannot be meant; nothing was sent.
        """
        queue = CancelQueue(
            self._exchange,
            self._exchange.recorder,
            {},
            concurrency=arguments.whole_number("concurrency", concurrency, least=1),
            patient=False,
        )
        arguments.several("orders", orders)
        made: dict[str, float] = {}
        for order in orders:
            order_id, created_at = _order_id(order), 0.0
            if isinstance(order, Order):
                created_at = arguments.aware("created_at", order.created_at).timestamp()
            made[order_id] = max(created_at, made.get(order_id, 0.0))
        minimum_age = MINIMUM_CANCEL_AGE.total_seconds()
        for order_id, created_at in made.items():
            queue.add(order_id, created_at=created_at, minimum_age=minimum_age)
        return queue.listen(queue.run_detached)

    async def receive_code(
        self,
        country: int | str,
        service: str,
        *,
        pay: Callable[[str], Awaitable[object]],
        timeout: float | timedelta,
        max_price: int | None = None,
        network: Network = "bitcoin",
        poll_interval: float | timedelta = 5.0,
        rental: bool = False,
        real_phone: bool = False,
        referral: str | None = None,
    ) -> str:
        """Do the whole job: order, pay, wait for the code, and get the money back if none comes.

        Cancelled from outside, it leaves the order as it is; `OrderCreated` has told its id.

        Args:
            country: The country's number or name.
            service: The service's short code.
            pay: Called once with the invoice, in the background, because paying a hold invoice
                blocks until it is settled or cancelled; cancelled when the order has ended. If it
                fails, nothing more is waited for and the money is asked back: a wallet's error may
                mean that the money is held all the same.
            timeout: Seconds (or a timedelta) to wait for the code.
            max_price: Satoshis that the invoice may ask for at most, checked on the invoice itself
                before `pay` is called; an invoice without an amount, for another network, or
                expired is refused too.
            network: The network that the invoice must be for, where `max_price` is given.
            poll_interval: Seconds (or a timedelta) between two reads of the status, give or take
                15 %.
            rental: Rent the number.
            real_phone: Ask for a number of a real phone.
            referral: A Lightning address that gets 10 %.

        Returns:
            The code.

        Raises:
            InvalidArgumentError: An argument that cannot be meant; nothing was sent.
            OrderError: The invoice was refused; nothing was paid, and what nobody pays for ends by
                itself. The order's id is on the error.
            CodeTimeoutRefundedError: No code in time, and the money is on its way back.
            OrderRefundedError: The service gave the order back; or the payment failed, or the
                status was refused for good, and the order was cancelled.
            Sms4SatsError: What `create_order` raises; a refusal of the cancel for good; or, with
                `request_outcome` UNKNOWN, that nobody can tell what became of the money.
        """
        limit = arguments.positive_seconds("timeout", timeout)
        interval = arguments.positive_seconds("poll_interval", poll_interval)
        arguments.function("pay", pay)
        arguments.one_of("network", network, NETWORKS)
        if max_price is not None:
            arguments.satoshis("max_price", max_price)
        order = await self.create_order(
            country, service, rental=rental, real_phone=real_phone, referral=referral
        )
        if max_price is not None:
            check_invoice(
                order, max_price=max_price, network=network, now=self._exchange.clock.now()
            )
        return await ReceiveCode(
            self._exchange, order, pay=pay, timeout=limit, poll_interval=interval
        ).run()

    # --- what the calls share ---------------------------------------------------------------------

    async def _ask(
        self,
        operation: Operation[T],
        query: Mapping[str, str] | None = None,
        retry: RetryPolicy | None = None,
    ) -> T:
        """Send a request that only asks."""
        self._check_key(operation, needed=operation.needs_key)
        answer, _ = await self._exchange.call(
            operation, operation.request(query=query), retry=retry
        )
        return answer

    async def _create(
        self,
        operation: Operation[Created],
        body: dict[str, object],
        build: Callable[[Created, datetime], OrderT],
        *,
        record: JournalEntry | None,
        immediate: bool,
        retry: RetryPolicy | None,
    ) -> OrderT:
        """Send a request that makes an order, written down before it leaves and when it is made."""
        self._check_key(operation, needed=operation.needs_key or immediate)
        if immediate:
            body["immediate"] = True
        request = operation.request(body=body, with_key=immediate)
        await self._write(operation, record)
        try:
            answer, attempts = await self._exchange.call(operation, request, retry=retry)
        except Sms4SatsError as error:
            # The record says "unknown" from the start, and that stays where it is so.
            if record is not None and error.request_outcome is not RequestOutcome.UNKNOWN:
                await self._exchange.recorder.note(None, removed, key=record.key)
            raise
        order = build(answer, _not_before(self._exchange.clock.now()))
        # Before anything can fail: a listener may keep the id where the journal cannot.
        self._exchange.tell(OrderCreated(order.order_id, order))
        await self._write(operation, record, order)
        if not order.payreq and not immediate:
            problem = "the answer has an orderId and no payreq, so the order cannot be paid"
            raise InvalidResponseError(
                problem,
                operation=operation.name,
                order_id=order.order_id,
                attempts=attempts,
                request_outcome=RequestOutcome.UNKNOWN,
            )
        return order

    async def _write(
        self, operation: Operation[Created], record: JournalEntry | None, order: Order | None = None
    ) -> None:
        """Write down that an order is asked for, or that it was made."""
        if record is None:
            return
        entry = record if order is None else made(record, order)
        try:
            await self._exchange.recorder.write([(record.key, put(entry))])
        except JournalError as error:
            error.operation = operation.name
            if order is not None:
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
        wanted = arguments.country(country)
        if isinstance(wanted, int):
            return wanted
        if self._country_ids is None:
            found: dict[str, list[int]] = {}
            for each in await self.get_countries(retry=retry):
                found.setdefault(_plain(each.name), []).append(each.id)
            self._country_ids = found
        ids = self._country_ids.get(_plain(wanted), [])
        if len(ids) > 1:
            problem = f"{show(wanted)} is the name of several countries, {ids}; give the number"
            raise InvalidArgumentError(problem)
        if not ids:
            problem = f"the service's list has no country {show(wanted)}; see get_countries()"
            raise InvalidArgumentError(problem)
        return ids[0]

    def _open(
        self,
        make: Callable[[], Awaitable[tuple[Order, bool]]],
        minimum_age: float | timedelta,
        poll_interval: float | timedelta,
        scheduler: Scheduler | None,
    ) -> OpenOrder:
        return OpenOrder(
            self._exchange,
            make,
            minimum_age=arguments.seconds("minimum_age", minimum_age),
            poll_interval=arguments.positive_seconds("poll_interval", poll_interval),
            scheduler=scheduler,
        )

    def _poller(self, order: Order | str, poll_interval: float | timedelta) -> Poller:
        interval = arguments.positive_seconds("poll_interval", poll_interval)
        return Poller(self._exchange, _order_id(order), interval)


def _plain(name: str) -> str:
    """Return a country's name as it is compared: letters and digits, in one case."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _not_before(seconds: float) -> datetime:
    """Return Unix seconds as a datetime, rounded up: half a microsecond early would be early."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment if moment.timestamp() >= seconds else moment + timedelta(microseconds=1)


def _order_id(order: Order | str) -> str:
    return arguments.order_id(order.order_id if isinstance(order, Order) else order)
