"""The cost of reading a count, and of keeping an object, on a Redis that many processes share.

The processes are simulated: their shares are written as echo/state/redis/scripts.py describes.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Any

import redis

from benchmarks import redis_server
from benchmarks.state.joins import HEARTBEAT, LEASE
from benchmarks.state.known import known
from echo.state.redis import scripts
from echo.state.redis.state import RedisState

READS = 500  # of one object, in a round
BATCH_SIZE = 5000  # names in one command
HOUR = 3600  # seconds: the age of the keys, and the leases of the processes


@dataclass(frozen=True)
class Cost:
    """The cost with that many processes and objects."""

    processes: int
    objects: int
    read_ms: list[float]  # count() of one object, a median for each round
    read_all_s: float  # counts()
    bytes_per_object: float


def cost(processes: int, objects: int, rounds: int) -> Cost:
    """Return the cost, with each object in one of the processes."""
    with redis_server.running() as url, redis.Redis.from_url(url) as client:
        empty = _used(client)
        _write(client, processes, objects)
        size = (_used(client) - empty) / objects
        with _state(url) as state:
            read = [_read_ms(state) for _ in range(rounds)]
            began = time.perf_counter()
            found = state.counts()
            read_all = time.perf_counter() - began
    if len(found) != objects:
        raise AssertionError(f"{len(found)} of {objects} objects were found")
    return Cost(processes, objects, read, read_all, size)


@contextmanager
def _state(url: str) -> Iterator[RedisState]:
    state = RedisState(url, LEASE, HEARTBEAT)
    try:
        if known(state, "object-0") != 1:
            raise AssertionError("the simulated processes are not counted")
        yield state
    finally:
        state.close()


def _read_ms(state: RedisState) -> float:
    times = []
    for _ in range(READS):
        began = time.perf_counter()
        state.count("object-0")
        times.append(time.perf_counter() - began)
    return median(times) * 1000


def _write(client: Any, processes: int, objects: int) -> None:
    now = int(time.time() * 1_000_000)
    client.set(scripts.EPOCH, now - HOUR * 1_000_000)
    for number in range(processes):
        share = f"{scripts.SHARE}simulated-{number}"
        names = iter(range(number, objects, processes))
        client.hset(share, "", 1)
        while part := {f"object-{name}": 1 for name in islice(names, BATCH_SIZE)}:
            client.hset(share, mapping=part)
        client.zadd(scripts.PROCESSES, {f"simulated-{number}": now + HOUR * 1_000_000})


def _used(client: Any) -> int:
    memory: dict[str, int] = client.info("memory")
    return memory["used_memory"]
