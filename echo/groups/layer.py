"""The site's channel layer, as far as it can be had."""

import logging
from typing import Any

from channels.layers import get_channel_layer

from echo.log import describe, is_due

logger = logging.getLogger(__name__)


def layer_or_none() -> Any:
    """Return the default channel layer; None where the site has none, or none that can be made.

    The latter is logged, once a minute: a package is missing, or the settings are wrong.
    """
    try:
        return get_channel_layer()
    except Exception as error:  # of the backend's own kinds
        if is_due("layer"):
            reason = describe(error)
            logger.error("CHANNEL_LAYERS cannot be used; texts reach no connection: %s", reason)
        return None
