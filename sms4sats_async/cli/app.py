"""The commands: their names, their arguments, and the calls of the client behind them."""

import enum
import functools
import inspect
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, TypeAlias, TypedDict, Unpack, get_args, get_type_hints

import typer
from typer.core import TyperGroup

from sms4sats_async import MINIMUM_CANCEL_AGE, JournalEntry, JournalError

from .ends import ExitCode, Stage, Stop, end_of, result_in_words
from .facts import facts, local, result_facts, status_in_words
from .output import Output
from .session import Session, finish, run
from .times import moment, satoshis, span
from .wallet import agree, check_wallet, name_of_wallet, open_wallet, pay_and_wait
from .work import DEFAULT_TIMEOUT, check_price
from .work import resume as resume_orders

Work: TypeAlias = Callable[..., Awaitable[object]]
"""What a command does, with a session and its arguments."""


class PostgresAction(enum.Enum):
    """What `sms4sats postgres` does."""

    INIT = "init"


_LONGEST_LINE: Final = 200
"""Characters of a command's line in the list of commands, which may be broken into several."""


class _Grouped(TyperGroup):
    """Lists the commands under headings; typer does that with rich alone, which is slow to load."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002
        # The classes of both depend on typer: old ones use click, new ones have their own.
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
        from importlib.metadata import version  # noqa: PLC0415 - 9 ms, for this option only

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
        code = app([*words] or ["--help"], prog_name="sms4sats", standalone_mode=False)
    except typer.Abort:  # Ctrl-C while it waits for an order ID
        return ExitCode.INTERRUPTED
    except _UsageError as mistake:
        usage: Any = mistake
        path = "sms4sats" if usage.ctx is None else usage.ctx.command_path
        end = Stop("usage", ExitCode.USAGE, usage.format_message(), command=path).end
    except SystemExit as error:
        if not isinstance(error.__context__, BrokenPipeError):  # click's way to report that
            raise
        end = end_of(error.__context__)
    except Exception as error:  # noqa: BLE001 - a traceback helps no user
        end = end_of(error)
    else:
        return int(code or 0)
    Output("--json" in words).end(end)
    return end.code


_AROUND_AN_ID: Final = " \t\r\n\N{NO-BREAK SPACE}\N{ZERO WIDTH NO-BREAK SPACE}"
"""Blanks, and the mark with which some shells of Windows begin what they pipe into a program."""


def _order_id(text: str) -> str:
    """Return an order's ID, without what was copied around it; `-` reads it from standard input."""
    if text != "-":
        return text.strip(_AROUND_AN_ID)
    found = sys.stdin.readline().strip(_AROUND_AN_ID)
    if not found:
        raise typer.BadParameter("the first line of standard input is empty.")
    return found


# --- what several commands take -------------------------------------------------------------------


def _argument(metavar: str, about: str, parser: Callable[[str], Any] | None = None) -> Any:  # noqa: ANN401
    return typer.Argument(metavar=metavar, parser=parser, help=about)


def _option(metavar: str, about: str, parser: Callable[[Any], Any] | None = None) -> Any:  # noqa: ANN401
    return typer.Option(metavar=metavar, parser=parser, show_default=False, help=about)


def _flag(name: str, about: str) -> Any:  # noqa: ANN401
    return typer.Option(name, help=about)


_A_COUNTRY: Final = _argument("COUNTRY", "A number or a name, such as 43 or germany.")
_A_SERVICE: Final = _argument("SERVICE", "A short code, such as tg.")
_AN_ID: Final = (
    "The order's ID, or its beginning if the journal has it; - reads it from standard input."
)

Country = Annotated[str, _A_COUNTRY]
Service = Annotated[str, _A_SERVICE]
OrderId = Annotated[str, _argument("ID", _AN_ID, _order_id)]
Immediate = Annotated[bool, _flag("--immediate", "Pay at once, from the balance of the API key.")]
Json = Annotated[bool, _flag("--json", "Print one JSON object per line, and nothing else.")]


class OrderOptions(TypedDict):
    """The options of an order for a code, as `create_order` takes them."""

    rental: Annotated[bool, _flag("--rental", "Rent the number.")]
    real_phone: Annotated[bool, _flag("--real-phone", "Require a real phone's number.")]
    referral: Annotated[str | None, _option("ADDRESS", "A Lightning address that gets 10 %.")]
    immediate: Immediate


