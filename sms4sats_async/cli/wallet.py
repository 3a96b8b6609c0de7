"""Pay an order from the user's own wallet, which the environment names."""

import os
import re
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import anyio

from sms4sats_async import (
    AuthenticationError,
    Order,
    OrderResult,
    OrderState,
    ReceiveOrder,
    Sms4SatsError,
)

from .ends import ExitCode, Stage, Stop, sentence
from .facts import amount_of
from .session import Session

if TYPE_CHECKING:
    from sms4sats_async.wallets.environment import AnyWallet

_YES: Final = re.compile(r"\s*y(es)?\s*\n", re.IGNORECASE)
_LONGEST_ANSWER: Final = 1024
"""Bytes of the answer that are read."""


def open_wallet(max_fee: int | None, *, asks: bool) -> "AnyWallet":
    """Return the wallet of the environment.

    Args:
        max_fee: The highest routing fee in satoshis; None: the environment says it.
        asks: Whether a person must agree to each payment.

    Raises:
        Stop: There is no terminal to ask at, or a package is missing.
        InvalidArgumentError: A variable is missing or invalid.
    """
    if asks and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Stop("argument", ExitCode.USAGE, "without a terminal, --pay needs --max-price")
    from sms4sats_async.wallets import wallet_from_environment  # noqa: PLC0415 - imports httpx

    try:
        return wallet_from_environment(max_fee_sat=max_fee)
    except ImportError as error:
        raise Stop("package", ExitCode.USAGE, str(error)) from error


def name_of_wallet() -> str:
    """Return the name of the wallet, which is no secret."""
    return os.environ.get("SMS4SATS_WALLET", "").strip()


async def agree(session: Session, order: Order, wallet: "AnyWallet", *, asks: bool) -> None:
    """Show what will be paid, and ask for it.

    Raises:
        Stop: The answer is no.
    """
    amount = amount_of(order)
    has = "an invoice without a readable amount" if amount is None else f"{amount:,} sat"
    limit = wallet.max_fee_sat
    fee = "no limit of the routing fee" if limit is None else f"a routing fee up to {limit:,} sat"
    session.out.note(f"To pay from the wallet {name_of_wallet()}: {has}, with {fee}.")
    if not asks:
        return
    session.stage = Stage.ASKING
    session.out.note("Pay? [y/N]")
    # A read in a thread would outlive Ctrl-C. After Ctrl-D, a read of a whole line would block it.
    try:
        await anyio.wait_readable(sys.stdin)
        answer = os.read(sys.stdin.fileno(), _LONGEST_ANSWER).decode(errors="replace")
    except (OSError, NotImplementedError):  # Windows can wait for sockets only
        answer = sys.stdin.readline()
    if _YES.fullmatch(answer) is None:
        raise Stop("not paid", ExitCode.REFUSED, "the payment was refused at the terminal")
    session.stage = Stage.WAITING


async def pay_and_wait(
    session: Session,
    order: ReceiveOrder,
    wallet: "AnyWallet",
    timeout: timedelta,
) -> OrderResult:
    """Pay an order in the background, and return the code or the refund.

    Raises:
        Stop: The wallet paid nothing.
        Sms4SatsError: As `code_or_refund`.
    """
    from sms4sats_async.wallets import PaymentState  # noqa: PLC0415 - imports httpx

    failures: list[Sms4SatsError] = []
    results: list[OrderResult] = []
    payment = anyio.CancelScope()

    async def run_payment() -> None:
        try:
            with payment:
                first = await wallet.pay(order.invoice)
                if first.state is PaymentState.UNKNOWN and not session.is_paid:
                    session.out.note(
                        f"The payment is not confirmed: {first.error}. The command asks the wallet "
                        "again, and the status of the order decides."
                    )
                await wallet(order.invoice)
        except Sms4SatsError as error:  # the wallet paid nothing
            # It says so too when a held payment is refunded, so the status of the order decides.
            if session.is_paid:
                return
            try:
                status = await session.client.get_order_status(order)
            except Sms4SatsError:
                session.out.note(
                    f"{sentence(error.problem)} The wallet paid nothing. The status of the order "
                    "cannot be read, so the command waits for it."
                )
                return
            if status.state is OrderState.UNPAID:
                failures.append(error)
                group.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001 - a wallet's; the status of the order decides
            session.out.note(f"The wallet failed ({type(error).__name__}). It may have paid.")

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(run_payment)
            results.append(await session.client.code_or_refund(order, timeout=timeout))
            payment.cancel()  # it has ended, or is useless
    except ExceptionGroup as several:
        raise several.exceptions[0] from several
    if not results:
        raise Stop("wallet", ExitCode.REFUSED, failures[0].problem) from failures[0]
    return results[0]


async def check_wallet(wallet: "AnyWallet") -> None:
    """Check that the wallet answers.

    Raises:
        Stop: It does not, or it refuses the credentials.
    """
    try:
        await wallet.check()
    except AuthenticationError as error:
        raise Stop("wallet key", ExitCode.REFUSED, error.problem) from error
    except Sms4SatsError as error:
        raise Stop("no wallet", ExitCode.UNREACHABLE, f"no wallet: {error.problem}") from error
