"""ASGI middleware that counts the WebSocket connections of the wrapped application."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope, WebSocketScope
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext as _

from echo.conf import conf
from echo.counting.addresses import by_address
from echo.counting.auto_reply import check_auto_reply, replying_receive
from echo.counting.connection import CountedConnection
from echo.counting.logins import Recheck
from echo.counting.members import MemberOf, user_of
from echo.counting.rates import MessageRate, admit
from echo.counting.read_ahead import ReadAhead
from echo.denial import deny
from echo.exceptions import InvalidName
from echo.extensions import AUTO_REPLY, CONNECTION, NAME, ON_END, REPLY
from echo.introspection import is_router
from echo.names import check_name
from echo.permissions import CONNECT, ahas_permission
from echo.state import get_state
from echo.stats import ignored_stats, process_stats

__all__ = ["by_address", "counted"]

Naming = str | Callable[[WebSocketScope], str]

MAX_OBJECTS = 10  # of one connection

# An ASGI 3 application. Typed loosely, because in django-stubs `path()` accepts only views.
Counted = Callable[..., Coroutine[Any, Any, Any]]


def counted(
    app: Callable[..., Any],
    by: Naming | Sequence[Naming] = "name",
    member: MemberOf | str | None = None,
    recheck: Recheck | None = None,
    auto_reply: Mapping[str, str] | None = None,
) -> Counted:
    """Return the application with its WebSocket connections counted.

    `app` is any ASGI 3 application or `Consumer.as_asgi()`; its behaviour does not change. Wrap the
    application at the end of a route, not a router. `by` names the object of a connection: an
    argument of the route, or a function of the scope.

    `by` may also be a sequence of up to ten: then the connection belongs to several objects, for
    example to its room, its user and its address: `by=("room", by_user, by_address)`. It joins all
    of them or none. Logs and metrics name the first. ECHO_AUTHORIZE is asked about the first object
    and those that arguments of the route name, since clients choose them.

    `member` names the member, the person behind the connection: "user" for the authenticated user
    of the scope (key: the primary key, info: `{"name": username}`), or a function of the scope,
    plain or async, that returns a Member with key and info, or None for a connection that is only
    counted. Plain functions run in a thread, so they may use the database. If the function raises
    or its result is invalid, the error is logged, and the connection is only counted.

    The connections of an authenticated user are closed with 4401 when the login ends: at once after
    a logout; within ECHO_RECHECK_SECONDS after the session has expired, or the user has been
    deleted, deactivated, or given another password. If ECHO_AUTHORIZE no longer allows the
    connection, it is closed with 4403. `recheck`, for logins without Django's sessions, is a
    function of the scope, plain or async, that returns whether the login is still valid.

    `auto_reply`, for example `{"ping": "pong"}`, has replies to texts that `app` never receives. A
    text must be equal to a key. On this project's transport the server itself replies, even while
    `app` is busy; on other servers a busy application delays the replies by up to 0.8 s.
    ECHO_MAX_MESSAGES_PER_SECOND limits these texts, too.

    A connection counts from just before its handshake is accepted until the first of:
    `websocket.disconnect`, `websocket.close`, the end of `app`. If the name is invalid, the
    handshake is denied with 400; if ECHO_AUTHORIZE denies access, with 403 (Close 4403 if the
    server does not support denial responses).

    Raises ImproperlyConfigured if `app` is a consumer class, if it is a router and `by` is an
    argument of its routes, or if `by`, `member` or `auto_reply` is invalid. Each connection raises
    it if its route has no argument `by`, and the exceptions of the functions in `by`.
    """
    namings = tuple(by) if isinstance(by, list | tuple) else (by,)
    if not 1 <= len(namings) <= MAX_OBJECTS:
        raise ImproperlyConfigured(
            f"counted(by={by!r}): a connection has 1 to {MAX_OBJECTS} objects."
        )
    for each in namings:
        if not (isinstance(each, str) or callable(each)):
            raise ImproperlyConfigured(
                f"counted(by={by!r}): {each!r} is neither an argument of the route nor a function "
                "of the scope."
            )
    _require_endpoint(app, namings)
    member_of = user_of if member == "user" else member
    if member_of is not None and not callable(member_of):
        raise ImproperlyConfigured(
            f'counted(member={member!r}): expected "user" or a function of the scope.'
        )

    replies = check_auto_reply(auto_reply)

    # One coroutine: each further one costs a handshake more than a function call.
    async def application(
        scope: Scope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        is_admitted: bool = False,
    ) -> None:
        if scope["type"] != "websocket":
            await app(scope, receive, send)
            return
        is_nested = NAME in scope
        limit = conf.ECHO_MAX_HANDSHAKES_AT_ONCE
        if limit is not None and not (is_nested or is_admitted):
            await admit(limit, partial(application, is_admitted=True), scope, receive, send)
            return
        # If counted() is applied twice, the outer one records the connection.
        stats = ignored_stats if is_nested else process_stats
        try:
            names, asked = _get_names(scope, namings)
        except InvalidName as error:
            reject = partial(deny, scope, send, receive=receive, stats=stats)
            await reject("name", "%s", error, status=400, text=str(error))
            return
        if conf.ECHO_AUTHORIZE is not None:  # by default, every client may connect
            for name in asked:
                if not await ahas_permission(scope, name, CONNECT):
                    reject = partial(deny, scope, send, receive=receive, stats=stats)
                    message = "ECHO_AUTHORIZE denies access to the object %r"
                    text = _("You may not connect to this object.")
                    await reject("permission", message, name, status=403, text=text, code=4403)
                    return
        state = get_state()
        connection = CountedConnection(state, names, stats, scope, send, member_of, recheck, asked)
        # `{**scope, NAME: name}` would reserve room for twice as many keys.
        named: Any = scope.copy()
        named[NAME] = names[0]
        named[CONNECTION] = connection.group_connection
        extensions = named.get("extensions") or {}
        most = conf.ECHO_MAX_MESSAGES_PER_SECOND
        reply: Callable[[str], str | None] = replies.get
        if most is not None:
            rate = MessageRate(most, connection.group_connection)
            receive, reply = rate.limited_receive(receive), rate.limited_reply(replies)
            # This extension passes messages by `receive`.
            named["extensions"] = {key: extensions[key] for key in extensions if key != REPLY}
        if replies:
            if (reply_automatically := extensions.get(AUTO_REPLY)) is not None:
                reply_automatically(reply)
            receive = replying_receive(receive, replies, connection)
        read_ahead = None
        if (on_end := extensions.get(ON_END)) is not None:
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
                await connection.settled()

    # For the system checks.
    application.counted_by = namings  # type: ignore[attr-defined]
    application.has_recheck = recheck is not None  # type: ignore[attr-defined]
    return application


def _require_endpoint(app: Callable[..., Any], namings: Sequence[Naming]) -> None:
    if hasattr(app, "as_asgi"):
        name = getattr(app, "__name__", type(app).__name__)
        raise ImproperlyConfigured(f"counted() needs an application: write {name}.as_asgi().")
    if any(isinstance(by, str) for by in namings) and is_router(app):
        raise ImproperlyConfigured(
            "counted() wraps a router. Wrap each consumer: "
            'path("chat/<str:room>/", counted(ChatConsumer.as_asgi(), by="room")).'
        )


def _get_names(
    scope: WebSocketScope, namings: Sequence[Naming]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the connection's objects, and those ECHO_AUTHORIZE is asked about.

    Raises InvalidName.
    """
    names = tuple([check_name(_get_name(scope, by)) for by in namings])
    if len(names) == 1:
        return names, names
    others = zip(names[1:], namings[1:], strict=True)
    asked = (names[0], *(name for name, by in others if isinstance(by, str)))
    return tuple(dict.fromkeys(names)), asked


def _get_name(scope: Any, by: Naming) -> str:
    if not isinstance(by, str):
        return by(scope)
    arguments = scope.get("url_route", {}).get("kwargs", {})
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
