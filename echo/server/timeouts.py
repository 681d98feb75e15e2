"""The time limits of one connection. Times are those of the event loop's clock, in seconds."""

from math import inf
from typing import NamedTuple

CLOSE_TIMEOUT = 5.0  # seconds for the client to reply to a Close, or to read the remaining data
CLOSE_REPLY_TIMEOUT = 1.0  # seconds for the application to choose the reply to a client's Close
BUSY_GRACE = 0.1  # seconds for a busy application to receive an event before the server replies
MESSAGE_TIMEOUT = 60  # seconds from the first byte of a message to its last
APPLICATION_TIMEOUT = 10.0  # seconds for the application to finish after its connection
PING_TOLERANCE = 0.1  # seconds: a ping that is due within this time is sent now


class Limits(NamedTuple):
    """The limits and options of a connection, in bytes and seconds."""

    max_size: int = 1024 * 1024  # bytes of a message
    ping_interval: float = 20
    ping_timeout: float = 10
    handshake_timeout: float = 20  # for the application to accept or reject
    max_age: float = inf
    application_timeout: float = APPLICATION_TIMEOUT
    deflate: bool = False  # whether messages are compressed if the client offers it


class Timeouts:
    """The start times of the time limits of a connection, which sets and enforces them.

    On each read the connection only sets `has_received`: reading the clock would be too expensive.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self.started_at = now  # of the handshake or, when it is accepted, of the open connection
        self.state_since = now  # when the connection entered its current state
        self.pinged_at: float | None = None  # when the ping was sent that has no pong yet
        self._quiet_since = now
        self.has_received = True

    def postpone(self, seconds: float) -> None:
        """Extend all time limits by the time for which the event loop was blocked."""
        self.started_at += seconds
        self.state_since += seconds
        self._quiet_since += seconds
        if self.pinged_at is not None:
            self.pinged_at += seconds

    def is_handshake_overdue(self, now: float) -> bool:
        return now - self.started_at > self._limits.handshake_timeout

    def is_too_old(self, now: float) -> bool:
        return now - self.started_at > self._limits.max_age

    def is_application_overdue(self, now: float) -> bool:
        return now - self.state_since > self._limits.application_timeout

    def received(self, now: float) -> None:
        """Start timing the interval until the next ping."""
        self.has_received, self.pinged_at, self._quiet_since = False, None, now

    def is_ping_due(self, now: float) -> bool:
        quiet = now - self._quiet_since
        return self.pinged_at is None and quiet >= self._limits.ping_interval - PING_TOLERANCE

    def is_pong_overdue(self, now: float) -> bool:
        return self.pinged_at is not None and now - self.pinged_at >= self._limits.ping_timeout
