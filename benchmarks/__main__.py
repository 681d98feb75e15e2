"""`python -m benchmarks`: all peers side by side, and a table of what they do."""

import argparse
import json
import os
import signal
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from benchmarks import charts, figures, machine, quick, report
from benchmarks.figures import Figure
from benchmarks.peers import from_npm
from benchmarks.peers.known import PEERS, Peer
from benchmarks.redis_server import redis_server
from benchmarks.run import Run, say
from benchmarks.server import REDIS

RESULTS = Path(__file__).parent / "results"
LIMIT = "bare"


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
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement")
    parser.add_argument("--peers", type=_parsed_peers, default=",".join(PEERS))
    parser.add_argument("--figures", type=_parsed_figures, default=figures.DEFAULT)
    parser.add_argument(
        "--reference",
        type=_parsed_peers,
        default="workerd,workerd-hibernation",
        help="for each figure, the first of these peers that has it (default: %(default)s)",
    )
    parser.add_argument("--name", help="of the files in benchmarks/results/ (default: none)")
    parser.add_argument(
        "--quick", action="store_true", help="our Daphne beside that of the last commit"
    )
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are ended
    machine.raise_open_files()
    with ExitStack() as stack:
        if arguments.quick:
            before, now = stack.enter_context(quick.both())
            run = Run([before, now], _parsed_figures(quick.FIGURES), [before])
            run.measure(quick.ROUNDS, quick.SECONDS)
        else:
            if any(peer.needs_redis for peer in arguments.peers):
                with machine.pinned(machine.cores()[1]):
                    os.environ[REDIS] = stack.enter_context(redis_server())
            run = Run(arguments.peers, arguments.figures, arguments.reference)
            run.measure(arguments.rounds, arguments.seconds)
    told = report.text(run, LIMIT, {**machine.describe(), **from_npm.VERSIONS})
    print(told)
    if arguments.name:
        _keep(arguments, run, told)


def _keep(arguments: argparse.Namespace, run: Run, told: str) -> None:
    """Write table, samples and charts."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / arguments.name
    file.with_suffix(".md").write_text(told + "\n")
    samples = [asdict(sample) for sample in run.samples]
    raw = {"command": sys.argv[1:], "left_out": run.left_out, "samples": samples}
    file.with_suffix(".json").write_text(json.dumps(raw, indent=1) + "\n")
    try:
        charts.draw(run.references, run.samples, file.with_suffix(".svg"))
    except ImportError as error:
        say(f"No charts: {error}; pip install -r benchmarks/requirements.txt")


if __name__ == "__main__":
    main()
