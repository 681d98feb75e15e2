"""Replies to texts such as "ping" that the application never receives."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from asgiref.typing import ASGIReceiveCallable
from django.core.exceptions import ImproperlyConfigured

from echo.counting.connection import CountedConnection


def check_auto_reply(auto_reply: Mapping[str, str] | None) -> dict[str, str]:
    """Return a copy of the replies. Raises ImproperlyConfigured unless they are texts by text."""
    if auto_reply is None:
        return {}
    if not isinstance(auto_reply, Mapping):
        raise ImproperlyConfigured(
            f"counted(auto_reply={auto_reply!r}): expected a dict of replies by text, for example "
            '{"ping": "pong"}.'
        )
    for text in (*auto_reply, *auto_reply.values()):
        if not isinstance(text, str):
            raise ImproperlyConfigured(f"counted(auto_reply={auto_reply!r}): {text!r} is no text.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            message = f"counted(auto_reply={auto_reply!r}): {text!r} cannot be sent: {error}"
            raise ImproperlyConfigured(message) from error
    return dict(auto_reply)


def replying_receive(
    receive: ASGIReceiveCallable, replies: Mapping[str, str], connection: CountedConnection
) -> Callable[[], Awaitable[Any]]:
    """Return a `receive` that replies to those texts, and returns all other events."""

    async def replying() -> Any:
        while True:
            event: Any = await receive()
            if event["type"] != "websocket.receive":
                return event
            reply = replies.get(event.get("text"))
            if reply is None:
                return event
            if not connection.has_left:
                answer: Any = {"type": "websocket.send", "text": reply}
                # Servers raise either if the connection has been closed.
                with suppress(OSError, RuntimeError):
                    await connection.send(answer)

    return replying
