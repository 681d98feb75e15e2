"""HTTP responses to handshakes on paths without a WebSocket route."""

import asyncio
from typing import Any, cast

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, WebSocketScope

from echo.denial import Application, log_rejection, supports_denial


class HTTPFallback:
    """ASGI application that denies a handshake with the response to the same plain HTTP request."""

    def __init__(self, http: Application) -> None:
        self.http = http

    async def __call__(
        self, scope: WebSocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if not supports_denial(scope):
            await receive()  # websocket.connect
            log_rejection(scope, "path", "the site has no WebSocket route for this path")
            await send({"type": "websocket.close", "code": 1008, "reason": "No such path."})
            return

        async def http_receive() -> Any:
            if requests:
                return requests.pop()
            # This project's servers reject a handshake without a valid key when the application
            # calls `receive`. Wait, since the response for a wrong path has priority, as in the
            # original program.
            await has_responded.wait()
            while (await receive())["type"] != "websocket.disconnect":
                pass
            return {"type": "http.disconnect"}

        async def http_send(event: Any) -> None:
            has_responded.set()
            denial: Any = {**event, "type": f"websocket.{event['type']}"}
            await send(denial)

        has_responded = asyncio.Event()
        requests = [{"type": "http.request", "body": b"", "more_body": False}]
        await self.http(_as_http(scope), http_receive, http_send)


def _as_http(scope: WebSocketScope) -> HTTPScope:
    same = {key: value for key, value in scope.items() if key not in ("subprotocols", "url_route")}
    scheme = "https" if scope.get("scheme") == "wss" else "http"
    return cast(HTTPScope, {**same, "type": "http", "method": "GET", "scheme": scheme})
