"""The WebSocket counterpart of `echo.urls`."""

from typing import Any

from channels.routing import URLRouter
from django.core.asgi import get_asgi_application
from django.urls import URLPattern, path, re_path

from echo.conf import conf
from echo.consumers import EchoConsumer
from echo.counting import counted
from echo.denial import Application
from echo.middleware.auth import with_user
from echo.middleware.console_access import ConsoleAccess
from echo.middleware.http_fallback import HTTPFallback
from echo.middleware.origin import HostAndOriginCheck
from echo.middleware.script_name import ScriptName


def _default_or_named(scope: Any) -> str:
    arguments = scope["url_route"]["kwargs"]
    return str(arguments["name"]) if "name" in arguments else conf.ECHO_DEFAULT_OBJECT


_echo: Any = counted(EchoConsumer.as_asgi(), by=_default_or_named, member="user")
_console: Any = ConsoleAccess(_echo)

# For sites like the demo, where every client may connect to every object.
websocket_urlpatterns: list[URLPattern] = [
    path("<str:name>/websocket", _echo),
    path("websocket", _echo),
]

# For sites with their own objects: the same paths, restricted to users with the permission "list".
console_urlpatterns: list[URLPattern] = [
    path("<str:name>/websocket", _console),
    path("websocket", _console),
]


def as_websocket_application(
    routes: list[URLPattern] = websocket_urlpatterns, http: Application | None = None
) -> Application:
    """Return the WebSocket application of a site: its routes, wrapped in the required middleware.

    The middleware checks Host and Origin (`HostAndOriginCheck`), sets `scope["user"]` if the site
    has users (like Channels' AuthMiddlewareStack), and makes routes relative to the script name,
    like Django's URLs. If no route matches, the handshake is denied with the response of `http` (by
    default Django's own application) to the same request without `Upgrade`.
    """
    fallback: Any = HTTPFallback(http or get_asgi_application())
    router = URLRouter([*routes, re_path("", fallback)])
    return HostAndOriginCheck(with_user(ScriptName(router)))
