"""The thread that writes the share of this process to Redis, and renews its lease."""

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

from redis.exceptions import ResponseError

from echo.exceptions import StateUnavailable
from echo.log import is_due
from echo.state.memory import MemoryState
from echo.state.redis import scripts
from echo.state.redis.client import ERRORS, TIMEOUT, RedisClient
from echo.state.redis.waiter import Waiter, wake
from echo.stats import process_stats

logger = logging.getLogger(__name__)

JOIN_TIMEOUT = 0.25  # seconds without a reply from Redis after which a handshake proceeds
RETRY_INTERVAL = 0.25  # seconds between attempts while Redis is down
# If a step has no reply for this time, Redis counts as down, even if the client is still waiting.
STEP_TIMEOUT = 1.25 * TIMEOUT  # seconds
# After a process was suspended or lost its connection, its event loop has this time to process the
# missed disconnects before the counts are written again.
CATCH_UP_GRACE = 0.3  # seconds
BATCH_SIZE = 5000  # names in one step, which blocks Redis for some milliseconds
RECHECK_INTERVAL = 0.05  # seconds between attempts while the sum is unknown
# This process detects the end of the warm-up on Redis one step and one interval later.
WARM_UP_SLACK = 0.2  # seconds
CLOSE_TIMEOUT = 2.5  # seconds

DOWN = "Redis is down."


