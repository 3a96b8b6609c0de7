"""The simulated service as HTTP sees it: endpoints, answers, and the record of what was asked."""

import hashlib
import json
import logging
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms4sats_async.simulator import (
    Answer,
    Behaviour,
    Fault,
    Holder,
    Kind,
    LawError,
    ManualClock,
    Simulator,
    Stage,
)

START = 1_800_000_000.0
KEY = "key-of-a-customer"
REFUND_TEXT = (
    "No available number, payment request is canceled. "
    "Your funds are returned to your wallet automatically."
)
UNABLE = {"status": "error", "reason": "unable to save data"}
BY_HAND = Behaviour(number_delay=None, code_delay=None, sms_delay=None)


class Desk:
    """A simulator, its clock, and short words for asking it."""

    def __init__(self, behaviour: Behaviour = BY_HAND) -> None:
        self.clock = ManualClock(START)
        self.simulator = Simulator(behaviour, clock=self.clock)

    def get(self, target: str, key: str | None = None) -> Answer:
        return self.simulator.handle("GET", target, {"X-API-Key": key} if key else None)

    def post(self, target: str, content: object, key: str | None = None) -> Answer:
        headers = {"X-API-Key": key} if key else None
        return self.simulator.handle("POST", target, headers, json.dumps(content).encode())

    def order(self, **fields: object) -> str:
        answer = self.post("/createorder", {"country": 187, "service": "tg", **fields})
        assert answer.status == 200, answer.body
        return str(answer.json["orderId"])

    def send_order(self) -> str:
        answer = self.post("/createsendorder", {"phone": "+4915112345678", "message": "hello"})
        return str(answer.json["orderId"])

    def status(self, order_id: str) -> dict[str, Any]:
        answer = self.get(f"/orderstatus?orderId={order_id}")
        assert answer.status == 200
        return dict(answer.json)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def refused(answer: Answer) -> tuple[int, str]:
    """Status and reason of an answer that says no."""
    assert answer.json["status"] == "error"
    return answer.status, answer.json["reason"]


def test_root_says_the_service_is_up(desk: Desk) -> None:
    """The root answers OK."""
    assert desk.get("/").json == {"status": "OK"}


def test_order_from_creation_to_code(desk: Desk) -> None:
    """A receive order is created, paid, numbered and settled by its code, as documented."""
    answer = desk.post("/createorder", {"country": "united STATES", "service": "tg"})
    order_id, payreq = answer.json["orderId"], answer.json["payreq"]
    assert answer.json["status"] == "OK"
    assert len(order_id) == 64
    assert payreq.startswith("lnbcrt15u1")
    assert desk.status(order_id) == {"status": "OK", "paid": False}

    desk.simulator.pay(payreq)
    assert desk.status(order_id) == {"status": "OK", "paid": True}
    assert desk.simulator.held_orders() == [desk.simulator.order(order_id)]

    desk.simulator.assign_number(order_id, "+15551234567")
    waiting = desk.status(order_id)
    assert waiting == {
        "status": "OK",
        "paid": True,
        "id": desk.simulator.order(order_id).reference,
        "number": "+15551234567",
        "timestamp": int(START * 1000),
        "country": 187,
    }
    assert isinstance(waiting["id"], int)

    desk.simulator.deliver_code(order_id, "012345")
    assert desk.status(order_id) == {**waiting, "code": "012345", "service": "tg"}
    assert desk.simulator.holder(order_id) is Holder.SETTLED
    assert desk.simulator.held_orders() == []


def test_code_gets_a_number_first(desk: Desk) -> None:
    """Delivering a code to a paid order without a number assigns one."""
    order_id = desk.order()
    with pytest.raises(LawError):
        desk.simulator.deliver_code(order_id)
    desk.simulator.pay(order_id)
    desk.simulator.deliver_code(order_id)
    assert desk.status(order_id)["code"] == "012345"
    assert desk.status(order_id)["number"].startswith("+1555")


