"""Counters of this process since its start, and the log line of each closed connection."""

import logging

logger = logging.getLogger("echo.connections")

# Close codes with their own counter. Clients choose the codes, and Prometheus keeps each series.
MAX_CODES = 100
REASONS = ("host", "origin", "name", "permission", "full", "busy", "application")
OTHER = "other"
UNKNOWN = "unknown"


class Stats:
    """Counters that only increase. Updated on the event loop; those of Redis in its thread."""

    def __init__(self) -> None:
        self.joins = 0
        self.seconds = 0.0  # the total duration of closed connections
        self.rejections = dict.fromkeys(REASONS, 0)
        self.closes: dict[int | str, int] = {}  # by Close code
        self.outages = 0
        self.wrong_totals = 0  # repaired by the self-check
        self.objects: set[str] = set()  # the names that have a series in Prometheus

    def record_close(self, name: str, seconds: float, code: int | None) -> None:
        """Record a closed connection; `code` is None if the Close code is unknown."""
        self.seconds += seconds
        key: int | str = UNKNOWN if code is None else code
        if key not in self.closes and len(self.closes) >= MAX_CODES and not _is_standard(code):
            key = OTHER
        self.closes[key] = self.closes.get(key, 0) + 1
        if logger.isEnabledFor(logging.INFO):
            details = {"object": name, "seconds": seconds, "code": code}
            shown = "no code" if code is None else f"code {code}"
            message = "Connection to %r closed after %.3f s with %s"
            logger.info(message, name, seconds, shown, extra=details)


def _is_standard(code: int | None) -> bool:
    return code is None or 1000 <= code <= 1015  # RFC 6455 §7.4.1 and the IANA registry


class IgnoredStats(Stats):
    """The stats of a nested `counted`: only the outer one records the connection."""

    def record_close(self, name: str, seconds: float, code: int | None) -> None:
        """Record nothing."""


process_stats = Stats()
ignored_stats = IgnoredStats()
