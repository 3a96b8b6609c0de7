"""Nostr Wallet Connect (NIP-47), through nostr-sdk."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, ClassVar, Final

import anyio

from sms4sats_async._clock import Clock
from sms4sats_async.errors import (
    AuthenticationError,
    ClientStateError,
    InvalidArgumentError,
    RequestTimeoutError,
    TransportError,
)
from sms4sats_async.invoice import Invoice, Network
from sms4sats_async.models import RequestOutcome

from . import answers, base
from .payment import Payment, PaymentState

_RELAY_TIMEOUT: Final = timedelta(seconds=10)
"""How long nostr-sdk waits for the answer of the wallet, its default."""
_CODE: Final = re.compile(r"\[(\w+)\]\Z")
"""nostr-sdk ends the text of a wallet's error with its code, in its own spelling (seen)."""
_FAILED: Final = frozenset({"PaymentFailed", "InsufficientBalance", "QuotaExceeded"})
_REFUSED: Final = frozenset({"Unauthorized", "Restricted"})
_NOT_FOUND: Final = "NotFound"


class WalletError(TransportError):
    """If the wallet answers with an error of NIP-47, or not at all: `code` is None then."""

    def __init__(self, problem: str, code: str | None) -> None:
        super().__init__(problem, request_outcome=RequestOutcome.UNKNOWN)
        self.code = code


