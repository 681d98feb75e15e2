"""The WebSocket counterpart of `echo.urls`."""

from typing import Any, cast

from asgiref.typing import WebSocketScope
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


def _default_or_named(scope: WebSocketScope) -> str:
    arguments = cast(dict[str, Any], scope)["url_route"]["kwargs"]
    return str(arguments["name"]) if "name" in arguments else conf.ECHO_DEFAULT_OBJECT


_echo: Any = counted(EchoConsumer.as_asgi(), by=_default_or_named)
_console: Any = ConsoleAccess(_echo)

# For a site like the demo: everyone may connect to every object.
websocket_urlpatterns: list[URLPattern] = [
    path("websocket", _echo),
    path("<str:name>/websocket", _echo),
]

# For a site with objects of its own: the same paths, for users with the permission "list".
console_urlpatterns: list[URLPattern] = [
    path("websocket", _console),
    path("<str:name>/websocket", _console),
]


def as_websocket_application(
    routes: list[URLPattern] = websocket_urlpatterns, http: Application | None = None
) -> Application:
    """Return the WebSocket application of a site: its routes with the middleware every site needs.

    Host and Origin are checked (`HostAndOriginCheck`), `scope["user"]` is set if the site has users
    (as by Channels' AuthMiddlewareStack), and routes begin below the script name, as Django's URLs
    do. If no route matches, the handshake is denied with the response that `http` (by default
    Django's own application) gives to the same request without `Upgrade`.
    """
    fallback: Any = HTTPFallback(http or get_asgi_application())
    router = URLRouter([*routes, re_path("", fallback)])
    return HostAndOriginCheck(with_user(ScriptName(router)))
