"""TLS sessions that Twisted has established, over asyncio's transport of the same socket.

Twisted's endpoints (`ssl:`, `txsni:`) do TLS with pyOpenSSL, in memory. asyncio itself cannot
continue such a session: its TLS uses the module `ssl`.
"""

import asyncio
from contextlib import suppress
from typing import Any, cast

from OpenSSL import SSL

MAX_RECORD = 16_384  # bytes of plaintext, RFC 8446 §5.1
CHUNK_SIZE = 65_536  # bytes


class TLSTransport(asyncio.Transport, asyncio.Protocol):
    """Encrypts and decrypts the data between a protocol and the socket's transport.

    `session` is a connection of pyOpenSSL without a socket, whose TLS handshake is done. Like TCP,
    the connection may be half-closed, in both directions.
    """

    def __init__(self, session: Any, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._session = session
        self._protocol = protocol
        self._transport: asyncio.Transport
        self._has_shut_down = False
        self._is_at_end = False  # whether the client has sent `close_notify`

    # For the protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._has_shut_down:
            return
        try:
            # In parts, since OpenSSL never frees the largest buffer that it has needed.
            for start in range(0, len(data), MAX_RECORD):
                self._session.sendall(data[start : start + MAX_RECORD])
                self._flush()
        except SSL.Error:
            self.abort()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Send TLS's `close_notify`, then a FIN."""
        if not self._has_shut_down and not self.is_closing():
            self._shut_down()
            self._transport.write_eof()

    def close(self) -> None:
        """Send what is left, and `close_notify`; do not wait for the client's `close_notify`."""
        if not self.is_closing():
            self._shut_down()
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def _flush(self) -> None:
        """Write what the session has to send: data, replies of TLS, alerts."""
        chunk = b"-" * CHUNK_SIZE
        with suppress(SSL.WantReadError):  # nothing is left
            while len(chunk) == CHUNK_SIZE:
                chunk = self._session.bio_read(CHUNK_SIZE)
                self._transport.write(chunk)

    def _shut_down(self) -> None:
        with suppress(SSL.Error):  # the session has failed
            self._session.shutdown()
        self._flush()
        self._has_shut_down = True

    # For asyncio's transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._protocol.connection_made(self)

    def data_received(self, data: bytes) -> None:
        session = self._session
        received = []
        is_at_end = has_failed = False
        try:
            for start in range(0, len(data), MAX_RECORD):
                session.bio_write(data[start : start + MAX_RECORD])
                with suppress(SSL.WantReadError):
                    while True:
                        received.append(session.recv(MAX_RECORD))
        except SSL.ZeroReturnError:
            is_at_end = True
        except SSL.Error:
            has_failed = True
        self._flush()
        if received:
            self._protocol.data_received(received[0] if len(received) == 1 else b"".join(received))
        if has_failed:
            self.close()  # after the alert
        elif is_at_end and not self._is_at_end and not self.is_closing():
            self._is_at_end = True
            if not self._protocol.eof_received():
                self.close()

    def eof_received(self) -> bool:
        # The FIN after `close_notify` is the same end.
        return self._is_at_end or bool(self._protocol.eof_received())

    def connection_lost(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()
