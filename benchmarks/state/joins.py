"""The cost of a join and a leave, in memory and on Redis."""

import asyncio
import time

from benchmarks import redis_server
from benchmarks.state.known import known
from echo.state.base import State
from echo.state.memory import MemoryState
from echo.state.redis.state import RedisState

TIMES = 50_000
CONCURRENT = 100
SECONDS = 1.5
LEASE, HEARTBEAT = 3.0, 1.0  # seconds, the defaults of the settings


def in_memory(rounds: int) -> list[float]:
    """Return the microseconds of a join and its leave, for each round."""
    return [asyncio.run(_microseconds(MemoryState())) for _ in range(rounds)]


async def _microseconds(state: State) -> float:
    began = time.perf_counter()
    for _ in range(TIMES):
        await state.join("lobby")
        state.leave("lobby")
    return (time.perf_counter() - began) / TIMES * 1e6


def on_redis(rounds: int) -> list[float]:
    """Return the joins and leaves per second of CONCURRENT connections, for each round."""
    with redis_server.running() as url:
        state = RedisState(url, LEASE, HEARTBEAT)
        try:
            known(state, "lobby")
            return [asyncio.run(_per_second(state)) for _ in range(rounds)]
        finally:
            state.close()


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
