"""A WebSocket client without threads, for the tests of a site and for `echo_doctor`."""

import socket
import ssl
import struct
from collections import deque
from collections.abc import Mapping, Sequence

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

TIMEOUT = 10.0  # seconds
RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, with a timeout of 0 s


class ClientWebSocket:
    """The client's side of an open WebSocket.

    If the server rejects the handshake, the constructor raises
    `websockets.exceptions.InvalidStatus`, which has the `response`. If nothing is received for
    `timeout` seconds, all methods raise TimeoutError.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        subprotocols: Sequence[str] = (),
        timeout: float = TIMEOUT,
    ) -> None:
        uri = parse_uri(url)
        offers = [Subprotocol(name) for name in subprotocols] or None
        self._protocol = ClientProtocol(uri, subprotocols=offers, max_size=None)
        self._frames: deque[Frame] = deque()
        self._timeout = timeout
        self._socket = socket.create_connection((uri.host, uri.port), timeout)
        try:
            if uri.secure:
                context = ssl.create_default_context()
                self._socket = context.wrap_socket(self._socket, server_hostname=uri.host)
            self._open(headers or {})
        except BaseException:
            self._socket.close()
            raise

    def _open(self, headers: Mapping[str, str]) -> None:
        request = self._protocol.connect()
        for name, value in headers.items():
            request.headers.pop(name, None)
            request.headers[name] = value
        self._protocol.send_request(request)
        self._write()
        while self._protocol.state is State.CONNECTING:
            self._read(self._timeout)
            if self._protocol.handshake_exc is not None:
                raise self._protocol.handshake_exc

    def __enter__(self) -> "ClientWebSocket":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def subprotocol(self) -> str | None:
        return self._protocol.subprotocol

    @property
    def close_code(self) -> int | None:
        """The server's code; 1005 if its Close has none, 1006 if it sent no Close, None if open."""
        return self._protocol.close_code

    @property
    def close_reason(self) -> str | None:
        return self._protocol.close_reason

    def send(self, message: str | bytes) -> None:
        """Send a text or bytes. Raises ConnectionClosed as `recv` does."""
        if self._protocol.state is not State.OPEN:
            self.wait_closed()
            raise self._protocol.close_exc
        if isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)
        self._write()

    def recv(self, timeout: float | None = None) -> str | bytes:
        """Return the next text or bytes.

        Raises `websockets.exceptions.ConnectionClosed` once the connection is closed and all
        messages have been received.
        """
        while not self._frames:
            if self._protocol.state is State.CLOSED:
                raise self._protocol.close_exc
            self._read(self._timeout if timeout is None else timeout)
        frame = self._frames.popleft()  # a whole message: this app's servers send no fragments
        return bytes(frame.data).decode() if frame.opcode is Opcode.TEXT else bytes(frame.data)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, and return after the server's reply, when it is not counted."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._write()
        self.wait_closed()

    def wait_closed(self) -> None:
        """Wait until the server closes the connection. Earlier messages can still be received."""
        while self._protocol.state is not State.CLOSED:
            self._read(self._timeout)

    def vanish(self) -> None:
        """Reset the TCP connection without a Close, as when a process is killed."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        self._lose()

    def _lose(self) -> None:
        self._socket.close()
        self._protocol.receive_eof()

    def _read(self, timeout: float) -> None:
        """Process the next bytes of the server, and reply to its pings and its Close."""
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
                if data:  # b"" means a half-close, which is left to the server
                    self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self._lose()
