"""Charts of a run: for each figure a bar for each peer, as ratio to the reference."""

from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, Sample

OURS = ("daphne", "uvicorn", "lean")
COLOURS = {"ours": "#2e8555", "reference": "#b8860b", "other": "#8a8f98"}
INK = "#7a7f87"  # readable on white and on black
COLUMNS = 2
WIDTH, BAR = 5.6, 0.24  # inches


def draw(figures: dict[Figure, str | None], samples: list[Sample], file: Path) -> None:
    """Write the chart, transparent, as the kind of picture that the file's name says.

    Raises ImportError without matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "", "font.size": 8, "text.color": INK})
    from matplotlib import pyplot

    drawn = {f: values for f in figures if (values := _medians(f, samples))}
    rows = -(-len(drawn) // COLUMNS)
    tallest = max(map(len, drawn.values()))
    size = (WIDTH * COLUMNS, rows * (tallest * BAR + 0.8))
    picture, axes = pyplot.subplots(rows, COLUMNS, figsize=size, squeeze=False)
    for axis in axes.flat[len(drawn) :]:
        axis.set_visible(False)
    for axis, (figure, values) in zip(axes.flat, drawn.items(), strict=False):
        _draw_one(axis, figure, values, figures[figure])
    picture.tight_layout()
    picture.savefig(file, transparent=True, dpi=160, metadata=_without_date(file))
    pyplot.close(picture)


def _draw_one(axis, figure: Figure, values: dict[str, float], reference: str | None) -> None:  # type: ignore[no-untyped-def]
    names = sorted(values, key=lambda name: values[name])
    if figure.less_is_better:
        names.reverse()
    colours = [COLOURS[_kind(name, reference)] for name in names]
    bars = axis.barh(names, [values[name] for name in names], color=colours, height=0.72)
    axis.bar_label(bars, [_label(values[n], values.get(reference or "")) for n in names], padding=3)
    best = "; less is better" if figure.less_is_better else ""
    axis.set_title(f"{figure.name}: {figure.unit}{best}", fontsize=9, loc="left", color=INK)
    axis.margins(x=0.28)
    axis.set_xticks([])
    axis.tick_params(length=0, colors=INK)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _medians(figure: Figure, samples: list[Sample]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for sample in samples:
        if sample.figure == figure.name and not sample.errors:
            values.setdefault(sample.peer, []).append(sample.value)
    return {peer: median(all_values) for peer, all_values in values.items()}


def _kind(name: str, reference: str | None) -> str:
    if name == reference:
        return "reference"
    return "ours" if name.startswith(OURS) else "other"


def _label(value: float, reference: float | None) -> str:
    shown = f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"
    return f"{shown} · {value / reference:.2f}" if reference else shown


def _without_date(file: Path) -> dict[str, None] | None:
    return {"Date": None} if file.suffix == ".svg" else None
