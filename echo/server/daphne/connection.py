"""The WebSocket connection of a Daphne request."""

from typing import Any

from echo.server import handshake
from echo.server.connection import WebSocketConnection
from echo.server.daphne.tls import TLSTransport
from echo.server.registry import get_open_connections
from echo.server.timeouts import Limits


class DaphneConnection(WebSocketConnection):
    """A WebSocket connection that uses its HTTP request until the handshake is accepted."""

    def __init__(self, request: Any, limits: Limits) -> None:
        super().__init__(limits)
        self._request = request  # of echo.server.daphne.http, until the handshake is accepted
        self._server = request.server

    def default_headers(self) -> handshake.Headers:
        name = self._server.server_name
        return [(b"server", name.encode())] if name else []

    async def acquire_transport(self) -> None:
        request, self._request = self._request, None
        if request is None or self._queue.disconnect is not None:
            return
        request.connection = None
        self._server.connections.pop(request, None)
        taken, session, unsent, self._early = request.channel.take_socket()
        protocol = self if session is None else TLSTransport(session, self)
        transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, taken)
        if unsent:
            transport.write(unsent)

    def start_response(self, status: int, headers: handshake.Headers) -> None:
        if self._request is not None:
            if (b"connection", b"close") in headers:
                self._request.channel.persistent = False
            start = {"type": "http.response.start", "status": status, "headers": headers}
            self._request.handle_reply(start)

    def send_response_body(self, body: bytes, more: bool) -> None:
        if self._request is None:
            return
        self._request.handle_reply({"type": "http.response.body", "body": body, "more_body": more})
        if not more:
            self._request.connection = None
            self._request = None
            self._close_transport()
            self._check_finished()

    def _close_transport(self) -> None:
        if self._request is not None:  # the response is incomplete and will not be finished
            self._request.connection = None
            self._request.channel.timeoutConnection()  # aborts if the client does not read
            self._request = None
        super()._close_transport()

    def shutdown(self) -> None:
        # If neither is set, asyncio is taking over the socket: `stop` calls this again.
        if self._request is not None or self.transport is not None:
            super().shutdown()

    def finished(self) -> None:
        get_open_connections().discard(self)

    def log(self, action: str) -> None:
        if self._server.action_logger is not None:
            client = self.scope["client"]
            details = {
                "path": self.scope["raw_path"].decode("ascii"),
                "client": f"{client[0]}:{client[1]}" if client else None,
            }
            self._server.log_action("websocket", action, details)
