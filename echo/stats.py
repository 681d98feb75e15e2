"""What has happened in this process since its start: plain numbers, which cost next to nothing."""

import logging

logger = logging.getLogger("echo.connections")  # one line for each connection, at its end

ROOM = 100  # codes of their own: clients choose codes, and each is a series for Prometheus
REASONS = ("host", "origin", "name", "permission", "full", "application")
OTHER = "other"
UNKNOWN = "unknown"


class Tally:
    """Sums that only grow. Added to on the event loop (outages: by the state's thread)."""

    def __init__(self) -> None:
        self.joins = 0
        self.seconds = 0.0  # of connections that have ended
        self.refusals = dict.fromkeys(REASONS, 0)
        self.closes: dict[int | str, int] = {}
        self.outages = 0
        self.objects: set[str] = set()  # those that have a series for Prometheus

    def ended(self, name: str, seconds: float, code: int | None) -> None:
        """Note the end of a connection; `code` is None where nobody has told it."""
        self.seconds += seconds
        key: int | str = UNKNOWN if code is None else code
        if key not in self.closes and len(self.closes) >= ROOM and not _is_standard(code):
            key = OTHER
        self.closes[key] = self.closes.get(key, 0) + 1
        if logger.isEnabledFor(logging.INFO):
            details = {"object": name, "seconds": seconds, "code": code}
            told = "no code" if code is None else code
            logger.info("%r ended after %.3f s with %s", name, seconds, told, extra=details)


def _is_standard(code: int | None) -> bool:
    return code is None or 1000 <= code <= 1015  # RFC 6455 §7.4.1, and its registry


class Unrecorded(Tally):
    """Takes what another `counted` round the same consumer records: it is one connection."""

    def ended(self, name: str, seconds: float, code: int | None) -> None:
        """Record nothing."""


tally = Tally()
unrecorded = Unrecorded()