@pytest.mark.parametrize(
    ("code", "shown"),
    [("012345", 12345), ("G-1234", "G-1234"), ("9" * 16, "9" * 16), ("٣", "٣")],
)
def test_json_numbers(code: str, shown: object) -> None:
    """With `json_numbers`, what is all digits is a JSON number, and the rest stays a string."""
    desk = Desk(Behaviour(json_numbers=True))
    order_id = desk.order()
    desk.simulator.pay(order_id)
    desk.simulator.assign_number(order_id, "+15551234567")
    desk.simulator.deliver_code(order_id, code)
    status = desk.status(order_id)
    assert (status["code"], status["number"]) == (shown, 15551234567)


def test_cancel_returns_the_money(desk: Desk) -> None:
    """A cancel after two minutes is answered OK, and the status shows the refund text."""
    order_id = desk.order()
    desk.simulator.pay(order_id)
    desk.clock.suspend(120)
    assert desk.get(f"/cancelorder?orderId={order_id}").json == {"status": "OK"}
    assert desk.simulator.holder(order_id) is Holder.RETURNED
    assert desk.status(order_id) == {"status": "OK", "paid": True, "error": REFUND_TEXT}


def test_status_can_stay_unchanged_after_a_cancel() -> None:
    """With `status_after_cancel="unchanged"`, nothing in the status tells of the cancel."""
    desk = Desk(Behaviour(status_after_cancel="unchanged", code_delay=None))
    order_id = desk.order()
    desk.simulator.pay(order_id)
    desk.clock.suspend(120)
    before = desk.status(order_id)
    assert "number" in before
    assert desk.get(f"/cancelorder?orderId={order_id}").status == 200
    assert desk.status(order_id) == before


def test_impossible_cancels_are_all_answered_alike(desk: Desk) -> None:
    """Too early, repeated, of nobody's order or after the code: 500 `unable to save data`."""
    early, cancelled, coded = desk.order(), desk.order(), desk.order()
    for order_id in (early, cancelled, coded):
        desk.simulator.pay(order_id)
    too_early = desk.get(f"/cancelorder?orderId={early}")
    desk.clock.suspend(120)
    desk.simulator.deliver_code(coded)
    assert desk.get(f"/cancelorder?orderId={cancelled}").status == 200
    for answer in (
        too_early,
        desk.get(f"/cancelorder?orderId={cancelled}"),
        desk.get(f"/cancelorder?orderId={coded}"),
        desk.get(f"/cancelorder?orderId={'0' * 64}"),
        desk.get(f"/cancelorder?orderId={desk.send_order()}"),
        desk.get("/cancelorder"),
    ):
        assert (answer.status, answer.json) == (500, UNABLE)


def test_the_refusal_of_a_cancel_is_a_setting() -> None:
    """What an impossible cancel is answered can be chosen, since nobody knows."""
    desk = Desk(Behaviour(cancel_refusal_status=400, cancel_refusal_reason="too early"))
    assert refused(desk.get(f"/cancelorder?orderId={desk.order()}")) == (400, "too early")


def test_refund_by_the_service(desk: Desk) -> None:
    """An order that the service gives up shows the documented error and is not held."""
    order_id = desk.order()
    desk.simulator.pay(order_id)
    desk.simulator.refund(order_id)
    assert desk.status(order_id) == {"status": "OK", "paid": True, "error": REFUND_TEXT}
    assert desk.simulator.holder(order_id) is Holder.RETURNED


def test_status_of_nobodys_order(desk: Desk) -> None:
    """The status of an order that does not exist is a 500, and an invoice is no order id."""
    payreq = desk.simulator.order(desk.order()).payreq
    assert refused(desk.get("/orderstatus")) == (500, "order not found")
    assert refused(desk.get(f"/orderstatus?orderId={payreq}")) == (500, "order not found")


def test_send_order(desk: Desk) -> None:
    """An SMS is created, sent (which settles) and delivered."""
    order_id = desk.send_order()
    reference = desk.simulator.order(order_id).reference
    assert desk.status(order_id) == {
        "status": "OK",
        "paid": False,
        "id": reference,
        "smsStatus": "created",
        "timestamp": int(START * 1000),
    }
    assert str(reference).startswith("SM")
    desk.simulator.pay(order_id)
    assert desk.status(order_id)["smsStatus"] == "created"
    desk.simulator.set_sms_status(order_id, "sent")
    assert desk.status(order_id)["smsStatus"] == "sent"
    assert desk.simulator.holder(order_id) is Holder.SETTLED
    desk.simulator.set_sms_status(order_id, "delivered")
    assert desk.status(order_id)["smsStatus"] == "delivered"


