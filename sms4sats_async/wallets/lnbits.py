"""LNbits over its REST interface (documented at `/docs` of each server)."""

from collections.abc import Mapping
from typing import Final

from sms4sats_async._clock import Clock
from sms4sats_async.errors import AuthenticationError
from sms4sats_async.invoice import Invoice, Network

from . import answers
from .http import Answer, HttpWallet, header_secret
from .payment import Payment, PaymentState

_ANSWERED: Final = frozenset({200, 201, 520})
"""The statuses whose body has a state: 520 is LNbits' own for a payment that it refuses (seen)."""
_NOT_FOUND: Final = 404

_STATES: Final[Mapping[object, PaymentState]] = {
    "success": PaymentState.SETTLED,
    "pending": PaymentState.PENDING,
    "failed": PaymentState.FAILED,
}


class LnbitsWallet(HttpWallet):
    """Pays from a wallet of an LNbits server.

    Args:
        url: The root of the server, such as `https://lnbits.example.com`. Plain `http://` only to
            this machine.
        admin_key: The wallet's admin key.
        max_fee_sat: None. LNbits takes the fee limit from a setting of the whole server.
        network: The network of the invoices that it may pay.
        clock: The source of time, for tests.

    Raises:
        InvalidArgumentError: If an argument is invalid, or if `max_fee_sat` is a number.
    """

    def __init__(
        self,
        url: str,
        admin_key: str,
        *,
        max_fee_sat: int | None,
        network: Network = "bitcoin",
        clock: Clock | None = None,
    ) -> None:
        key = header_secret("admin_key", admin_key)
        super().__init__(
            url,
            {"X-Api-Key": key},
            max_fee_sat=max_fee_sat,
            network=network,
            clock=clock,
            secrets=(key,),
        )

    @property
    def check_path(self) -> str:
        """The path of a harmless request that needs the credentials."""
        return "/api/v1/wallet"

    def _check_rights(self, answer: Answer) -> None:
        # Only the admin key gets the ID of the wallet (seen).
        if "id" not in answers.fields(answer.body):
            raise AuthenticationError("this is an invoice key, which cannot pay: use the admin key")

    def _is_refused(self, answer: Answer) -> bool:
        # LNbits 1.6 answers so to a wrong key, before anything else (seen).
        detail = answers.fields(answer.body).get("detail")
        return answer.status == _NOT_FOUND and detail == "Wallet not found."

    async def _pay(self, invoice: Invoice, max_fee_sat: int | None) -> Payment:  # noqa: ARG002
        request = {"out": True, "bolt11": invoice.bolt11}
        answer = await self._request("POST", "/api/v1/payments", body=request)
        return read_payment(answer, invoice.payment_hash)

    async def _lookup(self, payment_hash: str) -> Payment | None:
        answer = await self._request("GET", f"/api/v1/payments/{payment_hash}")
        return None if answer.status == _NOT_FOUND else read_asked(answer, payment_hash)


def read_asked(answer: Answer, payment_hash: str) -> Payment:
    """Return what LNbits says when it is asked: only an outgoing payment of the wallet counts.

    The amount of an incoming one is positive. To a wrong key, LNbits 1.6 shows the payments of all
    wallets, without `details` (seen).
    """
    payment = read_payment(answer, payment_hash)
    amount = answers.fields(answers.fields(answer.body).get("details")).get("amount")
    if payment.state is PaymentState.UNKNOWN or (isinstance(amount, int) and amount < 0):
        return payment
    error = f"LNbits answered HTTP {answer.status}: no outgoing payment of this wallet"
    return Payment(PaymentState.UNKNOWN, payment_hash, error=error)


def read_payment(answer: Answer, payment_hash: str) -> Payment:
    """Return what LNbits says about a payment, whether it pays it or is asked."""
    body = answers.fields(answer.body)
    details = answers.fields(body.get("details")) or body
    state = PaymentState.UNKNOWN
    if answer.status in _ANSWERED:
        word = body.get("status") or details.get("status")
        state = _STATES.get(word, state) if isinstance(word, str) else state
        if body.get("paid") is True:
            state = PaymentState.SETTLED
    reason = answers.text(body.get("detail"))
    error: str | None = None
    if state is PaymentState.FAILED:
        error = reason or "LNbits gives no reason"
    elif state is PaymentState.UNKNOWN:
        error = f"LNbits answered HTTP {answer.status}: {reason or 'no state of a payment'}"
    settled = state is PaymentState.SETTLED
    return Payment(
        state,
        payment_hash,
        amount_sat=answers.from_msat(details.get("amount")),
        # Before the end, it is the reserve.
        fee_sat=answers.from_msat(details.get("fee")) if settled else None,
        preimage=answers.preimage(body.get("preimage") or details.get("preimage")),
        error=error,
    )
