"""Read what a Lightning invoice says, without a wallet."""

from datetime import datetime
from typing import Self

import attrs

from ._bolt11 import NETWORKS, Network, NotAnInvoiceError, read, satoshis
from ._redact import mask, quote_optional
from .errors import InvalidArgumentError

__all__ = ["NETWORKS", "Invoice", "Network"]


@attrs.frozen
class Invoice:
    """What a Lightning invoice (BOLT 11) says. Its signature is not checked.

    Use it to check the price and the expiry before you pay. It does not prove who created the
    invoice, or that it can be paid: the wallet checks that.

    An invoice in upper case equals the same invoice in lower case.

    Attributes:
        bolt11: The invoice as you gave it, without `lightning:` and surrounding blanks; `repr`
            masks it.
        network: The network on which it is paid: `"bitcoin"`, `"testnet"`, `"signet"` or
            `"regtest"`.
        amount_msat: The exact amount in millisatoshis. None if the payer chooses the amount.
        created_at: When the invoice was created, in UTC, by the clock of its creator.
        expires_at: When it expires, in UTC. The last moment of the year 9999 if it expires later.
        payment_hash: 64 lower-case hex digits; `repr` masks them.
        description: The text for the payer. It comes from the creator of the invoice, so remove
            control characters before you show it. None if the invoice has only its hash.
    """

    bolt11: str = attrs.field(repr=mask, eq=str.lower)
    network: Network
    amount_msat: int | None
    created_at: datetime
    expires_at: datetime
    payment_hash: str = attrs.field(repr=mask)
    description: str | None = attrs.field(default=None, repr=quote_optional)

    @property
    def amount_sat(self) -> int | None:
        """The amount in satoshis, rounded up; None if the payer chooses the amount.

        Because it is rounded up, an amount slightly over a limit is still over it.
        """
        return satoshis(self.amount_msat)

    def is_expired(self, now: datetime) -> bool:
        """Return whether the invoice has expired.

        Args:
            now: The time, with a time zone.

        Raises:
            InvalidArgumentError: If `now` is not a datetime, or has no time zone.
        """
        try:
            return now >= self.expires_at
        # Only an aware datetime can be compared with one. A bare tzinfo() has no offset.
        except (TypeError, NotImplementedError) as error:
            raise InvalidArgumentError(
                "now must be a datetime with a time zone; use datetime.now(UTC) or .astimezone()"
            ) from error

    @classmethod
    def parse(cls, bolt11: str) -> Self:
        """Decode an invoice and check its checksum. The signature is not checked.

        Args:
            bolt11: The invoice, such as `order.invoice`, in lower case or in upper case. Blanks
                around it and a leading `lightning:` are ignored.

        Raises:
            InvalidArgumentError: If it is not a BOLT 11 invoice of a known network.
        """
        try:
            return cls(*read(bolt11))
        except NotAnInvoiceError as error:
            raise InvalidArgumentError(str(error)) from None