class Writer:
    """Writes the counts of this process to Redis. Thread-safe.

    The writing thread starts on first use, and runs until `close`.
    """

    def __init__(
        self,
        client: RedisClient,
        process_id: str,
        local: MemoryState,
        lease: float,
        heartbeat: float,
    ) -> None:
        self._client = client
        self._process_id = process_id
        self._local = local
        self._lease, self._heartbeat = lease, heartbeat  # seconds
        # In seconds, see scripts.py. Each live process writes within a warm-up; after an outage of
        # Redis, within the settle time.
        self.warm_up = heartbeat + CATCH_UP_GRACE
        settle = min(RETRY_INTERVAL + CATCH_UP_GRACE + 0.1, self.warm_up)
        self._times_ms = [int(1000 * each) for each in (self.warm_up, settle, lease)]
        # The first arguments of each script that reads or writes counts.
        self.registry_args = [process_id, self._times_ms[0]]
        self.share = scripts.SHARE + process_id
        # Guarded by the lock: the names to write, the waiting coroutines, the names being written.
        lock = Lock()
        self._work, self._written = Condition(lock), Condition(lock)
        self._dirty: set[str] = set()
        self._waiters: list[Waiter] = []
        self._in_flight: set[str] = set()
        self._rounds = 0  # number of finished rounds
        self._is_writing = False
        self._heartbeat_due = False
        self._closed = False
        self._thread: Thread | None = None
        self._pid = os.getpid()
        # Set by the writing thread.
        self._attempts = 0  # numbers the writes, so that Redis can detect late ones
        self._sequence = 0  # the number of the last acknowledged write
        self._replies = 0
        self._step_began: float | None = None  # time.monotonic(); None between two steps
        self._acknowledged: float | None = None  # time.monotonic() of the last acknowledged write
        self._outage = False
        self._new_until = -inf  # time.monotonic() until which this process is new
        self._uncertain_until = 0.0  # time.monotonic() until which the sum is unknown
        self._uncertain_reason = ""

    # Called when connections join and leave

    async def publish(self, waiter: Waiter, *names: str) -> None:
        """Write the counts of these names, and return when Redis has them.

        Waits as long as Redis replies to steps, but at most JOIN_TIMEOUT without a reply, and not
        at all while Redis is known to be down.
        """
        is_down = self.is_down()
        self.mark(*names, waiter=None if is_down else waiter)
        while not (is_down or waiter.done.done()):
            replies = self._replies
            await asyncio.wait([waiter.done], timeout=JOIN_TIMEOUT)
            if replies == self._replies:
                break

    def mark(self, *names: str, waiter: Waiter | None = None) -> None:
        """Schedule a write of the counts of these names. The waiter is woken after the write."""
        with self._work:
            self._dirty.update(names)
            if waiter is not None:
                self._waiters.append(waiter)
            self._start()
            self._work.notify()

    def abandon(self, waiter: Waiter) -> bool | None:
        """Prevent a later decision on the waiter's join. Return the decision, if already made."""
        with self._work:
            waiter.abandoned = True
            return waiter.granted

    def has_unwritten(self) -> bool:
        """Return whether Redis may lack a change."""
        return bool(self._dirty or self._in_flight)

    def is_down(self) -> bool:
        """Return whether Redis is known to be down. Always True after close()."""
        began = self._step_began
        has_timed_out = began is not None and time.monotonic() - began > STEP_TIMEOUT
        return self._outage or self._closed or has_timed_out

    # Called by reads

    def wait_until_written(self, name: str | None = None) -> None:
        """Return when Redis has all earlier changes of the object, or of all objects.

        Raises StateUnavailable if that takes longer than STEP_TIMEOUT. If Redis is already known to
        be down, returns at once: `unknown_reason` raises then.
        """
        with self._work:
            self._start()
            rounds = self._rounds_until_written(name)
            if not rounds or self.is_down():
                return
            end = self._rounds + rounds
            self._work.notify()
            in_time = self._written.wait_for(
                lambda: self._rounds >= end or self._closed, timeout=STEP_TIMEOUT
            )
        if not in_time:
            raise StateUnavailable(DOWN)

    def _rounds_until_written(self, name: str | None) -> int:
        def affects(names: set[str]) -> bool:
            return bool(names) if name is None else name in names

        is_first = self._acknowledged is None
        is_being_written = self._is_writing and (is_first or affects(self._in_flight))
        is_to_be_written = affects(self._dirty) or (is_first and not is_being_written)
        return is_being_written + is_to_be_written

    def unknown_reason(self) -> str | None:
        """Return the reason if the sum is unknown to this process, else None.

        Raises StateUnavailable if Redis is down.
        """
        if self.is_down():
            raise StateUnavailable(DOWN)
        if self._lease_has_expired():
            return "The lease of this process on Redis has expired; it will be renewed."
        if (seconds := self._uncertain_until - time.monotonic()) > 0:
            reason = self._uncertain_reason
            return f"{reason}; all processes will have written their counts in {seconds:.1f} s."
        return None

    def is_new(self) -> bool:
        """Return whether this process has just begun to write: the sum will be known soon."""
        return time.monotonic() < self._new_until

    def set_uncertain(self, seconds: float, reason: str) -> None:
        """Treat the sum as unknown for that time: some processes may not have written yet."""
        until = time.monotonic() + seconds
        if until > self._uncertain_until:
            self._uncertain_reason, self._uncertain_until = reason, until

    def write_now(self) -> None:
        """Write without waiting for the next heartbeat, so that the sum is known sooner."""
        with self._work:
            self._heartbeat_due = True
            self._work.notify()

    def close(self) -> None:
        """Delete the share of this process at once, and stop. Later calls have no effect."""
        if self._pid != os.getpid():  # a forked child has neither the thread nor the share
            return
        with self._work:
            self._closed = True
            thread, self._thread = self._thread, None
            self._work.notify()
            self._written.notify_all()
        if thread is not None:
            thread.join(CLOSE_TIMEOUT)
            atexit.unregister(self.close)

    def _start(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = Thread(target=self._run, name="echo-state", daemon=True)
            self._thread.start()
            atexit.register(self.close)

    # In the writing thread

    def _run(self) -> None:
        while not self._closed:
            waiters = self._take_work()
            undecided: set[Waiter] = set()
            try:
                self._write(self._in_flight)
                self._on_success()
                undecided = self._reserve(waiters)
            except Exception as error:  # without this thread, this process would stop writing
                self._on_failure(error)
            self._end_round()
            wake(waiter for waiter in waiters if waiter not in undecided)
            if self._outage:
                self._pause(RETRY_INTERVAL)
            elif undecided:
                self._pause(RECHECK_INTERVAL)
                with self._work:
                    self._waiters += undecided
        try:
            keys = [scripts.PROCESSES, scripts.EPOCH, self.share, scripts.LEADER]
            self._client.run(scripts.REMOVE, keys, self.registry_args)
        except Exception as error:
            logger.debug("The share could not be deleted and will expire: %s", error)
        self._client.close()

    def _take_work(self) -> list[Waiter]:
        """Wait for changes or the next heartbeat, and move the names to write to `_in_flight`.

        Returns the waiters of these changes.
        """
        with self._work:
            self._work.wait_for(
                lambda: self._dirty or self._waiters or self._heartbeat_due or self._closed,
                timeout=0 if self._acknowledged is None or self._outage else self._heartbeat,
            )
            self._is_writing, self._heartbeat_due = True, False
            self._in_flight, self._dirty = self._dirty, set()
            waiters, self._waiters = self._waiters, []
        return waiters

    def _end_round(self) -> None:
        with self._work:
            if self._outage:  # the names have not been written
                self._dirty |= self._in_flight
            self._in_flight = set()
            self._is_writing = False
            self._rounds += 1
            self._written.notify_all()

    def _pause(self, seconds: float) -> None:
        with self._work:
            self._work.wait_for(lambda: self._closed, timeout=seconds)

    def _write(self, names: Iterable[str]) -> None:
        if self._acknowledged is not None and not self._lease_has_expired():
            remaining = iter(names)
            batch = list(islice(remaining, BATCH_SIZE))
            while self._write_step({name: self._local.count(name) for name in batch}):
                if not (batch := list(islice(remaining, BATCH_SIZE))):
                    return
        if self._lease_has_expired():
            self._pause(CATCH_UP_GRACE)
        self._write_step(self._local.counts(), whole=True)

    def _write_step(self, counts: dict[str, int], whole: bool = False) -> bool:
        """Write the counts and renew the lease. Return False if Redis needs the whole share."""
        began = time.monotonic()
        pairs = [part for pair in counts.items() for part in pair]
        self._attempts += 1
        sequence = self._attempts
        args = [self._process_id, *self._times_ms, self._sequence, sequence, int(whole)]
        if not self._step(scripts.WRITE, *args, *pairs):
            return False
        if self._acknowledged is None:
            self._new_until = time.monotonic() + self.warm_up + WARM_UP_SLACK
        self._sequence, self._acknowledged = sequence, began
        return True

    def _reserve(self, waiters: list[Waiter]) -> set[Waiter]:
        """Decide which waiters may join within their limit; return those not decided yet."""
        groups: defaultdict[tuple[str, int], list[Waiter]] = defaultdict(list)
        for waiter in waiters:
            if waiter.limit is not None and waiter.name is not None and not waiter.abandoned:
                groups[waiter.name, waiter.limit].append(waiter)
        undecided: set[Waiter] = set()
        for (name, limit), group in groups.items():
            try:
                granted = self._reserve_step(name, limit, len(group))
            except ResponseError as error:  # for example a missing permission
                if is_due("limit"):
                    message = "Redis rejected a limit check; limits apply per process: %s"
                    logger.warning(message, error)
                continue
            if granted < 0:  # the sum is unknown
                now = time.monotonic()
                undecided.update(waiter for waiter in group if now < waiter.until)
                continue
            with self._work:
                for waiter in group:
                    if not waiter.abandoned:
                        waiter.granted = granted > 0 and self._local.add(name)
                        granted -= waiter.granted
        return undecided

    def _reserve_step(self, name: str, limit: int, wanted: int) -> int:
        """Reserve up to `wanted` connections. Return their number, or < 0 if the sum is unknown."""
        if time.monotonic() < self._uncertain_until:
            return scripts.WARMING_UP
        with self._work:
            self._dirty.add(name)  # the next write corrects a reservation that is not used
        count = self._local.count(name)
        args = [*self.registry_args, scripts.SHARE, name, count, wanted, limit, self._sequence]
        return int(self._step(scripts.RESERVE, *args))

    def _step(self, script: str, *args: Any) -> Any:
        keys = [scripts.PROCESSES, scripts.EPOCH, self.share]
        self._step_began = time.monotonic()
        try:
            result = self._client.run(script, keys, args)
        finally:
            self._step_began = None
        self._replies += 1
        return result

    def _lease_has_expired(self) -> bool:
        acknowledged = self._acknowledged
        return acknowledged is not None and time.monotonic() - acknowledged > self._lease

    def _on_failure(self, error: Exception) -> None:
        if not self._outage:
            process_stats.outages += 1
            unexpected = not isinstance(error, ERRORS)
            message = "Redis is down: counts are unknown, connections are not affected (%s)"
            logger.warning(message, error, exc_info=unexpected)
        self._outage = True

    def _on_success(self) -> None:
        if self._outage:
            logger.warning("Redis is back.")
            self.set_uncertain(self.warm_up, "Redis was down")
        self._outage = False
