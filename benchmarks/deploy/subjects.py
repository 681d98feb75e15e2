"""What is deployed: a peer, how its processes are named, and how they drain."""

from dataclasses import dataclass, field
from signal import Signals

from benchmarks.peers.known import DAPHNE, PEERS, Peer
from echo.conf import Conf

NGINX, SOCKET = "nginx", "socket"
CAN_DRAIN = hasattr(Conf, "ECHO_DRAIN_SECONDS")
OF_DAPHNE = ("--server-name", "{label}")


@dataclass(frozen=True)
class Subject:
    """A site with several processes, which the clients reach in one of several ways."""

    name: str
    peer: Peer
    fronts: tuple[str, ...]
    options: tuple[str, ...] = ()  # {label} is filled in
    label: str = "{label}"  # the `Server` field of its responses
    count: str = "/bench/getCurrentConnections"
    processes: int = 2
    max_clients: int = 20_000
    signal: Signals = Signals.SIGTERM  # stops a process
    environment: dict[str, str] = field(default_factory=dict)
    can_drain: bool = False

    def command(self, label: str, port: int, shared: int | None) -> list[str]:
        """Return the command: it listens on the port, and on the shared socket if any."""
        options = [part.format(label=label) for part in self.options]
        inherited = [] if shared is None else ["--fd", str(shared)]
        return [*self.peer.command_on(port, False), *options, *inherited]


@dataclass(frozen=True)
class Scenario:
    """How a subject is deployed.

    Behind nginx a process is stopped, and then started again, as `systemctl restart` does. At a
    shared socket the new process is started before the old one is stopped.
    """

    subject: Subject
    front: str
    drain: float = 0  # seconds

    @property
    def name(self) -> str:
        return "/".join((self.subject.name, self.front, *(("drain",) if self.drain else ())))


def _ours(name: str, options: tuple[str, ...], *fronts: str) -> Subject:
    settings = {"DJANGO_SETTINGS_MODULE": "benchmarks.deploy.settings"}
    return Subject(
        name, PEERS[f"{name}-redis"], fronts, options, environment=settings, can_drain=CAN_DRAIN
    )


_stock = Peer("stock-counting", DAPHNE, "benchmarks.peers.stock:counting", redis=True)
SUBJECTS = (
    _ours("daphne", OF_DAPHNE, NGINX, SOCKET),
    _ours("uvicorn", ("--no-server-header", "--header", "Server:{label}"), NGINX),
    # On one core it cannot echo to 5,000 clients once a second.
    Subject(
        "stock",
        _stock,
        (NGINX, SOCKET),
        OF_DAPHNE,
        count="/bench/countInRedis",
        max_clients=2000,
    ),
    # An object is in one process, so there is one. After SIGTERM it waits until its clients
    # leave.
    Subject("workerd", PEERS["workerd"], (NGINX,), label="-", processes=1, signal=Signals.SIGKILL),
)


def scenarios(drain: float) -> list[Scenario]:
    """Return all of them, with and without draining where it is possible."""
    return [
        Scenario(subject, front, seconds)
        for subject in SUBJECTS
        for front in subject.fronts
        for seconds in sorted({0, drain})
        if not seconds or subject.can_drain
    ]
