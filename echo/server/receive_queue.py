"""The queue of events for the application, which pauses reading when it is full."""

import asyncio
from typing import Any

MAX_QUEUED_EVENTS = 64  # at which reading pauses
MAX_QUEUED_BYTES = 256 * 1024  # of payloads, at which reading pauses


class ReceiveQueue:
    """The events of one connection for its application. The last one is the disconnect."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.transport: asyncio.Transport | None = None
        self.is_reading_paused = False
        # Texts and binary messages become events on delivery.
        self.events: list[str | bytes | dict[str, Any]] = [{"type": "websocket.connect"}]
        self.size = 0  # bytes of the payloads; of texts, as UTF-8
        self.disconnect: dict[str, Any] | None = None  # the event, when it is known
        self.has_delivered_disconnect = False
        self._waiter: asyncio.Future[None] | None = None

    def extend(self, messages: list[str | bytes]) -> None:
        self.events += messages
        size = self.size
        for message in messages:
            # Fast path: most texts are ASCII, and `isascii` takes constant time.
            if isinstance(message, bytes) or message.isascii():
                size += len(message)
            else:
                size += len(message.encode())
        self.size = size

    def pop(self) -> dict[str, Any]:
        """Return the next event. There must be one."""
        event = self.events.pop(0)
        if isinstance(event, str):
            self.size -= len(event) if event.isascii() else len(event.encode())
            return {"type": "websocket.receive", "text": event}
        if isinstance(event, bytes):
            self.size -= len(event)
            return {"type": "websocket.receive", "bytes": event}
        return event

    def clear(self) -> None:
        self.events.clear()
        self.size = 0

    def is_full(self) -> bool:
        return len(self.events) >= MAX_QUEUED_EVENTS or self.size >= MAX_QUEUED_BYTES

    def is_awaited(self) -> bool:
        """Return whether the application is waiting for an event now."""
        return self._waiter is not None and not self._waiter.done()

    def wait(self) -> "asyncio.Future[None]":
        """Return a future that is done when something has been received."""
        self._waiter = self._loop.create_future()
        return self._waiter

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def pause_reading(self) -> None:
        if not self.is_reading_paused and self.transport is not None:
            self.is_reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.is_reading_paused and self.transport is not None:
            self.is_reading_paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()
