"""uvicorn with this package's connections.

`--ws echo.server.uvicorn:WebSocketProtocol`, and optionally `--http
echo.server.uvicorn:HTTPProtocol` for cheaper handshakes.
"""

import asyncio
import logging
from contextvars import Context
from functools import lru_cache
from math import inf
from typing import Any, cast
from urllib.parse import quote, unquote

from django.core.exceptions import ImproperlyConfigured
from uvicorn.config import Config
from uvicorn.logging import TRACE_LOG_LEVEL
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from echo.extensions import uvicorn_server
from echo.server import handshake
from echo.server.connection import State, WebSocketConnection
from echo.server.garbage import collect_regularly, tune_garbage_collector
from echo.server.registry import DRAINING, STOP_TIMEOUT, get_open_connections
from echo.server.settings import drain_seconds
from echo.server.timeouts import APPLICATION_TIMEOUT, Limits

logger = logging.getLogger("uvicorn.error")

MAX_HEAD_SIZE = 65_536  # bytes of a handshake request, as in h11; httptools has no limit


@lru_cache(maxsize=1)
def _limits(config: Config) -> Limits:
    return Limits(
        config.ws_max_size,
        config.ws_ping_interval or inf,  # 0: no pings, as in uvicorn
        inf if config.ws_ping_timeout is None else config.ws_ping_timeout,
        application_timeout=max(APPLICATION_TIMEOUT, config.timeout_graceful_shutdown or 0),
        deflate=config.ws_per_message_deflate,
    )


