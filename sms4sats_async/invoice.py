"""What a Lightning invoice asks for, read without a wallet."""

from datetime import datetime
from typing import Self

import attrs

from ._bolt11 import NETWORKS, Network, NotAnInvoiceError, read, satoshis
from ._redact import mask
from .errors import InvalidArgumentError

__all__ = ["NETWORKS", "Invoice", "Network"]


@attrs.frozen
class Invoice:
    """What a Lightning invoice says, its signature unchecked.

    It is no proof of who made the invoice, nor that it can be paid: the wallet checks that. It is
    enough to hold a price against a limit, and to see when an invoice runs out, before it is paid.

    The same invoice in upper and in lower case is equal.

    Attributes:
        bolt11: The invoice as it came, without `lightning:` and blanks around it; `repr` shows its
            ends.
        network: The network to pay on: `"bitcoin"`, `"testnet"`, `"signet"` or `"regtest"`.
        amount_msat: Millisatoshis asked for, exactly; None where the payer chooses, and nothing can
            be held against a limit.
        created_at: When it was made, by the clock of who made it, in UTC.
        expires_at: From then on it should not be paid, in UTC; the last moment of the year 9999
            where it lies beyond.
        payment_hash: 64 lower-case hex digits; `repr` masks them.
        description: The text for the payer. The creator of the invoice wrote it, so clean it before
            you show it; None where the invoice has only its hash.
    """

    bolt11: str = attrs.field(repr=mask, eq=str.lower)
    network: Network
    amount_msat: int | None
    created_at: datetime
    expires_at: datetime
    payment_hash: str = attrs.field(repr=mask)
    description: str | None = None

    @property
    def amount_sat(self) -> int | None:
        """Satoshis asked for, a part of one counted as a whole; None where the payer chooses.

        Rounded up, so that what is over a limit by less than a satoshi is still over it.
        """
        return satoshis(self.amount_msat)

    def is_expired(self, now: datetime) -> bool:
        """Tell whether the invoice should not be paid any more.

        Args:
            now: An aware datetime, of any time zone.

        Raises:
            InvalidArgumentError: `now` is no datetime, or has no time zone.
        """
        try:
            return now >= self.expires_at
        # Nothing else than an aware datetime compares with one; a bare tzinfo() has no offset.
        except (TypeError, NotImplementedError) as error:
            raise InvalidArgumentError(
                "now must be a datetime with a time zone; use datetime.now(UTC) or .astimezone()"
            ) from error

    @classmethod
    def parse(cls, bolt11: str) -> Self:
        """Read an invoice: its checksum is checked, its signature is not.

        Args:
            bolt11: The invoice, such as `order.payreq`, all in lower or all in upper case; blanks
                around it and `lightning:` in front of it are left out.

        Raises:
            InvalidArgumentError: It is no BOLT 11 invoice, or of a network that is not known here.
        """
        try:
            return cls(*read(bolt11))
        except NotAnInvoiceError as error:
            raise InvalidArgumentError(str(error)) from None
