"""Settings of the demo, with a limit from the environment: a number, or an object by prefix."""

import json
import os

from project.settings import *  # noqa: F403

ECHO_MAX_CONNECTIONS = json.loads(os.environ["LIMIT"])
