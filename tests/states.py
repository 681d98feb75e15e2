"""States for tests: to Redis, each `redis_state` is a process."""

import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from echo.exceptions import StateUnavailable
from echo.signals.sender import SignalSender
from echo.state.base import State
from echo.state.redis import scripts
from echo.state.redis.share import CATCH_UP_GRACE
from echo.state.redis.state import RedisState
from tests.faults.link import Link
from tests.waiting import DEADLINE, SECOND

LEASE = 2.0 * SECOND
HEARTBEAT = 0.1 * SECOND
WARM_UP = HEARTBEAT + CATCH_UP_GRACE
SLACK = 0.5 * SECOND  # for a machine that is busy
DOWN = "Redis is down: counts are unknown, connections are not affected ("


@contextmanager
def redis_state(url: str, lease: float = LEASE, heartbeat: float = HEARTBEAT) -> Iterator[Any]:
    """Yield a state whose counts are known; close it at the end."""
    state = RedisState(url, lease, heartbeat)
    try:
        known(state)
        yield state
    finally:
        state.close()


def known(state: State, deadline: float = DEADLINE) -> dict[str, int]:
    """Return the counts as soon as they are known."""
    end = time.monotonic() + deadline
    while True:
        try:
            return state.counts()
        except StateUnavailable as error:
            assert time.monotonic() < end, f"{error} (after {deadline} s)"
            time.sleep(0.01)


def counts_or_unknown(state: State) -> dict[str, int] | str:
    """Return the counts, or "unknown"."""
    try:
        return state.counts()
    except StateUnavailable:
        return "unknown"


def step(sender: SignalSender, now: float = 0) -> bool | None:
    """Make a step; return whether the process leads, or None if that or a count is unknown."""
    try:
        return sender.step(now)
    except StateUnavailable:
        return None


def share(state: RedisState) -> str:
    """Return the key of the state's share."""
    return scripts.SHARE + state.id


def names_in_share(client: Any, state: RedisState) -> set[bytes]:
    keys = client.keys(f"{share(state)}*")
    return {name for key in keys for name in client.hkeys(key) if not name.startswith(b"/")}


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the loggers of echo have logged."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("echo")]


async def seconds(awaitable: Awaitable[object]) -> float:
    """Return how many seconds it takes."""
    began = time.monotonic()
    await awaitable
    return time.monotonic() - began


def argument(request: bytes, script: scripts.Script, name: str) -> bytes | None:
    """Return an argument of a script in a request to Redis; None if it runs another one."""
    _command, *words = request.split(b"\r\n")[2::2]
    if not words or words[0] != script.sha.encode():
        return None
    return words[2 + len(script.keys) + script.args.index(name)]


@contextmanager
def linked_state(
    url: str, lease: float = LEASE, heartbeat: float = HEARTBEAT
) -> Iterator[tuple[Any, Link]]:
    """Yield a state whose counts are known, and the link between its process and Redis."""
    port = urlsplit(url).port
    assert port is not None
    with Link(port) as link, redis_state(link.url, lease, heartbeat) as state:
        yield state, link
