"""The same job with aiohttp, on uvloop."""

import os

import uvloop
from aiohttp import WSMsgType, web

PREFIX = "[Durable Object]: "
members: set[web.WebSocketResponse] = set()


async def websocket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    members.add(socket)
    try:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            if not message.data.startswith("all:"):
                await socket.send_str(PREFIX + message.data)
                continue
            for member in list(members):
                await member.send_str(message.data)
    finally:
        members.discard(socket)
    return socket


async def count(request: web.Request) -> web.Response:
    return web.Response(text=f"{len(members)}")


site = web.Application()
site.add_routes(
    [web.get("/{name}/websocket", websocket), web.get("/{name}/getCurrentConnections", count)]
)
web.run_app(
    site,
    host="127.0.0.1",
    port=int(os.environ["PORT"]),
    backlog=4096,
    access_log=None,
    print=None,
    loop=uvloop.new_event_loop(),
)
