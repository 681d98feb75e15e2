"""One stream of server-sent events."""

import asyncio
import random
from collections.abc import AsyncGenerator

EVENT_INTERVAL = 0.2  # seconds between two events of a stream
HEARTBEAT_INTERVAL = 15.0  # seconds without an event, at most
# A stream then ends and its client reconnects: its permission is checked again, and the memory for
# data that it has not read is freed.
MAX_AGE = 600.0  # seconds

RECONNECT_EVENT = "event: again\ndata: {}\n\n"  # the stream ends, but nothing is wrong
# EventSource does not show comments to scripts, which have to know that the server is alive: hence
# the event.
HEARTBEAT_EVENT = ": still here\nevent: heartbeat\ndata: {}\n\n"


class Stream:
    """The stream of one client: the count of an object, or for the name None of all objects."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self._latest = ""
        self._changed = asyncio.Event()
        self._ended = False

    def send(self, event: str) -> None:
        """Send the event next. It replaces an event that has not been sent yet."""
        self._latest = event
        self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    async def events(self) -> AsyncGenerator[str, None]:
        """Yield the latest event, at most one each EVENT_INTERVAL, and heartbeats in silence."""
        loop = asyncio.get_running_loop()
        end = loop.time() + MAX_AGE * random.uniform(0.9, 1)
        while loop.time() < end:
            try:
                async with asyncio.timeout(HEARTBEAT_INTERVAL):
                    await self._changed.wait()
            except TimeoutError:
                yield HEARTBEAT_EVENT
                continue
            if self._ended:
                return
            self._changed.clear()
            yield self._latest
            await asyncio.sleep(EVENT_INTERVAL)
        yield RECONNECT_EVENT
