"""The law of the simulated service: what an order can become, and where its money is."""

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

from sms4sats_async.simulator import Behaviour, Holder, Kind, LawError, Order, Stage
from sms4sats_async.simulator.law import Event, World, next_event

BY_HAND = Behaviour(number_delay=None, code_delay=None, sms_delay=None)
KEY = "key-of-a-customer"


def opened(
    world: World,
    behaviour: Behaviour = BY_HAND,
    kind: Kind = Kind.RECEIVE,
    *,
    now: float = 0.0,
    api_key: str | None = None,
    immediate: bool = False,
) -> str:
    """The id of a new order."""
    return world.open(
        now,
        kind=kind,
        price=1500,
        behaviour=behaviour,
        request={},
        api_key=api_key,
        immediate=immediate,
    ).order_id


def walk(kind: Kind, *events: Event) -> Order:
    """An order to which these things happened, a second apart."""
    world = World()
    order_id = opened(world, kind=kind)
    for second, event in enumerate(events, start=1):
        world.happen(order_id, event, second)
    return world.find(order_id, len(events))


@pytest.mark.parametrize(
    ("kind", "events", "stage", "holder"),
    [
        (Kind.RECEIVE, [], Stage.CREATED, Holder.NONE),
        (Kind.RECEIVE, [Event.CANCEL], Stage.CANCELLED, Holder.NONE),
        (Kind.RECEIVE, [Event.RELEASE], Stage.RELEASED, Holder.NONE),
        (Kind.RECEIVE, [Event.PAY], Stage.PAID, Holder.HELD),
        (Kind.RECEIVE, [Event.PAY, Event.CANCEL], Stage.CANCELLED, Holder.RETURNED),
        (Kind.RECEIVE, [Event.PAY, Event.RELEASE], Stage.RELEASED, Holder.RETURNED),
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
            Holder.RETURNED,
        ),
        (
            Kind.RECEIVE,
            [Event.PAY, Event.ASSIGN_NUMBER, Event.RELEASE],
            Stage.RELEASED,
            Holder.RETURNED,
        ),
        (Kind.SEND, [Event.RELEASE], Stage.RELEASED, Holder.NONE),
        (Kind.SEND, [Event.PAY], Stage.PAID, Holder.HELD),
        (Kind.SEND, [Event.PAY, Event.RELEASE], Stage.RELEASED, Holder.RETURNED),
        (Kind.SEND, [Event.PAY, Event.SEND_SMS], Stage.SENT, Holder.SETTLED),
        (Kind.SEND, [Event.PAY, Event.SEND_SMS, Event.DELIVER_SMS], Stage.DONE, Holder.SETTLED),
        (Kind.FUND, [Event.PAY], Stage.DONE, Holder.SETTLED),
        (Kind.FUND, [Event.RELEASE], Stage.RELEASED, Holder.NONE),
    ],
)
def test_what_can_happen(kind: Kind, events: list[Event], stage: Stage, holder: Holder) -> None:
    """Each way through an order's life ends in its stage, with the money in its place."""
    order = walk(kind, *events)
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
        (Kind.RECEIVE, [Event.PAY, Event.ASSIGN_NUMBER, Event.DELIVER_CODE, Event.RELEASE]),
        (Kind.RECEIVE, [Event.PAY, Event.ASSIGN_NUMBER, Event.CANCEL, Event.DELIVER_CODE]),
        (Kind.RECEIVE, [Event.PAY, Event.CANCEL, Event.CANCEL]),
        (Kind.RECEIVE, [Event.CANCEL, Event.PAY]),
        (Kind.RECEIVE, [Event.PAY, Event.SEND_SMS]),
        (Kind.SEND, [Event.PAY, Event.CANCEL]),
        (Kind.SEND, [Event.PAY, Event.SEND_SMS, Event.RELEASE]),
        (Kind.FUND, [Event.CANCEL]),
    ],
)
def test_what_cannot_happen(kind: Kind, events: list[Event]) -> None:
    """What is not in the table is refused, and the order stays as it was."""
    before = walk(kind, *events[:-1])
    with pytest.raises(LawError, match="cannot happen to it") as refused:
        walk(kind, *events)
    assert before.order_id not in str(refused.value)
    assert f"{before.order_id[:4]}…{before.order_id[-4:]}" in str(refused.value)


