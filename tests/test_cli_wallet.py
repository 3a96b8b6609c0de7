"""The command pays from the user's wallet: `sms4sats code --pay`, and `sms4sats wallet`."""

import io
import os
import pty
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.lowlevel
import pytest

from sms4sats_async import AuthenticationError, Invoice, Sms4SatsError, wallets
from sms4sats_async.simulator import Behaviour, Fault
from sms4sats_async.wallets import Payment, PaymentFailedError, PaymentState
from tests.command_line import Server, Shell, new_shell, no_code, served
from tests.wallet_stubs import ADMIN_KEY, HASH, MACAROON, Stub

CODE = Behaviour(pay_delay=0, code="007")
FAILED = PaymentFailedError(Payment(PaymentState.FAILED, HASH, error="no route"))


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
    shell = new_shell(server, monkeypatch, tmp_path, capsys)
    shell.service.behaviour = CODE
    return shell


class HeldWallet:
    """Holds each payment until it is cancelled, or fails.

    Attributes:
        first: What it answers to a request to pay.
        paid: The invoices that it was asked to pay.
        closed: Whether it was closed.
    """

    first = Payment(PaymentState.PENDING, HASH)

    def __init__(self, max_fee_sat: int | None, error: Exception | None = None) -> None:
        self.max_fee_sat = max_fee_sat
        self.paid: list[str] = []
        self.closed = False
        self._error = error

    async def pay(self, invoice: str) -> Payment:
        self.paid.append(invoice)
        return self.first

    async def __call__(self, invoice: str) -> None:
        assert self.paid == [invoice]
        if self._error is not None:
            raise self._error
        await anyio.sleep_forever()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed = True


def with_wallet(shell: Shell, error: Exception | None = None) -> list[HeldWallet]:
    """Replace the wallet of the environment; return the wallets that the command makes."""
    made: list[HeldWallet] = []

    def make(*, max_fee_sat: int | None) -> HeldWallet:
        made.append(HeldWallet(max_fee_sat, error))
        return made[-1]

    shell.patch.setattr(wallets, "wallet_from_environment", make)
    shell.patch.setenv("SMS4SATS_WALLET", "lnd")
    return made


def pay(shell: Shell, *words: str) -> Any:
    return shell("code", "187", "tg", "--pay", *words)


@pytest.mark.parametrize(
    ("words", "fee"),
    [
        (["--max-fee", "50"], "a routing fee up to 50 sat"),
        (["--max-fee", "0"], "a routing fee up to 0 sat"),
        ([], "no limit of the routing fee"),
    ],
)
def test_code_is_paid_from_the_wallet(shell: Shell, words: list[str], fee: str) -> None:
    made = with_wallet(shell)

    ended = pay(shell, "--max-price", "100000", *words)

    (order,) = shell.service.orders
    assert (ended.code, ended.out) == (0, "007\n")
    amount = Invoice.parse(order.payreq).amount_sat
    assert f"To pay from the wallet lnd: {amount:,} sat, with {fee}." in ended.err
    assert [wallet.paid for wallet in made] == [[order.payreq]]
    assert made[0].closed


def test_order_without_a_code_is_cancelled(shell: Shell) -> None:
    shell.service.behaviour = no_code()
    with_wallet(shell)

    ended = pay(shell, "--max-price", "100000")

    assert (ended.code, ended.out) == (0, "")
    assert "The order is cancelled." in ended.err


def test_invoice_over_the_price_is_not_paid(shell: Shell) -> None:
    made = with_wallet(shell)

    ended = pay(shell, "--max-price", "1")

    assert ended.code == 3
    assert made[0].paid == []


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (FAILED, "Payment 630d…10dd failed: no route. The wallet paid nothing."),
        (AuthenticationError("the wallet refuses the credentials"), "The wallet refuses"),
    ],
)
def test_failed_payment_ends_the_command(shell: Shell, error: Exception, problem: str) -> None:
    shell.service.behaviour = Behaviour(pay_delay=None)
    with_wallet(shell, error)

    ended = pay(shell, "--max-price", "100000")

    assert (ended.code, ended.out) == (3, "")
    assert problem in ended.err


