"""Daphne with the connection class of this package.

Twisted keeps HTTP, the command line and the endpoints. A WebSocket's socket is handed to
asyncio, on the same event loop, when its handshake is accepted.
"""

import asyncio
import logging
import re
import socket
import time
from functools import partial
from io import BytesIO
from typing import IO, Any
from urllib.parse import unquote

from daphne import server as stock
from daphne.cli import CommandLineInterface as StockCommandLineInterface
from daphne.http_protocol import HTTPFactory as StockHTTPFactory
from daphne.http_protocol import WebRequest
from daphne.utils import (
    HEADER_NAME_RE,
    INVALID_HEADER_VALUE_BYTES,
    parse_x_forwarded_for,
)
from django.conf import settings
from twisted.internet import defer, reactor, tcp
from twisted.web import http

from echo.server import handshake
from echo.server.connection import Limits, WebSocketConnection
from echo.server.registry import get_watch

logger = logging.getLogger(__name__)

HEADERS_TIMEOUT = 10.0  # seconds for all headers of a request
MAX_BODY = 2_621_440  # bytes, where no Django setting tells
BODY_PERIOD = 60.0  # seconds, in each of which a body must grow
SLOWEST_BODY = 1024  # bytes per second
ABSOLUTE_FORM = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)  # RFC 3986 §3.2: the authority
PIECE = 65_536  # bytes of a body that the application receives at a time, by default
APPLICATIONS_TIMEOUT = 1.0  # seconds for HTTP applications to end when the server stops


class Server(stock.Server):  # type: ignore[misc]
    """Daphne's server, with this package's HTTP channel and WebSocket connection."""

    def __init__(
        self,
        *args: Any,
        ping_timeout: float = 10,
        request_buffer_size: int = PIECE,
        **options: Any,
    ) -> None:
        # A peer that is gone leaves the count after 20 + 10 seconds, not after 50.
        super().__init__(
            *args, ping_timeout=ping_timeout, request_buffer_size=request_buffer_size, **options
        )
        self.stopping = False
        self.max_body, self.max_upload = _max_sizes()
        self._has_warned = False

    @property
    def http_factory(self) -> Any:
        return self._http_factory

    @http_factory.setter
    def http_factory(self, _stock_factory: Any) -> None:  # Daphne's run() sets it
        self._http_factory = HTTPFactory(self)

    def warn_of_wrapped_transport(self) -> None:
        """Log, once, that this transport of ours is not used."""
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "An endpoint with TLS or PROXY protocol: Daphne's own WebSocket protocol serves "
                "its WebSockets. Let a proxy in front of the server take that off for this one."
            )

    @property
    def limits(self) -> Limits:
        timeouts = (self.websocket_connect_timeout, self.websocket_handshake_timeout)
        return Limits(
            max_size=min(
                self.websocket_max_message_size or 1 << 62, self.websocket_max_frame_size or 1 << 62
            ),
            ping_interval=self.ping_interval or None,
            ping_timeout=self.ping_timeout or None,
            handshake_timeout=min((t for t in timeouts if t >= 0), default=None),
            max_age=self.websocket_timeout if self.websocket_timeout >= 0 else None,
            application_timeout=self.application_close_timeout,
        )

    def log_action(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        # Daphne's access log writes the path between quotes.
        super().log_action(protocol, action, {**details, "path": _escaped(details["path"])})

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        if not isinstance(protocol, Request):
            return super().create_application(protocol, scope)
        events = Events(protocol.body, self.request_buffer_size)
        scope["asgi"] = {"version": "3.0"}
        application = self.application(scope, events.get, partial(self.handle_reply, protocol))
        self.connections[protocol]["application_instance"] = asyncio.ensure_future(application)
        return events

    def application_checker(self) -> None:
        """Each second: log and forget the applications that have ended, as Daphne does.

        An error concerns one request only.
        """
        reactor.callLater(1, self.application_checker)
        for request, details in list(self.connections.items()):
            try:
                self._check_application(request, details)
            except Exception:
                self.connections.pop(request, None)
                logger.exception("Cannot end %r in order", request)

    def _check_application(self, request: Any, details: dict[str, Any]) -> None:
        application = details.get("application_instance")
        disconnected = details.get("disconnected")
        if application is not None and application.done():
            del details["application_instance"]
            exception = None if application.cancelled() else application.exception()
            if isinstance(exception, KeyboardInterrupt):
                self.stop()
            elif exception is not None:
                logger.error("Exception inside application: %s", exception, exc_info=exception)
                if not disconnected:
                    request.handle_exception(exception)
        elif application is not None:
            if disconnected and time.time() - disconnected > self.application_close_timeout:
                logger.warning("The application of %r did not end, and is cancelled", request)
                application.cancel()
        elif disconnected:
            del self.connections[request]

    def timeout_checker(self) -> None:
        """Each two seconds: enforce the time limits. An error concerns one request only."""
        reactor.callLater(2, self.timeout_checker)
        for request in list(self.connections):
            try:
                request.check_timeouts()
            except Exception:
                self.connections.pop(request, None)
                logger.exception("Cannot check the time limits of %r", request)

    def kill_all_applications(self) -> Any:
        """End all in good order: 1012 for WebSockets, then what is left is cancelled."""
        return defer.Deferred.fromFuture(asyncio.ensure_future(self._stop()))

    async def _stop(self) -> None:
        self.stopping = True
        await get_watch().stop()
        running = [details.get("application_instance") for details in self.connections.values()]
        tasks = {task for task in running if task is not None and not task.done()}
        # Django's handler ends in order when its client has gone; cancelled it leaves tasks behind.
        for request in list(self.connections):
            if getattr(request, "application_queue", None) is not None:
                request.send_disconnect()
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=APPLICATIONS_TIMEOUT)
        for task in tasks:
            task.cancel()


