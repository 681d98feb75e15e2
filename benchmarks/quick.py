"""The regression guard: the working tree beside a commit, in one interleaved run.

Exit status 1 if a figure is clearly slower: its median ratio is below SLOWER, and all rounds
but one say so too. Noise moves single rounds far more, but not nearly all of them to one side.
"""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import figures
from benchmarks.figures import Figure
from benchmarks.machine import ROOT
from benchmarks.measure import put_load
from benchmarks.peers.known import PEERS, Peer
from benchmarks.server import Server
from benchmarks.spread import spread
from benchmarks.trees import export

OURS = ("daphne", "uvicorn")
FIGURES = ("echo-50x1", "echo-50x16", "handshakes-50")
ROUNDS = 9
SECONDS = 0.6  # of each measurement
WARM_UP = 0.2  # seconds
SLOWER = 0.95


def compare(revision: str) -> bool:
    """Print ratios of the working tree to the revision; return whether one is slower."""
    chosen = [(PEERS[name], figures.parse(figure)) for name in OURS for figure in FIGURES]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        export(revision, Path(folder))
        # All are up all the time: idle, they cost the others nothing.
        running = {
            (name, tree): stack.enter_context(Server(PEERS[name], folder=tree))
            for name in OURS
            for tree in (ROOT, Path(folder))
        }
        servers = {name: (running[name, ROOT], running[name, Path(folder)]) for name in OURS}
        rounds = [
            [_both(peer, figure, servers[peer.name], number) for peer, figure in chosen]
            for number in range(ROUNDS)
        ]
    print(f"| Figure | Peer | Working tree / {revision} | |\n|---|---|---|---|")
    verdicts = [
        _verdict(peer, figure, [pair[0] for pair in pairs], [pair[1] for pair in pairs])
        for (peer, figure), pairs in zip(chosen, zip(*rounds, strict=True), strict=True)
    ]
    return any(verdicts)


def is_slower(values: list[float]) -> bool:
    """Return whether these ratios, one a round, tell of something that is clearly slower."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2] < SLOWER and ordered[-2] < 1


def _both(
    peer: Peer, figure: Figure, servers: tuple[Server, Server], number: int
) -> tuple[float, float]:
    """Return the figure of both, measured one after the other, the other way round next time."""
    found = {}
    for server in servers if number % 2 else reversed(servers):
        details = put_load(figure, peer, server.port, WARM_UP, SECONDS)
        if details["errors"]:
            sys.exit(f"{figure.name} of {peer.name}: {details['first_errors']}")
        found[server] = details["per_second"]
    return found[servers[0]], found[servers[1]]


def _verdict(peer: Peer, figure: Figure, now: list[float], before: list[float]) -> bool:
    found = [one / other for one, other in zip(now, before, strict=True)]
    slower = is_slower(found)
    print(f"| {figure.name} | {peer.name} | {spread(found)} | {'slower' if slower else ''} |")
    return slower
