"""The demo's settings, with the channel layer on a Redis of its own."""

import os

from project.settings import *  # noqa: F403

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [os.environ["LAYER_URL"]]},
    }
}
