"""The commands: what each is called, what it takes, and what it asks of the client."""

import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from sms4sats_async import JournalEntry, Order

from .ends import End, ExitCode, Stage, end_of, end_of_result, sentence
from .facts import facts, result_facts, status_in_words
from .output import Output
from .session import Session, Stop, finish, finish_async, run
from .times import local, moment, printable, satoshis, span
from .work import check_price
from .work import resume as resume_orders

_LONGEST_LINE: Final = 200
"""Characters of a command's line in the list of commands, which may be broken into several."""


class _Grouped(TyperGroup):
    """Lists the commands under headings; typer does that with rich alone, which is slow to load."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002
        # Whose classes the two are, depends on typer: old ones use click, new ones have their own.
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            row = (name, command.get_short_help_str(_LONGEST_LINE))
            panels.setdefault(str(getattr(command, "rich_help_panel", "")), []).append(row)
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)


app: typer.Typer = typer.Typer(
    cls=_Grouped,
    help="Receive a code by SMS, or send a message, paid over Lightning: the code or the refund.",
    epilog="The API key comes from SMS4SATS_API_KEY. It is never an argument.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# What every mistake in the arguments is; typer has it from click, or from a click of its own.
_UsageError: Final[Any] = typer.BadParameter.__mro__[1]


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer's own way of calling it
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - 9 ms of a start that needs it not

        typer.echo(f"sms4sats {version('sms4sats-async')}")
        raise typer.Exit


@app.callback()
def _before_every_command(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Show the version and exit."
        ),
    ] = False,
) -> None: ...


def run_command(words: Sequence[str]) -> int:
    """Run the command with these arguments and return the exit code."""
    try:
        code = app(words or ["--help"], prog_name="sms4sats", standalone_mode=False)
    except typer.Abort:  # Ctrl-C while it waits for an order id, for one
        return ExitCode.INTERRUPTED
    except Stop as stop:
        end = stop.end
    except _UsageError as mistake:
        usage: Any = mistake
        path = "sms4sats" if usage.ctx is None else usage.ctx.command_path
        problem = sentence(usage.format_message())
        end = End(ExitCode.USAGE, problem, f"`{path} --help` shows how it is used.")
    except Exception as error:  # noqa: BLE001 - a traceback says nothing to whoever runs this
        end = end_of(error)
    else:
        return int(code or 0)
    Output("--json" in words).end(end)
    return end.code


def _order_id(text: str) -> str:
    """Return an order's id, from standard input in the place of `-`."""
    if text != "-":
        return text
    found = sys.stdin.readline().strip()
    if not found:
        raise typer.BadParameter("the first line of standard input is empty.")
    return found


# --- what several commands take -------------------------------------------------------------------

_A_COUNTRY: Final = "A number or a name, such as 187 or germany."
_A_SERVICE: Final = "A short code, such as tg."

Country = Annotated[str, typer.Argument(metavar="COUNTRY", help=_A_COUNTRY)]
Service = Annotated[str, typer.Argument(metavar="SERVICE", help=_A_SERVICE)]
OrderId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        parser=_order_id,
        help="The order's ID, or its beginning if the journal has it; - reads it from standard "
        "input.",
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
Timeout = Annotated[
    timedelta,
    typer.Option(
        metavar="D",
        parser=span,
        show_default=False,
        help="How long to wait for the code before the order is cancelled; 5m if left out.",
    ),
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
    bool, typer.Option("--json", help="Print one JSON object per line, and nothing else.")
]

# --- prices and places ----------------------------------------------------------------------------

_PRICES: Final = "Prices and places"


@app.command(rich_help_panel=_PRICES)
def price(
    country: Annotated[str | None, typer.Argument(metavar="COUNTRY", help=_A_COUNTRY)] = None,
    service: Annotated[str | None, typer.Argument(metavar="SERVICE", help=_A_SERVICE)] = None,
    *,
    base_url: BaseUrl = None,
    json: Json = False,
) -> None:
    """Show the prices in satoshis, and what a code of one service costs in one country."""

    async def work(session: Session) -> None:
        found = await session.client.get_price(country, service)
        session.out.show(facts(found))
        if country is not None and found.computed is None:
            session.out.note("Name a service too for the price of a code in that country.")

    run(work, base_url=base_url, json=json, journal=False)


@app.command(rich_help_panel=_PRICES)
def countries(*, base_url: BaseUrl = None, json: Json = False) -> None:
    """List the countries that an order can name."""

    async def work(session: Session) -> None:
        found = await session.client.get_countries()
        session.out.table([*map(facts, found)], ["id", "name", "visible", "rentable"])

    run(work, base_url=base_url, json=json, journal=False)


@app.command(rich_help_panel=_PRICES)
def services(country: Country, *, base_url: BaseUrl = None, json: Json = False) -> None:
    """List the services of a country, and how many numbers there are."""

    async def work(session: Session) -> None:
        found = await session.client.get_services(country)
        session.out.table([*map(facts, found)], ["code", "name", "count"])

    run(work, base_url=base_url, json=json, journal=False)


