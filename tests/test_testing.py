"""`sms4sats_async.testing` and the pytest plugin.

A run of pytest within a test has all installed plugins, like the run of a user.
"""

import importlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import anyio
import httpx
import pytest

from sms4sats_async import OrderOutcome, RequestTimeoutError, RetryPolicy, Sms4SatsClient
from sms4sats_async.simulator import Behaviour, Fault, ManualClock, Simulator
from sms4sats_async.testing import API_KEY, assert_no_held_orders
from tests.test_documents import PYTHON, Block, blocks_of
from tests.test_public_api import in_a_fresh_python

pytest_plugins = ["pytester"]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "testing.md"
BLOCKS = [
    block
    for block in blocks_of("docs/testing.md", PAGE.read_text("utf-8"))
    if block.language in PYTHON
]
FIXTURES = ["sms4sats_clock", "sms4sats_simulator", "sms4sats_client"]

NO_CODE = Behaviour(pay_delay=0, code_delay=None)
ONCE = RetryPolicy(attempts=1)


def run(pytester: pytest.Pytester, source: str, *options: str) -> pytest.RunResult:
    """Run the test file of a user, in a project where every warning is an error."""
    pytester.makeini(
        "[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function"
    )
    pytester.makepyfile(source)
    # Assertions cannot be rewritten: the outer run has imported all modules already.
    return pytester.runpytest("--assert=plain", *options)


# --- the plugin -----------------------------------------------------------------------------------


def test_plugin_imports_only_pytest() -> None:
    imported = in_a_fresh_python(
        "import json, pytest, sys; before = set(sys.modules); import pytest_sms4sats;"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )

    assert imported == ["pytest_sms4sats"]


def test_every_fixture_of_the_plugin_is_documented(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Imported again, because pytest imported it before coverage was measured.
    monkeypatch.delitem(sys.modules, "pytest_sms4sats")
    names = vars(importlib.import_module("pytest_sms4sats"))

    assert [name for name in names if name.startswith("sms4sats_")] == FIXTURES
    page = PAGE.read_text("utf-8")
    for name in FIXTURES:
        assert f"| `{name}` |" in page
        assert names[name].__doc__


def test_run_without_the_fixtures_does_not_import_the_library(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import sys\n"
        "def test_it():\n"
        "    assert 'pytest_sms4sats' in sys.modules\n"
        "    assert 'sms4sats_async' not in sys.modules\n"
    )

    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_plugin_can_be_disabled_and_needs_no_other_plugin(pytester: pytest.Pytester) -> None:
    source = "def test_it(sms4sats_client): pass"

    disabled = run(pytester, source, "-p", "no:sms4sats")
    # Without pytest-asyncio, its setting is unknown.
    ignore = ("-W", "ignore::pytest.PytestConfigWarning")
    alone = run(pytester, source, "-p", "no:anyio", "-p", "no:asyncio", *ignore)

    disabled.assert_outcomes(errors=1)
    disabled.stdout.fnmatch_lines(["*fixture 'sms4sats_client' not found"])
    alone.assert_outcomes(passed=1)


BODY = """
    from sms4sats_async.simulator import Behaviour, Holder
    sms4sats_simulator.behaviour = Behaviour(pay_delay=0, code_delay=None)
    order = await sms4sats_client.create_order(country=187, service="tg")
    done = await sms4sats_client.cancel_order_when_allowed(order)
    assert done.refunded
    assert sms4sats_simulator.holder(order.order_id) is Holder.REFUNDED
"""
ASYNC = f"async def test_it(sms4sats_client, sms4sats_simulator):{BODY}"
SYNC = f"""
def test_it(sms4sats_client, sms4sats_simulator):
    async def main():
        {BODY.replace("    ", "        ")}
"""


@pytest.mark.parametrize(
    ("mode", "source", "passed"),
    [
        pytest.param("strict", f"import pytest\n@pytest.mark.anyio\n{ASYNC}", 2, id="anyio"),
        pytest.param("strict", f"import pytest\n@pytest.mark.asyncio\n{ASYNC}", 1, id="strict"),
        pytest.param("auto", ASYNC, 1, id="auto"),
        pytest.param("strict", f"{SYNC}\n    import asyncio; asyncio.run(main())", 1, id="run"),
        pytest.param(
            "strict", f"{SYNC}\n    import anyio; anyio.run(main, backend='trio')", 1, id="trio-run"
        ),
        pytest.param(
            "strict",
            f"import pytest\n@pytest.mark.anyio\n{ASYNC}    await sms4sats_client.aclose()\n",
            2,
            id="closed",
        ),
    ],
)
def test_fixtures_work_with_every_async_test_runner(
    pytester: pytest.Pytester, mode: str, source: str, passed: int
) -> None:
    run(pytester, source, "-o", f"asyncio_mode={mode}").assert_outcomes(passed=passed)


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=f"line-{block.line}") for block in BLOCKS]
)
def test_every_test_in_the_documentation_passes(pytester: pytest.Pytester, block: Block) -> None:
    run(pytester, block.code).assert_outcomes(passed=2)


