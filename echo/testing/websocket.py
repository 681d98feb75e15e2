"""A WebSocket of a test: it waits for what it is asked for, and can end without a word."""

import socket
import struct
from collections import deque
from collections.abc import Mapping, Sequence

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

TIMEOUT = 10.0  # seconds
RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, without any wait


class Connection:
    """A WebSocket that the server has accepted.

    Raises `websockets.exceptions.InvalidStatus`, which has the `response`, if it has not. All
    methods raise TimeoutError if the server says nothing for TIMEOUT seconds.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        subprotocols: Sequence[str] = (),
    ) -> None:
        uri = parse_uri(url)
        offers = [Subprotocol(name) for name in subprotocols] or None
        self._protocol = ClientProtocol(uri, subprotocols=offers, max_size=None)
        self._frames: deque[Frame] = deque()
        self._socket = socket.create_connection((uri.host, uri.port), TIMEOUT)
        try:
            self._shake_hands(headers or {})
        except BaseException:
            self._socket.close()
            raise

    def _shake_hands(self, headers: Mapping[str, str]) -> None:
        request = self._protocol.connect()
        for name, value in headers.items():
            request.headers.pop(name, None)
            request.headers[name] = value
        self._protocol.send_request(request)
        self._write()
        while self._protocol.state is State.CONNECTING:
            self._read(TIMEOUT)
            if self._protocol.handshake_exc is not None:
                raise self._protocol.handshake_exc

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def subprotocol(self) -> str | None:
        return self._protocol.subprotocol

    @property
    def close_code(self) -> int | None:
        """The server's: 1005 for a Close without one, 1006 without a Close, None while open."""
        return self._protocol.close_code

    @property
    def close_reason(self) -> str | None:
        return self._protocol.close_reason

    def send(self, message: str | bytes) -> None:
        """Send a text, or bytes. Raises ConnectionClosed as `recv` does."""
        if self._protocol.state is not State.OPEN:
            self.wait_closed()
            raise self._protocol.close_exc
        if isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)
        self._write()

    def recv(self, timeout: float = TIMEOUT) -> str | bytes:
        """Return the next text or bytes.

        Raises `websockets.exceptions.ConnectionClosed` where none can come any more.
        """
        while not self._frames:
            if self._protocol.state is State.CLOSED:
                raise self._protocol.close_exc
            self._read(timeout)
        frame = self._frames.popleft()  # whole: this project's transport sends no fragments
        return bytes(frame.data).decode() if frame.opcode is Opcode.TEXT else bytes(frame.data)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it, and return when the server has answered: then it counts no more."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._write()
        self.wait_closed()

    def wait_closed(self) -> None:
        """Return when the server has closed it; what it sent before can still be received."""
        while self._protocol.state is not State.CLOSED:
            self._read(TIMEOUT)

    def vanish(self) -> None:
        """End it by a TCP reset, without a Close: as a process that is killed."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        self._lose()

    def _lose(self) -> None:
        self._socket.close()
        self._protocol.receive_eof()

    def _read(self, timeout: float) -> None:
        """Take what comes next from the server, and answer its pings and its Close."""
        self._socket.settimeout(timeout)
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            raise TimeoutError(f"Nothing was received in {timeout:g} s.") from None
        except ConnectionResetError:
            data = b""
        if not data:
            self._lose()
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY):
                self._frames.append(event)
        self._write()

    def _write(self) -> None:
        try:
            for data in self._protocol.data_to_send():
                if data:  # b"" is for the end, which the server begins
                    self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self._lose()
