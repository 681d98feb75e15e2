"""The interface of all states."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from threading import Event

from echo.state.ledger import Ledger

# Called after each change with its number and the new counts of the objects that have changed, for
# example `(7, {"foo": 2, "bar": 0})`. Numbers increase. If the counts are None, any may have
# changed, or they have become unknown or known: read them again. Runs in any thread, and must
# neither block nor raise.
Listener = Callable[[int, Mapping[str, int] | None], None]


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
    def snapshot(self, name: str | None = None) -> tuple[int, dict[str, int]]:
        """Return the number of the last change, and the counts after it: of one object, or of all.

        Objects without connections are absent. Raises StateUnavailable if the counts are unknown.
        """

    async def asnapshot(self, name: str | None = None) -> tuple[int, dict[str, int]]:
        return self.snapshot(name)

    def count(self, name: str) -> int:
        """Return the current number of connections of the object (0 or more).

        Raises StateUnavailable if it is unknown.
        """
        return self.snapshot(name)[1].get(name, 0)

    def counts(self) -> dict[str, int]:
        """Return the count of every object that has connections: `{"foo": 2}`.

        Raises StateUnavailable if the counts are unknown.
        """
        return self.snapshot()[1]

    async def acount(self, name: str) -> int:
        return (await self.asnapshot(name))[1].get(name, 0)

    async def acounts(self) -> dict[str, int]:
        return (await self.asnapshot())[1]

    @abstractmethod
    async def settled(self) -> None:
        """Return when all readers, in all processes, see every earlier change."""

    @abstractmethod
    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call the listener after each change in any process. Return a function that removes it."""

    def check(self) -> list[str]:
        """Check and repair all totals. Return the wrong ones: `["'foo': 3 instead of 2"]`.

        Raises StateUnavailable if they cannot be checked.
        """
        return []

    def close(self) -> None:
        """Release the resources of the state outside this process."""
        self.closed.set()