def _max_sizes() -> tuple[int | None, int | None]:
    """Return the bytes that a body, and one with files, may have; None for no limit.

    Django would reject the former, but later, and sets no limit for the latter.
    """
    if not settings.configured:
        return MAX_BODY, MAX_BODY
    from echo.conf import conf

    return settings.DATA_UPLOAD_MAX_MEMORY_SIZE, conf.ECHO_MAX_UPLOAD_SIZE


def _escaped(text: str) -> str:
    """Return the text as nginx would log it: nothing in it ends a field or a line."""
    return re.sub(r'[^ -~]|["\\]', lambda found: f"\\x{ord(found[0]):02X}", text)


class Events(asyncio.Queue[dict[str, Any]]):
    """The events of a request for its application, which get the body from its file as they go.

    Daphne would put all of the body into the queue.
    """

    def __init__(self, body: IO[bytes], piece: int) -> None:
        super().__init__()
        self._body = body
        self._piece = piece
        self._has_more = True

    def put_nowait(self, event: dict[str, Any]) -> None:
        if event["type"] != "http.request":
            super().put_nowait(event)

    async def get(self) -> dict[str, Any]:
        if not self._has_more or self._body.closed or not self.empty():
            return await super().get()
        await asyncio.sleep(0)  # others have their turn, too, while a long body is read
        piece = b"" if self._body.closed else self._body.read(self._piece)
        self._has_more = len(piece) == self._piece
        return {"type": "http.request", "body": piece, "more_body": self._has_more}


def is_plain(transport: Any) -> bool:
    """Return whether the bytes on its socket are those of HTTP: no TLS, no PROXY protocol.

    Endpoints like `ssl:`, `txsni:` and `haproxy:` wrap the socket's transport.
    """
    return isinstance(transport, tcp.Connection) and not getattr(transport, "TLS", False)


class Channel(http.HTTPChannel):  # type: ignore[misc]
    """An HTTP connection whose headers and bodies must come in time."""

    transport: Any
    _late: Any = None
    _in_body = False

    def dataReceived(self, data: bytes) -> None:
        in_headers = not (self._in_body or self._handlingRequest)
        if self._late is None and in_headers:
            self._late = reactor.callLater(HEADERS_TIMEOUT, self.forceAbortClient)
        super().dataReceived(data)

    def allHeadersReceived(self) -> None:
        self._in_time()
        self._in_body = True
        super().allHeadersReceived()
        if self.length != 0:
            self._late = reactor.callLater(BODY_PERIOD, self._check_body, 0)

    def _check_body(self, size: int) -> None:
        """Cut off a body that has hardly grown beyond that size."""
        grown = self.requests[-1].body_size
        if grown - size < SLOWEST_BODY * BODY_PERIOD:
            self._late = None
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n")
            self.timeoutConnection()
        else:
            self._late = reactor.callLater(BODY_PERIOD, self._check_body, grown)

    def _send100Continue(self) -> None:
        if not self.requests[-1].is_rejected:
            super()._send100Continue()

    def allContentReceived(self) -> None:
        self._in_time()
        self._in_body = False
        super().allContentReceived()

    def connectionLost(self, reason: Any) -> None:
        self._in_time()
        super().connectionLost(reason)

    def _in_time(self) -> None:
        if self._late is not None:
            late, self._late = self._late, None
            if late.active():
                late.cancel()

    def take_socket(self) -> tuple[socket.socket, bytes, bytes]:
        """Return the socket, now no longer Twisted's, with what it has not sent and has read."""
        transport = self.transport
        transport.stopReading()
        transport.stopWriting()
        own = transport.socket  # without a second descriptor: there may be none left
        unsent = transport.dataBuffer[transport.offset :] + b"".join(transport._tempDataBuffer)
        read_ahead = b"".join(self._dataBuffer)
        # Nothing may keep the other alive: there may be very many of them.
        transport.unregisterProducer()
        transport.protocol = transport.producer = self.transport = self._networkProducer = None
        self.requests.clear()
        self._dataBuffer.clear()
        return own, unsent, read_ahead


