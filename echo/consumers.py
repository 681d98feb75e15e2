"""The consumer of the original program: it echoes, and closes with the client's code."""

from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from asgiref.sync import iscoroutinefunction
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, WebSocketScope
from channels.consumer import AsyncConsumer

from echo.extensions import NAME, REPLY

PREFIX = "[Durable Object]: "  # Cloudflare index.js, the "message" listener
REASON = "Durable Object is closing WebSocket"  # Cloudflare index.js, the "close" listener
BINARY = "[object ArrayBuffer]"  # what JavaScript makes of binary data in a string


class EchoConsumer(AsyncConsumer):  # type: ignore[misc]  # Channels has no types
    """One connection of an object: each text is answered by `reply`, which may be overridden.

    Wrap it in `counted`, by which it joins the count and the group of its object. Its receive loop
    is its own: Channels' dispatch costs a thread hop, two tasks and a channel for each message or
    connection.
    """

    def reply(self, text: str) -> str | Awaitable[str | None] | None:
        """Return the answer to a text, or None for no answer. May be an `async def`.

        Runs on the event loop. A binary message is given as "[object ArrayBuffer]".
        """
        return PREFIX + text

    @property
    def name(self) -> str:
        """The name of the object of this connection, as `counted` has it."""
        return str(self.scope[NAME])

    async def __call__(
        self, scope: WebSocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        self.scope: Any = scope
        await receive()  # websocket.connect
        extensions: dict[str, Any] = self.scope.get("extensions") or {}
        reply_with = extensions.get(REPLY)
        if reply_with is not None and not iscoroutinefunction(self.reply):
            reply_with(self.reply, self._reply_to_binary)
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        code = await self._answer(receive, send)
        # A server that has closed already refuses: OSError in the ASGI spec 2.4, RuntimeError
        # in uvicorn.
        with suppress(OSError, RuntimeError):
            await send({"type": "websocket.close", "code": code, "reason": REASON})

    def _reply_to_binary(self, data: bytes) -> Any:
        return self.reply(BINARY)

    async def _answer(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> int:
        """Answer each message until the connection ends, and return the code of its end."""
        reply: Any = self.reply
        awaits = iscoroutinefunction(reply)
        while True:
            event: Any = await receive()
            if event["type"] == "websocket.disconnect":
                return int(event.get("code") or 1005)
            text = event.get("text")
            answer = reply(BINARY if text is None else text)
            if awaits:
                answer = await answer
            if answer is not None:
                event = {"type": "websocket.send", "text": answer}  # one key, as Channels has it
                await send(event)
