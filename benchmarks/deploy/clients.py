"""The clients, `deploy.c`: a program that takes commands and reports in JSON."""

import json
import subprocess
import time
from types import TracebackType
from typing import Any

from benchmarks.compiled import program
from benchmarks.machine import cores, pinned

POLL = 0.05  # seconds


class ClientsFailed(Exception):
    """The clients did not all open in time, or their program ended."""


class Clients:
    """So many clients of a port: `with Clients(5000, port=8000) as clients`."""

    def __init__(self, number: int, **options: float | str) -> None:
        """Take the options of deploy.c."""
        self._number = number
        options["clients"] = number
        self._options = [f"--{name}={value}" for name, value in options.items()]

    def __enter__(self) -> "Clients":
        pipe = subprocess.PIPE
        with pinned(cores()[1]):
            self._process = subprocess.Popen(
                [program("deploy.c"), *self._options], stdin=pipe, stdout=pipe, text=True
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def tell(self, *words: object) -> dict[str, Any]:
        """Send a command; return what the program prints. Raises ClientsFailed."""
        assert self._process.stdin and self._process.stdout
        print(*words, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise ClientsFailed("the program of the clients has ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def wait_until_all_are_open(self, timeout: float) -> bool:
        """Return whether all are open, to processes that nobody stops, within that time."""
        end = time.monotonic() + timeout
        while self.tell("status") != {"open": self._number, "left": 0}:
            if time.monotonic() > end:
                return False
            time.sleep(POLL)
        return True
