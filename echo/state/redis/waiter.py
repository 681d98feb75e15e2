"""Coroutines that wait for the thread that writes to Redis."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

from echo.members import NewMember
from echo.state.base import Objects


class Waiter:
    """A coroutine that waits until its change is written or its join within a limit is decided."""

    __slots__ = ("abandoned", "done", "full", "granted", "loop", "member", "objects", "until")

    def __init__(
        self,
        objects: Objects = (),
        member: NewMember | None = None,
        until: float = 0.0,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.objects, self.member = objects, member  # only for a join with a limit
        self.until = until  # time.monotonic() until which to retry the decision
        self.granted: bool | None = None  # the decision
        self.full: str | None = None  # the name of a full object, if the join is denied
        self.abandoned = False


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