def test_send_order_delivered_or_failed_at_once(desk: Desk) -> None:
    """An SMS can be delivered without having been seen as sent, or fail and return its money."""
    delivered, failed = desk.send_order(), desk.send_order()
    for order_id in (delivered, failed):
        desk.simulator.pay(order_id)
    assert desk.simulator.set_sms_status(delivered, "delivered").stage is Stage.DONE
    assert desk.simulator.set_sms_status(failed, "failed").holder is Holder.RETURNED
    assert desk.status(failed)["smsStatus"] == "failed"
    with pytest.raises(LawError, match="cannot happen to it"):
        desk.simulator.set_sms_status(failed, "sent")
    with pytest.raises(LawError, match="not an order that sends an SMS"):
        desk.simulator.set_sms_status(desk.order(), "sent")


def test_rental(desk: Desk) -> None:
    """A rental has the rental price of its country, whatever the service."""
    order_id = desk.order(country=6, service="full", isRental=True)
    assert desk.simulator.order(order_id).price == 1368


def test_options_of_an_order_are_kept(desk: Desk) -> None:
    """What came with an order can be read off it."""
    order = desk.simulator.order(desk.order(realphone=True, ref="me@example.com"))
    assert order.request["ref"] == "me@example.com"
    assert order.request["realphone"] is True
    assert (order.country, order.service, order.kind) == (187, "tg", Kind.RECEIVE)


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/createorder", [], "the body must be a JSON object"),
        ("/createorder", {"service": "tg"}, "no such country"),
        ("/createorder", {"country": 1234, "service": "tg"}, "no such country"),
        ("/createorder", {"country": False, "service": "tg"}, "no such country"),
        ("/createorder", {"country": "187", "service": "tg"}, "no such country"),
        ("/createorder", {"country": 187}, "service must be a text"),
        ("/createorder", {"country": 187, "service": 5}, "service must be a text"),
        ("/createorder", {"country": 187, "service": "zz"}, "no such service"),
        (
            "/createorder",
            {"country": 187, "service": "tg", "isRental": 1},
            "isRental must be true or false",
        ),
        (
            "/createorder",
            {"country": 187, "service": "tg", "isRental": True},
            "no numbers to rent in this country",
        ),
        (
            "/createorder",
            {"country": 187, "service": "tg", "realphone": "yes"},
            "realphone must be true or false",
        ),
        ("/createorder", {"country": 187, "service": "tg", "ref": ""}, "ref must be a text"),
        (
            "/createorder",
            {"country": 187, "service": "tg", "immediate": "no"},
            "immediate must be true or false",
        ),
        (
            "/createorder",
            {"country": 187, "service": "tg", "immediate": True},
            "X-API-Key header is missing.",
        ),
        ("/createsendorder", {"message": "hello"}, "phone must be a text"),
        (
            "/createsendorder",
            {"phone": "015112345678", "message": "hello"},
            "phone must be in E.164 format",
        ),
        ("/createsendorder", {"phone": "+4915112345678"}, "message must be a text"),
        (
            "/createsendorder",
            {"phone": "+4915112345678", "message": "x" * 141},
            "message is longer than 140 characters",
        ),
        (
            "/createsendorder",
            {"phone": "+4915112345678", "message": "x" * 140, "webhookUrl": 1},
            "webhookUrl must be a text",
        ),
        ("/fund", {"amount": 1}, "X-API-Key header is missing."),
    ],
)
def test_bad_bodies(desk: Desk, path: str, body: object, reason: str) -> None:
    """A body that cannot be obeyed is a 400 with a reason, and creates nothing."""
    assert refused(desk.post(path, body)) == (400, reason)
    assert desk.simulator.orders == []


@pytest.mark.parametrize("amount", [None, 0, -5, 1.5, "100", True, 10**9])
def test_bad_amounts(desk: Desk, amount: object) -> None:
    """An amount that is no positive number of satoshis is refused."""
    assert refused(desk.post("/fund", {"amount": amount}, KEY)) == (
        400,
        "amount must be a positive number of satoshis",
    )


