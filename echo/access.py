"""Who may open a WebSocket: pages of this site, on a host that the site has."""

from functools import lru_cache
from typing import Any

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, WebSocketScope
from django.core.exceptions import DisallowedHost
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.http import HttpRequest

from echo.answers import Application, refuse

HEADERS = {
    b"host": "HTTP_HOST",
    b"x-forwarded-host": "HTTP_X_FORWARDED_HOST",
    b"x-forwarded-port": "HTTP_X_FORWARDED_PORT",
}


class HostAndOriginCheck:
    """An ASGI application: the handshakes that the site allows go on to the inner one.

    Host: as Django decides for HTTP (ALLOWED_HOSTS, USE_X_FORWARDED_HOST), else 400. Origin: absent
    (not a browser) or of the same host and port, else 403. Browsers apply no same-origin rule
    to WebSockets: without this, any page could use its visitor's session here.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(
        self, scope: WebSocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        headers = dict(scope["headers"])
        try:
            host = _host(scope, headers)
        except DisallowedHost:
            await refuse(scope, receive, send, 400, "The Host header is not allowed here.")
            return
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and not _same_host(origin, host):
            await refuse(scope, receive, send, 403, "WebSockets from other origins are refused.")
            return
        await self.application(scope, receive, send)


def _host(scope: WebSocketScope, headers: dict[bytes, bytes]) -> str:
    name, port = scope.get("server") or ("unknown", 0)
    meta = {"SERVER_NAME": name, "SERVER_PORT": str(port or 0)}
    for header, key in HEADERS.items():
        if header in headers:
            meta[key] = headers[header].decode("latin-1")
    return _allowed_host(tuple(meta.items()))


@lru_cache(maxsize=256)
def _allowed_host(meta: tuple[tuple[str, str], ...]) -> str:
    """Return the host as Django reads it from these; raises DisallowedHost."""
    return _Request(dict(meta)).get_host()


@receiver(setting_changed)
def _forget(**kwargs: Any) -> None:
    _allowed_host.cache_clear()


class _Request(HttpRequest):
    """What Django's get_host() needs of a request, and nothing of the rest."""

    def __init__(self, meta: dict[str, str]) -> None:
        self.META = meta


def _same_host(origin: str, host: str) -> bool:
    """Return whether the origin is of that host; a proxy may have changed the scheme only."""
    scheme, _, netloc = origin.partition("://")
    default_port = {"http": ":80", "https": ":443"}.get(scheme.lower(), "")
    return netloc.lower().removesuffix(default_port) == host.lower().removesuffix(default_port)
