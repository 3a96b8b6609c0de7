"""Core Lightning over its REST interface, clnrest (docs.corelightning.org: `xpay`, `listpays`)."""

import os
from collections.abc import Mapping
from typing import ClassVar, Final, cast

from sms4sats_async._clock import Clock
from sms4sats_async.invoice import Invoice, Network

from . import answers
from .http import Answer, HttpWallet, header_secret
from .payment import Payment, PaymentState

_CREATED: Final = 201
_ERRORS: Final = frozenset({404, 500})
_NO_LIMIT: Final = 10**17
"""A fee in millisatoshis that no route has. From 1.8 times it, `xpay` overflows (its source)."""
_NEW_ATTEMPTS: Final = 60
"""Seconds in which `xpay` may try routes. A payment that is held goes on afterwards."""
_LAST_ATTEMPT: Final = 2 * _NEW_ATTEMPTS
"""Seconds after which no `xpay` of this wallet tries another route."""

_ENDED: Final = frozenset({-32601, -32602, 203, 205, 206, 207, 209, 215, 220})
"""The codes of a payment that `xpay` gave up: its own, those of `getroutes`, and of JSON-RPC for an
unknown method or argument (documented). A part may still be held, so `listpays` decides.
"""


class ClnWallet(HttpWallet):
    """Pays from a node of Core Lightning 24.11 or later, which has `xpay`.

    Args:
        url: The root of clnrest, such as `https://localhost:3010`. Plain `http://` only to this
            machine.
        rune: The rune, which must allow the methods `xpay`, `listpays` and `getinfo`.
        max_fee_sat: The highest routing fee of a payment in satoshis, or None for no limit. Core
            Lightning enforces it.
        tls_cert: The path of clnrest's own `ca.pem`. None: the system's certificates.
        network: The network of the invoices that it may pay.
        clock: The source of time, for tests.

    Raises:
        InvalidArgumentError: If an argument is invalid.
    """

    enforces_fee_limit: ClassVar[bool] = True
    check_method: ClassVar[str] = "POST"

    def __init__(
        self,
        url: str,
        rune: str,
        *,
        max_fee_sat: int | None,
        tls_cert: str | os.PathLike[str] | None = None,
        network: Network = "bitcoin",
        clock: Clock | None = None,
    ) -> None:
        secret = header_secret("rune", rune)
        super().__init__(
            url,
            {"Rune": secret},
            max_fee_sat=max_fee_sat,
            network=network,
            clock=clock,
            secrets=(secret,),
            tls_cert=tls_cert,
        )
        self._since: dict[str, float] = {}
        """When this object sent the request to pay, or first asked for the payment."""

    @property
    def check_path(self) -> str:
        """The path of a harmless request that needs the credentials."""
        return "/v1/getinfo"

    async def _pay(self, invoice: Invoice, max_fee_sat: int | None) -> Payment:
        self._since[invoice.payment_hash] = self._clock.monotonic()
        limit = _NO_LIMIT if max_fee_sat is None else min(1000 * max_fee_sat, _NO_LIMIT)
        request = {"invstring": invoice.bolt11, "maxfee": limit, "retry_for": _NEW_ATTEMPTS}
        answer = await self._request("POST", "/v1/xpay", body=request)
        return read_paid(answer, invoice.payment_hash)

    async def _lookup(self, payment_hash: str) -> Payment | None:
        now = self._clock.monotonic()
        since = self._since.setdefault(payment_hash, now)
        request = {"payment_hash": payment_hash}
        payment = read_asked(await self._request("POST", "/v1/listpays", body=request), **request)
        # Between two attempts of an `xpay` that has not ended, `listpays` says `failed` (seen by
        # others: ElementsProject/lightning#9036).
        may_go_on = payment_hash not in self._failures and now - since < _LAST_ATTEMPT
        if payment is not None and payment.state is PaymentState.FAILED and may_go_on:
            return self._unknown(payment_hash, "Core Lightning may still try another route")
        return payment


def read_paid(answer: Answer, payment_hash: str) -> Payment:
    """Return what the answer to `xpay` says: a preimage, or the code of an error."""
    body = answers.fields(answer.body)
    if answer.status == _CREATED and answers.preimage(body.get("payment_preimage")):
        return _settled(payment_hash, body, "payment_preimage")
    code, reason = body.get("code"), answers.text(body.get("message"))
    if answer.status in _ERRORS and isinstance(code, int) and code in _ENDED:
        error = reason or "Core Lightning gives no reason"
        return Payment(PaymentState.FAILED, payment_hash, error=error)
    return _unclear(answer, payment_hash, reason)


def read_asked(answer: Answer, payment_hash: str) -> Payment | None:
    """Return what `listpays` says; None if it does not list the payment hash."""
    body = answers.fields(answer.body)
    pays = body.get("pays")
    if answer.status != _CREATED or not isinstance(pays, list):
        return _unclear(answer, payment_hash, answers.text(body.get("message")))
    found = [answers.fields(pay) for pay in cast("list[object]", pays)]
    states = {
        str(pay.get("status")): pay for pay in found if pay.get("payment_hash") == payment_hash
    }
    if "complete" in states:
        return _settled(payment_hash, states["complete"], "preimage")
    if "pending" in states:
        return Payment(PaymentState.PENDING, payment_hash)
    if states.keys() == {"failed"}:
        error = "Core Lightning reports that it was not paid"
        return Payment(PaymentState.FAILED, payment_hash, error=error)
    return _unclear(answer, payment_hash, None) if states else None


def _settled(payment_hash: str, body: Mapping[str, object], preimage: str) -> Payment:
    amount = answers.amount(body.get("amount_msat"))
    sent = answers.amount(body.get("amount_sent_msat"))
    return Payment(
        PaymentState.SETTLED,
        payment_hash,
        amount_sat=answers.from_msat(amount),
        fee_sat=None if amount is None or sent is None else answers.from_msat(sent - amount),
        preimage=answers.preimage(body.get(preimage)),
    )


def _unclear(answer: Answer, payment_hash: str, reason: str | None) -> Payment:
    error = f"Core Lightning answered HTTP {answer.status}: {reason or 'no state of a payment'}"
    return Payment(PaymentState.UNKNOWN, payment_hash, error=error)
