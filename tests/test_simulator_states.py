"""The state table of the simulated service, and where the payment is in each state."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from sms4sats_async.simulator import Behaviour, Holder, Kind, Order, Stage, StateError
from sms4sats_async.simulator.order import next_event
from sms4sats_async.simulator.states import Event
from sms4sats_async.simulator.store import Store

NO_AUTOMATIC_EVENTS = Behaviour(number_delay=None, code_delay=None, sms_delay=None)
KEY = "key-of-a-customer"


def create(
    store: Store,
    behaviour: Behaviour = NO_AUTOMATIC_EVENTS,
    kind: Kind = Kind.RECEIVE,
    *,
    now: float = 0.0,
    api_key: str | None = None,
    immediate: bool = False,
) -> str:
    """Create an order and return its ID."""
    return store.create(
        now,
        kind=kind,
        price=1500,
        behaviour=behaviour,
        request={},
        api_key=api_key,
        immediate=immediate,
    ).order_id


def after(kind: Kind, *events: Event) -> Order:
    """Return an order after these events, one second apart."""
    store = Store()
    order_id = create(store, kind=kind)
    for second, event in enumerate(events, start=1):
        store.apply(order_id, event, second)
    return store.find(order_id, len(events))


@pytest.mark.parametrize(
    ("kind", "events", "stage", "holder"),
    [
        (Kind.RECEIVE, [], Stage.CREATED, Holder.NONE),
        (Kind.RECEIVE, [Event.CANCEL], Stage.CANCELLED, Holder.NONE),
        (Kind.RECEIVE, [Event.FAIL], Stage.FAILED, Holder.NONE),
        (Kind.RECEIVE, [Event.PAY], Stage.PAID, Holder.HELD),
        (Kind.RECEIVE, [Event.PAY, Event.CANCEL], Stage.CANCELLED, Holder.REFUNDED),
        (Kind.RECEIVE, [Event.PAY, Event.FAIL], Stage.FAILED, Holder.REFUNDED),
        (Kind.RECEIVE, [Event.PAY, Event.ASSIGN_NUMBER], Stage.NUMBERED, Holder.HELD),
        (
            Kind.RECEIVE,
            [Event.PAY, Event.ASSIGN_NUMBER, Event.DELIVER_CODE],
            Stage.DONE,
            Holder.SETTLED,
        ),
        (
            Kind.RECEIVE,
            [Event.PAY, Event.ASSIGN_NUMBER, Event.CANCEL],
            Stage.CANCELLED,
            Holder.REFUNDED,
        ),
        (
            Kind.RECEIVE,
            [Event.PAY, Event.ASSIGN_NUMBER, Event.FAIL],
            Stage.FAILED,
            Holder.REFUNDED,
        ),
        (Kind.SEND, [Event.FAIL], Stage.FAILED, Holder.NONE),
        (Kind.SEND, [Event.PAY], Stage.PAID, Holder.HELD),
        (Kind.SEND, [Event.PAY, Event.FAIL], Stage.FAILED, Holder.REFUNDED),
        (Kind.SEND, [Event.PAY, Event.SEND_SMS], Stage.SENT, Holder.SETTLED),
        (Kind.SEND, [Event.PAY, Event.SEND_SMS, Event.DELIVER_SMS], Stage.DONE, Holder.SETTLED),
        (Kind.FUND, [Event.PAY], Stage.DONE, Holder.SETTLED),
        (Kind.FUND, [Event.FAIL], Stage.FAILED, Holder.NONE),
    ],
)
def test_events_lead_to_stage_and_holder(
    kind: Kind, events: list[Event], stage: Stage, holder: Holder
) -> None:
    order = after(kind, *events)
    assert (order.stage, order.holder) == (stage, holder)
    assert order.paid is (Event.PAY in events)
    assert [moment.text for moment in order.history] == [
        "created",
        *(event.value for event in events),
    ]


@pytest.mark.parametrize(
    ("kind", "events"),
    [
        (Kind.RECEIVE, [Event.PAY, Event.PAY]),
        (Kind.RECEIVE, [Event.ASSIGN_NUMBER]),
        (Kind.RECEIVE, [Event.PAY, Event.DELIVER_CODE]),
        (Kind.RECEIVE, [Event.PAY, Event.ASSIGN_NUMBER, Event.DELIVER_CODE, Event.CANCEL]),
        (Kind.RECEIVE, [Event.PAY, Event.ASSIGN_NUMBER, Event.DELIVER_CODE, Event.FAIL]),
        (Kind.RECEIVE, [Event.PAY, Event.ASSIGN_NUMBER, Event.CANCEL, Event.DELIVER_CODE]),
        (Kind.RECEIVE, [Event.PAY, Event.CANCEL, Event.CANCEL]),
        (Kind.RECEIVE, [Event.CANCEL, Event.PAY]),
        (Kind.RECEIVE, [Event.PAY, Event.SEND_SMS]),
        (Kind.SEND, [Event.PAY, Event.CANCEL]),
        (Kind.SEND, [Event.PAY, Event.SEND_SMS, Event.FAIL]),
        (Kind.FUND, [Event.CANCEL]),
    ],
)
def test_event_outside_the_table_is_an_error(kind: Kind, events: list[Event]) -> None:
    before = after(kind, *events[:-1])
    with pytest.raises(StateError, match="is not possible") as caught:
        after(kind, *events)
    assert before.order_id not in str(caught.value)
    assert f"{before.order_id[:4]}…{before.order_id[-4:]}" in str(caught.value)


def test_automatic_events_happen_at_their_own_time() -> None:
    store = Store()
    behaviour = Behaviour(pay_delay=10, number_delay=5, code_delay=60, code="007")
    order_id = create(store, behaviour)
    assert store.find(order_id, 9).stage is Stage.CREATED
    order = store.find(order_id, 1e6)
    assert [(moment.time, moment.text) for moment in order.history] == [
        (0, "created"),
        (10, "paid"),
        (15, "number assigned"),
        (75, "code delivered"),
    ]
    assert order.code == "007"
    assert order.number is not None
    assert order.number.startswith("+1555")
    assert next_event(order) is None


@pytest.mark.parametrize("delay", [None, 7])
def test_order_without_available_number_is_refunded(delay: float | None) -> None:
    store = Store()
    order_id = create(store, Behaviour(number_available=False, number_delay=delay))
    store.apply(order_id, Event.PAY, 1)
    order = store.find(order_id, 100)
    assert (order.stage, order.holder) == (Stage.FAILED, Holder.REFUNDED)
    assert order.since == 1 + (delay or 0)


@pytest.mark.parametrize("events", [[], [Event.PAY], [Event.PAY, Event.ASSIGN_NUMBER]])
def test_order_without_code_fails_at_21_minutes(events: list[Event]) -> None:
    store = Store()
    order_id = create(store)
    for event in events:
        store.apply(order_id, event, 60)
    early = store.find(order_id, 21 * 60 - 0.001)
    late = store.find(order_id, 21 * 60)
    assert early.stage is not Stage.FAILED
    assert late.stage is Stage.FAILED
    assert late.holder is (Holder.REFUNDED if events else Holder.NONE)


def test_age_can_count_from_payment() -> None:
    store = Store()
    order_id = create(
        store, Behaviour(number_delay=None, code_delay=None, age_counts_from="payment")
    )
    store.apply(order_id, Event.PAY, 100)
    with pytest.raises(StateError, match="too young"):
        store.cancel(order_id, 219)
    assert store.find(order_id, 21 * 60 + 99).holder is Holder.HELD
    assert store.find(order_id, 21 * 60 + 100).holder is Holder.REFUNDED


def test_age_of_unpaid_order_counts_from_creation() -> None:
    store = Store()
    order_id = create(store, Behaviour(age_counts_from="payment"))
    assert store.cancel(order_id, 120).stage is Stage.CANCELLED


def test_cancel_before_two_minutes_is_an_error() -> None:
    store = Store()
    order_id = create(store)
    store.apply(order_id, Event.PAY, 30)
    with pytest.raises(StateError, match="too young"):
        store.cancel(order_id, 119.999)
    assert store.cancel(order_id, 120).holder is Holder.REFUNDED


def test_cancel_after_the_code_is_an_error() -> None:
    store = Store()
    order_id = create(store, Behaviour(pay_delay=0, number_delay=5, code_delay=120))
    with pytest.raises(StateError, match="is not possible"):
        store.cancel(order_id, 130)
    assert store.find(order_id, 130).holder is Holder.SETTLED


def test_sms_status_changes_automatically() -> None:
    store = Store()
    sent = create(store, Behaviour(sms_delay=5), Kind.SEND)
    failed = create(store, Behaviour(sms_delay=5, sms_fails=True), Kind.SEND)
    for order_id in (sent, failed):
        store.apply(order_id, Event.PAY, 0)
    assert store.find(sent, 5).stage is Stage.SENT
    assert store.find(sent, 10).stage is Stage.DONE
    assert store.find(failed, 5).holder is Holder.REFUNDED


def test_unsent_sms_is_refunded_at_21_minutes() -> None:
    store = Store()
    order_id = create(store, kind=Kind.SEND)
    store.apply(order_id, Event.PAY, 0)
    assert store.find(order_id, 21 * 60).holder is Holder.REFUNDED


def test_sent_sms_is_never_refunded() -> None:
    store = Store()
    order_id = create(store, kind=Kind.SEND)
    store.apply(order_id, Event.PAY, 0)
    store.apply(order_id, Event.SEND_SMS, 1)
    order = store.find(order_id, 1e6)
    assert (order.stage, order.holder) == (Stage.SENT, Holder.SETTLED)


def test_balance_pays_and_is_refunded() -> None:
    store = Store()
    store.credit(KEY, 2000)
    order_id = create(store, api_key=KEY, immediate=True)
    order = store.find(order_id, 0)
    assert (order.payreq, order.holder) == ("paid", Holder.HELD)
    assert store.balance(KEY, 0) == 500
    with pytest.raises(StateError, match="insufficient balance"):
        create(store, api_key=KEY, immediate=True)
    # Reading the balance applies the automatic events of the order.
    assert store.balance(KEY, 21 * 60) == 2000
    assert store.balance(None, 0) == 0


def test_paid_funding_credits_the_balance() -> None:
    store = Store()
    order_id = create(store, kind=Kind.FUND, api_key=KEY)
    assert store.balance(KEY, 0) == 0
    store.apply(store.order_id_of(store.find(order_id, 0).payreq), Event.PAY, 1)
    assert store.balance(KEY, 1) == 1500


def test_only_the_order_id_finds_an_order() -> None:
    store = Store()
    order = store.find(create(store), 0)
    assert store.order_id_of(order.payreq) == order.order_id
    assert store.order_id_of("other") == "other"
    for unknown in (order.payreq, "f" * 64, ""):
        with pytest.raises(LookupError, match="no order"):
            store.find(unknown, 0)
    with pytest.raises(LookupError, match="ffff…ffff"):
        store.find("f" * 64, 0)


def test_history_stays_in_order_when_the_clock_is_set_back() -> None:
    store = Store()
    order_id = create(store, now=100)
    order = store.apply(order_id, Event.PAY, 50)
    assert [moment.time for moment in order.history] == [100, 100]


def test_new_behaviour_applies_to_later_events() -> None:
    store = Store()
    order_id = create(store)
    store.apply(order_id, Event.PAY, 10)
    store.set_behaviour(order_id, Behaviour(number_delay=3), 20)
    assert store.find(order_id, 20).number is not None


def test_seed_determines_ids_and_invoices() -> None:
    one, same, other, any_seed = Store(), Store(0), Store(1), Store(None)
    first = one.find(create(one), 0)
    assert first == same.find(create(same), 0)
    ids = {store.find(create(store), 0).order_id for store in (one, other, any_seed)}
    assert len({first.order_id, *ids}) == 4
    assert len(first.order_id) == 64
    assert set(first.order_id) <= set("0123456789abcdef")


def test_repr_of_an_order_masks_secrets() -> None:
    store = Store()
    order = store.find(create(store, api_key=KEY), 0)
    for secret in (order.order_id, KEY, order.payreq, order.payment_preimage.hex()):
        assert secret not in repr(order)
    assert "key-…omer" in repr(order)
    assert "api_key=None" in repr(store.find(create(store), 0))
    assert "api_key=…," in repr(store.find(create(store, api_key="short"), 0))


@pytest.mark.parametrize(
    "name",
    [
        "pay_delay",
        "number_delay",
        "code_delay",
        "sms_delay",
        "minimum_cancel_age",
        "automatic_cancel_age",
    ],
)
@pytest.mark.parametrize("value", [-1, math.inf, math.nan])
def test_behaviour_rejects_invalid_seconds(name: str, value: float) -> None:
    wrong: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name} must be zero or more"):
        Behaviour(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"age_counts_from": "birth"},
        {"status_after_cancel": "gone"},
        {"network": "mainnet"},
        {"code": ""},
    ],
)
def test_behaviour_rejects_invalid_choice(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Behaviour(**wrong)


delays = st.none() | st.floats(0, 2000)
behaviours = st.builds(
    Behaviour,
    pay_delay=delays,
    number_delay=delays,
    code_delay=delays,
    number_available=st.booleans(),
    sms_delay=delays,
    sms_fails=st.booleans(),
    age_counts_from=st.sampled_from(["creation", "payment"]),
)


@given(behaviour=behaviours, kind=st.sampled_from(Kind), reads=st.lists(st.floats(0, 5000)))
def test_reads_do_not_change_the_history(
    behaviour: Behaviour, kind: Kind, reads: list[float]
) -> None:
    often_read, read_once = Store(), Store()
    order_id = create(often_read, behaviour, kind)
    assert create(read_once, behaviour, kind) == order_id
    for now in sorted(reads):
        often_read.find(order_id, now)
    assert often_read.find(order_id, 5000).history == read_once.find(order_id, 5000).history


@given(behaviour=behaviours, kind=st.sampled_from(Kind))
def test_every_payment_is_settled_or_refunded_in_the_end(behaviour: Behaviour, kind: Kind) -> None:
    store = Store()
    order = store.find(create(store, behaviour, kind), 5000)
    assert order.holder in (
        (Holder.NONE,) if order.paid_at is None else (Holder.SETTLED, Holder.REFUNDED)
    )


class RandomEvents(RuleBasedStateMachine):
    """Applies random events to random orders, and checks every payment after each."""

    order_ids = Bundle("order_ids")

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.now = 0.0
        self.credited = 0

    @rule(seconds=st.floats(0, 1500))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(amount=st.integers(1, 10_000))
    def credit(self, amount: int) -> None:
        self.store.credit(KEY, amount)
        self.credited += amount

    @rule(
        target=order_ids,
        kind=st.sampled_from(Kind),
        price=st.integers(1, 3000),
        behaviour=behaviours,
    )
    def create(self, kind: Kind, price: int, behaviour: Behaviour) -> str:
        order = self.store.create(
            self.now, kind=kind, price=price, behaviour=behaviour, request={}, api_key=KEY
        )
        return order.order_id

    @precondition(lambda self: self.store.balance(KEY, self.now) > 0)
    @rule(target=order_ids, kind=st.sampled_from([Kind.RECEIVE, Kind.SEND]), behaviour=behaviours)
    def create_from_balance(self, kind: Kind, behaviour: Behaviour) -> str:
        order = self.store.create(
            self.now,
            kind=kind,
            price=1 + self.store.balance(KEY, self.now) // 2,
            behaviour=behaviour,
            request={},
            api_key=KEY,
            immediate=True,
        )
        return order.order_id

    @rule(order_id=order_ids, event=st.sampled_from(Event))
    def apply_event(self, order_id: str, event: Event) -> None:
        before = self.store.find(order_id, self.now)
        try:
            self.store.apply(order_id, event, self.now)
        except StateError:
            assert self.store.find(order_id, self.now) == before

    @rule(order_id=consumes(order_ids))
    def cancel(self, order_id: str) -> None:
        before = self.store.find(order_id, self.now)
        try:
            after = self.store.cancel(order_id, self.now)
        except StateError:
            assert self.store.find(order_id, self.now) == before
        else:
            assert self.now >= before.age_base + 120
            assert before.code is None
            assert after.holder is (Holder.REFUNDED if before.paid else Holder.NONE)

    @invariant()
    def payment_is_held_then_settled_or_refunded(self) -> None:
        for order in self.store.orders(self.now):
            holders = [holder for _, _, holder in order.history]
            changes = list(dict.fromkeys(holders))
            assert changes == sorted(changes, key=list(Holder).index)
            assert not {Holder.SETTLED, Holder.REFUNDED} <= set(changes)
            assert holders[-1] is order.holder
            times = [moment.time for moment in order.history]
            assert times == sorted(times)
            if order.kind is Kind.RECEIVE:
                assert (order.code is not None) is (order.holder is Holder.SETTLED)

    @invariant()
    def no_satoshi_is_lost(self) -> None:
        orders = self.store.orders(self.now)
        funded = sum(
            order.price
            for order in orders
            if order.kind is Kind.FUND and order.holder is Holder.SETTLED
        )
        spent = sum(
            order.price
            for order in orders
            if order.immediate and order.holder in (Holder.HELD, Holder.SETTLED)
        )
        assert self.store.balance(KEY, self.now) == self.credited + funded - spent


TestRandomEvents = RandomEvents.TestCase
TestRandomEvents.settings = settings(max_examples=40, stateful_step_count=30)
