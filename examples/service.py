"""A web service that hands out codes: FastAPI, with one client for the whole process.

    POST    /codes   {"country": 187, "service": "tg"}: makes an order; answers its id and invoice
    GET     /codes   where the order stands: the number to use, and then the code
    DELETE  /codes   the customer gives up: the money comes back as soon as that is allowed

The last two name the order in the header `Authorization: Bearer <order id>`, and not
in the address, which stands in every log on the way: whoever has the id can read the
code.

An order that has no code after five minutes is cancelled by the scheduler, whether
anybody still asks for it or not. A service that is stopped cancels what is open; what
is too young for that stays in the journal, and is taken up by the next start.

    pip install sms4sats-async fastapi uvicorn
    python examples/service.py
"""

import logging
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

import anyio
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from sms4sats_async import (
    CancelScheduler,
    InvalidArgumentError,
    Sms4SatsClient,
    Sms4SatsError,
    SqliteJournal,
)

PATIENCE = timedelta(minutes=5)
GRACE = 10.0  # seconds that stopping may take; Kubernetes kills after 30

log = logging.getLogger("codes")
router = APIRouter()


@dataclass(frozen=True)
class Desk:
    """What all requests share."""

    client: Sms4SatsClient
    journal: SqliteJournal
    scheduler: CancelScheduler


class Wanted(BaseModel):
    """What a customer asks for: a country's number or name, and a service's short code."""

    country: int | str
    service: str


class Made(BaseModel):
    """An order, and the hold invoice to pay."""

    order_id: str
    invoice: str


class Standing(BaseModel):
    """Where an order stands."""

    state: str
    number: str | None
    code: str | None


def the_desk(request: Request) -> Desk:
    """Return what the lifespan below has set up."""
    desk: Desk = request.state.desk
    return desk


AtDesk = Annotated[Desk, Depends(the_desk)]
Bearer = Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]


async def the_order(desk: AtDesk, bearer: Bearer) -> str:
    """Return the id of the order that a request names, which must be one of ours."""
    if await desk.journal.get(bearer.credentials) is None:
        raise HTTPException(404, "no such order")
    return bearer.credentials


OrderId = Annotated[str, Depends(the_order)]


@router.post("/codes", status_code=201)
async def order_code(wanted: Wanted, desk: AtDesk) -> Made:
    """Make an order, and see to it that its money comes back if no code does."""
    order = await desk.client.create_order(wanted.country, wanted.service)
    await desk.scheduler.schedule(order, not_before=order.created_at + PATIENCE)
    return Made(order_id=order.order_id, invoice=order.payreq)


@router.get("/codes")
async def show_code(order_id: OrderId, desk: AtDesk) -> Standing:
    """Tell where an order stands."""
    status = await desk.client.get_order_status(order_id)
    return Standing(state=status.state.value, number=status.number, code=status.code)


@router.delete("/codes", status_code=202)
async def give_up(order_id: OrderId, desk: AtDesk) -> None:
    """Ask for the money back as soon as the order is two minutes old."""
    await desk.scheduler.schedule(order_id)


async def tell_error(_: Request, error: Exception) -> JSONResponse:
    """Answer with the library's own words: what happened, and where the money is."""
    status = 422 if isinstance(error, InvalidArgumentError) else 502
    return JSONResponse({"detail": str(error)}, status)


async def cancel_open_orders(desk: Desk) -> None:
    """Cancel what is still open; the next start takes up what the time does not suffice for."""
    orders = [entry.order for entry in await desk.journal.pending() if entry.order is not None]
    with anyio.move_on_after(GRACE):
        async for result in desk.client.cancel_orders(orders):
            log.info("stopping; one order: %s", result.outcome.value)


def make_app(
    connect: Callable[..., Sms4SatsClient] = Sms4SatsClient, journal_path: str = "codes.sqlite3"
) -> FastAPI:
    """Return the service; a test hands its own `connect` in."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, Desk]]:
        async with SqliteJournal(journal_path) as journal, connect(journal=journal) as client:
            desk = Desk(client, journal, CancelScheduler(client))
            async with anyio.create_task_group() as group:
                group.start_soon(desk.scheduler.run)
                yield {"desk": desk}
                group.cancel_scope.cancel()
            await cancel_open_orders(desk)

    app = FastAPI(title="Codes", lifespan=lifespan)
    app.include_router(router)
    app.add_exception_handler(Sms4SatsError, tell_error)
    return app


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    uvicorn.run(make_app(journal_path=os.environ.get("SMS4SATS_JOURNAL", "codes.sqlite3")))
