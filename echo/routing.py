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

from echo.access import HostAndOriginCheck
from echo.answers import Application, can_answer
from echo.conf import conf
from echo.consumers import EchoConsumer
from echo.counting import counted
from echo.users import with_user


def _default_or_named(scope: WebSocketScope) -> str:
    arguments = cast(dict[str, Any], scope)["url_route"]["kwargs"]
    return str(arguments["name"]) if "name" in arguments else conf.ECHO_DEFAULT_OBJECT


_echo: Any = counted(EchoConsumer.as_asgi(), by=_default_or_named)

websocket_urlpatterns: list[URLPattern] = [
    path("websocket", _echo),
    path("<str:name>/websocket", _echo),
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
    answer: Any = AnswerAsHTTP(http or get_asgi_application())
    router = URLRouter([*routes, re_path("", answer)])
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
            answer: Any = {**event, "type": f"websocket.{event['type']}"}
            await send(answer)

        answered = asyncio.Event()
        requests = [{"type": "http.request", "body": b"", "more_body": False}]
        await self.http(_as_http(scope), http_receive, http_send)


def _as_http(scope: WebSocketScope) -> HTTPScope:
    """Return the scope of the same request without its upgrade."""
    same = {key: value for key, value in scope.items() if key not in ("subprotocols", "url_route")}
    scheme = "https" if scope.get("scheme") == "wss" else "http"
    return cast(HTTPScope, {**same, "type": "http", "method": "GET", "scheme": scheme})
