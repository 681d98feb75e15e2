"""The names whose counts Redis lacks, and the coroutines and threads that wait for them.

A change of the local counts and the record of its names are one step, and so are the values of a
round: what is written has the members of the counts that it has.
"""

from collections.abc import Callable, Set
from threading import Condition, Lock
from typing import Any

from echo.state.redis.share import Values
from echo.state.redis.waiter import Waiter


class WriteQueue:
    """Passes work to the publishing thread, in rounds. Thread-safe."""

    def __init__(self) -> None:
        lock = Lock()
        self._has_work, self._round_ended = Condition(lock), Condition(lock)
        self._dirty: set[str] = set()
        self._waiters: list[Waiter] = []
        self._in_flight: set[str] = set()  # the names of the current round
        self._rounds = 0  # number of finished rounds
        self._is_in_round = False
        self._is_urgent = False
        self.is_closed = False

    def add(
        self,
        *names: str,
        change: Callable[[], Any] | None = None,
        waiter: Waiter | None = None,
    ) -> Any:
        """Schedule a write of the counts of these names. The waiter is woken after the write.

        `change` changes the counts before; returns its result.
        """
        with self._has_work:
            result = None if change is None else change()
            self._dirty.update(names)
            if waiter is not None:
                self._waiters.append(waiter)
            self._has_work.notify()
            return result

    def read(self, values: Callable[[Set[str]], Values], names: Set[str]) -> Values:
        """Return the values of these names and of all that have changed since, of one moment."""
        with self._has_work:
            return values(names | self._dirty)

    def wake(self) -> None:
        """Begin a round now, without waiting for work or the next heartbeat."""
        with self._has_work:
            self._is_urgent = True
            self._has_work.notify()

    def close(self) -> None:
        with self._has_work:
            self.is_closed = True
            self._has_work.notify()
            self._round_ended.notify_all()

    def has_unwritten(self) -> bool:
        """Return whether Redis may lack a change."""
        return bool(self._dirty or self._in_flight)

    def decide(self, waiter: Waiter, join: Callable[[], bool] | None) -> bool:
        """Join or, if `join` is None, deny, unless the waiter's caller has given up waiting."""
        with self._has_work:
            if not waiter.abandoned:
                waiter.granted = join is not None and join()
            return bool(waiter.granted)

    def abandon(self, waiter: Waiter) -> bool | None:
        """Prevent a later decision on the waiter's join. Return the decision, if already made."""
        with self._has_work:
            waiter.abandoned = True
            return waiter.granted

    def wait_until_written(self, name: str | None, is_first: bool, timeout: float) -> bool:
        """Return True when Redis has all earlier changes of the object, or of all objects.

        Returns False after the timeout. `is_first`: nothing has been written yet.
        """

        def affects(names: set[str]) -> bool:
            return bool(names) if name is None else name in names

        with self._has_work:
            is_being_written = self._is_in_round and (is_first or affects(self._in_flight))
            is_to_be_written = affects(self._dirty) or (is_first and not is_being_written)
            end = self._rounds + is_being_written + is_to_be_written
            if end > self._rounds:
                self._has_work.notify()
            return self._round_ended.wait_for(
                lambda: self._rounds >= end or self.is_closed, timeout=timeout
            )

    # In the publishing thread

    def begin_round(self, timeout: float) -> tuple[set[str], list[Waiter]]:
        """Wait for work, at most until the timeout; return the names to write and their waiters."""
        with self._has_work:
            self._has_work.wait_for(
                lambda: self._dirty or self._waiters or self._is_urgent or self.is_closed,
                timeout=timeout,
            )
            self._is_in_round, self._is_urgent = True, False
            self._in_flight, self._dirty = self._dirty, set()
            waiters, self._waiters = self._waiters, []
            return self._in_flight, waiters

    def end_round(self, is_written: bool) -> None:
        with self._has_work:
            if not is_written:
                self._dirty |= self._in_flight
            self._in_flight = set()
            self._is_in_round = False
            self._rounds += 1
            self._round_ended.notify_all()

    def put_back(self, waiters: list[Waiter]) -> None:
        """Have the next round decide on these waiters first."""
        with self._has_work:
            self._waiters[:0] = waiters

    def pause(self, seconds: float) -> None:
        """Wait for that time, or until the queue is closed."""
        with self._has_work:
            self._has_work.wait_for(lambda: self.is_closed, timeout=seconds)
