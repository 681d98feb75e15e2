"""`python -m benchmarks.state`: what exact counting costs, as a Markdown table."""

import argparse
import sys
from statistics import median

from django.conf import settings

from benchmarks import figures, machine, versions
from benchmarks.measure import measure
from benchmarks.peers.known import PEERS
from benchmarks.server import Server
from benchmarks.spread import number
from benchmarks.state import counts, joins

SIZES = [(1, 1000), (4, 1000), (4, 1_000_000), (16, 1000), (100, 1000), (100, 1_000_000)]
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
    parser.add_argument("--short", action="store_true", help="no servers, no million of objects")
    options = parser.parse_args()
    rounds = options.rounds
    settings.configure(USE_I18N=False)  # the state's errors are texts of Django's
    machine.raise_open_files()
    print("| What | Median | Min - max |\n|---|---:|---|", flush=True)
    # Our core is that of the servers: Redis has the other.
    with machine.pinned(machine.cores()[0]):
        _print(_spread("join + leave in memory, µs (wanted: 10 or less)", joins.in_memory(rounds)))
        what = f"join + leave on Redis, {joins.CONCURRENT} at once, per second"
        _print(_spread(f"{what} (wanted: 9,000 or more)", joins.on_redis(rounds)))
        for processes, objects in SIZES[:2] if options.short else SIZES:
            _print(*_cost(counts.cost(processes, objects, rounds)))
    for figure, peers in () if options.short else SERVERS.items():
        _print(*_servers(figure, peers, rounds))
    print("\n" + ", ".join(f"{name} {version}" for name, version in versions.describe().items()))


def _cost(cost: counts.Cost) -> list[Row]:
    of = f"{cost.processes} processes, {cost.objects:,} objects"
    wanted = " (wanted: 0.2 or less)" if cost.processes == 4 else ""
    rows = [_spread(f"count(), ms: {of}{wanted}", cost.read_ms)]
    if cost.objects > 1000:
        rows.append((f"counts(), s: {of}", f"{cost.read_all_s:.2f}", "once"))
        rows.append((f"bytes of Redis for an object: {of}", f"{cost.bytes_per_object:.0f}", "once"))
    return rows


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
