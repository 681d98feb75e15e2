"""All connections of an event loop: looked after each second, and closed when the server stops."""

import asyncio
import logging
import time
from weakref import WeakKeyDictionary

from echo.server.connection import WebSocketConnection

logger = logging.getLogger(__name__)

PERIOD = 1.0  # seconds
STOP_TIMEOUT = 3.0  # seconds for clients and applications to end in good order

_watches: "WeakKeyDictionary[asyncio.AbstractEventLoop, Watch]" = WeakKeyDictionary()


def get_watch() -> "Watch":
    """Return the watch of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _watches:
        _watches[loop] = Watch()
    return _watches[loop]


class Watch:
    """One timer for the time limits of all connections: none of them has one of its own."""

    def __init__(self) -> None:
        self._connections: set[WebSocketConnection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0  # when it should fire, by the loop's clock
        self.stopping = False
        self._stopping: asyncio.Future[None] | None = None

    def add(self, connection: WebSocketConnection) -> None:
        self._connections.add(connection)
        if self._timer is None:
            self._schedule(asyncio.get_running_loop())

    def discard(self, connection: WebSocketConnection) -> None:
        self._connections.discard(connection)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(PERIOD, self._look)
        self._due = loop.time() + PERIOD

    def _look(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        # An application may block the event loop: a slow call, or a breakpoint. What others sent
        # in that time may not be read yet, so it does not count for their time limits.
        late = now - self._due
        for connection in list(self._connections):
            if late > PERIOD:
                connection.postpone_timeouts(late)
            else:
                connection.watch(now)
        if self._connections:
            self._schedule(loop)

    def stop_soon(self, timeout: float) -> None:
        """Run `stop` in a task, the first time."""
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self.stop(timeout))

    async def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Close all connections with 1012; return when they have ended, or after the timeout."""
        self.stopping = True
        end = time.monotonic() + timeout
        while self._connections and time.monotonic() < end:
            for connection in list(self._connections):  # again, for those that were in between
                connection.shutdown()
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.sleep(0)
