"""Who may do what: which pages may open WebSockets, and who may act on an object."""

import logging
from collections.abc import Awaitable, Callable
from functools import lru_cache
from inspect import isawaitable
from typing import Any

from asgiref.sync import async_to_sync, iscoroutinefunction
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, WebSocketScope, WWWScope
from channels.db import database_sync_to_async
from django.conf import settings
from django.core.exceptions import DisallowedHost, PermissionDenied
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils.translation import gettext as _

from echo.conf import conf
from echo.denial import LOGGED, Application, log_rejection, refuse
from echo.log import is_due
from echo.stats import tally

logger = logging.getLogger(__name__)

CONNECT, COUNT, LIST, SEND, CLOSE = ACTIONS = ("connect", "count", "list", "send", "close")

# A request of Django's, or the scope of a handshake: what is asked on whose behalf.
Asking = HttpRequest | WebSocketScope


def default_authorize(asking: Asking, name: str | None, action: str) -> bool:
    """Return whether it is allowed: connecting and counting to all, as in the original.

    Listing the objects, sending and closing are for staff; in DEBUG listing is for all.
    """
    if action in (CONNECT, COUNT) or (action == LIST and settings.DEBUG):
        return True
    user: Any = _user(asking)
    return bool(user is not None and user.is_active and user.is_staff)


def _user(asking: Asking) -> Any:
    return asking.get("user") if isinstance(asking, dict) else getattr(asking, "user", None)


def may(asking: Asking, name: str | None, action: str) -> bool:
    """Return what ECHO_AUTHORIZE says; `name` is None for the list of all objects.

    For sync code. A function that raises refuses: that is logged, and nobody else is told.
    """
    authorize = _authorize()
    try:
        answer = authorize(asking, name, action)
        if isawaitable(answer):
            bool(_user(asking))  # Django's is lazy, and asks the database, as only sync code may
            answer = async_to_sync(_awaited)(answer)
        return bool(answer)
    except Exception as error:
        return _refuse(error)


async def amay(asking: Asking, name: str | None, action: str) -> bool:
    """As `may`, for async code; a function that is not async runs in a thread."""
    authorize = _authorize()
    if authorize is default_authorize and isinstance(asking, dict):  # it never waits for a scope
        return default_authorize(asking, name, action)
    try:
        if _is_async(authorize):
            return bool(await authorize(asking, name, action))
        # It may ask the database: connections of its thread that have died are given up.
        answer = await database_sync_to_async(authorize)(asking, name, action)
        return bool(await answer if isawaitable(answer) else answer)
    except Exception as error:
        return _refuse(error)


def _is_async(function: Any) -> bool:
    """Return whether it is an async function, or an object that is called like one."""
    return iscoroutinefunction(function) or iscoroutinefunction(function.__call__)


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer


def _refuse(error: Exception) -> bool:
    """Return False, and log the error unless one of its kind has just been."""
    if not isinstance(error, PermissionDenied) and is_due(type(error)):
        logger.error("ECHO_AUTHORIZE raised; who asked is refused.", exc_info=error)
    return False


def _authorize() -> Callable[[Asking, str | None, str], Any]:
    return conf.ECHO_AUTHORIZE or default_authorize


HEADERS = {
    b"host": "HTTP_HOST",
    b"x-forwarded-host": "HTTP_X_FORWARDED_HOST",
    b"x-forwarded-port": "HTTP_X_FORWARDED_PORT",
}


class HostAndOriginCheck:
    """An ASGI application: the handshakes that the site allows go on to the inner one.

    Host: as Django decides for HTTP (ALLOWED_HOSTS, USE_X_FORWARDED_HOST), else 400. Origin: absent
    (not a browser), of the same host and port, or in ECHO_ALLOWED_ORIGINS, else 403; `http:` is
    another origin if the handshake came by TLS. Browsers apply no same-origin rule to WebSockets:
    without this, any page could use its visitor's session here.

    Channels' WebsocketCommunicator sends no Host, and its scope has no server. Browsers always send
    one: such a handshake is accepted if it has no Origin, or one in ECHO_ALLOWED_ORIGINS.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(
        self, scope: WebSocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        headers = dict(scope["headers"])
        try:
            host = None if _has_no_host(scope, headers) else allowed_host(scope, headers)
        except DisallowedHost as error:  # its message has the value and the remedy
            tally.refusals["host"] += 1
            log_rejection(scope, "host", "%s", error)
            await refuse(scope, receive, send, 400, _("The Host header is not allowed here."))
            return
        origin = headers.get(b"origin", b"").decode("latin-1")
        is_plain = origin.lower().startswith("http:") and _is_https(scope, headers)
        is_own = _same_host(origin, host) and not is_plain
        if origin and not (is_own or origin in conf.ECHO_ALLOWED_ORIGINS):
            tally.refusals["origin"] += 1
            _log_origin(scope, origin[:LOGGED], host, is_plain)
            await refuse(scope, receive, send, 403, _("WebSockets from other origins are refused."))
            return
        await self.application(scope, receive, send)


def _has_no_host(scope: WWWScope, headers: dict[bytes, bytes]) -> bool:
    """Return whether nothing says which host the request is for, not even the server's address."""
    return not (scope.get("server") or b"host" in headers or b"x-forwarded-host" in headers)


def _log_origin(scope: WebSocketScope, origin: str, host: str | None, is_plain: bool) -> None:
    if host is None:
        why = (
            "it has the Origin %r and no Host to compare it with. Send a Host header, or add the "
            "origin to ECHO_ALLOWED_ORIGINS."
        )
        log_rejection(scope, "origin", why, origin)
        return
    why = (
        "its Origin %r is not of the Host %r. If pages of that origin may connect, add it to "
        "ECHO_ALLOWED_ORIGINS; if a proxy has changed the Host, let the proxy keep it."
    )
    if is_plain:
        why = (
            "its Origin %r is http:, but the client used TLS to reach the Host %r. Serve the page "
            "by https:, or add the origin to ECHO_ALLOWED_ORIGINS."
        )
    log_rejection(scope, "origin", why, origin, host)


def allowed_host(scope: WWWScope, headers: dict[bytes, bytes]) -> str:
    """Return the host that the request is for; raises DisallowedHost where Django does."""
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


def _is_https(scope: WebSocketScope, headers: dict[bytes, bytes]) -> bool:
    """Return whether it is known that the client has used TLS, as Django knows it for HTTP."""
    if scope.get("scheme") == "wss":
        return True
    if not settings.SECURE_PROXY_SSL_HEADER:
        return False
    name, secure = settings.SECURE_PROXY_SSL_HEADER
    header = name.removeprefix("HTTP_").replace("_", "-").lower().encode()
    value = headers.get(header, b"").decode("latin-1").partition(",")[0].strip()
    return bool(value == secure)


def _same_host(origin: str, host: str | None) -> bool:
    """Return whether the origin is of that host; a proxy may have changed the scheme."""
    if host is None:
        return False
    scheme, _, netloc = origin.partition("://")
    default_port = {"http": ":80", "https": ":443"}.get(scheme.lower(), "")
    return netloc.lower().removesuffix(default_port) == host.lower().removesuffix(default_port)
