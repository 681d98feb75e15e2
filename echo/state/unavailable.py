"""The state of a site whose state settings are invalid."""

from collections.abc import Callable

from echo.exceptions import StateUnavailable
from echo.state.base import Listener, State
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

    async def join(self, name: str, limit: int | None = None) -> bool:
        return self._local.add(name, limit)

    def leave(self, name: str) -> None:
        self._local.leave(name)

    def snapshot(self, name: str | None = None) -> tuple[int, dict[str, int]]:
        raise StateUnavailable(self._problem)

    async def settled(self) -> None:
        """Return at once: there are no other readers."""

    def listen(self, listener: Listener) -> Callable[[], None]:
        return self._local.listen(listener)
