"""Sets the user of a WebSocket handshake, without queries for clients that have no session."""

from collections.abc import Awaitable
from importlib import import_module
from typing import Any

from asgiref.sync import markcoroutinefunction
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, WebSocketScope
from django.apps import apps
from django.conf import settings
from django.http.cookie import parse_cookie
from django.utils.functional import LazyObject, empty

from echo.denial import Application

SESSIONS = "django.contrib.sessions"


def with_user(application: Application) -> Application:
    """Wrap the application in middleware that sets cookies, session and user in the scope.

    The scope is the same as with Channels' AuthMiddlewareStack. That runs database code in a thread
    for each handshake; this middleware only if there is a session cookie. On a site without
    sessions or users, the application is returned unchanged.
    """
    if not (apps.is_installed("django.contrib.auth") and apps.is_installed(SESSIONS)):
        return application
    return UserMiddleware(application)


class UserMiddleware:
    """ASGI middleware: AuthMiddlewareStack if there is a session cookie, else AnonymousUser."""

    def __init__(self, application: Application) -> None:
        # These modules cannot be imported on a site without users.
        from channels.auth import AuthMiddlewareStack
        from django.contrib.auth.models import AnonymousUser

        self.application = application
        self._with_session = AuthMiddlewareStack(application)
        self._anonymous_user = AnonymousUser

    @markcoroutinefunction  # not async, since a coroutine that only passes on costs time
    def __call__(
        self, scope: WebSocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> Awaitable[Any]:
        cookies = _parse_cookies(scope)
        if cookies and settings.SESSION_COOKIE_NAME in cookies:
            return self._with_session(scope, receive, send)  # type: ignore[no-any-return]
        anonymous: Any = scope
        anonymous["cookies"] = cookies
        anonymous["session"] = LazySession()
        anonymous["user"] = self._anonymous_user()
        return self.application(scope, receive, send)


def _parse_cookies(scope: WebSocketScope) -> dict[str, str]:
    for name, value in scope["headers"]:
        if name == b"cookie":  # only the first one, as in Channels' CookieMiddleware
            return parse_cookie(value.decode("latin-1"))
    return {}


class LazySession(LazyObject):  # type: ignore[type-arg]  # not generic at run time
    """An empty session, created when it is used."""

    _wrapped = empty  # instead of calling `__init__`, which takes as long as the whole middleware

    def __init__(self) -> None:
        pass

    def _setup(self) -> None:
        self._wrapped = import_module(settings.SESSION_ENGINE).SessionStore()
