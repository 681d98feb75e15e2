"""The time limits of one connection. Times are those of the event loop's clock, in seconds."""

from typing import NamedTuple

CLOSE_TIMEOUT = 5.0  # seconds for the client to reply to a Close, or to read the remaining data
CLOSE_REPLY_TIMEOUT = 1.0  # seconds for the application to choose the reply to a client's Close
BUSY_GRACE = 0.1  # seconds for a busy application to receive an event before the server replies
MESSAGE_TIMEOUT = 60  # seconds from the first byte of a message to its last
APPLICATION_TIMEOUT = 10.0  # seconds for the application to finish after its connection
PING_TOLERANCE = 0.1  # seconds: a ping that is due within this time is sent now


class Limits(NamedTuple):
    """The limits of a connection, in bytes and seconds. None means no limit."""

    max_size: int = 1024 * 1024  # bytes of a message
    ping_interval: float | None = 20  # 0 means the same as None
    ping_timeout: float | None = 10
    handshake_timeout: float | None = 20  # for the application to accept or reject
    max_age: float | None = None
    application_timeout: float = APPLICATION_TIMEOUT


class Timeouts:
    """The start times of the time limits of a connection, which enforces them.

    On each read the connection only sets `has_received`: reading the clock would be too expensive.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._started_at = self._since = self._quiet_since = now
        self._pinged_at: float | None = None
        self.has_received = True

    def start(self, now: float) -> None:
        """Start timing the handshake or, when it is accepted, the open connection."""
        self._started_at = now

    def enter(self, now: float) -> None:
        """Start timing a new state of the connection."""
        self._since = now

    def time_in_state(self, now: float) -> float:
        return now - self._since

    def postpone(self, seconds: float) -> None:
        """Extend all time limits by the time for which the event loop was blocked."""
        self._started_at += seconds
        self._since += seconds
        self._quiet_since += seconds
        if self._pinged_at is not None:
            self._pinged_at += seconds

    def is_handshake_overdue(self, now: float) -> bool:
        limit = self._limits.handshake_timeout
        return limit is not None and now - self._started_at > limit

    def is_too_old(self, now: float) -> bool:
        limit = self._limits.max_age
        return limit is not None and now - self._started_at > limit

    def is_application_overdue(self, now: float) -> bool:
        return now - self._since > self._limits.application_timeout

    def received(self, now: float) -> None:
        """Start timing the interval until the next ping."""
        self.has_received, self._pinged_at, self._quiet_since = False, None, now

    def is_ping_due(self, now: float) -> bool:
        interval = self._limits.ping_interval  # None or 0: no pings, as in uvicorn
        if not interval or self._pinged_at is not None:
            return False
        return now - self._quiet_since >= interval - PING_TOLERANCE

    def pinged(self, now: float) -> None:
        """Start timing the client's pong."""
        self._pinged_at = now

    def is_pong_overdue(self, now: float) -> bool:
        timeout = self._limits.ping_timeout
        if timeout is None or self._pinged_at is None:
            return False
        return now - self._pinged_at >= timeout
