"""The same job with aiohttp: `python -m benchmarks.peers.with_aiohttp PORT`."""

import sys

import uvloop
from aiohttp import WSMsgType, web

from benchmarks.peers.words import COUNT_PATH, PREFIX, sentence

connections = 0


async def echo(request: web.Request) -> web.WebSocketResponse:
    global connections
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    connections += 1
    try:
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(PREFIX + message.data)
    finally:
        connections -= 1
    return socket


async def count(request: web.Request) -> web.Response:
    return web.Response(text=sentence(connections))


application = web.Application()
application.add_routes([web.get("/bench/websocket", echo), web.get(COUNT_PATH, count)])
web.run_app(
    application,
    host="127.0.0.1",
    port=int(sys.argv[1]),
    access_log=None,
    print=None,
    loop=uvloop.new_event_loop(),
)
