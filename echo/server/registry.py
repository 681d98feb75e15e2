"""The open connections of each event loop: checked each second, closed when the server stops."""

import asyncio
import time
from weakref import WeakKeyDictionary

from echo.server.connection import WebSocketConnection

CHECK_INTERVAL = 1.0  # seconds
STOP_TIMEOUT = 3.0  # seconds for clients and applications to finish
SHUTDOWN_INTERVAL = 0.02  # seconds

_by_loop: "WeakKeyDictionary[asyncio.AbstractEventLoop, OpenConnections]" = WeakKeyDictionary()


def get_open_connections() -> "OpenConnections":
    """Return the open connections of the running event loop."""
    loop = asyncio.get_running_loop()
    connections = _by_loop.get(loop)
    if connections is None:
        connections = _by_loop[loop] = OpenConnections()
    return connections


class OpenConnections:
    """The open connections of one event loop. One timer checks the time limits of all of them."""

    def __init__(self) -> None:
        self._connections: set[WebSocketConnection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0  # when the timer should fire, by the loop's clock
        self._stopping: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: WebSocketConnection) -> None:
        self._connections.add(connection)
        if self._timer is None:
            self.schedule_check()

    def discard(self, connection: WebSocketConnection) -> None:
        self._connections.discard(connection)

    def schedule_check(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(CHECK_INTERVAL, self._check)
        self._due = loop.time() + CHECK_INTERVAL

    def _check(self) -> None:
        self._timer = None
        self.check_timeouts(asyncio.get_running_loop().time())
        if self._connections:
            self.schedule_check()

    def check_timeouts(self, now: float) -> None:
        """Enforce the time limits of all connections; `now` is the loop's time."""
        # A slow call or a breakpoint may have blocked the event loop. Data that clients sent
        # meanwhile may not have been read yet, so extend their time limits by the delay.
        delay = now - self._due
        for connection in list(self._connections):
            if delay > CHECK_INTERVAL:
                connection.postpone_timeouts(delay)
            else:
                connection.check_timeouts(now)

    def stop_soon(self, timeout: float) -> None:
        """Run `stop` in a task. Later calls do nothing."""
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self.stop(timeout))

    async def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Close all connections with 1012; return when all have finished, or after the timeout."""
        deadline = time.monotonic() + timeout
        while self._connections and time.monotonic() < deadline:
            # Repeat the calls, for connections whose handshake was being accepted.
            for connection in list(self._connections):
                connection.shutdown()
            await asyncio.sleep(SHUTDOWN_INTERVAL)
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.sleep(0)
