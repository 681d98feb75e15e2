"""The demo's settings, with the time to drain in the environment."""

import os

from project.settings import *  # noqa: F403

if "DRAIN_SECONDS" in os.environ:
    ECHO_DRAIN_SECONDS = float(os.environ["DRAIN_SECONDS"])
