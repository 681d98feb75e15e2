"""The interface of all states."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from threading import Event

from echo.state.ledger import Ledger


class State(ABC):
    """The number of connections of each object. Thread-safe, and usable from any event loop."""

    shared = False  # whether the counts include the connections of other processes
    ledger: Ledger

    def __init__(self) -> None:
        self.closed = Event()

    @abstractmethod
    async def join(self, name: str, limit: int | None = None) -> bool:
        """Count one more connection of the object. Return True when all readers see it.

        Returns False, and counts nothing, if the object already has `limit` connections.
        """

    @abstractmethod
    def leave(self, name: str) -> None:
        """Count one connection fewer. Call it once for each `join` that returned True.

        Never waits and never fails: safe in a `finally` and during cancellation.
        """

    @abstractmethod
    def count(self, name: str) -> int:
        """Return the current number of connections of the object (0 or more).

        Raises StateUnavailable if it is unknown.
        """

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Return the count of every object that has connections: `{"foo": 2}`.

        Raises StateUnavailable if the counts are unknown.
        """

    async def acount(self, name: str) -> int:
        return self.count(name)

    async def acounts(self) -> dict[str, int]:
        return self.counts()

    @abstractmethod
    async def settled(self) -> None:
        """Return when all readers, in all processes, see every earlier change."""

    @abstractmethod
    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call the listener after each change in this process. Return a function that removes it.

        The listener runs in the thread that makes the change, and must neither block nor raise.
        """

    def close(self) -> None:
        """Release the resources of the state outside this process."""
        self.closed.set()
