"""A logout, tried with a session of its own for a user that the caller of the doctor names."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from time import monotonic
from types import SimpleNamespace
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from websockets.exceptions import InvalidStatus

from echo.counting.logins import close_session
from echo.groups.layer import reaches_other_processes
from echo.log import describe
from echo.operations.doctor.finding import Finding
from echo.operations.doctor.probe import TIMEOUT
from echo.operations.websocket import ClientWebSocket

REMEDY = (
    "Wrap the routes in AuthMiddlewareStack or as_websocket_application, and give the site and "
    "this command the same SECRET_KEY, sessions and CHANNEL_LAYERS."
)


def check_logout(username: str, url: str, headers: Mapping[str, str]) -> Finding:
    """Log the user in, connect, log that session out, and check that the connection is closed.

    The user's other sessions stay, and receivers of the site for Django's signals are not called.
    """
    needed = ("django.contrib.auth", "django.contrib.sessions")
    if not all(map(apps.is_installed, needed)):
        return Finding("logout", None, "the site has no logins of django.contrib.auth")
    if not reaches_other_processes():
        return Finding("logout", None, "the channel layer does not reach the server's process")
    try:
        return _try_logout(username, url, headers)
    except Exception as error:  # of the database, or of the session engine
        remedy = "Make users and sessions work for this command."
        return Finding("logout", False, describe(error), remedy)


def _try_logout(username: str, url: str, headers: Mapping[str, str]) -> Finding:
    model = get_user_model()
    user: Any = model._default_manager.filter(**{model.USERNAME_FIELD: username}).first()
    if user is None or not user.is_active:
        message = f"there is no active user {username!r}"
        return Finding("logout", False, message, "Name an active user.")
    with _session_of(user) as session:
        cookie = f"{settings.SESSION_COOKIE_NAME}={session.session_key}"
        try:
            socket = ClientWebSocket(url, {**headers, "Cookie": cookie}, timeout=TIMEOUT)
        except InvalidStatus as error:
            message = f"the handshake of {username!r} is rejected: {error.response.status_code}"
            return Finding("logout", None, message)
        with socket:
            began = monotonic()
            close_session(SimpleNamespace(session=session))
            try:
                socket.wait_closed()
            except TimeoutError:
                message = f"the connection of {username!r} is still open after {TIMEOUT:g} s"
                return Finding("logout", False, message, REMEDY)
            seconds = monotonic() - began
            message = f"closed with {socket.close_code} after {seconds:.2f} s"
            return Finding("logout", socket.close_code == 4401, message)


@contextmanager
def _session_of(user: Any) -> Iterator[Any]:
    """Yield a session in which the user is logged in; delete it at the end."""
    session: Any = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = user._meta.pk.value_to_string(user)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    try:
        yield session
    finally:
        session.delete()
