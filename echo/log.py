"""Says a thing to the log once in a while, however often it happens."""

from math import inf
from time import monotonic

QUIET = 60.0  # seconds between two lines of one kind

_last: dict[object, float] = {}  # when each kind was said, by time.monotonic()


def is_due(kind: object) -> bool:
    """Return whether a line of that kind is to be logged now: none has been for QUIET."""
    now = monotonic()
    if now - _last.get(kind, -inf) < QUIET:
        return False
    _last[kind] = now
    return True
