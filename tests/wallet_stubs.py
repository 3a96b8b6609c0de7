"""Stubs of the wallets' servers, which pay an invoice once, in memory, and misbehave on demand.

Each answers as its documentation shows, and counts the requests to pay that arrive.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import anyio.lowlevel
import attrs

from sms4sats_async import Clock, Invoice
from sms4sats_async.simulator.invoice import make_invoice
from sms4sats_async.wallets import ClnWallet, LnbitsWallet, LndWallet, PhoenixdWallet
from tests.servers import Peer, Seen, Server, answer

if TYPE_CHECKING:
    import ssl

NOW = 1_800_000_000
PREIMAGE = bytes(range(32))
HASH = hashlib.sha256(PREIMAGE).hexdigest()
MACAROON = "0201036c6e64" * 4
ADMIN_KEY = "a1b2c3d4e5f60718293a4b5c6d7e8f90"
RUNE = "cTFm1f6GgZhZla_vQN7w6chwCa433pvaYVJhIRpWW649MA=="
PASSWORD = "phoenixd-password-7f3a"

make = functools.partial(
    make_invoice,
    amount_sat=1500,
    payment_hash=bytes.fromhex(HASH),
    payment_secret=bytes(32),
    description="a number",
    timestamp=NOW - 10,
    expiry=3600,
    network="bitcoin",
)
INVOICE = make()


class StubClock:
    """A clock whose sleeps take no time, and are recorded."""

    def __init__(self) -> None:
        self.time = float(NOW)
        self.sleeps: list[float] = []

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float, /) -> None:
        self.sleeps.append(seconds)
        assert len(self.sleeps) < 100, "the wallet asks without end"
        self.time += seconds
        await anyio.lowlevel.checkpoint()


@attrs.define(eq=False)
class Node:
    """What a stub knows of the payment, and how it answers the request to pay.

    Attributes:
        fault: `holds`, `settles`, `fails`, `hangs`, `drops` the connection after paying, `loses` it
            while the payment is held, answers a status such as `503` after paying, or `refuses`
            the credentials.
        state: What it says when it is asked: None, `held`, `settled` or `failed`.
        pays: The requests to pay that arrived, as their invoices.
    """

    fault: str
    state: str | None = None
    pays: list[str] = attrs.field(factory=list[str])
    payment_hash: str = HASH

    def take(self, invoice: str) -> None:
        self.pays.append(invoice)
        self.payment_hash = Invoice.parse(invoice).payment_hash
        states = {"holds": "held", "loses": "held", "fails": "failed", "refuses": None}
        self.state = states.get(self.fault, "settled")


Bodies = Callable[[Node, Seen], "tuple[bool, str, Any]"]
"""Return whether a request is one to pay, and the status and the body of the answer."""


def lnd(node: Node, seen: Seen) -> tuple[bool, str, Any]:
    states = {"held": "IN_FLIGHT", "settled": "SUCCEEDED", "failed": "FAILED"}
    is_pay = seen.target == "/v2/router/send"
    if is_pay:
        node.take(json.loads(seen.body)["payment_request"])
    if seen.target == "/v1/balance/channels":
        return False, "200 OK", {"balance": "1"}
    if not is_pay:
        name = seen.target.removeprefix("/v2/router/track/").partition("?")[0]
        assert node.state is None or base64.urlsafe_b64decode(name).hex() == node.payment_hash
    if node.state is None:
        error = {"code": 5, "message": "payment isn't initiated"}
        return is_pay, "404 Not Found", {"error": error}
    settled = node.state == "settled"
    result = {
        "payment_hash": node.payment_hash,
        "payment_preimage": PREIMAGE.hex() if settled else "0" * 64,
        "value_sat": "1500",
        "fee_msat": "2001",
        "status": states[node.state],
        "failure_reason": "FAILURE_REASON_NO_ROUTE",
    }
    return is_pay, "200 OK", {"result": result}


def cln(node: Node, seen: Seen) -> tuple[bool, str, Any]:
    states = {"held": "pending", "settled": "complete", "failed": "failed"}
    if seen.target == "/v1/getinfo":
        return False, "201 Created", {"id": "02" * 33}
    is_pay = seen.target == "/v1/xpay"
    request = json.loads(seen.body)
    if is_pay:
        node.take(request["invstring"])
        if node.state == "failed":
            return True, "500 Error", {"code": 205, "message": "Failed: no route"}
    else:
        assert seen.target == "/v1/listpays"
        assert node.state is None or request == {"payment_hash": node.payment_hash}
    if node.state is None:
        return is_pay, "201 Created", {"pays": []}
    amounts = {"amount_msat": 1_500_000, "amount_sent_msat": 1_502_001}
    if is_pay:
        return True, "201 Created", amounts | {"payment_preimage": PREIMAGE.hex()}
    listed = {"payment_hash": node.payment_hash, "status": states[node.state]}
    listed |= {"preimage": PREIMAGE.hex()} if node.state == "settled" else {}
    return False, "201 Created", {"pays": [amounts | listed]}


def lnbits(node: Node, seen: Seen) -> tuple[bool, str, Any]:
    states = {"held": "pending", "settled": "success", "failed": "failed"}
    if seen.target == "/api/v1/wallet":
        return False, "200 OK", {"id": "7f", "name": "w", "balance": 1}
    is_pay = seen.method == "POST"
    if is_pay:
        tried = node.state is not None
        node.take(json.loads(seen.body)["bolt11"])
        if tried:
            return True, "520 ", {"detail": "Payment is still pending.", "status": "pending"}
    else:
        assert node.state is None or seen.target == f"/api/v1/payments/{node.payment_hash}"
    if node.state is None:
        return is_pay, "404 Not Found", {"detail": "Payment does not exist."}
    if is_pay and node.state == "failed":
        return True, "520 ", {"detail": "Payment failed: no route", "status": "failed"}
    settled = node.state == "settled"
    details = {
        "payment_hash": node.payment_hash,
        "status": states[node.state],
        "amount": -1_500_000,
        "fee": -2001,
        "preimage": PREIMAGE.hex() if settled else None,
    }
    if is_pay:
        return True, "201 Created", details
    return False, "200 OK", {"paid": settled, "status": states[node.state], "details": details}


def phoenixd(node: Node, seen: Seen) -> tuple[bool, str, Any]:
    if seen.target == "/getbalance":
        return False, "200 OK", {"balanceSat": 1, "feeCreditSat": 0}
    is_pay = seen.target == "/payinvoice"
    if is_pay:
        node.take(parse_qs(seen.body.decode())["invoice"][0])
        if node.state == "failed":
            return True, "200 OK", {"paymentHash": node.payment_hash, "reason": "no route"}
        body = {
            "recipientAmountSat": 1500,
            "routingFeeSat": 3,
            "paymentHash": node.payment_hash,
            "paymentPreimage": PREIMAGE.hex(),
        }
        return True, "200 OK", body
    if node.state is None:
        return False, "404 Not Found", {}
    assert seen.target == f"/payments/outgoingbyhash/{node.payment_hash}"
    settled = node.state == "settled"
    body = {
        "paymentHash": node.payment_hash,
        "isPaid": settled,
        "sent": 1503,
        "fees": 2001,
        "invoice": INVOICE,
        "createdAt": 1,
    }
    body |= {"preimage": PREIMAGE.hex()} if settled else {}
    body |= {} if node.state == "held" else {"completedAt": 2}
    return False, "200 OK", body


BODIES: dict[str, Bodies] = {"lnd": lnd, "cln": cln, "lnbits": lnbits, "phoenixd": phoenixd}
CREDENTIALS = {
    "lnd": ("grpc-metadata-macaroon", MACAROON),
    "cln": ("rune", RUNE),
    "lnbits": ("x-api-key", ADMIN_KEY),
    "phoenixd": ("authorization", f"Basic {base64.b64encode(f':{PASSWORD}'.encode()).decode()}"),
}
AnyWallet = LndWallet | ClnWallet | LnbitsWallet | PhoenixdWallet


class Stub(Server):
    """One stub on a port of this machine."""

    def __init__(self, kind: str, fault: str, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(self._serve_node, tls=tls)
        self.kind = kind
        self.node = Node(fault)

    async def _serve_node(self, peer: Peer) -> None:
        seen = await peer.request()
        if seen is None:
            return
        header, credential = CREDENTIALS[self.kind]
        if seen.headers.get(header) != credential or self.node.fault == "refuses":
            await peer.send(answer({"detail": "no"}, "401 Unauthorized"))
            return
        is_pay, status, body = BODIES[self.kind](self.node, seen)
        fault = self.node.fault
        if fault == "hangs" and not is_pay and self.node.pays:
            await peer.silence()
        elif is_pay and fault in {"drops", "loses"}:
            peer.reset()
        elif is_pay and fault.isdigit():
            await peer.send(answer(b"<html>a proxy's page</html>", f"{fault} Error"))
        elif is_pay and (fault == "hangs" or (fault == "holds" and self.kind != "lnbits")):
            await peer.silence()
        elif self.kind == "lnd" and status == "200 OK" and "result" in body:
            # A stream of lines, which stays open until the payment has ended.
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"
            await peer.send(head + json.dumps(body).encode() + b"\n")
            if body["result"]["status"] == "IN_FLIGHT":
                await peer.silence()
        else:
            await peer.send(answer(json.dumps(body, indent=1).encode(), status))

    def wallet(self, clock: Clock | None = None, **options: Any) -> AnyWallet:
        options = {"url": self.url, "max_fee_sat": None, "clock": clock or StubClock()} | options
        match self.kind:
            case "lnd":
                return LndWallet(macaroon=MACAROON, **options)
            case "cln":
                return ClnWallet(rune=RUNE, **options)
            case "lnbits":
                return LnbitsWallet(admin_key=ADMIN_KEY, **options)
            case _:
                return PhoenixdWallet(password=PASSWORD, **options)
