"""The consumer of the original program: it echoes, and closes with the client's code."""

from collections.abc import Awaitable
from functools import lru_cache
from typing import Any

from asgiref.sync import iscoroutinefunction
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, WebSocketScope
from channels.consumer import AsyncConsumer

from echo.extensions import NAME, REPLY

PREFIX = "[Durable Object]: "  # Cloudflare index.js, the "message" listener
REASON = "Durable Object is closing WebSocket"  # Cloudflare index.js, the "close" listener
BINARY = "[object ArrayBuffer]"  # binary data, converted to a string by JavaScript


@lru_cache(maxsize=64)
def _is_async(function: Any) -> bool:
    return iscoroutinefunction(function)


class EchoConsumer(AsyncConsumer):  # type: ignore[misc]  # Channels has no types
    """A consumer that replies to each text with the result of `reply`, which may be overridden.

    Wrap it in `counted`, which adds each connection to the count and the group of its object. The
    consumer does not use Channels' dispatch, which costs a thread switch, two tasks and a channel
    for each message or connection.
    """

    def reply(self, text: str) -> str | Awaitable[str | None] | None:
        """Return the reply to a text, or None to send no reply. May be an `async def`.

        Runs on the event loop. A binary message is passed as "[object ArrayBuffer]".
        """
        return PREFIX + text

    @property
    def name(self) -> str:
        """The name of this connection's object, set by `counted`."""
        return str(self.scope[NAME])

    async def __call__(
        self, scope: WebSocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        self.scope: Any = scope
        await receive()  # websocket.connect
        extensions: dict[str, Any] = self.scope.get("extensions") or {}
        reply_with = extensions.get(REPLY)
        awaits = _is_async(getattr(self.reply, "__func__", self.reply))
        if reply_with is not None and not awaits:
            reply_with(self.reply, self._reply_to_binary)
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        code = await self._answer(receive, send, awaits)
        try:
            await send({"type": "websocket.close", "code": code, "reason": REASON})
        except (OSError, RuntimeError):  # ASGI spec 2.4 and uvicorn
            return  # the connection is already closed

    def _reply_to_binary(self, data: bytes) -> Any:
        return self.reply(BINARY)

    async def _answer(
        self, receive: ASGIReceiveCallable, send: ASGISendCallable, awaits: bool
    ) -> int:
        """Reply to each message until the connection ends, and return its close code."""
        reply: Any = self.reply
        while True:
            event: Any = await receive()
            if event["type"] == "websocket.disconnect":
                return int(event.get("code") or 1005)
            text = event.get("text")
            answer = reply(BINARY if text is None else text)
            if awaits:
                answer = await answer
            if answer is not None:
                event = {"type": "websocket.send", "text": answer}  # no key "bytes", as in Channels
                await send(event)
