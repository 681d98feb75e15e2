"""The counts of several processes, on Redis; scripts.py describes the keys.

Each process writes one share, its own. A share expires unless its process renews it: this is the
lease of the process. A count is the sum over the shares of all live processes.
"""

import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from echo.exceptions import StateUnavailable
from echo.log import is_due
from echo.state.base import State
from echo.state.memory import MemoryState
from echo.state.redis import scripts
from echo.state.redis.client import CONNECTION_ERRORS, RedisClient
from echo.state.redis.ledger import RedisLedger
from echo.state.redis.restarts import RestartDetector
from echo.state.redis.threads import ReadThreads
from echo.state.redis.waiter import Waiter
from echo.state.redis.writer import BATCH_SIZE, RECHECK_INTERVAL, Writer

logger = logging.getLogger(__name__)

# If a read takes longer than the threshold, Redis has hung. Handshakes may have proceeded meanwhile
# (JOIN_TIMEOUT), and their writes may come after the read. So repeat the read after the delay.
SLOW_READ_THRESHOLD, REREAD_DELAY = 0.05, 0.1  # seconds
SCAN_SIZE = 1000  # names per step of a scan, if the shares have more than BATCH_SIZE
MAX_ATTEMPTS = 5  # to scan all shares while processes exit

UNKNOWN = {
    scripts.WARMING_UP: (
        "The counts on Redis are new, or all leases may have expired at once: all processes will "
        "have written their counts within {warm_up:.1f} s."
    ),
    scripts.MISSING: "Redis has lost the counts of a process, which will write them again.",
    scripts.NO_LEASE: "Redis has lost the lease of this process, which will write it again.",
    scripts.LOST: "Redis has lost all counts; the processes will write them again.",
}


