"""An interleaved run: each part of the figures for one tree after the other, in turns."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import versions
from benchmarks.figures import Sample
from benchmarks.machine import ROOT
from benchmarks.trees import export

PARTS = ("joins", "processes", "objects", "writes", "idle", "streams", "signals", "fanout")
NOW = "now"  # the working tree; the other one has the name of its commit


def measure(
    parts: Iterable[str], rounds: int, against: str | None, options: list[str]
) -> dict[str, Any]:
    """Return all samples of the working tree, and of the commit, as they are written to JSON."""
    began = time.strftime("%Y-%m-%d %H:%M")
    left_out: list[str] = []
    with _trees(against) as trees:
        samples = [
            Sample(figure, tree, number, value)
            for number in range(rounds)
            for part in parts
            for tree in (trees if number % 2 else reversed(trees))
            for figure, value in _values(
                part, trees[tree], options, f"round {number + 1}, {tree}", left_out
            )
        ]
    return {
        "began": began,
        "rounds": rounds,
        "against": against,
        "left_out": left_out,
        "versions": versions.describe(),
        "samples": [asdict(sample) for sample in samples],
    }


@contextmanager
def _trees(against: str | None) -> Iterator[dict[str, Path]]:
    """Give the folder of each tree. The benchmarks are those of the working tree, for both."""
    with tempfile.TemporaryDirectory() as folder:
        trees = {NOW: ROOT}
        if against is not None:
            export(against, Path(folder), "echo")
            trees[against] = Path(folder)
        yield trees


def _values(
    part: str, tree: Path, options: list[str], where: str, left_out: list[str]
) -> list[tuple[str, float]]:
    """Return the figures of a part; if it fails, none, and its error is appended to `left_out`."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.state.worker", part, *options],
        cwd=tree,  # where Python looks for `echo` first
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        print(done.stderr, file=sys.stderr, flush=True)
        left_out.append(f"{part}, {where}: {done.stderr.strip().rpartition(chr(10))[2]}")
        return []
    print(f"{where}, {part}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return list(json.loads(done.stdout).items())