class CommonOptions(TypedDict):
    """The options of every command that uses the service."""

    base_url: Annotated[
        str | None,
        typer.Option(
            envvar="SMS4SATS_BASE_URL",
            metavar="URL",
            help="The root of the service, or of a simulator.",
        ),
    ]
    json: Json


def _parameters(kind: type) -> list[inspect.Parameter]:
    """Return the entries of a TypedDict as options; flags are off, and values None by default."""
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if get_args(hint)[0] is bool else None,
            annotation=hint,
        )
        for name, hint in get_type_hints(kind, include_extras=True).items()
    ]


def _command(
    panel: str, *, journal: bool = True, stage: Stage = Stage.READING
) -> Callable[[Work], Work]:
    """Make a function a command: it gets a session, its arguments and the common options.

    Args:
        panel: The heading above the command in the list of commands.
        journal: Whether the command needs a journal.
        stage: What an interruption means at first.
    """

    def register(work: Work) -> Work:
        def command(*, base_url: str | None, json: bool, **arguments: object) -> None:
            job = functools.partial(work, **arguments)
            run(job, base_url=base_url, json=json, journal=journal, stage=stage)

        parameters = [*inspect.signature(work, eval_str=True).parameters.values()][1:]
        if parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD:
            parameters += _parameters(get_args(parameters.pop().annotation)[0])
        parameters += _parameters(CommonOptions)
        # Typer reads the signature and the annotations of the function that it calls.
        function: Any = functools.update_wrapper(command, work)
        function.__signature__ = inspect.Signature(parameters)
        function.__annotations__ = {each.name: each.annotation for each in parameters}
        app.command(rich_help_panel=panel)(function)
        return work

    return register


# --- prices and places ----------------------------------------------------------------------------

_PRICES: Final = "Prices and places"


@_command(_PRICES, journal=False)
async def price(
    session: Session,
    country: Annotated[str | None, _A_COUNTRY] = None,
    service: Annotated[str | None, _A_SERVICE] = None,
) -> None:
    """Show the prices in satoshis, and what a code of one service costs in one country."""
    found = await session.client.get_price(country, service)
    session.out.show(facts(found))
    if country is not None and found.computed is None:
        session.out.note("Name a service too for the price of a code in that country.")


@_command(_PRICES, journal=False)
async def countries(session: Session) -> None:
    """List the countries that an order can name."""
    found = await session.client.get_countries()
    session.out.table([*map(facts, found)], ["id", "name", "visible", "rentable"])


@_command(_PRICES, journal=False)
async def services(session: Session, country: Country) -> None:
    """List the services of a country, and how many numbers there are."""
    found = await session.client.get_services(country)
    session.out.table([*map(facts, found)], ["code", "name", "count"])


# --- orders ---------------------------------------------------------------------------------------

_ORDERS: Final = "Orders"


@_command(_ORDERS, stage=Stage.ORDERING)
async def code(
    session: Session,
    country: Country,
    service: Service,
    *,
    timeout: Annotated[
        timedelta,
        _option("D", "How long to wait for the code before cancelling; by default 5m.", span),
    ] = DEFAULT_TIMEOUT,
    max_price: Annotated[
        int | None, _option("SATOSHIS", "Refuse an invoice for more.", satoshis)
    ] = None,
    pay: Annotated[
        bool, _flag("--pay", "Pay from the wallet in SMS4SATS_WALLET; asks without --max-price.")
    ] = False,
    max_fee: Annotated[
        int | None,
        _option(
            "SATOSHIS", "With --pay: the highest routing fee, if the wallet limits it.", satoshis
        ),
    ] = None,
    **options: Unpack[OrderOptions],
) -> None:
    """Order a number, show the invoice, and print the code; without a code, cancel for a refund.

    Standard output has the code alone, or nothing.
    """
    if options["immediate"] and (pay or max_price is not None):
        problem = "--max-price and --pay are about the invoice, and --immediate pays without one"
        raise Stop("argument", ExitCode.USAGE, problem)
    if max_fee is not None and not pay:
        raise Stop("argument", ExitCode.USAGE, "--max-fee needs --pay")
    asks = max_price is None
    wallet = open_wallet(max_fee, asks=asks) if pay else None
    made = await session.client.create_order(country, service, **options)
    if max_price is not None:
        check_price(made, max_price)
    session.out.order(made, on_the_way=True)
    if wallet is None:
        result = await session.client.code_or_refund(made, timeout=timeout)
    else:
        async with wallet:
            await agree(session, made, wallet, asks=asks)
            result = await pay_and_wait(session, made, wallet, timeout)
    if session.out.json or result.code is not None:
        session.show_result(result, result.code)
    else:
        session.out.note(result_in_words(result))


