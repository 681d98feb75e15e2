"""A visit to the site: connect, echo, count, watch and close, as a client does."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urljoin, urlsplit

from django.conf import settings
from django.urls import NoReverseMatch, get_script_prefix, reverse
from django.utils.translation import gettext as _

from echo.conf import conf
from echo.exceptions import StateUnavailable
from echo.introspection import counted_path, leads_nowhere, required_action, speaks_http_only
from echo.operations.doctor import probe
from echo.operations.doctor.counts import Counts
from echo.operations.doctor.finding import LOGS, REDIS, Finding, soon
from echo.operations.doctor.idle import CORE_LAYER, IDLE, is_core_layer, receive_nothing
from echo.operations.doctor.probe import NoAnswer, ProbeFailed, server_command
from echo.state import get_state

LONG_HEADERS = 200_000  # bytes: more than nginx, h11 (64 KiB) and Twisted (16 KiB) take
INTERNAL_ERROR = 1011  # RFC 6455 §7.4.1
NO_HANDSHAKE = (200, 404, 426)  # where an upgrade has got lost, or there is no such route


def check_site(name: str, url: str | None) -> Iterator[Finding]:
    """Connect, echo, count and close on the site at the URL, or on a server of our own."""
    application = getattr(settings, "ASGI_APPLICATION", None)
    with ExitStack() as stack:
        if url is None and not application:
            return  # the system checks have told
        if speaks_http_only():
            yield Finding("handshake", None, _("ASGI_APPLICATION has no WebSockets"))
            return
        server = None
        if url is None:
            try:
                server = stack.enter_context(probe.TemporaryServer(str(application)))
            except ProbeFailed as error:
                remedy = f"Run `{server_command(str(application))}`, and read its output."
                yield Finding("server", False, str(error), remedy, error.log)
                return
        base = server.url if server else str(url).rstrip("/")
        try:
            yield from _Visit(name, base, server).findings()
        except ProbeFailed as error:
            remedy = _("Is the server up, and does the URL lead to it?")
            yield Finding("server", False, f"{base}: {error}", remedy)


class _Visit:
    """One connection to the site, from its handshake to its end."""

    def __init__(self, name: str, base: str, server: probe.TemporaryServer | None) -> None:
        self._name, self._server = name, server
        self._headers = _headers() if server else {}
        self._url = base + _mount() if server else self._prefix(base)
        self._counts = Counts(self._url, name, self._headers)
        self._socket_url = f"{self._url}/{name}/websocket"
        # A site without an EchoConsumer has counted consumers of its own.
        # The console is not for a client without a login.
        self._has_echo = not (leads_nowhere(_echo_route()) or required_action(_echo_route()))
        path = None if self._has_echo else counted_path(name)
        self._is_foreign = path is not None
        if path is not None:
            below = _below_script_name()
            root = urljoin(base, get_script_prefix())
            if below and self._url.endswith(below):
                root = self._url.removesuffix(below) + "/"
            self._socket_url = root + path

    def _prefix(self, url: str) -> str:
        """Return the prefix of the echo routes, of which the URL may have only the site's root."""
        below = _below_script_name()
        if not url.endswith(below):
            for prefix in (url + _mount(), url + below):
                if Counts(prefix, self._name, self._headers).exist():
                    return prefix
        return url

    def findings(self) -> Iterator[Finding]:
        # As a browser's: Channels' AllowedHostsOriginValidator rejects a handshake without it.
        headers = {**self._headers, "Origin": self._origin()}
        with probe.opened(self._socket_url, headers) as (status, socket):
            if socket is None:
                yield self._refused(status)
                return
            yield Finding("handshake", True, _("%s accepts a WebSocket") % self._tried)
            yield self._echo(socket)
            counted = self._counts.check_count("count", 1)
            yield counted
            if counted.ok:
                yield self._counts.check_live(1)
            if counted.ok and get_state().shared:
                yield self._shared()
            if is_core_layer():
                idle = self._idle(socket)
                yield idle
                if not idle.ok:
                    return
            yield self._closed(socket.close())
        if counted.ok:
            yield self._counts.check_count("count after close", 0)
        if self._server is None:
            yield self._long_headers()

    def _origin(self) -> str:
        """Return the origin of the site's own pages, as they are seen through its proxy."""
        parts = urlsplit(self._socket_url)
        is_https = parts.scheme == "https" or (self._server and settings.SECURE_PROXY_SSL_HEADER)
        return f"{'https' if is_https else 'http'}://{self._headers.get('Host', parts.netloc)}"

    def _long_headers(self) -> Finding:
        """Whether anything limits the headers of a request: uvicorn's httptools does not."""
        headers = {**self._headers, "X-Echo-Doctor": "x" * LONG_HEADERS}
        try:
            status, _body = probe.get(f"{self._url}/getCurrentConnections", headers)
        except ProbeFailed:  # the connection was reset
            return Finding("headers", True, "long headers are rejected")
        if 400 <= status < 500 and status not in NO_HANDSHAKE:
            return Finding("headers", True, f"long headers are rejected with {status}")
        remedy = "Run uvicorn with `--http h11`, or let a proxy in front of it limit the headers."
        message = f"headers of {LONG_HEADERS} bytes are taken: they may fill the memory"
        return Finding("headers", None, message, remedy)

    @property
    def _tried(self) -> str:
        return self._socket_url if self._is_foreign else self._url

    def _refused(self, status: int) -> Finding:
        told = {"url": self._tried, "status": status}
        if status < 500 and self._is_foreign and (self._server or status not in NO_HANDSHAKE):
            return Finding("handshake", None, _("%(url)s answers %(status)d to a stranger") % told)
        if status == 403 and required_action(_echo_route()):
            return Finding("echo", None, "the console is for those who may list the objects")
        if status in NO_HANDSHAKE and not (self._has_echo or self._is_foreign):
            return Finding("echo", None, _("the site has no echo route"))
        if status == 403 and conf.ECHO_AUTHORIZE is not None:
            return Finding("echo", None, _("ECHO_AUTHORIZE lets in nobody without a login"))
        message = _("%(url)s answers %(status)d") % told
        log = self._server.log() if self._server and status >= 500 else ""
        return Finding("handshake", False, message, self._remedy(status), log)

    def _remedy(self, status: int) -> str:
        if self._server:
            return _read_log()
        if status >= 500:
            return str(LOGS)
        if self._is_foreign:
            return _(
                "Does the URL lead to that server? A proxy must pass Host, Upgrade, Connection."
            )
        return _("Is it the prefix of an echo route? A proxy must pass Host, Upgrade, Connection.")

    def _echo(self, socket: probe.Socket) -> Finding:
        if self._is_foreign:
            return Finding("echo", None, _("a consumer of the site's own is sent no text"))
        socket.send_text(self._name)
        try:
            answer = socket.receive_text()
        except NoAnswer:
            return Finding("echo", None, _("the route answers no text"))
        if self._name not in answer:
            return Finding("echo", None, _("the route answers with texts of its own"))
        return Finding("echo", True, _("a text came back"))

    def _shared(self) -> Finding:
        """Whether this process counts what the site's process counts."""
        try:
            count = soon(lambda: get_state().count(self._name), 1)
        except StateUnavailable as error:
            return Finding("shared count", False, str(error), str(REDIS))
        if count != 1:
            remedy = _("Give the site and this command the same ECHO_STATE_URL.")
            message = _("the site counts 1, this process %d") % count
            return Finding("shared count", False, message, remedy)
        return Finding("shared count", True, _("this process counts 1, too"))

    def _idle(self, socket: probe.Socket) -> Finding:
        """Whether a socket without messages, and a channel without, last for IDLE seconds."""
        problem = asyncio.run(receive_nothing())
        try:
            socket.require_open()
        except ProbeFailed as error:
            problem = str(error)
        if problem is not None:
            return Finding("idle socket", False, problem, CORE_LAYER)
        return Finding("idle socket", True, f"open after {IDLE:g} s without a message")

    def _closed(self, code: int) -> Finding:
        message = _("closed with %d") % code
        if code == INTERNAL_ERROR:
            remedy = _read_log() if self._server else str(LOGS)
            return Finding(
                "close", False, message, remedy, self._server.log() if self._server else ""
            )
        return Finding("close", True, message)


def _read_log() -> str:
    return f"Read what the server logs; `{server_command(settings.ASGI_APPLICATION)}` runs it."


def _mount() -> str:
    """Return the path below which the site has `echo.urls`, without a slash at its end."""
    try:
        return reverse("echo:websocket").removesuffix("/websocket")  # the page may not be there
    except NoReverseMatch:
        return ""


def _below_script_name() -> str:
    return _mount().removeprefix(get_script_prefix().rstrip("/"))


def _echo_route() -> str:
    """Return the route of the echo that belongs to `echo.urls`, as in `path()`."""
    return f"{_below_script_name()}/<str:name>/websocket".removeprefix("/")


def _headers() -> dict[str, str]:
    """Return what a proxy of the site would send, so that a loopback address is no obstacle."""
    host = next((host for host in settings.ALLOWED_HOSTS if host != "*"), "localhost")
    headers = {"Host": host.removeprefix(".")}
    if settings.SECURE_PROXY_SSL_HEADER:
        name, value = settings.SECURE_PROXY_SSL_HEADER
        headers[name.removeprefix("HTTP_").replace("_", "-")] = value
    return headers
