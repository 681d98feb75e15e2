"""The border: connections are counted round an application, not inside it.

A consumer's own `connect()` and `disconnect()` are the wrong place: servers call
`disconnect()` for handshakes that were refused, and do not call it after an
exception, a kill, or while a handler is busy.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic
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
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from echo.access import CONNECT, amay
from echo.announcer import ensure_announced
from echo.answers import answer, refuse
from echo.conf import conf
from echo.exceptions import InvalidName
from echo.names import check_name
from echo.state import get_state
from echo.state.memory import MemoryState
from echo.tally import tally

# An extension of our own servers: it takes a function, and calls it as soon as the end of
# the connection is known. From other servers the end is learnt by `receive`.
ON_END = "echo.on_end"
# On other servers: how long an application may be busy before somebody else listens for it,
PATIENCE = 0.4  # seconds; it may take twice that
# and how much is taken from the server for it: all that waits, unless it is a flood.
AHEAD = 1 << 20  # bytes or characters

Naming = str | Callable[[WebSocketScope], str]


def counted(app: Callable[..., Any], by: Naming = "name") -> ASGI3Application:
    """Return the application with its WebSocket connections counted.

    `app` is any ASGI 3 application or `Consumer.as_asgi()`, and stays as it is. Wrap
    the leaf of a route, not a router. `by` tells the object of a connection: the name of an
    argument of the route, or a function of the scope.

    A connection counts from just before its handshake is answered (`websocket.accept`)
    until the first of: `websocket.disconnect`, `websocket.close`, the end of `app`. A name
    outside the rules is refused with 400 before the upgrade, and whom ECHO_AUTHORIZE does not let
    connect with 403 (Close 4403 where the server cannot). Raises ImproperlyConfigured,
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
            tally.refusals["name"] += 1
            await refuse(scope, receive, send, 400, str(error))
            return
        if not await amay(scope, name, CONNECT):
            tally.refusals["permission"] += 1
            await receive()  # websocket.connect
            await answer(scope, send, 403, "You may not connect to this object.", code=4403)
            return
        state = get_state()
        ensure_announced(state)
        connection = _Connection(state, name, scope, receive, send)
        on_end = cast(dict[str, Any], scope.get("extensions") or {}).get(ON_END)
        if on_end is None:
            receive = connection.receive
        else:
            on_end(connection.leave)
        code = None
        try:
            await app(scope, receive, connection.send)
            code = 1000  # what servers then send
        except Exception:
            code = 1011
            raise
        finally:
            connection.end(code)
        # before the server can answer the client's Close
        await state.settled()

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
    known = ", ".join(map(repr, arguments)) or pgettext("echo", "none")  # type: ignore[call-overload]
    sentence = _(
        "counted(by=%(by)r): the route of %(route)r has no argument %(by)r; it has %(known)s. "
        "Name one of them, or give a function of the scope."
    )
    return sentence % {"by": by, "route": route, "known": known}


