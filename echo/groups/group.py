"""The group of an object: its connections in this process, and the way to all others.

A message from the channel layer reaches this process once, whatever the number of
connections here, and is handed to them in memory.
"""

import asyncio
import logging
from collections import deque
from typing import Any
from weakref import WeakKeyDictionary

from asgiref.typing import ASGISendCallable
from channels.layers import get_channel_layer

from echo.extensions import SendNow
from echo.groups.layer import layer_or_none
from echo.groups.subscription import Membership
from echo.names import group_name

logger = logging.getLogger(__name__)

MAX_WAITING = 1000  # events for one connection that does not take them

_groups: "WeakKeyDictionary[asyncio.AbstractEventLoop, Groups]" = WeakKeyDictionary()


def get_groups() -> "Groups":
    """Return the groups of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _groups:
        _groups[loop] = Groups()
    return _groups[loop]


async def send_to_group(name: str, event: dict[str, Any]) -> None:
    """Hand the event to every connection of the object, in every process that the layer reaches.

    Without CHANNEL_LAYERS: in every event loop of this process. Raises what the layer raises.
    """
    layer = get_channel_layer()
    if layer is not None:
        message = {"type": "echo.event", "name": name, "event": event}
        await layer.group_send(group_name(name), message)
        return
    for loop, groups in list(_groups.items()):
        if not loop.is_closed():
            loop.call_soon_threadsafe(groups.deliver, name, event)


class Member:
    """A connection in a group: takes events in order, and never makes another wait."""

    __slots__ = ("_send", "_send_now", "_sender", "_started", "_waiting")

    def __init__(self, send: ASGISendCallable, send_now: SendNow | None = None) -> None:
        self._send: Any = send
        self._send_now = send_now
        self._waiting: deque[dict[str, Any]] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._started = False

    def start(self) -> None:
        """Begin to send: the handshake is answered."""
        self._started = True
        self._wake()

    def stop(self) -> None:
        """Send nothing more, but a Close that is on its way."""
        if self._waiting:
            self._waiting.clear()
        sender = self._sender
        if sender is not None and sender is not asyncio.current_task(sender.get_loop()):
            sender.cancel()

    def deliver(self, event: dict[str, Any]) -> None:
        """Take the event; it is sent as soon as the connection takes it.

        A connection that lets MAX_WAITING of them wait is closed with 1008.
        """
        if self._send_now is not None and self._started and not self._waiting:
            text = event.get("text")
            if text is not None and self._sender is None and self._send_now(text):
                return
        if self._waiting is None:
            self._waiting = deque()
        elif len(self._waiting) >= MAX_WAITING:
            self._waiting.clear()
            event = {"type": "websocket.close", "code": 1008, "reason": "Reads too slowly"}
        self._waiting.append(event)
        self._wake()

    def _wake(self) -> None:
        if self._started and self._waiting and self._sender is None:
            self._sender = asyncio.ensure_future(self._send_waiting(self._waiting))

    async def _send_waiting(self, waiting: deque[dict[str, Any]]) -> None:
        try:
            while waiting:
                await self._send(waiting.popleft())
        except (OSError, RuntimeError) as error:  # what servers raise once it is closed
            logger.debug("An event found its connection closed: %r", error)
        finally:
            self._sender = None


class Groups:
    """The groups of one event loop. Use it on that loop only."""

    def __init__(self) -> None:
        self._members: dict[str, dict[Member, None]] = {}
        self._membership = Membership(self._members.keys(), self.deliver)

    async def join(self, name: str, member: Member) -> None:
        """Add the member; on return a message to the group reaches it.

        Waits a moment for a slow channel layer, and for one that is known to be down not
        at all: then messages of other processes reach it when the layer is back.
        """
        self._members.setdefault(name, {})[member] = None
        if layer_or_none() is not None:
            await self._membership.update(name)

    def leave(self, name: str, member: Member) -> None:
        """Take the member out. Never waits: the channel layer is told in its own time."""
        member.stop()
        members = self._members.get(name, {})
        members.pop(member, None)
        if not members and self._members.pop(name, None) is not None:
            self._membership.forget(name)

    def deliver(self, name: str, event: dict[str, Any]) -> None:
        """Hand the event to the members of the group on this loop."""
        for member in list(self._members.get(name, ())):
            member.deliver(event)
