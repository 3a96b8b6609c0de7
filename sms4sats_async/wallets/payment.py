"""What a wallet is and what it answers: the protocol, a payment and its states."""

import enum
from types import TracebackType
from typing import Protocol, Self

import attrs

from sms4sats_async._redact import mask, mask_optional, quote_optional
from sms4sats_async.errors import Sms4SatsError


class PaymentState(enum.Enum):
    """What is known about a payment."""

    SETTLED = "settled"
    """The wallet reports success: the receiver has the money."""
    PENDING = "pending"
    """The wallet reports that the payment is under way. A hold invoice stays in this state."""
    FAILED = "failed"
    """The wallet reports failure in its documented words. It paid nothing."""
    UNKNOWN = "unknown"
    """Anything else: a time-out, a lost connection, HTTP 5xx, an unknown word or payment."""


@attrs.frozen
class Payment:
    """What a wallet reports about one payment.

    Attributes:
        state: What is known about it.
        payment_hash: 64 lower-case hex digits; `repr` masks them.
        amount_sat: The amount in satoshis without the fee, rounded up. None if it is not known.
        fee_sat: The routing fee in satoshis, rounded up. None if it is not known.
        preimage: 64 hex digits, the proof of payment; `repr` masks them. None if it is not known.
        error: Why the state is `FAILED` or `UNKNOWN`, for a person to read. None otherwise.
    """

    state: PaymentState
    payment_hash: str = attrs.field(repr=mask)
    amount_sat: int | None = None
    fee_sat: int | None = None
    preimage: str | None = attrs.field(default=None, repr=mask_optional)
    error: str | None = attrs.field(default=None, repr=quote_optional)


class PaymentFailedError(Sms4SatsError):
    """If the wallet reports that the payment failed. It paid nothing.

    Attributes:
        payment: What the wallet reported.
    """

    def __init__(self, payment: Payment) -> None:
        reason = "" if payment.error is None else f": {payment.error}"
        problem = f"payment {mask(payment.payment_hash)} failed{reason}"
        super().__init__(problem, request_outcome=None)
        self.payment = payment

    def _consequence(self) -> str:
        return "The wallet paid nothing. An order that is not paid ends automatically."


class Wallet(Protocol):
    """A Lightning wallet that pays hold invoices; `receive_code(..., pay=wallet)` takes one."""

    async def pay(self, invoice: str, *, max_fee_sat: int | None = None) -> Payment:
        """Pay an invoice once, and return what is known then.

        A wallet object pays an invoice at most once. A second call for the same payment hash reads
        the state of the payment. A hold invoice may still be pending when this method returns.

        Args:
            invoice: A BOLT 11 invoice with an amount.
            max_fee_sat: The highest routing fee in satoshis. None: the limit of the constructor.

        Raises:
            InvalidArgumentError: If the invoice is unreadable, expired, without an amount or for
                another network, or if the fee limit is invalid. Nothing was paid.
            AuthenticationError: If the wallet refuses the credentials. This call paid nothing.
            ClientStateError: If the wallet is closed.
        """
        ...

    async def get_payment(self, payment_hash: str) -> Payment:
        """Read the state of a payment.

        Args:
            payment_hash: 64 hex digits, such as `Invoice.parse(invoice).payment_hash`.

        Raises:
            InvalidArgumentError: If the payment hash is not 64 hex digits.
            AuthenticationError: If the wallet refuses the credentials.
            ClientStateError: If the wallet is closed.
        """
        ...

    async def __call__(self, invoice: str) -> Payment:
        """Pay an invoice and wait until the payment is settled.

        Raises:
            PaymentFailedError: If the wallet reports that the payment failed.
        """
        ...

    async def aclose(self) -> None:
        """Close the wallet's connections. Payments under way go on in the wallet."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
