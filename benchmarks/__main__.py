"""`python -m benchmarks`: all peers side by side; writes tables, raw figures and charts."""

import argparse
import json
import signal
import sys
from pathlib import Path

from benchmarks import figures, machine
from benchmarks.figures import Figure
from benchmarks.peers.known import PEERS, Peer
from benchmarks.report import report
from benchmarks.run import Run

RESULTS = Path(__file__).parent / "results"
RAW = "results.json"


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
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--minutes", type=float, default=180, help="no sample begins after them")
    parser.add_argument("--peers", type=_parsed_peers, default=",".join(PEERS))
    parser.add_argument("--figures", type=_parsed_figures, default=figures.DEFAULT)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    parser.add_argument(
        "--redraw", action="store_true", help="measure nothing, write from the JSON"
    )
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    if not arguments.redraw:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are ended
        machine.raise_open_files()
        run = Run(arguments.peers, arguments.figures)
        run.measure(arguments.rounds, arguments.seconds, arguments.minutes)
        arguments.results.mkdir(exist_ok=True)
        (arguments.results / RAW).write_text(json.dumps(run.raw(), indent=1) + "\n")
    _write(arguments.results)


def _write(results: Path) -> None:
    raw = json.loads((results / RAW).read_text())
    (results / "results.md").write_text(report(raw))
    print(results / "results.md")


if __name__ == "__main__":
    main()
