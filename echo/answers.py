"""HTTP answers to a WebSocket handshake that is not accepted."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, WebSocketScope

# asgiref's types know no denial events, and Django's `path()` is typed for views only.
Application = Callable[..., Awaitable[Any]]

TEXT = "text/plain;charset=UTF-8"  # as the original writes it


async def refuse(
    scope: WebSocketScope,
    receive: ASGIReceiveCallable,
    send: ASGISendCallable,
    status: int,
    text: str,
) -> None:
    """Answer the handshake with the status and the text; where the server cannot, with its 403.

    ASGI spec, "Websocket Denial Response": an extension that servers may lack.
    """
    await receive()  # websocket.connect
    if not can_answer(scope):
        await send({"type": "websocket.close", "code": 1008, "reason": text})
        return
    headers = [(b"content-type", TEXT.encode()), (b"cache-control", b"no-store")]
    body = text.encode()
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})


def can_answer(scope: WebSocketScope) -> bool:
    """Return whether the server takes an HTTP answer in place of the 101."""
    extensions = cast(dict[str, Any], scope).get("extensions") or {}
    return "websocket.http.response" in extensions
