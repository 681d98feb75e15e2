"""Threads for reads on behalf of event loops.

The default executor of an event loop is everybody's: while Redis hangs, reads would keep its few
threads from all other uses of `asyncio.to_thread`. These are daemon threads, since those of a
ThreadPoolExecutor are waited for when the interpreter exits, with all that is still queued.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Lock, Thread
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

SIZE = 8  # threads at most; the sockets for reads are 50


class ReadThreads:
    """At most SIZE threads, started when they are needed. For any event loop."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = Lock()
        self._started = 0
        self._unfinished = 0
        self._is_closed = False

    async def run(self, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `read` returns, or raise what it raises."""
        future: Future[T] = Future()

        def work() -> None:
            try:
                if future.set_running_or_notify_cancel():
                    future.set_result(read(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        if self._pid != os.getpid():  # a forked child has none of its parent's threads
            self.__init__()  # type: ignore[misc]
        if not self._submit(work):
            work()
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Let the threads end after what is queued. Reads after that run in the event loop.

        That is quick: a state that is closed raises StateUnavailable at once.
        """
        if self._pid != os.getpid():  # the lock may have been held by a thread of the parent
            return
        with self._lock:
            self._is_closed = True
            for _ in range(self._started):
                self._queue.put(None)

    def _submit(self, work: Callable[[], None]) -> bool:
        with self._lock:
            if self._is_closed:
                return False
            self._unfinished += 1
            if self._started < min(self._unfinished, SIZE):
                name = f"echo-read-{self._started}"
                Thread(target=self._work, name=name, daemon=True).start()
                self._started += 1
            self._queue.put(work)
        return True

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            work()
            with self._lock:
                self._unfinished -= 1
