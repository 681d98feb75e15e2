"""A client of one connection, and a server for it: how `echo_doctor` tries a site out."""

import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from django.utils.translation import gettext as _

from echo.operations.doctor.finding import without_passwords

TIMEOUT = 5.0  # seconds for each answer
START = 30.0  # seconds for a server to listen
LINES = 40  # of a log that are shown: more than a traceback through Channels and Django has
TEXT, CLOSE = 1, 8  # RFC 6455 §5.2
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",  # RFC 6455 §1.3
    "Sec-WebSocket-Version": "13",
}


class ProbeFailed(Exception):
    """What was tried did not work; the message says what came instead."""

    log = ""  # of the temporary server that did not start


class NoAnswer(ProbeFailed):
    """Nothing came in time."""


def get(url: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """Return status and body of the answer. Raises ProbeFailed if there is none."""
    with _answer(url, headers) as (_, response), _told():
        return response.status, response.read()


def first_event(url: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """Return the status, and of a stream of events what the first one tells (b"" for none).

    Raises ProbeFailed if there is no answer, or nothing of a stream for TIMEOUT seconds.
    """
    with _answer(url, {**headers, "Accept": "text/event-stream"}) as (_, response), _told():
        lines = iter(response.readline, b"") if response.status == 200 else ()
        prefix = b"data:"  # HTML standard, §9.2.6
        told = (line[len(prefix) :].strip() for line in lines if line.startswith(prefix))
        return response.status, next(told, b"")


class Socket:
    """A WebSocket that has been accepted: small texts, then a Close."""

    def __init__(self, connection: Any, response: Any) -> None:
        self._connection, self._stream = connection, response.fp

    def send_text(self, text: str) -> None:
        self._send(TEXT, text.encode())

    def receive_text(self) -> str:
        try:
            return self._receive(TEXT).decode()
        except NoAnswer:  # a stream that has waited in vain cannot be read any more
            self._stream = self._connection.sock.makefile("rb")
            raise

    def require_open(self) -> None:
        """Raise ProbeFailed if the server has closed."""
        sock = self._connection.sock
        sock.settimeout(0.1)  # seconds: it has arrived already, or never will
        try:
            with suppress(NoAnswer):
                while True:
                    self._receive(TEXT)
        finally:
            sock.settimeout(TIMEOUT)
        self._stream = sock.makefile("rb")  # as in receive_text

    def close(self) -> int:
        """Close with 1000, and return the code of the answer (1005 if it has none)."""
        self._send(CLOSE, (1000).to_bytes(2, "big"))
        return int.from_bytes(self._receive(CLOSE)[:2], "big") or 1005

    def _send(self, opcode: int, payload: bytes) -> None:
        """Send a frame with a payload under 126 bytes."""
        mask = secrets.token_bytes(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        head = bytes([0x80 | opcode, 0x80 | len(payload)])
        with _told():
            self._connection.sock.sendall(head + mask + masked)

    def _receive(self, opcode: int) -> bytes:
        """Return the payload of the next frame of that kind, without the others."""
        while True:
            first, length = self._take(2)
            if length >= 126:
                length = int.from_bytes(self._take(2 if length == 126 else 8), "big")
            payload = self._take(length)
            if first & 0x0F == opcode:
                return payload
            if first & 0x0F == CLOSE:
                code = int.from_bytes(payload[:2], "big") or 1005
                raise ProbeFailed(_("the server closed with %d") % code)

    def _take(self, size: int) -> bytes:
        with _told():
            data: bytes = self._stream.read(size)
        if len(data) < size:
            raise ProbeFailed(_("the server ended the connection"))
        return data


@contextmanager
def opened(url: str, headers: dict[str, str]) -> Iterator[tuple[int, Socket | None]]:
    """Give the status of the answer to a handshake, with the socket if it is 101."""
    with _answer(url, {**headers, **UPGRADE}) as (connection, response):
        accepted = response.status == http.client.SWITCHING_PROTOCOLS
        yield response.status, Socket(connection, response) if accepted else None


@contextmanager
def _answer(url: str, headers: dict[str, str]) -> Iterator[tuple[Any, Any]]:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT)
    try:
        with _told():
            connection.request("GET", parts.path, headers=headers)
            response = connection.getresponse()
        with response:
            yield connection, response
    finally:
        connection.close()


@contextmanager
def _told() -> Iterator[None]:
    """Raise ProbeFailed for what the network raises."""
    try:
        yield
    except TimeoutError as error:
        raise NoAnswer(_("no answer in %g s") % TIMEOUT) from error
    except (OSError, http.client.HTTPException) as error:
        raise ProbeFailed(str(error) or type(error).__name__) from error


class TemporaryServer:
    """A context manager that runs `python -m echo.server` on a free port of the loopback.

    `application` is the dotted path of ASGI_APPLICATION. Raises ProbeFailed if it does not listen.
    """

    def __init__(self, application: str) -> None:
        self._application = application
        self._port = _free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> "TemporaryServer":
        options = ["-b", "127.0.0.1", "-p", str(self._port), _as_argument(self._application)]
        # Whatever this process can import, from wherever it was started.
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "echo.server", *options],
            env=env,
            stdout=self._log,
            stderr=self._log,
        )
        if not _listens(self._process, self._port):
            lines = self._logged().splitlines()
            error = ProbeFailed(next(filter(None, reversed(lines)), _("it does not listen")))
            error.log = "\n".join(lines[-LINES:])
            self.__exit__()
            raise error
        return self

    def __exit__(self, *error: object) -> None:
        _stop(self._process)
        self._log.close()

    def log(self) -> str:
        """Return the end of the log, with a traceback if one comes within a second."""
        end = time.monotonic() + 1
        while "Traceback" not in self._logged() and time.monotonic() < end:
            time.sleep(0.05)
        return "\n".join(self._logged().splitlines()[-LINES:])

    def _logged(self) -> str:
        # Without a seek: the server writes at the same position of the file.
        file = self._log.fileno()
        logged = os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")
        return without_passwords(logged)


def server_command(application: str) -> str:
    """Return a command that runs the site, for a shell in the folder of manage.py."""
    return f"python -m echo.server {_as_argument(application)}"


def _as_argument(application: str) -> str:
    module, _dot, name = application.rpartition(".")
    return f"{module}:{name}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(process: "subprocess.Popen[bytes]", port: int) -> bool:
    end = time.monotonic() + START
    while process.poll() is None and time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        time.sleep(0.05)
    return False


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=2 * TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
