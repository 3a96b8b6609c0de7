"""Make the wallet that the environment names."""

import os
from typing import Final, TypeAlias

from sms4sats_async import _validate as validate
from sms4sats_async.errors import InvalidArgumentError
from sms4sats_async.invoice import Network

from .cln import ClnWallet
from .lnbits import LnbitsWallet
from .lnd import LndWallet
from .nwc import NwcWallet
from .phoenixd import PhoenixdWallet

AnyWallet: TypeAlias = LndWallet | ClnWallet | LnbitsWallet | PhoenixdWallet | NwcWallet

# Each wallet, and the argument of its credential.
_NODES: Final[dict[str, tuple[type[LndWallet | ClnWallet], str]]] = {
    "lnd": (LndWallet, "macaroon"),
    "cln": (ClnWallet, "rune"),
}
_SERVERS: Final[dict[str, tuple[type[LnbitsWallet | PhoenixdWallet], str]]] = {
    "lnbits": (LnbitsWallet, "admin_key"),
    "phoenixd": (PhoenixdWallet, "password"),
}
_KINDS: Final = (*_NODES, *_SERVERS, "nwc")
_WALLET: Final = "SMS4SATS_WALLET"
_MAX_FEE: Final = "SMS4SATS_MAX_FEE_SAT"
_NO_LIMIT: Final = "none"
_VARIABLES: Final = {
    "url": "URL",
    "macaroon": "MACAROON",
    "rune": "RUNE",
    "tls_cert": "TLS_CERT",
    "admin_key": "KEY",
    "password": "PASSWORD",
    "uri": "URI",
}
"""What follows `SMS4SATS_` and the wallet in the name of the variable of an argument."""


def wallet_from_environment(
    *, max_fee_sat: int | None = None, network: Network = "bitcoin"
) -> AnyWallet:
    """Return the wallet that the environment names.

    - `SMS4SATS_WALLET`: `lnd`, `cln`, `lnbits`, `phoenixd` or `nwc`.
    - `SMS4SATS_MAX_FEE_SAT`: the highest routing fee in satoshis, or `none`. LND and Core
      Lightning require it, and the others allow only `none`.
    - For `lnd`: `SMS4SATS_LND_URL`, `SMS4SATS_LND_MACAROON` in hex, and optionally
      `SMS4SATS_LND_TLS_CERT`, the path of LND's `tls.cert`.
    - For `cln`: `SMS4SATS_CLN_URL`, `SMS4SATS_CLN_RUNE`, and optionally
      `SMS4SATS_CLN_TLS_CERT`, the path of clnrest's `ca.pem`.
    - For `lnbits`: `SMS4SATS_LNBITS_URL`, and the admin key as `SMS4SATS_LNBITS_KEY`.
    - For `phoenixd`: `SMS4SATS_PHOENIXD_URL` and `SMS4SATS_PHOENIXD_PASSWORD`.
    - For `nwc`: `SMS4SATS_NWC_URI`.

    Args:
        max_fee_sat: The highest routing fee in satoshis. None: the variable says it.
        network: The network of the invoices that the wallet may pay.

    Raises:
        InvalidArgumentError: If a variable is missing or invalid; the error names it.
        ImportError: If the wallet is `nwc` and `nostr-sdk` is not installed.
    """
    kind = _required(_WALLET, f"name one of {', '.join(_KINDS)}")
    if kind not in _KINDS:
        raise InvalidArgumentError(f"{_WALLET} must be one of {', '.join(_KINDS)}")
    if max_fee_sat is None:
        max_fee_sat = _max_fee(required=kind in _NODES)
    try:
        return _make(kind, max_fee_sat, network)
    except InvalidArgumentError as error:
        if error.problem.startswith("SMS4SATS_"):
            raise
        argument, _, rest = error.problem.partition(" ")
        if argument in _VARIABLES:
            problem = f"{_variable(kind, argument)} {rest}"
        else:
            problem = f"the wallet in {_WALLET} ({kind}): {error.problem}"
        raise InvalidArgumentError(problem) from None


def _make(kind: str, max_fee_sat: int | None, network: Network) -> AnyWallet:
    if kind == "nwc":
        uri = _required(_variable(kind, "uri"))
        return NwcWallet(uri, max_fee_sat=max_fee_sat, network=network)
    url = _required(_variable(kind, "url"))
    if kind in _NODES:
        node, credential = _NODES[kind]
        return node(
            url,
            _required(_variable(kind, credential)),
            max_fee_sat=max_fee_sat,
            tls_cert=os.environ.get(_variable(kind, "tls_cert")) or None,
            network=network,
        )
    server, credential = _SERVERS[kind]
    secret = _required(_variable(kind, credential))
    return server(url, secret, max_fee_sat=max_fee_sat, network=network)


def _variable(kind: str, argument: str) -> str:
    return f"SMS4SATS_{kind.upper()}_{_VARIABLES[argument]}"


def _required(variable: str, what: str = "it is needed to pay") -> str:
    value = os.environ.get(variable, "").strip()
    if not value:
        raise InvalidArgumentError(f"{variable} is not set; {what}")
    return value


def _max_fee(*, required: bool) -> int | None:
    what = "give the highest routing fee in satoshis, or none for no limit"
    value = _required(_MAX_FEE, what) if required else os.environ.get(_MAX_FEE, "").strip()
    if value in {"", _NO_LIMIT}:
        return None
    try:
        return validate.satoshis(_MAX_FEE, int(value), least=0)
    except ValueError:
        raise InvalidArgumentError(f"{_MAX_FEE} must be a number of satoshis, or none") from None
