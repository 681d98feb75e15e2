"""The same job in Starlette, for any ASGI server."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from benchmarks.peers.words import COUNT_PATH, PREFIX, sentence

connections = 0


async def echo(socket: WebSocket) -> None:
    global connections
    await socket.accept()
    connections += 1
    try:
        async for text in socket.iter_text():
            await socket.send_text(PREFIX + text)
    finally:
        connections -= 1


async def count(request: Request) -> PlainTextResponse:
    return PlainTextResponse(sentence(connections))


application = Starlette(routes=[WebSocketRoute("/bench/websocket", echo), Route(COUNT_PATH, count)])