# --- orders ---------------------------------------------------------------------------------------

_ORDERS: Final = "Orders"


@app.command(rich_help_panel=_ORDERS)
def code(
    country: Country,
    service: Service,
    *,
    timeout: Timeout = timedelta(minutes=5),
    max_price: Annotated[
        int | None,
        typer.Option(
            metavar="SATOSHIS", parser=satoshis, help="Refuse an invoice that asks for more."
        ),
    ] = None,
    rental: Rental = False,
    real_phone: RealPhone = False,
    referral: Referral = None,
    immediate: Immediate = False,
    base_url: BaseUrl = None,
    json: Json = False,
) -> None:
    """Order a number, show the invoice, and print the code; without a code, cancel for a refund.

    Standard output has the code alone, or nothing.
    """
    if max_price is not None and immediate:
        problem = "--max-price checks the invoice, and --immediate pays without one."
        raise Stop(End(ExitCode.USAGE, problem, "Leave out one of them."))

    async def work(session: Session) -> None:
        session.stage = Stage.ORDERING
        made = await session.client.create_order(
            country,
            service,
            rental=rental,
            real_phone=real_phone,
            referral=referral,
            immediate=immediate,
        )
        if max_price is not None:
            check_price(made, max_price)
        session.out.order(made, on_the_way=True)
        result = await session.client.code_or_refund(made, timeout=timeout)
        if json or result.code is not None:
            session.out.show(result_facts(result), result.code and printable(result.code))
        else:
            session.out.note(end_of_result(result).message)

    run(work, base_url=base_url, json=json)


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
    """Order a number and show the invoice. `resume` and `cancel` do the rest."""

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
        session.out.note(
            "What you pay is held, and settles when the code arrives. `sms4sats resume` waits for "
            "the code, and `sms4sats cancel` cancels the order for a refund."
        )

    run(work, base_url=base_url, json=json)


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
    """Order a message to be sent, and show the invoice."""

    async def work(session: Session) -> None:
        session.stage = Stage.ORDERING
        session.out.order(
            await session.client.create_send_order(
                phone, message, immediate=immediate, webhook_url=webhook_url
            )
        )
        session.out.note(
            "What you pay is held, and settles when the message is sent. `sms4sats watch` shows it."
        )

    run(work, base_url=base_url, json=json)


@app.command(rich_help_panel=_ORDERS)
def status(order_id: OrderId, *, base_url: BaseUrl = None, json: Json = False) -> None:
    """Show the status of an order: its money, its number, its code."""

    async def work(session: Session) -> None:
        identifier, _ = await session.find(order_id)
        session.out.show(facts(await session.client.get_order_status(identifier)))

    run(work, base_url=base_url, json=json)


@app.command(rich_help_panel=_ORDERS)
def watch(order_id: OrderId, *, base_url: BaseUrl = None, json: Json = False) -> None:
    """Show each change of an order until it has ended."""

    async def work(session: Session) -> None:
        identifier, _ = await session.find(order_id)
        async for found in session.client.watch_order(identifier):
            _, _, time = local(session.now()).partition(" ")
            session.out.show(facts(found), f"{time[:8]}  {status_in_words(found)}")

    run(work, base_url=base_url, json=json)


@app.command(rich_help_panel=_ORDERS)
def cancel(
    order_id: OrderId,
    *,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait",
            help="Wait until the service allows it and retry, or cancel now.",
        ),
    ] = True,
    created_at: Annotated[
        datetime | None,
        typer.Option(
            metavar="T", parser=moment, help="When it was created, such as 2026-11-23T14:03:00Z."
        ),
    ] = None,
    age: Annotated[
        timedelta | None,
        typer.Option(metavar="D", parser=span, help="How old it is, such as 90s, 3m or 2m30s."),
    ] = None,
    base_url: BaseUrl = None,
    json: Json = False,
) -> None:
    """Cancel an order for a refund, unless its code arrives first."""
    if created_at is not None and age is not None:
        raise Stop(
            End(ExitCode.USAGE, "--created-at and --age mean the same.", "Give one of them.")
        )
    if not wait and (created_at is not None or age is not None):
        problem = "--created-at and --age shorten a wait, and --no-wait does not wait."
        raise Stop(End(ExitCode.USAGE, problem, "Leave out one of them."))

    async def work(session: Session) -> None:
        identifier, entry = await session.find(order_id)
        since = created_at if age is None else session.now() - age
        if since is None and entry is not None:
            since = entry.created_at  # also for the message of an interruption
        session.ordered_at, session.stage = since, Stage.CANCELLING
        if not wait:
            result = await session.client.cancel_order(identifier, confirm=True)
        else:
            if since is None:
                session.out.note(
                    "The age of the order is unknown, so the two minutes count from now. --age or "
                    "--created-at can shorten that."
                )
            result = await session.client.cancel_order_when_allowed(identifier, created_at=since)
        session.out.show(result_facts(result), end_of_result(result).message)

    run(work, base_url=base_url, json=json)


