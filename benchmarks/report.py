"""The table of a run, in Markdown."""

from statistics import median
from typing import Any

from benchmarks.figures import Figure, Sample
from benchmarks.run import Run

BUSY = 0.95  # of a core: above it, the generator may be what limits the figure


def text(run: Run, limit: str, versions: dict[str, str]) -> str:
    """Return the whole report: the table, what is doubtful, and what it was measured with."""
    left_out = [f"- {name} is left out: {reason}" for name, reason in run.left_out.items()]
    doubts = [*left_out, *(f"- {note}" for note in notes(run.samples))]
    parts = [table(run.references, run.samples, limit), "\n".join(doubts)]
    parts.append(", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    return "\n\n".join(part for part in parts if part)


def table(figures: dict[Figure, str | None], samples: list[Sample], limit: str) -> str:
    """Return the table of figures, each given with the name of its reference."""
    columns = ["Figure", "Peer", "Median", "Min - max", "Ratio to the reference (both medians)"]
    columns += [f"Ratio to {limit}", "p50, ms", "p99, ms"]
    rows = [f"| {' | '.join(columns)} |", "|---|---|---:|---:|---|---:|---:|---:|"]
    for figure, reference in figures.items():
        rows += _rows(figure, reference, [s for s in samples if s.figure == figure.name], limit)
    return "\n".join(rows)


def notes(samples: list[Sample]) -> list[str]:
    """Return what makes a sample doubtful, a sentence each."""
    found = []
    for sample in samples:
        where = f"{sample.figure}, {sample.peer}, round {sample.round}"
        if sample.errors:
            first = "; ".join(sample.details.get("first_errors", []))
            found.append(f"{where}: left out for {sample.errors} errors ({first}).")
        if sample.details.get("generator_busy", 0) > BUSY:
            found.append(f"{where}: the load generator was busy all the time.")
    return found


def _rows(figure: Figure, reference: str | None, samples: list[Sample], limit: str) -> list[str]:
    right = [sample for sample in samples if not sample.errors]
    values: dict[str, dict[int, float]] = {}
    for sample in right:
        values.setdefault(sample.peer, {})[sample.round] = sample.value
    rows = []
    best_first = sorted(values, key=lambda peer: median(values[peer].values()))
    for peer in best_first if figure.less_is_better else reversed(best_first):
        by_round = values[peer]
        details = [s.details for s in right if s.peer == peer and s.details]
        cells = [
            f"{figure.name} ({figure.unit})",
            peer,
            f"**{_number(median(by_round.values()))}**",
            f"{_number(min(by_round.values()))} - {_number(max(by_round.values()))}",
            "reference" if peer == reference else _ratio(by_round, values, reference, True),
            _ratio(by_round, values, limit),
            *(_milliseconds(details, percentile) for percentile in ("p50_us", "p99_us")),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _milliseconds(details: list[dict[str, Any]], percentile: str) -> str:
    return f"{median(each[percentile] for each in details) / 1000:.2f}" if details else ""


def _ratio(
    ours: dict[int, float],
    values: dict[str, dict[int, float]],
    other: str | None,
    whole: bool = False,
) -> str:
    """Return the median of the ratios of each round: what disturbs a round disturbs both."""
    theirs = values.get(other or "", {})
    ratios = [ours[number] / theirs[number] for number in ours if theirs.get(number)]
    if not ratios:
        return ""
    spread = f"{min(ratios):.2f} - {max(ratios):.2f}"
    medians = f"{_number(median(ours.values()))} / {_number(median(theirs.values()))}"
    ratio = f"{median(ratios):.2f}"
    return f"{ratio} x {other} ({medians}; {spread})" if whole else ratio


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"
