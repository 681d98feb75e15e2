"""The interface of all states."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from threading import Event

from echo.state.ledger import Ledger


class State(ABC):
    """How many connections each object has. For any thread and any event loop."""

    shared = False  # whether the counts include the connections of other processes
    ledger: Ledger

    def __init__(self) -> None:
        self.closed = Event()

    @abstractmethod
    async def join(self, name: str, limit: int | None = None) -> bool:
        """Count one more connection of the object and return True; all readers see it then.

        Returns False, and counts nothing, if the object already has `limit` connections.
        """

    @abstractmethod
    def leave(self, name: str) -> None:
        """Count one connection less. Call it once for each `join` that returned True.

        Never waits and never fails: safe in a `finally` and during cancellation.
        """

    @abstractmethod
    def count(self, name: str) -> int:
        """Return how many connections the object has now (0 or more).

        Raises StateUnavailable if that cannot be known.
        """

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Return the count of every object that has connections: `{"foo": 2}`.

        Raises StateUnavailable if that cannot be known.
        """

    async def acount(self, name: str) -> int:
        return self.count(name)

    async def acounts(self) -> dict[str, int]:
        return self.counts()

    @abstractmethod
    async def settled(self) -> None:
        """Return when all readers, in all processes, see every change made before."""

    @abstractmethod
    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call the listener after each change in this process. Returns a function that stops that.

        The listener runs on the thread of the change, and must neither wait nor raise.
        """

    def close(self) -> None:
        """Release what the state holds outside this process."""
        self.closed.set()
