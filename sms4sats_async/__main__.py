"""`python -m sms4sats_async`: the same program as the command `sms4sats`."""

import sys

from .cli import main

sys.exit(main())
