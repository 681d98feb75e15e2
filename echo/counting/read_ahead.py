"""Reads disconnects in place of a busy application, on servers without the extension ON_END."""

import asyncio
from collections import deque
from typing import Any

from asgiref.typing import ASGIReceiveCallable, ASGIReceiveEvent

from echo.counting.connection import CountedConnection, get_code

# How long an application may be busy with an event before the next one is read; at most twice that.
BUSY_TIMEOUT = 0.4  # seconds
MAX_READ_AHEAD = 1 << 20  # bytes or characters, then a flooding client has to wait
EVENT_OVERHEAD = 256  # bytes that an event takes beside its payload


class ReadAhead:
    """The `receive` of a counted application, which also reads while the application is busy.

    An application that handles an event, or only sends, would notice the disconnect late or never.
    Events that are read ahead are queued for the application in order.
    """

    __slots__ = (
        "_connection",
        "_queue",
        "_receive",
        "_received",
        "_receiving",
        "_size",
        "_stopped",
        "_timer",
    )

    def __init__(self, receive: ASGIReceiveCallable, connection: CountedConnection) -> None:
        self._receive = receive
        self._connection = connection
        self._receiving = False  # is the application in `receive`?
        self._received = 0  # events that the application has got
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        # The last one may be pending.
        self._queue: deque[asyncio.Future[ASGIReceiveEvent]] = deque()
        self._size = 0  # of the queued events

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next event for the application."""
        self._receiving = True
        try:
            if not self._queue:
                event = await self._receive()
                self._check(event)
                return event
            # If the application cancels this call, the next one returns the same event.
            event = await asyncio.shield(self._queue[0])
            self._queue.popleft()
            self._size -= _get_size(event)
            return event
        finally:
            self._receiving = False
            self._received += 1
            if self._timer is None and not self._stopped and not self._connection.has_left:
                self._schedule_check()

    def stop(self) -> None:
        """Stop reading. Call it when the application has finished."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._queue:
            self._queue[-1].cancel()

    def _schedule_check(self) -> None:
        # One timer is reused; one per event would be too expensive.
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(BUSY_TIMEOUT, self._check_busy, self._received)

    def _check_busy(self, received: int) -> None:
        """Read ahead if the application still handles the event that it got before the timer."""
        self._timer = None
        if self._receiving or self._stopped:
            return
        if self._received == received:
            self._read()
        else:
            self._schedule_check()

    def _read(self) -> None:
        if self._connection.has_left or self._receiving or self._size > MAX_READ_AHEAD:
            return
        if self._queue and not self._queue[-1].done():
            return
        pending = asyncio.ensure_future(self._receive())
        pending.add_done_callback(self._on_read)
        self._queue.append(pending)

    def _on_read(self, read: "asyncio.Future[ASGIReceiveEvent]") -> None:
        if read.cancelled() or read.exception() is not None:
            return
        event = read.result()
        self._size += _get_size(event)
        self._check(event)
        self._read()

    def _check(self, event: ASGIReceiveEvent) -> None:
        if event["type"] == "websocket.disconnect":
            self._connection.leave(get_code(event))


def _get_size(event: Any) -> int:
    return EVENT_OVERHEAD + len(event.get("text") or event.get("bytes") or "")
