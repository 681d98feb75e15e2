"""Whether the channel layer lets a socket be idle.

`RedisChannelLayer` of channels_redis.core waits for messages by a command that Redis answers after
5 s. redis-py 8 gives up reading at that moment, too: `receive` raises, Channels' consumers with it,
and their sockets are closed with 1011.
"""

import asyncio
import time
from typing import Any

from echo.groups.layer import layer_or_none
from echo.operations.doctor.finding import words_of

IDLE = 7.0  # seconds: the layer was seen to raise after 5 to 6
CORE_LAYER = (
    'Give its hosts a time-out: "hosts": [{"address": "redis://…", "socket_timeout": None}]; '
    "or use channels_redis.pubsub.RedisPubSubChannelLayer."
)


def is_core_layer() -> bool:
    """Return whether the layer is the one of channels_redis.core. Others cost no waiting."""
    return any(kind.__module__ == "channels_redis.core" for kind in type(layer_or_none()).__mro__)


async def receive_nothing() -> str | None:
    """Wait for IDLE seconds on a channel without messages; return what went wrong, if anything."""
    layer: Any = layer_or_none()
    began = time.monotonic()
    try:
        async with asyncio.timeout(IDLE) as limit:
            await layer.receive(await layer.new_channel())
    except Exception as error:  # each channel layer has exceptions of its own
        seconds = time.monotonic() - began
        if limit.expired() or seconds < 1:  # a layer that does not work at all is another finding
            return None
        kind = type(error).__name__
        return (
            f"the channel layer raised {kind} after {seconds:.1f} s of silence: {words_of(error)}"
        )
    return None
