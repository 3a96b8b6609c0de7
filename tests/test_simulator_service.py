"""The endpoints of the simulated service, and the methods of `Simulator`."""

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
    ManualClock,
    Simulator,
    Stage,
    StateError,
)

START = 1_800_000_000.0
KEY = "key-of-a-customer"
REFUND_TEXT = (
    "No available number, payment request is canceled. "
    "Your funds are returned to your wallet automatically."
)
UNABLE = {"status": "error", "reason": "unable to save data"}
NO_AUTOMATIC_EVENTS = Behaviour(number_delay=None, code_delay=None, sms_delay=None)


class Service:
    """A simulator with its clock, and short methods for its endpoints."""

    def __init__(self, behaviour: Behaviour = NO_AUTOMATIC_EVENTS) -> None:
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
def service() -> Service:
    return Service()


def rejection(answer: Answer) -> tuple[int, str]:
    """Return status and reason of an error."""
    assert answer.json["status"] == "error"
    return answer.status, answer.json["reason"]


def test_root_answers_ok(service: Service) -> None:
    assert service.get("/").json == {"status": "OK"}


def test_status_shows_payment_number_and_code(service: Service) -> None:
    answer = service.post("/createorder", {"country": "united STATES", "service": "tg"})
    order_id, payreq = answer.json["orderId"], answer.json["payreq"]
    assert answer.json["status"] == "OK"
    assert len(order_id) == 64
    assert payreq.startswith("lnbcrt15u1")
    assert service.status(order_id) == {"status": "OK", "paid": False}

    service.simulator.pay(payreq)
    assert service.status(order_id) == {"status": "OK", "paid": True}
    assert service.simulator.held_orders() == [service.simulator.order(order_id)]

    service.simulator.assign_number(order_id, "+15551234567")
    waiting = service.status(order_id)
    assert waiting == {
        "status": "OK",
        "paid": True,
        "id": service.simulator.order(order_id).reference,
        "number": "+15551234567",
        "timestamp": int(START * 1000),
        "country": 187,
    }
    assert isinstance(waiting["id"], int)

    service.simulator.deliver_code(order_id, "012345")
    assert service.status(order_id) == {**waiting, "code": "012345", "service": "tg"}
    assert service.simulator.holder(order_id) is Holder.SETTLED
    assert service.simulator.held_orders() == []


def test_deliver_code_assigns_a_number_first(service: Service) -> None:
    order_id = service.order()
    with pytest.raises(StateError):
        service.simulator.deliver_code(order_id)
    service.simulator.pay(order_id)
    service.simulator.deliver_code(order_id)
    assert service.status(order_id)["code"] == "012345"
    assert service.status(order_id)["number"].startswith("+1555")


@pytest.mark.parametrize(
    ("code", "shown"),
    [("012345", 12345), ("G-1234", "G-1234"), ("9" * 16, "9" * 16), ("٣", "٣")],
)
def test_json_numbers_makes_a_number_of_digits(code: str, shown: object) -> None:
    service = Service(Behaviour(json_numbers=True))
    order_id = service.order()
    service.simulator.pay(order_id)
    service.simulator.assign_number(order_id, "+15551234567")
    service.simulator.deliver_code(order_id, code)
    status = service.status(order_id)
    assert (status["code"], status["number"]) == (shown, 15551234567)


def test_cancel_after_two_minutes_refunds(service: Service) -> None:
    order_id = service.order()
    service.simulator.pay(order_id)
    service.clock.suspend(120)
    assert service.get(f"/cancelorder?orderId={order_id}").json == {"status": "OK"}
    assert service.simulator.holder(order_id) is Holder.REFUNDED
    assert service.status(order_id) == {"status": "OK", "paid": True, "error": REFUND_TEXT}


def test_status_can_stay_unchanged_after_a_cancel() -> None:
    service = Service(Behaviour(status_after_cancel="unchanged", code_delay=None))
    order_id = service.order()
    service.simulator.pay(order_id)
    service.clock.suspend(120)
    before = service.status(order_id)
    assert "number" in before
    assert service.get(f"/cancelorder?orderId={order_id}").status == 200
    assert service.status(order_id) == before


