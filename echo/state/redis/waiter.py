"""Coroutines that wait for the thread that writes to Redis."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

from echo.members import NewMember
from echo.state.base import Objects
from echo.state.redis.health import Health

JOIN_TIMEOUT = 0.25  # seconds without a reply from Redis after which a handshake proceeds
CHECK_INTERVAL = 0.01  # seconds between two checks of a waiter, at least


class Waiter:
    """A coroutine that waits until its change is written or its join within a limit is decided."""

    __slots__ = (
        *("abandoned", "began", "done", "full", "granted", "loop", "member", "objects", "until"),
    )

    def __init__(
        self,
        objects: Objects = (),
        member: NewMember | None = None,
        until: float = 0.0,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.began = time.monotonic()
        self.objects, self.member = objects, member  # only for a join with a limit
        self.until = until  # time.monotonic() until which to retry the decision
        self.granted: bool | None = None  # the decision
        self.full: str | None = None  # the name of a full object, if the join is denied
        self.abandoned = False


class Patience:
    """Ends waiting while Redis does not reply. The coroutines of an event loop share a timer.

    It refers to the loop only while a coroutine waits.
    """

    def __init__(self, health: Health) -> None:
        self._health = health
        self._waiters: dict[Waiter, None] = {}  # in order
        self._is_scheduled = False

    async def wait(self, waiter: Waiter) -> None:
        """Return when the waiter is woken, or Redis has not replied to any step for JOIN_TIMEOUT.

        Call it on the event loop of the waiter.
        """
        self._waiters[waiter] = None
        if not self._is_scheduled:
            self._is_scheduled = True
            waiter.loop.call_later(JOIN_TIMEOUT, self._check)
        try:
            await waiter.done
        finally:
            del self._waiters[waiter]

    def _check(self) -> None:
        self._is_scheduled = False
        now = time.monotonic()
        for waiter in self._waiters:
            remaining = max(waiter.began, self._health.last_reply) + JOIN_TIMEOUT - now
            if remaining > 0 or not self._health.is_silent():
                self._is_scheduled = True
                waiter.loop.call_later(max(remaining, CHECK_INTERVAL), self._check)
                break
            _set_done([waiter])


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