def test_all_tests_in_the_documentation_pass_in_one_file(pytester: pytest.Pytester) -> None:
    source = "\n".join(block.code for block in BLOCKS)

    run(pytester, source).assert_outcomes(passed=2 * len(BLOCKS))


def test_overriding_the_clock_changes_simulator_and_client(pytester: pytest.Pytester) -> None:
    *_, manual = [block.code for block in BLOCKS if ".autojump = False" in block.code]
    source = manual.replace("    sms4sats_clock.autojump = False\n", "")
    own = (
        "from sms4sats_async.simulator import ManualClock\n"
        "@pytest.fixture\n"
        "def sms4sats_clock():\n"
        "    return ManualClock(autojump=False)\n"
    )

    run(pytester, f"{source}\n{own}").assert_outcomes(passed=2)


# --- the fixtures ---------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_cancel_waits_two_minutes_of_the_clock(
    sms4sats_client: Sms4SatsClient, sms4sats_simulator: Simulator, sms4sats_clock: ManualClock
) -> None:
    sms4sats_simulator.behaviour = NO_CODE
    started = sms4sats_clock.now()

    order = await sms4sats_client.create_order(country=187, service="tg")
    done = await sms4sats_client.cancel_order_when_allowed(order)

    assert done.outcome is OrderOutcome.CANCELLED
    assert 120 <= sms4sats_clock.now() - started < 125
    assert sms4sats_simulator.clock is sms4sats_clock


def test_documentation_names_the_start_of_the_clock(sms4sats_clock: ManualClock) -> None:
    start = datetime.fromtimestamp(sms4sats_clock.now(), UTC)

    assert f"It begins in {start:%B %Y}" in PAGE.read_text("utf-8")


@pytest.mark.anyio
async def test_simulator_can_credit_the_key_of_the_client(
    sms4sats_client: Sms4SatsClient, sms4sats_simulator: Simulator
) -> None:
    assert await sms4sats_client.get_balance() == 0

    sms4sats_simulator.credit(API_KEY, 5000)
    await sms4sats_client.create_order(country=187, service="tg", immediate=True)

    assert await sms4sats_client.get_balance() == 3500


@pytest.fixture
def _real_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMS4SATS_API_KEY", "a-real-key")
    monkeypatch.setenv("SMS4SATS_BASE_URL", "https://api2.sms4sats.com")


@pytest.mark.anyio
@pytest.mark.usefixtures("_real_environment")
async def test_client_ignores_the_environment(
    sms4sats_client: Sms4SatsClient, sms4sats_simulator: Simulator
) -> None:
    await sms4sats_client.get_balance()

    (request,) = sms4sats_simulator.requests
    assert request.api_key == API_KEY
    assert request.headers["host"] == "simulator.invalid"


@pytest.mark.anyio
async def test_hanging_request_times_out_after_ten_seconds_of_the_clock(
    sms4sats_client: Sms4SatsClient, sms4sats_simulator: Simulator, sms4sats_clock: ManualClock
) -> None:
    sms4sats_simulator.script("/", Fault.hang())
    started = sms4sats_clock.now()

    with pytest.raises(RequestTimeoutError) as caught, anyio.fail_after(5):
        await sms4sats_client.ping(retry=ONCE)

    assert isinstance(caught.value.__cause__, httpx.ReadTimeout)
    assert sms4sats_clock.now() - started == 10


