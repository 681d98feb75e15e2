"""Whether Redis replies to this process."""

import time
from math import inf

# If a step has no reply for this time, Redis counts as down, even if the client is still waiting.
STEP_TIMEOUT = 1.25  # seconds
SILENCE = 0.15  # seconds; less than a handshake waits for a reply


class Health:
    """Set by the publishing thread, and read by all threads."""

    def __init__(self, lease: float) -> None:
        self._lease = lease  # seconds
        self.is_outage = False
        self.is_closed = False
        self.last_reply = -inf  # time.monotonic()
        self.step_began: float | None = None  # time.monotonic(); None between two steps
        self.acknowledged: float | None = None  # time.monotonic() of the last acknowledged write
        self.new_until = -inf  # time.monotonic() until which this process is new

    def count_reply(self) -> None:
        self.last_reply = time.monotonic()

    def is_down(self) -> bool:
        """Return whether Redis is known to be down. Always True after `close`."""
        began = self.step_began
        has_timed_out = began is not None and time.monotonic() - began > STEP_TIMEOUT
        return self.is_outage or self.is_closed or has_timed_out

    def is_silent(self) -> bool:
        """Return whether Redis is down, or a step waits for its reply.

        Returns False if the publishing thread has merely not run yet, on a busy machine.
        """
        began = self.step_began
        return self.is_down() or (began is not None and time.monotonic() - began > SILENCE)

    def is_new(self) -> bool:
        """Return whether this process has just begun to write: the sum will be known soon."""
        return time.monotonic() < self.new_until

    def lease_has_expired(self) -> bool:
        acknowledged = self.acknowledged
        return acknowledged is not None and time.monotonic() - acknowledged > self._lease
