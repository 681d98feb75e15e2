"""The peers: every program that is measured, and how it is started."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.peers import workerd


@dataclass(frozen=True)
class Peer:
    """A server that echoes at /bench/websocket. It is ready when it listens."""

    name: str
    command: tuple[str, ...]  # {port} and {application} are filled in
    application: str
    fanout_application: str | None = None  # sends a text that starts with "all:" to all
    environment: dict[str, str] = field(default_factory=dict)
    redis: bool = False  # gets one of its own, by ECHO_STATE_URL
    prepare: Callable[[], None] | None = None  # raises OSError or CalledProcessError

    def command_on(self, port: int, fanout: bool) -> list[str]:
        application = self.fanout_application if fanout else self.application
        assert application is not None
        return [part.format(port=port, application=application) for part in self.command]


WORKERD = (
    *(str(workerd.PROGRAM), "serve", str(workerd.CONFIGURATION), "{application}"),
    *("--socket-addr", "http=127.0.0.1:{port}"),
)
# Without an access log, as workerd has none.
OPTIONS = ("-v", "0", "-p", "{port}", "-b", "127.0.0.1", "{application}")
DAPHNE = (sys.executable, "-m", "daphne", *OPTIONS)
OUR_DAPHNE = (sys.executable, "-m", "echo.server", *OPTIONS)
OUR_UVICORN = (
    *(sys.executable, "-m", "uvicorn", "--ws", "echo.server.uvicorn:WebSocketProtocol"),
    *("--no-access-log", "--port", "{port}", "{application}"),
)


def _ours(name: str, command: tuple[str, ...], redis: bool = False) -> Peer:
    return Peer(
        name,
        command,
        redis=redis,
        application="project.asgi:application",
        fanout_application="benchmarks.peers.fanout:application",
        environment={"DJANGO_SETTINGS_MODULE": "project.settings"},
    )


PEERS = {
    peer.name: peer
    for peer in (
        Peer("workerd", WORKERD, "original", prepare=workerd.install),
        Peer(
            *("workerd-hibernation", WORKERD, "hibernation", "hibernation"),
            prepare=workerd.install,
        ),
        Peer(
            *("stock", DAPHNE),
            application="benchmarks.peers.stock:echoing",
            fanout_application="benchmarks.peers.stock:broadcasting",
        ),
        Peer(
            *("stock-group", DAPHNE),
            application="benchmarks.peers.stock:grouped",
            fanout_application="benchmarks.peers.stock:broadcasting",
        ),
        Peer(
            *("stock-group-redis", DAPHNE),
            application="benchmarks.peers.stock:grouped",
            fanout_application="benchmarks.peers.stock:broadcasting",
            redis=True,
        ),
        _ours("lean", DAPHNE),
        _ours("daphne", OUR_DAPHNE),
        _ours("uvicorn", OUR_UVICORN),
        _ours("daphne-redis", OUR_DAPHNE, redis=True),
        _ours("uvicorn-redis", OUR_UVICORN, redis=True),
    )
}
