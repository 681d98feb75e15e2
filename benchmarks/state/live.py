"""How soon a change in another process reaches a live stream, or the receiver of a signal."""

import asyncio
import random
import time
from asyncio import Queue
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from queue import SimpleQueue
from statistics import median

from django.test import override_settings

from benchmarks import redis_server
from benchmarks.state import idle
from benchmarks.state.known import known
from benchmarks.state.simulated import SimulatedProcess, client_of, share_out
from benchmarks.state.sizes import SPREAD_OVER, Sizes
from echo.live.stream import Stream
from echo.live.watcher import get_watcher
from echo.signals import object_occupied
from echo.signals.sender import start_sender
from echo.state import get_state

STREAMS = 100
CHANGES, PAUSE = 20, (0.25, 0.65)  # of the streamed objects; seconds between two of them
# Of one more object: seconds in between, longer than the sender of any commit pauses.
OCCUPIED, LONG_PAUSE = 5, (0.5, 3.0)
TIMEOUT = 120.0  # seconds
Values = Iterator[tuple[str, float]]


def streams(sizes: Sizes) -> Values:
    """Yield the median milliseconds from a write of another process to the event of a stream."""
    with redis_server.running() as url, override_settings(ECHO_STATE_URL=url):
        known(get_state(), "object-0")
        yield f"stream-{STREAMS}", median(asyncio.run(_stream_delays(url)))


async def _stream_delays(url: str) -> list[float]:
    writer = client_of(url)
    process = SimulatedProcess(writer, 0)
    share_out([process], range(STREAMS))
    watcher = get_watcher()
    opened = [Stream(f"object-{number}") for number in range(STREAMS)]
    for stream in opened:
        watcher.add(stream)
    events = opened[0].events()
    received: Queue[float] = Queue()

    async def receive() -> None:
        async for _event in events:
            received.put_nowait(time.perf_counter())

    task = asyncio.create_task(receive())
    async with asyncio.timeout(TIMEOUT):
        await received.get()
        delays = []
        for number in range(CHANGES):
            await asyncio.sleep(random.uniform(*PAUSE))
            began = time.perf_counter()
            await asyncio.to_thread(process.write, {"object-0": 2 + number % 2})
            delays.append((await received.get() - began) * 1000)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    for stream in opened:
        watcher.discard(stream)
    writer.close()
    return delays


def signals(sizes: Sizes) -> Values:
    """Yield the median seconds from a write of another process to `object_occupied`."""
    received: SimpleQueue[str] = SimpleQueue()

    def receive(name: str, **kwargs: object) -> None:
        received.put(name)

    with ExitStack() as stack:
        url = stack.enter_context(redis_server.running())
        stack.enter_context(override_settings(ECHO_STATE_URL=url))
        idle.start(stack, url)  # whose heartbeats no signal delays
        object_occupied.connect(receive)
        stack.callback(object_occupied.disconnect, receive)
        writer = client_of(url)
        stack.callback(writer.close)
        processes = [SimulatedProcess(writer, number) for number in range(SPREAD_OVER)]
        share_out(processes, range(sizes.connected))
        start_sender(get_state())
        for _ in range(sizes.connected):
            received.get(timeout=TIMEOUT)
        delays = []
        for number in range(OCCUPIED):
            time.sleep(random.uniform(*LONG_PAUSE))
            began = time.perf_counter()
            processes[0].write({f"one-more-{number}": 1})
            if received.get(timeout=TIMEOUT) != f"one-more-{number}":
                raise AssertionError("another signal was sent")
            delays.append(time.perf_counter() - began)
        yield f"occupied-{sizes.connected}", median(delays)
