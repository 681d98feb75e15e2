"""Daphne with this package's WebSocket connections.

Twisted still handles HTTP, and Daphne the command line and the endpoints. When a WebSocket
handshake is accepted, asyncio takes over the socket, on the same event loop.
"""

import asyncio
import logging
import re
import time
from argparse import ArgumentTypeError
from collections.abc import Callable
from functools import cached_property, partial
from math import inf
from typing import Any

from daphne import server as stock
from daphne.cli import CommandLineInterface as StockCommandLineInterface
from django.conf import settings
from twisted.internet import defer, reactor

from echo.server.daphne import front_door
from echo.server.daphne.http import DEFAULT_CHUNK_SIZE, Events, HTTPFactory, Request
from echo.server.garbage import collect_regularly, tune_garbage_collector
from echo.server.registry import DRAINING, get_open_connections
from echo.server.settings import drain_seconds
from echo.server.timeouts import Limits

logger = logging.getLogger(__name__)

DEFAULT_MAX_BODY_SIZE = 2_621_440  # bytes: Django's default, if no settings are configured
INHERITED = ("fd:", "systemd:")  # endpoints whose sockets another process has opened
BACKLOG = 2048  # connections that wait to be accepted, as in uvicorn
APPLICATIONS_TIMEOUT = 1.0  # seconds for HTTP applications to finish when the server stops


class Server(stock.Server):  # type: ignore[misc]
    """Daphne's server with this package's HTTP channel and WebSocket connection."""

    def __init__(
        self,
        *args: Any,
        ping_timeout: float = 10,
        request_buffer_size: int = DEFAULT_CHUNK_SIZE,
        drain: float | None = 0,
        websocket_deflate: bool = False,
        **options: Any,
    ) -> None:
        """Take Daphne's arguments, and `drain` in seconds: None for ECHO_DRAIN_SECONDS."""
        # A client that vanishes is counted for 20 + 10 seconds. With Daphne's default, for 50.
        super().__init__(
            *args, ping_timeout=ping_timeout, request_buffer_size=request_buffer_size, **options
        )
        self.endpoints: list[str] = [_with_backlog(endpoint) for endpoint in self.endpoints]
        # Django logs an invalid Host, which any client can send, with a traceback of 2 KB.
        logging.getLogger("django.security.DisallowedHost").addFilter(_without_traceback)
        self.stopping = False
        self.drain = drain_seconds() if drain is None else drain
        self._ports: list[Any] = []
        self.max_body, self.max_upload = _max_sizes()
        self.websocket_deflate = websocket_deflate or _deflates_by_default()

    def run(self) -> None:
        tune_garbage_collector()
        reactor.callLater(0, collect_regularly)  # on the event loop, as soon as it runs
        super().run()

    @property
    def http_factory(self) -> Any:
        return self._http_factory

    @http_factory.setter
    def http_factory(self, _stock_factory: Any) -> None:  # set by Daphne's run()
        self._http_factory = HTTPFactory(self)

    @cached_property
    def limits(self) -> Limits:
        timeouts = (self.websocket_connect_timeout, self.websocket_handshake_timeout)
        return Limits(
            max_size=min(
                self.websocket_max_message_size or 1 << 62, self.websocket_max_frame_size or 1 << 62
            ),
            ping_interval=self.ping_interval or inf,
            ping_timeout=self.ping_timeout or inf,
            handshake_timeout=min((t for t in timeouts if t >= 0), default=inf),
            max_age=self.websocket_timeout if self.websocket_timeout >= 0 else inf,
            application_timeout=self.application_close_timeout,
            deflate=self.websocket_deflate,
        )

    def listen_success(self, port: Any) -> None:
        super().listen_success(port)
        front_door.install(self, port)
        if self.endpoints[len(self._ports)].startswith(INHERITED):
            # For Unix sockets, Twisted would shut the socket down and remove its file, for all
            # processes. Can go when it leaves them as it leaves TCP sockets since
            # https://github.com/twisted/twisted/issues/5621.
            port._shouldShutdown, port._bindPath = False, b"\0"
        self._ports.append(port)

    def log_action(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        # Daphne's access log writes the path unescaped between quotes.
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
        """Log and remove finished applications each second, as Daphne does.

        Unlike in Daphne, an error does not stop the checks of the other requests.
        """
        reactor.callLater(1, self.application_checker)
        for request, details in list(self.connections.items()):
            try:
                self._check_application(request, details)
            except Exception:
                self.connections.pop(request, None)
                logger.exception("Error while checking the application of %r", request)

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
                logger.warning("Application of %r did not finish in time: cancelled", request)
                application.cancel()
        elif disconnected:
            del self.connections[request]

    def timeout_checker(self) -> None:
        """Enforce the time limits of requests every two seconds, as Daphne does.

        Unlike in Daphne, an error does not stop the checks of the other requests.
        """
        reactor.callLater(2, self.timeout_checker)
        for request in list(self.connections):
            try:
                request.check_timeouts()
            except Exception:
                self.connections.pop(request, None)
                logger.exception("Error while checking the time limits of %r", request)

    def kill_all_applications(self) -> Any:
        """Close WebSockets with 1012, let applications finish, and cancel those that do not."""
        return defer.Deferred.fromFuture(asyncio.ensure_future(self._stop()))

    async def _stop(self) -> None:
        self.stopping = True
        connections = get_open_connections()
        self._stop_accepting_from_inherited_sockets()
        if self.drain:
            logger.info(DRAINING, len(connections), self.drain)
        await connections.stop(drain=self.drain)
        running = [details.get("application_instance") for details in self.connections.values()]
        tasks = {task for task in running if task is not None and not task.done()}
        # After a disconnect, Django's handler ends its tasks; if cancelled, it leaves them running.
        for request in list(self.connections):
            if getattr(request, "application_queue", None) is not None:
                request.send_disconnect()
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=APPLICATIONS_TIMEOUT)
        for task in tasks:
            task.cancel()

    def _stop_accepting_from_inherited_sockets(self) -> None:
        """Leave new connections to the other processes that have the socket, or to the next one.

        On its own sockets, a draining process rejects handshakes: clients and load balancers get a
        503 with Retry-After, where a closed socket would refuse the connection.
        """
        for endpoint, port in zip(self.endpoints, self._ports, strict=False):
            if endpoint.startswith(INHERITED):
                port.stopListening()


