"""The ledger: the counts for which signals were last sent."""

from collections.abc import Mapping
from threading import Lock


class Ledger:
    """The counts for which signals were last sent, in memory. Not thread-safe, except `acquire`."""

    renew_interval = 1.0  # seconds between two calls of `lead`

    def __init__(self) -> None:
        # The count of each occupied name; 0 until `object_vacated` is sent.
        self.recorded: dict[str, int] = {}
        self._acquired = Lock()

    def acquire(self) -> bool:
        """Return True for the first call only: a ledger has one sender. Thread-safe."""
        return self._acquired.acquire(blocking=False)

    def lead(self) -> bool:
        """Become or stay the leader, the one process that sends the signals.

        Returns False if another process is the leader. In the leader, `recorded` is up to date.
        """
        return True

    def record(self, changes: Mapping[str, int | None]) -> bool:
        """Record the counts before their signals are sent (None: the object is vacated).

        Returns False, and records nothing, if another process is the leader.
        """
        for name, count in changes.items():
            if count is None:
                self.recorded.pop(name, None)
            else:
                self.recorded[name] = count
        return True
