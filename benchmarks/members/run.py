"""An interleaved run: each part of the figures for each subject, in turns."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from benchmarks import versions
from benchmarks.figures import Sample

SIZE = 1000  # members of an object
ECHO = "echo"
# What is measured of each subject, with so many members.
PARTS = {
    "joins": (("with member", "without member"), (SIZE,)),
    "reads": ((ECHO,), (200, 10_000)),
    "changes": ((ECHO,), (10, 10_000)),
    "lists": ((ECHO, "Socket.IO"), (SIZE,)),
    "deaths": ((ECHO, "Socket.IO"), (SIZE,)),
}


def measure(parts: Iterable[str], rounds: int) -> dict[str, Any]:
    """Return all samples as they are written to JSON."""
    raw: dict[str, Any] = {
        "began": time.strftime("%Y-%m-%d %H:%M"),
        "rounds": rounds,
        "left_out": [],
        "loads": [],
        "versions": versions.describe(),
        "samples": [],
    }
    for number in range(rounds):
        for part in parts:
            subjects, sizes = PARTS[part]
            for size in sizes:
                for subject in subjects if number % 2 else reversed(subjects):
                    raw["loads"].append(os.getloadavg()[0])
                    raw["samples"] += _samples(part, subject, size, number, raw["left_out"])
    return raw


def _samples(
    part: str, subject: str, size: int, number: int, left_out: list[str]
) -> list[dict[str, Any]]:
    """Return the samples of a part; if it fails, none, and its error is appended to `left_out`."""
    where, began = f"round {number + 1}, {part} of {size}, {subject}", time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.members.worker", part, subject, str(size)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        print(done.stderr, file=sys.stderr, flush=True)
        left_out.append(f"{where}: {done.stderr.strip().rpartition(chr(10))[2]}")
        return []
    print(f"{where}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    found = json.loads(done.stdout).items()
    return [asdict(Sample(figure, subject, number, value)) for figure, value in found]
