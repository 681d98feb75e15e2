"""The groups of all objects: their connections in this process, and sending to all processes.

The channel layer delivers a message once to each process, regardless of the number of connections.
The process then delivers it to its connections in memory.
"""

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

from channels.layers import get_channel_layer

from echo.groups.connection import GroupConnection
from echo.groups.layer import layer_or_none
from echo.groups.subscription import ChannelLayerSubscription
from echo.names import group_name

_groups: "WeakKeyDictionary[asyncio.AbstractEventLoop, Groups]" = WeakKeyDictionary()


def get_groups() -> "Groups":
    """Return the groups of the running event loop."""
    loop = asyncio.get_running_loop()
    groups = _groups.get(loop)
    if groups is None:
        groups = _groups[loop] = Groups()
    return groups


async def send_to_group(
    name: str, event: dict[str, Any], key: str | None = None, exclude: str | None = None
) -> None:
    """Send the event to all connections of the object, in every process on the channel layer.

    With `key`, only to those of the member. `exclude` is the id of one that gets nothing.

    Without CHANNEL_LAYERS, send it to every event loop of this process. Raises the exceptions of
    the layer.
    """
    layer = get_channel_layer()
    if layer is not None:
        message: dict[str, Any] = {"type": "echo.event", "name": name, "event": event}
        if key is not None or exclude is not None:
            message |= {"key": key, "exclude": exclude}
        await layer.group_send(group_name(name), message)
        return
    for loop, groups in _open_groups().items():
        loop.call_soon_threadsafe(groups.deliver, name, event, key, exclude)


def receives_messages() -> bool:
    """Return False while messages of other processes do not reach this one: the layer fails."""
    return not any(groups.is_failing for groups in _open_groups().values())


def _open_groups() -> "dict[asyncio.AbstractEventLoop, Groups]":
    return {loop: groups for loop, groups in list(_groups.items()) if not loop.is_closed()}


class Groups:
    """The groups of one event loop. Not thread-safe: use them on that loop only."""

    def __init__(self) -> None:
        self._connections: dict[str, dict[GroupConnection, None]] = {}
        self._subscription = ChannelLayerSubscription(self._connections.keys(), self.deliver)

    @property
    def is_failing(self) -> bool:
        """Whether messages do not arrive through the channel layer."""
        return self._subscription.is_failing

    def join(self, name: str, connection: GroupConnection) -> "asyncio.Future[None] | None":
        """Add the connection, and return a future: when it is done, messages to the group reach it.

        Returns None if there is nothing to wait for: the channel layer knows the group, is down, or
        there is none. If the caller does not wait, messages from other processes reach the
        connection as soon as the layer responds.
        """
        self._connections.setdefault(name, {})[connection] = None
        return None if layer_or_none() is None else self._subscription.add(name)

    def leave(self, name: str, connection: GroupConnection) -> None:
        """Remove the connection. Never waits: the channel layer is updated in the background."""
        connection.stop()
        connections = self._connections.get(name)
        if connections is None:
            return
        connections.pop(connection, None)
        if not connections:
            del self._connections[name]
            self._subscription.discard(name)

    def deliver(
        self, name: str, event: dict[str, Any], key: str | None = None, exclude: str | None = None
    ) -> None:
        """Deliver the event to the connections of the group on this loop.

        With `key`, only to those of the member. `exclude` is the id of one that gets nothing.
        """
        for connection in list(self._connections.get(name, ())):
            if key is not None and connection.key != key:
                continue
            if exclude is None or not connection.has_id(exclude):
                connection.deliver(event)
