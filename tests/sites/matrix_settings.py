"""Settings of the site in `matrix.py`: the demo's, with what the environment says."""

import os

from project.settings import *  # noqa: F403

SECRET_KEY = "the same in all processes, so that none waits for a random one"
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["MATRIX_DATABASE"]}
}

_url = os.environ.get("MATRIX_REDIS_URL")
_hosts = {"hosts": [_url]}
# redis-py 8 gives up reading after 5 s unless told otherwise, and the core layer with it:
# https://github.com/django/channels_redis/issues/422. Can go with a release that closes it.
_patient_hosts = {"hosts": [{"address": _url, "socket_timeout": None}]}
_layers = {
    "none": {},
    "in-memory": {"BACKEND": "channels.layers.InMemoryChannelLayer"},
    "core": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": _patient_hosts},
    "pubsub": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": _hosts},
}
_layer = _layers[os.environ["MATRIX_LAYER"]]
CHANNEL_LAYERS = {"default": _layer} if _layer else {}

# What is logged is compared, so nothing that channels_redis logs is left out.
LOGGING = {}
