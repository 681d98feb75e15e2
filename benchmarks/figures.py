"""The figures: what is measured of a peer, and how one sample of it is taken."""

import re
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks import load
from benchmarks.machine import resident_kib
from benchmarks.peers.known import Peer
from benchmarks.server import Server

DEFAULT = "echo-50x1,echo-50x16,echo-500x1,handshakes-50,fanout-500,memory-5000"
UNITS = {
    "echo": "echoes per second",
    "handshakes": "handshakes per second",
    "fanout": "deliveries per second",
    "memory": "KiB per idle connection",
}
NAME = re.compile(r"(echo|handshakes|fanout|memory)(?:-(\d+))?(?:x(\d+))?(?:x(\d+)B)?")
CONNECTIONS = {"echo": 50, "handshakes": 50, "fanout": 500, "memory": 5000}
SIZE = 32  # bytes of a text
WARM_UP = 1.0  # seconds
SETTLING = 1.0  # seconds until a server has done what its last connections gave it to do


@dataclass(frozen=True)
class Figure:
    """A figure: `echo-50x16` has 50 connections with 16 texts in flight each."""

    name: str
    mode: str
    connections: int
    in_flight: int = 1
    size: int = SIZE

    @property
    def unit(self) -> str:
        return UNITS[self.mode]

    @property
    def fanout(self) -> bool:
        return self.mode == "fanout"

    def can_measure(self, peer: Peer) -> bool:
        return not self.fanout or peer.fanout_application is not None


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


def parse(name: str) -> Figure:
    """Return the figure: MODE[-CONNECTIONS][xIN_FLIGHT][xSIZEB]. Raises ValueError."""
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not a figure; known are such as {DEFAULT}.")
    mode, connections, in_flight, size = match.groups()
    return Figure(
        name, mode, int(connections or CONNECTIONS[mode]), int(in_flight or 1), int(size or SIZE)
    )


def measure(figure: Figure, peer: Peer, number: int, seconds: float) -> Sample:
    """Return a sample of a fresh server. Raises StartFailed or LoadFailed."""
    with Server(peer, figure.fanout) as server:
        if figure.mode == "memory":
            return Sample(figure.name, peer.name, number, _memory(server, figure.connections))
        details = load.run(
            figure.mode,
            server.port,
            connections=figure.connections,
            in_flight=figure.in_flight,
            size=figure.size,
            warmup=WARM_UP,
            seconds=seconds,
        )
    return Sample(figure.name, peer.name, number, details["per_second"], details)


def _memory(server: Server, connections: int) -> float:
    # What the first connections load stays for all: it is not the price of one.
    load.run("echo", server.port, connections=50, warmup=0, seconds=0.5)
    time.sleep(SETTLING)
    before = resident_kib(server.pid)
    with load.idle(server.port, connections):
        time.sleep(SETTLING)
        return (resident_kib(server.pid) - before) / connections
