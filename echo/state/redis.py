"""The counts of many processes, pinned on Redis; the keys are in scripts.py.

Each process owns one share there, and is the only one that writes it. The share expires
unless the process renews it: that is its lease. A count is the sum of the live shares.
"""

import asyncio
import atexit
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from threading import Condition, Thread
from typing import Any

from django.utils.translation import gettext

from echo.exceptions import StateUnavailable
from echo.state import scripts
from echo.state.announced import SharedAnnounced
from echo.state.connection import ERRORS, Connection, Servers
from echo.state.memory import MemoryState
from echo.tally import tally

logger = logging.getLogger(__name__)

JOIN_TIMEOUT = 0.25  # seconds without any answer of Redis after which a handshake goes on
RETRY = 0.25  # seconds between tries while Redis is away
# A process that was stopped or cut off has not yet heard which of its clients have left: it gives
# its event loop that long before it tells its numbers again.
CATCH_UP = 0.3  # seconds
# A read that took so long met a Redis that stood still. Handshakes may not have waited for it
# (JOIN_TIMEOUT), so what they have to write may come after the read: it is made again, a bit later.
SLOW_READ, AGAIN = 0.05, 0.1  # seconds
AT_ONCE = 5000  # names in one step: some milliseconds, in which Redis does nothing else
PART = 1000  # names in one step of those that are many
ATTEMPTS = 5  # to read many while processes end
UNDECIDED = 0.05  # seconds between tries to reserve while Redis cannot know the sum


