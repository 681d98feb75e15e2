"""The same job with the library websockets: `python -m benchmarks.peers.with_websockets PORT`."""

import sys
from http import HTTPStatus

import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from benchmarks.peers.words import COUNT_PATH, PREFIX, sentence

connections = 0


async def echo(socket: ServerConnection) -> None:
    global connections
    connections += 1
    try:
        async for text in socket:
            await socket.send(f"{PREFIX}{text!s}")
    finally:
        connections -= 1


def count(socket: ServerConnection, request: Request) -> Response | None:
    if request.path == COUNT_PATH:
        return socket.respond(HTTPStatus.OK, sentence(connections))
    return None


async def main() -> None:
    port = int(sys.argv[1])
    async with serve(echo, "127.0.0.1", port, process_request=count, compression=None) as server:
        await server.serve_forever()


uvloop.run(main())
