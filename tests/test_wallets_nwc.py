"""Nostr Wallet Connect, for real: nostr-sdk's client, its relay, and a wallet of the tests' own."""

import asyncio
import logging
import sys
from datetime import timedelta
from typing import Any

import anyio
import pytest

from sms4sats_async import AuthenticationError, ClientStateError, InvalidArgumentError
from sms4sats_async.wallets import NwcWallet, Payment, PaymentFailedError, PaymentState, base, nwc
from tests.nwc_service import NwcService, found, nwc_service
from tests.wallet_stubs import HASH, INVOICE, PREIMAGE, StubClock, make

SETTLED, PENDING, FAILED, UNKNOWN = (
    PaymentState.SETTLED,
    PaymentState.PENDING,
    PaymentState.FAILED,
    PaymentState.UNKNOWN,
)
URI = f"nostr+walletconnect://{'a' * 64}?relay=ws://127.0.0.1:9&secret={'b' * 63}1"


@pytest.fixture(autouse=True)
def _short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """nostr-sdk gives up after 1 second instead of 10."""
    monkeypatch.setattr(nwc, "_RELAY_TIMEOUT", timedelta(seconds=1))


@pytest.mark.parametrize(
    ("fault", "first", "second"),
    [
        ("settles", SETTLED, SETTLED),
        ("fails", FAILED, FAILED),
        ("holds", PENDING, PENDING),
        ("loses", SETTLED, SETTLED),
        ("hangs", UNKNOWN, UNKNOWN),
        ("INTERNAL", UNKNOWN, UNKNOWN),
        ("OTHER", UNKNOWN, UNKNOWN),
        ("RATE_LIMITED", UNKNOWN, UNKNOWN),
        ("NOT_IN_NIP_47", UNKNOWN, UNKNOWN),
        ("INSUFFICIENT_BALANCE", FAILED, FAILED),
        ("QUOTA_EXCEEDED", FAILED, FAILED),
    ],
)
@pytest.mark.asyncio
async def test_invoice_is_paid_once_whatever_the_wallet_does(
    fault: str, first: PaymentState, second: PaymentState
) -> None:
    async with nwc_service(fault) as service, service.wallet() as wallet:
        states = [(await wallet.pay(INVOICE)).state, (await wallet.pay(INVOICE)).state]

    assert service.pays == [INVOICE]
    assert states == [first, second]


@pytest.mark.asyncio
async def test_settled_payment_has_amount_fee_and_preimage() -> None:
    async with nwc_service("settles") as service, service.wallet() as wallet:
        for payment in (await wallet.pay(INVOICE), await wallet.get_payment(HASH)):
            assert payment == Payment(SETTLED, HASH, 1500, 3, PREIMAGE.hex())


@pytest.mark.asyncio
async def test_call_waits_while_the_payment_is_held() -> None:
    async with nwc_service("holds") as service:

        class Settling(StubClock):
            async def sleep(self, seconds: float, /) -> None:
                await super().sleep(seconds)
                service.state = "pending" if len(self.sleeps) < 3 else "settled"

        clock = Settling()
        async with service.wallet(clock=clock) as wallet:
            payment = await wallet(INVOICE)

    assert payment.state is SETTLED
    assert service.pays == [INVOICE]
    assert clock.sleeps == [1, 2, 4]


@pytest.mark.asyncio
async def test_call_raises_once_the_wallet_reports_a_failure() -> None:
    async with nwc_service("fails") as service, service.wallet() as wallet:
        with pytest.raises(PaymentFailedError):
            await wallet(INVOICE)


@pytest.mark.asyncio
async def test_failure_that_may_be_a_time_out_is_checked() -> None:
    """NIP-47 lists a time-out under PAYMENT_FAILED."""
    async with nwc_service("PAYMENT_FAILED") as service, service.wallet() as wallet:
        service.lookup = {"result": found("pending")}

        assert (await wallet.pay(INVOICE)).state is PENDING


