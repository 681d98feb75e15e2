"""Detects disconnects while the application is busy, on servers without the extension ON_END."""

import asyncio
from collections import deque
from typing import Any

from asgiref.typing import ASGIReceiveCallable, ASGIReceiveEvent

from echo.counting.connection import CountedConnection, get_code

# If the application handles an event for longer than this (at most twice as long, by the interval
# of the timer), the next event is read ahead.
BUSY_TIMEOUT = 0.4  # seconds
MAX_READ_AHEAD = 1 << 20  # bytes or characters, after which no more events are read ahead
EVENT_OVERHEAD = 256  # bytes of an event in addition to its payload


class ReadAhead:
    """The `receive` of a counted application, which also reads while the application is busy.

    Otherwise the disconnect would be detected late while the application handles an event, and
    never if it only sends. Events that are read ahead are queued for the application in order.
    """

    def __init__(self, receive: ASGIReceiveCallable, connection: CountedConnection) -> None:
        self._receive = receive
        self._connection = connection
        self._receiving = False  # whether the application is waiting in `receive`
        self._received = 0  # number of events that the application has received
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        # Only the last future may be pending.
        self._queue: deque[asyncio.Future[ASGIReceiveEvent]] = deque()
        self._size = 0  # total size of the queued events

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
        """Read ahead if the application has received no event since the timer was started."""
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
