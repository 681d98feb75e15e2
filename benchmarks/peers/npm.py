"""The packages of npm, installed at first use and again when package.json has changed."""

import json
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path

from benchmarks.machine import BUILD

WANTED = Path(__file__).parent.parent / "package.json"
MODULES = BUILD / "node_modules"
PLATFORM = {"aarch64": "linux-arm64"}.get(platform.machine(), "linux-64")
# Not the package's own `bin/workerd`, which may be a Node program that starts this one.
WORKERD = MODULES / f"@cloudflare/workerd-{PLATFORM}/bin/workerd"

_installed = BUILD / "installed.json"


@cache
def install() -> None:
    """Install them, if need be. Raises OSError or CalledProcessError."""
    if _installed.exists() and _installed.read_bytes() == WANTED.read_bytes():
        return
    BUILD.mkdir(exist_ok=True)
    shutil.copy(WANTED, BUILD)
    command = ["npm", "install", "--prefix", str(BUILD), "--no-audit", "--no-fund"]
    subprocess.run(command, check=True, capture_output=True)
    shutil.copy(WANTED, _installed)


def versions() -> dict[str, str]:
    """Return the versions of the packages: `{"ws": "8.23.0"}`."""
    wanted: dict[str, str] = json.loads(WANTED.read_text())["dependencies"]
    return wanted
