"""The demo's settings, with the channel layer of Channels' tutorial."""

import os

from project.settings import *  # noqa: F403

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [os.environ["LAYER_URL"]]},
    }
}
