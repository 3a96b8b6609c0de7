"""LND over its REST interface (api.lightning.community, `routerrpc`)."""

import base64
import os
from collections.abc import Mapping
from typing import ClassVar, Final

from sms4sats_async._clock import Clock
from sms4sats_async.errors import InvalidArgumentError
from sms4sats_async.invoice import Invoice, Network

from . import answers
from .http import Answer, HttpWallet
from .payment import Payment, PaymentState

_OK: Final = 200
_NOT_FOUND: Final = 404
_NO_LIMIT: Final = 21_000_000 * 100_000_000
"""All satoshis: without a limit, or with 0, LND takes routes without a fee only (documented)."""
_NEW_ATTEMPTS: Final = 60
"""Seconds in which LND may try routes. A payment that is held goes on afterwards."""

# lnrpc.Payment.PaymentStatus (documented).
_STATES: Final[Mapping[object, PaymentState]] = {
    "SUCCEEDED": PaymentState.SETTLED,
    "IN_FLIGHT": PaymentState.PENDING,
    "INITIATED": PaymentState.PENDING,
    "FAILED": PaymentState.FAILED,
}
# LND answers these with HTTP 500 (seen). It checks the macaroon before anything else.
_REFUSALS: Final = (
    "verification failed",
    "permission denied",
    "cannot get macaroon",
    "expected 1 macaroon",
)


class LndWallet(HttpWallet):
    """Pays from a node of LND.

    Args:
        url: The root of LND's REST interface, such as `https://localhost:8080`. Plain `http://`
            only to this machine.
        macaroon: The macaroon in hex, with the permissions `offchain:read` and `offchain:write`.
        max_fee_sat: The highest routing fee of a payment in satoshis, or None for no limit. LND
            enforces it. With 0, it takes only routes without a fee.
        tls_cert: The path of LND's own `tls.cert`. None: the system's certificates.
        network: The network of the invoices that it may pay.
        clock: The source of time, for tests.

    Raises:
        InvalidArgumentError: If an argument is invalid.
    """

    enforces_fee_limit: ClassVar[bool] = True

    def __init__(
        self,
        url: str,
        macaroon: str,
        *,
        max_fee_sat: int | None,
        tls_cert: str | os.PathLike[str] | None = None,
        network: Network = "bitcoin",
        clock: Clock | None = None,
    ) -> None:
        try:
            # `fromhex` ignores blanks and line ends, which no header can have.
            is_hex = bytes.fromhex(macaroon).hex() == macaroon.lower() != ""
        except (TypeError, ValueError):
            is_hex = False
        if not is_hex:
            raise InvalidArgumentError(
                "macaroon must be the macaroon in hex, such as `xxd -p -c 10000 admin.macaroon` "
                "prints it"
            )
        super().__init__(
            url,
            {"Grpc-Metadata-macaroon": macaroon},
            max_fee_sat=max_fee_sat,
            network=network,
            clock=clock,
            secrets=(macaroon,),
            tls_cert=tls_cert,
        )

    @property
    def check_path(self) -> str:
        """The path of a harmless request that needs the credentials."""
        return "/v1/balance/channels"

    async def _pay(self, invoice: Invoice, max_fee_sat: int | None) -> Payment:
        limit = _NO_LIMIT if max_fee_sat is None else max_fee_sat
        request = {
            "payment_request": invoice.bolt11,
            "fee_limit_sat": str(limit),
            "timeout_seconds": _NEW_ATTEMPTS,
            "no_inflight_updates": True,
        }
        answer = await self._request("POST", "/v2/router/send", body=request, first_line=True)
        return read_payment(answer, invoice.payment_hash)

    async def _lookup(self, payment_hash: str) -> Payment | None:
        name = base64.urlsafe_b64encode(bytes.fromhex(payment_hash)).decode()
        path = f"/v2/router/track/{name}?no_inflight_updates=false"
        answer = await self._request("GET", path, first_line=True)
        return None if answer.status == _NOT_FOUND else read_payment(answer, payment_hash)

    def _is_refused(self, answer: Answer) -> bool:
        return answer.status != _OK and _message(answer).startswith(_REFUSALS)


def _message(answer: Answer) -> str:
    """Return the message of an error, which is nested, flat, or the error itself (seen)."""
    body = answers.fields(answer.body)
    error = body.get("error")
    flat = answers.text(error) or answers.text(body.get("message"))
    return answers.text(answers.fields(error).get("message")) or flat or ""


def read_payment(answer: Answer, payment_hash: str) -> Payment:
    """Return what one line of LND's stream says; an error line says nothing about the payment."""
    result = answers.fields(answers.fields(answer.body).get("result"))
    state = PaymentState.UNKNOWN
    if answer.status == _OK:
        word = result.get("status")
        state = _STATES.get(word, state) if isinstance(word, str) else state
    error: str | None = None
    if state is PaymentState.FAILED:
        error = answers.text(result.get("failure_reason")) or "LND gives no reason"
    elif state is PaymentState.UNKNOWN:
        error = f"LND answered HTTP {answer.status}: {_message(answer) or 'no state of a payment'}"
    return Payment(
        state,
        payment_hash,
        amount_sat=answers.amount(result.get("value_sat")),
        fee_sat=answers.from_msat(result.get("fee_msat")),
        preimage=answers.preimage(result.get("payment_preimage")),
        error=error,
    )