class Request(WebRequest):  # type: ignore[misc]  # Daphne has no types
    """An HTTP request that may become a WebSocket."""

    connection: "Connection | None" = None
    content: Any
    uri: bytes
    body: IO[bytes] = BytesIO()
    body_size = 0  # bytes
    is_rejected = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._parsePOSTFormSubmission = False  # into `args`, on the event loop, for nobody

    def gotLength(self, length: int | None) -> None:
        super().gotLength(length)
        self._take_body(length or 0)

    def handleContentChunk(self, data: bytes) -> None:
        self.body_size += len(data)
        if self._take_body(self.body_size):
            super().handleContentChunk(data)

    def _take_body(self, size: int) -> bool:
        """Return whether a body of that size is taken; the first time that it is not, refuse it."""
        if self.is_rejected:
            return False
        kind = self.requestHeaders.getRawHeaders(b"Content-Type", [b""])[0].lower()
        server = self.channel.factory.server
        has_files = kind.startswith(b"multipart/form-data")
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
        self._strip_authority()
        # A client has no say in where the site is mounted.
        self.requestHeaders.removeHeader(b"daphne-root-path")
        raw = self.requestHeaders.getAllRawHeaders()
        headers = [(name.lower(), value) for name, many in raw for value in many]
        if handshake.is_upgrade(headers):
            if is_plain(self.channel.transport):
                return self._start_websocket(headers)
            self.server.warn_of_wrapped_transport()
            problem = self._problem(headers) or self._forwarding_problem(headers)
            return super().process() if problem is None else self._refuse(problem)
        self.requestHeaders.removeHeader(b"upgrade")  # Daphne would take the first of several
        problem = self._forwarding_problem(headers)
        if problem is not None:
            return self._refuse(problem)
        if len(handshake.values(headers, b"host")) > 1:
            return self._refuse("More than one Host header")
        # Daphne would read all of it at once: see Events.
        self.body, self.content = self.content, BytesIO()
        return super().process()

    def finish(self) -> None:
        self.body.close()
        super().finish()

    def _strip_authority(self) -> None:
        """Take `GET http://host/path` for `GET /path` (RFC 9112 §3.2.2); Host says the host."""
        found = ABSOLUTE_FORM.match(getattr(self, "uri", b""))
        if found is not None:
            rest = self.uri[found.end() :]
            self.uri = rest if rest.startswith(b"/") else b"/" + rest
            self.path = self.uri.partition(b"?")[0]

    def _start_websocket(self, headers: handshake.Headers) -> None:
        self.request_start = time.time()
        problem = self._problem(headers) or self._forwarding_problem(headers)
        if problem is not None:
            self._refuse(problem)
            return
        scope = self._scope(headers)
        self.connection = Connection(self, self.server.application, self.server.limits)
        get_watch().add(self.connection)
        self.connection.start(scope, self.method.decode("ascii", "replace"))
        if self.server.stopping:
            self.connection.shutdown()

    def _problem(self, headers: handshake.Headers) -> str | None:
        """Return why even HTTP would refuse the request (as Daphne does in its process())."""
        if not self.uri.isascii():
            return "Invalid characters in path"
        for name, value in headers:
            if not HEADER_NAME_RE.fullmatch(name):
                return "Invalid header name"
            if INVALID_HEADER_VALUE_BYTES.intersection(value):
                return "Invalid header value"
        return None

    def _forwarding_problem(self, headers: handshake.Headers) -> str | None:
        """Return why what a proxy has added about its client cannot be true."""
        server = self.server
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

    def _refuse(self, problem: str) -> None:
        self.channel.persistent = False
        self.basic_error(400, b"Bad Request", problem)

    def _scope(self, headers: handshake.Headers) -> dict[str, Any]:
        client: list[Any] | None = None
        server: list[Any] | None = None
        if hasattr(self.client, "host") and hasattr(self.client, "port"):
            client = [str(self.client.host), self.client.port]
            server = [str(self.host.host), self.host.port]
        scheme = "http"
        if self.server.proxy_forwarded_address_header:
            client, scheme = parse_x_forwarded_for(
                self.requestHeaders,
                self.server.proxy_forwarded_address_header,
                self.server.proxy_forwarded_port_header,
                self.server.proxy_forwarded_proto_header,
                client,
                scheme,
            )
        self.client_addr = client  # for the log of an HTTP answer
        path, _, query = self.uri.partition(b"?")
        return {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": self.clientproto.partition(b"/")[2].decode("ascii"),
            "scheme": "wss" if scheme == "https" else "ws",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "root_path": self.server.root_path,
            "query_string": query,
            # Underscores could pass for the dashes of another header (CVE-2015-0219).
            "headers": [(name, value) for name, value in headers if b"_" not in name],
            "client": client,
            "server": server,
            "subprotocols": handshake.subprotocols(headers),
        }

    def handle_exception(self, exception: BaseException) -> None:
        """Answer with 500; cut off a response that has begun, or it would pass for a whole one."""
        if self._response_started:
            self.channel.forceAbortClient()
        else:
            super().handle_exception(exception)

    def check_timeouts(self) -> None:
        if self.application_queue is not None:  # a WebSocket's handshake has limits of its own
            super().check_timeouts()

    def connectionLost(self, reason: Any) -> None:
        self.body.close()
        super().connectionLost(reason)
        if self.connection is not None:
            self.connection.connection_lost(None)