def test_prepaid_life(desk: Desk) -> None:
    """A key is funded, pays for orders from its balance, and gets the money back on a cancel."""
    funded = desk.post("/fund", {"amount": 5000}, KEY).json
    assert desk.status(funded["orderId"]) == {"status": "OK", "paid": False}
    desk.simulator.pay(funded["payreq"])
    assert desk.get("/balance", KEY).json == {"status": "OK", "balance": 5000}

    body = {"country": 187, "service": "tg", "immediate": True}
    bought = desk.post("/createorder", body, KEY).json
    assert bought["payreq"] == "paid"
    assert desk.simulator.holder(bought["orderId"]) is Holder.HELD
    sms = {"phone": "+4915112345678", "message": "hi", "immediate": True, "webhookUrl": "http://x"}
    assert desk.post("/createsendorder", sms, KEY).json["payreq"] == "paid"
    assert desk.simulator.balance(KEY) == 500
    assert refused(desk.post("/createorder", body, KEY)) == (400, "insufficient balance")

    desk.clock.suspend(120)
    assert desk.get(f"/cancelorder?orderId={bought['orderId']}").status == 200
    assert desk.simulator.balance(KEY) == 2000
    desk.simulator.credit(KEY, 1)
    assert desk.simulator.balance(KEY) == 2001


def test_history(desk: Desk) -> None:
    """The history has the key's own paid fundings, with the key and a true preimage."""
    mine = desk.post("/fund", {"amount": 5000}, KEY).json
    desk.post("/fund", {"amount": 7}, KEY)
    others = desk.post("/fund", {"amount": 9}, "another key").json
    for order in (mine, others):
        desk.simulator.pay(order["orderId"])
    history = desk.get("/history", KEY).json
    (entry,) = history["orders"]
    assert (history["status"], history["totalAmount"]) == ("OK", 5000)
    preimage = bytes.fromhex(entry.pop("preimage"))
    assert entry.pop("preimageHash") == hashlib.sha256(preimage).hexdigest()
    assert entry == {
        "amount": 5000,
        "createdAt": int(START * 1000),
        "desc": "fund",
        "description": "fund balance",
        "holdinvoice": mine["payreq"],
        "price": 5000,
        "userId": KEY,
    }


@pytest.mark.parametrize("path", ["/balance", "/history"])
def test_missing_key(desk: Desk, path: str) -> None:
    """A prepaid call without a key, or with an empty one, has its documented answer."""
    missing = (400, "X-API-Key header is missing.")
    assert refused(desk.get(path)) == missing
    assert refused(desk.simulator.handle("GET", path, {"x-api-key": ""})) == missing


def test_countries(desk: Desk) -> None:
    """Countries have id and name; `visible` and `rent` are missing on some."""
    countries = desk.get("/getCountries").json
    assert {"id": 999, "eng": "Auto-Select"} in countries
    assert all({"id", "eng"} <= set(country) for country in countries)
    assert 0 in [country["id"] for country in countries]
    assert any("rent" in country for country in countries)


@pytest.mark.parametrize("country", ["187", "0", "Germany", "auto-select"])
def test_services(desk: Desk, country: str) -> None:
    """Services of a country have a code in `value` and a count that is a string."""
    services = desk.get(f"/getnumbersstatus?country={country}").json
    assert [service["value"] for service in services] == ["tg", "wa", "go"]
    assert all(isinstance(service["count"], str) for service in services)


def test_services_of_no_country(desk: Desk) -> None:
    """Services are asked for by country."""
    assert refused(desk.get("/getnumbersstatus")) == (400, "country is missing")
    assert refused(desk.get("/getnumbersstatus?country=5")) == (400, "no such country")
    assert refused(desk.get("/getnumbersstatus?country=")) == (400, "no such country")


def test_rental_countries(desk: Desk) -> None:
    """Rental countries are as documented, the duration a string."""
    assert desk.get("/getRentalCountries?service=full").json[0] == {
        "cc": 6,
        "country": "Indonesia",
        "duration": "2",
        "price": 1368,
    }


