"""How an order ended: the type that every call which ends an order returns."""

from collections.abc import Mapping
from typing import Any, Final

import attrs

from ._redact import mask
from .errors import Sms4SatsError
from .models import Displayed, Money, OrderOutcome, OrderStatus, no_metadata, nothing

_REFUNDING: Final = frozenset({OrderOutcome.CANCELLED, OrderOutcome.REFUNDED})


@attrs.frozen
class OrderResult(Displayed):
    """How an order ended: with its code, with its message sent, or with the refund.

    Attributes:
        order_id: The order.
        outcome: How the order ended. None if that is unknown or the cancel was refused; `error`
            then explains it. Only results of many orders have None: a single call raises.
        code: The code; set whenever one arrived.
        number: The number that receives the code; set whenever it is known, on refunds too.
        status: The status that proves the outcome, or the last one read; None if none was read.
        attempts: How many cancel requests this call sent.
        error: Why the outcome is unknown, or None.
        metadata: Your own notes on the order.
        raw: The service's answer to the cancel; empty if a status proves the outcome.
    """

    order_id: str = attrs.field(repr=mask)
    outcome: OrderOutcome | None
    code: str | None = None
    number: str | None = None
    status: OrderStatus | None = None
    attempts: int = 0
    error: Sms4SatsError | None = attrs.field(default=None, eq=False)
    metadata: Mapping[str, str] = attrs.field(factory=no_metadata, hash=False)
    raw: Mapping[str, Any] = attrs.field(factory=nothing, eq=False, repr=False)

    @property
    def refunded(self) -> bool | None:
        """Whether the money is refunded; None if that is unknown."""
        return None if self.outcome is None else self.outcome in _REFUNDING

    @property
    def money(self) -> Money:
        """Where the money is."""
        if self.refunded is None:
            return Money.UNKNOWN if self.status is None else self.status.money
        return Money.REFUNDED if self.refunded else Money.SETTLED
