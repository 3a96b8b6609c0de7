"""The command `sms4sats`, run within the test, against a simulator whose clock jumps.

`CLOCK` is the one thing that is put in the place of what a user gets; no option could do that.
"""

import io
import json
import os
import re
import signal
import socket
import stat
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.from_thread
import attrs
import platformdirs
import pytest
import typer.main

from sms4sats_async import (
    JournalError,
    Order,
    RequestOutcome,
    Sms4SatsClient,
    SqliteJournal,
    TransportError,
)
from sms4sats_async.cli import app as commands
from sms4sats_async.cli import main, session
from sms4sats_async.cli.facts import in_json
from sms4sats_async.simulator import (
    Answer,
    Behaviour,
    Fault,
    Holder,
    ManualClock,
    Simulator,
)
from sms4sats_async.simulator.server import serve

KEY: Final = "key-that-nobody-may-see-5f1c"
STRANGER: Final = "fedcba9876543210" * 4


@attrs.frozen
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def facts(self) -> dict[str, str]:
        """What was printed, a label and a fact in each line."""
        return dict(re.split("  +", line, maxsplit=1) for line in self.out.splitlines())

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What was printed, each line as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def line(self) -> dict[str, Any]:
        """The only line."""
        (line,) = self.lines
        return line


@attrs.frozen
class Shell:
    """Types commands, and has the service on the other side."""

    service: Simulator
    clock: ManualClock
    journal: Path
    captured: pytest.CaptureFixture[str]

    def __call__(self, *words: str) -> Ended:
        code = main(words)
        out, err = self.captured.readouterr()
        return Ended(code, out, err)

    def order(self, *words: str) -> str:
        """Order a number and return the order's id."""
        ended = self("order", "187", "tg", "--json", *words)
        assert ended.code == 0
        order_id = ended.line["order_id"]
        assert isinstance(order_id, str)
        return order_id

    def holder(self, order_id: str) -> Holder:
        return self.service.holder(order_id)

    def ages_at_cancel(self) -> list[float]:
        """How old the only order was each time that it was to be cancelled."""
        (order,) = self.service.orders
        asked = [each.time for each in self.service.requests if each.path == "/cancelorder"]
        return [time - order.created_at for time in asked]


@attrs.define
class Counter:
    """Behind one address, the service of each test."""

    service: Simulator

    async def respond(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        return await self.service.respond(method, target, headers, body)


@pytest.fixture(scope="module")
def counter() -> Iterator[tuple[Counter, str]]:
    """One server for all: to start and stop one takes longer than any test here."""
    counter = Counter(Simulator())
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serve(counter.respond)) as root,
    ):
        yield counter, root


