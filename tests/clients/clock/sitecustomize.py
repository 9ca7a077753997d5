"""On PYTHONPATH, this moves the clock of a Python client by MAYFLY_CLOCK_SHIFT seconds; the client itself stays as its makers ship it."""

import os
import time

_real = time.time
_shift = float(os.environ.get("MAYFLY_CLOCK_SHIFT", "0"))
time.time = lambda: _real() + _shift
