"""`python -m benchmarks.state`: what exact counting costs, as a Markdown table."""

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import figures, machine
from benchmarks.measure import measure
from benchmarks.peers.known import PEERS
from benchmarks.server import Server
from benchmarks.spread import number
from benchmarks.state import run
from benchmarks.state.report import report

RAW = "state.json"
SECONDS = 2.0  # of each measurement of a server
# Side by side, with the same channel layer: the first of each is what the others are compared to.
SERVERS = {
    "fanout-500": ["stock-group-redis", "daphne-redis", "uvicorn-redis"],
    "echo-50x1": ["daphne", "daphne-redis"],
    "echo-50x16": ["uvicorn", "uvicorn-redis"],
}
Row = tuple[str, str, str]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.state", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", metavar="COMMIT", help="measure it beside the working tree")
    parser.add_argument("--parts", default=",".join((*run.PARTS, "servers")))
    parser.add_argument("--short", action="store_true", help="small sizes, and no servers")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="for state.md, .json, .svg")
    parser.add_argument(
        "--redraw", action="store_true", help="measure nothing, write from the JSON in FOLDER"
    )
    options = parser.parse_args()
    if options.redraw:
        return _write(json.loads((options.results / RAW).read_text()), options.results)
    machine.raise_open_files()
    parts = [part for part in options.parts.split(",") if part != "servers"]
    sizes = ["--short"] if options.short else []
    raw = run.measure(parts, options.rounds, options.against, sizes)
    print(report(raw), flush=True)
    if options.results:
        _write(raw, options.results)
    if "servers" in options.parts.split(",") and not options.short:
        print("| What | Median | Min - max |\n|---|---:|---|", flush=True)
        for figure, peers in SERVERS.items():
            _print(*_servers(figure, peers, options.rounds))


def _write(raw: dict[str, Any], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / RAW).write_text(json.dumps(raw, indent=1) + "\n")
    (folder / "state.md").write_text(report(raw))
    try:
        from benchmarks.charts import draw_state
    except ImportError:
        print("No chart: pip install -r benchmarks/requirements.txt")
    else:
        draw_state(raw, folder / "state.svg")


def _servers(name: str, peers: list[str], rounds: int) -> list[Row]:
    figure = figures.parse(name)
    values: dict[str, list[float]] = {peer: [] for peer in peers}
    for round_number in range(rounds):
        for peer in peers:
            with Server(PEERS[peer], figure.mode == "fanout") as server:
                [sample] = measure(figure, PEERS[peer], server, round_number, SECONDS)
            if sample.errors:
                sys.exit(f"{name} of {peer}: {sample.details['first_errors']}")
            values[peer].append(sample.value)
    first, *others = peers
    rows = [_spread(f"{name}, {figures.unit(name)}: {peer}", values[peer]) for peer in peers]
    for peer in others:
        ratios = [a / b for a, b in zip(values[peer], values[first], strict=True)]
        rows.append(_spread(f"{name}: {peer} / {first}", ratios))
    return rows


def _spread(what: str, values: list[float]) -> Row:
    return what, number(median(values)), f"{number(min(values))} - {number(max(values))}"


def _print(*rows: Row) -> None:
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
