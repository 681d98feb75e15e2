"""Cloudflare's C++ runtime, which the original program is written for."""

import platform
import subprocess
from pathlib import Path

from benchmarks.machine import BUILD

VERSION = "1.20261117.1"
PLATFORM = {"aarch64": "linux-arm64"}.get(platform.machine(), "linux-64")
# Not the package's own `bin/workerd`, which may be a Node program that starts this one.
PROGRAM = BUILD / f"node_modules/@cloudflare/workerd-{PLATFORM}/bin/workerd"
CONFIGURATION = Path(__file__).with_suffix(".capnp")

_installed_version = BUILD / "workerd-version"


def install() -> None:
    """Install it by npm, once. Raises OSError or CalledProcessError."""
    if _installed_version.exists() and _installed_version.read_text() == VERSION:
        return
    BUILD.mkdir(exist_ok=True)
    subprocess.run(
        ["npm", "install", "--prefix", BUILD, "--no-audit", "--no-fund", f"workerd@{VERSION}"],
        check=True,
        capture_output=True,
    )
    _installed_version.write_text(VERSION)
