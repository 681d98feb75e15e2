"""`python -m benchmarks.deploy`: what clients notice of a deploy, as Markdown tables."""

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.deploy.report import report
from benchmarks.deploy.run import Load, measure
from benchmarks.deploy.subjects import Scenario, scenarios

RAW = "deploy.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deploy", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--only", help="the beginnings of names: daphne,stock/socket")
    parser.add_argument("--drain", type=float, default=10, help="seconds (default: 10)")
    parser.add_argument("--base", type=float, default=1, help="seconds until the first attempt")
    parser.add_argument("--cap", type=float, default=30, help="seconds until an attempt at most")
    parser.add_argument("--calm", type=float, default=5, help="seconds measured before the deploy")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="for deploy.md and .json")
    parser.add_argument(
        "--redraw", action="store_true", help="measure nothing, write from the JSON in FOLDER"
    )
    options = parser.parse_args()
    if options.redraw:
        return _write(json.loads((options.results / RAW).read_text()), options.results)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are ended
    machine.raise_open_files()
    load = Load(options.clients, options.base, options.cap, options.drain, options.calm)
    chosen = _chosen(scenarios(options.drain), options.only)
    if not chosen:
        parser.error(f"--only must name some of {', '.join(s.name for s in scenarios(1))}")
    raw = measure(chosen, options.rounds, load)
    print(report(raw), flush=True)
    if options.results:
        _write(raw, options.results)


def _chosen(known: list[Scenario], only: str | None) -> list[Scenario]:
    beginnings = tuple(only.split(",")) if only else ("",)
    return [scenario for scenario in known if scenario.name.startswith(beginnings)]


def _write(raw: dict[str, Any], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / RAW).write_text(json.dumps(raw, indent=1) + "\n")
    (folder / "deploy.md").write_text(report(raw))


if __name__ == "__main__":
    main()
