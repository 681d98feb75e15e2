"""A state whose counts are known."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from echo.exceptions import StateUnavailable
from echo.state.base import State
from echo.state.redis.state import RedisState

LEASE, HEARTBEAT = 3.0, 1.0  # seconds, the defaults of the settings
TIMEOUT = 10.0  # seconds


@contextmanager
def redis_state(url: str) -> Iterator[RedisState]:
    state = RedisState(url, LEASE, HEARTBEAT)
    try:
        known(state, "object-0")
        yield state
    finally:
        state.close()


def known(state: State, name: str) -> int:
    """Return the count as soon as it is known: a Redis that has just started warms up.

    Raises StateUnavailable after TIMEOUT.
    """
    end = time.monotonic() + TIMEOUT
    while True:
        try:
            return state.count(name)
        except StateUnavailable:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