@_command(_ORDERS, stage=Stage.ORDERING)
async def order(
    session: Session,
    country: Country,
    service: Service,
    **options: Unpack[OrderOptions],
) -> None:
    """Order a number and show the invoice. `resume` and `cancel` do the rest."""
    session.out.order(await session.client.create_order(country, service, **options))
    session.out.note(
        "What you pay is held, and settles when the code arrives. `sms4sats resume` waits for the "
        "code, and `sms4sats cancel` cancels the order for a refund."
    )


@_command(_ORDERS, stage=Stage.ORDERING)
async def send(
    session: Session,
    phone: Annotated[str, _argument("PHONE", "Such as +4915112345678.")],
    message: Annotated[str, _argument("MESSAGE", "At most 140 characters.")],
    *,
    immediate: Immediate = False,
    webhook_url: Annotated[
        str | None, _option("URL", "Where the service posts the status.")
    ] = None,
) -> None:
    """Order a message to be sent, and show the invoice."""
    session.out.order(
        await session.client.create_send_order(
            phone, message, immediate=immediate, webhook_url=webhook_url
        )
    )
    session.out.note(
        "What you pay is held, and settles when the message is sent. `sms4sats watch` shows it."
    )


@_command(_ORDERS)
async def status(session: Session, order_id: OrderId) -> None:
    """Show the status of an order: its money, its number, its code."""
    identifier, _ = await session.find(order_id)
    session.out.show(facts(await session.client.get_order_status(identifier)))


@_command(_ORDERS)
async def watch(session: Session, order_id: OrderId) -> None:
    """Show each change of an order until it has ended."""
    identifier, _ = await session.find(order_id)
    async for found in session.client.watch_order(identifier):
        _, _, time = local(session.now()).partition(" ")
        session.out.show(facts(found), f"{time[:8]}  {status_in_words(found)}")


@_command(_ORDERS)
async def cancel(
    session: Session,
    order_id: OrderId,
    *,
    wait: Annotated[
        bool,
        _flag("--wait/--no-wait", "Wait until the service allows it and retry, or cancel now."),
    ] = True,
    created_at: Annotated[
        datetime | None,
        _option("T", "When it was created, such as 2026-11-23T14:03:00Z.", moment),
    ] = None,
    age: Annotated[
        timedelta | None, _option("D", "How old it is, such as 90s, 3m or 2m30s.", span)
    ] = None,
) -> None:
    """Cancel an order for a refund, unless its code arrives first."""
    if created_at is not None and age is not None:
        raise Stop("argument", ExitCode.USAGE, "--created-at and --age mean the same")
    if not wait and (created_at is not None or age is not None):
        problem = "--created-at and --age shorten a wait, and --no-wait does not wait"
        raise Stop("argument", ExitCode.USAGE, problem)
    identifier, entry = await session.find(order_id)
    now = session.now()
    since = created_at if age is None else now - age
    if since is None and entry is not None:
        since = entry.created_at
    if since is not None:
        session.ordered_at = min(since, now)  # no order is from the future
    if wait:
        session.stage = Stage.WAITING
        session.cancels_from = (session.ordered_at or now) + MINIMUM_CANCEL_AGE
        if since is None:
            session.out.note(
                "The age of the order is unknown, so the two minutes count from now. --age or "
                "--created-at can shorten that."
            )
        result = await session.client.cancel_order_when_allowed(identifier, created_at=since)
    else:
        session.stage = Stage.CANCELLING
        result = await session.client.cancel_order(identifier, confirm=True)
    session.show_result(result, result_in_words(result))


@_command(_ORDERS)
async def pending(session: Session) -> None:
    """List the orders of this machine that have not ended."""
    entries = await session.journal.pending()
    columns = ["order_id", "created_at", "country", "service", "phone", "state"]
    if any(entry.metadata for entry in entries):
        columns.append("metadata")
    if any(entry.base_url not in {None, session.client.base_url} for entry in entries):
        columns.append("base_url")
    session.out.table([facts(entry) for entry in entries], columns)
    if not entries:
        session.out.note(session.nothing_pending)