def test_by_itself_from_payment_to_code() -> None:
    """Payment, number and code come by themselves, each at its own time, whenever one looks."""
    world = World()
    plan = Behaviour(pay_delay=10, number_delay=5, code_delay=60, code="007")
    order_id = opened(world, plan)
    assert world.find(order_id, 9).stage is Stage.CREATED
    order = world.find(order_id, 1e6)
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
def test_no_number_means_money_back(delay: float | None) -> None:
    """Without a number to give, the service returns the money where the number would have come."""
    world = World()
    order_id = opened(world, Behaviour(number_available=False, number_delay=delay))
    world.happen(order_id, Event.PAY, 1)
    order = world.find(order_id, 100)
    assert (order.stage, order.holder) == (Stage.RELEASED, Holder.RETURNED)
    assert order.since == 1 + (delay or 0)


@pytest.mark.parametrize("events", [[], [Event.PAY], [Event.PAY, Event.ASSIGN_NUMBER]])
def test_automatic_cancel_after_21_minutes(events: list[Event]) -> None:
    """An order without a code is given up at 21 minutes, and not before."""
    world = World()
    order_id = opened(world)
    for event in events:
        world.happen(order_id, event, 60)
    before = world.find(order_id, 21 * 60 - 0.001)
    after = world.find(order_id, 21 * 60)
    assert before.stage is not Stage.RELEASED
    assert after.stage is Stage.RELEASED
    assert after.holder is (Holder.RETURNED if events else Holder.NONE)


def test_ages_can_count_from_payment() -> None:
    """If ages count from payment, both the earliest and the automatic cancel come later."""
    world = World()
    order_id = opened(
        world, Behaviour(number_delay=None, code_delay=None, age_counts_from="payment")
    )
    world.happen(order_id, Event.PAY, 100)
    with pytest.raises(LawError, match="too young"):
        world.cancel(order_id, 219)
    assert world.find(order_id, 21 * 60 + 99).holder is Holder.HELD
    assert world.find(order_id, 21 * 60 + 100).holder is Holder.RETURNED


def test_unpaid_age_counts_from_creation() -> None:
    """An order that nobody has paid has no other age than the one from its creation."""
    world = World()
    order_id = opened(world, Behaviour(age_counts_from="payment"))
    assert world.cancel(order_id, 120).stage is Stage.CANCELLED


def test_cancel_not_before_two_minutes() -> None:
    """A cancel is refused until the order is exactly two minutes old."""
    world = World()
    order_id = opened(world)
    world.happen(order_id, Event.PAY, 30)
    with pytest.raises(LawError, match="too young"):
        world.cancel(order_id, 119.999)
    assert world.cancel(order_id, 120).holder is Holder.RETURNED


def test_code_beats_a_late_cancel() -> None:
    """A cancel that comes after the code, though nobody has looked since, is refused."""
    world = World()
    order_id = opened(world, Behaviour(pay_delay=0, number_delay=5, code_delay=120))
    with pytest.raises(LawError, match="cannot happen to it"):
        world.cancel(order_id, 130)
    assert world.find(order_id, 130).holder is Holder.SETTLED


def test_sms_by_itself() -> None:
    """A paid SMS is sent and delivered by itself, or fails and the money returns."""
    world = World()
    sent = opened(world, Behaviour(sms_delay=5), Kind.SEND)
    failed = opened(world, Behaviour(sms_delay=5, sms_fails=True), Kind.SEND)
    for order_id in (sent, failed):
        world.happen(order_id, Event.PAY, 0)
    assert world.find(sent, 5).stage is Stage.SENT
    assert world.find(sent, 10).stage is Stage.DONE
    assert world.find(failed, 5).holder is Holder.RETURNED


def test_held_sms_is_given_up_in_the_end() -> None:
    """A paid SMS that is never sent does not hold its money for ever."""
    world = World()
    order_id = opened(world, kind=Kind.SEND)
    world.happen(order_id, Event.PAY, 0)
    assert world.find(order_id, 21 * 60).holder is Holder.RETURNED


