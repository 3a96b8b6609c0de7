"""The command `sms4sats`: what each command does and prints."""

import contextlib
import io
import json
import os
import signal
import socket
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import anyio
import attrs
import platformdirs
import pytest
import typer.main

from sms4sats_async import (
    JournalEntry,
    JournalError,
    Order,
    OrderResult,
    RequestOutcome,
    Sms4SatsClient,
    SqliteJournal,
    TransportError,
)
from sms4sats_async.cli import app as commands
from sms4sats_async.cli import main, session
from sms4sats_async.journal.entry import JournalChange
from sms4sats_async.simulator import Behaviour, Fault, Holder, ManualClock

from .command_line import Ended, Server, Shell, new_shell, no_code, served, short
from .simulated import turns

KEY: Final = "a-secret-key-5f1c"
UNKNOWN_ID: Final = "fedcba9876543210" * 4
SIGNALS: Final = pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with served() as server:
        yield server


@pytest.fixture
def shell(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Shell:
    return new_shell(server, monkeypatch, tmp_path, capsys)


@pytest.fixture
def _key(shell: Shell) -> None:
    shell.patch.setenv("SMS4SATS_API_KEY", KEY)
    shell.service.credit(KEY, 5000)


def changed_invoice(shell: Shell, invoice: str) -> None:
    """Let every order have this invoice."""
    create = Sms4SatsClient.create_order

    async def create_order(*arguments: Any, **options: Any) -> Any:
        return attrs.evolve(await create(*arguments, **options), invoice=invoice)

    shell.patch.setattr(Sms4SatsClient, "create_order", create_order)


# --- prices and places ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "out"),
    [
        pytest.param(
            "price",
            (
                "receive       1,500 sat\n"
                "send          3,000 sat\n"
                "rent          15,000 sat\n"
                "platform fee  4,000 sat\n"
            ),
            id="price",
        ),
        pytest.param("services germany", "tg\tTelegram\t412\n", id="services"),
        pytest.param("countries", "999\tAuto-Select\t\t\n", id="countries"),
    ],
)
def test_prices_and_places_are_lines(shell: Shell, command: str, out: str) -> None:
    assert shell(*command.split()).out.startswith(out)


def test_prices_and_places_in_json(shell: Shell) -> None:
    computed = shell("price", "43", "tg", "--json").line["computed"]
    services = shell("services", "43", "--json").lines
    countries = shell("countries", "--json").lines

    assert computed == {"price": 1500, "country": 43, "description": "one code for tg"}
    assert [each["code"] for each in services] == ["tg", "wa", "go"]
    assert {"id": 0, "name": "Russia", "visible": False, "rentable": None} in countries


def test_the_price_of_a_country_needs_a_service(shell: Shell) -> None:
    assert "Name a service too" in shell("price", "germany").err
    assert shell("price", "germany", "tg").facts["price"] == "1,500 sat"
    assert shell("price").err == shell("price", "germany", "tg").err == ""


# --- an order -------------------------------------------------------------------------------------


def test_order_shows_and_records_the_order(shell: Shell) -> None:
    ended = shell("order", "187", "tg")

    (made,) = shell.service.orders
    assert ended.code == 0
    assert ended.facts["to pay"] == "1,500 sat"
    assert ended.facts["order ID"] == made.order_id
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


@pytest.mark.usefixtures("_key")
def test_an_order_from_the_balance_has_no_invoice(shell: Shell) -> None:
    ended = shell("order", "187", "tg", "--immediate", "--referral", "name@example.com")

    assert ended.code == 0
    assert "It is paid from the balance." in ended.err
    assert "to pay" not in ended.out


def test_an_unreadable_amount_is_noted(shell: Shell) -> None:
    changed_invoice(shell, "lnbc1strange")

    assert "The invoice has no readable amount." in shell("order", "187", "tg").err


def test_send_orders_a_message(shell: Shell) -> None:
    ended = shell("send", "+4915112345678", "hello", "--webhook-url", "https://example.com/x")

    (made,) = shell.service.orders
    assert ended.code == 0
    assert made.request["message"] == "hello"
    assert made.request["webhookUrl"] == "https://example.com/x"
    assert "3,000 sat" in ended.out


def test_status_shows_money_number_and_code(shell: Shell) -> None:
    order_id = shell.order()
    shell.service.deliver_code(order_id, "001234")

    facts = shell("status", order_id).facts
    assert facts["code"] == "001234"
    assert facts["order ID"] == short(order_id)
    line = shell("status", order_id, "--json").line
    assert (line["state"], line["money"], line["code"]) == ("code received", "settled", "001234")
    assert "raw" not in line


def test_watch_shows_each_change_once(shell: Shell) -> None:
    order_id = shell.order()

    ended = shell("watch", order_id)

    number = shell.service.order(order_id).number
    assert [line[10:] for line in ended.out.splitlines()] == [
        "held, money held",
        f"number assigned, money held, number {number}",
        f"code received, money settled, number {number}, code 012345",
    ]
    assert ended.err == ""


# --- the code or the refund -----------------------------------------------------------------------


def test_code_prints_the_code_alone(shell: Shell) -> None:
    ended = shell("code", "187", "tg")

    (order,) = shell.service.orders
    assert (ended.code, ended.out) == (0, "012345\n")
    for shown in ("invoice", "the code has not arrived yet", f"number {order.number}, money held"):
        assert shown in ended.err
    assert shell("pending").out == ""


@pytest.mark.parametrize(
    ("behaviour", "end"),
    [
        (no_code(), "The order is cancelled. The service refunds what was paid."),
        (
            Behaviour(pay_delay=0, number_available=False),
            "The service refunded the order. No code will arrive.",
        ),
    ],
    ids=["cancelled", "no-number"],
)
def test_code_prints_nothing_on_standard_output_after_a_refund(
    shell: Shell, behaviour: Behaviour, end: str
) -> None:
    shell.service.behaviour = behaviour

    ended = shell("code", "187", "tg", "--timeout", "3m")

    assert (ended.code, ended.out) == (0, "")
    assert ended.err.endswith(f"{end}\n")
    assert shell.service.held_orders() == []


@pytest.mark.parametrize(("timeout", "age"), [("0s", 120), ("3m", 180), ("10m", 600)])
def test_code_cancels_after_the_timeout_and_never_early(
    shell: Shell, timeout: str, age: float
) -> None:
    shell.service.behaviour = no_code()

    assert shell("code", "187", "tg", "--timeout", timeout).code == 0

    assert shell.cancel_ages() == [pytest.approx(age, abs=5)]
    assert shell.cancel_ages()[0] >= age


@pytest.mark.parametrize(
    ("timeout", "code_after"), [("1m", 100), ("0s", 119.5)], ids=["before-cancel", "during-cancel"]
)
def test_a_code_that_arrives_late_is_printed(shell: Shell, timeout: str, code_after: float) -> None:
    shell.service.behaviour = Behaviour(pay_delay=0, number_delay=0, code_delay=code_after)

    ended = shell("code", "187", "tg", "--timeout", timeout)

    assert (ended.code, ended.out) == (0, "012345\n")


