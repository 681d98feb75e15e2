"""The demo's settings, where the packages of the extra [redis] are not installed."""

import sys

from project.settings import *  # noqa: F403

sys.modules["redis"] = sys.modules["channels_redis"] = None
