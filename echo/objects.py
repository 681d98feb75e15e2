"""The API for sites: count the connections of an object, send to them and close them."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from asgiref.sync import async_to_sync

from echo.exceptions import StateUnavailable
from echo.extensions import CLOSE_CODES, CONNECTION, MAX_REASON_BYTES
from echo.groups.connection import GroupConnection
from echo.groups.group import send_to_group
from echo.members import Key, check_key, encode_info, sorted_members
from echo.members import Member as Member
from echo.names import check_name
from echo.state import get_state
from echo.state.base import State

Scope = Mapping[str, Any]  # of a consumer in `counted`: `self.scope`

# The server sends these two if a client violates the protocol.
VIOLATION_CODES = {1002, 1007}


class NamedObject:
    """A name that connections share. Nothing is created or stored for it.

    Each method has an async version: `acount`, `amembers`, `asend` and so on.
    """

    def __init__(self, name: str) -> None:
        self.name = check_name(name)

    def count(self) -> int:
        """Return the current number of connections of the object (0 or more).

        Raises StateUnavailable if the count is unknown.
        """
        return get_state().count(self.name)

    async def acount(self) -> int:
        """Async version of `count`."""
        return await get_state().acount(self.name)

    def is_occupied(self) -> bool:
        """Return whether the object has a connection now.

        Raises StateUnavailable as `count` does.
        """
        return self.count() > 0

    async def ais_occupied(self) -> bool:
        """Async version of `is_occupied`."""
        return await self.acount() > 0

    def members(self) -> list[Member]:
        """Return the members of the object, those with the longest presence first.

        All connections of a member, in all processes, are one Member, with the newest info. The
        list is empty unless the object's `counted` has the argument `member`. Raises
        StateUnavailable if the members are unknown.
        """
        return sorted_members(get_state().members(self.name))

    async def amembers(self) -> list[Member]:
        """Async version of `members`."""
        return sorted_members(await get_state().amembers(self.name))

    def member_count(self) -> int:
        """Return the number of members: of people, not of their connections.

        Raises StateUnavailable if it is unknown.
        """
        return get_state().member_count(self.name)

    async def amember_count(self) -> int:
        """Async version of `member_count`."""
        return await get_state().amember_count(self.name)

    def has_member(self, key: Key) -> bool:
        """Return whether the member has a connection to the object now.

        Raises StateUnavailable if that is unknown, and TypeError or ValueError for an invalid key.
        """
        return get_state().member(self.name, check_key(key)) is not None

    async def ahas_member(self, key: Key) -> bool:
        """Async version of `has_member`."""
        return await get_state().amember(self.name, check_key(key)) is not None

    def send(self, text: str, *, member: Key | None = None, exclude: Scope | None = None) -> None:
        """Send the text to all connections of the object, in every process on the channel layer.

        With `member`, only to the connections of that member. `exclude` is the scope of a consumer,
        whose connection does not receive the text. Without CHANNEL_LAYERS, send it only to the
        connections of this process. The text does not pass through the consumers. Raises the
        exceptions of the channel layer, and TypeError or ValueError for an invalid argument.
        """
        async_to_sync(self.asend)(text, member=member, exclude=exclude)

    async def asend(
        self, text: str, *, member: Key | None = None, exclude: Scope | None = None
    ) -> None:
        """Async version of `send`."""
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is not a string.")
        key = None if member is None else check_key(member)
        excluded = None if exclude is None else _connection(exclude).id
        await send_to_group(self.name, {"type": "websocket.send", "text": text}, key, excluded)

    def close(self, code: int = 1000, reason: str = "", *, member: Key | None = None) -> None:
        """Close all connections of the object, in the same processes as `send`.

        With `member`, close only the connections of that member. The consumers receive
        `websocket.disconnect`. Raises ValueError if the code may not be sent, or if the reason is
        longer than 123 bytes. Stock Daphne can send only 1000 and 3000 to 4999: it sends other
        codes plus 3000, for example 4001 instead of 1001.
        """
        async_to_sync(self.aclose)(code, reason, member=member)

    async def aclose(
        self, code: int = 1000, reason: str = "", *, member: Key | None = None
    ) -> None:
        """Async version of `close`."""
        if code not in CLOSE_CODES - VIOLATION_CODES:
            raise ValueError(f"{code!r} may not be sent; use 1000, or 3000 to 4999 of your own.")
        if len(reason.encode()) > MAX_REASON_BYTES:
            raise ValueError(f"The reason {reason!r} has more than 123 bytes of UTF-8.")
        event = {"type": "websocket.close", "code": code, "reason": reason}
        key = None if member is None else check_key(member)
        await send_to_group(self.name, event, key)


def get_object(name: str) -> NamedObject:
    """Return the object of that name. Raises InvalidName for an invalid name."""
    return NamedObject(name)


def connected_objects(prefix: str = "") -> dict[str, int]:
    """Return the counts of all connected objects, sorted by name: `{"foo": 2}`.

    Only names that begin with `prefix` are included. Raises StateUnavailable as `count` does.
    """
    return _sorted(get_state().counts(), prefix)


async def aconnected_objects(prefix: str = "") -> dict[str, int]:
    """Async version of `connected_objects`."""
    return _sorted(await get_state().acounts(), prefix)


def set_member_info(scope: Scope, info: Mapping[str, Any]) -> bool:
    """Merge `info` into the info of the member behind a connection. Then all readers see it.

    `scope` is that of the consumer of a counted connection: `{"typing": True}` adds or replaces one
    item, and each connection of the member shows it. Returns False, and does nothing, if the
    connection has no member or is closed. Raises TypeError or ValueError if the merged info is not
    JSON or too large.
    """
    return async_to_sync(aset_member_info)(scope, info)


async def aset_member_info(scope: Scope, info: Mapping[str, Any]) -> bool:
    """Async version of `set_member_info`."""
    encode_info(info)
    connection, state = _connection(scope), get_state()
    results = [await _set_info(state, connection, name, info) for name in connection.names]
    await state.settled()
    return any(results)


async def _set_info(
    state: State, connection: GroupConnection, name: str, info: Mapping[str, Any]
) -> bool:
    key = connection.key
    if key is None:
        return False
    shared = None
    with suppress(StateUnavailable):
        shared = await state.amember(name, key)
    local = state.local_member(name, key)  # after the await: another task may have changed it
    if local is None or connection.key is None:
        return False
    newest = max(local, shared or local, key=lambda presence: presence.changed)
    merged = encode_info({**json.loads(newest.info), **info})
    return state.set_info(name, key, merged, newest.changed)


def _connection(scope: Scope) -> GroupConnection:
    try:
        connection: GroupConnection = scope[CONNECTION]
    except KeyError:
        raise ValueError("The scope is not that of a consumer in counted().") from None
    return connection


def _sorted(counts: dict[str, int], prefix: str) -> dict[str, int]:
    return {name: counts[name] for name in sorted(counts) if name.startswith(prefix)}
