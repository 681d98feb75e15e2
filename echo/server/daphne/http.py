"""Daphne's HTTP with limits on headers and bodies, and requests that may become WebSockets.

The front door gives a connection to this module unless its first request is a plain handshake.
"""

import asyncio
import logging
import re
import socket
import time
from functools import cache
from io import BytesIO
from typing import IO, Any
from urllib.parse import unquote

from daphne.http_protocol import HTTPFactory as StockHTTPFactory
from daphne.http_protocol import WebRequest
from daphne.utils import (
    HEADER_NAME_RE,
    INVALID_HEADER_VALUE_BYTES,
    parse_x_forwarded_for,
)
from twisted.internet import reactor, tcp
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.web import http

from echo.server import handshake
from echo.server.daphne.connection import DaphneConnection

logger = logging.getLogger(__name__)

HEADERS_TIMEOUT = 10.0  # seconds for all headers of a request
BODY_CHECK_INTERVAL = 60.0  # seconds
STREAM_TIMEOUT = 30.0  # seconds in which the client of an event stream reads all sent data
MIN_BODY_RATE = 1024  # bytes per second, on average over each interval
DEFAULT_CHUNK_SIZE = 65_536  # bytes of a body per event
AUTHORITY = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)  # of an absolute URI, RFC 3986 §3.2


class Events(asyncio.Queue[dict[str, Any]]):
    """The ASGI events of a request. The body is read from its file chunk by chunk.

    Daphne would put the whole body into the queue.
    """

    def __init__(self, body: IO[bytes], chunk_size: int) -> None:
        super().__init__()
        self._body = body
        self._chunk_size = chunk_size
        self._has_more = True

    def put_nowait(self, event: dict[str, Any]) -> None:
        if event["type"] != "http.request":
            super().put_nowait(event)

    async def get(self) -> dict[str, Any]:
        if not self._has_more or self._body.closed or not self.empty():
            return await super().get()
        await asyncio.sleep(0)  # reading a long body must not block other connections
        chunk = b"" if self._body.closed else self._body.read(self._chunk_size)
        self._has_more = len(chunk) == self._chunk_size
        return {"type": "http.request", "body": chunk, "more_body": self._has_more}


def has_socket(transport: Any) -> bool:
    """Return whether asyncio can take over the socket of the transport: see `take_socket`."""
    while isinstance(transport, HAProxyProtocolWrapper | TLSMemoryBIOProtocol):
        transport = transport.transport
    return isinstance(transport, tcp.Connection) and not getattr(transport, "TLS", False)


@cache
def _warn_of_unknown_transport(name: str) -> None:
    """Log once that WebSockets of this endpoint do not use this package's connection."""
    logger.warning(
        "An endpoint wraps its sockets in %s, which is not known here: its WebSockets are served "
        "by Daphne's own protocol.",
        name,
    )


class Channel(http.HTTPChannel):  # type: ignore[misc]
    """An HTTP connection with time limits for headers and bodies."""

    transport: Any
    _timer: Any = None
    _in_body = False
    _has_headers = False  # whether all headers of a request were among the last received data
    # If the front door has read a handshake and it is rejected: the connection, and the time at
    # which the handshake was read. The first request of the channel only sends the response.
    resumed: tuple[DaphneConnection, float] | None = None
    # time.monotonic() since when the client has not read all sent data, which is a lot
    unread_since: float | None = None

    def pauseProducing(self) -> None:
        if self.unread_since is None:  # called at each further write, too
            self.unread_since = time.monotonic()
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self.unread_since = None
        super().resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        in_headers = not (self._in_body or self._handlingRequest)
        self._has_headers = False
        super().dataReceived(data)
        # Most requests come whole, and a timer for each would be too expensive.
        if in_headers and not self._has_headers and self._timer is None:
            self._timer = reactor.callLater(HEADERS_TIMEOUT, self.forceAbortClient)

    def allHeadersReceived(self) -> None:
        self._has_headers = True
        self._cancel_timer()
        self._in_body = True
        super().allHeadersReceived()
        if self.length != 0:
            self._timer = reactor.callLater(BODY_CHECK_INTERVAL, self._check_body, 0)

    def _check_body(self, previous_size: int) -> None:
        """Abort a request whose body grows more slowly than MIN_BODY_RATE."""
        size = self.requests[-1].body_size
        if size - previous_size < MIN_BODY_RATE * BODY_CHECK_INTERVAL:
            self._timer = None
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n")
            self.timeoutConnection()
        else:
            self._timer = reactor.callLater(BODY_CHECK_INTERVAL, self._check_body, size)

    def _send100Continue(self) -> None:
        if not self.requests[-1].is_rejected:
            super()._send100Continue()

    def allContentReceived(self) -> None:
        self._cancel_timer()
        self._in_body = False
        super().allContentReceived()

    def connectionLost(self, reason: Any) -> None:
        self._cancel_timer()
        super().connectionLost(reason)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            timer, self._timer = self._timer, None
            if timer.active():
                timer.cancel()

    def take_socket(self) -> tuple[socket.socket, Any, bytes, bytes]:
        """Detach the socket from Twisted; return it with the unsent and the unparsed bytes.

        The second item is pyOpenSSL's connection if the socket carries TLS, else None.

        Uses private attributes of Twisted's transport and channel, until Twisted has a method for
        that: https://github.com/twisted/twisted/issues/1796
        """
        transport, session = self.transport, None
        transport.unregisterProducer()
        while isinstance(transport, ProtocolWrapper):
            if isinstance(transport, TLSMemoryBIOProtocol):
                session = transport.getHandle()
                # Of newer versions of Twisted: encrypts and sends what it holds.
                if (aggregator := getattr(transport, "_aggregator", None)) is not None:
                    aggregator.close()
            transport.factory.unregisterProtocol(transport)
            wrapper, transport = transport, transport.transport
            vars(wrapper).clear()
        transport.stopReading()
        transport.stopWriting()
        taken = transport.socket  # no dup(): the process may have no file descriptor left
        unsent = transport.dataBuffer[transport.offset :] + b"".join(transport._tempDataBuffer)
        unparsed = b"".join(self._dataBuffer)
        # Break the reference cycles: there may be very many connections.
        transport.protocol = self.transport = self._networkProducer = None
        self.requests.clear()
        self._dataBuffer.clear()
        return taken, session, unsent, unparsed


