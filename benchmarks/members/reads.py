"""What it costs to read the members of an object that several processes share."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from statistics import median
from typing import Any

import redis
from django.test import override_settings

from benchmarks import redis_server
from benchmarks.members.clusters import of_echo
from benchmarks.members.process import NAME
from benchmarks.state.known import known
from benchmarks.state.redis_side import longest_step, taken
from echo.objects import get_object
from echo.state import get_state

FEW, MANY = 20, 300  # reads
Values = Iterator[tuple[str, float]]


def cost(subject: str, size: int) -> Values:
    """Yield what each read takes with so many members, for the caller and of Redis."""
    with ExitStack() as stack:
        url = stack.enter_context(redis_server.running())
        client = stack.enter_context(redis.Redis.from_url(url))
        stack.enter_context(override_settings(ECHO_STATE_URL=url))
        known(get_state(), NAME)
        empty = _bytes(client)
        stack.enter_context(of_echo(url, size))
        yield f"bytes-{size}", (_bytes(client) - empty) / size
        lobby, longest = get_object(NAME), list[float]()
        with longest_step(client, longest):
            yield from _read(client, f"members-{size}", FEW, lobby.members)
        yield f"members-step-{size}", longest[0]
        yield from _read(client, f"member-count-{size}", MANY, lobby.member_count)
        yield from _read(client, f"has-member-{size}", MANY, lambda: lobby.has_member("7"))


def _bytes(client: Any) -> int:
    """Return the bytes of all keys: the totals of the members, and the shares of the processes."""
    return sum(client.memory_usage(key, samples=0) for key in client.scan_iter())


def _read(client: Any, name: str, times: int, read: Callable[[], object]) -> Values:
    found = []
    with taken(client) as of_redis:
        for _ in range(times):
            began = time.perf_counter()
            read()
            found.append((time.perf_counter() - began) * 1000)
    prefix, _, size = name.rpartition("-")
    yield name, median(found)
    # The heartbeats of the processes meanwhile are in it, too.
    yield f"{prefix}-redis-{size}", of_redis.microseconds / times
