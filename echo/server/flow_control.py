"""Writing to the transport: batches of frames, and clients that read slowly."""

import asyncio
import sys

BATCH_SIZE = 64  # frames
MAX_BATCHED_FRAME = 4096  # bytes; a larger frame is written at once, after the batch
SLOW_READER_TIMEOUT = 10.0  # seconds in which a client must read some of the waiting data

try:
    from fcntl import ioctl
    from termios import TIOCOUTQ
except ImportError:  # Windows

    def _unacknowledged(transport: asyncio.Transport) -> int:
        return 0

else:

    def _unacknowledged(transport: asyncio.Transport) -> int:
        """Return the size of the data in the kernel's send buffer, which may be megabytes."""
        try:
            buffer = ioctl(transport.get_extra_info("socket").fileno(), TIOCOUTQ, bytes(4))
        except OSError:
            return 0
        return int.from_bytes(buffer, sys.byteorder)


class FlowControl:
    """Writes the frames of one connection, and detects a client that does not read them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.transport: asyncio.Transport | None = None
        self.batch: list[bytes] = []  # frames to be written together
        self.is_paused = False  # whether the transport's buffer is full
        self._writable: asyncio.Future[None] | None = None
        self._backlog = 0  # bytes that the client had not read at the last check
        self._progress_at = 0.0  # loop time at which the client last read some of them

    def write(self, data: bytes) -> None:
        """Write the batch, then the data."""
        if self.batch:
            self.batch.append(data)
            data = b"".join(self.batch)
            self.batch.clear()
        if self.transport is not None:
            self.transport.write(data)

    def start_batch(self, frame: bytes) -> None:
        """Write the frame in the next iteration of the loop, with all others in `batch` by then."""
        self.batch.append(frame)
        self._loop.call_soon(self.flush)

    def flush(self) -> None:
        if self.batch:
            self.write(self.batch.pop())

    def pause(self) -> None:
        self.is_paused = True
        self._writable = self._loop.create_future()
        self._progress_at = self._loop.time()
        self._backlog = 0

    def resume(self) -> None:
        self.is_paused = False
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None

    async def wait_until_writable(self) -> None:
        self.flush()
        if self._writable is not None:
            await asyncio.shield(self._writable)

    def postpone(self, seconds: float) -> None:
        """Extend the time limit by the time for which the event loop was blocked."""
        self._progress_at += seconds

    def is_stalled(self, now: float) -> bool:
        """Return whether the client has read nothing for SLOW_READER_TIMEOUT. Call it each second.

        Data in the kernel's send buffer counts as unread until the client acknowledges it.
        """
        if self.transport is None or not self.is_paused:
            return False
        backlog = self.transport.get_write_buffer_size() + _unacknowledged(self.transport)
        has_progressed = backlog < self._backlog or not self._backlog
        self._backlog = backlog
        if has_progressed:
            self._progress_at = now
        return now - self._progress_at > SLOW_READER_TIMEOUT
