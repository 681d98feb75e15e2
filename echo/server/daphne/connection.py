"""A WebSocket connection under Daphne, whose handshake the front door or Twisted has read."""

import asyncio
from typing import Any

from echo.server import handshake
from echo.server.connection import State, WebSocketConnection
from echo.server.daphne.tls import TLSTransport
from echo.server.registry import get_open_connections


class DaphneConnection(WebSocketConnection):
    """A WebSocket connection that may use a Twisted request until the handshake is accepted.

    If Twisted has read the handshake, there is a request from the start. If the front door has,
    there is one only if the handshake is rejected: the client may send another request then.
    """

    def __init__(self, server: Any, request: Any = None, accepted: Any = None) -> None:
        super().__init__(server.limits)
        self.request = request  # of echo.server.daphne.http
        self.accepted = accepted  # of echo.server.daphne.front_door, until the handshake is over
        self._server = server

    def open(self, scope: dict[str, Any], method: str = "GET", early: bytes = b"") -> None:
        """Run the application. `early` is what the client has sent after the handshake."""
        self._early = early
        self._open_connections = get_open_connections()
        self._open_connections.add(self)
        self.start(self._server.application, scope, method)
        if self._server.stopping:
            self.close_for_restart()

    async def connect(self) -> None:
        if self.accepted is not None:
            await self._loop.connect_accepted_socket(lambda: self, self.accepted.sock)
            if self._server.stopping:  # `close_for_restart` had no transport
                self.close_for_restart()

    def default_headers(self) -> handshake.Headers:
        name = self._server.server_name
        return [(b"server", name.encode())] if name else []

    async def acquire_transport(self) -> None:
        self.accepted = None
        request, self.request = self.request, None
        if request is None or self._queue.disconnect is not None:
            return
        request.connection = None
        self._server.connections.pop(request, None)
        taken, session, unsent, self._early = request.channel.take_socket()
        protocol = self if session is None else TLSTransport(session, self)
        transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, taken)
        if unsent:
            transport.write(unsent)

    def write_acceptance(self, head: bytes) -> None:
        # In the next iteration, together with those of all connections that are accepted in this
        # one: to wake a client that waits costs more than the write.
        self._flow.start_batch(head)

    def eof_received(self) -> bool:
        # As Twisted, close the connection if the client sends a FIN before the handshake is over.
        was_open = self.state is not State.HANDSHAKE
        return super().eof_received() and was_open

    def start_response(self, status: int, headers: handshake.Headers) -> None:
        if self.accepted is not None:
            self._move_to_twisted()
        if self.request is None:
            super().start_response(status, headers)
            return
        if (b"connection", b"close") in headers:
            self.request.channel.persistent = False
        start = {"type": "http.response.start", "status": status, "headers": headers}
        self.request.handle_reply(start)

    def _move_to_twisted(self) -> None:
        """Get a request, so that Twisted sends the response and reads the next request."""
        transport, accepted, self.accepted = self.transport, self.accepted, None
        if transport is None or transport.is_closing():
            return
        try:
            duplicate = transport.get_extra_info("socket").dup()
        except OSError:  # no file descriptor is left: respond without Twisted, and close
            return
        transport.set_protocol(asyncio.Protocol())
        transport.abort()
        self._set_transport(None)
        early, self._early = self._early, b""
        accepted.resume(self, duplicate, early)

    def send_response_body(self, body: bytes, more: bool) -> None:
        if self.request is None:
            super().send_response_body(body, more)
            return
        self.request.handle_reply({"type": "http.response.body", "body": body, "more_body": more})
        if not more:
            self.request.connection = None
            self.request = None
            self._close_transport()
            self._check_finished()

    def _close_transport(self) -> None:
        if self.request is not None:  # the response is incomplete and will not be finished
            self.request.connection = None
            self.request.channel.timeoutConnection()  # aborts if the client does not read
            self.request = None
        super()._close_transport()

    def close_for_restart(self) -> None:
        # With neither, asyncio is taking over the socket: the handshake will be accepted, and the
        # open connection closed.
        is_reachable = self.request is not None or self.transport is not None
        if is_reachable or self.state is not State.HANDSHAKE:
            super().close_for_restart()

    def finished(self) -> None:
        self._open_connections.discard(self)

    def log(self, action: str) -> None:
        if self._server.action_logger is not None:
            client = self.scope["client"]
            details = {
                "path": self.scope["raw_path"].decode("ascii"),
                "client": f"{client[0]}:{client[1]}" if client else None,
            }
            self._server.log_action("websocket", action, details)
