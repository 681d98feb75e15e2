"""The counts of this process, in memory."""

from collections.abc import Callable
from threading import Event, Lock

from echo.state.ledger import Ledger


class MemoryState:
    """How many connections each object has, in this process.

    May be used from any thread and any event loop. A name that has no
    connection costs nothing.
    """

    shared = False  # does it see the connections of other processes?

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._lock = Lock()
        self.closed = Event()
        self.ledger = Ledger()
        self._listeners: tuple[Callable[[], None], ...] = ()

    def listen(self, tell: Callable[[], None]) -> Callable[[], None]:
        """Let `tell` be called after each change in this process, and return what ends that.

        It is called on the thread of the change, and must neither wait nor raise.
        """
        with self._lock:
            self._listeners = (*self._listeners, tell)

        def end() -> None:
            with self._lock:
                self._listeners = tuple(each for each in self._listeners if each is not tell)

        return end

    async def join(self, name: str, limit: int | None = None) -> bool:
        """Count one more connection of the object, and return True: every reader sees it.

        Returns False, and counts nothing, if the object has `limit` connections already.
        """
        return self._add(name, limit)

    def leave(self, name: str) -> None:
        """Count one connection less.

        Never waits and never fails: it may stand in a `finally` and run under
        cancellation. Call it once for each join that returned.
        """
        with self._lock:
            left = self._counts[name] - 1
            if left:
                self._counts[name] = left
            else:
                del self._counts[name]
        for tell in self._listeners:
            tell()

    def count(self, name: str) -> int:
        """Return how many connections the object has now (0 or more)."""
        return self._counts.get(name, 0)

    def counts(self) -> dict[str, int]:
        """Return the count of every object that has connections: `{"foo": 2}`."""
        with self._lock:
            return dict(self._counts)

    async def settled(self) -> None:
        """Return when every reader, wherever, sees all that happened before."""

    def close(self) -> None:
        """Give back what the state holds outside this process."""
        self.closed.set()

    async def acount(self, name: str) -> int:
        return self.count(name)

    async def acounts(self) -> dict[str, int]:
        return self.counts()

    def _add(self, name: str, limit: int | None = None) -> bool:
        with self._lock:
            count = self._counts.get(name, 0)
            if limit is not None and count >= limit:
                return False
            self._counts[name] = count + 1
        for tell in self._listeners:
            tell()
        return True
