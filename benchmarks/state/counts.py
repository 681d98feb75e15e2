"""The cost of reading and writing counts on a Redis that many processes share."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

import redis

from benchmarks import redis_server
from benchmarks.state import idle
from benchmarks.state.known import redis_state
from benchmarks.state.redis_side import longest_step, taken, used_memory
from benchmarks.state.simulated import SimulatedProcess, client_of, share_out
from benchmarks.state.sizes import SHARED, SPREAD_OVER, Sizes
from echo.state.redis.state import RedisState

READS, LISTS, FULL_LISTS, WRITES = 1000, 5, 3, 1000
WRITTEN = 3  # names in a write
Values = Iterator[tuple[str, float]]


@contextmanager
def _redis() -> Iterator[tuple[str, Any, RedisState]]:
    """Give a Redis, its client, and a state.

    The heartbeats of an idle process show that Redis is available, also while this one is busy.
    """
    with ExitStack() as stack:
        url = stack.enter_context(redis_server.running())
        idle.start(stack, url)
        client = stack.enter_context(redis.Redis.from_url(url))
        yield url, client, stack.enter_context(redis_state(url))


def by_processes(sizes: Sizes) -> Values:
    """Yield what a count, a list and a write cost, with all objects in each process."""
    counts = {f"object-{number}": 1 for number in range(SHARED)}
    with _redis() as (url, client, state):
        writer, processes = client_of(url), list[SimulatedProcess]()
        empty = used_memory(client)
        for size in sizes.processes:
            while len(processes) < size:
                processes.append(SimulatedProcess(writer, len(processes)))
                processes[-1].write(counts)
            if (found := state.count("object-0")) != size:
                raise AssertionError(f"{found} of {size} simulated processes are counted")
            yield f"bytes-each-{size}", (used_memory(client) - empty) / size / SHARED
            yield from _reads(client, state, size)
            yield f"write-redis-{size}", _write_cost(client, processes[0], WRITTEN)
        writer.close()


def _reads(client: Any, state: RedisState, size: int) -> Values:
    times = []
    with taken(client) as cost:
        for _ in range(READS):
            began = time.perf_counter()
            state.count("object-0")
            times.append(time.perf_counter() - began)
    yield f"count-redis-{size}", cost.microseconds / cost.steps
    yield f"count-{size}", median(times) * 1e6
    with taken(client) as cost:
        for _ in range(LISTS):
            state.counts()
    yield f"list-redis-{size}", cost.microseconds / LISTS / 1000


def _write_cost(client: Any, process: SimulatedProcess, names: int) -> float:
    """Return the microseconds of Redis for a write that changes so many names."""
    with taken(client) as cost:
        for number in range(max(1, WRITES // max(1, names // 10))):
            process.write({f"object-{place}": 1 + (number + 1) % 2 for place in range(names)})
    return cost.microseconds / cost.steps


def by_names(sizes: Sizes) -> Values:
    """Yield what a write costs that merges the changes of so many objects."""
    with _redis() as (url, client, _state):
        writer = client_of(url)
        process = SimulatedProcess(writer, 0)
        share_out([process], range(SHARED))
        for size in sizes.written:
            yield f"write-names-{size}", _write_cost(client, process, size)
        writer.close()


def by_objects(sizes: Sizes) -> Values:
    """Yield what a list of all objects costs, and their memory, with each in one process."""
    with _redis() as (url, client, state):
        empty = used_memory(client)
        writer, before = client_of(url), 0
        processes = [SimulatedProcess(writer, number) for number in range(SPREAD_OVER)]
        for size in sizes.objects:
            share_out(processes, range(before, size))
            before = size
            yield f"bytes-{size}", (used_memory(client) - empty) / size
            times, longest = [], list[float]()
            for _ in range(FULL_LISTS):
                with longest_step(client, longest):
                    began = time.perf_counter()
                    found = len(state.counts())
                    times.append((time.perf_counter() - began) * 1000)
                if found != size:
                    raise AssertionError(f"{found} of {size} objects were found")
            yield f"counts-{size}", median(times)
            yield f"counts-step-{size}", median(longest)
        writer.close()
