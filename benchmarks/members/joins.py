"""How many connections join per second in one process, with a member each or without."""

import asyncio
import time
from collections.abc import Iterator

import redis

from benchmarks import redis_server
from benchmarks.members.process import info
from benchmarks.state.known import redis_state
from benchmarks.state.redis_side import taken
from echo.members import NewMember
from echo.state.base import State
from echo.state.memory import MemoryState

WITH, WITHOUT = "with member", "without member"
OBJECTS = 30
CONCURRENT = 100
SECONDS = 1.5
TIMES = 50_000  # in memory
Values = Iterator[tuple[str, float]]


def cost(subject: str, size: int) -> Values:
    """Yield joins, and joins and leaves, per second with so many members per object."""
    members: list[NewMember | None] = [None] * size
    if subject == WITH:
        members = [(str(key), info(str(key))) for key in range(size)]
    yield "join-memory", asyncio.run(_microseconds(MemoryState(), members[0]))
    with redis_server.running() as url, redis_state(url) as state:
        with redis.Redis.from_url(url) as client, taken(client) as of_redis:
            yield f"joins-{CONCURRENT}", asyncio.run(_joins(state, members))
        yield "join-redis", of_redis.microseconds / OBJECTS / size
        yield f"churn-{CONCURRENT}", asyncio.run(_churn(state, members[0] is not None))


async def _microseconds(state: State, member: NewMember | None) -> float:
    key = None if member is None else member[0]
    began = time.perf_counter()
    for _ in range(TIMES):
        await state.join("lobby", member=member)
        state.leave("lobby", key)
    return (time.perf_counter() - began) / TIMES * 1e6


async def _joins(state: State, members: list[NewMember | None]) -> float:
    """Let the members join each of the objects; return the joins per second."""
    waiting = ((f"object-{place}", member) for member in members for place in range(OBJECTS))

    async def join_each() -> None:
        for name, member in waiting:
            await state.join(name, member=member)

    began = time.perf_counter()
    await asyncio.gather(*(join_each() for _ in range(CONCURRENT)))
    return OBJECTS * len(members) / (time.perf_counter() - began)


async def _churn(state: State, has_members: bool) -> float:
    """Let others come and go at one of these objects; return how often that is per second."""
    end = time.monotonic() + SECONDS

    async def come_and_go(key: str) -> int:
        member, done = (key, info(key)) if has_members else None, 0
        while time.monotonic() < end:
            await state.join("object-0", member=member)
            state.leave("object-0", key if has_members else None)
            done += 1
        return done

    began = time.monotonic()
    done = await asyncio.gather(*(come_and_go(f"visitor-{i}") for i in range(CONCURRENT)))
    return sum(done) / (time.monotonic() - began)