@_command(_ORDERS)
async def resume(
    session: Session,
    order_id: Annotated[
        str | None, _argument("ID", "By default all pending orders.", _order_id)
    ] = None,
    *,
    timeout: Annotated[
        timedelta | None,
        _option("D", "How long to wait for the code; by default until the recorded time.", span),
    ] = None,
) -> None:
    """Resume an order, or all that are pending: the code or the refund."""
    root = session.client.base_url
    if order_id is None:
        # A result that was not shown before its command ended is shown now.
        entries = await session.journal.undelivered(root) + await session.journal.pending(root)
    else:
        identifier, entry = await session.find(order_id)
        entries = [entry or JournalEntry("", "receive", session.now(), identifier)]
    if not entries:
        others = len(await session.journal.pending())
        session.out.note(
            f"No order of {root} is pending. `sms4sats pending` lists {others} of other services."
            if others
            else session.nothing_pending
        )
        return
    session.stage = Stage.RESUMING
    first = entries[0]
    if len(entries) == 1:
        session.ordered_at = first.created_at
        if first.pending and not first.paid and first.invoice and first.order is not None:
            session.out.order(first.order, on_the_way=True)
    await resume_orders(session, entries, timeout)


# --- prepaid balance ------------------------------------------------------------------------------

_PREPAID: Final = "Prepaid balance"


@_command(_PREPAID, journal=False)
async def balance(session: Session) -> None:
    """Show the balance of the API key, in satoshis."""
    session.out.show({"balance": await session.client.get_balance()})


@_command(_PREPAID, journal=False)
async def history(session: Session) -> None:
    """List how the balance of the API key was funded."""
    found = await session.client.get_history()
    session.out.table([*map(facts, found.entries)], ["created_at", "amount", "description"])
    session.out.note(f"{found.total_amount:,} sat in total.")


@_command(_PREPAID, journal=False, stage=Stage.FUNDING)
async def fund(
    session: Session,
    amount: Annotated[int, _argument("SATOSHIS", "How many, at least 1.", satoshis)],
) -> None:
    """Show an invoice that adds to the balance of the API key."""
    session.out.order(await session.client.fund(amount))
    session.out.note("Once it is paid, `sms4sats balance` shows it.")


# --- on this machine ------------------------------------------------------------------------------

_HERE: Final = "On this machine"


@_command(_HERE, journal=False)
async def wallet(session: Session) -> None:
    """Show which wallet SMS4SATS_WALLET names, and check that it answers. Nothing is paid."""
    async with open_wallet(None, asks=False) as found:
        await check_wallet(found)
        limit = found.max_fee_sat
    session.out.show({"wallet": name_of_wallet(), "answers": True, "max_fee_sat": limit})


@app.command(
    rich_help_panel=_HERE,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def simulator(context: typer.Context, *, json: Json = False) -> None:
    """Run a simulator of the service on this machine, without money, until Ctrl-C."""
    # The simulator declares the options, and prints its help. It is slow to import.
    from sms4sats_async.simulator.__main__ import run as serve  # noqa: PLC0415

    arguments = [*context.args, "--json"] if json else context.args
    try:
        code = serve(arguments, prog=context.command_path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise Stop("simulator", ExitCode.USAGE, f"the simulator cannot start: {why}") from error
    raise typer.Exit(code)


@app.command(rich_help_panel=_HERE)
def demo(*, json: Json = False) -> None:
    """Show an order on a simulator: created, paid and cancelled, in 15 seconds."""
    # Slow to import, and needed here alone.
    from rich.console import Console  # noqa: PLC0415

    from sms4sats_async.simulator import ScaledClock  # noqa: PLC0415

    from .demo import SPEED, Demo  # noqa: PLC0415

    async def work(session: Session) -> None:
        result = await Demo(Console(stderr=json), ScaledClock(SPEED)).run()
        if json:
            session.out.show(result_facts(result))

    finish(work, json=json)


@app.command(rich_help_panel=_HERE)
def postgres(
    action: Annotated[PostgresAction, typer.Argument(help="Make or migrate the tables.")],
    *,
    json: Json = False,
) -> None:
    """Prepare the PostgreSQL database of several workers, which SMS4SATS_POSTGRES_DSN names."""

    async def work(session: Session) -> None:
        # Slow to import, and an extra.
        from sms4sats_async.postgres import PostgresJournal  # noqa: PLC0415

        dsn = os.environ.get("SMS4SATS_POSTGRES_DSN")
        if not dsn:
            problem = "the command needs the DSN of a database"
            raise Stop("postgres", ExitCode.USAGE, problem)
        try:
            async with PostgresJournal(dsn) as journal:
                await journal.create_schema()
        except JournalError as error:
            raise Stop("postgres", ExitCode.USAGE, error.problem) from error
        session.out.show({"done": action.value}, "The tables are ready.")

    finish(work, json=json)
