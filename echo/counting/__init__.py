"""Counts the WebSocket connections of any ASGI application, round it and not inside it."""

from collections.abc import Callable, Coroutine
from typing import Any, cast

from asgiref.typing import (
    ASGIReceiveCallable,
    ASGISendCallable,
    Scope,
    WebSocketScope,
)
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from echo.counting.connection import Connection
from echo.denial import answer, log_rejection, refuse
from echo.exceptions import InvalidName
from echo.extensions import NAME, ON_END
from echo.names import check_name
from echo.permissions import CONNECT, amay
from echo.state import get_state
from echo.stats import tally, unrecorded

Naming = str | Callable[[WebSocketScope], str]

# An ASGI 3 application that may also stand in a `path()`, which django-stubs types for views only.
Counted = Callable[..., Coroutine[Any, Any, Any]]


def counted(app: Callable[..., Any], by: Naming = "name") -> Counted:
    """Return the application with its WebSocket connections counted.

    `app` is any ASGI 3 application or `Consumer.as_asgi()`, and stays as it is. Wrap
    the leaf of a route, not a router. `by` tells the object of a connection: the name of an
    argument of the route, or a function of the scope.

    A connection counts from just before its handshake is answered (`websocket.accept`)
    until the first of: `websocket.disconnect`, `websocket.close`, the end of `app`. A name
    outside the rules is refused with 400 before the upgrade, and whom ECHO_AUTHORIZE does not let
    connect with 403 (Close 4403 where the server cannot). Raises ImproperlyConfigured
    if `app` is a consumer's class, or a router that is to give an argument; and per connection,
    if the route has no argument `by`.
    """
    _require_leaf(app, by)

    async def application(
        scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if scope["type"] != "websocket":
            await app(scope, receive, send)
            return
        record = unrecorded if NAME in scope else tally  # another counted() round this one has it
        try:
            name = check_name(_name(scope, by))
        except InvalidName as error:
            record.refusals["name"] += 1
            log_rejection(scope, "name", "%s", error)
            await refuse(scope, receive, send, 400, str(error))
            return
        if not await amay(scope, name, CONNECT):
            record.refusals["permission"] += 1
            log_rejection(
                scope, "permission", "ECHO_AUTHORIZE does not let it connect to the object %r", name
            )
            await receive()  # websocket.connect
            await answer(scope, send, 403, _("You may not connect to this object."), code=4403)
            return
        state = get_state()
        connection = Connection(state, name, record, scope, receive, send)
        on_end = cast(dict[str, Any], scope.get("extensions") or {}).get(ON_END)
        if on_end is None:
            receive = connection.receive
        else:
            on_end(connection.leave)
        code = None
        try:
            await app({**scope, NAME: name}, receive, connection.send)
            code = 1000  # what servers then send
        except Exception:
            code = 1011
            raise
        finally:
            connection.end(code)
            if code is not None:  # not cancelled: the server replies to the client's Close after it
                await state.settled()

    application.counted_by = by  # type: ignore[attr-defined]  # for the system check
    return application


def _require_leaf(app: Callable[..., Any], by: Naming) -> None:
    """Raise ImproperlyConfigured for what is no application yet, or is round the route."""
    if hasattr(app, "as_asgi"):
        name = getattr(app, "__name__", type(app).__name__)
        sentence = _("counted() needs an application: write %s.as_asgi().")
        raise ImproperlyConfigured(sentence % name)
    if isinstance(by, str) and _is_router(app):
        sentence = _(
            "counted() is round a router. Wrap each consumer: "
            'path("chat/<str:room>/", counted(ChatConsumer.as_asgi(), by="room")).'
        )
        raise ImproperlyConfigured(sentence)


def _is_router(app: Any) -> bool:
    """Return whether it is Channels' URLRouter, or middleware of its kind round one."""
    while app is not None and getattr(app, "_path_routing", False) is not True:
        attributes = getattr(app, "__dict__", {})
        app = attributes.get("inner") or attributes.get("application")
    return app is not None


def _name(scope: WebSocketScope, by: Naming) -> str:
    if not isinstance(by, str):
        return by(scope)
    arguments = cast(dict[str, Any], scope).get("url_route", {}).get("kwargs", {})
    if by not in arguments:
        raise ImproperlyConfigured(missing_argument(by, scope["path"], arguments))
    return str(arguments[by])


def missing_argument(by: str, route: str, arguments: object) -> str:
    """Return the sentence for a `by` that names no argument of the route."""
    known = ", ".join(map(repr, arguments)) or pgettext("echo", "none")  # type: ignore[call-overload]
    sentence = _(
        "counted(by=%(by)r): the route of %(route)r has no argument %(by)r; it has %(known)s. "
        "Name one of them, or give a function of the scope."
    )
    return sentence % {"by": by, "route": route, "known": known}
