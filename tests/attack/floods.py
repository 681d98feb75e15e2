"""Floods of tiny frames, and what a good client notices of them."""

import math
import socket
import threading
import time
from contextlib import suppress

from tests.raw import BINARY, PING, PONG, TEXT, UPGRADE, Client, frame

MASK = bytes(4)
# What one connection sends without end, the first part once.
FLOODS: dict[str, tuple[bytes, bytes]] = {
    "texts": (b"", frame(TEXT, b"x", mask=MASK)),
    "binaries": (b"", frame(BINARY, b"x", mask=MASK)),
    "pings": (b"", frame(PING, mask=MASK)),
    "pongs": (b"", frame(PONG, mask=MASK)),
    "fragments": (frame(TEXT, fin=False, mask=MASK), frame(0, b"x", fin=False, mask=MASK)),
    "empty fragments": (frame(TEXT, fin=False, mask=MASK), frame(0, fin=False, mask=MASK)),
    "messages in fragments": (
        b"",
        frame(TEXT, b"x", fin=False, mask=MASK) + frame(0, b"x", mask=MASK),
    ),
}
INTERVAL = 0.005  # seconds between two texts of the good client


class Flood:
    """A connection that sends a flood, and reads what comes back, while the block runs."""

    def __init__(self, port: int, path: str, kind: str) -> None:
        self._port, self._path = port, path
        self._begin, part = FLOODS[kind]
        self._data = part * (65_536 // len(part))
        self._client: Client | None = None
        self._over = threading.Event()
        self._threads = [threading.Thread(target=run) for run in (self._send, self._read)]
        self.sent = 0  # bytes

    def __enter__(self) -> "Flood":
        self._client = self._opened()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._end()
        for thread in self._threads:
            thread.join()
        self._end()

    def _opened(self) -> Client:
        client = Client(self._port)
        answer = client.ask(self._path, UPGRADE)
        assert answer.status_line.startswith("HTTP/1.1 101"), answer
        client.send(self._begin)
        return client

    def _end(self) -> None:
        client = self._client
        if client is not None:
            with suppress(OSError):
                client.socket.shutdown(socket.SHUT_RDWR)
            client.socket.close()

    def _send(self) -> None:
        while not self._over.is_set():
            client = self._client
            assert client is not None
            try:
                client.send(self._data)
                self.sent += len(self._data)
            except OSError:  # the server has ended it: again, with a new connection
                client.socket.close()
                with suppress(OSError, AssertionError):
                    self._client = self._opened()

    def _read(self) -> None:
        while not self._over.is_set():
            try:
                assert self._client is not None
                if not self._client.socket.recv(1 << 20):
                    self._client.socket.close()
            except OSError:
                time.sleep(0.01)


def latencies(client: Client, seconds: float) -> list[float]:
    """Return the seconds that each echo of a good client takes: one text each 5 ms."""
    taken = []
    end = time.monotonic() + seconds
    while (sent := time.monotonic()) < end:
        client.send_text("hello")
        client.text()
        taken.append(time.monotonic() - sent)
        time.sleep(max(0.0, INTERVAL - taken[-1]))
    return taken


def percentile(values: list[float], share: float = 0.99) -> float:
    return sorted(values)[math.ceil(share * len(values)) - 1]
