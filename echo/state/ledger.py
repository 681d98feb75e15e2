"""The ledger: the counts and members for which signals were last sent."""

from collections.abc import Mapping
from threading import Lock

from echo.members import Presence

# The count of an object, by name, or the presence of a member, by entry name.
Recorded = int | Presence


class Ledger:
    """What signals were last sent for, in memory. Not thread-safe, except `acquire`."""

    def __init__(self) -> None:
        # The count of each occupied object, 0 until `object_vacated` is sent, and the presence of
        # each member until `member_left` is sent.
        self.recorded: dict[str, Recorded] = {}
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

    def record(self, changes: Mapping[str, Recorded | None]) -> bool:
        """Record the changes before their signals are sent (None: vacated, or left).

        Returns False, and records nothing, if this process is no longer the leader.
        """
        return self.copy(changes)

    def copy(self, changes: Mapping[str, Recorded | None]) -> bool:
        """Update `recorded` with the changes for which the leader sends signals.

        Returns False, and changes nothing, if there is no leader.
        """
        for name, value in changes.items():
            if value is None:
                self.recorded.pop(name, None)
            else:
                self.recorded[name] = value
        return True