def test_code_in_json_is_the_order_each_change_and_the_result(shell: Shell) -> None:
    order, held, numbered, received, end = shell("code", "187", "tg", "--json").lines

    assert order["invoice"].startswith("lnbcrt")
    assert held["state"] == "held"
    assert (numbered["state"], numbered["code"]) == ("number assigned", None)
    assert numbered["number"].startswith("+1")
    assert received["state"] == "code received"
    assert {line["order_id"] for line in (held, numbered, received, end)} == {order["order_id"]}
    assert (end["outcome"], end["code"], end["refunded"]) == ("code received", "012345", False)


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [(no_code(), "cancelled"), (Behaviour(pay_delay=0, number_available=False), "refunded")],
    ids=["cancelled", "no-number"],
)
def test_a_refund_in_json(shell: Shell, behaviour: Behaviour, outcome: str) -> None:
    shell.service.behaviour = behaviour

    end = shell("code", "187", "tg", "--json").lines[-1]

    assert (end["outcome"], end["code"], end["refunded"]) == (outcome, None, True)


@pytest.mark.parametrize(
    ("limit", "invoice", "problem"),
    [
        ("1,499", None, "The invoice is for 1,500 sat, and the limit is 1,499 sat."),
        ("1500", "lnbc1x", "The invoice has no readable amount, and the limit is 1,500 sat."),
    ],
)
def test_an_invoice_over_the_limit_is_not_shown(
    shell: Shell, limit: str, invoice: str | None, problem: str
) -> None:
    shell.service.behaviour = Behaviour(pay_delay=None)
    if invoice is not None:
        changed_invoice(shell, invoice)

    ended = shell("code", "187", "tg", "--max-price", limit)

    assert (ended.code, ended.out) == (3, "")
    assert f"Error: {problem} The invoice was not shown, so nothing was paid." in ended.err
    assert "lnbc" not in ended.err


def test_an_invoice_within_the_limit_is_shown(shell: Shell) -> None:
    ended = shell("code", "187", "tg", "--max-price", "1500")

    assert ended.code == 0
    assert "lnbcrt" in ended.err


def test_a_lost_poll_does_not_end_the_wait(shell: Shell) -> None:
    shell.service.script("/orderstatus", Fault.http(404))

    assert shell("code", "187", "tg").out == "012345\n"


# --- cancel ---------------------------------------------------------------------------------------

CANCELLED: Final = "The order is cancelled. The service refunds what was paid.\n"


def test_cancel_waits_until_it_is_allowed(shell: Shell) -> None:
    order_id = shell.order(no_code())

    ended = shell("cancel", order_id)

    assert (ended.code, ended.out) == (0, CANCELLED)
    assert "waiting 2:00" in ended.err
    assert shell.cancel_ages() == [pytest.approx(120, abs=5)]
    assert shell.holder(order_id) is Holder.REFUNDED


@pytest.mark.parametrize("option", ["", "--age=90s", "--created-at={created_at}"])
def test_cancel_counts_from_the_journal_or_from_an_option(shell: Shell, option: str) -> None:
    order_id = shell.order(no_code())
    created_at = shell("pending", "--json").line["created_at"]
    shell.wait(90)
    if option:
        shell.journal.unlink()

    ended = shell("cancel", order_id, *option.format(created_at=created_at).split())

    assert "waiting 0:30" in ended.err
    assert "unknown" not in ended.err
    assert shell.cancel_ages()[0] == pytest.approx(120, abs=5)


def test_cancel_notes_that_the_age_is_unknown(shell: Shell) -> None:
    order_id = shell.order(no_code())
    shell.journal.unlink()

    ended = shell("cancel", order_id)

    assert ended.code == 0
    assert "The age of the order is unknown" in ended.err


def test_cancel_without_waiting_is_refused_early(shell: Shell) -> None:
    ended = shell("cancel", shell.order(), "--no-wait")

    assert (ended.code, ended.out) == (3, "")
    assert "Error: The service answered HTTP 500: unable to save data (4 attempts). " in ended.err
    assert "the service refunds the order automatically at 20" in ended.err


def test_cancel_without_waiting_works_after_two_minutes(shell: Shell) -> None:
    order_id = shell.order(no_code())
    shell.wait(120)

    line = shell("cancel", order_id, "--no-wait", "--json").line

    assert (line["outcome"], line["refunded"], line["attempts"]) == ("cancelled", True, 1)


@pytest.mark.parametrize("option", ["--wait", "--no-wait"])
def test_cancel_prints_a_code_that_arrived_first(shell: Shell, option: str) -> None:
    order_id = shell.order()
    shell.service.deliver_code(order_id, "001234")

    ended = shell("cancel", order_id, option)

    assert ended.code == 0
    assert ended.out == "The code arrived, and the money is settled. Code: 001234\n"


def test_a_cancel_without_an_answer_is_unknown(shell: Shell) -> None:
    order_id = shell.order()
    shell.service.script("/cancelorder", *[Fault.reset(after_change=True)] * 4)
    shell.service.script("/orderstatus", *[Fault.reset()] * 4)

    line = shell("cancel", order_id, "--no-wait", "--json").line

    assert line["exit_code"] == 4
    assert line["error"].endswith(" The order may or may not be cancelled.")
    assert "safely run `sms4sats cancel` again" in line["next_step"]


def test_an_escape_sequence_in_a_code_does_not_reach_the_terminal(shell: Shell) -> None:
    evil = "1234\x1b]0;owned\x07\x1b[2J\r\nx"
    shell.service.behaviour = Behaviour(pay_delay=0, code=evil)
    order_id = shell.order()

    printed = [shell("code", "187", "tg").out, shell("cancel", order_id).out]
    printed += [shell("status", order_id).out, shell("watch", order_id).out]
    as_it_came = shell("cancel", order_id, "--json").line["code"]

    for text in printed:
        assert "1234�]0;owned��[2J��x\n" in text
        assert "\x1b" not in text
    assert as_it_came == evil


# --- how an order is named ------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{0}", "{1}", "{1}…{2}", "{1}...{2}", "{1}?{2}", "…{2}"])
def test_an_order_is_named_by_its_id_its_beginning_or_its_short_form(
    shell: Shell, form: str
) -> None:
    order_id = shell.order()

    name = form.format(order_id, order_id[:4], order_id[-4:])

    assert shell("status", name, "--json").line["order_id"] == order_id


@pytest.mark.parametrize("form", ["{0}", "  {0}\t", "\ufeff{0}", "{1}", " {2} ", "{3}"])
@pytest.mark.parametrize("stdin", [False, True])
def test_an_id_that_was_copied_is_the_id_in_the_journal(
    shell: Shell, form: str, monkeypatch: pytest.MonkeyPatch, *, stdin: bool
) -> None:
    order_id = shell.order()
    upper = order_id.upper()
    name = form.format(order_id, upper, upper[:20], f"{upper[:4]}…{upper[-4:]}")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{name}\n"))

    found = shell("status", "-" if stdin else name, "--json").line

    assert found["order_id"] == order_id


