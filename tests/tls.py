"""TLS on the loopback: a certificate of localhost, and sockets that trust it."""

import atexit
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

PORTS: set[int] = set()  # of servers with TLS, to which `tests.raw.Client` connects with TLS


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Return the files of a certificate of localhost, and of its key."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@cache
def certificate() -> tuple[Path, Path]:
    """Return the certificate and the key of this process."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    return make_certificate(folder)


@cache
def context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate()[0]))


class TLSSocket:
    """A client's socket whose `recv` and `sendall` use TLS, also in two threads at the same time.

    The standard library's SSLSocket may not be used so before Python 3.13.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context().wrap_bio(
            self._incoming, self._outgoing, server_hostname="localhost"
        )
        self._lock = threading.Lock()
        self.is_shut_down = False  # whether the server has sent `close_notify`
        while True:
            try:
                self._session.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._socket.sendall(self._outgoing.read())
                assert self._receive(), "The server has closed the connection."
        self._socket.sendall(self._outgoing.read())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def sendall(self, data: bytes) -> None:
        with self._lock:
            self._session.write(data)
            encrypted = self._outgoing.read()
        self._socket.sendall(encrypted)

    def recv(self, size: int) -> bytes:
        while True:
            try:
                with self._lock:
                    data = self._session.read(size)
                self.is_shut_down = not data
                return data
            except ssl.SSLWantReadError:
                if not self._receive():
                    return b""
            except ssl.SSLZeroReturnError:  # if the client has shut down its side
                self.is_shut_down = True
                return b""

    def shut_down(self) -> None:
        """Send `close_notify`, after which the server may still send."""
        with suppress(ssl.SSLWantReadError):  # the server's
            self._session.unwrap()
        self._socket.sendall(self._outgoing.read())

    def send_unencrypted(self, data: bytes) -> None:
        self._socket.sendall(data)

    def _receive(self) -> bool:
        data = self._socket.recv(1 << 16)
        with self._lock:
            self._incoming.write(data)
        return bool(data)
