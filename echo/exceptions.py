"""The exceptions of this app. Callers never receive exceptions of Redis or its client."""


class InvalidName(ValueError):
    """The name is invalid. The message contains the rule that it breaks."""


class StateUnavailable(Exception):
    """The counts are unknown at the moment. An unknown count is never returned as a number."""
