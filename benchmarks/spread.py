"""The statistics of a run: medians, spreads, and ratios of one round's samples."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from benchmarks.figures import Sample

ByRound = dict[int, float]


@dataclass(frozen=True)
class Spread:
    """A median, and what it lies between."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{number(self.median)} ({number(self.low)} - {number(self.high)})"


def spread(values: Iterable[float]) -> Spread:
    """Return the spread of one value or more."""
    listed = list(values)
    return Spread(median(listed), min(listed), max(listed))


def ratios(ours: ByRound, theirs: ByRound) -> Spread | None:
    """Return the spread of the ratios of each round, since what disturbs a round disturbs both.

    None if no round has both.
    """
    found = [value / theirs[number] for number, value in ours.items() if theirs.get(number)]
    return spread(found) if found else None


def values(samples: Iterable[Sample]) -> dict[str, dict[str, ByRound]]:
    """Return the values without errors, by figure, peer and round."""
    found: dict[str, dict[str, ByRound]] = defaultdict(lambda: defaultdict(dict))
    for sample in samples:
        if not sample.errors:
            found[sample.figure][sample.peer][sample.round] = sample.value
    return {figure: dict(peers) for figure, peers in found.items()}


def number(value: float) -> str:
    """Return it with three digits or so: `1,234`, `12.3`, `0.123`."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 or not size else 3
    return f"{value:,.{digits}f}"
