"""Checks of the site as its clients see it: connect, echo, count, watch and close."""

import asyncio
import secrets
from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit

from django.conf import settings
from django.urls import get_script_prefix
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from echo.conf import conf
from echo.exceptions import StateUnavailable
from echo.groups.layer import reaches_other_processes
from echo.introspection import lacks_route, required_action
from echo.log import describe
from echo.objects import get_object
from echo.operations.doctor import probe, routes
from echo.operations.doctor.counts import Counts
from echo.operations.doctor.finding import LOGS, REDIS, Finding, settled
from echo.operations.doctor.idle import CORE_LAYER, IDLE, is_core_layer, receive_nothing
from echo.operations.doctor.logout import check_logout
from echo.operations.doctor.probe import ProbeFailed, server_command
from echo.operations.websocket import ClientWebSocket
from echo.state import get_state

LONG_HEADERS = 200_000  # bytes: above the limits of nginx, h11 (64 KiB) and Twisted (16 KiB)
ABNORMAL_CLOSURE, INTERNAL_ERROR = 1006, 1011  # RFC 6455 §7.4.1
LAYER = "Check that the site has the same CHANNEL_LAYERS, and read the log of the server."
NO_HANDSHAKE = (200, 404, 426)  # statuses if the upgrade was lost, or there is no such route


def check_site(name: str, url: str | None, user: str | None) -> Iterator[Finding]:
    """Connect, echo, count and close on the site at the URL, or on a temporary server.

    `user` is the name of a user for whom a logout is tried.
    """
    application = str(getattr(settings, "ASGI_APPLICATION", None) or "")
    if url is None and not application:
        return  # reported by a system check
    if routes.lacks_websockets():
        yield Finding("handshake", None, "ASGI_APPLICATION has no WebSockets")
    elif url is not None:
        yield from _visit(name, url.rstrip("/"), user)
    else:
        try:
            with probe.TemporaryServer(application) as server:
                yield from _visit(name, server.url, user, server)
        except ProbeFailed as error:
            remedy = f"Run `{server_command(application)}`, and read its output."
            yield Finding("server", False, str(error), remedy, error.log)


def _visit(
    name: str, base: str, user: str | None, server: probe.TemporaryServer | None = None
) -> Iterator[Finding]:
    try:
        yield from _Visit(name, base, user, server).findings()
    except (ProbeFailed, OSError, WebSocketException) as error:
        message = f"{base}: {error or type(error).__name__}"
        remedy = "Check that the server is up, and that the URL leads to it."
        yield Finding("server", False, message, remedy)