class Request(WebRequest):  # type: ignore[misc]  # Daphne has no types
    """An HTTP request that may become a WebSocket."""

    connection: DaphneConnection | None = None
    content: Any
    uri: bytes
    body: IO[bytes] = BytesIO()
    body_size = 0  # bytes
    is_rejected = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Twisted would parse forms into `args` on the event loop; nothing uses `args`.
        self._parsePOSTFormSubmission = False

    def gotLength(self, length: int | None) -> None:
        super().gotLength(length)
        self._check_size(length or 0)

    def handleContentChunk(self, data: bytes) -> None:
        self.body_size += len(data)
        if self._check_size(self.body_size):
            super().handleContentChunk(data)

    def _check_size(self, size: int) -> bool:
        """Return whether a body of that size is accepted. If not, respond with 413 once."""
        if self.is_rejected:
            return False
        content_type = self.requestHeaders.getRawHeaders(b"Content-Type", [b""])[0].lower()
        server = self.channel.factory.server
        has_files = content_type.startswith(b"multipart/form-data")
        limit = server.max_upload if has_files else server.max_body
        if limit is None or size <= limit:
            return True
        self.is_rejected = True
        self.channel.transport.write(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\n")
        self.channel.loseConnection()
        return False

    def setResponseCode(self, code: int, message: bytes | None = None) -> None:
        super().setResponseCode(code, message or handshake.phrase(code))

    def process(self) -> Any:
        if self.is_rejected:
            return None
        self.request_start = time.time()  # for the access log
        if self.channel.resumed is not None:
            return self._resume(*self.channel.resumed)
        self._strip_authority()
        # Daphne sets the root path from this header, which any client can send.
        self.requestHeaders.removeHeader(b"daphne-root-path")
        raw = self.requestHeaders.getAllRawHeaders()
        headers = [(name.lower(), value) for name, many in raw for value in many]
        is_upgrade = handshake.is_upgrade(headers)
        problem = self._problem(headers, is_upgrade) or forwarding_problem(self.server, headers)
        if problem is not None:
            self.channel.persistent = False
            return self.basic_error(400, b"Bad Request", problem)
        if is_upgrade and has_socket(self.channel.transport):
            return self._start_websocket(headers)
        if is_upgrade:
            _warn_of_unknown_transport(type(self.channel.transport).__qualname__)
        else:
            self.requestHeaders.removeHeader(b"upgrade")  # of several, Daphne would use the first
            # Daphne would read the whole content at once: see Events.
            self.body, self.content = self.content, BytesIO()
        return super().process()

    def finish(self) -> None:
        self.body.close()
        super().finish()

    def _strip_authority(self) -> None:
        """Treat `GET http://host/path` as `GET /path` (RFC 9112 §3.2.2): Host has the same host."""
        found = AUTHORITY.match(getattr(self, "uri", b""))
        if found is not None:
            rest = self.uri[found.end() :]
            self.uri = rest if rest.startswith(b"/") else b"/" + rest
            self.path = self.uri.partition(b"?")[0]

    def _start_websocket(self, headers: handshake.Headers) -> None:
        client = host_and_port(self.client)
        server = host_and_port(self.host)
        version = self.clientproto.partition(b"/")[2].decode("ascii")
        scheme = "https" if self.isSecure() else "http"
        scope = websocket_scope(self.server, self.uri, version, headers, client, server, scheme)
        # X_Forwarded_For could be mistaken for X-Forwarded-For (CVE-2015-0219).
        scope["headers"] = [(name, value) for name, value in headers if b"_" not in name]
        self.client_addr = scope["client"]  # for the access log
        self.connection = DaphneConnection(self.server, self)
        self.connection.open(scope, self.method.decode("ascii", "replace"))

    def _resume(self, connection: DaphneConnection, read_at: float) -> None:
        """Become the request of a handshake that the front door has read."""
        self.connection, self.channel.resumed = connection, None
        connection.request = self
        self.client_addr, self.request_start = connection.scope["client"], read_at

    def _problem(self, headers: handshake.Headers, is_upgrade: bool) -> str | None:
        """Return the error if the request is invalid.

        Handshakes are validated by the rules of Daphne's process(), which validates all others.
        """
        if not is_upgrade:
            has_one_host = len(handshake.values(headers, b"host")) <= 1
            return None if has_one_host else "More than one Host header"
        if not self.uri.isascii():
            return "Invalid characters in path"
        for name, value in headers:
            if not HEADER_NAME_RE.fullmatch(name):
                return "Invalid header name"
            if INVALID_HEADER_VALUE_BYTES.intersection(value):
                return "Invalid header value"
        return None

    def handle_exception(self, exception: BaseException) -> None:
        """Respond with 500. Abort a started response, which would look complete otherwise."""
        if self._response_started:
            self.channel.forceAbortClient()
        else:
            super().handle_exception(exception)

    def check_timeouts(self) -> None:
        if self.application_queue is not None:  # handshakes have their own time limits
            super().check_timeouts()
        # ASGI has no back-pressure on Daphne: a stream that is not read would fill the memory.
        [content_type] = self.responseHeaders.getRawHeaders(b"content-type", [b""])[:1]
        channel = getattr(self, "channel", None)  # until the connection is lost
        if channel is not None and content_type.startswith(b"text/event-stream"):
            since = channel.unread_since
            if since is not None and time.monotonic() - since > STREAM_TIMEOUT:
                channel.forceAbortClient()

    def connectionLost(self, reason: Any) -> None:
        self.body.close()
        super().connectionLost(reason)
        if self.connection is not None:
            self.connection.connection_lost(None)


def host_and_port(address: Any) -> list[Any] | None:
    """Return the address as in ASGI scopes: None for a Unix socket."""
    if hasattr(address, "host") and hasattr(address, "port"):
        return [str(address.host), address.port]
    return None


def forwarding_problem(server: Any, headers: handshake.Headers) -> str | None:
    """Return the error if a proxy header (X-Forwarded-For, ...) is invalid."""
    names = (
        server.proxy_forwarded_address_header,
        server.proxy_forwarded_port_header,
        server.proxy_forwarded_proto_header,
    )
    for name in filter(None, names):
        for value in handshake.values(headers, name.lower().encode()):
            address = value.partition(b",")[0].strip()
            is_address = name != names[0] or handshake.is_address(address)
            if not value.isascii() or not is_address:
                return f"Invalid {name} header"
    return None


def websocket_scope(
    server: Any,
    uri: bytes,
    http_version: str,
    headers: handshake.Headers,
    client: list[Any] | None,
    address: list[Any] | None,
    scheme: str = "http",
) -> dict[str, Any]:
    """Return the ASGI scope of a handshake at the server's address."""
    if server.proxy_forwarded_address_header:
        client, scheme = parse_x_forwarded_for(
            dict(reversed(headers)),  # of several headers with a name, the first
            server.proxy_forwarded_address_header,
            server.proxy_forwarded_port_header,
            server.proxy_forwarded_proto_header,
            client,
            scheme,
        )
    path, _, query = uri.partition(b"?")
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": http_version,
        "scheme": "wss" if scheme == "https" else "ws",
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "root_path": server.root_path,
        "query_string": query,
        "headers": headers,
        "client": client,
        "server": address,
        "subprotocols": handshake.subprotocols(headers),
    }


class HTTPFactory(StockHTTPFactory):  # type: ignore[misc]
    """Daphne's factory with this module's channel and request."""

    protocol = Channel

    def buildProtocol(self, address: Any) -> Any:
        channel = super().buildProtocol(address)
        channel.requestFactory = Request
        return channel

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]  # for TLS (ALPN): the channel has no HTTP/2
