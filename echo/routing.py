"""The WebSocket side of `echo.urls`."""

import asyncio
from typing import Any, cast

from asgiref.typing import (
    ASGIReceiveCallable,
    ASGISendCallable,
    HTTPScope,
    WebSocketScope,
)
from channels.routing import URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.urls import URLPattern, path, re_path
from django.utils.translation import gettext as _

from echo.conf import conf
from echo.consumers import EchoConsumer
from echo.counting import counted
from echo.denial import Application, answer, can_answer, log_rejection
from echo.middleware.auth import with_user
from echo.permissions import LIST, HostAndOriginCheck, amay
from echo.stats import tally


def _default_or_named(scope: WebSocketScope) -> str:
    arguments = cast(dict[str, Any], scope)["url_route"]["kwargs"]
    return str(arguments["name"]) if "name" in arguments else conf.ECHO_DEFAULT_OBJECT


class ConsoleAccess:
    """ASGI middleware that rejects the handshakes of clients who may not "list" with 403.

    Through the console its user can join any object and receive what the site sends to it.
    """

    required_action = LIST  # for the usage page and the doctor

    def __init__(self, application: Any) -> None:
        self.application = application
        self.counted_by = application.counted_by  # for the system check

    async def __call__(
        self, scope: WebSocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if await amay(scope, None, LIST):
            await self.application(scope, receive, send)
            return
        tally.refusals["permission"] += 1
        log_rejection(scope, "permission", "the console is for clients who may %r", LIST)
        await receive()  # websocket.connect
        await answer(scope, send, 403, _("You may not use the console."), code=4403)


_echo: Any = counted(EchoConsumer.as_asgi(), by=_default_or_named)
_console: Any = ConsoleAccess(_echo)

# For a site that is the showpiece itself: everybody may connect to each object.
websocket_urlpatterns: list[URLPattern] = [
    path("websocket", _echo),
    path("<str:name>/websocket", _echo),
]

# For a site with objects of its own: the same paths, for those who may "list".
console_urlpatterns: list[URLPattern] = [
    path("websocket", _console),
    path("<str:name>/websocket", _console),
]


def as_websocket_application(
    routes: list[URLPattern] = websocket_urlpatterns, http: Application | None = None
) -> Application:
    """Return the WebSocket application of a site, with what every site needs round its routes.

    Host and Origin are checked (`HostAndOriginCheck`), and `scope["user"]` is there on a
    site that has users (as Channels' AuthMiddlewareStack has it). Routes begin below the script
    name, as Django's URLs do. A handshake on a path without a route gets what the same request
    gets without `Upgrade`, from `http` (by default Django's own application).
    """
    fallback: Any = AnswerAsHTTP(http or get_asgi_application())
    router = URLRouter([*routes, re_path("", fallback)])
    return HostAndOriginCheck(with_user(BelowScriptName(router)))


class BelowScriptName:
    """An ASGI application: a site's routes, below FORCE_SCRIPT_NAME or the server's root path.

    Proxies, and so servers, differ in whether the path still has it: for Django's handler both
    are right, but Channels' router knows no FORCE_SCRIPT_NAME, and fails without a root path.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(
        self, scope: WebSocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        script_name = (settings.FORCE_SCRIPT_NAME or scope.get("root_path") or "").rstrip("/")
        if script_name:
            path = scope["path"]
            if path != script_name and not path.startswith(f"{script_name}/"):
                path = script_name + path
            scope = cast(WebSocketScope, {**scope, "root_path": script_name, "path": path})
        await self.application(scope, receive, send)


class AnswerAsHTTP:
    """An ASGI application that answers a handshake as plain HTTP would be answered."""

    def __init__(self, http: Application) -> None:
        self.http = http

    async def __call__(
        self, scope: WebSocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if not can_answer(scope):
            await receive()  # websocket.connect
            log_rejection(scope, "path", "the site has no WebSocket route that leads there")
            await send({"type": "websocket.close", "code": 1008, "reason": "No such path."})
            return

        async def http_receive() -> Any:
            if requests:
                return requests.pop()
            # Our servers reject a handshake that has no key as soon as something receives, so that
            # no consumer runs for it: the answer for a wrong path comes first.
            await answered.wait()
            while (await receive())["type"] != "websocket.disconnect":
                pass
            return {"type": "http.disconnect"}

        async def http_send(event: Any) -> None:
            answered.set()
            denial: Any = {**event, "type": f"websocket.{event['type']}"}
            await send(denial)

        answered = asyncio.Event()
        requests = [{"type": "http.request", "body": b"", "more_body": False}]
        await self.http(_as_http(scope), http_receive, http_send)


def _as_http(scope: WebSocketScope) -> HTTPScope:
    """Return the scope of the same request without its upgrade."""
    same = {key: value for key, value in scope.items() if key not in ("subprotocols", "url_route")}
    scheme = "https" if scope.get("scheme") == "wss" else "http"
    return cast(HTTPScope, {**same, "type": "http", "method": "GET", "scheme": scheme})
