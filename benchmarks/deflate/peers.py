"""The servers that are compared: all echo, and compress if the client offers it."""

from benchmarks.peers import npm
from benchmarks.peers.known import OUR_DAPHNE, OUR_UVICORN, UVICORN, Peer

ECHO = "benchmarks.deflate.echo:application"
LIFESPAN = ("--lifespan", "off")  # the application knows WebSockets only

PEERS = (
    Peer("uvicorn", (*OUR_UVICORN, *LIFESPAN), ECHO),
    Peer("daphne", (*OUR_DAPHNE, "--websocket-deflate"), ECHO),
    Peer("stock-uvicorn", (*UVICORN, *LIFESPAN), ECHO),
    Peer("stock-uvicorn-legacy", (*UVICORN, *LIFESPAN, "--ws", "websockets"), ECHO),
    Peer(
        "ws",
        ("node", "benchmarks/deflate/ws.js"),
        environment={"NODE_PATH": str(npm.MODULES), "NODE_ENV": "production"},
        prepare=npm.install,
    ),
)