class RedisState(MemoryState):
    """A MemoryState that also publishes its counts, and adds those of all other processes.

    May be used from any thread and any event loop. One thread of its own writes; reads are made
    by the thread that asks. They raise StateUnavailable when the sum cannot be known: Redis is
    away, or has just been flushed or restarted, and not every process has written again.
    """

    shared = True

    def __init__(self, url: str, lease: float, heartbeat: float) -> None:
        super().__init__()
        # Whoever reads waits for others who do, but they never keep the writing from its sockets.
        servers = Servers(self._redis_met)
        self._redis, self._reads = Connection(url, servers), Connection(url, servers)
        self._lease, self._heartbeat = lease, heartbeat  # seconds
        self._youth = heartbeat + CATCH_UP  # seconds in which every live process has written
        self._id = secrets.token_hex(8)
        self.announced = SharedAnnounced(self._redis, self._id, lease)
        # What is to be written, and who waits for it; guarded by the condition.
        self._work = Condition()
        self._dirty: set[str] = set()
        self._waiting: list[_Waiting] = []
        self._writing = False
        self._urgent = False  # a heartbeat is due at once
        self._closed = False
        self._thread: Thread | None = None
        # What the writing thread has learnt.
        self._attempts = 0  # each has a number of its own: a late one is told from its retry
        self._sequence = 0  # the number of the last that was acknowledged
        self._answers = 0
        self._acknowledged: float | None = None  # time.monotonic() of the last write
        self._outage = False
        self._unsure_until = 0.0  # time.monotonic(): reads raise until then

    # Joining and leaving

    async def join(self, name: str, limit: int | None = None) -> bool:
        """As MemoryState's; on return every process sees the connection.

        Waits as long as Redis answers to this process. Where it stands still, that is JOIN_TIMEOUT,
        and while it is known to be away no time at all; a limit then holds for the connections of
        this process alone. With a limit it also waits until the sum can be known, which after a
        start or a loss of Redis takes about a second.
        """
        if limit is not None:
            return await self._join_within(name, limit)
        await super().join(name)
        try:
            await self._publish(_Waiting(), name)
        except BaseException:  # cancelled: the caller will not call leave
            self.leave(name)
            raise
        return True

    async def _join_within(self, name: str, limit: int) -> bool:
        waiting = _Waiting(name, limit, until=time.monotonic() + self._lease + self._youth)
        try:
            await self._publish(waiting)
        except BaseException:
            if self._abandon(waiting):
                self.leave(name)
            raise
        granted = self._abandon(waiting)
        if granted is None:  # Redis has not said
            granted = await super().join(name, limit)
            self._mark(name)
        return granted

    def _abandon(self, waiting: "_Waiting") -> bool | None:
        """Return what has been decided, and see to it that nothing is decided any more."""
        with self._work:
            waiting.abandoned = True
            return waiting.granted

    def leave(self, name: str) -> None:
        super().leave(name)
        self._mark(name)

    async def settled(self) -> None:
        """Return when Redis knows of all that happened before, or as `join` does."""
        if self._dirty or self._writing:
            await self._publish(_Waiting())

    async def _publish(self, waiting: "_Waiting", *names: str) -> None:
        outage = self._outage
        self._mark(*names, waiting=None if outage else waiting)
        while not (outage or waiting.done.done()):
            answers = self._answers
            await asyncio.wait([waiting.done], timeout=JOIN_TIMEOUT)
            if answers == self._answers:
                break

    def _mark(self, *names: str, waiting: "_Waiting | None" = None) -> None:
        """Have the writing thread write these names, and tell who waits."""
        with self._work:
            self._dirty.update(names)
            if waiting is not None:
                self._waiting.append(waiting)
            self._start()
            self._work.notify()

    # Reading

    def count(self, name: str) -> int:
        """Return how many connections the object has now, in all processes (0 or more).

        Raises StateUnavailable: an unknown count is never given as a number.
        """
        return int(self._read(scripts.COUNT, name)) + super().count(name)

    def counts(self) -> dict[str, int]:
        """As MemoryState's, of all processes. Raises StateUnavailable.

        All are of one moment, unless there are more than AT_ONCE: those are read in parts.
        """
        for _ in range(ATTEMPTS):
            total: defaultdict[str, int] = defaultdict(int, super().counts())
            try:
                for share in self._shares():
                    for name, count in share.items():
                        total[name] += count
            except _Gone:
                continue
            return dict(total)
        raise StateUnavailable(
            gettext("Processes end while their many counts are read; try again.")
        )

    def _shares(self) -> Iterator[dict[str, int]]:
        in_parts, shares = self._read(scripts.COUNTS, AT_ONCE)
        for share in shares:
            yield self._in_parts(share) if in_parts else _parsed(share)

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

    # Doing something once

    def claim(self, key: str, seconds: float) -> bool:
        """As MemoryState's, in all processes. Never raises: while Redis is away, in this one."""
        if not super().claim(key, seconds):
            return False
        try:
            args = [int(seconds * 1000), secrets.token_hex(8)]
            is_first = bool(self._reads.run(scripts.CLAIM, [scripts.CLAIMED + key], args))
        except ERRORS as error:
            logger.warning("Whether it was done elsewhere is not known: %s", error)
            return True
        if not is_first:
            super().release(key)  # that is for the other process
        return is_first

    def release(self, key: str) -> None:
        """As MemoryState's. Never raises."""
        super().release(key)
        with suppress(*ERRORS):
            self._reads.run(scripts.RELEASE, [scripts.CLAIMED + key], [])

    async def acount(self, name: str) -> int:
        return await asyncio.to_thread(self.count, name)

    async def acounts(self) -> dict[str, int]:
        return await asyncio.to_thread(self.counts)

    def _read(self, script: str, *args: Any) -> Any:
        with self._work:
            self._start()
        self._require_sure()
        answer = self._ask(script, _KEYS, [*self._times(), *args])
        self._require_sure()
        if answer in (scripts.YOUNG, scripts.MISSING):
            self._heartbeat_now()
            raise StateUnavailable(
                gettext("Redis has lost data; its processes are writing them again.")
            )
        return answer

    def _ask(self, script: str, keys: list[Any], args: list[Any]) -> Any:
        began = time.monotonic()
        try:
            answer = self._reads.run(script, keys, args)
            if time.monotonic() - began > SLOW_READ:
                time.sleep(AGAIN)
                answer = self._reads.run(script, keys, args)
        except ERRORS as error:
            raise StateUnavailable(gettext("Redis does not answer: %s") % error) from error
        return answer

    def _heartbeat_now(self) -> None:
        """Write without waiting for the next heartbeat: the sooner all have, the sooner is read."""
        with self._work:
            self._urgent = True
            self._work.notify()

    def _require_sure(self) -> None:
        """Raise StateUnavailable if it is known that Redis cannot know the sum."""
        if self._outage:
            raise StateUnavailable(gettext("Redis is away."))
        if time.monotonic() < self._unsure_until or self._has_lapsed():
            raise StateUnavailable(
                gettext("Redis is back; its processes are writing their counts again.")
            )

    def _times(self) -> list[Any]:
        milliseconds = [int(seconds * 1000) for seconds in (self._lease, self._youth)]
        return [self._id, *milliseconds, scripts.SHARE]

    # Writing: all below runs in the thread of `_run`

    def _start(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = Thread(target=self._run, name="echo-state", daemon=True)
            self._thread.start()
            atexit.register(self.close)

    def close(self) -> None:
        """Take this process's share away at once, and stop. Calls after that change nothing."""
        super().close()
        with self._work:
            self._closed = True
            thread, self._thread = self._thread, None
            self._work.notify()
        if thread is not None:
            thread.join()
            atexit.unregister(self.close)

    def _run(self) -> None:
        while not self._closed:
            names, waiting = self._take_work()
            undecided: set[_Waiting] = set()
            try:
                self._write(names)
                self._succeeded()
                undecided = self._reserve(waiting)
            except Exception as error:  # this thread never ends: nobody would write any more
                self._failed(error, names)
            _tell([one for one in waiting if one not in undecided])
            if self._outage:
                self._pause(RETRY)
            elif undecided:
                self._pause(UNDECIDED)
                with self._work:
                    self._waiting += undecided
        try:
            keys = [scripts.PROCESSES, self._share, scripts.ANNOUNCER]
            self._redis.run(scripts.REMOVE, keys, [self._id])
        except Exception as error:
            logger.debug("The share could not be taken away, it will lapse: %s", error)
        self._redis.close()
        self._reads.close()

    def _take_work(self) -> tuple[set[str], "list[_Waiting]"]:
        """Return what is to be written, as soon as there is something, or a heartbeat is due."""
        with self._work:
            self._writing = False
            self._work.wait_for(
                lambda: self._dirty or self._waiting or self._urgent or self._closed,
                timeout=0 if self._acknowledged is None or self._outage else self._heartbeat,
            )
            self._writing, self._urgent = True, False
            names, self._dirty = self._dirty, set()
            waiting, self._waiting = self._waiting, []
        return names, waiting

    def _pause(self, seconds: float) -> None:
        with self._work:
            self._work.wait_for(lambda: self._closed, timeout=seconds)

    def _write(self, names: Iterable[str]) -> None:
        if self._acknowledged is not None and not self._has_lapsed():
            parts = iter(names)
            part = list(islice(parts, AT_ONCE))
            while self._write_step({name: super(RedisState, self).count(name) for name in part}):
                if not (part := list(islice(parts, AT_ONCE))):
                    return
        if self._has_lapsed():
            self._pause(CATCH_UP)
        self._write_step(super().counts(), whole=True)

    def _write_step(self, counts: dict[str, int], whole: bool = False) -> bool:
        """Write, and renew the lease; return False if Redis has lost what it had."""
        began = time.monotonic()
        pairs = [part for pair in counts.items() for part in pair]
        self._attempts += 1
        sequence = self._attempts
        lease = int(self._lease * 1000)
        args = [self._id, lease, self._sequence, sequence, int(whole), *pairs]
        written = self._redis.run(scripts.WRITE, [*_KEYS, self._share], args)
        self._answers += 1
        if not written:
            return False
        self._sequence, self._acknowledged = sequence, began
        return True

    def _reserve(self, waiting: "list[_Waiting]") -> "set[_Waiting]":
        """Decide, for those who want to join within a limit, who may; return who is to wait on."""
        wanted: defaultdict[tuple[str, int], list[_Waiting]] = defaultdict(list)
        for one in waiting:
            if one.limit is not None and one.name is not None and not one.abandoned:
                wanted[one.name, one.limit].append(one)
        undecided: set[_Waiting] = set()
        for (name, limit), group in wanted.items():
            granted = self._granted(name, limit, len(group))
            if granted < 0:  # the sum cannot be known
                undecided.update(one for one in group if time.monotonic() < one.until)
                continue
            with self._work:
                for one in group:
                    if not one.abandoned:
                        one.granted = granted > 0 and self._add(name)
                        granted -= one.granted
        return undecided

    def _granted(self, name: str, limit: int, wanted: int) -> int:
        """Reserve so many connections at the most; below 0 if Redis cannot know the sum."""
        if time.monotonic() < self._unsure_until:
            return scripts.YOUNG
        with self._work:
            self._dirty.add(name)  # whatever comes of it, the count is written once more
        own = super().count(name)
        args = [*self._times(), name, own, wanted, limit, self._sequence]
        granted = int(self._redis.run(scripts.RESERVE, [*_KEYS, self._share], args))
        self._answers += 1
        return granted

    @property
    def _share(self) -> str:
        return scripts.SHARE + self._id

    def _has_lapsed(self) -> bool:
        return (
            self._acknowledged is not None and time.monotonic() - self._acknowledged > self._lease
        )

    def _failed(self, error: Exception, names: set[str]) -> None:
        with self._work:
            self._dirty |= names
        if not self._outage:
            tally.outages += 1
            unexpected = not isinstance(error, ERRORS)
            message = "Redis is away; connections are not affected, counts are: %s"
            logger.warning(message, error, exc_info=unexpected)
        self._outage = True

    def _succeeded(self) -> None:
        if self._outage:
            logger.warning("Redis is back.")
            self._unsure_until = time.monotonic() + self._youth
        self._outage = False

    def _redis_met(self, age: float) -> None:
        """A Redis of that age in seconds was met: a young one may have lost data."""
        self._unsure_until = max(self._unsure_until, time.monotonic() + self._youth - age)


class _Gone(Exception):
    """A share has been taken away, or has lapsed, while it was read in parts."""


def _parsed(share: bytes) -> dict[str, int]:
    """Return names and counts of lines: `b"foo\\n2\\nbar\\n1"`; no name has a line break."""
    lines = share.decode().split("\n")
    counts = dict(zip(lines[::2], map(int, lines[1::2]), strict=True)) if share else {}
    counts.pop("", None)  # the sequence number
    return counts


class _Waiting:
    """Somebody on an event loop who waits for the writing thread."""

    __slots__ = ("abandoned", "done", "granted", "limit", "loop", "name", "until")

    def __init__(
        self, name: str | None = None, limit: int | None = None, until: float = 0.0
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.name, self.limit = name, limit  # what to decide, if anything,
        self.until = until  # and until when Redis is asked (time.monotonic())
        self.granted: bool | None = None
        self.abandoned = False


def _tell(waiting: "list[_Waiting]") -> None:
    """Wake those who wait; one call for each loop, since each costs a system call."""
    loops: defaultdict[asyncio.AbstractEventLoop, list[_Waiting]] = defaultdict(list)
    for one in waiting:
        loops[one.loop].append(one)
    for loop, group in loops.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_wake, group)


def _wake(group: "list[_Waiting]") -> None:
    for one in group:
        if not one.done.done():
            one.done.set_result(None)


_KEYS = [scripts.PROCESSES, scripts.BORN]
