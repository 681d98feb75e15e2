"""A WebSocket client of bytes: it can send what no well-behaved client would."""

import ctypes
import os
import socket
import struct
from dataclasses import dataclass
from typing import ClassVar

from tests import tls
from tests.waiting import DEADLINE

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 §1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
SO_ATTACH_FILTER = 26  # linux/socket.h; Python has no name for it

UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def request(
    path: str, headers: dict[str, str], method: str = "GET", version: str = "1.1", port: int = 0
) -> bytes:
    """Return a request's bytes; a `Host` is added where there is none."""
    lines = [f"{method} {path} HTTP/{version}"]
    if "Host" not in headers:
        lines.append(f"Host: 127.0.0.1:{port}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def frame(
    opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0, mask: bytes | None = None
) -> bytes:
    """Return a client's frame, masked (RFC 6455 §5.2); `mask=b""` leaves it unmasked."""
    mask = os.urandom(4) if mask is None else mask
    head = bytes([fin << 7 | rsv << 4 | opcode])
    bit = 0x80 if mask else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 1 << 16:
        head += struct.pack("!BH", bit | 126, len(payload))
    else:
        head += struct.pack("!BQ", bit | 127, len(payload))
    return head + mask + (masked(payload, mask) if mask else payload)


def masked(payload: bytes, mask: bytes) -> bytes:
    if not any(mask):
        return payload
    pad = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(
        len(payload), "big"
    )


def close_payload(code: int, reason: str = "") -> bytes:
    return struct.pack("!H", code) + reason.encode()


def drop_packets(of: socket.socket) -> None:
    """Let the socket receive nothing, not even TCP's own acknowledgements (Linux)."""
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))  # BPF: ret #0
    program = struct.pack("HL", 1, ctypes.addressof(drop_all))
    of.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def listens(family: int, address: object) -> bool:
    """Return whether connections to the address are accepted."""
    with socket.socket(family) as probe:
        return probe.connect_ex(address) == 0


@dataclass
class Answer:
    """The head of an HTTP answer, and its body where it has a length."""

    status_line: str
    headers: list[str]
    body: bytes = b""

    def header(self, name: str) -> str | None:
        for line in self.headers:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None


class Client:
    """A TCP connection to a server on the loopback, and what came back on it.

    It uses TLS if the server of the tests on the port does.

    The fixture `closed_clients` closes those that a test leaves open.
    """

    all: ClassVar[set["Client"]] = set()

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self.port = port
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(DEADLINE)
        try:
            self.socket.connect(("127.0.0.1", port))
            if port in tls.PORTS:
                self.socket = tls.TLSSocket(self.socket)
        except OSError:
            self.socket.close()
            raise
        self.buffer = b""
        self.all.add(self)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    @classmethod
    def connected(cls, family: socket.AddressFamily, address: object) -> "Client":
        """Return a client that is connected in any way: by a Unix socket, for example."""
        client = cls.__new__(cls)
        client.buffer = b""
        client.port = 80
        client.socket = socket.socket(family)
        client.socket.settimeout(DEADLINE)
        client.socket.connect(address)
        cls.all.add(client)
        return client

    @classmethod
    def opened(
        cls,
        port: int,
        name: str = "foo",
        receive_buffer: int | None = None,
        path: str | None = None,
        **headers: str,
    ) -> "Client":
        """Return a client whose handshake has been accepted, on the demo's path of the name."""
        client = cls(port, receive_buffer)
        answer = client.ask(path or f"/{name}/websocket", {**UPGRADE, **headers})
        assert answer.status_line.startswith("HTTP/1.1 101"), answer
        return client

    def ask(self, path: str, headers: dict[str, str], **how: str) -> Answer:
        self.send(request(path, headers, port=self.port, **how))
        return self.answer(body=how.get("method") != "HEAD")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_text(self, text: str) -> None:
        self.send(frame(TEXT, text.encode()))

    def answer(self, body: bool = True) -> Answer:
        while b"\r\n\r\n" not in self.buffer:
            assert self._more(), f"end of stream after {self.buffer!r}"
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        status_line, *headers = head.decode("latin-1").split("\r\n")
        answer = Answer(status_line, headers)
        length = int(answer.header("Content-Length") or 0)
        if body and status_line.split()[1] != "101":
            answer.body = self._take(length)
        return answer

    def frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame, which must be whole and unmasked."""
        rsv, opcode, payload = self.frame_with_rsv()
        assert rsv == 0
        return opcode, payload

    def frame_with_rsv(self) -> tuple[int, int, bytes]:
        """Return the bits RSV1 to RSV3 as well: 4 for a compressed message (RFC 7692 §6)."""
        first, second = self._take(2)
        assert first & 0x80 and second & 0x80 == 0
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._take(8))
        return first >> 4 & 7, first & 0x0F, self._take(length)

    def _frame_but_no_ping(self) -> tuple[int, bytes]:
        """Return the next frame that is no ping: on a slow machine those come between."""
        while (found := self.frame())[0] == PING:
            pass
        return found

    def text(self) -> str:
        opcode, payload = self._frame_but_no_ping()
        assert opcode == TEXT, (opcode, payload)
        return payload.decode()

    def closing(self) -> tuple[int | None, str]:
        """Return code and reason of the Close frame that must come next."""
        opcode, payload = self._frame_but_no_ping()
        assert opcode == CLOSE, (opcode, payload)
        code = struct.unpack("!H", payload[:2])[0] if payload else None
        return code, payload[2:].decode()

    def at_end(self) -> bool:
        """Return whether the server has closed (or reset) the connection, nothing being left."""
        try:
            return not self.buffer and not self._more()
        except ConnectionResetError:
            return True

    def vanish(self) -> None:
        """Let nothing in any more: a cable is cut (Linux)."""
        drop_packets(self.socket)

    def reset(self) -> None:
        """Vanish with a TCP RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _more(self) -> bool:
        data = self.socket.recv(1 << 16)
        self.buffer += data
        return bool(data)

    def _take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            assert self._more(), f"end of stream after {self.buffer!r}"
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken
