"""The names whose counts Redis lacks, and the coroutines and threads that wait for them.

A change of the local counts and the record of its names are one step, and so are the values of a
round: what is written has the members of the counts that it has.
"""

import time
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field
from threading import Condition, Lock
from typing import Any

from echo.state.redis.share import Values
from echo.state.redis.waiter import LimitedJoin, Waiter

# One more connection in a round costs a small part of one more round, in which two threads take
# turns to run. So after a round, connections that come and go gather as long as others follow.
MAX_PAUSE = 0.003  # seconds


@dataclass(slots=True)
class Round:
    """The names to write together, and the coroutines that wait for that."""

    names: set[str] = field(default_factory=set)
    waiters: list[Waiter] = field(default_factory=list)


class WriteQueue:
    """Passes work to the publishing thread, in rounds. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._has_work, self._round_ended = Condition(self._lock), Condition(self._lock)
        self._next = Round()
        self._current: Round | None = None
        self._rounds = 0  # number of finished rounds
        self._pause_end = 0.0  # time.monotonic()
        self._is_idle = self._is_urgent = False
        self._is_complete = False  # no waiter is expected to follow those of the next round
        self.is_closed = False

    def add(
        self,
        *names: str,
        change: Callable[[], Any] | None = None,
        waiter: Waiter | None = None,
    ) -> Any:
        """Schedule a write of the counts of these names. The waiter is woken after the write.

        `change` changes the counts before; returns its result. Without names, the waiter is woken
        after the write of all earlier changes.
        """
        with self._lock:
            result = None if change is None else change()
            following, current = self._next, self._current
            following.names.update(names)
            if waiter is not None:
                self._is_complete = False
                is_join = isinstance(waiter, LimitedJoin)
                if current is not None and not (following.names or is_join):
                    current.waiters.append(waiter)
                    return result
                following.waiters.append(waiter)
            if self._is_idle:
                self._has_work.notify()
            return result

    def read(self, values: Callable[[Set[str]], Values], names: Set[str]) -> Values:
        """Return the values of these names and of the current round, of one moment.

        What has changed since the round began becomes part of the round.
        """
        with self._lock:
            assert self._current is not None
            self._current.names |= self._next.names
            self._current.waiters += self._next.waiters
            self._next = Round()
            return values(names | self._current.names)

    def wake(self) -> None:
        """Begin a round now, without waiting for work or the next heartbeat."""
        with self._lock:
            self._begin_soon()

    def end_pause(self) -> None:
        """End the pause after the last or the current round: no other waiter is expected."""
        with self._lock:
            self._is_complete = True
            self._has_work.notify()

    def close(self) -> None:
        with self._lock:
            self.is_closed = True
            self._has_work.notify()
            self._round_ended.notify_all()

    def has_unwritten(self) -> bool:
        """Return whether Redis may lack a change."""
        if self._next.names:  # first, since a new round takes the names from there
            return True
        current = self._current
        return current is not None and bool(current.names)

    def decide(self, join: LimitedJoin, add: Callable[[], bool] | None) -> bool:
        """Call `add` or, if it is None, deny, unless the join has been abandoned."""
        with self._lock:
            if not join.abandoned:
                join.granted = add is not None and add()
            return bool(join.granted)

    def abandon(self, join: LimitedJoin) -> bool | None:
        """Prevent a later decision on the join. Return the decision, if already made."""
        with self._lock:
            join.abandoned = True
            return join.granted

    def wait_until_written(self, name: str | None, is_first: bool, timeout: float) -> bool:
        """Return True when Redis has all earlier changes of the object, or of all objects.

        Returns False after the timeout. `is_first`: nothing has been written yet.
        """

        def affects(names: set[str]) -> bool:
            return bool(names) if name is None else name in names

        with self._lock:
            current = self._current
            is_being_written = current is not None and (is_first or affects(current.names))
            is_to_be_written = affects(self._next.names) or (is_first and not is_being_written)
            end = self._rounds + is_being_written
            if is_to_be_written:  # in the round after the current one
                end = self._rounds + (current is not None) + 1
                self._begin_soon()
            return self._round_ended.wait_for(
                lambda: self._rounds >= end or self.is_closed, timeout=timeout
            )

    def _begin_soon(self) -> None:
        self._is_urgent = True
        self._has_work.notify()

    # In the publishing thread

    def begin_round(self, timeout: float) -> Round:
        """Wait for work, at most until the timeout, and return it."""
        with self._lock:
            if (pause := self._pause_end - time.monotonic()) > 0:
                self._has_work.wait_for(lambda: self._is_complete or self._is_due(), timeout=pause)
            self._is_idle = True
            self._has_work.wait_for(lambda: self._is_due() or self._has_any(), timeout=timeout)
            self._is_idle = self._is_urgent = self._is_complete = False
            self._current, self._next = self._next, Round()
            return self._current

    def _is_due(self) -> bool:
        return self._is_urgent or self.is_closed

    def _has_any(self) -> bool:
        return bool(self._next.names or self._next.waiters)

    def end_round(self, is_written: bool) -> None:
        with self._lock:
            current, self._current = self._current, None
            assert current is not None
            if not is_written:
                self._next.names |= current.names
            self._rounds += 1
            self._pause_end = time.monotonic() + MAX_PAUSE
            self._round_ended.notify_all()

    def put_back(self, joins: Iterable[LimitedJoin]) -> None:
        """Have the next round decide on these joins first."""
        with self._lock:
            self._next.waiters[:0] = joins

    def pause(self, seconds: float) -> None:
        """Wait for that time, or until the queue is closed."""
        with self._lock:
            self._has_work.wait_for(lambda: self.is_closed, timeout=seconds)
