"""The open connections of each event loop: checked each second, closed when the server stops."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from weakref import WeakKeyDictionary

from echo.extensions import draining
from echo.server.connection import State, WebSocketConnection

CHECK_INTERVAL = 1.0  # seconds
STOP_TIMEOUT = 3.0  # seconds for clients and applications to finish
SHUTDOWN_INTERVAL = 0.02  # seconds
DRAINING = "Draining: closing %d WebSockets within %g s; the next signal closes the rest"

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

    @property
    def is_stopping(self) -> bool:
        """Return whether `stop_soon` has been called."""
        return self._stopping is not None

    def stop_soon(self, timeout: float, drain: float) -> None:
        """Run `stop` in a task."""
        self._stopping = asyncio.ensure_future(self.stop(timeout, drain))

    async def stop(self, timeout: float = STOP_TIMEOUT, drain: float = 0) -> None:
        """Close all connections with 1012, one after the other in the first `drain` seconds.

        Return when all have finished, or `timeout` seconds after the last has been closed.
        """
        if drain:
            await self._drain(drain)
        deadline = time.monotonic() + timeout
        while self._connections and time.monotonic() < deadline:
            # Repeat the calls, for connections whose handshake was being accepted.
            for connection in list(self._connections):
                connection.close_for_restart()
            await asyncio.sleep(SHUTDOWN_INTERVAL)
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.sleep(0)

    async def _drain(self, seconds: float) -> None:
        """Reject the pending handshakes, then close the open connections evenly over that time.

        Return early if all have finished, or at the next signal to stop.
        """
        draining.set()
        for connection in list(self._connections):
            if connection.state is State.HANDSHAKE:
                connection.close_for_restart()
        waiting = [each for each in self._connections if each.state is State.OPEN]
        number, start, is_ended = len(waiting), time.monotonic(), asyncio.Event()
        with _calling_at_signal(is_ended.set):
            while self._connections and not is_ended.is_set():
                elapsed = time.monotonic() - start
                while waiting and number - len(waiting) < int(number * elapsed / seconds):
                    waiting.pop().close_for_restart()
                if elapsed >= seconds:
                    return
                await asyncio.sleep(SHUTDOWN_INTERVAL)


@contextmanager
def _calling_at_signal(callback: Callable[[], object]) -> Iterator[None]:
    """Call it on the event loop at SIGTERM and SIGINT, in addition to the server's own handler."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and its own stop the server
        return
    loop = asyncio.get_running_loop()

    def extended(handler: Callable[..., object]) -> Callable[..., object]:
        @wraps(handler)  # echo.live looks for uvicorn's handler
        def handle(*args: object) -> None:
            loop.call_soon_threadsafe(callback)
            handler(*args)

        return handle

    numbers = (signal.SIGTERM, signal.SIGINT)
    handlers = {n: handler for n in numbers if callable(handler := signal.getsignal(n))}
    for number, handler in handlers.items():
        signal.signal(number, extended(handler))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
