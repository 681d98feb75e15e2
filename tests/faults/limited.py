"""Settings of the demo, with a limit."""

from project.settings import *  # noqa: F403

ECHO_MAX_CONNECTIONS = 100
