"""How the simulated service treats an order: one setting for each thing that is not fixed."""

import math
from typing import Any, Literal

import attrs

from .invoice import Network

__all__ = ["AUTOMATIC_CANCEL_AGE", "MINIMUM_CANCEL_AGE", "Behaviour"]

MINIMUM_CANCEL_AGE = 120.0
"""Seconds before which an order cannot be cancelled. (documented)"""

AUTOMATIC_CANCEL_AGE = 1260.0
"""Seconds after which the service cancels an order without a code: 21 minutes. (documented)"""


def _check_delay(_: object, attribute: "attrs.Attribute[Any]", value: float | None) -> None:
    if value is not None and not 0 <= value < math.inf:
        raise ValueError(f"{attribute.name} must be zero or more finite seconds, not {value!r}")


@attrs.frozen(kw_only=True)
class Behaviour:
    """How the simulated service treats an order. All times are in seconds.

    Attributes:
        pay_delay: from creation to payment; None: the order is paid only by `Simulator.pay`.
        number_delay: from payment to the number; None: no number is assigned automatically.
        code_delay: from the number to the code; None: no code is delivered automatically.
            (documented: most codes arrive within 30 to 120 seconds)
        code: the code that is delivered.
        number_available: if False, the service refunds a paid order instead of assigning a number.
        sms_delay: from payment to `sent`, and from `sent` to `delivered`; None: the SMS status does
            not change automatically.
        sms_fails: if True, the SMS fails instead of being sent.
        age_counts_from: the moment from which the age of a paid order counts, for the earliest
            cancel and for the automatic one. (unknown for the real service) The age of an unpaid
            order always counts from its creation.
        minimum_cancel_age: the age before which the service refuses a cancel.
        automatic_cancel_age: the age at which the service cancels an order without a code.
        status_after_cancel: `"error"`: the status of a cancelled order shows the documented refund
            text. `"unchanged"`: it shows the same as before. (unknown for the real service)
        cancel_refusal_status: HTTP status of the answer to a refused cancel: too early, repeated,
            after the code, or of an unknown order. (unknown for the real service: only one failure
            is documented, and this simulator uses it for all of them)
        cancel_refusal_reason: the `reason` in that answer.
        json_numbers: if True, code and number are JSON numbers (documented), which lose leading
            zeros; if False, they are strings (seen in clients).
        network: the network of the invoices. Only `"bitcoin"` gives the documented prefix `lnbc`;
            the default cannot be mistaken for a real invoice.
    """

    pay_delay: float | None = attrs.field(default=None, validator=_check_delay)
    number_delay: float | None = attrs.field(default=5.0, validator=_check_delay)
    code_delay: float | None = attrs.field(default=60.0, validator=_check_delay)
    code: str = attrs.field(default="012345", validator=attrs.validators.min_len(1))
    number_available: bool = True
    sms_delay: float | None = attrs.field(default=5.0, validator=_check_delay)
    sms_fails: bool = False
    age_counts_from: Literal["creation", "payment"] = attrs.field(
        default="creation", validator=attrs.validators.in_(("creation", "payment"))
    )
    minimum_cancel_age: float = attrs.field(default=MINIMUM_CANCEL_AGE, validator=_check_delay)
    automatic_cancel_age: float = attrs.field(default=AUTOMATIC_CANCEL_AGE, validator=_check_delay)
    status_after_cancel: Literal["error", "unchanged"] = attrs.field(
        default="error", validator=attrs.validators.in_(("error", "unchanged"))
    )
    cancel_refusal_status: int = 500
    cancel_refusal_reason: str = "unable to save data"
    json_numbers: bool = False
    network: Network = attrs.field(
        default="regtest",
        validator=attrs.validators.in_(("bitcoin", "testnet", "signet", "regtest")),
    )