class RedisState(State):
    """Writes the counts of this process to Redis, and reads the sums over all processes.

    One thread writes; reads run in the thread of the caller. Reads raise StateUnavailable if the
    sum is unknown: Redis is down; or it was flushed or restarted, and some processes may not have
    written again. In a process that has just started, and so may be the first, reads wait about a
    second for the sum instead.
    """

    shared = True

    def __init__(self, url: str, lease: float, heartbeat: float) -> None:
        super().__init__()
        self._local = MemoryState()
        self._lease = lease  # seconds
        self._id = secrets.token_hex(8)
        self._threads = ReadThreads()
        restarts = RestartDetector(self._on_new_server)
        # Two pools, so that many reads never delay the writes.
        writes, self._reads = RedisClient(url, restarts), RedisClient(url, restarts)
        self._writer = Writer(writes, self._id, self._local, lease, heartbeat)
        self.ledger = RedisLedger(writes, self._id, lease)

    # Joining and leaving

    async def join(self, name: str, limit: int | None = None) -> bool:
        """Count one more connection: when this returns, all processes see it.

        Waits like `Writer.publish`. If there is a limit, also waits until the sum is known: about a
        second after a start, or after Redis has lost data. While Redis is down, the limit applies
        only to the connections of this process.
        """
        if limit is not None:
            return await self._join_within(name, limit)
        self._local.add(name)
        try:
            await self._writer.publish(Waiter(), name)
        except BaseException:  # cancelled: the caller will not call leave
            self.leave(name)
            raise
        return True

    async def _join_within(self, name: str, limit: int) -> bool:
        waiter = Waiter(name, limit, until=time.monotonic() + self._lease + self._writer.warm_up)
        try:
            await self._writer.publish(waiter)
        except BaseException:
            if self._writer.abandon(waiter):
                self.leave(name)
            raise
        granted = self._writer.abandon(waiter)
        if granted is None:  # not decided by Redis
            if not self._writer.is_down() and is_due("limit"):
                logger.warning("Redis is too slow to check limits; they apply per process.")
            granted = self._local.add(name, limit)
            self._writer.mark(name)
        return granted

    def leave(self, name: str) -> None:
        self._local.leave(name)
        self._writer.mark(name)

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        return self._local.listen(listener)

    async def settled(self) -> None:
        """Return when Redis has all earlier changes. Waits like `Writer.publish`."""
        if self._writer.has_unwritten():
            await self._writer.publish(Waiter())

    def close(self) -> None:
        """Delete the share of this process at once, and stop. Later calls have no effect."""
        super().close()
        self._writer.close()
        self._threads.close()
        self._reads.close()

    # Reading: sums of one moment, after all earlier changes of this process

    def count(self, name: str) -> int:
        return int(self._read(scripts.COUNT, name, name))

    def counts(self) -> dict[str, int]:
        """Return the count of every object that has connections: `{"foo": 2}`.

        All counts are of the same moment, unless there are more than BATCH_SIZE: then they are read
        in parts, one after the other.
        """
        for _ in range(MAX_ATTEMPTS):
            total: defaultdict[str, int] = defaultdict(int)
            is_too_large, shares = self._read(scripts.COUNTS, None, BATCH_SIZE)
            try:
                for share in shares:
                    counts = self._scan(share) if is_too_large else _parse(share)
                    for name, count in counts.items():
                        total[name] += count
            except _ShareDeleted:
                continue
            return dict(total)
        raise StateUnavailable("Processes exited while their counts were read; try again.")

    def _scan(self, share: bytes) -> dict[str, int]:
        counts: dict[str, int] = {}
        cursor = b"0"
        while True:
            result = self._run(scripts.SCAN_SHARE, [share], [cursor, SCAN_SIZE])
            if result == scripts.MISSING:
                raise _ShareDeleted
            cursor, part = result
            counts |= _parse(part)
            if cursor == b"0":
                return counts

    async def acount(self, name: str) -> int:
        return await self._threads.run(self.count, name)

    async def acounts(self) -> dict[str, int]:
        return await self._threads.run(self.counts)

    def _read(self, script: str, name: str | None, *args: Any) -> Any:
        """Return the result of the script. In a new process, wait until the sum is known."""
        self._writer.wait_until_written(name)
        while True:
            result, unknown_reason = self._try_to_read(script, *args)
            if unknown_reason is None:
                return result
            if not self._writer.is_new():
                raise StateUnavailable(unknown_reason)
            time.sleep(RECHECK_INTERVAL)

    def _try_to_read(self, script: str, *args: Any) -> tuple[Any, str | None]:
        """Return the result of the script and None; if the sum is unknown, None and the reason."""
        if reason := self._writer.unknown_reason():
            return None, reason
        keys = [scripts.PROCESSES, scripts.EPOCH]
        result = self._run(script, keys, [*self._writer.registry_args, scripts.SHARE, *args])
        # Check again, because the read may have connected to a restarted server.
        if reason := self._writer.unknown_reason():
            return None, reason
        if isinstance(result, int) and result < 0:
            self._writer.write_now()
            return None, UNKNOWN[result].format(warm_up=self._writer.warm_up)
        return result, None

    def _run(self, script: str, keys: list[Any], args: list[Any]) -> Any:
        began = time.monotonic()
        try:
            result = self._reads.run(script, keys, args)
            if time.monotonic() - began > SLOW_READ_THRESHOLD:
                time.sleep(REREAD_DELAY)
                result = self._reads.run(script, keys, args)
        except Exception as error:
            self._on_read_failure(error)
            raise StateUnavailable(f"Redis does not respond: {error}") from error
        return result

    def _on_read_failure(self, error: Exception) -> None:
        """Log an error that the writer does not log, such as a missing permission to read."""
        if not (isinstance(error, CONNECTION_ERRORS) or self._writer.is_down()) and is_due("read"):
            logger.warning("Redis rejected a read: %s", error)

    def _on_new_server(self, age: float) -> None:
        """Treat the sum as unknown until the server is one warm-up old: it may have lost data."""
        reason = "Redis was restarted or failed over"
        self._writer.set_uncertain(self._writer.warm_up - age, reason)


class _ShareDeleted(Exception):
    """A share was deleted, or has expired, while it was scanned."""


def _parse(share: bytes) -> dict[str, int]:
    """Return the counts from alternating lines of names and counts, `b"foo\\n2\\nbar\\n1"`.

    Names contain no line breaks.
    """
    lines = share.decode().split("\n")
    counts = dict(zip(lines[::2], map(int, lines[1::2]), strict=True)) if share else {}
    counts.pop("", None)  # the sequence number
    return counts
