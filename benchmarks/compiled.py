"""The programs in C: compiled at first use, and again when a source has changed."""

import subprocess
from functools import cache
from pathlib import Path

from benchmarks.machine import BUILD

FOLDER = Path(__file__).parent


@cache
def program(source: str) -> str:
    """Return the path of `load.c` compiled. Raises OSError or CalledProcessError."""
    path = FOLDER / source
    made = BUILD / path.stem
    sources = [path, *FOLDER.glob("*.h")]
    if not made.exists() or made.stat().st_mtime < max(s.stat().st_mtime for s in sources):
        BUILD.mkdir(exist_ok=True)
        subprocess.run(["cc", "-O2", "-Wall", "-o", made, path], check=True, capture_output=True)
    return str(made)
