"""The border: one connection, seen from outside its application. Here it joins its object.

A consumer's own `connect()` and `disconnect()` are the wrong place: servers call
`disconnect()` for handshakes that were refused, and do not call it after an
exception, a kill, or while a handler is busy.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable
from time import monotonic
from typing import Any, cast

from asgiref.sync import markcoroutinefunction
from asgiref.typing import (
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    WebSocketScope,
)
from django.utils.translation import ngettext

from echo.conf import conf
from echo.denial import answer, log_rejection
from echo.extensions import SEND_NOW
from echo.groups.group import Groups, Member, get_groups
from echo.state.base import State
from echo.stats import Tally

# On servers not our own: how long an application may be busy before somebody listens for it,
PATIENCE = 0.4  # seconds; it may take twice that
# and how much is taken from the server for it: all that waits, unless it is a flood.
AHEAD = 1 << 20  # bytes or characters
# What a Close frame may carry (RFC 6455 §7.4 and the IANA registry).
CODES = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}


class Connection:
    """One connection at the border: joins at its accept, and leaves exactly once.

    It joins the count of its object and the object's group, by which `send` and `close` reach it.
    """

    __slots__ = (
        "_accepted",
        "_ahead",
        "_closing",
        "_code",
        "_ended",
        "_groups",
        "_handed",
        "_joined",
        "_left",
        "_loop",
        "_member",
        "_name",
        "_receive",
        "_receiving",
        "_record",
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
        state: State,
        name: str,
        record: Tally,
        scope: WebSocketScope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
    ) -> None:
        self._state = state
        self._name = name
        self._record = record
        self._scope = scope
        self._receive = receive
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._groups: Groups | None = None  # when it has joined
        self._member: Member | None = None
        self._accepted = False
        self._joined = False
        self._left = False
        self._ended = False
        self._code: int | None = None  # of its end, where somebody has told it
        self._since = self._until = 0.0  # time.monotonic()
        self._receiving = False
        self._handed = 0  # events to the application
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Future[None] | None = None  # kept, for its loop does not keep it
        # Events that were taken from the server for an application that is busy; the last
        # may still be to come.
        self._ahead: deque[asyncio.Future[ASGIReceiveEvent]] = deque()
        self._size_ahead = 0

    @markcoroutinefunction  # sync consumers wrap it in async_to_sync, which warns otherwise
    def send(self, event: ASGISendEvent) -> Awaitable[None]:
        # nearly each: without a coroutine of its own
        return self._send(event) if event["type"] == "websocket.send" else self._pass_on(event)

    async def _pass_on(self, event: ASGISendEvent) -> None:
        if asyncio.get_running_loop() is not self._loop:  # in another thread
            passing = asyncio.run_coroutine_threadsafe(self._pass_on(event), self._loop)
            await asyncio.wrap_future(passing)
            return
        kind = event["type"]
        if kind == "websocket.accept" and not self._accepted and not self._left:
            await self._accept(event)
            return
        if kind == "websocket.close" and self._accepted and not self._left:
            await self._close(event)
            return
        if kind == "websocket.close" or (
            kind == "websocket.http.response.start" and not self._accepted
        ):
            if not (self._accepted or self._left):
                self._record.refusals["application"] += 1
                log_rejection(
                    self._scope,
                    "application",
                    "its application responds with the status %s",
                    cast(Any, event).get("status", 403),  # of a Close before the accept: ASGI spec
                    level=logging.INFO,  # a site's own decision is no mistake
                )
            # before the client can know that it is closed
            self.leave(_code(event))
            await self._state.settled()
        await self._send(event)

    async def _accept(self, event: ASGISendEvent) -> None:
        """Join, and pass the accept on; or refuse where the object has no room."""
        self._accepted = True
        limit = conf.ECHO_MAX_CONNECTIONS
        # before the client can know that it is connected
        if not await self._state.join(self._name, limit):
            await self._refuse(limit or 0)
            return
        self._joined = True
        self._since = monotonic()
        self._record.joins += 1
        if self._left:  # while it waited
            self._state.leave(self._name)
        else:
            extensions = cast(dict[str, Any], self._scope).get("extensions") or {}
            self._groups = get_groups()
            self._member = Member(self._send_for_group, extensions.get(SEND_NOW))
            await self._groups.join(self._name, self._member)
        await self._send(event)
        if self._member is not None and not self._left:
            self._member.start()

    async def _close(self, event: ASGISendEvent) -> None:
        """Leave, and close: an open connection that has left would never be counted again.

        So a code that no server sends is an error before that, and the Close goes out even if the
        application's call is cancelled meanwhile.
        """
        code = _code(event)
        if code not in CODES:
            raise ValueError(f"{code!r} is not a code that a Close frame may carry.")
        self.leave(code)

        async def close() -> None:
            await self._state.settled()
            await _send_close(self._send, event)

        self._closing = asyncio.ensure_future(close())
        await asyncio.shield(self._closing)

    async def _send_for_group(self, event: ASGISendEvent) -> None:
        """Send what the object was told. After a Close what the application sends goes nowhere."""
        if event["type"] != "websocket.close":
            await self._send(event)
            return
        self.leave(_code(event))
        await self._state.settled()
        send, self._send = self._send, _ignore  # servers may raise on what follows a Close
        await _send_close(send, event)

    async def _refuse(self, limit: int) -> None:
        self._left = True
        self._record.refusals["full"] += 1
        log_rejection(
            self._scope,
            "full",
            "the object %r has as many connections as ECHO_MAX_CONNECTIONS allows: %d",
            self._name,
            limit,
        )
        send, self._send = self._send, _ignore  # the application is told that it has been closed
        text = ngettext(
            "This object has %s connection, which is its limit.",
            "This object has %s connections, which is its limit.",
            limit,
        )
        again = [(b"retry-after", b"5")]
        # 1013 would say the same, but stock Daphne, the server without answers, sends none
        await answer(self._scope, send, 503, text % limit, again, code=4503)

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
        if self._groups is not None and self._member is not None:
            self._groups.leave(self._name, self._member)

    def end(self, code: int | None) -> None:
        """Count it no more, and listen no more: the application has ended.

        The code is for a connection that nobody has closed until then.
        """
        self._ended = True
        if not self._left:
            self.leave(code)
        if self._joined:
            self._record.ended(self._name, max(self._until - self._since, 0.0), self._code)
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


async def _send_close(send: ASGISendCallable, event: ASGISendEvent) -> None:
    """Send the Close; where the server rejects it, one that each server takes.

    Stock Daphne (autobahn) takes 1000 and 3000 to 4999 only: there 1001 becomes 4001.
    """
    try:
        await send(event)
    except OSError:  # the client has gone
        raise
    except Exception:
        code = int(_code(event))
        own = code if code == 1000 or code >= 3000 else code + 3000
        await send({"type": "websocket.close", "code": own, "reason": ""})


async def _ignore(event: ASGISendEvent) -> None:
    """Send nothing."""


def _size(event: Any) -> int:
    """Return about how much memory the event takes: no flood of empty ones is free."""
    return 256 + len(event.get("text") or event.get("bytes") or "")
