"""The thread that writes this process's share on Redis, and holds its lease."""

import asyncio
import atexit
import logging
import os
import time
from collections import defaultdict
from collections.abc import Iterable
from itertools import islice
from math import inf
from threading import Condition, Lock, Thread
from typing import Any

from echo.exceptions import StateUnavailable
from echo.log import is_due
from echo.state.memory import MemoryState
from echo.state.redis import scripts
from echo.state.redis.client import ERRORS, REFUSED, TIMEOUT, RedisClient
from echo.state.redis.waiter import Waiting, tell
from echo.stats import tally

logger = logging.getLogger(__name__)

JOIN_TIMEOUT = 0.25  # seconds without any answer of Redis after which a handshake goes on
RETRY = 0.25  # seconds between tries while Redis is away
# A step that waits so long is an outage, whatever the client is still trying.
STUCK = 1.25 * TIMEOUT  # seconds
# A process that was stopped or cut off has not yet heard which of its clients have left: it gives
# its event loop that long before it tells its numbers again.
CATCH_UP = 0.3  # seconds
AT_ONCE = 5000  # names in one step: some milliseconds, in which Redis does nothing else
UNDECIDED = 0.05  # seconds between tries to reserve while Redis cannot know the sum
# The youth ends in Redis, and its end is known here after a step and a pause between two tries.
SLACK = 0.2  # seconds
END_TIMEOUT = 2.5  # seconds for the thread to end

AWAY = "Redis is away."


