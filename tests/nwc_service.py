"""A wallet with Nostr Wallet Connect, in memory, on a relay of nostr-sdk on this machine."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import nostr_sdk  # pyright: ignore[reportMissingTypeStubs]

from sms4sats_async import Invoice
from sms4sats_async.wallets import NwcWallet
from tests.wallet_stubs import HASH, PREIMAGE, StubClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

sdk: Any = nostr_sdk
_REQUEST, _RESPONSE = 23194, 23195  # NIP-47


class NwcService:
    """Pays an invoice once, and misbehaves on demand.

    Attributes:
        fault: `settles`, `fails`, `holds` (no answer while the payment is pending), `loses` (no
            answer, though it paid), `hangs` (no answer to anything), or the code of an error.
        state: What it says when it is asked: None, `pending`, `settled` or `failed`.
        pays: The requests to pay that arrived, as their invoices.
        lookup: What it answers to them instead.
        methods: What it says that the connection may do; None: it does not answer that.
        infos: How often it was asked for them.
    """

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.state: str | None = None
        self.pays: list[str] = []
        self.payment_hash = HASH
        self.lookup: dict[str, Any] | None = None
        self.methods: list[str] | None = ["pay_invoice", "lookup_invoice"]
        self.infos = 0
        self.relay = sdk.LocalRelayBuilder().build()
        self._keys, self._payer = sdk.Keys.generate(), sdk.Keys.generate()
        self.uri = ""

    @property
    def secret(self) -> str:
        secret: str = self._payer.secret_key().to_hex()
        return secret

    def wallet(self, **options: Any) -> NwcWallet:
        options = {"max_fee_sat": None, "clock": StubClock()} | options
        return NwcWallet(self.uri, **options)

    async def start(self) -> asyncio.Task[None]:
        await self.relay.run()
        relay = await self.relay.url()
        self.uri = (
            f"nostr+walletconnect://{self._keys.public_key().to_hex()}"
            f"?relay={relay}&secret={self.secret}"
        )
        client = sdk.ClientBuilder().build()
        await client.add_relay(relay)
        await client.connect(timedelta(seconds=5))
        notes = client.notifications()
        requests = sdk.Filter().kind(sdk.Kind(_REQUEST)).pubkey(self._keys.public_key())
        await client.subscribe(sdk.ReqTarget.auto([requests]))
        while True:  # the relay keeps no request for later
            note = await notes.next()
            if note.is_message() and "EOSE" in note.message.as_json():
                break
        return asyncio.ensure_future(self._serve(client, notes))

    async def _serve(self, client: Any, notes: Any) -> None:
        try:
            while (note := await notes.next()) is not None:
                if note.is_new_event():
                    await self._reply(client, note.event)
        finally:
            await client.shutdown()

    async def _reply(self, client: Any, event: Any) -> None:
        payer, key = event.author(), self._keys.secret_key()
        request = json.loads(sdk.nip04_decrypt(key, payer, event.content()))
        answer = self._answer(request["method"], request["params"])
        if answer is None:
            return
        text = json.dumps({"result_type": request["method"]} | answer)
        text = sdk.nip04_encrypt(key, payer, text)
        tags = [["p", payer.to_hex()], ["e", event.id().to_hex()]]
        builder = sdk.EventBuilder(sdk.Kind(_RESPONSE), text).tags([*map(sdk.Tag.parse, tags)])
        await client.send_event(builder.finalize(self._keys))

    def _answer(self, method: str, params: dict[str, Any]) -> dict[str, Any] | None:
        match method:
            case "pay_invoice":
                return self._pay(params["invoice"])
            case "lookup_invoice":
                return self._find(params["payment_hash"])
            case _ if self.fault.isupper():
                return {"error": {"code": self.fault, "message": "no"}}
            case _:
                self.infos += 1
                methods = self.methods
                return None if methods is None else {"result": {"alias": "w", "methods": methods}}

    def _find(self, payment_hash: str) -> dict[str, Any] | None:
        assert payment_hash == self.payment_hash
        if self.fault == "hangs":
            return None
        if self.lookup is not None:
            return self.lookup
        if self.state is None:
            return {"error": {"code": "NOT_FOUND", "message": "no such payment"}}
        return {"result": found(self.state)}

    def _pay(self, invoice: str) -> dict[str, Any] | None:
        self.pays.append(invoice)
        self.payment_hash = Invoice.parse(invoice).payment_hash
        states = {"holds": "pending", "fails": "failed", "settles": "settled", "loses": "settled"}
        self.state = states.get(self.fault)
        match self.fault:
            case "settles":
                return {"result": {"preimage": PREIMAGE.hex(), "fees_paid": 2001}}
            case "fails":
                return {"error": {"code": "PAYMENT_FAILED", "message": "no route"}}
            case code if code.isupper():
                return {"error": {"code": code, "message": f"no, says {self.secret}"}}
            case _:
                return None


def found(state: str | None, **more: Any) -> dict[str, Any]:
    """Return what `lookup_invoice` answers."""
    result = {
        "type": "outgoing",
        "payment_hash": HASH,
        "amount": 1_500_000,
        "fees_paid": 2001,
        "created_at": 1,
        "preimage": PREIMAGE.hex() if state == "settled" else None,
    }
    return result | ({} if state is None else {"state": state}) | more


@asynccontextmanager
async def nwc_service(fault: str) -> AsyncGenerator[NwcService]:
    """Run a wallet for the length of an `async with`."""
    service = NwcService(fault)
    task = await service.start()
    try:
        yield service
    finally:
        assert not task.done() or task.exception() is None
        task.cancel()
        await asyncio.wait([task])
        service.relay.shutdown()
