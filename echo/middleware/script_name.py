"""Routes below FORCE_SCRIPT_NAME or the server's root path."""

from collections.abc import Awaitable
from typing import Any, cast

from asgiref.sync import markcoroutinefunction
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, WebSocketScope
from django.conf import settings

from echo.denial import Application


class ScriptName:
    """ASGI middleware that sets the script name of a handshake as Django's handler does for HTTP.

    Some proxies and servers strip the script name from the path, others do not. Django's handler
    accepts both, but Channels' router ignores FORCE_SCRIPT_NAME, and fails if the path lacks the
    root path.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    @markcoroutinefunction  # not async, since a coroutine that only passes on costs time
    def __call__(
        self, scope: WebSocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> Awaitable[Any]:
        script_name = (settings.FORCE_SCRIPT_NAME or scope.get("root_path") or "").rstrip("/")
        if script_name:
            path = scope["path"]
            if path != script_name and not path.startswith(f"{script_name}/"):
                path = script_name + path
            scope = cast(WebSocketScope, {**scope, "root_path": script_name, "path": path})
        return self.application(scope, receive, send)
