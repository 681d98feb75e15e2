"""One stream of server-sent events."""

import asyncio
import random
from collections.abc import AsyncGenerator
from typing import Generic, TypeVar

EVENT_INTERVAL = 0.2  # seconds between two events of a stream
HEARTBEAT_INTERVAL = 15.0  # seconds without an event, at most
# After this time a stream ends and its client reconnects, so that the permission is checked again
# and the memory for unread data is freed.
MAX_AGE = 600.0  # seconds

UNKNOWN_EVENT = "event: unknown\ndata: {}\n\n"
RECONNECT_EVENT = "event: again\ndata: {}\n\n"  # the regular end of a stream
# Includes an event because EventSource does not pass comments to scripts, and they need to detect
# that the server is alive.
HEARTBEAT_EVENT = ": still here\nevent: heartbeat\ndata: {}\n\n"


Event = TypeVar("Event")


class Stream(Generic[Event]):
    """The stream of one client: the count of one object, or the totals if the name is None."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self._latest: Event | None = None
        self._changed = asyncio.Event()

    def send(self, event: Event | None) -> None:
        """Send the event next, or end if it is None. Replaces an event that was not sent yet."""
        self._latest = event
        self._changed.set()

    async def events(self) -> AsyncGenerator[str, None]:
        """Yield the latest event, at most once per EVENT_INTERVAL, and heartbeats in between."""
        loop = asyncio.get_running_loop()
        end = loop.time() + MAX_AGE * random.uniform(0.9, 1)
        while loop.time() < end:
            try:
                async with asyncio.timeout(HEARTBEAT_INTERVAL):
                    await self._changed.wait()
            except TimeoutError:
                yield HEARTBEAT_EVENT
                continue
            if self._latest is None:
                return
            self._changed.clear()
            if text := self.text(self._latest):
                yield text
                await asyncio.sleep(EVENT_INTERVAL)
        yield RECONNECT_EVENT

    def text(self, event: Event) -> str:
        """Return the text of the event, "" if it is nothing new. Called when it is sent."""
        return str(event)
