"""The table of the state's costs, in Markdown."""

from typing import Any

from benchmarks.figures import Sample
from benchmarks.spread import ratios, spread, values
from benchmarks.state.run import NOW

# The figures for people; `{}` is the size.
NAMES = {
    "join-memory": "join + leave in memory, µs",
    "join-redis": "join + leave on Redis, {} at once, per second",
    "join-limited": "the same with a limit",
    "join-two-limited": "the same with two objects and two limits",
    "count-redis": "`count()`, {} processes: µs of Redis",
    "count": "`count()`, {} processes: µs for the caller",
    "list-redis": "`counts()` of 1,000 objects, {} processes: ms of Redis",
    "write-redis": "a write of 3 names, {} processes: µs of Redis",
    "write-names": "a write of {} names: µs of Redis",
    "counts": "`counts()` of {} objects in 100 processes, ms for the caller",
    "counts-step": "the same: longest single step, ms of Redis",
    "bytes": "bytes of Redis for an object in one process, {} objects",
    "bytes-each": "bytes of Redis for an object in {} processes, for each of them",
    "idle-steps": "{} idle processes, 100 live streams each: scripts per second",
    "idle-cpu": "the same: ms of Redis' CPU per second",
    "stream": "a change in another process until a live stream has it, ms",
    "occupied": "`object_occupied` of one more than {} objects, s",
    "change-cpu": "a change, {} subscribers of the feed: µs of Redis' CPU",
    "subscriber-redis": "each subscriber adds, µs of Redis' CPU",
    "subscriber-process": "a change: µs of CPU of a process with {} live streams of other objects",
}


def report(raw: dict[str, Any]) -> str:
    """Return the table: the working tree, and the commit beside it if there is one."""
    found = values(Sample(**sample) for sample in raw["samples"])
    against = raw["against"]
    head = ["What", NOW, *((against, "ratio") if against else ())]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---|' * (len(head) - 1)}"]
    for figure, trees in found.items():
        ours, theirs = trees.get(NOW, {}), trees.get(against, {})
        cells = [describe(figure), str(spread(ours.values()))]
        if against:
            ratio = ratios(ours, theirs)
            cells += [str(spread(theirs.values())) if theirs else "", str(ratio) if ratio else ""]
        lines.append(f"| {' | '.join(cells)} |")
    told = ", ".join(f"{name} {version}" for name, version in raw["versions"].items())
    about = f"Measured on {raw['began']}, {raw['rounds']} rounds in turns. {told}."
    note = "Each cell is a median (min - max). A ratio is that of samples of the same round."
    lines += ["", *(f"Left out: {each}" for each in raw["left_out"])] if raw["left_out"] else []
    return "\n".join(["# Costs of the state\n", f"{about}\n", f"{note}\n", *lines, ""])


def describe(figure: str) -> str:
    """Return what is measured: `count-4` is "`count()`, 4 processes: ..."."""
    name, _, size = figure.rpartition("-")
    if not size.isdigit():
        return NAMES[figure]
    return NAMES[name].format(f"{int(size):,}")
