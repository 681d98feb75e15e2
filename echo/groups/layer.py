"""The site's channel layer."""

import logging
from typing import Any

from channels.layers import InMemoryChannelLayer, get_channel_layer

from echo.log import describe, is_due

logger = logging.getLogger(__name__)


def layer_or_none() -> Any:
    """Return the default channel layer, or None if the site has none or it cannot be created.

    An error in creating it (a missing package, invalid settings) is logged at most once a minute.
    """
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
