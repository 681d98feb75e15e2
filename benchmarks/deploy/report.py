"""The tables of the deploys, in Markdown."""

from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.spread import number, spread

Sample = dict[str, Any]
# The worse of the replacements of a round counts.
TIMES: dict[str, Callable[[Sample], float | None]] = {
    "all back, s": lambda s: _worst(s, "back_s") if _are_back(s) else None,
    "a client is away: median, s": lambda s: _worst(s, "away_p50_s"),
    "p99, s": lambda s: _worst(s, "away_p99_s"),
    "handshakes per second at the peak": lambda s: _worst(s, "peak_per_second"),
    "echo p99 before, ms": lambda s: s["calm"]["echo_p99_ms"] if s["calm"]["echoes"] else None,
    "of those that stay, ms": lambda s: _worst(s, "echo_p99_ms", "echoes"),
    "a process stops in, s": lambda s: _worst(s, "stopped_s"),
}
MOST = "wrong by up to"
# Sums of all rounds, but of that the largest.
TROUBLES: dict[str, Callable[[Sample], float]] = {
    "counts read": lambda s: s["counts"]["samples"] + s["counts"]["unknown"],
    "wrong": lambda s: s["counts"]["too_low"] + s["counts"]["too_high"],
    MOST: lambda s: s["counts"]["most_wrong"],
    "unknown (503)": lambda s: s["counts"]["unknown"],
    "handshakes: refused": lambda s: _sum(s, "refused"),
    "dropped": lambda s: _sum(s, "dropped", "late"),
    "502": lambda s: _sum(s, "status_502"),
    "503": lambda s: _sum(s, "status_503"),
    "ended without a Close": lambda s: _sum(s, "without_close"),
    "texts without a reply": lambda s: _sum(s, "unanswered"),
    "clients not back": lambda s: not _are_back(s),
    "other errors": lambda s: _sum(s, "errors", "other_status", "closed_otherwise") + _exits(s),
}


def report(raw: dict[str, Any]) -> str:
    """Return the tables."""
    load = raw["load"]
    told = ", ".join(f"{name} {version}" for name, version in raw["versions"].items())
    head = [
        "# Deploys\n",
        f"Measured on {raw['began']}, {raw['rounds']} rounds, {load['clients']:,} clients that "
        f"echo once a second; {load['drain']:g} s to drain. {told}.\n",
        f"Load average of the machine at the start of each: {spread(raw['loads'])}.\n",
        "All processes of a site are replaced, one after the other. A client that has lost its "
        f"connection waits for 0 to {load['base']:g} s x 2^attempt, at most {load['cap']:g} s.\n",
        "## Times\n\nMedian (min - max) of the rounds; the worse replacement of a round counts.\n",
    ]
    troubles = ["## Troubles\n\nThe sums of all rounds.\n"]
    left_out = [f"- Left out: {each}" for each in raw["left_out"]]
    by_scenario: dict[str, list[Sample]] = {}
    for sample in raw["samples"]:
        by_scenario.setdefault(sample["scenario"], []).append(sample)
    lines = [*head, *_table(by_scenario, TIMES, lambda _, values: _spread(values))]
    lines += [*troubles, *_table(by_scenario, TROUBLES, _total), *left_out]
    return "\n".join([*lines, ""])


def _table(
    by_scenario: dict[str, list[Sample]],
    columns: dict[str, Callable[[Sample], float | None]],
    combined: Callable[[str, list[float]], str],
) -> Iterator[str]:
    yield f"| | clients | {' | '.join(columns)} |"
    yield f"|---|---:|{'---:|' * len(columns)}"
    for scenario, samples in by_scenario.items():
        cells = []
        for column, value_of in columns.items():
            values = [value for sample in samples if (value := value_of(sample)) is not None]
            cells.append(combined(column, values) if values else "")
        yield f"| {scenario} | {samples[0]['clients']:,} | {' | '.join(cells)} |"
    yield ""


def _spread(values: list[float]) -> str:
    return str(spread(values)) if len(set(values)) > 1 else number(values[0])


def _total(column: str, values: list[float]) -> str:
    return f"{max(values) if column == MOST else sum(values):,.0f}"


def _worst(sample: Sample, key: str, needs: str = "opened") -> float | None:
    """Return the largest of the phases that have something to measure it by."""
    found: list[float] = [phase[key] for phase in sample["phases"] if phase[needs]]
    return max(found, default=None)


def _sum(sample: Sample, *keys: str) -> int:
    return sum(phase[key] for phase in sample["phases"] for key in keys)


def _are_back(sample: Sample) -> bool:
    return all(phase["all_back"] for phase in sample["phases"])


def _exits(sample: Sample) -> int:
    """Return how many processes ended neither in order nor by the signal that stopped them."""
    return sum(phase["exit_code"] not in (0, -phase["signal"]) for phase in sample["phases"])