def test_sent_sms_is_never_given_up() -> None:
    """An SMS that was sent is paid for, even if nobody hears whether it was delivered."""
    world = World()
    order_id = opened(world, kind=Kind.SEND)
    world.happen(order_id, Event.PAY, 0)
    world.happen(order_id, Event.SEND_SMS, 1)
    order = world.find(order_id, 1e6)
    assert (order.stage, order.holder) == (Stage.SENT, Holder.SETTLED)


def test_balance_pays_and_is_paid_back() -> None:
    """An order paid from the balance takes its price, and gives it back when it is released."""
    world = World()
    world.credit(KEY, 2000)
    order_id = opened(world, api_key=KEY, immediate=True)
    order = world.find(order_id, 0)
    assert (order.payreq, order.holder) == ("paid", Holder.HELD)
    assert world.balance(KEY, 0) == 500
    with pytest.raises(LawError, match="insufficient balance"):
        opened(world, api_key=KEY, immediate=True)
    # Nobody looks at the order: asking for the balance is enough.
    assert world.balance(KEY, 21 * 60) == 2000
    assert world.balance(None, 0) == 0


def test_funding_credits_the_balance() -> None:
    """A funding invoice, once paid, is on the balance of the key that asked for it."""
    world = World()
    order_id = opened(world, kind=Kind.FUND, api_key=KEY)
    assert world.balance(KEY, 0) == 0
    world.happen(world.id_behind(world.find(order_id, 0).payreq), Event.PAY, 1)
    assert world.balance(KEY, 1) == 1500


def test_orders_are_known_by_id_only() -> None:
    """An invoice leads its payer to the order, but is no order id; an unknown id is an error."""
    world = World()
    order = world.find(opened(world), 0)
    assert world.id_behind(order.payreq) == order.order_id
    assert world.id_behind("else") == "else"
    for unknown in (order.payreq, "f" * 64, ""):
        with pytest.raises(LookupError, match="no order"):
            world.find(unknown, 0)
    with pytest.raises(LookupError, match="ffff…ffff"):
        world.find("f" * 64, 0)


def test_a_clock_stepped_back_does_not_turn_history_round() -> None:
    """What happens at an earlier time than the last thing is dated like the last thing."""
    world = World()
    order_id = opened(world, now=100)
    order = world.happen(order_id, Event.PAY, 50)
    assert [moment.time for moment in order.history] == [100, 100]


def test_one_order_can_be_treated_differently() -> None:
    """A change of behaviour for one order changes what comes next for it, and nothing before."""
    world = World()
    order_id = opened(world)
    world.happen(order_id, Event.PAY, 10)
    world.change_behaviour(order_id, Behaviour(number_delay=3), 20)
    assert world.find(order_id, 20).number is not None


def test_same_seed_same_world() -> None:
    """Ids, invoices and numbers are the same for the same seed, and others for another."""
    one, same, other, any_seed = World(), World(0), World(1), World(None)
    first = one.find(opened(one), 0)
    assert first == same.find(opened(same), 0)
    ids = {world.find(opened(world), 0).order_id for world in (one, other, any_seed)}
    assert len({first.order_id, *ids}) == 4
    assert len(first.order_id) == 64
    assert set(first.order_id) <= set("0123456789abcdef")


def test_an_order_shows_no_secret() -> None:
    """The repr of an order has neither its id, nor its key, nor its preimage whole."""
    world = World()
    order = world.find(opened(world, api_key=KEY), 0)
    for secret in (order.order_id, KEY, order.payreq, order.payment_preimage.hex()):
        assert secret not in repr(order)
    assert "key-…omer" in repr(order)
    assert "api_key=None" in repr(world.find(opened(world), 0))
    assert "api_key=…," in repr(world.find(opened(world, api_key="short"), 0))


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
def test_behaviour_refuses_a_time(name: str, value: float) -> None:
    """A time that is negative or has no end is refused."""
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
def test_behaviour_refuses_a_word(wrong: dict[str, Any]) -> None:
    """A word that the setting does not know is refused."""
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


