"""The figures: what is measured of a peer, and how one sample of it is taken."""

import re
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks import load
from benchmarks.peers.known import Peer
from benchmarks.peers.words import COUNT_PATH
from benchmarks.server import Server

DEFAULT = (
    "echo-1x1,echo-50x1,echo-500x1,echo-50x16,echo-50x1x1024B,echo-50x1x65536B,"
    "handshakes-50,fanout-500,count-50,memory-5000,idle-5000"
)
GROWTH = "echo-10x1,echo-100x1,echo-1000x1,echo-10000x1,memory-10,memory-1000,memory-10000"
UNITS = {
    "echo": "echoes per second",
    "handshakes": "handshakes per second",
    "fanout": "deliveries per second",
    "count": "counts by HTTP per second",
    "memory": "KiB per idle connection",
    "idle": "ms of CPU per second, of 1000 idle connections",
}
NAME = re.compile(r"(echo|handshakes|fanout|count|memory|idle)(?:-(\d+))?(?:x(\d+))?(?:x(\d+)B)?")
CONNECTIONS = {
    "echo": 50,
    "handshakes": 50,
    "fanout": 500,
    "count": 50,
    "memory": 5000,
    "idle": 5000,
}
SIZE = 32  # bytes of a text
WARM_UP = 1.0  # seconds
IDLE = 5.0  # seconds
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
    def less_is_better(self) -> bool:
        return self.mode in ("memory", "idle")

    @property
    def fanout(self) -> bool:
        return self.mode == "fanout"

    def can_measure(self, peer: Peer) -> bool:
        if self.mode == "count":
            return peer.counts
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
        if figure.mode == "idle":
            return Sample(figure.name, peer.name, number, _idle(server, figure.connections))
        details = put_load(figure, server, seconds)
    return Sample(figure.name, peer.name, number, details["per_second"], details)


def put_load(figure: Figure, server: Server, seconds: float) -> dict[str, Any]:
    """Put the figure's load on a server, and return what the generator printed."""
    return load.run(
        figure.mode,
        server.port,
        **({"path": COUNT_PATH} if figure.mode == "count" else {}),
        connections=figure.connections,
        in_flight=figure.in_flight,
        size=figure.size,
        warmup=WARM_UP,
        seconds=seconds,
    )


def _memory(server: Server, connections: int) -> float:
    # What the first connections load stays for all: it is not the price of one.
    load.run("echo", server.port, connections=50, warmup=0, seconds=0.5)
    time.sleep(SETTLING)
    before = server.resident_kib()
    with load.idle(server.port, connections):
        time.sleep(SETTLING)
        return (server.resident_kib() - before) / connections


def _idle(server: Server, connections: int) -> float:
    with load.idle(server.port, connections):
        time.sleep(SETTLING)
        before = server.cpu_seconds()
        time.sleep(IDLE)
        used = server.cpu_seconds() - before
    return used / IDLE * 1000 / (connections / 1000)
