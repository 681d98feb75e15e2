"""Denials: HTTP responses to a WebSocket handshake that is not accepted.

See "Websocket Denial Response" in the ASGI spec, an extension that not all servers support.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, WebSocketScope

from echo.log import is_due
from echo.responses import TEXT
from echo.stats import Stats, process_stats

logger = logging.getLogger(__name__)

MAX_LOGGED_LENGTH = 200  # characters of a path or origin: clients may send very long ones

# Looser than asgiref's types: Django's `path()` is typed for views only.
Application = Callable[..., Awaitable[Any]]


async def deny(
    scope: WebSocketScope,
    send: ASGISendCallable,
    reason: str,
    message: str,
    *args: object,
    status: int,
    text: str,
    code: int | None = None,
    headers: Iterable[tuple[bytes, bytes]] = (),
    receive: ASGIReceiveCallable | None = None,
    stats: Stats = process_stats,
) -> None:
    """Deny the handshake with an HTTP response, count the rejection and log it.

    `reason` is a key of the metrics; `message` and `args` are logged. Pass `receive` unless
    `websocket.connect` has been received.

    If the server does not support denial responses and there is a `code`, the connection is
    accepted and closed with that code, which scripts in browsers can read. If there is no code, the
    server rejects the handshake with its own 403.
    """
    stats.rejections[reason] += 1
    log_rejection(scope, reason, message, *args)
    if receive is not None:
        await receive()
    if not supports_denial(scope):
        if code is not None:
            await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        await send({"type": "websocket.close", "code": code or 1008, "reason": text})
        return
    body = text.encode()
    all_headers = [
        (b"content-type", TEXT.encode()),
        (b"cache-control", b"no-store"),
        *headers,
        (b"content-length", b"%d" % len(body)),
    ]
    await send({"type": "websocket.http.response.start", "status": status, "headers": all_headers})
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})


def log_rejection(
    scope: WebSocketScope, reason: str, message: str, *args: object, level: int = logging.WARNING
) -> None:
    """Log the rejection of a handshake, at most once a minute for each reason."""
    if is_due(("rejected", reason)):
        path = scope["path"][:MAX_LOGGED_LENGTH]
        logger.log(level, f"WebSocket handshake on %r rejected: {message}", path, *args)


def supports_denial(scope: WebSocketScope) -> bool:
    """Return whether the server supports denial responses."""
    extensions = cast(Any, scope).get("extensions") or {}
    return "websocket.http.response" in extensions
