"""A web service that sells codes: FastAPI, with one client for the whole process.

    POST    /codes   Order a code: {"country": 43, "service": "tg"}. Returns token and invoice.
    GET     /codes   Returns the number, the code once it arrived, and where the money is.
    DELETE  /codes   Give up: the order is cancelled as soon as the service allows it.

The last two name the order in the header `Authorization: Bearer <token>`. The token is this
program's own, because with the order ID anyone could read the code elsewhere. It is not in the URL,
because URLs are in the logs of every server in between.

A scheduler polls each order for five minutes and then cancels it, whether a customer asks or not.
If the process dies, the next one goes on with each order: the journal has its deadline, and its
token in the metadata.

    pip install . fastapi uvicorn
    python examples/service.py
"""

import logging
import os
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated

import anyio
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from sms4sats_async import (
    InvalidArgumentError,
    JournalEntry,
    OrderScheduler,
    Sms4SatsClient,
    Sms4SatsError,
    SqliteJournal,
)

WAIT = timedelta(minutes=5)  # for the code, from the order on

log = logging.getLogger("codes")
router = APIRouter()


@dataclass(frozen=True)
class Shared:
    """What all requests share."""

    client: Sms4SatsClient
    journal: SqliteJournal
    scheduler: OrderScheduler
    order_ids: dict[str, str] = field(default_factory=dict[str, str])  # by token


class CodeRequest(BaseModel):
    """What a customer orders: a country's number or name, and a service's short code."""

    country: int | str
    service: str


class NewOrder(BaseModel):
    """The token of an order, and the hold invoice to pay."""

    token: str
    invoice: str


class OrderReport(BaseModel):
    """What is known about an order."""

    ended: bool
    number: str | None
    code: str | None
    money: str  # "with the payer", "held", "settled", "refunded" (if paid) or "unknown"


def get_shared(request: Request) -> Shared:
    """Return what the lifespan below has set up."""
    shared: Shared = request.state.shared
    return shared


SharedState = Annotated[Shared, Depends(get_shared)]
Token = Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]


async def get_entry(shared: SharedState, token: Token) -> JournalEntry:
    """Return the journal's entry of the order that a request names."""
    order_id = shared.order_ids.get(token.credentials)
    entry = None if order_id is None else await shared.journal.get(order_id)
    if entry is None:
        raise HTTPException(404, "no such order")
    return entry


Entry = Annotated[JournalEntry, Depends(get_entry)]


@router.post("/codes", status_code=201)
async def order_code(wanted: CodeRequest, shared: SharedState) -> NewOrder:
    """Order a code. The scheduler drives the order to its code or its refund."""
    token = secrets.token_urlsafe(32)
    order = await shared.client.create_order(
        wanted.country, wanted.service, metadata={"token": token}
    )
    shared.order_ids[token] = order.order_id
    await shared.scheduler.add(order, timeout=WAIT)
    return NewOrder(token=token, invoice=order.invoice)


@router.get("/codes")
async def show_code(entry: Entry) -> OrderReport:
    """Report what the scheduler has recorded, at most some seconds ago."""
    return OrderReport(
        ended=entry.result is not None,
        number=entry.number,
        code=entry.code,
        money=entry.money.value,
    )


@router.delete("/codes", status_code=202)
async def give_up(entry: Entry, shared: SharedState) -> None:
    """Stop waiting. The code may still arrive before the service allows the cancel."""
    if entry.result is None and entry.order is not None:
        await shared.scheduler.add(entry.order, timeout=0)


async def report_error(_: Request, error: Exception) -> JSONResponse:
    """Return the library's own text: what failed, what it means for the money, what to do."""
    status = 422 if isinstance(error, InvalidArgumentError) else 502
    return JSONResponse({"detail": str(error)}, status)


async def log_results(scheduler: OrderScheduler) -> None:
    """Log how each order ended; a real service would update its own database here.

    A result counts as delivered when the loop asks for the next one, so it comes again if the
    process dies before that.
    """
    async for result in scheduler.results():
        outcome = "unknown" if result.outcome is None else result.outcome.value
        log.info("an order ended: %s, money %s", outcome, result.money.value)


def make_app(
    connect: Callable[..., Sms4SatsClient] = Sms4SatsClient, journal_path: str = "codes.sqlite3"
) -> FastAPI:
    """Return the service. A test passes its own `connect`."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, Shared]]:
        async with SqliteJournal(journal_path) as journal, connect(journal=journal) as client:
            # `timeout` is for an order that was created just before a crash.
            shared = Shared(client, journal, OrderScheduler(client, timeout=WAIT))
            for entry in await journal.history():
                if entry.order_id is not None and "token" in entry.metadata:
                    shared.order_ids[entry.metadata["token"]] = entry.order_id
            async with anyio.create_task_group() as group:
                group.start_soon(shared.scheduler.run)
                group.start_soon(log_results, shared.scheduler)
                yield {"shared": shared}
                group.cancel_scope.cancel()

    app = FastAPI(title="Codes", lifespan=lifespan)
    app.include_router(router)
    app.add_exception_handler(Sms4SatsError, report_error)
    return app


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    uvicorn.run(make_app(journal_path=os.environ.get("SMS4SATS_JOURNAL", "codes.sqlite3")))
