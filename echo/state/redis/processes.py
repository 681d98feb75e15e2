"""The live processes, as this process last saw them in the registry on Redis."""

from collections.abc import Iterable


class Processes:
    """Set by the publishing thread, and read by all threads."""

    def __init__(self, process_id: str) -> None:
        self._process_id = process_id
        self.version = ""  # of the registry
        self.lease_ends: dict[str, str] = {}  # by process id
        # The processes that have not written since this process lost Redis, and their lease ends.
        self.awaited: dict[str, str] = {}

    def set(self, version: str, processes: Iterable[str], after_outage: bool) -> None:
        """Store the live processes: alternating ids and lease ends."""
        each = iter(processes)
        self.version, self.lease_ends = version, dict(zip(each, each, strict=True))
        if after_outage:
            self.awaited = {**self.lease_ends}
            self.awaited.pop(self._process_id, None)
        elif self.awaited:
            self.awaited = dict(self.awaited.items() & self.lease_ends.items())

    def is_first(self) -> bool:
        """Return whether this process has the smallest id of all."""
        return min(self.lease_ends, default="") == self._process_id