class _Visit:
    """One connection to the site, from its handshake to its Close."""

    def __init__(
        self, name: str, base: str, user: str | None, server: probe.TemporaryServer | None
    ) -> None:
        self._name, self._user, self._server = name, user, server
        self._headers = _headers() if server else {}
        self._url = base + routes.prefix() if server else self._find_prefix(base)
        self._counts = Counts(self._url, name, self._headers)
        self._socket_url = f"{self._url}/{name}/websocket"
        # If the site has no echo route, or one that needs a login (the console), connect to one of
        # its own consumers.
        echo_route = routes.echo_route()
        self._has_echo = not (lacks_route(echo_route) or required_action(echo_route))
        path = None if self._has_echo else routes.counted_path(name)
        self._is_foreign = path is not None
        self._tried = self._url
        if path is not None:
            below = routes.prefix_below_script_name()
            root = urljoin(base, get_script_prefix())
            if below and self._url.endswith(below):
                root = self._url.removesuffix(below) + "/"
            self._tried = self._socket_url = root + path

    def _find_prefix(self, url: str) -> str:
        """Return the URL of `echo.urls`. The given URL may be that of the site's root."""
        below = routes.prefix_below_script_name()
        if not url.endswith(below):
            for prefix in (url + routes.prefix(), url + below):
                if Counts(prefix, self._name, self._headers).exist():
                    return prefix
        return url

    def findings(self) -> Iterator[Finding]:
        # Send an Origin: Channels' AllowedHostsOriginValidator rejects handshakes without one.
        headers = {**self._headers, "Origin": self._origin()}
        url = self._socket_url.replace("http", "ws", 1)
        try:
            socket = ClientWebSocket(url, headers, timeout=probe.TIMEOUT)
        except InvalidStatus as error:
            yield self._rejected(error.response.status_code)
            return
        with socket:
            yield Finding("handshake", True, f"{self._tried} accepts a WebSocket")
            yield self._echo(socket)
            counted = self._counts.check_count("count", 1)
            yield counted
            if counted.ok:
                yield self._counts.check_live(1)
            if counted.ok and get_state().shared:
                yield self._shared()
            if counted.ok and reaches_other_processes():
                yield self._message(socket)
            if is_core_layer():
                idle = self._idle(socket)
                yield idle
                if not idle.ok:
                    return
            if self._user is not None:
                yield check_logout(self._user, url, headers)
            yield self._closed(socket)
        if counted.ok:
            yield self._counts.check_count("count after close", 0)
        if self._server is None:
            yield self._long_headers()

    def _origin(self) -> str:
        """Return the origin of the site's own pages, behind its proxy."""
        parts = urlsplit(self._socket_url)
        is_https = parts.scheme == "https" or (self._server and settings.SECURE_PROXY_SSL_HEADER)
        return f"{'https' if is_https else 'http'}://{self._headers.get('Host', parts.netloc)}"

    def _long_headers(self) -> Finding:
        """Check that the headers of a request are limited: uvicorn's httptools has no limit."""
        headers = {**self._headers, "X-Echo-Doctor": "x" * LONG_HEADERS}
        try:
            status, _body = probe.get(f"{self._url}/getCurrentConnections", headers)
        except ProbeFailed:  # the connection was reset
            return Finding("headers", True, "long headers are rejected")
        if 400 <= status < 500 and status not in NO_HANDSHAKE:
            return Finding("headers", True, f"long headers are rejected with {status}")
        remedy = "Run uvicorn with `--http h11`, or let a proxy in front of it limit the headers."
        message = f"headers of {LONG_HEADERS} bytes are accepted: they may fill the memory"
        return Finding("headers", None, message, remedy)

    def _rejected(self, status: int) -> Finding:
        if status < 500 and self._is_foreign and (self._server or status not in NO_HANDSHAKE):
            message = f"{self._tried} responds with {status} to anonymous clients"
            return Finding("handshake", None, message)
        if status == 403 and required_action(routes.echo_route()):
            return Finding("echo", None, "the console needs the permission to list the objects")
        if status in NO_HANDSHAKE and not (self._has_echo or self._is_foreign):
            return Finding("echo", None, "the site has no echo route")
        if status == 403 and conf.ECHO_AUTHORIZE is not None:
            return Finding("echo", None, "ECHO_AUTHORIZE denies anonymous clients")
        message = f"{self._tried} responds with {status}"
        log = self._server.log() if self._server and status >= 500 else ""
        return Finding("handshake", False, message, self._remedy(status), log)

    def _remedy(self, status: int) -> str:
        if self._server:
            return _read_log()
        if status >= 500:
            return LOGS
        wanted = "leads to the server" if self._is_foreign else "is the prefix of an echo route"
        return f"Check that the URL {wanted}. A proxy must pass Host, Upgrade, Connection."

    def _echo(self, socket: ClientWebSocket) -> Finding:
        if self._is_foreign:
            return Finding("echo", None, "no text is sent to the site's own consumers")
        socket.send(self._name)
        try:
            reply = socket.recv()
        except TimeoutError:
            return Finding("echo", None, "the consumer sends no reply")
        if self._name not in str(reply):
            return Finding("echo", None, "the consumer sends other replies")
        return Finding("echo", True, "the text came back")

    def _shared(self) -> Finding:
        try:
            count = settled(lambda: get_state().count(self._name), 1)
        except StateUnavailable as error:
            return Finding("shared count", False, str(error), REDIS)
        if count != 1:
            remedy = "Give the site and this command the same ECHO_STATE_URL."
            message = f"the site counts 1, this process {count}"
            return Finding("shared count", False, message, remedy)
        return Finding("shared count", True, "this process also counts 1")

    def _message(self, socket: ClientWebSocket) -> Finding:
        """Check that a text of this process reaches the connection through the channel layer."""
        text = secrets.token_hex(8)
        try:
            get_object(self._name).send(text)
            while socket.recv() != text:  # a consumer of the site may send other texts
                pass
        except TimeoutError:
            message = f"no text of this process arrived in {probe.TIMEOUT:g} s"
        except Exception as error:  # each channel layer has its own exceptions
            message = describe(error)
        else:
            return Finding("message", True, "a text of this process arrived")
        return Finding("message", False, message, LAYER)

    def _idle(self, socket: ClientWebSocket) -> Finding:
        """Check that a socket and a channel without messages stay open for IDLE seconds."""
        problem = asyncio.run(receive_nothing())
        try:
            while True:  # until all messages have been received
                socket.recv(timeout=0.1)
        except TimeoutError:
            pass
        except ConnectionClosed:
            problem = f"the server closed with {socket.close_code}"
        if problem is not None:
            return Finding("idle socket", False, problem, CORE_LAYER)
        return Finding("idle socket", True, f"open after {IDLE:g} s without a message")

    def _closed(self, socket: ClientWebSocket) -> Finding:
        socket.close()
        message = f"closed with {socket.close_code}"
        if socket.close_code in (ABNORMAL_CLOSURE, INTERNAL_ERROR):
            remedy, log = (_read_log(), self._server.log()) if self._server else (LOGS, "")
            return Finding("close", False, message, remedy, log)
        return Finding("close", True, message)


def _read_log() -> str:
    command = server_command(settings.ASGI_APPLICATION)
    return f"Run `{command}`, and read its log."


def _headers() -> dict[str, str]:
    """Return the headers of the site's proxy, so that the site accepts a loopback address."""
    host = next((host for host in settings.ALLOWED_HOSTS if host != "*"), "localhost")
    headers = {"Host": host.removeprefix(".")}
    if settings.SECURE_PROXY_SSL_HEADER:
        name, value = settings.SECURE_PROXY_SSL_HEADER
        headers[name.removeprefix("HTTP_").replace("_", "-")] = value
    return headers