async def begin_to_pay(service: NwcService, wallet: NwcWallet) -> asyncio.Future[Payment]:
    """Return the task of a payment once the wallet has the request."""
    task = asyncio.ensure_future(wallet.pay(INVOICE))
    while not service.pays:  # noqa: ASYNC110 - an event of another library
        await asyncio.sleep(0.01)
    return task


@pytest.mark.asyncio
async def test_cancelled_task_does_not_pay_again() -> None:
    async with nwc_service("holds") as service, service.wallet() as wallet:
        task = await begin_to_pay(service, wallet)
        task.cancel()
        await asyncio.wait([task])

        assert (await wallet.pay(INVOICE)).state is PENDING
    assert service.pays == [INVOICE]


@pytest.mark.asyncio
async def test_two_tasks_at_once_pay_once() -> None:
    async with nwc_service("holds") as service, service.wallet() as wallet:
        await asyncio.gather(*(wallet.pay(INVOICE) for _ in range(3)))

    assert service.pays == [INVOICE]


@pytest.mark.asyncio
async def test_relay_that_is_down_leaves_the_payment_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(base, "ANSWER_TIMEOUT", 0.5)
    async with NwcWallet(URI, max_fee_sat=None, clock=StubClock()) as wallet:
        payment = await wallet.pay(INVOICE)

    assert payment.state is UNKNOWN
    assert payment.error == "no answer from the wallet within 0 s"


@pytest.mark.parametrize(
    ("lookup", "state"),
    [
        ({"result": found("accepted")}, PENDING),
        ({"result": found("failed")}, FAILED),
        ({"result": found("expired")}, UNKNOWN),
        ({"result": found("weird")}, UNKNOWN),
        ({"result": found(None)}, UNKNOWN),
        ({"result": found(None, settled_at=5, preimage=PREIMAGE.hex())}, SETTLED),
        ({"result": found("failed", type="incoming")}, UNKNOWN),
        ({"result": "odd"}, UNKNOWN),
        ({"error": {"code": "NOT_IMPLEMENTED", "message": "no"}}, UNKNOWN),
    ],
    ids=str,
)
@pytest.mark.asyncio
async def test_state_is_read(lookup: dict[str, Any], state: PaymentState) -> None:
    async with nwc_service("settles") as service, service.wallet() as wallet:
        service.lookup = lookup
        payment = await wallet.get_payment(HASH)

    assert payment.state is state
    assert (payment.error is None) == (state in {SETTLED, PENDING})


@pytest.mark.parametrize("code", ["UNAUTHORIZED", "RESTRICTED"])
@pytest.mark.asyncio
async def test_refused_credentials_pay_nothing(code: str) -> None:
    async with nwc_service(code) as service, service.wallet() as wallet:
        with pytest.raises(AuthenticationError) as caught:
            await wallet(INVOICE)
        with pytest.raises(AuthenticationError):
            await wallet.check()

        assert service.secret not in str(caught.value)
        assert "Nothing was sent" not in str(caught.value)
        service.fault = "settles"
        assert (await wallet(INVOICE)).state is SETTLED


@pytest.mark.parametrize(
    ("methods", "missing"),
    [
        (["pay_invoice", "get_info"], "lookup_invoice"),
        (["lookup_invoice", "get_balance"], "pay_invoice"),
        (["get_info", "one_of_its_own"], "pay_invoice and lookup_invoice"),
    ],
)
@pytest.mark.asyncio
async def test_connection_that_lacks_a_permission_pays_nothing(
    methods: list[str], missing: str
) -> None:
    """Without `lookup_invoice`, a held payment would never be settled or failed."""
    async with nwc_service("holds") as service, service.wallet() as wallet:
        service.methods = methods
        for call in (wallet.check(), wallet.pay(INVOICE), wallet(INVOICE)):
            with pytest.raises(AuthenticationError, match=f"lacks the permission {missing}: "):
                await call
        assert service.pays == []

        service.fault, service.methods = "settles", ["pay_invoice", "lookup_invoice"]
        assert (await wallet(INVOICE)).state is SETTLED


