"""The counts of many processes, pinned on Redis; the keys are in scripts.py.

Each process owns one share there, and is the only one that writes it. The share expires
unless the process renews it: that is its lease. A count is the sum of the live shares.
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
from echo.state.redis.client import LOST, RedisClient
from echo.state.redis.ledger import RedisLedger
from echo.state.redis.restarts import RestartDetector
from echo.state.redis.threads import ReadThreads
from echo.state.redis.waiter import Waiting
from echo.state.redis.writer import AT_ONCE, UNDECIDED, Writer

logger = logging.getLogger(__name__)

# A read that took so long met a Redis that stood still. Handshakes may not have waited for it
# (JOIN_TIMEOUT), so what they have to write may come after the read: it is made again, a bit later.
SLOW_READ, AGAIN = 0.05, 0.1  # seconds
PART = 1000  # names in one step of those that are many
ATTEMPTS = 5  # to read many while processes end

UNKNOWN = {
    scripts.YOUNG: (
        "The counts on Redis are new, or all leases may have ended at once: every process has "
        "written its counts again within {youth:.1f} s."
    ),
    scripts.MISSING: "Redis has lost the counts of a process, which writes them again.",
    scripts.NOT_LIVE: "Redis has no lease of this process, which writes its counts again.",
    scripts.LOST: "Redis has lost the counts; the processes write them again.",
}


class RedisState(State):
    """Publishes the counts of this process, and adds those of all other processes.

    One thread of its own writes; reads are made
    by the thread that asks. They raise StateUnavailable when the sum cannot be known: Redis is
    away, or has just been flushed or restarted, and not every process has written again. A process
    that has just begun, and so may be the first, waits for that instead: a second or so.
    """

    shared = True

    def __init__(self, url: str, lease: float, heartbeat: float) -> None:
        super().__init__()
        self._local = MemoryState()
        self._lease = lease  # seconds
        self._id = secrets.token_hex(8)
        # Whoever reads waits for others who do, but they never keep the writing from its sockets.
        self._threads = ReadThreads()
        restarts = RestartDetector(self._met)
        writes, self._reads = RedisClient(url, restarts), RedisClient(url, restarts)
        self._writer = Writer(writes, self._id, self._local, lease, heartbeat)
        self.ledger = RedisLedger(writes, self._id, lease)

    # Joining and leaving

    async def join(self, name: str, limit: int | None = None) -> bool:
        """Count one more connection: on return every process sees it.

        Waits as `Writer.publish` does. While Redis does not answer, a limit holds for the
        connections of this process alone. With a limit it also waits until the sum can be known,
        which after a start or a loss of Redis takes about a second.
        """
        if limit is not None:
            return await self._join_within(name, limit)
        self._local.add(name)
        try:
            await self._writer.publish(Waiting(), name)
        except BaseException:  # cancelled: the caller will not call leave
            self.leave(name)
            raise
        return True

    async def _join_within(self, name: str, limit: int) -> bool:
        waiting = Waiting(name, limit, until=time.monotonic() + self._lease + self._writer.youth)
        try:
            await self._writer.publish(waiting)
        except BaseException:
            if self._writer.abandon(waiting):
                self.leave(name)
            raise
        granted = self._writer.abandon(waiting)
        if granted is None:  # Redis has not said
            if not self._writer.is_away() and is_due("limit"):
                logger.warning("Redis is too slow to judge limits; each process does.")
            granted = self._local.add(name, limit)
            self._writer.mark(name)
        return granted

    def leave(self, name: str) -> None:
        self._local.leave(name)
        self._writer.mark(name)

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        return self._local.listen(listener)

    async def settled(self) -> None:
        """Return when Redis knows of all that happened before, or as `join` does."""
        if self._writer.has_unwritten():
            await self._writer.publish(Waiting())

    def close(self) -> None:
        """Take this process's share away at once, and stop. Calls after that change nothing."""
        super().close()
        self._writer.close()
        self._threads.close()
        self._reads.close()

    # Reading: what Redis has at one moment, when it has been told all that happened here before

    def count(self, name: str) -> int:
        """Return how many connections the object has now, in all processes (0 or more).

        Raises StateUnavailable: an unknown count is never given as a number.
        """
        return int(self._read(scripts.COUNT, name, name))

    def counts(self) -> dict[str, int]:
        """Return the counts of all objects, in all processes. Raises StateUnavailable.

        All are of one moment, unless there are more than AT_ONCE: those are read in parts.
        """
        for _ in range(ATTEMPTS):
            total: defaultdict[str, int] = defaultdict(int)
            in_parts, shares = self._read(scripts.COUNTS, None, AT_ONCE)
            try:
                for share in shares:
                    counts = self._in_parts(share) if in_parts else _parsed(share)
                    for name, count in counts.items():
                        total[name] += count
            except _Gone:
                continue
            return dict(total)
        raise StateUnavailable("Processes end while their many counts are read; try again.")

    def _in_parts(self, share: bytes) -> dict[str, int]:
        counts: dict[str, int] = {}
        cursor = b"0"
        while True:
            answer = self._ask(scripts.PART, [share], [cursor, PART])
            if answer == scripts.MISSING:
                raise _Gone
            cursor, part = answer
            counts |= _parsed(part)
            if cursor == b"0":
                return counts

    async def acount(self, name: str) -> int:
        return await self._threads.run(self.count, name)

    async def acounts(self) -> dict[str, int]:
        return await self._threads.run(self.counts)

    def _read(self, script: str, name: str | None, *args: Any) -> Any:
        """Return the script's answer; a process that has just begun waits until there is one."""
        self._writer.wait_until_written(name)
        while True:
            answer, unknown = self._try_to_read(script, *args)
            if unknown is None:
                return answer
            if not self._writer.is_new():
                raise StateUnavailable(unknown)
            time.sleep(UNDECIDED)

    def _try_to_read(self, script: str, *args: Any) -> tuple[Any, str | None]:
        """Return the script's answer, and if it is no number, why not."""
        if unknown := self._writer.unknown():
            return None, unknown
        known = [*self._writer.common, scripts.SHARE]
        answer = self._ask(script, [scripts.PROCESSES, scripts.BORN], [*known, *args])
        if unknown := self._writer.unknown():
            return None, unknown
        if isinstance(answer, int) and answer < 0:
            self._writer.beat_soon()
            return None, UNKNOWN[answer].format(youth=self._writer.youth)
        return answer, None

    def _ask(self, script: str, keys: list[Any], args: list[Any]) -> Any:
        began = time.monotonic()
        try:
            answer = self._reads.run(script, keys, args)
            if time.monotonic() - began > SLOW_READ:
                time.sleep(AGAIN)
                answer = self._reads.run(script, keys, args)
        except Exception as error:
            self._could_not_read(error)
            raise StateUnavailable(f"Redis does not answer: {error}") from error
        return answer

    def _could_not_read(self, error: Exception) -> None:
        """Log what the thread that writes would not: it may have rights that reading lacks."""
        if not (isinstance(error, LOST) or self._writer.is_away()) and is_due("read"):
            logger.warning("Redis refuses to be read: %s", error)

    def _met(self, age: float) -> None:
        """A Redis of that age in seconds was met: a young one may have lost data."""
        why = "Redis has just been started, or has taken over from another server"
        self._writer.distrust(self._writer.youth - age, why)


class _Gone(Exception):
    """A share has been taken away, or has lapsed, while it was read in parts."""


def _parsed(share: bytes) -> dict[str, int]:
    """Return names and counts of lines: `b"foo\\n2\\nbar\\n1"`; no name has a line break."""
    lines = share.decode().split("\n")
    counts = dict(zip(lines[::2], map(int, lines[1::2]), strict=True)) if share else {}
    counts.pop("", None)  # the sequence number
    return counts
