"""The exceptions of this app. Those of Redis and its client are never raised to callers."""


class InvalidName(ValueError):
    """The name is invalid. The message says which rule it breaks."""


class StateUnavailable(Exception):
    """The counts are unknown at the moment. An unknown count is never returned as a number."""