def test_prices(desk: Desk) -> None:
    """Prices mix numbers and strings; `query` and `computed` come only if asked for."""
    general = {"receive": "1500", "send": 3000, "rent": 15000, "s4s": "4000"}
    assert desk.get("/price").json == general
    assert desk.get("/price?service=wa").json == {**general, "query": {"service": "wa"}}
    assert desk.get("/price?country=187&service=wa").json == {
        **general,
        "query": {"country": "187", "service": "wa"},
        "computed": {"price": 1800, "country": 187, "description": "one code for wa"},
    }
    assert refused(desk.get("/price?country=187&service=zz")) == (400, "no such service")


@pytest.mark.parametrize(("method", "path"), [("POST", "/cancelorder"), ("GET", "/nowhere")])
def test_no_such_endpoint(desk: Desk, method: str, path: str) -> None:
    """An unknown path, or a known one with the wrong method, is a 404 and changes nothing."""
    order_id = desk.order()
    desk.clock.suspend(120)
    answer = desk.simulator.handle(method, f"{path}?orderId={order_id}")
    assert refused(answer) == (404, "no such endpoint")
    assert desk.simulator.order(order_id).stage is Stage.CREATED


def test_requests_are_recorded(desk: Desk) -> None:
    """Each request is kept with its time, query, headers and body."""
    desk.get("/price?service=tg&service=wa&country=")
    desk.clock.suspend(5)
    desk.post("/createorder", {"country": 187, "service": "tg"}, KEY)
    first, second = desk.simulator.requests
    assert (first.time, first.method, first.path) == (START, "GET", "/price")
    assert first.query == {"service": "tg", "country": ""}
    assert (first.body, first.json, first.api_key) == (b"", None, None)
    assert second.time == START + 5
    assert second.json == {"country": 187, "service": "tg"}
    assert second.api_key == KEY
    assert second.headers["x-api-key"] == KEY
    assert (desk.simulator.count("/price"), desk.simulator.count("/fund")) == (1, 0)


def test_records_are_values(desk: Desk) -> None:
    """Requests, answers and orders are hashable values, equal if all of them is."""
    answers = {desk.get("/"), desk.get("/"), desk.get("/price")}
    order_id = desk.order()
    assert len(answers) == 2
    assert {*desk.simulator.orders, desk.simulator.order(order_id)} == {*desk.simulator.orders}
    assert len(set(desk.simulator.requests)) == 3