class _Connection:
    """One connection at the border: joins at its accept, and leaves exactly once."""

    __slots__ = (
        "_accepted",
        "_ahead",
        "_code",
        "_ended",
        "_handed",
        "_joined",
        "_left",
        "_name",
        "_receive",
        "_receiving",
        "_scope",
        "_send",
        "_since",
        "_size_ahead",
        "_state",
        "_timer",
        "_until",
    )

    def __init__(
        self,
        state: MemoryState,
        name: str,
        scope: WebSocketScope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
    ) -> None:
        self._state = state
        self._name = name
        self._scope = scope
        self._receive = receive
        self._send = send
        self._accepted = False
        self._joined = False
        self._left = False
        self._ended = False
        self._code: int | None = None  # of its end, where somebody has told it
        self._since = self._until = 0.0  # time.monotonic()
        self._receiving = False
        self._handed = 0  # events to the application
        self._timer: asyncio.TimerHandle | None = None
        # Events that were taken from the server for an application that is busy; the last
        # may still be to come.
        self._ahead: deque[asyncio.Future[ASGIReceiveEvent]] = deque()
        self._size_ahead = 0

    def send(self, event: ASGISendEvent) -> Awaitable[None]:
        # nearly each: without a coroutine of its own
        return self._send(event) if event["type"] == "websocket.send" else self._pass_on(event)

    async def _pass_on(self, event: ASGISendEvent) -> None:
        kind = event["type"]
        if kind == "websocket.accept" and not self._accepted and not self._left:
            self._accepted = True
            send, limit = self._send, conf.ECHO_MAX_CONNECTIONS
            # before the client can know that it is connected
            if not await self._state.join(self._name, limit):
                self._left = True
                tally.refusals["full"] += 1
                self._send = _ignore  # the application is told that it has been closed
                text = f"This object has {limit} connections, which is its limit."
                again = [(b"retry-after", b"5")]
                await answer(self._scope, send, 503, text, again, code=1013)
                return
            self._joined = True
            self._since = monotonic()
            tally.joins += 1
            if self._left:  # while it waited
                self._state.leave(self._name)
        elif kind in ("websocket.close", "websocket.http.response.start"):
            if not (self._accepted or self._left):
                tally.refusals["application"] += 1
            # before the client can know that it is closed
            self.leave(_code(event))
            await self._state.settled()
        await self._send(event)

    async def receive(self) -> ASGIReceiveEvent:
        self._receiving = True
        try:
            if not self._ahead:
                event = await self._receive()
                if event["type"] == "websocket.disconnect":
                    self._notice(event)
                return event
            # An application that gives up waiting finds the event at its next call.
            event = await asyncio.shield(self._ahead[0])
            self._ahead.popleft()
            self._size_ahead -= _size(event)
            return event
        finally:
            self._receiving = False
            self._handed += 1
            if self._timer is None and not self._left and not self._ended:
                self._watch()

    def _watch(self) -> None:
        """Look again in a while: one timer at a time, since one for each event would be dear."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(PATIENCE, self._look, self._handed)

    def _look(self, handed: int) -> None:
        """Listen, if the application is busy with the event that it was handed back then."""
        self._timer = None
        if self._receiving or self._ended:
            return
        if self._handed == handed:
            self._listen()
        else:
            self._watch()

    def leave(self, code: int | None = None) -> None:
        """Count it no more; the second time, only note a code that was not known."""
        if self._code is None:
            self._code = code
        if self._left:
            return
        self._left = True
        self._until = monotonic()
        if self._joined:
            self._state.leave(self._name)

    def end(self, code: int | None) -> None:
        """Count it no more, and listen no more: the application has ended.

        The code is for a connection that nobody has closed until then.
        """
        self._ended = True
        if not self._left:
            self.leave(code)
        if self._joined:
            tally.ended(self._name, max(self._until - self._since, 0.0), self._code)
        if self._timer is not None:
            self._timer.cancel()
        if self._ahead:
            self._ahead[-1].cancel()

    def _listen(self) -> None:
        """Take the next event in place of an application that is busy."""
        if self._left or self._receiving or self._size_ahead > AHEAD:
            return
        if self._ahead and not self._ahead[-1].done():
            return
        listener = asyncio.ensure_future(self._receive())
        listener.add_done_callback(self._heard)
        self._ahead.append(listener)

    def _heard(self, listener: "asyncio.Future[ASGIReceiveEvent]") -> None:
        if listener.cancelled() or listener.exception() is not None:
            return
        event = listener.result()
        self._size_ahead += _size(event)
        self._notice(event)
        self._listen()

    def _notice(self, event: ASGIReceiveEvent) -> None:
        if event["type"] == "websocket.disconnect":
            self.leave(_code(event))


def _code(event: Any) -> int:
    """Return the code of the end: a Close without one is 1005, and one that we send 1000."""
    return event.get("code") or (1005 if event["type"] == "websocket.disconnect" else 1000)


async def _ignore(event: ASGISendEvent) -> None:
    """Send nothing."""


def _size(event: Any) -> int:
    """Return about how much memory the event takes: no flood of empty ones is free."""
    return 256 + len(event.get("text") or event.get("bytes") or "")
