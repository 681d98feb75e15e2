"""Tracks one connection from outside the application and counts it while it is open.

A consumer's own `connect()` and `disconnect()` cannot do that: `disconnect()` is also called for
rejected handshakes, and is not called after an exception, after a kill, or while a handler is busy.
"""

import asyncio
import logging
from collections.abc import Awaitable
from time import monotonic
from typing import Any, cast

from asgiref.sync import markcoroutinefunction
from asgiref.typing import ASGISendCallable, ASGISendEvent, WebSocketScope
from django.utils.translation import ngettext

from echo.conf import conf
from echo.counting.logins import Login, Logins, Recheck, find_login, get_logins
from echo.counting.members import MemberOf, find_member, is_anonymous, user_of
from echo.denial import deny, log_rejection
from echo.extensions import CLOSE_CODES, SEND_NOW
from echo.groups.connection import GroupConnection
from echo.groups.group import get_groups
from echo.groups.subscription import JOIN_TIMEOUT
from echo.state.base import State
from echo.stats import Stats


class CountedConnection:
    """One connection. It joins its objects when it is accepted, and leaves them exactly once.

    It joins the count and the group of each. NamedObject.send() and close() send to this group. The
    counted application receives the method `send` as its `send`.
    """

    def __init__(
        self,
        state: State,
        names: tuple[str, ...],
        stats: Stats,
        scope: WebSocketScope,
        send: ASGISendCallable,
        member_of: MemberOf | None = None,
        recheck: Recheck | None = None,
        asked: tuple[str, ...] = (),
    ) -> None:
        self._state = state
        self._names = names
        self._asked = asked  # the names about which ECHO_AUTHORIZE has been asked
        self._stats = stats
        self._scope = scope
        self._send = send
        self._member_of = member_of
        self._recheck = recheck
        self._loop = asyncio.get_running_loop()
        self._groups = get_groups()
        self._logins: Logins | None = None  # if the connection is that of a login
        extensions: Any = scope.get("extensions") or {}
        send_now = extensions.get(SEND_NOW)
        self.group_connection = GroupConnection(self._send_for_group, send_now, names)
        self._accepted = False
        self._joined = False
        self.has_left = False
        self._is_settled = False
        self._code: int | None = None  # the close code, if it is known
        self._joined_at = self._left_at = 0.0  # time.monotonic()
        # A strong reference: the event loop has only weak references to tasks.
        self._closing: asyncio.Future[None] | None = None

    @markcoroutinefunction  # otherwise async_to_sync, which sync consumers use, logs a warning
    def send(self, event: ASGISendEvent) -> Awaitable[None]:
        # Fast path: most events are messages, and need no coroutine here.
        return self._send(event) if event["type"] == "websocket.send" else self._pass_on(event)

    async def _pass_on(self, event: ASGISendEvent) -> None:
        if asyncio.get_running_loop() is not self._loop:  # called in another thread
            passing = asyncio.run_coroutine_threadsafe(self._pass_on(event), self._loop)
            await asyncio.wrap_future(passing)
            return
        kind = event["type"]
        if kind == "websocket.accept" and not self._accepted and not self.has_left:
            await self._accept(event)
            return
        if kind == "websocket.close" and self._accepted and not self.has_left:
            await self._close(event)
            return
        is_denial = kind == "websocket.http.response.start" and not self._accepted
        if kind == "websocket.close" or is_denial:
            if not (self._accepted or self.has_left):
                self._record_rejection(event)
            # The count changes before the client is notified of the close.
            self.leave(get_code(event))
            await self.settled()
        await self._send(event)

    def _record_rejection(self, event: ASGISendEvent) -> None:
        self._stats.rejections["application"] += 1
        status = cast(Any, event).get("status", 403)  # ASGI spec: a close before the accept is 403
        log_rejection(
            self._scope,
            "application",
            "the application responds with status %s",
            status,
            level=logging.INFO,  # not a problem: the site's code rejects on purpose
        )

    async def _accept(self, event: ASGISendEvent) -> None:
        """Join and pass the accept on, or deny the handshake if an object is full."""
        objects = tuple([(name, conf.max_connections(name)) for name in self._names])
        self._accepted = True
        member = key = login = None
        # Fast path: a visitor is neither a member nor has a login.
        is_visitor = is_anonymous(self._scope)
        if self._member_of is not None and not (is_visitor and self._member_of is user_of):
            member = await find_member(self._member_of, self._scope)
        if self._recheck is not None or not is_visitor:
            login = await find_login(self._scope, self._asked, self.group_connection, self._recheck)
        if self.has_left:  # the connection has ended meanwhile
            await self._send(event)
            return
        if member is not None:
            self.group_connection.key = key = member[0]
        began = monotonic()
        # State and channel layer work at the same time. Both finish before the client can know that
        # the connection is open.
        subscribed = self._join_groups(login)
        full = await self._state.join_all(objects, member)
        if full is not None:
            await self._deny_full(full, dict(objects)[full] or 0)
            return
        self._joined = True
        self._joined_at = monotonic()
        self._stats.joins += 1
        if self.has_left:  # the connection has ended during the join
            self._state.leave_all(self._names, key)
            self._is_settled = False
        elif pending := [future for future in subscribed if not future.done()]:
            timeout = max(JOIN_TIMEOUT - (self._joined_at - began), 0.0)
            await asyncio.wait(pending, timeout=timeout)
        await self._send(event)
        if not self.has_left:
            self.group_connection.start()

    def _join_groups(self, login: Login | None) -> "list[asyncio.Future[None]]":
        """Join the groups; return what to wait for until messages arrive."""
        subscribed = []
        for name in self._names:
            if (future := self._groups.join(name, self.group_connection)) is not None:
                subscribed.append(future)
        if login is not None:
            self._logins = get_logins()
            if (future := self._logins.add(login)) is not None:
                subscribed.append(future)
        return subscribed

    async def _deny_full(self, name: str, limit: int) -> None:
        """Deny the handshake with 503, or with 429 if the object is not the first.

        Objects other than the first are that of the client's user or address, for example.
        """
        self.leave()
        send, self._send = self._send, _ignore  # ignore later events of the application
        if name == self._names[0]:
            status = 503
            text = ngettext(
                "This object has %s connection, which is its limit.",
                "This object has %s connections, which is its limit.",
                limit,
            )
        else:
            status = 429
            text = ngettext(
                "You have %s connection, which is the limit.",
                "You have %s connections, which is the limit.",
                limit,
            )
        await deny(
            self._scope,
            send,
            "full",
            "the object %r has as many connections as ECHO_MAX_CONNECTIONS allows: %d",
            name,
            limit,
            status=status,
            text=text % limit,
            # 1013 means the same, but stock Daphne, which does not support denials, cannot send it.
            code=4000 + status,
            headers=[(b"retry-after", b"5")],
            stats=self._stats,
        )

    async def _close(self, event: ASGISendEvent) -> None:
        """Leave and close.

        A connection that has left but stays open would never be counted again. So an invalid code
        raises ValueError before leaving, and the Close is sent even if the application's call is
        cancelled.
        """
        code = get_code(event)
        if code not in CLOSE_CODES:
            raise ValueError(f"{code!r} is not a code that a Close frame may carry.")
        self.leave(code)

        async def close() -> None:
            await self.settled()
            await _send_close(self._send, event)

        self._closing = asyncio.ensure_future(close())
        await asyncio.shield(self._closing)

    async def _send_for_group(self, event: ASGISendEvent) -> None:
        """Send an event of the group. After a Close, ignore later events of the application."""
        if event["type"] != "websocket.close":
            await self._send(event)
            return
        self.leave(get_code(event))
        await self.settled()
        send, self._send = self._send, _ignore  # servers may raise for events after a Close
        await _send_close(send, event)

    def leave(self, code: int | None = None) -> None:
        """Leave the count. Idempotent: later calls only record a missing close code."""
        if self._code is None:
            self._code = code
        if self.has_left:
            return
        self.has_left = True
        self._left_at = monotonic()
        if self._joined:
            self._state.leave_all(self._names, self.group_connection.key)
        for name in self._names:
            self._groups.leave(name, self.group_connection)
        if self._logins is not None:
            self._logins.discard(self.group_connection)
        self.group_connection.key = None  # set_member_info() has no effect any more

    async def settled(self) -> None:
        """Return when all readers see that the connection has left."""
        if self._accepted and not self._is_settled:
            await self._state.settled()
            self._is_settled = True

    def end(self, code: int | None) -> None:
        """Leave when the application has finished, and record the connection.

        `code` is the close code of a connection that has not left before.
        """
        if not self.has_left:
            self.leave(code)
        self.group_connection.end()
        if self._joined:
            seconds = max(self._left_at - self._joined_at, 0.0)
            self._stats.record_close(self._names[0], seconds, self._code)


def get_code(event: Any) -> int:
    """Return the event's close code. The default is 1005 if it is received, 1000 if it is sent."""
    return event.get("code") or (1005 if event["type"] == "websocket.disconnect" else 1000)


async def _send_close(send: ASGISendCallable, event: ASGISendEvent) -> None:
    """Send the Close. If the server rejects its code, send one that every server accepts.

    Stock Daphne (autobahn) accepts 1000 and 3000 to 4999 only: 1001 becomes 4001 there.
    """
    try:
        await send(event)
    except OSError:  # the client has disconnected
        raise
    except Exception:
        code = int(get_code(event))
        accepted = code if code == 1000 or code >= 3000 else code + 3000
        await send({"type": "websocket.close", "code": accepted, "reason": ""})


async def _ignore(event: ASGISendEvent) -> None:
    """Send nothing."""
