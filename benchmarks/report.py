"""The table of a run, in Markdown."""

from statistics import median

from benchmarks.figures import Figure, Sample

HEAD = "| Figure | Peer | Median | Min - max | Ratio to the reference (both medians) | p99, ms |"
RULE = "|---|---|---:|---:|---|---:|"
BUSY = 0.95  # of a core: above it, the generator may be what limits the figure


def table(figures: dict[Figure, str | None], samples: list[Sample]) -> str:
    """Return the table of figures, each given with the name of its reference."""
    rows = [HEAD, RULE]
    for figure, reference in figures.items():
        rows += _rows(figure, reference, [s for s in samples if s.figure == figure.name])
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


def _rows(figure: Figure, reference: str | None, samples: list[Sample]) -> list[str]:
    right = [sample for sample in samples if not sample.errors]
    values: dict[str, dict[int, float]] = {}
    for sample in right:
        values.setdefault(sample.peer, {})[sample.round] = sample.value
    rows = []
    for peer in sorted(values, key=lambda peer: -median(values[peer].values())):
        by_round = values[peer]
        p99 = [s.details["p99_us"] / 1000 for s in right if s.peer == peer and s.details]
        cells = [
            f"{figure.name} ({figure.unit})",
            peer,
            f"**{number(median(by_round.values()))}**",
            f"{number(min(by_round.values()))} - {number(max(by_round.values()))}",
            "reference" if peer == reference else _ratio(by_round, values, reference),
            f"{median(p99):.1f}" if p99 else "",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _ratio(
    ours: dict[int, float], values: dict[str, dict[int, float]], reference: str | None
) -> str:
    """Return the median of the ratios of each round: what disturbs a round disturbs both."""
    theirs = values.get(reference or "", {})
    ratios = [ours[number] / theirs[number] for number in ours if theirs.get(number)]
    if not ratios:
        return ""
    medians = f"{number(median(ours.values()))} / {number(median(theirs.values()))}"
    return f"{median(ratios):.2f} x {reference} ({medians})"


def number(value: float) -> str:
    """Return it with three digits or so: `1,234`, `12.3`, `0.123`."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"
