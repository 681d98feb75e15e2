"""An interleaved run: in each round every scenario once."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import redis_server, versions
from benchmarks.deploy import fronts
from benchmarks.deploy.clients import Clients, ClientsFailed
from benchmarks.deploy.process import Process, StartFailed
from benchmarks.deploy.subjects import SOCKET, Scenario
from benchmarks.machine import free_port

BACK_TIMEOUT = 120.0  # seconds until all clients are back
SECONDS_PER_CLIENT = 0.01  # of the time in which all must open at first
SETTLING = 1.0  # seconds


@dataclass(frozen=True)
class Load:
    """How many clients there are, and how they come back."""

    clients: int
    base: float  # seconds
    cap: float  # seconds
    drain: float  # seconds, where the scenario has it
    calm: float  # seconds that are measured before the deploy


class Deploy:
    """One site, its clients, and the replacement of all its processes."""

    def __init__(self, scenario: Scenario, load: Load) -> None:
        self._scenario, self._load = scenario, load
        self.clients = min(load.clients, scenario.subject.max_clients)
        self._started = 0

    def measure(self) -> dict[str, Any]:
        """Return the figures of the phases, and of the counts.

        Raises StartFailed, ClientsFailed, OSError or CalledProcessError.
        """
        subject, load = self._scenario.subject, self._load
        with ExitStack() as self._stack:
            redis = redis_server.running() if subject.peer.redis else None
            self._url = self._stack.enter_context(redis) if redis else "memory://"
            self._open_front()
            running = [self._start(port) for port in self._ports]
            for process in running:
                process.wait_until_ready()
            options = {"port": self._port, "count": subject.count}
            # They end first, and do not see how the servers end.
            with Clients(self.clients, base=load.base, cap=load.cap, **options) as self._clients:
                for process in running:
                    self._clients.tell("start", process.label, process.port)
                at_first = 10 + SECONDS_PER_CLIENT * self.clients
                if not self._clients.wait_until_all_are_open(at_first):
                    raise ClientsFailed("not all clients were open at first")
                calm = self._measure_calm()
                phases = [self._replace(process) for process in running]
                return {"calm": calm, "phases": phases, "counts": self._clients.tell("totals")}

    def _open_front(self) -> None:
        self._ports = [free_port() for _ in range(self._scenario.subject.processes)]
        self._shared: int | None = None
        if self._scenario.front == SOCKET:
            self._port, self._shared = self._stack.enter_context(fronts.shared_socket())
        else:
            self._port = self._stack.enter_context(fronts.nginx(self._ports))

    def _start(self, port: int) -> Process:
        self._started += 1
        label = f"process-{self._started}"
        process = Process(self._scenario, label, port, self._url, self._shared)
        self._stack.callback(process.end)
        return process

    def _measure_calm(self) -> dict[str, Any]:
        time.sleep(self._load.calm and SETTLING)
        self._clients.tell("measure")
        time.sleep(self._load.calm)
        return self._clients.tell("end")

    def _replace(self, old: Process) -> dict[str, Any]:
        """Replace a process; return the figures from the signal on until all clients are back."""
        starts_first = self._scenario.front == SOCKET
        if starts_first:
            self._start_beside_clients(free_port())
        self._clients.tell("stop", old.label)
        old.stop()
        seconds, code = old.wait()
        self._clients.tell("gone", old.label)
        if not starts_first:
            self._start_beside_clients(old.port)
        self._clients.wait_until_all_are_open(BACK_TIMEOUT)
        time.sleep(SETTLING)
        figures = self._clients.tell("end")
        return {
            **figures,
            "stopped_s": seconds,
            "signal": self._scenario.subject.signal,
            "exit_code": code,
        }

    def _start_beside_clients(self, port: int) -> None:
        process = self._start(port)
        self._clients.tell("start", process.label, process.port)
        process.wait_until_ready()


def measure(scenarios: list[Scenario], rounds: int, load: Load) -> dict[str, Any]:
    """Return all samples as they are written to JSON."""
    raw: dict[str, Any] = {
        "began": time.strftime("%Y-%m-%d %H:%M"),
        "rounds": rounds,
        "load": asdict(load),
        "left_out": [],
        "loads": [],
        "versions": {**versions.describe(), "nginx": fronts.nginx_version()},
        "samples": [],
    }
    for number in range(1, rounds + 1):
        start = (number - 1) % len(scenarios)
        for scenario in [*scenarios[start:], *scenarios[:start]]:
            raw["loads"].append(os.getloadavg()[0])
            _append_sample(raw, scenario, number, load)
    return raw


def _append_sample(raw: dict[str, Any], scenario: Scenario, number: int, load: Load) -> None:
    """Measure once; if it fails, append the reason to `left_out`."""
    where, began = f"round {number}, {scenario.name}", time.monotonic()
    try:
        if scenario.subject.peer.prepare is not None:
            scenario.subject.peer.prepare()
        deploy = Deploy(scenario, load)
        found = {"clients": deploy.clients, **deploy.measure()}
    except (StartFailed, ClientsFailed, OSError, subprocess.CalledProcessError) as error:
        raw["left_out"].append(f"{where}: {error}")
        print(f"{where} is left out: {error}", file=sys.stderr, flush=True)
        return
    raw["samples"].append({"scenario": scenario.name, "round": number, **found})
    print(f"{where}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
