"""What idle processes with live streams ask of Redis.

`python -m benchmarks.state.idle NUMBER STREAMS URL` is one of these processes.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import redis
from django.conf import settings

from benchmarks import redis_server
from benchmarks.state.known import known
from benchmarks.state.redis_side import taken
from benchmarks.state.sizes import Sizes

STREAMS = 100  # of a process, each of another object
SETTLING, SECONDS = 3.0, 8.0


def cost(sizes: Sizes) -> Iterator[tuple[str, float]]:
    """Yield the scripts and the milliseconds of Redis' CPU, both per second."""
    with ExitStack() as stack:
        url = stack.enter_context(redis_server.running())
        client = stack.enter_context(redis.Redis.from_url(url))
        start(stack, url, sizes.idle, STREAMS)
        time.sleep(SETTLING)
        with taken(client) as cost:
            time.sleep(SECONDS)
        yield f"idle-steps-{sizes.idle}", cost.steps / SECONDS
        yield f"idle-cpu-{sizes.idle}", cost.cpu / SECONDS * 1000


def start(stack: ExitStack, url: str, number: int = 1, streams: int = 0) -> None:
    """Start so many real processes, and wait until they have counts."""
    command = [sys.executable, "-m", "benchmarks.state.idle"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [
        # Leaving the `with` closes the input of the process, at which it ends.
        stack.enter_context(subprocess.Popen([*command, str(place), str(streams), url], **pipes))
        for place in range(number)
    ]
    for process in processes:
        if not process.stdout or process.stdout.readline() != b"ready\n":
            raise AssertionError("an idle process has no counts")


async def _idle(number: int, size: int) -> None:
    from echo.live.stream import Stream
    from echo.live.watcher import get_watcher
    from echo.state import get_state

    names = [f"object-{number}-{place}" for place in range(size)]
    streams = [Stream(name) for name in names]
    state, watcher = get_state(), get_watcher()
    known(state, "object-0")
    for name in names:
        await state.join(name)
    for stream in streams:
        watcher.add(stream)
    for stream in streams:
        await anext(stream.events())
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for stream in streams:
        watcher.discard(stream)
    state.close()


if __name__ == "__main__":
    settings.configure(USE_I18N=False, ECHO_STATE_URL=sys.argv[3])
    asyncio.run(_idle(int(sys.argv[1]), int(sys.argv[2])))