def test_every_refused_cancel_has_the_same_answer(service: Service) -> None:
    early, cancelled, done = service.order(), service.order(), service.order()
    for order_id in (early, cancelled, done):
        service.simulator.pay(order_id)
    too_early = service.get(f"/cancelorder?orderId={early}")
    service.clock.suspend(120)
    service.simulator.deliver_code(done)
    assert service.get(f"/cancelorder?orderId={cancelled}").status == 200
    for answer in (
        too_early,
        service.get(f"/cancelorder?orderId={cancelled}"),
        service.get(f"/cancelorder?orderId={done}"),
        service.get(f"/cancelorder?orderId={'0' * 64}"),
        service.get(f"/cancelorder?orderId={service.send_order()}"),
        service.get("/cancelorder"),
    ):
        assert (answer.status, answer.json) == (500, UNABLE)


def test_behaviour_sets_the_answer_to_a_refused_cancel() -> None:
    service = Service(Behaviour(cancel_refusal_status=400, cancel_refusal_reason="too early"))
    assert rejection(service.get(f"/cancelorder?orderId={service.order()}")) == (400, "too early")


def test_refund_shows_the_documented_error(service: Service) -> None:
    order_id = service.order()
    service.simulator.pay(order_id)
    service.simulator.refund(order_id)
    assert service.status(order_id) == {"status": "OK", "paid": True, "error": REFUND_TEXT}
    assert service.simulator.holder(order_id) is Holder.REFUNDED


def test_status_of_an_unknown_order_is_a_500(service: Service) -> None:
    payreq = service.simulator.order(service.order()).payreq
    assert rejection(service.get("/orderstatus")) == (500, "order not found")
    assert rejection(service.get(f"/orderstatus?orderId={payreq}")) == (500, "order not found")


def test_send_order_settles_when_the_sms_is_sent(service: Service) -> None:
    order_id = service.send_order()
    reference = service.simulator.order(order_id).reference
    assert service.status(order_id) == {
        "status": "OK",
        "paid": False,
        "id": reference,
        "smsStatus": "created",
        "timestamp": int(START * 1000),
    }
    assert str(reference).startswith("SM")
    service.simulator.pay(order_id)
    assert service.status(order_id)["smsStatus"] == "created"
    service.simulator.set_sms_status(order_id, "sent")
    assert service.status(order_id)["smsStatus"] == "sent"
    assert service.simulator.holder(order_id) is Holder.SETTLED
    service.simulator.set_sms_status(order_id, "delivered")
    assert service.status(order_id)["smsStatus"] == "delivered"


def test_paid_sms_can_be_delivered_or_fail_at_once(service: Service) -> None:
    delivered, failed = service.send_order(), service.send_order()
    for order_id in (delivered, failed):
        service.simulator.pay(order_id)
    assert service.simulator.set_sms_status(delivered, "delivered").stage is Stage.DONE
    assert service.simulator.set_sms_status(failed, "failed").holder is Holder.REFUNDED
    assert service.status(failed)["smsStatus"] == "failed"
    with pytest.raises(StateError, match="is not possible"):
        service.simulator.set_sms_status(failed, "sent")
    with pytest.raises(StateError, match="not a send order"):
        service.simulator.set_sms_status(service.order(), "sent")


def test_rental_has_the_rental_price_of_the_country(service: Service) -> None:
    order_id = service.order(country=6, service="full", isRental=True)
    assert service.simulator.order(order_id).price == 1368


def test_order_keeps_the_fields_of_its_request(service: Service) -> None:
    order = service.simulator.order(service.order(realphone=True, ref="me@example.com"))
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
def test_invalid_body_is_a_400_and_creates_no_order(
    service: Service, path: str, body: object, reason: str
) -> None:
    assert rejection(service.post(path, body)) == (400, reason)
    assert service.simulator.orders == []


@pytest.mark.parametrize("amount", [None, 0, -5, 1.5, "100", True, 10**9])
def test_invalid_amount_is_a_400(service: Service, amount: object) -> None:
    assert rejection(service.post("/fund", {"amount": amount}, KEY)) == (
        400,
        "amount must be a positive number of satoshis",
    )


