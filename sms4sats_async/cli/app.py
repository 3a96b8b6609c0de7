"""The commands: what each is called, what it takes, and what it asks of the client."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import anyio
import typer
from typer.core import TyperGroup

from sms4sats_async import (
    Cancellation,
    CancelOutcome,
    CodeAlreadyReceivedError,
)

from .ends import End, ExitCode, Stage, end_of, sentence
from .facts import ended_facts, facts, in_words
from .output import Output
from .session import CLOCK, Session, Stop, finish, run
from .times import moment, span


_LONGEST_LINE: Final = 200
"""Characters of a command's line in the list of commands, which may be broken into several."""


class _Grouped(TyperGroup):
    """Lists the commands under the headings of their panels, without rich: that is slow to load."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - see below
        # typer brings a click of its own, or uses that of others; which, depends on its version.
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            row = (name, command.get_short_help_str(_LONGEST_LINE))
            panels.setdefault(str(getattr(command, "rich_help_panel", "")), []).append(row)
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)


_UsageError: Final[type[Exception]] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    cls=_Grouped,
    help="Receive a code by SMS, or send one, paid over Lightning: the code, or the money back.",
    epilog="An API key comes from SMS4SATS_API_KEY, and is never an argument.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)



def run_command(words: Sequence[str]) -> int:
    """Run the command with these arguments and return the exit code."""
    try:
        code = app(words or ["--help"], prog_name="sms4sats", standalone_mode=False)
    except Stop as stop:
        end = stop.end
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        path = "sms4sats" if context is None else context.command_path
        problem = sentence(str(getattr(error, "format_message")()))
        end = End(ExitCode.USAGE, problem, f"`{path} --help` shows how it is used.")
    else:
        return int(code or 0)
    Output("--json" in words).end(end)
    return end.code


_PRICES: Final = "Prices and places"
_ORDERS: Final = "Orders"
_PREPAID: Final = "Prepaid balance"
_HERE: Final = "On this machine"


def _order_id(text: str) -> str:
    if text != "-":
        return text
    found = sys.stdin.readline().strip()
    if not found:
        raise typer.BadParameter("standard input has no order id in its first line.")
    return found


Country = Annotated[
    str, typer.Argument(metavar="COUNTRY", help="A number or a name, such as 187 or germany.")
]
Service = Annotated[str, typer.Argument(metavar="SERVICE", help="A short code, such as tg.")]
AnyCountry = Annotated[
    str | None,
    typer.Argument(metavar="COUNTRY", help="A number or a name, such as 187 or germany."),
]
AnyService = Annotated[
    str | None, typer.Argument(metavar="SERVICE", help="A short code, such as tg.")
]
OrderId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        parser=_order_id,
        help="The order's id. - reads it from standard input, which leaves no trace in the "
        "shell's history.",
    ),
]
Rental = Annotated[bool, typer.Option("--rental", help="Rent the number.")]
RealPhone = Annotated[bool, typer.Option("--real-phone", help="Ask for a real phone's number.")]
Referral = Annotated[
    str | None,
    typer.Option("--referral", metavar="ADDRESS", help="A Lightning address that gets 10 %."),
]
Immediate = Annotated[
    bool, typer.Option("--immediate", help="Pay at once, from the balance of the API key.")
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        envvar="SMS4SATS_BASE_URL",
        metavar="URL",
        help="The root of the service, or of a simulator.",
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object per line, and nothing else."),
]


# --- prices and places ----------------------------------------------------------------------------


@app.command(rich_help_panel=_PRICES)
def price(
    country: AnyCountry = None,
    service: AnyService = None,
    *,
    base_url: BaseUrl = None,
    json: Json = False,
) -> None:
    """Show the prices in satoshis, and what a code of one service costs in one country."""

    async def work(session: Session) -> None:
        session.out.show(facts(await session.client.get_price(country, service)))

    run(work, base_url=base_url, json=json)


@app.command(rich_help_panel=_PRICES)
def countries(*, base_url: BaseUrl = None, json: Json = False) -> None:
    """List the countries that orders can name."""

    async def work(session: Session) -> None:
        found = await session.client.get_countries()
        session.out.table([*map(facts, found)], ["id", "name", "visible", "rentable"])

    run(work, base_url=base_url, json=json)


@app.command(rich_help_panel=_PRICES)
def services(country: Country, *, base_url: BaseUrl = None, json: Json = False) -> None:
    """List the services of a country, and how many numbers there are."""

    async def work(session: Session) -> None:
        found = await session.client.get_services(country)
        session.out.table([*map(facts, found)], ["code", "name", "count"])

    run(work, base_url=base_url, json=json)


# --- orders ---------------------------------------------------------------------------------------


@app.command(rich_help_panel=_ORDERS)
def order(
    country: Country,
    service: Service,
    *,
    rental: Rental = False,
    real_phone: RealPhone = False,
    referral: Referral = None,
    immediate: Immediate = False,
    base_url: BaseUrl = None,
    json: Json = False,
) -> None:
    """Order a number, and show the invoice to pay. Nothing more is done; `code` does it all."""

    async def work(session: Session) -> None:
        session.stage = Stage.ORDERING
        session.out.order(
            await session.client.create_order(
                country,
                service,
                rental=rental,
                real_phone=real_phone,
                referral=referral,
                immediate=immediate,
            )
        )
        session.out.note(_PAID_MEANS_HELD)

    run(work, base_url=base_url, json=json)


_PAID_MEANS_HELD: Final = (
    "What is paid is held, and spent when the code comes. `sms4sats watch` shows what happens to "
    "the order, and `sms4sats cancel` gets the money back, from two minutes after the order on."
)


@app.command(rich_help_panel=_ORDERS)
def status(order_id: OrderId, *, base_url: BaseUrl = None, json: Json = False) -> None:
    """Show where an order stands, who holds its money, and its code."""

    async def work(session: Session) -> None:
        found = facts(await session.client.get_order_status(order_id))
        session.out.show(found)

    run(work, base_url=base_url, json=json)


@app.command(rich_help_panel=_ORDERS)
def watch(order_id: OrderId, *, base_url: BaseUrl = None, json: Json = False) -> None:
    """Show each change of an order until it has ended."""

    async def work(session: Session) -> None:
        async for found in session.client.watch_order(order_id):
            seen = datetime.fromtimestamp(CLOCK.now(), UTC)
            line = f"{in_words(seen)}  {found.state.value}, money {found.money.value}"
            session.out.show(facts(found), line)

    run(work, base_url=base_url, json=json)


@app.command(rich_help_panel=_ORDERS)
def cancel(
    order_id: OrderId,
    *,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait",
            help="Wait until it is allowed and go on until it is done, or ask now and only now.",
        ),
    ] = True,
    created_at: Annotated[
        datetime | None,
        typer.Option(
            metavar="T", parser=moment, help="When it was ordered, such as 2026-11-23T14:03:00Z."
        ),
    ] = None,
    age: Annotated[
        timedelta | None,
        typer.Option(metavar="D", parser=span, help="How long ago, such as 90s, 3m or 2m30s."),
    ] = None,
    base_url: BaseUrl = None,
    json: Json = False,
) -> None:
    """Get the money of an order back, unless its code comes first."""
    if created_at is not None and age is not None:
        raise Stop(End(ExitCode.USAGE, "--created-at and --age say the same.", "Give one of them."))
    if not wait and (created_at is not None or age is not None):
        problem = "--created-at and --age shorten a wait, and --no-wait does not wait."
        raise Stop(End(ExitCode.USAGE, problem, "Leave out one or the other."))

    async def work(session: Session) -> None:
        session.stage = Stage.CANCELLING
        if wait:
            since = created_at
            if age is not None:
                since = datetime.fromtimestamp(CLOCK.now(), UTC) - age
            if since is None:
                session.out.note(_AGE_UNKNOWN)
            done = await session.client.cancel_order_when_allowed(order_id, created_at=since)
        else:
            done = await _cancel_now(session, order_id)
        session.out.show(ended_facts(done), end_of(done).message)

    run(work, base_url=base_url, json=json)


_AGE_UNKNOWN: Final = (
    "How old the order is, is not known, so its two minutes count from now; --age or --created-at "
    "can shorten that."
)


async def _cancel_now(session: Session, order_id: str) -> Cancellation:
    try:
        return await session.client.cancel_order(order_id, confirm=True)
    except CodeAlreadyReceivedError as error:
        return Cancellation(
            order_id, CancelOutcome.CODE_ARRIVED, error.status, attempts=error.attempts
        )


@app.command(rich_help_panel=_ORDERS)
def send(
    phone: Annotated[str, typer.Argument(metavar="PHONE", help="Such as +4915112345678.")],
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="At most 140 characters.")],
    *,
    immediate: Immediate = False,
    webhook_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where the service is to post the status."),
    ] = None,
    base_url: BaseUrl = None,
    json: Json = False,
) -> None:
    """Order a message to be sent, and show the invoice to pay."""

    async def work(session: Session) -> None:
        session.stage = Stage.ORDERING
        session.out.order(
            await session.client.create_send_order(
                phone, message, immediate=immediate, webhook_url=webhook_url
            )
        )
        session.out.note("What is paid is held, and spent when the message is sent.")

    run(work, base_url=base_url, json=json)


# --- prepaid balance ------------------------------------------------------------------------------


@app.command(rich_help_panel=_PREPAID)
def balance(*, base_url: BaseUrl = None, json: Json = False) -> None:
    """Show the balance of the API key, in satoshis."""

    async def work(session: Session) -> None:
        session.out.show({"balance": await session.client.get_balance()})

    run(work, base_url=base_url, json=json)


@app.command(rich_help_panel=_PREPAID)
def history(*, base_url: BaseUrl = None, json: Json = False) -> None:
    """List how the balance of the API key was filled."""

    async def work(session: Session) -> None:
        found = await session.client.get_history()
        session.out.table([*map(facts, found.entries)], ["created_at", "amount", "description"])

    run(work, base_url=base_url, json=json)


@app.command(rich_help_panel=_PREPAID)
def fund(
    amount: Annotated[int, typer.Argument(metavar="SATOSHIS", help="At least 1.")],
    *,
    base_url: BaseUrl = None,
    json: Json = False,
) -> None:
    """Show an invoice that fills the balance of the API key."""

    async def work(session: Session) -> None:
        session.stage = Stage.ORDERING
        session.out.order(await session.client.fund(amount))

    run(work, base_url=base_url, json=json)


# --- on this machine ------------------------------------------------------------------------------

_Simulated = Annotated[float, typer.Option(metavar="S", help="Simulated seconds.")]


@app.command(rich_help_panel=_HERE)
def simulator(
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 is any free one.")] = 8021,
    speed: Annotated[float, typer.Option(help="How much faster than real its time runs.")] = 60.0,
    pay_after: _Simulated = 5.0,
    number_after: _Simulated = 5.0,
    code_after: _Simulated = 60.0,
    no_number: Annotated[
        bool, typer.Option("--no-number", help="No number is to be had: orders are refunded.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(help="The same ids and numbers in every run.", metavar="N")
    ] = None,
    json: Json = False,
) -> None:
    """Run the service in miniature, without money and telephones, until Ctrl-C."""
    from sms4sats_async.simulator import (  # noqa: PLC0415 - slow to import, and needed here alone
        Behaviour,
        ScaledClock,
        Simulator,
    )
    from sms4sats_async.simulator.__main__ import greeting, serve  # noqa: PLC0415

    def job(session: Session) -> None:
        def greet(url: str) -> None:
            known = {"base_url": url, "speed": speed}
            session.out.show(known, "\n".join(greeting(url, speed)))

        try:
            service = Simulator(
                Behaviour(
                    pay_delay=pay_after,
                    number_delay=number_after,
                    code_delay=code_after,
                    number_available=not no_number,
                ),
                clock=ScaledClock(speed),
                seed=seed,
            )
            log = sys.stderr if json else sys.stdout
            code = serve(service, host, port, on_ready=greet, log=log)
        except (OSError, ValueError) as error:
            problem = sentence(f"the simulator cannot start: {error}")
            raise Stop(End(ExitCode.USAGE, problem, "Choose something else.")) from error
        raise typer.Exit(code)

    finish(job, json=json)


@app.command(rich_help_panel=_HERE)
def demo(*, json: Json = False) -> None:
    """Watch an order be made, paid and cancelled on a simulator, in a quarter of a minute."""
    from rich.console import Console  # noqa: PLC0415 - slow to import, and needed here alone

    from sms4sats_async.simulator import ScaledClock  # noqa: PLC0415

    from .demo import SPEED, Demo  # noqa: PLC0415

    def job(session: Session) -> None:
        done = anyio.run(Demo(Console(stderr=json), ScaledClock(SPEED)).run)
        if json:
            session.out.show(ended_facts(done))

    finish(job, json=json)
