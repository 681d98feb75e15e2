"""The cost of a join and a leave, in memory and on Redis."""

import asyncio
import time
from collections.abc import Iterator

from benchmarks import redis_server
from benchmarks.state.known import redis_state
from benchmarks.state.sizes import Sizes
from echo.state.base import State
from echo.state.memory import MemoryState

TIMES = 50_000
CONCURRENT = 100
SECONDS = 1.5


def cost(sizes: Sizes) -> Iterator[tuple[str, float]]:
    """Yield microseconds in memory, and joins and leaves per second on Redis."""
    yield "join-memory", asyncio.run(_microseconds(MemoryState()))
    with redis_server.running() as url, redis_state(url) as state:
        yield f"join-redis-{CONCURRENT}", asyncio.run(_per_second(state))


async def _microseconds(state: State) -> float:
    began = time.perf_counter()
    for _ in range(TIMES):
        await state.join("lobby")
        state.leave("lobby")
    return (time.perf_counter() - began) / TIMES * 1e6


async def _per_second(state: State) -> float:
    end = time.monotonic() + SECONDS

    async def come_and_go(name: str) -> int:
        done = 0
        while time.monotonic() < end:
            await state.join(name)
            state.leave(name)
            done += 1
        return done

    began = time.monotonic()
    done = await asyncio.gather(*(come_and_go(f"object-{i}") for i in range(CONCURRENT)))
    return sum(done) / (time.monotonic() - began)
