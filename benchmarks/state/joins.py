"""The cost of a join and a leave, in memory and on Redis."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

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
        if hasattr(state, "join_all"):  # not in older commits
            yield f"join-limited-{CONCURRENT}", asyncio.run(_limited_per_second(state, 1))
            yield f"join-two-limited-{CONCURRENT}", asyncio.run(_limited_per_second(state, 2))


async def _microseconds(state: State) -> float:
    began = time.perf_counter()
    for _ in range(TIMES):
        await state.join("lobby")
        state.leave("lobby")
    return (time.perf_counter() - began) / TIMES * 1e6


async def _per_second(state: State) -> float:
    async def come_and_go(name: str) -> None:
        await state.join(name)
        state.leave(name)

    return await _rate(come_and_go)


async def _limited_per_second(state: State, number: int) -> float:
    """Each connection has `number` objects of its own, with a limit each."""

    async def come_and_go(name: str) -> None:
        names = [f"{name}-{each}" for each in range(number)]
        assert await state.join_all(tuple((each, 20) for each in names)) is None
        state.leave_all(names)

    return await _rate(come_and_go)


async def _rate(come_and_go: Callable[[str], Awaitable[None]]) -> float:
    began = time.monotonic()

    async def repeat(name: str) -> int:
        done = 0
        while time.monotonic() < began + SECONDS:
            await come_and_go(name)
            done += 1
        return done

    done = await asyncio.gather(*(repeat(f"object-{i}") for i in range(CONCURRENT)))
    return sum(done) / (time.monotonic() - began)
