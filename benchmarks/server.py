"""A peer that runs: a subprocess on the servers' core, on a free port of the loopback."""

import os
import socket
import subprocess
import tempfile
import time
from types import TracebackType

from benchmarks.machine import ROOT, cores, free_port, pinned, resident_kib
from benchmarks.peers.known import Peer

START_TIMEOUT = 20.0  # seconds
STOP_TIMEOUT = 2.0  # seconds; how well a server stops is not measured


class StartFailed(Exception):
    """The server did not start, or ended at once."""


class Server:
    """A peer's server: `with Server(peer, fanout=False) as server: server.port`."""

    def __init__(self, peer: Peer, fanout: bool) -> None:
        self.port = free_port()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed by stop)
        with pinned(cores()[0]):
            self._process = subprocess.Popen(
                peer.command_on(self.port, fanout),
                cwd=ROOT,
                env={**os.environ, **peer.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
            )

    def __enter__(self) -> "Server":
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def resident_kib(self) -> int:
        return resident_kib(self._process.pid)

    def stop(self) -> None:
        """End it, by force if it does not end by itself."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _wait_until_it_listens(self) -> None:
        end = time.monotonic() + START_TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise StartFailed(self._last_words()) from error
                time.sleep(0.05)

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it does not listen"