class WebSocketProtocol(WebSocketConnection):
    """A WebSocket connection under uvicorn.

    Limits are set by the options `--ws-max-size`, `--ws-ping-interval`, `--ws-ping-timeout` and,
    for the time that the drain and then the applications have to finish,
    `--timeout-graceful-shutdown`. With `--ws-per-message-deflate`, uvicorn's default, clients may
    negotiate compression.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(_limits(config))
        self._config = config
        self._server_state = server_state
        self._app_state = app_state

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # uvicorn has no hook that runs when the application has been imported.
        tune_garbage_collector()
        collect_regularly()
        # Transports of others, such as those of test suites, need not have the method.
        self._http: Any = getattr(transport, "get_protocol", _no_protocol)()
        # uvicorn's HTTP protocol and its parser form a reference cycle. Without an upgrade, uvicorn
        # breaks it in connection_lost(). Remove this when handle_websocket_upgrade() does the same.
        if hasattr(self._http, "parser"):
            self._http.parser = None
        self._server_state.connections.add(self)  # type: ignore[arg-type]  # typed as uvicorn's own classes
        self._open_connections = get_open_connections()
        self._open_connections.add(self)
        self._trace("made", transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self.transport is not None:
            self._trace("lost", self.transport)
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if self.scope:
            super().data_received(data)
        elif self.state is not State.CLOSED:  # Windows may deliver data after the end
            self._request_received(data)

    def _request_received(self, request: bytes) -> None:
        """Start the application. uvicorn has parsed the request and serialized it again."""
        if len(request) > MAX_HEAD_SIZE:
            self._reject_head()
            return
        head, _, early = request.partition(b"\r\n\r\n")
        request_line, *lines = head.split(b"\r\n")
        method, target, _ = request_line.split(b" ", 2)
        fields = [line.partition(b": ") for line in lines]
        headers = [(name.lower(), value) for name, _, value in fields]
        self.handshake_received(target, headers, early, method.decode("latin-1"))

    def handshake_received(
        self, target: bytes, headers: handshake.Headers, early: bytes, method: str = "GET"
    ) -> None:
        """Start the application. `early` is what the client has sent after the handshake."""
        http, self._http = self._http, None
        self._early = early
        path, _, query = target.decode("latin-1").partition("?")
        root_path = self._config.root_path
        assert self.transport is not None
        scope = {
            "type": "websocket",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(self.transport) else "ws",
            # uvicorn's HTTP protocols have asked the kernel for them already.
            "server": getattr(http, "server", None) or get_local_addr(self.transport),
            "client": getattr(http, "client", None) or get_remote_addr(self.transport),
            "root_path": root_path,
            "path": root_path + unquote(path),
            "raw_path": (root_path + path).encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "headers": headers,
            "subprotocols": handshake.subprotocols(headers),
            "state": self._app_state.copy(),
        }
        if self._config.reset_contextvars:  # as for HTTP, the application does not inherit them
            Context().run(self.start, self._config.loaded_app, scope, method)
        else:
            self.start(self._config.loaded_app, scope, method)
        if self._task is not None:
            self._server_state.tasks.add(self._task)
        if self._open_connections.is_stopping or _has_shut_down(self._config):
            self.shutdown()
            self.close_for_restart()

    def _reject_head(self) -> None:
        self._http = None
        assert self.transport is not None
        path = "(headers too long)"
        self.scope = {"path": path, "client": get_remote_addr(self.transport), "headers": []}
        self._respond(431, "The headers are too long")

    def shutdown(self) -> None:
        """Begin to close all connections. Called by uvicorn for each of them when it stops."""
        connections = get_open_connections()
        if connections.is_stopping:
            return
        seconds, limit = _drain_seconds(), self._config.timeout_graceful_shutdown
        # After its limit, uvicorn cancels the applications of the connections that are open.
        drain = seconds if limit is None else min(seconds, max(limit - STOP_TIMEOUT, 0))
        if drain < seconds:
            logger.warning(
                "ECHO_DRAIN_SECONDS is %g, but --timeout-graceful-shutdown %d leaves time for %g.",
                *(seconds, limit, drain),
            )
        if drain:
            logger.info(DRAINING, len(connections), drain)
        connections.stop_soon(STOP_TIMEOUT if limit is None else limit - drain, drain)

    def finished(self) -> None:
        if self._task is not None:
            self._server_state.tasks.discard(self._task)
        self._server_state.connections.discard(self)
        self._open_connections.discard(self)

    def default_headers(self) -> handshake.Headers:
        return list(self._server_state.default_headers)

    def start_response(self, status: int, headers: handshake.Headers) -> None:
        super().start_response(status, headers)
        self._log(str(status))

    def log(self, action: str) -> None:
        # If the handshake is rejected with a response, `start_response` logs the status.
        if action != "rejected" or self.state is not State.RESPONDING:
            self._log(f"[{action}]")

    def _log(self, what: str) -> None:
        if self._config.access_log:
            client = self.scope["client"]
            address = f"{client[0]}:{client[1]}" if client else "-"
            path = quote(self.scope["path"])
            logger.info('%s - "WebSocket %s" %s', address, path, what)

    def _trace(self, action: str, transport: asyncio.BaseTransport) -> None:
        if logger.isEnabledFor(TRACE_LOG_LEVEL):
            client = get_remote_addr(cast(asyncio.Transport, transport))
            prefix = f"{client[0]}:{client[1]} - " if client else ""
            logger.log(TRACE_LOG_LEVEL, "%sWebSocket connection %s", prefix, action)


class HTTPProtocol(asyncio.Protocol):
    """An HTTP connection under uvicorn, until its first bytes are received.

    If they are a whole WebSocket handshake in a strict syntax, a WebSocketProtocol gets the
    connection. Everything else, half a request included, goes to uvicorn's own protocol.
    """

    def __init__(self, config: Config, server_state: ServerState, **others: Any) -> None:
        self._config = config
        self._connections: set[Any] = server_state.connections
        self._arguments = {"config": config, "server_state": server_state, **others}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._connections.add(self)
        if _has_shut_down(self._config):
            self.shutdown()

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._connections.discard(self)
        found = handshake.parse(data)
        if (
            found is None
            or not handshake.asks_for_upgrade(found.headers)
            or self._config.ws_protocol_class is not WebSocketProtocol
        ):
            http = cast(Any, AutoHTTPProtocol)(**self._arguments)
            self._transport.set_protocol(http)
            http.connection_made(self._transport)
            http.data_received(data)
            return
        protocol = WebSocketProtocol(**self._arguments)
        protocol.connection_made(self._transport)
        self._transport.set_protocol(protocol)
        protocol.handshake_received(found.uri, found.headers, data[found.size :])

    def shutdown(self) -> None:
        """Close the connection, on which nothing has been received. Called by uvicorn."""
        self._transport.abort()  # with TLS, close() would wait for the client


def _no_protocol() -> Any:
    return None


@lru_cache(maxsize=1)
def _server(config: Config) -> Any:
    return uvicorn_server()


def _has_shut_down(config: Config) -> bool:
    """Return whether uvicorn has called `shutdown` of the connections that it knew.

    It does so only once: connections that were in their TLS handshake then would stay open.
    """
    server = _server(config)
    if not getattr(server, "should_exit", False):
        return False
    return not any(each.is_serving() for each in server.servers)


def _drain_seconds() -> float:
    """Return ECHO_DRAIN_SECONDS, or 0 if it is invalid."""
    try:
        return drain_seconds()
    except ImproperlyConfigured as error:
        logger.error("%s", error)
        return 0
