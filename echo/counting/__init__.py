"""ASGI middleware that counts the WebSocket connections of the wrapped application."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, cast

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope, WebSocketScope
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext as _

from echo.counting.connection import CountedConnection
from echo.counting.members import MemberOf, user_of
from echo.counting.read_ahead import ReadAhead
from echo.denial import deny
from echo.exceptions import InvalidName
from echo.extensions import CONNECTION, NAME, ON_END
from echo.introspection import is_router
from echo.names import check_name
from echo.permissions import CONNECT, ahas_permission
from echo.state import get_state
from echo.stats import Stats, ignored_stats, process_stats

Naming = str | Callable[[WebSocketScope], str]

# An ASGI 3 application. Typed loosely, because in django-stubs `path()` accepts only views.
Counted = Callable[..., Coroutine[Any, Any, Any]]


def counted(
    app: Callable[..., Any], by: Naming = "name", member: MemberOf | str | None = None
) -> Counted:
    """Return the application with its WebSocket connections counted.

    `app` is any ASGI 3 application or `Consumer.as_asgi()`; its behaviour does not change. Wrap the
    application at the end of a route, not a router. `by` names the object of a connection: an
    argument of the route, or a function of the scope.

    `member` names the member, the person behind the connection: "user" for the authenticated user
    of the scope (key: the primary key, info: `{"name": username}`), or a function of the scope,
    plain or async, that returns a Member with key and info, or None for a connection that is only
    counted. Plain functions run in a thread, so they may use the database. If the function raises
    or its result is invalid, the error is logged, and the connection is only counted.

    A connection counts from just before its handshake is accepted until the first of:
    `websocket.disconnect`, `websocket.close`, the end of `app`. If the name is invalid, the
    handshake is denied with 400; if ECHO_AUTHORIZE denies access, with 403 (Close 4403 if the
    server does not support denial responses).

    Raises ImproperlyConfigured if `app` is a consumer class, if it is a router and `by` is an
    argument of its routes, or if `member` is neither "user" nor a function. Each connection raises
    it if its route has no argument `by`.
    """
    _require_endpoint(app, by)
    member_of = user_of if member == "user" else member
    if member_of is not None and not callable(member_of):
        raise ImproperlyConfigured(
            f'counted(member={member!r}): expected "user" or a function of the scope.'
        )

    async def application(
        scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if scope["type"] != "websocket":
            await app(scope, receive, send)
            return
        # If counted() is applied twice, the outer one records the connection.
        stats = ignored_stats if NAME in scope else process_stats
        name = await _validated_name(scope, receive, send, by, stats)
        if name is None:
            return
        state = get_state()
        connection = CountedConnection(state, name, stats, scope, send, member_of)
        # `{**scope, NAME: name}` would reserve room for twice as many keys.
        named = cast(dict[str, Any], scope).copy()
        named[NAME] = name
        named[CONNECTION] = connection.group_connection
        on_end = (named.get("extensions") or {}).get(ON_END)
        read_ahead = None
        if on_end is not None:
            on_end(connection.leave)
        else:
            read_ahead = ReadAhead(receive, connection)
            receive = read_ahead.receive
        code = None
        try:
            await app(named, receive, connection.send)
            code = 1000  # with which servers close after the application returns
        except Exception:
            code = 1011
            raise
        finally:
            connection.end(code)
            if read_ahead is not None:
                read_ahead.stop()
            # Servers reply to the client's Close after this. A cancelled task must not wait.
            if code is not None:
                await state.settled()

    application.counted_by = by  # type: ignore[attr-defined]  # for the system check
    return application


def _require_endpoint(app: Callable[..., Any], by: Naming) -> None:
    if hasattr(app, "as_asgi"):
        name = getattr(app, "__name__", type(app).__name__)
        raise ImproperlyConfigured(f"counted() needs an application: write {name}.as_asgi().")
    if isinstance(by, str) and is_router(app):
        raise ImproperlyConfigured(
            "counted() wraps a router. Wrap each consumer: "
            'path("chat/<str:room>/", counted(ChatConsumer.as_asgi(), by="room")).'
        )


async def _validated_name(
    scope: WebSocketScope,
    receive: ASGIReceiveCallable,
    send: ASGISendCallable,
    by: Naming,
    stats: Stats,
) -> str | None:
    """Return the name of the connection's object; None if the handshake has been denied."""
    reject = partial(deny, scope, send, receive=receive, stats=stats)
    try:
        name = check_name(_get_name(scope, by))
    except InvalidName as error:
        await reject("name", "%s", error, status=400, text=str(error))
        return None
    if not await ahas_permission(scope, name, CONNECT):
        message = "ECHO_AUTHORIZE denies access to the object %r"
        text = _("You may not connect to this object.")
        await reject("permission", message, name, status=403, text=text, code=4403)
        return None
    return name


def _get_name(scope: WebSocketScope, by: Naming) -> str:
    if not isinstance(by, str):
        return by(scope)
    arguments = cast(dict[str, Any], scope).get("url_route", {}).get("kwargs", {})
    if by not in arguments:
        raise ImproperlyConfigured(missing_argument(by, scope["path"], arguments))
    return str(arguments[by])


def missing_argument(by: str, route: str, arguments: object) -> str:
    """Return the error message for a `by` that is not an argument of the route."""
    known = ", ".join(map(repr, arguments)) or "none"  # type: ignore[call-overload]
    return (
        f"counted(by={by!r}): the route of {route!r} has no argument {by!r}; it has {known}. "
        "Name one of them, or pass a function of the scope."
    )
