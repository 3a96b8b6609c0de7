"""Wallets over HTTP against stubs that hold, settle, fail, hang, drop and answer 5xx."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms4sats_async import (
    AuthenticationError,
    ClientStateError,
    InvalidArgumentError,
    InvalidResponseError,
    RequestOutcome,
    Sms4SatsError,
    TransportError,
)
from sms4sats_async.simulator import Behaviour, ManualClock
from sms4sats_async.wallets import (
    ClnWallet,
    LnbitsWallet,
    LndWallet,
    Payment,
    PaymentFailedError,
    PaymentState,
    PhoenixdWallet,
    base,
    cln,
    lnbits,
    lnd,
    phoenixd,
)
from sms4sats_async.wallets.http import Answer
from tests import wallet_stubs
from tests.servers import Server, answer, authority, certified, saying
from tests.simulated import Simulated
from tests.wallet_stubs import (
    ADMIN_KEY,
    BODIES,
    CREDENTIALS,
    HASH,
    INVOICE,
    MACAROON,
    PASSWORD,
    PREIMAGE,
    RUNE,
    Stub,
    StubClock,
    make,
)

pytestmark = pytest.mark.anyio

SETTLED, PENDING, FAILED, UNKNOWN = (
    PaymentState.SETTLED,
    PaymentState.PENDING,
    PaymentState.FAILED,
    PaymentState.UNKNOWN,
)
KINDS = sorted(BODIES)
every_wallet = pytest.mark.parametrize("kind", KINDS)


# --- never paid twice, never FAILED without the wallet's word -------------------------------------

# The state that `pay` returns, and the state that a second `pay` returns, which asks.
FAULTS = {
    "settles": (SETTLED, SETTLED),
    "fails": (FAILED, FAILED),
    "holds": (UNKNOWN, PENDING),
    "loses": (UNKNOWN, PENDING),
    "hangs": (UNKNOWN, UNKNOWN),
    "drops": (UNKNOWN, SETTLED),
    "500": (UNKNOWN, SETTLED),
    "502": (UNKNOWN, SETTLED),
    "503": (UNKNOWN, SETTLED),
    "404": (UNKNOWN, SETTLED),
    "302": (UNKNOWN, SETTLED),
}


@every_wallet
@pytest.mark.parametrize("fault", FAULTS)
async def test_invoice_is_paid_once_whatever_the_wallet_does(
    kind: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = FAULTS[fault]
    if kind == "lnbits" and fault == "holds":
        first = PENDING  # it answers a held payment
    with Stub(kind, fault) as stub:
        async with stub.wallet() as wallet:
            if fault in {"holds", "hangs"}:
                monkeypatch.setattr(base, "ANSWER_TIMEOUT", 1.0)
            states = [(await wallet.pay(INVOICE)).state]
            if fault == "holds":
                monkeypatch.undo()
            states.append((await wallet.pay(INVOICE)).state)

        print(f"count: {kind} {fault}: {len(stub.node.pays)} paid, {states}")  # noqa: T201
        assert stub.node.pays == [INVOICE]
        assert states == [first, second]


@every_wallet
async def test_settled_payment_has_amount_fee_and_preimage(kind: str) -> None:
    with Stub(kind, "settles") as stub:
        wallet = stub.wallet()

        for payment in (await wallet.pay(INVOICE), await wallet.get_payment(HASH.upper())):
            assert payment == Payment(SETTLED, HASH, 1500, 3, PREIMAGE.hex())


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cln", "Failed: no route"),
        ("lnbits", "Payment failed: no route"),
        ("lnd", "FAILURE_REASON_NO_ROUTE"),
        ("phoenixd", "no route"),
    ],
)
async def test_failure_is_given_with_its_reason(kind: str, reason: str) -> None:
    """Only the answer to the request to pay may have it."""
    with Stub(kind, "fails") as stub:
        wallet = stub.wallet()
        assert (await wallet.pay(INVOICE)).error == reason

        with pytest.raises(PaymentFailedError) as caught:
            await wallet(INVOICE)

    assert caught.value.payment.error == reason
    assert caught.value.payment.state is FAILED
    assert isinstance(caught.value, Sms4SatsError)
    assert HASH not in str(caught.value)
    assert "paid nothing" in str(caught.value)


@every_wallet
async def test_unknown_payment_is_not_a_failed_one(kind: str) -> None:
    with Stub(kind, "settles") as stub:
        payment = await stub.wallet().get_payment(HASH)

    assert payment.state is UNKNOWN
    assert payment.error == "the wallet does not know this payment"


@every_wallet
async def test_call_waits_until_the_payment_is_settled(kind: str) -> None:
    clock = StubClock()
    with Stub(kind, "loses") as stub:

        class Settling(StubClock):
            async def sleep(self, seconds: float, /) -> None:
                await clock.sleep(seconds)
                if len(clock.sleeps) == 7:
                    stub.node.state = "settled"

        payment = await stub.wallet(Settling())(INVOICE)

        assert stub.node.pays == [INVOICE]
    assert payment.state is SETTLED
    assert clock.sleeps == [1, 2, 4, 8, 16, 30, 30]


@every_wallet
async def test_call_raises_once_the_wallet_reports_a_failure(kind: str) -> None:
    with Stub(kind, "loses") as stub:

        class Failing(StubClock):
            async def sleep(self, seconds: float, /) -> None:
                await super().sleep(seconds)
                stub.node.state = "failed"

        with pytest.raises(PaymentFailedError):
            await stub.wallet(Failing())(INVOICE)

        assert stub.node.pays == [INVOICE]


@every_wallet
async def test_cancelled_task_does_not_pay_again(kind: str) -> None:
    with Stub(kind, "hangs") as stub:
        wallet = stub.wallet()

        async with anyio.create_task_group() as group:
            group.start_soon(wallet.pay, INVOICE)
            while not stub.node.pays:  # noqa: ASYNC110 - the stub runs in a thread
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()

        stub.node.fault, stub.node.state = "settles", "held"
        assert (await wallet.pay(INVOICE)).state is PENDING
        assert stub.node.pays == [INVOICE]


@every_wallet
async def test_two_tasks_at_once_pay_once(kind: str) -> None:
    with Stub(kind, "loses") as stub:
        wallet = stub.wallet()

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(wallet.pay, INVOICE)

        assert stub.node.pays == [INVOICE]


@every_wallet
async def test_connection_that_fails_lets_the_invoice_be_paid_later(kind: str) -> None:
    """A refused connection proves that nothing was sent."""
    stub = Stub(kind, "settles")
    with stub:
        wallet = stub.wallet()
    assert (await wallet.pay(INVOICE)).state is UNKNOWN
    assert stub.node.pays == []

    other = Stub(kind, "settles")
    with other:
        vars(wallet)["_root"] = other.url  # as if the server came back
        assert (await wallet.pay(INVOICE)).state is SETTLED
        assert other.node.pays == [INVOICE]


async def test_phoenixd_never_pays_what_another_process_pays() -> None:
    with Stub("phoenixd", "settles") as stub:
        stub.node.state = "held"

        assert (await stub.wallet().pay(INVOICE)).state is PENDING
        assert stub.node.pays == []


async def test_phoenixd_does_not_pay_while_it_cannot_be_asked() -> None:
    with Server(saying(b"HTTP/1.1 500 Error\r\ncontent-length: 0\r\n\r\n")) as server:
        wallet = PhoenixdWallet(server.url, PASSWORD, max_fee_sat=None, clock=StubClock())

        assert (await wallet.pay(INVOICE)).state is UNKNOWN
        assert [seen.method for seen in server.seen] == ["GET"]


async def test_refusal_of_lnbits_to_pay_again_is_no_failure() -> None:
    """While a payment is held, LNbits 1.6 says `Insufficient balance.` to a second request."""

    def refusal(node: Any, seen: Any) -> tuple[bool, str, Any]:
        if seen.method == "POST":
            node.pays.append(INVOICE)
            return True, "520 ", {"detail": "Insufficient balance.", "status": "failed"}
        return wallet_stubs.lnbits(node, seen)

    with Stub("lnbits", "settles") as stub, pytest.MonkeyPatch.context() as patch:
        patch.setitem(BODIES, "lnbits", refusal)
        stub.node.state = "held"
        assert (await stub.wallet().pay(INVOICE)).state is PENDING

        stub.node.state = None
        payment = await stub.wallet().pay(INVOICE)
        assert (payment.state, payment.error) == (FAILED, "Insufficient balance.")


@pytest.mark.parametrize(
    "answered",
    [
        {"paid": True, "status": "success", "details": {"status": "success", "amount": 1_500_000}},
        {"paid": False, "status": "failed", "details": {"status": "failed", "amount": 1_500_000}},
        {"paid": True, "preimage": PREIMAGE.hex()},
        {"paid": False, "status": "failed"},
        {"paid": True, "details": {"status": "success", "amount": "odd"}},
    ],
    ids=["received", "not received", "settled elsewhere", "failed elsewhere", "odd"],
)
async def test_only_an_outgoing_payment_of_the_wallet_counts_in_lnbits(answered: Any) -> None:
    """To a wrong key, LNbits 1.6 shows payments of any wallet, without `details`."""
    with Server(saying(answer(answered))) as server:
        wallet = LnbitsWallet(server.url, ADMIN_KEY, max_fee_sat=None)
        payment = await wallet.get_payment(HASH)

    assert payment == Payment(
        UNKNOWN, HASH, error="LNbits answered HTTP 200: no outgoing payment of this wallet"
    )


async def test_failed_attempt_in_core_lightning_is_no_failed_payment_yet() -> None:
    """`listpays` says `failed` between two attempts of an `xpay` that has not answered."""
    with Stub("cln", "loses") as stub:
        clock = StubClock()
        wallet = stub.wallet(clock)
        await wallet.pay(INVOICE)
        stub.node.state = "failed"
        clock.time += 119
        unclear = await wallet.pay(INVOICE)
        other = await stub.wallet(clock).get_payment(HASH)
        clock.time += 1

        assert unclear.state is other.state is UNKNOWN
        assert unclear.error == "Core Lightning may still try another route"
        assert (await wallet.pay(INVOICE)).state is FAILED
        assert stub.node.pays == [INVOICE]


@pytest.mark.parametrize(
    ("state", "code", "known"),
    [
        ("held", 209, PENDING),
        ("held", 207, PENDING),
        ("settled", 219, UNKNOWN),
        ("settled", 205, SETTLED),
        ("failed", 205, FAILED),
        ("failed", -1, UNKNOWN),
        (None, 205, FAILED),
        (None, -32601, FAILED),
        (None, -1, UNKNOWN),
    ],
)
async def test_error_of_core_lightning_is_checked(
    state: str | None, code: int, known: PaymentState
) -> None:
    """An `xpay` that gave up may have a part that is held, or may be the second of an invoice."""

    def refusal(node: Any, seen: Any) -> tuple[bool, str, Any]:
        if seen.target == "/v1/xpay":
            node.pays.append(INVOICE)
            return True, "500 Error", {"code": code, "message": "Timed out after 3 attempts."}
        return wallet_stubs.cln(node, seen)

    with Stub("cln", "settles") as stub, pytest.MonkeyPatch.context() as patch:
        patch.setitem(BODIES, "cln", refusal)
        stub.node.state = state
        payment = await stub.wallet().pay(INVOICE)

        assert payment.state is known
        assert stub.node.pays == [INVOICE]


@pytest.mark.parametrize("asked", ["503 Error", "401 Unauthorized"])
async def test_failure_that_cannot_be_checked_is_unknown(asked: str) -> None:
    """The refusal of a second request looks the same while the first payment is held."""

    def refusal(node: Any, seen: Any) -> tuple[bool, str, Any]:
        if seen.method == "POST":
            node.pays.append(INVOICE)
            return True, "520 ", {"detail": "Insufficient balance.", "status": "failed"}
        return (False, asked, {}) if asked else wallet_stubs.lnbits(node, seen)

    with Stub("lnbits", "settles") as stub, pytest.MonkeyPatch.context() as patch:
        patch.setitem(BODIES, "lnbits", refusal)
        wallet = stub.wallet()
        assert (await wallet.pay(INVOICE)).state is UNKNOWN

        asked = ""
        assert (await wallet.pay(INVOICE)).state is FAILED
        stub.node.state = "held"
        assert (await wallet.pay(INVOICE)).state is PENDING
        assert stub.node.pays == [INVOICE]


async def test_too_large_an_answer_is_unknown() -> None:
    large = b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 2_000_000
    with Server(saying(large)) as server:
        wallet = LnbitsWallet(server.url, ADMIN_KEY, max_fee_sat=None, clock=StubClock())
        payment = await wallet.pay(INVOICE)

    assert payment.state is UNKNOWN
    assert payment.error == "the wallet's answer is larger than 1048576 bytes"


# --- the fee limit --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "of_this_payment", "sent"),
    [
        (50, None, "50"),
        (50, 7, "7"),
        (50, 0, "0"),
        (0, None, "0"),
        (None, None, "2100000000000000"),
        (None, 9, "9"),
    ],
)
async def test_lnd_gets_the_fee_limit(
    limit: int | None, of_this_payment: int | None, sent: str
) -> None:
    with Stub("lnd", "settles") as stub:
        await stub.wallet(max_fee_sat=limit).pay(INVOICE, max_fee_sat=of_this_payment)
        body = json.loads(stub.seen[0].body)

    assert body == {
        "payment_request": INVOICE,
        "fee_limit_sat": sent,
        "timeout_seconds": 60,
        "no_inflight_updates": True,
    }


@pytest.mark.parametrize(
    ("limit", "of_this_payment", "sent"),
    [
        (50, None, 50_000),
        (50, 0, 0),
        (0, None, 0),
        (None, None, 10**17),
        (None, 9, 9000),
        (2 * 10**15, None, 10**17),
    ],
)
async def test_core_lightning_gets_the_fee_limit_in_millisatoshis(
    limit: int | None, of_this_payment: int | None, sent: int
) -> None:
    """Without one it takes 1 %. A limit of all satoshis is too large for the sums of `xpay`."""
    with Stub("cln", "settles") as stub:
        await stub.wallet(max_fee_sat=limit).pay(INVOICE, max_fee_sat=of_this_payment)
        body = json.loads(stub.seen[0].body)

    assert body == {"invstring": INVOICE, "maxfee": sent, "retry_for": 60}


@pytest.mark.parametrize("limit", [-1, True, 1.5, "50", 10**16])
def test_lnd_refuses_an_invalid_fee_limit(limit: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="max_fee_sat must be a whole number"):
        LndWallet("https://node", MACAROON, max_fee_sat=limit)


@pytest.mark.parametrize("kind", ["lnbits", "phoenixd"])
async def test_fee_limit_that_the_wallet_cannot_enforce_is_refused(kind: str) -> None:
    with Stub(kind, "settles") as stub:
        with pytest.raises(InvalidArgumentError, match="cannot limit the fee of a payment"):
            stub.wallet(max_fee_sat=50)
        with pytest.raises(InvalidArgumentError, match="cannot limit the fee of a payment"):
            await stub.wallet().pay(INVOICE, max_fee_sat=0)

        assert stub.seen == []


# --- what is refused before paying ----------------------------------------------------------------


@every_wallet
@pytest.mark.parametrize(
    ("invoice", "problem"),
    [
        ("lnbc1", "not a Lightning invoice"),
        (make(network="regtest"), "network regtest, not bitcoin"),
        (make(amount_sat=None), "has no amount"),
        (make(expiry=9), "expired at"),
    ],
    ids=["unreadable", "network", "amountless", "expired"],
)
async def test_bad_invoice_is_refused_before_paying(kind: str, invoice: str, problem: str) -> None:
    with Stub(kind, "settles") as stub:
        for call in (stub.wallet(), stub.wallet().pay):
            with pytest.raises(InvalidArgumentError, match=problem):
                await call(invoice)

        assert stub.seen == []


@every_wallet
async def test_invoice_that_expired_after_it_was_paid_is_asked_for(kind: str) -> None:
    with Stub(kind, "settles") as stub:
        clock = StubClock()
        wallet = stub.wallet(clock)
        await wallet.pay(INVOICE)
        clock.time += 5000

        assert (await wallet.pay(INVOICE)).state is SETTLED


@every_wallet
async def test_refused_credentials_pay_nothing(kind: str) -> None:
    with Stub(kind, "refuses") as stub:
        wallet = stub.wallet()
        for call in (wallet, wallet.pay):
            with pytest.raises(AuthenticationError, match="refuses the credentials"):
                await call(INVOICE)
        with pytest.raises(AuthenticationError):
            await wallet.check()
        assert stub.node.pays == []

        stub.node.fault = "settles"
        assert (await wallet(INVOICE)).state is SETTLED
        assert stub.node.pays == [INVOICE]


@every_wallet
async def test_credentials_refused_after_paying_do_not_end_the_wait(kind: str) -> None:
    with Stub(kind, "loses") as stub:

        class Changing(StubClock):
            async def sleep(self, seconds: float, /) -> None:
                await super().sleep(seconds)
                stub.node.fault = "refuses" if len(self.sleeps) < 3 else "settles"
                stub.node.state = "settled"

        clock = Changing()
        assert (await stub.wallet(clock)(INVOICE)).state is SETTLED
        assert clock.sleeps == [1, 2, 4]


@pytest.mark.parametrize(
    "shape",
    [
        '{"code": 2, "message": "%s", "details": []}',
        '{"error": {"code": 2, "message": "%s"}}',
        '{"error": "%s", "code": 2}',
    ],
    ids=["flat", "nested", "old"],
)
@pytest.mark.parametrize(
    "message",
    [
        "verification failed: signature mismatch after caveat verification",
        "permission denied",
        "cannot get macaroon: root key with id 0 doesn't exist",
        "expected 1 macaroon, got 0",
    ],
)
async def test_lnd_refuses_a_macaroon_with_http_500(message: str, shape: str) -> None:
    body = (shape % message).encode()
    head = f"HTTP/1.1 500 Error\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with Server(saying(head + body)) as server:
        wallet = LndWallet(server.url, MACAROON, max_fee_sat=1, clock=StubClock())
        with pytest.raises(AuthenticationError):
            await wallet.pay(INVOICE)


async def test_lnbits_refuses_a_key_with_http_404() -> None:
    body = b'{"detail": "Wallet not found."}'
    head = f"HTTP/1.1 404 Not Found\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with Server(saying(head + body)) as server:
        wallet = LnbitsWallet(server.url, ADMIN_KEY, max_fee_sat=None, clock=StubClock())
        with pytest.raises(AuthenticationError):
            await wallet(INVOICE)


@pytest.mark.parametrize("url", ["", "node", "ftp://node", "http://node", "https://u:p@node", 5])
@pytest.mark.parametrize("kind", KINDS)
def test_wrong_url_is_refused(kind: str, url: Any) -> None:
    with (
        Stub(kind, "settles") as stub,
        pytest.raises(InvalidArgumentError, match=r"^url must"),
    ):
        stub.wallet(url=url)


def test_host_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="its host is invalid"):
        LnbitsWallet("https://" + "a" * 70 + ".\u00fc", ADMIN_KEY, max_fee_sat=None)


@pytest.mark.parametrize(
    "macaroon", ["", "zz", "02 01", f"{MACAROON}\n", "/home/user/admin.macaroon", None]
)
def test_macaroon_that_is_not_hex_is_refused(macaroon: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="macaroon in hex"):
        LndWallet("https://node", macaroon, max_fee_sat=None)


@pytest.mark.parametrize("secret", ["", "a\nb", "ö", " a", "a ", None])
def test_credential_that_no_header_can_have_is_refused(secret: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="rune must be printable ASCII"):
        ClnWallet("https://host", secret, max_fee_sat=None)
    with pytest.raises(InvalidArgumentError, match="admin_key must be printable ASCII"):
        LnbitsWallet("https://host", secret, max_fee_sat=None)
    with pytest.raises(InvalidArgumentError, match="password must be printable ASCII"):
        PhoenixdWallet("https://host", secret, max_fee_sat=None)


def test_certificate_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tls.cert").write_text("no certificate")
    for path in ("tls.cert", "none.cert"):
        with pytest.raises(InvalidArgumentError, match="tls_cert must be a file with PEM"):
            LndWallet("https://node", MACAROON, max_fee_sat=None, tls_cert=tmp_path / path)


def test_unknown_network_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="network must be one of"):
        LndWallet("https://node", MACAROON, max_fee_sat=None, network="litecoin")  # type: ignore[arg-type]


@every_wallet
@pytest.mark.parametrize(
    "payment_hash",
    ["", "ab", HASH + "0", f"{HASH}\n", f"0x{HASH[2:]}", None, 5, int("1" * 64), HASH.encode()],
)
async def test_payment_hash_that_is_none_is_refused(kind: str, payment_hash: Any) -> None:
    with Stub(kind, "settles") as stub, pytest.raises(InvalidArgumentError, match="64 hex digits"):
        await stub.wallet().get_payment(payment_hash)


@every_wallet
async def test_closed_wallet_sends_nothing(kind: str) -> None:
    with Stub(kind, "settles") as stub:
        async with stub.wallet() as wallet:
            pass
        for call in (
            wallet(INVOICE),
            wallet.pay(INVOICE),
            wallet.get_payment(HASH),
            wallet.check(),
        ):
            with pytest.raises(ClientStateError, match=r"the wallet is closed. Nothing was sent"):
                await call

        assert stub.seen == []


@every_wallet
async def test_closing_during_the_wait_does_not_say_that_nothing_was_sent(kind: str) -> None:
    with Stub(kind, "loses") as stub:

        class Closing(StubClock):
            async def sleep(self, seconds: float, /) -> None:
                await super().sleep(seconds)
                await wallet.aclose()

        wallet = stub.wallet(Closing())
        with pytest.raises(ClientStateError, match="closed before the payment ended") as caught:
            await wallet(INVOICE)

    assert caught.value.request_outcome is RequestOutcome.UNKNOWN
    assert "Nothing was sent" not in str(caught.value)


async def test_wallet_that_is_closed_while_it_asks_does_not_pay() -> None:
    with Stub("phoenixd", "settles") as stub, pytest.MonkeyPatch.context() as patch:
        wallet = stub.wallet()

        async def ask(_hash: str) -> None:
            await wallet.aclose()

        patch.setattr(wallet, "_lookup", ask)
        with pytest.raises(ClientStateError, match="the wallet is closed"):
            await wallet.pay(INVOICE)

        assert stub.node.pays == []


# --- whether it answers ---------------------------------------------------------------------------


@every_wallet
async def test_check_changes_nothing(kind: str) -> None:
    with Stub(kind, "settles") as stub:
        await stub.wallet().check()

        method, target = ("POST", "/v1/getinfo") if kind == "cln" else ("GET", None)
        assert [seen.method for seen in stub.seen] == [method]
        assert target in {None, stub.seen[0].target}


@pytest.mark.parametrize(
    "answered",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}",
    ],
)
async def test_check_finds_another_server(answered: bytes) -> None:
    with Server(saying(answered)) as server:
        wallet = LnbitsWallet(server.url, ADMIN_KEY, max_fee_sat=None)
        with pytest.raises(InvalidResponseError, match="does not answer as LnbitsWallet needs"):
            await wallet.check()


async def test_check_refuses_an_invoice_key_of_lnbits() -> None:
    """It reads the balance too, but cannot pay. Only the admin key gets the ID of the wallet."""
    with Server(saying(answer({"name": "w", "balance": 1}))) as server:
        wallet = LnbitsWallet(server.url, ADMIN_KEY, max_fee_sat=None)
        with pytest.raises(AuthenticationError, match="use the admin key"):
            await wallet.check()


async def test_check_finds_no_server() -> None:
    with Server(saying()) as server:
        wallet = LnbitsWallet(server.url, ADMIN_KEY, max_fee_sat=None)
    with pytest.raises(TransportError, match="no connection"):
        await wallet.check()


@pytest.mark.parametrize("kind", ["lnd", "cln"])
async def test_node_with_its_own_certificate(kind: str, tmp_path: Path) -> None:
    certificate = tmp_path / "tls.cert"
    authority().cert_pem.write_to_path(str(certificate))
    with Stub(kind, "settles", tls=certified("127.0.0.1")) as stub:
        wallet = stub.wallet(tls_cert=certificate)
        assert (await wallet.pay(INVOICE)).state is SETTLED

        with pytest.raises(TransportError):
            await stub.wallet().check()


@every_wallet
async def test_wallet_on_this_machine_is_reached_without_a_proxy(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    authority().cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    with Stub(kind, "settles", tls=certified("127.0.0.1")) as stub:
        await stub.wallet().check()

        with pytest.raises(TransportError, match="no connection"):
            await stub.wallet(url="https://wallet.example").check()


# --- secrets --------------------------------------------------------------------------------------


@every_wallet
async def test_no_secret_is_shown(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Stub(kind, "loses") as stub:

        class Settling(StubClock):
            async def sleep(self, seconds: float, /) -> None:
                await super().sleep(seconds)
                stub.node.state = "held" if len(self.sleeps) == 1 else "settled"

        wallet = stub.wallet(Settling())
        payment = await wallet(INVOICE)

    shown = f"{payment!r} {wallet!r} {caplog.text}"
    assert "is pending" in caplog.text
    for secret in (HASH, PREIMAGE.hex(), INVOICE, MACAROON, RUNE, ADMIN_KEY, PASSWORD):
        assert secret not in shown


async def test_credentials_are_masked_in_the_text_of_a_wallet() -> None:
    body = json.dumps({"detail": f"wrong key {ADMIN_KEY} for {HASH}"}).encode()
    head = f"HTTP/1.1 500 Error\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with Server(saying(head + body)) as server:
        wallet = LnbitsWallet(server.url, ADMIN_KEY, max_fee_sat=None, clock=StubClock())
        payment = await wallet.pay(INVOICE)

    assert payment.error is not None
    assert "wrong key a1b2…8f90 for" in payment.error
    assert HASH not in payment.error


async def test_rune_is_masked_in_the_text_of_core_lightning() -> None:
    head, tail = RUNE[:4], RUNE[-4:]
    with Server(saying(answer({"code": -1, "message": f"bad rune {RUNE}"}, "500 Error"))) as server:
        wallet = ClnWallet(server.url, RUNE, max_fee_sat=None, clock=StubClock())
        payment = await wallet.pay(INVOICE)

    assert payment.error == f"Core Lightning answered HTTP 500: bad rune {head}…{tail}"


async def test_login_of_phoenixd_is_masked_in_its_text() -> None:
    _, login = CREDENTIALS["phoenixd"]

    def quoting(_node: Any, seen: Any) -> tuple[bool, str, Any]:
        status = "404 Not Found" if seen.method == "GET" else "200 OK"
        return False, status, {"reason": f"wrong login {login} of {PASSWORD}"}

    with Stub("phoenixd", "settles") as stub, pytest.MonkeyPatch.context() as patch:
        patch.setitem(BODIES, "phoenixd", quoting)
        payment = await stub.wallet().pay(INVOICE)

    assert payment.error == "wrong login Basic OnBo…M2E= of phoe…7f3a"


# --- the answers ----------------------------------------------------------------------------------

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["success", "SUCCEEDED", "pending", "already", PREIMAGE.hex()]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text()
            | st.sampled_from(
                ["status", "result", "paid", "details", "isPaid", "completedAt", "fees"]
            )
            | st.sampled_from(["error", "message", "detail", "amount", "preimage", "invoice"]),
            inner,
            max_size=5,
        )
    ),
)


def read_listed(answer: Answer, payment_hash: str) -> Payment:
    return cln.read_asked(answer, payment_hash) or Payment(UNKNOWN, payment_hash, error="none")


def listing(*words: str | None, payment_hash: str = HASH) -> Any:
    return {"pays": [{"status": word, "payment_hash": payment_hash} for word in words]}


READERS: list[Callable[[Answer, str], Payment]] = [
    lnd.read_payment,
    cln.read_paid,
    read_listed,
    lnbits.read_payment,
    phoenixd.read_paid,
    phoenixd.read_asked,
]


@pytest.mark.parametrize(
    "read", READERS, ids=["lnd", "xpay", "listpays", "lnbits", "paid", "asked"]
)
@given(status=st.integers(100, 599) | st.sampled_from([200, 201, 520]), body=json_values)
def test_failure_needs_the_words_of_the_wallet(
    read: Callable[[Answer, str], Payment], status: int, body: object
) -> None:
    payment = read(Answer(status, body), HASH)

    if read is not phoenixd.read_asked or "completedAt" not in str(body):
        assert payment.state is not FAILED
    assert (payment.error is None) == (payment.state not in {FAILED, UNKNOWN})


@pytest.mark.parametrize(
    ("read", "status", "body", "state"),
    [
        (lnd.read_payment, 200, {"result": {"status": "FAILED"}}, FAILED),
        (lnd.read_payment, 500, {"result": {"status": "FAILED"}}, UNKNOWN),
        (lnd.read_payment, 200, {"error": {"message": "no"}}, UNKNOWN),
        (lnd.read_payment, 200, {"result": {"status": "INITIATED"}}, PENDING),
        (lnd.read_payment, 200, {"result": {"status": "UNKNOWN"}}, UNKNOWN),
        (lnd.read_payment, 409, {"message": "invoice is already paid"}, UNKNOWN),
        (cln.read_paid, 201, {"payment_preimage": PREIMAGE.hex()}, SETTLED),
        (cln.read_paid, 201, {"payment_preimage": "0" * 64}, UNKNOWN),
        (cln.read_paid, 201, {"code": 205}, UNKNOWN),
        (cln.read_paid, 500, {"payment_preimage": PREIMAGE.hex()}, UNKNOWN),
        (cln.read_paid, 500, {"code": 203}, FAILED),
        (cln.read_paid, 500, {"code": "205", "message": "no route"}, UNKNOWN),
        (cln.read_paid, 500, {"code": [205]}, UNKNOWN),
        (cln.read_paid, 500, {"code": 218, "message": "Already paid"}, UNKNOWN),
        (cln.read_paid, 502, {"code": 205}, UNKNOWN),
        (cln.read_paid, 404, {"code": -32601, "message": "Unknown command"}, FAILED),
        (read_listed, 201, {"pays": []}, UNKNOWN),
        (read_listed, 201, {"pays": {}}, UNKNOWN),
        (read_listed, 500, listing("failed"), UNKNOWN),
        (read_listed, 201, listing("failed", "failed"), FAILED),
        (read_listed, 201, listing("failed", "pending"), PENDING),
        (read_listed, 201, listing("pending", "complete", "failed"), SETTLED),
        (read_listed, 201, listing("failed", "new"), UNKNOWN),
        (read_listed, 201, listing("failed", None), UNKNOWN),
        (read_listed, 201, listing("complete", payment_hash="0" * 64), UNKNOWN),
        (read_listed, 201, {"pays": ["complete"]}, UNKNOWN),
        (lnbits.read_payment, 520, {"status": "failed", "detail": "x"}, FAILED),
        (lnbits.read_payment, 500, {"status": "failed", "detail": "x"}, UNKNOWN),
        (lnbits.read_payment, 520, {"status": "pending", "detail": "x"}, PENDING),
        (lnbits.read_payment, 200, {"paid": False, "details": {"status": "pending"}}, PENDING),
        (lnbits.read_payment, 200, {"paid": False}, UNKNOWN),
        (lnbits.read_payment, 200, {"paid": True}, SETTLED),
        (lnbits.read_payment, 201, {"payment_hash": HASH}, UNKNOWN),
        (phoenixd.read_paid, 200, {"reason": "no route"}, FAILED),
        (phoenixd.read_paid, 200, {"reason": "this invoice has already been paid"}, UNKNOWN),
        (
            phoenixd.read_paid,
            200,
            {"reason": "another payment is in progress for that invoice"},
            UNKNOWN,
        ),
        (phoenixd.read_paid, 500, {"reason": "no route"}, UNKNOWN),
        (phoenixd.read_asked, 200, {"isPaid": False}, PENDING),
        (phoenixd.read_asked, 200, {"isPaid": False, "completedAt": 5}, FAILED),
        (phoenixd.read_asked, 200, {"isPaid": True, "completedAt": 5}, UNKNOWN),
        (phoenixd.read_asked, 500, {"isPaid": False, "completedAt": 5}, UNKNOWN),
    ],
)
def test_answer_is_read(
    read: Callable[[Answer, str], Payment], status: int, body: Any, state: PaymentState
) -> None:
    payment = read(Answer(status, body), HASH)

    assert payment.state is state
    assert (payment.error is None) == (state in {SETTLED, PENDING})


# --- as `pay` of an order -------------------------------------------------------------------------


@every_wallet
async def test_order_is_paid_once_and_its_code_is_received(kind: str) -> None:
    with Stub(kind, "loses") as stub:

        class PaymentFirst(ManualClock):
            async def sleep(self, seconds: float) -> None:
                while not stub.node.pays:  # noqa: ASYNC110 - the stub runs in a thread
                    await anyio.sleep(0.001)
                await super().sleep(seconds)

        paid_at_once = Behaviour(network="bitcoin", pay_delay=0, code_delay=40, code="0042")
        it = Simulated(paid_at_once, clock=PaymentFirst())
        async with stub.wallet(clock=it.clock) as wallet:
            result = await it.client.receive_code(
                187, "tg", pay=wallet, timeout=60, max_price_sat=10**6
            )

        assert result.code == "0042"
        assert len(stub.node.pays) == 1
