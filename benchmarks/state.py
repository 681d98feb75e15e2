"""`python -m benchmarks.state`: what counting costs, in memory and on a Redis of this machine.

Redis runs on the load's core, this process on the servers'.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import redis

from benchmarks.machine import cores, pinned
from benchmarks.redis_server import redis_server
from echo.exceptions import StateUnavailable
from echo.state import scripts
from echo.state.memory import MemoryState
from echo.state.redis import RedisState

LEASE = 600.0  # seconds: simulated processes have no heartbeat
HEARTBEAT = 0.2  # seconds
SECONDS = 3.0  # of each measurement that has no number of its own
CONCURRENT = 100
READS = 2000
ROUNDS = 5
SIZES = ((1, 1_000), (4, 1_000), (4, 100_000), (100, 100_000), (100, 1_000_000))
AT_ONCE = 5_000  # names in one step


def main() -> None:
    own, other = cores()
    os.sched_setaffinity(0, {own})
    print("| Cost | Median | Min - max |\n|---|---:|---:|")
    _row("join + leave in memory, µs", join_and_leave_in_memory)
    with ExitStack() as stack:
        with pinned(other):
            url = stack.enter_context(redis_server())
        _row("join + leave with Redis, 100 at a time, a second", lambda: rate_of_joins(url))
        print("\n| Processes x objects | count(), µs | counts(), ms | bytes of Redis an object |")
        print("|---|---:|---:|---:|")
        for processes, objects in SIZES:
            with simulated(url, processes, objects) as size:
                one, whole = reading(url)
            print(f"| {processes} x {objects // processes:,} = {objects:,} objects "
                  f"| {one:,.0f} | {whole:,.1f} | {size:,.0f} |", flush=True)  # fmt: skip


def _row(what: str, measure: Callable[[], float]) -> None:
    values = [measure() for _ in range(ROUNDS)]
    median = statistics.median(values)
    print(f"| {what} | **{median:,.1f}** | {min(values):,.1f} - {max(values):,.1f} |", flush=True)


def join_and_leave_in_memory(times: int = 200_000) -> float:
    async def run() -> float:
        state = MemoryState()
        began = time.perf_counter()
        for _ in range(times):
            await state.join("foo")
            state.leave("foo")
        return (time.perf_counter() - began) / times * 1e6

    return asyncio.run(run())


def rate_of_joins(url: str) -> float:
    """Return how many pairs a second one process makes; a join returns when Redis has it."""
    state = RedisState(url, LEASE, HEARTBEAT)
    done = 0

    async def pairs(end: float) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await state.join("foo")
            state.leave("foo")
            done += 1

    async def run() -> None:
        await state.join("warm-up")
        end = time.perf_counter() + SECONDS
        await asyncio.gather(*(pairs(end) for _ in range(CONCURRENT)))

    try:
        asyncio.run(run())
    finally:
        state.close()
    return done / SECONDS


@contextmanager
def simulated(url: str, processes: int, objects: int) -> Iterator[float]:
    """Write shares as that many other processes would; give the bytes an object takes in Redis."""
    with redis.Redis.from_url(url) as client:
        client.flushall()
        before = client.info("memory")["used_memory"]
        for number in range(processes):
            _write_share(client, f"process-{number:04}", number, objects // processes)
        yield (client.info("memory")["used_memory"] - before) / objects
        client.flushall()


def _write_share(client: "redis.Redis", process: str, number: int, objects: int) -> None:
    keys = [scripts.PROCESSES, scripts.BORN, scripts.SHARE + process]
    names = [f"object-{number:04}-{n:07}" for n in range(objects)]
    for start in range(0, objects, AT_ONCE):
        pairs = [part for name in names[start : start + AT_ONCE] for part in (name, 1)]
        whole = int(start == 0)
        arguments = [process, int(LEASE * 1000), start, start + AT_ONCE, whole, *pairs]
        client.eval(scripts.WRITE, len(keys), *keys, *arguments)


def reading(url: str) -> tuple[float, float]:
    """Return the medians of `count` in µs, of one object, and of `counts` in ms, of all."""
    state = RedisState(url, LEASE, HEARTBEAT)
    name = "object-0000-0000000"
    try:
        _wait_until_readable(state)
        assert state.count(name) == 1
        one = _median(lambda: state.count(name), READS) * 1e6
        return one, _median(state.counts, ROUNDS) * 1e3
    finally:
        state.close()


def _wait_until_readable(state: MemoryState) -> None:
    while True:
        try:
            state.counts()
            return
        except StateUnavailable:  # the keys are young
            time.sleep(HEARTBEAT)


def _median(call: Callable[[], object], times: int) -> float:
    """Return the median of the seconds that a call takes."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
