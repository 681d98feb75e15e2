"""The same job with Starlette, which needs a server."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

PREFIX = "[Durable Object]: "
members: set[WebSocket] = set()


async def websocket(socket: WebSocket) -> None:
    await socket.accept()
    members.add(socket)
    try:
        async for text in socket.iter_text():
            if not text.startswith("all:"):
                await socket.send_text(PREFIX + text)
                continue
            for member in list(members):
                await member.send_text(text)
    finally:
        members.discard(socket)


async def count(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{len(members)}")


application = Starlette(
    routes=[
        WebSocketRoute("/{name}/websocket", websocket),
        Route("/{name}/getCurrentConnections", count),
    ]
)