class HTTPFactory(StockHTTPFactory):  # type: ignore[misc]
    """Daphne's, with the channel and the request of this module."""

    protocol = Channel

    def buildProtocol(self, address: Any) -> Any:
        channel = super().buildProtocol(address)
        channel.requestFactory = Request
        return channel

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]  # of TLS: the channel speaks no other


class Connection(WebSocketConnection):
    """A connection that is its HTTP request's until the handshake is accepted."""

    __slots__ = ("_path", "_request", "_server")

    def __init__(self, request: Request, application: Any, limits: Limits) -> None:
        super().__init__(application, limits)
        self._request: Request | None = request
        self._server = request.server

    def default_headers(self) -> handshake.Headers:
        name = self._server.server_name
        return [(b"server", name.encode())] if name else []

    async def take_over(self) -> None:
        request, self._request = self._request, None
        if request is None or self._ending is not None:
            return
        request.connection = None
        self._server.connections.pop(request, None)
        own, unsent, self._early = request.channel.take_socket()
        await self._loop.connect_accepted_socket(lambda: self, own)
        if unsent and self.transport is not None:
            self.transport.write(unsent)

    def answer_start(self, status: int, headers: handshake.Headers) -> None:
        if self._request is not None:
            if (b"connection", b"close") in headers:
                self._request.channel.persistent = False
            start = {"type": "http.response.start", "status": status, "headers": headers}
            self._request.handle_reply(start)

    def answer_body(self, body: bytes, more: bool) -> None:
        if self._request is None:
            return
        self._request.handle_reply({"type": "http.response.body", "body": body, "more_body": more})
        if not more:
            self._request.connection = None
            self._request = None
            self._finish()
            self._see_whether_over()

    def _finish(self) -> None:
        if self._request is not None:  # its answer has no end, and will not have one
            self._request.connection = None
            self._request.channel.timeoutConnection()  # a client that reads nothing is cut off
            self._request = None
        super()._finish()

    def shutdown(self) -> None:
        if self._request is not None or self.transport is not None:  # else on its way to asyncio
            super().shutdown()

    def over(self) -> None:
        get_watch().discard(self)

    def log(self, action: str) -> None:
        if self._server.action_logger is not None:
            client = self.scope["client"]
            details = {
                "path": self.scope["raw_path"].decode("ascii"),
                "client": f"{client[0]}:{client[1]}" if client else None,
            }
            self._server.log_action("websocket", action, details)


class CommandLineInterface(StockCommandLineInterface):  # type: ignore[misc]
    """Daphne's command line, all options kept."""

    server_class = Server

    def __init__(self) -> None:
        super().__init__()
        self.parser.prog = "python -m echo.server"
        self.parser.set_defaults(ping_timeout=10)  # as the server's
        # Django's error of a bad Host has a traceback of 2 KB, and Daphne writes it to the log.
        logging.getLogger("django.security.DisallowedHost").addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = None
    return True
