"""The ledger: the counts for which signals were last sent."""

from collections.abc import Mapping
from threading import Lock


class Ledger:
    """The counts for which signals were last sent, in memory. Not thread-safe, except `acquire`."""

    def __init__(self) -> None:
        # The count of each occupied name; 0 until `object_vacated` is sent.
        self.recorded: dict[str, int] = {}
        self._acquired = Lock()

    def acquire(self) -> bool:
        """Return True for the first call only: a ledger has one sender. Thread-safe."""
        return self._acquired.acquire(blocking=False)

    def lead(self) -> bool:
        """Return whether this process is the leader, the one process that sends the signals.

        In the other processes, `recorded` is a copy that they keep up to date. A new leader's
        `recorded` is that of the previous one. Raises StateUnavailable if it cannot be read.
        """
        return True

    def record(self, changes: Mapping[str, int | None]) -> bool:
        """Record the counts before their signals are sent (None: the object is vacated).

        Returns False, and records nothing, if this process is no longer the leader.
        """
        return self.copy(changes)

    def copy(self, changes: Mapping[str, int | None]) -> bool:
        """Update `recorded` with the counts for which the leader sends signals.

        Returns False, and changes nothing, if there is no leader.
        """
        for name, count in changes.items():
            if count is None:
                self.recorded.pop(name, None)
            else:
                self.recorded[name] = count
        return True
