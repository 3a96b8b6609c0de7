"""`wallet_from_environment`: which wallet it makes, and what a missing variable is called."""

import pytest

from sms4sats_async import InvalidArgumentError
from sms4sats_async.wallets import (
    ClnWallet,
    LnbitsWallet,
    LndWallet,
    NwcWallet,
    PhoenixdWallet,
    wallet_from_environment,
)
from tests.test_wallets_nwc import URI
from tests.wallet_stubs import ADMIN_KEY, MACAROON, PASSWORD, RUNE

VARIABLES = {
    "lnd": {
        "SMS4SATS_LND_URL": "https://node:8080",
        "SMS4SATS_LND_MACAROON": MACAROON,
        "SMS4SATS_MAX_FEE_SAT": "50",
    },
    "cln": {
        "SMS4SATS_CLN_URL": "https://node:3010",
        "SMS4SATS_CLN_RUNE": RUNE,
        "SMS4SATS_MAX_FEE_SAT": "50",
    },
    "lnbits": {"SMS4SATS_LNBITS_URL": "https://lnbits", "SMS4SATS_LNBITS_KEY": ADMIN_KEY},
    "phoenixd": {
        "SMS4SATS_PHOENIXD_URL": "http://127.0.0.1:9740",
        "SMS4SATS_PHOENIXD_PASSWORD": PASSWORD,
    },
    "nwc": {"SMS4SATS_NWC_URI": URI},
}
CLASSES = {
    "lnd": LndWallet,
    "cln": ClnWallet,
    "lnbits": LnbitsWallet,
    "phoenixd": PhoenixdWallet,
    "nwc": NwcWallet,
}


def set_up(monkeypatch: pytest.MonkeyPatch, kind: str, **more: str) -> None:
    for name, value in (VARIABLES[kind] | {"SMS4SATS_WALLET": kind} | more).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("kind", VARIABLES)
def test_wallet_of_the_environment_is_made(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch, kind)

    assert type(wallet_from_environment()) is CLASSES[kind]


@pytest.mark.parametrize(
    ("kind", "missing"),
    [(kind, missing) for kind in VARIABLES for missing in ("SMS4SATS_WALLET", *VARIABLES[kind])],
)
def test_missing_variable_is_named(
    kind: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(monkeypatch, kind, **{missing: " "})

    with pytest.raises(InvalidArgumentError, match=f"^{missing} is not set"):
        wallet_from_environment()


def test_unknown_wallet_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMS4SATS_WALLET", "purse")

    with pytest.raises(
        InvalidArgumentError, match="must be one of lnd, cln, lnbits, phoenixd, nwc"
    ):
        wallet_from_environment()


@pytest.mark.parametrize(("value", "limit"), [("50", 50), ("0", 0), ("none", None), (" 7 ", 7)])
def test_fee_limit_is_read(value: str, limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch, "lnd", SMS4SATS_MAX_FEE_SAT=value)

    assert wallet_from_environment().max_fee_sat == limit


@pytest.mark.parametrize("value", ["-1", "5.5", "many", "9" * 5000, "9" * 20])
def test_invalid_fee_limit_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch, "lnd", SMS4SATS_MAX_FEE_SAT=value)

    with pytest.raises(InvalidArgumentError, match=r"^SMS4SATS_MAX_FEE_SAT must be a number"):
        wallet_from_environment()


def test_argument_replaces_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch, "lnd", SMS4SATS_MAX_FEE_SAT="")

    assert wallet_from_environment(max_fee_sat=9).max_fee_sat == 9


@pytest.mark.parametrize("kind", ["lnbits", "phoenixd", "nwc"])
def test_fee_limit_that_the_wallet_cannot_enforce_is_refused(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(monkeypatch, kind, SMS4SATS_MAX_FEE_SAT="50")

    with pytest.raises(InvalidArgumentError, match=rf"the wallet in SMS4SATS_WALLET \({kind}\)"):
        wallet_from_environment()


@pytest.mark.parametrize("kind", ["lnd", "cln"])
def test_certificate_and_network_are_passed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"SMS4SATS_{kind.upper()}_TLS_CERT"
    set_up(monkeypatch, kind, **{variable: "/no/such/tls.cert"})

    with pytest.raises(InvalidArgumentError, match=f"^{variable} must be a file"):
        wallet_from_environment(network="regtest")


@pytest.mark.parametrize(
    ("kind", "variable", "value"),
    [
        ("lnd", "SMS4SATS_LND_URL", "localhost:8080"),
        ("lnd", "SMS4SATS_LND_URL", "https://" + "a" * 70 + ".\u00fc"),
        ("lnd", "SMS4SATS_LND_MACAROON", "/home/user/admin.macaroon"),
        ("cln", "SMS4SATS_CLN_URL", "http://node.example:3010"),
        ("cln", "SMS4SATS_CLN_RUNE", "\u00f6"),
        ("lnbits", "SMS4SATS_LNBITS_URL", "http://lnbits.example"),
        ("lnbits", "SMS4SATS_LNBITS_KEY", "\u00f6"),
        ("phoenixd", "SMS4SATS_PHOENIXD_URL", "phoenixd"),
        ("phoenixd", "SMS4SATS_PHOENIXD_PASSWORD", "\u00f6"),
        ("nwc", "SMS4SATS_NWC_URI", "nostr+walletconnect://x"),
    ],
)
def test_invalid_variable_is_named(
    kind: str, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(monkeypatch, kind, **{variable: value})

    with pytest.raises(InvalidArgumentError, match=f"^{variable} (must|cannot) "):
        wallet_from_environment()


@pytest.mark.parametrize("kind", VARIABLES)
def test_no_secret_is_in_the_error(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {name: f"{value} \n" for name, value in VARIABLES[kind].items()}
    set_up(monkeypatch, kind, **broken | {"SMS4SATS_WALLET": "lndd"})

    with pytest.raises(InvalidArgumentError) as caught:
        wallet_from_environment()
    for value in VARIABLES[kind].values():
        assert value not in str(caught.value)