@pytest.fixture
def shell(
    counter: tuple[Counter, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Shell:
    clock = ManualClock()
    service = Simulator(Behaviour(pay_delay=0), clock=clock)
    counter[0].service = service
    journal = tmp_path / "here" / "orders.sqlite"
    monkeypatch.setattr(session, "CLOCK", clock)
    monkeypatch.setenv("SMS4SATS_JOURNAL", str(journal))
    monkeypatch.setenv("SMS4SATS_BASE_URL", counter[1])
    return Shell(service, clock, journal, capsys)


def no_code(**more: Any) -> Behaviour:
    return Behaviour(pay_delay=0, code_delay=None, **more)


# --- prices and places ----------------------------------------------------------------------------


def test_price_shows_satoshis(shell: Shell) -> None:
    assert shell("price").out == (
        "receive       1,500 sat\n"
        "send          3,000 sat\n"
        "rent          15,000 sat\n"
        "platform fee  4,000 sat\n"
    )


def test_price_of_a_service_in_a_country(shell: Shell) -> None:
    assert shell("price", "germany", "tg").facts["price"] == "1,500 sat"
    assert shell("price", "43", "tg", "--json").line["computed"] == {
        "price": 1500,
        "country": 43,
        "description": "one code for tg",
    }


def test_price_of_a_country_alone_says_what_is_missing(shell: Shell) -> None:
    ended = shell("price", "germany")

    assert ended.facts["receive"] == "1,500 sat"
    assert "Name a service too" in ended.err
    assert shell("price").err == shell("price", "germany", "tg").err == ""


def test_countries_are_lines_with_tabs(shell: Shell) -> None:
    lines = shell("countries").out.splitlines()

    assert lines[0] == "999\tAuto-Select\t\t"
    assert "43\tGermany\tyes\tyes" in lines


def test_countries_in_json(shell: Shell) -> None:
    found = shell("countries", "--json").lines

    assert {"id": 0, "name": "Russia", "visible": False, "rentable": None} in found


def test_services_of_a_country_by_name(shell: Shell) -> None:
    assert shell("services", "germany").out.splitlines()[0] == "tg\tTelegram\t412"
    assert [each["code"] for each in shell("services", "43", "--json").lines] == ["tg", "wa", "go"]


# --- an order -------------------------------------------------------------------------------------


def test_order_shows_the_order_and_records_it(shell: Shell) -> None:
    ended = shell("order", "187", "tg")

    (made,) = shell.service.orders
    assert ended.code == 0
    assert ended.facts["to pay"] == "1,500 sat"
    assert ended.facts["order id"] == made.order_id
    assert ended.facts["invoice"] == made.payreq
    assert ended.facts["pay until"].startswith("20")
    assert "What you pay is held" in ended.err
    assert shell("pending", "--json").line["order_id"] == made.order_id


def test_order_in_json_is_one_line(shell: Shell) -> None:
    line = shell("order", "germany", "tg", "--json", "--rental", "--real-phone").line

    (made,) = shell.service.orders
    assert line["order_id"] == made.order_id
    assert line["invoice"] == made.payreq
    assert line["amount_sat"] == made.price
    assert line["expires_at"] > line["created_at"]
    assert made.request["isRental"]
    assert made.request["realphone"]


def test_an_order_from_the_balance_has_no_invoice(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMS4SATS_API_KEY", KEY)
    shell.service.credit(KEY, 5000)

    ended = shell("order", "187", "tg", "--immediate", "--referral", "name@example.com")

    assert ended.code == 0
    assert "It is paid from the balance." in ended.err
    assert "to pay" not in ended.out


def test_an_invoice_without_an_amount_is_pointed_at(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Sms4SatsClient.create_order

    async def strange(*arguments: Any, **options: Any) -> Any:
        return attrs.evolve(await made(*arguments, **options), invoice="lnbc1strange")

    monkeypatch.setattr(Sms4SatsClient, "create_order", strange)

    assert "The invoice has no readable amount" in shell("order", "187", "tg").err


def test_send(shell: Shell) -> None:
    ended = shell("send", "+4915112345678", "hello", "--webhook-url", "https://example.com/x")

    (made,) = shell.service.orders
    assert ended.code == 0
    assert made.request["message"] == "hello"
    assert made.request["webhookUrl"] == "https://example.com/x"
    assert "3,000 sat" in ended.out


def test_status_shows_where_the_order_stands(shell: Shell) -> None:
    order_id = shell.order()
    shell.service.deliver_code(order_id, "001234")

    facts = shell("status", order_id).facts
    assert facts["code"] == "001234"
    assert facts["order id"] == f"{order_id[:4]}…{order_id[-4:]}"
    line = shell("status", order_id, "--json").line
    assert (line["state"], line["money"], line["code"]) == ("code received", "settled", "001234")
    assert "raw" not in line


def test_watch_shows_each_change_once(shell: Shell) -> None:
    order_id = shell.order()

    ended = shell("watch", order_id)

    changes = [line[10:] for line in ended.out.splitlines()]
    number = shell.service.order(order_id).number
    assert changes == [
        "held, money held",
        f"number assigned, money held, number {number}",
        f"code received, money settled, number {number}, code 012345",
    ]
    assert ended.err == ""


# --- the code, or the money back ------------------------------------------------------------------


def test_code_prints_the_code_alone(shell: Shell) -> None:
    ended = shell("code", "187", "tg")

    assert (ended.code, ended.out) == (0, "012345\n")
    assert "invoice" in ended.err
    assert "the code has not arrived yet" in ended.err
    assert shell("pending").out == ""


def test_code_prints_nothing_on_standard_output_after_a_refund(shell: Shell) -> None:
    shell.service.behaviour = no_code()

    ended = shell("code", "187", "tg", "--timeout", "3m")

    (order,) = shell.service.orders
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.endswith("The order is cancelled. The service refunds what was paid.\n")
    assert order.holder is Holder.REFUNDED
    assert shell.ages_at_cancel() == [pytest.approx(180, abs=5)]


def test_code_never_cancels_early(shell: Shell) -> None:
    shell.service.behaviour = no_code()

    assert shell("code", "187", "tg", "--timeout", "0s").code == 0

    assert shell.ages_at_cancel() == [pytest.approx(120, abs=5)]
    assert shell.ages_at_cancel()[0] >= 120


def test_code_in_json_is_the_order_what_becomes_of_it_and_its_end(shell: Shell) -> None:
    """The number is there before the code: somebody has to ask for the code with it."""
    order, held, numbered, received, end = shell("code", "187", "tg", "--json").lines

    assert order["invoice"].startswith("lnbcrt")
    assert held["state"] == "held"
    assert (numbered["state"], numbered["code"]) == ("number assigned", None)
    assert numbered["number"].startswith("+1")
    assert received["state"] == "code received"
    assert {line["order_id"] for line in (held, numbered, received, end)} == {order["order_id"]}
    assert (end["outcome"], end["code"]) == ("code received", "012345")
    assert end["refunded"] is False


def test_the_number_is_shown_before_the_code(shell: Shell) -> None:
    ended = shell("code", "187", "tg")

    (order,) = shell.service.orders
    assert f"number {order.number}, money held" in ended.err


def test_code_in_json_after_a_refund(shell: Shell) -> None:
    shell.service.behaviour = no_code()

    end = shell("code", "187", "tg", "--json").lines[-1]

    assert (end["outcome"], end["code"], end["refunded"]) == ("cancelled", None, True)


def test_a_price_limit_cannot_hold_what_is_paid_at_once(shell: Shell) -> None:
    ended = shell("code", "187", "tg", "--immediate", "--max-price", "1500")

    assert ended.code == 2
    assert "--immediate pays without one" in ended.err
    assert shell.service.requests == []


def test_a_code_that_comes_before_the_cancel_is_printed(shell: Shell) -> None:
    shell.service.behaviour = Behaviour(pay_delay=0, code_delay=100)

    ended = shell("code", "187", "tg", "--timeout", "1m")

    assert (ended.code, ended.out) == (0, "012345\n")


def test_an_order_without_a_number_is_refunded(shell: Shell) -> None:
    shell.service.behaviour = Behaviour(pay_delay=0, number_available=False)

    ended = shell("code", "187", "tg", "--json")

    assert ended.code == 0
    assert ended.lines[-1]["outcome"] == "refunded"


def test_an_invoice_that_asks_for_too_much_is_not_shown(shell: Shell) -> None:
    shell.service.behaviour = Behaviour(pay_delay=None)

    ended = shell("code", "187", "tg", "--max-price", "1,499")

    assert (ended.code, ended.out) == (3, "")
    assert (
        "The invoice is for 1,500 sat, and the limit is 1,499 sat. Nothing was paid." in ended.err
    )
    assert "lnbcrt" not in ended.err
    assert shell("code", "187", "tg", "--max-price", "1500", "--timeout", "0s").code == 0


def test_an_invoice_without_an_amount_is_too_dear(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Sms4SatsClient.create_order

    async def strange(*arguments: Any, **options: Any) -> Any:
        return attrs.evolve(await made(*arguments, **options), invoice="lnbc1strange")

    monkeypatch.setattr(Sms4SatsClient, "create_order", strange)

    ended = shell("code", "187", "tg", "--max-price", "1500", "--json")

    assert ended.code == ended.line["exit_code"] == 3
    assert "has no readable amount" in ended.line["error"]


def test_a_status_that_is_refused_does_not_end_the_wait(shell: Shell) -> None:
    """The wait cannot go on, and the order is not left behind."""
    shell.service.behaviour = no_code()
    shell.service.script("/orderstatus", Fault.http(404))

    ended = shell("code", "187", "tg")

    (order,) = shell.service.orders
    assert (ended.code, ended.out) == (0, "")
    assert order.holder is Holder.REFUNDED


# --- cancel ---------------------------------------------------------------------------------------


def test_cancel_waits_until_it_is_allowed(shell: Shell) -> None:
    order_id = shell.order()
    shell.service.set_behaviour(order_id, no_code())

    ended = shell("cancel", order_id)

    assert ended.code == 0
    assert ended.out == "The order is cancelled. The service refunds what was paid.\n"
    assert "waiting 2:00" in ended.err
    assert shell.ages_at_cancel() == [pytest.approx(120, abs=5)]
    assert shell.holder(order_id) is Holder.REFUNDED


def test_cancel_counts_from_the_journal(shell: Shell) -> None:
    order_id = shell.order()
    shell.service.set_behaviour(order_id, no_code())
    anyio.run(shell.clock.sleep, 90)

    ended = shell("cancel", order_id)

    assert "waiting 0:30" in ended.err
    assert "is unknown" not in ended.err
    assert shell.ages_at_cancel()[0] == pytest.approx(120, abs=5)


@pytest.mark.parametrize("option", ["--age=90s", "--created-at={made}"])
def test_cancel_counts_from_the_given_age(shell: Shell, option: str) -> None:
    order_id = shell.order()
    shell.service.set_behaviour(order_id, no_code())
    made = shell("pending", "--json").line["created_at"]
    anyio.run(shell.clock.sleep, 90)
    shell.journal.unlink()

    ended = shell("cancel", order_id, option.format(made=made))

    assert "waiting 0:30" in ended.err
    assert shell.ages_at_cancel()[0] == pytest.approx(120, abs=5)


def test_cancel_says_that_it_does_not_know_the_age(shell: Shell) -> None:
    order_id = shell.order()
    shell.service.set_behaviour(order_id, no_code())
    shell.journal.unlink()

    ended = shell("cancel", order_id)

    assert ended.code == 0
    assert "The age of the order is unknown" in ended.err


def test_cancel_without_waiting_is_refused_early(shell: Shell) -> None:
    ended = shell("cancel", shell.order(), "--no-wait")

    assert (ended.code, ended.out) == (3, "")
    assert "Error: The service answered HTTP 500: unable to save data (4 attempts)." in ended.err
    assert "The order was not cancelled." in ended.err
    assert "21 minutes after it was created" in ended.err


def test_cancel_without_waiting_works_in_time(shell: Shell) -> None:
    order_id = shell.order()
    shell.service.set_behaviour(order_id, no_code())
    anyio.run(shell.clock.sleep, 120)

    line = shell("cancel", order_id, "--no-wait", "--json").line

    assert (line["outcome"], line["refunded"], line["attempts"]) == ("cancelled", True, 1)


@pytest.mark.parametrize("option", ["--wait", "--no-wait"])
def test_cancel_prints_the_code_that_came_first(shell: Shell, option: str) -> None:
    order_id = shell.order()
    shell.service.deliver_code(order_id, "001234")

    ended = shell("cancel", order_id, option)

    assert ended.code == 0
    assert ended.out == "The code arrived, and the money is settled: 001234\n"


def test_a_cancel_without_an_answer_is_unknown(shell: Shell) -> None:
    order_id = shell.order()
    shell.service.script("/cancelorder", *[Fault.reset(after_change=True)] * 4)
    shell.service.script("/orderstatus", *[Fault.reset()] * 4)

    line = shell("cancel", order_id, "--no-wait", "--json").line

    assert line["exit_code"] == 4
    assert line["error"].endswith("The order may or may not be cancelled.")
    assert "you can safely cancel again" in line["next_step"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--age=1m", "--created-at=2026-11-23T14:03Z"], "mean the same"),
        (["--age=1m", "--no-wait"], "--no-wait does not wait"),
        (["--created-at=2026-11-23T14:03Z", "--no-wait"], "--no-wait does not wait"),
        (["--age=1"], "write it like 90s, 3m or 2m30s"),
        (["--created-at=2026-11-23T14:03"], "names no time zone"),
    ],
)
def test_invalid_options_of_cancel(shell: Shell, options: list[str], complaint: str) -> None:
    ended = shell("cancel", STRANGER, *options)

    assert ended.code == 2
    assert complaint in ended.err
    assert shell.service.requests == []


# --- which order is meant -------------------------------------------------------------------------


def test_an_order_is_named_by_its_beginning_or_as_it_is_shown(shell: Shell) -> None:
    """So that no whole id has to stand in the shell's history."""
    order_id = shell.order()

    for name in (order_id[:6], f"{order_id[:4]}…{order_id[-4:]}", order_id):
        assert shell("status", name, "--json").line["order_id"] == order_id


def test_a_name_that_several_orders_have_is_refused(shell: Shell) -> None:
    shell.order()
    shell.order()

    ended = shell("status", "0000…")

    assert ended.code == 2
    assert "0 orders in the journal have an ID like 0000…." in ended.err


def test_an_order_id_is_read_from_standard_input(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = shell.order()
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{order_id}\n"))

    assert shell("status", "-", "--json").line["order_id"] == order_id


def test_standard_input_without_an_order_id_is_refused(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))

    ended = shell("cancel", "-")

    assert ended.code == 2
    assert "the first line of standard input is empty" in ended.err


def test_ctrl_c_while_it_waits_for_an_order_id(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> str:
        raise KeyboardInterrupt

    stdin = io.StringIO()
    stdin.readline = interrupted  # type: ignore[assignment,method-assign]
    monkeypatch.setattr(sys, "stdin", stdin)

    assert shell("cancel", "-") == Ended(130, "", "")


@pytest.mark.parametrize("way", [KeyboardInterrupt, typer.Abort])
def test_ctrl_c_before_there_is_anything_to_interrupt(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, way: type[BaseException]
) -> None:
    """Which of the two comes depends on typer."""

    def interrupted(*_: object, **_options: object) -> None:
        raise way

    monkeypatch.setattr(commands, "app", interrupted)

    assert shell("price") == Ended(130, "", "")


def test_an_order_of_another_machine_is_taken_as_it_is_named(shell: Shell) -> None:
    ended = shell("status", STRANGER)

    assert ended.code == 3
    assert "order not found" in ended.err
    assert STRANGER not in ended.err
    assert "used as a whole ID" not in ended.err


def test_a_beginning_that_no_order_has_is_pointed_at(shell: Shell) -> None:
    """What a slip of the finger leads to would else look as if the order were lost."""
    order_id = shell.order()

    assert "used as a whole ID" in shell("status", "zzzz").err
    assert "used as a whole ID" not in shell("status", order_id[:4]).err


def test_three_characters_are_too_short_for_an_order_id(shell: Shell) -> None:
    order_id = shell.order()
    requests = len(shell.service.requests)

    ended = shell("cancel", order_id[:3])

    assert ended.code == 2
    assert "at least four characters" in ended.err
    assert len(shell.service.requests) == requests


# --- the journal ----------------------------------------------------------------------------------


def test_the_journal_is_its_owners_alone(shell: Shell) -> None:
    shell.order()

    assert stat.S_IMODE(shell.journal.stat().st_mode) == 0o600
    assert stat.S_IMODE(shell.journal.parent.stat().st_mode) == 0o700


def test_the_journal_is_in_the_platforms_data_folder(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def data_path(name: str, *, appauthor: bool) -> Path:
        assert not appauthor
        return tmp_path / "data" / name

    monkeypatch.delenv("SMS4SATS_JOURNAL")
    monkeypatch.setattr(platformdirs, "user_data_path", data_path)
    shell.order()

    assert (tmp_path / "data" / "sms4sats" / "orders.sqlite").is_file()
    assert not shell.journal.exists()


def test_no_order_is_made_without_a_journal(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMS4SATS_JOURNAL", "/dev/null/orders.sqlite")

    ended = shell("order", "187", "tg")

    assert ended.code == 2
    assert "the journal /dev/null/orders.sqlite cannot be used" in ended.err.lower()
    assert "SMS4SATS_JOURNAL" in ended.err
    assert shell.service.orders == []


def test_the_money_comes_back_without_a_journal(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = shell.order()
    shell.service.set_behaviour(order_id, no_code())
    monkeypatch.setenv("SMS4SATS_JOURNAL", "/dev/null/orders.sqlite")

    ended = shell("cancel", order_id)

    assert ended.code == 0
    assert shell.holder(order_id) is Holder.REFUNDED
    assert ended.err.count("The journal does not record how the order ends: ") == 1


def test_an_order_that_could_not_be_recorded_is_shown(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id is the only handle on it, so it must not be lost with the disk."""
    update = SqliteJournal.update
    writes: list[object] = []

    async def full(self: SqliteJournal, changes: Any, /) -> Any:
        writes.append(changes)
        if len(writes) > 1:
            raise JournalError("the disk is full")
        return await update(self, changes)

    monkeypatch.setattr(SqliteJournal, "update", full)

    shown, end = shell("order", "187", "tg", "--json").lines

    (made,) = shell.service.orders
    assert shown["order_id"] == made.order_id
    assert end["error"] == (
        "The disk is full. The order was created, but the journal does not have it."
    )
    assert end["exit_code"] == 4


# --- pending and resume ---------------------------------------------------------------------------


def test_nothing_is_pending_at_first(shell: Shell) -> None:
    for command in ("pending", "resume"):
        ended = shell(command)
        assert (ended.code, ended.out) == (0, "")
        assert ended.err == "No order is pending.\n"


def test_pending_lists_the_orders_as_lines_with_tabs(shell: Shell) -> None:
    first, second = shell.order(), shell.order()

    lines = [line.split("\t") for line in shell("pending").out.splitlines()]

    assert [line[0] for line in lines] == [first, second]
    assert lines[0][2:] == ["187", "tg", "", ""]


def test_resume_goes_on_with_an_order(shell: Shell) -> None:
    order_id = shell.order()

    ended = shell("resume", order_id[:8])

    assert ended.code == 0
    assert ended.out == (
        f"{order_id[:4]}…{order_id[-4:]}  The code arrived, and the money is settled: 012345\n"
    )
    assert "lnbcrt" in ended.err


def test_resume_goes_on_with_all_that_is_pending(shell: Shell) -> None:
    """A code for the one, the money for the other, and a look at the message."""
    with_a_code, without = shell.order(), shell.order()
    shell.service.set_behaviour(without, no_code())
    message = shell("send", "+4915112345678", "hello", "--json").line["order_id"]

    ended = shell("resume", "--json")

    lines = {line["order_id"]: line for line in ended.lines}  # the last of each
    assert ended.code == 0
    assert lines[with_a_code]["code"] == "012345"
    assert lines[without]["refunded"]
    assert lines[message]["state"] == "message created"
    assert "lnbcrt" not in ended.err
    assert shell.holder(without) is Holder.REFUNDED


def test_resume_asks_for_the_money_of_an_old_order_at_once(shell: Shell) -> None:
    shell.service.behaviour = no_code()
    order_id = shell.order()
    anyio.run(shell.clock.sleep, 400)

    ended = shell("resume")

    assert ended.code == 0
    assert "waiting" not in ended.err
    assert shell.ages_at_cancel() == [pytest.approx(400, abs=1)]
    assert shell.holder(order_id) is Holder.REFUNDED


def test_resume_of_an_order_that_has_ended_shows_where_it_stands(shell: Shell) -> None:
    order_id = shell.order()
    shell("resume")

    ended = shell("resume", order_id)

    assert ended.out.endswith("  The code arrived, and the money is settled: 012345\n")


def test_resume_of_an_order_of_another_machine(shell: Shell) -> None:
    order_id = shell.order()
    shell.journal.unlink()

    assert "012345" in shell("resume", order_id).out


def test_resume_tells_of_each_order_that_failed(shell: Shell) -> None:
    """An order that the service does not know does not disturb the others."""
    first = shell("resume", STRANGER)
    good = shell.order()

    *each, end = shell("resume", "--json").lines
    lines = {line["order_id"]: line for line in each}

    assert first.code == 4
    assert "The order may or may not be cancelled." in first.err
    assert "1 of 1 orders did not end" in first.err
    assert STRANGER not in first.err
    assert lines[good]["code"] == "012345"
    assert lines[STRANGER]["exit_code"] == end["exit_code"] == 4
    assert end["error"] == "1 of 2 orders did not end."


def test_of_several_failures_the_unknown_one_is_the_exit_code(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others can be tried again without looking."""
    orders = [shell.order() for _ in range(3)]
    outcomes = dict(
        zip(
            orders,
            (RequestOutcome.NOT_SENT, RequestOutcome.UNKNOWN, RequestOutcome.REFUSED),
            strict=True,
        )
    )

    async def failing(_client: object, order: Order, **_options: object) -> Any:
        outcome = outcomes[order.order_id]
        raise TransportError("no", operation="cancel_order", request_outcome=outcome)

    monkeypatch.setattr(Sms4SatsClient, "code_or_refund", failing)

    ended = shell("resume", "--json")

    assert sorted(line["exit_code"] for line in ended.lines[:3]) == [3, 4, 5]
    assert ended.code == ended.lines[3]["exit_code"] == 4


def test_an_order_of_another_service_stays_pending_and_is_shown_with_its_root(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = shell.order()
    root = os.environ["SMS4SATS_BASE_URL"]
    monkeypatch.setenv("SMS4SATS_BASE_URL", "http://127.0.0.1:1")

    pending, resumed = shell("pending"), shell("resume")

    assert pending.out.split("\t")[0] == order_id
    assert pending.out.rstrip().endswith(root)
    assert resumed.err == "No order is pending.\n"


# --- the prepaid balance --------------------------------------------------------------------------


@pytest.fixture
def _key(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMS4SATS_API_KEY", KEY)
    shell.service.credit(KEY, 5000)


@pytest.mark.usefixtures("_key")
def test_balance(shell: Shell) -> None:
    assert shell("balance").out == "balance  5,000 sat\n"
    assert shell("balance", "--json").line == {"balance": 5000}


@pytest.mark.parametrize("command", ["order 187 tg", "send +4915112345678 hi"])
def test_a_refused_order_from_the_balance_names_the_balance(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("SMS4SATS_API_KEY", KEY)

    ended = shell(*command.split(), "--immediate")

    assert ended.code == 3
    assert "attempt 1 of 4 failed, no further attempt: " in ended.err
    assert "`sms4sats balance`" in ended.err


@pytest.mark.usefixtures("_key")
def test_fund_says_where_it_shows(shell: Shell) -> None:
    assert "`sms4sats balance` shows it" in shell("fund", "100").err


@pytest.mark.usefixtures("_key")
def test_fund_and_history_show_no_secret(shell: Shell) -> None:
    """The service's own answer holds the key, and proofs of payment."""
    funded = shell("fund", "10,000", "--json").line
    anyio.run(shell.clock.sleep, 1)

    plain, in_json = shell("history"), shell("history", "--json")

    assert (funded["amount"], funded["amount_sat"]) == (10_000, 10_000)
    assert plain.out.split("\t")[1] == "10,000 sat"
    assert plain.err == "10,000 sat in total.\n"
    assert in_json.line["amount"] == 10_000
    for said in (plain, in_json):
        assert KEY not in said.out + said.err
        assert 'preimage"' not in said.out


@pytest.mark.parametrize("command", ["balance", "history", "fund 10", "order 187 tg --immediate"])
def test_without_a_key_nothing_is_sent(shell: Shell, command: str) -> None:
    line = shell(*command.split(), "--json").line

    assert line["exit_code"] == 2
    assert line["error"] == "This call needs an API key. Nothing was sent."
    assert shell.service.requests == []


# --- how it ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("nonsense", "No such command"),
        ("order 187", "Missing argument"),
        ("price --nonsense", "No such option"),
        ("fund many", "write it like 1500"),
        ("code 187 tg --timeout 5", "write it like 90s, 3m or 2m30s"),
        ("services nowhere", "see `sms4sats countries`"),
        ("send 0151 hello", "Phone must be in E.164"),
        ("price --base-url here", "--base-url must be an absolute"),
    ],
)
def test_an_invalid_command_is_2(shell: Shell, command: str, complaint: str) -> None:
    plain, in_json = shell(*command.split()), shell(*command.split(), "--json")

    assert plain.code == in_json.code == in_json.line["exit_code"] == 2
    assert complaint in plain.err
    assert complaint in in_json.line["error"]
    assert plain.out == in_json.err == ""


def test_a_refusal_is_3(shell: Shell) -> None:
    ended = shell("order", "187", "nonsense")

    assert ended.code == 3
    assert "No order was created and no money moved." in ended.err


def test_an_order_that_may_have_been_made_is_4(shell: Shell) -> None:
    shell.service.script("/createorder", Fault.reset(after_change=True))

    ended = shell("code", "187", "tg")

    assert ended.code == 4
    assert "An order may exist, but its invoice did not arrive" in ended.err
    assert len(shell.service.orders) == 1


def test_a_service_that_cannot_be_reached_is_5(shell: Shell) -> None:
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        plain = shell("price", "--base-url", url)
        ordered = shell("order", "187", "tg", "--json", "--base-url", url).line

    assert plain.code == ordered["exit_code"] == 5
    assert "price attempt 1 of 4 failed" in plain.err
    assert ordered["error"].endswith("No order was created and no money moved.")


def test_a_mistake_of_the_program_is_4_and_no_traceback(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> Any:
        raise KeyError(KEY)

    monkeypatch.setattr(Sms4SatsClient, "get_price", broken)

    ended = shell("price")

    assert ended.code == 4
    assert ended.err.startswith("Error: The program failed (KeyError in test_cli.py")
    assert KEY not in ended.err
    assert "Traceback" not in ended.err


# --- interrupted ----------------------------------------------------------------------------------


class Interrupting(ManualClock):
    """A clock at which the terminal's user loses patience, at his so-many-eth wait."""

    def __init__(self, shell: Shell, at: int, sign: signal.Signals) -> None:
        super().__init__(shell.clock.now())
        self._at = at
        self._sign = sign
        shell.service.clock = self

    async def sleep(self, seconds: float) -> None:
        self._at -= 1
        if self._at == 0:
            signal.raise_signal(self._sign)
            await anyio.sleep_forever()
        await super().sleep(seconds)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("command", "at", "said"),
    [
        pytest.param(
            "cancel {order_id}",
            2,
            "Interrupted. The order is open. What was paid for it is held.",
            id="before-the-cancel",
        ),
        pytest.param(
            "cancel {order_id} --no-wait",
            1,
            "Interrupted. A cancel was under way",
            id="between-two-attempts",
        ),
        pytest.param("watch {order_id}", 1, "Interrupted. Nothing was changed.", id="watching"),
        pytest.param("resume", 1, "Interrupted. Orders that have not ended stay", id="resuming"),
        pytest.param("code 187 tg", 1, "Interrupted. The order is open.", id="waiting"),
    ],
)
def test_an_interruption_says_what_happens_to_the_money(
    shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
    *,
    command: str,
    at: int,
    said: str,
    sign: signal.Signals,
) -> None:
    """Ctrl-C and SIGTERM alike, with 130."""
    shell.service.behaviour = no_code()
    order_id = shell.order()
    monkeypatch.setattr(session, "CLOCK", Interrupting(shell, at, sign))
    before = signal.getsignal(signal.SIGTERM)

    ended = shell(*command.format(order_id=order_id).split())

    assert ended.code == 130
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert signal.getsignal(signal.SIGTERM) is before
    assert ("refunds the order automatically at " in ended.err) is ("watch" not in command)


@pytest.fixture
def _ctrl_c_ignored() -> Iterator[None]:
    """As a script starts its background jobs."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_ignored")
def test_sigterm_is_an_interruption_where_ctrl_c_is_ignored(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.service.behaviour = no_code()
    monkeypatch.setattr(session, "CLOCK", Interrupting(shell, 1, signal.SIGTERM))

    ended = shell("code", "187", "tg")

    assert (ended.code, ended.out) == (130, "")
    assert "Interrupted. The order is open." in ended.err
    assert len(shell.service.held_orders()) == 1
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_loop_runs_is_an_interruption_too(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, sign: signal.Signals
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def interrupted(*_: object) -> None:
        signal.raise_signal(sign)

    monkeypatch.setattr(anyio, "run", interrupted)

    ended = shell("order", "187", "tg")

    assert (ended.code, ended.out) == (130, "")
    assert ended.err.startswith("Interrupted. ")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert shell.service.count("/createorder") == 0


def interrupted_in_the_midst_of_a_step(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, *signs: signal.Signals
) -> None:
    """Send signals when a scope is about to be left, and see that the order was left at once."""
    shell.service.behaviour = no_code()

    async def kind_of_scope() -> type[anyio.CancelScope]:
        return type(anyio.CancelScope())

    scope = anyio.run(kind_of_scope)
    leave = scope.__exit__
    due = False

    def interrupted_leave(self: Any, *how: Any) -> bool:
        nonlocal due
        if due:
            due = False
            for sign in signs:
                signal.raise_signal(sign)
        return leave(self, *how)

    class Looking(ManualClock):
        async def sleep(self, seconds: float) -> None:
            nonlocal due
            due = True
            await super().sleep(seconds)

    shell.service.clock = Looking(shell.clock.now())
    monkeypatch.setattr(session, "CLOCK", shell.service.clock)
    monkeypatch.setattr(scope, "__exit__", interrupted_leave)

    ended = shell("code", "187", "tg")

    assert (ended.code, ended.out) == (130, "")
    assert "Interrupted. The order is open." in ended.err
    assert "Traceback" not in ended.err
    assert shell.service.count("/cancelorder") == 0


def test_two_signals_in_the_midst_of_a_step_leave_nothing_in_disorder(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_in_the_midst_of_a_step(shell, monkeypatch, signal.SIGINT, signal.SIGINT)


@pytest.mark.usefixtures("_ctrl_c_ignored")
def test_nor_does_sigterm_where_ctrl_c_is_ignored(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_in_the_midst_of_a_step(shell, monkeypatch, signal.SIGTERM)


def test_an_interruption_in_json_is_an_error_of_its_own(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = shell.order()
    monkeypatch.setattr(session, "CLOCK", Interrupting(shell, 1, signal.SIGINT))

    status, end = shell("cancel", order_id, "--json").lines

    assert status["state"] == "held"
    assert end["exit_code"] == 130
    assert end["error"].startswith("Interrupted. The order is open.")


def test_an_interruption_while_ordering_says_that_an_order_may_exist(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def create_order(*_: Any, **_options: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep_forever()

    monkeypatch.setattr(Sms4SatsClient, "create_order", create_order)

    ended = shell("code", "187", "tg")

    assert (ended.code, ended.out) == (130, "")
    assert ended.err.startswith("Interrupted. An order may exist, but its invoice did not arrive")


def test_a_wait_that_was_interrupted_goes_on_with_resume(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.service.behaviour = Behaviour(pay_delay=0, code_delay=400)
    monkeypatch.setattr(session, "CLOCK", Interrupting(shell, 10, signal.SIGINT))
    interrupted = shell("code", "187", "tg", "--timeout", "10m")
    monkeypatch.setattr(session, "CLOCK", shell.service.clock)

    resumed = shell("resume")

    assert interrupted.code == 130
    assert resumed.out.endswith("  The code arrived, and the money is settled: 012345\n")


def test_an_interruption_during_the_cancel_says_that_the_end_is_unknown(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InterruptingTheCancel(ManualClock):
        async def sleep(self, seconds: float) -> None:
            if shell.service.count("/cancelorder"):
                signal.raise_signal(signal.SIGINT)
                await anyio.sleep_forever()
            await super().sleep(seconds)

    shell.service.behaviour = no_code()
    shell.service.script("/cancelorder", Fault.unable_to_save_data())
    shell.service.clock = InterruptingTheCancel(shell.clock.now())
    monkeypatch.setattr(session, "CLOCK", shell.service.clock)

    ended = shell("code", "187", "tg", "--timeout", "0s")

    assert ended.code == 130
    assert "the order may or may not be cancelled" in ended.err


@pytest.mark.parametrize("named", ["~no-such-user/j", None])
def test_an_unknown_journal_folder_is_a_usage_error(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    def data_path(_name: str, *, appauthor: bool) -> Path:
        assert not appauthor
        return Path("~/.local/share/sms4sats")

    monkeypatch.delenv("SMS4SATS_JOURNAL")
    monkeypatch.setattr(platformdirs, "user_data_path", data_path)
    if named is not None:
        monkeypatch.setenv("SMS4SATS_JOURNAL", named)

    ended = shell("pending")

    assert ended.code == 2
    assert "Name a file in SMS4SATS_JOURNAL. Nothing was sent." in ended.err
    assert shell("price").code == 0


def test_spans_and_errors_have_a_json_form() -> None:
    known = {"minimum_age": timedelta(minutes=2), "error": ValueError("x")}

    assert json.loads(in_json(known)) == {"minimum_age": 120.0, "error": "x"}


# --- an output without a reader ------------------------------------------------------------------


class Gone(io.StringIO):
    """A standard output whose reader has gone, or whose disk is full."""

    def __init__(self, error: OSError, file: Path) -> None:
        super().__init__()
        self._error = error
        self._file = file.open("w", encoding="utf-8")

    def write(self, _text: str) -> int:
        raise self._error

    def flush(self) -> None:
        raise self._error

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


@pytest.mark.parametrize("option", ["", "--json"])
@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        pytest.param(BrokenPipeError(), 130, "Interrupted. The order is open.", id="reader"),
        pytest.param(
            OSError(28, "No space left on device"),
            4,
            "Error: Not all of the output was written: No space left on device.",
            id="disk",
        ),
    ],
)
def test_an_output_without_a_reader(
    shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *,
    error: OSError,
    code: int,
    said: str,
    option: str,
) -> None:
    """The order is in the journal; and nothing is left for Python to complain of at the end."""
    gone = Gone(error, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", gone)
        ended = shell(*f"order 187 tg {option}".split())

    assert os.fstat(gone.fileno()).st_rdev == Path(os.devnull).stat().st_rdev
    gone.close()
    assert ended.code == code
    assert said in ended.err
    assert len(shell("pending").out.splitlines()) == 1


def test_a_reader_of_the_notes_that_is_gone_does_not_end_the_command(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = Gone(BrokenPipeError(), tmp_path / "err")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", gone)
        ended = shell("code", "187", "tg")

    gone.close()
    assert (ended.code, ended.out) == (0, "012345\n")


def test_a_result_of_many_without_a_reader(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error of one of several tasks is shown like that of a single one."""
    shell.order()
    shell.order()
    gone = Gone(OSError(28, "No space left on device"), tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", gone)
        ended = shell("resume")

    gone.close()
    assert ended.code == 4
    assert "Error: Not all of the output was written: No space left on device." in ended.err


def test_an_output_without_a_reader_from_the_start(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If the JSON cannot be written, the error is shown on standard error."""
    gone = Gone(OSError(28, "No space left on device"), tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", gone)
        ended = shell("simulator", "--json", "--speed", "0")

    gone.close()
    assert ended.code == 2
    assert ended.err.startswith("Error: The simulator cannot start: ")


def test_streams_that_were_closed_are_as_good_as_the_null_device(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `sms4sats - >&- <&-` in a shell; no traceback comes of it."""
    with monkeypatch.context() as patch:
        for name in ("stdin", "stdout", "stderr"):
            patch.setattr(sys, name, None)
        codes = [main(["order", "187", "tg"]), main(["status", "-"])]
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            stream.close()

    assert codes == [0, 2]
    assert len(shell.service.orders) == 1


def test_a_mistake_before_the_work_is_no_traceback(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> str:
        raise KeyError

    stdin = io.StringIO()
    stdin.readline = broken  # type: ignore[assignment,method-assign]
    monkeypatch.setattr(sys, "stdin", stdin)

    ended = shell("status", "-", "--json")

    assert ended.code == 4
    assert ended.line["error"].startswith("The program failed (KeyError in test_cli.py")


# --- on this machine ------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["", "--json"])
def test_demo(shell: Shell, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    def clock(_speed: float) -> ManualClock:
        return ManualClock()

    monkeypatch.setattr("sms4sats_async.simulator.ScaledClock", clock)

    ended = shell("demo", *option.split())

    story = ended.err if option else ended.out
    assert ended.code == 0
    assert "Outcome: cancelled after 3 attempts" in story
    if option:
        assert ended.line["refunded"] is True


# --- the program ----------------------------------------------------------------------------------


def options_of_all() -> Iterator[tuple[str, str]]:
    group: Any = typer.main.get_command(commands.app)
    for name, command in group.commands.items():
        for parameter in command.params:
            yield name, " ".join(parameter.opts)


def test_every_command_that_was_promised_is_there_and_speaks_json() -> None:
    promised = """
        price countries services order status watch code cancel send balance history fund pending
        resume simulator demo
    """
    assert {name for name, option in options_of_all() if option == "--json"} == {*promised.split()}


def test_the_key_is_never_an_argument() -> None:
    """What is typed stands in the shell's history and in the list of processes."""
    assert [each for each in options_of_all() if "key" in each[1] or "token" in each[1]] == []


def test_the_version_is_that_of_the_package(shell: Shell) -> None:
    ended = shell("--version")

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"sms4sats {version('sms4sats-async')}\n"


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands_by_what_they_are_for(shell: Shell, words: list[str]) -> None:
    ended = shell(*words)

    headings = ["Prices and places:", "Orders:", "Prepaid balance:", "On this machine:"]
    places = [ended.out.index(heading) for heading in headings]
    assert ended.code == 0
    assert places == sorted(places)
    assert "SMS4SATS_API_KEY" in ended.out


@pytest.mark.parametrize("command", sorted({name for name, _ in options_of_all()}))
def test_every_command_explains_itself(shell: Shell, command: str) -> None:
    ended = shell(command, "--help")

    assert ended.code == 0
    assert f"Usage: sms4sats {command} " in ended.out
    assert "--json" in ended.out


@pytest.mark.parametrize("missing", ["typer", "platformdirs"])
def test_without_the_extra_it_says_what_to_install(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for name in [name for name in sys.modules if name.startswith("sms4sats_async.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)

    ended = shell("price")

    assert ended.code == 2
    assert ended.err == (
        f"Error: The command needs {missing}, which is not installed.\n"
        "Install it with pip install 'sms4sats-async[cli]'.\n"
    )
