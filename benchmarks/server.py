"""A peer that runs: a subprocess on the servers' core, on a free port of the loopback."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from benchmarks import redis_server
from benchmarks.machine import ROOT, cores, free_port, pinned
from benchmarks.peers.known import Peer

START_TIMEOUT = 20.0  # seconds
ENDING = 1.0  # seconds, of a server that has closed its connections
STOP_TIMEOUT = 2.0  # seconds; how well a server stops is not measured


class StartFailed(Exception):
    """The server did not start, or ended at once."""


class Server:
    """A peer's server: `with Server(peer) as server: server.port`. Raises StartFailed."""

    def __init__(self, peer: Peer, fanout: bool = False, folder: Path = ROOT) -> None:
        self.port = free_port()
        self._peer, self._fanout, self._folder = peer, fanout, folder
        self._beside = ExitStack()  # what is given up when it ends

    def __enter__(self) -> "Server":
        with ExitStack() as beside:
            try:
                self._start(beside)
                self._wait_until_it_listens()
            except OSError as error:
                raise StartFailed(str(error)) from error
            self._beside = beside.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._beside.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def ends(self) -> bool:
        """Return whether it ends by itself, or has; it may take a moment to."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDING)
        return self.has_ended

    def last_words(self) -> str:
        """Return the last line that it printed."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it says nothing"

    def _start(self, beside: ExitStack) -> None:
        url = beside.enter_context(redis_server.running()) if self._peer.redis else "memory://"
        own = {"DJANGO_DEBUG": "0", "ECHO_STATE_URL": url, "PORT": str(self.port)}
        self._log = beside.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  (it is one)
        with pinned(cores()[0]):
            self._process = subprocess.Popen(
                self._peer.command_on(self.port, self._fanout),
                cwd=self._folder,
                env={**os.environ, **own, **self._peer.environment},
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
            )
        beside.callback(self._stop)

    def _stop(self) -> None:
        """End it and its children, by force if they do not end by themselves."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _wait_until_it_listens(self) -> None:
        end = time.monotonic() + START_TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError as error:
                if self.has_ended or time.monotonic() > end:
                    raise StartFailed(self.last_words()) from error
                time.sleep(0.05)
