"""This machine: which core is whose, how many files may be open, and what a process takes of it."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILD = Path(__file__).parent / ".build"


@cache  # whoever has been pinned since
def cores() -> tuple[int, int]:
    """Return the core of the servers and the core of the load."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise SystemExit("Two cores are needed: one for the server, one for the load.")
    return allowed[0], allowed[1]


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Let what is started within run on that core only, with all its threads."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def raise_open_files() -> None:
    """Let us, and so the servers, have as many sockets as the hard limit allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def resident_kib(pid: int) -> int:
    """Return the resident memory of a process and its descendants, in KiB."""
    return sum(_resident_kib(each) for each in _family(pid))


def cpu_seconds(pid: int) -> float:
    """Return how long a process and its descendants have been on a core, all threads together."""
    ticks = 0
    for each in _family(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # proc(5): utime and stime
    return ticks / os.sysconf("SC_CLK_TCK")


def _resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def _family(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    children = " ".join((task / "children").read_text() for task in tasks).split()
    return [pid, *(each for child in children for each in _family(int(child)))]
