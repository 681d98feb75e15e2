"""The demo's settings, with the channel layer on a Redis of its own, and perhaps a limit."""

import os

from project.settings import *  # noqa: F403

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": os.environ.get("LAYER", "channels_redis.pubsub.RedisPubSubChannelLayer"),
        "CONFIG": {"hosts": [os.environ["LAYER_URL"]]},
    }
}

if limit := os.environ.get("LIMIT"):
    ECHO_MAX_CONNECTIONS = int(limit)
