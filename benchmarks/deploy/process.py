"""A process of a site that is deployed: a subprocess on the servers' core."""

import os
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import urlopen

from benchmarks.deploy.subjects import Scenario
from benchmarks.machine import ROOT, cores, pinned

START_TIMEOUT = 30.0  # seconds
STOP_TIMEOUT = 10.0  # seconds after the drain: TimeoutStopSec of the units in the docs


class StartFailed(Exception):
    """A process did not start."""


class Process:
    """A process that runs. `end` it, or wait for it after `stop`."""

    def __init__(
        self, scenario: Scenario, label: str, port: int, url: str, shared: int | None
    ) -> None:
        subject = scenario.subject
        self.label, self.port = subject.label.format(label=label), port
        self._drain, self._signal = scenario.drain, subject.signal
        self._count = f"http://127.0.0.1:{port}{subject.count}"
        environment = {
            "DJANGO_DEBUG": "0",
            "DJANGO_SECRET_KEY": "the same for all processes",
            "ECHO_STATE_URL": url,
            **subject.peer.environment,
            **subject.environment,
        }
        if scenario.drain:
            environment["DRAIN_SECONDS"] = str(scenario.drain)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed by end)
        with pinned(cores()[0]):
            self._process = subprocess.Popen(
                subject.command(label, port, shared),
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=() if shared is None else (shared,),
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Return when it tells a count. Raises StartFailed."""
        end = time.monotonic() + START_TIMEOUT
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > end:
                raise StartFailed(f"{self.label} is not ready: {self._last_words()}")
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        try:
            with urlopen(self._count, timeout=START_TIMEOUT):
                return True
        except HTTPError as error:
            error.close()
        except (OSError, HTTPException):
            pass
        return False

    def stop(self) -> None:
        """Send the signal that stops it, as a supervisor does."""
        self._process.send_signal(self._signal)
        self._stopped_at = time.monotonic()

    def wait(self) -> tuple[float, int]:
        """Wait for its end after `stop`, then kill it. Return the seconds, and the exit code."""
        try:
            code = self._process.wait(STOP_TIMEOUT + self._drain)
        except subprocess.TimeoutExpired:
            self._kill()
            code = self._process.wait()
        return time.monotonic() - self._stopped_at, code

    def end(self) -> None:
        """End it at once, and its children."""
        self._kill()
        self._process.wait()
        self._log.close()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"
