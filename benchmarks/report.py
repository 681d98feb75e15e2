"""The tables of a run, in Markdown."""

from statistics import median
from typing import Any

from benchmarks.figures import Sample, unit
from benchmarks.spread import number, ratios, spread, values

LIMIT = "limit"
# For each figure the first of these that has it: the original cannot fan out.
REFERENCES = ("workerd", "workerd-hibernation")
BUSY = 0.95  # of a core: above it, the generator may be what limits the figure


def report(raw: dict[str, Any]) -> str:
    """Return the whole report of what `Run.raw` returns."""
    samples = [Sample(**sample) for sample in raw["samples"]]
    told = [f"{name} {version}" for name, version in raw["versions"].items()]
    left_out = [f"- {what} is left out: {reason}" for what, reason in raw["left_out"].items()]
    return "\n".join(
        [
            f"# Measured on {raw['began']}\n",
            f"{raw['rounds']} rounds of {raw['seconds']} s. {', '.join(told)}.\n",
            "Each cell is a median (min - max). A ratio is that of samples of the same round.\n",
            *tables(samples),
            "## Left out, or doubtful\n",
            *(left_out + [f"- {note}" for note in notes(samples)] or ["Nothing."]),
            "",
        ]
    )


def tables(samples: list[Sample]) -> list[str]:
    """Return a table for each figure, the best peer first."""
    lines = []
    for figure, peers in values(samples).items():
        reference = next((name for name in REFERENCES if name in peers), "")
        lines += [
            f"## {figure}: {unit(figure)}\n",
            f"| Peer | Median | x {reference or REFERENCES[0]} | x {LIMIT} | p50 ms | p99 ms |",
            "|---|---|---|---|---:|---:|",
        ]
        costs = figure.startswith(("memory", "cpu"))
        medians = {peer: median(by_round.values()) for peer, by_round in peers.items()}
        for peer in sorted(medians, key=lambda peer: medians[peer] * (1 if costs else -1)):
            others = [ratios(peers[peer], peers.get(name, {})) for name in (reference, LIMIT)]
            cells = [
                peer,
                str(spread(peers[peer].values())),
                *("" if ratio is None else str(ratio) for ratio in others),
                *(_latency(samples, figure, peer, key) for key in ("p50_us", "p99_us")),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines


def notes(samples: list[Sample]) -> list[str]:
    """Return what makes a sample doubtful, a sentence each."""
    found = []
    busy: dict[tuple[str, str], int] = {}
    for sample in samples:
        if sample.errors:
            first = "; ".join(sample.details.get("first_errors", []))
            where = f"{sample.figure}, {sample.peer}, round {sample.round}"
            found.append(f"{where}: left out for {sample.errors} errors ({first}).")
        elif sample.details and not sample.value:
            where = f"{sample.figure}, {sample.peer}, round {sample.round}"
            found.append(f"{where}: nothing was answered while it was measured.")
        if sample.details.get("generator_busy", 0) > BUSY:
            key = (sample.figure, sample.peer)
            busy[key] = busy.get(key, 0) + 1
    for (figure, peer), rounds in busy.items():
        found.append(
            f"{figure}, {peer}: the load generator was busy all the time in {rounds} rounds."
        )
    return found


def _latency(samples: list[Sample], figure: str, peer: str, key: str) -> str:
    of_peer = (s for s in samples if (s.figure, s.peer) == (figure, peer) and not s.errors)
    found = [sample.details[key] / 1000 for sample in of_peer if key in sample.details]
    return number(median(found)) if found else ""
