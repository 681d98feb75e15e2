"""HTTP answers to a WebSocket handshake that is not accepted."""

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, WebSocketScope

from echo.log import is_due

logger = logging.getLogger(__name__)

LOGGED = 200  # characters of a path: a client may send very many

# asgiref's types know no denial events, and Django's `path()` is typed for views only.
Application = Callable[..., Awaitable[Any]]

Headers = Iterable[tuple[bytes, bytes]]

TEXT = "text/plain;charset=UTF-8"  # as the original writes it


async def refuse(
    scope: WebSocketScope,
    receive: ASGIReceiveCallable,
    send: ASGISendCallable,
    status: int,
    text: str,
) -> None:
    """Answer the handshake with the status and the text; where the server cannot, with its 403."""
    await receive()  # websocket.connect
    await answer(scope, send, status, text)


async def answer(
    scope: WebSocketScope,
    send: ASGISendCallable,
    status: int,
    text: str,
    headers: Headers = (),
    code: int | None = None,
) -> None:
    """Answer a handshake whose `websocket.connect` has been received.

    ASGI spec, "Websocket Denial Response": an extension that servers may lack. Without it:
    accept and close with the code, which a browser tells, or if there is none refuse.
    """
    if can_answer(scope):
        body = text.encode()
        own = [(b"content-type", TEXT.encode()), (b"cache-control", b"no-store"), *headers]
        all_headers = [*own, (b"content-length", b"%d" % len(body))]
        await send(
            {"type": "websocket.http.response.start", "status": status, "headers": all_headers}
        )
        await send({"type": "websocket.http.response.body", "body": body, "more_body": False})
        return
    if code is not None:
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
    await send({"type": "websocket.close", "code": code or 1008, "reason": text})


def log_rejection(
    scope: WebSocketScope, reason: str, sentence: str, *args: object, level: int = logging.WARNING
) -> None:
    """Log why a handshake is rejected, at most once a minute for each reason."""
    if is_due(("rejected", reason)):
        path = scope["path"][:LOGGED]
        logger.log(level, f"WebSocket handshake on %r rejected: {sentence}", path, *args)


def can_answer(scope: WebSocketScope) -> bool:
    """Return whether the server takes an HTTP answer in place of the 101."""
    extensions = cast(dict[str, Any], scope).get("extensions") or {}
    return "websocket.http.response" in extensions