def test_no_secret_is_shown_whole(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """Order ids and keys are masked in the repr of requests and in the log."""
    caplog.set_level(logging.INFO, "sms4sats_async.simulator")
    order_id = desk.order()
    masked = f"{order_id[:4]}…{order_id[-4:]}"
    desk.simulator.script("/cancelorder", Fault.reset())
    desk.get(f"/cancelorder?orderId={order_id}", KEY)
    desk.get(f"/{order_id}")
    assert [repr(request) for request in desk.simulator.requests] == [
        "<POST /createorder>",
        f"<GET /cancelorder orderId={masked} key=key-…omer>",
        f"<GET /{masked}>",
    ]
    assert caplog.messages == [
        f"08:00:00 <POST /createorder> -> 200 orderId={masked}",
        f"08:00:00 <GET /cancelorder orderId={masked} key=key-…omer> -> reset (fault: reset)",
        f"08:00:00 <GET /{masked}> -> 404",
    ]


def test_timeline(desk: Desk) -> None:
    """The timeline tells what happened when, and who had the money."""
    order_id = desk.order()
    desk.clock.suspend(3)
    desk.simulator.pay(order_id)
    desk.clock.suspend(120)
    desk.get(f"/cancelorder?orderId={order_id}")
    assert [
        (time - START, text, holder) for time, text, holder in desk.simulator.timeline(order_id)
    ] == [
        (0, "created", Holder.NONE),
        (3, "paid", Holder.HELD),
        (123, "cancelled", Holder.RETURNED),
    ]


def test_the_service_does_not_believe_the_wall_clock(desk: Desk) -> None:
    """Setting the client's wall clock forward does not make an order old enough."""
    order_id = desk.order()
    desk.clock.step_wall(180)
    assert desk.get(f"/cancelorder?orderId={order_id}").status == 500


def test_a_clock_without_a_true_time() -> None:
    """With a clock that knows only the client's protocol, the service lives by `now`."""

    class Plain:
        time = START

        def now(self) -> float:
            return self.time

        def monotonic(self) -> float:
            raise NotImplementedError

        async def sleep(self, seconds: float) -> None:
            raise NotImplementedError

    clock = Plain()
    simulator = Simulator(BY_HAND, clock=clock)
    clock.time += 7
    assert simulator.handle("GET", "/").status == 200
    assert simulator.requests[0].time == START + 7


def test_behaviour_of_one_order(desk: Desk) -> None:
    """One order can be treated differently from the others, and so can all later ones."""
    special, usual = desk.order(), desk.order()
    desk.simulator.behave(special, Behaviour(pay_delay=1))
    desk.simulator.behaviour = Behaviour(pay_delay=2)
    later = desk.order()
    desk.clock.suspend(5)
    paid = [order.order_id for order in desk.simulator.orders if order.paid]
    assert paid == [special, later]
    assert not desk.simulator.order(usual).paid


def test_real_time_by_default() -> None:
    """Without further words, a simulator lives in real time and its wallet waits to be told."""
    simulator = Simulator()
    answer = simulator.handle("POST", "/createorder", body=b'{"country": 187, "service": "tg"}')
    assert simulator.pay(answer.json["payreq"]).holder is Holder.HELD


def test_unknown_orders_are_lookup_errors(desk: Desk) -> None:
    """Every method that takes an id refuses an unknown one, without showing it whole."""
    unknown = "ab" * 32
    simulator = desk.simulator
    for method in (
        simulator.order,
        simulator.holder,
        simulator.timeline,
        simulator.pay,
        simulator.assign_number,
        simulator.deliver_code,
        simulator.refund,
    ):
        with pytest.raises(LookupError, match="no order abab…abab"):
            method(unknown)


def test_many_threads(desk: Desk) -> None:
    """Requests from many threads at once lose no order and no satoshi."""
    desk.simulator.credit(KEY, 100 * 1500)
    body = {"country": 187, "service": "tg", "immediate": True}

    def buy() -> None:
        for _ in range(20):
            desk.post("/createorder", body, KEY)

    threads = [threading.Thread(target=buy) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(desk.simulator.requests) == 160
    assert len(desk.simulator.orders) == 100
    assert desk.simulator.balance(KEY) == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = [
    "country",
    "service",
    "isRental",
    "realphone",
    "ref",
    "immediate",
    "phone",
    "message",
    "webhookUrl",
    "amount",
]
bodies = (
    st.binary()
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(
        st.sampled_from(FIELDS), json_values | st.sampled_from(["tg", 187, 6, "+4915112345678"])
    ).map(lambda value: json.dumps(value).encode())
    | st.just(b"[" * 100_000)
    | st.just(b"9" * 5_000)
    | st.just(b'{"country": 187, "service": "tg", "ref": "\\ud800"}')
)
PATHS = [
    "/",
    "/cancelorder",
    "/orderstatus",
    "/createorder",
    "/createsendorder",
    "/getCountries",
    "/getnumbersstatus",
    "/getRentalCountries",
    "/price",
    "/fund",
    "/balance",
    "/history",
]


@given(
    method=st.sampled_from(["GET", "POST"]) | st.text(),
    path=st.sampled_from(PATHS) | st.text(),
    query=st.none() | st.text() | st.sampled_from(["country=187&service=tg", "country=%ff", "=&&"]),
    headers=st.dictionaries(st.sampled_from(["x-api-key", "X-API-KEY"]) | st.text(), st.text()),
    body=bodies,
)
def test_any_request_has_an_answer(
    method: str, path: str, query: str | None, headers: dict[str, str], body: bytes
) -> None:
    """Whatever is asked, the answer is JSON with a status that HTTP knows, and can be shown."""
    simulator = Simulator()
    target = path if query is None else f"{path}?{query}"
    answer = simulator.handle(method, target, headers, body)
    assert answer.status in {200, 400, 404, 500}
    assert answer.json is not None
    assert repr(simulator.requests[0])
    assert repr(simulator.orders)
