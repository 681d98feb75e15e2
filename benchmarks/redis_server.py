"""A Redis of the benchmarks' own: on a free port of the loopback, and nothing on a disk."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from benchmarks.machine import free_port

START_TIMEOUT = 10.0  # seconds


@contextmanager
def redis_server() -> Iterator[str]:
    """Give the URL of a Redis that ends with the block. Raises OSError without a redis-server."""
    port = free_port()
    options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), *options], stdout=subprocess.DEVNULL
    )
    try:
        url = f"redis://127.0.0.1:{port}/0"
        _wait_for(url)
        yield url
    finally:
        process.kill()
        process.wait()


def _wait_for(url: str) -> None:
    end = time.monotonic() + START_TIMEOUT
    with redis.Redis.from_url(url) as client:
        while True:
            try:
                client.ping()
                return
            except redis.ConnectionError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
