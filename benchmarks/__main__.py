"""`python -m benchmarks`: all peers side by side; writes tables, raw figures and charts."""

import argparse
import json
import signal
import sys
from pathlib import Path

from benchmarks import figures, machine
from benchmarks.figures import Figure
from benchmarks.peers.known import PEERS, Peer
from benchmarks.quick import compare
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
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement")
    parser.add_argument("--minutes", type=float, default=210, help="no sample begins after them")
    parser.add_argument("--peers", type=_parsed_peers)
    parser.add_argument("--figures", type=_parsed_figures, default=figures.DEFAULT)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    parser.add_argument(
        "--redraw", action="store_true", help="measure nothing, write from the JSON"
    )
    parser.add_argument(
        "--quick", action="store_true", help="only compare the working tree with a commit"
    )
    parser.add_argument("--against", default="HEAD", help="the commit for --quick (default: HEAD)")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are ended
    machine.raise_open_files()
    if arguments.quick:
        sys.exit(compare(arguments.against))
    if not arguments.redraw:
        arguments.results.mkdir(exist_ok=True)
        run = Run(arguments.peers, arguments.figures)
        try:
            run.measure(arguments.rounds, arguments.seconds, arguments.minutes)
        finally:  # an hour's figures are not lost to a Ctrl-C
            (arguments.results / RAW).write_text(json.dumps(run.raw(), indent=1) + "\n")
    _write(arguments.results)


def _write(results: Path) -> None:
    raw = json.loads((results / RAW).read_text())
    (results / "results.md").write_text(report(raw))
    print(results / "results.md")
    try:
        from benchmarks.charts import draw
    except ImportError:
        print("No charts: pip install -r benchmarks/requirements.txt")
    else:
        print(*draw(raw, results), sep="\n")


if __name__ == "__main__":
    main()
