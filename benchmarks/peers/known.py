"""The peers: every program that is measured, and how it is started."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.compiled import program
from benchmarks.machine import BUILD
from benchmarks.peers import npm

ALL = frozenset({"echo", "handshakes", "fanout", "memory", "idle", "count"})
NO_FANOUT = ALL - {"fanout"}
NO_COUNT = ALL - {"count"}  # closes the connection after each answer to HTTP
NEITHER = NO_FANOUT - {"count"}


@dataclass(frozen=True)
class Peer:
    """A server that echoes at `path`, and tells its count. It is ready when it listens."""

    name: str
    command: tuple[str, ...]  # {port} and {application} are filled in; PORT is in its environment
    application: str = ""
    fanout_application: str = ""  # sends a text that starts with "all:" to all, as does none else
    modes: frozenset[str] = ALL
    path: str = "/bench/websocket"
    environment: dict[str, str] = field(default_factory=dict)
    redis: bool = False  # gets one of its own, by ECHO_STATE_URL
    prepare: Callable[[], object] | None = None  # raises OSError or CalledProcessError

    @property
    def speaks_socket_io(self) -> bool:
        return self.path.startswith("/socket.io/")

    def command_on(self, port: int, fanout: bool) -> list[str]:
        application = self.application
        if fanout and self.fanout_application:
            application = self.fanout_application
        return [part.format(port=port, application=application) for part in self.command]


# Without access logs, as workerd has none, on one core, and on uvloop where that is their habit.
DAPHNE_OPTIONS = ("-v", "0", "-p", "{port}", "-b", "127.0.0.1", "{application}")
UVICORN_OPTIONS = ("--no-access-log", "--port", "{port}", "{application}")
DAPHNE = (sys.executable, "-m", "daphne", *DAPHNE_OPTIONS)
UVICORN = (sys.executable, "-m", "uvicorn", *UVICORN_OPTIONS)
GRANIAN = (
    *(sys.executable, "-m", "granian", "--interface", "asgi", "--ws", "--no-access-log"),
    *("--loop", "uvloop", "--backpressure", "20000", "--port", "{port}", "{application}"),
)
HYPERCORN = (
    *(sys.executable, "-m", "hypercorn", "-k", "uvloop", "--bind", "127.0.0.1:{port}"),
    "{application}",
)
OUR_DAPHNE = (sys.executable, "-m", "echo.server", *DAPHNE_OPTIONS)
OUR_PROTOCOLS = (
    *("--ws", "echo.server.uvicorn:WebSocketProtocol"),
    *("--http", "echo.server.uvicorn:HTTPProtocol"),
)
OUR_UVICORN = (*UVICORN[:3], *OUR_PROTOCOLS, *UVICORN_OPTIONS)
WORKERD = (
    *(str(npm.WORKERD), "serve", "benchmarks/peers/workerd.capnp", "{application}"),
    *("--socket-addr", "http=127.0.0.1:{port}"),
)
OF_PROJECT = {"DJANGO_SETTINGS_MODULE": "project.settings"}
STARLETTE = "benchmarks.peers.on_starlette:application"


def _workerd(name: str, application: str, modes: frozenset[str]) -> Peer:
    return Peer(name, WORKERD, application, modes=modes, prepare=npm.install)


def _node(name: str, script: str, path: str = Peer.path) -> Peer:
    command = ("node", f"benchmarks/peers/{script}.js")
    environment = {"NODE_PATH": str(npm.MODULES), "NODE_ENV": "production"}
    return Peer(name, command, path=path, environment=environment, prepare=npm.install)


def _module(name: str, module: str, modes: frozenset[str] = ALL) -> Peer:
    return Peer(name, (sys.executable, "-m", f"benchmarks.peers.{module}"), modes=modes)


def _stock(
    name: str, command: tuple[str, ...], in_group: bool = False, redis: bool = False
) -> Peer:
    return Peer(
        name,
        command,
        f"benchmarks.peers.stock:{'grouped' if in_group else 'echoing'}",
        "benchmarks.peers.stock:broadcasting",
        redis=redis,
    )


def _ours(name: str, command: tuple[str, ...], redis: bool = False) -> Peer:
    return Peer(
        name,
        command,
        "project.asgi:application",
        "benchmarks.peers.fanout:application",
        environment=OF_PROJECT,
        redis=redis,
    )


def _loop(name: str, command: tuple[str, ...]) -> Peer:
    application = "benchmarks.peers.loop:application"
    return Peer(name, command, application, modes=frozenset({"echo"}), environment=OF_PROJECT)


_all = (
    Peer("limit", (str(BUILD / "limit"),), prepare=lambda: program("limit.c")),
    _workerd("workerd", "original", NO_FANOUT),
    _workerd("workerd-hibernation", "hibernation", ALL),
    _node("ws", "ws"),
    _node("socket.io", "socket_io", "/socket.io/?EIO=4&transport=websocket"),
    _module("uvloop", "on_uvloop", NEITHER),
    _module("picows", "on_picows", NO_COUNT),
    _module("websockets", "on_websockets", NO_COUNT),
    _module("aiohttp", "on_aiohttp"),
    Peer("starlette-uvicorn", UVICORN, STARLETTE),
    Peer("starlette-granian", GRANIAN, STARLETTE),
    _stock("stock", DAPHNE),
    _stock("stock-group", DAPHNE, in_group=True),
    _stock("stock-group-redis", DAPHNE, in_group=True, redis=True),
    _stock("stock-uvicorn", UVICORN),
    _stock("stock-granian", GRANIAN),
    _stock("stock-hypercorn", HYPERCORN),
    _ours("lean", DAPHNE),
    _ours("daphne", OUR_DAPHNE),
    _ours("uvicorn", OUR_UVICORN),
    _ours("daphne-redis", OUR_DAPHNE, redis=True),
    _ours("uvicorn-redis", OUR_UVICORN, redis=True),
    _loop("daphne-loop", OUR_DAPHNE),
    _loop("uvicorn-loop", OUR_UVICORN),
)
PEERS = {peer.name: peer for peer in _all}
# The others vary one of these, and are left out of the figures that take long.
MAIN = frozenset(
    (
        *("limit", "uvloop", "workerd", "workerd-hibernation", "ws", "socket.io"),
        *("starlette-uvicorn", "stock", "daphne", "uvicorn", "daphne-redis"),
    )
)
