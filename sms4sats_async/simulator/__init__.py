"""The sms4sats service in miniature: for tests, demos and notebooks, without money and telephones.

```python
from sms4sats_async.simulator import Behaviour, Fault, ManualClock, Simulator

clock = ManualClock()
simulator = Simulator(Behaviour(code_delay=None), clock=clock)
simulator.script("/cancelorder", Fault.unable_to_save_data(), Fault.hang(after_change=True))
http_client = simulator.http_client()  # or: async with simulator.serve() as base_url: ...
```

It is a state machine with a law of its own, written from the service's documentation, and imports
nothing from the client. Where the service is unknown, the simulator has a setting in `Behaviour`.
"""

from .clock import Clock, ManualClock, ScaledClock
from .faults import Fault
from .invoice import Network, make_invoice
from .law import Behaviour, Holder, Kind, LawError, Moment, Order, Stage
from .messages import Answer, Ending, Request
from .service import Simulator

__all__ = [
    "Answer",
    "Behaviour",
    "Clock",
    "Ending",
    "Fault",
    "Holder",
    "Kind",
    "LawError",
    "ManualClock",
    "Moment",
    "Network",
    "Order",
    "Request",
    "ScaledClock",
    "Simulator",
    "Stage",
    "make_invoice",
]
