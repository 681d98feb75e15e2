"""How a sample of a figure is taken."""

import time
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from benchmarks import load
from benchmarks.figures import Figure, Sample
from benchmarks.machine import cpu_seconds, resident_kib
from benchmarks.peers.known import Peer
from benchmarks.server import Server

WARM_UP = 0.5  # seconds
AT_ONCE = 2500  # connections; with more of them a measurement takes longer
SETTLING = 1.0  # seconds until a server has done what its last connections gave it to do
WATCHED = 21.0  # seconds of an idle server: our servers, and others, ping every 20
COUNTED = 7  # connections that a count must tell
COUNT = "/bench/getCurrentConnections"
KNOWN_TIMEOUT = 10.0  # seconds


def measure(
    figure: Figure, peer: Peer, server: Server, number: int, seconds: float
) -> list[Sample]:
    """Return a sample for each result of the figure. Raises LoadFailed."""
    if figure.mode in ("memory", "idle"):
        values = _idle(figure, peer, server)
        return [Sample(r, peer.name, number, values[r.partition("-")[0]]) for r in figure.results]
    longer = max(1.0, figure.connections / AT_ONCE)
    details = put_load(figure, peer, server.port, WARM_UP * longer, seconds * longer)
    return [Sample(figure.name, peer.name, number, details["per_second"], details)]


def put_load(
    figure: Figure, peer: Peer, port: int, warmup: float, seconds: float
) -> dict[str, Any]:
    """Return what the load generator measured. Raises LoadFailed."""
    options: dict[str, Any] = {
        "connections": figure.connections,
        "warmup": warmup,
        "seconds": seconds,
    }
    if figure.mode == "count":
        with load.idle(port, COUNTED, **_dialect(peer)):
            _wait_until_it_is_known(port)
            return load.run("count", port, path=COUNT, expected=COUNTED, **options)
    options |= {"in_flight": figure.in_flight, "size": figure.size, **_dialect(peer)}
    return load.run(figure.mode, port, **options)


def _wait_until_it_is_known(port: int) -> None:
    """A Redis that has just started may have lost data: it is not believed for a moment."""
    end = time.monotonic() + KNOWN_TIMEOUT
    while True:
        try:
            urlopen(f"http://127.0.0.1:{port}{COUNT}").close()
            return
        except HTTPError as error:
            if time.monotonic() > end:
                raise load.LoadFailed(f"no count: {error}") from error
            time.sleep(0.1)


def _dialect(peer: Peer) -> dict[str, Any]:
    return {"path": peer.path, **({"socket_io": True} if peer.speaks_socket_io else {})}


def _idle(figure: Figure, peer: Peer, server: Server) -> dict[str, float]:
    # What the first connections load stays for all: it is not the price of one.
    load.run("echo", server.port, connections=50, warmup=0, seconds=0.5, **_dialect(peer))
    time.sleep(SETTLING)
    before = resident_kib(server.pid)
    with load.idle(server.port, figure.connections, **_dialect(peer)):
        time.sleep(SETTLING)
        memory = (resident_kib(server.pid) - before) / figure.connections
        if figure.mode == "memory":
            return {"memory": memory}
        began, cpu_before = time.monotonic(), cpu_seconds(server.pid)
        time.sleep(WATCHED)
        busy = (cpu_seconds(server.pid) - cpu_before) / (time.monotonic() - began)
        return {"memory": memory, "cpu": busy * 1e6 / figure.connections}