def test_balance_is_funded_spent_and_refunded(service: Service) -> None:
    funded = service.post("/fund", {"amount": 5000}, KEY).json
    assert service.status(funded["orderId"]) == {"status": "OK", "paid": False}
    service.simulator.pay(funded["payreq"])
    assert service.get("/balance", KEY).json == {"status": "OK", "balance": 5000}

    body = {"country": 187, "service": "tg", "immediate": True}
    bought = service.post("/createorder", body, KEY).json
    assert bought["payreq"] == "paid"
    assert service.simulator.holder(bought["orderId"]) is Holder.HELD
    sms = {"phone": "+4915112345678", "message": "hi", "immediate": True, "webhookUrl": "http://x"}
    assert service.post("/createsendorder", sms, KEY).json["payreq"] == "paid"
    assert service.simulator.balance(KEY) == 500
    assert rejection(service.post("/createorder", body, KEY)) == (400, "insufficient balance")

    service.clock.suspend(120)
    assert service.get(f"/cancelorder?orderId={bought['orderId']}").status == 200
    assert service.simulator.balance(KEY) == 2000
    service.simulator.credit(KEY, 1)
    assert service.simulator.balance(KEY) == 2001


def test_history_lists_the_paid_fundings_of_the_key(service: Service) -> None:
    mine = service.post("/fund", {"amount": 5000}, KEY).json
    service.post("/fund", {"amount": 7}, KEY)
    others = service.post("/fund", {"amount": 9}, "another key").json
    for order in (mine, others):
        service.simulator.pay(order["orderId"])
    history = service.get("/history", KEY).json
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
def test_prepaid_call_without_a_key_is_a_400(service: Service, path: str) -> None:
    missing = (400, "X-API-Key header is missing.")
    assert rejection(service.get(path)) == missing
    assert rejection(service.simulator.handle("GET", path, {"x-api-key": ""})) == missing


def test_countries_have_id_and_name(service: Service) -> None:
    countries = service.get("/getCountries").json
    assert {"id": 999, "eng": "Auto-Select"} in countries
    assert all({"id", "eng"} <= set(country) for country in countries)
    assert 0 in [country["id"] for country in countries]
    assert any("rent" in country for country in countries)


@pytest.mark.parametrize("country", ["187", "0", "Germany", "auto-select"])
def test_services_have_a_code_and_a_count_that_is_a_string(service: Service, country: str) -> None:
    services = service.get(f"/getnumbersstatus?country={country}").json
    assert [service["value"] for service in services] == ["tg", "wa", "go"]
    assert all(isinstance(service["count"], str) for service in services)


def test_services_of_an_unknown_country_are_a_400(service: Service) -> None:
    assert rejection(service.get("/getnumbersstatus")) == (400, "country is missing")
    assert rejection(service.get("/getnumbersstatus?country=5")) == (400, "no such country")
    assert rejection(service.get("/getnumbersstatus?country=")) == (400, "no such country")


def test_rental_countries_have_the_documented_fields(service: Service) -> None:
    assert service.get("/getRentalCountries?service=full").json[0] == {
        "cc": 6,
        "country": "Indonesia",
        "duration": "2",
        "price": 1368,
    }


def test_price_adds_query_and_computed_for_a_country_and_service(service: Service) -> None:
    general = {"receive": "1500", "send": 3000, "rent": 15000, "s4s": "4000"}
    assert service.get("/price").json == general
    assert service.get("/price?service=wa").json == {**general, "query": {"service": "wa"}}
    assert service.get("/price?country=187&service=wa").json == {
        **general,
        "query": {"country": "187", "service": "wa"},
        "computed": {"price": 1800, "country": 187, "description": "one code for wa"},
    }
    assert rejection(service.get("/price?country=187&service=zz")) == (400, "no such service")


@pytest.mark.parametrize(("method", "path"), [("POST", "/cancelorder"), ("GET", "/nowhere")])
def test_unknown_endpoint_is_a_404(service: Service, method: str, path: str) -> None:
    order_id = service.order()
    service.clock.suspend(120)
    answer = service.simulator.handle(method, f"{path}?orderId={order_id}")
    assert rejection(answer) == (404, "no such endpoint")
    assert service.simulator.order(order_id).stage is Stage.CREATED


def test_requests_have_time_query_headers_and_body(service: Service) -> None:
    service.get("/price?service=tg&service=wa&country=")
    service.clock.suspend(5)
    service.post("/createorder", {"country": 187, "service": "tg"}, KEY)
    first, second = service.simulator.requests
    assert (first.time, first.method, first.path) == (START, "GET", "/price")
    assert first.query == {"service": "tg", "country": ""}
    assert (first.body, first.json, first.api_key) == (b"", None, None)
    assert second.time == START + 5
    assert second.json == {"country": 187, "service": "tg"}
    assert second.api_key == KEY
    assert second.headers["x-api-key"] == KEY
    assert (service.simulator.count("/price"), service.simulator.count("/fund")) == (1, 0)


