"""A check that the channel layer keeps idle sockets open.

`RedisChannelLayer` of channels_redis.core waits for messages with a blocking command, to which
Redis replies after 5 s. The read timeout of redis-py 8 is also 5 s. So `receive` raises in
Channels' consumers, and their sockets are closed with 1011.
"""

import asyncio
import time
from typing import Any

from echo.groups.layer import layer_or_none
from echo.log import describe

IDLE = 7.0  # seconds: the layer raises after 5 to 6
CORE_LAYER = (
    'Set a timeout for its hosts: "hosts": [{"address": "redis://…", "socket_timeout": None}]; '
    "or use channels_redis.pubsub.RedisPubSubChannelLayer."
)


def is_core_layer() -> bool:
    """Return whether the layer is from channels_redis.core. Other layers need no check."""
    return any(kind.__module__ == "channels_redis.core" for kind in type(layer_or_none()).__mro__)


async def receive_nothing() -> str | None:
    """Wait for IDLE seconds on a channel without messages; return the problem, if there is one."""
    layer: Any = layer_or_none()
    began = time.monotonic()
    try:
        async with asyncio.timeout(IDLE) as limit:
            await layer.receive(await layer.new_channel())
    except Exception as error:  # each channel layer has its own exceptions
        seconds = time.monotonic() - began
        if limit.expired() or seconds < 1:  # another check reports a layer that is down
            return None
        reason = f"{type(error).__name__} after {seconds:.1f} s of silence: {describe(error)}"
        return f"the channel layer raised {reason}"
    return None