def test_the_beginning_of_several_ids_is_refused(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def history(_journal: SqliteJournal) -> list[JournalEntry]:
        created_at = datetime(2026, 11, 23, tzinfo=UTC)
        ids = ["0000" + "a" * 60, "0000" + "b" * 60, None, "0000" + "b" * 60]
        return [JournalEntry(str(key), "receive", created_at, it) for key, it in enumerate(ids)]

    monkeypatch.setattr(SqliteJournal, "history", history)

    ended = shell("status", "0000")

    assert ended.code == 2
    assert "The journal has several orders with an ID like '0000'." in ended.err
    assert shell("status", "0000b", "--json").code == 3
    assert {each.query["orderId"] for each in shell.service.requests} == {"0000" + "b" * 60}


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("c1e", "'c1e' is too short for an order ID: type at least four characters."),
        ("…", "'…' is too short for an order ID: type at least four characters."),
        ("ab…c", "'ab…c' is too short for an order ID: type at least four characters."),
        ("zzzz", "The journal has no order with an ID like 'zzzz'."),
        ("zzzz…zzzz", "The journal has no order with an ID like 'zzzz…zzzz'."),
        ("f" * 15, f"The journal has no order with an ID like '{'f' * 15}'."),
    ],
)
@pytest.mark.parametrize("command", ["cancel", "resume", "status", "watch"])
def test_a_name_of_no_order_is_refused_at_once(
    shell: Shell, command: str, name: str, problem: str
) -> None:
    shell.order()
    requests = len(shell.service.requests)

    ended = shell(command, name)

    assert ended.code == 2
    assert f"Error: {problem} Nothing was sent." in ended.err
    assert len(shell.service.requests) == requests


def test_an_id_that_the_journal_does_not_have_is_used_as_it_is(shell: Shell) -> None:
    whole, long = shell("status", UNKNOWN_ID), shell("status", "f" * 16)

    assert whole.code == long.code == 3
    assert "order not found" in whole.err
    assert UNKNOWN_ID not in whole.err
    assert "used as a whole ID" not in whole.err
    assert "used as a whole ID" in long.err


def test_an_id_is_read_from_standard_input(shell: Shell) -> None:
    order_id = shell.order()
    shell.patch.setattr(sys, "stdin", io.StringIO(f"{order_id}\n"))

    assert shell("status", "-", "--json").line["order_id"] == order_id


def test_an_empty_standard_input_is_refused(shell: Shell) -> None:
    shell.patch.setattr(sys, "stdin", io.StringIO("\n"))

    ended = shell("cancel", "-")

    assert ended.code == 2
    assert "the first line of standard input is empty" in ended.err


# --- the journal ----------------------------------------------------------------------------------


def test_only_its_owner_can_read_the_journal(shell: Shell) -> None:
    shell.order()

    assert stat.S_IMODE(shell.journal.stat().st_mode) == 0o600
    assert stat.S_IMODE(shell.journal.parent.stat().st_mode) == 0o700


def test_the_journal_is_in_the_data_folder_of_the_platform(shell: Shell, tmp_path: Path) -> None:
    def data_path(name: str, *, appauthor: bool) -> Path:
        assert not appauthor
        return tmp_path / "data" / name

    shell.patch.delenv("SMS4SATS_JOURNAL")
    shell.patch.setattr(platformdirs, "user_data_path", data_path)
    shell.order()

    assert (tmp_path / "data" / "sms4sats" / "orders.sqlite").is_file()
    assert not shell.journal.exists()


