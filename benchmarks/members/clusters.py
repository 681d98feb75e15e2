"""Several processes that have the members of one object between them: ours, and Socket.IO's."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.machine import cores, free_port, pinned
from benchmarks.peers import npm

PROCESSES = 4
TIMEOUT = 30.0  # seconds
NODE = {"NODE_PATH": str(npm.MODULES), "NODE_ENV": "production"}
HERE = Path(__file__).parent


class Process:
    """A process that lists the members whenever it is asked."""

    def __init__(self, command: list[str], core: int, **environment: str) -> None:
        with pinned(core):
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdin and self._process.stdout
        self._input, self._output = self._process.stdin, self._process.stdout

    def wait_until_ready(self) -> None:
        if self._output.readline() != "ready\n":
            raise AssertionError(f"{self._process.args!r} is not ready")

    def list_members(self) -> dict[str, Any]:
        """Return the milliseconds, the number of members, and the error: `{"ms": 1.2, ...}`."""
        self._input.write("\n")
        self._input.flush()
        result: dict[str, Any] = json.loads(self._output.readline())
        return result

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._output.close()
        with suppress(BrokenPipeError):
            self._input.close()


@contextmanager
def of_echo(url: str, members: int) -> Iterator[list[Process]]:
    """Give processes that have so many members together."""
    each = members // PROCESSES
    command = [sys.executable, "-m", "benchmarks.members.process"]
    with ExitStack() as stack:
        processes = [
            Process([*command, str(place * each), str(each), url], cores()[0])
            for place in range(PROCESSES)
        ]
        for process in processes:
            stack.callback(process.end)
        for process in processes:
            process.wait_until_ready()
        _wait_until_found(processes, members)
        yield processes


@contextmanager
def of_socket_io(url: str, members: int) -> Iterator[list[Process]]:
    """Give processes of Socket.IO to which so many clients are connected."""
    npm.install()
    ports = [str(free_port()) for _ in range(PROCESSES)]
    with ExitStack() as stack:
        script = ["node", str(HERE / "socket_io.js")]
        processes = [
            Process(script, cores()[0], PORT=port, REDIS_URL=url, **NODE) for port in ports
        ]
        for process in processes:
            stack.callback(process.end)
        for process in processes:
            process.wait_until_ready()
        environment = {"PORTS": ",".join(ports), "NUMBER": str(members), **NODE}
        clients = Process(["node", str(HERE / "clients.js")], cores()[1], **environment)
        stack.callback(clients.end)
        clients.wait_until_ready()
        _wait_until_found(processes, members)
        yield processes


CLUSTERS = {"echo": of_echo, "Socket.IO": of_socket_io}


def _wait_until_found(processes: list[Process], members: int) -> None:
    end = time.monotonic() + TIMEOUT
    for process in processes:
        while process.list_members()["found"] != members:
            if time.monotonic() > end:
                raise AssertionError("not all members are found")
            time.sleep(0.05)


def seconds_until_gone(
    processes: list[Process], number: signal.Signals, members: int, limit: float
) -> tuple[float, int]:
    """Send the signal to one of the processes; return when its members are gone, and failed lists.

    If they are not gone within the limit, return the limit.
    """
    first, *_, last = processes
    began, failed = time.monotonic(), 0
    last.send_signal(number)
    while (passed := time.monotonic() - began) < limit:
        listed = first.list_members()
        failed += bool(listed["error"])
        if not listed["error"] and listed["found"] == members * (PROCESSES - 1) // PROCESSES:
            return time.monotonic() - began, failed
        time.sleep(0.05)
    return min(passed, limit), failed
