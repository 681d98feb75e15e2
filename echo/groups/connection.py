"""One connection in a group."""

import asyncio
import logging
from collections import deque
from secrets import token_hex
from typing import Any

from asgiref.typing import ASGISendCallable

from echo.extensions import SendNow

logger = logging.getLogger(__name__)

MAX_QUEUED_EVENTS = 1000  # of one connection; if there are more, it is closed


class GroupConnection:
    """A connection in a group. Its events are sent in order and never delay other connections."""

    __slots__ = ("_id", "_queue", "_send", "_send_now", "_sender", "_started", "key", "names")

    def __init__(
        self,
        send: ASGISendCallable,
        send_now: SendNow | None = None,
        names: tuple[str, ...] = (),
    ) -> None:
        self._send: Any = send
        self._send_now = send_now
        self._queue: deque[dict[str, Any]] | None = None  # created on first use
        self._sender: asyncio.Task[None] | None = None
        self._started = False
        self._id = ""
        self.names = names  # of the objects of the connection
        self.key: str | None = None  # of the member, if the connection is one of a member

    def __deepcopy__(self, memo: object) -> "GroupConnection":
        """Return the connection itself, which a copy of its scope contains as well."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a pickled scope contain a connection that has ended."""
        return GroupConnection, (None,)

    @property
    def id(self) -> str:
        """The id of the connection, unique in all processes."""
        if not self._id:
            self._id = token_hex(8)
        return self._id

    def has_id(self, id: str) -> bool:
        return self._id == id

    def start(self) -> None:
        """Start sending. Call it when the handshake has been accepted."""
        self._started = True
        self._ensure_sender()

    def stop(self) -> None:
        """Drop all queued events and cancel the sender task, unless that task is the caller."""
        if self._queue:
            self._queue.clear()
        sender = self._sender
        if sender is not None and sender is not asyncio.current_task(sender.get_loop()):
            sender.cancel()

    def end(self) -> None:
        """Send nothing any more, and let go of the connection, which would form a cycle."""
        self._send, self._send_now = _ignore, None

    def deliver(self, event: dict[str, Any]) -> None:
        """Send the event, or queue it until the connection is writable.

        If MAX_QUEUED_EVENTS are queued, the connection is closed with 1008 instead.
        """
        if self._send_now is not None and self._started and not self._queue:
            text = event.get("text")
            if text is not None and self._sender is None and self._send_now(text):
                return
        if self._queue is None:
            self._queue = deque()
        elif len(self._queue) >= MAX_QUEUED_EVENTS:
            self._queue.clear()
            event = {"type": "websocket.close", "code": 1008, "reason": "Reads too slowly"}
        self._queue.append(event)
        self._ensure_sender()

    def _ensure_sender(self) -> None:
        if self._started and self._queue and self._sender is None:
            self._sender = asyncio.ensure_future(self._send_queued(self._queue))

    async def _send_queued(self, queue: deque[dict[str, Any]]) -> None:
        try:
            while queue:
                await self._send(queue.popleft())
        except (OSError, RuntimeError) as error:  # servers raise either if the socket is closed
            logger.debug("Event dropped, the connection is closed: %r", error)
        finally:
            self._sender = None


async def _ignore(event: Any) -> None:
    """Send nothing."""
