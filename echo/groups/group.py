"""The groups of all objects: their connections in this process, and sending to all processes.

The channel layer delivers a message once to each process, regardless of the number of connections.
The process then delivers it to its members in memory.
"""

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

from channels.layers import get_channel_layer

from echo.groups.layer import layer_or_none
from echo.groups.member import Member
from echo.groups.subscription import ChannelLayerSubscription
from echo.names import group_name

_groups: "WeakKeyDictionary[asyncio.AbstractEventLoop, Groups]" = WeakKeyDictionary()


def get_groups() -> "Groups":
    """Return the groups of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _groups:
        _groups[loop] = Groups()
    return _groups[loop]


async def send_to_group(name: str, event: dict[str, Any]) -> None:
    """Send the event to all connections of the object, in every process on the channel layer.

    Without CHANNEL_LAYERS, send it to every event loop of this process. Raises the exceptions of
    the layer.
    """
    layer = get_channel_layer()
    if layer is not None:
        message = {"type": "echo.event", "name": name, "event": event}
        await layer.group_send(group_name(name), message)
        return
    for loop, groups in _open_groups().items():
        loop.call_soon_threadsafe(groups.deliver, name, event)


def receives_messages() -> bool:
    """Return False while messages of other processes do not reach this one: the layer fails."""
    return not any(groups.is_failing for groups in _open_groups().values())


def _open_groups() -> "dict[asyncio.AbstractEventLoop, Groups]":
    return {loop: groups for loop, groups in list(_groups.items()) if not loop.is_closed()}


class Groups:
    """The groups of one event loop. Not thread-safe: use them on that loop only."""

    def __init__(self) -> None:
        self._members: dict[str, dict[Member, None]] = {}
        self._subscription = ChannelLayerSubscription(self._members.keys(), self.deliver)

    @property
    def is_failing(self) -> bool:
        """Whether messages do not arrive through the channel layer."""
        return self._subscription.is_failing

    def join(self, name: str, member: Member) -> "asyncio.Future[None] | None":
        """Add the member, and return a future: when it is done, messages to the group reach it.

        Returns None if there is nothing to wait for: the channel layer knows the group, is down, or
        there is none. If the caller does not wait, messages from other processes reach the member
        as soon as the layer responds.
        """
        self._members.setdefault(name, {})[member] = None
        return None if layer_or_none() is None else self._subscription.add(name)

    def leave(self, name: str, member: Member) -> None:
        """Remove the member. Never waits: the channel layer is updated in the background."""
        member.stop()
        members = self._members.get(name, {})
        members.pop(member, None)
        if not members and self._members.pop(name, None) is not None:
            self._subscription.discard(name)

    def deliver(self, name: str, event: dict[str, Any]) -> None:
        """Deliver the event to the members of the group on this loop."""
        for member in list(self._members.get(name, ())):
            member.deliver(event)
