"""Settings of the demo with permissions and an origin of its own."""

from project.settings import *  # noqa: F403

ECHO_AUTHORIZE = "tests.middleware.test_access.counted_only"
ECHO_ALLOWED_ORIGINS = ["https://friend.example"]