@app.command(rich_help_panel=_ORDERS)
def pending(*, json: Json = False) -> None:
    """List the orders of this machine that have not ended."""

    async def work(session: Session) -> None:
        entries = await session.journal.pending()
        columns = ["created_at", "country", "service", "phone", "state"]
        if any(entry.base_url != session.client.base_url for entry in entries):
            columns.append("base_url")
        session.out.table([facts(entry) for entry in entries], ["order_id", *columns])
        if not entries:
            session.out.note("No order is pending.")

    run(work, base_url=None, json=json)


@app.command(rich_help_panel=_ORDERS)
def resume(
    order_id: Annotated[
        str | None,
        typer.Argument(metavar="ID", parser=_order_id, help="All pending orders if left out."),
    ] = None,
    *,
    timeout: Annotated[
        timedelta | None,
        typer.Option(
            metavar="D",
            parser=span,
            show_default=False,
            help="How old an order gets before it is cancelled; the recorded time if left out.",
        ),
    ] = None,
    base_url: BaseUrl = None,
    json: Json = False,
) -> None:
    """Resume an order, or all that are pending: the code or the refund."""

    async def work(session: Session) -> None:
        session.stage = Stage.RESUMING
        if order_id is None:
            entries = await session.journal.pending(session.client.base_url)
        else:
            identifier, entry = await session.find(order_id)
            entries = [entry or JournalEntry("", "receive", session.now(), identifier)]
        if len(entries) == 1:
            session.ordered_at = entries[0].created_at
        match entries:
            case []:
                session.out.note("No order is pending.")
            case [
                JournalEntry(
                    pending=True, paid=None | False, order=Order(invoice=str(invoice)) as alone
                )
            ] if invoice:
                session.out.order(alone, on_the_way=True)
            case _:
                pass
        await resume_orders(session, entries, timeout)

    run(work, base_url=base_url, json=json)


# --- prepaid balance ------------------------------------------------------------------------------

_PREPAID: Final = "Prepaid balance"


@app.command(rich_help_panel=_PREPAID)
def balance(*, base_url: BaseUrl = None, json: Json = False) -> None:
    """Show the balance of the API key, in satoshis."""

    async def work(session: Session) -> None:
        session.out.show({"balance": await session.client.get_balance()})

    run(work, base_url=base_url, json=json, journal=False)


@app.command(rich_help_panel=_PREPAID)
def history(*, base_url: BaseUrl = None, json: Json = False) -> None:
    """List how the balance of the API key was funded."""

    async def work(session: Session) -> None:
        found = await session.client.get_history()
        session.out.table([*map(facts, found.entries)], ["created_at", "amount", "description"])
        session.out.note(f"{found.total_amount:,} sat in total.")

    run(work, base_url=base_url, json=json, journal=False)


@app.command(rich_help_panel=_PREPAID)
def fund(
    amount: Annotated[
        int, typer.Argument(metavar="SATOSHIS", parser=satoshis, help="How many, at least 1.")
    ],
    *,
    base_url: BaseUrl = None,
    json: Json = False,
) -> None:
    """Show an invoice that adds to the balance of the API key."""

    async def work(session: Session) -> None:
        session.stage = Stage.ORDERING
        session.out.order(await session.client.fund(amount))
        session.out.note("Once it is paid, `sms4sats balance` shows it.")

    run(work, base_url=base_url, json=json, journal=False)


# --- on this machine ------------------------------------------------------------------------------

_HERE: Final = "On this machine"


@app.command(
    rich_help_panel=_HERE,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def simulator(context: typer.Context, *, json: Json = False) -> None:
    """Run a simulator of the service on this machine, without money, until Ctrl-C."""
    # The simulator declares the options, and prints its help. It is slow to import.
    from sms4sats_async.simulator.__main__ import run as serve  # noqa: PLC0415

    def job(_: Session) -> None:
        arguments = [*context.args, "--json"] if json else context.args
        try:
            code = serve(arguments, prog=context.command_path)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            problem = sentence(f"the simulator cannot start: {why}")
            next_step = "`sms4sats simulator --help` lists the options."
            raise Stop(End(ExitCode.USAGE, problem, next_step)) from error
        raise typer.Exit(code)

    finish(job, json=json)


@app.command(rich_help_panel=_HERE)
def demo(*, json: Json = False) -> None:
    """Show an order on a simulator: created, paid and cancelled, in a quarter of a minute."""
    # Slow to import, and needed here alone.
    from rich.console import Console  # noqa: PLC0415

    from sms4sats_async.simulator import ScaledClock  # noqa: PLC0415

    from .demo import SPEED, Demo  # noqa: PLC0415

    async def work(session: Session) -> None:
        result = await Demo(Console(stderr=json), ScaledClock(SPEED)).run()
        if json:
            session.out.show(result_facts(result))

    finish_async(work, json=json)
