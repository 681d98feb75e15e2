"""Waiting in tests: for a value, until a deadline that a slow machine can raise."""

import os
import time
from collections.abc import Callable

SECOND = float(os.environ.get("ECHO_TEST_SECOND", "1"))  # all waits derive from it
DEADLINE = 10 * SECOND


def eventually(read: Callable[[], object], expected: object, deadline: float = DEADLINE) -> None:
    """Return as soon as `read()` gives the expected value; fail with the last one otherwise."""
    end = time.monotonic() + deadline
    while (value := read()) != expected:
        assert time.monotonic() < end, f"still {value!r} after {deadline} s, not {expected!r}"
        time.sleep(0.01)