@pytest.fixture(params=["unknown-user", "relative-folder", "removed-folder"])
def _no_home(shell: Shell, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The journal has no folder."""
    if request.param == "removed-folder":
        (tmp_path / "removed").mkdir()
        shell.patch.chdir(tmp_path / "removed")
        (tmp_path / "removed").rmdir()
        shell.patch.setenv("SMS4SATS_JOURNAL", "orders.sqlite")
        return
    if request.param == "unknown-user":
        shell.patch.setenv("SMS4SATS_JOURNAL", "~no-such-user/orders.sqlite")
        return

    def data_path(_name: str, *, appauthor: bool) -> Path:
        assert not appauthor
        return Path("~/.local/share/sms4sats")

    shell.patch.delenv("SMS4SATS_JOURNAL")
    shell.patch.setattr(platformdirs, "user_data_path", data_path)


@pytest.mark.usefixtures("_no_home")
@pytest.mark.parametrize(
    "command", ["code 187 tg", "order 187 tg", "pending", "resume", f"cancel {UNKNOWN_ID}"]
)
def test_an_unknown_home_directory_is_a_usage_error(shell: Shell, command: str) -> None:
    line = shell(*command.split(), "--json").line

    assert line["exit_code"] == 2
    assert line["error"].startswith("The folder of the journal is unknown: ")
    assert line["next_step"] == "Name a file in SMS4SATS_JOURNAL."
    assert shell.service.requests == []


def test_a_folder_as_a_journal_is_a_usage_error(shell: Shell, tmp_path: Path) -> None:
    shell.patch.setenv("SMS4SATS_JOURNAL", f"{tmp_path}/data/")

    line = shell("order", "187", "tg", "--json").line

    assert line["exit_code"] == 2
    assert line["error"].startswith("SMS4SATS_JOURNAL names a folder, not a file.")
    assert shell.service.requests == []
    assert not (tmp_path / "data").exists()


@pytest.mark.usefixtures("_no_home", "_key")
@pytest.mark.parametrize(
    "command", ["price", "countries", "services 43", "balance", "history", "fund 100"]
)
def test_a_command_without_a_journal_needs_no_home_directory(shell: Shell, command: str) -> None:
    assert shell(*command.split()).code == 0


@pytest.fixture
def _unusable_journal(shell: Shell) -> None:
    shell.patch.setenv("SMS4SATS_JOURNAL", "/dev/null/orders.sqlite")


@pytest.mark.usefixtures("_unusable_journal")
@pytest.mark.parametrize("command", ["order 187 tg", "pending", "resume", "status 0123"])
def test_an_unusable_journal_is_a_usage_error(shell: Shell, command: str) -> None:
    ended = shell(*command.split())

    assert ended.code == 2
    assert "the journal /dev/null/orders.sqlite cannot be used" in ended.err.lower()
    assert "SMS4SATS_JOURNAL" in ended.err
    assert shell.service.requests == []


def test_cancel_works_without_a_journal(shell: Shell) -> None:
    order_id = shell.order(no_code())
    shell.patch.setenv("SMS4SATS_JOURNAL", "/dev/null/orders.sqlite")

    ended = shell("cancel", order_id)

    assert (ended.code, ended.out) == (0, CANCELLED)
    assert shell.holder(order_id) is Holder.REFUNDED
    assert ended.err.count("The journal does not record how the order ends: ") == 1


@pytest.fixture
def fails_at(shell: Shell) -> Callable[[int], None]:
    """Let the journal fail at one of its writes."""

    def set_failure(number: int) -> None:
        update = SqliteJournal.update
        writes: list[object] = []

        async def update_until_full(
            self: SqliteJournal, changes: Sequence[tuple[str, JournalChange]], /
        ) -> Sequence[JournalEntry | None]:
            writes.append(changes)
            if len(writes) == number:
                raise JournalError("the disk is full")
            return await update(self, changes)

        shell.patch.setattr(SqliteJournal, "update", update_until_full)

    return set_failure


def test_an_order_that_was_not_recorded_is_shown(
    shell: Shell, fails_at: Callable[[int], None]
) -> None:
    fails_at(2)

    shown, end = shell("order", "187", "tg", "--json").lines

    (made,) = shell.service.orders
    assert shown["order_id"] == made.order_id
    assert end["error"].startswith(
        "The disk is full. The order was created, but the journal does not have it."
    )
    assert end["exit_code"] == 4


def test_a_deadline_that_was_not_recorded_leaves_an_open_order(
    shell: Shell, fails_at: Callable[[int], None]
) -> None:
    fails_at(3)

    ended = shell("code", "187", "tg")

    assert (ended.code, ended.out) == (4, "")
    assert "Error: The disk is full. The order is open, and what was paid for it is held." in (
        ended.err
    )
    assert shell("pending").out != ""


# --- pending and resume ---------------------------------------------------------------------------


@pytest.fixture
def change(shell: Shell) -> Callable[..., None]:
    """Change the entries of the journal."""

    def change_entries(**changes: Any) -> None:
        async def update() -> None:
            async with SqliteJournal(shell.journal) as journal:
                for entry in await journal.history():
                    after = attrs.evolve(entry, **changes)
                    await journal.update([(entry.key, lambda _, after=after: after)])

        anyio.run(update)

    return change_entries


def nothing_pending() -> str:
    return f"No order is pending in {os.environ['SMS4SATS_JOURNAL']}.\n"


@pytest.mark.parametrize("command", ["pending", "resume"])
def test_nothing_is_pending_at_first(shell: Shell, command: str) -> None:
    assert shell(command) == Ended(0, "", nothing_pending())


def test_pending_lists_the_orders(shell: Shell) -> None:
    first, second = shell.order(), shell.order()

    lines = [line.split("\t") for line in shell("pending").out.splitlines()]

    assert [line[0] for line in lines] == [first, second]
    assert lines[0][2:] == ["187", "tg", "", ""]


def test_pending_and_resume_show_metadata(shell: Shell, change: Callable[..., None]) -> None:
    order_id = shell.order()
    change(metadata={"chat": "42", "user": "\x1b[2Jeve"})

    pending, resumed = shell("pending"), shell("resume")

    assert pending.out.endswith("\tchat: 42; user: �[2Jeve\n")
    assert resumed.out.startswith(f"{short(order_id)} (chat: 42; user: �[2Jeve)  The code arrived")


def test_resume_waits_for_the_code(shell: Shell) -> None:
    order_id = shell.order()

    ended = shell("resume", order_id[:8])

    assert ended.code == 0
    assert ended.out == (
        f"{short(order_id)}  The code arrived, and the money is settled. Code: 012345\n"
    )
    assert "lnbcrt" in ended.err


def test_resume_resumes_all_that_is_pending(shell: Shell) -> None:
    with_code, without = shell.order(), shell.order(no_code())
    message = shell("send", "+4915112345678", "hello", "--json").line["order_id"]

    ended = shell("resume", "--json")

    lines = {line["order_id"]: line for line in ended.lines}  # the last of each
    assert ended.code == 0
    assert lines[with_code]["code"] == "012345"
    assert lines[without]["refunded"]
    assert lines[message]["state"] == "message created"
    assert "lnbcrt" not in ended.err
    assert shell.holder(without) is Holder.REFUNDED


class Killed(BaseException):
    """Ends a command without a message."""


@pytest.fixture
def killed(shell: Shell) -> Callable[[int, str], None]:
    """Run a command that is killed after some seconds."""

    def kill(seconds: int, command: str) -> None:
        end = shell.clock.now() + seconds

        class Killing(ManualClock):
            async def sleep(self, seconds: float) -> None:
                if self.now() + seconds > end:
                    raise Killed
                await shell.clock.sleep(seconds)

            def now(self) -> float:
                return shell.clock.now()

            def monotonic(self) -> float:
                return shell.clock.monotonic()

        with shell.patch.context() as patch:
            patch.setattr(session, "CLOCK", Killing())
            with pytest.raises(Killed):
                shell(*command.split())
        shell.captured.readouterr()

    return kill


@pytest.mark.parametrize(
    ("options", "cancelled_at"),
    [
        pytest.param("", 600, id="recorded"),
        pytest.param("--timeout 4m", 360, id="replaced-by-less"),
        pytest.param("--timeout 12m", 840, id="replaced-by-more"),
        pytest.param("--timeout 0s", 120, id="replaced-by-nothing"),
    ],
)
def test_resume_waits_until_the_recorded_deadline_or_as_long_as_the_option_says(
    shell: Shell, killed: Callable[[int, str], None], options: str, cancelled_at: float
) -> None:
    shell.service.behaviour = no_code()
    killed(120, "code 187 tg --timeout 10m")

    ended = shell("resume", *options.split())

    assert ended.code == 0
    assert shell.cancel_ages() == [pytest.approx(cancelled_at, abs=10)]


def test_a_code_that_arrives_in_the_rest_of_the_wait_is_printed(
    shell: Shell, killed: Callable[[int, str], None]
) -> None:
    shell.service.behaviour = Behaviour(pay_delay=0, code_delay=480)
    killed(120, "code 187 tg --timeout 10m")

    assert shell("resume").out.endswith("Code: 012345\n")


def test_resume_cancels_at_once_after_the_recorded_deadline(
    shell: Shell, killed: Callable[[int, str], None]
) -> None:
    shell.service.behaviour = no_code()
    killed(60, "code 187 tg --timeout 3m")
    shell.wait(400)

    assert "waiting" not in shell("resume").err
    assert shell.cancel_ages()[0] == pytest.approx(460, abs=10)


def test_resume_without_a_recorded_deadline_waits_five_minutes(shell: Shell) -> None:
    shell.order(no_code())
    shell.wait(60)

    assert shell("resume").code == 0
    assert shell.cancel_ages()[0] == pytest.approx(360, abs=5)


def test_resume_keeps_a_recorded_minimum_age(shell: Shell, change: Callable[..., None]) -> None:
    shell.order(no_code())
    change(minimum_age=timedelta(minutes=4))

    assert shell("resume", "--timeout", "0s").code == 0
    assert shell.cancel_ages()[0] == pytest.approx(240, abs=5)


@pytest.mark.parametrize("command", ["code 187 tg", "resume", "cancel {0}"])
def test_a_printed_result_is_delivered(shell: Shell, command: str) -> None:
    order_id = shell.order()
    shell(*command.format(order_id).split())
    shell("resume")

    assert shell("resume").err == nothing_pending()


@pytest.mark.parametrize("command", ["pending", "resume", "cancel 0123"])
def test_a_damaged_row_is_shown_once_and_stops_no_command(shell: Shell, command: str) -> None:
    shell.order()
    with contextlib.closing(sqlite3.connect(shell.journal)) as file:
        file.execute("UPDATE orders SET metadata = 'x'")
        file.commit()

    shown = shell(*command.split()).err

    assert shown.count("Row 1 of the table") + shown.count("row 1 of the table") == 1
    assert "the service refunds it automatically after 21 minutes" in shown


def test_resume_shows_a_result_that_was_not_shown(
    shell: Shell, change: Callable[..., None]
) -> None:
    order_id = shell.order()
    shell("resume")
    change(delivered_at=None)

    assert shell("resume").out == (
        f"{short(order_id)}  The code arrived, and the money is settled. Code: 012345\n"
    )
    assert shell("resume").err == nothing_pending()


def test_resume_of_an_order_that_has_ended_shows_its_result_again(shell: Shell) -> None:
    order_id = shell.order()
    shell("resume")
    requests = len(shell.service.requests)

    assert shell("resume", order_id).out.endswith("Code: 012345\n")
    assert len(shell.service.requests) == requests


def test_resume_of_an_order_that_the_journal_does_not_have(shell: Shell) -> None:
    order_id = shell.order()
    shell.journal.unlink()

    assert "012345" in shell("resume", order_id).out


# --- orders of other services ---------------------------------------------------------------------

ELSEWHERE: Final = "http://127.0.0.1:9"


@pytest.mark.parametrize("command", ["status", "watch", "cancel", "cancel --no-wait", "resume"])
def test_an_order_of_another_service_is_refused(
    shell: Shell, change: Callable[..., None], command: str
) -> None:
    order_id = shell.order()
    change(base_url=ELSEWHERE)
    requests = len(shell.service.requests)

    line = shell(*command.split(), order_id[:8], "--json").line

    assert line["exit_code"] == 2
    assert line["error"] == (
        f"The order {short(order_id)} belongs to {ELSEWHERE}, but this command uses {shell.root}. "
        "Nothing was sent, and the order is unchanged."
    )
    assert line["next_step"] == f"Run the command with --base-url {ELSEWHERE}."
    assert len(shell.service.requests) == requests


def test_orders_of_another_service_stay_pending(shell: Shell, change: Callable[..., None]) -> None:
    elsewhere = shell.order()
    change(base_url=ELSEWHERE)
    here = shell.order()

    before, resumed, after = shell("pending"), shell("resume"), shell("resume")

    assert [line.split("\t")[0::6] for line in before.out.splitlines()] == [
        [elsewhere, ELSEWHERE],
        [here, shell.root],
    ]
    assert resumed.out.startswith(short(here))
    assert len(resumed.out.splitlines()) == 1
    assert after.err == (
        f"No order of {shell.root} is pending. `sms4sats pending` lists 1 of other services.\n"
    )
    assert shell("pending", "--base-url", ELSEWHERE, "--json").line["order_id"] == elsewhere


# --- resuming several orders ----------------------------------------------------------------------


def test_resume_shows_the_failure_of_each_order(shell: Shell) -> None:
    first = shell("resume", UNKNOWN_ID)
    good = shell.order()

    *each, end = shell("resume", "--json").lines
    lines = {line["order_id"]: line for line in each}

    assert first.code == 4
    assert "The order may or may not be cancelled." in first.err
    assert "1 of 1 orders did not end." in first.err
    assert UNKNOWN_ID not in first.err
    assert lines[good]["code"] == "012345"
    assert lines[UNKNOWN_ID]["exit_code"] == end["exit_code"] == 4
    assert end["error"].startswith("1 of 2 orders did not end.")


def test_the_worst_failure_is_the_exit_code(shell: Shell) -> None:
    outcomes = dict(zip([shell.order() for _ in RequestOutcome], RequestOutcome, strict=True))

    async def fail(_client: object, order: Order, **_options: object) -> OrderResult:
        outcome = outcomes[order.order_id]
        raise TransportError("no", operation="cancel_order", request_outcome=outcome)

    shell.patch.setattr(Sms4SatsClient, "code_or_refund", fail)

    ended = shell("resume", "--json")

    assert sorted(line["exit_code"] for line in ended.lines[:3]) == [3, 4, 5]
    assert ended.code == ended.lines[3]["exit_code"] == 4


# --- the prepaid balance --------------------------------------------------------------------------


@pytest.mark.usefixtures("_key")
def test_balance(shell: Shell) -> None:
    assert shell("balance").out == "balance  5,000 sat\n"
    assert shell("balance", "--json").line == {"balance": 5000}


@pytest.mark.parametrize("command", ["order 187 tg", "send +4915112345678 hi"])
def test_a_refused_order_from_the_balance_names_the_balance(shell: Shell, command: str) -> None:
    shell.patch.setenv("SMS4SATS_API_KEY", KEY)

    ended = shell(*command.split(), "--immediate")

    assert ended.code == 3
    assert "attempt 1 of 4 failed, no further attempt: " in ended.err
    assert "`sms4sats balance`" in ended.err


@pytest.mark.usefixtures("_key")
def test_fund_and_history_show_no_secret(shell: Shell) -> None:
    assert "`sms4sats balance` shows it" in shell("fund", "100").err
    funded = shell("fund", "10,000", "--json").line
    shell.wait(1)

    plain, in_json = shell("history"), shell("history", "--json")

    assert (funded["amount"], funded["amount_sat"]) == (10_000, 10_000)
    assert "10,000 sat" in plain.out.split("\t")
    assert plain.err == "10,100 sat in total.\n"
    assert {line["amount"] for line in in_json.lines} == {100, 10_000}
    for printed in (plain, in_json):
        assert KEY not in printed.out + printed.err
        assert 'preimage"' not in printed.out


@pytest.mark.parametrize("command", ["balance", "history", "fund 10", "order 187 tg --immediate"])
def test_without_a_key_nothing_is_sent(shell: Shell, command: str) -> None:
    line = shell(*command.split(), "--json").line

    assert line["exit_code"] == 2
    assert line["error"] == "This call needs an API key. Nothing was sent."
    assert shell.service.requests == []


# --- exit codes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("nonsense", "No such command"),
        ("order 187", "Missing argument"),
        ("price --nonsense", "No such option"),
        ("fund many", "write it like 1500"),
        ("code 187 tg --timeout 5", "write it like 90s, 3m or 2m30s"),
        ("code 187 tg --immediate --max-price 1500", "--immediate pays without one"),
        ("services nowhere", "see `sms4sats countries`"),
        ("send 0151 hello", "Phone must be in E.164"),
        ("price --base-url here", "--base-url must be an absolute"),
        (f"cancel {UNKNOWN_ID} --age=1m --created-at=2026-11-23T14:03Z", "mean the same"),
        (f"cancel {UNKNOWN_ID} --age=1m --no-wait", "--no-wait does not wait"),
        (f"cancel {UNKNOWN_ID} --created-at=2026-11-23T14:03Z --no-wait", "does not wait"),
        (f"cancel {UNKNOWN_ID} --age=1", "write it like 90s, 3m or 2m30s"),
        (f"cancel {UNKNOWN_ID} --created-at=2026-11-23T14:03", "has no time zone"),
    ],
)
def test_an_invalid_command_is_2(shell: Shell, command: str, problem: str) -> None:
    plain, in_json = shell(*command.split()), shell(*command.split(), "--json")

    assert plain.code == in_json.code == in_json.line["exit_code"] == 2
    assert problem in plain.err
    assert problem in in_json.line["error"]
    assert "Nothing was sent." in plain.err
    assert plain.out == in_json.err == ""
    assert {each.path for each in shell.service.requests} <= {"/getCountries"}


def test_a_refusal_is_3(shell: Shell) -> None:
    ended = shell("order", "187", "nonsense")

    assert ended.code == 3
    assert "No order was created, and no money moved." in ended.err


def test_an_order_that_may_exist_is_4(shell: Shell) -> None:
    shell.service.script("/createorder", Fault.reset(after_change=True))

    ended = shell("code", "187", "tg")

    assert ended.code == 4
    assert "An order may exist, but its invoice did not arrive." in ended.err
    assert len(shell.service.orders) == 1


def test_a_service_that_cannot_be_reached_is_5(shell: Shell) -> None:
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        plain = shell("price", "--base-url", url)
        ordered = shell("order", "187", "tg", "--json", "--base-url", url).line

    assert plain.code == ordered["exit_code"] == 5
    assert "price attempt 1 of 4 failed" in plain.err
    assert ordered["error"].endswith("No order was created, and no money moved.")


def test_a_failure_of_the_program_is_4_without_a_traceback(shell: Shell) -> None:
    async def broken(*_: object) -> None:
        raise KeyError(KEY)

    shell.patch.setattr(Sms4SatsClient, "get_price", broken)

    ended = shell("price")

    assert ended.code == 4
    assert ended.err.startswith("Error: The program failed (KeyError in test_cli.py")
    assert KEY not in ended.err
    assert "Traceback" not in ended.err


def test_a_failure_before_the_work_is_4_without_a_traceback(shell: Shell) -> None:
    raising_stdin(shell, KeyError)

    ended = shell("status", "-", "--json")

    assert ended.code == 4
    assert ended.line["error"].startswith("The program failed (KeyError in test_cli.py")


def raising_stdin(shell: Shell, error: type[BaseException]) -> None:
    """Let reading standard input raise."""

    def readline() -> str:
        raise error

    stdin = io.StringIO()
    shell.patch.setattr(stdin, "readline", readline)
    shell.patch.setattr(sys, "stdin", stdin)


# --- interruptions --------------------------------------------------------------------------------


def test_ctrl_c_while_an_id_is_read(shell: Shell) -> None:
    raising_stdin(shell, KeyboardInterrupt)

    assert shell("cancel", "-") == Ended(130, "", "")


@pytest.mark.parametrize("error", [KeyboardInterrupt, typer.Abort])
def test_ctrl_c_before_the_command_begins(shell: Shell, error: type[BaseException]) -> None:
    def interrupted(*_: object, **_options: object) -> None:
        raise error

    shell.patch.setattr(commands, "app", interrupted)

    assert shell("price") == Ended(130, "", "")


When = Callable[[Sequence[str]], bool]


class Interrupting(ManualClock):
    """A clock that sends a signal in the first sleep at which the requests are as wanted."""

    def __init__(self, shell: Shell, sign: signal.Signals, when: When = lambda _: True) -> None:
        super().__init__(shell.clock.now())
        self._service = shell.service
        self._service.clock = self
        self._sign = sign
        self._when = when

    async def sleep(self, seconds: float) -> None:
        if self._when([request.path for request in self._service.requests]):
            signal.raise_signal(self._sign)
            await anyio.sleep_forever()
        await super().sleep(seconds)


OPEN: Final = "Interrupted. The order is open, and what was paid for it is held."
MAYBE: Final = "Interrupted. A cancel may have been sent, so the order may or may not be cancelled."


def polled(paths: Sequence[str]) -> bool:
    return paths.count("/orderstatus") > 5


def refused(paths: Sequence[str]) -> bool:
    return "/cancelorder" in paths


def refused_often(paths: Sequence[str]) -> bool:
    return paths.count("/cancelorder") == 4


def polled_since(paths: Sequence[str]) -> bool:
    # The status is read once after each refusal.
    return refused(paths) and paths[-2:] == ["/orderstatus", "/orderstatus"]


@SIGNALS
@pytest.mark.parametrize(
    ("command", "when", "message"),
    [
        pytest.param("code 187 tg", polled, OPEN, id="waiting-for-the-code"),
        pytest.param("code 187 tg --timeout 0s", polled, OPEN, id="waiting-to-cancel"),
        pytest.param("cancel {order_id}", polled, OPEN, id="before-the-cancel"),
        pytest.param("cancel {order_id} --no-wait", refused, MAYBE, id="between-two-attempts"),
        pytest.param("watch {order_id}", polled, "Interrupted. Nothing was changed.", id="watch"),
        pytest.param("resume", polled, "Interrupted. Orders that have not ended", id="resume"),
    ],
)
def test_an_interruption_says_where_the_money_is(
    shell: Shell, *, command: str, when: When, message: str, sign: signal.Signals
) -> None:
    shell.service.behaviour = no_code()
    order_id = shell.order()
    shell.patch.setattr(session, "CLOCK", Interrupting(shell, sign, when))
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    ended = shell(*command.format(order_id=order_id).split())

    assert ended.code == 130
    assert message in ended.err
    assert "Traceback" not in ended.err
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    refund = "the service refunds the order automatically at 20"
    assert (refund in ended.err) is (command.split(maxsplit=1)[0] in {"code", "cancel"})


@pytest.mark.parametrize(
    ("fault", "when", "message"),
    [
        pytest.param(Fault.reset(), refused, MAYBE, id="first-attempt-failed"),
        pytest.param(Fault.unable_to_save_data(), refused_often, MAYBE, id="all-refused"),
        pytest.param(Fault.unable_to_save_data(), polled_since, OPEN, id="polled-since"),
    ],
)
def test_an_interruption_after_a_refused_cancel(
    shell: Shell, fault: Fault, when: When, message: str
) -> None:
    shell.service.behaviour = no_code()
    shell.service.script("/cancelorder", *[fault] * 12)
    order_id = shell.order()
    shell.wait(200)
    shell.patch.setattr(session, "CLOCK", Interrupting(shell, signal.SIGINT, when))

    ended = shell("cancel", order_id)

    assert ended.code == 130
    assert message in ended.err


def test_an_order_from_the_future_is_refunded_21_minutes_from_now(shell: Shell) -> None:
    order_id = shell.order(no_code())
    shell.patch.setattr(session, "CLOCK", Interrupting(shell, signal.SIGINT))

    ended = shell("cancel", order_id, "--created-at", "9999-12-30T23:59:30Z")

    assert ended.code == 130
    assert "automatically at 20" in ended.err


@pytest.fixture
def _ctrl_c_ignored() -> Iterator[None]:
    """A script starts its background jobs so."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_ignored")
