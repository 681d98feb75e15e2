"""Real servers, as subprocesses on free ports of the loopback."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from tests import tls
from tests.waiting import DEADLINE, SECOND

ROOT = Path(__file__).parent.parent
SITE = "project.asgi:application"

# Twisted reads all requests, as it does those that are not plain handshakes.
WITHOUT_FRONT_DOOR = """
import asyncio
from echo.server import __main__, loop
asyncio.set_event_loop_policy(loop.EventLoopPolicy())
from echo.server.daphne import front_door
front_door.install = lambda *_: None
__main__.main()
"""

COMMANDS = {
    "stock-daphne": ["-m", "daphne", "-b", "127.0.0.1", "-p", "{port}", "{application}"],
    "stock-uvicorn": ["-m", "uvicorn", "--port", "{port}", "{application}"],
    "daphne": ["-m", "echo.server", "--bind", "127.0.0.1", "--port", "{port}", "{application}"],
    "daphne-twisted": [
        *("-c", WITHOUT_FRONT_DOOR, "--bind", "127.0.0.1", "--port", "{port}", "{application}"),
    ],
    "daphne-tls": [
        *("-m", "echo.server", "--endpoint"),
        "ssl:{port}:privateKey={key}:certKey={certificate}:interface=127.0.0.1",
        "{application}",
    ],
    "uvicorn": [
        *("-m", "uvicorn", "--ws", "echo.server.uvicorn:WebSocketProtocol"),
        *("--port", "{port}", "{application}"),
    ],
    "uvicorn-http": [
        *("-m", "uvicorn", "--ws", "echo.server.uvicorn:WebSocketProtocol"),
        *("--http", "echo.server.uvicorn:HTTPProtocol", "--port", "{port}", "{application}"),
    ],
    "runserver": ["manage.py", "runserver", "--noreload", "{port}"],
    "runserver with autoreload": ["manage.py", "runserver", "{port}"],
}

# Daphne's access log is printed, and would stay in a buffer.
ENVIRONMENT = {"DJANGO_SETTINGS_MODULE": "project.settings", "PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server that runs: `with Server("stock-daphne") as server: server.count("foo")`."""

    def __init__(
        self,
        kind: str,
        application: str = SITE,
        options: tuple[str, ...] = (),
        folder: Path = ROOT,
        **env: str,
    ) -> None:
        self.kind = kind
        self.port = free_port()
        values: dict[str, object] = {"port": self.port, "application": application}
        self.tls = kind.endswith("-tls")
        if self.tls:
            values["certificate"], values["key"] = tls.certificate()
            tls.PORTS.add(self.port)
        command = [part.format(**values) for part in COMMANDS[kind]]
        self.log_file = tempfile.TemporaryFile()  # noqa: SIM115  (closed by stop)
        self.process = subprocess.Popen(
            [sys.executable, *command, *options],
            cwd=folder,
            env={**os.environ, **ENVIRONMENT, **env},
            stdout=self.log_file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _wait_until_it_listens(self) -> None:
        end = time.monotonic() + 3 * DEADLINE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=SECOND).close()
                return
            except OSError:
                assert self.process.poll() is None, f"The server has ended:\n{self.log()}"
                assert time.monotonic() < end, f"The server does not listen:\n{self.log()}"
                time.sleep(0.02)

    def log(self) -> str:
        # Without a seek: the position in the file is the server's, too, and it would write there.
        file = self.log_file.fileno()
        return os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")

    def stop(self) -> int:
        """End it as an operator would, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=2 * DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
        code = self.process.wait()
        tls.PORTS.discard(self.port)
        self.log_file.close()
        return code

    def memory(self, what: str = "VmRSS") -> int:
        """Return the bytes of memory that the process has, or had at most (`VmHWM`; Linux)."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{what}:"):
                return 1024 * int(line.split()[1])
        raise ValueError(what)

    def forget_peak(self) -> int:
        """Let the peak of memory begin anew, at the bytes that are returned."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")  # man 5 proc
        return self.memory()

    def get(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """Return the status, the headers (names in lower case) and the text of an answer."""
        if self.tls:
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=DEADLINE, context=tls.context()
            )
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=sent)
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, names, answer.read().decode()
        finally:
            connection.close()

    def count(self, name: str = "foo") -> int:
        path = f"/{quote(name, safe='')}/getCurrentConnections"
        return json.loads(self.get(path, Accept="application/json")[2])["connections"]
