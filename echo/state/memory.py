"""The counts of this process, in memory."""

from collections.abc import Callable
from threading import Lock

from echo.state.base import Listener, State
from echo.state.ledger import Ledger


class MemoryState(State):
    """Counts the connections of this process. A name without connections takes no memory."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self._counts: dict[str, int] = {}
        self._changes = 0
        self._lock = Lock()
        self._listeners: tuple[Listener, ...] = ()

    async def join(self, name: str, limit: int | None = None) -> bool:
        return self.add(name, limit)

    def add(self, name: str, limit: int | None = None) -> bool:
        """Sync version of `join`."""
        with self._lock:
            count = self._counts.get(name, 0)
            if limit is not None and count >= limit:
                return False
            self._counts[name] = count = count + 1
            self._notify(name, count)
        return True

    def leave(self, name: str) -> None:
        with self._lock:
            count = self._counts[name] - 1
            if count:
                self._counts[name] = count
            else:
                del self._counts[name]
            self._notify(name, count)

    def _notify(self, name: str, count: int) -> None:
        """Call the listeners, with the lock held, so that the numbers are in order."""
        self._changes += 1
        for listener in self._listeners:
            listener(self._changes, {name: count})

    def count(self, name: str) -> int:
        return self._counts.get(name, 0)

    def snapshot(self, name: str | None = None) -> tuple[int, dict[str, int]]:
        with self._lock:
            if name is None:
                return self._changes, dict(self._counts)
            return self._changes, {name: self._counts.get(name, 0)}

    async def settled(self) -> None:
        """Return at once: each change is visible immediately."""

    def listen(self, listener: Listener) -> Callable[[], None]:
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def stop() -> None:
            with self._lock:
                self._listeners = tuple(each for each in self._listeners if each is not listener)

        return stop
