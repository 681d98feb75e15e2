"""Settings of the demo, for visitors who may connect and count, and no more, though DEBUG is on."""

from project.settings import *  # noqa: F403

ECHO_AUTHORIZE = "tests.sites.visitors.authorize"


def authorize(asking: object, name: str | None, action: str) -> bool:
    return action in ("connect", "count")
