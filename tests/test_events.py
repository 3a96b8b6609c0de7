"""What `on_event` is called with: small frozen values that can be logged and sent on."""

import copy
import pickle
from datetime import UTC, datetime

import attrs
import pytest

from sms4sats_async import RetryPolicy, Sms4SatsClient, UnableToSaveDataError, events
from sms4sats_async.errors import JournalError, TransportError
from sms4sats_async.events import (
    AttemptFailed,
    CancelFinished,
    CancelResult,
    Event,
    JournalFailed,
    OrderCancelled,
    OrderCreated,
    StatusPolled,
    Waiting,
)
from sms4sats_async.models import (
    Cancellation,
    CancelOutcome,
    OrderState,
    OrderStatus,
    ReceiveOrder,
)
from sms4sats_async.simulator import Fault, ManualClock, Simulator

ORDER_ID = "0123456789abcdef" * 4
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
FAILURE = TransportError("no answer", operation="cancel_order", order_id=ORDER_ID)
ORDER = ReceiveOrder(ORDER_ID, "lnbc1invoice", NOON, 187, "tg")
STATUS = OrderStatus(ORDER_ID, OrderState.HELD, paid=True)
CANCELLATION = Cancellation(ORDER_ID, CancelOutcome.CANCELLED, STATUS, 2)
RESULT = CancelResult(ORDER_ID, CancelOutcome.CODE_ARRIVED, "012345", STATUS, None, 1)
UNWRITTEN = JournalError("the disk is full", order_id=ORDER_ID)

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
    (OrderCancelled(ORDER_ID, CANCELLATION), "order_id cancellation", (ORDER_ID, CANCELLATION)),
    (CancelFinished(ORDER_ID, RESULT), "order_id result", (ORDER_ID, RESULT)),
    (JournalFailed(ORDER_ID, UNWRITTEN), "order_id error", (ORDER_ID, UNWRITTEN)),
]
each_event = pytest.mark.parametrize(
    "event", [event for event, *_ in EVENTS], ids=lambda event: type(event).__name__
)


def test_every_event_is_seen_here() -> None:
    defined = {it for it in vars(events).values() if isinstance(it, type) and issubclass(it, Event)}

    assert defined == {type(event) for event, *_ in EVENTS}


@pytest.mark.parametrize(("event", "names", "values"), EVENTS, ids=lambda it: type(it).__name__)
def test_an_event_holds_what_it_tells_in_this_order(
    event: Event, names: str, values: tuple[object, ...]
) -> None:
    assert [field.name for field in attrs.fields(type(event))] == names.split()
    assert attrs.astuple(event, recurse=False) == values


@each_event
def test_an_event_cannot_be_changed(event: Event) -> None:
    for field in attrs.fields(type(event)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(event, field.name, None)
    assert not hasattr(event, "__dict__")


@each_event
def test_an_event_shows_no_order_id(event: Event) -> None:
    assert ORDER_ID not in f"{event} {event!r}"
    assert "order_id=0123…cdef" in repr(event)


@pytest.mark.parametrize(("order_id", "shown"), [(None, "None"), ("id-7", "…")])
def test_an_event_shows_whether_it_is_about_an_order(order_id: str | None, shown: str) -> None:
    assert repr(Event(order_id)) == f"Event(order_id={shown})"


@each_event
def test_an_event_can_be_compared_kept_in_a_set_and_sent_on(event: Event) -> None:
    again = pickle.loads(pickle.dumps(event))  # noqa: S301 - our own bytes

    assert {event, copy.copy(event)} == {event}
    assert type(again) is type(event)
    # An error is equal to itself only, as all exceptions are.
    assert again == event or isinstance(event, AttemptFailed | JournalFailed)
    assert repr(again) == repr(event)


@pytest.mark.anyio
async def test_a_failed_attempt_says_how_many_there_are_by_the_policy_of_the_call() -> None:
    clock = ManualClock()
    simulator = Simulator(clock=clock)
    simulator.script("/cancelorder", *[Fault.unable_to_save_data()] * 3)
    told: list[Event] = []
    async with simulator.http_client() as http_client:
        client = Sms4SatsClient(
            http_client=http_client, clock=clock, on_event=told.append, retry=RetryPolicy(2)
        )

        with pytest.raises(UnableToSaveDataError):
            await client.cancel_order(ORDER_ID)
        with pytest.raises(UnableToSaveDataError):
            await client.cancel_order(ORDER_ID, retry=RetryPolicy(attempts=1))

    failed = [event for event in told if isinstance(event, AttemptFailed)]
    assert [(event.attempt, event.attempts) for event in failed] == [(1, 2), (2, 2), (1, 1)]
