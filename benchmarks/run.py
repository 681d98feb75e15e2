"""An interleaved run: in each round every peer once per figure, in another order.

Servers live for a round, side by side: idle, they cost each other nothing. A figure for which the
past of a server counts gets a fresh one.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

from benchmarks import versions
from benchmarks.figures import Figure, Sample
from benchmarks.load import LoadFailed
from benchmarks.measure import measure
from benchmarks.peers.known import MAIN, PEERS, Peer
from benchmarks.server import Server, StartFailed


class Run:
    """What has been measured, and what was left out and why."""

    def __init__(self, peers: list[Peer] | None, figures: list[Figure]) -> None:
        """Without peers it is all of them, and the main ones for figures that take long."""
        self._spares_time = peers is None
        self.left_out: dict[str, str] = {}
        self.samples: list[Sample] = []
        self._began = time.strftime("%Y-%m-%d %H:%M")
        self._figures = figures
        self._peers = self._prepared(list(PEERS.values()) if peers is None else peers)

    def measure(self, rounds: int, seconds: float, minutes: float) -> None:
        """Measure; when the minutes are over, begin no more samples."""
        self._options = {"rounds": rounds, "seconds": seconds}
        end = time.monotonic() + minutes * 60
        for number in range(1, rounds + 1):
            with ExitStack() as self._round:
                self._running: dict[str, Server] = {}
                for figure in self._figures:
                    for peer in self._in_order(figure, number):
                        if time.monotonic() > end:
                            what = f"what follows round {number}, {figure.name}"
                            self._leave_out(what, "time is up")
                            return
                        self._sample(figure, peer, number, seconds)

    def raw(self) -> dict[str, Any]:
        """Return all of it, as it is written to JSON."""
        return {
            "began": self._began,
            **self._options,
            "versions": versions.describe(),
            "left_out": self.left_out,
            "samples": [asdict(sample) for sample in self.samples],
        }

    def _in_order(self, figure: Figure, number: int) -> list[Peer]:
        peers = [peer for peer in self._peers if figure.can_measure(peer)]
        if self._spares_time and figure.takes_long:
            peers = [peer for peer in peers if peer.name in MAIN]
        start = (number - 1) % (len(peers) or 1)
        return [*peers[start:], *peers[:start]]

    def _sample(self, figure: Figure, peer: Peer, number: int, seconds: float) -> None:
        figure_of_peer = f"{figure.name} of {peer.name}"
        if self.left_out.keys() & {peer.name, figure_of_peer}:
            return
        try:
            with self._server(figure, peer) as server:
                samples = _measured(figure, peer, server, number, seconds)
        except StartFailed as error:
            self._leave_out(peer.name, str(error))
            return
        except (LoadFailed, OSError) as error:
            self._leave_out(figure_of_peer, str(error))
            return
        self.samples += samples
        for sample in samples:
            value = f"{sample.value:,.1f}, {sample.errors} errors"
            _say(f"round {number}, {sample.figure}, {peer.name}: {value}")

    @contextmanager
    def _server(self, figure: Figure, peer: Peer) -> Iterator[Server]:
        if figure.needs_fresh_server:
            with Server(peer, figure.mode == "fanout") as server:
                yield server
            return
        running = self._running.get(peer.name)
        if running is None or running.has_ended:
            running = self._running[peer.name] = self._round.enter_context(Server(peer))
        yield running

    def _prepared(self, peers: list[Peer]) -> list[Peer]:
        for peer in peers:
            try:
                if peer.prepare is not None:
                    peer.prepare()
            except (OSError, subprocess.CalledProcessError) as error:
                self._leave_out(peer.name, str(error))
        return [peer for peer in peers if peer.name not in self.left_out]

    def _leave_out(self, what: str, reason: str) -> None:
        self.left_out[what] = reason
        _say(f"{what} is left out: {reason}")


def _measured(
    figure: Figure, peer: Peer, server: Server, number: int, seconds: float
) -> list[Sample]:
    try:
        return measure(figure, peer, server, number, seconds)
    except LoadFailed as error:
        if not server.ends():
            raise
        raise LoadFailed(f"the server ended: {server.last_words()}") from error


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
