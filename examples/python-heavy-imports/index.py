"""A function whose module code takes about 300 ms, as with large libraries: imports and a table that is built once.

The first instance pays for it. From the second on, instances are forked from the initialised one and have all of this
at once, unless `fork: off` says otherwise.
"""

import time

BEGAN = time.monotonic()

import asyncio  # noqa: E402,F401
import ctypes  # noqa: E402,F401
import decimal  # noqa: E402,F401
import email.message  # noqa: E402,F401
import http.client  # noqa: E402,F401
import json  # noqa: E402,F401
import sqlite3  # noqa: E402,F401
import statistics  # noqa: E402,F401
import unittest  # noqa: E402,F401
import xml.dom.minidom  # noqa: E402,F401

IMPORT_SECONDS = 0.3


def smallest_factors():
    """Smallest prime factors, as many as fit into the time: stands for a model or dictionary that is loaded."""
    factors = [0, 1]
    while time.monotonic() - BEGAN < IMPORT_SECONDS:
        for n in range(len(factors), len(factors) + 200):
            factors.append(next((p for p in range(2, int(n**0.5) + 1) if n % p == 0), n))
    return factors


FACTORS = smallest_factors()
READY = time.monotonic()


def main_handler(event, context):
    n = int(event.get("number", 5040))
    # Calls that last make the platform start more instances: that is what this example is about.
    time.sleep(min(event.get("hold_ms", 0), 3000) / 1000)
    if not 1 <= n < len(FACTORS):
        raise ValueError(f"`number` is between 1 and {len(FACTORS) - 1}")
    factors = []
    while n > 1:
        factors.append(FACTORS[n])
        n //= FACTORS[n]
    return {
        "factors": factors,
        "module_code_ms": round((READY - BEGAN) * 1000),
        # In a forked instance this is longer than the instance has lived.
        "initialised_ms_ago": round((time.monotonic() - READY) * 1000),
    }
