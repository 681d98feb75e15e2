"""What a change costs for each subscriber of the feed: Redis, and the process that subscribes."""

import asyncio
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Event, Thread
from urllib.parse import urlsplit

import redis
from django.test import override_settings

from benchmarks import redis_server
from benchmarks.state.known import known
from benchmarks.state.redis_side import taken
from benchmarks.state.simulated import SimulatedProcess, client_of
from benchmarks.state.sizes import Sizes
from echo.live.stream import Stream
from echo.live.watcher import get_watcher
from echo.state import get_state
from echo.state.redis import scripts

CHANGES = 3000
STREAMS = 100
SETTLING = 0.5  # seconds
Values = Iterator[tuple[str, float]]


def cost(sizes: Sizes) -> Values:
    """Yield the microseconds of CPU for a change; nothing if `echo` has no feed."""
    if hasattr(scripts, "CHANGES"):
        yield from _of_redis(sizes)
        yield from _of_subscriber()


def _of_redis(sizes: Sizes) -> Values:
    with redis_server.running() as url, redis.Redis.from_url(url) as client:
        writer = client_of(url)
        process = SimulatedProcess(writer, 0)
        process.write({})
        per_change = {}
        for size in sizes.subscribers:
            with _subscribed(url, size), taken(client) as cost:
                _change(process, "object")
            per_change[size] = cost.cpu / CHANGES * 1e6
            yield f"change-cpu-{size}", per_change[size]
        first, *_, last = sizes.subscribers
        slope = (per_change[last] - per_change[first]) / (last - first)
        yield "subscriber-redis", slope
        writer.close()


def _of_subscriber() -> Values:
    with redis_server.running() as url, override_settings(ECHO_STATE_URL=url):
        known(get_state(), "object")
        yield f"subscriber-process-{STREAMS}", asyncio.run(_follow(url))


async def _follow(url: str) -> float:
    """Return the microseconds of this process for a change of an object without a stream."""
    streams = [Stream(f"object-{number}") for number in range(STREAMS)]
    for stream in streams:
        get_watcher().add(stream)
    for stream in streams:
        await anext(stream.events())
    writer = client_of(url)
    process = SimulatedProcess(writer, 0)
    process.write({})
    await asyncio.sleep(SETTLING)

    def write() -> float:
        began = time.thread_time()
        _change(process, "object-without-stream")
        return time.thread_time() - began

    began = time.process_time()
    of_writes = await asyncio.to_thread(write)
    await asyncio.sleep(SETTLING)
    taken_all = time.process_time() - began
    for stream in streams:
        get_watcher().discard(stream)
    writer.close()
    return (taken_all - of_writes) / CHANGES * 1e6


def _change(process: SimulatedProcess, name: str) -> None:
    for number in range(CHANGES):
        process.write({name: 1 + number % 2})


@contextmanager
def _subscribed(url: str, size: int) -> Iterator[None]:
    """Let sockets subscribe and be read from, as bytes: only Redis' part is measured."""
    address = urlsplit(url).hostname, urlsplit(url).port
    stopped = Event()
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for _ in range(size):
            connection = stack.enter_context(socket.create_connection(address))
            connection.sendall(f"SUBSCRIBE {scripts.CHANGES}\r\n".encode())
            connection.recv(1000)
            selector.register(connection, selectors.EVENT_READ, connection)

        def read() -> None:
            while not stopped.is_set():
                for key, _events in selector.select(timeout=0.1):
                    key.data.recv(100_000)

        thread = Thread(target=read)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
