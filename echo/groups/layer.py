"""The site's channel layer."""

import logging
from typing import Any

from channels.exceptions import InvalidChannelLayerError
from channels.layers import InMemoryChannelLayer, get_channel_layer

from echo.log import is_due

logger = logging.getLogger(__name__)


def layer_or_none() -> Any:
    """Return the default channel layer, or None if the site has none or it cannot be created.

    The latter is logged once a minute: a package is missing, or the settings are wrong.
    """
    try:
        return get_channel_layer()
    except Exception as error:  # backends raise exceptions of their own
        if is_due("layer"):
            # The text of any other error may contain a password of a URL.
            is_safe = isinstance(error, ImportError | InvalidChannelLayerError)
            shown = str(error) if is_safe else type(error).__name__
            logger.error("CHANNEL_LAYERS cannot be used, messages reach no connection: %s", shown)
        return None


def reaches_other_processes() -> bool:
    """Return whether messages to a group reach the connections of other processes."""
    layer = layer_or_none()
    return layer is not None and not isinstance(layer, InMemoryChannelLayer)