@pytest.mark.parametrize(
    ("fault", "methods", "state"),
    [("settles", [], SETTLED), ("settles", None, SETTLED), ("INTERNAL", None, UNKNOWN)],
)
@pytest.mark.asyncio
async def test_wallet_that_does_not_list_its_permissions_is_paid_from(
    fault: str, methods: list[str] | None, state: PaymentState
) -> None:
    async with nwc_service(fault) as service, service.wallet() as wallet:
        service.methods = methods

        assert (await wallet.pay(INVOICE)).state is state
    assert service.pays == [INVOICE]


@pytest.mark.asyncio
async def test_permissions_are_asked_for_once() -> None:
    async with nwc_service("settles") as service, service.wallet() as wallet:
        await wallet.pay(INVOICE)
        await wallet.pay(make(payment_hash=bytes(32)))

    assert (len(service.pays), service.infos) == (2, 1)


@pytest.mark.asyncio
async def test_check_asks_the_wallet() -> None:
    async with nwc_service("settles") as service, service.wallet() as wallet:
        await wallet.check()

        assert service.pays == []


@pytest.mark.asyncio
async def test_no_secret_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with nwc_service("INTERNAL") as service, service.wallet() as wallet:
        payment = await wallet.pay(INVOICE)

    assert payment.error is not None
    assert payment.error.startswith("no, says ")
    shown = f"{payment!r} {payment.error} {wallet!r} {caplog.text}"
    for secret in (service.secret, HASH, INVOICE):
        assert secret not in shown


@pytest.mark.parametrize("limit", [0, 50])
def test_fee_limit_is_refused(limit: int) -> None:
    with pytest.raises(InvalidArgumentError, match="NwcWallet cannot limit the fee"):
        NwcWallet(URI, max_fee_sat=limit)


@pytest.mark.parametrize("uri", ["", "https://x", "nostr+walletconnect://", None, 5])
def test_wrong_uri_is_refused(uri: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^uri must be nostr\+walletconnect://"):
        NwcWallet(uri, max_fee_sat=None)


@pytest.mark.asyncio
async def test_bad_invoice_is_refused_before_paying() -> None:
    async with NwcWallet(URI, max_fee_sat=None, clock=StubClock()) as wallet:
        with pytest.raises(InvalidArgumentError, match="network regtest"):
            await wallet.pay(make(network="regtest"))


@pytest.mark.asyncio
async def test_closed_wallet_sends_nothing() -> None:
    async with NwcWallet(URI, max_fee_sat=None) as wallet:
        pass
    for call in (wallet.pay(INVOICE), wallet.get_payment(HASH), wallet.check()):
        with pytest.raises(ClientStateError, match="the wallet is closed"):
            await call


@pytest.mark.asyncio
async def test_wallet_that_is_closed_while_it_pays_opens_no_connection() -> None:
    async with nwc_service("holds") as service, service.wallet() as wallet:
        task = await begin_to_pay(service, wallet)
        await wallet.aclose()

        assert (await task).state is UNKNOWN
        assert vars(wallet)["_connection"] is None


def test_trio_is_refused_in_plain_words() -> None:
    async def pay() -> None:
        wallet = NwcWallet(URI, max_fee_sat=None, clock=StubClock())
        with pytest.raises(ClientStateError, match="needs asyncio"):
            await wallet.pay(INVOICE)
        assert vars(wallet)["_amounts"] == {}  # nothing was sent, so it may be paid later

    anyio.run(pay, backend="trio")


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nostr_sdk", None)
    with pytest.raises(ImportError, match=r"pip install 'sms4sats-async\[nwc\]'"):
        NwcWallet(URI, max_fee_sat=None)