class Writer:
    """Publishes the counts of this process. Its public methods may be called from any thread.

    The thread begins at the first call that needs it, and never ends before `close`.
    """

    def __init__(
        self, redis: RedisClient, process: str, local: MemoryState, lease: float, heartbeat: float
    ) -> None:
        self._redis = redis
        self._process = process
        self._local = local
        self._lease, self._heartbeat = lease, heartbeat  # seconds
        # In seconds: in `youth` each live process writes, in `settle` each that finds Redis back.
        self.youth = heartbeat + CATCH_UP
        settle = min(RETRY + CATCH_UP + 0.1, self.youth)
        self._times = [int(1000 * each) for each in (self.youth, settle, lease)]
        # What each script that reads or writes counts begins with.
        self.common = [process, self._times[0]]
        self.share = scripts.SHARE + process
        # What is to be written, who waits for it, and what is being written; guarded by the lock.
        lock = Lock()
        self._work, self._written = Condition(lock), Condition(lock)
        self._dirty: set[str] = set()
        self._waiting: list[Waiting] = []
        self._names: set[str] = set()
        self._rounds = 0  # that have ended
        self._is_writing = False
        self._urgent = False  # a heartbeat is due at once
        self._closed = False
        self._thread: Thread | None = None
        self._pid = os.getpid()
        # What the thread has learnt.
        self._attempts = 0  # each has a number of its own: a late one is told from its retry
        self._sequence = 0  # the number of the last that was acknowledged
        self._answers = 0
        self._asked: float | None = None  # time.monotonic() of the step that is under way
        self._acknowledged: float | None = None  # time.monotonic() of the last write
        self._outage = False
        self._new_until = -inf  # time.monotonic(): this process has just begun to write
        self._unsure_until = 0.0  # time.monotonic(): the sum cannot be known until then,
        self._why_unsure = ""  # since this has happened

    # For those who join and leave

    async def publish(self, waiting: Waiting, *names: str) -> None:
        """Have these names written, and return when that is done.

        Waits as long as Redis answers. Where it stands still, that is JOIN_TIMEOUT, and while it
        is known to be away no time at all.
        """
        is_away = self.is_away()
        self.mark(*names, waiting=None if is_away else waiting)
        while not (is_away or waiting.done.done()):
            answers = self._answers
            await asyncio.wait([waiting.done], timeout=JOIN_TIMEOUT)
            if answers == self._answers:
                break

    def mark(self, *names: str, waiting: Waiting | None = None) -> None:
        """Have these names written soon, and then tell who waits."""
        with self._work:
            self._dirty.update(names)
            if waiting is not None:
                self._waiting.append(waiting)
            self._start()
            self._work.notify()

    def abandon(self, waiting: Waiting) -> bool | None:
        """Return what has been decided, and see to it that nothing is decided any more."""
        with self._work:
            waiting.abandoned = True
            return waiting.granted

    def has_unwritten(self) -> bool:
        """Return whether there is a change that Redis may not know of."""
        return bool(self._dirty or self._names)

    def is_away(self) -> bool:
        """Return whether Redis is known to be away; after the end it is for good."""
        asked = self._asked
        is_stuck = asked is not None and time.monotonic() - asked > STUCK
        return self._outage or self._closed or is_stuck

    # For those who read

    def wait_until_written(self, name: str | None = None) -> None:
        """Return when Redis knows of all changes until now, of the object or of all.

        Raises StateUnavailable if that takes too long; while Redis is away, `unknown` does.
        """
        with self._work:
            self._start()
            rounds = self._rounds_until_written(name)
            if not rounds or self.is_away():
                return
            end = self._rounds + rounds
            self._work.notify()
            in_time = self._written.wait_for(
                lambda: self._rounds >= end or self._closed, timeout=STUCK
            )
        if not in_time:
            raise StateUnavailable(AWAY)

    def _rounds_until_written(self, name: str | None) -> int:
        def concerned(names: set[str]) -> bool:
            return bool(names) if name is None else name in names

        is_first = self._acknowledged is None
        is_being_written = self._is_writing and (is_first or concerned(self._names))
        is_to_be_written = concerned(self._dirty) or (is_first and not is_being_written)
        return is_being_written + is_to_be_written

    def unknown(self) -> str | None:
        """Return why Redis cannot know the sum now, if that is known here.

        Raises StateUnavailable if Redis is away.
        """
        if self.is_away():
            raise StateUnavailable(AWAY)
        if self._has_lapsed():
            return "This process could not renew its lease on Redis in time, and does so again."
        if (seconds := self._unsure_until - time.monotonic()) > 0:
            return f"{self._why_unsure}; every process has written its counts in {seconds:.1f} s."
        return None

    def is_new(self) -> bool:
        """Return whether this process has just begun to write, so that the sum is known soon."""
        return time.monotonic() < self._new_until

    def distrust(self, seconds: float, why: str) -> None:
        """Take the sum for unknown for that time: not all processes may have written."""
        until = time.monotonic() + seconds
        if until > self._unsure_until:
            self._why_unsure, self._unsure_until = why, until

    def beat_soon(self) -> None:
        """Write without waiting for the next heartbeat: the sooner all have, the sooner is read."""
        with self._work:
            self._urgent = True
            self._work.notify()

    def close(self) -> None:
        """Take this process's share away at once, and stop. Calls after that change nothing."""
        if self._pid != os.getpid():  # a fork: neither the thread nor the share is its own
            return
        with self._work:
            self._closed = True
            thread, self._thread = self._thread, None
            self._work.notify()
            self._written.notify_all()
        if thread is not None:
            thread.join(END_TIMEOUT)
            atexit.unregister(self.close)

    def _start(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = Thread(target=self._run, name="echo-state", daemon=True)
            self._thread.start()
            atexit.register(self.close)

    # In the thread

    def _run(self) -> None:
        while not self._closed:
            waiting = self._take_work()
            undecided: set[Waiting] = set()
            try:
                self._write(self._names)
                self._succeeded()
                undecided = self._reserve(waiting)
            except Exception as error:  # this thread never ends: nobody would write any more
                self._failed(error)
            self._end_round()
            tell(one for one in waiting if one not in undecided)
            if self._outage:
                self._pause(RETRY)
            elif undecided:
                self._pause(UNDECIDED)
                with self._work:
                    self._waiting += undecided
        try:
            keys = [scripts.PROCESSES, scripts.BORN, self.share, scripts.ANNOUNCER]
            self._redis.run(scripts.REMOVE, keys, self.common)
        except Exception as error:
            logger.debug("The share could not be taken away, it will lapse: %s", error)
        self._redis.close()

    def _take_work(self) -> list[Waiting]:
        """Take what is to be written, as soon as there is something, or a heartbeat is due."""
        with self._work:
            self._work.wait_for(
                lambda: self._dirty or self._waiting or self._urgent or self._closed,
                timeout=0 if self._acknowledged is None or self._outage else self._heartbeat,
            )
            self._is_writing, self._urgent = True, False
            self._names, self._dirty = self._dirty, set()
            waiting, self._waiting = self._waiting, []
        return waiting

    def _end_round(self) -> None:
        with self._work:
            if self._outage:  # they are still to be written
                self._dirty |= self._names
            self._names = set()
            self._is_writing = False
            self._rounds += 1
            self._written.notify_all()

    def _pause(self, seconds: float) -> None:
        with self._work:
            self._work.wait_for(lambda: self._closed, timeout=seconds)

    def _write(self, names: Iterable[str]) -> None:
        if self._acknowledged is not None and not self._has_lapsed():
            parts = iter(names)
            part = list(islice(parts, AT_ONCE))
            while self._write_step({name: self._local.count(name) for name in part}):
                if not (part := list(islice(parts, AT_ONCE))):
                    return
        if self._has_lapsed():
            self._pause(CATCH_UP)
        self._write_step(self._local.counts(), whole=True)

    def _write_step(self, counts: dict[str, int], whole: bool = False) -> bool:
        """Write, and renew the lease; return False if Redis has lost what it had."""
        began = time.monotonic()
        pairs = [part for pair in counts.items() for part in pair]
        self._attempts += 1
        sequence = self._attempts
        told = [self._process, *self._times, self._sequence, sequence, int(whole)]
        if not self._step(scripts.WRITE, *told, *pairs):
            return False
        if self._acknowledged is None:
            self._new_until = time.monotonic() + self.youth + SLACK
        self._sequence, self._acknowledged = sequence, began
        return True

    def _reserve(self, waiting: list[Waiting]) -> set[Waiting]:
        """Decide, for those who want to join within a limit, who may; return who is to wait on."""
        wanted: defaultdict[tuple[str, int], list[Waiting]] = defaultdict(list)
        for one in waiting:
            if one.limit is not None and one.name is not None and not one.abandoned:
                wanted[one.name, one.limit].append(one)
        undecided: set[Waiting] = set()
        for (name, limit), group in wanted.items():
            try:
                granted = self._granted(name, limit, len(group))
            except REFUSED as error:  # it is there, but this user may not, say
                if is_due("limit"):
                    logger.warning("Redis does not judge limits; each process does: %s", error)
                continue
            if granted < 0:  # the sum cannot be known
                undecided.update(one for one in group if time.monotonic() < one.until)
                continue
            with self._work:
                for one in group:
                    if not one.abandoned:
                        one.granted = granted > 0 and self._local.add(name)
                        granted -= one.granted
        return undecided

    def _granted(self, name: str, limit: int, wanted: int) -> int:
        """Reserve so many connections at the most; below 0 if Redis cannot know the sum."""
        if time.monotonic() < self._unsure_until:
            return scripts.YOUNG
        with self._work:
            self._dirty.add(name)  # whatever comes of it, the count is written once more
        count = self._local.count(name)
        args = [*self.common, scripts.SHARE, name, count, wanted, limit, self._sequence]
        return int(self._step(scripts.RESERVE, *args))

    def _step(self, script: str, *args: Any) -> Any:
        self._asked = time.monotonic()
        try:
            answer = self._redis.run(script, [scripts.PROCESSES, scripts.BORN, self.share], args)
        finally:
            self._asked = None
        self._answers += 1
        return answer

    def _has_lapsed(self) -> bool:
        acknowledged = self._acknowledged
        return acknowledged is not None and time.monotonic() - acknowledged > self._lease

    def _failed(self, error: Exception) -> None:
        if not self._outage:
            tally.outages += 1
            unexpected = not isinstance(error, ERRORS)
            message = "Redis is away: counts are unknown until it is back, connections go on (%s)"
            logger.warning(message, error, exc_info=unexpected)
        self._outage = True

    def _succeeded(self) -> None:
        if self._outage:
            logger.warning("Redis is back.")
            self.distrust(self.youth, "Redis did not answer, and does again")
        self._outage = False