@pytest.mark.anyio
async def test_hanging_request_waits_for_advance(
    sms4sats_client: Sms4SatsClient, sms4sats_simulator: Simulator, sms4sats_clock: ManualClock
) -> None:
    sms4sats_clock.autojump = False
    sms4sats_simulator.script("/", Fault.hang())

    async def ping() -> None:
        with pytest.raises(RequestTimeoutError):
            await sms4sats_client.ping(retry=ONCE)

    async with anyio.create_task_group() as group:
        group.start_soon(ping)
        await sms4sats_clock.advance(9)
        assert sms4sats_clock.waiting == [1]
        await sms4sats_clock.advance(1)
        assert sms4sats_clock.waiting == []


# --- assert_no_held_orders ------------------------------------------------------------------------


def test_unpaid_settled_and_refunded_orders_pass(sms4sats_simulator: Simulator) -> None:
    simulator = sms4sats_simulator
    assert_no_held_orders(simulator)

    order(simulator)
    simulator.deliver_code(simulator.pay(order(simulator)).order_id)
    simulator.refund(simulator.pay(order(simulator)).order_id)

    assert_no_held_orders(simulator)


@pytest.mark.anyio
async def test_held_order_fails_with_its_events(
    sms4sats_client: Sms4SatsClient, sms4sats_simulator: Simulator, sms4sats_clock: ManualClock
) -> None:
    sms4sats_simulator.behaviour = NO_CODE
    made = await sms4sats_client.create_order(country=187, service="tg")
    await sms4sats_clock.sleep(2)
    with pytest.raises(Exception, match="unable to save data"):
        await sms4sats_client.cancel_order(made, retry=ONCE)
    await sms4sats_clock.sleep(63)

    with pytest.raises(AssertionError) as caught:
        assert_no_held_orders(sms4sats_simulator)

    assert str(caught.value).splitlines() == [
        "an order holds money:",
        f"receive order {made.order_id[:4]}…{made.order_id[-4:]}, 1500 sat",
        "  0:00 created",
        "  0:00 paid",
        "  0:02 cancel failed",
        "  0:05 number assigned",
        "  1:05 still held",
    ]


def test_failure_masks_each_order_id(sms4sats_simulator: Simulator) -> None:
    made = [order(sms4sats_simulator) for _ in range(3)]
    for each in made[:2]:
        sms4sats_simulator.pay(each)
    sms4sats_simulator.handle("GET", f"/orderstatus?orderId={made[0]}")
    sms4sats_simulator.handle("GET", f"/cancelorder?orderId={made[1]}")

    with pytest.raises(AssertionError) as caught:
        assert_no_held_orders(sms4sats_simulator)

    message = str(caught.value)
    assert message.startswith("2 orders hold money:\n")
    assert message.index(made[0][:4]) < message.index(made[1][:4]) < message.index("cancel failed")
    assert message.count("cancel failed") == 1
    assert made[2][:4] not in message
    assert not any(each in message for each in made)


def test_failure_looks_as_in_the_documentation(pytester: pytest.Pytester) -> None:
    careless = """
    with pytest.raises(TimeoutError):
        await client.wait_for_code(order, timeout=300)
    return OrderResult(order.order_id, OrderOutcome.CANCELLED)
"""
    bot = BLOCKS[0].code.replace(
        "    return await client.code_or_refund(order, timeout=300)\n", careless
    )
    bot = bot.replace("import OrderResult", "import OrderOutcome, OrderResult")

    failed = run(pytester, bot)

    failed.assert_outcomes(failed=2)
    (shown,) = (
        block.code
        for block in blocks_of("docs/testing.md", PAGE.read_text("utf-8"))
        if block.language == "text"
    )
    assert shown in failed.stdout.str()


def order(simulator: Simulator) -> str:
    """Create an order and return its ID."""
    body = json.dumps({"country": 187, "service": "tg"}).encode()
    answer = simulator.handle("POST", "/createorder", {}, body)
    return str(answer.json["orderId"])
