"""Pay with your own wallet: `receive_code(..., pay=wallet)`.

A hold invoice stays pending for up to 21 minutes. A wallet here never takes a time-out for a
failure, and never pays an invoice twice.
"""

from .cln import ClnWallet
from .environment import wallet_from_environment
from .lnbits import LnbitsWallet
from .lnd import LndWallet
from .nwc import NwcWallet
from .payment import Payment, PaymentFailedError, PaymentState, Wallet
from .phoenixd import PhoenixdWallet

__all__ = [
    "ClnWallet",
    "LnbitsWallet",
    "LndWallet",
    "NwcWallet",
    "Payment",
    "PaymentFailedError",
    "PaymentState",
    "PhoenixdWallet",
    "Wallet",
    "wallet_from_environment",
]
