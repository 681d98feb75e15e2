"""The state of a site whose state settings are invalid."""

from collections.abc import Callable, Sequence

from echo.exceptions import StateUnavailable
from echo.members import MemberList, NewMember, Presence
from echo.state.base import Listener, Objects, State
from echo.state.memory import MemoryState


class UnavailableState(State):
    """Accepts connections as usual; reading a count raises StateUnavailable with the problem.

    A limit applies only to the connections of this process.
    """

    shared = True  # an invalid setting is meant to be a shared store

    def __init__(self, problem: str) -> None:
        super().__init__()
        self._local = MemoryState()
        self.ledger = self._local.ledger
        self._problem = problem

    async def join_all(self, objects: Objects, member: NewMember | None = None) -> str | None:
        return self._local.add(objects, member)

    def leave_all(self, names: Sequence[str], key: str | None = None) -> None:
        self._local.leave_all(names, key)

    def set_info(self, name: str, key: str, info: str, newer_than: int = 0) -> bool:
        return self._local.set_info(name, key, info, newer_than)

    def local_member(self, name: str, key: str) -> Presence | None:
        return self._local.member(name, key)

    def members(self, name: str) -> MemberList:
        raise StateUnavailable(self._problem)

    def snapshot(self, name: str | None = None) -> tuple[int, dict[str, int]]:
        raise StateUnavailable(self._problem)

    async def settled(self) -> None:
        """Return at once: there are no other readers."""

    def listen(self, listener: Listener) -> Callable[[], None]:
        return self._local.listen(listener)
