"""Threads that read from Redis for event loops.

The default executor of the loop is unsuitable: while Redis hangs, reads would occupy the threads
that other `asyncio.to_thread` calls need. A separate ThreadPoolExecutor is unsuitable, too: at
exit, the interpreter waits for its threads and its queue. The threads here are daemons.
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

MAX_THREADS = 8  # fewer than the 50 pooled connections for reads


class ReadThreads:
    """Up to MAX_THREADS threads, started on demand. Usable from any event loop."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = Lock()
        self._started = 0
        self._unfinished = 0
        self._is_closed = False

    async def run(self, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `read` in a thread and return its result, or raise its exception."""
        future: Future[T] = Future()

        def work() -> None:
            try:
                if future.set_running_or_notify_cancel():
                    future.set_result(read(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        if self._pid != os.getpid():  # a forked child has no threads of its parent
            self.__init__()  # type: ignore[misc]
        if not self._submit(work):
            work()
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Let the threads exit after the queued reads.

        Later reads run on the event loop. They do not block it, because a closed state raises
        StateUnavailable at once.
        """
        if self._pid != os.getpid():  # a thread of the parent may have held the lock at the fork
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
            if self._started < min(self._unfinished, MAX_THREADS):
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
