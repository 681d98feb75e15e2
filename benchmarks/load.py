"""The load generators, `load.c` and `count.c`: run on a core of their own."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.compiled import program
from benchmarks.machine import cores, pinned


class LoadFailed(Exception):
    """The load could not be put on a server."""


def run(mode: str, port: int, **options: float | str) -> dict[str, Any]:
    """Return what the generator measured: `{"per_second": 24000.0, "errors": 0, ...}`.

    The options are those of load.c, or for the mode "count" those of count.c, with underscores;
    one that is True stands alone. Raises LoadFailed.
    """
    with _started(mode, port, **options) as process:
        return _figures(process)


@contextmanager
def idle(port: int, connections: int, **options: float | str) -> Iterator[None]:
    """Hold that many idle connections open. Raises LoadFailed, also if one was lost."""
    with _started("idle", port, connections=connections, **options) as process:
        assert process.stdout is not None
        if process.stdout.readline() == "ready\n":
            yield
        figures = _figures(process)
        if figures["errors"]:
            raise LoadFailed("; ".join(figures["first_errors"]))


@contextmanager
def _started(mode: str, port: int, **options: float | str) -> Iterator["subprocess.Popen[str]"]:
    command = [program("count.c")] if mode == "count" else [program("load.c"), mode]
    command += [f"--port={port}", *(_option(name, value) for name, value in options.items())]
    pipe = subprocess.PIPE
    with pinned(cores()[1]):
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def _option(name: str, value: float | str) -> str:
    name = f"--{name.replace('_', '-')}"
    return name if value is True else f"{name}={value}"


def _figures(process: "subprocess.Popen[str]") -> dict[str, Any]:
    printed, errors = process.communicate()  # the program bounds its time itself
    if process.returncode:
        raise LoadFailed("; ".join(errors.splitlines()))
    figures: dict[str, Any] = json.loads(printed)
    if errors:
        figures["first_errors"] = errors.splitlines()
    return figures
