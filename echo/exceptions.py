"""What this app raises: callers never see the exceptions of the parts behind it."""


class InvalidName(ValueError):
    """A name that no object can have; the message says which rule it breaks."""


class StateUnavailable(Exception):
    """The counts cannot be known now: an unknown count is never given as a number."""
