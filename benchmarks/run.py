"""An interleaved run: every sample, and who was left out of it."""

import subprocess
import sys

from benchmarks import figures
from benchmarks.figures import Figure, Sample
from benchmarks.load import LoadFailed
from benchmarks.peers.known import Peer
from benchmarks.server import StartFailed


class Run:
    """An interleaved run: in each round every peer once per figure, in another order."""

    def __init__(self, peers: list[Peer], chosen: list[Figure], references: list[Peer]) -> None:
        self.left_out: dict[str, str] = {}
        self.samples: list[Sample] = []
        self._peers = self._prepared([*peers, *(p for p in references if p not in peers)])
        references = [peer for peer in references if peer in self._peers]
        self.references = {figure: _first(references, figure) for figure in chosen}
        self._wanted = {
            figure: [
                peer
                for peer in self._peers
                if figure.can_measure(peer) and (peer in peers or peer.name == reference)
            ]
            for figure, reference in self.references.items()
        }

    def measure(self, rounds: int, seconds: float) -> None:
        for number in range(rounds):
            for figure, peers in self._wanted.items():
                start = number % (len(peers) or 1)
                for peer in [*peers[start:], *peers[:start]]:
                    self._measure(figure, peer, number + 1, seconds)

    def _measure(self, figure: Figure, peer: Peer, number: int, seconds: float) -> None:
        figure_of_peer = f"{figure.name} of {peer.name}"
        if self.left_out.keys() & {peer.name, figure_of_peer}:
            return
        try:
            sample = figures.measure(figure, peer, number, seconds)
        except StartFailed as error:
            self._leave_out(peer.name, str(error))
            return
        except LoadFailed as error:
            self._leave_out(figure_of_peer, str(error))
            return
        self.samples.append(sample)
        say(f"round {number}, {figure.name}, {peer.name}: {sample.value:,.1f} {figure.unit}")

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
        say(f"{what} is left out: {reason}")


def _first(references: list[Peer], figure: Figure) -> str | None:
    return next((peer.name for peer in references if figure.can_measure(peer)), None)


def say(line: str) -> None:
    """Tell what is going on, beside the table on standard output."""
    print(line, file=sys.stderr, flush=True)
