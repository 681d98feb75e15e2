"""`python -m benchmarks`: all peers side by side, and a table of what they do."""

import argparse
import json
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks import figures, machine, report
from benchmarks.figures import Figure, Sample
from benchmarks.load import LoadFailed
from benchmarks.peers import workerd
from benchmarks.peers.known import PEERS, Peer
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
        _say(f"round {number}, {figure.name}, {peer.name}: {sample.value:,.1f} {figure.unit}")

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


def _first(references: list[Peer], figure: Figure) -> str | None:
    return next((peer.name for peer in references if figure.can_measure(peer)), None)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parsed_peers(names: str) -> list[Peer]:
    unknown = [name for name in names.split(",") if name not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no peer {unknown[0]!r}; known: {', '.join(PEERS)}")
    return [PEERS[name] for name in names.split(",")]


def _parsed_figures(names: str) -> list[Figure]:
    try:
        return [figures.parse(name) for name in names.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--peers", type=_parsed_peers, default=",".join(PEERS))
    parser.add_argument("--figures", type=_parsed_figures, default=figures.DEFAULT)
    parser.add_argument(
        "--reference",
        type=_parsed_peers,
        default="workerd,workerd-hibernation",
        help="for each figure, the first of these peers that has it (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are ended
    machine.raise_open_files()
    run = Run(arguments.peers, arguments.figures, arguments.reference)
    run.measure(arguments.rounds, arguments.seconds)
    versions = {**machine.describe(), "workerd": workerd.VERSION}
    print(report.table(run.references, run.samples))
    left_out = [f"{name} is left out: {reason}" for name, reason in run.left_out.items()]
    print("", *left_out, *report.notes(run.samples), sep="\n")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    if arguments.json:
        options = {"rounds": arguments.rounds, "seconds": arguments.seconds}
        samples = [asdict(sample) for sample in run.samples]
        raw = {**options, "versions": versions, "left_out": run.left_out, "samples": samples}
        arguments.json.write_text(json.dumps(raw, indent=1) + "\n")


if __name__ == "__main__":
    main()
