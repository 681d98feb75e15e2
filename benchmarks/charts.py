"""The charts of a run, as SVG that can be read on a light and on a dark page."""

from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
from matplotlib.figure import Figure as Chart

from benchmarks.figures import Sample, parse
from benchmarks.spread import ByRound, number, spread, values

# Names for people, in the order in which lines are drawn and told.
LABELS = {
    "limit": "epoll in C: the limit",
    "uvloop": "asyncio on uvloop, bare",
    "daphne": "this project on Daphne",
    "uvicorn": "this project on uvicorn",
    "daphne-redis": "this project on Daphne, Redis",
    "uvicorn-redis": "this project on uvicorn, Redis",
    "workerd": "the original on workerd",
    "workerd-hibernation": "workerd, Hibernation API",
    "ws": "node ws",
    "socket.io": "Socket.IO",
    "starlette-uvicorn": "Starlette on uvicorn",
    "starlette-granian": "Starlette on Granian",
    "stock": "Channels' consumer on Daphne",
    "stock-uvicorn": "Channels' consumer on uvicorn",
    "stock-granian": "Channels' consumer on Granian",
    "stock-hypercorn": "Channels' consumer on Hypercorn",
}
# One peer each where several differ only in what the chart does not show.
HIDDEN = {
    *("stock-group", "stock-group-redis", "lean", "daphne-loop", "uvicorn-loop"),
    *("daphne-redis", "uvicorn-redis"),
}
PANELS = {
    "echo-50x1": "Echoes per second\n50 connections",
    "handshakes-50": "Handshakes per second\n50 at a time",
    "fanout-500": "Deliveries per second\none text to 500 connections",
    "memory-5000": "KiB per idle connection\n(less is better)",
}
LINES = ("limit", "daphne", "uvicorn", "workerd", "ws", "stock")
# On white and on GitHub's dark grey alike, each has a contrast of 3 or more, the ink of 4.
INK, QUIET, OURS, ORIGINAL, EDGE = "#7a7f87", "#8f97a3", "#1f8f5f", "#d9730d", "#7a7f87"
COLOURS = {
    **{"limit": QUIET, "daphne": OURS, "uvicorn": "#2a86c8", "workerd": ORIGINAL},
    **{"ws": "#a06cd5", "stock": "#d0455d"},
}
LINE_HEIGHT = 1.3  # of a name, as a factor on the axis of echoes
STYLE: Any = {
    **{"font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": EDGE},
    **{"xtick.color": INK, "ytick.color": INK, "axes.spines.top": False},
    **{"axes.spines.right": False, "savefig.transparent": True, "svg.hashsalt": "benchmarks"},
}
# Title, axis, and its scale.
STATE_PANELS = {
    "count-redis": ("count(): µs of Redis", "processes, each with all of 1,000 objects", "log"),
    "list-redis": ("counts() of 1,000 objects: ms of Redis", "processes", "log"),
    "write-names": ("A write: µs of Redis", "names in it", "log"),
    "change-cpu": ("A change: µs of Redis' CPU", "processes that subscribe to the feed", "linear"),
}
# Title, then label, figure and subject of each bar.
MEMBERS_PANELS = {
    "Joins per second on Redis, 100 at once": (
        ("with member", "joins-100", "with member"),
        ("without", "joins-100", "without member"),
    ),
    "Reads of 10,000 members in 4 processes, ms": (
        ("members()", "members-10000", "echo"),
        ("member_count()", "member-count-10000", "echo"),
        ("has_member()", "has-member-10000", "echo"),
    ),
    "List of 1,000 members in 4 processes, ms": (
        ("echo", "list-1000", "echo"),
        ("Socket.IO", "list-1000", "Socket.IO"),
    ),
    "Until the members of a process are gone, s (20: not yet)": (
        ("killed: echo", "killed-1000", "echo"),
        ("killed: Socket.IO", "killed-1000", "Socket.IO"),
        ("hangs: echo", "stopped-1000", "echo"),
        ("hangs: Socket.IO", "stopped-1000", "Socket.IO"),
    ),
}


def draw(raw: dict[str, Any], folder: Path) -> list[Path]:
    """Write the charts for which there are figures, and return their paths."""
    found = values(Sample(**sample) for sample in raw["samples"])
    drawn = []
    with matplotlib.rc_context(STYLE):
        for name, chart in (("peers", _peers(found)), ("growth", _growth(found))):
            if chart is not None:
                drawn.append(folder / f"{name}.svg")
                chart.savefig(drawn[-1], bbox_inches="tight", metadata={"Date": None})
    return drawn


