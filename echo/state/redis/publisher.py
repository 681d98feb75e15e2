"""The thread that writes the counts of this process to Redis."""

import atexit
import logging
import os
from asyncio import AbstractEventLoop
from collections.abc import Callable
from threading import Lock, Thread
from typing import Any
from weakref import WeakKeyDictionary

from redis.exceptions import ResponseError

from echo.exceptions import StateUnavailable
from echo.members import split_entry
from echo.state.memory import MemoryState
from echo.state.redis import scripts
from echo.state.redis.client import ERRORS
from echo.state.redis.health import STEP_TIMEOUT, Health
from echo.state.redis.reservations import Reservations
from echo.state.redis.selfcheck import SelfCheck
from echo.state.redis.share import CATCH_UP_GRACE, RETRY_INTERVAL, Share
from echo.state.redis.steps import Steps
from echo.state.redis.waiter import LimitedJoin, LoopWaiters, Waiter, wake
from echo.state.redis.write_queue import WriteQueue
from echo.state.redis.write_scripts import REMOVE
from echo.stats import process_stats

logger = logging.getLogger(__name__)

RECHECK_INTERVAL = 0.05  # seconds between attempts while the sum is unknown
SWEEP_INTERVAL = 0.02  # seconds between two slices of a dead process
CLOSE_TIMEOUT = 2.5  # seconds

DOWN = "Redis is down or rejects the counts; the log has the reason."
EXPIRED = "The lease of this process on Redis has expired; it will be renewed."
RETURNED = "Redis was down; {} processes have not written their counts since."


class Publisher:
    """Writes the counts of this process to Redis. Thread-safe.

    The publishing thread starts on first use, and runs until `close`. It calls `on_doubt` if all
    counts may have changed, or may be unknown.
    """

    def __init__(
        self,
        url: str,
        process_id: str,
        local: MemoryState,
        lease: float,
        heartbeat: float,
        on_doubt: Callable[[], None],
    ) -> None:
        self.health = Health(lease)
        self.steps = Steps(url, process_id, self.health)
        self.share = Share(self.steps, self.health, lease, heartbeat)
        self.queue = WriteQueue()
        self._waiters: WeakKeyDictionary[AbstractEventLoop, LoopWaiters] = WeakKeyDictionary()
        self._local = local
        self._heartbeat = heartbeat  # seconds
        self._on_doubt = on_doubt
        self._reservations = Reservations(self.steps, self.share, self.queue, local)
        self._self_check = SelfCheck(self.steps.run, self.share.processes)
        self._thread: Thread | None = None
        self._lock = Lock()
        self._pid = os.getpid()

    # Called when connections join and leave

    async def publish(
        self, waiter: Waiter, *names: str, change: Callable[[], Any] | None = None
    ) -> None:
        """Change the counts of these names, write them, and return when Redis has them.

        Waits as long as Redis replies to steps, but at most JOIN_TIMEOUT without a reply, and not
        at all while Redis is known to be down.
        """
        if self.health.is_down():
            self.mark(*names, change=change)
            return
        self.mark(*names, change=change, waiter=waiter)
        waiters = self._waiters.get(waiter.loop)
        if waiters is None:
            waiters = self._waiters[waiter.loop] = LoopWaiters(self.health, self.queue.end_pause)
        await waiters.wait(waiter)

    def mark(
        self,
        *names: str,
        change: Callable[[], Any] | None = None,
        waiter: Waiter | None = None,
    ) -> Any:
        """Change the counts of these names, and schedule their write. See `WriteQueue.add`."""
        self._start()
        return self.queue.add(*names, change=change, waiter=waiter)

    # Called by reads

    def wait_until_written(self, name: str | None = None) -> None:
        """Return when Redis has all earlier changes of the object, or of all objects.

        Raises StateUnavailable if that takes longer than STEP_TIMEOUT. If Redis is already known to
        be down, returns at once: `unknown_reason` raises then.
        """
        self._start()
        is_first = self.health.acknowledged is None
        if self.health.is_down():
            return
        if not self.queue.wait_until_written(name, is_first, STEP_TIMEOUT):
            raise StateUnavailable(DOWN)

    def unknown_reason(self) -> str | None:
        """Return the reason if the sum is unknown to this process, else None.

        Raises StateUnavailable if Redis is down.
        """
        if self.health.is_down():
            raise StateUnavailable(DOWN)
        if self.health.lease_has_expired():
            return EXPIRED
        awaited = self.share.processes.awaited
        return RETURNED.format(len(awaited)) if awaited else None

    def close(self) -> None:
        """Withdraw the counts of this process at once, and stop. Later calls have no effect."""
        if self._pid != os.getpid():  # a forked child has neither the thread nor the share
            return
        self.health.is_closed = True
        self.queue.close()
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(CLOSE_TIMEOUT)
            atexit.unregister(self.close)

    def _start(self) -> None:
        if self._thread is not None or self.health.is_closed:
            return
        with self._lock:
            if self._thread is None:
                thread = Thread(target=self._run, name="echo-state", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # too many threads; the next call tries again
                    self._on_failure(error)
                    return
                self._thread = thread
                atexit.register(self.close)

    # In the publishing thread

    def _run(self) -> None:
        while not self.health.is_closed:
            current = self.queue.begin_round(self._pause())
            undecided: dict[LimitedJoin, None] = {}
            try:
                self._write(current.names)
                self._on_success()
                undecided = self._reservations.decide(current.waiters)
                self._self_check.step()
            except Exception as error:  # without this thread, this process would stop writing
                self._on_failure(error)
            self.queue.end_round(is_written=not self.health.is_outage)
            wake(waiter for waiter in current.waiters if waiter not in undecided)
            if self.health.is_outage:
                self.queue.pause(RETRY_INTERVAL)
            elif undecided:
                self.queue.pause(RECHECK_INTERVAL)
                self.queue.put_back(undecided)
        try:
            process = self.steps.process_id
            self.steps.client.run(REMOVE, share=process, id=process, size=scripts.SLICE)
        except Exception as error:
            logger.debug("The share could not be withdrawn; its lease will end: %s", error)
        self.steps.close()

    def _pause(self) -> float:
        """Return the seconds until the next round if there is no work."""
        if self.health.acknowledged is None or self.health.is_outage:
            return 0
        if self.share.has_dead:
            return SWEEP_INTERVAL
        return RECHECK_INTERVAL if self.share.processes.awaited else self._heartbeat

    def _write(self, names: set[str]) -> None:
        health = self.health
        if self.share.is_renewal_due():
            entries = self._local.entry_names()
            names = {*names, *entries, *(split_entry(entry)[0] for entry in entries)}
        values = self.queue.read(self._local.values, names)
        if not health.lease_has_expired() and self.share.write(values):
            return
        if health.lease_has_expired():
            self.queue.pause(CATCH_UP_GRACE)
        self.share.write_whole(self._local.values())
        self._on_doubt()

    def _on_failure(self, error: Exception) -> None:
        if not self.health.is_outage:
            process_stats.outages += 1
            unexpected = not isinstance(error, ERRORS)
            fault = "rejects the counts" if isinstance(error, ResponseError) else "is down"
            message = "Redis %s: counts are unknown, connections are not affected (%s)"
            logger.warning(message, fault, error, exc_info=unexpected)
            self.health.is_outage = True
            self._on_doubt()

    def _on_success(self) -> None:
        if self.health.is_outage:
            logger.warning("Redis is back.")
            self.health.is_outage = False
            self._on_doubt()
