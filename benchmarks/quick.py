"""`python -m benchmarks --quick`: the working tree beside the last commit, in one short run."""

import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.machine import ROOT
from benchmarks.peers.known import PEERS, Peer

FIGURES = "echo-50x1,echo-50x16,handshakes-50,fanout-500"
ROUNDS, SECONDS = 5, 1.0
BEFORE, NOW = "last commit", "working tree"


@contextmanager
def both() -> Iterator[tuple[Peer, Peer]]:
    """Give our Daphne as it was at the last commit, and as it is. Raises CalledProcessError."""
    command = ["git", "-C", str(ROOT), "archive", "HEAD"]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    with TemporaryDirectory() as folder:
        with tarfile.open(fileobj=BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        ours = PEERS["daphne"]
        yield replace(ours, name=BEFORE, folder=Path(folder)), replace(ours, name=NOW)
