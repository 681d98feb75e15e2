"""The interface of all states."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from threading import Event

from echo.members import MemberList, NewMember, Presence, entry_name
from echo.state.ledger import Ledger

# Called after each change with its number, the new counts of the objects that have changed, and the
# new presences of the members that have changed, by entry name and as strings ("0": left), for
# example `(7, {"foo": 2, "bar": 0}, {"foo/ada": "1 17000 17000 {}"})`. Numbers increase. If the
# counts are None, anything may have changed, or has become unknown or known: read it again. Runs in
# any thread, and must neither block nor raise.
Listener = Callable[[int, Mapping[str, int] | None, Mapping[str, str]], None]


# The objects of a connection: their names and limits.
Objects = tuple[tuple[str, int | None], ...]

# Under this name, states count the joins of all connections beyond the first of each. It is not a
# valid name of an object.
EXTRA = "\x01"


def total_of(counts: Mapping[str, int]) -> tuple[int, int]:
    """Return the numbers of objects and of connections in the counts of a snapshot."""
    extra = counts.get(EXTRA, 0)
    return len(counts) - (EXTRA in counts), sum(counts.values()) - 2 * extra


class State(ABC):
    """The number of connections of each object. Thread-safe, and usable from any event loop."""

    shared = False  # whether the counts include the connections of other processes
    ledger: Ledger

    def __init__(self) -> None:
        self.closed = Event()

    @abstractmethod
    async def join_all(self, objects: Objects, member: NewMember | None = None) -> str | None:
        """Count one more connection of each of the objects. Return None when all readers see it.

        If a member is given, the connection is one of that member. If an object already has as many
        connections as its limit, counts nothing, and returns the name of that object.
        """

    @abstractmethod
    def leave_all(self, names: Sequence[str], key: str | None = None) -> None:
        """Count one connection fewer. Call it once for each `join_all` that returned None.

        `key` is that of the member that joined. Never waits and never fails: safe in a `finally`
        and during cancellation.
        """

    async def join(
        self, name: str, limit: int | None = None, member: NewMember | None = None
    ) -> bool:
        """Join one object like `join_all`. Returns False if it is full."""
        return await self.join_all(((name, limit),), member) is None

    def leave(self, name: str, key: str | None = None) -> None:
        """Leave one object like `leave_all`."""
        self.leave_all((name,), key)

    @abstractmethod
    def set_info(self, name: str, key: str, info: str, newer_than: int = 0) -> bool:
        """Replace the info of a member that has a connection in this process.

        `info` is valid JSON; it replaces info that was set at `newer_than` (µs), perhaps by another
        clock. Returns False if the member has no connection here. Never waits.
        """

    @abstractmethod
    def local_member(self, name: str, key: str) -> Presence | None:
        """Return the connections of the member in this process, None if it has none."""

    @abstractmethod
    def snapshot(self, name: str | None = None) -> tuple[int, dict[str, int]]:
        """Return the number of the last change, and the counts after it: of one object, or of all.

        Objects without connections are absent; EXTRA is included. Raises StateUnavailable if the
        counts are unknown.
        """

    async def asnapshot(self, name: str | None = None) -> tuple[int, dict[str, int]]:
        return self.snapshot(name)

    @abstractmethod
    def members(self, name: str) -> MemberList:
        """Return the members of the object. Raises StateUnavailable if they are unknown."""

    async def amembers(self, name: str) -> MemberList:
        return self.members(name)

    def members_of(self, names: Collection[str]) -> dict[str, Presence]:
        """Return the members of these objects by entry name: `{"foo/ada": Presence(...)}`.

        They include all changes up to the number of any earlier `snapshot`. Raises StateUnavailable
        if they are unknown.
        """
        return {
            entry_name(name, key): presence
            for name in names
            for key, presence in self.members(name).members.items()
        }

    def member_count(self, name: str) -> int:
        """Return the number of members of the object. Raises StateUnavailable if it is unknown."""
        return len(self.members(name).members)

    async def amember_count(self, name: str) -> int:
        return self.member_count(name)

    def member(self, name: str, key: str) -> Presence | None:
        """Return one member; None if it has no connection to the object.

        Raises StateUnavailable if that is unknown.
        """
        return self.members(name).members.get(key)

    async def amember(self, name: str, key: str) -> Presence | None:
        return self.member(name, key)

    def count(self, name: str) -> int:
        """Return the current number of connections of the object (0 or more).

        Raises StateUnavailable if it is unknown.
        """
        return self.snapshot(name)[1].get(name, 0)

    def counts(self) -> dict[str, int]:
        """Return the count of every object that has connections: `{"foo": 2}`.

        Raises StateUnavailable if the counts are unknown.
        """
        return _of_objects(self.snapshot()[1])

    async def acount(self, name: str) -> int:
        return (await self.asnapshot(name))[1].get(name, 0)

    async def acounts(self) -> dict[str, int]:
        return _of_objects((await self.asnapshot())[1])

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


def _of_objects(counts: dict[str, int]) -> dict[str, int]:
    counts.pop(EXTRA, None)
    return counts