@given(behaviour=behaviours, kind=st.sampled_from(Kind), looks=st.lists(st.floats(0, 5000)))
def test_looking_changes_nothing(behaviour: Behaviour, kind: Kind, looks: list[float]) -> None:
    """However often and whenever one looks, an order's history comes out the same."""
    watched, left_alone = World(), World()
    order_id = opened(watched, behaviour, kind)
    assert opened(left_alone, behaviour, kind) == order_id
    for now in sorted(looks):
        watched.find(order_id, now)
    assert watched.find(order_id, 5000).history == left_alone.find(order_id, 5000).history


@given(behaviour=behaviours, kind=st.sampled_from(Kind))
def test_no_money_is_held_for_ever(behaviour: Behaviour, kind: Kind) -> None:
    """Left alone, an order's money is settled or returned 21 minutes after it was paid."""
    world = World()
    order = world.find(opened(world, behaviour, kind), 5000)
    assert order.holder in (
        (Holder.NONE,) if order.paid_at is None else (Holder.SETTLED, Holder.RETURNED)
    )


class Money(RuleBasedStateMachine):
    """Anything happens to any order at any time, and the books are kept beside the law."""

    living = Bundle("living")

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.now = 0.0
        self.credited = 0
        self.seen: dict[str, list[Holder]] = {}

    @rule(seconds=st.floats(0, 1500))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(amount=st.integers(1, 10_000))
    def credit(self, amount: int) -> None:
        self.world.credit(KEY, amount)
        self.credited += amount

    @rule(
        target=living,
        kind=st.sampled_from(Kind),
        price=st.integers(1, 3000),
        behaviour=behaviours,
    )
    def open(self, kind: Kind, price: int, behaviour: Behaviour) -> str:
        order = self.world.open(
            self.now, kind=kind, price=price, behaviour=behaviour, request={}, api_key=KEY
        )
        return order.order_id

    @precondition(lambda self: self.world.balance(KEY, self.now) > 0)
    @rule(target=living, kind=st.sampled_from([Kind.RECEIVE, Kind.SEND]), behaviour=behaviours)
    def open_from_balance(self, kind: Kind, behaviour: Behaviour) -> str:
        order = self.world.open(
            self.now,
            kind=kind,
            price=1 + self.world.balance(KEY, self.now) // 2,
            behaviour=behaviour,
            request={},
            api_key=KEY,
            immediate=True,
        )
        return order.order_id

    @rule(order_id=living, event=st.sampled_from(Event))
    def something_happens(self, order_id: str, event: Event) -> None:
        before = self.world.find(order_id, self.now)
        try:
            self.world.happen(order_id, event, self.now)
        except LawError:
            assert self.world.find(order_id, self.now) == before

    @rule(order_id=consumes(living))
    def customer_cancels(self, order_id: str) -> None:
        before = self.world.find(order_id, self.now)
        try:
            after = self.world.cancel(order_id, self.now)
        except LawError:
            assert self.world.find(order_id, self.now) == before
        else:
            assert self.now >= before.age_base + 120
            assert before.code is None
            assert after.holder is (Holder.RETURNED if before.paid else Holder.NONE)

    @invariant()
    def money_moves_one_way(self) -> None:
        """Not paid, then held, then settled or returned; a code means settled, and once."""
        for order in self.world.orders(self.now):
            path = [holder for _, _, holder in order.history]
            steps = [holder for place, holder in enumerate(path) if holder not in path[:place]]
            assert steps == sorted(steps, key=list(Holder).index)
            assert not {Holder.SETTLED, Holder.RETURNED} <= set(steps)
            assert path[-1] is order.holder
            times = [moment.time for moment in order.history]
            assert times == sorted(times)
            if order.kind is Kind.RECEIVE:
                assert (order.code is not None) is (order.holder is Holder.SETTLED)

    @invariant()
    def no_satoshi_is_lost(self) -> None:
        """What was credited is on the balance or in orders paid from it, each in one place."""
        orders = self.world.orders(self.now)
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
        assert self.world.balance(KEY, self.now) == self.credited + funded - spent


TestMoney = Money.TestCase
TestMoney.settings = settings(max_examples=40, stateful_step_count=30)