class NwcWallet(base.BaseWallet):
    """Pays from any wallet with Nostr Wallet Connect, such as Alby Hub. It runs on asyncio only.

    Args:
        uri: The wallet's `nostr+walletconnect://...`. It alone is enough to pay from the wallet.
        max_fee_sat: None. NIP-47 has no fee limit for a payment.
        network: The network of the invoices that it may pay.
        clock: The source of time, for tests.

    Raises:
        InvalidArgumentError: If the URI is invalid, or if `max_fee_sat` is a number.
        ImportError: If `nostr-sdk` is not installed: `pip install 'sms4sats-async[nwc]'`.
    """

    # nostr-sdk stops waiting for a held payment: only the wallet knows that it is pending.
    confirmed: ClassVar[frozenset[PaymentState]] = frozenset(
        {PaymentState.FAILED, PaymentState.UNKNOWN}
    )

    def __init__(
        self,
        uri: str,
        *,
        max_fee_sat: int | None,
        network: Network = "bitcoin",
        clock: Clock | None = None,
    ) -> None:
        try:
            # An extra, imported when it is used. It has no types that type checkers accept.
            import nostr_sdk  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs]
        except ImportError as error:
            raise ImportError(
                "NwcWallet needs nostr-sdk: pip install 'sms4sats-async[nwc]'"
            ) from error
        self._sdk: Any = nostr_sdk
        try:
            self._uri: Any = self._sdk.NostrWalletConnectUri.parse(uri)
        except (TypeError, self._sdk.NostrSdkError):
            # Without the cause, which may quote the secret.
            raise InvalidArgumentError(
                "uri must be nostr+walletconnect://... with a relay and a secret"
            ) from None
        secret = self._uri.secret().to_hex()
        super().__init__(max_fee_sat=max_fee_sat, network=network, clock=clock, secrets=(secret,))
        self._connection: Any = None
        self._is_checked = False

    async def aclose(self) -> None:
        """Close the wallet's connections. Payments under way go on in the wallet."""
        await super().aclose()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.client().shutdown()

    async def check(self) -> None:
        """Check that the wallet answers and accepts the credentials; this changes nothing.

        Raises:
            AuthenticationError: If the wallet refuses the credentials, or does not allow what
                paying needs.
            TransportError: If no answer arrives.
        """
        self._check_open()
        _check_permissions(await self._request(lambda wallet: wallet.get_info()))

    async def _before_paying(self, payment_hash: str) -> Payment | None:  # noqa: ARG002
        """Check the permissions once; without `lookup_invoice`, a payment could stay `UNKNOWN`."""
        if not self._is_checked:
            try:
                info = await self._request(lambda wallet: wallet.get_info())
            except (AuthenticationError, TransportError):
                pass  # a wallet need not offer that
            else:
                _check_permissions(info)
            self._is_checked = True
        return None

    async def _pay(self, invoice: Invoice, max_fee_sat: int | None) -> Payment:  # noqa: ARG002
        request = self._sdk.PayInvoiceRequest(id=None, invoice=invoice.bolt11, amount=None)
        try:
            paid = await self._request(lambda wallet: wallet.pay_invoice(request))
        except WalletError as error:
            if error.code not in _FAILED:
                raise
            return Payment(PaymentState.FAILED, invoice.payment_hash, error=error.problem)
        return Payment(
            PaymentState.SETTLED,
            invoice.payment_hash,
            fee_sat=answers.from_msat(paid.fees_paid),
            preimage=answers.preimage(paid.preimage),
        )

    async def _lookup(self, payment_hash: str) -> Payment | None:
        request = self._sdk.LookupInvoiceRequest(payment_hash=payment_hash, invoice=None)
        try:
            found = await self._request(lambda wallet: wallet.lookup_invoice(request))
        except WalletError as error:
            if error.code == _NOT_FOUND:
                return None
            raise
        return read_payment(found, payment_hash)

    async def _request(self, call: Callable[[Any], Awaitable[Any]]) -> Any:  # noqa: ANN401
        """Send one request and return the answer.

        Raises:
            AuthenticationError: If the wallet refuses the credentials.
            TransportError: If it answers with another error, or not at all.
            ClientStateError: If no event loop of asyncio runs.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise ClientStateError("NwcWallet needs asyncio, because nostr-sdk does") from None
        if self._connection is None:
            if self._closed:  # while a payment was under way: nothing would close another one
                raise WalletError("the wallet was closed", None)
            builder = self._sdk.NostrWalletConnectBuilder(self._uri)
            self._connection = builder.timeout(_RELAY_TIMEOUT).build()
        try:
            with anyio.fail_after(base.ANSWER_TIMEOUT):
                return await call(self._connection)
        except TimeoutError as error:
            raise RequestTimeoutError(
                f"no answer from the wallet within {base.ANSWER_TIMEOUT:.0f} s",
                request_outcome=RequestOutcome.UNKNOWN,
            ) from error
        except self._sdk.NostrSdkError as error:
            text = str(error).strip("'\"")  # the text is quoted
            code, problem = _CODE.search(text), self._masked(text)
            if code is not None and code[1] in _REFUSED:
                raise AuthenticationError(
                    f"the wallet refuses the request: {problem}",
                    request_outcome=RequestOutcome.REFUSED,
                ) from None
            raise WalletError(problem, None if code is None else code[1]) from None


def _check_permissions(info: Any) -> None:  # noqa: ANN401
    """Raise if the wallet lists what the connection may do, and something needed is missing."""
    missing = [
        name
        for name in ("pay_invoice", "lookup_invoice")
        if not any(getattr(method, f"is_{name}")() for method in info.methods)
    ]
    if info.methods and missing:
        raise AuthenticationError(
            f"the connection lacks the permission {' and '.join(missing)}: allow it in the wallet"
        )


def read_payment(found: Any, payment_hash: str) -> Payment:  # noqa: ANN401
    """Return what `lookup_invoice` says; a wallet may leave the state out."""
    outgoing = getattr(found.transaction_type, "name", "OUTGOING") == "OUTGOING"
    name = getattr(found.state, "name", None)
    preimage = answers.preimage(found.preimage)
    state = _STATES.get(name, PaymentState.UNKNOWN) if outgoing else PaymentState.UNKNOWN
    if outgoing and name is None and found.settled_at is not None and preimage is not None:
        state = PaymentState.SETTLED
    settled = state is PaymentState.SETTLED
    error: str | None = None
    if state is PaymentState.FAILED:
        error = "the wallet reports that the payment failed"
    elif state is PaymentState.UNKNOWN:
        error = "the wallet reports no state of an outgoing payment"
    return Payment(
        state,
        payment_hash,
        amount_sat=answers.from_msat(found.amount),
        fee_sat=answers.from_msat(found.fees_paid) if settled else None,
        preimage=preimage,
        error=error,
    )


# The states of NIP-47. `expired` is one of invoices to receive.
_STATES: Final[Mapping[str | None, PaymentState]] = {
    "SETTLED": PaymentState.SETTLED,
    "PENDING": PaymentState.PENDING,
    "ACCEPTED": PaymentState.PENDING,
    "FAILED": PaymentState.FAILED,
}
