"""The border: connections are counted round an application, not inside it.

A consumer's own `connect()` and `disconnect()` are the wrong place: servers call
`disconnect()` for handshakes that were refused, and do not call it after an
exception, a kill, or while a handler is busy.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from asgiref.typing import (
    ASGI3Application,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    Scope,
    WebSocketScope,
)
from django.core.exceptions import ImproperlyConfigured

from echo.answers import refuse
from echo.exceptions import InvalidName
from echo.names import check_name
from echo.state import get_state
from echo.state.memory import MemoryState

# An extension of our own servers: it takes a function, and calls it as soon as the end of
# the connection is known. From other servers the end is learnt by `receive`.
ON_END = "echo.on_end"
# On other servers: how long an application may be busy before somebody else listens for it.
PATIENCE = 0.5  # seconds

Naming = str | Callable[[WebSocketScope], str]


def counted(app: Callable[..., Any], by: Naming = "name") -> ASGI3Application:
    """Return the application with its WebSocket connections counted.

    `app` is any ASGI 3 application or `Consumer.as_asgi()`, and stays as it is. Wrap
    the leaf of a route, not a router. `by` tells the object of a connection: the name of an
    argument of the route, or a function of the scope.

    A connection counts from just before its handshake is answered (`websocket.accept`)
    until the first of: `websocket.disconnect`, `websocket.close`, the end of `app`. A name
    outside the rules is refused with 400 before the upgrade. Raises ImproperlyConfigured,
    per connection, if the route has no argument `by`.
    """

    async def application(
        scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if scope["type"] != "websocket":
            await app(scope, receive, send)
            return
        try:
            name = check_name(_name(scope, by))
        except InvalidName as error:
            await refuse(scope, receive, send, 400, str(error))
            return
        connection = _Connection(get_state(), name, receive, send)
        on_end = cast(dict[str, Any], scope.get("extensions") or {}).get(ON_END)
        if on_end is None:
            receive = connection.receive
        else:
            on_end(connection.leave)
        try:
            await app(scope, receive, connection.send)
        finally:
            connection.leave()

    application.counted_by = by  # type: ignore[attr-defined]  # for the system check
    return application


def _name(scope: WebSocketScope, by: Naming) -> str:
    if not isinstance(by, str):
        return by(scope)
    arguments = cast(dict[str, Any], scope).get("url_route", {}).get("kwargs", {})
    if by not in arguments:
        raise ImproperlyConfigured(missing_argument(by, scope["path"], arguments))
    return str(arguments[by])


def missing_argument(by: str, route: str, arguments: object) -> str:
    """Return the sentence for a `by` that names no argument of the route."""
    known = ", ".join(map(repr, arguments)) or "none"  # type: ignore[call-overload]
    return (
        f"counted(by={by!r}): the route of {route!r} has no argument {by!r}; it has {known}. "
        "Name one of them, or give a function of the scope."
    )


class _Connection:
    """One connection at the border: joins at its accept, and leaves exactly once."""

    __slots__ = ("_ended", "_joined", "_listener", "_name", "_receive", "_send", "_state", "_timer")

    def __init__(
        self, state: MemoryState, name: str, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        self._state = state
        self._name = name
        self._receive = receive
        self._send = send
        self._joined = False
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None
        self._listener: asyncio.Future[ASGIReceiveEvent] | None = None

    async def send(self, event: ASGISendEvent) -> None:
        if event["type"] == "websocket.accept" and not self._joined and not self._ended:
            # before the client can know that it is connected
            await self._state.join(self._name)
            self._joined = True
            if self._ended:  # while it waited
                self._state.leave(self._name)
        elif event["type"] in ("websocket.close", "websocket.http.response.start"):
            # before the client can know that it is closed
            self.leave()
        await self._send(event)

    async def receive(self) -> ASGIReceiveEvent:
        if self._timer is not None:
            self._timer.cancel()
        listener, self._listener = self._listener, None
        try:
            event = await (self._receive() if listener is None else listener)
            self._notice(event)
        finally:
            if not self._ended:
                self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._listen)
        return event

    def leave(self) -> None:
        """Count it no more; the second time, do nothing."""
        if self._ended:
            return
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()
        if self._joined:
            self._state.leave(self._name)

    def _listen(self) -> None:
        """Wait for the next event in place of an application that is busy."""
        self._listener = asyncio.ensure_future(self._receive())
        self._listener.add_done_callback(self._heard)

    def _heard(self, listener: "asyncio.Future[ASGIReceiveEvent]") -> None:
        if not listener.cancelled() and listener.exception() is None:
            self._notice(listener.result())

    def _notice(self, event: ASGIReceiveEvent) -> None:
        if event["type"] == "websocket.disconnect":
            self.leave()
