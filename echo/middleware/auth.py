"""The user of a handshake: from the session where there is one, else nobody, without a query."""

from importlib import import_module
from typing import Any, cast

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, WebSocketScope
from django.apps import apps
from django.conf import settings
from django.http.cookie import parse_cookie
from django.utils.functional import SimpleLazyObject

from echo.denial import Application


def with_user(application: Application) -> Application:
    """Return the application with what AuthMiddlewareStack gives the scope: cookies, session, user.

    On a site without sessions or users it is the application itself. Channels' own stack asks the
    database in a thread for each handshake; here only for those that bring a session's cookie.
    """
    if not (apps.is_installed("django.contrib.auth") and apps.is_installed(SESSIONS)):
        return application
    return _WithUser(application)


SESSIONS = "django.contrib.sessions"


class _WithUser:
    """An ASGI application: as AuthMiddlewareStack, but cheap for those who are not logged in."""

    def __init__(self, application: Application) -> None:
        # A site without users has no such modules.
        from channels.auth import AuthMiddlewareStack
        from django.contrib.auth.models import AnonymousUser

        self.application = application
        self._with_session = AuthMiddlewareStack(application)
        self._nobody = AnonymousUser

    async def __call__(
        self, scope: WebSocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        cookies = _cookies(scope)
        if settings.SESSION_COOKIE_NAME in cookies:
            await self._with_session(scope, receive, send)
            return
        visitor = cast(dict[str, Any], scope)
        visitor["cookies"] = cookies
        visitor["session"] = SimpleLazyObject(_new_session)
        visitor["user"] = self._nobody()
        await self.application(scope, receive, send)


def _cookies(scope: WebSocketScope) -> dict[str, str]:
    for name, value in scope["headers"]:
        if name == b"cookie":  # Channels' own takes the first, too
            return parse_cookie(value.decode("latin-1"))
    return {}


def _new_session() -> Any:
    return import_module(settings.SESSION_ENGINE).SessionStore()
