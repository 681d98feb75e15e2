"""What a change of one member writes and sends, whatever the number of the others."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from queue import SimpleQueue
from statistics import median
from typing import Any

import redis

from benchmarks import redis_server
from benchmarks.members.process import CONCURRENT, NAME, info
from benchmarks.state.known import redis_state
from benchmarks.state.redis_side import taken
from echo.state.redis import scripts
from echo.state.redis.state import RedisState

CHANGES = 300
TIMEOUT = 10.0  # seconds
Values = Iterator[tuple[str, float]]


def cost(subject: str, size: int) -> Values:
    """Yield what a new info of one of so many members costs, and how soon a subscriber has it."""
    with ExitStack() as stack:
        url = stack.enter_context(redis_server.running())
        client = stack.enter_context(redis.Redis.from_url(url))
        state = stack.enter_context(redis_state(url))
        other = stack.enter_context(redis_state(url))
        asyncio.run(_join(state, size))
        received: SimpleQueue[float] = SimpleQueue()

        def receive(number: int, counts: object, members: object) -> None:
            if members:
                received.put(time.perf_counter())

        stack.callback(other.listen(receive))
        subscription = stack.enter_context(closing(client.pubsub()))
        subscription.subscribe(scripts.CHANGES)
        _settle(client, subscription)
        before = _written(client)
        with taken(client) as of_redis:
            delays = [_change(state, number, received) for number in range(CHANGES)]
        messages = _settle(client, subscription)
        yield f"change-written-{size}", (_written(client) - before) / CHANGES
        yield f"change-redis-{size}", of_redis.microseconds / of_redis.steps
        yield f"change-messages-{size}", len(messages) / CHANGES
        yield f"change-published-{size}", sum(map(len, messages)) / CHANGES
        yield f"change-delay-{size}", median(delays)


async def _join(state: RedisState, size: int) -> None:
    keys = iter(range(size))

    async def join_each() -> None:
        for key in keys:
            await state.join(NAME, member=(str(key), info(str(key))))

    await asyncio.gather(*(join_each() for _ in range(CONCURRENT)))
    await state.settled()


def _change(state: RedisState, number: int, received: SimpleQueue[float]) -> float:
    """Change the info of a member; return the milliseconds until the other process has it."""
    began = time.perf_counter()
    state.set_info(NAME, "7", info(f"{number:03}"))
    return (received.get(timeout=TIMEOUT) - began) * 1000


def _settle(client: Any, subscription: Any) -> list[bytes]:
    """Return the messages that were published until now, or wait until the log is complete."""
    messages = []
    while (message := subscription.get_message(timeout=0.5)) is not None:
        if message["type"] == "message":
            messages.append(message["data"])
    if client.config_get("appendonly")["appendonly"] == "no":
        client.config_set("appendonly", "yes")
    end = time.monotonic() + TIMEOUT
    while client.info("persistence")["aof_rewrite_in_progress"] and time.monotonic() < end:
        time.sleep(0.05)
    return messages


def _written(client: Any) -> int:
    """Return the size of the log to which Redis appends what each step changes."""
    return int(client.info("persistence")["aof_current_size"])
