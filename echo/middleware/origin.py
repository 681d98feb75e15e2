"""Host and Origin checks for WebSocket handshakes."""

from collections.abc import Awaitable
from functools import lru_cache
from typing import Any

from asgiref.sync import markcoroutinefunction
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, WebSocketScope, WWWScope
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils.translation import gettext as _

from echo.conf import conf
from echo.denial import MAX_LOGGED_LENGTH, Application, deny

HEADERS = {
    b"host": "HTTP_HOST",
    b"x-forwarded-host": "HTTP_X_FORWARDED_HOST",
    b"x-forwarded-port": "HTTP_X_FORWARDED_PORT",
}
UNKNOWN_HOST = (
    "the Origin is %r, but there is no Host to compare it with. Send a Host header, or add the "
    "origin to ECHO_ALLOWED_ORIGINS."
)
PLAIN_ORIGIN = (
    "the Origin %r is http:, but the client used TLS to reach the Host %r. Serve the page over "
    "https:, or add the origin to ECHO_ALLOWED_ORIGINS."
)
OTHER_ORIGIN = (
    "the Origin %r does not match the Host %r. If pages of that origin may connect, add it to "
    "ECHO_ALLOWED_ORIGINS. If a proxy changes the Host header, configure it to pass the header on."
)


class HostAndOriginCheck:
    """ASGI middleware that denies WebSocket handshakes from other hosts and origins.

    The host must be valid by Django's rules for HTTP (ALLOWED_HOSTS, USE_X_FORWARDED_HOST), else
    the status is 400. The Origin must be absent (the client is not a browser), match the host and
    port, or be in ECHO_ALLOWED_ORIGINS, else the status is 403. An `http:` origin does not match if
    the client used TLS. Browsers apply no same-origin policy to WebSockets: without this check, any
    page could open WebSockets with its visitor's session.

    If the request has neither a Host header nor a server address, as in Channels'
    WebsocketCommunicator, the client is not a browser. Then the handshake is accepted without an
    Origin, or with one in ECHO_ALLOWED_ORIGINS.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    @markcoroutinefunction  # not async, since a coroutine that only passes on costs time
    def __call__(
        self, scope: WebSocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> Awaitable[Any]:
        headers = dict(scope["headers"])
        try:
            host = None if _has_no_host(scope, headers) else get_allowed_host(scope, headers)
        except DisallowedHost as error:  # the message contains the host and the remedy
            text = _("The Host header is not allowed here.")
            return deny(scope, send, "host", "%s", error, status=400, text=text, receive=receive)
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not origin:
            return self.application(scope, receive, send)
        is_plain = origin.lower().startswith("http:") and _is_https(scope, headers)
        is_same_host = not is_plain and _is_same_host(origin, host)
        if is_same_host or origin in conf.ECHO_ALLOWED_ORIGINS:
            return self.application(scope, receive, send)
        text = _("WebSockets from other origins are rejected.")
        values = [value for value in (origin[:MAX_LOGGED_LENGTH], host) if value is not None]
        why = UNKNOWN_HOST if host is None else PLAIN_ORIGIN if is_plain else OTHER_ORIGIN
        return deny(scope, send, "origin", why, *values, status=403, text=text, receive=receive)


def _has_no_host(scope: WWWScope, headers: dict[bytes, bytes]) -> bool:
    return not (scope.get("server") or b"host" in headers or b"x-forwarded-host" in headers)


def get_allowed_host(scope: WWWScope, headers: dict[bytes, bytes]) -> str:
    """Return the host of the request as Django's `get_host()` does. Raises DisallowedHost."""
    name, port = scope.get("server") or ("unknown", 0)
    return _get_host(name, port or 0, *map(headers.get, HEADERS))


@lru_cache(maxsize=256)
def _get_host(name: str, port: int, *values: bytes | None) -> str:
    meta = {"SERVER_NAME": name, "SERVER_PORT": str(port)}
    for key, value in zip(HEADERS.values(), values, strict=True):
        if value is not None:
            meta[key] = value.decode("latin-1")
    return _Request(meta).get_host()


@receiver(setting_changed)
def _clear_cache(**kwargs: Any) -> None:
    _get_host.cache_clear()


class _Request(HttpRequest):
    """A request with only what Django's `get_host()` reads."""

    def __init__(self, meta: dict[str, str]) -> None:
        self.META = meta


def _is_https(scope: WebSocketScope, headers: dict[bytes, bytes]) -> bool:
    """Return whether the client used TLS, as Django's `is_secure()` decides for HTTP."""
    if scope.get("scheme") == "wss":
        return True
    if not settings.SECURE_PROXY_SSL_HEADER:
        return False
    name, secure = settings.SECURE_PROXY_SSL_HEADER
    header = name.removeprefix("HTTP_").replace("_", "-").lower().encode()
    value = headers.get(header, b"").decode("latin-1").partition(",")[0].strip()
    return bool(value == secure)


def _is_same_host(origin: str, host: str | None) -> bool:
    """Return whether the origin has that host and port. Its scheme may differ behind a proxy."""
    if host is None:
        return False
    scheme, _, netloc = origin.partition("://")
    default_port = {"http": ":80", "https": ":443"}.get(scheme.lower(), "")
    return netloc.lower().removesuffix(default_port) == host.lower().removesuffix(default_port)
