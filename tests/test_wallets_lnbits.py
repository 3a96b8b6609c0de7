"""LNbits for real: its own server, with a stub of LND behind it that holds the payment.

`make wallets` installs LNbits in an environment of its own and runs this file.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel
import httpx
import pytest

from sms4sats_async import AuthenticationError
from sms4sats_async.simulator import make_invoice
from sms4sats_async.wallets import LnbitsWallet, PaymentFailedError, PaymentState
from tests.servers import Peer, Server, answer

LNBITS = os.environ.get("LNBITS_ENVIRONMENT", "")

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(not LNBITS, reason="LNbits is not installed: `make wallets` installs it"),
]

# LNbits can compute a public key from it, whose private key is unknown.
SIGNATURE: Final = (1).to_bytes(32) * 2 + b"\0"
BALANCE = 100_000
START = 120.0  # seconds: a first start makes the database


def invoice_of(preimage: bytes, amount_sat: int) -> str:
    return make_invoice(
        amount_sat=amount_sat,
        payment_hash=hashlib.sha256(preimage).digest(),
        payment_secret=bytes(32),
        description="a number",
        timestamp=int(time.time()),
        expiry=3600,
        network="bitcoin",
        signature=SIGNATURE,
    )


class LndStub(Server):
    """What LNbits needs of LND: every invoice of its own is paid, and a payment is held.

    Attributes:
        pays: The invoices that it was asked to pay.
        status: The status of the payment; a request blocks while it is IN_FLIGHT.
    """

    def __init__(self) -> None:
        super().__init__(self._serve_lnd)
        self.pays: list[str] = []
        self.status = "IN_FLIGHT"
        self.preimage = secrets.token_bytes(32)

    def result(self) -> dict[str, Any]:
        return {
            "result": {
                "payment_hash": hashlib.sha256(self.preimage).hexdigest(),
                "payment_preimage": self.preimage.hex(),
                "fee_msat": "2001",
                "status": self.status,
                "failure_reason": "FAILURE_REASON_NO_ROUTE",
            }
        }

    async def _serve_lnd(self, peer: Peer) -> None:
        while (seen := await peer.request()) is not None:
            if seen.target == "/v2/router/send":
                self.pays.append(json.loads(seen.body)["payment_request"])
            if seen.target.startswith("/v2/router/"):
                while self.status == "IN_FLIGHT":  # noqa: ASYNC110 - set in another thread
                    await asyncio.sleep(0.02)
                await peer.send(answer(self.result()))
            elif seen.target == "/v1/invoices/subscribe":
                await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
                await peer.silence()
            elif seen.target == "/v1/invoices":
                asked = json.loads(seen.body)
                made = invoice_of(base64.b64decode(asked["r_preimage"]), int(asked["value"]))
                await peer.send(answer({"r_hash": asked["r_hash"], "payment_request": made}))
            elif seen.target.startswith("/v1/invoice/"):
                await peer.send(answer({"state": "SETTLED"}))
            else:
                await peer.send(answer({"balance": "1000000"}))


@contextlib.contextmanager
def lnbits_server(folder: Path, lnd: str, port: int) -> Generator[str]:
    """Run LNbits, which reads its own files from its working directory."""
    (packages,) = Path(LNBITS).absolute().glob("lib/python*/site-packages")
    nowhere = "http://127.0.0.1:9"  # it would ask for exchange rates and extensions
    settings = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
        "NO_PROXY": "127.0.0.1",
        "LNBITS_DATA_FOLDER": str(folder / "data"),
        "LNBITS_EXTENSIONS_PATH": str(folder / "extensions"),
        "LNBITS_EXTENSIONS_DEACTIVATE_ALL": "true",
        "LNBITS_ADMIN_UI": "false",
        "LNBITS_BACKEND_WALLET_CLASS": "LndRestWallet",
        "LND_REST_ENDPOINT": lnd,
        "LND_REST_MACAROON": "0201",
    }
    program = str(Path(LNBITS).absolute() / "bin/lnbits")
    command = [program, "--host", "127.0.0.1", "--port", str(port)]
    log = folder / "lnbits.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - the server that `make wallets` installed
            command,
            cwd=packages,
            env=settings,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + START
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/api/v1/health").is_success:
                    break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # LNbits serves from a process of its own
        process.wait()


def funded_wallet(url: str) -> str:
    """Return the admin key of a new wallet with a balance."""
    with httpx.Client(base_url=url) as client:
        made = client.post("/api/v1/account", json={"name": "w"}).raise_for_status().json()
        client.headers["X-Api-Key"] = key = str(made["adminkey"])
        request = {"out": False, "amount": BALANCE, "memo": "m"}
        invoice = client.post("/api/v1/payments", json=request).raise_for_status().json()
        asked = client.get(f"/api/v1/payments/{invoice['payment_hash']}").raise_for_status().json()
        assert asked["paid"] is True
        assert client.get("/api/v1/wallet").json()["balance"] == BALANCE * 1000
    return key


@pytest.fixture(scope="module")
def lnd() -> Generator[LndStub]:
    with LndStub() as stub:
        yield stub


@pytest.fixture(scope="module")
def server(lnd: LndStub, tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[str, str]]:
    with Server(lambda _peer: anyio.lowlevel.checkpoint()) as free:
        port = free.port
    with lnbits_server(tmp_path_factory.mktemp("lnbits"), lnd.url, port) as url:
        yield url, funded_wallet(url)


@pytest.fixture
def wallet(server: tuple[str, str]) -> LnbitsWallet:
    return LnbitsWallet(*server, max_fee_sat=None)


def new_payment(lnd: LndStub, amount_sat: int = 1500) -> str:
    lnd.preimage, lnd.status, lnd.pays = secrets.token_bytes(32), "IN_FLIGHT", []
    return invoice_of(lnd.preimage, amount_sat)


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED"])
async def test_held_payment_is_pending_until_it_ends(
    wallet: LnbitsWallet, lnd: LndStub, status: str
) -> None:
    invoice = new_payment(lnd)
    begin = time.monotonic()
    states = [(await wallet.pay(invoice)).state]
    times = [time.monotonic() - begin]
    for _ in range(2):
        begin = time.monotonic()
        states.append((await wallet.pay(invoice)).state)
        times.append(time.monotonic() - begin)
    print("while held:", states, [round(each, 1) for each in times])  # noqa: T201

    assert states == [PaymentState.PENDING] * 3
    lnd.status = status
    if status == "FAILED":
        with pytest.raises(PaymentFailedError):
            await wallet(invoice)
    else:
        payment = await wallet(invoice)
        assert (payment.state, payment.amount_sat, payment.fee_sat, payment.preimage) == (
            *(PaymentState.SETTLED, 1500, 3),
            lnd.preimage.hex(),
        )
    assert lnd.pays == [invoice]


async def test_second_request_of_another_process_is_no_failure(
    server: tuple[str, str], wallet: LnbitsWallet, lnd: LndStub
) -> None:
    """The held payment has taken the balance, so LNbits refuses a second one."""
    invoice = new_payment(lnd, amount_sat=60_000)
    assert (await wallet.pay(invoice)).state is PaymentState.PENDING

    other = LnbitsWallet(*server, max_fee_sat=None)
    payment = await other.pay(invoice)
    print("second process:", payment)  # noqa: T201
    assert payment.state is PaymentState.PENDING
    assert lnd.pays == [invoice]
    lnd.status = "FAILED"
    with pytest.raises(PaymentFailedError):
        await other(invoice)


async def test_more_than_the_balance_fails(wallet: LnbitsWallet, lnd: LndStub) -> None:
    payment = await wallet.pay(new_payment(lnd, amount_sat=10 * BALANCE))

    assert (payment.state, payment.error) == (PaymentState.FAILED, "Insufficient balance.")
    assert lnd.pays == []


async def test_unknown_payment_is_unknown(wallet: LnbitsWallet) -> None:
    assert (await wallet.get_payment("ab" * 32)).state is PaymentState.UNKNOWN


async def test_received_payment_and_a_payment_of_another_wallet_are_none_of_ours(
    server: tuple[str, str], wallet: LnbitsWallet
) -> None:
    url, key = server
    async with httpx.AsyncClient(base_url=url, headers={"X-Api-Key": key}) as client:
        request = {"out": False, "amount": 7, "memo": "m"}
        received = (await client.post("/api/v1/payments", json=request)).json()
        shown = (await client.get(f"/api/v1/payments/{received['payment_hash']}")).json()
    assert shown["paid"] is True
    other = LnbitsWallet(url, key[::-1], max_fee_sat=None)

    for each in (wallet, other):
        payment = await each.get_payment(received["payment_hash"])
        assert (payment.state, payment.preimage) == (PaymentState.UNKNOWN, None)


async def test_wrong_key_is_refused_before_paying(server: tuple[str, str], lnd: LndStub) -> None:
    url, key = server
    wallet = LnbitsWallet(url, key[::-1], max_fee_sat=None)

    with pytest.raises(AuthenticationError):
        await wallet.check()
    with pytest.raises(AuthenticationError):
        await wallet.pay(new_payment(lnd))
    assert lnd.pays == []


async def test_check_finds_the_wallet(wallet: LnbitsWallet) -> None:
    await wallet.check()


async def test_invoice_key_is_refused_before_paying(server: tuple[str, str], lnd: LndStub) -> None:
    async with httpx.AsyncClient(base_url=server[0]) as client:
        made = (await client.post("/api/v1/account", json={"name": "w"})).json()
    wallet = LnbitsWallet(server[0], made["inkey"], max_fee_sat=None)

    for call in (wallet.check(), wallet.pay(new_payment(lnd))):
        with pytest.raises(AuthenticationError):
            await call
    assert lnd.pays == []
