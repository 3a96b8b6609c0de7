"""phoenixd over its HTTP interface (phoenix.acinq.co/server/api)."""

import base64
from typing import Final

from sms4sats_async._clock import Clock
from sms4sats_async.errors import InvalidArgumentError
from sms4sats_async.invoice import Invoice, Network

from . import answers
from .http import Answer, HttpWallet, header_secret
from .payment import Payment, PaymentState

_OK: Final = 200
_NOT_FOUND: Final = 404
_OF_ANOTHER_REQUEST: Final = ("already", "in progress")
"""What is in the reasons that say nothing about an earlier request to pay.

lightning-kmp has "this invoice has already been paid" and "another payment is in progress for that
invoice" (seen).
"""


class PhoenixdWallet(HttpWallet):
    """Pays from phoenixd.

    Paying a payment hash again that is pending can close a channel by force. So this wallet pays
    only a payment hash that phoenixd does not know yet.

    Args:
        url: The root of phoenixd, such as `http://127.0.0.1:9740`. Plain `http://` only to this
            machine.
        password: The `http-password` of `phoenix.conf`.
        max_fee_sat: None. phoenixd takes no fee limit for a payment.
        network: The network of the invoices that it may pay.
        clock: The source of time, for tests.

    Raises:
        InvalidArgumentError: If an argument is invalid, or if `max_fee_sat` is a number.
    """

    def __init__(
        self,
        url: str,
        password: str,
        *,
        max_fee_sat: int | None,
        network: Network = "bitcoin",
        clock: Clock | None = None,
    ) -> None:
        secret = header_secret("password", password)
        login = base64.b64encode(f":{secret}".encode()).decode()
        super().__init__(
            url,
            {"Authorization": f"Basic {login}"},
            max_fee_sat=max_fee_sat,
            network=network,
            clock=clock,
            secrets=(secret, login),
        )

    @property
    def check_path(self) -> str:
        """The path of a harmless request that needs the credentials."""
        return "/getbalance"

    async def _before_paying(self, payment_hash: str) -> Payment | None:
        return await self._ask(payment_hash)

    async def _pay(self, invoice: Invoice, max_fee_sat: int | None) -> Payment:  # noqa: ARG002
        answer = await self._request("POST", "/payinvoice", form={"invoice": invoice.bolt11})
        return read_paid(answer, invoice.payment_hash)

    async def _lookup(self, payment_hash: str) -> Payment | None:
        answer = await self._request("GET", f"/payments/outgoingbyhash/{payment_hash}")
        return None if answer.status == _NOT_FOUND else read_asked(answer, payment_hash)


def read_paid(answer: Answer, payment_hash: str) -> Payment:
    """Return what the answer to `/payinvoice` says: a preimage, or the reason of a failure."""
    body = answers.fields(answer.body)
    preimage = answers.preimage(body.get("paymentPreimage"))
    reason = answers.text(body.get("reason"))
    if answer.status == _OK and preimage is not None:
        return Payment(
            PaymentState.SETTLED,
            payment_hash,
            amount_sat=answers.amount(body.get("recipientAmountSat")),
            fee_sat=answers.amount(body.get("routingFeeSat")),
            preimage=preimage,
        )
    of_another = any(words in (reason or "") for words in _OF_ANOTHER_REQUEST)
    if answer.status == _OK and reason is not None and not of_another:
        return Payment(PaymentState.FAILED, payment_hash, error=reason)
    return _unclear(answer, payment_hash, reason)


def read_asked(answer: Answer, payment_hash: str) -> Payment:
    """Return what `/payments/outgoingbyhash` says.

    A payment that ended has `completedAt`. Old versions then say `isPaid` after a failure too
    (seen), so only the preimage proves the payment.
    """
    body = answers.fields(answer.body)
    ended = answers.amount(body.get("completedAt")) is not None
    preimage = answers.preimage(body.get("preimage"))
    is_paid = body.get("isPaid")
    if answer.status != _OK or not isinstance(is_paid, bool):
        return _unclear(answer, payment_hash, None)
    if is_paid and preimage is None:
        return _unclear(answer, payment_hash, "a paid payment without a preimage")
    if is_paid:
        state = PaymentState.SETTLED
    else:
        state = PaymentState.FAILED if ended else PaymentState.PENDING
    return Payment(
        state,
        payment_hash,
        amount_sat=_amount(body.get("invoice")),
        fee_sat=answers.from_msat(body.get("fees")) if is_paid else None,
        preimage=preimage,
        error="phoenixd reports that it was not paid" if state is PaymentState.FAILED else None,
    )


def _amount(invoice: object) -> int | None:
    """Return the amount of the invoice: phoenixd's `sent` includes the fee."""
    try:
        return Invoice.parse(invoice if isinstance(invoice, str) else "").amount_sat
    except InvalidArgumentError:
        return None


def _unclear(answer: Answer, payment_hash: str, reason: str | None) -> Payment:
    error = f"phoenixd answered HTTP {answer.status}: {reason or 'no state of a payment'}"
    return Payment(PaymentState.UNKNOWN, payment_hash, error=error)
