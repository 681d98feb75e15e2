"""Waiting for the warm-up of a Redis that has just started."""

import time

from echo.exceptions import StateUnavailable
from echo.state.base import State

TIMEOUT = 10.0  # seconds


def known(state: State, name: str) -> int:
    """Return the count as soon as it is known. Raises StateUnavailable after TIMEOUT."""
    end = time.monotonic() + TIMEOUT
    while True:
        try:
            return state.count(name)
        except StateUnavailable:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
