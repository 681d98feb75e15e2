"""The user of a handshake: from the session where there is one, else nobody, without a query."""

from typing import Any, cast

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, WebSocketScope
from django.apps import apps
from django.conf import settings
from django.http.cookie import parse_cookie

from echo.answers import Application


def with_user(application: Application) -> Application:
    """Return the application with `scope["user"]`, on a site that has sessions and users.

    Channels' own stack asks the database in a thread for each handshake; here only for those
    that bring a session's cookie.
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
        if any(map(_has_session, scope["headers"])):
            await self._with_session(scope, receive, send)
        else:
            cast(dict[str, Any], scope)["user"] = self._nobody()
            await self.application(scope, receive, send)


def _has_session(header: tuple[bytes, bytes]) -> bool:
    name, value = header
    return name == b"cookie" and settings.SESSION_COOKIE_NAME in parse_cookie(
        value.decode("latin-1")
    )