def _with_backlog(endpoint: str) -> str:
    """Return the endpoint with our backlog, unless it has its own.

    Twisted's 50 overflow if all clients return at once after a deploy. Linux drops what does not
    fit, and a client or a proxy only tries again after 1, 3, 7, 15 or 31 seconds.
    """
    if not endpoint.startswith(("tcp:", "tcp6:", "ssl:", "unix:")) or ":backlog=" in endpoint:
        return endpoint
    return f"{endpoint}:backlog={BACKLOG}"


def _max_sizes() -> tuple[int | None, int | None]:
    """Return the maximum sizes in bytes of a body without and with files; None for no limit.

    Django also rejects a larger body without files, but only after receiving it. It does not limit
    a body with files.
    """
    if not settings.configured:
        return DEFAULT_MAX_BODY_SIZE, DEFAULT_MAX_BODY_SIZE
    from echo.conf import conf

    return settings.DATA_UPLOAD_MAX_MEMORY_SIZE, conf.ECHO_MAX_UPLOAD_SIZE


def _deflates_by_default() -> bool:
    if not settings.configured:
        return False
    from echo.conf import conf

    return conf.ECHO_WEBSOCKET_DEFLATE


def _escaped(text: str) -> str:
    """Return the text escaped as in nginx's logs, so that it cannot end a field or a line."""
    return re.sub(r'[^ -~]|["\\]', lambda found: f"\\x{ord(found[0]):02X}", text)


class CommandLineInterface(StockCommandLineInterface):  # type: ignore[misc]
    """Daphne's command line with all its options, and this package's own."""

    server_class: Callable[..., Server] = Server

    def __init__(self) -> None:
        super().__init__()
        self.parser.prog = "python -m echo.server"
        self.parser.set_defaults(ping_timeout=10)  # as in Server
        self.parser.add_argument(
            "--drain",
            type=_seconds,
            metavar="SECONDS",
            help="Time over which to close the WebSockets when the server stops; by default the "
            "setting ECHO_DRAIN_SECONDS.",
        )
        self.parser.add_argument(
            "--websocket-deflate",
            action="store_true",
            help="Compress WebSocket messages if the client offers permessage-deflate",
        )

    def run(self, args: list[str]) -> None:
        """Run the server with these arguments."""
        options = self.parser.parse_args(args)
        self.server_class = partial(
            self.server_class, drain=options.drain, websocket_deflate=options.websocket_deflate
        )
        super().run(args)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < inf:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds of at least 0")
    return value


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = None
    return True
