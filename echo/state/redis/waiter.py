"""Those on event loops who wait for the thread that writes to Redis."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress


class Waiting:
    """Somebody who waits until what has happened is written, or may join within a limit."""

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


def tell(waiting: Iterable[Waiting]) -> None:
    """Wake those who wait; one call for each loop, since each costs a system call."""
    loops: defaultdict[asyncio.AbstractEventLoop, list[Waiting]] = defaultdict(list)
    for one in waiting:
        loops[one.loop].append(one)
    for loop, group in loops.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_wake, group)


def _wake(group: list[Waiting]) -> None:
    for one in group:
        if not one.done.done():
            one.done.set_result(None)
