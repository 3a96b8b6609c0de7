"""A simulator of the sms4sats service, for tests, demos and notebooks.

```python
from sms4sats_async.simulator import Behaviour, Fault, ManualClock, Simulator

clock = ManualClock()
simulator = Simulator(Behaviour(code_delay=None), clock=clock)
simulator.script("/cancelorder", Fault.unable_to_save_data(), Fault.hang(after_change=True))
http_client = simulator.http_client()  # or: async with simulator.serve() as base_url: ...
```

No money and no telephone is involved. The simulator is written from the service's documentation and
imports nothing from the client. Where the service is unknown, `Behaviour` has a setting.
"""

from .behaviour import Behaviour
from .clock import Clock, ManualClock, ScaledClock
from .faults import Fault
from .invoice import Network, make_invoice
from .messages import Answer, Ending, Request
from .order import Moment, Order
from .service import Simulator
from .states import Holder, Kind, Stage, StateError

__all__ = [
    "Answer",
    "Behaviour",
    "Clock",
    "Ending",
    "Fault",
    "Holder",
    "Kind",
    "ManualClock",
    "Moment",
    "Network",
    "Order",
    "Request",
    "ScaledClock",
    "Simulator",
    "Stage",
    "StateError",
    "make_invoice",
]
