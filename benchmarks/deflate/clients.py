"""Clients of the load: they send prepared frames in turn, and inflate only a first reply."""

import json
import random
import selectors
import socket
import time
import zlib
from collections.abc import Iterable
from itertools import cycle

HANDSHAKE = (
    "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
RSV1 = 0x40
TIMEOUT = 20.0  # seconds


class LoadFailed(Exception):
    """A server did not answer as it must."""


def document(size: int, seed: int = 0) -> bytes:
    """Return JSON of that size: rows of numbers, words and names, the same for each seed."""
    source = random.Random(seed)
    rows: list[dict[str, object]] = []
    while len(text := json.dumps(rows)) < size:
        rows += [_row(source) for _ in range(1 + size // 2000)]
    return text[: size - 1].encode() + b"]"


def _row(source: random.Random) -> dict[str, object]:
    return {
        "id": source.randrange(10**6),
        "name": "".join(source.choices("abcdefghij ", k=12)),
        "price": round(source.random() * 100, 2),
        "tags": source.sample(["red", "green", "blue", "new", "sale"], 2),
        "active": source.random() < 0.5,
    }


def message(payload: bytes, compressed: bool) -> bytes:
    """Return the frame of a text, masked with zeros."""
    first = 0x81
    if compressed:
        compressor = zlib.compressobj(wbits=-12)
        payload = (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        first |= RSV1
    length = len(payload)
    if length < 126:
        head = bytes((first, 0x80 | length))
    elif length < 1 << 16:
        head = bytes((first, 0xFE)) + length.to_bytes(2, "big")
    else:
        head = bytes((first, 0xFF)) + length.to_bytes(8, "big")
    return head + bytes(4) + payload


class Client:
    """A connection. Replies are counted by the lengths of their frames."""

    def __init__(self, port: int, compressed: bool) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall((HANDSHAKE + (OFFER if compressed else "") + "\r\n").encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.socket.recv(1)
        if (b"permessage-deflate" in head) is not compressed:
            raise LoadFailed(head.decode())
        self._rest = b""
        self.reply = b""  # the last one, with its head
        self.received = 0  # bytes of all replies

    def receive(self) -> int:
        """Read once; return the number of replies that are complete."""
        data = self._rest + self.socket.recv(1 << 18)
        found = 0
        while (end := _end_of_frame(data)) and end <= len(data):
            self.reply, data = data[:end], data[end:]
            if self.reply[0] & 0x0F == 1:  # not one of the server's pings
                found += 1
                self.received += end
        self._rest = data
        return found

    def exchange(self, frame: bytes, text: bytes) -> None:
        """Send the frame and check that the reply has its text, compressed or not."""
        self.socket.sendall(frame)
        while not self.receive():
            pass
        body = self.reply[_head(self.reply) :]
        if self.reply[0] & RSV1:
            body = zlib.decompressobj(wbits=-15).decompress(body + b"\0\0\xff\xff")
        if body != text:
            raise LoadFailed(f"another reply: {body[:100]!r}")


def _head(frame: bytes) -> int:
    return {126: 4, 127: 10}.get(frame[1], 2)


def _end_of_frame(data: bytes) -> int:
    """Return where the first frame ends, or 0 if even that is not known yet."""
    if len(data) < 2 or len(data) < (head := _head(data)):
        return 0
    return head + (data[1] if data[1] < 126 else int.from_bytes(data[2:head], "big"))


def echoes(clients: Iterable[Client], frames: list[bytes], seconds: float) -> int:
    """Let each client have one message on its way; return the number of replies.

    No two messages in a row are the same: servers may keep the last one compressed.
    """
    replies, end = 0, time.monotonic() + seconds
    following = cycle(frames)
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ, client)
            client.socket.sendall(next(following))
        waiting = len(selector.get_map())
        while waiting:
            ready = selector.select(TIMEOUT)
            if not ready:
                raise LoadFailed("no reply")
            for key, _ in ready:
                if key.data.receive():
                    replies += 1
                    if time.monotonic() < end:
                        key.data.socket.sendall(next(following))
                    else:
                        waiting -= 1
    return replies