def draw_state(raw: dict[str, Any], path: Path) -> None:
    """Write the chart of how the costs of the state grow."""
    found = values(Sample(**sample) for sample in raw["samples"])
    with matplotlib.rc_context(STYLE):
        chart = Chart(figsize=(9, 6), layout="constrained")
        for place, (panel, (title, label, scale)) in enumerate(STATE_PANELS.items(), 1):
            axes = chart.add_subplot(2, 2, place)
            for name, colour in (("now", OURS), (raw["against"], ORIGINAL)):
                points = sorted(
                    (int(size), median(trees[name].values()))
                    for figure, trees in found.items()
                    for prefix, _, size in [figure.rpartition("-")]
                    if prefix == panel and name in trees
                )
                if points:
                    axes.plot(*zip(*points, strict=True), marker="o", markersize=4, color=colour)
                    text = "now" if name == "now" else "before"
                    axes.annotate(f"  {text}", points[-1], color=colour, va="center")
            axes.set(xscale=scale, yscale=scale, xlabel=label)
            axes.set_title(title, loc="left", fontsize=10)
            axes.margins(x=0.18, y=0.15)
            if scale == "linear":
                axes.set_ylim(bottom=0)
            axes.grid(axis="y", color=EDGE, alpha=0.25, linewidth=0.6)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
            axes.minorticks_off()
        chart.savefig(path, bbox_inches="tight", metadata={"Date": None})


def draw_members(raw: dict[str, Any], path: Path) -> None:
    """Write the chart of what members cost, and of how long lists contain those of a process."""
    found = values(Sample(**sample) for sample in raw["samples"])
    with matplotlib.rc_context(STYLE):
        chart = Chart(figsize=(9, 4), layout="constrained")
        for place, (title, bars) in enumerate(MEMBERS_PANELS.items(), 1):
            axes = chart.add_subplot(2, 2, place)
            for height, (_, figure, subject) in enumerate(reversed(bars)):
                samples = found.get(figure, {}).get(subject)
                if samples:
                    each = spread(samples.values())
                    colour = OURS if height == len(bars) - 1 or subject == "echo" else ORIGINAL
                    axes.barh(height, each.median, color=colour, height=0.7)
                    axes.annotate(f" {number(each.median)}", (each.median, height), va="center")
            axes.set_yticks(range(len(bars)), [label for label, *_ in reversed(bars)])
            axes.set_title(title, loc="left", fontsize=10)
            axes.margins(x=0.15, y=0.02)
            axes.set_xticks([])
            axes.spines[["bottom", "left"]].set_visible(False)
            axes.tick_params(left=False)
        chart.savefig(path, bbox_inches="tight", metadata={"Date": None})


def _peers(found: dict[str, dict[str, ByRound]]) -> Chart | None:
    shown = [figure for figure in PANELS if figure in found]
    if not shown:
        return None
    most = max(len(found[figure].keys() - HIDDEN) for figure in shown)
    rows = (len(shown) + 1) // 2
    chart = Chart(figsize=(11, rows * (0.9 + 0.21 * most)), layout="constrained")
    for place, figure in enumerate(shown, 1):
        _bars(chart.add_subplot(rows, min(2, len(shown)), place), figure, found[figure])
    return chart


def _bars(axes: Any, figure: str, peers: dict[str, ByRound]) -> None:
    costs = figure.startswith("memory")
    spreads = {peer: spread(by.values()) for peer, by in peers.items() if peer not in HIDDEN}
    order = sorted(spreads, key=lambda peer: spreads[peer].median, reverse=costs)
    for place, peer in enumerate(order):
        each = spreads[peer]
        colour = OURS if peer in ("daphne", "uvicorn") else QUIET
        axes.barh(place, each.median, color=ORIGINAL if peer == "workerd" else colour, height=0.7)
        axes.plot([each.low, each.high], [place, place], color=INK, linewidth=1)
        axes.annotate(
            *(f" {number(each.median)}", (max(each.median, each.high), place)), va="center"
        )
    axes.set_yticks(range(len(order)), [LABELS.get(peer, peer) for peer in order])
    axes.set_title(PANELS[figure], loc="left", fontsize=10)
    axes.margins(x=0.15, y=0.02)
    axes.set_xticks([])
    axes.spines[["bottom", "left"]].set_visible(False)
    axes.tick_params(left=False)


def _growth(found: dict[str, dict[str, ByRound]]) -> Chart | None:
    figures = [parse(name) for name in found if name.startswith("echo")]
    figures = [each for each in figures if (each.in_flight, each.size) == (1, 32)]
    if len(figures) < 3:
        return None
    chart = Chart(figsize=(8, 4.2), layout="constrained")
    axes = chart.add_subplot()
    figures.sort(key=lambda each: each.connections)
    ends = {}
    for peer in LINES:
        points = [
            (each.connections, median(found[each.name][peer].values()))
            for each in figures
            if any(found[each.name].get(peer, {}).values())
        ]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, color=COLOURS[peer])
            ends[peer] = points[-1]
    _name_lines(axes, ends, right=figures[-1].connections)
    axes.set(xscale="log", yscale="log", xlabel="connections, each with one text in flight")
    axes.set_title("Echoes per second", loc="left", fontsize=10)
    axes.grid(axis="y", color=EDGE, alpha=0.25, linewidth=0.6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return chart


def _name_lines(axes: Any, ends: dict[str, tuple[int, float]], right: int) -> None:
    """Write the name of each line at its right end, and none over another."""
    free = float("inf")
    for peer, (_, height) in sorted(ends.items(), key=lambda end: -end[1][1]):
        height = min(height, free)
        free = height / LINE_HEIGHT
        name = f"   {LABELS.get(peer, peer)}"
        axes.annotate(name, (right, height), color=COLOURS[peer], va="center")
