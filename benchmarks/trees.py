"""The files of a commit, beside the working tree."""

import subprocess
from pathlib import Path

from benchmarks.machine import ROOT


def export(revision: str, folder: Path, *paths: str) -> None:
    """Put the files of a commit into the folder: nothing is checked out, stashed or registered.

    Only those below `paths`, if there are any.
    """
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", revision, *paths]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
