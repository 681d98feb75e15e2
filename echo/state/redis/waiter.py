"""Coroutines that wait for the thread that writes to Redis."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress

from echo.members import NewMember
from echo.state.base import Objects
from echo.state.redis.health import Health

# Iterations of an event loop without another waiter after which none is expected: a server accepts,
# reads and starts a handshake in three. uvloop accepts one connection in each, so that in a storm
# another waiter follows in the next.
IDLE_ITERATIONS = 3
JOIN_TIMEOUT = 0.25  # seconds without a reply from Redis after which a handshake proceeds


class Waiter:
    """A coroutine that waits until its change is written."""

    __slots__ = ("done", "loop", "since")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.since = time.monotonic()  # beginning of the time in which Redis is to reply


class LimitedJoin(Waiter):
    """A coroutine that waits until its join within a limit is decided."""

    __slots__ = ("abandoned", "full", "granted", "member", "objects", "until")

    def __init__(self, objects: Objects, member: NewMember | None, until: float) -> None:
        super().__init__()
        self.objects, self.member = objects, member
        self.until = until  # time.monotonic() until which to retry the decision
        self.granted: bool | None = None  # the decision
        self.full: str | None = None  # the name of a full object, if the join is denied
        self.abandoned = False


class LoopWaiters:
    """The coroutines of one event loop that wait. It refers to the loop only while they do.

    Wakes those to which Redis has not replied for JOIN_TIMEOUT; one timer serves all of them. Calls
    `on_idle` when no other coroutine has begun to wait for IDLE_ITERATIONS.
    """

    def __init__(self, health: Health, on_idle: Callable[[], None]) -> None:
        self._health = health
        self._on_idle = on_idle
        self._waiters: dict[Waiter, None] = {}  # in the order of `since`
        self._is_scheduled = False
        self._is_counting = False  # iterations
        self._idle_iterations = 0

    async def wait(self, waiter: Waiter) -> None:
        """Return when the waiter is woken, or after JOIN_TIMEOUT in which Redis has not replied.

        Call it on the event loop of the waiter.
        """
        self._waiters[waiter] = None
        self._idle_iterations = 0
        if not self._is_counting:
            self._is_counting = True
            waiter.loop.call_soon(self._count_iteration, waiter.loop)
        if not self._is_scheduled:
            self._schedule(waiter.loop, JOIN_TIMEOUT)
        try:
            await waiter.done
        finally:
            self._waiters.pop(waiter, None)

    def _count_iteration(self, loop: asyncio.AbstractEventLoop) -> None:
        self._idle_iterations += 1
        if self._idle_iterations < IDLE_ITERATIONS:
            loop.call_soon(self._count_iteration, loop)
        else:
            self._is_counting = False
            self._on_idle()

    def _schedule(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._is_scheduled = True
        loop.call_later(seconds, self._check)

    def _check(self) -> None:
        self._is_scheduled = False
        health, now = self._health, time.monotonic()
        for waiter in [*self._waiters]:
            if waiter.since + JOIN_TIMEOUT > now:
                break
            del self._waiters[waiter]
            if health.last_reply <= waiter.since and health.is_silent():
                _set_done([waiter])
            else:  # wait on: Redis replies, perhaps to steps of others
                waiter.since = now
                self._waiters[waiter] = None
        if self._waiters:
            waiter = next(iter(self._waiters))
            self._schedule(waiter.loop, waiter.since + JOIN_TIMEOUT - now)


def wake(waiters: Iterable[Waiter]) -> None:
    """Wake the waiters, with one call per event loop, since each call costs a system call."""
    loops: defaultdict[asyncio.AbstractEventLoop, list[Waiter]] = defaultdict(list)
    for waiter in waiters:
        loops[waiter.loop].append(waiter)
    for loop, group in loops.items():
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_set_done, group)


def _set_done(group: list[Waiter]) -> None:
    for waiter in group:
        if not waiter.done.done():
            waiter.done.set_result(None)
