"""What npm brings, at first use: the runtime that the original is written for, and `ws`."""

import platform
import subprocess
from pathlib import Path

from benchmarks.machine import BUILD

VERSIONS = {"workerd": "1.20261117.1", "ws": "8.23.0"}
PLATFORM = {"aarch64": "linux-arm64"}.get(platform.machine(), "linux-64")
# Not the package's own `bin/workerd`, which may be a Node program that starts this one.
WORKERD = BUILD / f"node_modules/@cloudflare/workerd-{PLATFORM}/bin/workerd"
CONFIGURATION = Path(__file__).with_name("workerd.capnp")
WS = BUILD / "ws.mjs"  # beside node_modules, where node looks for packages


def install() -> None:
    """Install them, once. Raises OSError or CalledProcessError."""
    installed = BUILD / "npm-versions"
    if not installed.exists() or installed.read_text() != str(VERSIONS):
        BUILD.mkdir(exist_ok=True)
        packages = [f"{name}@{version}" for name, version in VERSIONS.items()]
        command = ["npm", "install", "--prefix", str(BUILD), "--no-audit", "--no-fund", *packages]
        subprocess.run(command, check=True, capture_output=True)
        installed.write_text(str(VERSIONS))
    WS.write_text(Path(__file__).with_name("ws.js").read_text())
