"""The same job with `websockets`, on uvloop. It closes the connection after an answer to HTTP."""

import os

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

PREFIX = "[Durable Object]: "
members: set[ServerConnection] = set()


async def echo(socket: ServerConnection) -> None:
    members.add(socket)
    try:
        async for text in socket:
            assert isinstance(text, str)
            if text.startswith("all:"):
                broadcast(members, text)
            else:
                await socket.send(PREFIX + text)
    finally:
        members.discard(socket)


async def main() -> None:
    port = int(os.environ["PORT"])
    async with serve(echo, "127.0.0.1", port, compression=None, backlog=4096) as server:
        await server.serve_forever()


uvloop.run(main())
