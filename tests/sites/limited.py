"""Settings of the demo, with a limit from the environment."""

import os

from project.settings import *  # noqa: F403

ECHO_MAX_CONNECTIONS = int(os.environ["LIMIT"])
