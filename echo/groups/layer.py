"""The site's channel layer."""

import logging
from typing import Any

from channels.layers import InMemoryChannelLayer, channel_layers, get_channel_layer

from echo.log import describe, is_due

logger = logging.getLogger(__name__)


def layer_or_none() -> Any:
    """Return the default channel layer, or None if the site has none or it cannot be created.

    An error in creating it (a missing package, invalid settings) is logged at most once a minute.
    """
    # Fast path: without a layer, get_channel_layer() raises and catches further exceptions.
    if not (channel_layers.backends or channel_layers.configs):
        return None
    try:
        return get_channel_layer()
    except Exception as error:  # each channel layer has its own exceptions
        if is_due("layer"):
            reason = describe(error)
            logger.error("CHANNEL_LAYERS cannot be used, messages reach no connection: %s", reason)
        return None


def reaches_other_processes() -> bool:
    """Return whether messages to a group reach the connections of other processes."""
    layer = layer_or_none()
    return layer is not None and not isinstance(layer, InMemoryChannelLayer)


def batch_size(layer: Any) -> int:
    """Return how many groups to add or discard at once."""
    # channels_redis.core takes a connection for each, and redis-py 8 opens 100 at most.
    return 1000 if _is_pubsub(layer) else 80


def unconfirmed_groups(layer: Any, added: list[str]) -> list[str]:
    """Return groups of which a message shows that the layer has subscribed to all that were added.

    channels_redis.pubsub does not wait until Redis has executed a SUBSCRIBE. Redis executes the
    commands of a connection in order, so the last group of each is enough. Other layers wait.
    """
    if not _is_pubsub(layer):
        return []
    groups = {layer._get_shard(layer._get_group_channel_name(group)): group for group in added}
    return list(groups.values())


async def drop_connections(layer: Any, in_use: bool) -> None:
    """Close the idle connections of a layer of channels_redis, so that it opens new ones.

    With `in_use`, close all: the subscriber's is opened again, with all subscriptions. Only in
    channels_redis.core, the consumer whose `receive` reads for all others then fails as in a
    restart of Redis. The layers' own `flush` would delete messages, or channels of consumers.
    """
    if hasattr(layer, "ring_size"):  # channels_redis.core
        clients = [layer.connection(index) for index in range(layer.ring_size)]
    else:  # channels_redis.pubsub
        clients = [getattr(shard, "_redis", None) for shard in getattr(layer, "_shards", ())]
    for client in clients:
        if client is not None:
            await client.connection_pool.disconnect(inuse_connections=in_use)


def _is_pubsub(layer: Any) -> bool:
    return hasattr(layer, "_get_shard")