def test_requests_answers_and_orders_are_values(service: Service) -> None:
    answers = {service.get("/"), service.get("/"), service.get("/price")}
    order_id = service.order()
    assert len(answers) == 2
    assert {*service.simulator.orders, service.simulator.order(order_id)} == {
        *service.simulator.orders
    }
    assert len(set(service.simulator.requests)) == 3


def test_repr_and_log_mask_order_id_and_key(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sms4sats_async.simulator")
    order_id = service.order()
    masked = f"{order_id[:4]}…{order_id[-4:]}"
    service.simulator.script("/cancelorder", Fault.reset())
    service.get(f"/cancelorder?orderId={order_id}", KEY)
    service.get(f"/{order_id}")
    assert [repr(request) for request in service.simulator.requests] == [
        "<POST /createorder>",
        f"<GET /cancelorder orderId={masked} key=key-…omer>",
        f"<GET /{masked}>",
    ]
    assert caplog.messages == [
        f"08:00:00 <POST /createorder> -> 200 orderId={masked}",
        f"08:00:00 <GET /cancelorder orderId={masked} key=key-…omer> -> reset (fault: reset)",
        f"08:00:00 <GET /{masked}> -> 404",
    ]


def test_timeline_has_time_event_and_holder(service: Service) -> None:
    order_id = service.order()
    service.clock.suspend(3)
    service.simulator.pay(order_id)
    service.clock.suspend(120)
    service.get(f"/cancelorder?orderId={order_id}")
    assert [
        (time - START, text, holder) for time, text, holder in service.simulator.timeline(order_id)
    ] == [
        (0, "created", Holder.NONE),
        (3, "paid", Holder.HELD),
        (123, "cancelled", Holder.REFUNDED),
    ]


def test_setting_the_wall_clock_does_not_change_the_age(service: Service) -> None:
    order_id = service.order()
    service.clock.step_wall(180)
    assert service.get(f"/cancelorder?orderId={order_id}").status == 500


def test_clock_without_true_time_is_read_with_now() -> None:

    class Plain:
        time = START

        def now(self) -> float:
            return self.time

        def monotonic(self) -> float:
            raise NotImplementedError

        async def sleep(self, seconds: float) -> None:
            raise NotImplementedError

    clock = Plain()
    simulator = Simulator(NO_AUTOMATIC_EVENTS, clock=clock)
    clock.time += 7
    assert simulator.handle("GET", "/").status == 200
    assert simulator.requests[0].time == START + 7


def test_set_behaviour_changes_one_order(service: Service) -> None:
    special, usual = service.order(), service.order()
    service.simulator.set_behaviour(special, Behaviour(pay_delay=1))
    service.simulator.behaviour = Behaviour(pay_delay=2)
    later = service.order()
    service.clock.suspend(5)
    paid = [order.order_id for order in service.simulator.orders if order.paid]
    assert paid == [special, later]
    assert not service.simulator.order(usual).paid


def test_simulator_works_without_arguments() -> None:
    simulator = Simulator()
    answer = simulator.handle("POST", "/createorder", body=b'{"country": 187, "service": "tg"}')
    assert simulator.pay(answer.json["payreq"]).holder is Holder.HELD


def test_unknown_order_id_is_a_lookup_error_and_masked(service: Service) -> None:
    unknown = "ab" * 32
    simulator = service.simulator
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


def test_simulator_is_thread_safe(service: Service) -> None:
    service.simulator.credit(KEY, 100 * 1500)
    body = {"country": 187, "service": "tg", "immediate": True}

    def buy() -> None:
        for _ in range(20):
            service.post("/createorder", body, KEY)

    threads = [threading.Thread(target=buy) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(service.simulator.requests) == 160
    assert len(service.simulator.orders) == 100
    assert service.simulator.balance(KEY) == 0


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
def test_every_request_has_an_answer(
    method: str, path: str, query: str | None, headers: dict[str, str], body: bytes
) -> None:
    simulator = Simulator()
    target = path if query is None else f"{path}?{query}"
    answer = simulator.handle(method, target, headers, body)
    assert answer.status in {200, 400, 404, 500}
    assert answer.json is not None
    assert repr(simulator.requests[0])
    assert repr(simulator.orders)
