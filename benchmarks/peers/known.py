"""The peers: every program that is measured, and how it is started."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.machine import ROOT
from benchmarks.peers import from_npm


@dataclass(frozen=True)
class Peer:
    """A server that echoes at /bench/websocket. It is ready when it listens."""

    name: str
    command: tuple[str, ...]  # {port} and {application} are filled in
    application: str = ""
    fanout_application: str | None = None  # sends a text that starts with "all:" to all
    counts: bool = False  # does it tell the count at /bench/getCurrentConnections?
    environment: dict[str, str] = field(default_factory=dict)  # {redis} is filled in
    prepare: Callable[[], None] | None = None  # raises OSError or CalledProcessError
    folder: Path = ROOT

    def command_on(self, port: int, fanout: bool) -> list[str]:
        application = self.fanout_application if fanout else self.application
        assert application is not None
        return [part.format(port=port, application=application) for part in self.command]

    @property
    def needs_redis(self) -> bool:
        return "{redis}" in self.environment.values()


PYTHON = (sys.executable, "-m")
# Without an access log, as workerd has none.
OPTIONS = ("-v", "0", "-p", "{port}", "-b", "127.0.0.1", "{application}")
DAPHNE = (*PYTHON, "daphne", *OPTIONS)
UVICORN = (*PYTHON, "uvicorn", "--no-access-log", "--port", "{port}", "{application}")
GRANIAN = (
    *(*PYTHON, "granian", "--interface", "asgi", "--loop", "uvloop", "--no-access-log"),
    *("--log-level", "warning", "--port", "{port}", "{application}"),
)
HYPERCORN = (*PYTHON, "hypercorn", "-k", "uvloop", "-b", "127.0.0.1:{port}", "{application}")
OUR_DAPHNE = (*PYTHON, "echo.server", *OPTIONS)
OUR_UVICORN = (*UVICORN, "--ws", "echo.server.uvicorn:WebSocketProtocol")
WORKERD = (
    *(str(from_npm.WORKERD), "serve", str(from_npm.CONFIGURATION), "{application}"),
    *("--socket-addr", "http=127.0.0.1:{port}"),
)
STOCK = "benchmarks.peers.stock"
STARLETTE = "benchmarks.peers.with_starlette:application"
DEMO = {"DJANGO_SETTINGS_MODULE": "project.settings"}


def _with(library: str, counts: bool = True) -> Peer:
    command = (*PYTHON, f"benchmarks.peers.with_{library}", "{port}")
    return Peer(library, command, counts=counts)


def _stock(server: str, command: tuple[str, ...]) -> Peer:
    return Peer(f"stock-{server}", command, f"{STOCK}:echoing", f"{STOCK}:broadcasting")


def _ours(name: str, command: tuple[str, ...], application: str = "project.asgi") -> Peer:
    return Peer(
        name,
        command,
        application=f"{application}:application",
        fanout_application="benchmarks.peers.fanout:application",
        counts=True,
        environment=DEMO,
    )


def _on_redis(peer: Peer, **environment: str) -> Peer:
    return replace(peer, name=f"{peer.name}-redis", environment={**peer.environment, **environment})


_stock_daphne = replace(_stock("daphne", DAPHNE), name="stock")
_daphne = _ours("daphne", OUR_DAPHNE)
_uvicorn = _ours("uvicorn", OUR_UVICORN)

PEERS = {
    peer.name: peer
    for peer in (
        Peer("workerd", WORKERD, "original", counts=True, prepare=from_npm.install),
        Peer(
            *("workerd-hibernation", WORKERD, "hibernation", "hibernation"),
            prepare=from_npm.install,
        ),
        Peer("bare", (*PYTHON, "benchmarks.peers.bare", "{port}"), counts=True),
        Peer("ws", ("node", str(from_npm.WS), "{port}"), counts=True, prepare=from_npm.install),
        _with("picows", counts=False),
        _with("websockets", counts=False),  # it closes each HTTP connection
        _with("aiohttp"),
        Peer("starlette-uvicorn", UVICORN, STARLETTE, counts=True),
        Peer("starlette-granian", GRANIAN, STARLETTE, counts=True),
        _stock_daphne,
        replace(_stock_daphne, name="stock-group", application=f"{STOCK}:grouped"),
        _on_redis(_stock_daphne, BENCHMARK_REDIS_URL="{redis}"),
        _stock("uvicorn", UVICORN),
        _stock("granian", GRANIAN),
        _stock("hypercorn", HYPERCORN),
        _ours("lean", DAPHNE),
        _daphne,
        _uvicorn,
        _ours("daphne-loop", OUR_DAPHNE, "benchmarks.peers.loop"),
        _ours("uvicorn-loop", OUR_UVICORN, "benchmarks.peers.loop"),
        _on_redis(_daphne, ECHO_STATE_URL="{redis}"),
        _on_redis(_uvicorn, ECHO_STATE_URL="{redis}"),
        _ours("uvicorn-count-first", OUR_UVICORN, "benchmarks.peers.count_first"),
    )
}
