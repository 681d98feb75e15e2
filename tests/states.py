"""Redis states as processes have them: each `redis_state` is one process, as Redis sees it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from echo.exceptions import StateUnavailable
from echo.state.base import State
from echo.state.redis.state import RedisState
from echo.state.redis.writer import CATCH_UP
from tests.waiting import DEADLINE, SECOND

LEASE = 2.0 * SECOND
HEARTBEAT = 0.1 * SECOND
YOUTH = HEARTBEAT + CATCH_UP


@contextmanager
def redis_state(url: str, lease: float = LEASE, heartbeat: float = HEARTBEAT) -> Iterator[Any]:
    """Give a state, as soon as it can tell its counts; it is closed at the end."""
    state = RedisState(url, lease, heartbeat)
    try:
        known(state)
        yield state
    finally:
        state.close()


def known(state: State, deadline: float = DEADLINE) -> dict[str, int]:
    """Return the counts, as soon as they can be known."""
    end = time.monotonic() + deadline
    while True:
        try:
            return state.counts()
        except StateUnavailable as error:
            assert time.monotonic() < end, f"{error} (after {deadline} s)"
            time.sleep(0.01)


def told(state: State) -> dict[str, int] | str:
    """Return the counts, or "unknown"."""
    try:
        return state.counts()
    except StateUnavailable:
        return "unknown"
