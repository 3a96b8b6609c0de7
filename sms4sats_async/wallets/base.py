"""The rules of every wallet: what is checked before paying, and that nothing is paid twice."""

import logging
import re
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from types import TracebackType
from typing import ClassVar, Final, Self

import attrs

from sms4sats_async import _validate as validate
from sms4sats_async._clock import Clock, SystemClock
from sms4sats_async._redact import hide, mask, quote
from sms4sats_async.errors import (
    AuthenticationError,
    ClientStateError,
    InvalidArgumentError,
    InvalidResponseError,
    TransportError,
)
from sms4sats_async.invoice import NETWORKS, Invoice, Network
from sms4sats_async.models import RequestOutcome

from .payment import Payment, PaymentFailedError, PaymentState

LOGGER: Final = logging.getLogger("sms4sats_async.wallets")

ANSWER_TIMEOUT: Final = 60.0
"""Seconds until a call without an answer is `UNKNOWN`. LNbits answers a held payment after 30."""

_FIRST_DELAY: Final = 1.0
_LONGEST_DELAY: Final = 30.0
_HASH: Final = re.compile("[0-9a-f]{64}")


class BaseWallet(ABC):
    """What all wallets share. An adapter sends a request and reads the answer."""

    enforces_fee_limit: ClassVar[bool] = False
    """Whether the wallet can be given a fee limit for each payment."""
    confirmed: ClassVar[frozenset[PaymentState]] = frozenset({PaymentState.FAILED})
    """After which answers to a request to pay the state is read once more.

    A refusal to pay a second time looks like a failure while the first payment is still pending
    (LNbits: "Insufficient balance."; NIP-47 lists a time-out under PAYMENT_FAILED).
    """

    def __init__(
        self,
        *,
        max_fee_sat: int | None,
        network: Network,
        clock: Clock | None,
        secrets: tuple[str, ...],
    ) -> None:
        validate.one_of("network", network, NETWORKS)
        self._max_fee_sat = self._limit(max_fee_sat)
        self._network = network
        self._clock = SystemClock() if clock is None else validate.clock(clock)
        self._secrets = secrets
        self._amounts: dict[str, int] = {}
        """The amount of each payment hash for which a request to pay may have been sent."""
        self._failures: dict[str, Payment] = {}
        """Payments that the wallet refused, so that it may not know them."""
        self._closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def max_fee_sat(self) -> int | None:
        """The highest routing fee of a payment in satoshis; None: no limit."""
        return self._max_fee_sat

    async def aclose(self) -> None:
        """Close the wallet's connections. Payments under way go on in the wallet."""
        self._closed = True

    async def pay(self, invoice: str, *, max_fee_sat: int | None = None) -> Payment:
        """Pay an invoice once, and return what is known then; see `Wallet.pay`.

        Raises:
            InvalidArgumentError: If the invoice or the fee limit is invalid. Nothing was paid.
            AuthenticationError: If the wallet refuses the credentials. This call paid nothing.
            ClientStateError: If the wallet is closed.
        """
        self._check_open()
        parsed = Invoice.parse(invoice)
        limit = self._max_fee_sat if max_fee_sat is None else self._limit(max_fee_sat)
        payment_hash = parsed.payment_hash
        if payment_hash not in self._amounts:
            amount = self._payable(parsed)
            known = await self._before_paying(payment_hash)
            if known is not None:
                return known
            self._check_open()
            # Another task may have begun to pay while this one asked.
            if payment_hash not in self._amounts:
                self._amounts[payment_hash] = amount
                return await self._pay_once(parsed, limit)
        return await self.get_payment(payment_hash)

    async def get_payment(self, payment_hash: str) -> Payment:
        """Read the state of a payment; see `Wallet.get_payment`.

        Raises:
            InvalidArgumentError: If the payment hash is not 64 hex digits.
            AuthenticationError: If the wallet refuses the credentials.
            ClientStateError: If the wallet is closed.
        """
        self._check_open()
        payment_hash = _checked_hash(payment_hash)
        found = await self._ask_or_refused(payment_hash)
        # The request to pay may still be on its way.
        return found or self._unknown(payment_hash, "the wallet does not know this payment")

    async def __call__(self, invoice: str) -> Payment:
        """Pay an invoice and wait until the payment is settled.

        A hold invoice stays pending until the receiver settles or cancels it, so this method reads
        the state at growing intervals, of at most 30 seconds. Cancel it to stop waiting.

        Raises:
            PaymentFailedError: If the wallet reports that the payment failed.
            InvalidArgumentError: As `pay`.
            AuthenticationError: As `pay`. Once the request to pay was sent, refused credentials do
                not end the wait.
            ClientStateError: If the wallet is closed. `request_outcome` says whether the request to
                pay may have been sent.
        """
        delay = _FIRST_DELAY
        while True:
            try:
                payment = await self.pay(invoice)
            except AuthenticationError as error:
                payment_hash = Invoice.parse(invoice).payment_hash
                if payment_hash not in self._amounts:
                    raise
                payment = self._unknown(payment_hash, error.problem)
            except ClientStateError as error:
                if Invoice.parse(invoice).payment_hash not in self._amounts:
                    raise
                raise ClientStateError(
                    "the wallet was closed before the payment ended; it may still settle",
                    request_outcome=RequestOutcome.UNKNOWN,
                ) from error
            if payment.state is PaymentState.SETTLED:
                return payment
            if payment.state is PaymentState.FAILED:
                raise PaymentFailedError(payment)
            LOGGER.debug(
                "payment %s is %s, next poll in %.0f s",
                mask(payment.payment_hash),
                payment.state.value,
                delay,
            )
            await self._clock.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY)

    # --- what an adapter does ---------------------------------------------------------------------

    async def _before_paying(self, payment_hash: str) -> Payment | None:  # noqa: ARG002 - for adapters
        """Return a payment that another process sent, which must not be paid again, or None.

        Raises:
            AuthenticationError: If the credentials do not allow what this wallet needs.
        """
        return None

    @abstractmethod
    async def _pay(self, invoice: Invoice, max_fee_sat: int | None) -> Payment:
        """Send one request to pay and read the answer."""

    @abstractmethod
    async def _lookup(self, payment_hash: str) -> Payment | None:
        """Read the state of a payment; None if the wallet does not know it."""

    @abstractmethod
    async def check(self) -> None:
        """Check that the wallet answers and accepts the credentials; this changes nothing.

        Raises:
            AuthenticationError: If the wallet refuses the credentials.
            TransportError: If no answer arrives.
            InvalidResponseError: If the answer is not the wallet's.
        """

    # --- the rules --------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise ClientStateError("the wallet is closed")

    def _limit(self, max_fee_sat: int | None) -> int | None:
        """Return a fee limit that this wallet can enforce."""
        if max_fee_sat is None:
            return None
        if not self.enforces_fee_limit:
            raise InvalidArgumentError(
                f"max_fee_sat must be None: {type(self).__name__} cannot limit the fee of a payment"
            )
        return validate.satoshis("max_fee_sat", max_fee_sat, least=0)

    def _payable(self, invoice: Invoice) -> int:
        """Return the amount of an invoice that may be paid."""
        if invoice.network != self._network:
            raise InvalidArgumentError(
                f"the invoice is for the network {invoice.network}, not {self._network}"
            )
        if invoice.amount_sat is None:
            raise InvalidArgumentError("the invoice has no amount, so the wallet could pay any")
        if invoice.is_expired(datetime.fromtimestamp(self._clock.now(), UTC)):
            raise InvalidArgumentError(f"the invoice expired at {invoice.expires_at}")
        return invoice.amount_sat

    async def _pay_once(self, invoice: Invoice, limit: int | None) -> Payment:
        payment_hash = invoice.payment_hash
        try:
            payment = await self._pay(invoice, limit)
        except (AuthenticationError, ClientStateError):
            del self._amounts[payment_hash]
            raise
        except (TransportError, InvalidResponseError) as error:
            payment = self._unknown(payment_hash, error.problem)
            if error.request_outcome is RequestOutcome.NOT_SENT:
                del self._amounts[payment_hash]
                return payment
        payment = self._complete(payment)
        if payment.state is PaymentState.FAILED:
            self._failures[payment_hash] = payment
        if payment.state in self.confirmed:
            try:
                known = await self._ask_or_refused(payment_hash)
            except AuthenticationError as error:
                known = self._unknown(payment_hash, error.problem)
            # A failure that cannot be checked is none yet.
            return payment if known is None else known
        return payment

    async def _ask_or_refused(self, payment_hash: str) -> Payment | None:
        """Read the state of a payment; a refusal has the reason, which the state may lack."""
        found = await self._ask(payment_hash)
        if found is None or found.state is PaymentState.FAILED:
            return self._failures.get(payment_hash, found)
        return found

    async def _ask(self, payment_hash: str) -> Payment | None:
        """Read the state of a payment; None if the wallet does not know it."""
        try:
            found = await self._lookup(payment_hash)
        except (TransportError, InvalidResponseError) as error:
            return self._unknown(payment_hash, error.problem)
        return None if found is None else self._complete(found)

    def _unknown(self, payment_hash: str, why: str) -> Payment:
        return self._complete(Payment(PaymentState.UNKNOWN, payment_hash, error=why))

    def _complete(self, payment: Payment) -> Payment:
        """Add the amount that this object paid, and mask secrets in the wallet's text."""
        amount = payment.amount_sat
        if amount is None:
            amount = self._amounts.get(payment.payment_hash)
        error = None if payment.error is None else self._masked(payment.error)
        return attrs.evolve(payment, amount_sat=amount, error=error)

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = hide(text, secret)
        return quote(text)


def _checked_hash(value: object) -> str:
    """Return a payment hash in lower case."""
    if not isinstance(value, str) or not _HASH.fullmatch(value.lower()):
        raise InvalidArgumentError("payment_hash must be 64 hex digits")
    return value.lower()
