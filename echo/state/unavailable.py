"""The counts of a site whose settings tell no state that could be used."""

from echo.exceptions import StateUnavailable
from echo.state.memory import MemoryState


class UnavailableState(MemoryState):
    """Connections join and leave as ever; who reads a count is told the problem instead.

    A limit holds for the connections of this process alone.
    """

    shared = True  # or so the site would have it

    def __init__(self, problem: str) -> None:
        super().__init__()
        self._problem = problem

    def count(self, name: str) -> int:
        """Raise StateUnavailable."""
        raise StateUnavailable(self._problem)

    def counts(self) -> dict[str, int]:
        """Raise StateUnavailable."""
        raise StateUnavailable(self._problem)