def test_failed_payment_of_a_paid_order_does_not_end_the_command(shell: Shell) -> None:
    """A wallet reports the failure of a held payment when the service refunds it."""
    shell.service.behaviour = no_code()
    with_wallet(shell)

    async def fail(*_: object) -> None:
        while shell.clock.now() < shell.service.orders[0].created_at + 60:
            await anyio.lowlevel.checkpoint()
        raise FAILED

    shell.patch.setattr(HeldWallet, "__call__", fail)

    ended = pay(shell, "--max-price", "100000")

    assert "The order is cancelled. The service refunds what was paid." in ended.err
    assert (ended.code, ended.out) == (0, "")


def test_after_a_failed_payment_the_status_of_the_order_is_read(shell: Shell) -> None:
    """The service can refund an order without a number before the first poll."""
    shell.service.behaviour = Behaviour(pay_delay=0, number_delay=0, number_available=False)
    with_wallet(shell, FAILED)

    ended = pay(shell, "--max-price", "100000")

    assert "The service refunded the order. No code will arrive." in ended.err
    assert (ended.code, ended.out) == (0, "")


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (FAILED, "Payment 630d…10dd failed: no route"),
        (
            AuthenticationError("the wallet refuses the credentials"),
            "The wallet refuses the credentials.",
        ),
    ],
)
def test_failed_payment_does_not_end_the_command_while_the_status_is_unknown(
    shell: Shell, error: Exception, problem: str
) -> None:
    shell.service.script("/orderstatus", *[Fault.reset()] * 8)
    with_wallet(shell, error)

    ended = pay(shell, "--max-price", "100000")

    assert ended.code == 0
    assert ended.err.count(problem) == 1
    note = "The wallet paid nothing. The status of the order cannot be read, so the command waits"
    assert note in ended.err


@pytest.mark.parametrize(
    ("state", "behaviour", "notes"),
    [
        (PaymentState.UNKNOWN, Behaviour(pay_delay=None), 1),
        (PaymentState.UNKNOWN, CODE, 0),
        (PaymentState.PENDING, Behaviour(pay_delay=None), 0),
    ],
)
def test_wallet_that_confirms_no_payment_is_reported_once(
    shell: Shell, state: PaymentState, behaviour: Behaviour, notes: int
) -> None:
    """At a wrong address, the command would wait for the whole time without a word."""
    shell.service.behaviour = behaviour
    with_wallet(shell)

    async def answer(*_: object) -> Payment:
        while shell.clock.now() < shell.service.orders[0].created_at + 1:  # after the first poll
            await anyio.lowlevel.checkpoint()
        return Payment(state, HASH, error="no connection (ConnectError)")

    async def wait(*_: object) -> None:
        await anyio.sleep_forever()

    shell.patch.setattr(HeldWallet, "pay", answer)
    shell.patch.setattr(HeldWallet, "__call__", wait)

    ended = pay(shell, "--max-price", "100000")

    assert ended.code == 0
    note = "The payment is not confirmed: no connection (ConnectError). The command asks"
    assert ended.err.count(note) == notes


def test_after_an_odd_failure_of_a_wallet_the_status_of_the_order_decides(shell: Shell) -> None:
    with_wallet(shell, RuntimeError("odd"))

    ended = pay(shell, "--max-price", "100000")

    assert (ended.code, ended.out) == (0, "007\n")
    assert "The wallet failed (RuntimeError). It may have paid." in ended.err


def test_error_of_the_service_ends_the_command(shell: Shell) -> None:
    with_wallet(shell)

    async def refuse(*_: object, **__: object) -> None:
        raise Sms4SatsError("odd")

    shell.patch.setattr("sms4sats_async.Sms4SatsClient.code_or_refund", refuse)

    assert pay(shell, "--max-price", "100000").code == 5


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--pay"], "Without a terminal, --pay needs --max-price."),
        (["--pay", "--immediate", "--max-price", "9"], "--immediate pays without one."),
        (["--pay", "--immediate"], "--immediate pays without one."),
        (["--max-fee", "50"], "--max-fee needs --pay."),
    ],
)
def test_wrong_use_orders_nothing(shell: Shell, words: list[str], problem: str) -> None:
    with_wallet(shell)

    ended = shell("code", "187", "tg", *words)

    assert ended.code == 2
    assert problem in ended.err
    assert shell.service.requests == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [("y", 0), ("Yes ", 0), ("", 3), ("no", 3), ("yn", 3), ("\x04", 3), ("y\x04", 3)],
)
def test_person_at_a_terminal_is_asked(shell: Shell, answer: str, code: int) -> None:
    """Ctrl-D (0x04) sends a line before its end, and only a whole line agrees."""
    made = with_wallet(shell)
    controller, terminal = pty.openpty()
    os.write(controller, f"{answer}\n".encode())
    with open(terminal, encoding="utf-8") as stdin, open(controller, "rb"):  # noqa: PTH123
        shell.patch.setattr(sys, "stdin", stdin)
        shell.patch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        ended = pay(shell)

    assert "Pay? [y/N]" in ended.err
    assert (ended.code, len(made[0].paid)) == (code, int(code == 0))


