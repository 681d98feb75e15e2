"""The load generator `load.c`: compiled at first use, run on a core of its own."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.machine import BUILD, cores, pinned

SOURCE = Path(__file__).with_name("load.c")
PROGRAM = BUILD / "load"


class LoadFailed(Exception):
    """The load could not be put on a server."""


def run(mode: str, port: int, **options: float) -> dict[str, Any]:
    """Return what the generator measured: `{"per_second": 24000.0, "errors": 0, ...}`.

    The options are those of load.c, with underscores. Raises LoadFailed.
    """
    with _started(mode, port, **options) as process:
        return _figures(process)


@contextmanager
def idle(port: int, connections: int) -> Iterator[None]:
    """Hold that many idle connections open. Raises LoadFailed, also if one was lost."""
    with _started("idle", port, connections=connections) as process:
        assert process.stdout is not None
        if process.stdout.readline() == "ready\n":
            yield
        figures = _figures(process)
        if figures["errors"]:
            raise LoadFailed("; ".join(figures["first_errors"]))


@contextmanager
def _started(mode: str, port: int, **options: float) -> Iterator["subprocess.Popen[str]"]:
    named = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = [_program(), mode, f"--port={port}", *named]
    pipe = subprocess.PIPE
    with pinned(cores()[1]):
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def _figures(process: "subprocess.Popen[str]") -> dict[str, Any]:
    printed, errors = process.communicate()  # the program bounds its time itself
    if process.returncode:
        raise LoadFailed("; ".join(errors.splitlines()))
    figures: dict[str, Any] = json.loads(printed)
    if errors:
        figures["first_errors"] = errors.splitlines()
    return figures


@cache
def _program() -> str:
    if not PROGRAM.exists() or PROGRAM.stat().st_mtime < SOURCE.stat().st_mtime:
        BUILD.mkdir(exist_ok=True)
        subprocess.run(["cc", "-O2", "-o", PROGRAM, SOURCE], check=True)
    return str(PROGRAM)
