"""What figures depend on: the versions of all that takes part, and the machine."""

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from benchmarks import redis_server
from benchmarks.machine import ROOT
from benchmarks.peers import npm

PACKAGES = (
    *("Django", "channels", "channels_redis", "daphne", "Twisted", "autobahn", "asgiref"),
    *("uvicorn", "uvloop", "httptools", "websockets", "redis"),
    *("aiohttp", "granian", "Hypercorn", "picows", "starlette"),
)


def describe() -> dict[str, str]:
    """Return what figures of this machine depend on: `{"Django": "5.2.19", "cores": "2"}`."""
    return {
        "commit": _output("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "Python": " ".join(sys.version.split()),  # with the date and the compiler of its build
        **{name: _version(name) for name in PACKAGES},
        **npm.versions(),
        "node": _output("node", "--version"),
        "redis-server": _redis(),
        "cc": _output("cc", "--version"),
        "kernel": platform.release(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
    }


def _redis() -> str:
    try:
        told = _output(redis_server.executable(), "--version")
    except OSError:
        return "not installed"
    found = re.search(r"v=(\S+)", told)
    return found[1] if found else told


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