def test_interruption_of_the_question_says_that_the_wallet_paid_nothing(shell: Shell) -> None:
    made = with_wallet(shell)

    async def interrupted(_file: object) -> None:
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep_forever()

    shell.patch.setattr(anyio, "wait_readable", interrupted)
    for stream in (sys.stdin, sys.stderr):
        shell.patch.setattr(stream, "isatty", lambda: True, raising=False)

    ended = pay(shell)

    assert (ended.code, made[0].paid) == (130, [])
    assert "Interrupted. The wallet paid nothing." in ended.err
    assert "what was paid for it is held" not in ended.err


def test_question_is_asked_where_no_file_can_be_waited_for(shell: Shell) -> None:
    """Windows can wait for sockets only."""
    with_wallet(shell)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            raise OSError("no socket")

    shell.patch.setattr(sys, "stdin", Terminal("yes\n"))
    shell.patch.setattr(sys.stderr, "isatty", lambda: True, raising=False)

    assert pay(shell).code == 0


def test_missing_variable_is_named_before_an_order(shell: Shell) -> None:
    ended = pay(shell, "--max-price", "100000")

    assert ended.code == 2
    assert "SMS4SATS_WALLET is not set" in ended.err
    assert shell.service.requests == []


def test_fee_limit_that_the_wallet_cannot_enforce_is_refused(shell: Shell) -> None:
    shell.patch.setenv("SMS4SATS_WALLET", "lnbits")
    shell.patch.setenv("SMS4SATS_LNBITS_URL", "https://lnbits")
    shell.patch.setenv("SMS4SATS_LNBITS_KEY", ADMIN_KEY)

    ended = pay(shell, "--max-price", "100000", "--max-fee", "50")

    assert ended.code == 2
    assert "LnbitsWallet cannot limit the fee of a payment" in ended.err
    assert shell.service.requests == []


def test_missing_package_is_named(shell: Shell) -> None:
    shell.patch.setenv("SMS4SATS_WALLET", "nwc")
    shell.patch.setenv("SMS4SATS_NWC_URI", "nostr+walletconnect://x")
    shell.patch.setitem(sys.modules, "nostr_sdk", None)

    ended = pay(shell, "--max-price", "100000")

    assert ended.code == 2
    assert "pip install 'sms4sats-async[nwc]'" in ended.err


# --- sms4sats wallet ------------------------------------------------------------------------------


def set_up_lnd(shell: Shell, url: str) -> None:
    shell.patch.setenv("SMS4SATS_WALLET", "lnd")
    shell.patch.setenv("SMS4SATS_LND_URL", url)
    shell.patch.setenv("SMS4SATS_LND_MACAROON", MACAROON)
    shell.patch.setenv("SMS4SATS_MAX_FEE_SAT", "50")


def test_wallet_that_answers_is_shown(shell: Shell) -> None:
    with Stub("lnd", "settles") as stub:
        set_up_lnd(shell, stub.url)
        ended = shell("wallet")

    assert ended.facts == {"wallet": "lnd", "answers": "yes", "fee limit": "50 sat"}
    assert (ended.code, stub.node.pays) == (0, [])
    assert MACAROON not in ended.out + ended.err


def test_wallet_that_refuses_the_credentials_is_reported(shell: Shell) -> None:
    with Stub("lnd", "refuses") as stub:
        set_up_lnd(shell, stub.url)
        ended = shell("wallet")

    assert (ended.code, ended.out) == (3, "")
    assert "Check the wallet's credentials in the environment." in ended.err


def test_wallet_that_does_not_answer_is_reported(shell: Shell) -> None:
    with Stub("lnd", "settles") as stub:
        pass
    set_up_lnd(shell, stub.url)
    ended = shell("wallet")

    assert (ended.code, ended.out) == (5, "")
    assert "No wallet: no connection (ConnectError). Nothing was paid." in ended.err
