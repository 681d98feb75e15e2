"""The tables of what members cost, in Markdown."""

from collections.abc import Iterator
from typing import Any

from benchmarks.figures import Sample
from benchmarks.members.run import PARTS
from benchmarks.spread import ByRound, ratios, spread, values

# The figures for people, the targets, and the subjects; `{}` is the size.
TITLES = {
    "joins": "Joins, 1,000 members per object",
    "reads": "Reads, members in 4 processes",
    "changes": "A new info of one member",
    "lists": "Beside Socket.IO with its Redis adapter, 4 processes",
}
NAMES: dict[str, dict[str, tuple[str, Any]]] = {
    "joins": {
        "joins": ("joins on Redis, {} at once, per second", "≥ 20,000"),
        "churn": ("join + leave on Redis, {} at once, per second", ""),
        "join-redis": ("a join: µs of Redis", ""),
        "join-memory": ("join + leave in memory, µs", ""),
    },
    "reads": {
        "members": ("`members()` of {}, ms", {200: "≤ 2", 10_000: "≤ 100"}),
        "members-redis": ("the same: µs of Redis", ""),
        "members-step": ("the same: longest single step, ms of Redis", "≤ 5"),
        "member-count": ("`member_count()` of {}, ms", "≤ 0.5"),
        "member-count-redis": ("the same: µs of Redis", ""),
        "has-member": ("`has_member()` of {}, ms", "≤ 0.5"),
        "has-member-redis": ("the same: µs of Redis", ""),
        "bytes": ("bytes of Redis for a member, {} members", ""),
    },
    "changes": {
        "change-written": ("bytes that Redis writes, {} members", "independent of the members"),
        "change-redis": ("µs of Redis, {} members", ""),
        "change-messages": ("messages of the feed, {} members", "1"),
        "change-published": ("bytes of the feed, {} members", ""),
        "change-delay": ("ms until a subscriber in another process has it, {} members", ""),
    },
    "lists": {
        "list": ("list of {} members, ms", ""),
        "killed": ("a process is killed: s until its members are gone", ""),
        "killed-failed": ("the same: lists that failed meanwhile", ""),
        "stopped": ("a process hangs (SIGSTOP): s until its members are gone (20: not yet)", ""),
        "stopped-failed": ("the same: lists that failed meanwhile", ""),
    },
}


def report(raw: dict[str, Any]) -> str:
    """Return the tables."""
    found = values(Sample(**sample) for sample in raw["samples"])
    told = ", ".join(f"{name} {version}" for name, version in raw["versions"].items())
    loads = raw["loads"]
    lines = [
        "# Costs of members\n",
        f"Measured on {raw['began']}, {raw['rounds']} rounds in turns. {told}.\n",
        f"Load average of the machine at the start of each measurement: {spread(loads)}.\n",
        "Each cell is a median (min - max). A ratio is that of samples of the same round.\n",
    ]
    for part in TITLES:
        lines += _table(part, found)
    lines += [f"Left out: {each}" for each in raw["left_out"]]
    return "\n".join([*lines, ""])


def _table(part: str, found: dict[str, dict[str, ByRound]]) -> Iterator[str]:
    (first, *others), _sizes = PARTS[part]
    head = ["What", "Target", first, *(f"{other} | ratio" for other in others)]
    rows = []
    for size in sorted({_size(figure) for figure in found}, key=lambda size: (not size, size)):
        for name, (title, targets) in NAMES[part].items():
            subjects = found.get(f"{name}-{size}" if size else name)
            if not subjects:
                continue
            target = targets if isinstance(targets, str) else targets.get(size, "")
            cells = [title.format(f"{size:,}"), target]
            cells += [_cell(subjects.get(subject)) for subject in (first, *others)]
            for other in others:
                ratio = ratios(subjects.get(first, {}), subjects.get(other, {}))
                cells.append(str(ratio) if ratio else "")
            rows.append(f"| {' | '.join(cells)} |")
    if rows:
        yield f"## {TITLES[part]}\n"
        yield f"| {' | '.join(head)} |"
        yield f"|{'---|' * (2 + 1 + 2 * len(others))}"
        yield from [*rows, ""]


def _cell(samples: ByRound | None) -> str:
    return str(spread(samples.values())) if samples else ""


def _size(figure: str) -> int:
    """Return the size of a figure, 0 if it has none."""
    _, _, size = figure.rpartition("-")
    return int(size) if size.isdigit() else 0
