"""The values that `on_event` receives: small, frozen, safe to log and to send on."""

import copy
import pickle
from datetime import UTC, datetime

import attrs
import pytest

from sms4sats_async import (
    CodeStatus,
    Invoice,
    OrderOutcome,
    OrderResult,
    OrderState,
    OrderStatus,
    ReceiveOrder,
    RetryPolicy,
    UnableToSaveDataError,
    events,
)
from sms4sats_async.errors import JournalError, TransportError
from sms4sats_async.events import (
    AttemptFailed,
    Event,
    JournalFailed,
    OrderCreated,
    OrderEnded,
    StatusPolled,
    Waiting,
)
from sms4sats_async.simulator import Fault, make_invoice
from tests.simulated import Simulated

ORDER_ID = "0123456789abcdef" * 4
INVOICE = make_invoice(
    amount_sat=1500,
    payment_hash=bytes.fromhex(ORDER_ID),
    payment_secret=bytes(32),
    description="x",
    timestamp=1_800_000_000,
    expiry=1260,
)
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
FAILURE = TransportError(f"no answer to {ORDER_ID}", operation="cancel_order", order_id=ORDER_ID)
ORDER = ReceiveOrder(ORDER_ID, INVOICE, NOON, 187, "tg", metadata={"chat": "42"})
STATUS = OrderStatus(ORDER_ID, OrderState.REFUNDED, paid=True, error=f"no number for {ORDER_ID}")
ARRIVED = CodeStatus(ORDER_ID, OrderState.CODE_RECEIVED, code="012345")
RESULT = OrderResult(ORDER_ID, OrderOutcome.CODE_RECEIVED, "012345", status=ARRIVED, attempts=2)
UNKNOWN = OrderResult(ORDER_ID, None, error=FAILURE)
UNRECORDED = JournalError("the disk is full", order_id=ORDER_ID)

EVENTS: list[tuple[Event, str, tuple[object, ...]]] = [
    (Event(ORDER_ID), "order_id", (ORDER_ID,)),
    (OrderCreated(ORDER_ID, ORDER), "order_id order", (ORDER_ID, ORDER)),
    (
        AttemptFailed(ORDER_ID, "cancel_order", 1, 4, FAILURE, 0.8),
        "order_id operation attempt attempts error delay",
        (ORDER_ID, "cancel_order", 1, 4, FAILURE, 0.8),
    ),
    (
        Waiting(ORDER_ID, NOON, "too young"),
        "order_id until reason",
        (ORDER_ID, NOON, "too young"),
    ),
    (StatusPolled(ORDER_ID, STATUS), "order_id status", (ORDER_ID, STATUS)),
    (OrderEnded(ORDER_ID, RESULT), "order_id result", (ORDER_ID, RESULT)),
    (OrderEnded(ORDER_ID, UNKNOWN), "order_id result", (ORDER_ID, UNKNOWN)),
    (JournalFailed(ORDER_ID, UNRECORDED), "order_id error", (ORDER_ID, UNRECORDED)),
]
IDS = [f"{type(event).__name__}-{number}" for number, (event, *_) in enumerate(EVENTS)]
each_event = pytest.mark.parametrize("event", [event for event, *_ in EVENTS], ids=IDS)


def test_table_has_every_event() -> None:
    defined = {it for it in vars(events).values() if isinstance(it, type) and issubclass(it, Event)}

    assert defined == {type(event) for event, *_ in EVENTS}


@pytest.mark.parametrize(("event", "names", "values"), EVENTS, ids=IDS)
def test_positional_fields_keep_their_order(
    event: Event, names: str, values: tuple[object, ...]
) -> None:
    assert [field.name for field in attrs.fields(type(event))] == names.split()
    assert attrs.astuple(event, recurse=False) == values


@each_event
def test_event_is_immutable(event: Event) -> None:
    for field in attrs.fields(type(event)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(event, field.name, None)
    assert not hasattr(event, "__dict__")


@each_event
def test_repr_masks_order_id_and_invoice(event: Event) -> None:
    for secret in (ORDER_ID, INVOICE, Invoice.parse(INVOICE).payment_hash):
        assert secret not in f"{event} {event!r}"
    assert "order_id=0123…cdef" in repr(event)


@pytest.mark.parametrize(("order_id", "shown"), [(None, "None"), ("id-7", "…")])
def test_repr_shows_whether_the_event_is_about_an_order(order_id: str | None, shown: str) -> None:
    assert repr(Event(order_id)) == f"Event(order_id={shown})"


@each_event
def test_event_can_be_compared_hashed_copied_and_pickled(event: Event) -> None:
    again = pickle.loads(pickle.dumps(event))  # noqa: S301 - the bytes are ours

    assert {event, copy.copy(event)} == {event}
    assert type(again) is type(event)
    # An exception equals only itself.
    assert again == event or isinstance(event, AttemptFailed | JournalFailed)
    assert repr(again) == repr(event)


@pytest.mark.anyio
async def test_failed_attempt_has_the_number_of_attempts_of_its_call() -> None:
    it = Simulated(retry=RetryPolicy(2))
    it.simulator.script("/cancelorder", *[Fault.unable_to_save_data()] * 3)

    with pytest.raises(UnableToSaveDataError):
        await it.client.cancel_order(ORDER_ID)
    with pytest.raises(UnableToSaveDataError):
        await it.client.cancel_order(ORDER_ID, retry=RetryPolicy(attempts=1))

    failed = it.events_of(AttemptFailed)
    assert [(event.attempt, event.attempts) for event in failed] == [(1, 2), (2, 2), (1, 1)]
