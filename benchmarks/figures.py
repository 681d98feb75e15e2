"""The figures: what is measured of a peer."""

import re
from dataclasses import dataclass, field
from typing import Any

from benchmarks.peers.known import Peer

DEFAULT = ",".join(
    (
        *(f"echo-{connections}x1" for connections in (1, 10, 50, 500, 5000, 10000)),
        *("echo-1x16", "echo-50x16", "echo-500x16", "echo-50x1x1024B", "echo-50x1x65536B"),
        *("handshakes-50", "handshakes-500", "fanout-50", "fanout-500", "fanout-5000"),
        *("count-50", "memory-1000", "idle-5000"),
    )
)
FEW = 500  # connections; what has more takes long
UNITS = {
    "echo": "echoes per second",
    "handshakes": "handshakes per second",
    "fanout": "deliveries per second",
    "count": "answers per second",
    "memory": "KiB per idle connection",
    "cpu": "µs of CPU per idle connection and second",
}
MODES = "echo|handshakes|fanout|count|memory|idle"
NAME = re.compile(rf"({MODES})(?:-(\d+))?(?:x(\d+))?(?:x(\d+)B)?")
CONNECTIONS = {"fanout": 500, "memory": 5000, "idle": 5000}
SIZE = 32  # bytes of a text


@dataclass(frozen=True)
class Figure:
    """A figure: `echo-50x16` has 50 connections with 16 texts in flight each."""

    name: str
    mode: str
    connections: int
    in_flight: int = 1
    size: int = SIZE

    @property
    def results(self) -> list[str]:
        """Return what its samples are of: an idle connection costs memory and time."""
        if self.mode == "idle":
            return [f"memory-{self.connections}", f"cpu-{self.connections}"]
        return [self.name]

    @property
    def takes_long(self) -> bool:
        return self.connections > FEW

    @property
    def needs_fresh_server(self) -> bool:
        """Return whether a server that has done something else would tell something else."""
        return self.takes_long or self.mode in ("fanout", "memory", "idle")

    def can_measure(self, peer: Peer) -> bool:
        return self.mode in peer.modes


@dataclass(frozen=True)
class Sample:
    """One measurement of a figure of a peer."""

    figure: str
    peer: str
    round: int
    value: float  # in the figure's unit
    details: dict[str, Any] = field(default_factory=dict)  # what the generator printed

    @property
    def errors(self) -> int:
        return int(self.details.get("errors", 0))


def unit(figure: str) -> str:
    """Return the unit of a figure by its name."""
    return UNITS[figure.partition("-")[0]]


def parse(name: str) -> Figure:
    """Return the figure: MODE[-CONNECTIONS][xIN_FLIGHT][xSIZEB]. Raises ValueError."""
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not a figure; known are such as {DEFAULT}.")
    mode, connections, in_flight, size = match.groups()
    number = int(connections or CONNECTIONS.get(mode, 50))
    return Figure(name, mode, number, int(in_flight or 1), int(size or SIZE))
