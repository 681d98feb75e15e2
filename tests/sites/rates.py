"""Settings of the demo with a limit of messages per second, or of handshakes at a time."""

import os

from project.settings import *  # noqa: F403

ECHO_MAX_MESSAGES_PER_SECOND = int(os.environ.get("MAX_MESSAGES", "0")) or None
ECHO_MAX_HANDSHAKES_AT_ONCE = int(os.environ.get("MAX_HANDSHAKES", "0")) or None
