"""HTTP requests and a temporary server, for the checks of `echo_doctor`."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from echo.log import without_passwords
from echo.operations.polling import poll

TIMEOUT = 5.0  # seconds for each response
START_TIMEOUT = 30.0  # seconds for a server to listen
TRACEBACK_TIMEOUT = 1.0  # seconds for a server to log a traceback
MAX_LINES = 40  # of a log: enough for a traceback through Channels and Django


class ProbeFailed(Exception):
    """The site or the temporary server failed; the message is the reason."""

    log = ""  # the log of a temporary server that did not start


def get(url: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """Return status and body of the response. Raises ProbeFailed if there is none."""
    with _response(url, headers) as response:
        return response.status, response.read()


def first_event(url: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """Return the status, and the data of the first event of a stream (b"" without an event).

    Raises ProbeFailed if there is no response, or no data of the stream for TIMEOUT seconds.
    """
    with _response(url, {**headers, "Accept": "text/event-stream"}) as response:
        lines = iter(response.readline, b"") if response.status == 200 else ()
        prefix = b"data:"  # HTML standard, §9.2.6
        events = (line[len(prefix) :].strip() for line in lines if line.startswith(prefix))
        return response.status, next(events, b"")


@contextmanager
def _response(url: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT)
    try:
        connection.request("GET", parts.path, headers=headers)
        with connection.getresponse() as response:
            yield response
    except TimeoutError as error:
        raise ProbeFailed(f"no response in {TIMEOUT:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise ProbeFailed(str(error) or type(error).__name__) from error
    finally:
        connection.close()


class TemporaryServer:
    """A context manager that runs `python -m echo.server` on a free loopback port.

    `application` is the dotted path of ASGI_APPLICATION. Raises ProbeFailed if the server does
    not listen within START_TIMEOUT.
    """

    def __init__(self, application: str) -> None:
        self._application = application
        self._port = _free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> "TemporaryServer":
        options = ["-b", "127.0.0.1", "-p", str(self._port), _as_argument(self._application)]
        # The server can import the same modules as this process, from any directory.
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._log = tempfile.NamedTemporaryFile()
        command = [sys.executable, "-m", "echo.server", *options]
        self._process = subprocess.Popen(command, env=env, stdout=self._log, stderr=self._log)
        if not poll(self._is_up, lambda is_up: is_up is not None, START_TIMEOUT):
            lines = self._logged().splitlines()
            error = ProbeFailed(next(filter(None, reversed(lines)), "it does not listen"))
            error.log = "\n".join(lines[-MAX_LINES:])
            self.__exit__()
            raise error
        return self

    def __exit__(self, *error: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=2 * TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def log(self) -> str:
        """Return the end of the log. Waits up to TRACEBACK_TIMEOUT for a traceback."""
        log = poll(self._logged, lambda log: "Traceback" in log, TRACEBACK_TIMEOUT)
        return "\n".join(log.splitlines()[-MAX_LINES:])

    def _logged(self) -> str:
        return without_passwords(Path(self._log.name).read_text(errors="replace"))

    def _is_up(self) -> bool | None:
        """Return True if the server listens, False if it has exited, None if it is starting."""
        if self._process.poll() is not None:
            return False
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
            return True
        return None


def server_command(application: str) -> str:
    """Return a command that runs the site, for a shell in the directory of manage.py."""
    return f"python -m echo.server {_as_argument(application)}"


def _as_argument(application: str) -> str:
    module, _dot, name = application.rpartition(".")
    return f"{module}:{name}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