def test_sigterm_interrupts_where_ctrl_c_is_ignored(shell: Shell) -> None:
    shell.service.behaviour = no_code()
    shell.patch.setattr(session, "CLOCK", Interrupting(shell, signal.SIGTERM))

    ended = shell("code", "187", "tg")

    assert (ended.code, ended.out) == (130, "")
    assert OPEN in ended.err
    assert len(shell.service.held_orders()) == 1
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_ctrl_c_before_the_event_loop_runs(shell: Shell) -> None:
    def interrupted(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    shell.patch.setattr(anyio, "run", interrupted)

    ended = shell("order", "187", "tg")

    assert (ended.code, ended.out) == (130, "")
    assert ended.err.startswith("Interrupted. Nothing was changed.")
    assert shell.service.count("/createorder") == 0


def test_ctrl_c_while_the_event_loop_closes_after_the_result(shell: Shell) -> None:
    def interrupted(_run: object, _work: object, session: session.Session) -> None:
        session.is_done = True
        raise KeyboardInterrupt

    shell.patch.setattr(anyio, "run", interrupted)

    assert shell("price") == Ended(0, "", "")


@pytest.mark.parametrize("count", [1, 2])
def test_a_signal_inside_of_a_step_ends_the_command_at_once(shell: Shell, count: int) -> None:
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
            for _ in range(count):
                signal.raise_signal(signal.SIGINT)
        return leave(self, *how)

    class Due(ManualClock):
        async def sleep(self, seconds: float) -> None:
            nonlocal due
            due = True
            await super().sleep(seconds)

    shell.service.clock = Due(shell.clock.now())
    shell.patch.setattr(session, "CLOCK", shell.service.clock)
    shell.patch.setattr(scope, "__exit__", interrupted_leave)

    ended = shell("code", "187", "tg")

    assert (ended.code, ended.out) == (130, "")
    assert OPEN in ended.err
    assert "Traceback" not in ended.err
    assert shell.service.count("/cancelorder") == 0


def test_an_interruption_in_json_is_an_error(shell: Shell) -> None:
    order_id = shell.order()
    shell.patch.setattr(session, "CLOCK", Interrupting(shell, signal.SIGINT))

    status, end = shell("cancel", order_id, "--json").lines

    assert status["state"] == "held"
    assert end["exit_code"] == 130
    assert end["error"] == OPEN


@pytest.mark.parametrize(
    ("command", "call", "message"),
    [
        ("code 187 tg", "create_order", "An order may exist, but its invoice did not arrive."),
        ("send +4915112345678 hi", "create_send_order", "An order may exist"),
        ("fund 100", "fund", "An invoice may exist. Money moves only if you pay it."),
    ],
)
def test_an_interruption_of_an_order_says_that_it_may_exist(
    shell: Shell, command: str, call: str, message: str
) -> None:
    async def create(*_: object, **_options: object) -> None:
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep_forever()

    shell.patch.setattr(Sms4SatsClient, call, create)

    ended = shell(*command.split())

    assert (ended.code, ended.out) == (130, "")
    assert ended.err.startswith(f"Interrupted. {message}")


def interrupt_acknowledgement(shell: Shell) -> None:
    """Send a signal when the journal acknowledges a result, which is known by then."""
    update = SqliteJournal.update

    async def update_and_interrupt(
        self: SqliteJournal, changes: Sequence[tuple[str, JournalChange]], /
    ) -> Sequence[JournalEntry | None]:
        entries = await update(self, changes)
        if any(entry is not None and entry.delivered_at is not None for entry in entries):
            signal.raise_signal(signal.SIGINT)
            await turns()  # the signal is handled by the event loop
        return entries

    shell.patch.setattr(SqliteJournal, "update", update_and_interrupt)


@pytest.mark.parametrize(
    ("command", "end"),
    [
        ("code 187 tg", "The code arrived, and the money is settled. Code: 012345"),
        ("cancel {0}", "The code arrived, and the money is settled. Code: 012345"),
        ("resume", "{1}  The code arrived, and the money is settled. Code: 012345"),
    ],
)
def test_an_interruption_after_the_end_shows_the_end(shell: Shell, command: str, end: str) -> None:
    order_id = "" if command.startswith("code") else shell.order()
    interrupt_acknowledgement(shell)

    ended = shell(*command.format(order_id).split())

    assert ended.code == 130
    assert end.format("", short(order_id)) in ended.out + ended.err
    assert "The order is open" not in ended.err


def test_a_signal_after_the_result_was_printed_changes_nothing(shell: Shell) -> None:
    close = SqliteJournal.aclose

    async def interrupted_close(self: SqliteJournal) -> None:
        await close(self)
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep_forever()

    shell.patch.setattr(SqliteJournal, "aclose", interrupted_close)

    ended = shell("code", "187", "tg")

    assert (ended.code, ended.out) == (0, "012345\n")
    assert "Interrupted" not in ended.err


# --- broken outputs -------------------------------------------------------------------------------


class Broken(io.StringIO):
    """A stream whose reader is gone, or whose disk is full."""

    def __init__(self, error: OSError, file: Path) -> None:
        super().__init__()
        self._error = error
        self._file = file.open("w", encoding="utf-8")

    def write(self, _text: str, /) -> int:
        raise self._error

    def flush(self) -> None:
        raise self._error

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


FULL: Final = OSError(28, "No space left on device")


@pytest.fixture
def broken(shell: Shell, tmp_path: Path) -> Callable[..., Ended]:
    """Run a command with a broken standard output, or with other broken streams."""

    def run(command: str, error: OSError, *streams: str) -> Ended:
        with shell.patch.context() as patch:
            for name in streams or ["stdout"]:
                patch.setattr(sys, name, Broken(error, tmp_path / name))
            ended = shell(*command.split())
            for name in streams or ["stdout"]:
                stream = getattr(sys, name)
                # Python flushes it once more when the process ends.
                if isinstance(stream, Broken):
                    null = Path(os.devnull).stat().st_rdev
                    assert os.fstat(stream.fileno()).st_rdev == null
                    stream.close()
        return ended

    return run


GONE: Final = "The reader of the output is gone."
NO_SPACE: Final = "Error: Not all of the output was written: No space left on device."


@pytest.mark.parametrize("option", ["", "--json"])
@pytest.mark.parametrize(
    ("command", "end"),
    [
        ("price", "Nothing was changed."),
        ("order 187 tg", "The order is open, and what was paid for it is held."),
        ("send +4915112345678 hi", "The order is open, and what was paid for it is held until"),
        ("fund 100", "An invoice may exist. Money moves only if you pay it."),
        ("resume", "Orders that have not ended stay in the journal"),
    ],
)
@pytest.mark.parametrize(
    ("error", "code", "problem"), [(BrokenPipeError(), 130, GONE), (FULL, 4, NO_SPACE)]
)
@pytest.mark.usefixtures("_key")
def test_a_broken_output_says_where_the_money_is(
    shell: Shell,
    broken: Callable[..., Ended],
    *,
    error: OSError,
    code: int,
    problem: str,
    command: str,
    end: str,
    option: str,
) -> None:
    if command == "resume":
        shell.order()
        shell.order()

    ended = broken(f"{command} {option}", error)

    assert ended.code == code
    assert f"{problem} {end}" in ended.err


@pytest.mark.parametrize(
    ("error", "code", "problem"), [(BrokenPipeError(), 130, GONE), (FULL, 4, NO_SPACE)]
)
def test_a_code_that_cannot_be_printed_is_in_the_message(
    shell: Shell, broken: Callable[..., Ended], error: OSError, code: int, problem: str
) -> None:
    ended = broken("code 187 tg", error)

    (order,) = shell.service.orders
    assert ended.code == code
    assert f"{problem} The code arrived, and the money is settled. Code: 012345" in ended.err
    assert f"`sms4sats resume {short(order.order_id)}` shows this result again." in ended.err
    assert shell("resume", short(order.order_id)).out.endswith("Code: 012345\n")


def test_a_broken_standard_error_does_not_stop_the_command(
    broken: Callable[..., Ended],
) -> None:
    ended = broken("code 187 tg", BrokenPipeError(), "stderr")

    assert (ended.code, ended.out) == (0, "012345\n")


def test_two_broken_streams_are_an_interruption(broken: Callable[..., Ended]) -> None:
    assert broken("order 187 tg", BrokenPipeError(), "stdout", "stderr") == Ended(130, "", "")


@pytest.mark.parametrize("command", ["--help", "code --help"])
def test_help_without_a_reader_is_an_interruption(
    broken: Callable[..., Ended], command: str
) -> None:
    ended = broken(command, BrokenPipeError(32, "Broken pipe"))

    assert ended.code == 130
    assert ended.err.startswith(GONE)


def test_a_version_on_a_full_disk_is_unknown(broken: Callable[..., Ended]) -> None:
    ended = broken("--version", FULL)

    assert ended.code == 4
    assert f"{NO_SPACE} Nothing was changed." in ended.err


def test_closed_streams_are_replaced(shell: Shell) -> None:
    with shell.patch.context() as patch:
        for name in ("stdin", "stdout", "stderr"):
            patch.setattr(sys, name, None)
        codes = [main(["order", "187", "tg"]), main(["status", "-"])]
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            stream.close()

    assert codes == [0, 2]
    assert len(shell.service.orders) == 1


def test_an_exit_of_typer_is_not_an_end_of_the_command(shell: Shell) -> None:
    def complete(*_: object, **_options: object) -> None:
        raise SystemExit(0)  # as after the completion of a word

    shell.patch.setattr(commands, "app", complete)

    with pytest.raises(SystemExit):
        main([])


# --- on this machine ------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["", "--json"])
def test_demo(shell: Shell, option: str) -> None:
    def clock(_speed: float) -> ManualClock:
        return ManualClock()

    shell.patch.setattr("sms4sats_async.simulator.ScaledClock", clock)
    shell.patch.setenv("SMS4SATS_JOURNAL", "~no-such-user/j")

    ended = shell("demo", *option.split())

    assert ended.code == 0
    assert "Outcome: cancelled after 3 attempts." in (ended.err if option else ended.out)
    if option:
        assert ended.line["refunded"] is True


@pytest.mark.parametrize("option", ["", "--json"])
def test_a_simulator_that_cannot_start_is_a_usage_error(shell: Shell, option: str) -> None:
    ended = shell("simulator", "--speed", "0", *option.split())

    text = f"{ended.line['error']} {ended.line['next_step']}" if option else ended.err
    assert ended.code == 2
    assert "The simulator cannot start: " in text
    assert "`sms4sats simulator --help` lists the options." in text


# --- the program ----------------------------------------------------------------------------------


def options_of_all() -> Iterator[tuple[str, str]]:
    group: Any = typer.main.get_command(commands.app)
    for name, command in group.commands.items():
        for parameter in command.params:
            yield name, " ".join(parameter.opts)


def test_every_command_has_json_output() -> None:
    names = """
        price countries services order status watch code cancel send balance history fund pending
        resume wallet simulator demo postgres
    """
    assert {name for name, option in options_of_all() if option == "--json"} == {*names.split()}


def test_the_key_is_never_an_argument() -> None:
    assert [each for each in options_of_all() if "key" in each[1] or "token" in each[1]] == []


def test_the_version_is_that_of_the_package(shell: Shell) -> None:
    assert shell("--version") == Ended(0, f"sms4sats {version('sms4sats-async')}\n", "")


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands_under_headings(shell: Shell, words: list[str]) -> None:
    ended = shell(*words)

    headings = ["Prices and places:", "Orders:", "Prepaid balance:", "On this machine:"]
    places = [ended.out.index(heading) for heading in headings]
    assert ended.code == 0
    assert places == sorted(places)
    assert "SMS4SATS_API_KEY" in ended.out


@pytest.mark.parametrize("command", sorted({name for name, _ in options_of_all()}))
def test_every_command_has_help(shell: Shell, command: str) -> None:
    ended = shell(command, "--help")

    assert ended.code == 0
    assert f"Usage: sms4sats {command} " in ended.out
    assert "--json" in ended.out


@pytest.mark.parametrize("missing", ["typer", "platformdirs"])
def test_without_the_extra_it_says_what_to_install(shell: Shell, missing: str) -> None:
    for name in [name for name in sys.modules if name.startswith("sms4sats_async.cli.")]:
        shell.patch.delitem(sys.modules, name)
    shell.patch.setitem(sys.modules, missing, None)

    assert shell("price") == Ended(
        2,
        "",
        f"Error: The command needs {missing}, which is not installed. Nothing was sent.\n"
        "Install it with pip install 'sms4sats-async[cli]'.\n",
    )


def test_json_has_every_value_of_a_journal_entry(shell: Shell) -> None:
    shell.order()

    line = json.loads(shell("pending", "--json").out)

    assert {"order_id", "invoice", "metadata", "base_url", "code_deadline"} <= set(line)
    assert {"key", "claimed_by", "claimed_until"}.isdisjoint(line)
