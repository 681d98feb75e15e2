"""A pytest plugin, `-p count_all`: each consumer that `WebsocketCommunicator` gets is counted.

It knows the installed `echo` and Channels only, since it runs among other people's tests.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.testing import WebsocketCommunicator

NAME = "a stranger's"

stock_init = WebsocketCommunicator.__init__


def init(self: Any, application: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    stock_init(self, with_counted_leaves(application), *arguments, **named)


def with_counted_leaves(application: Any) -> Any:
    """Return the application with `counted` round each consumer, in routers and middleware too."""
    from echo.counting import counted  # needs settings, which a conftest.py may make

    if isinstance(application, URLRouter):
        for route in application.routes:
            route.callback = with_counted_leaves(route.callback)
    elif isinstance(application, ProtocolTypeRouter):
        mapping = application.application_mapping
        if "websocket" in mapping:
            mapping["websocket"] = with_counted_leaves(mapping["websocket"])
    elif hasattr(application, "inner"):  # middleware of Channels' kind
        application.inner = with_counted_leaves(application.inner)
    elif not hasattr(application, "counted_by"):
        # A consumer's instance is for one connection: for a test, but not for counted().
        app = application.__call__ if hasattr(application, "as_asgi") else application
        return counted(app, by=lambda scope: NAME)
    return application


def pytest_configure() -> None:
    WebsocketCommunicator.__init__ = init


def pytest_unconfigure() -> None:
    """Write how many connections have been counted, and how many of them still are."""
    from echo.state import get_state
    from echo.stats import process_stats

    figures = f"{process_stats.joins} {get_state().count(NAME)}"
    Path(os.environ["COUNT_ALL_FIGURES"]).write_text(figures)
