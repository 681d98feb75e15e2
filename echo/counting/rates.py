"""Limits of rates: handshakes at the same time, and messages of a connection per second."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

from asgiref.typing import (
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    WebSocketScope,
)
from django.utils.translation import gettext as _

from echo.denial import Application, deny
from echo.groups.connection import GroupConnection

ADMISSION_TIMEOUT = 5.0  # seconds for which a handshake waits for its turn
# If receiving takes longer, there was no message in the queue of the server.
MIN_WAIT = 0.005  # seconds


class Admission:
    """Lets a limited number of handshakes of one event loop proceed; the others wait in order."""

    def __init__(self) -> None:
        self._active = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self, limit: int) -> bool:
        """Wait until fewer than `limit` handshakes are active; return False after the timeout.

        If True is returned, call `leave` once.
        """
        if self._active < limit and not self._waiting:
            self._active += 1
            return True
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(ADMISSION_TIMEOUT):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # admitted at the same moment
                if isinstance(error, TimeoutError):
                    return True
                self.leave()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def leave(self) -> None:
        """End a handshake. Its place goes to the next one."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._active -= 1


_admissions: "WeakKeyDictionary[asyncio.AbstractEventLoop, Admission]" = WeakKeyDictionary()


def get_admission() -> Admission:
    """Return the admission of the running event loop."""
    return _admissions.setdefault(asyncio.get_running_loop(), Admission())


async def admit(
    limit: int,
    application: Application,
    scope: WebSocketScope,
    receive: ASGIReceiveCallable,
    send: ASGISendCallable,
) -> None:
    """Call the application when it is the turn of the handshake, or deny the handshake with 503.

    The turn ends with the first event that the application sends, or when it finishes.
    """
    admission = get_admission()
    if not await admission.enter(limit):
        await deny(
            scope,
            send,
            "busy",
            "%d handshakes at once, the limit ECHO_MAX_HANDSHAKES_AT_ONCE, take more than %d s",
            limit,
            ADMISSION_TIMEOUT,
            status=503,
            text=_("The server is busy."),
            code=4503,
            headers=[(b"retry-after", b"5")],
            receive=receive,
        )
        return
    leave: Callable[[], None] | None = admission.leave

    async def send_and_leave(event: ASGISendEvent) -> None:
        nonlocal leave
        try:
            await send(event)
        finally:
            if leave is not None:
                leave()
                leave = None

    try:
        await application(scope, receive, send_and_leave)
    finally:
        if leave is not None:
            leave()


class MessageRate:
    """Closes a connection after `limit` messages within a second, and drops further ones.

    The application receives `websocket.disconnect` as after any Close.
    """

    def __init__(self, limit: int, connection: GroupConnection) -> None:
        self._limit = limit
        self._connection = connection
        self._is_over = False

    def limited_receive(self, receive: ASGIReceiveCallable) -> Callable[[], Awaitable[Any]]:
        """Return a `receive` that limits the messages.

        The messages that arrive while the application is busy are received all at once. They have
        been sent within the whole time since the last message for which the application had to
        wait.
        """
        allows = self._counter()

        async def limited() -> Any:
            while True:
                called = monotonic()
                event = await receive()
                if event["type"] != "websocket.receive":
                    return event
                if allows(monotonic() - called > MIN_WAIT):
                    return event

        return limited

    def limited_reply(self, replies: Mapping[str, str]) -> Callable[[str], str | None]:
        """Return a function for the automatic reply to a text, to be called when it arrives.

        It does not count the other texts, which `limited_receive` counts when they are received.
        """
        allows = self._counter()

        def reply(text: str) -> str | None:
            replied = replies.get(text)
            return replied if replied is None or allows(True) else None

        return reply

    def _counter(self) -> Callable[[bool], bool]:
        """Return a function that counts a message, and returns whether it is within the limit.

        Its argument is whether a new second may begin with the message.
        """
        began, number = 0.0, 0

        def allows(may_begin: bool) -> bool:
            nonlocal began, number
            if self._is_over:
                return False
            now = monotonic()
            if number == 0 or (may_begin and now - began >= 1):
                began, number = now, 0
            number += 1
            self._is_over = number > self._limit * max(1.0, now - began)
            if self._is_over:
                reason = f"More than {self._limit} messages per second"
                close = {"type": "websocket.close", "code": 1008, "reason": reason}
                self._connection.deliver(close)
            return not self._is_over

        return allows
