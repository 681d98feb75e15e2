"""This machine: which core is whose, how many files may be open, and what is installed."""

import os
import platform
import resource
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILD = Path(__file__).parent / ".build"

PACKAGES = (
    *("Django", "channels", "daphne", "Twisted", "autobahn", "asgiref"),
    *("uvicorn", "uvloop", "websockets"),
)


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
    status = Path(f"/proc/{pid}/status").read_text()
    own = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    tasks = Path(f"/proc/{pid}/task").iterdir()
    children = " ".join((task / "children").read_text() for task in tasks).split()
    return own + sum(resident_kib(int(child)) for child in children)


def describe() -> dict[str, str]:
    """Return what figures of this machine depend on: `{"Django": "5.2.19", "cores": "2"}`."""
    return {
        "commit": _output("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "Python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "cc": _output("cc", "--version"),
        "kernel": platform.release(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _output(*command: str) -> str:
    """Return the first line that a command prints, or "unknown"."""
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return lines.partition("\n")[0]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()
